"""Averaged parameters: an optax wrapper that keeps a running average of them beside the ones it trains."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from vae_jax.errors import InputError, require_positive
from vae_jax.models import Variables
from vae_jax.training.step import TrainState


class AveragedState(NamedTuple):
    """An optimizer's state, and the average of the parameters it has made in that many steps."""

    inner: optax.OptState
    average: PyTree
    steps: Int[Array, ""]


def averaged(optimizer: optax.GradientTransformation, eta: float = 8.0) -> optax.GradientTransformation:
    """The same optimizer, with the polynomial-decay average of its parameters (Shamir and Zhang, 2013, section 4).

    After step t the average moves to the new parameters by the share (1 + eta) / (t + eta): it is that of about the
    last 1 / (1 + eta) of the steps, however long the run, so that it is as good in the middle of a run as at its end.
    In an `optax.chain` it has to be the last one, since it averages what its own updates make of the parameters.

    Raises:
      InputError: eta is not above 0.
    """
    require_positive(eta=eta)

    def init(params: PyTree) -> AveragedState:
        return AveragedState(optimizer.init(params), params, jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: AveragedState, params: PyTree | None = None) -> tuple[PyTree, AveragedState]:
        updates, inner = optimizer.update(updates, state.inner, params)
        steps = state.steps + 1
        share = (1 + eta) / (steps + eta)
        average = optax.incremental_update(optax.apply_updates(params, updates), state.average, share)
        return updates, AveragedState(inner, average, steps)

    return optax.GradientTransformation(init, update)


def averaged_variables(state: TrainState) -> Variables:
    """The variables with their parameters averaged; batch statistics are those of the last step.

    Raises:
      InputError: the state's optimizer isn't `averaged`.
    """
    nodes = jax.tree.leaves(state.opt_state, is_leaf=lambda node: isinstance(node, AveragedState))
    found = [node for node in nodes if isinstance(node, AveragedState)]
    if len(found) != 1:
        raise InputError(f"the state holds {len(found)} averages of its parameters; train with one averaged(optimizer)")
    return state.variables | {"params": found[0].average}
