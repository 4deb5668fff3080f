"""A latent-variable model that is not a `VAE` goes through every objective and evaluation."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from conftest import small_split

import vae_jax as vj
from vae_jax.distributions import UnitGaussian, example_keys, log_ratio


@vj.value
class TwoLayers:
    """z2 ~ N(0, 1), z1 ~ N(a tanh z2 + b, exp(c)), x ~ likelihood(w z1 + v); q(z1|x) q(z2|x) linear in x."""

    event_shape: tuple[int, ...] = (2, 2, 1)
    likelihood: vj.Likelihood = vj.parameter(default=vj.Bernoulli())

    def init(self, key, data=None):
        size = math.prod(self.event_shape)
        shapes = {"z1": (size, 2), "z2": (size, 2), "prior": (3, 1), "decoder": (2, size)}
        keys = jax.random.split(key, len(shapes))
        params = {name: jax.random.normal(k, shapes[name]) for name, k in zip(shapes, keys, strict=True)}
        return {"params": params | {layer: 0.3 * params[layer] for layer in ("z1", "z2")}}

    def require_data(self, data, transform):
        if data.event_shape != self.event_shape:
            raise vj.InputError(f"the examples have shape {data.event_shape}, but the model takes {self.event_shape}")

    def code(self, variables, batch, train=False, key=None):
        x = batch.x.reshape(len(batch.x), -1) - 0.5
        outputs = {layer: x @ variables["params"][layer] for layer in ("z1", "z2")}
        return {layer: vj.DiagonalGaussian(of[:, :1], of[:, 1:]) for layer, of in outputs.items()}

    def prior_of_z1(self, variables, z2):
        a, b, c = variables["params"]["prior"][:, 0]
        return vj.DiagonalGaussian(a * jnp.tanh(z2) + b, jnp.full(z2.shape, c))

    def decode(self, variables, z1):
        weights, bias = variables["params"]["decoder"]
        outputs = jnp.tensordot(z1, weights[None], 1) + jnp.broadcast_to(bias, (*z1.shape[:-1], len(bias)))
        return self.likelihood(outputs.reshape(*z1.shape[:-1], *self.event_shape), {}, len(self.event_shape))

    def terms(
        self, key, variables, batch, draws=(0,), *, code=None, train=False, through=lambda z: z, freeze_posterior=False
    ):
        q = self.code(variables, batch) if code is None else code
        keys = example_keys(key, len(batch.x))

        def draw(layer, stream):
            fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
            return through(jax.vmap(lambda s: q[layer].sample(fold(fold(keys, stream), s)))(jnp.asarray(draws)))

        z = {"z1": draw("z1", 1), "z2": draw("z2", 2)}
        q = jax.lax.stop_gradient(q) if freeze_posterior else q
        ratio = {
            "z1": log_ratio(q["z1"], self.prior_of_z1(variables, z["z2"]), z["z1"]),
            "z2": log_ratio(q["z2"], UnitGaussian(1), z["z2"]),
        }
        kl = ratio | {"z2": jnp.broadcast_to(q["z2"].kl(), ratio["z2"].shape)}
        px_z = self.decode(variables, z["z1"])
        return vj.Terms(px_z.log_prob(batch.targets), ratio, kl, z, px_z, {})

    def sample(self, key, variables, count, condition=None, temperature=1.0, given=None):
        keys = jax.random.split(key)
        z = {"z2": UnitGaussian(1).sample(keys[0], count, temperature)} | (given or {})
        prior = self.prior_of_z1(variables, z["z2"])
        noise = temperature * (prior.sample(keys[1]) - prior.mean)
        z = {"z1": prior.mean + noise} | z
        return vj.Draws(z, self.decode(variables, z["z1"]))


MODEL = TwoLayers()
VARIABLES = jax.jit(MODEL.init)(jax.random.key(0))
X = jnp.asarray(np.random.default_rng(0).integers(0, 2, (5, 2, 2, 1)), jnp.float32)
BATCH, STEP = vj.Batch(X), jnp.int32(0)
DATA = small_split(48, size=2)


def key():
    return jax.random.key(1)


@functools.cache
def log_px():
    """By Gauss-Hermite quadrature over both latents, in float64."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    params = {name: np.asarray(leaf, np.float64) for name, leaf in VARIABLES["params"].items()}
    a, b, c = params["prior"][:, 0]
    z1 = a * np.tanh(nodes)[:, None] + b + np.exp(0.5 * c) * nodes  # [z2, noise of z1]
    logits = z1[..., None] * params["decoder"][0] + params["decoder"][1]
    x = np.asarray(X, np.float64).reshape(5, 1, 1, 4)
    px_z = np.exp((x * logits - np.logaddexp(0, logits)).sum(axis=-1))
    return np.log(np.einsum("bij,i,j->b", px_z, weights, weights))


