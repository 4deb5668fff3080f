"""Numbers about a trained model: exact over any number of examples, per example until the caller takes the mean."""

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree, Shaped

from vae_jax.data import Split
from vae_jax.distributions import Delta, Posterior, example_keys
from vae_jax.errors import InputError, is_traced, renamed, require_finite, require_positive_int
from vae_jax.likelihoods.base import require_values
from vae_jax.models import VAE, LatentVariableModel, Variables
from vae_jax.objectives import ELBOTerms, as_batch, elbo_terms, log_weights_of
from vae_jax.observation import LEVELS, Batch, Examples, Observe, as_split, default_transform
from vae_jax.values import jit

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


@jit
def _elbo_terms(
    first: int | Array,
    examples: Array,
    labels: Array | None = None,
    *,
    key: Array,
    variables: Variables,
    model: LatentVariableModel,
    observe: Observe,
) -> ELBOTerms:
    observation_keys, noise_keys = (
        example_keys(jax.random.fold_in(key, stream), len(examples), first) for stream in range(2)
    )
    return elbo_terms(noise_keys, model, variables, observe(observation_keys, examples, labels))


def evaluate(
    key: Key[Array, ""],
    model: LatentVariableModel,
    variables: Variables,
    data: Examples,
    *,
    observe: Observe | None = None,
    block: int | None = None,
) -> ELBOTerms:
    """The ELBO's terms of each example, at one sampled z each, in nats.

    The noise of an example depends on `key` and its position alone, so the numbers do not depend on `block`.

    Args:
      key: of observing and of the draws.
      model: whose bound it is.
      variables: of the model.
      data: a split, or a plain array of examples.
      observe: what the model sees of them; by default `default_transform`.
      block: examples at once.

    Returns:
      `log_px_z` and `kl`, float32 [N] on the host; `estimate` takes their means.

    Raises:
      InputError: no examples or some of another shape, values that the likelihood does not take, labels that are
        missing or above the model's classes, or variables that are not finite.
    """
    require_finite(variables)
    data = as_split(data)
    observe = default_transform(data) if observe is None else observe
    model.require_data(data, observe)
    run = partial(_elbo_terms, key=key, variables=variables, model=model, observe=observe)
    return in_blocks(run, *_inputs(data), block=block)


def _inputs(data: Split) -> list[np.ndarray]:
    """The examples, and their labels where there are any."""
    return [data.images] if data.labels is None else [data.images, np.asarray(data.labels)]


@jit
def _encode(
    first: int | Array,
    examples: Array,
    labels: Array | None = None,
    *,
    key: Array,
    variables: Variables,
    vae: VAE,
    observe: Observe,
) -> Posterior:
    return vae.code(variables, observe(example_keys(key, len(examples), first), examples, labels)).posterior


def encode_all(
    key: Key[Array, ""],
    vae: VAE,
    variables: Variables,
    data: Examples,
    *,
    observe: Observe | None = None,
    block: int | None = None,
) -> Posterior:
    """q(z|x) of each example, on the host; `key` matters only where observing has chance in it."""
    data = as_split(data)
    vae.require_inputs(data)
    observe = default_transform(data) if observe is None else observe
    run = partial(_encode, key=key, variables=variables, vae=vae, observe=observe)
    return in_blocks(run, *_inputs(data), block=block)


@jit
def _decode(first: int | Array, z: Array, condition: PyTree = None, *, variables: Variables, vae: VAE) -> Array:
    return vae.decode(variables, z, condition).mean


@renamed(labels="condition")
def decode_all(
    vae: VAE,
    variables: Variables,
    z: Float[Any, "n latent"],
    condition: PyTree = None,
    *,
    block: int | None = None,
) -> Float[Any, "n ..."]:
    """E[x|z] of each latent, on the host.

    Raises:
      InputError: no latents or some of another dimension, or a condition that the model does not take.
    """
    vae.require_condition(condition, len(z))
    inputs = [z] if condition is None else [z, condition]
    run = partial(_decode, variables=variables, vae=vae)
    return in_blocks(run, *inputs, block=block or block_of(vae.event_shape))


@jit
def _observe(first: int | Array, examples: Array, *, key: Array, observe: Observe) -> Array:
    return observe(example_keys(key, len(examples), first), examples).x


