"""Synthetic faces, the stand-in for CelebA: `sample_attributes` draws attributes, `draw_faces` images of them."""

from vae_jax.data.synthetic.faces.attributes import ATTRIBUTES, sample_attributes
from vae_jax.data.synthetic.faces.drawing import draw_faces
from vae_jax.data.synthetic.faces.load import load, load_faces

__all__ = ["ATTRIBUTES", "draw_faces", "load", "load_faces", "sample_attributes"]
