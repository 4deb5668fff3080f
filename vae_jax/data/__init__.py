"""Data sets: `load(name, data_dir)` gives a `Dataset` of uint8 arrays. No other package reads files or the network."""

from vae_jax.data.attributes import Attributes
from vae_jax.data.cache import file_name
from vae_jax.data.celeba import load_celeba
from vae_jax.data.dataset import Dataset, Split
from vae_jax.data.images import Crop
from vae_jax.data.load import load, load_or_stand_in

__all__ = ["Attributes", "Crop", "Dataset", "Split", "file_name", "load", "load_celeba", "load_or_stand_in"]
