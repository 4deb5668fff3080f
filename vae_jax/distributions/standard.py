"""The standard normal distribution N(0, I)."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.distributions.base import LOG_2PI, require_latents


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class UnitGaussian:
    """N(0, I) in `latent_dim` dimensions.

    Attributes:
      latent_dim: Number of latent dimensions, Z.
    """

    latent_dim: int = field(metadata={"static": True})

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """log N(z; 0, I) in nats, -1/2 (|z|^2 + Z log 2 pi)."""
        require_latents("z", z, self.latent_dim)
        return -0.5 * jnp.sum(z**2 + LOG_2PI, axis=-1)

    def sample(
        self, key: Key[Array, ""], count: int, temperature: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "count latent"]:
        """`count` independent samples with standard deviation `temperature`."""
        return temperature * jax.random.normal(key, (count, self.latent_dim))
