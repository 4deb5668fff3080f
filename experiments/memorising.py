"""How a decoder memorises images, and what it decodes between their codes, in four steps from a decoder to a VAE.

1. A decoder whose input is a vector of ones stores one image. With several images it returns their mean.
2. With one-hot codes it stores one image per code, and the code grows with the number of images.
3. Real-valued codes of fixed length are trained together with the decoder (Bojanowski et al., 2018, "Optimizing the
   latent space of generative networks").
4. An encoder computes the codes, also those of new images: an autoencoder, or a VAE (Kingma and Welling, 2014).

The stored images do not determine what a decoder returns half-way between two codes: two decoders that store the same
images at the same codes, from different initial weights, disagree there. Noise added to the code in training decides
what is decoded near the code: the optimal decoder returns the mean of the images, weighted by the density of their
noise there. The price is a larger error of the stored images. A VAE learns the amount of noise for each image. In the
last part the code is one number, and the decoder receives its sines and cosines (Tancik et al., 2020), so that many
images fit on a line.

All errors are root mean squares, over the pixels, of the difference of two images in [0, 1].

`--epochs` sets the number of steps of each training: the epochs times (all training images // batch size), however few
images are stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from harness.estimates import means_and_errors
from harness.images import scaled
from harness.options import Options, TrainingOptions, require_different, require_unused
from harness.report import Report
from harness.run import Run
from harness.script import run_script
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import vae_jax as vj
from vae_jax.errors import require_positive, require_positive_int

HIDDEN = (128, 256)  # widths of the decoders; the encoders have them in reverse order
FREQUENCIES = 16  # number of sines and of cosines of a one-dimensional code
ONES, ONE_HOT, LEARNED, AUTOENCODER = "vector of ones", "one-hot codes", "learned codes", "autoencoder"
ENCODERS: dict[str, tuple[Any, Any]] = {
    AUTOENCODER: (vj.Delta, vj.Reconstruction()),
    "VAE": (vj.DiagonalGaussian, vj.ELBO()),
}
PARTS = {
    "error": "error of the stored images",
    "from_average": "half-way image, average of neighbours",
    "disagreement": "half-way images of two decoders",
}
SHOWN = 5  # number of stored images in a row of the pictures, with the half-way images between them
STEPS = 32  # number of points on the line from a code to the next


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    stored: tuple[int, ...] = (1, 16, 64, 256)
    """Numbers of images that are stored. A decoder of each kind is trained with each."""
    images: int = 16
    """Number of images stored for the pictures and for the measurements half-way between codes; it is added to
    --stored."""
    code_dim: int = 2
    """Length of the codes that are learned or encoded."""
    noise: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Standard deviations of the noise that is added to learned codes in training, all above 0; codes without noise are
    learned in any case. The codes have the prior N(0, I)."""
    out: Path = Path("runs/memorising")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=2e-3)


class Recipe(NamedTuple):
    """Peak of the learning rate, number of steps and largest batch size of each training."""

    learning_rate: float
    steps: int
    batch_size: int

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam with warm-up and cosine decay."""
        return optax.adam(vj.warm_up_then_cosine(self.learning_rate, self.steps))


class Memory(NamedTuple):
    """A decoder with the codes of the stored images, [N, D], and the standard deviations of the noise in training.

    An encoder also gives codes of the test images.
    """

    decoder: nn.Module
    weights: Any
    codes: np.ndarray
    noise: np.ndarray
    test_codes: np.ndarray | None = None

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Decode codes [n, D] to images in [0, 1]."""
        return np.asarray(decode(self.decoder, self.weights, codes))


@partial(jax.jit, static_argnames="decoder")
def decode(decoder: nn.Module, weights: Any, codes: jax.Array) -> jax.Array:
    """Images in [0, 1] at codes [n, D]."""
    logits: Any = decoder.apply(weights, codes)
    return jax.nn.sigmoid(logits)


class SineDecoder(nn.Module):
    """Dense decoder of sines and cosines of the code, with which it can change quickly along the code."""

    output_shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
        """Logits of the pixels, [n, *output_shape]."""
        angles = jnp.einsum("nd,f->ndf", z, 1.0 + jnp.arange(FREQUENCIES)).reshape(len(z), -1)
        return vj.MLP(HIDDEN, self.output_shape)(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1))


