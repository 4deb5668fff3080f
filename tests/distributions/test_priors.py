"""Priors and divergences against scipy, quadrature, and the mean of p(x|z) over draws from the prior."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from conftest import drawn
from flax import linen as nn
from test_model import Normalised

import vae_jax as vj
from vae_jax.distributions import GaussianMixtureDistribution, Transformed, UnitGaussian, log_ratio
from vae_jax.networks import MLP

SHAPE = (3,)
X = jnp.asarray(np.random.default_rng(0).normal(size=(20, *SHAPE)), jnp.float32)
FULL = vj.FullGaussian.from_network(jnp.asarray(np.float32(np.random.default_rng(1).normal(size=(1, 4, 2)))))
MIXTURE = GaussianMixtureDistribution(
    jnp.array([[-1.0, 2.0], [0.5, 0.3], [3.0, 0.0]]),
    jnp.array([[0.0, -1.0], [0.7, 0.2], [-2.0, 1.0]]),
    jnp.array([0.3, -0.5, 1.0]),
)


def density_of_mixture(z, mixture=MIXTURE):
    """By scipy, in float64, component by component."""
    means, log_variances, logits = (
        np.asarray(part, np.float64) for part in (mixture.means, mixture.log_variances, mixture.logits)
    )
    of_components = scipy.stats.norm.logpdf(np.asarray(z, np.float64)[..., None, :], means, np.exp(0.5 * log_variances))
    return scipy.special.logsumexp(of_components.sum(axis=-1) + scipy.special.log_softmax(logits), axis=-1)


def test_the_kl_of_a_full_gaussian_from_the_standard_normal_is_the_integral():
    """By Gauss-Hermite quadrature of log q - log p, a polynomial of degree 2."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(10)
    e = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    mean, cholesky = np.asarray(FULL.mean[0], np.float64), np.asarray(FULL.cholesky[0], np.float64)
    z = mean + e @ cholesky.T
    q = scipy.stats.multivariate_normal(mean, cholesky @ cholesky.T)
    p = scipy.stats.multivariate_normal(np.zeros(2))
    expected = np.outer(weights, weights).ravel() @ (q.logpdf(z) - p.logpdf(z)) / (2 * np.pi)
    found = jax.jit(lambda z: vj.kl_divergence(FULL, UnitGaussian(2), z))(np.zeros((7, 1, 2), np.float32))
    assert found.shape == (1, 1)
    np.testing.assert_allclose(found, [[expected]], rtol=1e-5)


def test_the_kl_of_a_diagonal_gaussian_is_that_of_a_full_one_by_dimension():
    mean, log_variance = jnp.array([[0.3, -2.0]]), jnp.array([[-3.0, 0.5]])
    diagonal = vj.DiagonalGaussian(mean, log_variance)
    full = vj.FullGaussian(mean, jnp.diag(jnp.exp(0.5 * log_variance[0]))[None])
    kl = vj.kl_divergence(diagonal, UnitGaussian(2), mean[None])
    assert kl.shape == (1, 2)
    np.testing.assert_allclose(kl.sum(axis=-1), vj.kl_divergence(full, UnitGaussian(2), mean[None])[..., 0], rtol=1e-5)


