"""Ensembles: members that differ in their seeds, or in any number of their objective or optimizer, as one program.

    states = init_members(jax.random.split(key, 3), vae, optimizer, {"beta": jnp.array([0.5, 1.0, 2.0])})
    step = with_settings(lambda settings: make_train_step(vae, ELBO(settings["beta"]), optimizer))
    states, history = fit(states, step, data, epochs=40)

Each member is trained as `fit` would train it alone: its own order of data, its own noise.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key, PyTree

from vae_jax.data import Split
from vae_jax.data.transforms import Batch, Transform
from vae_jax.errors import InputError
from vae_jax.training.loop import EvalFn, Record, fit
from vae_jax.training.step import ChecksData, Metrics, Model, Step, TrainState, describe_step, init, member


def init_members(
    keys: Key[Array, " members"],
    model: Model,
    optimizer: optax.GradientTransformation,
    settings: PyTree = (),
    **shared: Any,
) -> TrainState:
    """The states before the first step, stacked: that of member i is `init(keys[i], ...)`.

    Args:
      keys: one for each member.
      model: as `init` takes it.
      optimizer: likewise; where its numbers are settings, made of any one member's: its state has the same shape.
      settings: numbers in which members differ, each leaf with a leading axis of members.
      **shared: as `init` takes them, the same for all members.

    Raises:
      InputError: a leaf of the settings has not as many numbers as there are keys.
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


def fit_together(
    states: Sequence[TrainState],
    step: Step,
    data: Split,
    *,
    eval_fns: Sequence[EvalFn | None],
    **settings: Any,
) -> list[tuple[TrainState, list[Record]]]:
    """`fit` of several runs as members of one: what it would return of each, but that all take the seconds of one.

    Args:
      states: of the runs, or each of as many members.
      step: of all.
      data: of all.
      eval_fns: the runs' own.
      **settings: as `fit` takes them.
    """
    inner, count = states[0].step.shape, len(states)
    if count == 1:
        return [fit(states[0], step, data, eval_fn=eval_fns[0], **settings)]
    own = [each for each in eval_fns if each for _ in range(math.prod(inner))] or None
    members = jax.tree.map(lambda *leaves: _joined(leaves, inner), *states)
    members, history = fit(members, step, data, eval_fn=own, **settings)
    apart = jax.tree.map(lambda leaf: leaf.reshape(count, *inner, *leaf.shape[1:]), members)

    def records(number: int) -> list[Record]:
        shared = {"epoch", "seconds"}
        return [
            {
                name: value if name in shared else np.reshape(value, (count, *inner))[number].tolist()
                for name, value in record.items()
            }
            for record in history
        ]

    return [(member(apart, number), records(number)) for number in range(count)]


def _joined(leaves: Sequence[Array], inner: tuple[int, ...]) -> Array:
    """One leaf of all runs, with a single leading axis of members."""
    if jax.dtypes.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
        data = _joined([jax.random.key_data(leaf) for leaf in leaves], inner)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaves[0]))
    return jnp.concatenate(leaves) if inner else jnp.stack(leaves)
