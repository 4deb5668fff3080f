"""Ensembles: members that differ in their seeds, or in numbers of their objective or optimizer, as one program.

    states = init_members(jax.random.split(key, 3), vae, optimizer, {"beta": jnp.array([0.5, 1.0, 2.0])})
    step = with_settings(lambda settings: make_train_step(vae, ELBO(settings["beta"]), optimizer))
    states, history = fit(states, step, data, epochs=40)

Each member is trained as `fit` would train it alone: its own order of data, its own noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Key, PyTree

from vae_jax.data import Split
from vae_jax.data.transforms import Batch, Transform
from vae_jax.errors import InputError
from vae_jax.training.step import ChecksData, Metrics, Model, Step, TrainState, describe_step, init


def init_members(
    keys: Key[Array, " members"],
    model: Model,
    optimizer: optax.GradientTransformation,
    settings: PyTree = (),
    **shared: Any,
) -> TrainState:
    """The stacked initial states of several members: member i is `init(keys[i], ...)`.

    Args:
      keys: Keys, one for each member.
      model: Model, as in `init`.
      optimizer: Optimizer, as in `init`. If its numbers are settings, give that of any one member: the state has the
        same shape for all.
      settings: Numbers in which the members differ, each leaf with a leading axis of members.
      **shared: Further arguments of `init`, the same for all members.

    Raises:
      InputError: A leaf of the settings does not have as many entries as there are keys.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(settings):
        if np.shape(leaf)[:1] != (len(keys),):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise InputError(f"setting {name} has shape {np.shape(leaf)}, but there are {len(keys)} members")
    return jax.vmap(lambda key, own: init(key, model, optimizer, own, **shared))(keys, settings)


@dataclass(frozen=True, eq=False)
class StepOfSettings:
    """The step of `with_settings`; two of them are equal only if they are one object, as two functions are."""

    make: Callable[[PyTree], Step]

    def description(self, settings: PyTree) -> Any:
        """That of the step which `make` makes of traced settings: of numbers made of them it has type and shape only.

        The settings' values are no part of it, since the state holds them.
        """
        found = []
        jax.eval_shape(lambda settings: found.append(describe_step(self.make(settings), settings)), settings)
        return found[0]

    def require_data(self, data: Split, transform: Transform, settings: PyTree) -> None:
        """Raise `InputError` unless the model of the step takes the data as `transform` makes them."""
        step = self.make(settings)
        if isinstance(step, ChecksData):
            step.require_data(data, transform, settings)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """The state after the step made of its settings, and the metrics."""
        return self.make(state.settings)(state, batch)


def with_settings(make: Callable[[PyTree], Step]) -> StepOfSettings:
    """A step that is made of its state's settings."""
    return StepOfSettings(make)
