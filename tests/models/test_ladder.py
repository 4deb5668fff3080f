"""Ladder VAEs against integrals over their latents, and with every prior, likelihood, condition and way of training."""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import drawn, small_split

import vae_jax as vj
from vae_jax.networks import DenseBottomUp, DenseTopDown

SHAPE = (2, 2, 1)
TINY = vj.ladder_vae(SHAPE, latent_dims=(1, 1), hidden=(3,))
X = jnp.asarray(np.random.default_rng(0).integers(0, 2, (5, *SHAPE)), jnp.float32)
BATCH = vj.Batch(X)
DATA = small_split(48, size=8)
THREE = vj.ladder_vae((8, 8, 1), latent_dims=(3, 4, 5), hidden=(6,))
WAVELETS = vj.wavelet_ladder_vae((4, 4, 3), (3,), (1,), deviation=0.1)
MAPS = vj.conv_ladder_vae((8, 8, 3), 3, channels=(4, 8), groups=(1, 2), latent_channels=2)


def key(seed=1):
    return jax.random.key(seed)


def far_from_the_start(model, scale=0.5):
    """Variables whose priors and posteriors all differ: at first, those below the top are N(0, I)."""
    variables, generator = drawn(model.init, key(0)), np.random.default_rng(9)

    def moved(leaf):
        return jax.device_put(leaf + np.float32(scale * generator.normal(size=leaf.shape)))

    return variables | {"params": jax.tree.map(lambda leaf: moved(np.asarray(leaf)), variables["params"])}


def ones_and_zeros(count, event_shape):
    return jnp.asarray(np.float32(np.random.default_rng(1).integers(0, 2, (count, *event_shape))))


VARIABLES = far_from_the_start(TINY)


@jax.jit
def terms_of_tiny(variables, x, numbers):
    return TINY.terms(key(), variables, vj.Batch(x), numbers)


def decoded(z1, latent):
    return TINY.decoder.apply({"params": VARIABLES["params"]["decoder"]}, z1, latent)


