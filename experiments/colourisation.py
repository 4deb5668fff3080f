"""Colourisation of grey faces: a regression, which gives one answer, and a conditional VAE, which draws several.

The lightness L of CIELAB is given, and the colours (a, b) are asked for. Colour has little spatial detail, so it is
predicted at 16 x 16 pixels and enlarged, as JPEG subsamples it. A convolutional network trained by absolute error gives
the median of all plausible colours, which is brown (compare Zhang et al., 2016, "Colorful Image Colorization", for the
mean). A conditional VAE (Sohn et al., 2015) of the colours, given the lightness and the regression's answer, models the
remaining uncertainty: each draw of the latent vector is a plausible colouring (compare Deshpande et al., 2017,
"Learning Diverse Image Colorization"). The colouring at the mean of the prior is shown beside them.

The script measures the distance to the true colours in the (a, b) plane, the colourfulness (Hasler and Suesstrunk,
2003) as a share of that of the real faces, and the diversity of the draws. The baselines are the mean colour of the
training faces, and the colours of the training faces that are nearest in lightness. All methods see the training faces
and their mirror images.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from harness.estimates import estimate, with_error
from harness.images import in_unit
from harness.options import Options, TrainingOptions
from harness.recipe import Trained
from harness.report import Report
from harness.run import Run
from harness.script import run_script

import vae_jax as vj
from vae_jax.errors import require_positive_int
from vae_jax.networks import Conv3x3, Downsample, Upsample

UNIT = 25.0  # unit of the models, in which L - 50, a and b have a scale of about 1
BLOCK = 500  # number of images that are converted or compared at once
NEIGHBOURS = (1, 3, 10, 30, 100)  # numbers of neighbours; the best for training images that are left out is taken
DRAWN = 3  # number of draws of each face in the pictures
SHOWN = 7  # number of faces in the pictures
TITLES = {"photographs": "test faces", "decoded": "decoded test faces"}
COMPONENTS = 100  # number of principal components of decoded faces
REFERENCE = "mean_colour_by_pixel"  # the method whose error is the unit of the ratios
LABEL = (
    "errors and diversity in the (a, b) plane of CIELAB, ratios to the error of the mean colour of each pixel and to "
    "real colourfulness"
)

Numbers = dict[str, dict[str, float]]  # means and standard errors


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    width: int = 32
    """Number of channels of the regression's first convolution; the next ones have twice and four times as many."""
    dropout: float = 0.5
    """Dropout of the regression's dense layers in training."""
    latent_dim: int = 32
    """Number of latent dimensions of the conditional VAE."""
    hidden: tuple[int, ...] = (512, 256)
    """Widths of the hidden layers of the VAE's encoder; the decoder has them in reverse order."""
    size: int = 16
    """Height and width at which the colours are predicted: a multiple of 4 that divides those of the images."""
    draws: int = 8
    """Number of colourings drawn for each face, at least 3."""
    out: Path = Path("runs/colourisation")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=2e-3, weight_decay=1.0)


@vj.value
class Chroma:
    """Images whose first two channels are the colours, in the likelihood; the other channels are the condition."""

    support: ClassVar[vj.Support] = vj.Support(-math.inf, math.inf)
    label: ClassVar[str] = f"colours a, b / {UNIT:g}"

    def __call__(self, keys: jax.Array, images: jax.Array, labels: jax.Array | None = None) -> vj.Batch:
        """The batch; only the colours are `observed`, so that the encoder sees 0 in the other channels."""
        is_colour = jnp.broadcast_to(jnp.arange(images.shape[-1]) < 2, images.shape)
        return vj.Batch(images, condition=images[..., 2:], observed=is_colour)


class NoEncoder(nn.Module):
    """The encoder of a regression: its code is 0."""

    def __call__(self, inputs: jax.Array, train: bool = False, condition: Any = None) -> jax.Array:
        """Zeros, [batch, 1, 1]."""
        return jnp.zeros((len(inputs), 1, 1))


