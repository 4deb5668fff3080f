"""Resumable checkpoints of runs, and models saved for use without their run."""

from vae_jax.checkpoints.description import build, describe
from vae_jax.checkpoints.export import export
from vae_jax.checkpoints.models import SavedModel, load_model, restore_model, save
from vae_jax.checkpoints.store import Checkpoints, NoCheckpoints
from vae_jax.checkpoints.vgg19 import load_vgg19

__all__ = [
    "Checkpoints",
    "NoCheckpoints",
    "SavedModel",
    "build",
    "describe",
    "export",
    "load_model",
    "load_vgg19",
    "restore_model",
    "save",
]
