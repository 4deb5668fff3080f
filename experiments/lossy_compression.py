"""Lossy compression of images by the quantised latents of an autoencoder and of a VAE, beside PCA, JPEG and WebP.

Every method but JPEG and WebP transforms an image to numbers, rounds them to multiples of a step, and codes the whole
numbers with the same entropy coder and with the frequencies that they have in the training images. The transforms are
the encoder of a plain autoencoder, the means of q(z|x) of a VAE, and all principal components. The steps of the
autoencoder are proportional to the standard deviation of each latent, those of the VAE to the mean standard deviation
of q(z|x) in each dimension, which is the noise that its decoder was trained with. Those of PCA are equal, which is
optimal for Gaussian data at high rates. A factor of the steps takes each method through its rates.

JPEG and WebP get mosaics of 100 images, so that headers do not count. Rates include neither the models nor the
tables of frequencies, which the receiver has. `--dataset celeba` has the faces, reduced to 32 x 32 pixels.
"""

import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from harness.images import as_rows, in_unit, scaled
from harness.options import Options, TrainingOptions
from harness.recipe import Trained
from harness.report import Report
from harness.run import Run
from harness.script import run_script
from matplotlib.figure import Figure
from PIL import Image

import vae_jax as vj
from vae_jax.errors import require_positive, require_positive_int
from vae_jax.plotting.pixels import tile

MOSAIC = 10  # images on a side of a mosaic
FACTORS = 2.0 ** np.linspace(-3, 3, 13)  # of the steps
QUALITIES = (0, 1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 65, 80, 92)  # of JPEG and WebP
KNOWN = 20_000  # largest number of training images whose frequencies are counted
SHOWN = 8  # number of images in the picture


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    latent_dim: int | None = None
    """Number of latent dimensions. The default is 64 for grey images and 96 for images in colour."""
    hidden: tuple[int, ...] = (1024, 512)
    """Widths of the dense layers of the encoders of grey images; the decoders reverse their order."""
    channels: tuple[int, ...] = (32, 64, 128)
    """Numbers of channels of the convolutions of the encoders of images in colour; the decoders reverse their order."""
    size: int = 32
    """Height and width of images in colour, which are reduced to it by averaging blocks of pixels."""
    images: int = 2_000
    """Largest number of test images."""
    rate: float = 0.25
    """Rate in bits per pixel at which the methods are compared."""
    out: Path = Path("runs/lossy_compression")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=2e-3)


class Transform(NamedTuple):
    """A transform of images to numbers and back.

    Attributes:
      encode: Function from bytes [n, *event] to numbers [n, Z].
      decode: Function from numbers [n, Z] to pixels in [0, 1], [n, *event].
      step: Step of the quantisation of each number, which is multiplied by `FACTORS`, [Z].
    """

    encode: Callable[[np.ndarray], np.ndarray]
    decode: Callable[[np.ndarray], np.ndarray]
    step: np.ndarray


class Point(NamedTuple):
    """One setting of a method.

    Attributes:
      rate: Bits per pixel, height times width.
      psnr: 10 log10(1 / mean squared error), in dB, of pixels in [0, 1].
      images: The first decompressed images, as bytes.
    """

    rate: float
    psnr: float
    images: np.ndarray


def main(config: Config) -> Report:
    """Train the models, compress the test images at several rates, and write the pictures and the report."""
    require_options(config)
    run = reduced(Run.start("lossy_compression", config, epochs=20, batch_size=128, small=0), config.size)
    known, test = run.data.train.images[:KNOWN], run.data.test.images[: config.images]
    (ae_init_key, ae_key), (vae_init_key, vae_key) = map(jax.random.split, jax.random.split(run.key))
    models = (
        model_and_start(ae_init_key, run, config, vj.Delta),
        model_and_start(vae_init_key, run, config, vj.DiagonalGaussian),
    )
    autoencoder, vae = (train(key, run, *each) for key, each in zip((ae_key, vae_key), models, strict=True))
    transforms = {
        "VAE": latents_of(vae, known),
        "autoencoder": latents_of(autoencoder, known),
        "PCA": principal_components(known),
    }
    points = {name: quantised(transform, known, test) for name, transform in transforms.items()}
    points |= {name: mosaics(test, name) for name in ("JPEG", "WebP")}
    at_rate = {name: psnr_at(curve, config.rate) for name, curve in points.items()}
    label = f"{run.data_and_seed}, {len(test):,} test images of {test.shape[1]} x {test.shape[2]} pixels"
    print(f"{label}: PSNR in dB at {config.rate:g} bits per pixel")
    print("\n".join(f"  {name:<12} {'-' if psnr is None else f'{psnr:.2f}'}" for name, psnr in at_rate.items()))
    run.save("curves", chart(points, config.rate, f"Rate and distortion, {label}"))
    run.save(
        "images",
        pictures(
            points, test, config.rate, f"Test images at about {config.rate:g} bits per pixel; {run.data_and_seed}"
        ),
    )
    return run.report(
        {
            "label": label,
            "rate": config.rate,
            "psnr_at_rate": at_rate,
            "curves": {name: [(point.rate, point.psnr) for point in curve] for name, curve in points.items()},
            "seconds_per_epoch": {"ae": autoencoder.seconds_per_epoch, "vae": vae.seconds_per_epoch},
        }
    )


