"""Resumable checkpoints of a run, written by Orbax: its training state, and its model for use without the run."""

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

from vae_jax.checkpoints.description import describe, plain
from vae_jax.checkpoints.differences import difference
from vae_jax.checkpoints.lock import FolderLock
from vae_jax.checkpoints.models import BEST, warn_unless_built
from vae_jax.checkpoints.numbered import SealedFolder, broken_reasons, by_name, newest_whole, refuse_broken
from vae_jax.distributions.likelihoods.base import Variables
from vae_jax.errors import (
    CheckpointWarning,
    InputError,
    named,
    require_not_negative,
    require_path,
    require_positive_int,
)

Notes = Mapping[str, Any]

_OF_STEP = ("model", "objective", "optimizer")
_LENGTHS = {"batch_size", "steps_per_epoch"}
_ALLOWED = ("config", "data", "transform", "key", "settings", "frozen", *_OF_STEP, "step")


class Checkpoints:
    """The checkpoints of one run in a folder.

    `fit(state, ..., store=Checkpoints(folder, config))` resumes from the newest checkpoint and adds new ones. The state
    may be any tree of arrays; the number of a checkpoint is the number of steps taken.

    A folder with checkpoints of another run is refused: `fit` compares the data, the batch size, the transform, the
    key of the run, the number of members, the settings, and the model, objective and optimizer of the step with those
    in the checkpoint.

    A run that is resumed in another process ends with the same bits on a CPU with the same number of cores, and on a
    GPU if XLA_FLAGS contains --xla_gpu_deterministic_ops=true in both processes.

    One run at a time writes to the folder, which is locked from `open` to `close`. `fit` calls both. A `save` outside
    of them opens the folder, and closes it if it waits. Reading takes no lock. A failed write does not end the run: one
    `CheckpointWarning` is given until a write succeeds again, the next `save` of a checkpoint that is due tries again,
    and `failure` has the reason.

    Args:
      folder: Folder of the checkpoints; it is created if it does not exist.
      config: Further options of the run, as JSON can hold them; they are compared too.
      allow: Names of the parts of the run that may differ from the checkpoint: any of "config", "data", "transform",
        "key", "settings", "frozen", "model", "objective", "optimizer" and "step". The present values take effect. The
        batch size and the number of steps per epoch can't differ, because `state.step` counts such steps; neither can
        the number of members.
      step: Description of the step, as JSON can hold it, in place of `step.description`. A step written by hand has no
        description. The entries "model", "objective" and "optimizer" can be allowed to differ by these names, any other
        entry by "step".
      model: Model that `restore_model` makes again from the checkpoints alone. It may contain code of modules that are
        named in `restore_model(folder, modules=)`. A model with code of a notebook or a script, or with a lambda, gives
        a `CheckpointWarning`: `restore_model(folder, model=model)` then needs it.
      variables: Function from a state to the variables with which the model is used, such as `averaged_variables`.
      every_seconds: Minimum time between two checkpoints, which may be within an epoch; 0 means one after each epoch.
      keep: Number of checkpoints that are kept: the newest ones.
      best: Name of a number in the records. The state with the lowest value so far is kept too, in the folder `best`.
        Not for runs of several members.

    Raises:
      InputError: The folder can't be written or holds other files, JSON can't hold the config or the step, or `allow`
        has another name, or an argument is of another kind.
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
        require_path("the folder of a run's checkpoints", folder=folder)
        if not isinstance(allow, Collection) or not all(name in _ALLOWED for name in allow):
            raise InputError(f"allow is {allow!r}; expected a tuple with some of {', '.join(_ALLOWED)}")
        if not callable(variables):
            raise InputError(f"variables is {named(variables)}; expected a function, such as vj.averaged_variables")
        if best is not None and not isinstance(best, str):
            raise InputError(f"best is {named(best)}; expected the name of a number in the records")
        self._allow = set(allow)
        self._config, self._run = plain("config", config), dict[str, Any]()
        self._step = plain("step", step)
        self._model = describe(model)
        self._variables = variables
        self._every_seconds = every_seconds
        self._saved_at = time.monotonic()
        self._lock = FolderLock(Path(folder).absolute())
        self._newest = SealedFolder(Path(folder), keep, self._lock)
        self._newest.prepare(beside=BEST)
        self._best_by, self._least = best, math.inf
        self._best = SealedFolder(Path(folder) / BEST, 1, self._lock)
        self._is_open = self._warned = False
        if best is not None:
            self._best.prepare()
        warn_unless_built(self._model, "restore_model", Path(folder))

    @property
    def where(self) -> Path | None:
        """The folder of the checkpoints."""
        return self._newest.path

    @property
    def due(self) -> bool:
        """Whether the newest checkpoint is older than `every_seconds`, so that `fit` saves one within the epoch."""
        return 0 < self._every_seconds <= time.monotonic() - self._saved_at

    @property
    def failure(self) -> str | None:
        """Why the newest or the best state could not be written; None if both are saved."""
        return "; ".join(filter(None, (self._newest.failure, self._best.failure))) or None

    def open(self) -> None:
        """Lock the folder until `close`, and remove incomplete checkpoints of a killed run.

        Raises:
          InputError: Another run, of this process or of another one, writes to the folder.
        """
        with suppress(OSError):  # the folder has just become unusable: `save` warns
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
        """Save the state and the notes, unless the previous checkpoint is too recent or has the same number.

        A failed write sets `failure`; the first of several in a row gives a warning.

        Args:
          step: Number of steps taken.
          state: State after these steps.
          notes: Notes that `restore` returns with the state, as JSON can hold them.
          last: Whether to save the state however recent the previous checkpoint is.
          record: Record of the epoch that ends here; if it is the best so far, the state is also saved as the best one.
          wait: Whether to wait for the write and `close` after it; if not, the next `save`, or `close`, waits for it.

        Raises:
          InputError: The record has no number named `best`, or another run has the folder open.
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
        if measured < self._least:  # first: an epoch before the newest checkpoint is never evaluated again
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
        """Wait for all writes, and unlock the folder."""
        try:
            self._finish()
        finally:
            self._lock.release()
            self._is_open = False

    def _finish(self) -> None:
        """Wait for all writes; warn at the first failure in a row."""
        self._best.finish()
        self._newest.finish()
        warned, self._warned = self._warned, self.failure is not None
        if self.failure is not None and not warned:
            warnings.warn(f"{self.failure}; the next save tries again", CheckpointWarning, stacklevel=3)

    def restore(self, state: PyTree, run: Mapping[str, Any] | None = None) -> tuple[PyTree, dict[str, Any]]:
        """The state and the notes of the newest checkpoint that is whole, verified by SHA-256.

        Args:
          state: A state of the same run, for its shapes, types and shardings. Without a checkpoint it is returned, with
            empty notes.
          run: Description of the run by `fit`, with the description of the step as "step". It is compared with the
            checkpoint and stored in each later one. Without it only `config` is compared.

        Raises:
          InputError: The folder holds checkpoints of another run, of another format, or of a state of other shapes; no
            checkpoint is whole; the step has no description; or `best` is set and the state is of several members.
        """
        members = _members(state)
        if self._best_by is not None and members is not None:
            raise InputError(
                f"best is {self._best_by!r}, but the state has {members} members, whose records are lists of numbers; "
                "leave best out, or train one model per store"
            )
        self._run = {} if run is None else plain("the run", self._with_step(run))
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
            best = newest_whole(self._best, read)
            self._least = math.inf if best is None else best[1]["least"]
            if best is None and self._best.broken:
                text = f"{broken_reasons(self._best)}; the best state is searched again from here"
                warnings.warn(text, CheckpointWarning, stacklevel=2)
        restored = newest_whole(self._newest, read)
        if restored is not None:
            return restored[0], restored[1]["notes"]
        refuse_broken(self._newest, "remove the folder to start a new run")
        return state, {}

    def _measured(self, record: Mapping[str, Any] | None) -> float:
        """The value of the record by which the best is chosen; infinity without a record or without `best`."""
        if record is None or self._best_by is None:
            return math.inf
        value = record.get(self._best_by)
        if not isinstance(value, Real):
            names = ", ".join(name for name, value in record.items() if isinstance(value, Real))
            raise InputError(f"best is {self._best_by!r}, which is no number in the record; choose one of {names}")
        return float(value)

    def _with_step(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """The description of the run, with the parts of the step as entries if they have names."""
        others: dict[str, Any] = {name: value for name, value in run.items() if name != "step"}
        step: Any = run["step"] if self._step is None else self._step
        if step is None:
            raise InputError(
                "the step has no description, which tells its checkpoints from those of another step; give one with "
                'Checkpoints(..., step={"objective": "mine", "learning_rate": 1e-3})'
            )
        by_part = isinstance(step, Mapping) and step.keys() <= set(_OF_STEP)
        return others | (dict(step) if by_part else {"step": step})

    def _require_same_run(self, folder: SealedFolder, content: Mapping[str, Any]) -> None:
        there, here = {"config": content["config"]}, {"config": self._config} | self._run
        if self._run:
            there |= content["run"]
        if folder is self._best:
            there, here = there | {"best": content["best_by"]}, here | {"best": self._best_by}
        found = {
            name: difference("" if name == "config" else name, there.get(name), here.get(name)) for name in here | there
        }
        different = {name: text for name, text in found.items() if text and name not in self._allow}
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
        raise InputError(f"{folder.path} holds checkpoints of another run ({', '.join(different.values())}); {remedy}")


class NoCheckpoints:
    """A store for runs without checkpoints."""

    where: Path | None = None
    due = False
    failure: str | None = None

    def open(self) -> None:
        """Do nothing."""

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
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def restore(self, state: PyTree, run: Mapping[str, Any] | None = None) -> tuple[PyTree, dict[str, Any]]:
        """The given state, and empty notes."""
        return state, {}


def _members(state: PyTree) -> int | None:
    """The number of members of a state, by the leading axis of its number of steps; None for a single model."""
    shape = jnp.shape(getattr(state, "step", 0))
    return shape[0] if shape else None
