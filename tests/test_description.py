"""What a value is described as leads back to it, and to nothing else."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import vae_jax as vj
from vae_jax.description import build, describe

SIZE = {"image_shape": (8, 8, 1), "latent_dim": 3}


class Own(nn.Module):
    """A network with a network in it."""

    inner: nn.Module
    widths: tuple[int, ...] = (3, 4)
    dtype: type = jnp.float32


@dataclass(frozen=True)
class Holder:
    value: object


def back(value):
    """By way of a file."""
    return build(json.loads(json.dumps(describe(value))))


@pytest.mark.parametrize(
    "vae",
    [
        *(vj.mlp_vae(**SIZE, activation=f) for f in (nn.relu, nn.tanh, nn.gelu, nn.silu, nn.swish, nn.elu, jnp.sin)),
        vj.mlp_vae(**SIZE, posterior=vj.Delta, classes=10),
        vj.conv_vae(**SIZE, features=(4, 8), linear=True),
        vj.batch_norm_vae(**SIZE, momentum=0.9, axis_name="devices"),
        *(vj.mlp_vae(**SIZE, likelihood=f) for f in (vj.Gaussian(0.1), vj.Gaussian(jnp.float32(0.1)), vj.Bernoulli())),
        *(vj.mlp_vae(**SIZE, likelihood=f()) for f in (vj.ContinuousBernoulli, vj.DiscretisedLogistic, vj.Laplace)),
        *(vj.mlp_vae(**SIZE, likelihood=f) for f in (vj.LearnedGaussian(2.0), vj.OptimalGaussian(0.5))),
        vj.VAE(Own(Own(nn.Dense(3))), Own(nn.Dense(4, name="last"), dtype=jnp.bfloat16), (8, 8, 1), 3),
    ],
    ids=lambda vae: f"{type(vae.encoder).__name__}-{vae.likelihood}",
)
def test_every_model_comes_back(vae):
    assert back(vae) == vae


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, 1.0, 0.1, float("inf"), "a", "é", (), (1, (2.0, "b")), [1, [2]], {"a": (1,), "class": 2},
        np.int64(3), np.float32(0.1), vj.Mirrored(vj.Scale(-1.0, 1.0)), vj.IWAE(5), vj.ELBO(beta=0.5), jnp.tanh,
        vj.AnalyticKL, jax.nn.relu, optax.GradientTransformation(nn.relu, nn.tanh), vj.Classifier(), jnp.float32,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_every_value_comes_back_as_what_it_was(value):
    there = back(value)
    assert type(there) is type(value)
    assert there == value
    if isinstance(value, Callable) and hasattr(value, "__qualname__"):
        assert there is value


def test_arrays_keep_their_type_and_bits():
    for array in (
        jnp.array([[0.1, jnp.inf]]),
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        jnp.zeros((0, 2), jnp.bfloat16),
    ):
        there = back(array)
        assert isinstance(there, np.ndarray) == isinstance(array, np.ndarray)
        assert (there.dtype, there.shape) == (array.dtype, array.shape)
        assert np.array_equal(there, array)


def test_a_partial_comes_back():
    there = back(functools.partial(nn.leaky_relu, negative_slope=0.2))
    assert there.func is nn.leaky_relu
    assert there.keywords == {"negative_slope": 0.2}


def local(x):
    return lambda y: x + y


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (optax.linear_schedule(0.0, 1.0, 100), optax.linear_schedule(0.0, 1.0, 200)),
        (local(1), local(2)),
        (lambda x, scale=1: x, lambda x, scale=2: x),
        (jax.jit(local(1)), jax.jit(local(2))),
        (np.zeros(2_000), np.ones(2_000)),
        (Holder(1).__eq__, Holder(2).__eq__),
        (jnp.zeros(()), np.zeros(())),
        ((1,), [1]),
    ],
)
def test_what_differs_is_described_differently(one, other):
    assert json.dumps(describe(one)) == json.dumps(describe(one))
    assert describe(Holder(one)) != describe(Holder(other))


def test_no_address_is_in_a_description():
    def recursive():
        return recursive

    for value in (recursive, object(), local(object()), optax.adam(1e-3)):
        assert " at 0x" not in json.dumps(describe(value))


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (lambda x: x, r"<lambda>, which can't be imported; define it with def or class"),
        (local(1), "local.<locals>"),
        (object(), "<object object>"),
        (np.zeros(2_000), r"an array of float64\[2000\], SHA-256"),
        ({1: 2}, "a dict of other keys than strings"),
    ],
)
def test_what_has_no_name_is_refused_by_the_field_it_is_in(value, what):
    with pytest.raises(vj.InputError, match=rf"^the value\.value\[0\]\.value is .*{what}"):
        build(describe(Holder((Holder(value),))))


def test_a_function_in_the_place_of_another_is_not_taken_for_it():
    def impostor(x):
        return -x

    impostor.__module__, impostor.__qualname__ = "jax.nn", "relu"
    with pytest.raises(vj.InputError, match=r"jax.nn:relu, which can't be imported"):
        build(describe(impostor))


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"class": "vae_jax:VAEE"}, "the value is vae_jax:VAEE, which can't be found"),
        ({"import": "no_such_package.nets:Net"}, "install the version of no_such_package"),
        ({"class": "os:system", "command": "true"}, "no dataclass, Linen module or named tuple"),
        ({"import": "jax.numpy:pi"}, "neither a class nor a function"),
        (
            {"class": "vae_jax:IWAE", "samples": 3, "k": 3},
            "can't be made .*'k'.*take the version of",
        ),
        ({}, r"the value is \{\}, which can't be imported"),
    ],
)
def test_a_description_that_leads_nowhere_is_a_sentence(description, message):
    with pytest.raises(vj.InputError, match=message):
        build(description)
