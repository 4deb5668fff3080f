"""Steps whose descriptions must be the same in every process; `test_same_run.py` imports it in two."""

import json

import jax
import jax.numpy as jnp
import optax

import vae_jax as vj
from vae_jax.training.step import describe_step

VAE = vj.mlp_vae((6, 6, 1), hidden=(8,))
RATE = 1e-3


class Halving:
    """A schedule of no dataclass."""

    def __init__(self, first):
        self.first = first

    def __call__(self, count):
        return self.first * 0.5**count


def matrices(least):
    def mask(params):
        return jax.tree.map(lambda leaf: leaf.ndim >= least, params)

    return mask


OPTIMIZERS = {
    "adam": optax.adam(1e-3),
    "adam of another rate": optax.adam(1e-4),
    "schedule": optax.adam(optax.cosine_decay_schedule(1e-3, 100)),
    "schedule of other steps": optax.adam(optax.cosine_decay_schedule(1e-3, 200)),
    "schedule as lambda": optax.adam(lambda count: RATE / (1 + count)),
    "schedule as another lambda": optax.adam(lambda count: RATE / (2 + count)),
    "schedule as object": optax.sgd(Halving(1e-3)),
    "schedule as another object": optax.sgd(Halving(1e-2)),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
    "chain of another norm": optax.chain(optax.clip_by_global_norm(2.0), optax.adam(1e-3)),
    "mask": optax.adamw(1e-3, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)),
    "another mask": optax.adamw(1e-3, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 2, params)),
    "mask by a set": optax.adamw(1e-3, mask=lambda params: {name: name in {"kernel", "scale"} for name in params}),
    "mask by a function": optax.adamw(1e-3, mask=matrices(2)),
    "mask by another function": optax.adamw(1e-3, mask=matrices(1)),
    "averaged": vj.averaged(optax.adam(1e-3)),
    "averaged otherwise": vj.averaged(optax.adam(1e-3), eta=4.0),
    "accumulated": optax.MultiSteps(optax.adam(1e-3), 4).gradient_transformation(),
    "accumulated at another rate": optax.MultiSteps(optax.adam(1e-4), 4).gradient_transformation(),
    "by numbered labels": optax.partition({0: optax.adam(1e-3), 1: optax.sgd(1e-2)}, matrices(2)),
    "by numbered labels at another rate": optax.partition({0: optax.adam(1e-3), 1: optax.sgd(1e-1)}, matrices(2)),
}

STEPS = {name: vj.make_train_step(VAE, vj.ELBO(), optimizer) for name, optimizer in OPTIMIZERS.items()}
STEPS["of settings"] = vj.with_settings(lambda beta: vj.make_train_step(VAE, vj.ELBO(beta), OPTIMIZERS["adam"]))


def descriptions():
    return {name: json.dumps(describe_step(step, jnp.float32(0.5))) for name, step in STEPS.items()}
