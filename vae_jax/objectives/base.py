"""Protocol of training objectives, which return a loss per example in nats."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, Key

from vae_jax.data.transforms import Batch
from vae_jax.distributions.likelihoods import Distribution
from vae_jax.errors import InputError, named
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

    def require_one_part(self) -> Float[Array, " batch"]:
        """The loss per example, to which a term is added.

        Raises:
          InputError: There are separate losses for several parts.
        """
        if isinstance(self.per_example, dict):
            raise InputError(
                "the objective has losses for several parts; put the adversarial loss outside: "
                "Adversarial(..., objective=Perceptual(...))"
            )
        return self.per_example

    def require_px_z(self) -> Distribution:
        """p(x|z) of the forward pass.

        Raises:
          InputError: The objective does not return it.
        """
        if self.px_z is None:
            raise InputError(
                "the objective returns no p(x|z); expected one that does, such as ELBO(): Loss(..., px_z=)"
            )
        return self.px_z


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


def require_objective_value(objective: Any) -> None:
    """Raise `InputError` unless the argument is an objective, to which terms can be added."""
    if isinstance(objective, type) or not isinstance(objective, Objective):
        raise InputError(f"objective is {named(objective)}; expected an objective, such as vj.ELBO()")


def require_complete(batch: Batch) -> None:
    """Raise `InputError` if the batch has missing entries, which a network that compares images takes as data."""
    if batch.observed is not None:
        raise InputError(
            "the batch has missing entries, which a feature network or a discriminator can't leave out; take ELBO() or "
            "complete images"
        )
