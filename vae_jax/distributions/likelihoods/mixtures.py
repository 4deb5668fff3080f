"""Mixtures of discretised logistics of grey and colour images of bytes (Salimans et al., 2017, PixelCNN++).

The decoder outputs are in units in which the levels range from -1 to 1, as in Salimans et al. (2017). Outputs near 0,
such as those of an untrained network, are components in the middle of this range. Scales are soft-clipped.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from vae_jax.data.transforms import LEVELS, Support
from vae_jax.distributions.base import soft_clip
from vae_jax.distributions.likelihoods.base import Likelihood, Variables, draw_like, require_observed, sum_over_event
from vae_jax.distributions.likelihoods.logistic import log_mass, mean_level, nearest_level, pmf_of
from vae_jax.errors import InputError, is_traced, require_positive_int
from vae_jax.values import shape_repr, value

BYTES = Support(0.0, 1.0, LEVELS)
_LOG_SCALE_BOUND = 7.0  # of a soft clip; the bound of Salimans et al. (2017), with .97 of the mass on one level


@value
class MixtureOfLogistics(Likelihood):
    """Likelihood with a separate mixture of discretised logistics for each entry; entries are independent given z.

    Attributes:
      components: Number of components of each mixture, K.
    """

    components: int = 5

    support: ClassVar[Support] = BYTES
    has_locations: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive_int(components=self.components)

    def label(self, values: Support) -> str:
        """Name of -log p(x|z), a negative log-probability in nats."""
        return "mixture of discretised logistics negative log-likelihood"

    def output_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the decoder output of one example, [*event, 3 K]: K logits, K locations, K logarithms of scales."""
        return (*event_shape, 3 * self.components)

    def with_locations(
        self,
        outputs: Float[Array, "*batch_and_outputs"],
        locations: Float[Array, "*batch_and_event"],
        unit: float = 1.0,
    ) -> Float[Array, "*batch_and_outputs"]:
        """The outputs with `locations` added to the location of each component (see `Likelihood.with_locations`)."""
        return _moved(outputs, jnp.repeat(locations[..., None], self.components, axis=-1), self.components, unit)

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "IndependentMixtureOfLogistics":
        """p(x|z) from outputs in the order of `output_shape`."""
        return IndependentMixtureOfLogistics(outputs, event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class IndependentMixtureOfLogistics:
    """Independent entries on 256 levels from 0 to 1, each with a mixture of discretised logistics.

    Attributes:
      outputs: Outputs of the decoder, [*batch, *event, 3 K].
      event_ndim: Number of axes of an event.
    """

    outputs: Float[Array, "..."]
    event_ndim: int = field(default=3, metadata={"static": True})

    @property
    def mean(self) -> Float[Array, "..."]:
        """E[x|z], [*batch, *event]."""
        logits, location, scale = _components(self.outputs)
        return jnp.sum(jax.nn.softmax(logits) * mean_level(location, scale), axis=-1)

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """Sum of the log-probabilities of the levels over the event, in nats."""
        return sum_over_event(_log_mass, (self.outputs,), x, BYTES, self.event_ndim, observed, trailing=1)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """One sample per example, [*batch, *event]: logistic samples of sampled components, rounded to a level."""

        def draw(key: Array, outputs: Array) -> Array:
            component_key, noise_key = jax.random.split(key)
            logits, location, scale = _components(outputs)
            component = jax.random.categorical(component_key, logits)
            location, scale = _of_component(component, location), _of_component(component, scale)
            return nearest_level(location + scale * jax.random.logistic(noise_key, scale.shape, scale.dtype))

        return draw_like(self.outputs, key, self.event_ndim, draw, trailing=1)

    def pmf(self) -> Float[Array, "..."]:
        """Probability of each level, [*batch, *event, 256]."""
        *entries, numbers = self.outputs.shape
        rows = self.outputs.reshape(-1, numbers)  # two axes, because loops of XLA over more axes are slow on a CPU
        return pmf_of(lambda level: _log_mass(rows, jnp.full(len(rows), level))).reshape(*entries, LEVELS)


@value
class ColourMixtureOfLogistics(Likelihood):
    """Likelihood with a separate mixture for each colour pixel (Salimans et al., 2017).

    In each component, green is conditioned on red, and blue on red and green.

    Attributes:
      components: Number of components of each mixture, K.
    """

    components: int = 10

    support: ClassVar[Support] = BYTES
    has_locations: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive_int(components=self.components)

    def label(self, values: Support) -> str:
        """Name of -log p(x|z), a negative log-probability in nats."""
        return "colour mixture of discretised logistics negative log-likelihood"

    def output_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the decoder output of one example, [height, width, 10 K].

        The last axis contains K logits, 3 K locations and 3 K logarithms of scales, ordered red, green, blue, and 3 K
        coefficients, to which tanh is applied: K of green on red, K of blue on red and K of blue on green.

        Raises:
          InputError: The events are not images with three channels.
        """
        if len(event_shape) != 3 or event_shape[-1] != 3:
            raise InputError(
                f"events of shape {event_shape} are no colour images; expected (height, width, 3), or take "
                "MixtureOfLogistics, whose entries are independent"
            )
        return (*event_shape[:2], 10 * self.components)

    def with_locations(
        self,
        outputs: Float[Array, "*batch_and_outputs"],
        locations: Float[Array, "*batch_and_event"],
        unit: float = 1.0,
    ) -> Float[Array, "*batch_and_outputs"]:
        """The outputs with `locations` added to the location of each component, given preceding channels of 1/2.

        See `Likelihood.with_locations`.
        """
        return _moved(outputs, jnp.repeat(locations, self.components, axis=-1), self.components, unit)

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "ColourMixtureOfLogisticsImage":
        """p(x|z) from outputs in the order of `output_shape`."""
        return ColourMixtureOfLogisticsImage(outputs)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ColourMixtureOfLogisticsImage:
    """Independent colour pixels, with each channel on 256 levels from 0 to 1.

    There is no `pmf`, because the probabilities of green and blue levels depend on the preceding channels.

    Attributes:
      outputs: Outputs of the decoder, [*batch, height, width, 10 K].
    """

    outputs: Float[Array, "*batch height width numbers"]

    event_ndim: ClassVar[int] = 3

    @property
    def mean(self) -> Float[Array, "*batch height width 3"]:
        """Approximation of E[x|z], [*batch, height, width, 3]: the weighted mean of the components.

        In each component, green and blue are conditioned on the means of the preceding channels. Red is exact. Green
        and blue are exact if no component has mass beyond the first and the last level, because the conditional means
        are then linear.
        """
        logits, *channels = _colour_components(self.outputs)
        _, means = _in_order(lambda _, location, scale: mean_level(location, scale), *channels)
        weights = jax.nn.softmax(logits)
        return jnp.stack([jnp.sum(weights * mean, axis=-1) for mean in means], axis=-1)

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """Sum over pixels of log sum_k w_k p_k(red) p_k(green | red) p_k(blue | red, green), in nats.

        Args:
          x: Images, [*samples, height, width, 3].
          observed: Mask of the same shape, equal over the channels of a pixel. A traced mask is not checked: pixels
            with a missing channel do not contribute.

        Raises:
          InputError: The events have another shape, values are between the levels, or the mask differs over channels.
        """
        x = require_observed(x, (*self.outputs.shape[-3:-1], 3), BYTES, observed)
        pixels = None if observed is None else _observed_pixels(observed)

        def log_density(outputs: Array, x: Array, red: Array) -> Array:
            return _log_mass_of_pixels(outputs, x)

        return sum_over_event(log_density, (self.outputs, x), x[..., 0], BYTES, 2, pixels, trailing=1)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch height width 3"]:
        """One sample per example: a component per pixel, then red, green and blue in order, rounded to levels."""

        def draw(key: Array, outputs: Array) -> Array:
            component_key, *channel_keys = jax.random.split(key, 4)
            logits, *channels = _colour_components(outputs)
            component = jax.random.categorical(component_key, logits)

            def level(channel: int, location: Array, scale: Array) -> Array:
                noise = jax.random.logistic(channel_keys[channel], scale.shape, scale.dtype)
                return nearest_level(location + scale * noise)

            _, levels = _in_order(level, *(_of_component(component[None], parts) for parts in channels))
            return jnp.stack(levels, axis=-1)

        return draw_like(self.outputs, key, self.event_ndim, draw)


def _moved(
    outputs: Float[Array, "..."], locations: Float[Array, "..."], first: int, unit: float
) -> Float[Array, "..."]:
    """The outputs with locations and scales in `unit`, and with `locations` added.

    The locations start at position `first` of the last axis, and the logarithms of the scales follow them.
    """
    count = locations.shape[-1]
    before, location, log_scale, after = jnp.split(outputs, (first, first + count, first + 2 * count), axis=-1)
    moved = [before, unit * location + (2 * locations - 1), log_scale + math.log(unit), after]
    return jnp.concatenate(moved, axis=-1)


def _components(outputs: Float[Array, "... numbers"]) -> tuple[Array, Array, Array]:
    """Logits, locations and scales of the components, [..., K] each, in units in which levels range from 0 to 1."""
    logits, location, log_scale = jnp.split(outputs, 3, axis=-1)
    return logits, _location(location), _scale(log_scale)


def _location(outputs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return (outputs + 1) / 2


def _scale(outputs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.exp(soft_clip(outputs, -_LOG_SCALE_BOUND, _LOG_SCALE_BOUND)) / 2


def _of_component(component: Array, of_all: Array) -> Array:
    """The entry of the last axis that belongs to the component."""
    return jnp.take_along_axis(of_all, component[..., None], axis=-1)[..., 0]


def _log_mass(outputs: Float[Array, "*shape numbers"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log sum_k w_k p_k(x) of each entry, in nats.

    The axis of the components is the first one here: on a CPU, loops over a short last axis take twice the time.
    """
    logits, location, scale = (jnp.moveaxis(part, -1, 0) for part in _components(outputs))
    return jax.nn.logsumexp(jax.nn.log_softmax(logits, axis=0) + log_mass(location, scale, x[None]), axis=0)


def _colour_components(outputs: Float[Array, "... numbers"]) -> tuple[Array, Array, Array, Array]:
    """Logits [..., K]; locations, scales and coefficients [3, ..., K], in units in which levels range from 0 to 1."""
    components = outputs.shape[-1] // 10
    of_channels = outputs[..., components:].reshape(*outputs.shape[:-1], 3, 3, components)
    location, log_scale, coefficients = jnp.moveaxis(of_channels, (-3, -2), (0, 1))
    return outputs[..., :components], _location(location), _scale(log_scale), jnp.tanh(coefficients)


def _in_order(
    value_of: Callable[[int, Array, Array], Array], location: Array, scale: Array, coefficients: Array
) -> tuple[list[Array], list[Array]]:
    """Locations and values of red, green and blue; each location is linear in the values of the preceding channels.

    Args:
      value_of: Function `value_of(channel, location, scale)` that returns the value of a channel.
      location: Locations at which the values of the preceding channels are 1/2, [3, ...].
      scale: Scale of each channel, [3, ...].
      coefficients: Coefficients of green on red, of blue on red, and of blue on green, [3, ...].
    """
    red = value_of(0, location[0], scale[0])
    green_at = location[1] + coefficients[0] * (red - 0.5)
    green = value_of(1, green_at, scale[1])
    blue_at = location[2] + coefficients[1] * (red - 0.5) + coefficients[2] * (green - 0.5)
    return [location[0], green_at, blue_at], [red, green, value_of(2, blue_at, scale[2])]


def _log_mass_of_pixels(outputs: Float[Array, "*shape numbers"], x: Float[Array, "*shape 3"]) -> Float[Array, "*shape"]:
    """log sum_k w_k p_k(red) p_k(green | red) p_k(blue | red, green) of each pixel, in nats."""
    logits, location, scale, coefficients = _colour_components(outputs)
    values = jnp.moveaxis(x, -1, 0)[..., None]
    locations, _ = _in_order(lambda channel, *_: values[channel], location, scale, coefficients)
    mass = sum(log_mass(locations[channel], scale[channel], values[channel]) for channel in range(3))
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + mass, axis=-1)


def _observed_pixels(observed: Shaped[Array, "*shape 3"]) -> Shaped[Array, "*shape"]:
    """Mask over pixels from a mask over channels: a pixel is observed if all of its channels are.

    Raises:
      InputError: A concrete mask differs over the channels of a pixel.
    """
    if not is_traced(observed):
        with jax.ensure_compile_time_eval():
            if ((observed > 0) != (observed[..., :1] > 0)).any():
                raise InputError(
                    "observed differs over the channels of a pixel; a colour mixture takes pixels that are observed "
                    "as a whole, MixtureOfLogistics any entries"
                )
    return (observed > 0).all(axis=-1)
