"""Pixels with Laplacian noise."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.distributions import example_keys
from vae_jax.errors import require_positive
from vae_jax.likelihoods.base import Likelihood, Variables, sum_over_pixels
from vae_jax.likelihoods.gaussian import REAL
from vae_jax.observation import Support


@dataclass(frozen=True)
class Laplace(Likelihood):
    """The likelihood of pixels with Laplacian noise: the sum of absolute differences, divided by `scale`.

    Attributes:
      scale: of each pixel, in the pixels' own unit; the standard deviation is sqrt(2) times it.
    """

    scale: float | Float[Array, ""] = 1.0

    support: ClassVar[Support] = REAL

    def __post_init__(self) -> None:
        if not isinstance(self.scale, jax.core.Tracer):
            require_positive(scale=float(self.scale))

    def label(self, values: Support) -> str:
        """With its scale, without which the number means nothing."""
        traced = isinstance(self.scale, jax.core.Tracer)
        return f"Laplace negative log-density{'' if traced else f' of scale {float(self.scale):g}'}"

    def __call__(
        self, outputs: Float[Array, "*batch height width channels"], variables: Variables | None = None
    ) -> "LaplaceImage":
        """The outputs are means."""
        return LaplaceImage(outputs, jnp.asarray(self.scale, outputs.dtype))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LaplaceImage:
    """Independent Laplacian pixels of one scale."""

    mean: Float[Array, "*batch height width channels"]
    scale: Float[Array, ""]

    def log_prob(self, x: Float[Array, "*samples height width channels"]) -> Float[Array, "*batch"]:
        """-sum of |x - mean| / scale + log(2 scale)."""
        constant = jnp.log(2 * self.scale)
        return sum_over_pixels(lambda mean, x: -jnp.abs(x - mean) / self.scale - constant, self.mean, x, REAL)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch height width channels"]:
        """mean + scale * Laplace(0, 1)."""
        keys = example_keys(key, self.mean.shape[-4])
        draw = jax.vmap(lambda k, m: jax.random.laplace(k, m.shape, m.dtype), in_axes=(0, -4), out_axes=-4)
        return self.mean + self.scale * draw(keys, self.mean)
