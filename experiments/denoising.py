"""Denoising with autoencoders: images with Gaussian noise, salt and pepper, or a missing block.

A denoising autoencoder (Vincent et al., 2008) and a denoising VAE (Im et al., 2017) are trained to return clean images,
one model for all kinds of noise; a VAE (Kingma and Welling, 2014) is trained on clean images alone. The VAEs are
trained for a quarter of the epochs to save time; their results are therefore not comparable with those of the
autoencoder. The outputs, E[x|z] at the mean of q(z|noisy image), are compared with

* the best linear denoiser: for Gaussian noise the Wiener filter with the full covariance of the training images, for
  salt and pepper least squares on noisy and clean training images, for a missing block the conditional mean of a
  Gaussian with the covariance of the first 300 principal components or fewer,
* the projection on principal components, a median filter, non-local means (Buades et al., 2005), and total variation
  (Chambolle, 2004).

The strength of each of these, and the best of them, are chosen for each kind of noise on training images that no model
is fitted to. All methods are measured on the same test images by PSNR (peak 1, outputs clipped to [0, 1], mean over the
images) and SSIM (Wang et al., 2004). The place of a missing block is known, so every method keeps the other pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from harness.estimates import means_and_errors
from harness.images import as_rows, scaled
from harness.options import Options, TrainingOptions
from harness.recipe import averaged_adamw
from harness.report import Report
from harness.run import Run
from harness.script import run_script
from matplotlib.figure import Figure

import vae_jax as vj
from vae_jax.errors import require_not_negative, require_positive_int

MODELS = {
    "VAE of clean images": vj.DiagonalGaussian,
    "denoising VAE": vj.DiagonalGaussian,
    "denoising autoencoder": vj.Delta,
}
CLEAN, _, COMPARED = MODELS  # the model of clean images, and the one that is compared with the best baseline
VAE_SHARE = 0.25  # number of epochs of each VAE, as a share of those of the autoencoder
FEATURES = (32, 64, 128)  # numbers of channels of the encoders of colour images
HELD_OUT = 200  # largest number of training images on which the baselines are tuned
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)  # variances that a linear denoiser adds in each direction
DIMENSIONS = (4, 8, 12, 16, 20, 25, 30, 40, 50, 60, 80, 100, 125, 150, 200, 250, 300)  # of PCA
SIZES = (3, 5, 7)  # sides of a median filter, in pixels
WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.7, 1.0, 1.5)  # of total variation
PATCHES = tuple((size, h) for size in (3, 5) for h in (0.05, 0.1, 0.2, 0.3, 0.45, 0.7, 1.0))  # of non-local means
GREY = 0.5  # value of missing pixels, which no byte has
SHOWN = 16  # number of images of each kind of noise in the picture

Denoiser = Callable[[np.ndarray, Any], np.ndarray]
"""Function from noisy images [n, height, width, channels] and a strength to images."""


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    sigmas: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Standard deviations of the Gaussian noise, for pixels in [0, 1]; 0 leaves this noise out."""
    salt_pepper: float = 0.3
    """Share of the pixels that salt and pepper sets to 0 or 1, equally often; 0 leaves this noise out."""
    block: int | None = None
    """Side of the missing square, in pixels; 0 leaves this noise out. The default is three eighths of the height."""
    images: int | None = None
    """Number of test images, evenly spaced, on which all methods are measured. The default is 1,000, and 200 of colour
    images."""
    latent_dim: int = 500
    """Number of latent dimensions of all models."""
    hidden: tuple[int, ...] = (1000,)
    """Widths of the hidden layers of the encoders; the decoders reverse their order. Models of colour images are
    convolutional."""
    out: Path = Path("runs/denoising")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=1.5e-3)


class Noise(NamedTuple):
    """A kind of noise: Gaussian noise of standard deviation `sigma`, salt and pepper, or a missing block."""

    sigma: float = 0.0
    share: float = 0.0
    block: int = 0

    def __str__(self) -> str:
        """Description for titles."""
        texts = (
            f"Gaussian, sigma {self.sigma:g}",
            f"salt and pepper, {self.share:.0%}",
            f"missing {self.block} x {self.block} pixels",
        )
        return ", ".join(text for text, level in zip(texts, self, strict=True) if level)


@vj.value
class Noisy(vj.Scale):
    """Transform of a denoiser: noisy grey values as inputs, clean ones as targets.

    Attributes:
      kinds: Kinds of noise, of which each example has one at random.
    """

    kinds: tuple[Noise, ...] = ()

    def __call__(self, keys: jax.Array, images: jax.Array, labels: jax.Array | None = None) -> vj.Batch:
        """x = noisy images, target = clean images."""
        clean = super().__call__(keys, images, labels)
        return vj.Batch(jax.vmap(self._noisy)(keys, clean.x), target=clean.x, label=labels)

    def _noisy(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """The image with noise of a random kind; noise that no kind has is not computed."""
        kind_key, gauss_key, salt_key, place_key = jax.random.split(key, 4)
        kind = jax.random.randint(kind_key, (), 0, len(self.kinds))
        sigma, share, block = (jnp.asarray(levels)[kind] for levels in zip(*self.kinds, strict=True))
        if any(noise.sigma for noise in self.kinds):
            image = image + sigma * jax.random.normal(gauss_key, image.shape)
        if any(noise.share for noise in self.kinds):
            u = jax.random.uniform(salt_key, (*image.shape[:2], 1))  # the same for all channels of a pixel
            image = jnp.where(u < share, jnp.where(u < share / 2, 0.0, 1.0), image)
        if any(noise.block for noise in self.kinds):
            offsets = jnp.indices(image.shape[:2]) - jax.random.randint(
                place_key, (2, 1, 1), 0, jnp.array(image.shape[:2]).reshape(2, 1, 1) - block + 1
            )
            image = jnp.where(((offsets >= 0) & (offsets < block)).all(axis=0)[..., None], GREY, image)
        return image


def main(config: Config) -> Report:
    """Train the models, measure them and the baselines, and write the pictures and the report."""
    require_levels(config)
    run = Run.start("denoising", config, epochs=30, batch_size=128)
    kinds = kinds_of_noise(config, run.data.event_shape)
    run, held_out = without_held_out(run)
    noise_key, *train_keys = jax.random.split(run.key, 1 + len(MODELS))
    models = {name: train(key, name, run, config, kinds) for key, name in zip(train_keys, MODELS, strict=True)}
    count = min(len(run.data.test), config.images or (1_000 if run.data.event_shape[2] == 1 else 200))
    test = run.data.test[np.linspace(0, len(run.data.test) - 1, count).astype(int)]
    label = f"{run.data_and_seed}, {count:,} test images"
    print(f"{label}: PSNR in dB, SSIM, strength")
    pca, results, sheets = fit_pca(run), {}, []
    for key, noise in zip(jax.random.split(noise_key, len(kinds)), kinds, strict=True):
        outputs, strengths, best = denoise_all(key, noise, run.data.train, held_out, test, models, pca)
        numbers = results[str(noise)] = measure(outputs, scaled(test), strengths, best)
        print_table(str(noise), numbers)
        shown = (scaled(test), outputs["noisy image"], outputs[best], outputs[COMPARED])
        sheets.append((headline(str(noise), numbers), np.concatenate([images[:SHOWN] for images in shown])))
    run.save(
        "images", pictures(sheets, f"Test images, the best baseline and the denoising autoencoder; {run.data_and_seed}")
    )
    run.save("psnr", chart(results, f"PSNR of denoised images, mean and standard error; {label}"))
    return run.report({"label": f"{label}, PSNR in dB", "images": count, "tuned_on": len(held_out), "noise": results})


def require_levels(config: Config) -> None:
    """Raise `InputError` if a level of noise or a size cannot be used."""
    for sigma in config.sigmas:
        require_not_negative(sigma=sigma)
    if not 0 <= config.salt_pepper <= 1:
        raise vj.InputError(f"salt_pepper is {config.salt_pepper}; expected a share of the pixels, from 0 to 1")
    require_not_negative(block=config.block or 0)
    require_positive_int(images=1 if config.images is None else config.images, latent_dim=config.latent_dim)


def kinds_of_noise(config: Config, event_shape: tuple[int, ...]) -> tuple[Noise, ...]:
    """The kinds of noise whose level is not 0; raises `InputError` if there are none or the block does not fit."""
    side = min(event_shape[:2])
    block = 3 * side // 8 if config.block is None else config.block
    if block > side:
        raise vj.InputError(f"block is {block}; expected at most {side}, the pixels of a side of the images")
    kinds = (*(Noise(sigma=sigma) for sigma in config.sigmas), Noise(share=config.salt_pepper), Noise(block=block))
    if not any(map(any, kinds)):
        raise vj.InputError("all levels of noise are 0; expected one above 0 in sigmas, salt_pepper or block")
    return tuple(noise for noise in dict.fromkeys(kinds) if any(noise))


def without_held_out(run: Run) -> tuple[Run, vj.Split]:
    """The run without its last training images, and these images."""
    count = min(HELD_OUT, len(run.data.train) // 5)
    return replace(run, data=replace(run.data, train=run.data.train[:-count])), run.data.train[-count:]


def train(
    key: jax.Array, name: str, run: Run, config: Config, kinds: tuple[Noise, ...]
) -> tuple[vj.VAE, dict[str, Any]]:
    """Train a model; return it and its variables, with averaged parameters.

    The grey cross-entropy is lowest at the mean of the clean images given the noisy one, as the squared error is.
    """
    posterior = MODELS[name]
    plain = posterior is vj.Delta
    transform = vj.Scale() if name == CLEAN else Noisy(kinds=kinds)
    if run.data.event_shape[2] == 1:
        vae = vj.mlp_vae(run.data.event_shape, config.latent_dim, config.hidden, vj.Bernoulli(), posterior)
    else:
        vae = vj.conv_vae(run.data.event_shape, config.latent_dim, FEATURES, vj.Bernoulli(), posterior)
    vae.require_data(run.data.train, transform)
    epochs = run.epochs if plain else max(1, round(VAE_SHARE * run.epochs))
    steps = epochs * (len(run.data.train) // run.batch_size)
    optimizer = averaged_adamw(config.training.learning_rate, config.training.weight_decay, steps)
    state, _ = vj.fit(
        vj.init(key, vae, optimizer),
        vj.make_train_step(vae, vj.Reconstruction() if plain else vj.ELBO(), optimizer),
        run.data.train,
        transform=transform,
        epochs=epochs,
        batch_size=run.batch_size,
        store=run.checkpoints(name, model=vae, variables=vj.averaged_variables),
        title=name,
        **run.fit_arguments,
    )
    return vae, vj.averaged_variables(state)


def denoise_all(
    key: jax.Array,
    noise: Noise,
    train: vj.Split,
    held_out: vj.Split,
    test: vj.Split,
    models: Mapping[str, tuple[vj.VAE, dict[str, Any]]],
    pca: Any,
) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Denoise the test images by every method.

    Returns:
      The outputs of each method, the strength of each baseline, and the baseline that is best on the held-out images.
    """
    test_key, held_out_key, train_key = jax.random.split(key, 3)
    noisy, tuning = noisy_images(test_key, test, noise), noisy_images(held_out_key, held_out, noise)
    outputs, strengths, scores = {"noisy image": restored(noise, noisy, noisy)}, {}, {}
    for name, (denoise, grid) in baselines(train_key, noise, train, pca).items():
        strengths[name], scores[name] = best_strength(denoise, grid, noise, tuning, scaled(held_out))
        outputs[name] = restored(noise, noisy, denoise(noisy, strengths[name]))
    for name, (vae, variables) in models.items():
        outputs[name] = restored(noise, noisy, vae.reconstruct(variables, noisy).mean)
    return outputs, strengths, max(scores, key=scores.__getitem__)


def noisy_images(key: jax.Array, split: vj.Split, noise: Noise) -> np.ndarray:
    """The images of a split with a kind of noise."""
    return vj.transform_all(key, split, transform=Noisy(kinds=(noise,)))


def baselines(key: jax.Array, noise: Noise, train: vj.Split, pca: Any) -> dict[str, tuple[Denoiser, Sequence[Any]]]:
    """The baselines by name, fitted to the training images, with the strengths to choose from."""
    from skimage.filters import median  # imported here, because they take a second to load
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

    def non_local(image: np.ndarray, strength: tuple[int, float]) -> np.ndarray:
        return denoise_nl_means(image, strength[0], 6, strength[1], sigma=noise.sigma, channel_axis=-1)

    def linear() -> Denoiser:
        if noise.block:
            return conditional_mean(pca)
        clean = scaled(train)
        return least_squares(noisy_images(key, train, noise) if noise.share else clean, clean, noise.sigma**2)

    return {
        "median filter": (lambda noisy, size: median(noisy, np.ones((1, size, size, 1))), SIZES),
        "non-local means": (each(non_local), PATCHES),
        "total variation": (each(lambda image, weight: denoise_tv_chambolle(image, weight, channel_axis=-1)), WEIGHTS),
        "PCA": (projection(pca), sorted({min(k, len(pca.components_)) for k in DIMENSIONS})),
        "linear": (linear(), RIDGES),
    }


def each(denoise: Callable[[np.ndarray, Any], np.ndarray]) -> Denoiser:
    """The denoiser that applies a function to one image after the other."""
    return lambda noisy, strength: np.stack([denoise(image, strength) for image in noisy]).reshape(noisy.shape)


def least_squares(inputs: np.ndarray, targets: np.ndarray, variance: float = 0.0) -> Denoiser:
    """The linear map, with a constant, from inputs to targets with the least mean squared error.

    Args:
      inputs: Images, [n, height, width, channels].
      targets: Images, [n, height, width, channels].
      variance: Variance of white noise that the denoised images have and `inputs` do not. From clean to clean images,
        with covariance C, this is the Wiener filter C (C + variance I)^-1.

    Returns:
      The denoiser, whose strength is a variance in addition.
    """
    b, a = as_rows(inputs), as_rows(targets)
    b_mean, a_mean = b.mean(axis=0), a.mean(axis=0)
    b, a = b - b_mean, a - a_mean
    dual = len(b) < b.shape[1]  # (B^T B + v I)^-1 B^T = B^T (B B^T + v I)^-1, whichever is smaller
    gram, cross = (b @ b.T, a) if dual else (b.T @ b, b.T @ a)

    def denoise(noisy: np.ndarray, ridge: float) -> np.ndarray:
        y = as_rows(noisy) - b_mean
        matrix = gram + len(b) * (variance + ridge) * np.eye(len(gram), dtype=gram.dtype)
        return (a_mean + np.linalg.solve(matrix, (b @ y.T if dual else y.T)).T @ cross).reshape(noisy.shape)

    return denoise


def conditional_mean(pca: Any) -> Denoiser:
    """E[x | known pixels] of a Gaussian with the principal variances, and the strength as variance of each pixel."""
    v, variances = pca.components_, np.maximum(pca.explained_variance_, 1e-9)

    def of_one(image: np.ndarray, ridge: float) -> np.ndarray:
        known = image.ravel() != GREY
        seen = v[:, known]  # [components, known pixels]
        right = seen @ (image.ravel() - pca.mean_)[known]
        code = np.linalg.solve(seen @ seen.T + np.diag(ridge / variances), right)
        return (pca.mean_ + code @ v).reshape(image.shape)

    return each(of_one)


def fit_pca(run: Run) -> Any:
    """PCA of the clean training images, with the largest of `DIMENSIONS` that they allow."""
    from sklearn.decomposition import PCA  # imported here, because it takes a second to load

    rows = as_rows(scaled(run.data.train))
    return PCA(min(DIMENSIONS[-1], *rows.shape), random_state=run.options.seed).fit(rows)


def projection(pca: Any) -> Denoiser:
    """Projection on the first principal components, as many as the strength."""

    def denoise(noisy: np.ndarray, dimension: int) -> np.ndarray:
        v = pca.components_[:dimension]
        return (pca.mean_ + (as_rows(noisy) - pca.mean_) @ v.T @ v).reshape(noisy.shape)

    return denoise


def best_strength(
    denoise: Denoiser, grid: Sequence[Any], noise: Noise, noisy: np.ndarray, clean: np.ndarray
) -> tuple[Any, float]:
    """The strength with the highest mean PSNR of the restored images, and this mean."""
    means = {strength: psnr(restored(noise, noisy, denoise(noisy, strength)), clean).mean() for strength in grid}
    return max(means.items(), key=lambda pair: pair[1])


def restored(noise: Noise, noisy: np.ndarray, outputs: Any) -> np.ndarray:
    """The outputs of a method, clipped to [0, 1], with the known pixels if there is a missing block."""
    clipped = np.clip(np.asarray(outputs, np.float32), 0, 1)
    return np.where(noisy == GREY, clipped, noisy) if noise.block else clipped


def psnr(images: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each image in dB, for a peak of 1; at most 100."""
    error = np.mean(as_rows((images - clean) ** 2), axis=1, dtype=np.float64)
    return -10 * np.log10(np.maximum(error, 1e-10))


def ssim(images: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Structural similarity of each image, with windows of 7 x 7 pixels, or of the largest odd size that fits.

    One call has all images, one below the other; windows that reach into another image are left out.
    """
    from skimage.metrics import structural_similarity

    window = min(7, *(size - 1 + size % 2 for size in clean.shape[1:3]))
    stacks = (np.concatenate(np.asarray(each, np.float64)) for each in (images, clean))
    _, similarity = structural_similarity(*stacks, win_size=window, data_range=1.0, channel_axis=-1, full=True)
    edge = window // 2
    return similarity.reshape(clean.shape)[:, edge:-edge, edge:-edge].mean(axis=(1, 2, 3))


def measure(
    outputs: Mapping[str, np.ndarray], clean: np.ndarray, strengths: Mapping[str, Any], best: str
) -> dict[str, Any]:
    """PSNR, SSIM and strength of each method, the best baseline, and the gain of the autoencoder over it."""
    of_images = {name: psnr(images, clean) for name, images in outputs.items()}
    methods: dict[str, dict[str, Any]] = {
        name: means_and_errors(psnr=of_images[name], ssim=ssim(images, clean)) for name, images in outputs.items()
    }
    for name, strength in strengths.items():
        methods[name]["strength"] = strength
    gain = means_and_errors(gain=of_images[COMPARED] - of_images[best])
    return {"best_baseline": best, **gain, "methods": methods}


def headline(noise: str, numbers: Mapping[str, Any]) -> str:
    """The kind of noise, the PSNR of the best baseline and of the autoencoder, and the difference."""
    best = numbers["best_baseline"]
    one, other = (numbers["methods"][name]["psnr"] for name in (best, COMPARED))
    gain = f"{numbers['gain']:+.2f} \N{PLUS-MINUS SIGN} {numbers['gain_standard_error']:.2f}"
    return f"{noise}: {best} {one:.2f} dB, autoencoder {other:.2f} dB ({gain})"


def print_table(noise: str, numbers: Mapping[str, Any]) -> None:
    """Print the numbers of a kind of noise, a line for each method."""
    print(headline(noise, numbers))
    for name, method in numbers["methods"].items():
        print(
            f"  {name:22} {method['psnr']:6.2f} +- {method['psnr_standard_error']:.2f}   {method['ssim']:.3f} +- "
            f"{method['ssim_standard_error']:.3f}   {method.get('strength', '')}"
        )


def pictures(sheets: Sequence[tuple[str, np.ndarray]], title: str) -> Figure:
    """A sheet of images for each kind of noise, with a row for each method."""
    labels = ("clean", "noisy", "baseline", "autoencoder")
    columns = len(sheets[0][1]) // len(labels)
    figure = vj.plot.sheets(sheets, columns, 1, title, labels)
    figure.set_layout_engine("compressed")  # the axes have a fixed aspect
    figure.set_size_inches(9.2, (8.1 * len(labels) / columns + 0.32) * len(sheets) + 0.4)  # the labels take an inch
    return figure


def chart(results: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """The PSNR of each method as points, in a panel for each kind of noise."""
    figure = Figure(figsize=(1.6 + 1.9 * len(results), 3.6), layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for (noise, numbers), axes in zip(results.items(), panels, strict=True):
        for place, (name, method) in enumerate(numbers["methods"].items()):
            colour = vj.plot.COLOURS[0 if name in MODELS else 1]
            axes.errorbar(method["psnr"], place, xerr=method["psnr_standard_error"], fmt="o", color=colour)
        axes.set_title(noise, fontsize="medium")
        axes.set(yticks=range(len(numbers["methods"])), yticklabels=numbers["methods"], xlabel="PSNR (dB)")
        axes.margins(x=0.1)
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize="medium")
    return figure


if __name__ == "__main__":
    run_script(main, Config)
