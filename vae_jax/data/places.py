"""The places where a data set may lie, tried in order until one has it."""

from collections.abc import Callable, Iterable
from pathlib import Path

from vae_jax.data.dataset import Dataset
from vae_jax.errors import DataNotFoundError


def data_folder(data_dir: str | Path) -> Path:
    """The folder that the caller names.

    Raises:
      DataNotFoundError: there is no such folder.
    """
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise DataNotFoundError(f"the data folder {folder} does not exist or is no folder")
    return folder


def first_found(name: str, places: Iterable[Callable[[], Dataset]], remedies: str) -> Dataset:
    """The data set from the first place that has it.

    Raises:
      DataNotFoundError: none has; the message tells what was tried, and the remedies.
      DataError: a place has it, but it can't be used.
    """
    tried: dict[str, None] = {}  # in order, each reason once
    for place in places:
        try:
            return place()
        except DataNotFoundError as error:
            tried[str(error)] = None
    raise DataNotFoundError(f"the data set {name!r} was not found. Tried: {'; '.join(tried)}. {remedies}")