@pytest.mark.parametrize(
    "q", [vj.DiagonalGaussian(jnp.ones((1, 2)), -jnp.ones((1, 2))), FULL], ids=["diagonal", "full"]
)
def test_the_log_ratio_and_the_kl_to_a_mixture_are_scipys_densities_at_the_draws(q):
    z = np.float32(2 * np.random.default_rng(0).normal(size=(5, 1, 2)))
    if isinstance(q, vj.FullGaussian):
        covariance = np.asarray(q.cholesky[0]) @ np.asarray(q.cholesky[0]).T
    else:
        covariance = np.diag(q.variance[0])
    of_q = scipy.stats.multivariate_normal(q.mean[0], covariance).logpdf(z[:, 0])
    expected = (of_q - density_of_mixture(z[:, 0]))[:, None, None]
    to_mixture, kl, to_standard = jax.jit(
        lambda z: (log_ratio(q, MIXTURE, z), vj.kl_divergence(q, MIXTURE, z), log_ratio(q, UnitGaussian(2), z))
    )(z)
    np.testing.assert_allclose(to_mixture, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(kl, expected, rtol=1e-4, atol=1e-4)
    standard = scipy.stats.norm.logpdf(z[:, 0]).sum(axis=-1)
    np.testing.assert_allclose(np.asarray(to_standard).sum(axis=-1)[:, 0], of_q - standard, rtol=1e-4)


def test_a_plain_autoencoder_has_no_divergence_from_a_learned_prior_either():
    q = vj.Delta(jnp.ones((4, 2)))
    np.testing.assert_array_equal(vj.kl_divergence(q, MIXTURE, jnp.ones((3, 4, 2))), np.zeros((4, 2)))


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-9), (np.float32, 1e-3)])
@pytest.mark.parametrize("log_variance", [0.0, -np.log(1e4), -16.0])
def test_the_density_of_a_mixture_is_scipys_at_small_variances_far_from_the_origin(log_variance, dtype, bound):
    """40 dimensions near components at a distance of 5 from 0 in each; nats, of numbers up to a thousand."""
    generator = np.random.default_rng(0)
    means = 5 * generator.choice([-1.0, 1.0], size=(30, 40)) + 0.1 * generator.normal(size=(30, 40))
    log_variances = log_variance + 0.2 * generator.normal(size=means.shape)
    z = means[:20] + np.exp(0.5 * log_variances[:20]) * generator.normal(size=(20, 40))
    with jax.enable_x64(dtype == np.float64):
        means, log_variances, logits, z = (jnp.asarray(a, dtype) for a in (means, log_variances, np.zeros(30), z))
        mixture = GaussianMixtureDistribution(means, log_variances, logits)
        found = jax.jit(mixture.log_prob)(z)
        np.testing.assert_allclose(found, density_of_mixture(z, mixture), rtol=0, atol=bound)
        assert jax.eval_shape(mixture.log_prob, z.reshape(4, 5, 40)).shape == (4, 5)


@pytest.mark.parametrize("prior", [vj.GaussianMixture(3), vj.FullGaussianMixture(3)], ids=["diagonal", "full"])
def test_a_mixture_takes_latents_of_another_precision(prior):
    """Networks have parameters in float32 where float64 is enabled, and so have the priors."""
    z = np.float32(np.random.default_rng(0).normal(size=(4, 2)))
    with jax.enable_x64(True):
        variables = prior.init(jax.random.key(0), 2, SHAPE, None)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
        double = jax.tree.map(np.float64, variables)

        @jax.jit
        def density_and_gradient(variables, z):
            of = prior(variables, 2, lambda x: x)
            return of.log_prob(z), jax.grad(lambda z: of.log_prob(z).sum())(z)

        expected = density_and_gradient(double, np.float64(z))
        for own, latents in ((variables, z), (double, z), (variables, np.float64(z))):
            for found, exact in zip(density_and_gradient(own, latents), expected, strict=True):
                np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_mixtures_density_is_that_of_its_components():
    """By all arguments, in reverse and in forward mode, against autodiff of the density as it is written on paper."""

    def ours(z, means, log_variances, logits):
        return GaussianMixtureDistribution(means, log_variances, logits).log_prob(z)

    def plain(z, means, log_variances, logits):
        scale = jnp.exp(0.5 * log_variances)[None]
        of_components = jax.scipy.stats.norm.logpdf(z[:, None], means[None], scale).sum(axis=-1)
        return jax.nn.logsumexp(of_components + jax.nn.log_softmax(logits)[None], axis=-1)

    arguments = 2 * jax.random.normal(jax.random.key(0), (5, 2)), MIXTURE.means, MIXTURE.log_variances, MIXTURE.logits
    for differentiate in (jax.jacrev, jax.jacfwd):
        found, expected = (jax.jit(differentiate(f, argnums=range(4)))(*arguments) for f in (ours, plain))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mean", "deviation"), [(3.0, 1e-2), (5.0, 3e-3), (10.0, 1e-3)])
