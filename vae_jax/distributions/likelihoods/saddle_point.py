"""Terms of log-densities that contain the gamma function, without cancellation between large logarithms (Loader, 2000).

C. Loader, "Fast and accurate computation of binomial probabilities", 2000. Stirling's formula holds log n! up to a
small error, and the large terms that remain combine to deviances, which are small near the mean.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.distributions.base import LOG_2PI

_FAR = 8.0  # from here on, the first three terms of the asymptotic series are exact to 1e-9


def stirling_error(n: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log n! - (n log n - n + log(2 pi n) / 2), of any real number n above 0."""
    is_far = n >= _FAR
    near, far = jnp.where(is_far, 1.0, n), jnp.where(is_far, n, _FAR)
    exact = jax.lax.lgamma(near + 1) - (near + 0.5) * jnp.log(near) + near - 0.5 * LOG_2PI
    square = 1 / far**2
    series = (1 / 12 - square * (1 / 360 - square / 1260)) / far
    return jnp.where(is_far, series, exact)


def deviance(n: Float[Array, "..."], log_ratio: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """n log(n / m) + m - n, from n and log(m / n): 0 where they are equal, above 0 elsewhere."""
    return n * (jnp.expm1(log_ratio) - log_ratio)
