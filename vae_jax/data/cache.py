"""Decode once: a data set's pixels as .npy files beside the user's other caches, memory-mapped when read again."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data.attributes import Attributes
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
    return cached_in(entry(name, files), decode)


def entry(name: str, files: Iterable[Path], settings: str = "") -> Path:
    """The cache's folder for a data set; another one as soon as a file changes.

    Args:
      name: of the data set.
      files: what it is decoded from; a folder stands for all the files in it.
      settings: whatever else the pixels depend on, such as their size.
    """
    stamps = [stamp for path in sorted(files) for stamp in _stamps(path)]
    key = hashlib.sha256((repr(stamps) + settings).encode()).hexdigest()[:16]
    return cache_dir() / f"{file_name(name)}-{key}"


def cached_in(folder: Path, decode: Callable[[], Dataset]) -> Dataset:
    """As `cached`, in a folder that `entry` has given."""
    if (dataset := _read(folder)) is not None:
        return dataset
    dataset = decode()
    try:
        _write(folder, dataset)
    except OSError as error:
        warnings.warn(f"cannot cache {dataset.name} in {folder} ({error}); it is decoded again next time", stacklevel=4)
    return dataset


@dataclass(frozen=True)
class Parts:
    """The finished parts of a decoding that takes minutes, so that a killed one can be resumed.

    A part is a few named arrays in one .npz file. It has its name only once it is whole, and a damaged one counts as
    missing: the zip around the arrays has checksums.
    """

    folder: Path

    def read(self, part: str) -> dict[str, np.ndarray] | None:
        """The arrays of a part, or None where it is missing or damaged."""
        try:
            with (self.folder / f"{part}.npz").open("rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def write(self, part: str, arrays: dict[str, Any]) -> None:
        """Keep a part, if it can be kept: `cached_in` warns of a cache that can't be written."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = self.folder / f"{part}.{os.getpid()}.tmp"
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
            os.replace(temporary, self.folder / f"{part}.npz")

    def remove(self) -> None:
        """Remove all the parts, once the whole is cached."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a file, or of each file in a folder and the folders in it."""
    if not path.is_dir():
        return [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)]
    stamps, folders = [], [str(path.resolve())]
    while folders:
        with os.scandir(folders.pop()) as entries:  # several times as fast as pathlib, and a folder may hold 200,000
            for item in entries:
                if item.is_dir():
                    folders.append(item.path)
                else:
                    stamps.append((item.path, item.stat().st_size, item.stat().st_mtime_ns))
    return sorted(stamps)


def _write(folder: Path, dataset: Dataset) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    digests, attribute_names = {}, {}
    for split_name, split in dataset.splits.items():
        digests[split_name] = split.digest
        _replace(folder / f"{split_name}_images.npy", split.images)
        if split.labels is not None:
            _replace(folder / f"{split_name}_labels.npy", split.labels)
        if split.attributes is not None:
            _replace(folder / f"{split_name}_attributes.npy", split.attributes.values)
            attribute_names[split_name] = split.attributes.names
    manifest = {"name": dataset.name, "source": dataset.source, "sha256": digests, "attributes": attribute_names}
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
        names = manifest.get("attributes", {})
        splits = {split: _read_split(folder, split, names.get(split)) for split in manifest["sha256"]}
        if {name: split.digest for name, split in splits.items()} == manifest["sha256"]:
            return Dataset(manifest["name"], **splits, source=manifest["source"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        pass  # missing or damaged: decode again
    return None


def _read_split(folder: Path, name: str, attribute_names: list[str] | None) -> Split:
    labels = folder / f"{name}_labels.npy"
    return Split(
        np.load(folder / f"{name}_images.npy", mmap_mode="r"),
        np.load(labels) if labels.exists() else None,
        Attributes(tuple(attribute_names), np.load(folder / f"{name}_attributes.npy")) if attribute_names else None,
    )
