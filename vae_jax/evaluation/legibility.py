"""Legibility of generated images: the fraction that a classifier with a class "rejected" assigns to one class.

A classifier of only the classes of the data is confident about images of no class, such as the mean of all digits.
This classifier has an additional class, trained on illegible images that are constructed from the data.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.data import Split
from vae_jax.errors import InputError, require_positive_int
from vae_jax.evaluation.classifier import (
    Classifier,
    CrossEntropy,
    Predictions,
    TrainedClassifier,
    fit_classifier,
    require_bytes,
)


@dataclass(frozen=True, eq=False)
class LegibilityClassifier:
    """Trained classifier whose last class is "rejected".

    Attributes:
      classifier: Trained classifier, with one class more than the data.
    """

    classifier: TrainedClassifier

    def __call__(self, images: Float[Any, "n height width channels"]) -> Predictions:
        """Probabilities of the classes and of the class "rejected", and features, of images in [0, 1]."""
        return self.classifier(images)

    def share(self, images: Float[Any, "n height width channels"], confidence: float = 0.9) -> float:
        """Fraction of the images for which one class of the data has a probability of at least `confidence`."""
        probabilities = self.classifier(images).probabilities[:, :-1]
        return float(np.mean(probabilities.max(axis=-1) >= confidence))

    def effective_classes(self, images: Float[Any, "n height width channels"]) -> float:
        """Effective number of classes of the images: `exp` of the entropy of the mean probabilities.

        The class "rejected" is left out, and the others are normalised. The value is 1 if all images are of one class.
        """
        shares = np.asarray(self.classifier(images).probabilities[:, :-1], np.float64).mean(axis=0)
        shares = np.maximum(shares, np.finfo(np.float64).tiny)
        shares /= shares.sum()
        return float(np.exp(-np.sum(shares * np.log(shares))))


def train_legibility_classifier(
    key: Key[Array, ""], data: Split, *, steps: int = 3_000, batch_size: int = 256, progress: bool = True
) -> LegibilityClassifier:
    """Train a `LegibilityClassifier` on labelled images and on `rejected_images` constructed from them.

    Args:
      key: Key of the parameters, the order of the data and the rejected images.
      data: Labelled grey images, stored as bytes.
      steps: Minimum number of training steps, which is rounded up to whole epochs.
      batch_size: Number of images per step.
      progress: Whether to show a progress bar.

    Returns:
      The trained classifier.

    Raises:
      InputError: The images have no labels or only one class, or are not bytes, or there are no steps.
    """
    if data.labels is None:
        raise InputError("the images have no labels; legibility is measured by a classifier, which needs them")
    require_bytes(data)
    require_positive_int(steps=steps, batch_size=batch_size)
    classes = int(data.labels.max()) + 1
    image_key, train_key = jax.random.split(key)
    generator = np.random.default_rng(np.asarray(jax.random.key_data(image_key)).ravel())
    images = np.concatenate([data.images, rejected_images(generator, data, len(data) // 2)])
    labels = np.full(len(images), classes, np.int32)
    labels[: len(data)] = data.labels
    # Generated images are smooth: half of the images, of each class and of the rejected one, are blurred.
    blurred = generator.random(len(images)) < 0.5
    images[blurred] = _blurred(generator, images[blurred])
    classifier = Classifier(data.event_shape, classes=classes + 1)
    variables = fit_classifier(
        train_key,
        classifier,
        CrossEntropy(),
        Split(images, labels),
        steps=steps,
        batch_size=batch_size,
        learning_rate=2e-3,
        progress=progress,
    )
    return LegibilityClassifier(TrainedClassifier(classifier, variables))


def rejected_images(generator: np.random.Generator, data: Split, count: int) -> np.ndarray:
    """Images without a single class, constructed from the data in equal parts of four kinds.

    The kinds are means of 3 to 64 images, blends of two images of different classes (weights from 0.35 to 0.65), images
    with shuffled blocks of pixels, and uniform noise of random contrast.

    Args:
      generator: Random generator.
      data: Labelled images, stored as bytes.
      count: Number of images.

    Returns:
      The images, uint8 [count, height, width, channels].

    Raises:
      InputError: The data have no labels or only one class, so there are no blends, or are not bytes.
    """
    require_bytes(data)
    if data.labels is None or len(np.unique(data.labels)) < 2:
        raise InputError("the images are of one class or have no labels; blends need images of two classes")
    parts = [len(part) for part in np.array_split(np.arange(count), 4)]
    made = [
        _means(generator, data, parts[0]),
        _blends(generator, data, parts[1]),
        _shuffled(generator, data, parts[2]),
        generator.uniform(0, generator.uniform(64, 255, (parts[3], 1, 1, 1)), (parts[3], *data.event_shape)),
    ]
    return np.concatenate([np.round(images).astype(np.uint8) for images in made])


def _blurred(generator: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Images convolved with Gaussians, each of a random standard deviation from 0.3 to 1.2 pixels."""
    offsets = np.arange(-4, 5)
    weights = np.exp(-0.5 * (offsets / generator.uniform(0.3, 1.2, (len(images), 1))) ** 2)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)[..., None, None, None]
    smooth = images.astype(np.float32)
    for axis in (1, 2):
        padding = [(4, 4) if each == axis else (0, 0) for each in range(4)]
        padded, size = np.pad(smooth, padding), images.shape[axis]
        moved = [weights[:, i] * np.take(padded, range(i, i + size), axis=axis) for i in range(len(offsets))]
        smooth = np.sum(moved, axis=0)
    return np.round(smooth).astype(np.uint8)


def _means(generator: np.random.Generator, data: Split, count: int) -> np.ndarray:
    sizes = np.round(2 ** generator.uniform(np.log2(3), 6, count)).astype(int)
    rows = (generator.integers(0, len(data), size) for size in sizes)
    return np.stack([data.images[each].mean(axis=0) for each in rows]) if count else np.empty((0, *data.event_shape))


def _blends(generator: np.random.Generator, data: Split, count: int) -> np.ndarray:
    assert data.labels is not None
    first = generator.integers(0, len(data), count)
    second = generator.integers(0, len(data), count)
    while (same := data.labels[first] == data.labels[second]).any():
        second[same] = generator.integers(0, len(data), same.sum())
    weight = generator.uniform(0.35, 0.65, (count, 1, 1, 1))
    return weight * data.images[first] + (1 - weight) * data.images[second]


def _shuffled(generator: np.random.Generator, data: Split, count: int) -> np.ndarray:
    """Images whose blocks of a quarter of each side are permuted."""
    _, height, width, channels = data.images.shape
    high, wide = max(1, height // 4), max(1, width // 4)
    rows, columns = height // high, width // wide
    shuffled = data.images[generator.integers(0, len(data), count)].copy()
    blocks = shuffled[:, : rows * high, : columns * wide].reshape(count, rows, high, columns, wide, channels)
    tiles = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(count, rows * columns, high, wide, channels)
    order = generator.permuted(np.tile(np.arange(rows * columns), (count, 1)), axis=1)
    tiles = np.take_along_axis(tiles, order[..., None, None, None], axis=1)
    tiles = tiles.reshape(count, rows, columns, high, wide, channels).transpose(0, 1, 3, 2, 4, 5)
    shuffled[:, : rows * high, : columns * wide] = tiles.reshape(count, rows * high, columns * wide, channels)
    return shuffled.astype(float)
