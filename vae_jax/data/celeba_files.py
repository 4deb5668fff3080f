"""Readers of the published files of CelebA, which are checked against their format and against each other.

`img_align_celeba.zip` or the folder `img_align_celeba/` has the images. `list_attr_celeba.txt` has their number, a line
of attribute names, and a line for each image: its name and -1 or 1 for each attribute. `list_eval_partition.txt` has a
line for each image: its name and 0 (train), 1 (validation) or 2 (test).
"""

import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_jax.data.attributes import Attributes
from vae_jax.errors import DataError, DataNotFoundError, some

IMAGES, TABLE, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
_SUFFIXES = (".jpg", ".jpeg", ".png")


class Files(NamedTuple):
    """Paths of the files."""

    images: Path  # a zip file or a folder
    table: Path
    partition: Path | None


def find_files(data_dir: Path) -> Files:
    """The files in the sub-folder `celeba` of `data_dir`, or in `data_dir`; a zip file is preferred to a folder.

    Raises:
      DataNotFoundError: There are neither images nor attributes.
      DataError: There is only one of the two.
    """
    for folder in (data_dir / "celeba", data_dir):
        archive, unpacked = folder / f"{IMAGES}.zip", folder / IMAGES
        table, partition = folder / TABLE, folder / PARTITION
        images = archive if archive.is_file() else unpacked if unpacked.is_dir() else None
        if images and table.is_file():
            return Files(images, table, partition if partition.is_file() else None)
        if images or table.is_file():
            missing = TABLE if images else f"{IMAGES}.zip (or the folder {IMAGES}/)"
            raise DataError(f"{folder} lacks {missing}; add it")
    raise DataNotFoundError(f"no CelebA files ({IMAGES}.zip or {IMAGES}/, and {TABLE}) in {data_dir}")


@contextmanager
def image_readers(path: Path) -> Iterator[dict[str, Callable[[], bytes]]]:
    """Context manager of functions that read the bytes of each image, by its name without folders.

    Raises:
      DataError: The file is not a zip file, or two images have one name.
    """
    if path.is_dir():
        yield _by_name(path, ((name, partial(_read_bytes, name)) for name in _walk(path)))
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is a damaged zip file, or not a zip file ({error}); download it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file and its permissions") from error
    with archive:
        yield _by_name(path, ((member.filename, partial(archive.read, member)) for member in archive.infolist()))


def _by_name(path: Path, files: Iterable[tuple[str, Callable[[], bytes]]]) -> dict[str, Callable[[], bytes]]:
    readers: dict[str, Callable[[], bytes]] = {}
    for full_name, read in files:
        name = os.path.basename(full_name)
        if not name.lower().endswith(_SUFFIXES) or name.startswith("."):  # macOS adds ._000001.jpg to 000001.jpg
            continue
        if name in readers:
            raise DataError(f"{path} holds {name} more than once, in several folders; remove all copies but one")
        readers[name] = read
    return readers


def _walk(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield os.path.join(parent, name)


def _read_bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def require_same_images(images: Collection[str], names: Collection[str], files: Files) -> None:
    """Raise `DataError` unless the table and the images have the same names."""
    present, listed = set(images), set(names)
    if present.isdisjoint(listed):
        raise DataError(
            f"{files.images} holds no image that {TABLE} lists; expected {some(sorted(listed))}, "
            f"found {some(sorted(present)) or 'none at all'}: use an archive and a table of the same data set"
        )
    differences = {
        f"attributes in {TABLE} without an image": listed - present,
        "images without attributes": present - listed,
    }
    found = [f"{what}: {len(which):,} ({some(sorted(which))})" for what, which in differences.items() if which]
    if found:
        raise DataError(f"{files.images} has {', and '.join(found)}; add the missing ones, or remove those listed")


def read_table(path: Path) -> tuple[list[str], Attributes]:
    """The names of the images, and their attributes.

    Raises:
      DataError: The file has another format, or its first line states another number of images.
    """
    lines = _lines(path)
    if len(lines) < 3 or not lines[0].isdecimal():
        raise DataError(
            f"{path} begins with {_shortened(lines[0]) if lines else 'nothing: it is empty'}; expected the number of "
            "images, a line of attribute names, and a line for each image"
        )
    count, names, rows = int(lines[0]), tuple(lines[1].split()), lines[2:]
    if count != len(rows):
        raise DataError(f"{path} has {len(rows):,} images; its first line states {count:,}: download it again")
    images = []
    values = np.empty((count, len(names)), np.bool_)
    for number, row in enumerate(rows):
        image, *marks = row.split()
        if len(marks) != len(names) or not set(marks) <= {"-1", "1"}:
            expected = f"a file name and {len(names)} values of -1 or 1"
            raise DataError(f"{path} has the line {_shortened(row)}; expected {expected}")
        images.append(image)
        values[number] = [mark == "1" for mark in marks]
    _require_unique(path, images)
    try:
        return images, Attributes(names, values)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_partition(path: Path, images: Sequence[str]) -> np.ndarray:
    """The split of each image, int [N]: 0 train, 1 validation, 2 test. The file may list more images.

    Raises:
      DataError: The file has another format, or lacks images.
    """
    rows = [line.split() for line in _lines(path)]
    for row in rows:
        if len(row) != 2 or row[1] not in ("0", "1", "2"):
            expected = "a file name and 0 (train), 1 (validation) or 2 (test)"
            raise DataError(f"{path} has the line {_shortened(' '.join(row))}; expected {expected}")
    _require_unique(path, [image for image, _ in rows])
    splits = {image: int(number) for image, number in rows}
    if missing := [image for image in images if image not in splits]:
        raise DataError(
            f"{path} lacks images of {TABLE}: {len(missing):,} ({some(missing)}); complete it, or remove it for a "
            "partition by a hash of the file names"
        )
    return np.array([splits[image] for image in images])


def seeded_partition(images: Iterable[str]) -> np.ndarray:
    """As `read_partition`, 80 : 10 : 10, by a hash of each name, independent of the other images."""
    tenths = [int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big") % 10 for image in images]
    return np.clip(np.array(tenths) - 7, 0, 2)  # 0 to 7, 8, 9


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text ({error}); download it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file and its permissions") from error


def _require_unique(path: Path, images: Iterable[str]) -> None:
    if twice := [image for image, count in Counter(images).items() if count > 1]:
        raise DataError(f"{path} has {some(twice)} more than once; expected one line per image")


def _shortened(line: str) -> str:
    return repr(line if len(line) <= 60 else f"{line[:60]}...")
