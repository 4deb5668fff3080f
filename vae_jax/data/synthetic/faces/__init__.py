"""Drawn faces, the stand-in for CelebA: `draw_faces` of a key and attributes, which `sample_attributes` draws."""

from vae_jax.data.synthetic.faces.attributes import ATTRIBUTES, sample_attributes
from vae_jax.data.synthetic.faces.drawing import draw_faces
from vae_jax.data.synthetic.faces.load import load, load_faces

__all__ = ["ATTRIBUTES", "draw_faces", "load", "load_faces", "sample_attributes"]
