"""Mixtures of Gaussians, with diagonal or with full covariances."""

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vae_jax.distributions.base import LOG_2PI, require_latents
from vae_jax.values import shape_repr


class _Mixture(ABC):
    """Base class of mixtures of Gaussians; a subclass defines the densities of the components."""

    means: Float[Array, "components latent"]
    logits: Float[Array, " components"]

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """log sum_k w_k N(z; means_k, C_k) in nats, [*samples]."""
        require_latents("z", z, self.means.shape[-1])
        return jax.nn.logsumexp(self._log_joint(z), axis=-1)

    def responsibilities(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples components"]:
        """p(k|z), the probability of each component given z."""
        require_latents("z", z, self.means.shape[-1])
        return jax.nn.softmax(self._log_joint(z), axis=-1)

    def sample(
        self, key: Key[Array, ""], count: int, temperature: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "count latent"]:
        """`count` independent samples; `temperature` multiplies the standard deviations within the components."""
        component_key, noise_key = jax.random.split(key)
        component = jax.random.categorical(component_key, self.logits, shape=(count,))
        noise = temperature * jax.random.normal(noise_key, (count, self.means.shape[-1]))
        return self.means[component] + self._deviations(component, noise)

    @abstractmethod
    def _log_joint(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples components"]:
        """log w_k N(z; means_k, C_k) in nats."""

    @abstractmethod
    def _deviations(self, component: Int[Array, " n"], noise: Float[Array, "n latent"]) -> Float[Array, "n latent"]:
        """Deviations from the means, of covariance C_k, made of standard normal noise."""


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianMixtureDistribution(_Mixture):
    """Mixture of diagonal Gaussians, sum_k w_k N(means_k, C_k) with C_k = diag(exp(log_variances_k)).

    Attributes:
      means: Means of the components, [components, latent].
      log_variances: Logarithms of the variances, [components, latent].
      logits: Logarithms of the weights w, up to a constant, [components].
    """

    means: Float[Array, "components latent"]
    log_variances: Float[Array, "components latent"]
    logits: Float[Array, " components"]

    def _log_joint(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples components"]:
        # One axis of samples, because XLA sums gradients over two of them many times slower on a CPU.
        squares = _squared_distances(z.reshape(-1, z.shape[-1]), self.means, jnp.exp(-self.log_variances))
        return _log_joint(self.logits, self.log_variances, squares.reshape(*z.shape[:-1], len(self.means)))

    def _deviations(self, component: Int[Array, " n"], noise: Float[Array, "n latent"]) -> Float[Array, "n latent"]:
        return jnp.exp(0.5 * self.log_variances[component]) * noise


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FullGaussianMixtureDistribution(_Mixture):
    """Mixture of Gaussians with full covariances, sum_k w_k N(means_k, C_k).

    With R_k unit lower triangular and D_k diagonal, the precision matrix is inv(C_k) = R_k' inv(D_k) R_k (the modified
    Cholesky decomposition; Pourahmadi, 1999): row i of R_k has minus the coefficients of the regression of z_i on
    z_1 ... z_(i-1), and D_k has the variances of the residuals.

    Attributes:
      means: Means of the components, [components, latent].
      log_variances: Logarithms of the diagonal of D, [components, latent].
      coefficients: Entries of R below its diagonal, [components, latent, latent]; the other entries are not used.
      logits: Logarithms of the weights w, up to a constant, [components].
    """

    means: Float[Array, "components latent"]
    log_variances: Float[Array, "components latent"]
    coefficients: Float[Array, "components latent latent"]
    logits: Float[Array, " components"]

    @property
    def _rows(self) -> Float[Array, "components latent latent"]:
        """The matrices R."""
        return jnp.tril(self.coefficients, k=-1) + jnp.eye(self.means.shape[-1], dtype=self.means.dtype)[None]

    def _log_joint(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples components"]:
        differences = z[..., None, :] - self.means.reshape(*[1] * (z.ndim - 1), *self.means.shape)
        residuals = jnp.einsum("kij,...kj->...ki", self._rows, differences, precision=jax.lax.Precision.HIGHEST)
        squares = jnp.einsum("...ki,ki->...k", residuals**2, jnp.exp(-self.log_variances))
        return _log_joint(self.logits, self.log_variances, squares)

    def _deviations(self, component: Int[Array, " n"], noise: Float[Array, "n latent"]) -> Float[Array, "n latent"]:
        residuals = jnp.exp(0.5 * self.log_variances[component]) * noise
        solve = functools.partial(jax.scipy.linalg.solve_triangular, lower=True, unit_diagonal=True)
        return solve(self._rows[component], residuals[..., None])[..., 0]


def _log_joint(
    logits: Float[Array, " components"],
    log_variances: Float[Array, "components latent"],
    squares: Float[Array, "*samples components"],
) -> Float[Array, "*samples components"]:
    """log w_k N(z; means_k, C_k) in nats, from the squared distances (z - means_k)' inv(C_k) (z - means_k)."""
    constants = jax.nn.log_softmax(logits) - 0.5 * jnp.sum(log_variances + LOG_2PI, axis=-1)
    return constants.reshape(*[1] * (squares.ndim - 1), -1) - 0.5 * squares


@jax.custom_jvp
def _squared_distances(
    z: Float[Array, "samples latent"],
    means: Float[Array, "components latent"],
    precisions: Float[Array, "components latent"],
) -> Float[Array, "samples components"]:
    """sum_d (z_d - means_kd)^2 precisions_kd, accumulated over the dimensions.

    Each difference is squared directly. In the expansion z^2 - 2 z m + m^2 as matrix products the terms cancel, and in
    float32 the log-density of narrow components has an error of more than 1e-3 nats, and its derivative with respect to
    the precisions can have the wrong sign. The other derivatives are those of the matrix products, which are faster.
    """

    # The backward pass computes the squares again, which is faster than storing them.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add(total: Array, of_dimension: tuple[Array, Array, Array]) -> tuple[Array, None]:
        coordinate, mean, precision = of_dimension
        difference = coordinate[:, None] - mean[None]
        return total + difference**2 * precision[None], None

    total = jnp.zeros((len(z), len(means)), jnp.result_type(z, means, precisions))
    return jax.lax.scan(add, total, (z.T, means.T, precisions.T))[0]


@_squared_distances.defjvp
def _squared_distances_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    z, means, precisions = primals
    *of_points, of_precisions = tangents
    _, tangent = jax.jvp(functools.partial(_products, precisions=precisions), (z, means), tuple(of_points))
    return _squared_distances(*primals), tangent + _squared_distances(z, means, of_precisions)


def _products(z: Array, means: Array, precisions: Array) -> Array:
    """`_squared_distances` as matrix products, up to rounding errors."""
    product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    constants = jnp.sum(means**2 * precisions, axis=-1)
    return product(z**2, precisions.T) - 2 * product(z, (means * precisions).T) + constants[None]
