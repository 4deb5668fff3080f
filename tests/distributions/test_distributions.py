"""Posterior, prior and KL against closed forms, scipy and integration, tails and gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from vae_jax import InputError
from vae_jax.distributions import (
    Delta,
    DiagonalGaussian,
    FullGaussian,
    GaussianMixtureDistribution,
    UnitGaussian,
    example_keys,
    kl_divergence,
    log_ratio,
    soft_clip,
)

MEAN = jnp.array([[0.3, -2.0, 0.0], [5.0, 0.1, -0.7]])
LOG_VARIANCE = jnp.array([[-3.0, 0.5, 0.0], [2.0, -8.0, 1e-3]])
Q = DiagonalGaussian(MEAN, LOG_VARIANCE)


def test_gaussian_log_prob_is_scipys():
    z = jax.random.normal(jax.random.key(0), (5, 2, 3)) * 3
    expected = scipy.stats.norm.logpdf(z, MEAN, np.exp(0.5 * np.asarray(LOG_VARIANCE))).sum(-1)
    np.testing.assert_allclose(Q.log_prob(z), expected, rtol=2e-5)


def test_log_ratio_is_scipys_in_the_tails_too():
    z = jnp.concatenate([jax.random.normal(jax.random.key(0), (5, 2, 3)) * 3, jnp.full((1, 2, 3), -40.0)])
    deviation = np.exp(0.5 * np.asarray(LOG_VARIANCE, np.float64))
    expected = scipy.stats.norm.logpdf(z, MEAN, deviation) - scipy.stats.norm.logpdf(z)
    np.testing.assert_allclose(Q.log_ratio(z), expected, rtol=1e-4, atol=1e-4)


def test_gaussian_kl_is_the_integral():
    def integrand(z, mean, variance):
        q = scipy.stats.norm(mean, np.sqrt(variance))
        return q.pdf(z) * (q.logpdf(z) - scipy.stats.norm.logpdf(z))

    for mean, log_variance in [(0.3, -3.0), (-2.0, 0.5), (5.0, 2.0), (0.0, 0.0)]:
        reach = 12 * np.exp(0.5 * log_variance)
        args = (mean, np.exp(log_variance))
        integral, _ = scipy.integrate.quad(integrand, mean - reach, mean + reach, args=args)
        kl = DiagonalGaussian(jnp.array([[mean]]), jnp.array([[log_variance]])).kl()
        np.testing.assert_allclose(kl, [[integral]], rtol=1e-5, atol=1e-7)


def test_kl_is_the_mean_of_the_sampled_one():
    z = jax.vmap(Q.sample)(jax.random.split(jax.random.key(1), 20_000))
    sampled = Q.log_ratio(z)
    error = sampled.std(axis=0) / np.sqrt(len(z))
    assert np.all(np.abs(sampled.mean(axis=0) - Q.kl()) < 6 * error + 1e-6)


def test_kl_does_not_cancel_near_the_prior():
    q = DiagonalGaussian(jnp.zeros((1, 1)), jnp.full((1, 1), 1e-3))
    np.testing.assert_allclose(q.kl(), 0.5 * (np.expm1(1e-3) - 1e-3), rtol=1e-3)


@pytest.mark.parametrize("raw", [-1e30, -1e4, -50.0, 0.0, 50.0, 1e4, 1e30])
def test_whatever_the_network_returns_kl_and_its_gradient_are_finite(raw):
    def kl(outputs):
        return DiagonalGaussian.from_network(outputs).kl().sum()

    outputs = jnp.array([[[1.0], [raw]]])
    value, gradient = jax.value_and_grad(kl)(outputs)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


def test_soft_clip_is_the_identity_inside_and_bounded_outside():
    inside = jnp.linspace(-20, 20, 41)
    np.testing.assert_array_equal(soft_clip(inside, -20.0, 20.0), inside)
    np.testing.assert_array_equal(soft_clip(jnp.array([-1e6, 1e6]), -20.0, 20.0), [-21, 21])
    slope = jax.vmap(jax.grad(lambda x: soft_clip(x, -20.0, 20.0)))(jnp.array([-22.0, -3.0, 0.0, 22.0]))
    beyond = 1 - np.tanh(2) ** 2
    np.testing.assert_allclose(slope, [beyond, 1, 1, beyond], rtol=1e-5)


def test_samples_are_gaussian():
    z = jax.vmap(Q.sample)(jax.random.split(jax.random.key(2), 5_000))
    standard = (z - MEAN[None]) / jnp.exp(0.5 * LOG_VARIANCE)[None]
    for example in range(2):
        for dimension in range(3):
            assert scipy.stats.kstest(standard[:, example, dimension], "norm").pvalue > 1e-3
    correlation = np.corrcoef(np.asarray(standard).reshape(len(z), -1), rowvar=False)
    np.testing.assert_allclose(correlation, np.eye(6), atol=6 / np.sqrt(len(z)))


def test_gradient_through_a_sample_is_the_analytic_one():
    """E[z^2] = mean^2 + variance, so its gradient is (2 mean, variance) by (mean, log variance)."""

    def squares(mean, log_variance, key):
        return DiagonalGaussian(mean, log_variance).sample(key) ** 2

    def gradients(key):
        return jax.grad(lambda m, v: squares(m, v, key).sum(), argnums=(0, 1))(MEAN, LOG_VARIANCE)

    found = jax.vmap(gradients)(jax.random.split(jax.random.key(3), 20_000))
    for gradient, expected in zip(found, (2 * MEAN, jnp.exp(LOG_VARIANCE)), strict=True):
        error = gradient.std(axis=0) / np.sqrt(len(gradient))
        assert np.all(np.abs(gradient.mean(axis=0) - expected) < 6 * error)


def test_an_examples_draw_depends_on_its_position_alone():
    key = jax.random.key(4)
    mean = jnp.zeros((8, 3))
    whole = DiagonalGaussian(mean, mean).sample(key)
    first = DiagonalGaussian(mean[:4], mean[:4]).sample(key)
    second = DiagonalGaussian(mean[4:], mean[4:]).sample(example_keys(key, 4, first=4))
    np.testing.assert_array_equal(whole, jnp.concatenate([first, second]))
    assert len(np.unique(whole)) == whole.size


def test_delta_has_no_noise_and_no_divergence():
    q = Delta.from_network(MEAN[:, None])
    np.testing.assert_array_equal(q.sample(jax.random.key(0)), MEAN)
    np.testing.assert_array_equal(q.kl(), jnp.zeros_like(MEAN))
    with pytest.raises(InputError, match="no density"):
        log_ratio(q, UnitGaussian(MEAN.shape[-1]), MEAN)
    np.testing.assert_array_equal(q.log_prob(jnp.stack([MEAN, MEAN + 1])), [[0, 0], [-np.inf, -np.inf]])


ONE = jnp.zeros((2, 1))
OF_ONE = DiagonalGaussian(ONE, ONE)


@pytest.mark.parametrize(
    ("density", "message"),
    [
        (lambda: UnitGaussian(2).log_prob(MEAN), r"z has shape \(2, 3\); expected \[..., 2\]"),
        (lambda: OF_ONE.log_prob(MEAN), r"z has shape \(2, 3\); expected \[..., 1\]"),
        (lambda: Q.log_prob(ONE), r"z has shape \(2, 1\); expected \[..., 3\]"),
        (lambda: OF_ONE.log_ratio(MEAN), r"z has shape \(2, 3\); expected \[..., 1\]"),
        (lambda: Delta(ONE).log_prob(MEAN), r"z has shape \(2, 3\); expected \[..., 1\]"),
        (lambda: FullGaussian(ONE, ONE[..., None] + 1).log_prob(MEAN), r"z has shape \(2, 3\); expected \[..., 1\]"),
        (lambda: GaussianMixtureDistribution(ONE, ONE, ONE[:, 0]).log_prob(MEAN), r"z has shape \(2, 3\)"),
        (lambda: GaussianMixtureDistribution(ONE, ONE, ONE[:, 0]).responsibilities(MEAN), r"z has shape \(2, 3\)"),
        (lambda: kl_divergence(OF_ONE, UnitGaussian(2), ONE), r"the mean of q has shape \(2, 1\); expected \[..., 2\]"),
        (lambda: kl_divergence(OF_ONE, Q, ONE), r"the mean of q has shape \(2, 1\); expected \[..., 3\]"),
        (lambda: log_ratio(OF_ONE, UnitGaussian(2), ONE), r"the mean of q has shape \(2, 1\); expected \[..., 2\]"),
        (lambda: log_ratio(OF_ONE, Q, ONE), r"the mean of q has shape \(2, 1\); expected \[..., 3\]"),
    ],
)
def test_another_number_of_latents_is_refused(density, message):
    with pytest.raises(InputError, match=message):
        density()
