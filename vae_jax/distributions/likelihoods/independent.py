"""Distribution of independent entries, defined by elementwise functions, as a basis of user-defined likelihoods."""

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
    """Independent entries, each with one output of the decoder as its parameter.

    Attributes:
      outputs: Outputs of the decoder, [*batch, *event].
      expectation: Elementwise function `expectation(outputs)` that returns E[x|z].
      log_density: Elementwise function `log_density(outputs, x)` that returns the log-density in nats.
      draw: Function `draw(key, outputs)` that returns samples of the shape of the outputs.
      support: Values that an entry can have.
      event_ndim: Number of axes of an event.
    """

    outputs: Float[Array, "..."]
    expectation: Callable[[Array], Array] = field(metadata={"static": True})
    log_density: Callable[[Array, Array], Array] = field(metadata={"static": True})
    draw: Callable[[Array, Array], Array] = field(metadata={"static": True})
    support: Support = field(metadata={"static": True})
    event_ndim: int = field(default=3, metadata={"static": True})

    @property
    def mean(self) -> Float[Array, "..."]:
        """E[x|z], [*batch, *event]."""
        return self.expectation(self.outputs)

    def log_prob(self, x: Float[Array, "..."], observed: Shaped[Array, "..."] | None = None) -> Float[Array, "*batch"]:
        """Sum of the log-densities over the event, in nats."""
        return sum_over_event(self.log_density, (self.outputs,), x, self.support, self.event_ndim, observed)

    def sample(self, key: Key[Array, "*keys"]) -> Float[Array, "..."]:
        """One sample per example, [*batch, *event]."""
        return draw_like(self.outputs, key, self.event_ndim, self.draw)
