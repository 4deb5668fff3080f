"""The stand-in for MNIST: the handwritten digits that come with scikit-learn."""

import numpy as np

from vae_jax.data.dataset import Dataset, Split
from vae_jax.errors import DataNotFoundError

_BOX, _BORDER = 20, 4  # as MNIST: the digit in a box of 20 x 20 pixels, in an image of 28 x 28
_TEST = 360  # a fifth; the file's order keeps most writers on one side


def load() -> Dataset:
    """1,797 real digits of 8 x 8 pixels with values from 0 to 16, enlarged to 28 x 28 and scaled to 0 to 255.

    The last 360 are the test split.

    Raises:
      DataNotFoundError: scikit-learn is missing.
    """
    try:
        from sklearn import datasets  # imported here: vae_jax must work without scikit-learn
    except ImportError as error:
        raise DataNotFoundError(f"the bundled digits need scikit-learn, which cannot be imported ({error})") from error

    digits = datasets.load_digits()
    images, labels = _enlarge(digits.images), digits.target.astype(np.int32)
    return Dataset(
        "digits",
        Split(images[:-_TEST], labels[:-_TEST]),
        Split(images[-_TEST:], labels[-_TEST:]),
        source="scikit-learn's handwritten digits, 8 x 8 enlarged to 28 x 28",
    )


def _enlarge(images: np.ndarray) -> np.ndarray:
    """Bilinear interpolation, pixel centre on pixel centre: [N, 8, 8] from 0 to 16 -> uint8 [N, 28, 28, 1]."""
    size = images.shape[1]
    centres = (np.arange(_BOX) + 0.5) * size / _BOX - 0.5
    weights = np.stack([np.interp(centres, np.arange(size), row) for row in np.eye(size)], axis=1)  # [20, 8]
    enlarged = np.einsum("ih,nhw,jw->nij", weights, images, weights) * (255 / 16)
    border = ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER))
    return np.pad(np.round(enlarged).astype(np.uint8), border)[..., None]
