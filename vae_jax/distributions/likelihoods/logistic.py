"""Bytes as what they are: a logistic variable, discretised."""

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
    """The probability that a logistic variable of one learned scale falls nearest to a byte (Kingma et al., 2016, IAF).

    A probability of the bytes themselves, so that bits per dimension need no dequantisation. The first and the last
    level take all that lies beyond them.

    Attributes:
      scale: to begin with, in the unit of the pixels.
    """

    scale: Any = parameter(default=0.1)

    support: ClassVar[Support] = Support(0.0, 1.0, LEVELS)

    def __post_init__(self) -> None:
        require_positive(scale=self.scale)

    def label(self, values: Support) -> str:
        """A probability."""
        return "discretised logistic negative log-likelihood"

    def init(self, event_shape: tuple[int, ...] = ()) -> Variables:
        """{"params": {"log_scale": []}}."""
        return scale_variables(self.scale)

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "DiscretisedLogisticImage":
        """The outputs are the logistic variables' means."""
        return DiscretisedLogisticImage(outputs, learned_scale(variables or self.init()), event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiscretisedLogisticImage:
    """Independent pixels, each on one of 256 levels from 0 to 1."""

    location: Float[Array, "..."]
    scale: Float[Array, ""]
    event_ndim: int = field(default=3, metadata={"static": True})

    @property
    def mean(self) -> Float[Array, "..."]:
        """E[x|z] over the levels."""
        return mean_level(self.location, self.scale)

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """Sum of `log_mass`."""

        def log_density(location: Array, x: Array) -> Array:
            return log_mass(location, self.scale, x)

        return sum_over_event(log_density, (self.location,), x, DiscretisedLogistic.support, self.event_ndim, observed)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """A logistic draw, rounded to the nearest level."""
        uniform = uniform_like(self.location, key, self.event_ndim)
        return nearest_level(self.location + self.scale * (jnp.log(uniform) - jnp.log1p(-uniform)))

    def pmf(self) -> Float[Array, "..."]:
        """The probability of each level, [*batch, *event, 256]."""
        return pmf_of(lambda level: log_mass(self.location, self.scale, level))


def log_mass(
    location: Float[Array, "*shape"], scale: Float[Array, "..."], x: Float[Array, "..."]
) -> Float[Array, "*shape"]:
    """log(sigmoid(a) - sigmoid(b)), a and b the edges of the level x, in units of the scale from the location.

    It is log sigmoid(a) + log sigmoid(-b) + log(1 - e^(b - a)), which nothing cancels in, however far the tail.
    """
    half = 0.5 / (LEVELS - 1)
    below_upper = jax.nn.log_sigmoid((x - location + half) / scale)
    above_lower = jax.nn.log_sigmoid((location - x + half) / scale)
    inside = below_upper + above_lower + jnp.log(-jnp.expm1(-2 * half / scale))
    return jnp.where(x < half, below_upper, jnp.where(x > 1 - half, above_lower, inside))


def mean_level(location: Float[Array, "*shape"], scale: Float[Array, "..."]) -> Float[Array, "*shape"]:
    """The mean of a discretised logistic variable: the sum of P(x >= level), from the second level on."""
    step = 1 / (LEVELS - 1)

    def add(level: Int[Array, ""] | int, total: Array) -> Array:
        return total + step * jax.nn.sigmoid((location - (level - 0.5) * step) / scale)

    return jax.lax.fori_loop(1, LEVELS, add, jnp.zeros_like(location))


def nearest_level(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The nearest of 256 levels from 0 to 1."""
    return jnp.round(jnp.clip(x, 0, 1) * (LEVELS - 1)) / (LEVELS - 1)


def pmf_of(log_mass_of: Callable[[Array], Array]) -> Float[Array, "..."]:
    """The probabilities of 256 levels from 0 to 1, [..., 256], from the logarithm of that of one level, [...]."""
    of_levels = jax.lax.map(log_mass_of, jnp.arange(LEVELS) / (LEVELS - 1))
    return probabilities(jnp.moveaxis(of_levels, 0, -1))
