"""Losses per example, in nats, made of the terms they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax as vj

VAE = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,))
VARIABLES = VAE.init(jax.random.key(0))
X = jax.random.uniform(jax.random.key(1), (5, 6, 6, 1))


BATCH = vj.Batch(X)


def loss(objective, batch=BATCH):
    return objective(jax.random.key(2), VAE, VARIABLES, batch, jnp.int32(0))


def test_elbo_is_its_terms_for_each_example():
    terms = vj.elbo_terms(jax.random.key(2), VAE, VARIABLES, X)
    assert terms.log_px_z.shape == terms.kl.shape == (5,)
    for beta in (1.0, 0.0, 3.5):
        found = loss(vj.ELBO(beta))
        assert found.per_example.shape == (5,)
        np.testing.assert_allclose(found.per_example, beta * terms.kl - terms.log_px_z, rtol=1e-6)
        np.testing.assert_allclose(found.terms["kl"], terms.kl, rtol=1e-6)
        np.testing.assert_allclose(found.terms["log_px_z"], terms.log_px_z, rtol=1e-6)


def test_reconstruction_leaves_the_kl_out():
    terms = vj.elbo_terms(jax.random.key(2), VAE, VARIABLES, X)
    found = loss(vj.Reconstruction())
    assert found.terms.keys() == {"log_px_z"}
    np.testing.assert_allclose(found.per_example, -terms.log_px_z, rtol=1e-6)


@pytest.mark.parametrize("objective", [vj.ELBO(), vj.Reconstruction()])
def test_the_target_is_what_is_explained(objective):
    clean = 1 - X
    with_target = loss(objective, vj.Batch(X, target=clean))
    encoded = VAE.forward(jax.random.key(2), VARIABLES, vj.Batch(X))
    np.testing.assert_allclose(with_target.terms["log_px_z"], encoded.p_x.log_prob(clean)[0], rtol=1e-6)


def test_nats_are_summed_over_pixels_and_latents():
    """The sum over 36 pixels of a decoder that says 1/2 everywhere is 36 log 2, whatever x is."""
    silent = jax.tree.map(jnp.zeros_like, VARIABLES)
    terms = vj.elbo_terms(jax.random.key(2), VAE, silent, X)
    np.testing.assert_allclose(terms.log_px_z, -36 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(terms.kl, 0, atol=1e-6)


@pytest.mark.parametrize("beta", [-1.0, float("nan"), float("inf"), np.float32(-1)])
def test_a_beta_that_is_no_weight_is_refused(beta):
    with pytest.raises(vj.InputError, match="beta"):
        vj.ELBO(float(beta))
