"""Data sets and transforms: `load(name, data_dir)` gives a `Dataset` of arrays, a transform makes of them a `Batch`.

No other package reads files or the network.
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