def test_it_is_a_latent_variable_model():
    assert isinstance(MODEL, vj.LatentVariableModel)
    assert not isinstance(MODEL, vj.VAE)


def test_its_importance_estimate_is_the_integral_over_both_latents():
    found = vj.importance_estimate(key(), MODEL, VARIABLES, X, samples=200_000)
    error = 1 / np.sqrt(found.effective_samples)
    assert error.max() < 0.03
    assert np.all(np.abs(found.log_px - log_px()) < 5 * error)
    again = vj.log_likelihood(key(), MODEL, VARIABLES, X, samples=1_000)
    assert np.abs(again - log_px()).max() < 1


def test_its_draws_have_the_same_likelihood():
    log_p = jax.jit(lambda key: MODEL.sample(key, VARIABLES, 100_000).px_z.log_prob(X[0]))(jax.random.key(4))
    p = np.exp(np.asarray(log_p, np.float64))
    assert abs(np.log(p.mean()) - log_px()[0]) < 5 * p.std() / p.mean() / np.sqrt(len(p))


def test_its_bounds_lie_below_the_likelihood_and_tighten():
    many = jnp.repeat(X[:1], 4_000, axis=0)
    found = [
        vj.mean_and_stderr(-jax.jit(objective)(key(), MODEL, VARIABLES, vj.Batch(many), STEP).per_example)
        for objective in (vj.ELBO(), vj.ELBO(kl=vj.SampledKL()), vj.IWAE(1), vj.IWAE(20))
    ]
    for one in found[:3]:
        assert abs(one.mean - found[0].mean) < 5 * math.hypot(one.standard_error, found[0].standard_error)
    assert found[2].mean < found[3].mean < log_px()[0] + 5 * found[3].standard_error


def test_its_loss_has_a_term_for_each_layer_and_free_bits_for_each_unit():
    @jax.jit
    def loss_of(objective):
        return objective(key(), MODEL, VARIABLES, BATCH, STEP)

    loss = loss_of(vj.ELBO(samples=2))
    assert sorted(loss.terms) == ["kl", "kl_z1", "kl_z2", "log_px_z"]
    np.testing.assert_allclose(loss.terms["kl_z1"] + loss.terms["kl_z2"], loss.terms["kl"], rtol=1e-5)
    means = {layer: float(loss.terms[f"kl_{layer}"].mean()) for layer in ("z1", "z2")}
    assert means["z1"] != pytest.approx(means["z2"], rel=0.1)
    threshold = sum(means.values()) / 2  # between both
    paid = loss_of(vj.ELBO(samples=2, free_bits=threshold)).per_example
    expected = sum(max(mean, threshold) for mean in means.values()) - loss.terms["log_px_z"].mean()
    np.testing.assert_allclose(paid.mean(), expected, rtol=1e-5)


def test_its_doubly_reparameterised_gradient_is_refused():
    with pytest.raises(vj.InputError, match=r"for one latent layer, but the model has 2; take IWAE\(4\)"):
        jax.jit(vj.IWAE(4, doubly_reparameterised=True))(key(), MODEL, VARIABLES, BATCH, STEP)