@functools.cache
def log_px():
    """By Gauss-Hermite quadrature over z1 and over the noise of z2, with p(z2|z1) from the decoder itself."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = np.log(weights / weights.sum())
    z1, noise = (grid.reshape(-1, 1) for grid in np.meshgrid(nodes, nodes, indexing="ij"))

    def latent(p, q):
        assert q is None
        return p[:, 0] + jnp.exp(0.5 * p[:, 1]) * noise

    @jax.jit
    def log_px_z(z1):
        return jax.vmap(vj.Bernoulli()(decoded(z1, latent), {}, 3).log_prob, out_axes=1)(X)

    log_px_z = log_px_z(jnp.asarray(z1, jnp.float32))
    log_w = np.add.outer(weights, weights).reshape(-1, 1)
    return np.asarray(jax.nn.logsumexp(log_w + np.asarray(log_px_z, np.float64), axis=0))


def test_it_is_a_latent_variable_model_without_being_a_vae():
    assert isinstance(TINY, vj.LatentVariableModel)
    assert not isinstance(TINY, vj.VAE)


def test_its_importance_estimate_is_the_integral_over_both_layers():
    found = vj.importance_estimate(key(), TINY, VARIABLES, X, samples=100_000)
    error = 1 / np.sqrt(found.effective_samples)
    assert error.max() < 0.05
    assert np.all(np.abs(found.log_px - log_px()) < 5 * error)


def test_its_samples_have_the_same_likelihood():
    p = jax.jit(lambda: jnp.exp(TINY.sample(key(4), VARIABLES, 100_000).px_z.log_prob(X[0])))()
    p = np.asarray(p, np.float64)
    assert abs(np.log(p.mean()) - log_px()[0]) < 5 * p.std() / p.mean() / np.sqrt(len(p))


def test_the_kl_of_each_layer_is_the_mean_of_its_log_ratio_at_one_choice_of_the_layers_above():
    """Of z1 in closed form; that of z2 depends on z1, so only the means over both agree."""
    terms = terms_of_tiny(VARIABLES, X[:1], jnp.arange(50_000))
    for layer in ("z1", "z2"):
        difference = np.asarray(terms.log_ratio[layer] - terms.kl[layer], np.float64)
        assert abs(difference.mean()) < 5 * difference.std() / math.sqrt(50_000)
        assert difference.std() > 0.1
    assert float(terms.kl["z2"].std()) > 1e-3


@pytest.mark.parametrize("model", [THREE, MAPS, WAVELETS], ids=["dense", "maps", "wavelets"])
def test_the_densities_of_a_layer_are_those_of_the_parameters_that_the_decoder_gives(model):
    variables = far_from_the_start(model, 0.1)
    x = ones_and_zeros(2, model.event_shape)

    @jax.jit
    def first_layer_below(variables, x):
        """Its parameters in the decoder, and its terms, with a top layer without noise for the same inputs."""
        code = model.code(variables, vj.Batch(x))
        seen = []

        def latent(p, q):
            seen.append((p, q))
            return q[:, 0]

        model.decoder.apply({"params": variables["params"]["decoder"]}, code.posterior.mean, latent, code.features)
        still = vj.DiagonalGaussian(code.posterior.mean, jnp.full_like(code.posterior.mean, -40.0))
        still = dataclasses.replace(code, posterior=still)
        terms = model.terms(key(), variables, vj.Batch(x), jnp.arange(200), code=still)
        return seen[0], terms.z["z2"], terms.log_ratio["z2"], terms.kl["z2"]

    @jax.jit
    def expected(parameters, z):
        prior, posterior = (vj.DiagonalGaussian(of[:, 0], of[:, 1]) for of in parameters)
        noise = (z - posterior.mean[None]) / jnp.sqrt(posterior.variance)[None]
        return posterior.log_prob(z) - prior.log_prob(z), vj.kl_divergence(posterior, prior, z), noise

    parameters, z, log_ratio, kl = first_layer_below(variables, x)
    of_densities, of_layer, noise = map(np.asarray, expected(parameters, z))
    np.testing.assert_allclose(log_ratio.sum(axis=-1), of_densities, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(kl[0], of_layer, rtol=1e-3, atol=1e-4)
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1, abs=0.1)


def test_at_first_maps_of_latents_are_standard_normal_and_carry_nothing():
    @jax.jit
    def kl_and_draws(x):
        variables = MAPS.init(key(0))
        return MAPS.terms(key(), variables, vj.Batch(x)).kl, MAPS.sample(key(), variables, 500).z

    kl, z = kl_and_draws(ones_and_zeros(4, (8, 8, 3)))
    assert [of_layer.shape for of_layer in kl.values()] == [(1, 4, 3), (1, 4, 8), (1, 4, 8), (1, 4, 32)]
    assert all(np.abs(kl[layer]).max() == 0 for layer in ("z2", "z3", "z4"))
    assert np.max(kl["z1"]) > 0
    assert np.std(z["z4"]) == pytest.approx(1, abs=0.05)


def test_the_draws_of_an_example_depend_on_its_key_and_their_numbers_alone():
    whole = vj.importance_estimate(key(), TINY, VARIABLES, X, samples=40)
    parts = vj.importance_estimate(key(), TINY, VARIABLES, X, samples=40, block=2, rows=7)
    np.testing.assert_allclose(whole.log_px, parts.log_px, rtol=1e-5)
    z = terms_of_tiny(VARIABLES, X, jnp.arange(4)).z
    code = jax.jit(TINY.code)(VARIABLES, BATCH)
    last = jax.jit(lambda code: TINY.terms(key(), VARIABLES, BATCH, jnp.array([3]), code=code).z)(code)
    for layer in ("z1", "z2"):
        np.testing.assert_allclose(z[layer][3], last[layer][0], rtol=1e-5)
        assert len(np.unique(np.asarray(z[layer]).round(5))) == z[layer].size
    noise = np.asarray(terms_of_tiny(VARIABLES, X[:1], jnp.arange(2_000)).z["z1"])[:, 0, 0]
    below = np.asarray(terms_of_tiny(jax.jit(TINY.init)(key(0)), X[:1], jnp.arange(2_000)).z["z2"])[:, 0, 0]
    assert abs(np.corrcoef(noise, below)[0, 1]) < 0.1  # the layers' noise is independent


def test_samples_at_a_temperature_and_with_given_layers():
    variables = far_from_the_start(THREE)

    @jax.jit
    def sample(key, given, temperature=1.0):
        return THREE.sample(key, variables, 6, given=given, temperature=temperature)

    free = sample(key(), {})
    assert {name: z.shape for name, z in free.z.items()} == {"z1": (6, 3), "z2": (6, 4), "z3": (6, 5)}
    again = sample(key(2), free.z)
    np.testing.assert_array_equal(again.px_z.mean, free.px_z.mean)
    top = {"z1": free.z["z1"]}
    below = sample(key(2), top)
    np.testing.assert_array_equal(below.z["z1"], free.z["z1"])
    assert not np.allclose(below.z["z2"], free.z["z2"])
    means = [sample(key(seed), {}, 0.0).z["z3"] for seed in (1, 2)]
    np.testing.assert_array_equal(*means)
    mean, half, full = (sample(key(), top, t).z["z2"] for t in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(full - mean, 2 * (half - mean), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"given": {"z4": jnp.zeros((2, 3))}}, "layers z4 are given; this model has z1, z2, z3"),
        ({"given": {"z2": jnp.zeros((2, 3))}}, r"z2 has shape \(2, 3\); expected \(2, 4\)"),
        ({"given": {"z2": [[0.0] * 3] * 2}}, r"z2 has shape \(2, 3\); expected \(2, 4\)"),
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"count": 0}, "count is 0"),
        ({"condition": jnp.zeros(2, jnp.int32)}, "not conditional"),
    ],
)
def test_samples_that_are_refused(settings, sentence):
    with pytest.raises(vj.InputError, match=sentence):
        jax.eval_shape(lambda: THREE.sample(key(), drawn(THREE.init, key(0)), **{"count": 2} | settings))


CONDITIONAL = vj.ladder_vae((8, 8, 1), (3, 4), (6,), classes=10)
MODELS = {
    "three layers": (THREE, vj.Binarize()),
    "VampPrior": (vj.ladder_vae((8, 8, 1), (3, 4), (6,), prior=vj.VampPrior(5)), vj.Binarize()),
    "flows": (
        vj.ladder_vae(
            (8, 8, 1),
            (3, 4),
            (6,),
            posterior=vj.FlowPosterior(vj.Coupling(2, (4,))),
            prior=vj.FlowPrior(vj.Coupling(2, (4,))),
        ),
        vj.Binarize(),
    ),
    "one layer, optimal scale": (vj.ladder_vae((8, 8, 1), (3,), (6,), vj.OptimalGaussian()), vj.Dequantize()),
    "labels": (CONDITIONAL, vj.Binarize()),
    "maps": (
        vj.conv_ladder_vae((8, 8, 1), 3, (4,), (1,), 2, vj.MixtureOfLogistics(2), vj.FullGaussian),
        vj.Scale(),
    ),
    "wavelets": (
        vj.wavelet_ladder_vae((8, 8, 1), (4,), (1,), vj.MixtureOfLogistics(2), deviation=0.1),
        vj.Scale(),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_with_every_part_of_the_library_a_ladder_trains_and_is_evaluated(name):
    """The batches of 20 leave a rest, and the masked rows change nothing."""
    model, transform = MODELS[name]
    optimizer = vj.averaged(optax.adam(1e-2))
    examples = jnp.asarray(vj.transform_all(key(3), DATA, transform=transform))
    variables = drawn(model.init, key(), examples)
    state = vj.init(key(), model, optimizer, variables=variables)
    step = vj.make_train_step(model, vj.ELBO(free_bits=0.01), optimizer)
    state, history = vj.fit(state, step, DATA, transform=transform, epochs=10, batch_size=20, progress=False)
    assert history[-1]["loss"] < history[0]["loss"]
    variables = vj.averaged_variables(state)
    terms = vj.evaluate(key(), model, variables, DATA, transform=transform)
    kl = vj.kl_by_unit(key(), model, variables, DATA, transform=transform)
    np.testing.assert_allclose(sum(of_layer.sum(axis=-1) for of_layer in kl.values()), terms.kl, rtol=1e-3, atol=1e-3)
    labels = DATA.labels if model.classes else None
    log_px = vj.log_likelihood(key(), model, variables, examples, 200, labels)
    assert (log_px - (terms.log_px_z - terms.kl)).mean() > 0
    batch = vj.Batch(
        examples, label=None if labels is None else jnp.asarray(labels), mask=jnp.asarray(np.ones(48, np.float32))
    )
    if isinstance(model.likelihood, vj.OptimalGaussian):
        return  # its scale is that of the examples in the mask
    masked = dataclasses.replace(batch, mask=jnp.asarray(np.float32(np.arange(48) < 40)))
    gradient = jax.jit(
        jax.grad(lambda params, batch: of_loss(model, variables | {"params": params}, batch)[:40].mean())
    )
    grads = [gradient(variables["params"], each) for each in (batch, masked)]
    for one, other in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
        assert np.isfinite(one).all()


def of_loss(model, variables, batch):
    return vj.IWAE(3)(key(), model, variables, batch, jnp.int32(0)).per_example


def test_missing_entries_do_not_enter():
    variables = far_from_the_start(THREE, 0.1)
    x = np.array(ones_and_zeros(4, (8, 8, 1)))
    observed = np.ones_like(x)
    observed[:, :4] = 0
    log_px_z = jax.jit(lambda x: THREE.terms(key(), variables, vj.Batch(x, observed=jnp.asarray(observed))).log_px_z)
    one, other = log_px_z(x), log_px_z(np.where(observed, x, 1))
    np.testing.assert_array_equal(one, other)


def test_the_label_changes_the_prior_of_the_layers_below():
    variables = far_from_the_start(CONDITIONAL)
    sample = jax.jit(lambda label: CONDITIONAL.sample(key(), variables, 2, label, temperature=0.0).z["z2"])
    assert not np.allclose(*(sample(np.full(2, label)) for label in (0, 1)))
    with pytest.raises(vj.InputError, match="no labels were given"):
        CONDITIONAL.sample(key(), variables, 2)
    with pytest.raises(vj.InputError, match="no labels were given"):
        vj.log_likelihood(key(), CONDITIONAL, variables, jnp.zeros((2, 8, 8, 1)), 2)


def test_a_trained_ladder_is_saved_resumed_shared_by_devices_and_one_of_several_members(tmp_path):
    model, optimizer = vj.ladder_vae((8, 8, 1), latent_dims=(2, 3), hidden=(4,)), optax.adam(1e-2)
    step = vj.make_train_step(model, vj.ELBO(), optimizer)
    fit = functools.partial(vj.fit, data=DATA, transform=vj.Binarize(), batch_size=16, progress=False)

    @jax.jit
    def start():
        return vj.init(key(), model, optimizer)

    whole, _ = fit(start(), step, epochs=2)
    for epochs in (1, 2):
        store = vj.Checkpoints(tmp_path / "run", {}, model=model, every_seconds=0.0)
        resumed, _ = fit(start(), step, epochs=epochs, store=store)
    on_devices, _ = fit(start(), step, epochs=2, mesh=vj.device_mesh(8))
    members = jax.jit(lambda keys: vj.init_members(keys, model, optimizer))
    members, _ = fit(members(jax.vmap(jax.random.key)(jnp.array([1, 7]))), step, epochs=2)
    of_runs = (jax.tree.leaves(state.variables) for state in (whole, resumed, on_devices, members))
    for one, same, shared, both in zip(*of_runs, strict=True):
        np.testing.assert_array_equal(one, same)
        np.testing.assert_allclose(one, shared, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(one, np.asarray(both)[0], rtol=1e-3, atol=1e-4)
    found, variables = vj.restore_model(tmp_path / "run")
    assert found == model
    x = vj.transform_all(key(), DATA, transform=vj.Binarize())
    log_px = [vj.log_likelihood(key(), model, each, x, 3) for each in (variables, whole.variables)]
    np.testing.assert_array_equal(*log_px)


def test_in_float64_and_under_jit_and_vmap():
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda leaf: jnp.asarray(np.float64(leaf)), VARIABLES)
        x = jnp.asarray(np.float64(X))
        exact = terms_of_tiny(variables, x, jnp.arange(1))
        assert {leaf.dtype for leaf in jax.tree.leaves((exact.log_px_z, exact.kl, exact.z))} == {jnp.dtype("float64")}
    terms = jax.jit(lambda: TINY.terms(key(), VARIABLES, BATCH))()
    compiled = jax.jit(lambda model, variables, x: model.terms(key(), variables, vj.Batch(x)).kl)(TINY, VARIABLES, X)
    np.testing.assert_allclose(compiled["z2"], terms.kl["z2"], rtol=1e-4, atol=1e-5)
    two = jax.tree.map(lambda leaf: np.stack([leaf, np.zeros_like(leaf)]), VARIABLES)
    mapped = jax.jit(jax.vmap(lambda variables: TINY.terms(key(), variables, BATCH).log_px_z))(two)
    np.testing.assert_allclose(mapped[0], terms.log_px_z, rtol=1e-5)
    np.testing.assert_allclose(mapped[1], -4 * math.log(2), rtol=1e-5)


class OneArray(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(2)(x.reshape(len(x), -1)).reshape(-1, 2, 1)


class Normalised(DenseTopDown):
    @nn.compact
    def __call__(self, z, latent, features=None, train=False, condition=None):
        outputs = nn.Dense(4)(nn.BatchNorm(use_running_average=not train)(z))
        return outputs.reshape(-1, 2, 2, 1)


def with_parts(**parts):
    """Initialise a ladder of one layer, of which some parts do not fit."""
    fitting = {"encoder": DenseBottomUp((3,), (2, 1), 1), "decoder": DenseTopDown((3,), SHAPE, ()), "latent_dim": 1}
    return vj.LadderVAE(event_shape=SHAPE, **fitting | parts).init(key())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: vj.ladder_vae(latent_dims=()), r"latent_dims is \(\); expected one size or more"),
        (lambda: vj.ladder_vae(hidden=()), r"hidden is \(\); expected one size or more"),
        (lambda: vj.ladder_vae(latent_dims=(3, 0)), r"latent_dims\[1\] is 0"),
        (lambda: vj.ladder_vae(latent_dims=3), "latent_dims is 3; expected a tuple"),
        (lambda: vj.ladder_vae(posterior=vj.Delta), "posterior is Delta, which has no density"),
        (lambda: vj.ladder_vae(prior=vj.VampPrior), "prior is the class VampPrior"),
        (lambda: vj.conv_ladder_vae((28, 28)), r"event_shape is \(28, 28\)"),
        (lambda: vj.conv_ladder_vae((30, 30, 3)), "cannot be halved 2 times"),
        (lambda: vj.conv_ladder_vae(groups=(1,)), "expected two sequences of one length"),
        (lambda: vj.conv_ladder_vae(latent_channels=0), "latent_channels is 0"),
        (lambda: with_parts(encoder=OneArray()), "OneArray returns one array"),
        (lambda: with_parts(latent_dim=2), r"the encoder returns shape \(1, 2, 1\)"),
        (lambda: with_parts(decoder=DenseTopDown((3,), (2, 3, 1), ())), r"the decoder returns shape \(1, 2, 3, 1\)"),
        (lambda: with_parts(decoder=Normalised((3,), SHAPE, ())), "the decoder has batch_stats"),
        (
            lambda: jax.jit(vj.IWAE(4, doubly_reparameterised=True))(key(), TINY, VARIABLES, BATCH, jnp.int32(0)),
            "for one latent layer, but the model has 2",
        ),
        (
            lambda: TINY.terms(key(), VARIABLES, BATCH, through=jnp.tanh),
            r"a LadderVAE has no doubly reparameterised gradient; use vj\.IWAE\(k\), or a vj\.VAE",
        ),
        (
            lambda: vj.log_likelihood(key(), TINY, drawn(THREE.init, key()), X, 2),
            "the variables are not those of this DenseBottomUp",
        ),
        (
            lambda: TINY.sample(key(), drawn(vj.ladder_vae(SHAPE, (1, 2), (3,)).init, key()), 2),
            "the variables are not those of this DenseTopDown",
        ),
        (
            lambda: vj.evaluate(key(), THREE, drawn(THREE.init, key()), small_split(4)),
            r"the examples have shape \(6, 6, 1\)",
        ),
    ],
)
def test_bad_ladders_are_refused(make, sentence):
    with pytest.raises(vj.InputError, match=sentence):
        make()
