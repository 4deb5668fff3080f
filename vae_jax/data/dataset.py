"""Data sets in memory: arrays of examples, with labels and attributes."""

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data.arrays import are_bytes, as_array, as_examples, as_labels, require_finite
from vae_jax.data.attributes import Attributes
from vae_jax.errors import DataError, array_spec, named, size_of, some


@dataclass(frozen=True, eq=False)
class Split:
    """Examples, with labels and attributes if there are any.

    A split has no `condition`: the transform computes `Batch.condition`. A model that colours grey images, for example,
    needs a transform whose `__call__(self, keys, images, labels=None)` ends with these two lines:

        x = images.astype(jnp.float32) / 255
        return vj.Batch(x, condition=x.mean(axis=-1, keepdims=True))

    Attributes:
      images: Examples: bytes of images [N, height, width, channels], or other numbers [N, ...], such as the rows of a
        table.
      labels: Class numbers from 0, or None.
      attributes: Binary attributes of each example, or None.
      has_missing: Whether NaN marks missing entries.

    Raises:
      DataError: There are no examples, shapes, dtypes or counts are wrong, or entries are NaN but `has_missing` is not
        set.
    """

    images: np.ndarray  # uint8, int32 or float32 [N, *event]
    labels: np.ndarray | None = None  # int32 [N]
    attributes: Attributes | None = None  # of N images
    has_missing: bool = False

    def __post_init__(self) -> None:
        if self.images.dtype not in (np.uint8, np.int32, np.float32) or self.images.ndim < 2:
            raise DataError(
                f"examples are {self.images.dtype} of shape {self.images.shape}; expected uint8, int32 or float32 [N, "
                "one axis or more]: Dataset.from_arrays converts other dtypes"
            )
        if 0 in self.images.shape:
            raise DataError(f"examples have shape {self.images.shape}; expected at least one example with entries")
        if self.images.dtype == np.float32:
            require_finite("examples", self.images, self.has_missing)
        if self.attributes is not None and len(self.attributes) != len(self.images):
            raise DataError(
                f"{len(self.images)} images but attributes of {len(self.attributes)}; expected one row per image"
            )
        if self.labels is None:
            return
        if self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"{len(self.images)} images but labels of shape {self.labels.shape}; expected one label per image"
            )
        if self.labels.dtype != np.int32:
            raise DataError(f"labels are {self.labels.dtype}; expected int32: Dataset.from_arrays converts them")
        if self.labels.min() < 0:
            raise DataError(f"the smallest label is {self.labels.min()}; expected class numbers from 0")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> "Split":
        """The examples of a slice, or of an array of integers or booleans."""
        if isinstance(index, Integral):
            raise DataError(f"a split was indexed by {index}; expected a slice, such as split[{index}:{index + 1}]")
        labels = None if self.labels is None else self.labels[index]
        attributes = None if self.attributes is None else self.attributes.rows(index)
        return Split(self.images[index], labels, attributes, self.has_missing)

    def __repr__(self) -> str:
        parts = [f"images={array_spec(self.images)}"]
        if self.labels is not None:
            parts.append(f"labels={array_spec(self.labels)} from {self.labels.min()} to {self.labels.max()}")
        if self.attributes is not None:
            parts.append(f"attributes={self.attributes!r}")
        if self.has_missing:
            parts.append("has_missing=True")
        return f"Split({', '.join(parts)}, {size_of(self.images.nbytes)})"

    @classmethod
    def from_batches(cls, batches: Any) -> "Split":
        """Collect the batches of a loader or a finite generator, which is read once.

        >>> vj.Split.from_batches((np.full((4, 8, 8, 1), i), np.arange(4)) for i in range(3))
        Split(images=uint8[12, 8, 8, 1], labels=int32[12] from 0 to 3, 768 B)

        Args:
          batches: Iterable of batches: examples [n, ...], or pairs of examples and class numbers [n]. Arrays of NumPy,
            JAX, PyTorch and TensorFlow are taken, with the dtypes of `Dataset.from_arrays`.

        Raises:
          DataError: There are no batches, they differ in kind or shape, or a dtype is not one of these.
        """
        if not hasattr(batches, "__iter__") or hasattr(batches, "__array__"):
            raise DataError(f"batches are {named(batches)}; expected a loader, a generator or a list of batches")
        pairs = [tuple(batch) if isinstance(batch, list | tuple) else (batch,) for batch in batches]
        if any(isinstance(pair[0], Mapping) for pair in pairs if pair):
            raise DataError("the batches are dicts; expected pairs: ((b['image'], b['label']) for b in batches)")
        counts = {len(pair) for pair in pairs}
        if counts not in ({1}, {2}):
            found = " and ".join(map(str, sorted(counts))) or "no"
            raise DataError(f"the batches have {found} entries; expected examples, or examples and labels, in each")
        names = ("examples", "labels")[: counts.pop()]
        examples, *labels = (
            _concatenated(name, parts) for name, parts in zip(names, zip(*pairs, strict=True), strict=True)
        )
        if are_bytes(examples):
            examples = examples.astype(np.uint8)
        return cls(
            as_examples("examples", examples, insist="vj.Split(images)"),
            as_labels("labels", labels[0] if labels else None),
        )

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example; for an image (height, width, channels)."""
        return self.images.shape[1:]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Deprecated name of `event_shape`."""
        warnings.warn("image_shape is now called event_shape", DeprecationWarning, stacklevel=2)
        return self.event_shape

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the examples, labels and attributes, including shapes and names."""
        kind = "" if self.images.dtype == np.uint8 else str(self.images.dtype)
        sha = hashlib.sha256(f"{self.images.shape!r}{kind}".encode())
        sha.update(np.ascontiguousarray(self.images).data)
        if self.labels is not None:
            sha.update(np.ascontiguousarray(self.labels).data)
        if self.attributes is not None:
            sha.update(repr(self.attributes.names).encode())
            sha.update(np.ascontiguousarray(self.attributes.values).data)
        return sha.hexdigest()


def _concatenated(name: str, parts: Iterable[Any]) -> np.ndarray:
    """The arrays of all batches as one."""
    arrays = [as_array(f"the {name} of a batch", part) for part in parts]
    if len({array.shape[1:] for array in arrays}) > 1:
        shapes = some(sorted({str(array.shape[1:]) for array in arrays}))
        raise DataError(f"the {name} of batches have the shapes {shapes}; expected one shape")
    return np.concatenate(arrays)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training split, a test split and an optional validation split of examples of one shape and dtype.

    Attributes:
      name: Name for titles and file names.
      train: Training split.
      test: Test split.
      source: Phrase that says where the data come from.
      validation: Validation split, or None.
      class_names: Name of each class, by label, or None.

    Raises:
      DataError: The splits differ in the shape or the dtype of the examples.
    """

    name: str
    train: Split
    test: Split
    source: str
    validation: Split | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, split in self.splits.items():
            if split.event_shape != self.train.event_shape:
                raise DataError(
                    f"training images are {self.train.event_shape} but {name} images are {split.event_shape}; "
                    "expected one shape"
                )
            if split.images.dtype != self.train.images.dtype:
                raise DataError(
                    f"training images are {self.train.images.dtype} but {name} images are {split.images.dtype}; "
                    "expected one dtype: convert one of them by .astype"
                )

    def __repr__(self) -> str:
        lines = [f"Dataset({self.name!r}, source={self.source!r}", *(f"{k}={v!r}" for k, v in self.splits.items())]
        if self.class_names is not None:
            lines.append(f"class_names=({some(self.class_names, 10)})")
        return ",\n  ".join(lines) + ")"

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name: train, validation (if there is one), test."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example; for an image (height, width, channels)."""
        return self.train.event_shape

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Deprecated name of `event_shape`."""
        warnings.warn("image_shape is now called event_shape", DeprecationWarning, stacklevel=2)
        return self.event_shape

    def hold_out(self, count: int) -> "Dataset":
        """The data set for choosing settings: the last `count` training images replace the test images.

        It has no validation split, and its name ends in `_held_out`.

        Raises:
          DataError: `count` is not a whole number, below 2, or not below the number of training images.
        """
        if not isinstance(count, Integral) or not 2 <= count < len(self.train):
            raise DataError(
                f"cannot hold out {count} of {len(self.train)} training images; expected 2 or more, not all"
            )
        name = f"{self.name}_held_out"
        return Dataset(name, self.train[:-count], self.train[-count:], self.source, class_names=self.class_names)

    @classmethod
    def from_arrays(
        cls,
        name: Any,
        train_images: Any,
        train_labels: Any = None,
        *,
        test_images: Any,
        test_labels: Any = None,
        train_observed: Any = None,
        test_observed: Any = None,
        channels_last: bool = False,
    ) -> "Dataset":
        """Make a data set of arrays, data frames (anything with `__array__`) or nested lists.

        Images are whole numbers from 0 to 255, [N, height, width] or [N, height, width, channels], and are stored as
        bytes with an axis of channels. Their dtype may be real (if a number is above 1 and the last of four axes is 1
        or 3). All other examples are stored as float32 if they are real numbers [N, ...], and as int32 if they are
        whole numbers [N, columns], such as counts.

        >>> counts = np.arange(12).reshape(6, 2)
        >>> vj.Dataset.from_arrays("counts", counts[:4], test_images=counts[4:])
        Dataset('counts', source='arrays given by the caller',
          train=Split(images=int32[4, 2], 32 B),
          test=Split(images=int32[2, 2], 16 B))

        Args:
          name: Name for titles and file names.
          train_images: Training examples.
          train_labels: Class numbers from 0, [N], or None.
          test_images: Test examples.
          test_labels: Class numbers from 0, [N], or None.
          train_observed: Mask of the entries that are known, booleans of the shape of the examples, or None if all are.
          test_observed: Mask of the test examples.
          channels_last: Whether to accept images with 1 or 3 rows and other than 1 or 3 channels, which otherwise are
            refused, because [N, channels, height, width] has this shape.

        Returns:
          The data set, without a validation split.

        Raises:
          DataError: A dtype, a shape or a range is not one of these; an entry is NaN without a mask, or is NaN although
            the mask says that it is known; one split has labels and the other has none.
        """
        if not isinstance(name, str):
            raise DataError(
                f"name is {named(name)}; expected a string: "
                "Dataset.from_arrays(name, train_images, train_labels, test_images=..., test_labels=...)"
            )
        if (train_labels is None) != (test_labels is None):
            given, missing = ("test", "train") if train_labels is None else ("train", "test")
            raise DataError(f"{given}_labels are given but {missing}_labels are not; give both or neither")
        images = {
            "train": as_array("train_images", train_images),
            "test": as_array("test_images", test_images),
        }
        labels = {"train": train_labels, "test": test_labels}
        observed = {"train": train_observed, "test": test_observed}
        if train_observed is None and test_observed is None:
            if are_bytes(*images.values()):
                images = {split: examples.astype(np.uint8) for split, examples in images.items()}
        else:  # both splits have one dtype, and one with a mask has real numbers
            images = {split: _as_reals(examples) for split, examples in images.items()}
        insist = None if channels_last else "channels_last=True"
        splits = {
            split: Split(
                as_examples(f"{split}_images", examples, observed[split], insist=insist),
                as_labels(f"{split}_labels", labels[split]),
                has_missing=observed[split] is not None,
            )
            for split, examples in images.items()
        }
        return cls(name, splits["train"], splits["test"], source="arrays given by the caller")

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        size: Any = None,
        name: str | None = None,
        test_share: Any = 0.1,
        seed: Any = 0,
    ) -> "Dataset":
        """Read a folder of PNG and JPEG images.

        The folder has images, or one sub-folder of images per class: then the labels are the positions of the names in
        sorted order, and `class_names` has the names. Alternatively it has the sub-folders `train/`, optionally `test/`
        and `validation/` (or `val/`), each organised in this way. Hidden files and files of other types are ignored.

        If all images are grey, they have one channel, otherwise three. Transparent pixels become white, 16 bits become
        8, and images are rotated as their EXIF data say. The training images are in a random order, given by `seed`.

        Args:
          folder: Path of the folder.
          size: Height and width of the result in pixels, or one number for both: each image is cropped at its centre to
            this aspect ratio and resized with an antialiasing filter (Lanczos). None keeps the pixels; then all images
            must have one size.
          name: Name for titles and file names; by default the name of the folder.
          test_share: Share of the images that are drawn at random for the test split, if there is no `test/`.
          seed: Seed of the order of the training images and of that draw.

        Returns:
          Bytes [N, height, width, 1 or 3], with labels if there are classes.

        Raises:
          DataNotFoundError: There is no such folder.
          DataError: There are no images, a class folder has none, files cannot be decoded, or sizes differ.
          InputError: `size`, `test_share` or `seed` is not as above.
        """
        from vae_jax.data.folder import load_folder  # imported here, because it imports this module

        return load_folder(folder, size=size, name=name, test_share=test_share, seed=seed)


def _as_reals(examples: np.ndarray) -> np.ndarray:
    """Whole numbers as real numbers; other arrays are not changed."""
    return examples.astype(np.float32) if np.issubdtype(examples.dtype, np.integer) else examples
