"""Bytes under mixtures of discretised logistics, of grey and of colour (Salimans et al., 2017, PixelCNN++).

What the decoder emits is in units in which levels run from -1 to 1, as in that article: outputs near 0, as those of a
fresh network, are components in the middle of the range. Scales are soft-clipped.
"""

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
_LOG_SCALE_BOUND = 7.0  # least scale in Salimans et al. (2017), at which a component has .97 of its mass on one level


@value
class MixtureOfLogistics(Likelihood):
    """Each entry has a mixture of discretised logistics of its own, independent of the others given z.

    Attributes:
      components: number of logistics in a mixture.
    """

    components: int = 5

    support: ClassVar[Support] = BYTES

    def __post_init__(self) -> None:
        require_positive_int(components=self.components)

    def label(self, values: Support) -> str:
        """A probability."""
        return "mixture of discretised logistics negative log-likelihood"

    def output_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """[*event, 3 K]: K logits of the components, then their K locations and K logarithms of scales."""
        return (*event_shape, 3 * self.components)

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "IndependentMixtureOfLogistics":
        """The outputs as `output_shape` says."""
        return IndependentMixtureOfLogistics(outputs, event_ndim)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class IndependentMixtureOfLogistics:
    """Independent entries, each on one of 256 levels from 0 to 1.

    Attributes:
      outputs: of the decoder, [*batch, *event, 3 K].
    """

    outputs: Float[Array, "..."]
    event_ndim: int = field(default=3, metadata={"static": True})

    @property
    def mean(self) -> Float[Array, "..."]:
        """E[x|z] over the levels."""
        logits, location, scale = _components(self.outputs)
        return jnp.sum(jax.nn.softmax(logits) * mean_level(location, scale), axis=-1)

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """Sum of the logarithms of the mixtures' probabilities."""
        return sum_over_event(_log_mass, (self.outputs,), x, BYTES, self.event_ndim, observed, trailing=1)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """A component of each entry, a logistic draw from it, rounded to the nearest level."""

        def draw(key: Array, outputs: Array) -> Array:
            component_key, noise_key = jax.random.split(key)
            logits, location, scale = _components(outputs)
            component = jax.random.categorical(component_key, logits)
            location, scale = _of_component(component, location), _of_component(component, scale)
            return nearest_level(location + scale * jax.random.logistic(noise_key, scale.shape, scale.dtype))

        return draw_like(self.outputs, key, self.event_ndim, draw, trailing=1)

    def pmf(self) -> Float[Array, "..."]:
        """The probability of each level, [*batch, *event, 256]."""
        entries = self.outputs.shape[:-1]
        return pmf_of(lambda level: _log_mass(self.outputs, jnp.broadcast_to(level, entries)))


@value
class ColourMixtureOfLogistics(Likelihood):
    """Each colour pixel has a mixture of its own, whose components condition green on red, and blue on both.

    Attributes:
      components: number of components in a mixture.
    """

    components: int = 10

    support: ClassVar[Support] = BYTES

    def __post_init__(self) -> None:
        require_positive_int(components=self.components)

    def label(self, values: Support) -> str:
        """A probability."""
        return "colour mixture of discretised logistics negative log-likelihood"

    def output_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """[height, width, 10 K].

        K logits of the components, 3 K means, 3 K logarithms of scales, each K of red, K of green and K of blue; then
        3 K coefficients, bounded by tanh: K of green on red, K of blue on red and K of blue on green.

        Raises:
          InputError: events other than images of three channels.
        """
        if len(event_shape) != 3 or event_shape[-1] != 3:
            raise InputError(
                f"events of shape {event_shape} are no colour images; expected (height, width, 3), or take "
                "MixtureOfLogistics, whose entries are independent"
            )
        return (*event_shape[:2], 10 * self.components)

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> "ColourMixtureOfLogisticsImage":
        """The outputs as `output_shape` says."""
        return ColourMixtureOfLogisticsImage(outputs)


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ColourMixtureOfLogisticsImage:
    """Independent colour pixels, each channel on one of 256 levels from 0 to 1.

    There is no `pmf`: the probabilities of a channel's levels depend on the channels before it.

    Attributes:
      outputs: of the decoder, [*batch, height, width, 10 K].
    """

    outputs: Float[Array, "*batch height width numbers"]

    event_ndim: ClassVar[int] = 3

    @property
    def mean(self) -> Float[Array, "*batch height width 3"]:
        """The mean of each component over the levels, weighted; green and blue given the means of those before them.

        It is an approximation to E[x|z], which is exact in red. In green and blue it is exact as far as a component
        has no mass beyond the first and the last level, since its conditional means then are linear.
        """
        logits, *channels = _colour_components(self.outputs)
        _, means = _in_order(lambda _, location, scale: mean_level(location, scale), *channels)
        weights = jax.nn.softmax(logits)
        return jnp.stack([jnp.sum(weights * mean, axis=-1) for mean in means], axis=-1)

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """Sum over pixels of log sum_k w_k p_k(red) p_k(green | red) p_k(blue | red, green).

        Args:
          x: [*samples, height, width, 3].
          observed: a mask of the same shape, equal over the channels; where it is traced, so that this can't be
            checked, pixels of which a channel is missing add nothing.

        Raises:
          InputError: events of another shape, values between the levels, or a mask that differs over the channels.
        """
        x = require_observed(x, (*self.outputs.shape[-3:-1], 3), BYTES, observed)
        pixels = None if observed is None else _observed_pixels(observed)

        def log_density(outputs: Array, x: Array, red: Array) -> Array:
            return _log_mass_of_pixels(outputs, x)

        return sum_over_event(log_density, (self.outputs, x), x[..., 0], BYTES, 2, pixels, trailing=1)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch height width 3"]:
        """A component of each pixel, then red, green and blue, one after the other, each rounded to a level."""

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


