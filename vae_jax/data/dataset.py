"""A data set in memory: pixels as uint8 arrays, labels and attributes beside them."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vae_jax.data.attributes import Attributes
from vae_jax.errors import DataError


@dataclass(frozen=True, eq=False)
class Split:
    """Images as bytes, and their labels and attributes where there are any.

    Attributes:
      images: pixels from 0 to 255.
      labels: class numbers from 0, or None.
      attributes: what is true of each image, or None.

    Raises:
      DataError: no images, or shapes, dtypes or counts other than these.
    """

    images: np.ndarray  # uint8 [N, height, width, channels]
    labels: np.ndarray | None = None  # int32 [N]
    attributes: Attributes | None = None  # of N images

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"images are {self.images.dtype} of shape {self.images.shape}; expected uint8 [N, height, "
                "width, channels]: Dataset.from_arrays converts what can be converted"
            )
        if 0 in self.images.shape:
            raise DataError(f"images have shape {self.images.shape}, so there is nothing to learn from")
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
        return Split(self.images[index], labels, attributes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the pixels, the labels and the attributes, shapes and names included."""
        sha = hashlib.sha256(repr(self.images.shape).encode())
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

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name: train, validation if any, test."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return self.train.image_shape

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
    ) -> "Dataset":
        """A data set of one's own.

        Args:
          name: as it shall stand in titles and file names.
          train_images: whole numbers from 0 to 255, [N, height, width] or [N, height, width, channels].
          train_labels: whole numbers from 0, [N], or None.
          test_images: as `train_images`.
          test_labels: as `train_labels`.

        Raises:
          DataError: any other dtype, shape or range.
        """
        return cls(
            name,
            Split(_as_pixels("train_images", train_images), _as_labels("train_labels", train_labels)),
            Split(_as_pixels("test_images", test_images), _as_labels("test_labels", test_labels)),
            source="arrays given by the caller",
        )


def _as_pixels(name: str, images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim not in (3, 4):
        raise DataError(f"{name} has shape {images.shape}; expected [N, height, width] or [N, height, width, channels]")
    if np.issubdtype(images.dtype, np.floating) and not np.isfinite(images).all():
        raise DataError(f"{name} holds NaN or infinite values; expected whole numbers from 0 to 255")
    _require_whole_numbers(name, images, highest=255)
    return images.astype(np.uint8, copy=False).reshape(*images.shape[:3], images.shape[3] if images.ndim == 4 else 1)


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
