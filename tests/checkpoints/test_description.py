"""What a value is described as leads back to it, and to nothing else."""

import functools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import vae_jax as vj
from vae_jax.checkpoints.description import build, describe, own_packages
from vae_jax.errors import InputError
from vae_jax.networks import MLP, identity

SIZE = {"event_shape": (8, 8, 1), "latent_dim": 3}


class Own(nn.Module):
    """A network with a network in it."""

    inner: nn.Module
    widths: tuple[int, ...] = (3, 4)
    dtype: type = jnp.float32


@dataclass(frozen=True)
class Holder:
    value: object


@dataclass(frozen=True)
class Activated:
    f: Callable = lambda x: x


def back(value, modules=()):
    """By way of a file."""
    return build(json.loads(json.dumps(describe(value))), modules=modules)


@pytest.mark.parametrize(
    "vae",
    [
        *(vj.mlp_vae(**SIZE, activation=f) for f in (nn.relu, nn.tanh, nn.gelu, nn.silu, nn.swish, nn.elu, jnp.sin)),
        *(vj.mlp_vae(**SIZE, activation=f) for f in (jax.nn.softplus, jnp.tanh, nn.log_sigmoid, identity, nn.PReLU())),
        vj.mlp_vae(**SIZE, posterior=vj.Delta, classes=10),
        vj.conv_vae(**SIZE, features=(4, 8), linear=True),
        vj.batch_norm_vae(**SIZE, momentum=0.9, axis_name="devices"),
        *(vj.mlp_vae(**SIZE, likelihood=f) for f in (vj.Gaussian(0.1), vj.Gaussian(jnp.float32(0.1)), vj.Bernoulli())),
        *(vj.mlp_vae(**SIZE, likelihood=f()) for f in (vj.ContinuousBernoulli, vj.DiscretisedLogistic, vj.Laplace)),
        *(vj.mlp_vae(**SIZE, likelihood=f) for f in (vj.LearnedGaussian(2.0), vj.OptimalGaussian(0.5))),
        vj.VAE(nn.Dense(3), nn.Sequential((nn.Conv(2, (3, 3)), nn.BatchNorm(), nn.Dropout(0.1))), (8, 8, 1), 3),
        vj.VAE(nn.SelfAttention(2), nn.Bidirectional(nn.GRUCell(2), nn.GRUCell(2)), (8, 8, 1), 3),
    ],
    ids=lambda vae: f"{type(vae.encoder).__name__}-{vae.likelihood}",
)
def test_every_model_comes_back(vae):
    assert back(vae) == vae
    assert own_packages(describe((vae, {"class": 2}))) == set()


def test_a_model_with_code_of_its_own_comes_back_where_that_is_trusted():
    vae = vj.VAE(Own(Own(nn.Dense(3))), Own(nn.Dense(4, name="last"), dtype=jnp.bfloat16), (8, 8, 1), 3)
    assert own_packages(describe(vae)) == {__name__}
    assert back(vae, modules=(__name__,)) == vae
    with pytest.raises(InputError, match=rf"encoder is {__name__}:Own.*allow it by modules=\('{__name__}',\)"):
        back(vae)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, 1.0, 0.1, float("inf"), "a", "é", (), (1, (2.0, "b")), [1, [2]], {"a": (1,), "class": 2},
        np.int64(3), np.float32(0.1), vj.Mirrored(vj.Scale(-1.0, 1.0)), vj.IWAE(5), vj.ELBO(beta=0.5), jnp.tanh,
        vj.AnalyticKL, jax.nn.relu, optax.GradientTransformation(nn.relu, nn.tanh), vj.Classifier(), jnp.float32,
        np.float16, float, nn.Dense, nn.avg_pool, nn.initializers.zeros_init, nn.initializers.lecun_normal,
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
    there = back(functools.partial(jnp.hypot, 0.5))
    assert (there.func, there.args, there.keywords) == (jnp.hypot, (0.5,), {})


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
        build(describe(Holder((Holder(value),))), modules=(__name__,))


def test_a_function_in_the_place_of_another_is_not_taken_for_it():
    def impostor(x):
        return -x

    impostor.__module__, impostor.__qualname__ = "jax.nn", "relu"
    with pytest.raises(vj.InputError, match=r"jax.nn:relu, which can't be imported"):
        build(describe(impostor))


def test_a_function_like_a_default_is_not_taken_for_it():
    def impostor(x):
        return -x

    impostor.__qualname__ = Activated.f.__qualname__
    assert back(Activated(), modules=(__name__,)) == Activated()
    with pytest.raises(InputError, match=r"f is .*<lambda>, which can't be imported"):
        back(Activated(impostor), modules=(__name__,))


