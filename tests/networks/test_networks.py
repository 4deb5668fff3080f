"""Networks of one's own: dropout, NNX classes, conditions of every kind; gated layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import drawn
from flax import linen as nn
from flax import nnx

import vae_jax as vj
from vae_jax.networks import MLP

SHAPE = (3,)
X = jnp.asarray(np.float32(np.random.default_rng(0).normal(size=(6, *SHAPE))))
STEP, ONE = jnp.int32(0), jnp.arange(1)


def keys():
    return jax.random.split(jax.random.key(1), 6)


class Dropped(nn.Module):
    """Half of eight ones, then a dense layer: its outputs differ only by the dropout mask."""

    output_shape: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs, train=False):
        h = nn.Dropout(0.5, deterministic=not train)(jnp.ones((len(inputs), 8)))
        return MLP((), self.output_shape)(h)


class NNXDropped(nnx.Module):
    """The same as an NNX class."""

    def __init__(self, features, output_shape, *, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(features, int(np.prod(output_shape)), rngs=rngs)
        self.features, self.output_shape = features, output_shape

    def __call__(self, inputs):
        h = self.dropout(jnp.ones((len(inputs), self.features)))
        return self.dense(h).reshape(-1, *self.output_shape)


class NNXNormalised(nnx.Module):
    """Batch norm, then dropout if asked for."""

    def __init__(self, features, output_shape, rate=0.0, *, rngs):
        self.dense = nnx.Linear(features, int(np.prod(output_shape)), rngs=rngs)
        self.norm = nnx.BatchNorm(features, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.output_shape = output_shape

    def __call__(self, inputs, mask=None):
        h = self.norm(inputs, mask=None if mask is None else mask[:, None] > 0)
        return self.dense(self.dropout(h)).reshape(-1, *self.output_shape)


DROPPED = {
    "linen": (Dropped((2, 2)), Dropped(SHAPE)),
    "nnx": (
        vj.from_nnx(NNXDropped, features=8, output_shape=(2, 2)),
        vj.from_nnx(NNXDropped, features=8, output_shape=SHAPE),
    ),
}


@functools.cache
def dropped(kind):
    vae = vj.VAE(*DROPPED[kind], SHAPE, 2, likelihood=vj.Gaussian())
    return vae, drawn(vae.init, jax.random.key(0))


def terms(kind, keys, x, draws=2, train=True, mask=None):
    return compiled_terms(*dropped(kind), keys, vj.Batch(x, mask=mask), jnp.arange(draws), train)


@functools.partial(jax.jit, static_argnames="train")
def compiled_terms(vae, variables, keys, batch, numbers, train=True):
    return vae.terms(keys, variables, batch, numbers, train=train)


@pytest.mark.parametrize("kind", DROPPED)
def test_the_dropout_of_an_example_depends_on_its_key_alone(kind):
    """Not on the batch around it, on the padding, or on the number of draws."""
    whole, part, padded, more = (
        terms(kind, keys(), X),
        terms(kind, keys()[2:4], X[2:4]),
        terms(kind, keys(), X, mask=jnp.array([1.0, 1, 1, 1, 0, 0])),
        terms(kind, keys(), X, draws=4),
    )
    for name in ("log_px_z", "kl"):
        of_whole, of_part, of_padded, of_more = (
            np.asarray(jax.tree.leaves(getattr(found, name))[0]) for found in (whole, part, padded, more)
        )
        np.testing.assert_allclose(of_part, of_whole[:, 2:4], rtol=1e-5)
        np.testing.assert_allclose(of_padded, of_whole, rtol=1e-6)
        np.testing.assert_allclose(of_more[:2], of_whole, rtol=1e-5)
        np.testing.assert_allclose(terms(kind, keys()[::-1], X).kl["z"][0], whole.kl["z"][0][::-1], rtol=1e-5)


@pytest.mark.parametrize("kind", DROPPED)
def test_dropout_differs_between_examples_draws_networks_and_keys(kind):
    """Means of q(z|x) and p(x|z) are functions of the masks alone, so equal masks would show."""
    vae, variables = dropped(kind)
    encoded = jax.jit(lambda keys: vae.code(variables, vj.Batch(X), True, keys).posterior.mean)
    one, other = (np.asarray(encoded(of)) for of in (keys(), jax.random.split(jax.random.key(2), 6)))
    assert len(np.unique(one[:, 0])) > 3
    decoded = np.asarray(terms(kind, keys(), X).px_z.mean[..., 0])
    assert len(np.unique(decoded[0])) > 3
    assert np.any(decoded[0] != decoded[1])
    assert np.any(other != one)


def test_encoder_and_decoder_do_not_share_their_masks():
    """Both networks have the same weights here."""
    vae = vj.VAE(Dropped((2, 2)), Dropped((2, 2)), (2, 2), 2, likelihood=vj.Gaussian())
    variables = drawn(vae.init, jax.random.key(0))
    variables["params"]["decoder"] = variables["params"]["encoder"]
    batch = vj.Batch(jnp.zeros((6, 2, 2)))

    @jax.jit
    def means(keys):
        code = vae.code(variables, batch, True, keys)
        return code.posterior.mean, vae.terms(keys, variables, batch, train=True, code=code).px_z.mean[0, :, 0]

    assert np.any(np.not_equal(*means(keys())))


@pytest.mark.parametrize("kind", DROPPED)
def test_dropout_is_active_in_training_alone(kind):
    vae, variables = dropped(kind)
    evaluated = terms(kind, keys(), X, train=False)
    assert len(np.unique(np.asarray(evaluated.px_z.mean[..., 0]).round(5))) == 1
    kl = np.asarray(jax.jit(lambda x: vae.encode(variables, x).kl())(X))
    np.testing.assert_allclose(np.asarray(evaluated.kl["z"])[0], kl, rtol=1e-6)
    found = vj.evaluate(jax.random.key(0), vae, variables, np.asarray(X))
    np.testing.assert_allclose(found.kl, kl.sum(axis=-1), rtol=1e-5)


@pytest.mark.parametrize("kind", DROPPED)
def test_models_with_dropout_are_trained(kind):
    """The noise of two steps differs, and it is kept inside a compiled step."""
    vae, variables = dropped(kind)
    optimizer = optax.sgd(0.0)
    state = vj.TrainState(variables, optimizer.init(variables["params"]), jnp.int32(0), jax.random.key(3))
    step = jax.jit(vj.make_train_step(vae, vj.ELBO(), optimizer))
    second, first = step(state, vj.Batch(X))
    _, other = step(second, vj.Batch(X))
    assert first["finite"]
    assert first["kl"] != other["kl"]
    np.testing.assert_array_equal(step(state, vj.Batch(X))[1]["kl"], first["kl"])


def normalised(rate=0.0):
    layers = functools.partial(vj.from_nnx, NNXNormalised, rate=rate)
    vae = vj.VAE(
        layers(features=3, output_shape=(2, 2)),
        layers(features=2, output_shape=SHAPE),
        SHAPE,
        2,
        likelihood=vj.Gaussian(),
    )
    return vae, drawn(vae.init, jax.random.key(0))


def test_batch_norm_of_an_nnx_class_is_that_of_linen():
    """By the batch and updated in training, by the running statistics in evaluation, without the padding."""
    vae, variables = normalised()
    assert sorted(variables) == ["batch_stats", "params"]
    x = jnp.asarray(5 + np.asarray(X))
    updates = compiled_terms(vae, variables, keys(), vj.Batch(x), ONE).updates["batch_stats"]["encoder"]
    np.testing.assert_allclose(jax.tree.leaves(updates)[0], 0.5 * x.mean(axis=0), rtol=1e-5)
    mask = np.float32([1, 1, 1, 1, 0, 0])
    padded = vj.Batch(jnp.asarray(np.where(mask[:, None], x, np.float32(99))), mask=jnp.asarray(mask))
    without = compiled_terms(vae, variables, keys(), padded, ONE).updates["batch_stats"]["encoder"]
    np.testing.assert_allclose(jax.tree.leaves(without)[0], 0.5 * x[:4].mean(axis=0), rtol=1e-5)
    assert compiled_terms(vae, variables, keys(), vj.Batch(x), ONE, train=False).updates == {}
    encode = jax.jit(lambda x: vae.encode(variables, x).mean)
    alone, together = (np.asarray(encode(of))[0] for of in (x[:1], x))
    np.testing.assert_allclose(alone, together, rtol=1e-4)


def test_dropout_beside_batch_norm_in_an_nnx_class_follows_the_key():
    vae, variables = normalised(rate=0.5)
    encode = jax.jit(lambda keys: vae.code(variables, vj.Batch(X), True, keys).posterior.mean)
    one, same, other = (np.asarray(encode(jax.random.split(jax.random.key(seed), 6))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)


def test_an_nnx_network_is_a_value():
    one, same, other = (vj.from_nnx(NNXDropped, features=n, output_shape=(2, 2)) for n in (8, 8, 4))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other


CONDITIONS = {
    "labels": ({"classes": 3}, jnp.array([0, 1, 2, 0, 1, 2])),
    "an array": ({"condition_shape": (2, 2)}, jnp.asarray(np.float32(np.random.default_rng(5).normal(size=(6, 2, 2))))),
    "a dict": (
        {"condition_shape": (("age", ()), ("place", (2,)))},
        {"age": jnp.arange(6.0), "place": jnp.asarray(np.float32(np.random.default_rng(6).normal(size=(6, 2))))},
    ),
}


@functools.cache
def conditional(kind):
    settings, condition = CONDITIONS[kind]
    vae = vj.mlp_vae(SHAPE, latent_dim=2, hidden=(4,), activation=jnp.tanh, likelihood=vj.Gaussian(), **settings)
    return vae, drawn(vae.init, jax.random.key(0)), condition


def batch_of(kind, condition):
    return vj.Batch(X, label=condition) if kind == "labels" else vj.Batch(X, condition=condition)


@pytest.mark.parametrize("kind", CONDITIONS)
def test_a_condition_enters_both_networks_and_every_evaluation(kind):
    """Each number of an example is that under its own condition, however it is given."""
    vae, variables, condition = conditional(kind)
    turned = jax.tree.map(lambda leaf: jnp.asarray(np.roll(leaf, 1, axis=0)), condition)
    z = jnp.asarray(np.ones((6, 2), np.float32))

    @jax.jit
    def calls(c):
        return {
            "encode": vae.encode(variables, X, c).mean,
            "decode": vae.decode(variables, z, c).mean,
            "decode draws": vae.decode(variables, jnp.stack([z, z]), c).mean[1],
            "sample": vae.sample(jax.random.key(1), variables, 6, c, given={"z": z}).px_z.mean,
            "terms": vae.terms(keys(), variables, batch_of(kind, c)).log_px_z[0],
            "elbo_terms": vj.elbo_terms(keys(), vae, variables, X, c).log_px_z,
            "log_weights": vj.log_weights(keys(), vae, variables, X, 2, c)[1],
            "ELBO": vj.ELBO()(keys(), vae, variables, batch_of(kind, c), STEP).per_example,
        }

    def all_calls(c):
        estimate = vj.importance_estimate(jax.random.key(1), vae, variables, X, 4, c)
        return jax.tree.map(np.asarray, calls(c)) | {"importance_estimate": estimate.log_px}

    of_condition, of_turned = all_calls(condition), all_calls(turned)
    found = {name: (of_condition[name], of_turned[name]) for name in of_condition}
    for name, (one, other) in found.items():
        assert np.all(np.any((one != other).reshape(6, -1), axis=1)), name
    np.testing.assert_allclose(found["sample"][0], found["decode"][0], rtol=1e-6)
    # A mean may be near 0, and both are parts of one program, which rounds them differently.
    np.testing.assert_allclose(found["decode draws"][0], found["decode"][0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["elbo_terms"][0], found["terms"][0], rtol=1e-6)
    third = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[2:3]), condition)
    alone = jax.jit(lambda c: vae.encode(variables, X[2:3], c).mean)(third)
    np.testing.assert_allclose(found["encode"][0][2:3], alone, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "condition", "message"),
    [
        ("labels", None, "no labels were given"),
        ("labels", jnp.array([0, 1]), r"labels have shape \(2,\); expected \(6,\)"),
        ("labels", jnp.array([0, 1, 2, 0, 1, 3]), "labels run from 0 to 3; expected 0 to 2"),
        ("an array", None, "no condition was given"),
        ("an array", jnp.zeros((6, 3)), r"the condition has shape \(6, 3\)"),
        ("an array", jnp.zeros((5, 2, 2)), r"the condition has shape \(5, 2, 2\)"),
        ("an array", {"age": jnp.zeros((6, 2, 2))}, "the condition has shape {'age'"),
        ("a dict", {"age": jnp.zeros(6)}, "the condition has shape {'age'"),
        ("a dict", jnp.zeros((6, 2)), r"the condition has shape \(6, 2\)"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(kind, condition, message):
    vae, variables, _ = conditional(kind)
    for call in (
        lambda: vae.encode(variables, X, condition),
        lambda: vae.decode(variables, jnp.zeros((6, 2)), condition),
        lambda: vae.sample(jax.random.key(1), variables, 6, condition),
        lambda: vj.elbo_terms(keys(), vae, variables, batch_of(kind, condition)),
    ):
        with pytest.raises(vj.InputError, match=message):
            call()


def test_a_model_has_one_kind_of_condition():
    with pytest.raises(vj.InputError, match="classes and condition_shape are given"):
        vj.mlp_vae(SHAPE, classes=2, condition_shape=(2,))


def test_a_gated_layer_is_a_linear_one_times_its_gate():
    network = vj.Gated((4,), (2, 2))
    variables = drawn(lambda key: network.init(key, X, condition=jnp.ones((6, 2))), jax.random.key(0))
    first, last = (variables["params"][f"Dense_{i}"] for i in range(2))
    outputs = np.concatenate([X, np.ones((6, 2))], axis=1) @ first["kernel"]
    h = outputs[:, :4] / (1 + np.exp(-outputs[:, 4:]))
    expected = (h @ last["kernel"]).reshape(6, 2, 2)
    found = jax.jit(lambda x: network.apply(variables, x, condition=jnp.ones((6, 2))))(X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