def _components(outputs: Float[Array, "... numbers"]) -> tuple[Array, Array, Array]:
    """Logits, locations and scales of the components, [..., K] each, in units in which levels run from 0 to 1."""
    logits, location, log_scale = jnp.split(outputs, 3, axis=-1)
    return logits, _location(location), _scale(log_scale)


def _location(outputs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return (outputs + 1) / 2


def _scale(outputs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.exp(soft_clip(outputs, -_LOG_SCALE_BOUND, _LOG_SCALE_BOUND)) / 2


def _of_component(component: Array, of_all: Array) -> Array:
    """Of the last axis, the one of the component."""
    return jnp.take_along_axis(of_all, component[..., None], axis=-1)[..., 0]


def _log_mass(outputs: Float[Array, "*shape numbers"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log sum_k w_k p_k(x) of each entry."""
    logits, location, scale = _components(outputs)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + log_mass(location, scale, x[..., None]), axis=-1)


def _colour_components(outputs: Float[Array, "... numbers"]) -> tuple[Array, Array, Array, Array]:
    """Logits [..., K]; locations, scales and coefficients [3, ..., K], in units in which levels run from 0 to 1."""
    components = outputs.shape[-1] // 10
    of_channels = outputs[..., components:].reshape(*outputs.shape[:-1], 3, 3, components)
    location, log_scale, coefficients = jnp.moveaxis(of_channels, (-3, -2), (0, 1))
    return outputs[..., :components], _location(location), _scale(log_scale), jnp.tanh(coefficients)


def _in_order(
    value_of: Callable[[int, Array, Array], Array], location: Array, scale: Array, coefficients: Array
) -> tuple[list[Array], list[Array]]:
    """The locations and the values of red, green and blue; a location is linear in the values of those before it.

    Args:
      value_of: from a channel's number, location and scale to its value.
      location: [3, ...], where the values before are 1/2.
      scale: of each channel.
      coefficients: of green on red, of blue on red, and of blue on green.
    """
    red = value_of(0, location[0], scale[0])
    green_at = location[1] + coefficients[0] * (red - 0.5)
    green = value_of(1, green_at, scale[1])
    blue_at = location[2] + coefficients[1] * (red - 0.5) + coefficients[2] * (green - 0.5)
    return [location[0], green_at, blue_at], [red, green, value_of(2, blue_at, scale[2])]


def _log_mass_of_pixels(outputs: Float[Array, "*shape numbers"], x: Float[Array, "*shape 3"]) -> Float[Array, "*shape"]:
    """log sum_k w_k p_k(red) p_k(green | red) p_k(blue | red, green) of each pixel."""
    logits, location, scale, coefficients = _colour_components(outputs)
    values = jnp.moveaxis(x, -1, 0)[..., None]
    locations, _ = _in_order(lambda channel, *_: values[channel], location, scale, coefficients)
    mass = sum(log_mass(locations[channel], scale[channel], values[channel]) for channel in range(3))
    return jax.nn.logsumexp(jax.nn.log_softmax(logits) + mass, axis=-1)


def _observed_pixels(observed: Shaped[Array, "*shape 3"]) -> Shaped[Array, "*shape"]:
    """A mask over pixels from one over their channels."""
    if not is_traced(observed):
        with jax.ensure_compile_time_eval():
            if ((observed > 0) != (observed[..., :1] > 0)).any():
                raise InputError(
                    "observed differs over the channels of a pixel; a colour mixture takes pixels that are observed "
                    "as a whole, MixtureOfLogistics any entries"
                )
    return (observed > 0).all(axis=-1)
