"""Networks that compute in bfloat16, with parameters, densities and gradients in float32."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import drawn, small_split
from flax import linen as nn
from flax import nnx

import vae_jax as vj

SHAPE = (8, 8, 1)
X = np.float32(np.random.default_rng(9).uniform(size=(8, *SHAPE)))
BATCH = vj.Batch(jnp.asarray(X), label=jnp.asarray(np.arange(8) % 3))
DATA = small_split(64, size=8)
OPTIMIZER = optax.sgd(1e-3)


class Own(nnx.Module):
    def __init__(self, sizes, shape, rngs):
        self.dense = nnx.Linear(*sizes, rngs=rngs)
        self.norm = nnx.BatchNorm(sizes[1], rngs=rngs)
        self.shape = shape

    def __call__(self, x):
        return self.norm(self.dense(x.reshape(len(x), -1))).reshape(-1, *self.shape)


def of_nnx(compute_dtype=None):
    encoder = vj.from_nnx(Own, sizes=(64, 4), shape=(2, 2))
    decoder = vj.from_nnx(Own, sizes=(2, 64), shape=SHAPE)
    return vj.VAE(encoder, decoder, SHAPE, 2, compute_dtype=compute_dtype)


MAKE = {
    "mlp": partial(vj.mlp_vae, SHAPE, 2, (8,), classes=3, prior=vj.GaussianMixture(2)),
    "batch norm": partial(vj.batch_norm_vae, SHAPE, 2, (8,)),
    "conv": partial(vj.conv_vae, SHAPE, 2, (4, 4), vj.LearnedGaussian(), linear=True),
    "resnet": partial(vj.resnet_vae, SHAPE, 2, 4, blocks=(1, 1)),
    "group norm": partial(vj.resnet_vae, SHAPE, 2, 4, blocks=(1, 1), norm="group"),
    "ladder": partial(vj.ladder_vae, SHAPE, (2, 2), (8,)),
    "conv ladder": partial(vj.conv_ladder_vae, SHAPE, 2, (4, 4), (1, 1), 2, vj.Bernoulli()),
    "nnx": of_nnx,
}


@cache
def step_of(model):
    return vj.make_train_step(model, vj.ELBO(), OPTIMIZER)


def types(tree):
    return jax.tree.map(lambda leaf: leaf.dtype, tree)


@pytest.mark.parametrize("name", MAKE)
def test_states_and_terms_keep_their_types(name):
    model = MAKE[name](compute_dtype="bfloat16")

    def first_step(key):
        key, draws_key = jax.random.split(key)
        state = vj.init(key, model, OPTIMIZER)
        after, metrics = step_of(model)(state, BATCH)
        terms = model.terms(draws_key, state.variables, BATCH, train=True)
        return [jax.tree.leaves(part) for part in (state, after, (metrics, terms.log_px_z, terms.kl, terms.z))]

    state, after, terms = types(jax.eval_shape(first_step, jax.random.key(0)))
    assert after == state
    assert jnp.bfloat16 not in [*state, *terms]


@pytest.mark.parametrize("name", ["mlp", "ladder", "nnx"])
def test_losses_are_those_of_float32_to_three_digits_and_not_to_seven(name):
    model = MAKE[name]()
    state = vj.init(jax.random.key(0), model, OPTIMIZER, variables=drawn(model.init, jax.random.key(0)))
    losses = [jax.jit(step_of(MAKE[name](compute_dtype=of)))(state, BATCH)[1]["loss"] for of in (None, "bfloat16")]
    assert 1e-7 < abs(losses[1] / losses[0] - 1) < 5e-3


def test_products_are_in_bfloat16_and_densities_are_not():
    model = vj.mlp_vae(SHAPE, 2, (8,), compute_dtype="bfloat16")
    first_step = jax.jit(lambda key: step_of(model)(vj.init(key, model, OPTIMIZER), BATCH))
    lines = first_step.lower(jax.random.key(0)).as_text().splitlines()
    products = [line for line in lines if "stablehlo.dot_general" in line]
    densities = [line for line in lines if "stablehlo.log" in line or "stablehlo.exp" in line]
    assert len(products) == 11  # of four layers and their gradients, without that of the images
    assert not any("xf32>" in line for line in products)
    assert densities
    assert not any("bf16" in line for line in densities)


def test_a_network_computes_what_the_layers_of_flax_compute_with_this_dtype():
    model = vj.mlp_vae(SHAPE, 2, (8,), compute_dtype="bfloat16")
    variables = drawn(model.init, jax.random.key(0))
    hidden, outputs = (nn.Dense(size, dtype=jnp.bfloat16) for size in (8, 4))
    of_encoder = variables["params"]["encoder"]

    h = nn.relu(hidden.apply({"params": of_encoder["Dense_0"]}, BATCH.x.reshape(8, -1)))
    expected = outputs.apply({"params": of_encoder["Dense_1"]}, h).astype(jnp.float32)
    np.testing.assert_array_equal(model.encode(variables, BATCH.x).mean, expected[:, :2])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["mlp", "ladder"])
def test_terms_of_examples_in_half_precision_are_in_float32(name, dtype):
    model = MAKE[name](compute_dtype="bfloat16")
    variables, batch = drawn(model.init, jax.random.key(0)), replace(BATCH, x=jnp.asarray(X, dtype))

    def found(key):
        terms = model.terms(key, variables, batch)
        return jax.tree.leaves((terms.log_px_z, terms.kl, terms.z))

    assert set(types(jax.eval_shape(found, jax.random.key(1)))) == {jnp.dtype("float32")}


def test_in_float64_the_terms_are_in_float64():
    with jax.enable_x64(True):
        for name in ("mlp", "ladder"):
            model = MAKE[name](compute_dtype="bfloat16")
            variables, batch = jax.tree.map(
                lambda leaf: jax.device_put(np.float64(leaf)) if leaf.dtype == jnp.float32 else leaf,
                (drawn(model.init, jax.random.key(0)), BATCH),
            )
            terms = jax.make_jaxpr(lambda key, v, m=model, b=batch: m.terms(key, v, b).log_px_z)
            assert terms(jax.random.key(1), variables).out_avals[0].dtype == jnp.float64


def fit(model, epochs=1, state=None, **settings):
    state = fresh(model, jax.random.key(0)) if state is None else state
    return vj.fit(state, step_of(model), DATA, epochs=epochs, batch_size=16, progress=False, **settings)


@partial(jax.jit, static_argnums=0)
def fresh(model, key):
    return vj.init(key, model, OPTIMIZER)


@jax.jit
def mean_of(model, variables, x):
    return model.encode(variables, x).mean


def test_models_are_saved_resumed_exported_and_members(tmp_path):
    model = vj.mlp_vae(SHAPE, 2, (8,), compute_dtype="bfloat16")
    keys = jax.random.split(jax.random.key(0), 1)
    state, _ = fit(model, state=fresh(model, keys[0]), store=vj.Checkpoints(tmp_path / "run", {}, model=model))
    vj.save(tmp_path / "saved", model, state.variables)
    loaded = vj.load_model(tmp_path / "saved")
    assert loaded.model == model == vj.restore_model(tmp_path / "run")[0]
    assert "compute_dtype='bfloat16'" in repr(loaded.model)
    expected = mean_of(model, state.variables, BATCH.x)
    np.testing.assert_array_equal(mean_of(loaded.model, loaded.variables, BATCH.x), expected)
    vj.export(model, state.variables, tmp_path / "exported", platforms=["cpu"])
    exported = jax.export.deserialize((tmp_path / "exported" / "encoder.bin").read_bytes())
    np.testing.assert_allclose(exported.call(BATCH.x)[0], expected, rtol=2e-2, atol=2e-2)
    other = replace(model, compute_dtype=None)
    with pytest.raises(vj.InputError, match=r"\(model\.compute_dtype is 'bfloat16' there and None here\)"):
        fit(other, 2, fresh(other, keys[0]), store=vj.Checkpoints(tmp_path / "run", {}))
    members, _ = fit(model, state=jax.jit(lambda keys: vj.init_members(keys, model, OPTIMIZER))(keys))
    pairs = zip(*map(jax.tree.leaves, (vj.member(members, 0).variables, state.variables)), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-4)


def test_a_checkpoint_of_a_time_without_this_field_is_resumed(tmp_path, monkeypatch):
    model = vj.mlp_vae(SHAPE, 2, (8,))
    described = vj.training.loop.describe_step

    def without_field(step, settings):
        description = described(step, settings)
        del description["model"]["compute_dtype"]
        return description

    monkeypatch.setattr(vj.training.loop, "describe_step", without_field)
    fit(model, store=vj.Checkpoints(tmp_path, {}))
    monkeypatch.undo()
    _, history = fit(model, 2, store=vj.Checkpoints(tmp_path, {}))
    assert [record["epoch"] for record in history] == [1, 2]


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("bad", ["float8", "float16", 16, 1j, jnp.bfloat16, np.dtype("bfloat16"), True])
def test_other_types_are_refused(name, bad):
    with pytest.raises(vj.InputError, match=r"^compute_dtype is .*; expected 'bfloat16', or None for the type"):
        MAKE[name](compute_dtype=bad)
