"""Where data sets come from, and in which order the places are tried."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from vae_jax.data import idx, tfds
from vae_jax.data.cache import cache_dir, cached
from vae_jax.data.celeba import load_celeba
from vae_jax.data.dataset import Dataset
from vae_jax.data.places import data_folder, first_found
from vae_jax.errors import DataNotFoundError

_REMEDIES = (
    "Three ways to supply it: put its four IDX files in a folder and name that folder as the data folder; "
    "prepare it with TFDS (file_format='array_record'); or run once with a network."
)


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """A data set by name, from the first place that has it.

    With `data_dir`: its IDX files (in the subfolder `name` or there), or what TFDS has prepared there. Without: what
    TFDS has prepared in its own folder, or a download through TFDS. `digits` comes with scikit-learn, `faces` are drawn
    (see `vae_jax.data.synthetic`), `celeba` is read from its own layout (see `load_celeba`). What has been decoded,
    downloaded or drawn once is cached (see `vae_jax.data.cache`).

    Args:
      name: a name known to TFDS, `celeba`, `faces`, or any name for IDX files in `data_dir`.
      data_dir: a folder, or None.

    Raises:
      DataNotFoundError: none of the places has it; the message tells what was tried.
      DataError: a place has it, but it can't be used.
    """
    return _LOADERS.get(name, partial(_load_labelled, name))(None if data_dir is None else data_folder(data_dir))


def load_or_stand_in(name: str, data_dir: str | Path | None = None) -> tuple[Dataset, str | None]:
    """As `load`, but where no `data_dir` was given and the data set is nowhere, a stand-in takes its place.

    For CelebA it is the drawn faces, for all others the handwritten digits that come with scikit-learn.

    Returns:
      The data set, and the sentence that says what was tried if it is the stand-in.
    """
    try:
        return load(name, data_dir), None
    except DataNotFoundError as error:
        if data_dir is not None:
            raise
        stand_in, described = _STAND_INS.get(name, ("digits", "scikit-learn's handwritten digits"))
        return load(stand_in), f"{error} Going on with {described} instead."


def _load_labelled(name: str, folder: Path | None) -> Dataset:
    """Images with a label each: whatever comes as IDX files, or has a label in TFDS."""
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


def _load_synthetic(name: str, folder: Path | None) -> Dataset:
    """A stand-in, whose module is imported by name, so that nothing else depends on it."""
    if folder is not None:
        return _load_labelled(name, folder)
    return import_module(f"vae_jax.data.synthetic.{name}").load()


# What is not simply images with a label each, by name.
_LOADERS: dict[str, Callable[[Path | None], Dataset]] = {
    "celeba": load_celeba,
    "digits": partial(_load_synthetic, "digits"),
    "faces": partial(_load_synthetic, "faces"),
}


# Other than the handwritten digits: by name, the data set that takes its place, and what that is.
_STAND_INS = {"celeba": ("faces", "drawn faces")}


def _from_idx(name: str, folder: Path) -> Dataset:
    files = idx.find_files(name, folder)
    return cached(name, files.values(), lambda: idx.read_dataset(name, files))


def _from_prepared(name: str, data_dir: Path | None) -> Dataset:
    files = [path for path in tfds.prepared_folder(name, data_dir).iterdir() if path.is_file()]
    return cached(name, files, lambda: tfds.read_prepared(name, data_dir))


def _from_download(name: str) -> Dataset:
    tfds.download(name, _downloads())
    return _from_prepared(name, _downloads())


def _downloads() -> Path:
    """Apart from TFDS's own folder, which may hold the same data set in a format that needs TensorFlow."""
    return cache_dir() / "tensorflow_datasets"
