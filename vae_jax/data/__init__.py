"""Pixels in: `load(name, data_dir)` gives a `Dataset` of uint8 arrays. The only room that knows files and networks."""

from vae_jax.data.cache import file_name
from vae_jax.data.dataset import Dataset, Split
from vae_jax.data.load import load, load_or_stand_in

__all__ = ["Dataset", "Split", "file_name", "load", "load_or_stand_in"]
