"""Training: a pure step, many steps compiled into one chunk, and `fit`, which runs chunks and shows how they go.

Where a run stands is `TrainState.step` alone. The order of the data in an epoch and the noise of a step follow from the
state's key and that number, so a run can be stopped between any two chunks and gone on with to the same bits.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, Key, PyTree, UInt8

from vae_jax.checkpoint import Checkpoints, NoCheckpoints
from vae_jax.data import Split
from vae_jax.distributions import example_keys
from vae_jax.errors import InputError, NotFiniteError, require_positive, require_positive_int
from vae_jax.model import Variables
from vae_jax.objectives import Objective
from vae_jax.observation import Batch, Observe, Scale
from vae_jax.progress import Progress

_CHUNK_SECONDS = 2.0  # how often the host hears from the device
_NOISE, _ORDER, _OBSERVATION = range(3)  # what the run's key is folded with, one stream each

_RECORD_NAMES = {"epoch", "seconds", "steps", "loss", "finite"}

Metrics = dict[str, Array]
Record = dict[str, Any]
"""Numbers by name; of several members, lists of them."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything that training changes, of one run or, with a leading axis throughout, of several members.

    Attributes:
      variables: the model's; "params" is what the optimizer changes.
      opt_state: the optimizer's.
      step: steps taken.
      key: of the run; it never changes.
    """

    variables: Variables
    opt_state: optax.OptState
    step: Int[Array, "*members"]
    key: Key[Array, "*members"]


@runtime_checkable
class Model(Protocol):
    """What can be trained: anything that makes its own variables."""

    def init(self, key: Key[Array, ""]) -> Variables:
        """Fresh variables."""


Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def init(key: Key[Array, ""], model: Model, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    variables_key, run_key = jax.random.split(key)
    variables = model.init(variables_key)
    return TrainState(variables, optimizer.init(variables["params"]), jnp.zeros((), jnp.int32), run_key)


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


def make_train_step(
    model: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    axis_name: str | None = None,
) -> Step:
    """A pure function `(state, batch) -> (state, metrics)`, for jit, vmap over members, or pmap.

    The loss is the mean of the objective over the batch, each example weighted by `batch.mask`. Metrics are that
    "loss", the means of the objective's terms, and "finite": whether loss and gradient were. If not, the state is
    returned as it came.

    Args:
      model: as the objective takes it.
      objective: what to minimise.
      optimizer: from optax.
      axis_name: under pmap, the axis over which the batch is spread. The step is then that of the whole batch, its
        noise included.

    Raises:
      InputError: when traced, if a term of the objective has a name that a record needs itself.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        params = state.variables["params"]
        size = len(batch.x)
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
        keys = example_keys(_stream(state.key, _NOISE, state.step), size, first)
        mask = jnp.ones(size) if batch.mask is None else batch.mask
        weight = _sum(mask.sum(), axis_name)

        def mean(values: Array) -> Array:  # over the examples here, divided by their number everywhere
            return jnp.sum(values * mask) / weight

        def loss_fn(params: PyTree) -> tuple[Array, tuple[dict[str, Array], Variables]]:
            loss = objective(keys, model, state.variables | {"params": params}, batch, state.step)
            return mean(loss.per_example), (jax.tree.map(mean, loss.terms), loss.updates)

        (loss, (terms, updates)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(params)
        loss, terms, gradient = _sum((loss, terms, gradient), axis_name)
        if taken_names := _RECORD_NAMES & terms.keys():
            raise InputError(f"the objective has a term named {' and '.join(taken_names)}; choose another name")
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(gradient))

        def take(before: tuple[Variables, optax.OptState, Array]) -> tuple[Variables, optax.OptState, Array]:
            variables, opt_state, step = before
            change, opt_state = optimizer.update(gradient, opt_state, params)
            return variables | updates | {"params": optax.apply_updates(params, change)}, opt_state, step + 1

        # A branch, for on a CPU a select between old and new costs a tenth of the step.
        before = (state.variables, state.opt_state, state.step)
        variables, opt_state, taken = jax.lax.cond(finite, take, lambda before: before, before)
        state = TrainState(variables, opt_state, taken, state.key)
        return state, {"loss": loss, **terms, "finite": finite}

    return step


def _stream(run_key: Key[Array, ""], stream: int, number: Int[Array, ""]) -> Key[Array, ""]:
    """The key of a step, or of an epoch, in one of the run's streams of chance."""
    return jax.random.fold_in(jax.random.fold_in(run_key, stream), number)


def _shared_stream(run_keys: Key[Array, "*members"], stream: int, number: Int[Array, ""]) -> Key[Array, ""]:
    """As `_stream`, of the first member if there are several."""
    return jax.vmap(lambda run_key: _stream(run_key, stream, number))(run_keys.reshape(-1))[0]


def _first_member(leaf: Array) -> Array:
    return leaf.reshape(-1)[0]


def _sum(tree: PyTree, axis_name: str | None) -> PyTree:
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


