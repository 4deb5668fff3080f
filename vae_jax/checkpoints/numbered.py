"""Numbered checkpoints in a folder: trees of arrays and JSON, written by Orbax and verified by SHA-256.

Orbax writes into a temporary folder and renames it, so a process that is killed leaves no incomplete numbered folder.
Orbax detects neither changed bytes nor, until it reads them, missing files. Each checkpoint therefore holds the SHA-256
of its files, which are verified before Orbax opens them.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vae_jax.checkpoints.lock import FolderLock
from vae_jax.errors import CheckpointWarning, InputError, require_writable_folder

_FORMAT = 4
_FILES = "files.json"
_TEMPORARY = ".orbax-checkpoint-tmp"
_PARTS = {"_CHECKPOINT_METADATA", "notes", "state", "variables"}


# One thread for all folders: Orbax cannot write two checkpoints at a time in a process.
_WRITER = ThreadPoolExecutor(1)


class SealedFolder:
    """A folder of numbered checkpoints.

    Args:
      path: Path of the folder.
      keep: Number of checkpoints that are kept.
      lock: Lock that is taken before each `write`, unless it is held; by default a new one.

    Attributes:
      path: Absolute path of the folder.
      broken: Reason why a checkpoint could not be read, by its number; the next `write` removes these checkpoints.
      failure: Reason why the last `write` failed, and which checkpoint is still there; None after a success.
    """

    def __init__(self, path: Path, keep: int = 1, lock: FolderLock | None = None) -> None:
        import orbax.checkpoint as ocp  # takes half a second, which programs without checkpoints save

        from vae_jax.checkpoints.orbax_handlers import TreesArgs, TreesHandler

        self.path = path.absolute()
        self.broken: dict[int, str] = {}
        self.failure: str | None = None
        self._keep = keep
        self._lock = lock or FolderLock(self.path)
        self._writing: Future[None] | None = None
        self._failed: tuple[Any, ...] | None = None
        self._args, self._trees_args = ocp.args, TreesArgs
        self._restore_args = ocp.checkpoint_utils.construct_restore_args
        # With several processes, only this one writes these files and does not wait for the others.
        alone = {jax.process_index()}
        options = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes=alone if jax.process_count() > 1 else None
        )
        handler = TreesHandler(("state", "variables"), options, lambda folder: _seal_files(folder))
        self._checkpointer = ocp.Checkpointer(handler, multiprocessing_options=options)

    def prepare(self, beside: str | None = None) -> None:
        """Create the folder if it does not exist, and check that it can hold checkpoints; no file is changed.

        Args:
          beside: Name of another folder that is permitted in it.

        Raises:
          InputError: The folder can't be written, or it holds other files and no checkpoint.
        """
        require_writable_folder(self.path)
        entries = [entry for entry in self.path.iterdir() if not entry.name.startswith(".")]
        ours = [entry for entry in entries if _is_ours(entry) or entry.name == beside]
        foreign = sorted(entry.name for entry in entries if entry not in ours)
        if foreign and (not ours or any(name.isdecimal() for name in foreign)):
            some = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise InputError(f"{self.path} holds files that are not checkpoints ({some}); choose another folder")

    def remove_unfinished(self) -> None:
        """Remove incomplete checkpoints of a killed run or a failed `write`; requires the lock."""
        for name in self._names():
            if _TEMPORARY in name:
                shutil.rmtree(self.path / name, ignore_errors=True)

    def numbers(self) -> set[int]:
        """Numbers of the checkpoints in the folder, whole or broken."""
        return {int(name) for name in self._names() if name.isdecimal()}

    def _names(self) -> list[str]:
        """Names of the entries of the folder; empty if it can't be read."""
        try:
            return os.listdir(self.path)
        except OSError:
            return []

    def write(self, number: int, trees: Mapping[str, Mapping[str, Array]], content: Mapping[str, Any]) -> None:
        """Start to write a checkpoint in the background, unless one with this number exists.

        Call `finish` to wait for the write, and before the next `write`. The oldest checkpoints are removed after it,
        so that `keep` remain. A failed write leaves no files and sets `failure`.

        Args:
          number: Number of the checkpoint: the number of steps taken.
          trees: Leaves by name, for each tree.
          content: Further content of the checkpoint, as JSON can hold it.
        """
        if number in self.numbers() - self.broken.keys():
            return
        # Copies, because the memory of the arrays may be reused before they are written.
        raw = {tree: {name: _raw(leaf).copy() for name, leaf in leaves.items()} for tree, leaves in trees.items()}
        shapes = {tree: {name: _shape(leaf) for name, leaf in leaves.items()} for tree, leaves in trees.items()}
        plain = json.loads(json.dumps({"format": _FORMAT, "number": number} | dict(content)))
        self._writing = _WRITER.submit(self._write, number, raw, shapes, plain)

    def retry(self) -> None:
        """Start the last `write` again if it failed; `finish` waits for it."""
        if self._failed is not None:
            self._writing = _WRITER.submit(self._write, *self._failed)

    def finish(self) -> None:
        """Wait for the write that `write` or `retry` has started."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(
        self,
        number: int,
        raw: Mapping[str, Mapping[str, np.ndarray]],
        shapes: Mapping[str, Mapping[str, str]],
        content: dict[str, Any],
    ) -> None:
        try:
            self._lock.take()  # anew, where the folder has been replaced
            self._add(number, raw, content | {"trees": shapes})
        except Exception as error:  # Python's, Orbax's and TensorStore's own
            there = self.numbers() - self.broken.keys()
            others = f"checkpoint {max(there)} is still there" if there else "there is none before it"
            self.failure = f"checkpoint {number} can't be written to {self.path} ({_reason(error)}); {others}"
            self._failed = (number, raw, shapes, content)
        else:
            self.failure = self._failed = None
            self.broken.clear()

    def _add(self, number: int, raw: Mapping[str, Mapping[str, np.ndarray]], content: Mapping[str, Any]) -> None:
        """Write a checkpoint and remove the oldest ones; a failed write leaves no files."""
        items = {tree: self._args.PyTreeSave(leaves) for tree, leaves in raw.items()}
        args = self._trees_args(notes=self._args.JsonSave(content), **items)
        self.path.mkdir(parents=True, exist_ok=True)
        self._remove(self.broken)
        try:
            with _quiet():
                self._checkpointer.save(self.path / str(number), args=args)
        except Exception:
            self._remove([number])
            self.remove_unfinished()
            raise
        before = sorted(self.numbers() - {number})
        self._remove(before[: len(before) + 1 - self._keep])

    def read_content(self, number: int) -> dict[str, Any]:
        """The JSON content of a checkpoint.

        Raises:
          InputError: The checkpoint has another format.
          Exception: The checkpoint is broken; the type depends on the damage.
        """
        if (self.path / str(number) / _FILES).exists():  # formats 1 to 3 can be without it
            _require_whole(self.path / str(number), "notes")
        args = self._trees_args(notes=self._args.JsonRestore())
        with _quiet():
            content: dict[str, Any] = self._checkpointer.restore(self.path / str(number), args=args).notes
        # Formats 2 and 3 have it one level below.
        found = content["format"] if "format" in content else content["content"]["format"]
        if found != _FORMAT:
            version = "a newer version" if found > _FORMAT else "the older version that wrote it, or another folder"
            text = f"checkpoint {number} in {self.path} has format {found}, and this version reads {_FORMAT}"
            raise InputError(f"{text}; take {version}")
        if content["number"] != number:
            raise ValueError(f"it is the one of number {content['number']}")
        return content

    def read_tree(self, number: int, content: Mapping[str, Any], tree: str, like: Mapping[str, Array]) -> list[Array]:
        """The leaves of a tree, in the order of `like`, with the sharding of its leaves.

        Raises:
          InputError: The leaves differ from `like` in name, shape or type.
          Exception: The checkpoint is broken; the type depends on the damage.
        """
        there = content["trees"][tree]
        here = {name: _shape(leaf) for name, leaf in like.items()}
        for name in [*here, *there]:
            if there.get(name) != here.get(name):
                difference = f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
                text = f"checkpoint {number} in {self.path} was written by other code ({difference})"
                raise InputError(f"{text}; take that code, or another folder")
        _require_whole(self.path / str(number), tree)
        raw = {name: np.empty_like(_raw(leaf)) for name, leaf in like.items()}
        args = self._trees_args(**{tree: self._args.PyTreeRestore(raw, self._restore_args(raw))})
        with _quiet():
            leaves = self._checkpointer.restore(self.path / str(number), args=args)[tree]
        return [_typed(leaves[name], leaf) for name, leaf in like.items()]

    def _remove(self, numbers: Iterable[int]) -> None:
        if jax.process_index() == 0:
            for number in numbers:
                shutil.rmtree(self.path / str(number), ignore_errors=True)


def by_name(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their paths, in the order of the tree."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def newest_whole(folder: SealedFolder, read: Callable[[SealedFolder, int], Any]) -> Any:
    """The result of `read` for the newest checkpoint that is whole; None if there is none.

    A warning names the newer ones that are broken.
    """
    folder.broken.clear()
    while untried := folder.numbers() - folder.broken.keys():  # listed again: a run may be adding checkpoints
        step = max(untried)
        try:
            restored = read(folder, step)
        except InputError:
            raise
        except Exception as error:  # Orbax raises a bare Exception for some broken files
            folder.broken[step] = str(error).split("\n")[0] or type(error).__name__
            continue
        if folder.broken:
            text = f"{broken_reasons(folder)}; checkpoint {step} is taken instead"
            warnings.warn(text, CheckpointWarning, stacklevel=3)
        return restored
    return None


def refuse_broken(folder: SealedFolder, remedy: str) -> None:
    """Raise `InputError` if a checkpoint of the folder could not be read."""
    if folder.broken:
        raise InputError(f"no checkpoint in {folder.path} can be read ({broken_reasons(folder)}); {remedy}")


def broken_reasons(folder: SealedFolder) -> str:
    """A clause for each broken checkpoint of the folder."""
    return "; ".join(f"checkpoint {step} is broken: {reason}" for step, reason in folder.broken.items())


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the tracebacks that Orbax's threads log; the exceptions are raised all the same."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _seal_files(folder: Path) -> None:
    """Write the SHA-256 of each file of a checkpoint, by its relative path."""
    digests = {path.relative_to(folder).as_posix(): _sha256(path) for path in folder.rglob("*") if path.is_file()}
    (folder / _FILES).write_text(json.dumps(digests))


def _require_whole(folder: Path, part: str) -> None:
    """Raise `ValueError` if a file of a part of a checkpoint, or the list of files, is missing or has changed."""
    if not (folder / _FILES).is_file():
        raise ValueError(f"{_FILES} is missing")
    for name, digest in json.loads((folder / _FILES).read_bytes()).items():
        if not name.startswith(f"{part}/"):
            continue
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
        if _sha256(folder / name) != digest:
            raise ValueError(f"{name} has changed")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_ours(entry: Path) -> bool:
    if not entry.is_dir():
        return False
    try:
        names = set(os.listdir(entry))
    except FileNotFoundError:  # a run has just removed its oldest checkpoint
        return True
    return _TEMPORARY in entry.name or (entry.name.isdecimal() and (not names or bool(names & _PARTS)))


def _reason(error: Exception) -> str:
    """The error as one line: the operating system's message if there is one; TensorStore reports its code as text."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    code = int(found[1]) if found else getattr(error, "errno", None)
    return os.strerror(code) if code else str(error).split("\n")[0] or type(error).__name__


def _shape(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _raw(leaf: Array) -> np.ndarray:
    """The leaf as a NumPy array, a key as its data: Orbax refuses device arrays that only one of the processes has."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _typed(raw: np.ndarray, like: Array) -> Array:
    leaf = jax.random.wrap_key_data(jnp.asarray(raw), impl=jax.random.key_impl(like)) if _is_key(like) else raw
    return jax.device_put(leaf, like.sharding)


def _is_key(leaf: Array) -> bool:
    return bool(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key))
