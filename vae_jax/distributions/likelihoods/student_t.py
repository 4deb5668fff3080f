"""Student-t likelihood, which has heavy tails."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from vae_jax.data.transforms import Support
from vae_jax.distributions.base import LOG_2PI
from vae_jax.distributions.likelihoods.base import (
    Likelihood,
    Variables,
    draw_like,
    in_words,
    learned_scale,
    scale_variables,
    sum_over_event,
)
from vae_jax.distributions.likelihoods.gaussian import REAL
from vae_jax.distributions.likelihoods.saddle_point import stirling_error
from vae_jax.errors import require_positive
from vae_jax.values import parameter, shape_repr, value


@value
class StudentT(Likelihood):
    """Student-t likelihood with a learned scale, which is less sensitive to outliers than a Gaussian.

    Attributes:
      degrees: Degrees of freedom; 1 is a Cauchy distribution, and the limit at infinity is a Gaussian.
      scale: Initial scale, in the unit of the entries.
      per_element: Whether each entry of the event, such as a column of a table, has a separate scale.
    """

    degrees: Any = parameter(default=5.0)
    scale: Any = parameter(default=1.0)
    per_element: bool = False

    support: ClassVar[Support] = REAL
    has_locations: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive(degrees=self.degrees, scale=self.scale)

    def label(self, values: Support) -> str:
        """Name of -log p(x|z), a negative log-density in nats, with the degrees of freedom, on which it depends."""
        return f"Student-t negative log-density of a learned scale{in_words('degrees', self.degrees)}"

    def init(self, event_shape: tuple[int, ...] = ()) -> Variables:
        """Initial variables {"params": {"log_scale": [] or [*event]}}."""
        return scale_variables(self.scale, event_shape if self.per_element else ())

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "IndependentStudentT":
        """p(x|z) with the outputs as locations."""
        degrees = jnp.asarray(self.degrees, outputs.dtype)
        return IndependentStudentT(outputs, learned_scale(self.own(variables)), degrees, event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class IndependentStudentT:
    """Independent Student-t entries.

    Attributes:
      location: Location, [*batch, *event].
      scale: Scale, a scalar, or one per entry.
      degrees: Degrees of freedom, [].
      event_ndim: Number of axes of an event.
    """

    location: Float[Array, "..."]
    scale: Float[Array, "..."]
    degrees: Float[Array, ""]
    event_ndim: int = field(default=3, metadata={"static": True})

    @property
    def mean(self) -> Float[Array, "..."]:
        """The location, [*batch, *event]: E[x|z], or the median if there is at most one degree of freedom."""
        return self.location

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """Sum of log Gamma(h + 1/2) - log Gamma(h) - log(2 pi h) / 2 - log scale - (h + 1/2) log(1 + u^2 / 2h).

        In nats, summed over the event, with h half the degrees of freedom and u = (x - location) / scale. The first
        three terms are computed from `stirling_error` of h + 1/2 and of h, without cancellation at large h.
        """
        h = self.degrees / 2
        errors = stirling_error(h + 0.5) - stirling_error(h)
        constant = errors + h * jnp.log1p(0.5 / h) - 0.5 - 0.5 * LOG_2PI

        def log_density(location: Array, scale: Array, x: Array) -> Array:
            return constant - jnp.log(scale) - (h + 0.5) * jnp.log1p(((x - location) / scale) ** 2 / (2 * h))

        return sum_over_event(log_density, (self.location, self.scale), x, REAL, self.event_ndim, observed)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """One sample per example, location + scale * standard Student-t noise, [*batch, *event]."""

        def draw(key: Array, location: Array) -> Array:
            return jax.random.t(key, self.degrees, location.shape, location.dtype)

        noise = draw_like(self.location, key, self.event_ndim, draw)
        return self.location + jnp.broadcast_to(self.scale, noise.shape) * noise
