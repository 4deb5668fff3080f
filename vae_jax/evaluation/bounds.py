"""The ELBO and log p(x) of any number of examples, in nats, and bits per dimension."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from vae_jax.data.transforms import LEVELS, Batch, Examples, Transform, as_split, as_transform
from vae_jax.distributions import Delta, example_keys
from vae_jax.distributions.likelihoods.base import require_values
from vae_jax.errors import InputError, renamed, require_finite, require_positive_int
from vae_jax.evaluation.blocks import block_of, in_blocks, on_host
from vae_jax.evaluation.passes import inputs_of
from vae_jax.models import VAE, LatentVariableModel, Variables
from vae_jax.objectives import ELBOTerms, as_batch, elbo_terms, log_weights_of
from vae_jax.values import jit, shape_repr


@jit
def _elbo_terms(
    first: int | Array,
    examples: Array,
    labels: Array | None = None,
    *,
    key: Array,
    variables: Variables,
    model: LatentVariableModel,
    transform: Transform,
) -> ELBOTerms:
    observation_keys, noise_keys = (
        example_keys(jax.random.fold_in(key, stream), len(examples), first) for stream in range(2)
    )
    return elbo_terms(noise_keys, model, variables, transform(observation_keys, examples, labels))


@renamed(observe="transform")
def evaluate(
    key: Key[Array, ""],
    model: LatentVariableModel,
    variables: Variables,
    data: Examples,
    *,
    transform: Any = None,
    block: int | None = None,
) -> ELBOTerms:
    """The ELBO's terms of each example, at one sampled z each, in nats.

    The noise of an example depends on `key` and its position alone, so the numbers do not depend on `block`.

    Args:
      key: of observing and of the draws.
      model: whose bound it is.
      variables: of the model.
      data: a split, or a plain array of examples.
      transform: what the model sees of them; by default `default_transform`.
      block: examples at once.

    Returns:
      `log_px_z` and `kl`, float32 [N] on the host; `mean_and_stderr` takes their means.

    Raises:
      InputError: no examples or some of another shape, values that the likelihood does not take, labels that are
        missing or above the model's classes, or variables that are not finite.
    """
    require_finite(variables)
    data = as_split(data)
    transform = as_transform(transform, data)
    model.require_data(data, transform)
    run = partial(_elbo_terms, key=key, variables=variables, model=model, transform=transform)
    return in_blocks(run, *inputs_of(data), block=block)


@shape_repr
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
      x: as observed, on the host or the device; binarise before (`transform_all`). A `Batch` may have targets, missing
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


@renamed(observe="transform")
def bits_per_dim(log_px: Float[Any, " n"], model: LatentVariableModel, transform: Transform) -> Float[Any, " n"]:
    """-log p(x) of each example in bits for each entry of the event, of the stored bytes or of binary pixels.

    A density of dequantised bytes becomes a bound on their probability by the width of a level (Theis et al., 2016).

    Args:
      log_px: log p(x), or a bound on it, in nats.
      model: whose likelihood it is.
      transform: what was observed.

    Raises:
      InputError: the number is no likelihood of such data, as a cross-entropy of grey pixels or a density of levels, or
        no bound on log p(x), as that of a plain autoencoder.
    """
    if getattr(model, "posterior", None) is Delta:
        raise InputError("a plain autoencoder has no bound on log p(x), so it has no bits per dimension")
    values = transform.support
    if not model.likelihood.is_likelihood_of(values):
        raise InputError(
            f"a {model.likelihood.label(values)} of {transform.label} pixels is no likelihood, so it has no bits per "
            "dimension; transform with Dequantize() under a density, with Binarize() under a Bernoulli"
        )
    if not values.discrete and values.high - values.low == math.inf:
        raise InputError(f"{transform.label} values are real numbers, whose density has no bits; report nats instead")
    width = 1.0 if values.discrete else (values.high - values.low) / LEVELS
    dims = math.prod(model.event_shape)
    return -on_host(log_px, np.float64) / (dims * math.log(2)) - math.log2(width)