def main(config: Config) -> Report:
    """Store images in each of the four ways and on a line, measure, and write the pictures and the report."""
    require_options(config)
    run = Run.start("memorising", config, epochs=1, batch_size=64, small=0, stand_in_steps=500)
    images_key, growth_key, store_key, again_key = jax.random.split(run.key, 4)
    images = images_to_store(images_key, run, config)
    recipe = Recipe(config.training.learning_rate, run.steps, run.batch_size)
    counts = sorted({*config.stored, config.images})
    each_way = {
        count: store_each_way(jax.random.fold_in(growth_key, count), run, recipe, images[:count], config.code_dim)
        for count in counts
    }
    growth = {str(count): errors(each_way[count], images[:count], run.data.test) for count in counts}
    few = images[: config.images]
    memories = each_way[len(few)] | store_with_noise(store_key, run, recipe, few, config)
    compared = [name for name in memories if name != ONES]
    keys = jax.random.split(again_key, len(compared))
    between = {
        name: measure(key, memories[name], scaled(few), recipe) for key, name in zip(keys, compared, strict=True)
    }
    unit = "root mean squares over the pixels in [0, 1]; means over images, or over pairs of neighbours"
    label = f"{run.data_and_seed}; {unit}"
    print("\n".join([label, *table(growth, between)]))
    levels = {"0": between[LEARNED]} | {f"{sigma:g}": between[noisy(sigma)] for sigma in config.noise}
    run.save("numbers", draw_numbers(growth, levels, f"{run.data_and_seed}; bands: one standard error"))
    text = f"{run.data_and_seed}; decoded at the codes and half-way between them"
    sigma = config.noise[-2:][0]  # the last level leaves little of the images
    run.save("steps", draw_steps(memories, few, noisy(sigma), f"{len(few)} stored images, {text}"))
    run.save("line", draw_line(memories, few, f"{len(few)} images stored on a line, {text}"))
    return run.report({"label": label, "growth": growth, "between": between})


def require_options(config: Config) -> None:
    """Raise `InputError` unless the options can be used with some data."""
    if config.devices.mesh() is not None:
        raise vj.InputError("memorising uses one device, because some decoders store one image; leave out --devices")
    if not config.stored:
        raise vj.InputError("stored is []; expected one number of images or more")
    require_different(noise=config.noise)
    require_positive_int(code_dim=config.code_dim, **{f"stored[{i}]": count for i, count in enumerate(config.stored)})
    require_positive(**{f"noise[{i}]": sigma for i, sigma in enumerate(config.noise)})
    require_unused(config, "weight_decay", why="the decoders are to store the images exactly")
    if config.images < 2:
        raise vj.InputError(f"images is {config.images}; expected at least 2, because neighbouring codes are compared")


def images_to_store(key: jax.Array, run: Run, config: Config) -> vj.Split:
    """Draw the images to store from the training images.

    Raises:
      InputError: There are fewer training images, or a code has more numbers than an image.
    """
    count, size = max(*config.stored, config.images), int(np.prod(run.data.event_shape))
    if count > len(run.data.train):
        raise vj.InputError(
            f"{count} images are to be stored, but {run.data.name} has {len(run.data.train)} training images; expected "
            "at most as many"
        )
    if config.code_dim > size:
        raise vj.InputError(f"code_dim is {config.code_dim}; expected at most {size}, the number of values of an image")
    return run.data.train[np.asarray(jax.random.permutation(key, len(run.data.train)))[:count]]


def noisy(sigma: float) -> str:
    """The name of the memory whose codes are learned with this noise."""
    return f"{LEARNED}, noise {sigma:g}"


