"""The stand-in for CelebA: drawn faces with CelebA's confounds."""

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
    """Faces of 64 x 64 pixels in colour, drawn anew at each call: the same seed, the same pixels.

    A split's faces do not depend on the size of any split: a smaller one is the beginning of a larger one.

    Args:
      train: how many faces to train on.
      validation: how many to choose settings by.
      test: how many to test on.
      seed: of the people and their looks.

    Raises:
      InputError: a count that is no whole number of at least 1.
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
    """`load_faces` as `vae_jax.load("faces")` gives it: drawn once, then cached until this package's code changes."""
    return cached("faces", Path(__file__).parent.glob("*.py"), load_faces)


def _split(key: Key[Array, ""], count: int) -> Split:
    people_key, looks_key = jax.random.split(key)
    attributes = sample_attributes(people_key, count)
    return Split(draw_faces(looks_key, attributes), attributes=Attributes(ATTRIBUTES, np.asarray(attributes)))
