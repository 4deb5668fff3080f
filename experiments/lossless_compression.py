"""Lossless compression of MNIST by VAEs, beside gzip, bz2, xz, zstd, PNG and WebP.

Two VAEs are trained: one of binary pixels (p(x|z) is Bernoulli) on dynamically binarised images, and one of grey bytes
(p(x|z) is a mixture of discretised logistics). `vj.compress` writes the test images to a file by bits-back coding
(Townsend et al., 2019), once statically binarised and once grey, and `vj.decompress` reads them back. The length of the
file, with its header and the initial bits, is compared with the negative ELBO, which is its expected length up to
rounding, and with -log p(x), the length of an ideal code.

The general compressors get the pixels of all images in one piece; binary pixels as one bit each or one byte each,
whichever is shorter. The image formats get one image at a time, or mosaics of 100 images.
"""

import bz2
import functools
import gzip
import io
import lzma
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from harness.estimates import estimate
from harness.options import Options, TrainingOptions
from harness.recipe import Trained, kl_warm_up
from harness.report import Report
from harness.run import Run
from harness.script import run_script
from matplotlib.figure import Figure
from PIL import Image

import vae_jax as vj
from vae_jax.errors import require_positive_int
from vae_jax.plotting.pixels import tile

SHOWN = 8  # number of images in the picture of the bits
MOSAIC = 10  # images on a side of a mosaic
KL_WARM_UP = 1 / 8  # share of the steps in which the weight of the KL increases linearly from 0 to 1


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    latent_dim: int = 40
    """Number of latent dimensions."""
    hidden: tuple[int, ...] = (300, 300)
    """Widths of the encoder's gated hidden layers; the decoder reverses their order."""
    components: int = 2
    """Number of logistic components of each grey pixel."""
    samples: int = 100
    """Number of importance samples in the estimate of log p(x) of each test image."""
    out: Path = Path("runs/lossless_compression")
    """Folder for the report, the pictures and the compressed files."""
    training: TrainingOptions = TrainingOptions(learning_rate=2e-3)


class Kind(NamedTuple):
    """Pixels of a kind, and how they are modelled.

    Attributes:
      likelihood: Likelihood p(x|z) of a pixel.
      transform: Transform of the test images.
      train_transform: Transform of the training images.
      share: Share of `--epochs` for which the model is trained: 1 for binary pixels, which are drawn anew each epoch,
        and less for grey ones, which are the same in each epoch.
    """

    likelihood: vj.Likelihood
    transform: Any
    train_transform: Any
    share: float


def main(config: Config) -> Report:
    """Train the models, compress the test images, and write the pictures and the report."""
    widths = {f"hidden[{i}]": width for i, width in enumerate(config.hidden)}
    require_positive_int(latent_dim=config.latent_dim, components=config.components, samples=config.samples, **widths)
    run = Run.start("lossless_compression", config, epochs=60, batch_size=250)
    kinds = {
        "binary": Kind(vj.Bernoulli(), vj.StaticBinarize(0), vj.Binarize(), 1),
        "grey": Kind(vj.MixtureOfLogistics(config.components), vj.Scale(), vj.Scale(), 1 / 4),
    }
    results, costs = {}, {}
    for key, (name, kind) in zip(jax.random.split(run.key, len(kinds)), kinds.items(), strict=True):
        train_key, measure_key, pixel_key = jax.random.split(key, 3)
        trained = train(train_key, kind, run, config, name)
        results[name] = measure(measure_key, name, kind, trained, run, config)
        costs[name] = cost_of_pixels(pixel_key, trained, levels_of(run.data.test, kind)[:SHOWN])
        print(table(name, results[name]))
    run.save("rates", bars(results, f"The test images of {run.data_and_seed}, in bits per pixel"))
    text = "Cost of test images: -log2 p(x|z) of each pixel; below, the sum over pixels + KL of z"
    run.save("bits", maps(costs, f"{text}; {run.data_and_seed}"))
    return run.report({"label": f"bits per pixel, {run.data_and_seed}", "samples": config.samples, "kinds": results})


def train(key: jax.Array, kind: Kind, run: Run, config: Config, title: str) -> Trained:
    """Train a dense VAE with gated layers."""
    event_shape = run.data.event_shape
    vae = vj.VAE(
        encoder=vj.Gated(config.hidden, vj.DiagonalGaussian.output_shape(config.latent_dim)),
        decoder=vj.Gated(tuple(reversed(config.hidden)), kind.likelihood.output_shape(event_shape)),
        event_shape=event_shape,
        latent_dim=config.latent_dim,
        likelihood=kind.likelihood,
    )
    run = replace(run, epochs=max(1, int(kind.share * run.epochs)))
    return run.train(
        key,
        vae,
        vj.ELBO(beta=kl_warm_up(KL_WARM_UP, run.steps)),
        transform=kind.transform,
        train_transform=kind.train_transform,
        title=title,
    )


