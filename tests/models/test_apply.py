"""Noise within networks: each example draws it from its own key, as if it were alone."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import drawn

from vae_jax.models.apply import apply_network, rngs
from vae_jax.networks.conv4x4 import Downsample

COUNT, SIZE, CHANNELS = 6, 4, 16
X = np.float32(np.random.default_rng(0).normal(size=(COUNT, SIZE, SIZE, CHANNELS)))


def keys():
    return jax.random.split(jax.random.key(1), COUNT)


class Convolutional(nn.Module):
    """Dropout of pixels, of whole channels and, twice by one layer, of dense features."""

    @nn.compact
    def __call__(self, inputs, train=False):
        h = nn.Dropout(0.3)(inputs=inputs, deterministic=not train)
        h = nn.relu(Downsample(CHANNELS)(h))
        h = nn.Dropout(0.4, broadcast_dims=(1, 2), deterministic=not train)(h)
        dropout = nn.Dropout(0.5)
        h = dropout(nn.Dense(8)(h.reshape(len(h), -1)), deterministic=not train)
        return dropout(nn.Dense(8)(h), not train)


class OwnKey(nn.Module):
    """Dropout by the key of the example, then by one that the network gives to the layer."""

    @nn.compact
    def __call__(self, inputs, train=False):
        h = nn.Dropout(0.5, deterministic=not train)(nn.Dense(4)(inputs.reshape(len(inputs), -1)))
        return nn.Dropout(0.5)(nn.Dense(16)(h), not train, jax.random.key(7))


class OfRows(nn.Module):
    """Dropout of rows of pixels as if each were an example."""

    @nn.compact
    def __call__(self, inputs, train=False):
        h = nn.Dropout(0.5, deterministic=not train)(inputs.reshape(-1, CHANNELS))
        return nn.Dense(3)(h.reshape(len(inputs), -1))


class Noisy(nn.Module):
    """Dropout, and normal noise of another stream."""

    @nn.compact
    def __call__(self, inputs, train=False):
        h = nn.Dropout(0.5, deterministic=not train)(nn.Dense(4)(inputs.reshape(len(inputs), -1)))
        return h + jax.random.normal(self.make_rng("noise"), h.shape) if train else h


class Layer(nn.Module):
    """A dense layer with dropout."""

    train: bool

    @nn.compact
    def __call__(self, h, _):
        return nn.Dropout(0.5, deterministic=not self.train)(nn.Dense(4)(h)), None


class Scanned(nn.Module):
    """Three of these layers, as a scan that splits the stream of their dropout."""

    @nn.compact
    def __call__(self, inputs, train=False):
        layers = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True}, length=3)
        return layers(train)(nn.Dense(4)(inputs.reshape(len(inputs), -1)), None)[0]


class Recomputed(nn.Module):
    """A layer that is computed again for its gradient."""

    @nn.compact
    def __call__(self, inputs, train=False):
        h = nn.remat(nn.Dense)(4)(inputs.reshape(len(inputs), -1))
        return nn.remat(nn.Dropout)(0.5, deterministic=not train)(h)


@partial(jax.jit, static_argnames="network")
def outputs_and_gradients(network: nn.Module, variables: Any, x: Any, keys: Any) -> Any:
    """Outputs for a batch, and the gradients of their sum of squares."""

    def penalty(variables):
        outputs, _ = apply_network(network, variables, x, True, {}, None, keys)
        return (outputs**2).sum(), outputs

    gradients, outputs = jax.grad(penalty, has_aux=True)(variables)
    return outputs, gradients


@partial(jax.jit, static_argnames="network")
def one_by_one(network: nn.Module, variables: Any, x: Any, keys: Any) -> Any:
    """The same by Linen's own call for each example."""

    def penalty(variables):
        outputs = [network.apply(variables, x[i : i + 1], train=True, rngs=rngs(keys[i])) for i in range(len(x))]
        outputs = jnp.concatenate(outputs)
        return (outputs**2).sum(), outputs

    gradients, outputs = jax.grad(penalty, has_aux=True)(variables)
    return outputs, gradients


@pytest.mark.parametrize("network", [Convolutional(), OfRows(), OwnKey(), Noisy(), Scanned(), Recomputed()], ids=repr)
def test_a_batch_is_its_examples_one_by_one(network):
    variables = drawn(network.init, jax.random.key(0), X)
    batch, alone = (of(network, variables, X, keys()) for of in (outputs_and_gradients, one_by_one))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max()), batch, alone)
    other, _ = outputs_and_gradients(network, variables, X, jax.random.split(jax.random.key(2), COUNT))
    assert np.all(np.any(np.not_equal(other, batch[0]), axis=-1)), "each example has another noise with another key"


def test_members_draw_as_each_of_them():
    network = Convolutional()
    variables = [drawn(network.init, jax.random.key(0), X, seed=seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *variables)
    of_keys = jnp.stack([jax.random.split(jax.random.key(seed), COUNT) for seed in (1, 2)])
    together, _ = jax.jit(jax.vmap(partial(outputs_and_gradients, network), (0, None, 0)))(stacked, X, of_keys)
    for i, own in enumerate(variables):
        np.testing.assert_allclose(
            together[i],
            outputs_and_gradients(network, own, X, jax.random.split(jax.random.key(1 + i), COUNT))[0],
            rtol=1e-4,
        )


def test_any_number_of_devices_draws_the_same():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    variables = drawn(Convolutional().init, jax.random.key(0), X)
    on_one = outputs_and_gradients(Convolutional(), variables, X, keys())
    on_two = outputs_and_gradients(Convolutional(), variables, *jax.device_put((X, keys()), rows))
    assert on_two[0].sharding.is_equivalent_to(rows, 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max()), on_two, on_one)


def test_no_gradient_of_a_kernel_is_computed_for_each_example():
    variables = drawn(Convolutional().init, jax.random.key(0), X)
    program = str(jax.make_jaxpr(partial(outputs_and_gradients, Convolutional()))(variables, X, keys()))
    assert f"f32[4,4,{CHANNELS},{CHANNELS}]" in program
    assert f"f32[{COUNT},4,4,{CHANNELS},{CHANNELS}]" not in program


class Normalised(nn.Module):
    """Batch norm of inputs with dropout."""

    @nn.compact
    def __call__(self, inputs, train=False):
        h = nn.Dropout(0.5, deterministic=not train)(inputs.reshape(len(inputs), -1))
        return nn.BatchNorm(use_running_average=not train)(nn.Dense(3)(h))


def test_dropout_beside_batch_norm_follows_the_examples():
    """In another order, the examples have the same outputs, and the batch the same statistics."""
    variables = drawn(Normalised().init, jax.random.key(0), X)

    @jax.jit
    def apply(x, keys):
        return apply_network(Normalised(), variables, x, True, {}, None, keys)

    (outputs, updates), (turned, same) = apply(X, keys()), apply(X[::-1], keys()[::-1])
    np.testing.assert_allclose(turned, np.asarray(outputs)[::-1], rtol=1e-3, atol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), updates, same)
    others, _ = apply(X, keys()[::-1])
    assert np.any(others != outputs)