class UNet(nn.Module):
    """A small U-Net (Ronneberger et al., 2015) from the lightness to the colours; the latents are not used.

    Its innermost layers are dense, and have dropout of their inputs (Srivastava et al., 2014).

    Attributes:
      width: Number of channels of the first convolution.
      output_shape: Shape of the outputs of one example; the channels after the two colours are 0.
      dropout: Probability that an input of a dense layer is 0 in training.
    """

    width: int
    output_shape: tuple[int, ...]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, condition: Any = None) -> jax.Array:
        """Means of the colours, [batch, *output_shape]."""
        width, count = self.width, len(inputs)
        dropout = nn.Dropout(self.dropout, deterministic=not train)
        full = nn.relu(Conv3x3(width)(nn.relu(nn.Dense(width)(condition))))
        half = nn.relu(Downsample(2 * width)(full))
        quarter = nn.relu(Downsample(4 * width)(half))
        whole = nn.relu(nn.Dense(8 * width)(dropout(quarter.reshape(count, -1))))
        h = nn.Dense(quarter.size // (2 * count))(dropout(whole)).reshape(*quarter.shape[:3], -1)
        h = nn.relu(h + nn.Dense(2 * width)(quarter))
        h = nn.relu(Upsample(2 * width)(h) + nn.Dense(2 * width)(half))
        h = nn.relu(Upsample(width)(h) + nn.Dense(width)(full))
        by_pixel = self.param("by_pixel", nn.initializers.zeros, (math.prod(self.output_shape[:2]) * 2,))
        colours = nn.Dense(2)(h) + by_pixel.reshape(1, *self.output_shape[:2], 2)
        return jnp.concatenate([colours, jnp.zeros((*colours.shape[:3], self.output_shape[2] - 2))], axis=-1)


class DenseAndLinear(nn.Module):
    """Dense layers and a linear map of the latents.

    Attributes:
      hidden: Widths of the hidden layers.
      output_shape: Shape of the outputs of one example.
    """

    hidden: tuple[int, ...]
    output_shape: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False, condition: Any = None) -> jax.Array:
        """Means of the colours, [batch, *output_shape]."""
        linear = nn.Dense(math.prod(self.output_shape), use_bias=False)(inputs.reshape(len(inputs), -1))
        outputs = vj.MLP(self.hidden, self.output_shape)(inputs, condition=condition)
        return outputs + linear.reshape(outputs.shape)


def main(config: Config) -> Report:
    """Train both models, measure them and the baselines on the test faces, and write the pictures and the report."""
    require_options(config)
    run = Run.start("colourisation", config, native="celeba", epochs=15, batch_size=64, small=0, stand_in_steps=250)
    for split in (run.data.train, run.data.test):
        require_colour(split, config.size)
    regression_key, vae_key, draw_key, picture_key = jax.random.split(run.key, 4)
    train_lab, test_lab = as_lab(run.data.train.images), as_lab(run.data.test.images)
    train = np.concatenate([reduced(images, config.size) for images in (train_lab, mirrored(train_lab))])
    test = reduced(test_lab, config.size)
    methods = {name: [colours] for name, colours in baselines(train_lab, test_lab).items()}
    regression = train_regression(regression_key, with_images(run, train, test), config)
    rest = residuals(regression, test)
    vae = train_vae(vae_key, with_images(run, residuals(regression, train), rest), config)

    drawn = [colouring(vae, rest, test_lab.shape, key) for key in jax.random.split(draw_key, config.draws)]
    methods |= {
        "regression": [enlarged(rest[..., 2:4], test_lab.shape)],
        "prior_mean": [colouring(vae, rest, test_lab.shape)],
        "draw": drawn,
    }
    reference = errors(methods[REFERENCE], test_lab)
    real = colourfulness(as_rgb(test_lab))
    numbers = {name: measure(colourings, test_lab, reference, real) for name, colourings in methods.items()}
    numbers["draw"] |= diversity(drawn, test_lab)
    print_table(numbers, run)
    save_pictures(picture_key, run, (regression, vae), train_lab, test_lab[:SHOWN], config.size)
    return run.report(
        {
            "label": f"{run.data_and_seed}; {LABEL}",
            "methods": numbers,
            "draws": config.draws,
            "real_colourfulness": estimate(real),
            "test_kl": vae.history[-1]["test_kl"],
            "test_kl_label": run.label(vae.model.likelihood, Chroma()),
            "seconds_per_epoch": {"regression": regression.seconds_per_epoch, "vae": vae.seconds_per_epoch},
        }
    )


def require_options(config: Config) -> None:
    """Raise `InputError` unless the sizes, the dropout and the number of draws can be used."""
    widths = {f"hidden[{i}]": width for i, width in enumerate(config.hidden)}
    require_positive_int(width=config.width, latent_dim=config.latent_dim, size=config.size, **widths)
    if not 0 <= config.dropout < 1:
        raise vj.InputError(f"dropout is {config.dropout}; expected 0 or more, and less than 1")
    if config.draws < DRAWN:
        raise vj.InputError(f"draws is {config.draws}; expected {DRAWN} or more colourings of each face")


