"""Latent-variable models: the protocol that they implement, the variational autoencoder, and the ladder VAE."""

from vae_jax.models.constructors import (
    batch_norm_vae,
    conv_ladder_vae,
    conv_vae,
    ladder_vae,
    mlp_vae,
    resnet_vae,
    wavelet_ladder_vae,
)
from vae_jax.models.ladder import LadderVAE
from vae_jax.models.parameters import parameter_table
from vae_jax.models.protocol import Draws, LatentVariableModel, Terms, Variables, merged
from vae_jax.models.vae import VAE

__all__ = [
    "VAE",
    "Draws",
    "LadderVAE",
    "LatentVariableModel",
    "Terms",
    "Variables",
    "batch_norm_vae",
    "conv_ladder_vae",
    "conv_vae",
    "ladder_vae",
    "merged",
    "mlp_vae",
    "parameter_table",
    "resnet_vae",
    "wavelet_ladder_vae",
]