def levels_of(split: vj.Split, kind: Kind) -> np.ndarray:
    """The pixels of a split as whole numbers, in bytes; the transforms of this script need no key."""
    x = np.asarray(vj.transform_all(jax.random.key(0), split, transform=kind.transform))
    return np.round(x / kind.transform.support.spacing).astype(np.uint8)


def measure(key: jax.Array, name: str, kind: Kind, trained: Trained, run: Run, config: Config) -> dict[str, Any]:
    """The rates of the test images by `vj.compress`, by the bounds and by the other compressors."""
    elbo_key, weight_key = jax.random.split(key)
    vae, variables, images = trained.model, trained.variables, levels_of(run.data.test, kind)
    terms = vj.evaluate(elbo_key, vae, variables, run.data.test, transform=kind.transform)
    x = vj.transform_all(jax.random.key(0), run.data.test, transform=kind.transform)
    log_px = vj.log_likelihood(weight_key, vae, variables, x, config.samples)
    bits = 1 / (np.log(2) * images[0].size)
    size, seconds = round_trip(run.options.out / f"{run.name}_{name}.vae", trained, images)
    rate = 8 * size / images.size
    elbo = vj.mean_and_stderr(bits * np.asarray(terms.kl - terms.log_px_z))
    sizes = {baseline: compressor(images) for baseline, compressor in compressors(kind).items()}
    return {
        "bytes": size,
        "bits_per_pixel": rate,
        "rate_over_negative_elbo": rate / elbo.mean,
        "negative_elbo": elbo._asdict(),
        "negative_log_px": estimate(-bits * np.asarray(log_px)),
        "kl": vj.mean_and_stderr(bits * np.asarray(terms.kl)).mean,
        "images_per_second": {step: len(images) / of_step for step, of_step in seconds.items()},
        "others": {baseline: 8 * size / images.size for baseline, size in sizes.items()},
        "training_seconds": sum(record["seconds"] for record in trained.history),
    }


def round_trip(path: Path, trained: Trained, images: np.ndarray) -> tuple[int, dict[str, float]]:
    """Compress and decompress images: the size of the file in bytes, and the seconds of both.

    Raises:
      RuntimeError: Other images came back.
    """
    started = time.perf_counter()
    vj.compress(path, trained.model, trained.variables, images)
    written = time.perf_counter()
    back = vj.decompress(path, trained.model, trained.variables)
    seconds = {"compress": written - started, "decompress": time.perf_counter() - written}
    if not np.array_equal(back, images):
        raise RuntimeError(f"{path} was decompressed to other images than were compressed")
    return path.stat().st_size, seconds


def compressors(kind: Kind) -> Mapping[str, Callable[[np.ndarray], int]]:
    """Functions from images in bytes [n, height, width, 1] to the size of the compressed images in bytes."""
    import zstandard  # imported here, because the other scripts do not need it

    general: dict[str, Callable[[bytes], bytes]] = {
        "gzip": functools.partial(gzip.compress, compresslevel=9),
        "bz2": bz2.compress,
        "xz": functools.partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME),
        "zstd": zstandard.ZstdCompressor(level=22).compress,
    }
    is_binary = kind.likelihood.support.levels == 2
    formats = {
        "PNG": functools.partial(saved, mode="1" if is_binary else "L", format="PNG", optimize=True),
        "WebP": functools.partial(saved, mode="RGB", format="WebP", lossless=True, quality=100, method=6),
    }
    scale = 255 if is_binary else 1
    return (
        {name: functools.partial(in_one_piece, compress, is_binary) for name, compress in general.items()}
        | {f"{name}, each": functools.partial(one_by_one, save, scale) for name, save in formats.items()}
        | {f"{name}, mosaics": functools.partial(as_mosaics, save, scale) for name, save in formats.items()}
    )


def in_one_piece(compress: Callable[[bytes], bytes], is_binary: bool, images: np.ndarray) -> int:
    """The size of all pixels together; binary pixels are also tried as one bit each."""
    pieces = [images.tobytes()] + ([np.packbits(images).tobytes()] if is_binary else [])
    return min(len(compress(piece)) for piece in pieces)


