"""Mixtures of Gaussians with full covariances, against SciPy and the mixture of diagonal Gaussians."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from conftest import drawn

import vae_jax as vj
from vae_jax.distributions import FullGaussianMixtureDistribution, GaussianMixtureDistribution

COMPONENTS, LATENT = 3, 4


def mixture(dtype=np.float32, log_variance=0.0, distance=1.0):
    """A mixture with random parameters, and its weights and covariances by NumPy."""
    generator = np.random.default_rng(0)
    means, log_variances = generator.normal(size=(2, COMPONENTS, LATENT))
    coefficients = generator.normal(size=(COMPONENTS, LATENT, LATENT))
    arrays = distance * means, log_variance + log_variances, coefficients, generator.normal(size=COMPONENTS)
    rows = np.tril(coefficients, -1) + np.eye(LATENT)
    precisions = np.swapaxes(rows, 1, 2) @ (np.exp(-arrays[1])[..., None] * rows)
    given = FullGaussianMixtureDistribution(*(jnp.asarray(array, dtype) for array in arrays))
    return given, scipy.special.softmax(arrays[3]), arrays[0], np.linalg.inv(precisions)


def log_joint(z, weights, means, covariances):
    """log w_k N(z; m_k, C_k), [*samples, components], by SciPy."""
    of = [scipy.stats.multivariate_normal(m, c).logpdf(z) for m, c in zip(means, covariances, strict=True)]
    return np.stack(of, axis=-1) + np.log(weights)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-9), (np.float32, 1e-3)])
@pytest.mark.parametrize(("log_variance", "distance"), [(0.0, 1.0), (-14.0, 5.0)])
def test_the_density_and_the_responsibilities_are_scipys(log_variance, distance, dtype, bound):
    with jax.enable_x64(dtype == np.float64):
        given, weights, means, covariances = mixture(dtype, log_variance, distance)
        generator = np.random.default_rng(1)
        near = [generator.multivariate_normal(m, c, 2) for m, c in zip(means, covariances, strict=True)]
        z = jnp.asarray(near, dtype)  # [components, 2, latent]
        density, shares = jax.jit(lambda z: (given.log_prob(z), given.responsibilities(z)))(z)
        means = np.asarray(given.means, np.float64)  # rounded, as the distribution has them
        expected = log_joint(np.asarray(z, np.float64), weights, means, covariances)
        np.testing.assert_allclose(density, scipy.special.logsumexp(expected, axis=-1), rtol=0, atol=bound)
        np.testing.assert_allclose(shares, scipy.special.softmax(expected, axis=-1), rtol=0, atol=bound)
        assert density.dtype == dtype


def test_the_gradient_is_that_of_the_components():
    """By all arguments, in reverse and in forward mode, against autodiff of the density of each component."""
    given, *_ = mixture()
    arguments = given.means, given.log_variances, given.coefficients, given.logits
    z = jax.random.normal(jax.random.key(0), (5, LATENT))

    def ours(z, *arguments):
        return FullGaussianMixtureDistribution(*arguments).log_prob(z)

    def plain(z, means, log_variances, coefficients, logits):
        rows = jnp.tril(coefficients, -1) + jnp.eye(LATENT)[None]
        precisions = jnp.einsum("kji,kj,kjl->kil", rows, jnp.exp(-log_variances), rows)
        squares = jnp.einsum("nki,kij,nkj->nk", centred := z[:, None] - means[None], precisions, centred)
        constants = 0.5 * jnp.linalg.slogdet(precisions)[1] - 0.5 * LATENT * np.log(2 * np.pi)
        return jax.nn.logsumexp((jax.nn.log_softmax(logits) + constants)[None] - 0.5 * squares, axis=1)

    for differentiate in (jax.jacrev, jax.jacfwd):
        found, expected = (jax.jit(differentiate(f, argnums=range(5)))(z, *arguments) for f in (ours, plain))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-3)
        assert not np.triu(found[3]).any()


def test_draws_have_the_means_and_covariances():
    given, _, means, covariances = mixture()
    count = 20_000

    @jax.jit
    def draw(key, number, temperature):
        one = replace(given, logits=jnp.where(jnp.arange(COMPONENTS) == number, 0.0, -jnp.inf))
        return one.sample(key, count, temperature)

    z = np.asarray(draw(jax.random.key(0), 1, 1.0), np.float64)
    deviations = np.sqrt(np.diagonal(covariances[1]))
    assert np.all(np.abs(z.mean(axis=0) - means[1]) < 5 * deviations / np.sqrt(count))
    errors = np.sqrt((np.outer(deviations, deviations) ** 2 + covariances[1] ** 2) / count)
    assert np.all(np.abs(np.cov(z.T) - covariances[1]) < 5 * errors)
    np.testing.assert_allclose(draw(jax.random.key(0), 1, 0.0)[0], means[1], rtol=1e-6)
    hot = np.asarray(draw(jax.random.key(0), 1, 2.0))
    np.testing.assert_allclose(hot - means[1], 2 * (z - means[1]), rtol=1e-3, atol=1e-4)


def test_the_weights_are_the_shares_of_draws():
    given, weights, means, _ = mixture(log_variance=-12.0, distance=5.0)
    z = np.asarray(jax.jit(lambda key: given.sample(key, 2_000))(jax.random.key(0)))
    nearest = np.linalg.norm(z[:, None] - means, axis=-1).argmin(axis=1)
    shares = np.bincount(nearest, minlength=COMPONENTS) / len(z)
    assert np.all(np.abs(shares - weights) < 5 * np.sqrt(weights / len(z)))


def test_without_coefficients_it_is_the_mixture_of_diagonal_gaussians():
    given, *_ = mixture()
    full = replace(given, coefficients=jnp.triu(given.coefficients))  # these are not used
    diagonal = GaussianMixtureDistribution(given.means, given.log_variances, given.logits)
    z = diagonal.sample(jax.random.key(0), 20)
    np.testing.assert_allclose(full.sample(jax.random.key(0), 20), z, rtol=1e-6)
    np.testing.assert_allclose(full.log_prob(z), diagonal.log_prob(z), rtol=1e-5, atol=1e-5)


def test_the_prior_starts_as_the_mixture_of_diagonal_gaussians_does():
    full, diagonal = (
        prior(5, spread=2.0).init(jax.random.key(3), LATENT, (), None)
        for prior in (vj.FullGaussianMixture, vj.GaussianMixture)
    )
    assert not np.any(full["params"].pop("coefficients"))
    jax.tree.map(np.testing.assert_array_equal, full, diagonal)


@pytest.mark.parametrize(
    ("given", "message"), [({"components": 0}, "components is 0"), ({"spread": -1.0}, "spread is -1.0")]
)
def test_bad_priors_are_refused(given, message):
    with pytest.raises(vj.InputError, match=message):
        vj.FullGaussianMixture(**given)


def test_the_variables_of_a_given_mixture():
    given, weights, means, covariances = mixture()
    variables = vj.FullGaussianMixture.variables(means, covariances, weights)
    assert jax.tree.all(jax.tree.map(lambda leaf: leaf.dtype == np.float32, variables))
    found = vj.FullGaussianMixture(COMPONENTS)(variables, LATENT, lambda x: None)
    z = given.sample(jax.random.key(0), 20)
    np.testing.assert_allclose(found.log_prob(z), given.log_prob(z), rtol=1e-4, atol=1e-4)


def test_covariances_that_differ_from_symmetric_ones_by_rounding_are_taken():
    given = np.array([[[1.0, 0.5 + 1e-6], [0.5, 1.0]]])
    assert vj.FullGaussianMixture.variables(np.zeros((1, 2)), given, [1.0])["params"]["means"].shape == (1, 2)


PAIR = {"means": np.zeros((2, 2)), "covariances": [np.eye(2)] * 2, "weights": [0.5, 0.5]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"means": [0.0, 0.0]}, r"have shapes \(2,\), \(2, 2, 2\) and \(2,\); expected \[components, latent\]"),
        ({"covariances": np.eye(2)}, r"have shapes \(2, 2\), \(2, 2\) and \(2,\)"),
        ({"weights": [1.0]}, r"have shapes \(2, 2\), \(2, 2, 2\) and \(1,\)"),
        ({"weights": [1.0, 0.0]}, r"weights is array\(\[1., 0.\]\); expected a finite number above 0"),
        ({"covariances": [[[1.0, 2.0], [2.0, 1.0]]] * 2}, "a covariance is not positive definite"),
        ({"covariances": [[[1.0, 5.0], [0.0, 1.0]]] * 2}, r"not symmetric; expected \(c \+ c.T\) / 2 of an estimate c"),
        ({"covariances": [[[1.0, 1e-3], [0.0, 1.0]]] * 2}, "a covariance is not symmetric"),
        ({"covariances": [np.eye(2), np.full((2, 2), np.nan)]}, "means or covariances hold NaN or infinite values"),
        ({"means": [[0.0, np.inf]] * 2}, "means or covariances hold NaN or infinite values"),
    ],
)
def test_bad_mixtures_are_refused(given, message):
    with pytest.raises(vj.InputError, match=message):
        vj.FullGaussianMixture.variables(**(PAIR | given))


def test_fit_prior_finds_the_components_of_the_encodings():
    """An encoder that is the identity, and correlated latents around two means."""
    generator = np.random.default_rng(0)
    covariances = 0.1 * np.array([[[1.0, 0.8], [0.8, 1.0]], [[1.0, -0.8], [-0.8, 1.0]]])
    rows = [generator.multivariate_normal([m, -m], c, 300) for m, c in zip((1.0, -1.0), covariances, strict=True)]
    x = np.concatenate(rows).astype(np.float32)
    model = vj.mlp_vae((2,), 2, (), posterior=vj.Delta, likelihood=vj.Gaussian(1.0))
    encoder = {"Dense_0": {"kernel": np.eye(2, dtype=np.float32), "bias": np.zeros(2, np.float32)}}
    variables = {"params": {**drawn(model.init, jax.random.key(0))["params"], "encoder": encoder}}
    prior = vj.FullGaussianMixture(2)
    fitted, variables = vj.fit_prior(jax.random.key(1), model, variables, x, prior, draws=1)
    found = fitted.prior_distribution(variables).log_prob(jnp.asarray(x))
    best = np.log(np.mean(np.exp(log_joint(x, np.ones(2), *zip(*map(moments, rows), strict=True))), axis=-1))
    np.testing.assert_allclose(found, best, atol=0.05)
    with pytest.raises(vj.InputError, match="600 samples of z can't be fitted by 601 components"):
        vj.fit_prior(jax.random.key(1), model, variables, x, vj.FullGaussianMixture(601), draws=1)


def test_fit_prior_takes_encodings_of_very_different_scales_and_one_that_is_constant():
    x = np.random.default_rng(0).normal(size=(400, 3)) * [1e3, 1e-3, 0] + [0, 0, 7]
    model = vj.mlp_vae((3,), 3, (), posterior=vj.Delta, likelihood=vj.Gaussian(1.0))
    encoder = {"Dense_0": {"kernel": np.eye(3, dtype=np.float32), "bias": np.zeros(3, np.float32)}}
    variables = {"params": {**drawn(model.init, jax.random.key(0))["params"], "encoder": encoder}}
    prior = vj.FullGaussianMixture(1)
    fitted, variables = vj.fit_prior(jax.random.key(1), model, variables, np.float32(x), prior, draws=1)
    found = fitted.prior_distribution(variables)
    np.testing.assert_allclose(found.means[0], x.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(np.exp(0.5 * found.log_variances[0])[:2], x.std(axis=0)[:2], rtol=0.01)


def moments(rows):
    """Mean and covariance of points."""
    return rows.mean(axis=0), np.cov(rows.T, bias=True)
