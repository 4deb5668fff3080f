"""Discretised logistic likelihood of bytes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from vae_jax.data.transforms import LEVELS, Support
from vae_jax.distributions.likelihoods.base import (
    Likelihood,
    Variables,
    learned_scale,
    probabilities,
    scale_variables,
    sum_over_event,
    uniform_like,
)
from vae_jax.errors import require_positive
from vae_jax.values import parameter, shape_repr, value


@value
class DiscretisedLogistic(Likelihood):
    """Logistic variable with a learned scale, rounded to the nearest of 256 levels (Kingma et al., 2016, IAF).

    It is a probability of bytes, so bits per dimension are computed without dequantisation. The first and the last
    level include the mass beyond them.

    Attributes:
      scale: Initial scale, in the unit of the pixels.
    """

    scale: Any = parameter(default=0.1)

    support: ClassVar[Support] = Support(0.0, 1.0, LEVELS)
    has_locations: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive(scale=self.scale)

    def label(self, values: Support) -> str:
        """Name of -log p(x|z), a negative log-probability in nats."""
        return "discretised logistic negative log-likelihood"

    def init(self, event_shape: tuple[int, ...] = ()) -> Variables:
        """Initial variables {"params": {"log_scale": []}}."""
        return scale_variables(self.scale)

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "DiscretisedLogisticImage":
        """p(x|z) with the outputs as means of the logistic variables before rounding."""
        return DiscretisedLogisticImage(outputs, learned_scale(self.own(variables)), event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiscretisedLogisticImage:
    """Independent discretised logistic pixels on 256 levels from 0 to 1.

    Attributes:
      location: Mean of the logistic variable, [*batch, *event].
      scale: Scale of the logistic variable, [].
      event_ndim: Number of axes of an event.
    """

    location: Float[Array, "..."]
    scale: Float[Array, ""]
    event_ndim: int = field(default=3, metadata={"static": True})

    @property
    def mean(self) -> Float[Array, "..."]:
        """E[x|z], [*batch, *event]."""
        return mean_level(self.location, self.scale)

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """Sum of the log-probabilities of the levels over the event, in nats."""

        def log_density(location: Array, x: Array) -> Array:
            return log_mass(location, self.scale, x)

        return sum_over_event(log_density, (self.location,), x, DiscretisedLogistic.support, self.event_ndim, observed)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """One sample per example, [*batch, *event]: logistic samples, rounded to the nearest level."""
        uniform = uniform_like(self.location, key, self.event_ndim)
        return nearest_level(self.location + self.scale * (jnp.log(uniform) - jnp.log1p(-uniform)))

    def pmf(self) -> Float[Array, "..."]:
        """Probability of each level, [*batch, *event, 256]."""
        entries = self.location.ravel()  # one axis, because loops of XLA over more axes are slow on a CPU
        return pmf_of(lambda level: log_mass(entries, self.scale, level)).reshape(*self.location.shape, LEVELS)


def log_mass(
    location: Float[Array, "*shape"], scale: Float[Array, "..."], x: Float[Array, "..."]
) -> Float[Array, "*shape"]:
    """Log-probability log(sigmoid(a) - sigmoid(b)) of the level x, in nats.

    The upper and the lower edge of the level are location + a * scale and location + b * scale. The result is computed
    as log sigmoid(a) + log sigmoid(-b) + log(1 - e^(b - a)), without cancellation even in the tails.
    """
    half = 0.5 / (LEVELS - 1)
    below_upper = jax.nn.log_sigmoid((x - location + half) / scale)
    above_lower = jax.nn.log_sigmoid((location - x + half) / scale)
    inside = below_upper + above_lower + jnp.log(-jnp.expm1(-2 * half / scale))
    return jnp.where(x < half, below_upper, jnp.where(x > 1 - half, above_lower, inside))


def mean_level(location: Float[Array, "*shape"], scale: Float[Array, "..."]) -> Float[Array, "*shape"]:
    """Mean of a discretised logistic variable: spacing of the levels * sum of P(x >= level) from the second on."""
    step = 1 / (LEVELS - 1)

    def add(level: Int[Array, ""] | int, total: Array) -> Array:
        return total + step * jax.nn.sigmoid((location - (level - 0.5) * step) / scale)

    return jax.lax.fori_loop(1, LEVELS, add, jnp.zeros_like(location))


def nearest_level(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Values rounded to the nearest of 256 levels from 0 to 1."""
    return jnp.round(jnp.clip(x, 0, 1) * (LEVELS - 1)) / (LEVELS - 1)


def pmf_of(log_mass_of: Callable[[Array], Array]) -> Float[Array, "..."]:
    """Probabilities of 256 levels from 0 to 1, [..., 256], from a function of a level to its log-probability."""
    of_levels = jax.lax.map(log_mass_of, jnp.arange(LEVELS) / (LEVELS - 1))
    return probabilities(jnp.moveaxis(of_levels, 0, -1))