@partial(jax.jit, static_argnames=("decoder", "recipe", "learn_codes"))
def memorise(
    key: jax.Array, decoder: nn.Module, codes: Any, images: Any, noise: Any, recipe: Recipe, learn_codes: bool = False
) -> tuple[Any, jax.Array]:
    """Train a decoder to return each image at its code, by the cross-entropy of the pixels.

    Args:
      key: Key of the initial weights, the order of the images and the noise.
      decoder: Decoder to train.
      codes: Codes of the images, [N, D].
      images: Images in [0, 1], [N, ...].
      noise: Standard deviation of the noise that is added to each code, [N, D].
      recipe: Optimizer, number of steps and batch size.
      learn_codes: Whether the codes are trained as well, under the prior N(0, I).

    Returns:
      The weights of the decoder, and the codes.
    """
    batch, optimizer = min(len(images), recipe.batch_size), recipe.optimizer
    init_key, train_key = jax.random.split(key)

    def loss(trained: tuple[Any, jax.Array], key: jax.Array, index: jax.Array) -> jax.Array:
        weights, codes = trained
        z = codes[index] if learn_codes else jax.lax.stop_gradient(codes[index])
        logits = decoder.apply(weights, z + noise[index] * jax.random.normal(key, z.shape))
        nats = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, images[index])) + jnp.sum(z**2) / 2
        return nats / batch

    def step(state: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], None]:
        trained, opt_state = state
        index_key, noise_key = jax.random.split(key)
        index = jax.random.choice(index_key, len(images), (batch,), replace=False)
        gradient = jax.grad(loss)(trained, noise_key, index)
        change, opt_state = optimizer.update(gradient, opt_state, trained)
        return (optax.apply_updates(trained, change), opt_state), None

    codes = jnp.asarray(codes)
    start = (decoder.init(init_key, codes[:1]), codes)
    state = (start, optimizer.init(start))
    (trained, _), _ = jax.lax.scan(step, state, jax.random.split(train_key, recipe.steps))
    return trained


def store(
    key: jax.Array,
    shape: tuple[int, ...],
    codes: Any,
    images: Any,
    recipe: Recipe,
    sigma: float = 0,
    learn: bool = False,
) -> Memory:
    """Memorise images of a shape at codes, or at codes that are learned, with noise of one standard deviation."""
    noise, decoder = np.full(codes.shape, sigma, np.float32), vj.MLP(HIDDEN, shape)
    weights, codes = memorise(key, decoder, codes, images, noise, recipe, learn)
    return Memory(decoder, weights, np.asarray(codes), noise)


