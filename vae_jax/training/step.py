"""The training step: a pure function from a state and a batch to the next state, for jit, vmap or pmap."""

import dataclasses
import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, Key, PyTree, Shaped

from vae_jax.checkpoints.description import describe
from vae_jax.data import Split
from vae_jax.data.transforms import Batch, Transform
from vae_jax.distributions import example_keys
from vae_jax.errors import InputError, require_positive, require_positive_int
from vae_jax.models import Variables, merged
from vae_jax.models.table import parameter_count
from vae_jax.objectives import Loss, Objective

NOISE, ORDER, OBSERVATION, OBJECTIVE = range(4)
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
      frozen: arrays that are used and never trained, such as the parameters of a feature network: the objective finds
        them as the collection "frozen" of its variables. A checkpoint keeps their digest, and not them.
    """

    variables: Variables
    opt_state: PyTree  # an optax.OptState
    step: Int[Array, "*members"]
    key: Key[Array, "*members"]
    settings: PyTree = ()
    frozen: PyTree = field(default_factory=dict)

    def __repr__(self) -> str:
        members = f"{self.step.size} members, " if getattr(self.step, "ndim", 0) else ""
        counts = {name: parameter_count(tree) for name, tree in self.variables.items()}
        variables = ", ".join(f"{name}: {count:,} numbers" for name, count in counts.items())
        step = self.step if isinstance(self.step, jax.core.Tracer) else np.asarray(self.step).reshape(-1)[0]
        return f"TrainState({members}step={step}, {variables}, opt_state: {parameter_count(self.opt_state):,} numbers)"


@runtime_checkable
class Model(Protocol):
    """What can be trained: anything that makes its own variables."""

    @property
    def init(self) -> Callable[..., Variables]:
        """`init(key)` makes fresh variables, or `init(key, data)` where something starts from training examples."""


@runtime_checkable
class HasVariables(Protocol):
    """An objective with variables of its own."""

    def init(self, key: Key[Array, ""], model: Any) -> Variables:
        """Fresh variables, by collection and then by a name that no part of the model has."""


@runtime_checkable
class TakesData(Protocol):
    """A model that says which data it takes."""

    def require_data(self, data: Split, transform: Transform) -> None:
        """Raise `InputError` unless the model takes the data as `transform` makes them."""


Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@runtime_checkable
class ChecksData(Protocol):
    """A step that knows which data its model takes."""

    def require_data(self, data: Split, transform: Transform, settings: PyTree) -> None:
        """Raise `InputError` unless the model takes the data as `transform` makes them.

        Args:
          data: to train on.
          transform: what the model sees of them.
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
    key: Key[Array, ""],
    model: Model,
    optimizer: optax.GradientTransformation,
    settings: PyTree = (),
    *,
    data: Shaped[Any, "n ..."] | None = None,
    objective: Objective | None = None,
    frozen: PyTree = None,
) -> TrainState:
    """The state before the first step.

    Args:
      key: of the variables and of the run.
      model: makes its variables.
      optimizer: from optax.
      settings: see `TrainState`.
      data: training examples as the encoder takes them, for a model that starts from some (`VampPrior`).
      objective: if it has variables of its own.
      frozen: see `TrainState`.

    Raises:
      InputError: the objective's variables have the name of a part of the model.
    """
    variables_key, run_key = jax.random.split(key)
    variables = model.init(variables_key) if data is None else model.init(variables_key, data)
    if isinstance(objective, HasVariables):
        own = objective.init(jax.random.fold_in(run_key, OBJECTIVE), model)
        if both := own["params"].keys() & variables["params"].keys():
            raise InputError(f"the objective's variables are named {', '.join(both)}, as a part of the model is")
        variables = merged(variables, own)
    opt_state = optimizer.init(variables["params"])
    return TrainState(variables, opt_state, jnp.zeros((), jnp.int32), run_key, settings, frozen or {})


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

    def require_data(self, data: Split, transform: Transform, settings: PyTree) -> None:
        """Raise `InputError` unless the model takes the data as `transform` makes them, as far as it says."""
        if isinstance(self.model, TakesData):
            self.model.require_data(data, transform)

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

        def loss_fn(params: PyTree) -> tuple[dict[str, Array], tuple[dict[str, Array], Variables]]:
            variables = state.variables | {"params": params} | ({"frozen": state.frozen} if state.frozen else {})
            loss = self.objective(keys, self.model, variables, batch, state.step)
            return jax.tree.map(mean, _by_part(loss, size)), (jax.tree.map(mean, loss.terms), loss.updates)

        losses, gradient, (terms, updates) = _gradients(loss_fn, params)
        losses, terms, gradient = _sum((losses, terms, gradient), axis_name)
        loss = functools.reduce(operator.add, losses.values())
        parts = {f"loss_{part}": value for part, value in losses.items()} if len(losses) > 1 else {}
        if taken_names := (RECORD_NAMES | parts.keys()) & terms.keys():
            raise InputError(f"the objective has a term named {' and '.join(taken_names)}; choose another name")
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))

        def take(before: tuple[Variables, optax.OptState, Array]) -> tuple[Variables, optax.OptState, Array]:
            variables, opt_state, step = before
            change, opt_state = self.optimizer.update(gradient, opt_state, params)
            params_after = optax.apply_updates(params, change)
            return merged(variables, updates) | {"params": params_after}, opt_state, step + 1

        # `cond` instead of `select`: on a CPU, `select` would cost a tenth of the step.
        before = (state.variables, state.opt_state, state.step)
        variables, opt_state, taken = jax.lax.cond(finite, take, lambda before: before, before)
        state = dataclasses.replace(state, variables=variables, opt_state=opt_state, step=taken)
        return state, {"loss": loss, **parts, **terms, "finite": finite}


MODEL = "model"
"""The part of a loss that has every parameter which no other part has."""


def _by_part(loss: Any, size: int) -> dict[str, Array]:
    """The losses per example by part, checked."""
    if not isinstance(loss, Loss):
        raise InputError(
            f"the objective returned a {type(loss).__name__}; expected a Loss(per_example, terms, updates)"
        )
    losses = loss.per_example if isinstance(loss.per_example, dict) else {MODEL: loss.per_example}
    if MODEL not in losses:
        raise InputError(f"the objective's losses are of {', '.join(losses)}; expected one of {MODEL!r} among them")
    for part, values in losses.items():
        if jnp.shape(values) != (size,):
            raise InputError(
                f"the objective's loss of {part} has shape {jnp.shape(values)}; expected one "
                f"number an example, [{size}], of which the step takes the mean"
            )
    return losses


def _gradients(loss_fn: Callable[[PyTree], Any], params: PyTree) -> tuple[dict[str, Array], PyTree, Any]:
    """The losses by part, the gradient, and what else the function returns.

    The parameters of a part are those whose outermost name is the part's; all others belong to `MODEL`. One forward
    pass serves all parts.
    """
    losses, pullback, others = jax.vjp(loss_fn, params, has_aux=True)

    def gradient_of(part: str) -> PyTree:
        return pullback({name: jnp.full_like(value, name == part) for name, value in losses.items()})[0]

    gradients = {part: gradient_of(part) for part in losses}
    of_parts = {name: gradients[name if name in losses else MODEL][name] for name in params}
    return losses, of_parts, others


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

    An objective of several players returns a loss for each part by name, such as {"model": ..., "discriminator": ...}.
    The part of a name has the parameters `variables["params"][name]`; "model" has all that no other has. Each
    loss is differentiated by its own part's parameters only, all from one forward pass, and "loss_<part>" are its
    metrics. `optax.partition` gives each part an optimizer of its own.

    A step of your own has the same signature: it returns metrics with the scalars "loss" and "finite", draws the noise
    of step s from `stream(state.key, NOISE, s)`, and adds 1 to `state.step` unless it is not finite.

    Args:
      model: as the objective takes it.
      objective: what to minimise.
      optimizer: from optax.
      axis_name: under pmap, the axis over which the batch is spread. The step is then that of the whole batch, its
        noise included.

    Raises:
      InputError: when traced, if the objective returns no `Loss`, a loss that is not one number an example, or a term
        of a name that a record needs itself.
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