def test_the_gradient_of_narrow_components_far_from_zero_keeps_its_digits(mean, deviation):
    """Against the derivative as it is written on paper, in float64: r_nk (d_nk^2 - 1) / 2, summed over n."""
    means = np.float32(mean) + np.float32(deviation) * np.float32([[0.0], [1.0]])
    z = np.float32(mean) + np.float32(deviation) * np.float32([[1.0], [-0.5], [0.3], [2.0]])
    log_variances = np.full((2, 1), 2 * np.log(deviation), np.float32)
    distances = np.square(np.float64(z) - np.float64(means).T) * np.exp(-np.float64(log_variances)).T
    weights = scipy.special.softmax(-0.5 * distances, axis=1)
    expected = (weights * (distances - 1) / 2).sum(axis=0)

    def density(log_variances):
        mixture = GaussianMixtureDistribution(jnp.asarray(means), log_variances, jnp.zeros(2))
        return mixture.log_prob(jnp.asarray(z)).sum()

    found = jax.jit(jax.grad(density))(log_variances)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


def in_flow(seed=0):
    flow = vj.Coupling(layers=2, hidden=(4,))
    generator = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * generator.normal(size=leaf.shape), jnp.float32),
        flow.init(jax.random.key(0), 2),
    )
    return Transformed(UnitGaussian(2), flow, params)


@pytest.mark.parametrize("prior", [UnitGaussian(2), MIXTURE, in_flow()], ids=["normal", "mixture", "flow"])
def test_draws_from_a_prior_have_its_density(prior):
    """The means of z and z^2 over draws are the integrals over a grid; the density integrates to 1."""
    axis = np.linspace(-12, 12, 301)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2).astype(np.float32)
    weights = np.exp(np.asarray(jax.jit(prior.log_prob)(grid), np.float64)) * (axis[1] - axis[0]) ** 2
    assert weights.sum() == pytest.approx(1, abs=1e-3)
    z = np.asarray(jax.jit(lambda key: prior.sample(key, 20_000))(jax.random.key(1)), np.float64)
    assert z.shape == (20_000, 2)
    for power in (1, 2):
        error = (z**power).std(axis=0) / np.sqrt(len(z))
        assert np.all(np.abs((z**power).mean(axis=0) - weights @ grid.astype(np.float64) ** power) < 5 * error + 1e-3)
    assert np.abs(np.mean(z[:, 0] * z[:, 1]) - weights @ grid.prod(axis=1)) < 6 * (z[:, 0] * z[:, 1]).std() / 141 + 1e-3


def test_the_temperature_scales_the_noise_of_draws_and_not_the_components():
    cold = MIXTURE.sample(jax.random.key(0), 50, 0.0)
    assert {tuple(row) for row in np.asarray(cold).tolist()} == {tuple(row) for row in MIXTURE.means.tolist()}
    normal = UnitGaussian(2).sample(jax.random.key(0), 50)
    np.testing.assert_allclose(UnitGaussian(2).sample(jax.random.key(0), 50, 0.5), 0.5 * normal, rtol=1e-6)


def small(prior, **settings):
    return vj.mlp_vae(SHAPE, latent_dim=2, hidden=(4,), likelihood=vj.Gaussian(0.5), prior=prior, **settings)


PRIORS = {
    "normal": vj.StandardNormal(),
    "mixture": vj.GaussianMixture(3, spread=2.0),
    "full_mixture": vj.FullGaussianMixture(3, spread=2.0),
    "vamp": vj.VampPrior(4),
    "flow": vj.FlowPrior(vj.Coupling(layers=2, hidden=(4,))),
}


