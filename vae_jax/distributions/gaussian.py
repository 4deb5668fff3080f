"""Gaussian posteriors of latents, and the point mass of a plain autoencoder.

The classes are pytrees of arrays with any leading axes, such as [samples, batch]. Log-densities are in nats and summed
over the latent dimensions; no method averages over examples.

The argument `key` of `sample` is one key, or one key per example. A single key is folded with the position of each
example, so the sample of an example depends on its position, but not on the size of the batch.

A family of posteriors defines the shape of the encoder output (`output_shape`), its variables (`init`), and q(z|x) as a
function of both (`from_network`).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.distributions.base import LOG_2PI, LOG_VARIANCE_BOUND, Variables, normal_like, require_latents, soft_clip
from vae_jax.values import shape_repr


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, diag(exp(log_variance))), the posterior of a variational autoencoder (Kingma and Welling, 2014).

    Attributes:
      mean: Mean, [*batch, latent].
      log_variance: Logarithm of the variance, [*batch, latent].
    """

    mean: Float[Array | np.ndarray, "*batch latent"]
    log_variance: Float[Array | np.ndarray, "*batch latent"]

    @classmethod
    def output_shape(cls, latent_dim: int) -> tuple[int, int]:
        """Shape of the encoder output of one example, [2, latent]: mean and log-variance."""
        return 2, latent_dim

    @classmethod
    def init(cls, key: Key[Array, ""], latent_dim: int) -> Variables:
        """An empty dict: this family has no variables."""
        return {}

    @classmethod
    def from_network(
        cls, outputs: Float[Array, "*batch 2 latent"], variables: Variables | None = None
    ) -> "DiagonalGaussian":
        """The posterior of encoder outputs; log-variances are soft-clipped beyond -20 and 20 (at most -21 and 21)."""
        mean, log_variance = outputs[..., 0, :], outputs[..., 1, :]
        return cls(mean, soft_clip(log_variance, -LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND))

    @property
    def variance(self) -> Float[Array, "*batch latent"]:
        """Variance of each latent dimension, exp(log_variance)."""
        return jnp.exp(jnp.asarray(self.log_variance))

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch latent"]:
        """mean + standard deviation * N(0, I), reparameterised (Kingma and Welling, 2014, equation 10)."""
        mean, log_variance = jnp.asarray(self.mean), jnp.asarray(self.log_variance)
        return mean + jnp.exp(0.5 * log_variance) * normal_like(mean, key, batch_axis=-2)

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """log q(z|x) in nats, -1/2 sum of (z - mean)^2 / variance + log variance + log 2 pi."""
        require_latents("z", z, self.mean.shape[-1])
        z, mean, log_variance = jnp.broadcast_arrays(z, self.mean, self.log_variance)
        square = (z - mean) ** 2 * jnp.exp(-log_variance)
        return -0.5 * jnp.sum(square + log_variance + LOG_2PI, axis=-1)

    def log_ratio(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples latent"]:
        """log q(z|x) - log N(z; 0, I) per dimension, 1/2 (z^2 - (z - mean)^2 / variance - log variance), in nats.

        For other priors, see `log_ratio` of this package.
        """
        require_latents("z", z, self.mean.shape[-1])
        z, mean, log_variance = jnp.broadcast_arrays(z, self.mean, self.log_variance)
        return 0.5 * (z**2 - (z - mean) ** 2 * jnp.exp(-log_variance) - log_variance)

    def kl(self) -> Float[Array, "*batch latent"]:
        """KL(q(z|x) || N(0, I)) per dimension, 1/2 (mean^2 + variance - 1 - log variance), in nats.

        See Kingma and Welling (2014, appendix B). For other priors, see `kl_divergence` of this package.
        """
        return 0.5 * (jnp.square(self.mean) + jnp.expm1(self.log_variance) - self.log_variance)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Delta:
    """Point mass: the "posterior" of a plain autoencoder, without noise and with a divergence of 0.

    Attributes:
      mean: Location of the point mass, [*batch, latent].
    """

    mean: Float[Array | np.ndarray, "*batch latent"]

    @classmethod
    def output_shape(cls, latent_dim: int) -> tuple[int, int]:
        """Shape of the encoder output of one example, [1, latent]: the point."""
        return 1, latent_dim

    @classmethod
    def init(cls, key: Key[Array, ""], latent_dim: int) -> Variables:
        """An empty dict: this family has no variables."""
        return {}

    @classmethod
    def from_network(cls, outputs: Float[Array, "*batch 1 latent"], variables: Variables | None = None) -> "Delta":
        """The point mass at the encoder outputs."""
        return cls(outputs[..., 0, :])

    @property
    def variance(self) -> Float[Array, "*batch latent"]:
        """Zero."""
        return jnp.zeros_like(self.mean)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch latent"]:
        """The point; `key` is ignored."""
        return jnp.asarray(self.mean)

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """Logarithm of the probability of `z`, which is no density: 0 at the point, minus infinity elsewhere."""
        require_latents("z", z, self.mean.shape[-1])
        z, mean = jnp.broadcast_arrays(z, self.mean)
        return jnp.where(jnp.all(z == mean, axis=-1), 0.0, -jnp.inf)

    def kl(self) -> Float[Array, "*batch latent"]:
        """Zero, [*batch, latent], because a plain autoencoder has no prior."""
        return jnp.zeros_like(self.mean)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FullGaussian:
    """N(mean, L L'), a Gaussian posterior with correlated dimensions.

    Attributes:
      mean: Mean, [*batch, latent].
      cholesky: L, lower triangular with a positive diagonal, [*batch, latent, latent].
    """

    mean: Float[Array | np.ndarray, "*batch latent"]
    cholesky: Float[Array | np.ndarray, "*batch latent latent"]

    @classmethod
    def output_shape(cls, latent_dim: int) -> tuple[int, int]:
        """Shape of the encoder output of one example, [2 + latent, latent]: mean, log-variances, rows of N."""
        return 2 + latent_dim, latent_dim

    @classmethod
    def init(cls, key: Key[Array, ""], latent_dim: int) -> Variables:
        """An empty dict: this family has no variables."""
        return {}

    @classmethod
    def from_network(
        cls, outputs: Float[Array, "*batch rows latent"], variables: Variables | None = None
    ) -> "FullGaussian":
        """The posterior of encoder outputs, with L = D (I + N).

        D is the diagonal of the standard deviations, as those of a `DiagonalGaussian`. N is strictly lower triangular.
        """
        diagonal = DiagonalGaussian.from_network(outputs[..., :2, :])
        deviation = jnp.exp(0.5 * jnp.asarray(diagonal.log_variance))
        below = outputs[..., 2:, :]
        unit_lower = jnp.tril(below, k=-1) + jnp.broadcast_to(jnp.eye(below.shape[-1], dtype=below.dtype), below.shape)
        return cls(diagonal.mean, deviation[..., :, None] * unit_lower)

    @property
    def variance(self) -> Float[Array, "*batch latent"]:
        """Variance of each latent dimension, the diagonal of L L'."""
        return jnp.sum(jnp.square(self.cholesky), axis=-1)

    @property
    def covariance_root(self) -> Float[Array | np.ndarray, "*batch latent latent"]:
        """L, the root of the covariance L L'."""
        return self.cholesky

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch latent"]:
        """mean + L * N(0, I), reparameterised."""
        mean, cholesky = jnp.asarray(self.mean), jnp.asarray(self.cholesky)
        return mean + jnp.einsum("...ij,...j->...i", cholesky, normal_like(mean, key, batch_axis=-2))

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """log q(z|x) in nats, -1/2 (|L^-1 (z - mean)|^2 + Z log 2 pi) - log det L with Z latent dimensions."""
        require_latents("z", z, self.mean.shape[-1])
        z, mean = jnp.broadcast_arrays(z, self.mean)
        cholesky = jnp.broadcast_to(jnp.asarray(self.cholesky), (*z.shape, z.shape[-1]))
        white = jax.scipy.linalg.solve_triangular(cholesky, (z - mean)[..., None], lower=True)[..., 0]
        half_log_det = jnp.broadcast_to(self._half_log_det(), z.shape[:-1])
        return -0.5 * jnp.sum(white**2 + LOG_2PI, axis=-1) - half_log_det

    def kl(self) -> Float[Array, "*batch 1"]:
        """KL(q(z|x) || N(0, I)) of all Z dimensions, 1/2 (|mean|^2 + |L|^2 - Z) - log det L, in nats, [*batch, 1]."""
        squares = jnp.square(self.mean) + self.variance - 1
        return (0.5 * jnp.sum(squares, axis=-1) - self._half_log_det())[..., None]

    def _half_log_det(self) -> Float[Array, "*batch"]:
        return jnp.sum(jnp.log(jnp.diagonal(jnp.asarray(self.cholesky), axis1=-2, axis2=-1)), axis=-1)
