"""Numbers about a trained model: exact over any number of examples, per example until the caller takes the mean."""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, Shaped

from vae_jax.data import Split
from vae_jax.distributions import Delta, Posterior, example_keys
from vae_jax.errors import InputError, is_traced, require_finite, require_positive_int
from vae_jax.likelihoods.base import require_values
from vae_jax.model import VAE, Labels, Variables
from vae_jax.objectives import ELBOTerms, elbo_terms_of, log_weights_of
from vae_jax.observation import LEVELS, Observe, Scale

BLOCK = 1_000
"""Examples that are on their way through a model at once, fewer if they are large."""


def block_of(*shapes: tuple[int, ...]) -> int:
    """How many examples of these shapes make a block: `BLOCK`, or as many as have a million numbers."""
    return max(1, min(BLOCK, 2**20 // max(math.prod(shape) for shape in shapes)))


def on_host(array: Shaped[Any, "..."], dtype: type | None = None) -> Shaped[Any, "..."]:
    """The array as NumPy's, of another type if one is given; a traced array as it is."""
    return array if is_traced(array) else np.asarray(array, dtype)


class Estimate(NamedTuple):
    """A mean over examples and its standard error."""

    mean: float
    standard_error: float


def estimate(values: Shaped[Any, " n"]) -> Estimate:
    """The mean of one number per example, in float64, and the standard error of that mean over the examples.

    The standard error of a single value is NaN.
    """
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), float(error))


def in_blocks(function: Callable[..., PyTree], *arrays: Shaped[Any, "n ..."], block: int | None = None) -> PyTree:
    """`function(first, *blocks)` over blocks of examples, its results joined: as if over all of them at once.

    The last block is filled up with copies of its last example, which are cut off again, so that a compiled function
    meets one shape alone; and where there are fewer examples than a block, one of few shapes.

    Args:
      function: from the position of a block's first example and a block of each array to a tree of arrays [block, ...].
      *arrays: [n, ...], on the host or the device.
      block: examples in a block; by default what `block_of` says of the arrays.

    Returns:
      The tree, its leaves [n, ...] on the host, or traced where the function's results are.

    Raises:
      InputError: no examples.
    """
    total = len(arrays[0])
    if total == 0:
        raise InputError("there are no examples to go through")
    size = min(block or block_of(*(array.shape[1:] for array in arrays)), 1 << (total - 1).bit_length())
    results = []
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size), total - 1)
        kept = min(size, total - start)
        result = function(start, *(array[rows] for array in arrays))
        results.append(jax.tree.map(lambda leaf, kept=kept: on_host(leaf[:kept]), result))
    join = jnp.concatenate if is_traced(results) else np.concatenate
    return jax.tree.map(lambda *leaves: join(leaves), *results)


@partial(jax.jit, static_argnames=("vae", "observe"))
def _elbo_terms(
    first: int | Array,
    images: Array,
    labels: Labels = None,
    *,
    key: Array,
    variables: Variables,
    vae: VAE,
    observe: Observe,
) -> ELBOTerms:
    observation_keys, noise_keys = (
        example_keys(jax.random.fold_in(key, stream), len(images), first) for stream in range(2)
    )
    return elbo_terms_of(noise_keys, vae, variables, observe(observation_keys, images, labels))


def evaluate(
    key: Key[Array, ""],
    vae: VAE,
    variables: Variables,
    data: Split,
    *,
    observe: Observe = Scale(),
    block: int | None = None,
) -> ELBOTerms:
    """The ELBO's terms of each image, at one sampled z each, in nats.

    The noise of an image depends on `key` and its position alone, so the numbers do not depend on `block`.

    Returns:
      `log_px_z` and `kl`, float32 [N] on the host; `estimate` takes their means.

    Raises:
      InputError: no images or some of another shape, values that the likelihood does not take, labels that are missing
        or above the model's classes, or variables that are not finite.
    """
    require_finite(variables)
    vae.require_data(data, observe)
    run = partial(_elbo_terms, key=key, variables=variables, vae=vae, observe=observe)
    return in_blocks(run, *_inputs(vae, data), block=block)


def _inputs(vae: VAE, data: Split) -> list[np.ndarray]:
    """The images, and their labels if the model is conditional."""
    vae.require_inputs(data)
    return [data.images] if vae.classes is None else [data.images, np.asarray(data.labels)]


