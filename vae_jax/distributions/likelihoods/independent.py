"""A distribution of independent entries from functions of them: a short way to define a likelihood."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
from jaxtyping import Array, Float, Key, Shaped

from vae_jax.data.transforms import Support
from vae_jax.distributions.likelihoods.base import draw_like, sum_over_event
from vae_jax.values import shape_repr


@shape_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Independent:
    """Independent entries, each with one number of the decoder as its parameter.

    Attributes:
      outputs: of the decoder, [*batch, *event].
      expectation: from the outputs to E[x|z], elementwise.
      log_density: `log_density(outputs, x)`, elementwise, in nats.
      draw: `draw(key, outputs)`, draws of the shape of the outputs.
      support: the values that an entry can have.
      event_ndim: number of axes of an event.
    """

    outputs: Float[Array, "..."]
    expectation: Callable[[Array], Array] = field(metadata={"static": True})
    log_density: Callable[[Array, Array], Array] = field(metadata={"static": True})
    draw: Callable[[Array, Array], Array] = field(metadata={"static": True})
    support: Support = field(metadata={"static": True})
    event_ndim: int = field(default=3, metadata={"static": True})

    @property
    def mean(self) -> Float[Array, "..."]:
        """E[x|z]."""
        return self.expectation(self.outputs)

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """The sum of the log-densities over the event."""
        return sum_over_event(self.log_density, (self.outputs,), x, self.support, self.event_ndim, observed)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """A draw for each example."""
        return draw_like(self.outputs, key, self.event_ndim, self.draw)
