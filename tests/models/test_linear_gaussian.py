"""The linear-Gaussian VAE, whose posterior and likelihood are known in closed form: it proves every bound at once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
import scipy.stats
from flax import linen as nn

import vae_jax as vj

SHAPE, VARIANCE = (2, 3, 1), 0.3


def linear_gaussian(shift=0.0, dtype=np.float64):
    """A linear VAE, x = W z + b + noise, W's columns orthogonal; q is the exact posterior, its mean moved by `shift`.

    Returns the VAE, its variables, log p(x) as a function of x, and KL(q || p(z|x)).
    """
    vae = vj.mlp_vae(SHAPE, latent_dim=2, hidden=(), likelihood=vj.Gaussian(VARIANCE))
    generator = np.random.default_rng(0)
    orthogonal, _ = np.linalg.qr(generator.normal(size=(6, 2)))
    weights, bias = orthogonal * [1.5, 0.7], generator.normal(size=6)
    posterior_variance = 1 / (1 + (weights**2).sum(axis=0) / VARIANCE)  # (I + W'W / c)^-1, diagonal here
    gain = weights * posterior_variance / VARIANCE  # x -> posterior mean, [6, 2]
    encoder = {
        "kernel": np.concatenate([gain, np.zeros_like(gain)], axis=1),
        "bias": np.concatenate([shift - bias @ gain, np.log(posterior_variance)]),
    }
    params = {"encoder": {"Dense_0": encoder}, "decoder": {"Dense_0": {"kernel": weights.T, "bias": bias}}}
    variables = {"params": jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)}
    marginal = scipy.stats.multivariate_normal(bias, weights @ weights.T + VARIANCE * np.eye(6))
    kl = 0.5 * (shift**2 / posterior_variance).sum()  # KL(q || p(z|x)) of a mean moved by `shift`
    return vae, variables, lambda x: marginal.logpdf(np.asarray(x).reshape(len(x), 6)), kl


BOUNDS = [vj.ELBO(kl=vj.SampledKL(), samples=3), vj.IWAE(7), vj.IWAE(7, doubly_reparameterised=True)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_under_the_exact_posterior_every_weight_and_every_bound_is_the_likelihood(dtype, tolerance):
    """With zero variance: for each draw, each objective, and for `log_likelihood`."""
    with jax.enable_x64(dtype == np.float64):
        vae, variables, log_px, _ = linear_gaussian(dtype=dtype)
        x = jnp.asarray(np.random.default_rng(1).normal(size=(4, *SHAPE)), dtype)
        expected = log_px(x)
        log_w = jax.jit(lambda key: vj.log_weights(key, vae, variables, x, samples=7))(jax.random.key(2))
        np.testing.assert_allclose(log_w, np.broadcast_to(expected, (7, 4)), rtol=tolerance, atol=tolerance)
        for objective in BOUNDS:
            loss = jax.jit(objective)(jax.random.key(3), vae, variables, vj.Batch(x), jnp.int32(0)).per_example
            np.testing.assert_allclose(-np.asarray(loss), expected, rtol=tolerance, atol=tolerance)
        found = vj.importance_estimate(jax.random.key(4), vae, variables, x, samples=500, rows=100)
        np.testing.assert_allclose(found.log_px, expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(found.effective_samples, 500, rtol=100 * tolerance)


def test_under_the_exact_posterior_the_doubly_reparameterised_gradient_of_the_encoder_is_zero():
    """Draw by draw, where that of the plain bound is noise about zero (Roeder et al., 2017)."""
    vae, variables, _, _ = linear_gaussian(dtype=np.float32)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, *SHAPE)), jnp.float32)

    def greatest(doubly):
        def loss(params):
            return vj.IWAE(5, doubly)(jax.random.key(3), vae, {"params": params}, vj.Batch(x), jnp.int32(0))[0].sum()

        gradient = jax.jit(jax.grad(loss))(variables["params"])["encoder"]
        return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))

    assert greatest(True) < 1e-5 < 1e-2 < greatest(False)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_bound_falls_short_of_the_likelihood_by_the_kl_to_the_true_posterior(shift):
    vae, variables, log_px, kl = linear_gaussian(shift=np.array([shift, -shift]), dtype=np.float32)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, *SHAPE)), jnp.float32)
    many = jnp.repeat(x, 20_000, axis=0)
    terms = jax.jit(lambda x: vj.elbo_terms(jax.random.key(3), vae, variables, x))(many)
    gap = log_px(x) - np.asarray(terms.log_px_z - terms.kl)
    assert abs(gap.mean() - kl) < 4 * gap.std() / np.sqrt(len(gap))
    assert kl == 0 or gap.mean() > 10 * gap.std() / np.sqrt(len(gap))


@pytest.mark.parametrize("shift", [0.3, 1.0])
def test_the_importance_weighted_bounds_close_that_gap(shift):
    vae, variables, log_px, kl = linear_gaussian(shift=np.array([shift, -shift]), dtype=np.float32)
    x = np.random.default_rng(1).normal(size=(20, *SHAPE)).astype(np.float32)
    gaps = [
        vj.mean_and_stderr(log_px(x) - vj.log_likelihood(jax.random.key(k), vae, variables, x, samples=k))
        for k in (1, 10, 20_000)
    ]
    assert kl + 4 * gaps[0].standard_error > gaps[0].mean > gaps[1].mean > -4 * gaps[1].standard_error
    assert abs(gaps[2].mean) < 0.02 * kl + 4 * gaps[2].standard_error


class Linear(nn.Module):
    """An encoder with a mean linear in x and one variance for all x."""

    @nn.compact
    def __call__(self, inputs, train=False):
        mean = nn.Dense(2)(inputs.reshape(len(inputs), -1))
        log_variance = self.param("log_variance", nn.initializers.zeros, (2,))
        return jnp.stack([mean, jnp.broadcast_to(log_variance, mean.shape)], axis=1)


def test_a_linear_vae_learns_probabilistic_pca():
    """Lucas et al., 2019: its global maximum is that of Tipping and Bishop, 1999, whose solution is in closed form."""
    generator = np.random.default_rng(0)
    data = generator.normal(size=(2048, 2)) * [1.2, 0.8] @ generator.normal(size=(2, 6)) * 0.7
    data += 0.5 * generator.normal(size=data.shape) + generator.normal(size=6) * 0.3
    transform = vj.Scale(-6.0, 6.0)
    split = vj.Split(np.clip(np.round((data + 6) * 255 / 12), 0, 255).astype(np.uint8).reshape(-1, *SHAPE))
    x = vj.transform_all(jax.random.key(0), split, transform=transform).astype(np.float64).reshape(-1, 6)

    vae = vj.VAE(Linear(), vj.mlp_vae(SHAPE, hidden=()).decoder, SHAPE, 2, likelihood=vj.LearnedGaussian())
    optimizer = optax.adam(vj.warm_up_then_cosine(0.02, 3_000))
    step = vj.make_train_step(vae, vj.ELBO(samples=4), optimizer)
    state = vj.init(jax.random.key(1), vae, optimizer)
    state, _ = vj.fit(state, step, split, transform=transform, epochs=375, batch_size=256, progress=False)

    variances, directions = np.linalg.eigh(np.cov(x, rowvar=False, ddof=0))
    noise = variances[:-2].mean()
    principal = directions[:, -2:]
    best = principal @ np.diag(variances[-2:] - noise) @ principal.T + noise * np.eye(6)
    params = state.variables["params"]
    weights = np.asarray(params["decoder"]["Dense_0"]["kernel"], np.float64).T
    scale = np.exp(np.float64(params["likelihood"]["log_scale"]))
    learned = weights @ weights.T + scale**2 * np.eye(6)
    means = x.mean(axis=0), np.asarray(params["decoder"]["Dense_0"]["bias"], np.float64)
    log_px = [
        scipy.stats.multivariate_normal(m, c).logpdf(x).mean() for m, c in zip(means, (best, learned), strict=True)
    ]
    assert log_px[0] - 0.01 < log_px[1] <= log_px[0] + 1e-9
    assert np.degrees(scipy.linalg.subspace_angles(principal, weights)).max() < 1
    terms = vj.evaluate(jax.random.key(2), vae, state.variables, split, transform=transform)
    bound = vj.mean_and_stderr(terms.log_px_z - terms.kl)
    assert abs(bound.mean - log_px[0]) < 0.01 + 4 * bound.standard_error
