"""ELBO and log p(x) of any number of examples, in nats, and bits per dimension."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from vae_jax.data import Split
from vae_jax.data.arrays import as_reals
from vae_jax.data.transforms import (
    LEVELS,
    Batch,
    Examples,
    Mirrored,
    Raw,
    Transform,
    as_split,
    as_transform,
    require_transform,
)
from vae_jax.distributions import Delta, example_keys
from vae_jax.distributions.likelihoods.base import require_observed
from vae_jax.errors import InputError, renamed, require_finite_variables, require_key, require_positive_int
from vae_jax.evaluation.blocks import block_of, in_blocks, on_host
from vae_jax.evaluation.passes import inputs_of, observed_batch
from vae_jax.models import LatentVariableModel, Variables
from vae_jax.models.base import BaseVAE, known_inputs
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
    noise_keys, batch = observed_batch(key, first, examples, labels, transform)
    return elbo_terms(noise_keys, model, variables, batch)


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
    """Terms of the ELBO of each example, at one sampled z per example, in nats.

    The noise of an example depends only on `key` and its position, so the results do not depend on `block`.

    Args:
      key: Key of the transform and of the samples of z.
      model: Model whose bound is computed.
      variables: Variables of the model.
      data: Split, or array of examples.
      transform: Transform that turns the examples into a batch; by default `Scale()` of bytes, and otherwise the
        stored numbers.
      block: Number of examples per compiled call.

    Returns:
      `log_px_z` and `kl`, float32 [N] on the host; `mean_and_stderr` computes their means.

    Raises:
      InputError: The model does not take the shape, the values or the labels of the examples, the variables are not
        finite, or an argument is not valid.
    """
    require_key(key)
    require_finite_variables(variables)
    data = as_split(data)
    transform = as_transform(transform, data)
    model.require_data(data, transform)
    run = partial(_elbo_terms, key=key, variables=variables, model=model, transform=transform)
    return in_blocks(run, *inputs_of(data), block=block)


@shape_repr
class ImportanceEstimate(NamedTuple):
    """log p(x) of each example by importance sampling.

    Attributes:
      log_px: Log of the mean importance weight, in nats; its expectation is a lower bound of log p(x) that becomes
        tighter with the number of samples.
      effective_samples: 1 over the sum of the squared normalised weights, from 1 to the number of samples, or 0 if all
        weights are 0. Near 1 a single sample dominates the estimate, and log p(x) is underestimated.
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
    x: Any,
    samples: int = 5_000,
    condition: PyTree = None,
    *,
    block: int = 100,
    rows: int | None = None,
) -> ImportanceEstimate:
    """log p(x) of each example by importance sampling with the proposal q(z|x), and effective sample sizes.

    log 1/K sum of p(x, z) / q(z|x) over K samples of z (Burda et al., 2016, equation 8). Memory does not grow with the
    number of examples or samples, and the computation is compiled once. The samples of an example depend only on `key`
    and its position.

    Args:
      key: Key of the samples.
      model: Model other than a plain autoencoder.
      variables: Variables of the model.
      x: Examples after the transform (see `transform_all`), [n, *event], or a `Batch` (see `transform_to_batch`),
        which may have targets, missing entries and conditions.
      samples: Number of samples per example, K.
      condition: Condition of each example if the model is conditional; the result is log p(x|condition).
      block: Number of examples per compiled call.
      rows: Number of latents decoded at the same time; the default keeps the decoded arrays in the cache of a CPU.

    Raises:
      InputError: The model does not take the shape or the values of the examples or the condition, the variables are
        not finite, the model is a plain autoencoder, or an argument is not valid.
    """
    rows = 4 * block_of(model.event_shape) if rows is None else rows
    require_key(key)
    require_positive_int(samples=samples, block=block, rows=rows)
    require_finite_variables(variables)
    if isinstance(x, Split):
        raise InputError("x is a split; expected its examples after the transform: vj.transform_to_batch(key, split)")
    batch = as_batch(model, x, condition)
    known_inputs(batch, model.event_shape)
    if isinstance(model, BaseVAE):
        model.require_condition(batch.label if model.classes is not None else batch.condition, len(batch.x))
    require_observed(batch.targets, model.event_shape, model.likelihood.domain, batch.observed)
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
    x: Any,
    samples: int = 5_000,
    condition: PyTree = None,
) -> Float[Any, " n"]:
    """log p(x) of each example, [n], in nats, by `importance_estimate`, which also has its arguments and errors."""
    return importance_estimate(key, model, variables, x, samples, condition).log_px


@renamed(observe="transform")
def bits_per_dim(log_px: Any, model: LatentVariableModel, transform: Transform) -> Float[Any, " n"]:
    """-log p(x) of each example in bits per entry of the event, of stored bytes or of binary pixels.

    A density of dequantised bytes is multiplied by the width of a level, which gives a bound on the probability of the
    bytes (Theis et al., 2016).

    >>> vae = vj.mlp_vae((28, 28, 1), likelihood=vj.DiscretisedLogistic())
    >>> vj.bits_per_dim(np.array([-1000.0]), vae, vj.Scale()).round(4)
    array([1.8402])

    Args:
      log_px: log p(x), or a bound on it, in nats, [n].
      model: Model whose likelihood it is.
      transform: Transform of the examples.

    Raises:
      InputError: The number is not a log-likelihood of such data (a cross-entropy of grey pixels, a density of levels
        or of raw real numbers), or is not a bound on log p(x) (a plain autoencoder), or an argument is not valid.
    """
    require_transform(transform)
    if getattr(model, "posterior", None) is Delta:
        raise InputError("a plain autoencoder has no bound on log p(x), so it has no bits per dimension")
    stored = transform
    while isinstance(stored, Mirrored):
        stored = stored.transform
    if isinstance(stored, Raw) and (stored.missing or not stored.whole):
        raise InputError(
            "raw real numbers and missing entries have no bits per dimension; give bytes with vj.Dequantize() or "
            "vj.Scale()"
        )
    values = transform.support
    if not model.likelihood.is_likelihood_of(values):
        raise InputError(
            f"a {model.likelihood.label(values)} of {transform.label} pixels is no likelihood, so it has no bits per "
            "dimension; use the transform Dequantize() with a density, or Binarize() with a Bernoulli"
        )
    if not values.discrete and values.high - values.low == math.inf:
        raise InputError(f"{transform.label} values are real numbers, whose density has no bits; report nats instead")
    width = 1.0 if values.discrete else (values.high - values.low) / LEVELS
    dims = math.prod(model.event_shape)
    return -on_host(as_reals("log_px", log_px, "[n]"), np.float64) / (dims * math.log(2)) - math.log2(width)
