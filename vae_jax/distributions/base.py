"""Protocols of posteriors and priors, and the keys, the noise and the bounds that all distributions share."""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.errors import InputError, named

LOG_2PI = 1.8378770664093453
LOG_VARIANCE_BOUND = 20.0  # of a soft clip, so that standard deviations are from 2.8e-5 to 3.6e4

Variables = dict[str, Any]
"""Variables by collection; the optimizer trains the collection "params"."""


def example_keys(key: Array, batch: int, first: int | Array = 0) -> Key[Array, " batch"]:
    """One key per example: `key` folded with the position of each example, unless it already is one key per example.

    Args:
      key: One key, or one per example; keys of a batch are returned unchanged.
      batch: Number of examples.
      first: Position of the first example.

    Raises:
      InputError: The key was not made by `jax.random.key`, or there is another number of keys.
    """
    if not isinstance(key, jax.Array):
        raise InputError(f"key is {named(key)}; expected a typed key, such as jax.random.key(0)")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise InputError(f"the key is an array of {key.dtype}; make it with jax.random.key, not PRNGKey")
    if key.shape not in ((), (batch,)):
        raise InputError(f"key has shape {key.shape}; expected one key, or one for each of {batch} examples")
    if key.ndim == 1:
        return key
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, first + jnp.arange(batch))


def own_params(part: Any, variables: Variables, *names: str) -> Any:
    """The parameters of a prior or of a posterior.

    Raises:
      InputError: There are none, or none of a name, as the variables are those of another model.
    """
    params = variables.get("params", {})
    for name in names:
        if name not in params:
            raise InputError(f"the variables have no {name} of {type(part).__name__}; expected those of this model")
    if not params:
        raise InputError(f"the variables have no parameters of {type(part).__name__}; expected those of this model")
    return params


def normal_like(values: Float[Array, "*shape"], key: Key[Array, "*keys"], batch_axis: int) -> Float[Array, "*shape"]:
    """N(0, 1) noise of the shape of `values`, with a separate key for each example along `batch_axis`."""
    keys = example_keys(key, values.shape[batch_axis])
    draw = jax.vmap(lambda k, v: jax.random.normal(k, v.shape, v.dtype), in_axes=(0, batch_axis), out_axes=batch_axis)
    return draw(keys, values)


def soft_clip(x: Float[Array, "*shape"], low: float, high: float) -> Float[Array, "*shape"]:
    """Smooth clipping: the identity from `low` to `high`; values beyond exceed these bounds by at most 1."""
    inside = jnp.clip(x, low, high)
    return inside + jnp.tanh(x - inside)


def require_latents(name: str, z: Any, latent_dim: int) -> None:
    """Raise `InputError` unless the last axis of an array has one entry for each latent dimension."""
    if z.shape[-1:] != (latent_dim,):
        raise InputError(f"{name} has shape {z.shape}; expected [..., {latent_dim}], the latents of the distribution")


@runtime_checkable
class Posterior(Protocol):
    """Approximate posterior q(z|x) of a batch, as returned by `VAE.encode`."""

    @property
    def mean(self) -> Array:
        """E[z|x], [*batch, latent]."""

    @property
    def variance(self) -> Array:
        """Variance of each latent dimension, [*batch, latent]."""

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch latent"]:
        """One reparameterised sample per example, [*batch, latent]; `key` is one key, or one per example."""

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """log q(z|x) in nats, summed over the latent dimensions."""


@runtime_checkable
class Prior(Protocol):
    """Prior p(z) or p(z|condition), as built by a prior such as `GaussianMixture` from its variables."""

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """log p(z) in nats, summed over the latent dimensions."""

    def sample(
        self, key: Key[Array, ""], count: int, temperature: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "count latent"]:
        """`count` independent samples; `temperature` multiplies the standard deviation of their Gaussian noise."""
