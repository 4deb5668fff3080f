"""Events of any shape: rows of tables, arrays, missing entries."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from conftest import drawn
from flax import linen as nn

import vae_jax as vj

COLUMNS = 5
GENERATOR = np.random.default_rng(0)
ROWS = (GENERATOR.normal(size=(64, 2)) @ GENERATOR.normal(size=(2, COLUMNS))).astype(np.float32)
KNOWN = GENERATOR.random(ROWS.shape) < 0.7
VAE = vj.mlp_vae((COLUMNS,), latent_dim=2, hidden=(8,), likelihood=vj.LearnedGaussian(per_element=True))
VARIABLES = drawn(VAE.init, jax.random.key(0))
OPTIMIZER = optax.adam(1e-2)
STEP = vj.make_train_step(VAE, vj.ELBO(), OPTIMIZER)


@jax.jit
def fresh():
    return vj.init(jax.random.key(0), VAE, OPTIMIZER, variables=VARIABLES)


def with_missing():
    return vj.Dataset.from_arrays(
        "table", np.where(KNOWN, ROWS, np.nan), test_images=ROWS, train_observed=KNOWN, test_observed=KNOWN
    )


def test_training_and_evaluation_take_arrays():
    state, history = vj.fit(fresh(), STEP, ROWS, epochs=3, batch_size=16, progress=False)
    assert history[-1]["loss"] < history[0]["loss"]
    assert state.variables["params"]["likelihood"]["log_scale"].shape == (COLUMNS,)
    terms = vj.evaluate(jax.random.key(1), VAE, state.variables, ROWS)
    assert np.isfinite(terms.log_px_z).all()
    split = vj.Split(ROWS)
    np.testing.assert_array_equal(terms.kl, vj.evaluate(jax.random.key(1), VAE, state.variables, split).kl)
    np.testing.assert_allclose(vj.encode_all(jax.random.key(1), VAE, state.variables, ROWS).kl().sum(-1), terms.kl)
    np.testing.assert_array_equal(vj.transform_all(jax.random.key(1), ROWS), ROWS)
    assert np.isfinite(vj.log_likelihood(jax.random.key(2), VAE, state.variables, ROWS, 20)).all()


def test_only_observed_entries_count():
    """The encoder sees 0 for missing entries, and log p(x|z) is the sum over the observed columns."""
    data = with_missing()
    terms = vj.evaluate(jax.random.key(1), VAE, VARIABLES, data.train)
    zeros = np.where(KNOWN, ROWS, 0)

    @jax.jit
    def expected_and_weights(zeros, images):
        posterior = VAE.encode(VARIABLES, zeros)
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(jax.random.key(1), 1), i))(jnp.arange(64))
        px_z = VAE.decode(VARIABLES, VAE.draw(keys, posterior, jnp.arange(1))[0])
        batch = vj.Raw(missing=True)(keys, images)
        log_w = vj.log_weights(jax.random.key(2), VAE, VARIABLES, batch, 50)
        return posterior.kl(), px_z.mean, px_z.variance, batch, log_w

    kl, mean, variance, batch, log_w = expected_and_weights(zeros, data.train.images)
    np.testing.assert_allclose(terms.kl, kl.sum(-1), rtol=1e-5)
    mean, variance = np.asarray(mean), np.asarray(variance)
    by_entry = -0.5 * ((zeros - mean) ** 2 / variance + np.log(2 * np.pi * variance))
    np.testing.assert_allclose(terms.log_px_z, np.sum(by_entry * KNOWN, axis=1), rtol=1e-5)
    found = vj.importance_estimate(jax.random.key(2), VAE, VARIABLES, batch, 50)
    np.testing.assert_allclose(found.log_px, scipy.special.logsumexp(log_w, axis=0) - np.log(50), rtol=1e-5)


def test_gradients_are_finite_if_missing_entries_are_nan():
    state, history = vj.fit(fresh(), STEP, with_missing().train, epochs=2, batch_size=16, progress=False)
    assert all(np.isfinite(record["loss"]) for record in history)
    batch = vj.Batch(jnp.asarray(np.where(KNOWN, ROWS, np.float32(np.nan))), observed=jnp.asarray(KNOWN))

    def loss(variables):
        return vj.ELBO()(jax.random.key(1), VAE, variables, batch, jnp.int32(0)).per_example.sum()

    gradient = jax.jit(jax.grad(loss))(state.variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


class MaskedEncoder(nn.Module):
    """An encoder whose inputs include the mask of the known entries."""

    @nn.compact
    def __call__(self, inputs, train=False, observed=None):
        mask = jnp.ones_like(inputs) if observed is None else observed.astype(inputs.dtype)
        return nn.Dense(4)(jnp.concatenate([inputs, mask], axis=-1)).reshape(-1, 2, 2)


def test_an_encoder_with_the_argument_observed_gets_the_mask():
    vae = vj.VAE(MaskedEncoder(), VAE.decoder, (COLUMNS,), 2, likelihood=VAE.likelihood)
    variables = drawn(vae.init, jax.random.key(0))
    x, known = np.zeros((2, COLUMNS), np.float32), np.tile(np.arange(COLUMNS) < 2, (2, 1))
    of_some = jax.jit(lambda x, known: vae.code(variables, vj.Batch(x, observed=known)).posterior.mean)
    of_all = jax.jit(lambda x: vae.encode(variables, x).mean)
    assert not np.allclose(of_some(x, known), of_all(x))


def test_the_optimal_variance_is_that_of_the_observed_entries():
    likelihood = vj.OptimalGaussian()
    means = np.zeros((3, 64, COLUMNS), np.float32)
    x, mask = np.where(KNOWN, ROWS, np.float32(1e3)), np.float32(np.arange(64) < 50)
    batch = vj.Batch(jnp.asarray(x), observed=jnp.asarray(KNOWN), mask=jnp.asarray(mask))
    variance = jax.jit(lambda means: likelihood.in_training(means, likelihood.init(), batch, 1)[0].variance)
    np.testing.assert_allclose(variance(means), np.mean(ROWS[:50][KNOWN[:50]] ** 2), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vj.Dataset.from_arrays("t", np.where(KNOWN, ROWS, np.nan), test_images=ROWS), "or a mask of the"),
        (lambda: vj.Split(np.where(KNOWN, ROWS, np.nan).astype(np.float32)), "NaN or infinite"),
        (lambda: vj.Dataset.from_arrays("t", ROWS, test_images=ROWS, train_observed=KNOWN[:, :2]), "expected bool"),
        (lambda: vj.Dataset.from_arrays("t", ROWS * np.nan, test_images=ROWS, train_observed=KNOWN), "NaN"),
        (lambda: vj.Dataset.from_arrays("t", ROWS, test_images=ROWS[:, :3]), "expected one shape"),
        (lambda: vj.Dataset.from_arrays("t", ROWS[:, 0], test_images=ROWS), "expected .N, height"),
        (lambda: vj.evaluate(jax.random.key(0), VAE, VARIABLES, ROWS[:, :3]), r"shape \(3,\), but the model takes"),
        (lambda: VAE.decode(VARIABLES, jnp.zeros((2, 2))).log_prob(jnp.zeros((2, 4))), r"events of shape \(4,\)"),
        (
            lambda: vj.elbo_terms(
                jax.random.key(0), VAE, VARIABLES, vj.Batch(jnp.zeros((2, COLUMNS)), observed=jnp.ones((2, 3)))
            ),
            "observed",
        ),
        (lambda: vj.bits_per_dim(np.zeros(3), VAE, vj.Raw()), "real numbers"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error(make, message):
    with pytest.raises(vj.InputError, match=message):
        make()
