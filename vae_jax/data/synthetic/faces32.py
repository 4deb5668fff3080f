"""The stand-in for CIFAR-10: the synthetic faces, averaged over blocks of 2 x 2 pixels."""

from typing import Any

import numpy as np

from vae_jax.data.dataset import Dataset, Split
from vae_jax.data.synthetic import faces


def load() -> Dataset:
    """The 20,000 faces of `vae_jax.data.synthetic.faces`, uint8 [N, 32, 32, 3], with attributes and without labels."""
    whole = faces.load()
    splits: dict[str, Any] = {
        name: Split(_halved(split.images), attributes=split.attributes) for name, split in whole.splits.items()
    }
    return Dataset("faces32", **splits, source=f"{whole.source}, averaged over blocks of 2 x 2 pixels")


def _halved(images: np.ndarray) -> np.ndarray:
    """Means of blocks of 2 x 2 pixels, rounded half up: uint8 [N, 2h, 2w, C] -> [N, h, w, C]."""
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // 2, 2, width // 2, 2, channels)
    return ((blocks.sum(axis=(2, 4), dtype=np.uint16) + 2) // 4).astype(np.uint8)