def with_random_params(vae):
    """Each parameter random, as after training; fewer would leave parts of a prior at 0."""
    variables = drawn(vae.init, jax.random.key(0), X)
    generator = np.random.default_rng(2)
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf + np.float32(0.4 * generator.normal(size=leaf.shape))),
        jax.tree.map(np.asarray, variables),
    )


@pytest.mark.parametrize("name", PRIORS)
def test_the_importance_estimate_under_each_prior_is_the_mean_likelihood_of_draws_from_it(name):
    vae = small(PRIORS[name])
    variables = with_random_params(vae)
    found = vj.importance_estimate(jax.random.key(1), vae, variables, X[:3], samples=50_000)

    @jax.jit
    def likelihoods(key, x):
        return jnp.exp(vae.sample(key, variables, 200_000).px_z.log_prob(x))

    for i in range(3):
        p = np.asarray(likelihoods(jax.random.key(2 + i), X[i]), np.float64)
        relative_error = np.hypot(p.std() / p.mean() / np.sqrt(len(p)), 1 / np.sqrt(found.effective_samples[i]))
        assert relative_error < 0.05
        assert abs(found.log_px[i] - np.log(p.mean())) < 5 * relative_error


def test_a_learned_prior_of_mean_5_is_scored_against_itself():
    """The KL of q from N(5, I) for each objective and evaluation, and not the KL from N(0, I)."""
    vae = small(vj.GaussianMixture(1))
    variables = vae.init(jax.random.key(0))
    variables["params"]["prior"]["means"] = jnp.asarray(np.full((1, 2), 5, np.float32))

    @jax.jit
    def divergences(x):
        q = vae.encode(variables, x)
        return tuple(of.kl().sum(axis=-1) for of in (vj.DiagonalGaussian(q.mean - 5, q.log_variance), q))

    expected, from_standard_normal = (np.asarray(kl, np.float64) for kl in divergences(X))
    keys = jax.random.split(jax.random.key(1), 4_000)
    sampled = np.asarray(jax.jit(jax.vmap(lambda key: vj.elbo_terms(key, vae, variables, X).kl))(keys))
    assert np.all(np.abs(sampled.mean(axis=0) - expected) < 5 * sampled.std(axis=0) / np.sqrt(len(keys)))
    loss = jax.jit(lambda key: vj.ELBO(samples=2_000)(key, vae, variables, vj.Batch(X), jnp.int32(0)))
    found = loss(jax.random.key(2)).terms["kl"]
    assert np.abs(found - expected).max() < 0.5 < np.abs(from_standard_normal - expected).min()
    assert vj.kl_by_unit(jax.random.key(3), vae, variables, np.asarray(X))["z"].shape == (20, 1)
    draws = jax.jit(lambda key: vae.sample(key, variables, 1_000).z["z"])(jax.random.key(4))
    draws = np.asarray(draws)
    np.testing.assert_allclose(draws.mean(axis=0), [5, 5], atol=6 / np.sqrt(1_000))


def test_the_components_of_a_vamp_prior_are_the_posteriors_of_its_pseudo_inputs():
    vae = small(vj.VampPrior(4))
    variables = vae.init(jax.random.key(0), data=X)
    pseudo_inputs = variables["params"]["prior"]["pseudo_inputs"]
    z = np.float32(np.random.default_rng(1).normal(size=(6, 2)))

    @jax.jit
    def prior_and_posteriors(z):
        prior, q = vae.code(variables, vj.Batch(X)).prior, vae.encode(variables, pseudo_inputs)
        return prior, prior.log_prob(z), q, q.log_prob(jnp.broadcast_to(z[:, None], (6, 4, 2)))

    prior, log_pz, q, of_components = prior_and_posteriors(z)
    np.testing.assert_array_equal(prior.means, q.mean)
    np.testing.assert_array_equal(prior.log_variances, q.log_variance)
    np.testing.assert_allclose(log_pz, scipy.special.logsumexp(of_components, axis=1) - np.log(4), rtol=1e-4)


