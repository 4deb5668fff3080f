"""Versions, processor and settings on which the last bits of computed numbers depend."""

import hashlib
import importlib.metadata
import json
import os
import platform
from typing import Any

import jax
import numpy as np

from vae_jax.checkpoints import describe
from vae_jax.checkpoints.models import leaves_of_model

_PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "constriction")


def environment() -> dict[str, str]:
    """Versions, the instructions of the processor, the number of its cores for this process, and settings of JAX."""
    instructions = np.show_config(mode="dicts")["SIMD Extensions"]
    config: Any = jax.config
    flags = os.environ.get("XLA_FLAGS", "").split()
    settings = {
        "machine": platform.machine(),
        "instructions": " ".join([*instructions["baseline"], *instructions["found"]]),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "x64": config.jax_enable_x64,
        "matmul_precision": config.jax_default_matmul_precision,
        "XLA_FLAGS": " ".join(flag for flag in flags if not flag.startswith("--xla_gpu")),  # files are coded on a CPU
    }
    return {name: importlib.metadata.version(name) for name in _PACKAGES} | {
        name: str(setting) for name, setting in settings.items()
    }


def difference(there: dict[str, str], here: dict[str, str]) -> str:
    """The entries that differ, in words; empty if there is none."""
    names = [name for name in here if there.get(name) != here[name]]
    return ", ".join(f"{name} {there.get(name)!r} there and {here[name]!r} here" for name in names)


def model_digest(model: Any, variables: Any) -> str:
    """SHA-256 of a model and its variables.

    Raises:
      InputError: The variables are not those of the model.
    """
    sha = hashlib.sha256(json.dumps(describe(model), sort_keys=True).encode())
    for name, leaf in leaves_of_model(model, variables).items():
        sha.update(f"{name} {leaf.dtype} {leaf.shape}".encode() + np.asarray(leaf).tobytes())
    return sha.hexdigest()
