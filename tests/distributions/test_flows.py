"""Coupling flows and full-covariance Gaussians against autodiff, the change of variables and scipy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from test_linear_gaussian import SHAPE, linear_gaussian

import vae_jax as vj
from vae_jax.distributions import Transformed, UnitGaussian
from vae_jax.evaluation.latents import aggregate


def random_params(flow, latent_dim, scale=1.0, dtype=np.float64):
    """Parameters of a flow far from the identity: the last layers of its networks are 0 at first."""
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: flow.init(key, latent_dim), jax.random.key(0))
    return jax.tree.map(lambda leaf: jax.device_put(dtype(scale * generator.normal(size=leaf.shape))), shapes)


@functools.partial(jax.jit, static_argnums=0)
def there_and_back(flow, params, e):
    z, log_det = flow.forward(params, e)
    return z, log_det, *flow.inverse(params, z)


@functools.partial(jax.jit, static_argnums=0)
def jacobians(flow, params, e):
    return jax.vmap(jax.jacfwd(lambda e: flow.forward(params, e)[0]))(e)


@pytest.mark.parametrize(("latent_dim", "layers"), [(2, 1), (3, 2), (5, 3), (6, 5)])
def test_a_coupling_flow_is_inverted_and_its_log_determinant_is_that_of_the_jacobian(latent_dim, layers):
    with jax.enable_x64():
        flow = vj.Coupling(layers=layers, hidden=(7,))
        params = random_params(flow, latent_dim, scale=0.5)
        e = jnp.asarray(np.random.default_rng(1).normal(size=(4, latent_dim)))
        _, log_det, back, inverse_log_det = there_and_back(flow, params, e)
        assert np.abs(log_det).min() > 1e-3
        np.testing.assert_allclose(back, e, rtol=0, atol=1e-9)
        jacobian = jacobians(flow, params, e)
        np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-9)
        np.testing.assert_allclose(inverse_log_det, -np.asarray(log_det), rtol=0, atol=1e-9)


@pytest.mark.parametrize("latent_dim", [2, 3, 7, 16])
def test_after_four_layers_each_coordinate_depends_on_each(latent_dim):
    with jax.enable_x64():
        flow = vj.Coupling(layers=4, hidden=(16,))
        params = random_params(flow, latent_dim, scale=0.5)
        e = jnp.asarray(np.random.default_rng(1).normal(size=(20, latent_dim)))
        jacobian = jacobians(flow, params, e)
        assert np.abs(jacobian).max(axis=0).min() > 1e-6


def test_a_new_coupling_flow_only_reorders_the_coordinates():
    flow = vj.Coupling(layers=3, hidden=(4,))
    e = np.float32(np.random.default_rng(0).normal(size=(2, 5)))
    z, log_det = jax.jit(lambda key, e: flow.forward(flow.init(key, 5), e))(jax.random.key(1), e)
    np.testing.assert_array_equal(z, e[:, [0, 2, 4, 1, 3]], "once: after the only pair of layers")
    np.testing.assert_array_equal(log_det, [0, 0])


def test_the_log_scale_of_a_coupling_layer_is_bounded():
    flow = vj.Coupling(layers=1, hidden=(4,), bound=0.5)
    params = random_params(flow, 4, scale=1e3, dtype=np.float32)
    _, log_det = jax.jit(flow.forward)(params, np.float32(np.random.default_rng(1).normal(size=(50, 4))))
    assert 0.9 < np.abs(log_det).max() <= 1.0  # two coordinates are changed


def test_a_coupling_flow_of_one_dimension_is_refused():
    with pytest.raises(vj.InputError, match="latent_dim is 1; a coupling flow splits the dimensions"):
        vj.mlp_vae(SHAPE, latent_dim=1, hidden=(), prior=vj.FlowPrior(vj.Coupling())).init(jax.random.key(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, "layers is 0"),
        ({"hidden": (4, 0)}, r"hidden\[1\] is 0"),
        ({"bound": 0.0}, "bound is 0.0"),
        ({"bound": float("nan")}, "bound is nan"),
    ],
)
def test_settings_that_make_no_flow_are_refused(settings, message):
    with pytest.raises(vj.InputError, match=message):
        vj.Coupling(**settings)


def test_the_density_of_a_flow_posterior_is_the_change_of_variables_and_integrates_to_one():
    """log q(f(e)) = log N(e) - log |det df/de|, and a sum over a grid of z."""
    with jax.enable_x64():
        posterior = vj.FlowPosterior(vj.Coupling(layers=2, hidden=(5,)))
        params = random_params(posterior.flow, 2, scale=0.4)
        outputs = jnp.array([[[0.3, -0.2], [-1.0, -0.5]]])
        q = posterior.from_network(outputs, {"params": params})
        base = scipy.stats.norm(np.asarray(outputs[0, 0]), np.exp(0.5 * np.asarray(outputs[0, 1])))
        e = base.rvs(size=(7, 2), random_state=0)
        jacobian = jacobians(posterior.flow, params, jnp.asarray(e))
        expected = base.logpdf(e).sum(axis=-1) - np.linalg.slogdet(jacobian)[1]
        z, *_ = there_and_back(posterior.flow, params, jnp.asarray(e))
        log_prob = jax.jit(q.log_prob)
        np.testing.assert_allclose(np.asarray(log_prob(np.asarray(z)[:, None]))[:, 0], expected, rtol=1e-10)
        draws = np.asarray(jax.jit(jax.vmap(q.sample))(jax.random.split(jax.random.key(0), 200)))[:, 0]
        low, high = draws.min(axis=0) - 4, draws.max(axis=0) + 4
        grid = np.stack(np.meshgrid(*np.linspace(low, high, 400).T, indexing="ij"), axis=-1).reshape(-1, 1, 2)
        total = np.exp(log_prob(grid)).sum() * np.prod((high - low) / 399)
        assert total == pytest.approx(1, abs=1e-4)


def test_the_variance_of_a_linear_flow_of_correlated_latents_is_exact():
    """With linear shifts, z is Gaussian, and its variance depends on the correlations of the base."""
    flow = vj.Coupling(layers=2, hidden=())
    params = random_params(flow, 2, scale=0.0, dtype=np.float32)
    params["layer_0"]["Dense_0"]["kernel"] = np.float32([[0, 3]])  # adds three times the first coordinate to the second
    root = np.float32([[[1, 0], [0.9, 0.4]], [[2, 0], [-1, 0.5]]])
    posterior = Transformed(vj.FullGaussian(np.zeros((2, 2), np.float32), root), flow, params)
    jacobian = np.array([[1, 0], [3, 1]])
    covariance = jacobian @ root @ root.swapaxes(1, 2) @ jacobian.T
    variance, factor = jax.jit(lambda posterior: (posterior.variance, posterior.covariance_root))(posterior)
    np.testing.assert_allclose(variance, np.diagonal(covariance, axis1=1, axis2=2), rtol=1e-5)
    np.testing.assert_allclose(factor @ np.swapaxes(factor, 1, 2), covariance, rtol=1e-5)
    np.testing.assert_allclose(aggregate(posterior).covariance, covariance.mean(axis=0), rtol=1e-5)


def test_mean_and_variance_of_a_linear_flow_are_exact():
    """With constant log-scales and shifts, z is Gaussian."""
    flow = vj.Coupling(layers=2, hidden=())
    params = random_params(flow, 2, scale=0.0, dtype=np.float32)
    params["layer_0"]["Dense_0"]["bias"] = np.float32([0.5, 3.0])  # changes the second coordinate

    @jax.jit
    def mean_and_variance(params, mean, log_variance):
        q = Transformed(vj.DiagonalGaussian(mean, log_variance), flow, params)
        return q.mean, q.variance

    mean, variance = mean_and_variance(params, np.float32([[1, 2]]), np.log(np.float32([[0.25, 4]])))
    scale = np.exp(2 * np.tanh(0.25))
    np.testing.assert_allclose(mean, [[1, 2 * scale + 3]], rtol=1e-5)
    np.testing.assert_allclose(variance, [[0.25, 4 * scale**2]], rtol=1e-5)


OUTPUTS = jnp.asarray(np.float32(np.random.default_rng(3).normal(size=(2, 5, 3))))  # mean, log-variances, rows of L


def test_the_density_of_a_full_gaussian_is_scipys():
    """At draws with an axis of samples before the batch, as objectives have them."""
    z = np.float32(3 * np.random.default_rng(0).normal(size=(4, 2, 3)))

    @jax.jit
    def gaussian(outputs, z):
        q = vj.FullGaussian.from_network(outputs)
        return q.mean, q.cholesky, q.variance, q.log_prob(z)

    mean, cholesky, variance, log_prob = map(np.asarray, gaussian(OUTPUTS, z))
    covariance = np.float64(cholesky) @ np.swapaxes(cholesky, -1, -2)
    for i in range(2):
        expected = scipy.stats.multivariate_normal(mean[i], covariance[i]).logpdf(z[:, i])
        np.testing.assert_allclose(log_prob[:, i], expected, rtol=1e-4)
    np.testing.assert_allclose(variance, np.diagonal(covariance, axis1=1, axis2=2), rtol=1e-5)


def test_draws_of_a_full_gaussian_have_its_mean_and_covariance():
    q = jax.jit(vj.FullGaussian.from_network)(OUTPUTS)
    q_mean, covariance = np.asarray(q.mean), np.asarray(q.cholesky) @ np.swapaxes(q.cholesky, -1, -2)
    assert np.abs(covariance[0] - np.diag(np.diag(covariance[0]))).max() > 0.1
    z = np.asarray(jax.jit(jax.vmap(q.sample))(jax.random.split(jax.random.key(1), 20_000)))
    for i in range(2):
        deviation = np.sqrt(np.diag(covariance[i]))
        error = np.outer(deviation, deviation) * np.sqrt(2 / len(z))  # at least that of each entry
        assert np.all(np.abs(np.cov(z[:, i], rowvar=False) - covariance[i]) < 6 * error)
        assert np.all(np.abs(z[:, i].mean(axis=0) - q_mean[i]) < 6 * deviation / np.sqrt(len(z)))


def test_the_cholesky_factor_of_a_full_gaussian_is_lower_triangular_and_of_bounded_scale():
    @jax.jit
    def cholesky_and_kl(outputs):
        q = vj.FullGaussian.from_network(outputs)
        return q.cholesky, q.kl()

    cholesky, kl = cholesky_and_kl(np.full((1, 5, 3), 1e3, np.float32))
    np.testing.assert_array_equal(cholesky, np.tril(cholesky))
    assert np.isfinite(kl).all()
    assert np.all(np.diagonal(cholesky, axis1=1, axis2=2) > 0)


FAMILIES = {
    "full": vj.FullGaussian,
    "flow": vj.FlowPosterior(vj.Coupling(layers=2, hidden=(3,))),
    "flow on full": vj.FlowPosterior(vj.Coupling(layers=2, hidden=(3,)), base=vj.FullGaussian),
}


def small_vae(posterior):
    """A linear decoder and a posterior that is not the exact one."""
    vae = vj.mlp_vae(SHAPE, latent_dim=2, hidden=(), likelihood=vj.Gaussian(0.3), posterior=posterior)
    shapes = jax.eval_shape(vae.init, jax.random.key(0))
    generator = np.random.default_rng(5)
    return vae, jax.tree.map(lambda leaf: jax.device_put(np.float32(0.3 * generator.normal(size=leaf.shape))), shapes)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_posterior_bounds_the_same_likelihood(family):
    """The decoder is that of the linear-Gaussian model, so log p(x) is known whatever the posterior."""
    vae, variables = small_vae(FAMILIES[family])
    _, linear, log_px, _ = linear_gaussian(dtype=np.float32)
    variables["params"]["decoder"] = linear["params"]["decoder"]
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, *SHAPE)), jnp.float32)
    found = vj.importance_estimate(jax.random.key(0), vae, variables, x, samples=100_000)
    error = np.sqrt(1 / np.asarray(found.effective_samples))
    assert error.max() < 0.15
    assert np.all(np.abs(found.log_px - log_px(x)) < 5 * error)


@pytest.mark.parametrize("family", ["full", "flow"])
def test_the_doubly_reparameterised_gradient_of_every_posterior_is_that_of_the_bound_in_expectation(family):
    """Of each parameter: the encoder's, the decoder's, the flow's."""
    vae, variables = small_vae(FAMILIES[family])
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, *SHAPE)), jnp.float32)
    many = jnp.asarray(np.repeat(x, 2_000, axis=0))

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(doubly):
        def loss(params, key, x):
            objective = vj.IWAE(4, doubly_reparameterised=doubly)
            return objective(key[None], vae, {"params": params}, vj.Batch(x[None]), jnp.int32(0)).per_example[0]

        keys = jax.random.split(jax.random.key(7 + doubly), len(many))
        return jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(variables["params"], keys, many)

    plain, doubly = (jax.tree.map(np.asarray, gradients(doubly)) for doubly in (False, True))
    for path, leaf in jax.tree_util.tree_leaves_with_path(plain):
        other = dict(jax.tree_util.tree_leaves_with_path(doubly))[path]
        error = np.sqrt((leaf.var(axis=0) + other.var(axis=0)) / len(leaf))
        assert np.all(np.abs(leaf.mean(axis=0) - other.mean(axis=0)) <= 5 * error), path


def test_the_standard_normal_is_scipys():
    z = jax.device_put(np.float32(np.random.default_rng(0).normal(size=(4, 3))))
    np.testing.assert_allclose(UnitGaussian(3).log_prob(z), scipy.stats.norm.logpdf(z).sum(-1), rtol=1e-5)
