"""Pixels with Gaussian noise: of a fixed, a learned, or the best-fitting scale."""

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.distributions import LOG_2PI, normal_like
from vae_jax.errors import InputError, require_positive
from vae_jax.likelihoods.base import (
    Likelihood,
    Variables,
    learned_scale,
    scale_variables,
    sum_over_pixels,
)
from vae_jax.observation import Batch, Support

REAL = Support(-math.inf, math.inf)
_LEAST_VARIANCE = 1e-8  # of a fit without any error, the density would be infinite


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """The likelihood of pixels with Gaussian noise of a fixed variance.

    The negative ELBO then is C * squared error + KL up to a constant, C = 1 / (2 variance).

    Attributes:
      variance: of each pixel, in the square of the pixels' own unit.
    """

    variance: float | Float[Array, ""] = 1.0

    support: ClassVar[Support] = REAL

    def __post_init__(self) -> None:
        if not isinstance(self.variance, jax.core.Tracer):
            require_positive(variance=float(self.variance))

    def label(self, values: Support) -> str:
        """With its variance, without which the number means nothing."""
        traced = isinstance(self.variance, jax.core.Tracer)
        return f"Gaussian negative log-density{'' if traced else f' of variance {float(self.variance):g}'}"

    def __call__(
        self, outputs: Float[Array, "*batch height width channels"], variables: Variables | None = None
    ) -> "GaussianImage":
        """The outputs are means."""
        return GaussianImage(outputs, jnp.asarray(self.variance, outputs.dtype))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianImage:
    """Independent Gaussian pixels of one variance."""

    mean: Float[Array, "*batch height width channels"]
    variance: Float[Array, ""]

    def log_prob(self, x: Float[Array, "*samples height width channels"]) -> Float[Array, "*batch"]:
        """-1/2 sum of (x - mean)^2 / variance + log variance + log 2 pi."""
        constant = jnp.log(self.variance) + LOG_2PI
        return sum_over_pixels(lambda mean, x: -0.5 * ((x - mean) ** 2 / self.variance + constant), self.mean, x, REAL)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch height width channels"]:
        """mean + standard deviation * N(0, 1)."""
        return self.mean + jnp.sqrt(self.variance) * normal_like(self.mean, key, batch_axis=-4)


@dataclass(frozen=True)
class LearnedGaussian(Likelihood):
    """Gaussian noise of one standard deviation for all pixels, learned beside the networks (Dai and Wipf, 2019).

    Attributes:
      scale: the standard deviation to begin with, in the pixels' own unit.
    """

    scale: float = 1.0

    support: ClassVar[Support] = REAL

    def __post_init__(self) -> None:
        require_positive(scale=self.scale)

    def label(self, values: Support) -> str:
        """A density."""
        return "Gaussian negative log-density of a learned scale"

    def init(self) -> Variables:
        """{"params": {"log_scale": []}}."""
        return scale_variables(self.scale)

    def __call__(
        self, outputs: Float[Array, "*batch height width channels"], variables: Variables | None = None
    ) -> "GaussianImage":
        """The outputs are means."""
        return GaussianImage(outputs, learned_scale(variables or self.init()) ** 2)


@dataclass(frozen=True)
class OptimalGaussian(Likelihood):
    """Gaussian noise of the variance that fits best: the mean squared error of the batch (Rybkin et al., 2021).

    In a train step the variance is the maximum-likelihood one of that batch, whose own gradient is zero there. Its
    running mean is what the model has afterwards: a likelihood may not look at the image that it judges.

    Attributes:
      momentum: the share of the old running variance that a step keeps.
      axis_name: under pmap, the axis over which the batch is spread.
    """

    momentum: float = 0.99
    axis_name: str | None = None

    support: ClassVar[Support] = REAL

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum is {self.momentum}; expected a share of the old variance, from 0 to below 1")

    def label(self, values: Support) -> str:
        """A density."""
        return "Gaussian negative log-density of the optimal scale"

    def init(self) -> Variables:
        """{"batch_stats": {"variance": [], "weight": []}}: a decaying sum and the sum of its weights."""
        return {"batch_stats": {"variance": jnp.float32(0), "weight": jnp.float32(0)}}

    def __call__(
        self, outputs: Float[Array, "*batch height width channels"], variables: Variables | None = None
    ) -> "GaussianImage":
        """The outputs are means; the variance is the running one, 1 before any training."""
        running = (variables or self.init())["batch_stats"]
        seen = running["weight"] > 0
        variance = jnp.where(seen, running["variance"] / jnp.where(seen, running["weight"], 1), 1.0)
        return GaussianImage(outputs, jnp.maximum(variance, _LEAST_VARIANCE))

    def in_training(
        self, outputs: Float[Array, "samples batch height width channels"], variables: Variables, batch: Batch
    ) -> tuple["GaussianImage", Variables]:
        """With the batch's own variance, which enters the running one."""
        squares = jnp.mean((outputs - batch.targets[None]) ** 2, axis=(0, -3, -2, -1))  # [B]
        mask = jnp.ones_like(squares) if batch.mask is None else batch.mask.astype(squares.dtype)
        total, count = jnp.sum(squares * mask), jnp.sum(mask)
        if self.axis_name is not None:
            total, count = jax.lax.psum((total, count), self.axis_name)
        variance = jax.lax.stop_gradient(total / count)
        running = variables["batch_stats"]
        kept = {name: self.momentum * value for name, value in running.items()}
        fresh = {"variance": (1 - self.momentum) * variance, "weight": 1 - self.momentum}
        updates = {"batch_stats": {name: (kept[name] + fresh[name]).astype(running[name].dtype) for name in kept}}
        return GaussianImage(outputs, jnp.maximum(variance, _LEAST_VARIANCE)), updates
