"""What every likelihood has, and what they share."""

import contextlib
import math
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.data.transforms import Batch, Support
from vae_jax.distributions.base import example_keys, soft_clip
from vae_jax.errors import InputError, is_traced

_LOG_SCALE_BOUND = 10.0  # scales from 4.5e-5 to 2.2e4

Variables = dict[str, Any]


@runtime_checkable
class Distribution(Protocol):
    """p(x|z): what `VAE.decode` returns. An event is one example, such as an image or a row of a table."""

    @property
    def mean(self) -> Float[Array, "..."]:
        """E[x|z], [*batch, *event]."""

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "*batch"]:
        """log p(x|z), summed over the event. The library's own also take `observed`, a mask over the event."""

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """A draw for each example, [*batch, *event]."""


ImageDistribution = Distribution


class Likelihood:
    """What every likelihood has; a new one is a value that says `support`, `label` and `__call__`."""

    support: ClassVar[Support]
    """The values on which it is normalised."""

    @property
    def domain(self) -> Support:
        """The values that its log_prob takes: the support, if not more."""
        return self.support

    def is_likelihood_of(self, values: Support) -> bool:
        """Whether its log_prob is a log-probability or a log-density of entries of these values."""
        return self.support.holds(values) and self.support.discrete == values.discrete

    def label(self, values: Support) -> str:
        """What -log p(x|z) of entries of these values is called beside a number."""
        raise NotImplementedError

    def output_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what the decoder emits for one example: one number for each entry of the event, if not more.

        Raises:
          InputError: the likelihood is not one of such events.
        """
        return event_shape

    def init(self, event_shape: tuple[int, ...] = ()) -> Variables:
        """Variables of its own, by collection: only "params" is optimised."""
        return {}

    def __call__(
        self, outputs: Float[Array, "..."], variables: Variables | None = None, event_ndim: int = 3
    ) -> Distribution:
        """p(x|z) from the decoder's outputs, [*batch, *output_shape], and its own variables.

        Args:
          outputs: of the decoder.
          variables: by collection, as `init` makes them.
          event_ndim: number of axes of an event; an image has 3.
        """
        raise NotImplementedError

    def in_training(
        self, outputs: Float[Array, "samples batch ..."], variables: Variables, batch: Batch, event_ndim: int = 3
    ) -> tuple[Distribution, Variables]:
        """p(x|z) in a train step, and the collections that it changes."""
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
    """The sum over an event of an elementwise log-density of `x`, with the leading axes of either.

    It is taken of [examples, entries]: XLA's CPU loops over more axes than that are ten times slower.

    Args:
      log_density: `log_density(*parameters, x)`: [examples, entries], as x; parameters have `trailing` axes more.
      parameters: [*batch, *event, *trailing] the first; the others may be scalars, or lack leading axes.
      x: [*samples, *event].
      support: the values that x may have.
      event_ndim: number of axes of an event.
      observed: a mask [*samples, *event]; entries where it is 0 add nothing, whatever x holds there.
      trailing: number of axes that the parameters have after those of the event, such as one of mixture components.

    Raises:
      InputError: events that don't agree in shape; concrete values outside the support.
    """
    first = parameters[0]
    batch_ndim = first.ndim - event_ndim - trailing
    event = first.shape[batch_ndim : batch_ndim + event_ndim]
    x = require_observed(x, event, support, observed)
    leading = jnp.broadcast_shapes(first.shape[:batch_ndim], x.shape[: x.ndim - event_ndim])

    def rows(array: Array, trailing: int = 0) -> Array:
        of_an_entry = array.shape[array.ndim - trailing :]
        rows = jnp.broadcast_to(array, (*leading, *event, *of_an_entry))
        return rows.reshape(-1, math.prod(event), *of_an_entry)

    density = log_density(*(rows(array, trailing) if array.ndim else array for array in parameters), rows(x))
    if observed is not None:
        density = jnp.where(rows(observed) > 0, density, 0)
    return density.sum(axis=-1).reshape(leading)


def require_observed(x: Array, event: tuple[int, ...], support: Support, observed: Array | None) -> Array:
    """`x`, checked, with a value of the support where it was not observed: there its density is finite.

    Raises:
      InputError: events of another shape, or concrete values outside the support.
    """
    require_event(x, event)
    if observed is not None:
        require_event(observed, event, "observed")
        with contextlib.nullcontext() if is_traced((x, observed)) else jax.ensure_compile_time_eval():
            x = jnp.where(observed > 0, x, min(max(0.0, support.low), support.high))
    require_values(x, support)
    return x


def require_event(x: Array, event: tuple[int, ...], name: str = "x") -> None:
    """Raise `InputError` unless the trailing axes of `x` are those of an event."""
    found = x.shape[max(0, x.ndim - len(event)) :]
    if found != event:
        raise InputError(f"{name} has events of shape {found}; p(x|z) is over events of {event}")


def require_values(x: Float[Any, "*shape"], support: Support) -> None:
    """Raise `InputError` unless each value is one of the support; traced values pass."""
    if not x.size or is_traced(x):
        return
    with jax.ensure_compile_time_eval():
        low, high = float(x.min()), float(x.max())
        if not (support.low <= low <= high <= support.high and high - low < math.inf):  # so written, it refuses NaN
            raise InputError(f"x runs from {low:g} to {high:g}; this p(x|z) takes {support}")
        if support.discrete:
            level = (x - support.low) / support.spacing
            if abs(level - level.round()).max() > 1e-2:
                raise InputError(f"x has values between the levels; this p(x|z) takes {support}, no others")


def uniform_like(
    values: Float[Array, "*shape"], key: Key[Array, "*keys"], event_ndim: int = 3
) -> Float[Array, "*shape"]:
    """Uniform noise on (0, 1) of the shape of `values`, each example with its own key."""
    tiny = float(jnp.finfo(values.dtype).tiny)
    return draw_like(values, key, event_ndim, lambda k, v: jax.random.uniform(k, v.shape, v.dtype, minval=tiny))


def draw_like(
    values: Array,
    key: Key[Array, "*keys"],
    event_ndim: int,
    draw: Callable[[Array, Array], Array],
    trailing: int = 0,
) -> Array:
    """`draw(key, values)` of each example, along the axis before the event, with its own key.

    The values may have axes after those of the event, which the draws lack; `trailing` is the number of them.
    """
    axis = -event_ndim - 1
    keys = example_keys(key, values.shape[axis - trailing])
    return jax.vmap(draw, in_axes=(0, axis - trailing), out_axes=axis)(keys, values)


def scale_variables(scale: Any, shape: tuple[int, ...] = (), name: str = "log_scale") -> Variables:
    """{"params": {name: shape}}, the logarithm of a positive number."""
    return {"params": {name: jnp.full(shape, jnp.log(jnp.float32(scale)))}}


def learned_scale(variables: Variables, name: str = "log_scale") -> Float[Array, "..."]:
    """The positive number of such variables."""
    return positive(variables["params"][name])


def positive(logarithm: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """exp(logarithm), the logarithm soft-clipped."""
    return jnp.exp(soft_clip(logarithm, -_LOG_SCALE_BOUND, _LOG_SCALE_BOUND))


def probabilities(log_mass: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Normalised over the last axis, and none below the least normal number: a codec needs a code for each level."""
    mass = jnp.exp(log_mass - log_mass.max(axis=-1, keepdims=True))
    return jnp.maximum(mass / _pairwise_sum(mass), jnp.finfo(mass.dtype).tiny)


def _pairwise_sum(terms: Float[Array, "... n"]) -> Float[Array, "... 1"]:
    """Over the last axis. Rounding errors grow with log n, and with n in the order that XLA takes on a CPU."""
    while (n := terms.shape[-1]) > 1:
        rest = terms[..., n - n % 2 :]
        terms = jnp.concatenate([terms[..., : n - 1 : 2] + terms[..., 1::2], rest], axis=-1)
    return terms


def in_words(name: str, number: Any) -> str:
    """ " of variance 0.1", for a label; nothing where the number is traced or an array."""
    return "" if is_traced(number) or jnp.ndim(number) else f" of {name} {float(number):g}"
