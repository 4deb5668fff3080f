"""Keys, noise and bounds that all distributions of latents share, and what a distribution is."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.errors import InputError

LOG_2PI = 1.8378770664093453
LOG_VARIANCE_BOUND = 20.0  # standard deviations from 4.5e-5 to 2.2e4


def example_keys(key: Array, batch: int, first: int | Array = 0) -> Key[Array, " batch"]:
    """One key per example: `key` folded with the positions from `first`, unless it already is one per example.

    Raises:
      InputError: the key is none of `jax.random.key`.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise InputError(f"the key is an array of {key.dtype}; make it with jax.random.key, not PRNGKey")
    if key.ndim == 1:
        return key
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, first + jnp.arange(batch))


def normal_like(values: Float[Array, "*shape"], key: Key[Array, "*keys"], batch_axis: int) -> Float[Array, "*shape"]:
    """N(0, 1) noise of the shape of `values`, each example along `batch_axis` with its own key."""
    keys = example_keys(key, values.shape[batch_axis])
    draw = jax.vmap(lambda k, v: jax.random.normal(k, v.shape, v.dtype), in_axes=(0, batch_axis), out_axes=batch_axis)
    return draw(keys, values)


def soft_clip(x: Float[Array, "*shape"], low: float, high: float) -> Float[Array, "*shape"]:
    """The identity from `low` to `high`; beyond, bent smoothly so that it goes no more than 1 further."""
    inside = jnp.clip(x, low, high)
    return inside + jnp.tanh(x - inside)


@runtime_checkable
class Posterior(Protocol):
    """q(z|x): what `VAE.encode` returns."""

    @property
    def mean(self) -> Array:
        """E[z|x], [*batch, latent]."""

    @property
    def variance(self) -> Array:
        """Of each latent dimension, [*batch, latent]."""

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch latent"]:
        """A reparameterised draw for each example; `key` is one key, or one per example."""

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """log q(z|x), summed over the latent dimensions."""


@runtime_checkable
class Prior(Protocol):
    """p(z), or p(z|condition): what a prior value makes of its variables."""

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """log p(z), summed over the latent dimensions."""

    def sample(
        self, key: Key[Array, ""], count: int, temperature: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "count latent"]:
        """Independent draws, the standard deviation of their Gaussian noise multiplied by `temperature`."""
