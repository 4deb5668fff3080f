"""Training: many steps compiled into one chunk, and `fit`, which runs chunks and reports their metrics.

`TrainState.step` alone says where a run stands. The order of the data in an epoch and the noise of a step follow from
this number and the key of the state. A run can thus be stopped between two chunks and resumed to the same bits.
"""

import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from numbers import Real
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
from vae_jax.data.transforms import Transform, as_split, as_transform
from vae_jax.distributions import example_keys
from vae_jax.errors import (
    InputError,
    NotFiniteError,
    StoppedError,
    named,
    renamed,
    require_bool,
    require_not_negative,
    require_positive_int,
)
from vae_jax.progress import Progress
from vae_jax.training.callbacks import Callbacks, Record
from vae_jax.training.feeding import Feed, ResidentFeeder, StreamingFeeder, Window
from vae_jax.training.sharding import (
    ONE_DEVICE,
    Layout,
    copied,
    device_memory,
    from_first_process,
    is_first_process,
    least,
)
from vae_jax.training.step import (
    OBSERVATION,
    ChecksRun,
    Metrics,
    Step,
    TrainState,
    describe_step,
    member,
    select,
    stream,
)
from vae_jax.training.stopping import StopSignals

_CHUNK_SECONDS = 2.0  # of a chunk on a CPU, about; between two chunks the host reads metrics and signals
_CHUNK_STEPS = 256  # of a chunk on an accelerator, at most
_CHUNK_SECONDS_OF_MEMBERS = 8.0  # longer: on a CPU each chunk copies the states of the members, which takes about 0.2 s

_Carry = tuple[Array, TrainState, Metrics, Metrics]  # number of steps tried, state, sums of metrics, the last metrics

EvalFn = Callable[[TrainState], Record]
"""Function that evaluates a state after an epoch: it returns numbers by name."""


@partial(jax.jit, static_argnames=("step", "transform", "batch_size", "layout", "length"), donate_argnames="state")
def run_chunk(
    state: TrainState,
    feed: Feed,
    count: Int[Array, ""] | int,
    *,
    step: Step,
    transform: Transform,
    batch_size: int,
    layout: Layout = ONE_DEVICE,
    length: int | None = None,
) -> tuple[TrainState, Metrics, Metrics]:
    """Take `count` steps within one epoch, fewer if one is not finite; `state` is donated.

    An epoch is a permutation of the examples, cut into batches without the remainder. Each of several members takes the
    steps that it would take alone. `count` is an argument of the program, so one compilation serves the whole run; a
    count of 0 compiles it.

    The loop ends after `count` steps. An accelerator would wait before each of them until the host has read whether the
    loop goes on. With `length`, the loop has this number of steps, of which those after the last leave the state
    unchanged.

    Args:
      state: State of a run, or of several members.
      feed: Examples.
      count: Number of steps, at most `length`.
      step: Step of one member.
      transform: Transform that turns stored examples into a batch.
      batch_size: Number of examples per step.
      layout: Devices.
      length: Number of steps of the loop, or None.

    Returns:
      The state, the metrics summed over the steps that were taken, and those of the last step, which may not be finite.
    """
    chunk = partial(_chunk, step=step, transform=transform, batch_size=batch_size, length=length)
    if state.step.ndim == 0:
        return chunk(state, feed, count, layout=layout)
    if isinstance(feed, Window):  # one for each member
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
    length: int | None,
    layout: Layout = ONE_DEVICE,
) -> tuple[TrainState, Metrics, Metrics]:
    batches = feed.batches(state.key, state.step, batch_size, layout)

    @partial(jax.jit, inline=True)  # traced once, for the shapes of the metrics and for the loop
    def one(state: TrainState) -> tuple[TrainState, Metrics]:
        keys = example_keys(stream(state.key, OBSERVATION, state.step), batch_size)
        state, metrics = step(state, transform(keys, *batches(state.step)))
        return layout.constrain(state), metrics

    def goes_on(carry: _Carry) -> Array:
        taken, _, totals, _ = carry
        return (taken < count) & (totals["finite"] == taken)

    def body(carry: _Carry) -> _Carry:
        taken, state, totals, _ = carry
        state, metrics = one(state)
        last = jax.tree.map(lambda zero, metric: jnp.asarray(metric, zero.dtype), zeros, metrics)
        sums = jax.tree.map(jnp.add, totals, last)
        return taken + 1, state, select(last["finite"] > 0, sums, totals), last

    def masked(_: Array, carry: _Carry) -> _Carry:
        return select(goes_on(carry), body(carry), carry)

    shapes = jax.eval_shape(lambda state: one(state)[1], state)
    zeros = jax.tree.map(lambda metric: jnp.zeros(metric.shape, jnp.result_type(metric, 0)), shapes)
    start = jnp.zeros((), jnp.int32), state, zeros, zeros
    if length is None:
        _, state, totals, last = jax.lax.while_loop(goes_on, body, start)
    else:
        _, state, totals, last = jax.lax.fori_loop(0, length, masked, start)
    # Constrained again, because the compiler may have changed the sharding within the loop.
    return layout.constrain(state), totals, last


