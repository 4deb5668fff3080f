"""Stored images as numbers."""

import numpy as np

from vae_jax.data import Split


def scaled(split: Split) -> np.ndarray:
    """The images of a split, which are bytes, as numbers in [0, 1]."""
    return split.images / np.float32(255)