def require_colour(split: vj.Split, size: int) -> None:
    """Raise `InputError` unless the images have colours and can be reduced to `size` x `size` pixels."""
    shape = split.event_shape
    if len(shape) != 3 or shape[-1] != 3 or (split.images == split.images[..., :1]).all():
        raise vj.InputError(f"the images, of shape {shape}, have no colour; expected red, green and blue: take celeba")
    if size % 4 or shape[0] % size or shape[1] % size:
        raise vj.InputError(
            f"size is {size} for images of {shape[0]} x {shape[1]} pixels; expected a multiple of 4 that divides both"
        )


def with_images(run: Run, train: np.ndarray, test: np.ndarray) -> Run:
    """The run with other images."""
    return replace(run, data=replace(run.data, train=vj.Split(train), test=vj.Split(test), validation=None))


def train_regression(key: jax.Array, run: Run, config: Config) -> Trained:
    """Train the U-Net by absolute error: a decoder without latents."""
    shape = run.data.event_shape
    unet = UNet(config.width, shape, config.dropout)
    grey = (*shape[:2], shape[2] - 2)
    model = vj.VAE(NoEncoder(), unet, shape, 1, posterior=vj.Delta, likelihood=vj.Laplace(1.0), condition_shape=grey)
    return run.train(key, model, vj.Reconstruction(), transform=Chroma(), title="regression")


def train_vae(key: jax.Array, run: Run, config: Config) -> Trained:
    """Train the conditional VAE on the residuals of the regression.

    The residuals are those of training faces, which the regression has seen, and so are smaller than on new faces: the
    diversity of the draws is a lower bound.
    """
    shape = run.data.event_shape
    model = vj.VAE(
        encoder=DenseAndLinear(config.hidden, (2, config.latent_dim)),
        decoder=DenseAndLinear(tuple(reversed(config.hidden)), shape),
        event_shape=shape,
        latent_dim=config.latent_dim,
        likelihood=vj.OptimalGaussian(),
        condition_shape=(*shape[:2], shape[2] - 2),
    )
    return run.train(key, model, vj.ELBO(), transform=Chroma(), title="conditional VAE")


def as_lab(images: np.ndarray) -> np.ndarray:
    """Convert bytes of sRGB, [n, height, width, 3], to CIELAB."""
    from skimage.color import rgb2lab  # imported here, because it takes a second to load

    lab = np.empty(images.shape, np.float32)
    for start in range(0, len(images), BLOCK):
        lab[start : start + BLOCK] = rgb2lab(in_unit(images[start : start + BLOCK]))
    return lab


def as_rgb(lab: np.ndarray) -> np.ndarray:
    """Convert CIELAB to sRGB in [0, 1]; colours outside of sRGB are clipped."""
    from skimage.color import lab2rgb

    with warnings.catch_warnings(action="ignore"):  # of colours outside of sRGB
        return lab2rgb(lab)


