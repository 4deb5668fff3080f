"""Pixels with Laplacian noise."""

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
    """The likelihood of pixels with Laplacian noise: the sum of absolute differences, divided by `scale`.

    Attributes:
      scale: of each pixel, in the pixels' own unit; the standard deviation is sqrt(2) times it.
    """

    scale: Any = parameter(default=1.0)

    support: ClassVar[Support] = REAL

    def __post_init__(self) -> None:
        require_positive(scale=self.scale)

    def label(self, values: Support) -> str:
        """With its scale, without which the number means nothing."""
        return f"Laplace negative log-density{in_words('scale', self.scale)}"

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "LaplaceImage":
        """The outputs are means."""
        return LaplaceImage(outputs, jnp.asarray(self.scale, outputs.dtype), event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LaplaceImage:
    """Independent Laplacian pixels of one scale."""

    mean: Float[Array, "..."]
    scale: Float[Array, ""]
    event_ndim: int = field(default=3, metadata={"static": True})

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """-sum of |x - mean| / scale + log(2 scale)."""
        constant = jnp.log(2 * self.scale)

        def log_density(mean: Array, x: Array) -> Array:
            return -jnp.abs(x - mean) / self.scale - constant

        return sum_over_event(log_density, (self.mean,), x, REAL, self.event_ndim, observed)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """mean + scale * Laplace(0, 1)."""
        noise = draw_like(self.mean, key, self.event_ndim, lambda k, v: jax.random.laplace(k, v.shape, v.dtype))
        return self.mean + self.scale * noise
