"""Training: many steps compiled into one chunk, and `fit`, which runs chunks and shows how they go.

Where a run stands is `TrainState.step` alone. The order of the data in an epoch and the noise of a step follow from the
state's key and that number, so a run can be stopped between any two chunks and resumed to the same bits.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from signal import SIGTERM
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key, PyTree

from vae_jax.checkpoints.description import describe
from vae_jax.checkpoints.store import Checkpoints, NoCheckpoints
from vae_jax.data import Split
from vae_jax.data.transforms import Examples, Transform, as_split, as_transform
from vae_jax.distributions import example_keys
from vae_jax.errors import InputError, NotFiniteError, StoppedError, renamed, require_not_negative, require_positive_int
from vae_jax.progress import Progress
from vae_jax.training.feeding import Feed, ResidentFeeder, StreamingFeeder, Window
from vae_jax.training.sharding import ONE_DEVICE, Layout, device_memory, from_first_process, is_first_process, least
from vae_jax.training.step import OBSERVATION, ChecksData, Metrics, Step, TrainState, describe_step, member, stream
from vae_jax.training.stopping import StopSignals

_CHUNK_SECONDS = 2.0  # target duration of a chunk
_CHUNK_SECONDS_OF_MEMBERS = 8.0  # with several members: on a CPU each chunk copies their states, a tenth of 2 s

Record = dict[str, Any]
"""Numbers by name; of several members, lists of them."""

EvalFn = Callable[[TrainState], Record]
"""What is measured of a state after an epoch."""


@partial(jax.jit, static_argnames=("step", "transform", "batch_size", "layout"), donate_argnames="state")
def run_chunk(
    state: TrainState,
    feed: Feed,
    count: Int[Array, ""] | int,
    *,
    step: Step,
    transform: Transform,
    batch_size: int,
    layout: Layout = ONE_DEVICE,
) -> tuple[TrainState, Metrics]:
    """Take `count` steps within one epoch, fewer if one is not finite; `state` is donated.

    An epoch is a permutation of the images cut into batches, its remainder left out. Members, if the state has several,
    each take the steps that they would take alone. `count` is no constant of the program, so one compilation serves a
    whole run; a count of 0 compiles it.

    Returns:
      The state, and the metrics summed over the steps.
    """
    chunk = partial(_chunk, step=step, transform=transform, batch_size=batch_size)
    if state.step.ndim == 0:
        return chunk(state, feed, count, layout=layout)
    if isinstance(feed, Window):  # each member has its own
        return layout.over_members(lambda own, count: chunk(own[0], own[1], count), (state, feed), count)
    return layout.over_members(lambda state, shared: chunk(state, shared[0], shared[1]), state, (feed, count))


def _chunk(
    state: TrainState,
    feed: Feed,
    count: Int[Array, ""] | int,
    *,
    step: Step,
    transform: Transform,
    batch_size: int,
    layout: Layout = ONE_DEVICE,
) -> tuple[TrainState, Metrics]:
    batches = feed.batches(state.key, state.step, batch_size, layout)

    def one(state: TrainState) -> tuple[TrainState, Metrics]:
        keys = example_keys(stream(state.key, OBSERVATION, state.step), batch_size)
        state, metrics = step(state, transform(keys, *batches(state.step)))
        return layout.constrain(state), metrics

    def goes_on(carry: tuple[Array, TrainState, Metrics]) -> Array:
        taken, _, totals = carry
        return (taken < count) & (totals["finite"] == taken)

    def body(carry: tuple[Array, TrainState, Metrics]) -> tuple[Array, TrainState, Metrics]:
        taken, state, totals = carry
        state, metrics = one(state)
        return taken + 1, state, jax.tree.map(jnp.add, totals, metrics)

    shapes = jax.eval_shape(lambda state: one(state)[1], state)
    zeros = jax.tree.map(lambda metric: jnp.zeros(metric.shape, jnp.result_type(metric, 0)), shapes)
    _, state, totals = jax.lax.while_loop(goes_on, body, (jnp.zeros((), jnp.int32), state, zeros))
    # Once more, for the compiler may have spread what is carried; the next chunk takes it as this one did.
    return layout.constrain(state), totals


@renamed(observe="transform", measure="eval_fn")
def fit(
    state: TrainState,
    step: Step,
    data: Examples,
    *,
    transform: Any = None,
    epochs: int,
    batch_size: int = 128,
    eval_fn: EvalFn | Sequence[EvalFn] | None = None,
    store: Checkpoints | NoCheckpoints = NoCheckpoints(),
    mesh: Mesh | None = None,
    shard_optimizer: bool = False,
    stream_above: int | None = None,
    progress: bool = True,
    title: str = "training",
) -> tuple[TrainState, list[Record]]:
    """Train until `epochs` epochs are done, counted from the first epoch of the run.

    The epochs that `state` or the checkpoint of this run has already done are included. If the state is that of several
    members (see `vae_jax.training.ensemble`), each member is trained as it would be alone.

    Args:
      state: Initial state. It is copied, so it can be used afterwards.
      step: Step from `make_train_step`, of one member.
      data: Split, or array of examples [n, ...]. It is stored on the devices, or streamed to them.
      transform: Transform from stored examples to batches. The default is `Scale()` for bytes; other numbers are used
        as they are.
      epochs: Number of passes over the data, in total.
      batch_size: Number of examples in a step, over all devices. An epoch leaves out the remainder.
      eval_fn: Function from a copy of the state to a dict of numbers, called after each epoch. The numbers are added to
        the record of the epoch. With several members it is called for each of them, and may be one function for each.
      store: Checkpoints. If they hold a checkpoint of this run, training resumes from it instead of `state`. A
        checkpoint of another run is refused (see `Checkpoints`); the comparison reads all examples once. A write that
        fails gives a warning; if the last one fails, the store's `failure` says why.
      mesh: Devices that share each batch, or the members. None is one device.
      shard_optimizer: Whether each device keeps only a part of the optimizer's state.
      stream_above: Size of the examples, in bytes, above which they stay on the host and stream to the devices in
        windows. The default is half of a device's memory, or of all devices if they share the examples.
      progress: Whether to show a progress bar with the loss and the time left.
      title: Title of the progress bar.

    Returns:
      The final state, on one device, and one record for each epoch: "epoch", "seconds" of training (without compilation
      and evaluation), the mean of each metric, and the numbers of `eval_fn`. With several members, every entry but the
      first two is a list.

    Raises:
      InputError: No epochs, no batch, a batch larger than the data, data that the model doesn't take, a batch that the
        devices can't share, a store with checkpoints of another run or in use by another run, or a store with a step
        that has no description.
      NotFiniteError: A loss or a gradient is not finite. The message names the step; `state` is the last good state.
      StoppedError: Ctrl-C or SIGTERM. The current steps were finished, and the state was saved in the store.
    """
    require_positive_int(epochs=epochs, batch_size=batch_size)
    require_not_negative(stream_above=stream_above or 0)
    data = as_split(data)
    transform = as_transform(transform, data)
    if batch_size > len(data):
        raise InputError(f"batch_size is {batch_size} but there are only {len(data)} training images")
    layout = Layout(mesh, shard_optimizer)
    layout.require_divisible(**{"members": state.step.size} if state.step.ndim else {"batch_size": batch_size})
    steps_per_epoch = len(data) // batch_size
    total = epochs * steps_per_epoch
    settings = member(state.settings, 0) if state.step.ndim else state.settings
    if isinstance(step, ChecksData):
        step.require_data(data, transform, settings)
    state = jax.tree.map(jnp.asarray, state)  # settings may be plain numbers
    with closing(store):
        # Within the call, so that the state that is replaced can be freed.
        state, notes = _restored(store, state, partial(_described, state, step, settings, data, transform, batch_size))
        records, chunks = notes.get("history", []), notes.get("chunks", [])  # chunks of the current epoch
        feeder = _feeder(data, batch_size, layout, state.key, stream_above)
        state = layout.place(state)  # a copy, for the first chunk donates it
        done, count = int(state.step.reshape(-1)[0]), 1  # the first chunk tells how fast a step is
        chunk_seconds = _CHUNK_SECONDS_OF_MEMBERS if state.step.ndim else _CHUNK_SECONDS
        run = partial(run_chunk, step=step, transform=transform, batch_size=batch_size, layout=layout)
        state, _ = run(state, feeder.at(done)[0], 0)  # compiles, so that no second of it counts as training

        def keep(**settings: Any) -> None:
            local = layout.fetch(state)  # by all processes together
            if is_first_process():
                store.save(done, replace(local, frozen={}), {"history": records, "chunks": chunks}, **settings)

        with Progress(title, total, done, progress and is_first_process()) as bar, StopSignals() as stop:
            while done < total:
                feed, end = feeder.at(done)
                count = min(count, end - done)
                start = time.perf_counter()
                state, metrics = run(state, feed, count)
                del feed  # a window that may lie behind
                metrics = jax.device_get(layout.fetch(metrics))
                seconds = time.perf_counter() - start
                if not np.all(metrics["finite"] == count):
                    if state.step.ndim == 0:
                        done = int(layout.fetch(state.step))
                        keep(last=True)
                    raise _not_finite(metrics, count, layout.fetch(state))
                done += count
                chunks.append(
                    {name: value.tolist() for name, value in metrics.items()} | {"steps": count, "seconds": seconds}
                )
                bar.advance(count, float(np.mean(metrics["loss"])) / count)
                # What the clock or a signal decides, all processes decide alike.
                fitting, unheard, young = least(
                    chunk_seconds * count / seconds, float(stop.heard is None), float(not store.due)
                )
                count = max(1, int(fitting))
                if done % steps_per_epoch == 0:
                    records.append(_record(done // steps_per_epoch, chunks) | _measured(eval_fn, layout.fetch(state)))
                    chunks.clear()
                    keep(record=records[-1], wait=False)
                elif not young:
                    keep(wait=False)
                if not unheard and done < total:
                    keep(last=True)
                    raise StoppedError(
                        stop.heard or SIGTERM, done, total, layout.fetch(state), store.where, store.failure
                    )
            keep(last=True)
    return layout.fetch(state), records


def _described(
    state: TrainState, step: Step, settings: PyTree, data: Split, transform: Transform, batch_size: int
) -> dict[str, Any]:
    """What a run is, for a store to refuse the checkpoints of another one; `settings` are those of one member."""
    return {
        "data": data.digest,
        "batch_size": batch_size,
        "steps_per_epoch": len(data) // batch_size,
        "transform": describe(transform),
        "members": state.step.size if state.step.ndim else None,
        "key": describe(state.key),
        "settings": describe(state.settings),
        "frozen": _digest(state.frozen),
        "step": describe_step(step, settings),
    }


def _digest(tree: PyTree) -> str:
    """SHA-256 of arrays, with their names."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def _restored(
    store: Checkpoints | NoCheckpoints, state: TrainState, described: Callable[[], dict[str, Any]]
) -> tuple[TrainState, dict[str, Any]]:
    """What the first process finds in its store, which it opens, of the run that is so described, in every process."""
    found: dict[str, Any] = {"notes": {}, "error": None}
    if is_first_process():
        try:
            store.open()
            # Without a store, nothing is described: the digest of the data takes a while.
            trained, found["notes"] = store.restore(replace(state, frozen={}), described() if store.where else None)
            state = replace(trained, frozen=state.frozen)
        except InputError as error:
            found["error"] = str(error)
    state, text = from_first_process(state, json.dumps(found))
    found = json.loads(text)
    if found["error"] is not None:
        raise InputError(found["error"])
    return state, found["notes"]


