"""Ensembles: members that differ in their seeds, or in any number of their objective or optimizer, as one program.

    states = init_members(jax.random.split(key, 3), vae, optimizer, {"beta": jnp.array([0.5, 1.0, 2.0])})
    step = with_settings(lambda settings: make_train_step(vae, ELBO(settings["beta"]), optimizer))
    states, history = fit(states, step, data, epochs=40)

Each member is trained as `fit` would train it alone: its own order of data, its own noise.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

from vae_jax.errors import InputError
from vae_jax.observation import Batch
from vae_jax.step import Metrics, Model, Step, TrainState, init
from vae_jax.train import Record


def init_members(
    keys: Key[Array, " members"], model: Model, optimizer: optax.GradientTransformation, settings: PyTree = ()
) -> TrainState:
    """The states before the first step, stacked: that of member i is `init(keys[i], ...)`.

    Args:
      keys: one for each member.
      model: as `init` takes it.
      optimizer: likewise; where its numbers are settings, made of any one member's: its state has the same shape.
      settings: numbers in which members differ, each leaf with a leading axis of members.

    Raises:
      InputError: a leaf of the settings has not as many numbers as there are keys.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(settings):
        if np.shape(leaf)[:1] != (len(keys),):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise InputError(f"setting {name} has shape {np.shape(leaf)}, but there are {len(keys)} members")
    return jax.vmap(lambda key, own: init(key, model, optimizer, own))(keys, settings)


def with_settings(make: Callable[[PyTree], Step]) -> Step:
    """A step that is made of its state's settings."""

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return make(state.settings)(state, batch)

    return step


def mean_and_deviation(
    history: Sequence[Record], name: str
) -> tuple[Float[np.ndarray, " epochs"], Float[np.ndarray, " epochs"]]:
    """Of a number in the records: its mean over the members and its standard deviation, epoch by epoch.

    The latter is that of a sample, divided by members - 1, and 0 of a single member.
    """
    values = np.array([np.ravel(record[name]) for record in history], np.float64)
    deviation = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.zeros(len(values))
    return values.mean(axis=1), deviation