@partial(jax.jit, static_argnames=("step", "observe", "batch_size"), donate_argnames="state")
def run_chunk(
    state: TrainState,
    images: UInt8[Array, "n height width channels"],
    labels: Int[Array, " n"] | None,
    count: Int[Array, ""] | int,
    *,
    step: Step,
    observe: Observe,
    batch_size: int,
) -> tuple[TrainState, Metrics]:
    """Take `count` steps within one epoch, fewer if one is not finite; `state` is donated.

    An epoch is a permutation of the images cut into batches, its remainder left out. Members, if the state has several,
    share the batches, in the order of the first member's key. `count` is no constant of the program, so one compilation
    serves a whole run; a count of 0 compiles it.

    Returns:
      The state, and the metrics summed over the steps.
    """
    steps_per_epoch = len(images) // batch_size
    order_key = _shared_stream(state.key, _ORDER, _first_member(state.step) // steps_per_epoch)
    order = jax.random.permutation(order_key, len(images))

    def one(state: TrainState) -> tuple[TrainState, Metrics]:
        taken = _first_member(state.step)
        rows = jax.lax.dynamic_slice(order, (taken % steps_per_epoch * batch_size,), (batch_size,))
        keys = example_keys(_shared_stream(state.key, _OBSERVATION, taken), batch_size)
        batch = observe(keys, images[rows], None if labels is None else labels[rows])
        return step(state, batch)

    def goes_on(carry: tuple[Array, TrainState, Metrics]) -> Array:
        taken, _, totals = carry
        return (taken < count) & jnp.all(totals["finite"] == taken)

    def body(carry: tuple[Array, TrainState, Metrics]) -> tuple[Array, TrainState, Metrics]:
        taken, state, totals = carry
        state, metrics = one(state)
        return taken + 1, state, jax.tree.map(jnp.add, totals, metrics)

    shapes = jax.eval_shape(lambda state: one(state)[1], state)
    zeros = jax.tree.map(lambda metric: jnp.zeros(metric.shape, jnp.result_type(metric, 0)), shapes)
    _, state, totals = jax.lax.while_loop(goes_on, body, (jnp.zeros((), jnp.int32), state, zeros))
    return state, totals


def fit(
    state: TrainState,
    step: Step,
    data: Split,
    *,
    observe: Observe = Scale(),
    epochs: int,
    batch_size: int = 128,
    measure: Callable[[TrainState], Record] | None = None,
    store: Checkpoints | NoCheckpoints = NoCheckpoints(),
    progress: bool = True,
    title: str = "training",
) -> tuple[TrainState, list[Record]]:
    """Train until `epochs` epochs are done, those included that `state`, or the run's own checkpoint, has behind it.

    Args:
      state: where to start; it stays usable.
      step: from `make_train_step`.
      data: lives on the device as bytes.
      observe: what the model sees of them.
      epochs: passes over the data in all.
      batch_size: images a step; an epoch leaves out the remainder.
      measure: called with the state after each epoch; its numbers join the epoch's record.
      store: where checkpoints go after each epoch; if it has one of this run, that takes the place of `state`.
      progress: whether to show a bar with the loss and the time left.
      title: what stands before the bar.

    Returns:
      The state, and one record an epoch: "epoch", "seconds" of training (neither compiling nor measuring), the mean of
      each metric, and what was measured.

    Raises:
      InputError: no epochs, no batch, or a batch larger than the data.
      NotFiniteError: a loss or a gradient was not finite; the message tells the step, its `state` is the last good one.
    """
    require_positive_int(epochs=epochs, batch_size=batch_size)
    if batch_size > len(data):
        raise InputError(f"batch_size is {batch_size} but there are only {len(data)} training images")
    steps_per_epoch = len(data) // batch_size
    total = epochs * steps_per_epoch
    images = jnp.asarray(data.images)
    labels = None if data.labels is None else jnp.asarray(data.labels)
    state, notes = store.restore(jax.tree.map(jnp.copy, state))  # a copy, for the first chunk donates it
    records: list[Record] = notes.get("history", [])
    done, count = int(_first_member(state.step)), 1  # the first chunk tells how fast a step is
    chunks: list[dict[str, Any]] = []  # of the epoch under way
    run = partial(run_chunk, step=step, observe=observe, batch_size=batch_size)
    state, _ = run(state, images, labels, 0)  # compiles, so that no second of it counts as training
    with Progress(title, total, done, progress) as bar:
        while done < total:
            count = min(count, steps_per_epoch - done % steps_per_epoch)
            start = time.perf_counter()
            state, metrics = run(state, images, labels, count)
            metrics = jax.device_get(metrics)
            seconds = time.perf_counter() - start
            _require_finite(metrics, count, state)
            done += count
            chunks.append(metrics | {"steps": count, "seconds": seconds})
            bar.advance(count, float(np.mean(metrics["loss"])) / count)
            count = max(1, int(_CHUNK_SECONDS * count / seconds))
            if done % steps_per_epoch == 0:
                records.append(_record(done // steps_per_epoch, chunks) | (measure(state) if measure else {}))
                chunks.clear()
                store.save(done, state, {"history": records}, record=records[-1])
    store.save(done, state, {"history": records}, last=True)
    return state, records


def _record(epoch: int, chunks: list[dict[str, Any]]) -> Record:
    """Sums over chunks -> means over their steps."""
    sums = {name: sum(chunk[name] for chunk in chunks) for name in chunks[0]}
    steps, seconds = sums.pop("steps"), sums.pop("seconds")
    del sums["finite"]
    return {"epoch": epoch, "seconds": seconds} | {name: (total / steps).tolist() for name, total in sums.items()}


def _require_finite(metrics: dict[str, np.ndarray], count: int, state: TrainState) -> None:
    if np.all(metrics["finite"] == count):
        return
    terms = [name for name, total in metrics.items() if not np.all(np.isfinite(total))] or ["gradient"]
    raise NotFiniteError(
        f"step {int(jnp.min(state.step)) + 1} met a {' and a '.join(terms)} that is not finite. Training stopped "
        "before it; try a smaller learning rate, a warm-up, or gradient clipping (optax.clip_by_global_norm)",
        state,
    )
