"""Data sets and transforms.

`load`, `Dataset.from_arrays` and `Dataset.from_folder` return a `Dataset` of arrays. A transform turns these into a
`Batch`. Only this package and `checkpoints` read files, and only this package uses the network.
"""

from vae_jax.data.attributes import Attributes
from vae_jax.data.cache import file_name
from vae_jax.data.celeba import load_celeba
from vae_jax.data.dataset import Dataset, Split
from vae_jax.data.images import Crop
from vae_jax.data.load import load, load_or_stand_in
from vae_jax.data.transforms import (
    Batch,
    Binarize,
    Dequantize,
    Mirrored,
    Raw,
    Scale,
    StaticBinarize,
    Support,
    Transform,
)

__all__ = [
    "Attributes",
    "Batch",
    "Binarize",
    "Crop",
    "Dataset",
    "Dequantize",
    "Mirrored",
    "Raw",
    "Scale",
    "Split",
    "StaticBinarize",
    "Support",
    "Transform",
    "file_name",
    "load",
    "load_celeba",
    "load_or_stand_in",
]
