"""Losses per example, in nats, made of the terms they say."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from conftest import drawn

import vae_jax as vj
from vae_jax.distributions import example_keys
from vae_jax.objectives import require_schedules

VAE = vj.mlp_vae((6, 6, 1), latent_dim=3, hidden=(8,))
VARIABLES = drawn(VAE.init, jax.random.key(0))
X = jnp.asarray(np.float32(np.random.default_rng(1).uniform(size=(5, 6, 6, 1))))


BATCH = vj.Batch(X)


@jax.jit
def loss(objective, batch=BATCH):
    return objective(jax.random.key(2), VAE, VARIABLES, batch, jnp.int32(0))


@jax.jit
def elbo_terms(variables=VARIABLES):
    return vj.elbo_terms(jax.random.key(2), VAE, variables, X)


def test_elbo_is_its_terms_for_each_example():
    terms = elbo_terms()
    assert terms.log_px_z.shape == terms.kl.shape == (5,)
    for beta in (1.0, 0.0, 3.5):
        found = loss(vj.ELBO(beta))
        assert found.per_example.shape == (5,)
        np.testing.assert_allclose(found.per_example, beta * terms.kl - terms.log_px_z, rtol=1e-6)
        np.testing.assert_allclose(found.terms["kl"], terms.kl, rtol=1e-6)
        np.testing.assert_allclose(found.terms["log_px_z"], terms.log_px_z, rtol=1e-6)


def test_reconstruction_leaves_the_kl_out():
    terms = elbo_terms()
    found = loss(vj.Reconstruction())
    assert found.terms.keys() == {"log_px_z"}
    np.testing.assert_allclose(found.per_example, -terms.log_px_z, rtol=1e-6)


@pytest.mark.parametrize("objective", [vj.ELBO(), vj.Reconstruction()])
def test_the_target_is_what_is_explained(objective):
    clean = 1 - X
    with_target = loss(objective, vj.Batch(X, target=clean))
    density = jax.jit(lambda x: VAE.terms(jax.random.key(2), VARIABLES, vj.Batch(X)).px_z.log_prob(x)[0])
    np.testing.assert_allclose(with_target.terms["log_px_z"], density(clean), rtol=1e-6)


@pytest.mark.parametrize("doubly_reparameterised", [False, True])
def test_the_importance_weights_are_of_the_target(doubly_reparameterised):
    """With one draw the bound is the ELBO with a sampled KL."""
    denoised = vj.Batch(X, target=1 - X)
    one = loss(vj.IWAE(1, doubly_reparameterised), denoised).per_example
    np.testing.assert_allclose(one, loss(vj.ELBO(kl=vj.SampledKL()), denoised).per_example, rtol=1e-5)


def test_nats_are_summed_over_pixels_and_latents():
    """The sum over 36 pixels of a decoder that says 1/2 everywhere is 36 log 2, whatever x is."""
    silent = jax.tree.map(np.zeros_like, VARIABLES)
    terms = elbo_terms(silent)
    np.testing.assert_allclose(terms.log_px_z, -36 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(terms.kl, 0, atol=1e-6)


@pytest.mark.parametrize("beta", [-1.0, float("nan"), float("inf"), np.float32(-1)])
def test_a_beta_that_is_no_weight_is_refused(beta):
    with pytest.raises(vj.InputError, match="beta"):
        vj.ELBO(float(beta))


def test_more_samples_of_the_elbo_are_the_mean_of_single_ones():
    @jax.jit
    def kl_and_density(x):
        terms = VAE.terms(example_keys(jax.random.key(2), 5), VARIABLES, BATCH, jnp.arange(3))
        return VAE.encode(VARIABLES, x).kl().sum(-1), terms.px_z.log_prob(x)

    kl, log_px_z = map(np.asarray, kl_and_density(X))
    np.testing.assert_allclose(loss(vj.ELBO(samples=3)).per_example, kl - log_px_z.mean(axis=0), rtol=1e-6)
    sampled = loss(vj.ELBO(kl=vj.SampledKL(), samples=3)).per_example
    np.testing.assert_allclose(sampled, -np.mean(weights(3), axis=0), rtol=1e-5)


@partial(jax.jit, static_argnums=0)
def weights(samples):
    return vj.log_weights(jax.random.key(2), VAE, VARIABLES, X, samples)


def test_sampled_and_analytic_kl_agree_in_expectation():
    many = vj.Batch(jnp.asarray(np.repeat(X[:1], 4_000, axis=0)))
    analytic, sampled = (np.asarray(loss(vj.ELBO(kl=kl), many).terms["kl"]) for kl in (vj.AnalyticKL(), vj.SampledKL()))
    assert analytic.std() < 1e-5 < sampled.std()
    assert abs(sampled.mean() - analytic[0]) < 4 * sampled.std() / np.sqrt(4_000)


def test_beta_may_be_a_schedule():
    warm_up = vj.ELBO(beta=optax.linear_schedule(0.0, 1.0, 10))
    at = jax.jit(lambda step: warm_up(jax.random.key(2), VAE, VARIABLES, BATCH, step).per_example)
    for step, beta in ((0, 0.0), (5, 0.5), (20, 1.0)):
        np.testing.assert_allclose(at(np.int32(step)), loss(vj.ELBO(beta)).per_example, rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda objective: objective, lambda objective: vj.Adversarial(objective=objective)])
@pytest.mark.parametrize("steps", [1, 90, 150, 100_000])
def test_a_schedule_that_is_negative_within_the_run_is_refused(steps, wrap):
    objective = wrap(vj.ELBO(beta=optax.linear_schedule(1.0, -1.0, 200)))
    if steps < 100:
        require_schedules(objective, steps)
        return
    with pytest.raises(vj.InputError, match=rf"beta is -.* in step \d\d\d of {steps}; expected a schedule"):
        require_schedules(objective, steps)


def test_the_schedule_of_a_run_is_checked_before_it_is_compiled():
    data = vj.Split(np.zeros((20, 36), np.float32))
    objective = vj.ELBO(beta=lambda step: jnp.log(2.0 - step))  # -inf in step 2, NaN after it
    optimizer = optax.adam(1e-3)
    vae = vj.mlp_vae((36,), 2, (4,), vj.Gaussian(1.0))
    make = partial(vj.make_train_step, vae, objective, optimizer)
    for step in (make(), vj.with_settings(lambda settings: make())):
        with pytest.raises(vj.InputError, match=r"beta is .* in step 2 of 4"):
            vj.fit(vj.init(jax.random.key(0), vae, optimizer), step, data, epochs=2, batch_size=10, progress=False)


@jax.jit
def divergence(x):
    return VAE.encode(VARIABLES, x).kl()


def test_free_bits_are_paid_whether_used_or_not():
    kl = np.asarray(divergence(X))
    mask = jnp.array([1.0, 1, 1, 1, 0])
    batch = vj.Batch(X, mask=mask)
    means = kl[:4].mean(axis=0)
    free = float(np.sort(means)[1])  # of three dimensions one lies below, one above
    found = loss(vj.ELBO(free_bits=free * 1.01), batch)
    paid = (np.asarray(found.per_example) + found.terms["log_px_z"])[:4].mean()
    np.testing.assert_allclose(paid, np.maximum(means, free * 1.01).sum(), rtol=1e-5)
    np.testing.assert_allclose(found.terms["kl"], kl.sum(-1), rtol=1e-6)
    np.testing.assert_allclose(loss(vj.ELBO(free_bits=0.0)).per_example, loss(vj.ELBO()).per_example, rtol=1e-6)


def test_free_bits_of_zero_are_the_bound_where_the_objective_is_traced():
    """A sampled KL may be below 0 in the mean of a small batch."""
    objective = vj.ELBO(kl=vj.SampledKL())
    known = jax.jit(lambda: objective(jax.random.key(2), VAE, VARIABLES, BATCH, jnp.int32(0)).per_example)
    np.testing.assert_allclose(loss(objective).per_example, known(), rtol=1e-5)


def test_devices_decide_on_free_bits_by_the_mean_over_all_of_them():
    """The means of the two devices lie on both sides of the free bits, the mean over the whole batch above."""
    keys, x = example_keys(jax.random.key(2), 20), np.float32(np.random.default_rng(8).uniform(size=(20, 6, 6, 1)))
    kl = np.asarray(divergence(x))[:, 0]
    x = x[np.argsort(kl)]
    low, high = np.sort(kl).reshape(2, 10).mean(axis=1)
    free_bits = (low + (low + high) / 2) / 2
    assert low < free_bits < (low + high) / 2 < high

    def per_example(axis_name, keys, x):
        objective = vj.ELBO(free_bits=float(free_bits), axis_name=axis_name)
        return objective(keys, VAE, VARIABLES, vj.Batch(x), jnp.int32(0)).per_example

    spread = jax.jit(jax.vmap(partial(per_example, "devices"), axis_name="devices"))
    together = spread(keys.reshape(2, 10), x.reshape(2, 10, 6, 6, 1))
    np.testing.assert_allclose(np.ravel(together), jax.jit(partial(per_example, None))(keys, x), rtol=1e-5)


def test_the_importance_weighted_bound_is_the_log_of_the_mean_weight():
    for samples in (1, 4):
        found = loss(vj.IWAE(samples))
        expected = scipy.special.logsumexp(weights(samples), axis=0) - np.log(samples)
        np.testing.assert_allclose(found.per_example, -expected, rtol=1e-5)
        np.testing.assert_allclose(found.terms["elbo"], np.mean(weights(samples), axis=0), rtol=1e-5)
    one = loss(vj.ELBO(kl=vj.SampledKL())).per_example
    np.testing.assert_allclose(loss(vj.IWAE(1)).per_example, one, rtol=1e-5)


def test_bounds_increase_with_the_number_of_samples():
    x = jnp.asarray(np.repeat(X, 200, axis=0))
    bounds = [-np.asarray(loss(vj.IWAE(samples), vj.Batch(x)).per_example) for samples in (1, 5, 50)]
    for lower, higher in itertools.pairwise(bounds):
        difference = higher - lower
        assert difference.mean() > 4 * difference.std() / np.sqrt(len(difference))


def test_the_doubly_reparameterised_gradient_has_the_mean_of_the_plain_one():
    """Over many draws for one image; the decoder's gradient is the same draw by draw."""
    samples = 4

    def gradient(doubly, x):
        def mean_loss(params):
            return loss_of(vj.IWAE(samples, doubly), x, {"params": params}).mean()

        return jax.jit(jax.grad(mean_loss))(VARIABLES["params"])

    def loss_of(objective, x, variables):
        return objective(jax.random.key(5), VAE, variables, vj.Batch(x), jnp.int32(0)).per_example

    plain, doubly = gradient(False, X), gradient(True, X)
    for a, b in zip(jax.tree.leaves(plain["decoder"]), jax.tree.leaves(doubly["decoder"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    each = [
        jax.jit(jax.vmap(partial(single, doubly=doubly, samples=samples)))(jax.random.split(jax.random.key(6), 2_000))
        for doubly in (False, True)
    ]
    difference = np.subtract(*each)
    error = difference.std(axis=0) / np.sqrt(len(difference))
    assert np.all(np.abs(difference.mean(axis=0)) < 5 * error)
    assert np.all(difference.std(axis=0) > 0), "both are one and the same"


def single(key, doubly, samples):
    """The gradient by the biases of the encoder's last layer, for one image and one draw."""

    def negative_bound(bias):
        params = jax.tree.map(lambda leaf: leaf, VARIABLES["params"])
        params["encoder"]["Dense_1"]["bias"] = bias
        found = vj.IWAE(samples, doubly)(key, VAE, {"params": params}, vj.Batch(X[:1]), jnp.int32(0))
        return found.per_example[0]

    return jax.grad(negative_bound)(VARIABLES["params"]["encoder"]["Dense_1"]["bias"])


def test_a_plain_autoencoder_has_no_importance_weights():
    plain = vj.mlp_vae((6, 6, 1), hidden=(8,), posterior=vj.Delta)
    with pytest.raises(vj.InputError, match="no density"):
        vj.log_weights(jax.random.key(0), plain, drawn(plain.init, jax.random.key(1)), X, 3)


@pytest.mark.parametrize("samples", [0, -1])
def test_no_samples_are_refused(samples):
    with pytest.raises(vj.InputError, match="samples"):
        vj.log_weights(jax.random.key(0), VAE, VARIABLES, X, samples)
    for objective in (vj.IWAE, lambda samples: vj.ELBO(samples=samples)):
        with pytest.raises(vj.InputError, match="samples"):
            objective(samples)
    with pytest.raises(vj.InputError, match="free_bits"):
        vj.ELBO(free_bits=-0.5)
