"""Search for a data set in several places, and reading of a file."""

from collections.abc import Callable, Iterable
from pathlib import Path

from vae_jax.data.dataset import Dataset
from vae_jax.errors import DataError, DataNotFoundError


def data_folder(data_dir: str | Path) -> Path:
    """The path of a data folder.

    Raises:
      DataNotFoundError: There is no such folder.
    """
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise DataNotFoundError(f"the data folder {folder} does not exist or is not a folder; check the path")
    return folder


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
      DataError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file and its permissions") from error


def first_found(name: str, places: Iterable[Callable[[], Dataset]], remedies: str) -> Dataset:
    """The data set from the first place that has it.

    Args:
      name: Name of the data set, for messages.
      places: Functions that load it, or raise `DataNotFoundError`.
      remedies: Sentence that says how to supply the data set.

    Raises:
      DataNotFoundError: No place has it; the message lists the reasons and the remedies.
      DataError: A place has it, but it cannot be used.
    """
    tried: dict[str, None] = {}  # ordered, without duplicates
    for place in places:
        try:
            return place()
        except DataNotFoundError as error:
            tried[str(error)] = None
    raise DataNotFoundError(f"the data set {name!r} was not found. Tried: {'; '.join(tried)}. {remedies}")