@partial(jax.jit, static_argnames=("vae", "observe"))
def _encode(
    first: int | Array,
    images: Array,
    labels: Labels = None,
    *,
    key: Array,
    variables: Variables,
    vae: VAE,
    observe: Observe,
) -> Posterior:
    batch = observe(example_keys(key, len(images), first), images, labels)
    return vae.encode(variables, batch.x, batch.label)


def encode_all(
    key: Key[Array, ""],
    vae: VAE,
    variables: Variables,
    data: Split,
    *,
    observe: Observe = Scale(),
    block: int | None = None,
) -> Posterior:
    """q(z|x) of each image, on the host; `key` matters only where observing has chance in it."""
    run = partial(_encode, key=key, variables=variables, vae=vae, observe=observe)
    return in_blocks(run, *_inputs(vae, data), block=block)


@partial(jax.jit, static_argnames=("vae",))
def _decode(first: int | Array, z: Array, labels: Labels = None, *, variables: Variables, vae: VAE) -> Array:
    return vae.decode(variables, z, labels).mean


def decode_all(
    vae: VAE,
    variables: Variables,
    z: Float[Any, "n latent"],
    labels: Int[Any, " n"] | None = None,
    *,
    block: int | None = None,
) -> Float[Any, "n height width channels"]:
    """E[x|z] of each latent, on the host.

    Raises:
      InputError: no latents or some of another dimension, or labels that the model does not take.
    """
    vae.require_labels(labels, len(z))
    inputs = [z] if labels is None else [z, labels]
    run = partial(_decode, variables=variables, vae=vae)
    return in_blocks(run, *inputs, block=block or block_of(vae.image_shape))


@partial(jax.jit, static_argnames="observe")
def _observe(first: int | Array, images: Array, *, key: Array, observe: Observe) -> Array:
    return observe(example_keys(key, len(images), first), images).x


def observe_all(
    key: Key[Array, ""], data: Split, *, observe: Observe = Scale(), block: int | None = None
) -> Float[Any, "n height width channels"]:
    """What the model sees of each image, on the host: one draw for each where observing has chance in it."""
    return in_blocks(partial(_observe, key=key, observe=observe), data.images, block=block)


class ImportanceEstimate(NamedTuple):
    """log p(x) of each image by importance sampling.

    Attributes:
      log_px: log of the mean importance weight, in nats: in expectation a lower bound that tightens with the samples.
      effective_samples: 1 over the sum of the squared normalised weights, from 1 to the number of samples; near 1 the
        estimate hangs on a single draw, and log p(x) is underestimated. 0 where every weight is 0.
    """

    log_px: Float[Any, " n"]
    effective_samples: Float[Any, " n"]


