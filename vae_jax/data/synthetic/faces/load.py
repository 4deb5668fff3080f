"""The stand-in for CelebA: synthetic faces with the confounders of CelebA."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Key

from vae_jax.data.attributes import Attributes
from vae_jax.data.cache import cached
from vae_jax.data.dataset import Dataset, Split
from vae_jax.data.synthetic.faces.attributes import ATTRIBUTES, sample_attributes
from vae_jax.data.synthetic.faces.drawing import draw_faces
from vae_jax.errors import require_positive_int


def load_faces(train: int = 16_000, validation: int = 2_000, test: int = 2_000, seed: int = 0) -> Dataset:
    """Draw synthetic faces, uint8 [N, 64, 64, 3], with attributes; the pixels are a function of the seed.

    A smaller split is the beginning of a larger one, and does not depend on the sizes of the other splits.

    Args:
      train: Number of training images.
      validation: Number of validation images.
      test: Number of test images.
      seed: Seed of attributes and appearance.

    Raises:
      InputError: A number of images is not a whole number of at least 1.
    """
    require_positive_int(train=train, validation=validation, test=test)
    train_key, validation_key, test_key = jax.random.split(jax.random.key(seed), 3)
    return Dataset(
        "faces",
        _split(train_key, train),
        _split(test_key, test),
        source=f"drawn with vae_jax.data.synthetic.faces from seed {seed}",
        validation=_split(validation_key, validation),
    )


def load() -> Dataset:
    """The default `load_faces()`, cached until the code of this package changes."""
    return cached("faces", Path(__file__).parent.glob("*.py"), load_faces)


def _split(key: Key[Array, ""], count: int) -> Split:
    people_key, looks_key = jax.random.split(key)
    attributes = sample_attributes(people_key, count)
    return Split(draw_faces(looks_key, attributes), attributes=Attributes(ATTRIBUTES, np.asarray(attributes)))
