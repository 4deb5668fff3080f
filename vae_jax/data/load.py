"""Where data sets come from, and in which order the places are tried."""

from collections.abc import Callable
from pathlib import Path

from vae_jax.data import idx, tfds
from vae_jax.data.cache import cache_dir, cached
from vae_jax.data.dataset import Dataset
from vae_jax.data.digits import load_digits
from vae_jax.errors import DataNotFoundError

_REMEDIES = (
    "Three ways to supply it: put its four IDX files in a folder and name that folder as the data folder; "
    "prepare it with TFDS (file_format='array_record'); or run once with a network."
)


def load(name: str, data_dir: str | Path | None = None) -> Dataset:
    """A data set by name, from the first place that has it.

    With `data_dir`: its IDX files (in the subfolder `name` or there), or what TFDS has prepared there. Without: what
    TFDS has prepared in its own folder, or a download through TFDS. `digits` comes with scikit-learn. What has been
    decoded or downloaded once is cached (see `vae_jax.data.cache`).

    Args:
      name: a name known to TFDS, or any name for IDX files in `data_dir`.
      data_dir: a folder, or None.

    Raises:
      DataNotFoundError: none of the places has it; the message tells what was tried.
      DataError: a place has it, but it can't be used.
    """
    if name == "digits" and data_dir is None:
        return load_digits()
    if data_dir is not None:
        folder = Path(data_dir).expanduser()
        if not folder.is_dir():
            raise DataNotFoundError(f"the data folder {folder} does not exist or is no folder")
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
    tried: dict[str, None] = {}  # in order, each reason once
    for place in places:
        try:
            return place()
        except DataNotFoundError as error:
            tried[str(error)] = None
    raise DataNotFoundError(f"the data set {name!r} was not found. Tried: {'; '.join(tried)}. {_REMEDIES}")


def load_or_stand_in(name: str, data_dir: str | Path | None = None) -> tuple[Dataset, str | None]:
    """As `load`, but where no `data_dir` was given and the data set is nowhere, the bundled digits take its place.

    Returns:
      The data set, and the sentence that says what was tried if it is the stand-in.
    """
    try:
        return load(name, data_dir), None
    except DataNotFoundError as error:
        if data_dir is not None:
            raise
        return load_digits(), f"{error} Going on with scikit-learn's handwritten digits instead."


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