@pytest.mark.parametrize(("components", "distinct"), [(20, 20), (30, None)])
def test_a_vamp_prior_starts_from_training_examples_each_at_most_once_if_there_are_enough(components, distinct):
    variables = small(vj.VampPrior(components)).init(jax.random.key(0), data=X)
    rows = np.asarray(variables["params"]["prior"]["pseudo_inputs"])
    assert rows.shape == (components, *SHAPE)
    assert {tuple(row) for row in rows.tolist()} <= {tuple(row) for row in X.tolist()}
    assert distinct is None or len(np.unique(rows, axis=0)) == distinct


def test_the_gradient_of_the_bound_reaches_the_pseudo_inputs_and_through_them_the_encoder():
    vae = small(vj.VampPrior(4))
    variables = vae.init(jax.random.key(0), data=X)
    z = jax.random.normal(jax.random.key(1), (6, 2))

    def loss(params):
        return vae.code({"params": params}, vj.Batch(X)).prior.log_prob(z).sum()

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    assert np.all(np.abs(gradient["prior"]["pseudo_inputs"]).max(axis=1) > 0)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient["encoder"]))


def test_the_batch_statistics_of_pseudo_inputs_are_discarded():
    """Those of the batch are kept, as under any other prior."""
    networks = Normalised((2, 2)), Normalised(SHAPE)
    plain = vj.VAE(*networks, SHAPE, 2, likelihood=vj.Gaussian())
    vamp = vj.VAE(*networks, SHAPE, 2, likelihood=vj.Gaussian(), prior=vj.VampPrior(4))
    variables = vamp.init(jax.random.key(0), data=10 + X)
    assert sorted(variables["batch_stats"]) == ["decoder", "encoder"]
    terms = jax.jit(lambda model: model.terms(jax.random.key(1), variables, vj.Batch(X), train=True))
    updates = [terms(model).updates for model in (plain, vamp)]
    for one, other in zip(*map(jax.tree.leaves, updates), strict=True):
        np.testing.assert_array_equal(one, other)


class Dropped(nn.Module):
    """A network with dropout."""

    output_shape: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs, train=False):
        h = nn.Dropout(0.5, deterministic=not train)(jnp.ones((len(inputs), 8)))
        return MLP((), self.output_shape)(jnp.concatenate([inputs, h], axis=1))


def test_dropout_in_the_encoder_reaches_the_components_of_a_vamp_prior():
    """With other noise in each step; the keys of a train step are one an example, and there are more components."""
    vae = vj.VAE(Dropped((2, 2)), MLP((), SHAPE), SHAPE, 2, likelihood=vj.Gaussian(), prior=vj.VampPrior(6))
    variables = vae.init(jax.random.key(0), data=X)
    batch = vj.Batch(X[:3])

    @partial(jax.jit, static_argnums=1)
    def means(key, train):
        return vae.code(variables, batch, train, jax.random.split(key, 3)).prior.means

    one, other, evaluated = (
        np.asarray(means(jax.random.key(seed), train)) for seed, train in ((1, True), (2, True), (1, False))
    )
    assert np.all(one != other)
    encoded = jax.jit(lambda: vae.encode(variables, variables["params"]["prior"]["pseudo_inputs"]).mean)()
    np.testing.assert_allclose(evaluated, encoded, rtol=1e-6)  # two programs, which round differently


