"""Protocol of training objectives, which return a loss per example in nats."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, Key

from vae_jax.data.transforms import Batch
from vae_jax.distributions.likelihoods import Distribution
from vae_jax.models.protocol import Variables
from vae_jax.values import shape_repr


@shape_repr
class Loss(NamedTuple):
    """Loss of each example, with its terms.

    Attributes:
      per_example: Loss of each example, [batch], or a dict of losses by the name of a part: each is then minimised over
        the parameters of this part only (see `make_train_step`).
      terms: Terms to record by name, [batch] each.
      updates: Collections of variables that the forward pass has changed.
      px_z: Distribution p(x|z) of the forward pass, [samples, batch, ...], for objectives that add terms to this one;
        None if there are no such terms for this objective.
    """

    per_example: Float[Array, " batch"] | dict[str, Float[Array, " batch"]]
    terms: dict[str, Float[Array, " batch"]]
    updates: Variables
    px_z: Distribution | None = None


@runtime_checkable
class Objective(Protocol):
    """Signature of an objective.

    An objective with parameters, such as those of a discriminator, also has a method `init(key, model) -> variables`.
    It returns variables by collection and by names that no part of the model has; `init(..., objective=)` adds them to
    the state.

    An objective with schedules has a method `require_schedules(steps)`, which raises `InputError` if one of them can't
    be used in a run of so many steps; `fit` calls it.
    """

    def __call__(
        self, key: Key[Array, "*keys"], model: Any, variables: Variables, batch: Batch, step: Int[Array, ""]
    ) -> Loss:
        """Loss of each example, in nats.

        Args:
          key: One key, or one per example.
          model: Model to train.
          variables: Variables of the model, and of the objective if it has any.
          batch: Batch of examples.
          step: Number of the step, from 0.
        """


@runtime_checkable
class HasSchedules(Protocol):
    """An objective that checks its schedules."""

    def require_schedules(self, steps: int) -> None:
        """Raise `InputError` if a schedule can't be used in a run of so many steps."""


def require_schedules(objective: Any, steps: int) -> None:
    """Raise `InputError` if a schedule of an objective can't be used in a run of so many steps."""
    if isinstance(objective, HasSchedules):
        objective.require_schedules(steps)
