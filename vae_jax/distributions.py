"""Distributions of latents: the posterior q(z|x), the prior p(z), and the divergence of one from the other, in nats.

The classes are pytrees of arrays with any leading axes, such as [samples, batch]. Densities sum over the latent
dimension; nothing here takes a mean over examples.

Where there is chance, `key` is one key or one key per example. One key is folded with each example's position, so that
the draw of an example depends on its position alone and not on the size of the batch around it.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.errors import InputError

LOG_2PI = 1.8378770664093453
_LOG_VARIANCE_BOUND = 20.0  # standard deviations from 4.5e-5 to 2.2e4


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
    def mean(self) -> Float[Array | np.ndarray, "*batch latent"]:
        """E[z|x]."""

    @property
    def variance(self) -> Float[Array, "*batch latent"]:
        """Of each latent dimension."""

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch latent"]:
        """A reparameterised draw for each example."""

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """log q(z|x)."""

    def log_ratio(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples latent"]:
        """log q(z|x) - log p(z) of each latent dimension; its expectation under q(z|x) is the KL."""

    def kl(self) -> Float[Array, "*batch latent"]:
        """KL(q(z|x) || N(0, I)) of each latent dimension."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, diag(exp(log_variance))), the posterior of a variational autoencoder (Kingma and Welling, 2014)."""

    mean: Float[Array | np.ndarray, "*batch latent"]
    log_variance: Float[Array | np.ndarray, "*batch latent"]

    parameters: ClassVar[int] = 2
    """Numbers that the encoder emits for each latent dimension."""

    @classmethod
    def from_network(cls, outputs: Float[Array, "*batch 2 latent"]) -> "DiagonalGaussian":
        """Mean and log-variance; beyond -20 and 20 the latter is bent, so that no exponential overflows."""
        mean, log_variance = outputs[..., 0, :], outputs[..., 1, :]
        return cls(mean, soft_clip(log_variance, -_LOG_VARIANCE_BOUND, _LOG_VARIANCE_BOUND))

    @property
    def variance(self) -> Float[Array, "*batch latent"]:
        """exp(log_variance)."""
        return jnp.exp(jnp.asarray(self.log_variance))

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch latent"]:
        """mean + standard deviation * N(0, I) (the reparameterisation of Kingma and Welling, 2014, eq. 10)."""
        mean, log_variance = jnp.asarray(self.mean), jnp.asarray(self.log_variance)
        return mean + jnp.exp(0.5 * log_variance) * normal_like(mean, key, batch_axis=-2)

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """-1/2 sum of (z - mean)^2 / variance + log variance + log 2 pi."""
        z, mean, log_variance = jnp.broadcast_arrays(z, self.mean, self.log_variance)
        square = (z - mean) ** 2 * jnp.exp(-log_variance)
        return -0.5 * jnp.sum(square + log_variance + LOG_2PI, axis=-1)

    def log_ratio(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples latent"]:
        """1/2 (z^2 - (z - mean)^2 / variance - log variance) of each dimension."""
        z, mean, log_variance = jnp.broadcast_arrays(z, self.mean, self.log_variance)
        return 0.5 * (z**2 - (z - mean) ** 2 * jnp.exp(-log_variance) - log_variance)

    def kl(self) -> Float[Array, "*batch latent"]:
        """1/2 (mean^2 + variance - 1 - log variance) of each dimension (Kingma and Welling, 2014, appendix B)."""
        return 0.5 * (jnp.square(self.mean) + jnp.expm1(self.log_variance) - self.log_variance)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Delta:
    """All mass at one point: the "posterior" of a plain autoencoder. No noise, no divergence."""

    mean: Float[Array | np.ndarray, "*batch latent"]

    parameters: ClassVar[int] = 1

    @classmethod
    def from_network(cls, outputs: Float[Array, "*batch 1 latent"]) -> "Delta":
        """The point itself."""
        return cls(outputs[..., 0, :])

    @property
    def variance(self) -> Float[Array, "*batch latent"]:
        """Zero."""
        return jnp.zeros_like(self.mean)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch latent"]:
        """The point; `key` has no influence."""
        return jnp.asarray(self.mean)

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """The log of the probability of exactly `z`: 0 at the point, minus infinity elsewhere."""
        z, mean = jnp.broadcast_arrays(z, self.mean)
        return jnp.where(jnp.all(z == mean, axis=-1), 0.0, -jnp.inf)

    def log_ratio(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples latent"]:
        """Zero, as the KL."""
        return jnp.zeros_like(z)

    def kl(self) -> Float[Array, "*batch latent"]:
        """Zero: a plain autoencoder has no prior to diverge from."""
        return jnp.zeros_like(self.mean)
