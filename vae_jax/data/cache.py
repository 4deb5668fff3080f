"""Cache of decoded data sets: arrays as .npy files in the user's cache folder, memory-mapped when they are read."""

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
    """The cache folder: `$XDG_CACHE_HOME/vae_jax`, by default `~/.cache/vae_jax`. It can be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vae_jax"


def file_name(name: str) -> str:
    """The name of a data set as part of a file name; slashes and colons, which TFDS uses, become underscores."""
    return re.sub(r"[^\w.-]", "_", name)


def cached(name: str, files: Iterable[Path], decode: Callable[[], Dataset]) -> Dataset:
    """The data set that `decode` reads from `files`; it is decoded again only if one of them changes.

    A damaged entry is decoded again. A cache that cannot be written gives a warning.
    """
    return cached_in(entry(name, files), decode)


def entry(name: str, files: Iterable[Path], settings: str = "") -> Path:
    """The cache folder of a data set, which depends on the sizes and modification times of its files.

    Args:
      name: Name of the data set.
      files: Files from which it is decoded; a folder stands for all files in it.
      settings: Other settings on which the pixels depend, such as their size.
    """
    stamps = [stamp for path in sorted(files) for stamp in _stamps(path)]
    key = hashlib.sha256((repr(stamps) + settings).encode()).hexdigest()[:16]
    return cache_dir() / f"{file_name(name)}-{key}"


def cached_in(folder: Path, decode: Callable[[], Dataset]) -> Dataset:
    """As `cached`, with the folder that `entry` returns."""
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
    """Finished parts of a decoding that takes minutes, from which a killed run resumes.

    A part is a few named arrays in one .npz file, renamed to its final name when it is complete. A damaged part counts
    as missing; the zip format has checksums.

    Attributes:
      folder: Folder of the parts.
    """

    folder: Path

    def read(self, part: str) -> dict[str, np.ndarray] | None:
        """The arrays of a part, or None if it is missing or damaged."""
        try:
            with (self.folder / f"{part}.npz").open("rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def write(self, part: str, arrays: dict[str, Any]) -> None:
        """Write a part; a failure is ignored, because `cached_in` warns if the cache cannot be written."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = self.folder / f"{part}.{os.getpid()}.tmp"
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
            os.replace(temporary, self.folder / f"{part}.npz")

    def remove(self) -> None:
        """Remove all parts, after the whole data set has been cached."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and modification time of a file, or of all files in a folder, recursively."""
    if not path.is_dir():
        return [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)]
    stamps, folders = [], [str(path.resolve())]
    while folders:
        with os.scandir(folders.pop()) as entries:  # several times as fast as pathlib; a folder can hold 200,000 files
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
    manifest = {
        "name": dataset.name,
        "source": dataset.source,
        "sha256": digests,
        "attributes": attribute_names,
        "class_names": dataset.class_names,
    }
    temporary = folder / f"{_MANIFEST}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(manifest))
    os.replace(temporary, folder / _MANIFEST)  # last, because an entry without it is ignored


def _replace(path: Path, array: np.ndarray) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, array)
    os.replace(temporary, path)


def _read(folder: Path) -> Dataset | None:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        names = manifest.get("attributes", {})
        splits: dict[str, Any] = {split: _read_split(folder, split, names.get(split)) for split in manifest["sha256"]}
        if {name: split.digest for name, split in splits.items()} == manifest["sha256"]:
            classes = manifest.get("class_names")
            class_names = None if classes is None else tuple(classes)
            return Dataset(manifest["name"], **splits, source=manifest["source"], class_names=class_names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        pass  # missing or damaged, so that it is decoded again
    return None


def _read_split(folder: Path, name: str, attribute_names: list[str] | None) -> Split:
    labels = folder / f"{name}_labels.npy"
    return Split(
        np.load(folder / f"{name}_images.npy", mmap_mode="r"),
        np.load(labels) if labels.exists() else None,
        Attributes(tuple(attribute_names), np.load(folder / f"{name}_attributes.npy")) if attribute_names else None,
    )