def observe_all(
    key: Key[Array, ""], data: Examples, *, observe: Observe | None = None, block: int | None = None
) -> Float[Any, "n ..."]:
    """What the model sees of each example, on the host: one draw for each where observing has chance in it."""
    data = as_split(data)
    observe = default_transform(data) if observe is None else observe
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


@partial(jit, static_argnames=("samples", "rows"))
def _importance_estimate(
    first: int | Array,
    batch: Batch,
    *,
    key: Array,
    variables: Variables,
    model: LatentVariableModel,
    samples: int,
    rows: int,
) -> ImportanceEstimate:
    count = len(batch.x)
    keys = example_keys(key, count, first)
    code = model.code(variables, batch)
    size = min(samples, max(1, rows // count))

    def log_weights(numbers: Array) -> Array:
        return log_weights_of(model.terms(keys, variables, batch, numbers, code=code))

    def add(sums: tuple[Array, Array, Array], start: Array) -> tuple[tuple[Array, Array, Array], None]:
        greatest, weights, squares = sums
        numbers = start + jnp.arange(size)
        log_w = log_weights(numbers)
        log_w = jnp.where((numbers < samples)[:, None], log_w, -jnp.inf)
        new = jnp.maximum(greatest, log_w.max(axis=0))
        unit = jnp.where(jnp.isneginf(new), 0.0, new)  # while all weights are 0, inf - inf would be NaN
        weight, shrink = jnp.exp(log_w - unit[None]), jnp.exp(greatest - unit)
        return (new, weights * shrink + weight.sum(axis=0), squares * shrink**2 + (weight**2).sum(axis=0)), None

    zeros = jnp.zeros(count, jax.eval_shape(log_weights, jnp.arange(size)).dtype)
    (greatest, weights, squares), _ = jax.lax.scan(add, (zeros - jnp.inf, zeros, zeros), jnp.arange(0, samples, size))
    none = jnp.isneginf(greatest)
    return ImportanceEstimate(greatest + jnp.log(weights / samples), weights**2 / jnp.where(none, 1.0, squares))


@renamed(label="condition")
def importance_estimate(
    key: Key[Array, ""],
    model: LatentVariableModel,
    variables: Variables,
    x: Float[Any, "n ..."] | Batch,
    samples: int = 5_000,
    condition: PyTree = None,
    *,
    block: int = 100,
    rows: int | None = None,
) -> ImportanceEstimate:
    """log p(x) of any number of examples with q(z|x) as the proposal (Burda et al., 2016), and how far to trust it.

    log 1/K sum of p(x, z) / q(z|x) over K draws of z. Memory does not grow with examples or samples, and one
    compilation serves them all. An example's draws depend on `key` and its position alone.

    Args:
      key: of the draws.
      model: no plain autoencoder.
      variables: of the model.
      x: as observed, on the host or the device; binarise before (`observe_all`). A `Batch` may have targets, missing
        entries and conditions.
      samples: draws for each example.
      condition: of each example if the model is conditional: log p(x|condition).
      block: examples at once.
      rows: latents decoded at once; by default few enough that what is made of them stays in a CPU's cache.

    Raises:
      InputError: no samples, examples of another shape or with values that the likelihood does not take, a condition
        that the model does not take, variables with NaN, or a plain autoencoder.
    """
    rows = 4 * block_of(model.event_shape) if rows is None else rows
    require_positive_int(samples=samples, block=block, rows=rows)
    require_finite(variables)
    batch = as_batch(model, x, condition)
    if batch.x.shape[1:] != model.event_shape:
        raise InputError(f"x has shape {batch.x.shape}; expected [n, {', '.join(map(str, model.event_shape))}]")
    if isinstance(model, VAE):
        model.require_condition(batch.label if model.classes is not None else batch.condition, len(batch.x))
    known = batch.targets if batch.observed is None else batch.targets[batch.observed > 0]
    require_values(known, model.likelihood.domain)
    leaves, structure = jax.tree.flatten(batch)

    def run(first: int, *block_of_leaves: Any) -> ImportanceEstimate:
        own = jax.tree.unflatten(structure, block_of_leaves)
        return _importance_estimate(first, own, key=key, variables=variables, model=model, samples=samples, rows=rows)

    return in_blocks(run, *map(on_host, leaves), block=block)


@renamed(label="condition")
def log_likelihood(
    key: Key[Array, ""],
    model: LatentVariableModel,
    variables: Variables,
    x: Float[Any, "n ..."] | Batch,
    samples: int = 5_000,
    condition: PyTree = None,
) -> Float[Any, " n"]:
    """`importance_estimate`'s log p(x) of each example, in nats."""
    return importance_estimate(key, model, variables, x, samples, condition).log_px


@jit
def _kl_by_unit(
    first: int | Array,
    examples: Array,
    labels: Array | None = None,
    *,
    key: Array,
    variables: Variables,
    model: LatentVariableModel,
    observe: Observe,
) -> dict[str, Array]:
    observation_keys, noise_keys = (
        example_keys(jax.random.fold_in(key, stream), len(examples), first) for stream in range(2)
    )
    terms = model.terms(noise_keys, variables, observe(observation_keys, examples, labels))
    return {layer: kl[0] for layer, kl in terms.kl.items()}


def kl_by_unit(
    key: Key[Array, ""],
    model: LatentVariableModel,
    variables: Variables,
    data: Examples,
    *,
    observe: Observe | None = None,
    block: int | None = None,
) -> dict[str, Float[Any, "n units"]]:
    """The KL of each example by layer and unit, in nats, on the host; sampled where there is no closed form.

    `active_units` takes it, for models of any number of layers.
    """
    require_finite(variables)
    data = as_split(data)
    observe = default_transform(data) if observe is None else observe
    model.require_data(data, observe)
    run = partial(_kl_by_unit, key=key, variables=variables, model=model, observe=observe)
    return in_blocks(run, *_inputs(data), block=block)


def active_units(of: Posterior | Mapping[str, Float[Any, "n units"]], threshold: float = 0.01) -> Any:
    """Which latent units are used.

    Args:
      of: q(z|x) of many examples, from `encode_all`: a dimension is active where E[z|x] has a variance above
        `threshold` over the examples (Burda et al., 2016, section 5.1). Or the KL by layer, from `kl_by_unit`: a unit
        is active where its mean over the examples is above `threshold` nats.
      threshold: the paper's; in the latent's own unit, squared, or in nats.

    Returns:
      A truth value for each unit, [units]; by layer if `of` is.
    """
    if isinstance(of, Mapping):
        return {layer: on_host(kl, np.float64).mean(axis=0) > threshold for layer, kl in of.items()}
    return on_host(of.mean, np.float64).var(axis=0) > threshold


class PosteriorCollapseWarning(UserWarning):
    """q(z|x) is the prior whatever x is: the latent says nothing of the image."""


def warn_if_collapsed(posterior: Posterior) -> None:
    """Warn if no latent dimension is active."""
    if not np.any(active_units(posterior)):
        warnings.warn(
            "the posterior has collapsed: no latent dimension changes with the image. Try a KL warm-up "
            "(ELBO(beta=optax.linear_schedule(0, 1, steps))), free bits (ELBO(free_bits=0.1)) or a smaller beta",
            PosteriorCollapseWarning,
            stacklevel=2,
        )


def bits_per_dim(log_px: Float[Any, " n"], model: LatentVariableModel, observe: Observe) -> Float[Any, " n"]:
    """-log p(x) of each example in bits for each entry of the event, of the stored bytes or of binary pixels.

    A density of dequantised bytes becomes a bound on their probability by the width of a level (Theis et al., 2016).

    Args:
      log_px: log p(x), or a bound on it, in nats.
      model: whose likelihood it is.
      observe: what was observed.

    Raises:
      InputError: the number is no likelihood of such data, as a cross-entropy of grey pixels or a density of levels, or
        no bound on log p(x), as that of a plain autoencoder.
    """
    if getattr(model, "posterior", None) is Delta:
        raise InputError("a plain autoencoder has no bound on log p(x), so it has no bits per dimension")
    values = observe.support
    if not model.likelihood.is_likelihood_of(values):
        raise InputError(
            f"a {model.likelihood.label(values)} of {observe.label} pixels is no likelihood, so it has no bits per "
            "dimension; observe with Dequantize() under a density, with Binarize() under a Bernoulli"
        )
    if not values.discrete and values.high - values.low == math.inf:
        raise InputError(f"{observe.label} values are real numbers, whose density has no bits; report nats instead")
    width = 1.0 if values.discrete else (values.high - values.low) / LEVELS
    dims = math.prod(model.event_shape)
    return -on_host(log_px, np.float64) / (dims * math.log(2)) - math.log2(width)
