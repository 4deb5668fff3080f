"""Data sets by name, from local files, TFDS, a download, or the stand-ins that need no files."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

from vae_jax.data import cifar, idx, tfds
from vae_jax.data.cache import cache_dir, cached
from vae_jax.data.celeba import load_celeba
from vae_jax.data.dataset import Dataset
from vae_jax.data.places import data_folder, first_found
from vae_jax.errors import DataNotFoundError

_REMEDIES = (
    "Three ways to supply it: put its four IDX files in a folder and give that folder as the data folder; "
    "prepare it with TFDS (file_format='array_record'); or run once with network access."
)
_CIFAR_REMEDIES = (
    f"Two ways to supply it: put {cifar.FOLDER}/ or {cifar.ARCHIVE} in a folder and give that folder as the data "
    "folder; or prepare cifar10 with TFDS (file_format='array_record')."
)


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """Load a data set by name, from the first place that has it.

    With `data_dir`: IDX files (in `data_dir` or its sub-folder `name`), or a data set that TFDS prepared there.
    Without: a data set in the default folder of TFDS, or a download through TFDS. `celeba` and `cifar10` are read from
    their published files (see `load_celeba` and `vae_jax.data.cifar`). `digits` is part of scikit-learn; `faces` and
    `faces32` are synthetic (see `vae_jax.data.synthetic`). Decoded, downloaded and synthetic data are cached (see
    `vae_jax.data.cache`).

    Args:
      name: Name of a data set of TFDS, `celeba`, `cifar10`, `digits`, `faces`, `faces32`, or any name for IDX files in
        `data_dir`.
      data_dir: Folder with the data, or None.

    Returns:
      The data set, with `train` and `test` splits.

    Raises:
      DataNotFoundError: None of the places has it; the message lists the places and the remedies.
      DataError: A place has it, but it cannot be used.
    """
    return _LOADERS.get(name, partial(_load_labelled, name))(None if data_dir is None else data_folder(data_dir))


def load_or_stand_in(name: str, data_dir: str | Path | None = None) -> tuple[Dataset, str | None]:
    """As `load`, with a stand-in if `data_dir` is None and the data set is not found.

    The stand-in for CelebA is the synthetic faces, for CIFAR-10 the same faces at 32 x 32 pixels, for all others the
    handwritten digits of scikit-learn.

    Returns:
      The data set; and None, or for a stand-in a text that lists the places that were searched.
    """
    try:
        return load(name, data_dir), None
    except DataNotFoundError as error:
        if data_dir is not None:
            raise
        stand_in, described = _STAND_INS.get(name, ("digits", "scikit-learn's handwritten digits"))
        return load(stand_in), f"{error} Using {described} instead."


def _load_labelled(name: str, folder: Path | None) -> Dataset:
    """Load images with labels from IDX files or TFDS."""
    if folder is not None:
        places: list[Callable[[], Dataset]] = [
            lambda: _from_idx(name, folder),
            lambda: _from_prepared(name, folder),
        ]
    else:
        places = [
            lambda: _from_prepared(name, None),
            lambda: _from_prepared(name, _downloads()),
            lambda: _from_download(name),
        ]
    return first_found(name, places, _REMEDIES)


def _load_cifar10(folder: Path | None) -> Dataset:
    """Load CIFAR-10 from its binary files, or as TFDS has prepared it."""
    places: list[Callable[[], Dataset]] = [
        lambda: replace(_from_prepared("cifar10", folder), class_names=cifar.CLASSES)
    ]
    if folder is not None:
        places.insert(0, lambda: _from_cifar(folder))
    return first_found("cifar10", places, _CIFAR_REMEDIES)


def _load_synthetic(name: str, folder: Path | None) -> Dataset:
    """Load a stand-in, whose module is imported by name, so that no other module depends on it."""
    if folder is not None:
        return _load_labelled(name, folder)
    return import_module(f"vae_jax.data.synthetic.{name}").load()


# Loaders of data sets that are not images with labels from IDX files or TFDS.
_LOADERS: dict[str, Callable[[Path | None], Dataset]] = {
    "celeba": load_celeba,
    "cifar10": _load_cifar10,
    "digits": partial(_load_synthetic, "digits"),
    "faces": partial(_load_synthetic, "faces"),
    "faces32": partial(_load_synthetic, "faces32"),
}


# Stand-ins other than the handwritten digits: name and description.
_STAND_INS = {
    "celeba": ("faces", "synthetic faces"),
    "cifar10": ("faces32", "synthetic faces of 32 x 32 pixels"),
}


def _from_idx(name: str, folder: Path) -> Dataset:
    files = idx.find_files(name, folder)
    return cached(name, files.values(), lambda: idx.read_dataset(name, files))


def _from_cifar(folder: Path) -> Dataset:
    files = cifar.find_files(folder)
    return cached("cifar10", files, lambda: cifar.read_dataset(files))


def _from_prepared(name: str, data_dir: Path | None) -> Dataset:
    files = [path for path in tfds.prepared_folder(name, data_dir).iterdir() if path.is_file()]
    return cached(name, files, lambda: tfds.read_prepared(name, data_dir))


def _from_download(name: str) -> Dataset:
    tfds.download(name, _downloads())
    return _from_prepared(name, _downloads())


def _downloads() -> Path:
    """The folder of downloads; the default folder of TFDS may hold the same data set in a format for TensorFlow."""
    return cache_dir() / "tensorflow_datasets"
