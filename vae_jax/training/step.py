"""The training step: a pure function from a state and a batch to the next state, for jit, vmap and pmap."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int, Key, PyTree

from vae_jax.checkpoints.description import describe
from vae_jax.checkpoints.models import leaves_of_model, variables_of
from vae_jax.data import Split
from vae_jax.data.transforms import Batch, Transform
from vae_jax.distributions import example_keys
from vae_jax.errors import (
    InputError,
    is_traced,
    named,
    require_key,
)
from vae_jax.models import Variables, merged
from vae_jax.models.base import require_targets
from vae_jax.models.parameters import parameter_count
from vae_jax.objectives import Loss, Objective, require_schedules
from vae_jax.training.arguments import (
    INIT,
    MAKE_TRAIN_STEP,
    require_model,
    require_objective,
    require_optimizer,
)

NOISE, ORDER, OBSERVATION, OBJECTIVE = range(4)
"""Numbers with which the key of a run is folded: one random stream each."""

RECORD_NAMES = {"epoch", "seconds", "steps", "loss", "finite"}
"""Names in the record of an epoch or of a chunk of steps, which no term of an objective may have."""

Metrics = dict[str, Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The state of a run; that of several members has a leading axis in each array.

    Attributes:
      variables: Variables of the model, by collection; the optimizer changes "params".
      opt_state: State of the optimizer.
      step: Number of steps taken.
      key: Key of the run; constant.
      settings: Numbers from which a step may make its objective or its optimizer, such as those in which members
        differ; constant.
      frozen: Arrays that are used and not trained, such as the parameters of a feature network; the objective has them
        as the collection "frozen" of its variables. A checkpoint holds their digest only.
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
    """A model that can be trained: an object that makes its variables."""

    @property
    def init(self) -> Callable[..., Variables]:
        """Function that makes initial variables: `init(key)`, or `init(key, data)` if it needs training examples."""


@runtime_checkable
class HasVariables(Protocol):
    """An objective that has variables."""

    def init(self, key: Key[Array, ""], model: Any) -> Variables:
        """Initial variables, by collection and then by a name that no part of the model has."""


@runtime_checkable
class TakesData(Protocol):
    """A model that checks whether it takes some data."""

    def require_data(self, data: Split, transform: Transform) -> None:
        """Raise `InputError` unless the model takes the transformed data."""


Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@runtime_checkable
class ChecksRun(Protocol):
    """A step that checks whether it can be taken throughout a run."""

    def require_run(self, data: Split, transform: Transform, settings: PyTree, steps: int) -> None:
        """Raise `InputError` unless the model takes the transformed data and the schedules of the objective fit.

        Args:
          data: Training data.
          transform: Transform that turns stored examples into a batch.
          settings: Settings of one member.
          steps: Number of steps of the run.
        """


def describe_step(step: Step, settings: PyTree) -> dict[str, Any] | None:
    """The description of a step as JSON can hold it; None for a plain function, which has none.

    Args:
      step: Step whose attribute `description` is the description, or a function from settings to it.
      settings: Settings of one member.
    """
    description = getattr(step, "description", None)
    return description(settings) if callable(description) else description


def init(
    key: Any,
    model: Any,
    optimizer: Any,
    settings: PyTree = (),
    *,
    data: Any = None,
    variables: Any = None,
    objective: Objective | None = None,
    frozen: PyTree = None,
) -> TrainState:
    """The state before the first step.

    Args:
      key: Typed key, such as `jax.random.key(0)`, of the variables and of the run.
      model: Model whose `init` makes the variables.
      optimizer: Optimizer of optax.
      settings: See `TrainState`.
      data: Training examples as the encoder takes them, [n, *event], for a model that starts from some (`VampPrior`).
      variables: Variables to start from, such as those of a trained state; by default `model.init` makes them.
      objective: Objective, if it has variables.
      frozen: See `TrainState`.

    Raises:
      InputError: The key is not one typed key, the model is not a model, or the optimizer is not one of optax.
        `variables` are not those of a model, or are given together with `data`. The variables of the objective, or an
        entry of `frozen`, have the name of a part of the model.
    """
    require_key(key, f"{INIT}; vj.init_members takes several keys")
    require_model(model, INIT)
    require_optimizer(optimizer, INIT)
    variables_key, run_key = jax.random.split(key)
    given = variables is not None
    if not given:
        variables = model.init(variables_key) if data is None else model.init(variables_key, data)
    else:
        leaves_of_model(model, variables)
        if data is not None:
            raise InputError("data and variables are given; give one: data are for the variables that model.init makes")
    if isinstance(objective, HasVariables):
        own = objective.init(jax.random.fold_in(run_key, OBJECTIVE), model)
        of_model = variables_of(model)["params"] if given else variables["params"]
        _require_other_names("the objective's variables", own["params"], of_model)
        variables = merged(own, variables)  # those of a trained state have the objective's too
    _require_other_names("frozen arrays", frozen, variables["params"])
    opt_state = optimizer.init(variables["params"])
    return TrainState(variables, opt_state, jnp.zeros((), jnp.int32), run_key, settings, frozen or {})


def _require_other_names(what: str, tree: PyTree, parts: PyTree) -> None:
    """Raise `InputError` if an entry of a collection has the name of a part of the model."""
    if both := ", ".join(name for name in parts if isinstance(tree, Mapping) and name in tree):
        raise InputError(f"{what} are named {both}, as a part of the model is; choose another name")


@dataclass(frozen=True, eq=False)
class TrainStep:
    """The step of `make_train_step`; compared by identity, as functions are."""

    model: Model
    objective: Objective
    optimizer: optax.GradientTransformation
    axis_name: str | None = None

    @property
    def description(self) -> dict[str, Any]:
        """Description of model, objective and optimizer as JSON can hold it; checkpoints compare it."""
        parts = {"model": self.model, "objective": self.objective, "optimizer": self.optimizer}
        return {name: describe(part) for name, part in parts.items()}

    def require_run(self, data: Split, transform: Transform, settings: PyTree, steps: int) -> None:
        """Raise `InputError` unless the model takes the transformed data and the schedules of the objective fit.

        A model or an objective without such a check takes any. No part may have an `axis_name`, which `fit` does not
        define.
        """
        of_model = (getattr(self.model, name, None) for name in ("encoder", "decoder", "likelihood"))
        for part in (self, self.objective, *of_model):
            axis_name = getattr(part, "axis_name", None)
            if axis_name is not None:
                raise InputError(
                    f"axis_name is {axis_name!r} in {type(part).__name__}; expected None: it is for jax.pmap, and fit "
                    "computes over all devices of its mesh without it"
                )
        if isinstance(self.model, TakesData):
            self.model.require_data(data, transform)
        require_schedules(self.objective, steps)

    def __call__(self, state: Any, batch: Any) -> tuple[TrainState, Metrics]:
        """The state after the step, and the metrics.

        Raises:
          InputError: When traced; see `make_train_step`.
        """
        if not isinstance(state, TrainState):
            raise InputError(f"the state is {named(state)}; expected that of vj.init: step(state, batch)")
        if not isinstance(batch, Batch):
            raise InputError(f"the batch is {named(batch)}; expected a Batch, such as vj.Batch(x) of floats")
        params, axis_name = state.variables["params"], self.axis_name
        self._require_own(state.opt_state, params)
        size = len(batch.x)
        _require_of_size(batch, size)
        batch = _with_finite_padding(batch, axis_name)
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
        keys = example_keys(stream(state.key, NOISE, state.step), size, first)
        mask = jnp.ones(size) if batch.mask is None else batch.mask
        weight = _sum(mask.sum(), axis_name)

        def mean(values: Array) -> Array:  # sum over the local examples, divided by their global number
            return jnp.sum(values * mask) / weight

        def loss_fn(params: PyTree) -> tuple[dict[str, Array], tuple[dict[str, Array], Variables]]:
            variables = state.variables | {"params": params} | ({"frozen": state.frozen} if state.frozen else {})
            loss = self.objective(keys, self.model, variables, batch, state.step)
            losses = _by_part(loss, size)
            _require_terms(loss.terms, size)
            return jax.tree.map(mean, losses), (jax.tree.map(mean, loss.terms), loss.updates)

        losses, gradient, (terms, updates) = _gradients(loss_fn, params)
        losses, terms, gradient = _sum((losses, terms, gradient), axis_name)
        total = functools.reduce(operator.add, losses.values())
        parts = {f"loss_{part}": value for part, value in losses.items()} if len(losses) > 1 else {}
        if taken_names := (RECORD_NAMES | parts.keys()) & terms.keys():
            raise InputError(f"the objective has a term named {' and '.join(taken_names)}; choose another name")
        finite = jnp.isfinite(total) & jnp.isfinite(optax.tree.norm(gradient))

        @functools.partial(jax.jit, inline=True)  # traced once, for both branches
        def take(before: tuple[Variables, optax.OptState, Array]) -> tuple[Variables, optax.OptState, Array]:
            variables, opt_state, step = before
            change, opt_state = self._change(gradient, opt_state, params, losses[MODEL])
            after = jax.tree.map(_of_dtype, merged(variables, updates), variables)
            return after | {"params": optax.apply_updates(params, change)}, opt_state, step + 1

        def by_cond(before: tuple[Variables, optax.OptState, Array]) -> tuple[Variables, optax.OptState, Array]:
            return jax.lax.cond(finite, take, lambda before: before, before)

        def by_select(before: tuple[Variables, optax.OptState, Array]) -> tuple[Variables, optax.OptState, Array]:
            return select(finite, take(before), before)

        # On a CPU, `select` would cost a tenth of the step. Elsewhere, `cond` would wait for the host to read `finite`.
        before = (state.variables, state.opt_state, state.step)
        variables, opt_state, taken = jax.lax.platform_dependent(before, cpu=by_cond, default=by_select)
        state = dataclasses.replace(state, variables=variables, opt_state=opt_state, step=taken)
        return state, {"loss": losses[MODEL], **parts, **terms, "finite": finite}

    def _change(
        self, gradient: PyTree, opt_state: optax.OptState, params: PyTree, loss: Array
    ) -> tuple[PyTree, optax.OptState]:
        """The change of the parameters by the optimizer, which is given the loss as `value`, and its state."""
        try:
            return optax.with_extra_args_support(self.optimizer).update(gradient, opt_state, params, value=loss)
        except TypeError as error:
            if "value_fn" not in str(error):
                raise
            raise InputError(
                "the optimizer calls the loss as a function (value_fn), as a line search does; expected one that needs "
                "the gradient and the loss alone, such as optax.adam(1e-3)"
            ) from error

    def _require_own(self, opt_state: PyTree, params: PyTree) -> None:
        """Raise `InputError` unless the state of the optimizer is one of this optimizer and these parameters."""
        expected = jax.eval_shape(self.optimizer.init, params)
        if _shapes(opt_state) != _shapes(expected):
            raise InputError(
                "the state is that of another optimizer; expected a state of vj.init(key, model, optimizer) with the "
                "optimizer of the step"
            )


def _of_dtype(new: Array, old: Array) -> Array:
    """`new` in the dtype of `old`, such as float32 statistics of a float64 batch."""
    return new if new.dtype == old.dtype else new.astype(old.dtype)


def _shapes(tree: PyTree) -> tuple[Any, list[tuple[int, ...]]]:
    """The structure of a tree and the shapes of its leaves."""
    return jax.tree.structure(tree), [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]


MODEL = "model"
"""The part of a loss with the parameters that belong to no other part."""


def _with_finite_padding(batch: Batch, axis_name: str | None) -> Batch:
    """The batch with its first example in place of padding, the loss of which may not be finite: 0 * NaN is NaN.

    On a device that has padding only, it is the first example of another device.
    """
    if batch.mask is None:
        return batch
    is_example = batch.mask > 0

    def at(leaves: PyTree, row: Array) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[row], leaves)

    first = at(batch, jnp.argmax(is_example))
    if axis_name is not None:
        has_example, of_devices = jax.lax.all_gather((is_example.any(), first), axis_name)
        first = at(of_devices, jnp.argmax(has_example))

    def filled(leaf: Array, instead: Array) -> Array:
        return jnp.where(jnp.expand_dims(is_example, tuple(range(1, leaf.ndim))), leaf, instead[None])

    return dataclasses.replace(jax.tree.map(filled, batch, first), mask=batch.mask)


def _require_of_size(batch: Batch, size: int) -> None:
    """Raise `InputError` unless there are one weight, target, label and so on for each example."""
    if batch.mask is not None and jnp.shape(batch.mask) != (size,):
        raise InputError(f"the mask has shape {jnp.shape(batch.mask)}; expected [{size}]: a weight for each example")
    require_targets(batch)
    for name in ("label", "condition", "observed"):
        for leaf in jax.tree.leaves(getattr(batch, name)):
            if jnp.shape(leaf)[:1] != (size,):
                raise InputError(f"the batch has {size} examples, but its {name} has shape {jnp.shape(leaf)}")


def _require_terms(terms: Mapping[str, Any], size: int) -> None:
    """Raise `InputError` if a term is neither one number per example nor a single one."""
    for name, values in terms.items():
        if jnp.shape(values) not in ((size,), ()):
            raise InputError(
                f"the objective's term {name} has shape {jnp.shape(values)}; expected one number an example, [{size}], "
                "of which the step takes the mean"
            )


def _by_part(loss: Any, size: int) -> dict[str, Array]:
    """The losses per example by part, checked."""
    if not isinstance(loss, Loss):
        raise InputError(f"the objective returned {named(loss)}; expected a vj.Loss(per_example, terms, updates)")
    losses = loss.per_example if isinstance(loss.per_example, dict) else {MODEL: loss.per_example}
    if MODEL not in losses:
        raise InputError(f"the objective's losses are of {', '.join(losses)}; expected one named {MODEL!r} among them")
    for part, values in losses.items():
        if jnp.shape(values) != (size,):
            raise InputError(
                f"the objective's loss of {part} has shape {jnp.shape(values)}; expected one number an example, "
                f"[{size}], of which the step takes the mean"
            )
    return losses


def _gradients(loss_fn: Callable[[PyTree], Any], params: PyTree) -> tuple[dict[str, Array], PyTree, Any]:
    """The losses by part, the gradient, and the auxiliary output of the function.

    A part has the parameters whose outermost name is its name; all others belong to `MODEL`. All gradients come from
    one forward pass.
    """
    losses, pullback, others = jax.vjp(loss_fn, params, has_aux=True)

    def gradient_of(part: str) -> PyTree:
        return pullback({name: jnp.full_like(value, name == part) for name, value in losses.items()})[0]

    gradients = {part: gradient_of(part) for part in losses}
    of_parts = {name: gradients[name if name in losses else MODEL][name] for name in params}
    return losses, of_parts, others


def make_train_step(
    model: Any,
    objective: Any,
    optimizer: Any,
    axis_name: str | None = None,
) -> TrainStep:
    """A pure function `(state, batch) -> (state, metrics)` for jit, vmap over members, or pmap.

    The loss is the mean of the objective over the batch, weighted by `batch.mask`. The metrics are "loss", the means of
    the objective's terms, and "finite": whether loss and gradient are finite. If they are not, the state is returned
    unchanged. `step.description` describes model, objective and optimizer.

    An objective with several parts returns a loss for each part by name, such as {"model": ..., "discriminator": ...}.
    A part has the parameters `variables["params"][name]`; "model" has all others. Each loss is differentiated with
    respect to the parameters of its part only, all from one forward pass. The metrics "loss_<part>" are the means of
    these losses. With several parts, "loss" is the loss of "model". `optax.partition` gives each part its optimizer.

    A step written by hand has the same signature. It returns metrics with the scalars "loss" and "finite", draws the
    noise of step s from `stream(state.key, NOISE, s)`, and adds 1 to `state.step` unless the loss is not finite.

    Args:
      model: Model as the objective takes it.
      objective: Objective that is minimised.
      optimizer: Optimizer of optax.
      axis_name: Name of the axis over which the batch is distributed under pmap. The step is then that of the whole
        batch, noise included; only the dropout of the pseudo-inputs of a `VampPrior` is drawn for each device.

    Raises:
      InputError: An argument is of another kind, such as `optax.adam` without its arguments. When the step is traced:
        the state is no `TrainState`, the batch is no `Batch`, or its mask or targets have another size. The objective
        returns no `Loss`, a loss or a term that is not one number an example, or a term with a name that a record has
        already.
    """
    require_model(model, MAKE_TRAIN_STEP)
    require_objective(objective)
    require_optimizer(optimizer, MAKE_TRAIN_STEP)
    return TrainStep(model, objective, optimizer, axis_name)


def member(tree: PyTree, number: Int[Array, ""] | int) -> PyTree:
    """One member of a tree whose leaves have a leading axis of members.

    Args:
      tree: State of several members, or any other tree with this axis, such as their variables.
      number: Number of the member, from 0.

    Raises:
      InputError: The tree is of a single model, or has no such member.
    """
    if isinstance(tree, TrainState) and jnp.ndim(tree.step) == 0:
        raise InputError("the state is of a single model; expected that of several members, from vj.init_members")
    sizes = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)}
    if len(sizes) > 1 or () in sizes:
        found = ", ".join(str(size[0]) if size else "none" for size in sorted(sizes))
        raise InputError(f"the leading axes have different sizes ({found}); expected a tree of several members")
    count = next(iter(sizes))[0] if sizes else None
    if count is not None and not is_traced(number) and not 0 <= int(number) < count:
        raise InputError(f"member {number} does not exist; expected 0 to {count - 1}")
    return _member(tree, number)


@jax.jit
def _member(tree: PyTree, number: Int[Array, ""] | int) -> PyTree:
    """`member` without its checks, as one program."""

    def own(leaf: Array) -> Array:
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf[number]
        # By the key data, because indexing an array of keys counts as their use.
        return jax.random.wrap_key_data(jax.random.key_data(leaf)[number], impl=jax.random.key_impl(leaf))

    return jax.tree.map(own, tree)


def stream(run_key: Key[Array, ""], stream: int, number: Int[Array, ""] | int) -> Key[Array, ""]:
    """The key of a step, or of an epoch, in one of the random streams of a run."""
    return jax.random.fold_in(jax.random.fold_in(run_key, stream), number)


def select(condition: Bool[Array, ""], tree: PyTree, other: PyTree) -> PyTree:
    """`tree` if the condition holds, else `other`; both are computed.

    With `jax.lax.cond`, an accelerator would wait until the host has read the condition.
    """

    def chosen(leaf: Array, other: Array) -> Array:
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.lax.select(condition, leaf, other)
        # By the key data, because selecting a key counts as its use.
        data = jax.lax.select(condition, jax.random.key_data(leaf), jax.random.key_data(other))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))

    return jax.tree.map(chosen, tree, other)


def _sum(tree: PyTree, axis_name: str | None) -> PyTree:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)