def require_options(config: Config) -> None:
    """Raise `InputError` unless the sizes and the rate can be used."""
    widths = {f"hidden[{i}]": width for i, width in enumerate(config.hidden)}
    latent_dim = 1 if config.latent_dim is None else config.latent_dim
    require_positive_int(latent_dim=latent_dim, size=config.size, images=config.images, **widths)
    require_positive(rate=config.rate)


def reduced(run: Run, size: int) -> Run:
    """The run with images in colour reduced to `size` x `size` pixels."""
    height, width, channels = run.data.event_shape
    if channels == 1 or height == width == size:
        return run
    if height % size or width % size:
        raise vj.InputError(f"size is {size} for images of {height} x {width} pixels; expected a divisor of both")

    def smaller(split: vj.Split) -> vj.Split:
        blocks = split.images.reshape(-1, size, height // size, size, width // size, channels)
        return replace(split, images=np.round(blocks.mean(axis=(2, 4), dtype=np.float32)).astype(np.uint8))

    train, test = smaller(run.data.train), smaller(run.data.test)
    return replace(run, data=replace(run.data, train=train, test=test, validation=None))


def model_and_start(key: jax.Array, run: Run, config: Config, posterior: Any) -> tuple[vj.VAE, dict[str, Any] | None]:
    """The VAE or, with `Delta`, the plain autoencoder, and the variables from which it starts if they are not drawn.

    The Gaussian likelihood of the VAE has the optimal variance (Rybkin et al., 2021). The models of images in colour
    have linear paths, so that the VAE starts at probabilistic PCA.
    """
    shape = run.data.event_shape
    likelihood = vj.Gaussian() if posterior is vj.Delta else vj.OptimalGaussian()
    if shape[-1] == 1:
        return vj.mlp_vae(shape, config.latent_dim or 64, config.hidden, likelihood, posterior), None
    model = vj.conv_vae(shape, config.latent_dim or 96, config.channels, likelihood, posterior, linear=True)
    if posterior is vj.Delta:
        return model, None
    return model, vj.start_at_pca(model, model.init(key), scaled(run.data.train))


def train(key: jax.Array, run: Run, model: vj.VAE, start: dict[str, Any] | None) -> Trained:
    """Train a model, on randomly mirrored images if they are in colour."""
    plain = model.posterior is vj.Delta
    objective = vj.Reconstruction() if plain else vj.ELBO()
    train_transform = vj.Scale() if run.data.event_shape[-1] == 1 else vj.Mirrored()
    title = "autoencoder" if plain else "VAE"
    return run.train(key, model, objective, train_transform=train_transform, variables=start, title=title)


def latents_of(trained: Trained, known: np.ndarray) -> Transform:
    """The transform of a model, with steps from its encodings of known images."""
    unused = jax.random.key(0)  # `Scale` is not random

    def encode(images: np.ndarray) -> Any:
        return vj.encode_all(unused, trained.model, trained.variables, vj.Split(images))

    def decode(z: np.ndarray) -> np.ndarray:
        return trained.decode(z.astype(np.float32))

    posterior = encode(known)
    plain = trained.model.posterior is vj.Delta
    step = 0.5 * posterior.mean.std(axis=0) if plain else 3.5 * np.sqrt(np.mean(posterior.variance, axis=0))
    return Transform(lambda images: np.asarray(encode(images).mean), decode, np.asarray(step))


def principal_components(known: np.ndarray) -> Transform:
    """PCA with all components of the known images, which are orthonormal."""
    from sklearn.decomposition import PCA  # imported here, because it takes a second to load

    shape = known.shape[1:]
    pca = PCA(svd_solver="covariance_eigh").fit(as_rows(in_unit(known)))
    decode: Callable[[np.ndarray], np.ndarray] = lambda z: pca.inverse_transform(z).reshape(-1, *shape)  # noqa: E731
    return Transform(lambda images: pca.transform(as_rows(in_unit(images))), decode, np.full(pca.n_components_, 0.5))


def quantised(transform: Transform, known: np.ndarray, images: np.ndarray) -> list[Point]:
    """A point of the curve for each factor of the steps."""
    of_known, of_images = transform.encode(known), transform.encode(images)
    points = []
    for step in np.outer(FACTORS, transform.step):
        levels, size = coded(np.round(of_known / step).astype(np.int64), np.round(of_images / step).astype(np.int64))
        points.append(point(as_bytes(transform.decode(levels * step)), images, size))
    return points


def coded(known: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, int]:
    """The whole numbers [n, Z] after an entropy coder, and the number of bytes in between.

    The coder has the frequencies of each column of `known`, plus one for each value in its range; other values become
    the nearest one in it.
    """
    from constriction import stream  # imported here, as the other scripts do not need it

    low, high = known.min(axis=0), known.max(axis=0)
    offsets = (np.clip(levels, low, high) - low).astype(np.int32)
    varying = [column for column in range(len(low)) if low[column] < high[column]]
    counts = {column: np.bincount(known[:, column] - low[column]) + 1.0 for column in varying}
    tables = {column: stream.model.Categorical(of / of.sum(), perfect=False) for column, of in counts.items()}
    coder = stream.stack.AnsCoder()
    for column in reversed(varying):
        coder.encode_reverse(np.ascontiguousarray(offsets[:, column]), tables[column])
    size, decoded = 4 * coder.num_words(), np.zeros_like(offsets)
    for column in varying:
        decoded[:, column] = coder.decode(tables[column], len(levels))
    return decoded + low, size


def mosaics(images: np.ndarray, name: str) -> list[Point]:
    """A point of the curve for each quality of JPEG or WebP, which gets mosaics of images."""
    return [of_quality(images, name, quality) for quality in QUALITIES]


def of_quality(images: np.ndarray, name: str, quality: int) -> Point:
    """Compress mosaics of images as JPEG or WebP and read them back."""
    settings = {"optimize": True} if name == "JPEG" else {"method": 6}
    size, decoded = 0, []
    for start in range(0, len(images), MOSAIC**2):
        part = images[start : start + MOSAIC**2]
        file = io.BytesIO()
        Image.fromarray(tile(part, MOSAIC).squeeze()).save(file, name, quality=quality, **settings)
        size += len(file.getvalue())
        mode = "L" if images.shape[-1] == 1 else "RGB"
        decoded.append(cut(np.asarray(Image.open(file).convert(mode)), part.shape))
    return point(np.concatenate(decoded), images, size)


def cut(sheet: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The images of a mosaic by `tile`, [n, height, width, channels]."""
    count, height, width, channels = shape
    blocks = sheet.reshape(-1, height, MOSAIC, width, channels).swapaxes(1, 2)
    return blocks.reshape(-1, height, width, channels)[:count]


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1], rounded to bytes."""
    return np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)


def point(decoded: np.ndarray, images: np.ndarray, size: int) -> Point:
    """The rate and the distortion of decompressed images that took `size` bytes."""
    error = np.mean((in_unit(decoded) - in_unit(images)) ** 2)
    return Point(8 * size / images[..., 0].size, float(-10 * np.log10(error)), decoded[:SHOWN])


def psnr_at(curve: list[Point], rate: float) -> float | None:
    """The PSNR at a rate, linear between two points; None if the curve does not reach the rate."""
    rates, psnrs = in_order(curve)
    return float(np.interp(rate, rates, psnrs)) if rates[0] <= rate <= rates[-1] else None


def in_order(curve: list[Point]) -> tuple[list[float], list[float]]:
    """The rates of a curve, in increasing order, and their PSNRs."""
    ordered = sorted(curve, key=lambda of: of.rate)
    return [of.rate for of in ordered], [of.psnr for of in ordered]


def chart(points: dict[str, list[Point]], rate: float, title: str) -> Figure:
    """PSNR against the rate of each method, around the rate at which they are compared."""
    figure, axes = vj.plot.single_axes(title)
    for (name, curve), colour in zip(points.items(), itertools.cycle(vj.plot.COLOURS), strict=False):
        axes.plot(*in_order(curve), "-o", markersize=3, color=colour, label=name)
    shown = [of.psnr for curve in points.values() for of in curve if rate / 8 <= of.rate <= 8 * rate]
    axes.axvline(rate, color="black", linewidth=1, linestyle="--")
    axes.set(xlabel="bits per pixel", ylabel="PSNR in dB", xscale="log", xlim=(rate / 8, 8 * rate))
    axes.set_ylim(min(shown, default=0) - 1, max(shown, default=1) + 1)
    axes.legend(frameon=False)
    return figure


def pictures(points: dict[str, list[Point]], test: np.ndarray, rate: float, title: str) -> Figure:
    """A column for each method, at the setting whose rate is nearest to `rate`, beside the test images."""
    nearest = {name: min(curve, key=lambda of: abs(of.rate - rate)) for name, curve in points.items()}
    columns = [test[:SHOWN], *(of.images for of in nearest.values())]
    headings = ["original", *(f"{name}\n{of.rate:.2f} bits\n{of.psnr:.1f} dB" for name, of in nearest.items())]
    return vj.plot.rows(in_unit(np.stack(columns, axis=1)), headings, title)


if __name__ == "__main__":
    run_script(main, Config)
