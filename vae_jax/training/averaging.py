"""Averaged parameters: an optax wrapper that computes a running average of the trained parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from vae_jax.errors import InputError, require_positive
from vae_jax.models import Variables
from vae_jax.training.arguments import require_optimizer
from vae_jax.training.step import TrainState


class AveragedState(NamedTuple):
    """The state of the wrapped optimizer, the average of the parameters, and the number of steps."""

    inner: optax.OptState
    average: PyTree
    steps: Int[Array, ""]


def averaged(optimizer: Any, eta: float = 8.0) -> optax.GradientTransformation:
    """An optimizer with the polynomial-decay average of its parameters (Shamir and Zhang, 2013, section 4).

    After step t the average moves towards the new parameters by the share (1 + eta) / (t + eta). It covers about the
    last 1 / (1 + eta) of the steps at any time of the run. In an `optax.chain` it must be the last transformation,
    because it averages the parameters after its updates.

    Args:
      optimizer: Optimizer of optax.
      eta: Decay of the average; larger values average over fewer steps.

    Raises:
      InputError: `eta` is not above 0, or the optimizer is not one of optax.
    """
    require_optimizer(optimizer)
    require_positive(eta=eta)

    def init(params: PyTree) -> AveragedState:
        average = jax.device_put(params, may_alias=False)  # a copy, so that a step can be given both to donate
        return AveragedState(optimizer.init(params), average, jnp.zeros((), jnp.int32))

    def update(
        updates: PyTree, state: AveragedState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, AveragedState]:
        updates, inner = optax.with_extra_args_support(optimizer).update(updates, state.inner, params, **extra)
        steps = state.steps + 1
        share = (1 + eta) / (steps + eta)
        average = optax.incremental_update(optax.apply_updates(params, updates), state.average, share)
        return updates, AveragedState(inner, average, steps)

    return optax.GradientTransformationExtraArgs(init, update)


def averaged_variables(state: TrainState) -> Variables:
    """The variables of a state with averaged parameters; other collections are those of the last step.

    If only a part of the parameters is averaged, by `averaged` inside `optax.partition`, the others are those of the
    last step.

    Raises:
      InputError: The optimizer of the state is not wrapped by `averaged`, or more than once.
    """
    nodes = jax.tree.leaves(state.opt_state, is_leaf=lambda node: isinstance(node, AveragedState))
    found = [node for node in nodes if isinstance(node, AveragedState)]
    if len(found) != 1:
        raise InputError(f"the state holds {len(found)} averages of its parameters; train with one averaged(optimizer)")

    def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    def averaged_or_last(average: Any, last: PyTree) -> PyTree:
        return last if is_masked(average) else average

    params = jax.tree.map(averaged_or_last, found[0].average, state.variables["params"], is_leaf=is_masked)
    return state.variables | {"params": params}
