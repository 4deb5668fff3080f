"""A small run with labels and batch statistics; the tests of several modules share its compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from conftest import small_split

import vae_jax as vj
from vae_jax.networks import MLP

DATA = small_split(100)  # 6 steps an epoch; 8 devices can't share the images equally
VAE = vj.VAE(MLP((8,), (2, 2), batch_norm=0.3), MLP((8,), (6, 6, 1), batch_norm=0.3), (6, 6, 1), 2, classes=3)
# Unlike Adam, it doesn't turn the rounding of a gradient that is 0, as of a bias before a batch norm, into a step.
OPTIMIZER = optax.sgd(1e-2, momentum=0.9)
STEP = vj.make_train_step(VAE, vj.ELBO(), OPTIMIZER)


@jax.jit
def _init(key):
    return vj.init(key, VAE, OPTIMIZER)


@jax.jit
def _init_members(keys):
    return vj.init_members(keys, VAE, OPTIMIZER)


def fresh(seed=0):
    return _init(jax.random.key(seed))


def fresh_members(count):
    """Member i is fresh(i)."""
    return _init_members(jax.vmap(jax.random.key)(jnp.arange(count)))


def fit(state, epochs, step=STEP, data=DATA, **settings):
    return vj.fit(state, step, data, epochs=epochs, batch_size=16, progress=False, **settings)


def leaves(tree):
    return [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in jax.tree.leaves(tree)
    ]


def in_float64(state):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)


def losses(history):
    return np.array([record["loss"] for record in history])


def assert_same(one, other):
    for a, b in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(one, other, rtol, atol):
    for a, b in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
