"""Images per second of the training of a model on random images: by compiled epochs, and one step at a time."""

import time
from typing import Any

import jax
import numpy as np

import vae_jax as vj
from vae_jax.training.step import TrainStep


def by_epochs(step: TrainStep, batch_size: int, steps: int, members: int | None = None) -> list[float]:
    """Images per second of two epochs of `fit`, after one that compiles.

    Args:
      step: Training step, with its model and optimizer.
      batch_size: Number of images in a training step.
      steps: Number of training steps in an epoch.
      members: Number of members that train as one program, whose images are counted once for each; None for one model.
    """
    vae: Any = step.model
    images = np.random.default_rng(0).integers(0, 256, (steps * batch_size, *vae.event_shape), np.uint8)
    key = jax.random.key(0)
    if members is None:
        state = vj.init(key, vae, step.optimizer)
    else:
        state = vj.init_members(jax.random.split(key, members), vae, step.optimizer)
    _, history = vj.fit(state, step, vj.Split(images), epochs=3, batch_size=batch_size, progress=False)
    return [len(images) * (members or 1) / record["seconds"] for record in history[1:]]


def by_steps(step: TrainStep, batch_size: int, steps: int) -> list[float]:
    """Images per second of two times the steps of an epoch, with a call for each step, after one that compiles."""
    vae: Any = step.model
    data_key, key = jax.random.split(jax.random.key(0))
    batch = vj.Batch(jax.random.uniform(data_key, (batch_size, *vae.event_shape)))
    compiled = jax.jit(step, donate_argnums=0)
    state, _ = compiled(vj.init(key, vae, step.optimizer), batch)
    rates = []
    for _ in range(2):
        start = time.perf_counter()
        for _ in range(steps):
            state, _ = compiled(state, batch)
        jax.block_until_ready(state)
        rates.append(steps * batch_size / (time.perf_counter() - start))
    return rates
