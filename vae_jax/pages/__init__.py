"""A page in which a latent space is explored: one HTML file, in which the decoder runs, for any browser."""

from vae_jax.pages.page import export_page

__all__ = ["export_page"]
