"""Stored images as numbers and as rows, and mirror images."""

import numpy as np

from vae_jax.data import Split


def in_unit(images: np.ndarray) -> np.ndarray:
    """Bytes as float32 in [0, 1], of the same shape."""
    return images / np.float32(255)


def scaled(split: Split) -> np.ndarray:
    """The images of a split, which are bytes, as float32 in [0, 1]."""
    return in_unit(split.images)


def as_rows(images: np.ndarray) -> np.ndarray:
    """The entries of each image as a row, [n, entries]."""
    return images.reshape(len(images), -1)


def mirrored_too(images: np.ndarray) -> np.ndarray:
    """The images, followed by the same images mirrored left to right."""
    return np.concatenate([images, images[:, :, ::-1]])
