"""Gaussian likelihoods with a fixed, a learned, a predicted or the maximum-likelihood scale."""

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
    own_variable,
    positive,
    scale_variables,
    sum_over_event,
)
from vae_jax.errors import InputError, is_traced, require_positive
from vae_jax.values import parameter, shape_repr, value

REAL = Support(-math.inf, math.inf)
_LEAST_VARIANCE = 1e-8  # a fit without error would have an infinite density


@value
class Gaussian(Likelihood):
    """Gaussian likelihood with a fixed variance.

    The negative ELBO is C * squared error + KL up to a constant, with C = 1 / (2 variance).

    Attributes:
      variance: Variance of each entry, in the squared unit of the entries.
    """

    variance: Any = parameter(default=1.0)

    support: ClassVar[Support] = REAL
    has_locations: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive(variance=self.variance)

    def label(self, values: Support) -> str:
        """Name of -log p(x|z), a negative log-density in nats, with the variance, on which it depends."""
        return f"Gaussian negative log-density{in_words('variance', self.variance)}"

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "GaussianImage":
        """p(x|z) with the outputs as means."""
        return GaussianImage(outputs, jnp.asarray(self.variance, outputs.dtype), event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussianImage:
    """Independent Gaussian entries.

    Attributes:
      mean: Mean, [*batch, *event].
      variance: Variance, a scalar, or one per channel or entry.
      event_ndim: Number of axes of an event.
    """

    mean: Float[Array, "..."]
    variance: Float[Array, "..."]
    event_ndim: int = field(default=3, metadata={"static": True})

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """-1/2 sum of (x - mean)^2 / variance + log variance + log 2 pi over the event, in nats."""

        def log_density(mean: Array, variance: Array, x: Array) -> Array:
            return -0.5 * ((x - mean) ** 2 / variance + (jnp.log(variance) + LOG_2PI))

        return sum_over_event(log_density, (self.mean, self.variance), x, REAL, self.event_ndim, observed)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """One sample per example, mean + standard deviation * N(0, 1), [*batch, *event]."""
        deviation = jnp.broadcast_to(jnp.sqrt(self.variance), self.mean.shape)
        return self.mean + deviation * normal_like(self.mean, key, batch_axis=-self.event_ndim - 1)


@value
class LearnedGaussian(Likelihood):
    """Gaussian likelihood whose standard deviation is learned together with the networks (Dai and Wipf, 2019).

    Attributes:
      scale: Initial standard deviation, in the unit of the entries.
      per_element: Whether each entry of the event, such as a column of a table, has a separate standard deviation.
      per_channel: Whether each channel, an index of the last axis of the event, has a separate standard deviation.

    Raises:
      InputError: The scale is not positive, or both `per_element` and `per_channel` are set.
    """

    scale: Any = parameter(default=1.0)
    per_element: bool = False
    per_channel: bool = False

    support: ClassVar[Support] = REAL
    has_locations: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive(scale=self.scale)
        if self.per_element and self.per_channel:
            raise InputError("per_element and per_channel are both set; expected one of them")

    def label(self, values: Support) -> str:
        """Name of -log p(x|z), a negative log-density in nats."""
        return "Gaussian negative log-density of a learned scale"

    def init(self, event_shape: tuple[int, ...] = ()) -> Variables:
        """Initial variables {"params": {"log_scale": [], [channels] or [*event]}}."""
        shape = event_shape if self.per_element else event_shape[-1:] if self.per_channel else ()
        return scale_variables(self.scale, shape)

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "GaussianImage":
        """p(x|z) with the outputs as means."""
        return GaussianImage(outputs, learned_scale(self.own(variables)) ** 2, event_ndim)


@value
class HeteroscedasticGaussian(Likelihood):
    """Gaussian likelihood whose mean and standard deviation of each entry are outputs of the decoder.

    The density has no upper bound on data with repeated values, such as bytes, which should be dequantised.
    """

    support: ClassVar[Support] = REAL

    def label(self, values: Support) -> str:
        """Name of -log p(x|z), a negative log-density in nats."""
        return "heteroscedastic Gaussian negative log-density"

    def output_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the decoder output of one example, [*event, 2]: mean and log of the standard deviation."""
        return (*event_shape, 2)

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "GaussianImage":
        """p(x|z) with the outputs as means and logarithms of the standard deviations, which are soft-clipped."""
        return GaussianImage(outputs[..., 0], positive(outputs[..., 1]) ** 2, event_ndim)


@value
class OptimalGaussian(Likelihood):
    """Gaussian likelihood with the maximum-likelihood variance, the mean squared error (Rybkin et al., 2021).

    In a train step the variance is the estimate from the batch; the derivative of the likelihood with respect to the
    variance is 0 there. Outside of training it is the running mean of these estimates, because a likelihood must not
    depend on the evaluated example.

    Attributes:
      momentum: Weight of the previous running variance in an update, from 0 to below 1.
      axis_name: Name of the mapped axis over which the batch is split under `pmap`.
    """

    momentum: Any = parameter(default=0.99)
    axis_name: str | None = None

    support: ClassVar[Support] = REAL
    has_locations: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not is_traced(self.momentum) and not 0 <= self.momentum < 1:
            raise InputError(f"momentum is {self.momentum}; expected a share of the old variance, from 0 to below 1")

    def label(self, values: Support) -> str:
        """Name of -log p(x|z), a negative log-density in nats."""
        return "Gaussian negative log-density of the optimal scale"

    def init(self, event_shape: tuple[int, ...] = ()) -> Variables:
        """Initial variables {"batch_stats": {"variance": [], "weight": []}}: a decaying sum and its total weight."""
        return {"batch_stats": {"variance": jnp.float32(0), "weight": jnp.float32(0)}}

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "GaussianImage":
        """p(x|z) with the outputs as means and the running variance, which is 1 before training."""
        running = _running(self.own(variables))
        seen = running["weight"] > 0
        variance = jnp.where(seen, running["variance"] / jnp.where(seen, running["weight"], 1), 1.0)
        return GaussianImage(outputs, jnp.maximum(variance, _LEAST_VARIANCE), event_ndim)

    def in_training(
        self, outputs: Float[Array, "samples batch ..."], variables: Variables, batch: Batch, event_ndim: int = 3
    ) -> tuple["GaussianImage", Variables]:
        """p(x|z) with the variance estimated from the batch, and the updated running variance."""
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
        running = _running(variables)
        kept = {name: self.momentum * value for name, value in running.items()}
        fresh = {"variance": (1 - self.momentum) * variance, "weight": 1 - self.momentum}
        updates = {"batch_stats": {name: (kept[name] + fresh[name]).astype(running[name].dtype) for name in kept}}
        return GaussianImage(outputs, jnp.maximum(variance, _LEAST_VARIANCE), event_ndim), updates


def _running(variables: Variables) -> dict[str, Array]:
    """The decaying sum of the variances of an `OptimalGaussian`, and its total weight."""
    return {name: own_variable(variables, "batch_stats", name) for name in ("variance", "weight")}
