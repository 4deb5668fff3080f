"""Gaussian posteriors of latents, and the point mass of a plain autoencoder.

The classes are pytrees of arrays with any leading axes, such as [samples, batch]. Densities sum over the latent
dimensions; nothing here takes a mean over examples.

Where there is chance, `key` is one key or one key per example. One key is folded with each example's position, so that
the draw of an example depends on its position alone and not on the size of the batch around it.

A family of posteriors says which numbers the encoder emits for it (`output_shape`), makes its own variables (`init`),
and builds q(z|x) from both (`from_network`).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.distributions.base import LOG_2PI, LOG_VARIANCE_BOUND, normal_like, soft_clip
from vae_jax.values import shape_repr

Variables = dict[str, Any]


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, diag(exp(log_variance))), the posterior of a variational autoencoder (Kingma and Welling, 2014)."""

    mean: Float[Array | np.ndarray, "*batch latent"]
    log_variance: Float[Array | np.ndarray, "*batch latent"]

    @classmethod
    def output_shape(cls, latent_dim: int) -> tuple[int, int]:
        """What the encoder emits for one example: mean and log-variance, [2, latent]."""
        return 2, latent_dim

    @classmethod
    def init(cls, key: Key[Array, ""], latent_dim: int) -> Variables:
        """No variables of its own."""
        return {}

    @classmethod
    def from_network(
        cls, outputs: Float[Array, "*batch 2 latent"], variables: Variables | None = None
    ) -> "DiagonalGaussian":
        """Mean and log-variance; beyond -20 and 20 the latter is bent, so that no exponential overflows."""
        mean, log_variance = outputs[..., 0, :], outputs[..., 1, :]
        return cls(mean, soft_clip(log_variance, -LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND))

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
        """log q(z|x) - log N(z; 0, I) of each dimension, 1/2 (z^2 - (z - mean)^2 / variance - log variance).

        The ratio to another prior is `log_ratio` of this package.
        """
        z, mean, log_variance = jnp.broadcast_arrays(z, self.mean, self.log_variance)
        return 0.5 * (z**2 - (z - mean) ** 2 * jnp.exp(-log_variance) - log_variance)

    def kl(self) -> Float[Array, "*batch latent"]:
        """KL(q(z|x) || N(0, I)) of each dimension, 1/2 (mean^2 + variance - 1 - log variance).

        Kingma and Welling, 2014, appendix B. The divergence from another prior is `kl_divergence` of this package.
        """
        return 0.5 * (jnp.square(self.mean) + jnp.expm1(self.log_variance) - self.log_variance)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Delta:
    """All mass at one point: the "posterior" of a plain autoencoder. No noise, no divergence."""

    mean: Float[Array | np.ndarray, "*batch latent"]

    @classmethod
    def output_shape(cls, latent_dim: int) -> tuple[int, int]:
        """What the encoder emits for one example: the point, [1, latent]."""
        return 1, latent_dim

    @classmethod
    def init(cls, key: Key[Array, ""], latent_dim: int) -> Variables:
        """No variables of its own."""
        return {}

    @classmethod
    def from_network(cls, outputs: Float[Array, "*batch 1 latent"], variables: Variables | None = None) -> "Delta":
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

    def kl(self) -> Float[Array, "*batch latent"]:
        """Zero: a plain autoencoder has no prior to diverge from."""
        return jnp.zeros_like(self.mean)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FullGaussian:
    """N(mean, L L'), a Gaussian posterior with correlated dimensions.

    Attributes:
      mean: [*batch, latent].
      cholesky: L, lower triangular with a positive diagonal.
    """

    mean: Float[Array | np.ndarray, "*batch latent"]
    cholesky: Float[Array | np.ndarray, "*batch latent latent"]

    @classmethod
    def output_shape(cls, latent_dim: int) -> tuple[int, int]:
        """What the encoder emits for one example: mean, log-variances and the rows below L's diagonal."""
        return 2 + latent_dim, latent_dim

    @classmethod
    def init(cls, key: Key[Array, ""], latent_dim: int) -> Variables:
        """No variables of its own."""
        return {}

    @classmethod
    def from_network(
        cls, outputs: Float[Array, "*batch rows latent"], variables: Variables | None = None
    ) -> "FullGaussian":
        """L = D (I + N): D as the deviations of a `DiagonalGaussian`, N strictly lower triangular."""
        diagonal = DiagonalGaussian.from_network(outputs[..., :2, :])
        deviation = jnp.exp(0.5 * jnp.asarray(diagonal.log_variance))
        below = outputs[..., 2:, :]
        unit_lower = jnp.tril(below, k=-1) + jnp.broadcast_to(jnp.eye(below.shape[-1], dtype=below.dtype), below.shape)
        return cls(diagonal.mean, deviation[..., :, None] * unit_lower)

    @property
    def variance(self) -> Float[Array, "*batch latent"]:
        """Of each latent dimension: the diagonal of L L'."""
        return jnp.sum(jnp.square(self.cholesky), axis=-1)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch latent"]:
        """mean + L N(0, I)."""
        mean, cholesky = jnp.asarray(self.mean), jnp.asarray(self.cholesky)
        return mean + jnp.einsum("...ij,...j->...i", cholesky, normal_like(mean, key, batch_axis=-2))

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """-1/2 (|L^-1 (z - mean)|^2 + Z log 2 pi) - log det L."""
        z, mean = jnp.broadcast_arrays(z, self.mean)
        cholesky = jnp.broadcast_to(jnp.asarray(self.cholesky), (*z.shape, z.shape[-1]))
        white = jax.scipy.linalg.solve_triangular(cholesky, (z - mean)[..., None], lower=True)[..., 0]
        half_log_det = jnp.broadcast_to(self._half_log_det(), z.shape[:-1])
        return -0.5 * jnp.sum(white**2 + LOG_2PI, axis=-1) - half_log_det

    def kl(self) -> Float[Array, "*batch 1"]:
        """KL(q(z|x) || N(0, I)), 1/2 (|mean|^2 + |L|^2 - Z) - log det L, of all dimensions together."""
        squares = jnp.square(self.mean) + self.variance - 1
        return (0.5 * jnp.sum(squares, axis=-1) - self._half_log_det())[..., None]

    def _half_log_det(self) -> Float[Array, "*batch"]:
        return jnp.sum(jnp.log(jnp.diagonal(jnp.asarray(self.cholesky), axis1=-2, axis2=-1)), axis=-1)
