"""Ensembles: several members, which differ in seeds or in numbers of objective or optimizer, as one program.

    states = init_members(jax.random.split(key, 3), vae, optimizer, {"beta": jnp.array([0.5, 1.0, 2.0])})
    step = with_settings(lambda settings: make_train_step(vae, ELBO(settings["beta"]), optimizer))
    states, history = fit(states, step, data, epochs=40)

`fit` trains each member as it would be trained alone, with a separate order of the data and separate noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from vae_jax.data import Split
from vae_jax.data.transforms import Batch, Transform
from vae_jax.errors import InputError
from vae_jax.training.arguments import require_keys, require_model, require_optimizer
from vae_jax.training.step import ChecksRun, Metrics, Step, TrainState, describe_step, init

_CALL = "init_members(keys, model, optimizer)"


def init_members(
    keys: Any,
    model: Any,
    optimizer: Any,
    settings: PyTree = (),
    **shared: Any,
) -> TrainState:
    """The stacked states of several members before the first step: that of member i is `init(keys[i], ...)`.

    Args:
      keys: Typed keys, one for each member.
      model: See `init`.
      optimizer: See `init`; if its numbers are settings, the optimizer of any member, whose state has the same shape.
      settings: Numbers in which members differ; each leaf has a leading axis of members.
      **shared: Further arguments of `init`, the same for all members.

    Raises:
      InputError: The keys are not an array of typed keys, the model is not a model, the optimizer is not one of optax,
        or a leaf of the settings has another number of members.
    """
    require_keys(keys, _CALL)
    require_model(model, _CALL)
    require_optimizer(optimizer, _CALL)
    for path, leaf in jax.tree_util.tree_leaves_with_path(settings):
        if np.shape(leaf)[:1] != (len(keys),):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise InputError(f"setting {name} has shape {np.shape(leaf)}, but there are {len(keys)} members")
    return jax.vmap(lambda key, own: init(key, model, optimizer, own, **shared))(keys, settings)


@dataclass(frozen=True, eq=False)
class StepOfSettings:
    """The step of `with_settings`; compared by identity, as functions are."""

    make: Callable[[PyTree], Step]

    def description(self, settings: PyTree) -> Any:
        """The description of the step that `make` returns for traced settings.

        Numbers that depend on the settings are described by type and shape. Their values are stored with the state.
        """
        found = []
        jax.eval_shape(lambda settings: found.append(describe_step(self.make(settings), settings)), settings)
        return found[0]

    def require_run(self, data: Split, transform: Transform, settings: PyTree, steps: int) -> None:
        """Raise `InputError` unless the step of these settings can be taken throughout the run."""
        step = self.make(settings)
        if isinstance(step, ChecksRun):
            step.require_run(data, transform, settings, steps)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """The state after the step that `make` returns for the state's settings, and the metrics."""
        return self.make(state.settings)(state, batch)


def with_settings(make: Any) -> StepOfSettings:
    """A step that is made from the settings of its state.

    Args:
      make: Function from the settings of one member to a step.

    Raises:
      InputError: `make` is not a function.
    """
    if not callable(make):
        raise InputError(f"make is {make!r}; expected a function from settings to a step")
    return StepOfSettings(make)
