"""Protocol of distributions p(x|z), base class of likelihoods, and the functions that they share."""

import contextlib
import math
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped

from vae_jax.data.transforms import Batch, Support
from vae_jax.distributions.base import Variables, example_keys, soft_clip
from vae_jax.errors import InputError, is_traced

_LOG_SCALE_BOUND = 10.0  # of a soft clip, so that scales are from 1.7e-5 to 6.0e4


@runtime_checkable
class Distribution(Protocol):
    """p(x|z), as returned by `VAE.decode`. An event is one example, such as an image or a row of a table."""

    @property
    def mean(self) -> Float[Array, "..."]:
        """E[x|z], [*batch, *event]."""

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "*batch"]:
        """log p(x|z) in nats, summed over the event.

        The distributions of this package also accept `observed`, a mask [*samples, *event]: entries where it is 0 do
        not contribute. They raise `InputError` if `x` has events of another shape or concrete values outside the
        support.
        """

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """One sample per example, [*batch, *event]; `key` is one key, or one per example."""


class Likelihood:
    """Base class of likelihoods; a user-defined one is a value that defines `support`, `label` and `__call__`."""

    support: ClassVar[Support]
    """Values over which the distribution is normalised."""

    has_locations: ClassVar[bool] = False
    """Whether the outputs have locations of the entries in the unit of x, and not logits or log-rates."""

    @property
    def domain(self) -> Support:
        """Values that `log_prob` accepts: the support, unless a subclass accepts more."""
        return self.support

    def is_likelihood_of(self, values: Support) -> bool:
        """Whether `log_prob` is a log-probability or a log-density of entries with these values."""
        return self.support.holds(values) and self.support.discrete == values.discrete

    def label(self, values: Support) -> str:
        """Name of -log p(x|z) of entries with these values, as displayed beside a number."""
        raise NotImplementedError

    def output_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the decoder output of one example: that of the event, unless a subclass needs more numbers.

        Raises:
          InputError: The likelihood does not support events of this shape.
        """
        return event_shape

    def init(self, event_shape: tuple[int, ...] = ()) -> Variables:
        """Initial variables of the likelihood, by collection; only "params" is optimised."""
        return {}

    def own(self, variables: Variables | None) -> Variables:
        """The variables, or the initial ones in place of None."""
        return self.init() if variables is None else variables

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> Distribution:
        """p(x|z) from the decoder outputs and the variables of the likelihood.

        Args:
          outputs: Outputs of the decoder, [*batch, *output_shape].
          variables: Variables of the likelihood by collection, as returned by `init`.
          event_ndim: Number of axes of an event; an image has 3.
        """
        raise NotImplementedError

    def with_locations(
        self,
        outputs: Float[Array, "*batch_and_outputs"],
        locations: Float[Array, "*batch_and_event"],
        unit: float = 1.0,
    ) -> Float[Array, "*batch_and_outputs"]:
        """The outputs with `locations` added to the location of each entry; outputs of 0 then have these locations.

        Args:
          outputs: Outputs of the decoder, [*batch, *output_shape].
          locations: Locations in the unit of x, [*batch, *event].
          unit: Factor of the locations, and of the scales if there are any, in `outputs`.

        Raises:
          InputError: The likelihood has no locations.
        """
        self.require_locations()
        return unit * outputs + locations

    def require_locations(self) -> None:
        """Raise `InputError` unless the outputs have locations, to which a linear map of the latents can be added."""
        if not self.has_locations:
            raise InputError(f"linear paths go to locations of pixels, but the outputs of {self} are no locations")

    def in_training(
        self, outputs: Float[Array, "samples batch ..."], variables: Variables, batch: Batch, event_ndim: int = 3
    ) -> tuple[Distribution, Variables]:
        """p(x|z) in a train step, and the updated collections of variables."""
        return self(outputs, variables, event_ndim), {}


def sum_over_event(
    log_density: Callable[..., Array],
    parameters: tuple[Array, ...],
    x: Array,
    support: Support,
    event_ndim: int,
    observed: Array | None = None,
    trailing: int = 0,
) -> Float[Array, "*batch"]:
    """Sum of an elementwise log-density of `x` over each event; leading axes of `parameters` and `x` are broadcast.

    The log-density is evaluated on arrays [examples, entries], because loops of XLA over more axes are ten times slower
    on a CPU.

    Args:
      log_density: Function `log_density(*parameters, x)` of `x` [examples, entries] and of parameters with `trailing`
        more axes; it returns [examples, entries].
      parameters: The first has shape [*batch, *event, *trailing]; the others may be scalars, or lack leading axes.
      x: Values, [*samples, *event].
      support: Values that `x` may have.
      event_ndim: Number of axes of an event.
      observed: Mask [*samples, *event]; entries where it is 0 do not contribute, whatever their value.
      trailing: Number of axes of the parameters after those of the event, such as 1 for mixture components.

    Returns:
      Sums over the event, with the broadcast leading axes.

    Raises:
      InputError: The event shapes differ, concrete values are outside the support, or a parameter has a shape that is
        not broadcast to that of the event.
    """
    first = parameters[0]
    batch_ndim = first.ndim - event_ndim - trailing
    event = first.shape[batch_ndim : batch_ndim + event_ndim]
    x = require_observed(x, event, support, observed)
    leading = jnp.broadcast_shapes(first.shape[:batch_ndim], x.shape[: x.ndim - event_ndim])

    def rows(array: Array, trailing: int = 0) -> Array:
        of_an_entry = array.shape[array.ndim - trailing :]
        try:
            rows = jnp.broadcast_to(array, (*leading, *event, *of_an_entry))
        except ValueError as error:
            raise InputError(
                f"a parameter of p(x|z) has shape {array.shape}; expected a number, or a shape that is broadcast to "
                f"that of an event, {event}"
            ) from error
        return rows.reshape(-1, math.prod(event), *of_an_entry)

    density = log_density(*(rows(array, trailing) if array.ndim else array for array in parameters), rows(x))
    if observed is not None:
        density = jnp.where(rows(observed) > 0, density, 0)
    return density.sum(axis=-1).reshape(leading)


def require_observed(
    x: Float[Any, "..."], event: tuple[int, ...], support: Support, observed: Shaped[Any, "..."] | None
) -> Float[Any, "..."]:
    """`x` after validation; unobserved entries are replaced by a value of the support, where the density is finite.

    Raises:
      InputError: The events have another shape, or concrete values are outside the support.
    """
    require_event(x, event)
    if observed is not None:
        require_event(observed, event, "observed")
        with contextlib.nullcontext() if is_traced((x, observed)) else jax.ensure_compile_time_eval():
            x = jnp.where(observed > 0, x, min(max(0.0, support.low), support.high))
    require_values(x, support)
    return x


def require_event(x: Any, event: tuple[int, ...], name: str = "x") -> None:
    """Raise `InputError` if the trailing axes of `x` do not have the shape of an event."""
    found = x.shape[max(0, x.ndim - len(event)) :]
    if found != event:
        raise InputError(f"{name} has events of shape {found}; p(x|z) is over events of {event}")


def require_values(x: Float[Any, "*shape"], support: Support) -> None:
    """Raise `InputError` if a value is outside the support; traced values are not checked."""
    if not x.size or is_traced(x):
        return
    with jax.ensure_compile_time_eval():
        low, high = float(x.min()), float(x.max())
        if not (support.low <= low <= high <= support.high and high - low < math.inf):  # a NaN makes a comparison false
            raise InputError(f"x runs from {low:g} to {high:g}; this p(x|z) takes {support}")
        if support.discrete:
            level = (x - support.low) / support.spacing
            if abs(level - level.round()).max() > 1e-2:
                raise InputError(f"x has values between the levels; this p(x|z) takes {support}, no others")


def uniform_like(
    values: Float[Array, "*shape"], key: Key[Array, "*keys"], event_ndim: int = 3
) -> Float[Array, "*shape"]:
    """Uniform noise on (0, 1) of the shape of `values`, with a separate key for each example."""
    tiny = float(jnp.finfo(values.dtype).tiny)
    return draw_like(values, key, event_ndim, lambda k, v: jax.random.uniform(k, v.shape, v.dtype, minval=tiny))


def draw_like(
    values: Array,
    key: Key[Array, "*keys"],
    event_ndim: int,
    draw: Callable[[Array, Array], Array],
    trailing: int = 0,
) -> Array:
    """`draw(key, values)` of each example, with a separate key for each entry of the axis before the event.

    The values may have axes after those of the event, which the samples lack; `trailing` is their number.
    """
    axis = -event_ndim - 1
    keys = example_keys(key, values.shape[axis - trailing])
    return jax.vmap(draw, in_axes=(0, axis - trailing), out_axes=axis)(keys, values)


def scale_variables(scale: Any, shape: tuple[int, ...] = (), name: str = "log_scale") -> Variables:
    """Variables {"params": {name: array of `shape`}}, which contain the logarithm of a positive scale.

    Raises:
      InputError: `scale` has axes that `shape` has not.
    """
    if jnp.ndim(scale) > len(shape):
        raise InputError(f"the initial scale has shape {jnp.shape(scale)}; expected {shape or 'a number'}")
    return {"params": {name: jnp.full(shape, jnp.log(jnp.float32(scale)))}}


def learned_scale(variables: Variables, name: str = "log_scale") -> Float[Array, "..."]:
    """The positive scale of variables made by `scale_variables`.

    Raises:
      InputError: The variables have no such scale.
    """
    return positive(own_variable(variables, "params", name))


def own_variable(variables: Variables, collection: str, name: str) -> Float[Array, "..."]:
    """A variable of a likelihood.

    Raises:
      InputError: There is none of this name, as the variables are those of another model.
    """
    own: Array | None = variables.get(collection, {}).get(name)
    if own is None:
        raise InputError(f"the variables have no {name}; expected those of this model: model.init")
    return own


def positive(logarithm: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """exp(logarithm), with the logarithm soft-clipped to avoid overflow."""
    return jnp.exp(soft_clip(logarithm, -_LOG_SCALE_BOUND, _LOG_SCALE_BOUND))


def probabilities(log_mass: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Probabilities, normalised over the last axis.

    Each is at least the smallest normal number, because a codec needs a code for each level.
    """
    mass = jnp.exp(log_mass - log_mass.max(axis=-1, keepdims=True))
    return jnp.maximum(mass / _pairwise_sum(mass), jnp.finfo(mass.dtype).tiny)


def _pairwise_sum(terms: Float[Array, "... n"]) -> Float[Array, "... 1"]:
    """Sum over the last axis, with rounding errors that grow as log n; those of XLA's sum on a CPU grow as n."""
    while (n := terms.shape[-1]) > 1:
        rest = terms[..., n - n % 2 :]
        terms = jnp.concatenate([terms[..., : n - 1 : 2] + terms[..., 1::2], rest], axis=-1)
    return terms


def in_words(name: str, number: Any) -> str:
    """Text such as " of variance 0.1" for a label; empty if the number is traced or an array."""
    return "" if is_traced(number) or jnp.ndim(number) else f" of {name} {float(number):g}"
