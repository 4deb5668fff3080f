"""The stand-in for MNIST: the handwritten digits of scikit-learn."""

import numpy as np

from vae_jax.data.dataset import Dataset, Split
from vae_jax.errors import DataNotFoundError

_BOX, _BORDER = 20, 4  # as in MNIST: a digit of 20 x 20 pixels in an image of 28 x 28
_TEST = 360  # a fifth; in the order of the file, most writers are in one split only


def load() -> Dataset:
    """1,797 handwritten digits, enlarged from 8 x 8 pixels with values 0 to 16 to 28 x 28 bytes.

    The last 360 are the test split.

    Raises:
      DataNotFoundError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets  # imported here, so that vae_jax works without scikit-learn
    except ImportError as error:
        raise DataNotFoundError(
            f"the digits need scikit-learn, which cannot be imported ({error}); install it"
        ) from error

    digits = datasets.load_digits()
    images, labels = _enlarge(digits.images), digits.target.astype(np.int32)
    return Dataset(
        "digits",
        Split(images[:-_TEST], labels[:-_TEST]),
        Split(images[-_TEST:], labels[-_TEST:]),
        source="scikit-learn's handwritten digits, 8 x 8 enlarged to 28 x 28",
    )


def _enlarge(images: np.ndarray) -> np.ndarray:
    """Enlarge by bilinear interpolation with aligned centres: [N, 8, 8] from 0 to 16 -> uint8 [N, 28, 28, 1]."""
    size = images.shape[1]
    centres = (np.arange(_BOX) + 0.5) * size / _BOX - 0.5
    weights = np.stack([np.interp(centres, np.arange(size), row) for row in np.eye(size)], axis=1)  # [20, 8]
    enlarged = np.einsum("ih,nhw,jw->nij", weights, images, weights) * (255 / 16)
    border = ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER))
    return np.pad(np.round(enlarged).astype(np.uint8), border)[..., None]