@partial(jax.jit, static_argnames=("vae", "samples", "rows"))
def _importance_estimate(
    first: int | Array,
    x: Array,
    labels: Labels = None,
    *,
    key: Array,
    variables: Variables,
    vae: VAE,
    samples: int,
    rows: int,
) -> ImportanceEstimate:
    keys = example_keys(key, len(x), first)
    posterior = vae.encode(variables, x, labels)
    size = min(samples, max(1, rows // len(x)))

    def add(sums: tuple[Array, Array, Array], start: Array) -> tuple[tuple[Array, Array, Array], None]:
        greatest, weights, squares = sums
        numbers = start + jnp.arange(size)
        z = vae.draw(keys, posterior, numbers)
        log_w = log_weights_of(posterior, z, vae.decode(variables, z, labels), x)
        log_w = jnp.where((numbers < samples)[:, None], log_w, -jnp.inf)
        new = jnp.maximum(greatest, log_w.max(axis=0))
        unit = jnp.where(jnp.isneginf(new), 0.0, new)  # while all weights are 0, inf - inf would be NaN
        weight, shrink = jnp.exp(log_w - unit[None]), jnp.exp(greatest - unit)
        return (new, weights * shrink + weight.sum(axis=0), squares * shrink**2 + (weight**2).sum(axis=0)), None

    zeros = jnp.zeros_like(posterior.mean, shape=len(x))
    (greatest, weights, squares), _ = jax.lax.scan(
        add, (jnp.full_like(zeros, -jnp.inf), zeros, zeros), jnp.arange(0, samples, size)
    )
    none = jnp.isneginf(greatest)
    return ImportanceEstimate(greatest + jnp.log(weights / samples), weights**2 / jnp.where(none, 1.0, squares))


def importance_estimate(
    key: Key[Array, ""],
    vae: VAE,
    variables: Variables,
    x: Float[Any, "n height width channels"],
    samples: int = 5_000,
    label: Int[Any, " n"] | None = None,
    *,
    block: int = 100,
    rows: int | None = None,
) -> ImportanceEstimate:
    """log p(x) of any number of images with q(z|x) as the proposal (Burda et al., 2016), and how far to trust it.

    log 1/K sum of p(x, z) / q(z|x) over K draws of z. Memory does not grow with images or samples, and one compilation
    serves them all. An image's draws depend on `key` and its position alone.

    Args:
      key: of the draws.
      vae: no plain autoencoder.
      variables: of this VAE.
      x: as observed, on the host or the device; binarise before (`observe_all`).
      samples: draws for each image.
      label: if the model is conditional: log p(x|label).
      block: images at once.
      rows: latents decoded at once; by default few enough that what is made of them stays in a CPU's cache.

    Raises:
      InputError: no samples, images of another shape or with values that the likelihood doesn't take, labels that the
        model does not take, variables with NaN, or a plain autoencoder.
    """
    rows = 4 * block_of(vae.image_shape) if rows is None else rows
    require_positive_int(samples=samples, block=block, rows=rows)
    require_finite(variables)
    if x.shape[1:] != vae.image_shape:
        raise InputError(f"x has shape {x.shape}; expected [n, {', '.join(map(str, vae.image_shape))}]")
    require_values(x, vae.likelihood.domain)
    vae.require_labels(label, len(x))
    inputs = [on_host(x)] if label is None else [on_host(x), on_host(label)]
    run = partial(_importance_estimate, key=key, variables=variables, vae=vae, samples=samples, rows=rows)
    return in_blocks(run, *inputs, block=block)


def log_likelihood(
    key: Key[Array, ""],
    vae: VAE,
    variables: Variables,
    x: Float[Any, "n height width channels"],
    samples: int = 5_000,
    label: Int[Any, " n"] | None = None,
) -> Float[Any, " n"]:
    """`importance_estimate`'s log p(x) of each image, in nats."""
    return importance_estimate(key, vae, variables, x, samples, label).log_px


def active_units(posterior: Posterior, threshold: float = 0.01) -> Bool[Any, " latent"]:
    """Which latent dimensions are used: those where E[z|x] has a variance above `threshold` over the images.

    Burda et al., 2016, section 5.1.

    Args:
      posterior: of many images, from `encode_all`.
      threshold: the paper's; in the latent's own unit, squared.
    """
    return on_host(posterior.mean, np.float64).var(axis=0) > threshold


class PosteriorCollapseWarning(UserWarning):
    """q(z|x) is the prior whatever x is: the latent says nothing of the image."""


def warn_if_collapsed(posterior: Posterior) -> None:
    """Warn if no latent dimension is active."""
    if not active_units(posterior).any():
        warnings.warn(
            "the posterior has collapsed: no latent dimension changes with the image. Try a KL warm-up "
            "(ELBO(beta=optax.linear_schedule(0, 1, steps))), free bits (ELBO(free_bits=0.1)) or a smaller beta",
            PosteriorCollapseWarning,
            stacklevel=2,
        )


def bits_per_dim(log_px: Float[Any, " n"], vae: VAE, observe: Observe) -> Float[Any, " n"]:
    """-log p(x) of each image in bits for each pixel and channel, of the stored bytes or of binary pixels.

    A density of dequantised bytes becomes a bound on their probability by the width of a level (Theis et al., 2016).

    Args:
      log_px: log p(x), or a bound on it, in nats.
      vae: whose likelihood it is.
      observe: what was observed.

    Raises:
      InputError: the number is no likelihood of such data, as a cross-entropy of grey pixels or a density of levels, or
        no bound on log p(x), as that of a plain autoencoder.
    """
    if vae.posterior is Delta:
        raise InputError("a plain autoencoder has no bound on log p(x), so it has no bits per dimension")
    values = observe.support
    if not vae.likelihood.is_likelihood_of(values):
        raise InputError(
            f"a {vae.likelihood.label(values)} of {observe.label} pixels is no likelihood, so it has no bits per "
            "dimension; observe with Dequantize() under a density, with Binarize() under a Bernoulli"
        )
    width = 1.0 if values.levels else (values.high - values.low) / LEVELS
    dims = math.prod(vae.image_shape)
    return -on_host(log_px, np.float64) / (dims * math.log(2)) - math.log2(width)
