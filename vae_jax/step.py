"""The training step: a pure function from a state and a batch to the next state, for jit, vmap or pmap."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key, PyTree

from vae_jax.data import Split
from vae_jax.description import describe
from vae_jax.distributions import example_keys
from vae_jax.errors import InputError, require_positive, require_positive_int
from vae_jax.model import Variables
from vae_jax.objectives import Objective
from vae_jax.observation import Batch, Observe

NOISE, ORDER, OBSERVATION = range(3)
"""What the run's key is folded with, one stream of chance each."""

RECORD_NAMES = {"epoch", "seconds", "steps", "loss", "finite"}
"""What an epoch's record has of its own."""

Metrics = dict[str, Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that training changes, of one run or, with a leading axis throughout, of several members.

    Attributes:
      variables: the model's; "params" is what the optimizer changes.
      opt_state: the optimizer's.
      step: steps taken.
      key: of the run; it never changes.
      settings: numbers of which a step may make its objective or its optimizer, such as those in which members
        differ; they never change.
    """

    variables: Variables
    opt_state: optax.OptState
    step: Int[Array, "*members"]
    key: Key[Array, "*members"]
    settings: PyTree = ()


@runtime_checkable
class Model(Protocol):
    """What can be trained: anything that makes its own variables."""

    def init(self, key: Key[Array, ""]) -> Variables:
        """Fresh variables."""


@runtime_checkable
class TakesData(Protocol):
    """A model that says which data it takes."""

    def require_data(self, data: Split, observe: Observe) -> None:
        """Raise `InputError` unless the model takes the data as `observe` makes them."""


Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@runtime_checkable
class ChecksData(Protocol):
    """A step that knows which data its model takes."""

    def require_data(self, data: Split, observe: Observe, settings: PyTree) -> None:
        """Raise `InputError` unless the model takes the data as `observe` makes them.

        Args:
          data: to train on.
          observe: what the model sees of them.
          settings: of one member.
        """


def describe_step(step: Step, settings: PyTree) -> dict[str, Any] | None:
    """The step's description, or None of a step that has none, such as a function.

    Args:
      step: its attribute `description` is what JSON can hold, or a function from settings to that.
      settings: of one member.
    """
    description = getattr(step, "description", None)
    return description(settings) if callable(description) else description


def init(
    key: Key[Array, ""], model: Model, optimizer: optax.GradientTransformation, settings: PyTree = ()
) -> TrainState:
    """The state before the first step."""
    variables_key, run_key = jax.random.split(key)
    variables = model.init(variables_key)
    return TrainState(variables, optimizer.init(variables["params"]), jnp.zeros((), jnp.int32), run_key, settings)


def warm_up_then_cosine(peak: float, steps: int, warm_up: float = 0.025) -> optax.Schedule:
    """A learning rate that climbs to `peak` over the share `warm_up` of the steps, then falls to 0 by a cosine.

    Raises:
      InputError: a peak that is not above 0, no steps, or a share outside [0, 1).
    """
    require_positive_int(steps=steps)
    require_positive(peak=peak)
    if not 0 <= warm_up < 1:
        raise InputError(f"warm_up is {warm_up}; expected a share of the steps, from 0 to below 1")
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps=round(warm_up * steps), decay_steps=steps)


@dataclass(frozen=True, eq=False)
class TrainStep:
    """The step of `make_train_step`; two of them are equal only if they are one object, as two functions are."""

    model: Model
    objective: Objective
    optimizer: optax.GradientTransformation
    axis_name: str | None = None

    @property
    def description(self) -> dict[str, Any]:
        """Model, objective and optimizer as JSON can hold them, by which checkpoints tell one run from another."""
        parts = {"model": self.model, "objective": self.objective, "optimizer": self.optimizer}
        return {name: describe(part) for name, part in parts.items()}

    def require_data(self, data: Split, observe: Observe, settings: PyTree) -> None:
        """Raise `InputError` unless the model takes the data as `observe` makes them, as far as it says."""
        if isinstance(self.model, TakesData):
            self.model.require_data(data, observe)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """The state after the step, and the metrics."""
        params, axis_name = state.variables["params"], self.axis_name
        size = len(batch.x)
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
        keys = example_keys(stream(state.key, NOISE, state.step), size, first)
        mask = jnp.ones(size) if batch.mask is None else batch.mask
        weight = _sum(mask.sum(), axis_name)

        def mean(values: Array) -> Array:  # over the examples here, divided by their number everywhere
            return jnp.sum(values * mask) / weight

        def loss_fn(params: PyTree) -> tuple[Array, tuple[dict[str, Array], Variables]]:
            loss = self.objective(keys, self.model, state.variables | {"params": params}, batch, state.step)
            return mean(loss.per_example), (jax.tree.map(mean, loss.terms), loss.updates)

        (loss, (terms, updates)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        loss, terms, gradient = _sum((loss, terms, gradient), axis_name)
        if taken_names := RECORD_NAMES & terms.keys():
            raise InputError(f"the objective has a term named {' and '.join(taken_names)}; choose another name")
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))

        def take(before: tuple[Variables, optax.OptState, Array]) -> tuple[Variables, optax.OptState, Array]:
            variables, opt_state, step = before
            change, opt_state = self.optimizer.update(gradient, opt_state, params)
            return variables | updates | {"params": optax.apply_updates(params, change)}, opt_state, step + 1

        # `cond` instead of `select`: on a CPU, `select` would cost a tenth of the step.
        before = (state.variables, state.opt_state, state.step)
        variables, opt_state, taken = jax.lax.cond(finite, take, lambda before: before, before)
        state = TrainState(variables, opt_state, taken, state.key, state.settings)
        return state, {"loss": loss, **terms, "finite": finite}


def make_train_step(
    model: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    axis_name: str | None = None,
) -> TrainStep:
    """A pure function `(state, batch) -> (state, metrics)`, for jit, vmap over members, or pmap.

    The loss is the mean of the objective over the batch, each example weighted by `batch.mask`. Metrics are that
    "loss", the means of the objective's terms, and "finite": whether loss and gradient were. If not, the state is
    returned as it came. `step.description` says what the step is made of.

    Args:
      model: as the objective takes it.
      objective: what to minimise.
      optimizer: from optax.
      axis_name: under pmap, the axis over which the batch is spread. The step is then that of the whole batch, its
        noise included.

    Raises:
      InputError: when traced, if a term of the objective has a name that a record needs itself.
    """
    return TrainStep(model, objective, optimizer, axis_name)


def member(tree: PyTree, number: int) -> PyTree:
    """That of one member, of a tree whose leaves have a leading axis of members."""

    def own(leaf: Array) -> Array:
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf[number]
        # By their data, for to take a key from an array counts as its use.
        return jax.random.wrap_key_data(jax.random.key_data(leaf)[number], impl=jax.random.key_impl(leaf))

    return jax.tree.map(own, tree)


def stream(run_key: Key[Array, ""], stream: int, number: Int[Array, ""] | int) -> Key[Array, ""]:
    """The key of a step, or of an epoch, in one of the run's streams of chance."""
    return jax.random.fold_in(jax.random.fold_in(run_key, stream), number)


def _sum(tree: PyTree, axis_name: str | None) -> PyTree:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)