@renamed(observe="transform", measure="eval_fn")
def fit(
    state: Any,
    step: Any,
    data: Any,
    *,
    transform: Any = None,
    epochs: int,
    batch_size: int = 128,
    eval_fn: Any = None,
    eval_every: int = 1,
    callback: Any = None,
    store: Any = NoCheckpoints(),
    mesh: Any = None,
    shard_optimizer: Any = False,
    stream_above: int | None = None,
    progress: Any = True,
    title: str = "training",
) -> tuple[TrainState, list[Record]]:
    """Train until `epochs` epochs are done, counted from the first epoch of the state or of its checkpoint.

    A state that was trained for two epochs thus needs `epochs=4` for two more. If nothing is left to train, a warning
    says so, unless a store has resumed a run that is complete. A state of several members (see
    `vae_jax.training.ensemble`) trains each of them as it would be trained alone.

    The bound of another split after each epoch, and a run that stops when it no longer decreases:

        def eval_fn(state):
            terms = vj.evaluate(jax.random.key(1), vae, state.variables, data.validation)
            return {"validation_negative_elbo": vj.mean_and_stderr(terms.kl - terms.log_px_z).mean}

        stopping = vj.EarlyStopping("validation_negative_elbo", patience=5)
        state, history = vj.fit(state, step, data.train, epochs=100, eval_fn=eval_fn, callback=stopping)

    Args:
      state: Initial state, from `init`; it remains usable.
      step: Step of one member, from `make_train_step`.
      data: A split, or an array of examples [n, ...]. They are copied to the devices as they are stored, or streamed.
      transform: Transform that turns stored examples into a batch; by default `Scale()` of bytes, and otherwise the
        stored numbers.
      epochs: Total number of passes over the data.
      batch_size: Number of examples per step, over all devices; an epoch leaves out the remainder.
      eval_fn: Function that is called with a copy of the state, or with the state of each member, and returns a dict of
        numbers, which are added to the record of the epoch. Several members may have one function each.
      eval_every: Number of epochs between two calls of `eval_fn`, which is also called after epoch number `epochs`. The
        records of other epochs lack its numbers, and `Checkpoints(best=)` does not consider them.
      callback: Function that is called with a copy of the record after each epoch, or a list of such; only process 0
        calls it. If it returns True, the run stops: state and history are returned, and the store saves the state. The
        same call then resumes from there; only `EarlyStopping` sees the earlier records again (see there).
      store: Store of checkpoints. If it has a checkpoint of this run, training resumes from that instead of `state`;
        checkpoints of another run are refused (see `Checkpoints`). The comparison reads all examples once. A failed
        write gives a warning; if the last one fails, `store.failure` is set.
      mesh: Devices that share each batch, or the members; None is one device.
      shard_optimizer: Whether each device stores only a part of the optimizer's state.
      stream_above: Size of the examples in bytes above which they stay on the host and are streamed to the devices in
        windows; by default half of the memory of a device, or of all devices if these share the examples.
      progress: Whether to show a progress bar with the loss and the time left.
      title: Title of the progress bar.

    Returns:
      The state, on one device, and one record per epoch: "epoch", "seconds" of training (without compilation and
      evaluation), the mean of each metric, and the numbers of `eval_fn`. For several members, each entry is a list,
      except the first two.

    Raises:
      InputError: An argument can't be used. The batch is larger than the data, the model does not take the data, or the
        devices can't share the batch. `eval_fn` returns no numbers, or a name that the record has. The store has
        checkpoints of another run or is in use, or the step has no description.
      NotFiniteError: A loss or a gradient was not finite; the message names the step, `state` is the last good one.
      StoppedError: Ctrl-C or SIGTERM was received; the current steps were finished, and the store was given the state.
    """
    if not isinstance(state, TrainState):
        raise InputError(f"state is {named(state)}; expected a TrainState of vj.init: fit(state, step, data, epochs=)")
    if not callable(step) or isinstance(step, type):
        raise InputError(f"step is {named(step)}; expected that of vj.make_train_step: fit(state, step, data, epochs=)")
    require_positive_int(epochs=epochs, batch_size=batch_size, eval_every=eval_every)
    require_not_negative(stream_above=stream_above or 0)
    require_bool(progress=progress, shard_optimizer=shard_optimizer)
    if not callable(getattr(store, "restore", None)):
        raise InputError(f"store is {named(store)}; expected a store such as vj.Checkpoints(folder, {{}})")
    if mesh is not None and not isinstance(mesh, Mesh):
        raise InputError(f"mesh is {named(mesh)}; expected a mesh such as vj.device_mesh(2)")
    eval_fns = _eval_fns(eval_fn, state)
    callbacks = Callbacks(callback, state.step.size if state.step.ndim else None)
    data = as_split(data)
    transform = as_transform(transform, data)
    if batch_size > len(data):
        raise InputError(f"batch_size is {batch_size} but there are only {len(data)} training images")
    layout = Layout(mesh, shard_optimizer)
    layout.require_divisible(**{"members": state.step.size} if state.step.ndim else {"batch_size": batch_size})
    steps_per_epoch = len(data) // batch_size
    total = epochs * steps_per_epoch
    of_members = [state.settings]
    if state.step.ndim:
        of_members = [member(state.settings, number) for number in range(state.step.size)]
    if isinstance(step, ChecksRun):
        for settings in of_members:
            step.require_run(data, transform, settings, total)
    state = jax.tree.map(jnp.asarray, state)  # settings may be plain numbers
    with closing(store):
        # Described within the call, so that the state that is replaced can be freed.
        state, notes = _restored(
            store, state, partial(_described, state, step, of_members[0], data, transform, batch_size)
        )
        records, chunks = notes.get("history", []), notes.get("chunks", [])  # chunks of the current epoch
        feeder = _feeder(data, batch_size, layout, state.key, stream_above)
        state = layout.place(state)  # a copy, because the first chunk donates it
        platform = _platform(state)
        if store.where:
            _warn_of_bits(platform)
        length = _loop_length(platform, feeder.length)
        done, count = int(state.step.reshape(-1)[0]), length or 1  # the first chunk measures the time of a step
        if not notes:
            _warn_of_steps(done, steps_per_epoch, epochs)
        stopped = callbacks.resume(records)
        chunk_seconds = _CHUNK_SECONDS_OF_MEMBERS if state.step.ndim else _CHUNK_SECONDS
        run = partial(run_chunk, step=step, transform=transform, batch_size=batch_size, layout=layout, length=length)
        if done < total and not stopped:
            state, *_ = run(state, feeder.at(done)[0], 0)  # compiles, which does not count as training

        def keep(**settings: Any) -> None:
            local = layout.fetch(state)  # by all processes together
            if is_first_process():
                store.save(done, replace(local, frozen={}), {"history": records, "chunks": chunks}, **settings)

        with Progress(title, total, done, progress and is_first_process()) as bar, StopSignals() as stop:
            while done < total and not stopped:
                feed, end = feeder.at(done)
                count = min(count, end - done)
                start = time.perf_counter()
                state, *sums = run(state, feed, count)
                del feed  # frees a window that has been used
                metrics, last = jax.device_get(layout.fetch(sums))
                seconds = time.perf_counter() - start
                if not np.all(metrics["finite"] == count):
                    if state.step.ndim == 0:
                        finite = int(metrics["finite"])
                        done += finite
                        if finite:
                            chunks.append(_sums(metrics, finite, seconds))
                        keep(last=True)
                    raise _not_finite(metrics["finite"] != count, last, layout.fetch(state))
                done += count
                chunks.append(_sums(metrics, count, seconds))
                bar.advance(count, float(np.mean(metrics["loss"])) / count)
                # Decisions by the clock or by a signal are the same in all processes.
                fitting, undisturbed, young = least(
                    chunk_seconds * count / seconds, float(stop.received is None), float(not store.due)
                )
                count = length or max(1, int(fitting))
                if done % steps_per_epoch == 0:
                    records.append(_record(done // steps_per_epoch, chunks))
                    evaluated = done == total or (done // steps_per_epoch) % eval_every == 0
                    if evaluated and eval_fns:
                        records[-1] |= _evaluated(eval_fns, layout.fetch(state), records[-1])
                    chunks.clear()
                    if evaluated:
                        callbacks.require_monitored(records[-1])
                    keep(record=records[-1] if evaluated else None, wait=False)
                    if callbacks:
                        (running,) = least(float(not (is_first_process() and callbacks(records[-1]))))
                        stopped = not running
                elif not young:
                    keep(wait=False)
                if not undisturbed and done < total and not stopped:
                    keep(last=True)
                    raise StoppedError(
                        stop.received or SIGTERM, done, total, layout.fetch(state), store.where, store.failure
                    )
            keep(last=True)
    return layout.fetch(state), records


def _described(
    state: TrainState, step: Step, settings: PyTree, data: Split, transform: Transform, batch_size: int
) -> dict[str, Any]:
    """The description of a run, by which a store refuses checkpoints of another one; `settings` are of one member."""
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
    """SHA-256 of the arrays of a tree and of their names."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def _restored(
    store: Checkpoints | NoCheckpoints, state: TrainState, described: Callable[[], dict[str, Any]]
) -> tuple[TrainState, dict[str, Any]]:
    """The state and the notes in the store of the first process, which opens it; returned in every process."""
    found: dict[str, Any] = {"notes": {}, "error": None}
    if is_first_process():
        try:
            store.open()
            # Without a store nothing is described, because the digest of the data takes time.
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
    threshold = device_memory() // 2 * sharers if stream_above is None else stream_above
    if data.images.nbytes > threshold:
        return StreamingFeeder(data, batch_size, layout, keys)
    return ResidentFeeder(data, batch_size, layout, members=keys.ndim > 0)


def _loop_length(platform: str, steps: int) -> int | None:
    """Number of steps of the loop of each chunk; None on a CPU, where the time of a step decides.

    The steps of a feed are divided among the fewest chunks, so that few steps of the last one are masked.
    """
    return None if platform == "cpu" else math.ceil(steps / math.ceil(steps / _CHUNK_STEPS))


def _platform(state: TrainState) -> str:
    """The kind of device on which the state lies, such as "cpu" or "gpu"."""
    return str(next(iter(state.step.devices())).platform)


def _warn_of_bits(platform: str) -> None:
    """Warn if a run that is resumed on this platform can end with other bits, unless XLA_FLAGS has the flag."""
    if platform == "gpu" and "--xla_gpu_deterministic_ops" not in os.environ.get("XLA_FLAGS", ""):
        warnings.warn(
            "a run that is resumed on a GPU can end with other bits; set XLA_FLAGS=--xla_gpu_deterministic_ops=true "
            "before JAX first uses a device, or =false if they may differ",
            UserWarning,
            stacklevel=4,
        )


def _warn_of_steps(done: int, steps_per_epoch: int, epochs: int) -> None:
    """Warn if a state that no store has restored has no step left to train, or stands within an epoch."""
    behind, within = divmod(done, steps_per_epoch)
    count = f"{behind} epoch{'' if behind == 1 else 's'}"
    if within:
        text = (
            f"the state was trained for {done} steps, which are {count} of {steps_per_epoch} steps and {within} more, "
            "so training resumes within an epoch; if its steps had another batch size or other data, start with its "
            "step at 0: dataclasses.replace(state, step=jnp.zeros_like(state.step))"
        )
        warnings.warn(text, UserWarning, stacklevel=4)
    if behind >= epochs:
        text = (
            f"nothing is trained: the state was trained for {count}, and epochs={epochs} counts from the first, so "
            f"pass epochs={behind + epochs} to train {epochs} more"
        )
        warnings.warn(text, UserWarning, stacklevel=4)


def _eval_fns(eval_fn: Any, state: TrainState) -> list[EvalFn]:
    """The evaluating function of each member, or of the single model; empty without one.

    Raises:
      InputError: An entry can't be called, or there are not as many functions as members.
    """
    if eval_fn is None:
        return []
    members = state.step.size if state.step.ndim else 1
    if callable(eval_fn):
        return [eval_fn] * members
    if state.step.ndim == 0 or not isinstance(eval_fn, Sequence) or not all(map(callable, eval_fn)):
        raise InputError(
            f"eval_fn is {eval_fn!r}; expected a function of the state, or a list of one for each of several members"
        )
    if len(eval_fn) != members:
        raise InputError(f"eval_fn has {len(eval_fn)} functions; expected one for each of {members} members")
    return list(eval_fn)


def _evaluated(eval_fns: Sequence[EvalFn], state: TrainState, record: Record) -> Record:
    """The numbers of the evaluating function, or lists with the numbers of each member."""
    if state.step.ndim == 0:
        # A copy, which the function may store: the next chunk donates the original.
        return _numbers(eval_fns[0](copied(state)), record)
    of_members = [_numbers(own(member(state, number)), record) for number, own in enumerate(eval_fns)]
    for number, found in enumerate(of_members):
        if found.keys() != of_members[0].keys():
            raise InputError(
                f"eval_fn returned {', '.join(found) or 'nothing'} for member {number}, but "
                f"{', '.join(of_members[0]) or 'nothing'} for member 0; expected the same names"
            )
    return {name: [found[name] for found in of_members] for name in of_members[0]}


def _numbers(found: Any, record: Record) -> Record:
    """The result of an evaluating function, checked, with arrays of one number as numbers.

    Raises:
      InputError: The result is not a dict of numbers, or has a name that the record has already.
    """
    if not isinstance(found, Mapping):
        raise InputError(f'eval_fn returned {named(found)}; expected a dict of numbers, such as {{"accuracy": 0.9}}')
    if taken := ", ".join(name for name in found if name in record):
        raise InputError(f"eval_fn returned {taken}, which the record has already; choose another name")
    numbers = {}
    for name, number in found.items():
        plain = (
            number.item() if isinstance(number, jax.Array | np.ndarray | np.generic) and number.size == 1 else number
        )
        if not isinstance(name, str) or not isinstance(plain, Real):
            raise InputError(
                f"eval_fn returned {name!r}: {named(number)}; expected numbers by name, such as float(...)"
            )
        numbers[name] = plain
    return numbers


def _sums(metrics: dict[str, np.ndarray], steps: int, seconds: float) -> dict[str, Any]:
    """The metrics summed over the steps of a chunk, as JSON can hold them."""
    return {name: total.tolist() for name, total in metrics.items()} | {"steps": steps, "seconds": seconds}


def _record(epoch: int, chunks: list[dict[str, Any]]) -> Record:
    """The record of an epoch: the sums of its chunks as means over their steps."""
    sums = {name: np.sum([chunk[name] for chunk in chunks], axis=0) for name in chunks[0]}
    steps, seconds = sums.pop("steps"), sums.pop("seconds")
    del sums["finite"]
    return {"epoch": epoch, "seconds": float(seconds)} | {
        name: (total / steps).tolist() for name, total in sums.items()
    }


def _not_finite(failed: Any, metrics: dict[str, np.ndarray], state: TrainState) -> NotFiniteError:
    """The error for a chunk that has ended early, for a run or for some members.

    Args:
      failed: Whether the run, or each member, has failed.
      metrics: Metrics of the last step.
      state: State before the failing step.
    """
    broken = np.flatnonzero(failed)
    of_broken = {name: np.atleast_1d(metric)[broken] for name, metric in metrics.items()}
    terms = [name for name, metric in of_broken.items() if not np.all(np.isfinite(metric))] or ["gradient"]
    of_members = (
        f" of member{'s' if len(broken) > 1 else ''} {' and '.join(map(str, broken))}" if state.step.ndim else ""
    )
    step = int(jnp.min(state.step)) + 1
    are = f"the {terms[0]} is" if len(terms) == 1 else f"the {', '.join(terms[:-1])} and {terms[-1]} are"
    params = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(state.variables.get("params", {}))]
    own = params if state.step.ndim == 0 else [leaf[broken] for leaf in params]
    if not all(np.all(np.isfinite(leaf)) for leaf in own):
        reason = (
            "the parameters are not finite before that step, although the loss and the gradient of each step before it "
            "were: check that no learning rate, schedule or initial variable is NaN or infinite"
        )
    elif step == 1:
        reason = (
            "it is the first step, so the learning rate is not the cause: check the data, the initial variables and "
            "whether the likelihood fits the data"
        )
    else:
        reason = "try a smaller learning rate, a warm-up, or gradient clipping (optax.clip_by_global_norm)"
    return NotFiniteError(f"step {step}{of_members}: {are} not finite, so training stopped before it; {reason}", state)
