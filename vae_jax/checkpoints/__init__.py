"""Resumable checkpoints, and the model in them for use."""

from vae_jax.checkpoints.description import build, describe
from vae_jax.checkpoints.store import Checkpoints, NoCheckpoints, restore_model

__all__ = [
    "Checkpoints",
    "NoCheckpoints",
    "build",
    "describe",
    "restore_model",
]