def _feeder(
    data: Split, batch_size: int, layout: Layout, keys: Key[Array, "*members"], stream_above: int | None
) -> ResidentFeeder | StreamingFeeder:
    sharers = layout.devices if keys.ndim == 0 else 1
    threshold = device_memory() // 2 if stream_above is None else stream_above
    if data.images.nbytes > threshold * sharers:
        return StreamingFeeder(data, batch_size, layout, keys)
    return ResidentFeeder(data, batch_size, layout, members=keys.ndim > 0)


def _measured(eval_fn: EvalFn | Sequence[EvalFn] | None, state: TrainState) -> Record:
    """What is measured of the state, or lists of what is measured of each member."""
    if eval_fn is None:
        return {}
    if state.step.ndim == 0:
        assert callable(eval_fn)
        return eval_fn(jax.tree.map(jnp.copy, state))  # which may be kept, while the next chunk donates the original
    eval_fns = [eval_fn] * state.step.size if callable(eval_fn) else eval_fn
    of_members = [own(member(state, number)) for number, own in enumerate(eval_fns)]
    return {name: [record[name] for record in of_members] for name in of_members[0]}


def _record(epoch: int, chunks: list[dict[str, Any]]) -> Record:
    """Sums over chunks -> means over their steps."""
    sums = {name: np.sum([chunk[name] for chunk in chunks], axis=0) for name in chunks[0]}
    steps, seconds = sums.pop("steps"), sums.pop("seconds")
    del sums["finite"]
    return {"epoch": epoch, "seconds": float(seconds)} | {
        name: (total / steps).tolist() for name, total in sums.items()
    }


def _not_finite(metrics: dict[str, np.ndarray], count: int, state: TrainState) -> NotFiniteError:
    """What to say of a chunk that has ended early, of a run or of some members."""
    broken = np.flatnonzero(metrics["finite"] != count)
    totals = {name: np.atleast_1d(total)[broken] for name, total in metrics.items()}
    terms = [name for name, total in totals.items() if not np.all(np.isfinite(total))] or ["gradient"]
    whose = f" of member{'s' if len(broken) > 1 else ''} {' and '.join(map(str, broken))}" if state.step.ndim else ""
    return NotFiniteError(
        f"step {int(jnp.min(state.step)) + 1}{whose} met a {' and a '.join(terms)} that is not finite. Training "
        "stopped before it; try a smaller learning rate, a warm-up, or gradient clipping (optax.clip_by_global_norm)",
        state,
    )
