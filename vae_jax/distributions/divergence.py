"""KL divergence of a posterior from a prior, and the log-ratio of their densities at samples, in nats.

Both are returned per unit. If posterior and prior factorise over the latent dimensions, each dimension is a unit;
otherwise there is a single unit for all dimensions. Free bits and the count of active units apply to these units.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vae_jax.distributions.base import Posterior, Prior, require_latents
from vae_jax.distributions.gaussian import Delta, DiagonalGaussian, FullGaussian
from vae_jax.distributions.standard import UnitGaussian
from vae_jax.errors import InputError


def kl_divergence(
    q: Posterior, p: Prior | DiagonalGaussian, z: Float[Array, "*samples latent"]
) -> Float[Array, "*samples units"] | Float[Array, "*batch units"]:
    """KL(q || p) in nats: in closed form where one is implemented, otherwise `log_ratio` at samples `z` from q.

    There is a closed form of a `DiagonalGaussian` or a `FullGaussian` and N(0, I), and of two `DiagonalGaussian`. The
    divergence of a `Delta` is 0, because a plain autoencoder has no prior.

    >>> q = vj.DiagonalGaussian(mean=jnp.array([[1.0, 0.0]]), log_variance=jnp.zeros((1, 2)))
    >>> vae = vj.mlp_vae((4,), latent_dim=2)
    >>> vj.kl_divergence(q, vae.prior_distribution(vae.init(jax.random.key(0))), q.mean).tolist()
    [[0.5, 0.0]]

    Args:
      q: Posterior.
      p: Prior, or the `DiagonalGaussian` of a layer given the layers above it, [*batch, latent].
      z: Samples from q, [*samples, latent].

    Returns:
      [*batch, units] in closed form, otherwise [*samples, units].

    Raises:
      InputError: q, p and z are of different numbers of latents.
    """
    if isinstance(q, Delta):
        return q.kl()
    if isinstance(p, UnitGaussian) and isinstance(q, DiagonalGaussian | FullGaussian):
        require_latents("the mean of q", q.mean, p.latent_dim)
        return q.kl()
    if isinstance(p, DiagonalGaussian) and isinstance(q, DiagonalGaussian):
        return _whitened(q, p).kl()
    return log_ratio(q, p, z)


def log_ratio(
    q: Posterior, p: Prior | DiagonalGaussian, z: Float[Array, "*samples latent"]
) -> Float[Array, "*samples units"]:
    """log q(z|x) - log p(z) in nats, [*samples, units]; its expectation over samples `z` from q is KL(q || p).

    Raises:
      InputError: q is a `Delta`, which has no density, or q, p and z are of different numbers of latents.
    """
    if isinstance(q, Delta):
        raise InputError("a plain autoencoder has no importance weights, as its posterior has no density")
    if isinstance(p, UnitGaussian) and isinstance(q, DiagonalGaussian):
        require_latents("the mean of q", q.mean, p.latent_dim)
        return q.log_ratio(z)
    if isinstance(p, DiagonalGaussian) and isinstance(q, DiagonalGaussian):
        return _whitened(q, p).log_ratio(_standardised(z, p))
    return (q.log_prob(z) - p.log_prob(z))[..., None]


def _whitened(q: DiagonalGaussian, p: DiagonalGaussian) -> DiagonalGaussian:
    """q in the coordinates (z - mean of p) / standard deviation of p, in which p is N(0, I)."""
    require_latents("the mean of q", q.mean, p.mean.shape[-1])
    log_variance, of_p = jnp.broadcast_arrays(q.log_variance, p.log_variance)
    return DiagonalGaussian(_standardised(q.mean, p), log_variance - of_p)


def _standardised(z: Array | np.ndarray, p: DiagonalGaussian) -> Float[Array, "*samples latent"]:
    z, mean, log_variance = jnp.broadcast_arrays(z, p.mean, p.log_variance)
    return (z - mean) * jnp.exp(-0.5 * log_variance)
