"""Numbered trees of arrays in a folder, each with JSON about it, written by Orbax under seals of SHA-256.

Orbax writes into a temporary folder and renames it, so that what is killed leaves no numbered one. It does not notice a
byte that has changed since, nor that files are missing before it stumbles over them. That is what the seals are for:
one of the arrays and the JSON, and one of the files, which tells a broken one before Orbax's threads meet it.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vae_jax.errors import CheckpointError, InputError, require_writable_folder

_FORMAT = 3
_FILES = "files.json"
_TEMPORARY = ".orbax-checkpoint-tmp"
_PARTS = {"_CHECKPOINT_METADATA", "notes", "state", "variables"}


# One for all folders: Orbax does not write two at a time within a process.
_WRITER = ThreadPoolExecutor(1)


class SealedFolder:
    """A folder of them.

    Attributes:
      path: of the folder.
      broken: why, by the number of each that could not be read; the next `write` takes their place.
    """

    def __init__(self, path: Path, keep: int = 1) -> None:
        import orbax.checkpoint as ocp  # half a second that a program without checkpoints does without

        self.path = path.absolute()
        self.broken: dict[int, str] = {}
        self._keep = keep
        self._writing: Future[None] | None = None
        self._args = ocp.args
        # Of several processes this one is alone with its files: the others shall not be waited for.
        alone = {jax.process_index()}
        options = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes=alone if jax.process_count() > 1 else None
        )
        handler = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(multiprocessing_options=options)
        )
        self._checkpointer = ocp.Checkpointer(handler, multiprocessing_options=options)

    def prepare(self, beside: str | None = None) -> None:
        """Make the folder ready to be written to, without what a killed run has left half-written.

        Args:
          beside: the name of a folder that may be there too.

        Raises:
          InputError: it can't be written, or holds anything else and no checkpoint.
        """
        require_writable_folder(self.path)
        entries = [entry for entry in self.path.iterdir() if not entry.name.startswith(".")]
        ours = [entry for entry in entries if _is_ours(entry) or entry.name == beside]
        foreign = sorted(entry.name for entry in entries if entry not in ours)
        if foreign and (not ours or any(name.isdecimal() for name in foreign)):
            some = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
            raise InputError(f"{self.path} holds something else than checkpoints ({some}); choose another folder")
        if jax.process_index() == 0:
            for entry in ours:
                if _TEMPORARY in entry.name:
                    shutil.rmtree(entry)

    def numbers(self) -> set[int]:
        """Of what is there, whole or not."""
        if not self.path.is_dir():
            return set()
        return {int(entry.name) for entry in self.path.iterdir() if entry.name.isdecimal()}

    def write(self, number: int, trees: Mapping[str, Mapping[str, Array]], content: Mapping[str, Any]) -> None:
        """Begin to add one, unless there is one of that number; `finish` waits for it.

        The oldest go if they have become too many.

        Args:
          number: of steps.
          trees: leaves by name, by the name of the tree.
          content: what else to keep, as JSON can hold it.

        Raises:
          CheckpointError: the one before can't be written.
        """
        self.finish()
        if number in self.numbers() - self.broken.keys():
            return
        # Copies, for the arrays' memory may be used again before they are written.
        raw = {tree: {name: _raw(leaf).copy() for name, leaf in leaves.items()} for tree, leaves in trees.items()}
        shapes = {tree: {name: _shape(leaf) for name, leaf in leaves.items()} for tree, leaves in trees.items()}
        plain = json.loads(json.dumps({"format": _FORMAT, "number": number} | dict(content)))
        self._writing = _WRITER.submit(self._write, number, raw, shapes, plain)

    def finish(self) -> None:
        """Wait for what `write` has begun.

        Raises:
          CheckpointError: it can't be written.
        """
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
        content["trees"] = {tree: {"sha256": _digest(raw[tree]), "leaves": shapes[tree]} for tree in raw}
        notes = {"sha256": _seal(content), "content": content}
        items = {tree: self._args.StandardSave(leaves) for tree, leaves in raw.items()}
        args = self._args.Composite(notes=self._args.JsonSave(notes), **items)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._remove(self.broken)
            with _quiet():
                self._checkpointer.save(self.path / str(number), args=args)
            # A run that is killed before it is done has its arrays' seal alone, which is enough.
            _seal_files(self.path / str(number))
            before = sorted(self.numbers() - {number})
            self._remove(before[: len(before) + 1 - self._keep])
        except Exception as error:  # Python's, Orbax's and TensorStore's own
            reason = str(error).split("\n")[0] or type(error).__name__
            there = self.numbers() - self.broken.keys()
            others = f"checkpoint {max(there)} is still there to go on from" if there else "there is none before it"
            text = f"checkpoint {number} can't be written to {self.path} ({reason}); {others}"
            raise CheckpointError(text) from error
        self.broken.clear()

    def read_content(self, number: int) -> dict[str, Any]:
        """What was written with the trees.

        Raises:
          InputError: it is of another format.
          Exception: of any kind, where it is broken.
        """
        _require_whole(self.path / str(number), "notes")
        args = self._args.Composite(notes=self._args.JsonRestore())
        with _quiet():
            notes = self._checkpointer.restore(self.path / str(number), args=args).notes
        found = notes.get("format")
        if found is None:
            content: dict[str, Any] = notes["content"]
            if notes["sha256"] != _seal(content):
                raise ValueError("its notes are not those that were saved")
            found = content["format"]
        if found != _FORMAT:
            version = "a newer version" if found > _FORMAT else "the older version that wrote it, or another folder"
            text = f"checkpoint {number} in {self.path} has format {found}, and this version reads {_FORMAT}"
            raise InputError(f"{text}; take {version}")
        if content["number"] != number:
            raise ValueError(f"it is the one of number {content['number']}")
        return content

    def read_tree(self, number: int, content: Mapping[str, Any], tree: str, like: Mapping[str, Array]) -> list[Array]:
        """The leaves of a tree, in the order of `like`, whose places on the devices they take.

        Raises:
          InputError: it has other leaves than `like`.
          Exception: of any kind, where it is broken.
        """
        there = content["trees"][tree]["leaves"]
        here = {name: _shape(leaf) for name, leaf in like.items()}
        for name in [*here, *there]:
            if there.get(name) != here.get(name):
                difference = f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"
                text = f"checkpoint {number} in {self.path} was written by other code ({difference})"
                raise InputError(f"{text}; take that code, or another folder")
        _require_whole(self.path / str(number), tree)
        raw = {name: np.empty_like(_raw(leaf)) for name, leaf in like.items()}
        args = self._args.Composite(**{tree: self._args.StandardRestore(raw)})
        with _quiet():
            leaves = self._checkpointer.restore(self.path / str(number), args=args)[tree]
        if _digest(leaves) != content["trees"][tree]["sha256"]:
            raise ValueError("its arrays are not those that were saved")
        return [_typed(leaves[name], leaf) for name, leaf in like.items()]

    def _remove(self, numbers: Iterable[int]) -> None:
        if jax.process_index() == 0:
            for number in numbers:
                shutil.rmtree(self.path / str(number), ignore_errors=True)


def by_name(tree: PyTree) -> dict[str, Any]:
    """Its leaves by their paths, in the order of the tree."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracebacks that Orbax's threads log: what they met is raised too."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _seal_files(folder: Path) -> None:
    """Write the SHA-256 of each file of a checkpoint, by its path within; all of them or none."""
    digests = {path.relative_to(folder).as_posix(): _sha256(path) for path in folder.rglob("*") if path.is_file()}
    temporary = folder / f"{_FILES}.tmp"
    temporary.write_text(json.dumps(digests))
    temporary.replace(folder / _FILES)