PARTIAL = describe(functools.partial(nn.relu))


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"class": "vae_jax:VAEE"}, "the value is vae_jax:VAEE, which can't be found"),
        ({"import": "no_such_package.nets:Net"}, r"which can't be found .*install the version of no_such_package"),
        ({"class": "jax.nn:relu"}, "is jax.nn:relu, which is no dataclass, Linen module or named tuple"),
        ({"class": "flax.linen:Module"}, "which is no dataclass, Linen module or named tuple"),
        ({"import": "jax.numpy:pi"}, "jax.numpy:pi, which is none of the values and numeric functions"),
        ({"class": "vae_jax:IWAE", "samples": 3, "k": 3}, "can't be made .*'k'.*use the version of vae_jax:IWAE"),
        ({"class": "vae_jax:IWAE"}, "can't be made .*'samples'.*use the version of vae_jax:IWAE"),
        ({"class": "vae_jax:IWAE", "samples": 0}, r"the value can't be made \(samples is 0; expected a whole number"),
        ({"class": "vae_jax:Gaussian", "variance": "wide"}, "can't be made .*use the version of vae_jax:Gaussian"),
        ({"class": "vae_jax:Gaussian", "variance": [1.0, 2.0]}, "can't be made .*use the version"),
        ({"class": "flax.linen:Dense", "features": 2, "parent": None}, "can't be made .*it has no 'parent'"),
        (PARTIAL | {"func": {"is": "default"}}, r"can't be made \('func'\)"),
        (PARTIAL | {"func": 1}, "can't be made .*callable"),
        (PARTIAL | {"args": 1}, "can't be made .*iterable"),
        (PARTIAL | {"keywords": []}, "can't be made .*mapping"),
        ({"class": "builtins:list", "items": 3}, "has items 3; expected a list"),
        ({"class": "builtins:dict", "items": []}, r"has items \[\]; expected a dict"),
        ({"class": 3}, "is 3, which is no address; expected text such as 'vae_jax.networks:MLP'"),
        ({"class": "jax:Array", "dtype": "float32", "shape": [2]}, "has values None; expected a list"),
        ({"class": "jax:Array", "dtype": "float32", "shape": [2], "values": [1]}, "is no array .*expected a dtype"),
        ({"class": "numpy:generic", "dtype": "uint8", "shape": [], "values": [300]}, "is no array"),
        ({"class": "numpy:ndarray", "dtype": "object", "shape": [], "values": [{}]}, "object is no type of numbers"),
        ({}, r"the value is \{\}, which can't be imported"),
    ],
)
def test_a_description_that_leads_nowhere_is_a_sentence(description, message):
    with pytest.raises(InputError, match=message):
        build(description, modules=("no_such_package",))


ODD = [
    None, True, -1, 0, 10**30, 1e308, float("nan"), "", "os:system", [], {}, [[]], [{}], {"is": "default"},
    {"class": None}, {"import": 1}, {"def": {}}, {"class": "functools:partial"}, {"class": "vae_jax:VAE"},
    {"class": "jax:Array"}, {"import": "jax.nn:relu"}, {"import": "vae_jax:Delta"},
]  # fmt: skip


def changed(description, pick):
    """With one entry, somewhere, replaced, left out, or under another name."""
    if not isinstance(description, dict | list) or not description or pick.random() < 0.1:
        return pick.choice(ODD)
    keys = list(description) if isinstance(description, dict) else list(range(len(description)))
    copy, key = description.copy(), pick.choice(keys)
    what = pick.random()
    if what < 0.1:
        del copy[key]
    elif what < 0.2 and isinstance(copy, dict):
        copy[pick.choice([*keys, "class", "items", "parent", "is"])] = copy.pop(key)
    else:
        copy[key] = changed(copy[key], pick)
    return copy


def test_a_damaged_description_is_a_value_or_a_sentence():
    leaky = functools.partial(nn.leaky_relu, negative_slope=0.2)
    values = [
        vj.mlp_vae(**SIZE, likelihood=vj.Gaussian(jnp.float32(0.1)), activation=leaky, classes=3),
        vj.VAE(MLP((3,), (2, 3), nn.PReLU(), batch_norm=0.9), nn.Sequential((nn.Dense(2), nn.tanh)), (8, 8, 1), 3),
        [{"a": np.arange(3), "b": (np.float16(2), jnp.zeros(2))}, vj.Mirrored(vj.Scale()), vj.ELBO(beta=0.5)],
    ]
    whole = [json.loads(json.dumps(describe(value))) for value in values]
    pick, refused = random.Random(0), 0
    for case in range(900):
        damaged = whole[case % 3]
        for _ in range(pick.randint(1, 3)):
            damaged = changed(damaged, pick)
        try:
            build(damaged)
        except InputError:
            refused += 1
    assert 300 < refused < 900


@pytest.mark.parametrize("kind", ["list", "items", "layers"])
def test_a_description_without_end_is_a_sentence(kind):
    nested = 1
    for _ in range(10_000):
        nested = {
            "list": [nested],
            "items": {"class": "builtins:list", "items": [nested]},
            "layers": {"class": "flax.linen:Sequential", "layers": [nested]},
        }[kind]
    with pytest.raises(InputError, match="the value is nested too deeply"):
        build(nested)
