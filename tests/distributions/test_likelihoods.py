"""Likelihoods against scipy and integration: every constant, the tails, the gradients, the means, the draws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.stats
from conftest import small_split

import vae_jax as vj
from vae_jax import InputError
from vae_jax.distributions.likelihoods import Bernoulli, DiscretisedLogisticImage, Gaussian


@jax.jit
def log_prob(likelihood, outputs, x):
    return likelihood(outputs).log_prob(x)


@partial(jax.jit, static_argnums=2)
def mean_and_draws(likelihood, outputs, count, key):
    p = likelihood(outputs)
    return p.mean, jax.vmap(p.sample)(jax.random.split(key, count))


LOGITS = jnp.array([-100.0, -5.0, 0.0, 2.0, 100.0, 1e4]).reshape(1, 2, 3, 1)


def test_bernoulli_log_prob_is_scipys_on_black_and_white():
    x = jnp.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0]).reshape(1, 2, 3, 1)
    p = scipy.special.expit(np.asarray(LOGITS, np.float64))
    expected = scipy.stats.bernoulli.logpmf(np.asarray(x, int), p).sum()
    np.testing.assert_allclose(Bernoulli()(LOGITS).log_prob(x), [expected], rtol=1e-6)


def test_bernoulli_on_grey_is_the_cross_entropy():
    x, p = np.float64(0.3), scipy.special.expit(np.float64(1.7))
    expected = x * np.log(p) + (1 - x) * np.log1p(-p)
    image = Bernoulli()(jnp.full((1, 1, 1, 1), 1.7))
    np.testing.assert_allclose(image.log_prob(jnp.full((1, 1, 1, 1), 0.3)), [expected], rtol=1e-6)


@pytest.mark.parametrize("x", [0.0, 0.4, 1.0])
def test_bernoulli_gradient_is_x_minus_p_at_any_logit(x):
    logits = jnp.array([-1e4, -89.0, -1.0, 0.0, 3.0, 89.0, 1e4]).reshape(1, 1, 7, 1)
    gradient = jax.jit(jax.grad(lambda logits: Bernoulli()(logits).log_prob(jnp.full_like(logits, x)).sum()))(logits)
    np.testing.assert_allclose(gradient, x - scipy.special.expit(np.asarray(logits, np.float64)), atol=1e-6)


def test_bernoulli_mean_and_samples():
    logits = np.float32([-2, 0, 1]).reshape(1, 1, 3, 1)
    mean, x = map(np.asarray, mean_and_draws(Bernoulli(), logits, 10_000, jax.random.key(5)))
    np.testing.assert_allclose(mean.ravel(), scipy.special.expit([-2.0, 0.0, 1.0]), rtol=1e-6)
    assert set(np.unique(x)) == {0.0, 1.0}
    error = np.sqrt(mean * (1 - mean) / len(x))
    assert np.all(np.abs(x.mean(axis=0) - mean) < 6 * error)


def test_densities_broadcast_over_samples():
    generator = np.random.default_rng(9)
    logits = np.float32(generator.normal(size=(5, 2, 3, 3, 1)))
    x = np.float32(generator.uniform(size=(2, 3, 3, 1)))
    together = log_prob(Bernoulli(), logits, x)
    apart = [log_prob(Bernoulli(), one, x) for one in logits]
    np.testing.assert_allclose(together, np.stack(apart), rtol=1e-6)


def pixels(values):
    """[n] -> n images of one pixel."""
    return jnp.asarray(np.float32(values).reshape(-1, 1, 1, 1))


GREY, BINARY, DEQUANTISED = vj.Scale().support, vj.Binarize().support, vj.Dequantize().support


@pytest.mark.parametrize(
    ("likelihood", "reference"),
    [
        (Gaussian(0.05), lambda mean: scipy.stats.norm(mean, np.sqrt(0.05))),
        (vj.LearnedGaussian(0.3), lambda mean: scipy.stats.norm(mean, 0.3)),
        (vj.OptimalGaussian(), lambda mean: scipy.stats.norm(mean, 1.0)),
        (vj.Laplace(0.2), lambda mean: scipy.stats.laplace(mean, 0.2)),
    ],
)
def test_densities_on_the_real_line_are_scipys(likelihood, reference):
    mean, x = np.linspace(-2, 3, 12), np.linspace(-40, 50, 12)
    found = log_prob(likelihood, pixels(mean), pixels(x))
    np.testing.assert_allclose(found, reference(mean).logpdf(x), rtol=1e-5)
    mean, draws = map(np.ravel, mean_and_draws(likelihood, pixels([0.7]), 5_000, jax.random.key(8)))
    np.testing.assert_allclose(mean, 0.7, rtol=1e-6)
    assert scipy.stats.kstest(draws, reference(0.7).cdf).pvalue > 1e-3


def test_several_pixels_add_up():
    generator = np.random.default_rng(6)
    mean = np.float32(generator.normal(size=(3, 2, 2, 1)))
    x = np.float32(10 * generator.normal(size=(4, 3, 2, 2, 1)))
    expected = scipy.stats.norm.logpdf(x, mean, np.sqrt(0.05)).sum((-3, -2, -1))
    np.testing.assert_allclose(log_prob(Gaussian(0.05), mean, x), expected, rtol=1e-5)


def test_each_channel_may_have_a_scale():
    scale = np.float32([0.1, 0.2, 0.3])
    generator = np.random.default_rng(6)
    mean, x = np.float32(generator.normal(size=(2, 3, 2, 2, 3)))
    for likelihood, reference in ((Gaussian(scale**2), scipy.stats.norm), (vj.Laplace(scale), scipy.stats.laplace)):
        expected = reference.logpdf(x, mean, scale).sum((-3, -2, -1))
        np.testing.assert_allclose(log_prob(likelihood, mean, x), expected, rtol=1e-5)
        assert likelihood(jnp.asarray(mean)).sample(jax.random.key(0)).shape == mean.shape


def test_the_gradient_by_a_learned_scale_is_the_closed_form():
    """d/d log s of log N(x; m, s^2) is (x - m)^2 / s^2 - 1."""
    likelihood = vj.LearnedGaussian(0.3)
    variables = likelihood.init()
    gradient = jax.jit(jax.grad(lambda v: likelihood(pixels([0.2]), v).log_prob(pixels([1.0]))[0]))(variables)
    np.testing.assert_allclose(gradient["params"]["log_scale"], 0.8**2 / 0.3**2 - 1, rtol=1e-5)


def test_the_optimal_variance_is_the_batchs_own_in_training_and_the_running_one_in_use():
    likelihood = vj.OptimalGaussian(momentum=0.9)
    generator = np.random.default_rng(0)
    means, x = (np.float32(generator.normal(size=shape)) for shape in ((2, 5, 3, 3, 1), (5, 3, 3, 1)))

    @jax.jit
    def trained(means, variables):
        """The variance and the densities in training, the next variables, and the variance in use."""
        batch = vj.Batch(jnp.asarray(x), mask=jnp.array([1.0, 1, 1, 1, 0]))
        px_z, after = likelihood.in_training(means, variables, batch)
        return px_z.variance, px_z.log_prob(batch.x), after, likelihood(means, after).variance

    variance, densities, first, in_use = trained(means, likelihood.init())
    best = float(((means - x[None]) ** 2)[:, :4].mean())
    np.testing.assert_allclose(variance, best, rtol=1e-5)
    others = [np.sum(log_prob(vj.Gaussian(best * factor), means[:, :4], x[:4])) for factor in (0.98, 1.02)]
    assert np.asarray(densities)[:, :4].sum() > max(others), "another variance fits better"
    np.testing.assert_allclose(in_use, best, rtol=1e-5)
    *_, in_use = trained(0 * means, first)
    later = float((x[:4] ** 2).mean())
    expected = (0.9 * 0.1 * best + 0.1 * later) / (0.9 * 0.1 + 0.1)
    np.testing.assert_allclose(in_use, expected, rtol=1e-5)


@jax.jit
def mean_of_continuous_bernoulli(logits):
    return vj.ContinuousBernoulli()(logits).mean


@pytest.mark.parametrize("logit", [-200.0, -30.0, -1.0, -1e-2, 0.0, 1e-4, 0.59, 0.61, 5.0, 90.0])
def test_continuous_bernoulli_is_a_density(logit):
    spread = min(1.0, 40 / max(abs(logit), 1e-9))  # where the mass is
    x = np.linspace(0, spread, 20_001) if logit < 0 else np.linspace(1 - spread, 1, 20_001)
    density = np.exp(log_prob(vj.ContinuousBernoulli(), pixels([logit]), pixels(x)))
    np.testing.assert_allclose(scipy.integrate.trapezoid(density, x), 1, rtol=1e-4)
    mean = mean_of_continuous_bernoulli(pixels([logit])).item()
    np.testing.assert_allclose(mean, scipy.integrate.trapezoid(x * density, x), rtol=2e-4)


def test_continuous_bernoulli_draws_and_gradients():
    """The gradient of log p by the logit is x - E[x|z], as in every exponential family; the draws have the density."""
    logits = pixels([-1e4, -200.0, -3.0, -1e-4, 0.0, 1e-3, 2.0, 200.0, 1e4])
    x = pixels([0.3] * 9)
    gradient = jax.jit(jax.grad(lambda logits: vj.ContinuousBernoulli()(logits).log_prob(x).sum()))(logits)
    np.testing.assert_allclose(gradient, x - np.asarray(mean_of_continuous_bernoulli(logits)), atol=1e-6)
    for logit in (-3.0, 1e-5, 4.0):
        _, draws = mean_and_draws(vj.ContinuousBernoulli(), pixels([logit]), 5_000, jax.random.key(1))
        draws = np.ravel(draws)

        def distribution_function(u, a=logit):
            return np.expm1(a * u) / np.expm1(a)

        assert scipy.stats.kstest(draws, distribution_function).pvalue > 1e-3


@pytest.mark.parametrize(("location", "scale"), [(0.4, 0.03), (-0.2, 0.3), (0.5, 1e-3), (1.7, 0.1)])
def test_discretised_logistic_is_the_difference_of_two_distribution_functions(location, scale):
    levels = np.arange(256) / 255
    logistic = scipy.stats.logistic(location, scale)
    upper, lower = levels + 0.5 / 255, levels - 0.5 / 255
    upper[-1], lower[0] = np.inf, -np.inf
    # The difference of the tails on the side where neither is near 1.
    mass = np.where(
        levels < location, logistic.cdf(upper) - logistic.cdf(lower), logistic.sf(lower) - logistic.sf(upper)
    )

    @jax.jit
    def density_mean_and_draws(location, scale, x, key):
        p = DiscretisedLogisticImage(location, scale)
        return p.log_prob(x), p.mean[0], jax.vmap(p.sample)(jax.random.split(key, 40))

    given = pixels([location] * 256), jnp.float32(scale), pixels(levels), jax.random.key(2)
    found, mean, draws = map(np.ravel, density_mean_and_draws(*given))
    found = np.float64(found)
    likely = mass > 1e-250
    np.testing.assert_allclose(found[likely], np.log(mass[likely]), rtol=2e-4, atol=2e-4)
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(np.exp(found).sum(), 1, rtol=1e-4)
    np.testing.assert_allclose(mean, np.exp(found) @ levels, rtol=2e-4)
    counts = np.bincount(np.round(draws * 255).astype(int), minlength=256)
    np.testing.assert_allclose(draws.mean(), mass @ levels, atol=6 * draws.std() / np.sqrt(len(draws)) + 1e-6)
    assert counts[mass < 1e-9].sum() == 0


def test_discretised_logistic_has_gradients_however_far_the_tail():
    x = pixels([0.0, 0.2, 1.0])

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def gradients_at(location, log_scale):
        return DiscretisedLogisticImage(location, jnp.exp(log_scale)).log_prob(x).sum()

    for location in (-1e3, 0.2, 1e3):
        for log_scale in (-9.0, 0.0, 9.0):
            gradients = gradients_at(pixels([location] * 3), np.float32(log_scale))
            assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(
    ("likelihood", "takes", "is_likelihood_of"),
    [
        (Bernoulli(), (GREY, BINARY, DEQUANTISED), (BINARY,)),
        (vj.ContinuousBernoulli(), (GREY, BINARY, DEQUANTISED), (DEQUANTISED,)),
        (vj.DiscretisedLogistic(), (GREY, BINARY), (GREY, BINARY)),
        (vj.Gaussian(), (GREY, BINARY, DEQUANTISED, vj.Scale(-1.0, 1.0).support), (DEQUANTISED,)),
    ],
)
def test_each_likelihood_says_what_it_takes(likelihood, takes, is_likelihood_of):
    for values in (GREY, BINARY, DEQUANTISED, vj.Scale(-1.0, 1.0).support):
        assert likelihood.domain.holds(values) == (values in takes)
        assert likelihood.is_likelihood_of(values) == (values in is_likelihood_of)
        assert likelihood.label(values)
    assert Bernoulli().label(GREY) == "cross-entropy"


@pytest.mark.parametrize(
    ("likelihood", "x", "message"),
    [
        (Bernoulli(), [0.0, 1.1], "x runs from 0 to 1.1; this .* takes values from 0 to 1"),
        (Bernoulli(), [0.0, float("nan")], "runs from nan"),
        (vj.ContinuousBernoulli(), [-0.5, 1.0], "from -0.5"),
        (vj.DiscretisedLogistic(), [0.0, 0.5], "between the levels"),
        (vj.Gaussian(), [0.0, float("nan")], "runs from nan"),
        (vj.Laplace(), [0.0, float("inf")], "from 0 to inf"),
    ],
)
def test_values_without_a_probability_are_refused(likelihood, x, message):
    with pytest.raises(InputError, match=message):
        likelihood(pixels([0.0, 0.0])).log_prob(pixels(x))


@pytest.mark.parametrize(
    ("likelihood", "name"),
    [
        (vj.LearnedGaussian(), "log_scale"),
        (vj.OptimalGaussian(), "variance"),
        (vj.DiscretisedLogistic(), "log_scale"),
        (vj.StudentT(), "log_scale"),
        (vj.NegativeBinomial(), "log_inverse_dispersion"),
    ],
)
def test_the_variables_of_another_model_are_refused(likelihood, name):
    """They are not replaced by the initial ones, which None stands for."""
    outputs = jnp.zeros((1, 2))
    assert likelihood(outputs, None, 1).mean.shape == (1, 2)
    for others in ({}, {"params": {"other": jnp.zeros(())}, "batch_stats": {}}):
        with pytest.raises(InputError, match=f"the variables have no {name}; expected those of this model: model.init"):
            likelihood(outputs, others, 1)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("likelihood", [vj.Gaussian, vj.LearnedGaussian, vj.Laplace, vj.DiscretisedLogistic])
def test_a_scale_that_is_none_is_refused(likelihood, value):
    with pytest.raises(InputError, match=r"variance|scale"):
        likelihood(value)
    with pytest.raises(InputError, match="momentum"):
        vj.OptimalGaussian(momentum=1.0)


@pytest.mark.parametrize("likelihood", [vj.LearnedGaussian(), vj.OptimalGaussian(0.5), vj.DiscretisedLogistic()])
def test_a_likelihoods_own_variables_are_trained_with_the_rest(likelihood):
    vae, data = vj.mlp_vae((6, 6, 1), 2, (16,), likelihood), small_split(96)
    optimizer = optax.adam(1e-2)
    state = vj.init(jax.random.key(0), vae, optimizer)
    step = vj.make_train_step(vae, vj.ELBO(), optimizer)
    after, history = vj.fit(state, step, data, epochs=20, batch_size=32, progress=False)
    (collection,) = likelihood.init()
    before_own, own = (s.variables[collection]["likelihood"] for s in (state, after))
    assert all(np.all(a != b) for a, b in zip(jax.tree.leaves(before_own), jax.tree.leaves(own), strict=True))
    assert history[-1]["loss"] < history[0]["loss"]
    terms = vj.evaluate(jax.random.key(1), vae, after.variables, data)
    assert -terms.log_px_z.mean() == pytest.approx(-history[-1]["log_px_z"], abs=5)


def test_a_perfect_fit_has_a_finite_density_in_use_as_in_training():
    likelihood, x = vj.OptimalGaussian(), pixels([0.2, 0.7])
    px_z, variables = likelihood.in_training(x[None], likelihood.init(), vj.Batch(x))
    best = scipy.stats.norm.logpdf(0, 0, 1e-4)
    np.testing.assert_allclose(px_z.log_prob(x)[0], best, rtol=1e-5)
    np.testing.assert_allclose(likelihood(x, variables).log_prob(x), best, rtol=1e-5)


def types_in_training(likelihood, variables, batch):
    """The types of the distribution and of the next variables."""

    def leaves(variables):
        return [jax.tree.leaves(part) for part in likelihood.in_training(0.5 * batch.x[None], variables, batch)]

    return [{leaf.dtype for leaf in part} for part in jax.eval_shape(leaves, variables)]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("mask", [None, [1, 0], [True, False], [1.0, 0.0]])
def test_the_optimal_variance_keeps_its_type_where_float64_is_enabled(dtype, mask):
    with jax.enable_x64(True):
        x, mask = jnp.asarray(np.asarray(pixels([0.2, 0.7]), dtype)), mask and jnp.asarray(np.array(mask))
        likelihood = vj.OptimalGaussian()
        assert {leaf.dtype for leaf in jax.tree.leaves(likelihood.init())} == {np.dtype(np.float32)}
        for kept in (np.float32, np.float64):
            before = jax.tree.map(lambda leaf, kept=kept: jnp.asarray(np.asarray(leaf, kept)), likelihood.init())
            px_z, after = types_in_training(likelihood, before, vj.Batch(x, mask=mask))
            assert px_z == {np.dtype(dtype)}
            assert after == {np.dtype(kept)}


def test_laplace_draws_are_finite_at_the_end_of_the_uniform_numbers():
    """The seed is one whose bits contain the smallest uniform number, which occurs about once in 2^23 pixels."""
    draws = vj.Laplace()(jnp.zeros((1, 64, 64, 3))).sample(jax.random.key(593))
    bits = jax.random.bits(jax.random.fold_in(jax.random.key(593), 0), (64, 64, 3), jnp.uint32)
    assert (bits >> 9).min() == 0, "the seed no longer meets the end"
    assert np.isfinite(draws).all()


@pytest.mark.parametrize("logit", [0.59, 0.61, 30.0, 1e4, 1e6])
@pytest.mark.parametrize("sign", [1, -1])
def test_continuous_bernoulli_is_exact_at_large_logits(logit, sign):
    x = np.array([0.0, 1e-3, 0.25, 0.999, 1.0], np.float32).astype(np.float64)
    away = np.float64(logit) * (1 - x if sign > 0 else x)  # the logit times the distance from the likelier end
    expected = np.log(np.float64(logit)) - away - np.log1p(-np.exp(-np.float64(logit)))
    found = log_prob(vj.ContinuousBernoulli(), pixels([sign * logit] * 5), pixels(x))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)
