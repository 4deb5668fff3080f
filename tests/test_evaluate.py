"""Means over any number of examples, the aggregated posterior, the Fréchet distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from conftest import small_split

import vae_jax as vj
from vae_jax.distributions import Delta, DiagonalGaussian
from vae_jax.evaluate import aggregate, in_blocks, nearest_distance

VAE = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,))
VARIABLES = VAE.init(jax.random.key(0))
DATA = small_split(50)


@pytest.mark.parametrize("block", [1, 7, 25, 50, 1000])
def test_blocks_are_joined_to_what_one_pass_gives(block):
    shapes = set()

    def function(first, x):
        shapes.add(x.shape)
        return {"double": 2 * x, "position": first + np.arange(len(x))}

    x = np.arange(50.0).reshape(25, 2)
    result = in_blocks(function, x, block=block)
    np.testing.assert_array_equal(result["double"], 2 * x)
    np.testing.assert_array_equal(result["position"], np.arange(25))
    assert len(shapes) == 1, "a compiled function would meet several shapes"


def test_terms_do_not_depend_on_the_blocks():
    whole = vj.evaluate(jax.random.key(1), VAE, VARIABLES, DATA)
    cut = vj.evaluate(jax.random.key(1), VAE, VARIABLES, DATA, block=13)
    np.testing.assert_allclose(cut.log_px_z, whole.log_px_z, rtol=1e-5)
    np.testing.assert_allclose(cut.kl, whole.kl, rtol=1e-5)
    other = vj.evaluate(jax.random.key(2), VAE, VARIABLES, DATA)
    assert not np.allclose(other.log_px_z, whole.log_px_z), "the key has no influence"
    np.testing.assert_allclose(other.kl, whole.kl, rtol=1e-5)


def test_encodings_and_decoded_images_are_those_of_the_model():
    x = jnp.asarray(DATA.images) / jnp.float32(255)
    posterior = vj.encode_all(jax.random.key(0), VAE, VARIABLES, DATA, block=13)
    expected = VAE.encode(VARIABLES, x)
    np.testing.assert_allclose(posterior.mean, expected.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(posterior.variance, expected.variance, rtol=1e-5)
    decoded = vj.decode_all(VAE, VARIABLES, posterior.mean, block=13)
    np.testing.assert_allclose(decoded, VAE.decode(VARIABLES, expected.mean).mean, rtol=1e-5)


def test_no_examples_are_refused():
    with pytest.raises(vj.InputError, match="no examples"):
        vj.decode_all(VAE, VARIABLES, np.zeros((0, 3), np.float32))


def test_nearest_distance_is_brute_force():
    generator = np.random.default_rng(0)
    images, references = generator.random((7, 4, 4, 1), np.float32), generator.random((30, 4, 4, 1), np.float32)
    differences = images[:, None] - references[None]
    expected = np.sqrt((differences**2).sum(axis=(2, 3, 4))).min(axis=1)
    np.testing.assert_allclose(nearest_distance(images, references), expected, rtol=1e-4)
    np.testing.assert_allclose(nearest_distance(references[:2], references), 0, atol=1e-2)


def test_a_conditional_model_is_evaluated_with_its_labels():
    vae = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,), classes=3)
    variables = vae.init(jax.random.key(0))
    terms = vj.evaluate(jax.random.key(1), vae, variables, DATA, block=13)
    assert terms.kl.shape == (50,)
    posterior = vj.encode_all(jax.random.key(0), vae, variables, DATA)
    np.testing.assert_allclose(terms.kl, posterior.kl().sum(-1), rtol=1e-4)
    with pytest.raises(vj.InputError, match="need"):
        vj.evaluate(jax.random.key(1), vae, variables, vj.Split(DATA.images))
    few = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,), classes=2)
    with pytest.raises(vj.InputError, match="labels run up to 2, but the model has 2 classes"):
        vj.encode_all(jax.random.key(1), few, few.init(jax.random.key(0)), DATA)


def test_estimate_is_the_mean_and_its_standard_error():
    values = np.random.default_rng(0).normal(3, 2, 400)
    mean, error = vj.estimate(values)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(scipy.stats.sem(values))
    assert vj.estimate(np.array([5.0])) == (5.0, 0.0)


def test_aggregated_posterior_is_that_of_its_samples():
    generator = np.random.default_rng(0)
    mean, log_variance = generator.normal(1, 2, (300, 2)), generator.normal(0, 1, (300, 2))
    aggregated = aggregate(DiagonalGaussian(jnp.asarray(mean), jnp.asarray(log_variance)))
    draws = mean + np.exp(0.5 * log_variance) * generator.normal(size=(2000, 300, 2))
    draws = draws.reshape(-1, 2)
    np.testing.assert_allclose(aggregated.mean, draws.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(aggregated.covariance, np.cov(draws, rowvar=False), rtol=0.01, atol=0.01)


def test_kl_of_a_fitted_gaussian_is_the_closed_form():
    posterior = DiagonalGaussian(jnp.array([[0.5, -1.0]]), jnp.log(jnp.array([[0.2, 3.0]])))
    assert aggregate(posterior).kl == pytest.approx(float(posterior.kl().sum()), rel=1e-5)
    assert aggregate(Delta(jnp.ones((5, 2)))).kl == float("inf")


@pytest.mark.parametrize("dimensions", [2, 10])
def test_draws_of_a_fitted_gaussian_have_its_moments_though_it_is_singular(dimensions):
    generator = np.random.default_rng(0)
    for seed in range(20):
        points = generator.normal(size=(50, dimensions // 3 + 1)) @ generator.normal(
            size=(dimensions // 3 + 1, dimensions)
        )
        aggregated = aggregate(Delta(jnp.asarray(points, jnp.float32)))
        draws = np.asarray(aggregated.sample(jax.random.key(seed), 20_000))
        scale = aggregated.covariance.diagonal().max()
        np.testing.assert_allclose(draws.mean(axis=0), aggregated.mean, atol=0.05 * np.sqrt(scale))
        np.testing.assert_allclose(np.cov(draws, rowvar=False), aggregated.covariance, atol=0.06 * scale)


def test_frechet_distance_is_the_formula():
    generator = np.random.default_rng(0)
    a = generator.normal(size=(400, 5)) @ generator.normal(size=(5, 5))
    b = generator.normal(size=(300, 5)) @ generator.normal(size=(5, 5)) + 1
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert vj.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert vj.frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_singular_covariances():
    generator = np.random.default_rng(0)
    line = generator.normal(size=(200, 1)) * [[1.0, 0.0, 0.0]]
    assert vj.frechet_distance(line, line) == pytest.approx(0, abs=1e-12)
    assert vj.frechet_distance(line, line + np.array([0.0, 2.0, 0.0])) == pytest.approx(4, rel=1e-9)
    variance = line[:, 0].var(ddof=1)
    across = line[:, [1, 0, 2]]  # orthogonal lines: nothing is shared, so the traces add up
    mean = line[:, 0].mean()
    assert vj.frechet_distance(line, across) == pytest.approx(2 * variance + 2 * mean**2, rel=1e-9)
    few = generator.normal(size=(3, 50))
    assert vj.frechet_distance(few, few) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("a", "message"),
    [(np.zeros((1, 3)), "expected"), (np.zeros((4, 2)), "expected"), (np.full((4, 3), np.nan), "NaN")],
)
def test_features_without_a_distance_are_refused(a, message):
    with pytest.raises(vj.InputError, match=message):
        vj.frechet_distance(a, np.zeros((4, 3)))
