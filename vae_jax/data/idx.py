"""Reader of IDX files, the format of MNIST: four files, with or without .gz, whose headers and sizes are checked.

A file is two zero bytes, the type of a value (8 is an unsigned byte), the number of dimensions, each dimension as a
big-endian 32-bit count, and the values.
"""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

from vae_jax.data.dataset import Dataset, Split
from vae_jax.data.places import read_bytes
from vae_jax.errors import DataError, DataNotFoundError

FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
_DIMENSIONS = {"train_images": 3, "train_labels": 1, "test_images": 3, "test_labels": 1}

# MD5 of the four published files after decompression, because their .gz files differ between mirrors.
_PUBLISHED_MNIST = {
    "train_images": "6bbc9ace898e44ae57da46a324031adb",
    "train_labels": "a25bea736e30d166cdddb491f175f624",
    "test_images": "2646ac647ad5339dbf082846283269ea",
    "test_labels": "27ae3e4e09519cfbb04c329615203637",
}


def find_files(name: str, data_dir: Path) -> dict[str, Path]:
    """The four files in the sub-folder `name` of `data_dir`, or in `data_dir`.

    Raises:
      DataNotFoundError: None of the four files was found.
      DataError: Some of the files are missing.
    """
    for folder in (data_dir / name, data_dir):
        found = {part: path for part, stem in FILES.items() if (path := _find(folder, stem))}
        missing = sorted(FILES[part] for part in FILES.keys() - found.keys())
        if not missing:
            return found
        if found:
            raise DataError(f"{folder} lacks {' and '.join(missing)} (with or without .gz); add them")
    raise DataNotFoundError(f"no IDX files ({', '.join(FILES.values())}, with or without .gz) in {data_dir}")


def _find(folder: Path, stem: str) -> Path | None:
    # Some mirrors have a dot instead of the second dash: train-images.idx3-ubyte.
    for spelling in (stem, stem.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            if (path := folder / (spelling + suffix)).is_file():
                return path
    return None


def read_dataset(name: str, files: dict[str, Path]) -> Dataset:
    """Decode the four files.

    Raises:
      DataError: A file is damaged or has other contents than its name says, or images and labels differ in number.
    """
    arrays, digests = {}, {}
    for part, path in files.items():
        content = _read_bytes(path)
        arrays[part] = _parse(content, path, _DIMENSIONS[part])
        digests[part] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    source = f"IDX files in {files['train_images'].parent.name}/"
    if digests == _PUBLISHED_MNIST:
        source += ", by their MD5 the published MNIST"
    elif name == "mnist":
        source += ", by their MD5 not the published MNIST"
    try:
        return Dataset(
            name,
            Split(arrays["train_images"][..., None], arrays["train_labels"].astype(np.int32)),
            Split(arrays["test_images"][..., None], arrays["test_labels"].astype(np.int32)),
            source,
        )
    except DataError as error:
        raise DataError(f"{files['train_images'].parent}: {error}") from error


def read_array(path: Path, dimensions: int) -> np.ndarray:
    """The values of one IDX file of unsigned bytes with this number of dimensions."""
    return _parse(_read_bytes(path), path, dimensions)


def _read_bytes(path: Path) -> bytes:
    content = read_bytes(path)
    try:
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}); download it again") from error


def _parse(content: bytes, path: Path, dimensions: int) -> np.ndarray:
    header = 4 + 4 * dimensions
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise DataError(
            f"{path} begins with the bytes {content[:4].hex(' ') or '(none: it is empty)'}; an IDX file of unsigned "
            f"bytes in {dimensions} dimension{'s' if dimensions > 1 else ''} begins with {magic.hex(' ')}: "
            "replace the file"
        )
    if len(content) < header:
        raise DataError(f"{path} ends within its header of {header} bytes; download it again")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=dimensions, offset=4))
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        raise DataError(f"{path} has {len(content):,} bytes; its header states {expected:,}: download it again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
