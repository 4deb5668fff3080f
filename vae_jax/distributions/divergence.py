"""The divergence of a posterior from a prior, and its value at draws, in nats.

Both come by units: one for each latent dimension where posterior and prior factorise over the dimensions, else one for
all of them together. Free bits apply to a unit, and a unit is what is active or not.
"""

from jaxtyping import Array, Float

from vae_jax.distributions.base import Posterior, Prior
from vae_jax.distributions.gaussian import Delta, DiagonalGaussian, FullGaussian
from vae_jax.distributions.standard import UnitGaussian
from vae_jax.errors import InputError


def kl_divergence(
    q: Posterior, p: Prior, z: Float[Array, "*samples latent"]
) -> Float[Array, "*samples units"] | Float[Array, "*batch units"]:
    """KL(q || p): in closed form where there is one, [*batch, units], else `log_ratio` at draws `z` from q.

    The divergence of a `Delta` is 0, since a plain autoencoder has no prior to diverge from.
    """
    if isinstance(q, Delta) or (isinstance(p, UnitGaussian) and isinstance(q, DiagonalGaussian | FullGaussian)):
        return q.kl()
    return log_ratio(q, p, z)


def log_ratio(q: Posterior, p: Prior, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples units"]:
    """log q(z|x) - log p(z); its expectation over draws `z` from q is the KL.

    Raises:
      InputError: q is a `Delta`, which has no density.
    """
    if isinstance(q, Delta):
        raise InputError("a plain autoencoder has no importance weights, as its posterior has no density")
    if isinstance(p, UnitGaussian) and isinstance(q, DiagonalGaussian):
        return q.log_ratio(z)
    return (q.log_prob(z) - p.log_prob(z))[..., None]
