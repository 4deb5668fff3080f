"""Likelihoods of counts, which are the whole numbers from 0."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from vae_jax.data.transforms import Support
from vae_jax.distributions.base import LOG_2PI, soft_clip
from vae_jax.distributions.likelihoods.base import (
    Likelihood,
    Variables,
    draw_like,
    learned_scale,
    scale_variables,
    sum_over_event,
)
from vae_jax.distributions.likelihoods.saddle_point import deviance, stirling_error
from vae_jax.errors import require_positive
from vae_jax.values import parameter, shape_repr, value

COUNTS = Support(0.0, math.inf, whole=True)
_LOG_RATE_BOUND = 15.0  # of a soft clip: rates up to 8.9e6, as float32 represents all integers only up to 1.7e7
_GREATEST_RATE = 2.0**30  # greatest rate of a sample, which is int32
_INVERSE_DISPERSION = "log_inverse_dispersion"


@value
class Poisson(Likelihood):
    """Poisson likelihood of counts, whose variance equals their mean."""

    support: ClassVar[Support] = COUNTS

    def label(self, values: Support) -> str:
        """Name of -log p(x|z), a negative log-probability in nats."""
        return "Poisson negative log-likelihood"

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "IndependentPoisson":
        """p(x|z) with the outputs as logarithms of the rates, soft-clipped beyond -15 and 15 (at most -16 and 16)."""
        return IndependentPoisson(_log_rate(outputs), event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class IndependentPoisson:
    """Independent Poisson entries.

    Attributes:
      log_rate: Logarithm of the rate E[x|z], [*batch, *event].
      event_ndim: Number of axes of an event.
    """

    log_rate: Float[Array, "..."]
    event_ndim: int = field(default=3, metadata={"static": True})

    @property
    def mean(self) -> Float[Array, "..."]:
        """E[x|z], the rate, [*batch, *event]."""
        return jnp.exp(self.log_rate)

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """Sum of x log rate - rate - log x! over the event, in nats, by the method of Loader (2000)."""

        def log_density(log_rate: Array, x: Array) -> Array:
            n = jnp.maximum(x, 1)
            of_some = -deviance(n, log_rate - jnp.log(n)) - stirling_error(n) - 0.5 * (jnp.log(n) + LOG_2PI)
            return jnp.where(x > 0, of_some, -jnp.exp(log_rate))

        return sum_over_event(log_density, (self.log_rate,), x, COUNTS, self.event_ndim, observed)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """One sample per example, [*batch, *event]: counts as floating-point numbers."""
        return draw_like(self.mean, key, self.event_ndim, jax.random.poisson).astype(self.log_rate.dtype)


@value
class NegativeBinomial(Likelihood):
    """Negative binomial likelihood of counts with mean m, variance m + m^2 / r and a learned r.

    Its limit as r goes to infinity is the Poisson likelihood.

    Attributes:
      inverse_dispersion: Initial r.
      per_element: Whether each entry of the event, such as a column of a table, has a separate r.
    """

    inverse_dispersion: Any = parameter(default=1.0)
    per_element: bool = False

    support: ClassVar[Support] = COUNTS

    def __post_init__(self) -> None:
        require_positive(inverse_dispersion=self.inverse_dispersion)

    def label(self, values: Support) -> str:
        """Name of -log p(x|z), a negative log-probability in nats."""
        return "negative binomial negative log-likelihood"

    def init(self, event_shape: tuple[int, ...] = ()) -> Variables:
        """Initial variables {"params": {"log_inverse_dispersion": [] or [*event]}}."""
        return scale_variables(self.inverse_dispersion, event_shape if self.per_element else (), _INVERSE_DISPERSION)

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "IndependentNegativeBinomial":
        """p(x|z) with the outputs as logarithms of the means, soft-clipped beyond -15 and 15 (at most -16 and 16)."""
        inverse_dispersion = learned_scale(self.own(variables), _INVERSE_DISPERSION)
        return IndependentNegativeBinomial(_log_rate(outputs), inverse_dispersion, event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class IndependentNegativeBinomial:
    """Independent negative binomial entries.

    Attributes:
      log_mean: Logarithm of the mean m = E[x|z], [*batch, *event].
      inverse_dispersion: Scalar r, or one r per entry.
      event_ndim: Number of axes of an event.
    """

    log_mean: Float[Array, "..."]
    inverse_dispersion: Float[Array, "..."]
    event_ndim: int = field(default=3, metadata={"static": True})

    @property
    def mean(self) -> Float[Array, "..."]:
        """E[x|z], [*batch, *event]."""
        return jnp.exp(self.log_mean)

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """Sum of log(Gamma(x + r) / (Gamma(r) x!)) + r log(r / (r + m)) + x log(m / (r + m)), in nats.

        For x > 0 the probability is r / (r + x) times the binomial probability of r successes in r + x trials. Each
        trial succeeds with probability r / (r + m). The binomial probability is computed by the method of Loader
        (2000).
        """

        def log_density(log_mean: Array, r: Array, x: Array) -> Array:
            n, m = jnp.maximum(x, 1), jnp.exp(log_mean)
            log_ratio = _log_ratio(n + r, m + r)
            deviances = deviance(r, log_ratio) + deviance(n, log_ratio + log_mean - jnp.log(n))
            errors = stirling_error(n + r) - stirling_error(r) - stirling_error(n)
            of_some = errors - deviances - 0.5 * (jnp.log(n) + jnp.log1p(n / r) + LOG_2PI)
            return jnp.where(x > 0, of_some, -r * jnp.log1p(m / r))

        parameters = (self.log_mean, self.inverse_dispersion)
        return sum_over_event(log_density, parameters, x, COUNTS, self.event_ndim, observed)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """One sample per example, [*batch, *event]: Poisson samples with gamma-distributed rates."""

        def draw(key: Array, mean: Array) -> Array:
            gamma_key, poisson_key = jax.random.split(key)
            r = jnp.broadcast_to(self.inverse_dispersion, mean.shape)
            rate = mean * jax.random.gamma(gamma_key, r, dtype=mean.dtype) / r
            return jax.random.poisson(poisson_key, jnp.minimum(rate, _GREATEST_RATE))

        return draw_like(self.mean, key, self.event_ndim, draw).astype(self.log_mean.dtype)


def _log_rate(outputs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return soft_clip(outputs, -_LOG_RATE_BOUND, _LOG_RATE_BOUND)


def _log_ratio(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(a / b), accurate also if a and b are nearly equal."""
    difference = (a - b) / b
    is_near = jnp.abs(difference) < 0.5
    return jnp.where(is_near, jnp.log1p(jnp.where(is_near, difference, 0)), jnp.log(a / b))
