"""Terms of log-densities with gamma functions, computed without cancellation of large logarithms (Loader, 2000).

C. Loader, "Fast and accurate computation of binomial probabilities", 2000. Stirling's formula approximates log n! with
a small error, and the remaining large terms are combined into deviances, which are small near the mean.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.distributions.base import LOG_2PI

_FAR = 8.0  # from this n on, the first three terms of the asymptotic series have an error below 1e-9


def stirling_error(n: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Error of Stirling's formula, log n! - (n log n - n + log(2 pi n) / 2), at any real n above 0."""
    is_far = n >= _FAR
    near, far = jnp.where(is_far, 1.0, n), jnp.where(is_far, n, _FAR)
    exact = jax.lax.lgamma(near + 1) - (near + 0.5) * jnp.log(near) + near - 0.5 * LOG_2PI
    square = 1 / far**2
    series = (1 / 12 - square * (1 / 360 - square / 1260)) / far
    return jnp.where(is_far, series, exact)


def deviance(n: Float[Array, "..."], log_ratio: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Deviance n log(n / m) + m - n from n and log(m / n), which is 0 if n = m and positive otherwise."""
    return n * (jnp.expm1(log_ratio) - log_ratio)
