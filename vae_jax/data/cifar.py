"""CIFAR-10 (Krizhevsky, 2009): 60,000 colour images of 32 x 32 pixels in ten classes, from the published binary files.

A binary file is a sequence of records of 3,073 bytes: a label from 0 to 9, then 1,024 bytes each of red, green and
blue, row by row. The Python version of the data set is not read, because unpickling a file can run any code in it.
"""

import hashlib
import lzma
import tarfile
import zlib
from pathlib import Path

import numpy as np

from vae_jax.data.dataset import Dataset, Split
from vae_jax.data.places import read_bytes
from vae_jax.errors import DataError, DataNotFoundError, size_of

FOLDER, ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
TRAIN, TEST = tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SIZE, _CHANNELS = 32, 3
_RECORD = 1 + _SIZE * _SIZE * _CHANNELS
_PICKLED = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
_PUBLISHED = "c32a1d4ab5d03f1284b67883e8d87530"  # MD5 of the archive, from the web page of the data set
_LARGEST = 2**30  # bytes; a longer member of an archive is no batch of CIFAR-10


def find_files(data_dir: Path) -> list[Path]:
    """The six binary files, or the archive of them, in `data_dir`, its sub-folder `cifar10` or the published folder.

    Returns:
      The five training batches and the test batch, or the archive alone.

    Raises:
      DataNotFoundError: There are neither binary files nor an archive; the message says so if there is the Python
        version of the data set.
      DataError: Some of the six files are missing.
    """
    homes = (data_dir / "cifar10", data_dir)
    for folder in (*(home / FOLDER for home in homes), *homes):
        files = [folder / name for name in (*TRAIN, TEST)]
        missing = [path.name for path in files if not path.is_file()]
        if not missing:
            return files
        if len(missing) < len(files):
            raise DataError(f"{folder} lacks {' and '.join(missing)}; add it, or unpack {ARCHIVE} again")
    for home in homes:
        if (archive := home / ARCHIVE).is_file():
            return [archive]
    for home in homes:
        for name in _PICKLED:
            if (pickled := home / name).exists():
                raise DataNotFoundError(
                    f"{pickled} is the Python version of CIFAR-10, whose pickle files can run any code; expected the "
                    f"binary version: put {ARCHIVE} or the folder {FOLDER}/ beside it"
                )
    raise DataNotFoundError(f"no CIFAR-10 files ({FOLDER}/ or {ARCHIVE}) in {data_dir}")


def read_dataset(files: list[Path]) -> Dataset:
    """Read the files that `find_files` returns.

    Raises:
      DataError: A file or the archive is damaged or lacks a batch, or a label is above 9.
    """
    if len(files) == 1:
        batches = _read_archive(files[0])
        source = f"CIFAR-10's binary archive {files[0].name}, by its MD5 {_published(files[0])}"
    else:
        batches = {path.name: _parse(read_bytes(path), str(path)) for path in files}
        source = f"CIFAR-10's binary files in {files[0].parent.name}/"
    images, labels = zip(*(batches[name] for name in TRAIN), strict=True)
    train = Split(np.concatenate(images), np.concatenate(labels))
    return Dataset("cifar10", train, Split(*batches[TEST]), source, class_names=CLASSES)


def _published(archive: Path) -> str:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return "the published one" if digest == _PUBLISHED else "not the published one"


def _read_archive(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The batches by name.

    Only members of the published names are read, in memory. A member outside of the folder is a sign of an archive that
    was made to overwrite files elsewhere when it is unpacked, so it is refused although nothing is written here.
    """
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if Path(member.name).is_absolute() or ".." in Path(member.name).parts:
                    raise DataError(
                        f"{path} has the member {member.name}, which is outside of its folder; download the archive "
                        "again from a source that you trust"
                    )
                folder, _, name = member.name.rpartition("/")
                if name not in (*TRAIN, TEST) or Path(folder).name not in ("", FOLDER):
                    continue
                file = archive.extractfile(member) if member.isfile() and member.size <= _LARGEST else None
                if file is None:
                    raise DataError(
                        f"{path}: {name} is a link or a folder, or has more than {size_of(_LARGEST)}; expected a file: "
                        "download the archive again"
                    )
                batches[name] = _parse(file.read(), f"{name} in {path}")
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path} is damaged, or not a tar archive ({error}); download it again") from error
    if missing := [name for name in (*TRAIN, TEST) if name not in batches]:
        raise DataError(f"{path} lacks {' and '.join(missing)}; download it again")
    return batches


def _parse(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 32, 32, 3] and labels [N] of a file."""
    if not content or len(content) % _RECORD:
        raise DataError(
            f"{where} has {len(content):,} bytes; expected a multiple of {_RECORD:,}, one label and {_RECORD - 1:,} "
            "bytes of an image: download it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    labels = records[:, 0].astype(np.int32)
    if labels.max() >= len(CLASSES):
        raise DataError(
            f"{where} has the label {labels.max()}; expected labels from 0 to {len(CLASSES) - 1} (CIFAR-100 has "
            "another layout): download the binary version of CIFAR-10"
        )
    planes = records[:, 1:].reshape(-1, _CHANNELS, _SIZE, _SIZE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels
