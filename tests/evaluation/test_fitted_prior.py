"""Priors fitted to the encodings of a trained model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import drawn
from sklearn.mixture import GaussianMixture as Reference

import vae_jax as vj
from vae_jax.evaluation.fitted_prior import _with_prior
from vae_jax.networks import MLP

FLOW = vj.FlowPrior(vj.Coupling(layers=2, hidden=(16,)))


def two_clusters(count=400):
    """Points around (3, 0) and (-3, 1)."""
    generator = np.random.default_rng(0)
    chosen = (generator.random(count) < 0.3).astype(int)
    centres = np.array([[3.0, 0.0], [-3.0, 1.0]])[chosen]
    return (centres + generator.normal(size=(count, 2)) * [0.5, 1.0]).astype(np.float32)


def identity_vae(posterior=vj.Delta, **settings):
    """A model of points in the plane, whose encodings are the points if the posterior is a `Delta`."""
    vae = vj.VAE(MLP((), posterior.output_shape(2)), MLP((), (2,)), (2,), 2, posterior, vj.Gaussian(), **settings)
    variables = drawn(vae.init, jax.random.key(0))
    layer = variables["params"]["encoder"]["Dense_0"]
    if posterior is vj.Delta:
        layer["kernel"] = jnp.eye(2)
    return vae, variables


def log_prior(vae, variables, z):
    return np.asarray(jax.jit(lambda z: vae.prior_distribution(variables).log_prob(z))(z))


def draws_of(vae, variables, count):
    return np.asarray(jax.jit(lambda key: vae.sample(key, variables, count).z["z"])(jax.random.key(2)))


def test_a_mixture_is_that_of_scikit_learn():
    x = two_clusters()
    vae, variables = vj.fit_prior(jax.random.key(1), *identity_vae(), x, vj.GaussianMixture(2), draws=1)
    reference = Reference(2, covariance_type="diag", n_init=5, tol=1e-8, random_state=0).fit(x)
    np.testing.assert_allclose(log_prior(vae, variables, x).mean(), reference.score(x), atol=1e-3)
    fitted = variables["params"]["prior"]
    order = np.argsort(fitted["means"][:, 0])
    expected = np.argsort(reference.means_[:, 0])
    np.testing.assert_allclose(fitted["means"][order], reference.means_[expected], atol=0.02)
    np.testing.assert_allclose(jax.nn.softmax(fitted["logits"])[order], reference.weights_[expected], atol=0.01)
    np.testing.assert_allclose(draws_of(vae, variables, 4_000).mean(axis=0), x.mean(axis=0), atol=0.15)


@pytest.mark.parametrize("prior", [vj.GaussianMixture(2), vj.FullGaussianMixture(2)])
def test_a_mixture_has_the_type_of_the_encodings(prior):
    vae, variables = identity_vae()
    with jax.enable_x64(True):
        _, fitted = vj.fit_prior(jax.random.key(1), vae, variables, two_clusters(), prior)
    assert {leaf.dtype for leaf in jax.tree.leaves(fitted)} == {np.dtype(np.float32)}


def test_the_samples_are_those_of_the_posterior():
    """q(z|x) = N(0, 4) for each x, so the fitted Gaussian is N(0, 4)."""
    model, variables = identity_vae(vj.DiagonalGaussian)
    layer = variables["params"]["encoder"]["Dense_0"]
    layer["kernel"], layer["bias"] = jnp.zeros((2, 4)), jnp.log(4.0) * jnp.array([0.0, 0, 1, 1])
    x = two_clusters(2_000)
    vae, fitted = vj.fit_prior(jax.random.key(1), model, variables, x, vj.GaussianMixture(1), draws=4)
    prior = fitted["params"]["prior"]
    np.testing.assert_allclose(prior["means"], 0, atol=0.1)
    np.testing.assert_allclose(jnp.exp(prior["log_variances"]), 4, rtol=0.05)
    mean_kl = jax.jit(lambda vae, variables: vj.elbo_terms(jax.random.key(3), vae, variables, jnp.asarray(x)).kl.mean())
    kl = [mean_kl(*each) for each in ((model, variables), (vae, fitted))]
    assert float(kl[0]) == pytest.approx(3 - np.log(4), rel=1e-3)
    assert float(kl[1]) == pytest.approx(0, abs=0.05)


def test_a_flow_has_a_density_above_that_of_one_gaussian():
    x = two_clusters()
    given = (*identity_vae(), x)
    gaussian = vj.fit_prior(jax.random.key(1), *given, vj.GaussianMixture(1), draws=1)
    flow = vj.fit_prior(jax.random.key(1), *given, FLOW, draws=1, steps=1_500, progress=False)
    assert log_prior(*flow, x).mean() > log_prior(*gaussian, x).mean() + 0.1
    np.testing.assert_allclose(draws_of(*flow, 2_000).mean(axis=0), x.mean(axis=0), atol=0.3)


@pytest.mark.parametrize("prior", [vj.GaussianMixture(3), FLOW], ids=["mixture", "flow"])
def test_all_else_works_with_the_fitted_model(prior, tmp_path):
    model, variables = identity_vae(vj.DiagonalGaussian, prior=vj.GaussianMixture(2))
    x = two_clusters(64)
    vae, fitted = vj.fit_prior(jax.random.key(1), model, variables, x, prior, draws=2, steps=5, progress=False)
    assert vae.prior == prior
    for part in ("encoder", "decoder"):
        assert fitted["params"][part] is variables["params"][part]
    assert jax.tree.structure(fitted) == jax.tree.structure(jax.eval_shape(vae.init, jax.random.key(0)))
    assert vj.log_likelihood(jax.random.key(2), vae, fitted, x, 5).shape == (64,)
    vj.save(tmp_path, vae, fitted)
    loaded = vj.load_model(tmp_path)
    assert loaded.model == vae
    sample = jax.jit(lambda vae, variables: vae.sample(jax.random.key(3), variables, 4).px_z.mean)
    np.testing.assert_array_equal(sample(vae, fitted), sample(*loaded[:2]))
    again = vj.fit_prior(jax.random.key(1), model, variables, x, prior, draws=2, steps=5, progress=False)[1]
    jax.tree.map(np.testing.assert_array_equal, fitted, again)


def test_nothing_of_the_earlier_prior_remains():
    variables = {"params": {"encoder": 1, "prior": 2}, "of_prior_alone": {"prior": 3}}
    fitted = {"params": {"encoder": 1, "prior": 4}, "of_prior_alone": {}}
    assert _with_prior(variables, {"params": 4}) == fitted


def test_conditional_models_and_flow_posteriors_are_fitted():
    labels = np.arange(60, dtype=np.int32) % 3
    split = vj.Split(two_clusters(60), labels)
    posterior = vj.FlowPosterior(vj.Coupling(layers=2, hidden=(4,)))
    model = vj.VAE(MLP((4,), (2, 2)), MLP((4,), (2,)), (2,), 2, posterior, vj.Gaussian(), classes=3)
    vae, variables = vj.fit_prior(
        jax.random.key(0), model, drawn(model.init, jax.random.key(1)), split, vj.GaussianMixture(2)
    )
    sample = jax.jit(lambda condition: vae.sample(jax.random.key(2), variables, 3, condition).px_z.mean)
    assert sample(np.arange(3)).shape == (3, 2)


def test_a_dimension_without_variance_keeps_a_finite_density():
    x = two_clusters(40) * np.float32([1, 0])
    vae, variables = vj.fit_prior(jax.random.key(1), *identity_vae(), x, vj.GaussianMixture(2), draws=1)
    assert np.isfinite(jax.tree.leaves(variables["params"]["prior"])[0]).all()
    assert np.isfinite(log_prior(vae, variables, x)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior": vj.StandardNormal(), "data": None}, "has no variables to fit"),
        (
            {"prior": vj.VampPrior(5), "data": None},
            r"changes with the encoder, .*; take GaussianMixture\(10\)",
        ),
        ({"prior": vj.GaussianMixture}, "class GaussianMixture"),
        ({"prior": vj.GaussianMixture(100), "draws": 1}, "40 samples of z can't be fitted by 100 components"),
        ({"draws": 0}, "draws is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"model": vj.GaussianMixture(2)}, "expected a VAE"),
        ({"data": np.zeros((4, 3), np.float32)}, "the examples have shape"),
    ],
)
def test_bad_input(change, message):
    vae, variables = identity_vae()
    given = {"model": vae, "variables": variables, "data": two_clusters(40)} | change
    with pytest.raises(vj.InputError, match=message):
        vj.fit_prior(jax.random.key(0), **given, progress=False)
