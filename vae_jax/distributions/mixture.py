"""A mixture of diagonal Gaussians."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.distributions.base import LOG_2PI


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianMixtureDistribution:
    """sum_k w_k N(means_k, diag(exp(log_variances_k))).

    Attributes:
      means: [components, latent].
      log_variances: [components, latent].
      logits: of the weights w, up to a constant, [components].
    """

    means: Float[Array, "components latent"]
    log_variances: Float[Array, "components latent"]
    logits: Float[Array, " components"]

    def log_prob(self, z: Float[Array, "*samples latent"]) -> Float[Array, "*samples"]:
        """log sum_k w_k N(z; means_k, diag(exp(log_variances_k))).

        The squared distances from all components are two matrix products. Everything is first centred on the mean of
        the components, which keeps the terms small that cancel in them.
        """
        centre = jax.lax.stop_gradient(self.means.mean(axis=0))
        z, means, precisions = z - centre, self.means - centre, jnp.exp(-self.log_variances)
        product = jax.lax.Precision.HIGHEST
        squares = (
            jnp.matmul(z**2, precisions.T, precision=product)
            - 2 * jnp.matmul(z, (means * precisions).T, precision=product)
            + jnp.sum(means**2 * precisions, axis=-1)
        )
        constants = jnp.sum(self.log_variances + LOG_2PI, axis=-1)
        log_weights = jax.nn.log_softmax(self.logits)
        return jax.nn.logsumexp(log_weights - 0.5 * (jnp.maximum(squares, 0) + constants), axis=-1)

    def sample(
        self, key: Key[Array, ""], count: int, temperature: float | Float[Array, ""] = 1.0
    ) -> Float[Array, "count latent"]:
        """Independent draws: a component, then a point of it, its deviation multiplied by `temperature`."""
        component_key, noise_key = jax.random.split(key)
        component = jax.random.categorical(component_key, self.logits, shape=(count,))
        noise = temperature * jax.random.normal(noise_key, (count, self.means.shape[-1]))
        return self.means[component] + jnp.exp(0.5 * self.log_variances[component]) * noise