def _require_whole(folder: Path, part: str) -> None:
    """Raise an exception where a file of a part of a checkpoint is not as it was sealed."""
    if (folder / _FILES).is_file():
        for name, digest in json.loads((folder / _FILES).read_bytes()).items():
            if not name.startswith(f"{part}/"):
                continue
            if not (folder / name).is_file():
                raise ValueError(f"{name} is missing")
            if _sha256(folder / name) != digest:
                raise ValueError(f"{name} has changed")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_ours(entry: Path) -> bool:
    if not entry.is_dir():
        return False
    names = {part.name for part in entry.iterdir()}
    return _TEMPORARY in entry.name or (entry.name.isdecimal() and (not names or bool(names & _PARTS)))


def _shape(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _raw(leaf: Array) -> np.ndarray:
    """On the host, a key by its data: of several processes, Orbax takes no array that one alone has on its devices."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _typed(raw: np.ndarray, like: Array) -> Array:
    leaf = jax.random.wrap_key_data(jnp.asarray(raw), impl=jax.random.key_impl(like)) if _is_key(like) else raw
    return jax.device_put(leaf, like.sharding)


def _is_key(leaf: Array) -> bool:
    return bool(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _digest(leaves: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the leaves: their names, types, shapes and bytes."""
    sha = hashlib.sha256()
    for name, leaf in sorted(leaves.items()):
        sha.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