def store_by_encoder(
    key: jax.Array, run: Run, recipe: Recipe, images: vj.Split, name: str, code_dim: int, line: bool = False
) -> Memory:
    """Train an autoencoder or a VAE on the images; the decoder of codes on a line has sines and cosines."""
    init_key, encode_key, test_key = jax.random.split(key, 3)
    (posterior, objective), shape = ENCODERS[name], images.event_shape
    vae = vj.VAE(
        encoder=vj.MLP(HIDDEN[::-1], posterior.output_shape(code_dim)),
        decoder=SineDecoder(shape) if line else vj.MLP(HIDDEN, shape),
        event_shape=shape,
        latent_dim=code_dim,
        posterior=posterior,
    )
    batch, title = min(len(images), recipe.batch_size), f"{name} of {len(images)} images{' on a line' if line else ''}"
    optimizer = recipe.optimizer
    state, _ = vj.fit(
        vj.init(init_key, vae, optimizer),
        vj.make_train_step(vae, objective, optimizer),
        images,
        epochs=-(-recipe.steps // (len(images) // batch)),
        batch_size=batch,
        store=run.checkpoints(title),
        title=title,
    )
    q = vj.encode_all(encode_key, vae, state.variables, images)
    test_codes = np.asarray(vj.encode_all(test_key, vae, state.variables, run.data.test).mean)
    weights = {"params": state.variables["params"]["decoder"]}
    return Memory(vae.decoder, weights, np.asarray(q.mean), np.sqrt(np.asarray(q.variance)), test_codes)


def store_each_way(key: jax.Array, run: Run, recipe: Recipe, images: vj.Split, code_dim: int) -> dict[str, Memory]:
    """Store the images by a vector of ones, one-hot codes, learned codes and an autoencoder."""
    ones_key, one_hot_key, code_key, learned_key, encoder_key = jax.random.split(key, 5)
    x, shape, size = scaled(images), images.event_shape, (len(images), code_dim)
    return {
        ONES: store(ones_key, shape, np.ones(size, np.float32), x, recipe),
        ONE_HOT: store(one_hot_key, shape, np.eye(len(x), dtype=np.float32), x, recipe),
        LEARNED: store(learned_key, shape, jax.random.normal(code_key, size), x, recipe, learn=True),
        AUTOENCODER: store_by_encoder(encoder_key, run, recipe, images, AUTOENCODER, code_dim),
    }


def errors(memories: Mapping[str, Memory], images: vj.Split, test: vj.Split) -> dict[str, dict[str, float]]:
    """The error of the stored images of each, and of the test images for the autoencoder."""
    x = scaled(images)
    numbers = {name: means_and_errors(error=difference(each(each.codes), x)) for name, each in memories.items()}
    encoder = memories[AUTOENCODER]
    assert encoder.test_codes is not None
    of_test = means_and_errors(error=difference(encoder(encoder.test_codes), scaled(test)))
    return numbers | {f"{AUTOENCODER}, test": of_test}


def store_with_noise(key: jax.Array, run: Run, recipe: Recipe, images: vj.Split, config: Config) -> dict[str, Memory]:
    """Store the images at learned codes with each noise level, by a VAE, and on a line by an autoencoder and a VAE."""
    code_key, learned_key, encoder_key = jax.random.split(key, 3)
    vae_key, line_key, vae_line_key = jax.random.split(encoder_key, 3)
    x, memories = scaled(images), {}
    codes = jax.random.normal(code_key, (len(x), config.code_dim))
    for sigma in config.noise:  # from the same weights and codes
        own_key = jax.random.clone(learned_key)
        memories[noisy(sigma)] = store(own_key, images.event_shape, codes, x, recipe, sigma, learn=True)
    return memories | {
        "VAE": store_by_encoder(vae_key, run, recipe, images, "VAE", config.code_dim),
        f"{AUTOENCODER} on a line": store_by_encoder(line_key, run, recipe, images, AUTOENCODER, 1, line=True),
        "VAE on a line": store_by_encoder(vae_line_key, run, recipe, images, "VAE", 1, line=True),
    }


def measure(key: jax.Array, memory: Memory, images: np.ndarray, recipe: Recipe) -> dict[str, float]:
    """Measure the error of the stored images, and what is decoded between neighbouring codes.

    A second decoder with other initial weights memorises the same images at the same codes, with the same noise.
    """
    weights, _ = memorise(key, memory.decoder, memory.codes, images, memory.noise, recipe)
    path = chain(memory.codes)
    codes, x = memory.codes[path], images[path]
    middle = memory(halfway(codes))
    return means_and_errors(
        error=difference(memory(codes), x),
        from_average=difference(middle, halfway(x)),
        disagreement=difference(middle, memory._replace(weights=weights)(halfway(codes))),
        half_distance=difference(x[:-1], x[1:]) / 2,
    ) | {"path_ratio": path_ratio(memory)}


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Root mean square over the pixels of the difference of each two images, [n]."""
    return np.sqrt(np.square(a - b).reshape(len(a), -1).mean(axis=1))


def chain(codes: np.ndarray) -> np.ndarray:
    """A path through all codes, each followed by the nearest that remains; on a line, the codes in order."""
    path = [int(np.argmin(codes[:, 0]))]
    while len(path) < len(codes):
        distances = np.linalg.norm(codes - codes[path[-1]], axis=1)
        distances[path] = np.inf
        path.append(int(np.argmin(distances)))
    return np.array(path)


def halfway(values: np.ndarray) -> np.ndarray:
    """The averages of successive rows."""
    return (values[:-1] + values[1:]) / 2


def along(memory: Memory) -> np.ndarray:
    """Points on the straight lines from each code to the next in the chain, [N - 1, STEPS + 1, D]."""
    codes = memory.codes[chain(memory.codes)]
    return vj.latents.straight_paths(codes[:-1], codes[1:], STEPS + 1)


def path_ratio(memory: Memory) -> float:
    """Length of the decoded path through all codes, divided by that of straight lines between the decoded images."""
    points = along(memory)
    images = memory(points.reshape(-1, points.shape[-1])).reshape(*points.shape[:2], -1)
    length = sum(difference(gap[:-1], gap[1:]).sum() for gap in images)
    return float(length / difference(images[:, 0], images[:, -1]).sum())


def table(growth: Mapping[str, Any], between: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The lines of the printed table."""
    lines = ["error of the stored images, and of the test images for the autoencoder:"]
    for count, ways in growth.items():
        lines.append(f"  {count} images: " + ", ".join(f"{name} {means['error']:.3f}" for name, means in ways.items()))
    lines.append(
        "error; half-way distance from the average of the neighbours, and of two decoders; length of the path:"
    )
    for name, numbers in between.items():
        means = (f"{numbers[part]:.3f} +- {numbers[f'{part}_standard_error']:.3f}" for part in PARTS)
        lines.append(f"  {name}: {'; '.join(means)}; {numbers['path_ratio']:.2f} times the straight one")
    return lines


def draw_numbers(growth: Mapping[str, Any], levels: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Plot the error against the number of stored images, and what noise changes half-way between learned codes."""
    figure = Figure(figsize=(9.2, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, colour in zip(next(iter(growth.values())), vj.plot.COLOURS, strict=False):
        curve(left, [row[name] for row in growth.values()], "error", name, colour)
    left.set_xticks(range(len(growth)), list(growth))
    left.set(xlabel="stored images", ylabel="root mean square error")
    for (part, label), colour in zip(PARTS.items(), (vj.plot.COLOURS[2], *vj.plot.COLOURS[5:]), strict=True):
        curve(right, list(levels.values()), part, label, colour)
    right.set_xticks(range(len(levels)), list(levels))
    right.set(xlabel="standard deviation of the noise on learned codes", ylabel="root mean square difference")
    for axes, columns in ((left, 2), (right, 1)):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=columns)
    figure.suptitle(title)
    return figure


def curve(axes: Axes, rows: Sequence[Mapping[str, float]], part: str, label: str, colour: str) -> None:
    """Plot the means of one number, with a band of one standard error."""
    mean, error = (np.array([row[name] for row in rows]) for name in (part, f"{part}_standard_error"))
    axes.plot(range(len(rows)), mean, "-o", color=colour, markersize=4, label=label)
    axes.fill_between(range(len(rows)), mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)


def draw_steps(memories: Mapping[str, Memory], images: vj.Split, noisy_codes: str, title: str) -> Figure:
    """Draw the four steps: images, and what is decoded at their codes and half-way between them."""
    names = (ONES, ONE_HOT, LEARNED, noisy_codes, AUTOENCODER, "VAE")
    sheets = [(name, shown(memories[name], images)) for name in names]
    return vj.plot.sheets(sheets, len(sheets[0][1]) // 2, 2, title, ("stored", "decoded"))


def draw_line(memories: Mapping[str, Memory], images: vj.Split, title: str) -> Figure:
    """Draw the codes on a line with the distance of the decoded images from the stored ones, and some of the images."""
    x, unit = scaled(images), np.sqrt(np.prod(images.event_shape))
    labels = np.full(len(x), 9) if images.labels is None else images.labels % len(vj.plot.CLASS_COLOURS)
    figure = Figure(figsize=(9.2, 4.2), layout="constrained")
    grid = figure.subplots(2, 2, sharey="col", width_ratios=(1, 1.2))
    for name, (left, right) in zip(ENCODERS, grid, strict=True):
        memory = memories[f"{name} on a line"]
        path, errors = along(memory).reshape(-1, 1), difference(memory(memory.codes), x)
        left.plot(path, vj.nearest_distance(memory(path), x) / unit, color="black", linewidth=1)
        left.scatter(memory.codes, errors, c=np.array(vj.plot.CLASS_COLOURS)[labels], s=28, zorder=3)
        left.set_title(name, fontsize="medium")
        left.set_ylabel("RMS distance to the\nnearest stored image", fontsize="small")
        sheet = shown(memory, images)
        vj.plot.draw_images(right, sheet, len(sheet) // 2)
        right.set_yticks(sheet.shape[1] * np.array([0.5, 1.5]), ("stored", "decoded"))
        right.tick_params(length=0)
    grid[-1, 0].set_xlabel("code")
    vj.plot.title_with_classes(figure, f"{title}\nDots: codes of the stored images", images.labels)
    return figure


def shown(memory: Memory, images: vj.Split) -> np.ndarray:
    """Stored images from the middle of the chain, with gaps, and then what is decoded at their codes and half-way."""
    path = chain(memory.codes)[max(0, (len(images) - SHOWN) // 2) :][:SHOWN]
    z = np.repeat(memory.codes[path], 2, axis=0)[:-1]
    z[1::2] = halfway(memory.codes[path])
    decoded = memory(z)
    stored = np.zeros_like(decoded)
    stored[::2] = scaled(images)[path]
    return np.concatenate([stored, decoded])


if __name__ == "__main__":
    run_script(main, Config)
