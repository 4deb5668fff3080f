"""Lossless compression of images by a VAE: the negative ELBO turned into the length of a file."""

from vae_jax.compression.images import compress, decompress

__all__ = ["compress", "decompress"]
