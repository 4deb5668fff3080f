"""Laplace likelihood."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from vae_jax.data.transforms import Support
from vae_jax.distributions.likelihoods.base import Likelihood, Variables, draw_like, in_words, sum_over_event
from vae_jax.distributions.likelihoods.gaussian import REAL
from vae_jax.errors import require_positive
from vae_jax.values import parameter, shape_repr, value


@value
class Laplace(Likelihood):
    """Laplace likelihood with a fixed scale.

    The negative log-density is the sum of absolute differences, divided by `scale`, up to a constant.

    Attributes:
      scale: Scale of each entry, in the unit of the entries; the standard deviation is sqrt(2) * scale.
    """

    scale: Any = parameter(default=1.0)

    support: ClassVar[Support] = REAL
    has_locations: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive(scale=self.scale)

    def label(self, values: Support) -> str:
        """Name of -log p(x|z), a negative log-density in nats, with the scale, on which it depends."""
        return f"Laplace negative log-density{in_words('scale', self.scale)}"

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "LaplaceImage":
        """p(x|z) with the outputs as means."""
        return LaplaceImage(outputs, jnp.asarray(self.scale, outputs.dtype), event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LaplaceImage:
    """Independent Laplace entries with a common scale.

    Attributes:
      mean: Mean, [*batch, *event].
      scale: Scale, a scalar, or one per channel or entry.
      event_ndim: Number of axes of an event.
    """

    mean: Float[Array, "..."]
    scale: Float[Array, "..."]
    event_ndim: int = field(default=3, metadata={"static": True})

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """-sum of |x - mean| / scale + log(2 scale) over the event, in nats."""

        def log_density(mean: Array, scale: Array, x: Array) -> Array:
            return -jnp.abs(x - mean) / scale - jnp.log(2 * scale)

        return sum_over_event(log_density, (self.mean, self.scale), x, REAL, self.event_ndim, observed)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """One sample per example, mean + scale * Laplace(0, 1), [*batch, *event]."""
        noise = draw_like(self.mean, key, self.event_ndim, lambda k, v: jax.random.laplace(k, v.shape, v.dtype))
        return self.mean + jnp.broadcast_to(self.scale, self.mean.shape) * noise