def test_its_terms_and_weights_agree():
    terms = jax.jit(lambda x: vj.elbo_terms(key(), MODEL, VARIABLES, x))(X)
    loss = jax.jit(vj.ELBO())(key(), MODEL, VARIABLES, BATCH, STEP)
    np.testing.assert_allclose(terms.log_px_z - terms.kl, -loss.per_example, rtol=1e-5)
    log_w = np.asarray(jax.jit(lambda x: vj.log_weights(key(), MODEL, VARIABLES, x, samples=6))(X))
    bound = jax.jit(vj.IWAE(6))(key(), MODEL, VARIABLES, BATCH, STEP)
    expected = scipy.special.logsumexp(log_w, axis=0) - math.log(6)
    np.testing.assert_allclose(-bound.per_example, expected, rtol=1e-5)
    np.testing.assert_allclose(log_w.mean(axis=0), bound.terms["elbo"], rtol=1e-5)


def test_it_is_trained_and_evaluated_on_a_split():
    transform, optimizer = vj.Binarize(), optax.sgd(0.1)
    state = vj.init(jax.random.key(2), MODEL, optimizer, variables=VARIABLES)
    step = vj.make_train_step(MODEL, vj.ELBO(), optimizer)
    state, history = vj.fit(state, step, DATA, transform=transform, epochs=1, batch_size=16, progress=False)
    assert {"kl_z1", "kl_z2", "log_px_z"} <= history[0].keys()
    assert int(state.step) == 3
    variables = state.variables
    found, in_blocks = (
        vj.evaluate(key(), MODEL, variables, DATA, transform=transform, block=block) for block in (None, 10)
    )
    np.testing.assert_allclose(found.log_px_z, in_blocks.log_px_z, rtol=1e-5)
    kl = vj.kl_by_unit(key(), MODEL, variables, DATA, transform=transform)
    np.testing.assert_allclose(kl["z1"][:, 0] + kl["z2"][:, 0], found.kl, rtol=1e-4)
    active = vj.active_units(kl)
    assert {layer: active[layer].tolist() for layer in active} == {"z1": [True], "z2": [True]}
    bits = vj.bits_per_dim(found.log_px_z - found.kl, MODEL, transform)
    np.testing.assert_allclose(bits, (found.kl - found.log_px_z) / (4 * math.log(2)), rtol=1e-5)
    with pytest.raises(vj.InputError, match=r"the examples have shape \(6, 6, 1\)"):
        vj.evaluate(key(), MODEL, variables, small_split(4), transform=transform)
    with pytest.raises(vj.InputError, match=r"the examples have shape \(6, 6, 1\)"):
        vj.fit(state, step, small_split(4), transform=transform, epochs=1, batch_size=2, progress=False)


def test_the_draws_of_an_example_depend_on_its_key_and_their_numbers_alone():
    """What `importance_estimate` relies on, whatever the blocks."""
    whole = vj.importance_estimate(key(), MODEL, VARIABLES, X, samples=40)
    parts = vj.importance_estimate(key(), MODEL, VARIABLES, X, samples=40, block=2, rows=7)
    np.testing.assert_allclose(whole.log_px, parts.log_px, rtol=1e-5)


def test_layers_that_are_given_are_fixed_and_the_rest_is_drawn():
    @jax.jit
    def z_and_mean_of_z1(z2):
        draws = MODEL.sample(jax.random.key(5), VARIABLES, 3, given={"z2": z2}, temperature=0.0)
        return draws.z, MODEL.prior_of_z1(VARIABLES, z2).mean

    z2 = np.full((3, 1), 0.5, np.float32)
    z, mean_of_z1 = z_and_mean_of_z1(z2)
    np.testing.assert_array_equal(z["z2"], z2)
    np.testing.assert_allclose(z["z1"], mean_of_z1, rtol=1e-6)
