"""Pixels with Gaussian noise: of a fixed, a learned, or the best-fitting scale."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from vae_jax.data.transforms import Batch, Support
from vae_jax.distributions.base import LOG_2PI, normal_like
from vae_jax.distributions.likelihoods.base import (
    Likelihood,
    Variables,
    in_words,
    learned_scale,
    positive,
    scale_variables,
    sum_over_event,
)
from vae_jax.errors import InputError, is_traced, require_positive
from vae_jax.values import parameter, shape_repr, value

REAL = Support(-math.inf, math.inf)
_LEAST_VARIANCE = 1e-8  # of a fit without any error, the density would be infinite


@value
class Gaussian(Likelihood):
    """The likelihood of pixels with Gaussian noise of a fixed variance.

    The negative ELBO then is C * squared error + KL up to a constant, C = 1 / (2 variance).

    Attributes:
      variance: of each pixel, in the square of the pixels' own unit.
    """

    variance: Any = parameter(default=1.0)

    support: ClassVar[Support] = REAL

    def __post_init__(self) -> None:
        require_positive(variance=self.variance)

    def label(self, values: Support) -> str:
        """With its variance, without which the number means nothing."""
        return f"Gaussian negative log-density{in_words('variance', self.variance)}"

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "GaussianImage":
        """The outputs are means."""
        return GaussianImage(outputs, jnp.asarray(self.variance, outputs.dtype), event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianImage:
    """Independent Gaussian entries.

    Attributes:
      mean: [*batch, *event].
      variance: of all entries, or one an entry.
    """

    mean: Float[Array, "..."]
    variance: Float[Array, "..."]
    event_ndim: int = field(default=3, metadata={"static": True})

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """-1/2 sum of (x - mean)^2 / variance + log variance + log 2 pi."""

        def log_density(mean: Array, variance: Array, x: Array) -> Array:
            return -0.5 * ((x - mean) ** 2 / variance + (jnp.log(variance) + LOG_2PI))

        return sum_over_event(log_density, (self.mean, self.variance), x, REAL, self.event_ndim, observed)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """mean + standard deviation * N(0, 1)."""
        deviation = jnp.broadcast_to(jnp.sqrt(self.variance), self.mean.shape)
        return self.mean + deviation * normal_like(self.mean, key, batch_axis=-self.event_ndim - 1)


@value
class LearnedGaussian(Likelihood):
    """Gaussian noise of a standard deviation that is learned beside the networks (Dai and Wipf, 2019).

    Attributes:
      scale: the standard deviation to begin with, in the entries' own unit.
      per_element: whether each entry of the event, such as a column of a table, has a standard deviation of its own.
    """

    scale: Any = parameter(default=1.0)
    per_element: bool = False

    support: ClassVar[Support] = REAL

    def __post_init__(self) -> None:
        require_positive(scale=self.scale)

    def label(self, values: Support) -> str:
        """A density."""
        return "Gaussian negative log-density of a learned scale"

    def init(self, event_shape: tuple[int, ...] = ()) -> Variables:
        """{"params": {"log_scale": [] or [*event]}}."""
        return scale_variables(self.scale, event_shape if self.per_element else ())

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "GaussianImage":
        """The outputs are means."""
        return GaussianImage(outputs, learned_scale(variables or self.init()) ** 2, event_ndim)


@value
class HeteroscedasticGaussian(Likelihood):
    """Gaussian noise whose standard deviation the decoder emits beside the mean, for each entry of each example.

    The density has no upper bound on data with repeated values, such as bytes: dequantise them.
    """

    support: ClassVar[Support] = REAL

    def label(self, values: Support) -> str:
        """A density."""
        return "heteroscedastic Gaussian negative log-density"

    def output_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """[*event, 2]: the mean and the logarithm of the standard deviation."""
        return (*event_shape, 2)

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "GaussianImage":
        """The logarithms of the standard deviations are soft-clipped."""
        return GaussianImage(outputs[..., 0], positive(outputs[..., 1]) ** 2, event_ndim)


@value
class OptimalGaussian(Likelihood):
    """Gaussian noise of the variance that fits best: the mean squared error of the batch (Rybkin et al., 2021).

    In a train step the variance is the maximum-likelihood one of that batch, whose own gradient is zero there. Its
    running mean is what the model has afterwards: a likelihood may not look at the image that it judges.

    Attributes:
      momentum: the share of the old running variance that a step keeps.
      axis_name: under pmap, the axis over which the batch is spread.
    """

    momentum: Any = parameter(default=0.99)
    axis_name: str | None = None

    support: ClassVar[Support] = REAL

    def __post_init__(self) -> None:
        if not is_traced(self.momentum) and not 0 <= self.momentum < 1:
            raise InputError(f"momentum is {self.momentum}; expected a share of the old variance, from 0 to below 1")

    def label(self, values: Support) -> str:
        """A density."""
        return "Gaussian negative log-density of the optimal scale"

    def init(self, event_shape: tuple[int, ...] = ()) -> Variables:
        """{"batch_stats": {"variance": [], "weight": []}}: a decaying sum and the sum of its weights."""
        return {"batch_stats": {"variance": jnp.float32(0), "weight": jnp.float32(0)}}

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "GaussianImage":
        """The outputs are means; the variance is the running one, 1 before any training."""
        running = (variables or self.init())["batch_stats"]
        seen = running["weight"] > 0
        variance = jnp.where(seen, running["variance"] / jnp.where(seen, running["weight"], 1), 1.0)
        return GaussianImage(outputs, jnp.maximum(variance, _LEAST_VARIANCE), event_ndim)

    def in_training(
        self, outputs: Float[Array, "samples batch ..."], variables: Variables, batch: Batch, event_ndim: int = 3
    ) -> tuple["GaussianImage", Variables]:
        """With the batch's own variance, which enters the running one."""
        event = tuple(range(-event_ndim, 0))
        squares = jnp.mean((outputs - batch.targets[None]) ** 2, axis=0)  # [B, *event]
        weights = jnp.ones(len(squares), squares.dtype) if batch.mask is None else batch.mask.astype(squares.dtype)
        if batch.observed is None:
            total, count = jnp.sum(squares.mean(axis=event) * weights), jnp.sum(weights)
        else:
            entries = batch.observed * weights.reshape(-1, *[1] * event_ndim)
            total, count = jnp.sum(jnp.where(entries > 0, squares, 0) * entries), jnp.sum(entries)
        if self.axis_name is not None:
            total, count = jax.lax.psum((total, count), self.axis_name)
        variance = jax.lax.stop_gradient(total / count)
        running = variables["batch_stats"]
        kept = {name: self.momentum * value for name, value in running.items()}
        fresh = {"variance": (1 - self.momentum) * variance, "weight": 1 - self.momentum}
        updates = {"batch_stats": {name: (kept[name] + fresh[name]).astype(running[name].dtype) for name in kept}}
        return GaussianImage(outputs, jnp.maximum(variance, _LEAST_VARIANCE), event_ndim), updates
