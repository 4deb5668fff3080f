"""Stored images as numbers, and mirror images."""

import numpy as np

from vae_jax.data import Split


def scaled(split: Split) -> np.ndarray:
    """The images of a split, which are bytes, as numbers in [0, 1]."""
    return split.images / np.float32(255)


def mirrored_too(images: np.ndarray) -> np.ndarray:
    """The images, followed by the same images mirrored left to right."""
    return np.concatenate([images, images[:, :, ::-1]])
