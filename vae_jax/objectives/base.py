"""What an objective is: a loss for each example, in nats."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, Key

from vae_jax.data.transforms import Batch
from vae_jax.models.protocol import Variables
from vae_jax.values import shape_repr


@shape_repr
class Loss(NamedTuple):
    """A loss and what it is made of.

    Attributes:
      per_example: what is minimised. Or a loss for each of several parts, by their names: each is then minimised over
        the parameters of its own part alone (see `make_train_step`).
      terms: parts of it worth a curve of their own.
      updates: collections of variables that the forward pass has changed.
    """

    per_example: Float[Array, " batch"] | dict[str, Float[Array, " batch"]]
    terms: dict[str, Float[Array, " batch"]]
    updates: Variables


@runtime_checkable
class Objective(Protocol):
    """The signature of an objective.

    An objective with parameters of its own, such as those of a discriminator, also has `init(key, model) -> variables`,
    by collection and then by a name that no part of the model has; `init(..., objective=)` adds them to the state.
    """

    def __call__(
        self, key: Key[Array, "*keys"], model: Any, variables: Variables, batch: Batch, step: Int[Array, ""]
    ) -> Loss:
        """The loss of each example; `key` is one key, or one per example."""