def test_a_vamp_prior_is_trained_by_the_step():
    vae, optimizer = small(vj.VampPrior(4)), optax.sgd(0.1)
    variables = vae.init(jax.random.key(0), data=X)
    state = vj.TrainState(variables, optimizer.init(variables["params"]), jnp.int32(0), jax.random.key(1))
    after, metrics = jax.jit(vj.make_train_step(vae, vj.ELBO(), optimizer))(state, vj.Batch(X))
    assert metrics["finite"]
    before, moved = (np.asarray(of["params"]["prior"]["pseudo_inputs"]) for of in (variables, after.variables))
    assert np.all(np.abs(moved - before).max(axis=1) > 0)


def test_the_temperature_of_a_flow_prior_is_that_of_its_base():
    vae = small(vj.FlowPrior(vj.Coupling(2, (4,))))
    prior = vae.prior_distribution(with_random_params(vae))
    cold, hot = (prior.sample(jax.random.key(0), count=500, temperature=t) for t in (0.1, 1.0))
    assert np.all(np.std(cold, axis=0) < 0.5 * np.std(hot, axis=0))
    np.testing.assert_array_equal(hot, prior.sample(jax.random.key(0), 500))


def test_draws_at_temperature_0_and_given_latents_are_decoded():
    vae = small(vj.GaussianMixture(2))
    variables = with_random_params(vae)
    means = variables["params"]["prior"]["means"]
    decode = jax.jit(lambda z: vae.decode(variables, z).mean)

    @jax.jit
    def draw(t):
        found = vae.sample(jax.random.key(0), variables, 10, temperature=t)
        return found.z["z"], found.px_z.mean

    (cold, decoded), (plain, _), (hot, _) = (map(np.asarray, draw(t)) for t in (0.0, 1.0, 2.0))
    assert {tuple(row) for row in cold.tolist()} == {tuple(row) for row in means.tolist()}
    np.testing.assert_allclose(decoded, decode(cold), rtol=1e-6)
    fixed = vae.sample(jax.random.key(0), variables, 2, given={"z": means})
    np.testing.assert_array_equal(fixed.z["z"], means)
    np.testing.assert_allclose(fixed.px_z.mean, decode(means), rtol=1e-6)
    np.testing.assert_allclose(hot - cold, 2 * (plain - cold), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small(vj.VampPrior(4)).init(jax.random.key(0)), "give some: vae.init"),
        (lambda: small(vj.VampPrior(4)).init(jax.random.key(0), data=X[:, :2]), r"data has shape \(20, 2\)"),
        (lambda: small(vj.VampPrior(4)).init(jax.random.key(0), data=X[:0]), r"data has shape \(0, 3\)"),
        (lambda: small(vj.VampPrior(4)).init(jax.random.key(0), data=X.astype(jnp.int32)), "data has dtype int32"),
        (lambda: small(vj.VampPrior(4), classes=2).init(jax.random.key(0), data=X), "conditional model"),
        (lambda: small(vj.VampPrior(4), posterior=vj.FullGaussian).init(jax.random.key(0), data=X), "a FullGaussian"),
        (lambda: vj.VampPrior(0), "components is 0"),
        (lambda: vj.GaussianMixture(0), "components is 0"),
        (lambda: vj.GaussianMixture(2, spread=-1.0), "spread is -1.0"),
    ],
)
def test_priors_that_do_not_fit_are_refused(call, message):
    with pytest.raises(vj.InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"count": 0}, "count is 0"),
        ({"given": {"z2": jnp.zeros((3, 2))}}, "layers z2 are given; this model has one, 'z'"),
        ({"given": {"z": jnp.zeros((2, 2))}}, r"z has shape \(2, 2\); expected \(3, 2\)"),
        ({"condition": jnp.zeros(3)}, "not conditional"),
    ],
)
def test_draws_that_the_model_can_not_make_are_refused(settings, message):
    vae = small(vj.StandardNormal())
    with pytest.raises(vj.InputError, match=message):
        vae.sample(jax.random.key(0), drawn(vae.init, jax.random.key(1)), **{"count": 3} | settings)