def one_by_one(save: Callable[[np.ndarray], int], scale: int, images: np.ndarray) -> int:
    """The size of one file per image."""
    return sum(save(scale * image) for image in images)


def as_mosaics(save: Callable[[np.ndarray], int], scale: int, images: np.ndarray) -> int:
    """The size of one file per mosaic of images."""
    starts = range(0, len(images), MOSAIC**2)
    return sum(save(scale * tile(images[start : start + MOSAIC**2], MOSAIC)) for start in starts)


def saved(image: np.ndarray, mode: str, **settings: Any) -> int:
    """The size of a grey image [height, width, 1] in a format of Pillow."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).convert(mode).save(file, **settings)
    return len(file.getvalue())


def cost_of_pixels(key: jax.Array, trained: Trained, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images in [0, 1], -log p of each pixel given a sample of z [n, height, width], and the KL of z [n], in bits."""
    vae, variables = trained.model, trained.variables
    x = (images * vae.likelihood.support.spacing).astype(np.float32)

    @jax.jit
    def nats(x: jax.Array, levels: jax.Array) -> tuple[jax.Array, jax.Array]:
        posterior: Any = vae.encode(variables, x)
        px_z: Any = vae.decode(variables, posterior.sample(key))
        return -jnp.log(jnp.take_along_axis(px_z.pmf(), levels, axis=-1)), posterior.kl().sum(axis=-1)

    of_pixels, kl = nats(x, images[..., None].astype(np.int32))
    return x, np.asarray(of_pixels[..., 0, 0]) / np.log(2), np.asarray(kl) / np.log(2)


def table(name: str, numbers: dict[str, Any]) -> str:
    """The numbers of one kind of pixels, as text."""
    speed = numbers["images_per_second"]
    rates = {
        "vj.compress": numbers["bits_per_pixel"],
        "-ELBO": numbers["negative_elbo"]["mean"],
        "-log p(x)": numbers["negative_log_px"]["mean"],
    } | numbers["others"]
    lines = [
        f"{name} pixels, bits per pixel: {numbers['bytes']:,} bytes, {numbers['rate_over_negative_elbo']:.4f} of -ELBO"
    ]
    lines += [f"  {method:<14} {rate:.4f}" for method, rate in rates.items()]
    return "\n".join([*lines, f"  {speed['compress']:.0f} images/s compressed, {speed['decompress']:.0f} decompressed"])


def bars(results: dict[str, dict[str, Any]], title: str) -> Figure:
    """A bar for each compressor, with -ELBO as a line."""
    figure = Figure(figsize=(9.2, 3.6), layout="constrained")
    for axes, (name, numbers) in zip(figure.subplots(1, len(results)), results.items(), strict=True):
        rates = dict(sorted(numbers["others"].items(), key=lambda item: -item[1])) | {"VAE": numbers["bits_per_pixel"]}
        colours = [vj.plot.COLOURS[5]] * (len(rates) - 1) + [vj.plot.COLOURS[0]]
        shown = axes.barh(list(rates), list(rates.values()), color=colours)
        axes.bar_label(shown, fmt="%.3f", padding=3, fontsize="small")
        axes.axvline(numbers["negative_elbo"]["mean"], color="black", linewidth=1, linestyle="--", label="-ELBO")
        axes.set(xlabel="bits per pixel", xlim=(0, 1.15 * max(rates.values())), title=f"{name} pixels")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper right")
    figure.suptitle(title, fontsize="medium")
    return figure


def maps(costs: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]], title: str) -> Figure:
    """Images above the bits of their pixels, with the bits of all pixels and of the latents."""
    width, height = max(len(x) for x, _, _ in costs.values()), 2 * len(costs)
    figure = Figure(figsize=(9.2, 1.4 * height), layout="constrained")
    grid = figure.subplots(height, width, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for number, (name, (x, bits, kl)) in enumerate(costs.items()):
        above, below = grid[2 * number], grid[2 * number + 1]
        most = float(np.quantile(bits, 0.999))
        for column in range(len(x)):
            above[column].imshow(x[column, ..., 0], cmap="gray_r", vmin=0, vmax=1)
            shown = below[column].imshow(bits[column], cmap="magma_r", vmin=0, vmax=most)
            below[column].set_xlabel(f"{bits[column].sum():.0f} + {kl[column]:.0f} bits", fontsize="small")
        above[0].set_ylabel(name)
        below[0].set_ylabel("bits")
        figure.colorbar(shown, ax=list(below), label="bits per pixel", pad=0.01)
    figure.suptitle(title, fontsize="medium")
    return figure


if __name__ == "__main__":
    run_script(main, Config)
