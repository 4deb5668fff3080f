"""A data set in memory: pixels as uint8 arrays, labels and attributes beside them."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data.attributes import Attributes
from vae_jax.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """Examples, and their labels and attributes where there are any.

    Attributes:
      images: the examples: bytes of images [N, height, width, channels], or numbers [N, ...] of any other kind, such as
        rows of a table.
      labels: class numbers from 0, or None.
      attributes: what is true of each example, or None.
      has_missing: whether entries that are NaN are missing ones.

    Raises:
      DataError: no examples, or shapes, dtypes or counts other than these, or NaN where nothing is missing.
    """

    images: np.ndarray  # uint8, int32 or float32 [N, *event]
    labels: np.ndarray | None = None  # int32 [N]
    attributes: Attributes | None = None  # of N images
    has_missing: bool = False

    def __post_init__(self) -> None:
        if self.images.dtype not in (np.uint8, np.int32, np.float32) or self.images.ndim < 2:
            raise DataError(
                f"examples are {self.images.dtype} of shape {self.images.shape}; expected uint8, int32 or float32 [N, "
                "one axis or more]: Dataset.from_arrays converts what can be converted"
            )
        if 0 in self.images.shape:
            raise DataError(f"examples have shape {self.images.shape}, so there is nothing to learn from")
        if self.images.dtype == np.float32:
            _require_finite("examples", self.images, self.has_missing)
        if self.attributes is not None and len(self.attributes) != len(self.images):
            raise DataError(
                f"{len(self.images)} images but attributes of {len(self.attributes)}; expected a row of them an image"
            )
        if self.labels is None:
            return
        if self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"{len(self.images)} images but labels of shape {self.labels.shape}; expected one label an image"
            )
        if self.labels.dtype != np.int32:
            raise DataError(f"labels are {self.labels.dtype}; expected int32: Dataset.from_arrays converts")
        if self.labels.min() < 0:
            raise DataError(f"the smallest label is {self.labels.min()}; labels are class numbers from 0")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice) -> "Split":
        labels = None if self.labels is None else self.labels[index]
        attributes = None if self.attributes is None else self.attributes.rows(index)
        return Split(self.images[index], labels, attributes, self.has_missing)

    def __repr__(self) -> str:
        parts = [f"{len(self):,} examples, {self.images.dtype}{list(self.event_shape)}"]
        if self.labels is not None:
            parts.append(f"{len(np.unique(self.labels))} classes")
        if self.attributes is not None:
            parts.append(f"{len(self.attributes.names)} attributes")
        if self.has_missing:
            parts.append("missing entries")
        size = self.images.nbytes / 2**10
        parts.append(f"{size:.1f} KiB" if size < 1_000 else f"{size / 2**10:.1f} MiB")
        return f"Split({', '.join(parts)})"

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example, (height, width, channels) of an image."""
        return self.images.shape[1:]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`event_shape` of images."""
        return self.event_shape

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the pixels, the labels and the attributes, shapes and names included."""
        kind = "" if self.images.dtype == np.uint8 else str(self.images.dtype)
        sha = hashlib.sha256(f"{self.images.shape!r}{kind}".encode())
        sha.update(np.ascontiguousarray(self.images).data)
        if self.labels is not None:
            sha.update(np.ascontiguousarray(self.labels).data)
        if self.attributes is not None:
            sha.update(repr(self.attributes.names).encode())
            sha.update(np.ascontiguousarray(self.attributes.values).data)
        return sha.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training split and a test split of images of one shape, and a validation split where the data set has its own.

    Attributes:
      name: as it stands in titles and file names.
      source: a phrase that says where the pixels came from.

    Raises:
      DataError: the splits' images differ in shape.
    """

    name: str
    train: Split
    test: Split
    source: str
    validation: Split | None = None

    def __post_init__(self) -> None:
        for name, split in self.splits.items():
            if split.image_shape != self.train.image_shape:
                raise DataError(
                    f"training images are {self.train.image_shape} but {name} images are {split.image_shape}; "
                    "expected one shape"
                )

    def __repr__(self) -> str:
        splits = "".join(f"\n    {name}={split}," for name, split in self.splits.items())
        return f"Dataset({self.name!r}, source={self.source!r},{splits}\n)"

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name: train, validation if any, test."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example, (height, width, channels) of an image."""
        return self.train.event_shape

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`event_shape` of images."""
        return self.event_shape

    def hold_out(self, count: int) -> "Dataset":
        """The data set for choosing settings: the last `count` training images take the test images' place.

        It has no validation split. Its name says so, and so do the titles and file names made from it.
        """
        if not 2 <= count < len(self.train):
            raise DataError(
                f"cannot hold out {count} of {len(self.train)} training images; expected 2 or more, not all"
            )
        return Dataset(f"{self.name}_held_out", self.train[:-count], self.train[-count:], self.source)

    @classmethod
    def from_arrays(
        cls,
        name: str,
        train_images: np.ndarray,
        train_labels: np.ndarray | None = None,
        *,
        test_images: np.ndarray,
        test_labels: np.ndarray | None = None,
        train_observed: np.ndarray | None = None,
        test_observed: np.ndarray | None = None,
    ) -> "Dataset":
        """A data set of arrays.

        Args:
          name: as it stands in titles and file names.
          train_images: images as whole numbers from 0 to 255, [N, height, width] or [N, height, width, channels]; or
            other examples: real numbers [N, ...], or whole numbers [N, columns] such as counts.
          train_labels: whole numbers from 0, [N], or None.
          test_images: as `train_images`.
          test_labels: as `train_labels`.
          train_observed: truth values of the examples' shape: which of their entries are known.
          test_observed: as `train_observed`.

        Raises:
          DataError: any other dtype, shape or range; NaN where no mask is given, or where an entry is observed.
        """
        arrays = {
            "train": (train_images, train_labels, train_observed),
            "test": (test_images, test_labels, test_observed),
        }
        splits = {
            split: Split(
                as_examples(f"{split}_images", examples, observed),
                _as_labels(f"{split}_labels", labels),
                has_missing=observed is not None,
            )
            for split, (examples, labels, observed) in arrays.items()
        }
        return cls(name, splits["train"], splits["test"], source="arrays given by the caller")

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        size: Any = None,
        test_share: float = 0.1,
        seed: int = 0,
        name: str | None = None,
    ) -> "Dataset":
        """A data set of the PNG and JPEG images in a folder.

        The folder holds the images, or a folder for each class: labels are then numbers in the order of the names. It
        may have these in `train/` and `test/`; otherwise the test split is drawn. Images become grey if all are, else
        RGB; transparency is dropped, and the orientation that a camera has recorded is applied.

        Args:
          folder: Folder with the images.
          size: Height and width to which the images are cropped (about their centre) and resized. It is needed if they
            differ in size.
          test_share: Share of the images that the drawn test split has.
          seed: Seed of the drawn test split.
          name: Name of the data set; the default is the name of the folder.

        Raises:
          DataNotFoundError: No folder, or a folder without images.
          DataError: An image that can't be read, or images of several sizes without `size`.
        """
        from vae_jax.data.folder import read_folder  # imported here: that module imports this one

        return read_folder(folder, size=size, test_share=test_share, seed=seed, name=name)


def as_examples(name: str, examples: np.ndarray, observed: np.ndarray | None = None) -> np.ndarray:
    """Examples as a split stores them: bytes of images with an axis of channels, int32 or float32; NaN where missing.

    Raises:
      DataError: another dtype, shape or range.
    """
    examples = np.asarray(examples)
    if examples.ndim < 2:
        raise DataError(f"{name} has shape {examples.shape}; expected [N, height, width, channels] or [N, columns]")
    if observed is not None:
        return _without_missing(name, examples, np.asarray(observed))
    if np.issubdtype(examples.dtype, np.floating):
        _require_finite(name, examples, has_missing=False)
        return examples.astype(np.float32, copy=False)
    if not np.issubdtype(examples.dtype, np.integer):
        raise DataError(f"{name} has dtype {examples.dtype}; expected whole numbers from 0 to 255, or real numbers")
    if examples.ndim in (3, 4):
        _require_whole_numbers(name, examples, highest=255)
        return examples.astype(np.uint8, copy=False).reshape(*examples.shape[:3], *examples.shape[3:] or (1,))
    return examples.astype(np.int32, copy=False)


def _without_missing(name: str, examples: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Real numbers, NaN where they are not observed."""
    if observed.dtype != np.bool_ or observed.shape != examples.shape:
        raise DataError(
            f"the mask of {name} is {observed.dtype} of shape {observed.shape}; expected bool {examples.shape}"
        )
    _require_finite(name, examples[observed], has_missing=False)
    return np.where(observed, examples, np.nan).astype(np.float32)


def _require_finite(name: str, values: np.ndarray, has_missing: bool) -> None:
    if np.isinf(values).any() or (not has_missing and np.isnan(values).any()):
        raise DataError(
            f"{name} hold NaN or infinite values; expected finite numbers, or a mask of what is observed "
            "(Dataset.from_arrays(..., train_observed=, test_observed=))"
        )


def _as_labels(name: str, labels: np.ndarray | None) -> np.ndarray | None:
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise DataError(f"{name} has shape {labels.shape}; expected [N]")
    _require_whole_numbers(name, labels, highest=np.iinfo(np.int32).max)
    return labels.astype(np.int32, copy=False)


def _require_whole_numbers(name: str, values: np.ndarray, highest: int) -> None:
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(
            f"{name} has dtype {values.dtype}; expected whole numbers from 0 to {highest} "
            "(for pixels in [0, 1]: np.round(255 * x).astype(np.uint8))"
        )
    if values.size and (values.min() < 0 or values.max() > highest):
        raise DataError(f"{name} runs from {values.min()} to {values.max()}; expected 0 to {highest}")
