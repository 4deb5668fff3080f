"""What every likelihood has, and what they share."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.distributions import example_keys, soft_clip
from vae_jax.errors import InputError, is_traced
from vae_jax.observation import Batch, Support

_LOG_SCALE_BOUND = 10.0  # scales from 4.5e-5 to 2.2e4

Variables = dict[str, Any]


@runtime_checkable
class ImageDistribution(Protocol):
    """p(x|z): what `VAE.decode` returns."""

    @property
    def mean(self) -> Float[Array, "*batch height width channels"]:
        """E[x|z]."""

    def log_prob(self, x: Float[Array, "*samples height width channels"]) -> Float[Array, "*batch"]:
        """log p(x|z), summed over pixels and channels."""

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "*batch height width channels"]:
        """A draw for each example."""


class Likelihood:
    """What every likelihood has; a new one is a frozen dataclass that says `support`, `label` and `__call__`."""

    support: ClassVar[Support]
    """The values on which it is normalised."""

    @property
    def domain(self) -> Support:
        """The values that its log_prob takes: the support, if not more."""
        return self.support

    def is_likelihood_of(self, values: Support) -> bool:
        """Whether its log_prob is a log-probability or a log-density of pixels of these values."""
        return self.support.holds(values) and (self.support.levels is None) == (values.levels is None)

    def label(self, values: Support) -> str:
        """What -log p(x|z) of pixels of these values is called beside a number."""
        raise NotImplementedError

    def init(self) -> Variables:
        """Variables of its own, by collection: only "params" is optimised."""
        return {}

    def __call__(
        self, outputs: Float[Array, "*batch height width channels"], variables: Variables | None = None
    ) -> ImageDistribution:
        """p(x|z) from the decoder's outputs, one number for each pixel and channel, and its own variables."""
        raise NotImplementedError

    def in_training(
        self, outputs: Float[Array, "samples batch height width channels"], variables: Variables, batch: Batch
    ) -> tuple[ImageDistribution, Variables]:
        """p(x|z) in a train step, and the collections that it changes."""
        return self(outputs, variables), {}


def sum_over_pixels(
    log_density: Callable[[Array, Array], Array], parameters: Array, x: Array, support: Support
) -> Float[Array, "*batch"]:
    """The sum over pixels and channels of an elementwise log-density of `x`, with the leading axes of either.

    It is taken of [images, pixels]: XLA's CPU loops over more axes than that are ten times slower.

    Raises:
      InputError: pixels or channels that don't agree; concrete values outside the support.
    """
    pixels = parameters.shape[-3:]
    if pixels != x.shape[-3:]:
        raise InputError(f"x has images of shape {x.shape[-3:]}; p(x|z) is over images of {pixels}")
    require_values(x, support)
    leading = jnp.broadcast_shapes(parameters.shape[:-3], x.shape[:-3])
    rows = [jnp.broadcast_to(array, (*leading, *pixels)).reshape(-1, math.prod(pixels)) for array in (parameters, x)]
    return log_density(*rows).sum(axis=-1).reshape(leading)


def require_values(x: Float[Any, "*shape"], support: Support) -> None:
    """Raise `InputError` unless each value is one of the support; traced values pass."""
    if not x.size or is_traced(x):
        return
    with jax.ensure_compile_time_eval():
        low, high = float(x.min()), float(x.max())
        if not (support.low <= low <= high <= support.high and high - low < math.inf):  # so written, it refuses NaN
            raise InputError(f"x runs from {low:g} to {high:g}; this p(x|z) takes {support}")
        if support.levels is not None:
            level = (x - support.low) * ((support.levels - 1) / (support.high - support.low))
            if abs(level - level.round()).max() > 1e-2:
                raise InputError(f"x has values between the levels; this p(x|z) takes {support}, no others")


def uniform_like(values: Float[Array, "*shape"], key: Key[Array, "*keys"]) -> Float[Array, "*shape"]:
    """Uniform noise on (0, 1) of the shape of `values`, each example with its own key."""
    keys = example_keys(key, values.shape[-4])
    tiny = float(jnp.finfo(values.dtype).tiny)
    draw = jax.vmap(lambda k, v: jax.random.uniform(k, v.shape, v.dtype, minval=tiny), in_axes=(0, -4), out_axes=-4)
    return draw(keys, values)


def scale_variables(scale: float) -> Variables:
    """{"params": {"log_scale": []}}."""
    return {"params": {"log_scale": jnp.log(jnp.float32(scale))}}


def learned_scale(variables: Variables) -> Float[Array, ""]:
    """exp(log_scale) of such variables, soft-clipped."""
    log_scale = variables["params"]["log_scale"]
    return jnp.exp(soft_clip(log_scale, -_LOG_SCALE_BOUND, _LOG_SCALE_BOUND))
