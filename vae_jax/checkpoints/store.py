"""Resumable checkpoints of a run, written by Orbax: its training state, and its model for use without the run."""

import json
import math
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from numbers import Real
from operator import attrgetter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from vae_jax.checkpoints.description import build, describe, own_packages
from vae_jax.checkpoints.differences import difference
from vae_jax.checkpoints.lock import FolderLock
from vae_jax.checkpoints.sealed import SealedFolder, by_name
from vae_jax.distributions.likelihoods.base import Variables
from vae_jax.errors import CheckpointWarning, InputError, require_not_negative, require_positive_int

Notes = Mapping[str, Any]

_BEST = "best"
_OF_STEP = ("model", "objective", "optimizer")
_LENGTHS = {"batch_size", "steps_per_epoch"}
_ALLOWED = ("config", "data", "transform", "key", "settings", "frozen", *_OF_STEP, "step")


class Checkpoints:
    """The checkpoints of one run in a folder.

    `fit(state, ..., store=Checkpoints(folder, config))` resumes from the newest one and adds to them. The state may be
    any tree of arrays; the number of a checkpoint is the number of steps taken.

    A folder with checkpoints of another run is refused: `fit` compares the data, the batch size, the transform, the
    run's key, the number of members, the settings, and the model, objective and optimizer of the step with those in the
    checkpoint.

    One run at a time writes to the folder, which is locked from `open` to `close`. `fit` calls both. A `save` outside
    of them opens the folder itself, and closes it if it waits. Reading takes no lock. A write that fails does not end
    the run: there is one `CheckpointWarning` until a write succeeds again, the next `save` of a checkpoint that is due
    tries again, and `failure` says what is missing.

    Args:
      folder: created if it does not exist.
      config: further options of the run, as JSON can hold them; they are compared too.
      allow: what may differ from the checkpoint that is resumed: any of "config", "data", "transform", "key",
        "settings", "frozen", "model", "objective", "optimizer" and "step". What is given now takes effect. Neither the
        batch size nor the number of steps in an epoch can differ, since `state.step` counts such steps, nor the number
        of members.
      step: a description of the step, as JSON can hold it, in place of its own `description`. A step written by hand
        has none. Entries "model", "objective" and "optimizer" can be allowed to differ by these names, anything else by
        "step".
      model: if given, `restore_model` makes it again from the checkpoints alone. Code of your own in it must be in
        modules, which are named to `restore_model(folder, modules=)`.
      variables: function from a state to the variables with which the model is used, such as `averaged_variables`.
      every_seconds: minimum time between two checkpoints, which may be within an epoch; with 0 there is one after each
        epoch.
      keep: number of checkpoints that are kept, the newest ones.
      best: name of a number in the records. The state with the lowest value so far is kept too, in the folder `best`.

    Raises:
      InputError: the folder can't be written or holds something else; the model can't be made from its description;
        JSON can't hold the config or the step; `allow` has another name.
    """

    def __init__(
        self,
        folder: Path | str,
        config: Mapping[str, Any],
        *,
        allow: Collection[str] = (),
        step: Any = None,
        model: Any = None,
        variables: Callable[[Any], Variables] = attrgetter("variables"),
        every_seconds: float = 60.0,
        keep: int = 2,
        best: str | None = None,
    ) -> None:
        require_positive_int(keep=keep)
        require_not_negative(every_seconds=every_seconds)
        if unknown := set(allow) - set(_ALLOWED):
            raise InputError(f"allow has {', '.join(sorted(unknown))}; expected some of {', '.join(_ALLOWED)}")
        self._allow = set(allow)
        self._config, self._run = _plain("config", config), dict[str, Any]()
        self._step = _plain("step", step)
        self._model = describe(model)
        build(self._model, "model", own_packages(self._model))  # to refuse now what can't be made again
        self._variables = variables
        self._every_seconds = every_seconds
        self._saved_at = time.monotonic()
        self._lock = FolderLock(Path(folder).absolute())
        self._newest = SealedFolder(Path(folder), keep, self._lock)
        self._newest.prepare(beside=_BEST)
        self._best_by, self._least = best, math.inf
        self._best = SealedFolder(Path(folder) / _BEST, 1, self._lock)
        self._is_open = self._warned = False
        if best is not None:
            self._best.prepare()

    @property
    def where(self) -> Path | None:
        """The folder."""
        return self._newest.path

    @property
    def due(self) -> bool:
        """Whether the newest checkpoint is so old that another one is to be saved before the epoch ends."""
        return 0 < self._every_seconds <= time.monotonic() - self._saved_at

    @property
    def failure(self) -> str | None:
        """Which of the newest and the best state could not be written, and why; None if both are kept."""
        return "; ".join(filter(None, (self._newest.failure, self._best.failure))) or None

    def open(self) -> None:
        """Lock the folder until `close`, and remove what a killed run has left half-written.

        Raises:
          InputError: another run, of this process or of another one, writes to it.
        """
        with suppress(OSError):  # the folder has just become unusable, of which `save` warns
            if self._lock.take():
                self._newest.remove_unfinished()
                self._best.remove_unfinished()
        self._is_open = True

    def save(
        self,
        step: int,
        state: PyTree,
        notes: Notes,
        *,
        last: bool = False,
        record: Mapping[str, Any] | None = None,
        wait: bool = True,
    ) -> None:
        """Keep the state and the notes, unless the checkpoint before is too young or has this number.

        A write that fails gives a warning, the first of several in a row, and sets `failure`.

        Args:
          step: steps taken.
          state: after them.
          notes: what `restore` returns with the state, as JSON can hold it.
          last: whether to keep it however recent the checkpoint before it is.
          record: of the epoch that ends here; if it is the best so far, the state is also kept as the best one.
          wait: whether to wait for the write and `close` after it; if not, the next `save`, or `close`, waits for it.

        Raises:
          InputError: the record has no number of the name that the best goes by, or another run has the folder open.
        """
        measured = self._measured(record)
        due = last or time.monotonic() - self._saved_at >= self._every_seconds
        if not due and not measured < self._least:
            return
        self._finish()
        if not self._is_open:
            self.open()
        trees = {"state": by_name(state)}
        if self._model is not None:
            trees["variables"] = by_name(self._variables(state))
        content = {"config": self._config, "run": self._run, "model": self._model}
        content |= {"members": _members(state), "notes": notes}
        if measured < self._least:  # first, for what is behind the newest checkpoint is never measured again
            self._best.write(step, trees, content | {"best_by": self._best_by, "least": measured})
            self._least = measured
        elif due:
            self._best.retry()
        if due:
            self._newest.write(step, trees, content)
            self._saved_at = time.monotonic()
        if wait:
            self.close()

    def close(self) -> None:
        """Wait until all is written that was saved, and release the folder."""
        try:
            self._finish()
        finally:
            self._lock.release()
            self._is_open = False

    def _finish(self) -> None:
        """Wait until all is written that was saved; warn at the first failure in a row."""
        self._best.finish()
        self._newest.finish()
        warned, self._warned = self._warned, self.failure is not None
        if self.failure is not None and not warned:
            warnings.warn(f"{self.failure}; the next save tries again", CheckpointWarning, stacklevel=3)

    def restore(self, state: PyTree, run: Mapping[str, Any] | None = None) -> tuple[PyTree, dict[str, Any]]:
        """The newest checkpoint that is whole, each leaf checked by its SHA-256, and its notes.

        Args:
          state: of the same run, for its shapes, types and places on the devices; what comes back, with no notes, where
            there is no checkpoint.
          run: what the run is, by `fit`, with "step" for the step's description; it is compared with what the
            checkpoint says, and kept with each checkpoint from now on. Without it only `config` is compared.

        Raises:
          InputError: the folder holds checkpoints of another run, another format or a state of other shapes, or none of
            those in it is whole; the step of the run has no description.
        """
        self._run = {} if run is None else _plain("the run", self._with_step(run))
        named = by_name(state)
        changed = self._allow & {"key", "settings"} if self._run else set()

        def read(folder: SealedFolder, step: int) -> tuple[PyTree, dict[str, Any]]:
            content = folder.read_content(step)
            self._require_same_run(folder, content)
            leaves = folder.read_tree(step, content, "state", named)
            stored = dict(zip(named, leaves, strict=True))
            chosen = [(named if name.split(".")[0] in changed else stored)[name] for name in named]
            return jax.tree.unflatten(jax.tree.structure(state), chosen), content

        self._finish()
        if self._best_by is not None:
            best = _newest_whole(self._best, read)
            self._least = math.inf if best is None else best[1]["least"]
            if best is None and self._best.broken:
                text = f"{_reasons(self._best)}; the best is looked for anew from here"
                warnings.warn(text, CheckpointWarning, stacklevel=2)
        restored = _newest_whole(self._newest, read)
        if restored is not None:
            return restored[0], restored[1]["notes"]
        _refuse_broken(self._newest, "remove the folder to begin anew")
        return state, {}

    def _measured(self, record: Mapping[str, Any] | None) -> float:
        """What the best goes by; infinite where there is nothing to go by."""
        if record is None or self._best_by is None:
            return math.inf
        value = record.get(self._best_by)
        if not isinstance(value, Real):
            names = ", ".join(name for name, value in record.items() if isinstance(value, Real))
            raise InputError(f"best is {self._best_by!r}, which is no number in the record; choose one of {names}")
        return float(value)

    def _with_step(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """The run with its step's parts, if it tells them by their names, among its other entries."""
        others: dict[str, Any] = {name: value for name, value in run.items() if name != "step"}
        step: Any = run["step"] if self._step is None else self._step
        if step is None:
            raise InputError(
                "the step has no description by which its checkpoints could be told from those of another; say what it "
                'is with Checkpoints(..., step={"objective": "mine", "learning_rate": 1e-3})'
            )
        by_part = isinstance(step, Mapping) and step.keys() <= set(_OF_STEP)
        return others | (dict(step) if by_part else {"step": step})

    def _require_same_run(self, folder: SealedFolder, content: Mapping[str, Any]) -> None:
        there, here = {"config": content["config"]}, {"config": self._config} | self._run
        if self._run:
            there |= content["run"]
        if folder is self._best:
            there, here = there | {"best": content["best_by"]}, here | {"best": self._best_by}
        different = [name for name in here | there if there.get(name) != here.get(name) and name not in self._allow]
        if not different:
            return
        if _LENGTHS & set(different):
            remedy = (
                "state.step counts steps of that length: choose the same one, or start a new run from the state, with "
                "its step set to 0, in another folder"
            )
        elif set(different) <= set(_ALLOWED):
            remedy = f"choose another folder, the same options, or Checkpoints(..., allow={tuple(different)})"
        else:
            remedy = "choose another folder, or the same options"
        what = ", ".join(
            difference("" if name == "config" else name, there.get(name), here.get(name)) for name in different
        )
        raise InputError(f"{folder.path} holds checkpoints of another run ({what}); {remedy}")


class NoCheckpoints:
    """In the place of `Checkpoints` for a run that keeps none."""

    where: Path | None = None
    due = False
    failure: str | None = None

    def open(self) -> None:
        """Nothing is locked."""

    def save(
        self,
        step: int,
        state: PyTree,
        notes: Notes,
        *,
        last: bool = False,
        record: Mapping[str, Any] | None = None,
        wait: bool = True,
    ) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is waited for."""

    def restore(self, state: PyTree, run: Mapping[str, Any] | None = None) -> tuple[PyTree, dict[str, Any]]:
        """`state` itself, with nothing behind it."""
        return state, {}


def restore_model(
    folder: Path | str, *, best: bool = False, member: int | None = None, modules: Collection[str] = ()
) -> tuple[Any, Variables]:
    """A model and its variables for use, from the checkpoints of a run that was given it: `Checkpoints(..., model=)`.

    They are those of the newest checkpoint that is whole, checked by their SHA-256. The model may consist of values and
    numeric functions of this library, JAX, Flax and optax, so that no checkpoint can choose what code is run; any other
    code has to be allowed by `modules`.

    Args:
      folder: of the checkpoints.
      best: whether to take the best checkpoint rather than the newest.
      member: which one, of a run of several; without it their variables come together, along the first axis.
      modules: names of the packages or modules of your own that define networks or functions of the model, such as
        ("mine",). They are trusted with their submodules: they are imported, and the classes and functions that they
        define may be called.

    Raises:
      InputError: there is no such checkpoint, none of them is whole, none knows its model, or the model's code is not
        here, is not trusted or has changed.
    """
    stored = SealedFolder(Path(folder) / _BEST if best else Path(folder))

    def read(stored: SealedFolder, step: int) -> tuple[Any, Variables]:
        content = stored.read_content(step)
        if content["model"] is None:
            raise InputError(f"the checkpoints in {stored.path} know no model; make them with Checkpoints(..., model=)")
        members = content["members"]
        if member is not None and (members is None or not 0 <= member < members):
            there = "one model, without members" if members is None else f"members 0 to {members - 1}"
            raise InputError(f"member is {member}, but {stored.path} holds {there}")
        model = build(content["model"], "model", modules)
        leading = () if members is None else (members,)
        like = jax.tree.map(
            lambda leaf: jnp.zeros((*leading, *leaf.shape), leaf.dtype),
            _variables_of(model),
        )
        leaves = stored.read_tree(step, content, "variables", by_name(like))
        chosen = leaves if member is None else [leaf[member] for leaf in leaves]
        return model, jax.tree.unflatten(jax.tree.structure(like), chosen)

    restored = _newest_whole(stored, read)
    if restored is None:
        _refuse_broken(stored, "take a copy of them from elsewhere, or train anew")
        remedy = "keep one with Checkpoints(..., best=)" if best else "expected the folder of a run's checkpoints"
        raise InputError(f"there is no checkpoint in {stored.path}; {remedy}")
    return restored


def _newest_whole(folder: SealedFolder, read: Callable[[SealedFolder, int], Any]) -> Any:
    """What `read` makes of the newest checkpoint that is whole; a warning for each newer one, None if none is whole."""
    folder.broken.clear()
    while untried := folder.numbers() - folder.broken.keys():  # looked up anew: a run may be adding to them
        step = max(untried)
        try:
            restored = read(folder, step)
        except InputError:
            raise
        except Exception as error:  # Orbax raises a bare Exception for some broken files
            folder.broken[step] = str(error).split("\n")[0] or type(error).__name__
            continue
        if folder.broken:
            warnings.warn(f"{_reasons(folder)}; resuming from step {step}", CheckpointWarning, stacklevel=3)
        return restored
    return None


def _refuse_broken(folder: SealedFolder, remedy: str) -> None:
    if folder.broken:
        raise InputError(f"no checkpoint in {folder.path} can be read ({_reasons(folder)}); {remedy}")


def _variables_of(model: Any) -> PyTree:
    """Shapes and types of the variables that a model would make."""
    try:
        return jax.eval_shape(model.init, jax.random.key(0))
    except Exception as error:  # any kind, for the model's code may be anyone's
        reason = str(error).split("\n")[0] or type(error).__name__
        text = f"the code that is here can't make the model ({reason}); take the code of the run"
        raise InputError(text) from error


def _reasons(folder: SealedFolder) -> str:
    return "; ".join(f"checkpoint {step} is broken: {reason}" for step, reason in folder.broken.items())


def _members(state: PyTree) -> int | None:
    """How many the state is of, by the leading axis of its number of steps; None of one."""
    shape = jnp.shape(getattr(state, "step", 0))
    return shape[0] if shape else None


def _plain(name: str, value: Any) -> Any:
    """The value as it comes back from JSON, a NaN as text, so that it equals itself."""
    try:
        return json.loads(json.dumps(value), parse_constant=str)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} can't be kept as JSON ({error}); give numbers, text, lists and dicts") from error
