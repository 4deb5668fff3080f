"""Checkpoints of a run, by Orbax: what a killed run needs to go on to the same bits."""

import hashlib
import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from vae_jax.errors import InputError, require_positive_int, require_writable_folder

_FORMAT = 1

History = dict[str, Any]


class CheckpointWarning(UserWarning):
    """A checkpoint could not be used, and an earlier one is taken."""


class Checkpoints:
    """The checkpoints of one run in a folder.

    `fit(state, ..., store=Checkpoints(folder, config))` goes on from them and adds to them. The state may be any tree
    of arrays; a checkpoint's number is that of the epochs behind it.

    Args:
      folder: made if need be.
      config: what the run is, as JSON can hold it; a folder with checkpoints of another one is refused.
      every_seconds: least time between two; 0 keeps one of each epoch.
      keep: how many are kept.

    Raises:
      InputError: the folder can't be written.
    """

    def __init__(
        self, folder: Path | str, config: Mapping[str, Any], every_seconds: float = 60.0, keep: int = 2
    ) -> None:
        import orbax.checkpoint as ocp  # half a second that a program without checkpoints does without

        require_positive_int(keep=keep)
        require_writable_folder(Path(folder))
        self._orbax = ocp
        self._config = json.loads(json.dumps(config))
        self._every_seconds = every_seconds
        self._saved_at = time.monotonic()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

    where = property(lambda self: self._manager.directory)

    def save(self, step: int, state: PyTree, notes: Any, last: bool = False, record: Any = None) -> None:
        """Keep the state, and what `fit` has recorded so far, unless the one before is too young.

        Args:
          state: at the end of an epoch.
          history: one record an epoch.
          last: whether to keep it however young the one before is.
        """
        if not last and time.monotonic() - self._saved_at < self._every_seconds:
            return
        epochs = step
        if epochs in self._manager.all_steps():
            return
        leaves = _by_name(state)
        notes = {"format": _FORMAT, "config": self._config, "notes": notes, "sha256": _digest(leaves)}
        args = self._orbax.args
        self._manager.save(epochs, args=args.Composite(state=args.StandardSave(leaves), notes=args.JsonSave(notes)))
        self._saved_at = time.monotonic()

    def restore(self, state: PyTree) -> tuple[PyTree, History]:
        """The newest checkpoint that is whole, each leaf checked by its SHA-256; `state` itself where there is none.

        Args:
          state: of the same run, for its shapes, types and places on the devices.

        Raises:
          InputError: the folder holds checkpoints of another configuration, or none of those in it is whole.
        """
        reasons = []
        for epochs in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._read(epochs, state)
            except InputError:
                raise
            except Exception as error:  # Orbax raises a bare Exception for some broken files
                reasons.append(f"{epochs}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
                continue
            if reasons:
                text = f"checkpoint {'; '.join(reasons)}; going on from epoch {epochs}"
                warnings.warn(text, CheckpointWarning, stacklevel=2)
            return restored
        if reasons:
            raise InputError(
                f"no checkpoint in {self._manager.directory} can be read ({'; '.join(reasons)}); remove the folder to "
                "begin anew"
            )
        return state, {}

    def _read(self, epochs: int, state: PyTree) -> tuple[PyTree, History]:
        args = self._orbax.args
        notes = self._manager.restore(epochs, args=args.Composite(notes=args.JsonRestore())).notes
        if notes["format"] != _FORMAT:
            raise InputError(f"checkpoint {epochs} has format {notes['format']}; this version reads {_FORMAT}")
        if notes["config"] != self._config:
            raise InputError(
                f"{self._manager.directory} holds checkpoints of another run "
                f"({_difference(notes['config'], self._config)}); choose another folder, or the same options"
            )
        shapes = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
            for name, leaf in _by_name(state).items()
        }
        leaves = self._manager.restore(epochs, args=args.Composite(state=args.StandardRestore(shapes))).state
        if _digest(leaves) != notes["sha256"]:
            raise ValueError("its arrays are not those that were saved")
        return jax.tree.unflatten(jax.tree.structure(state), [leaves[name] for name in shapes]), notes["notes"]


class NoCheckpoints:
    """In the place of `Checkpoints` for a run that keeps none."""

    where = None

    def save(self, step: int, state: PyTree, notes: Any, last: bool = False, record: Any = None) -> None:
        """Nothing is kept."""

    def restore(self, state: PyTree) -> tuple[PyTree, History]:
        """`state` itself, with nothing behind it."""
        return state, {}


def _by_name(state: PyTree) -> dict[str, Array]:
    """Its leaves by their paths, in the order of the tree."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _digest(leaves: Mapping[str, Array]) -> str:
    """SHA-256 of the leaves: their names, types, shapes and bytes."""
    sha = hashlib.sha256()
    for name, leaf in sorted(leaves.items()):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        sha.update(f"{name} {leaf.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    names = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    return ", ".join(f"{name} is {there.get(name)!r} there and {here.get(name)!r} here" for name in names)