def reduced(lab: np.ndarray, size: int) -> np.ndarray:
    """The mean colour, and each value of the lightness, of `size` x `size` blocks of pixels of images in CIELAB.

    Returns:
      Images [n, size, size, 2 + pixels of a block] in units of `UNIT`: a, b and the values of L - 50.
    """
    n, height, width, _ = lab.shape
    blocks = lab.reshape(n, size, height // size, size, width // size, 3).swapaxes(2, 3)
    lightness = blocks[..., 0].reshape(n, size, size, -1) - 50
    return np.concatenate([blocks[..., 1:].mean(axis=(3, 4)), lightness], axis=-1) / np.float32(UNIT)


def residuals(regression: Trained, images: np.ndarray) -> np.ndarray:
    """Reduced images as the conditional VAE sees them.

    Returns:
      Images [n, size, size, 5]: a and b minus the regression's answer, the answer, and the mean lightness.
    """
    nothing = np.zeros((len(images), 1), np.float32)
    answer = regression.decode(nothing, images[..., 2:])[..., :2]
    return np.concatenate([images[..., :2] - answer, answer, images[..., 2:].mean(axis=-1, keepdims=True)], axis=-1)


def colouring(vae: Trained, images: np.ndarray, shape: tuple[int, ...], key: jax.Array | None = None) -> np.ndarray:
    """The colours of images from `residuals`, with z drawn from the prior by `key`, or without a key at its mean."""
    z = np.zeros((len(images), vae.model.latent_dim), np.float32)
    if key is not None:
        z = np.asarray(vae.model.prior_distribution(vae.variables).sample(key, len(images)))
    return colours_at(vae, z, images, shape)


def colours_at(vae: Trained, z: np.ndarray, images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The colours E[a, b|z, lightness] at the given latents, at full size."""
    difference = vae.decode(z, images[..., 2:])[..., :2]
    return enlarged(images[..., 2:4] + difference, shape)


def enlarged(colours: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Colours of reduced images at full size, by linear interpolation, in the units of CIELAB."""
    return UNIT * np.asarray(jax.image.resize(colours, (*shape[:3], 2), "linear"))


def baselines(train_lab: np.ndarray, test_lab: np.ndarray) -> dict[str, np.ndarray]:
    """The colours of the test images by the mean colour of training images, and by those nearest in lightness.

    As in training, the training images are followed by their mirror images. The number of neighbours is the best for
    training images that are left out, without mirror images, since each is near its own.
    """
    left_out = max(1, min(BLOCK, len(train_lab) // 8))
    inside, outside = train_lab[:-left_out], train_lab[-left_out:]
    counts = [count for count in NEIGHBOURS if count <= len(inside)]
    best = min(counts, key=lambda count: errors([of_neighbours(inside, outside, count)], outside).mean())
    mean, shape = train_lab[..., 1:].mean(axis=0), test_lab[..., 1:].shape
    return {
        "mean_colour": np.broadcast_to(mean.mean(axis=(0, 1)), shape),
        "mean_colour_by_pixel": np.broadcast_to((mean + mean[:, ::-1]) / 2, shape),
        "nearest_neighbour": of_neighbours(train_lab, test_lab, 1, mirror=True),
        f"mean_of_{best}_neighbours": of_neighbours(train_lab, test_lab, best, mirror=True),
    }


def mirrored(lab: np.ndarray) -> np.ndarray:
    """Images mirrored left to right."""
    return lab[:, :, ::-1]


def of_neighbours(train_lab: np.ndarray, lab: np.ndarray, count: int, *, mirror: bool = False) -> np.ndarray:
    """The mean colours of the `count` training images that are nearest in lightness to each image.

    Args:
      train_lab: Training images in CIELAB.
      lab: Images in CIELAB.
      count: Number of neighbours, at most that of the training images.
      mirror: Whether the mirror images of the training images can be neighbours as well.
    """
    colours = np.empty((*lab.shape[:3], 2), lab.dtype)
    for number, rows in enumerate(nearest(train_lab, lab, count, mirror=mirror)):
        found = train_lab[rows % len(train_lab), ..., 1:]
        is_mirrored = (rows >= len(train_lab)).reshape(-1, 1, 1, 1)
        colours[number] = np.where(is_mirrored, mirrored(found), found).mean(axis=0)
    return colours


def nearest(train_lab: np.ndarray, lab: np.ndarray, count: int, *, mirror: bool) -> np.ndarray:
    """The numbers of the training images that are nearest in lightness to each image, [n, count].

    The numbers of mirror images follow those of all training images. The training images are compared in blocks, so
    that the memory does not grow with the number of pairs.
    """
    ours = lightness(lab)
    least = np.full((len(lab), count), np.inf, ours.dtype)  # distances of the nearest ones so far
    numbers = np.zeros((len(lab), count), int)
    for start in range(0, len(train_lab), BLOCK):
        block = train_lab[start : start + BLOCK]
        for first, images in ((start, block), (len(train_lab) + start, mirrored(block)))[: 1 + mirror]:
            theirs = lightness(images)
            distances = np.sum(theirs**2, axis=1)[None] - 2 * ours @ theirs.T  # squared, up to a constant of each image
            candidates = np.concatenate([least, distances], axis=1)
            kept = np.argpartition(candidates, count - 1, axis=1)[:, :count]
            of_block = np.broadcast_to(first + np.arange(len(images)), distances.shape)
            numbers = np.take_along_axis(np.concatenate([numbers, of_block], axis=1), kept, axis=1)
            least = np.take_along_axis(candidates, kept, axis=1)
    return numbers


def lightness(lab: np.ndarray) -> np.ndarray:
    """The lightness of each image as a row."""
    return lab[..., 0].reshape(len(lab), -1)


def distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The distance in the (a, b) plane, averaged over the pixels of each image."""
    return np.linalg.norm(one - other, axis=-1).mean(axis=(1, 2))


def errors(colourings: list[np.ndarray], lab: np.ndarray) -> np.ndarray:
    """The mean distance of the colourings of each image to its colours."""
    return np.mean([distance(colours, lab[..., 1:]) for colours in colourings], axis=0)


def colourfulness(rgb: np.ndarray) -> np.ndarray:
    """The colourfulness of each image, of Hasler and Suesstrunk (2003), for channels from 0 to 255."""
    r, g, b = np.moveaxis(255 * rgb.reshape(len(rgb), -1, 3), -1, 0)
    opponents = np.stack([r - g, (r + g) / 2 - b])
    deviation, mean = (np.linalg.norm(moment, axis=0) for moment in (opponents.std(axis=-1), opponents.mean(axis=-1)))
    return deviation + 0.3 * mean


def measure(colourings: list[np.ndarray], lab: np.ndarray, reference: np.ndarray, real: np.ndarray) -> Numbers:
    """The error of a method, its ratio to the reference's errors, and its colourfulness, as a ratio to the real one."""
    found = np.mean([colourfulness(as_rgb(coloured(lab, colours))) for colours in colourings], axis=0)
    error = errors(colourings, lab)
    return {
        "error": estimate(error),
        "error_ratio": vj.paired_ratio(error, reference)._asdict(),
        "colourfulness": vj.paired_ratio(found, real)._asdict(),
    }


def diversity(drawn: list[np.ndarray], lab: np.ndarray) -> Numbers:
    """The mean distance between two draws of an image, and the error of the draw that is nearest to its colours."""
    pairs = [distance(one, other) for i, one in enumerate(drawn) for other in drawn[:i]]
    best = np.min([distance(colours, lab[..., 1:]) for colours in drawn], axis=0)
    return {
        "diversity": estimate(np.mean(pairs, axis=0)),
        "error_of_best": estimate(best),
    }


def coloured(lab: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The lightness of images in CIELAB with other colours (a, b)."""
    return np.concatenate([lab[..., :1], colours], axis=-1)


def print_table(numbers: Mapping[str, Numbers], run: Run) -> None:
    """Print the numbers of each method."""
    print(f"{run.data_and_seed}; {LABEL}:")
    for name, by_measure in numbers.items():
        shown = (f"{what} {with_error(found, 3)}" for what, found in by_measure.items())
        print(f"  {name}: {', '.join(shown)}")


def save_pictures(
    key: jax.Array, run: Run, models: tuple[Trained, Trained], train_lab: np.ndarray, test_lab: np.ndarray, size: int
) -> None:
    """Write a row of colourings of each of the first test faces, and the same of decoded faces.

    The decoded faces have no photograph in them: their lightness is decoded from its principal components, and their
    own colours from the mean of q(z|colours, lightness).
    """
    headings = ["grey", *(f"draw {number + 1}" for number in range(DRAWN)), "prior mean", "regression", "own"]
    decoded = coloured(decoded_lightness(train_lab, test_lab), test_lab[..., 1:])
    regression, vae = models
    for part, faces in (("photographs", test_lab), ("decoded", decoded)):
        images, shape = residuals(regression, reduced(faces, size)), faces.shape
        own = faces[..., 1:] if part == "photographs" else colours_at(vae, encode(vae, images), images, shape)
        keys = jax.random.split(jax.random.clone(key), DRAWN)  # the same draws for both pictures
        drawn = [colouring(vae, images, shape, draw_key) for draw_key in keys]
        colours = [0 * own, *drawn, colouring(vae, images, shape), enlarged(images[..., 2:4], shape), own]
        columns = [as_rgb(coloured(faces, of_column)) for of_column in colours]
        text = f"Colourings of {TITLES[part]}, {run.data_and_seed}"
        run.save(part, vj.plot.rows(np.stack(columns, axis=1), headings, text))


def encode(vae: Trained, images: np.ndarray) -> np.ndarray:
    """The means of q(z|colours, lightness)."""
    unused = jax.random.key(0)  # `Chroma` is not random
    return vae.encode(unused, vj.Split(images), Chroma())


def decoded_lightness(train_lab: np.ndarray, lab: np.ndarray) -> np.ndarray:
    """The lightness of images, decoded from the principal components of that of training images, [n, h, w, 1]."""
    from sklearn.decomposition import PCA  # imported here, because it takes a second to load

    seen, rows = (images[..., 0].reshape(len(images), -1) for images in (train_lab, lab))
    pca = PCA(min(COMPONENTS, *seen.shape), svd_solver="randomized", random_state=0).fit(seen)
    return pca.inverse_transform(pca.transform(rows)).reshape(*lab.shape[:3], 1).clip(0, 100).astype(np.float32)


if __name__ == "__main__":
    run_script(main, Config)
