"""Decode once: a data set's pixels as .npy files beside the user's other caches, memory-mapped when read again."""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from vae_jax.data.dataset import Dataset, Split

_MANIFEST = "dataset.json"


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/vae_jax`, by default `~/.cache/vae_jax`. It may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vae_jax"


def file_name(name: str) -> str:
    """A data set's name as part of a file name: TFDS has names with slashes and colons in them."""
    return re.sub(r"[^\w.-]", "_", name)


def cached(name: str, files: Iterable[Path], decode: Callable[[], Dataset]) -> Dataset:
    """The data set that `decode` makes of `files`, decoded again only when one of them has changed.

    An entry that is damaged is decoded anew; a cache that can't be written is a warning, not an error.
    """
    stamps = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(files)]
    key = hashlib.sha256(repr(stamps).encode()).hexdigest()[:16]
    folder = cache_dir() / f"{file_name(name)}-{key}"
    if (dataset := _read(folder)) is not None:
        return dataset
    dataset = decode()
    try:
        _write(folder, dataset)
    except OSError as error:
        warnings.warn(f"cannot cache {name} in {folder} ({error}); it is decoded again next time", stacklevel=3)
    return dataset


def _write(folder: Path, dataset: Dataset) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for split_name, split in (("train", dataset.train), ("test", dataset.test)):
        digests[split_name] = split.digest
        _replace(folder / f"{split_name}_images.npy", split.images)
        if split.labels is not None:
            _replace(folder / f"{split_name}_labels.npy", split.labels)
    manifest = {"name": dataset.name, "source": dataset.source, "sha256": digests}
    temporary = folder / f"{_MANIFEST}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(manifest))
    os.replace(temporary, folder / _MANIFEST)  # last: an entry without it does not count


def _replace(path: Path, array: np.ndarray) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, array)
    os.replace(temporary, path)


def _read(folder: Path) -> Dataset | None:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        splits = {name: _read_split(folder, name) for name in ("train", "test")}
        if {name: split.digest for name, split in splits.items()} == manifest["sha256"]:
            return Dataset(manifest["name"], **splits, source=manifest["source"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        pass  # missing or damaged: decode again
    return None


def _read_split(folder: Path, name: str) -> Split:
    labels = folder / f"{name}_labels.npy"
    return Split(
        np.load(folder / f"{name}_images.npy", mmap_mode="r"),
        np.load(labels) if labels.exists() else None,
    )
