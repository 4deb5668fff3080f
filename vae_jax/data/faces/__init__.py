"""Drawn faces, the stand-in for CelebA: `draw_faces` of a key and attributes, which `sample_attributes` draws."""

from vae_jax.data.faces.attributes import ATTRIBUTES, sample_attributes
from vae_jax.data.faces.drawing import draw_faces
from vae_jax.data.faces.load import load_faces

__all__ = ["ATTRIBUTES", "draw_faces", "load_faces", "sample_attributes"]
