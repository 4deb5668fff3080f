"""Likelihoods of pixels from 0 to 1: the Bernoulli and the continuous Bernoulli distribution."""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from vae_jax.data.transforms import Support
from vae_jax.distributions.likelihoods.base import (
    Likelihood,
    Variables,
    draw_like,
    probabilities,
    sum_over_event,
    uniform_like,
)
from vae_jax.values import shape_repr, value

UNIT = Support(0.0, 1.0)
_NEAR = 0.6  # below this |logit|, the log-normaliser of the continuous Bernoulli is computed as a power series


@value
class Bernoulli(Likelihood):
    """Bernoulli likelihood of binary pixels. Of grey values in [0, 1], `log_prob` is only a negative cross-entropy."""

    support: ClassVar[Support] = Support(0.0, 1.0, 2)

    @property
    def domain(self) -> Support:
        """All values in [0, 1]."""
        return UNIT

    def label(self, values: Support) -> str:
        """Name of -log p(x|z) in nats: a cross-entropy if the pixels are not binary."""
        return "negative log-likelihood" if self.is_likelihood_of(values) else "cross-entropy"

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "BernoulliImage":
        """p(x|z) with the outputs as logits."""
        return BernoulliImage(outputs, event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BernoulliImage:
    """Independent Bernoulli pixels with p(x = 1) = sigmoid(logits).

    Attributes:
      logits: Logits, [*batch, *event].
      event_ndim: Number of axes of an event.
    """

    logits: Float[Array, "..."]
    event_ndim: int = field(default=3, metadata={"static": True})

    @property
    def mean(self) -> Float[Array, "..."]:
        """E[x|z] = sigmoid(logits), [*batch, *event]."""
        return jax.nn.sigmoid(self.logits)

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """Sum of x log p + (1 - x) log(1 - p) over the event, in nats, accurate at any logit.

        It is computed as x a - (a + |a|) / 2 - log(1 + e^-|a|), where a is the logit. The gradient has no kink at 0,
        and on a CPU this is five times as fast as `jax.nn.softplus`.
        """

        def log_density(logits: Array, x: Array) -> Array:
            size = jnp.abs(logits)
            return x * logits - 0.5 * (logits + size) - jnp.log1p(jnp.exp(-size))

        return sum_over_event(log_density, (self.logits,), x, UNIT, self.event_ndim, observed)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """One binary sample per example, [*batch, *event]."""
        return draw_like(self.mean, key, self.event_ndim, jax.random.bernoulli).astype(self.logits.dtype)

    def pmf(self) -> Float[Array, "..."]:
        """Probabilities of 0 and of 1, [*batch, *event, 2]."""
        return probabilities(jnp.stack([jnp.zeros_like(self.logits), self.logits], axis=-1))


@value
class ContinuousBernoulli(Likelihood):
    """Density of grey pixels in [0, 1]: the normalised Bernoulli (Loaiza-Ganem and Cunningham, 2019)."""

    support: ClassVar[Support] = UNIT

    def label(self, values: Support) -> str:
        """Name of -log p(x|z) in nats, a negative log-density, which on discrete values has no lower bound."""
        return "continuous Bernoulli negative log-density"

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "ContinuousBernoulliImage":
        """p(x|z) with the outputs as logits."""
        return ContinuousBernoulliImage(outputs, event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ContinuousBernoulliImage:
    """Independent pixels with the density a e^(a x) / (e^a - 1) on [0, 1], where a is the logit.

    The density is lambda^x (1 - lambda)^(1 - x) with lambda = sigmoid(a), divided by its integral.

    Attributes:
      logits: Logits, [*batch, *event].
      event_ndim: Number of axes of an event.
    """

    logits: Float[Array, "..."]
    event_ndim: int = field(default=3, metadata={"static": True})

    @property
    def mean(self) -> Float[Array, "..."]:
        """E[x|z] = 1/2 (1 + coth(a/2) - 2/a), which is 1/2 at a = 0 and differs from sigmoid(a), [*batch, *event]."""
        return 0.5 + jax.grad(lambda a: _log_sinhc(a / 2).sum())(self.logits)

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """Sum of log(a e^(a x) / (e^a - 1)) over the event, in nats.

        Near a = 0 each term is computed as a (x - 1/2) - log(sinh(a/2) / (a/2)). Elsewhere it is computed without
        cancellation of large terms as log s - s y - log(1 - e^-s), where s = |a|, and y = 1 - x if a > 0, otherwise x.
        """

        def log_density(a: Array, x: Array) -> Array:
            size = jnp.abs(a)
            near = size < _NEAR
            away = jnp.where(near, 1.0, size)
            distance = jnp.where(a > 0, 1 - x, x)
            tail = jnp.log(away) - away * distance - jnp.log1p(-jnp.exp(-away))
            return jnp.where(near, a * (x - 0.5) - _log_sinhc_near_zero(jnp.where(near, a / 2, 0.0)), tail)

        return sum_over_event(log_density, (self.logits,), x, UNIT, self.event_ndim, observed)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """One sample per example: the inverse distribution function log(1 + u (e^a - 1)) / a of uniform noise u."""
        uniform = uniform_like(self.logits, key, self.event_ndim)
        size = jnp.abs(self.logits)
        away = jnp.where(size < 1e-3, 1.0, size)
        from_zero = -jnp.log1p(uniform * jnp.expm1(-away)) / away  # samples with the logit -size
        from_zero = jnp.where(size < 1e-3, uniform, from_zero)
        return jnp.where(self.logits < 0, from_zero, 1 - from_zero)


def _log_sinhc(u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(sinh(u) / u), with stable values and gradients at any u."""
    size = jnp.abs(u)
    near = 2 * size < _NEAR
    away = jnp.where(near, 1.0, size)
    far = away + jnp.log1p(-jnp.exp(-2 * away)) - jnp.log(2 * away)
    return jnp.where(near, _log_sinhc_near_zero(jnp.where(near, u, 0.0)), far)


def _log_sinhc_near_zero(u: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Taylor series of log(sinh(u) / u), with errors below 1e-7 up to |u| = 0.3."""
    square = u**2
    return square * (1 / 6 + square * (-1 / 180 + square * (1 / 2835 - square / 37800)))
