"""Adversarial training: the losses of each part, through `fit`."""

import math
import warnings
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import drawn
from flax import linen as nn
from small_run import assert_close, assert_same

import vae_jax as vj
from vae_jax.distributions import example_keys

SHAPE = (8, 8, 1)
VAE = vj.mlp_vae(SHAPE, 2, (5,), vj.Gaussian(0.1))
DISCRIMINATOR = vj.Discriminator((4,))
OBJECTIVE = vj.Adversarial(DISCRIMINATOR, weight=2.0, feature_weight=0.3, noise=0.0)
SPLIT = vj.Split(np.random.default_rng(0).integers(0, 256, (64, *SHAPE), dtype=np.uint8))
BATCH = vj.Batch(jnp.asarray(SPLIT.images[:8]) / 255)
RATES = {"model": optax.adam(1e-3), "discriminator": optax.adam(1e-2, b1=0.5)}
OPTIMIZER = optax.partition(RATES, vj.Adversarial.labels)
STEP = vj.make_train_step(VAE, OBJECTIVE, OPTIMIZER)


@jax.jit
def made(key):
    return vj.init(key, VAE, OPTIMIZER, objective=OBJECTIVE)


def fresh():
    return made(jax.random.key(0))


def variables_of(objective=OBJECTIVE, model=VAE):
    return drawn(lambda key: vj.init(key, model, OPTIMIZER, objective=objective).variables, jax.random.key(0))


def fit(state, epochs, step=STEP, **settings):
    return vj.fit(state, step, SPLIT, epochs=epochs, batch_size=16, progress=False, **settings)


def keys_of(count=8):
    return example_keys(jax.random.key(1), count)


@partial(jax.jit, static_argnames=("objective", "model"))
def loss_of_keys(keys, variables, batch, objective, model):
    return objective(keys, model, variables, batch, jnp.int32(0))


def loss_of(objective, batch=BATCH, model=VAE, variables=None):
    variables = variables_of(objective, model) if variables is None else variables
    return loss_of_keys(keys_of(len(batch.x)), variables, batch, objective=objective, model=model)


def softplus(a):
    return np.log1p(np.exp(np.asarray(a, np.float64)))


def test_the_losses_are_those_of_larsen():
    variables = variables_of()
    loss, plain = loss_of(OBJECTIVE), loss_of(vj.ELBO(), variables=variables)
    judge = jax.jit(partial(DISCRIMINATOR.apply, {"params": variables["params"]["discriminator"]}))
    draw = jax.jit(lambda key: VAE.sample(jax.random.fold_in(key, 2**31 - 3), variables, 1).px_z.mean[0])
    images = BATCH.x, np.asarray(plain.px_z.mean)[0], np.stack([draw(key) for key in keys_of()])
    (real, of_real), (again, of_again), (fake, _) = (map(np.asarray, judge(x)) for x in images)
    error = 0.15 * np.sum((of_real - of_again) ** 2, axis=(1, 2, 3))
    adversarial = softplus(-again) + softplus(-fake)  # twice the mean
    np.testing.assert_allclose(loss.per_example["encoder"], plain.per_example + error, rtol=1e-5)
    np.testing.assert_allclose(loss.per_example["model"], plain.per_example + error + adversarial, rtol=1e-5)
    expected = softplus(-real) + 0.5 * (softplus(again) + softplus(fake))
    np.testing.assert_allclose(loss.per_example["discriminator"], expected, rtol=1e-5)
    told = 0.5 * (real > 0) + 0.25 * (again < 0) + 0.25 * (fake < 0)
    np.testing.assert_allclose(loss.terms["discriminator_accuracy"], told)
    assert of_real.shape == (8, 4, 4, 4)

    undrawn = loss_of(replace(OBJECTIVE, draws=False), variables=variables)
    expected = plain.per_example + error + 2.0 * softplus(-again)
    np.testing.assert_allclose(undrawn.per_example["model"], expected, rtol=1e-5)
    assert undrawn.per_example.keys() == {"model", "discriminator"}
    np.testing.assert_allclose(undrawn.per_example["discriminator"], softplus(-real) + softplus(again), rtol=1e-5)
    np.testing.assert_allclose(undrawn.terms["discriminator_accuracy"], 0.5 * (real > 0) + 0.5 * (again < 0))


@pytest.mark.parametrize("draws", [True, False])
def test_a_relativistic_discriminator_judges_pairs(draws):
    objective = replace(OBJECTIVE, relativistic=True, draws=draws)
    variables = variables_of()
    loss, plain = loss_of(objective, variables=variables), loss_of(vj.ELBO(), variables=variables)
    params = variables["params"]["discriminator"]
    logits = jax.jit(lambda x: DISCRIMINATOR.apply({"params": params}, x)[0])
    draw = jax.jit(lambda key: VAE.sample(jax.random.fold_in(key, 2**31 - 3), variables, 1).px_z.mean[0])
    decoded = [np.asarray(plain.px_z.mean)[0]] + draws * [np.stack([draw(key) for key in keys_of()])]
    lead = np.stack([logits(BATCH.x) - logits(images) for images in decoded])
    np.testing.assert_allclose(loss.per_example["discriminator"], softplus(-lead).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(loss.terms["adversarial"], 2.0 * softplus(lead).mean(axis=0), rtol=1e-5)
    expected = plain.per_example + loss.terms["feature_error"] + 2.0 * softplus(lead).mean(axis=0)
    np.testing.assert_allclose(loss.per_example["model"], expected, rtol=1e-5)
    assert loss.per_example.keys() == {"model", "discriminator", *draws * ["encoder"]}
    np.testing.assert_allclose(loss.terms["discriminator_accuracy"], (lead > 0).mean(axis=0))

    moved = jax.tree.map(lambda leaf: leaf + 3.0 * (leaf.shape == (1,)), params)  # the bias of the logits
    moved = {"params": variables["params"] | {"discriminator": moved}}
    again = loss_of(objective, variables=moved)
    for name in loss.per_example:
        np.testing.assert_allclose(again.per_example[name], loss.per_example[name], rtol=1e-4)
    other = loss_of(replace(objective, relativistic=False), variables=moved)
    assert not np.allclose(other.per_example["discriminator"], loss.per_example["discriminator"])


@pytest.mark.parametrize("relativistic", [True, False])
@pytest.mark.parametrize("draws", [True, False])
def test_each_part_is_updated_by_its_own_loss(draws, relativistic):
    """The weight of the adversarial loss changes the decoder and, without draws, the encoder."""
    state = vj.init(jax.random.key(0), VAE, optax.sgd(1e-3), variables=variables_of())

    @jax.jit
    def params_after_a_step(weight):
        objective = vj.Adversarial(DISCRIMINATOR, weight=weight, noise=0.0, draws=draws, relativistic=relativistic)
        return vj.make_train_step(VAE, objective, optax.sgd(1e-3))(state, BATCH)[0].variables["params"]

    without, after = (params_after_a_step(np.float32(weight)) for weight in (0.0, 50.0))
    for part in without:
        if part == "discriminator" or (part == "encoder" and draws):
            assert_close(without[part], after[part], rtol=1e-5, atol=1e-7)
        else:
            difference = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - b).max(), without[part], after[part])
            assert max(jax.tree.leaves(difference)) > 1e-4, part


def test_the_penalty_is_half_the_squared_gradient_at_the_examples():
    plain, penalised = loss_of(OBJECTIVE), loss_of(replace(OBJECTIVE, penalty=6.0))
    params = variables_of()["params"]["discriminator"]
    logit = lambda x: DISCRIMINATOR.apply({"params": params}, x[None])[0][0]  # noqa: E731
    slopes = np.asarray(jax.jit(jax.vmap(jax.grad(logit)))(BATCH.x))
    expected = 3.0 * np.sum(slopes**2, axis=(1, 2, 3))
    added = np.asarray(penalised.per_example["discriminator"]) - plain.per_example["discriminator"]
    np.testing.assert_allclose(added, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(penalised.per_example["model"], plain.per_example["model"])
    step = vj.make_train_step(VAE, vj.Adversarial(DISCRIMINATOR, penalty=jnp.float32(2.0)), OPTIMIZER)
    assert bool(jax.jit(step)(fresh(), BATCH)[1]["finite"])


def test_noise_and_draws_belong_to_the_example():
    """The losses of an example are the same in another batch, if its key is."""
    noisy = vj.Adversarial(DISCRIMINATOR, noise=0.5)
    of = jax.jit(lambda keys, batch: noisy(keys, VAE, variables_of(), batch, jnp.int32(0)).per_example)
    whole, part = of(keys_of(), BATCH), of(keys_of()[4:], vj.Batch(BATCH.x[4:]))
    for name in whole:
        np.testing.assert_allclose(np.asarray(whole[name])[4:], part[name], rtol=1e-5)
    assert not np.allclose(whole["discriminator"], loss_of(OBJECTIVE).per_example["discriminator"])


def test_a_run_is_resumed_to_the_same_bits_and_its_model_restored(tmp_path):
    store = lambda: vj.Checkpoints(tmp_path, {}, model=VAE)  # noqa: E731
    whole, history = fit(fresh(), 4)
    fit(fresh(), 2, store=store())
    resumed, again = fit(fresh(), 4, store=store())
    assert_same(whole, resumed)
    names = {
        "loss_model",
        "loss_encoder",
        "loss_discriminator",
        "adversarial",
        "feature_error",
        "discriminator_accuracy",
    }
    assert names < set(history[-1])
    assert again[-1]["discriminator_accuracy"] == history[-1]["discriminator_accuracy"]
    vae, variables = vj.restore_model(tmp_path)
    assert variables["params"].keys() == {"encoder", "decoder"}
    draw = jax.eval_shape(lambda key: vae.sample(key, variables, 3).px_z.mean, jax.random.key(0))
    assert draw.shape == (3, *SHAPE)
    other = vj.make_train_step(VAE, vj.Adversarial(DISCRIMINATOR, weight=3.0), OPTIMIZER)
    with pytest.raises(vj.InputError, match="objective"):
        fit(fresh(), 5, other, store=store())


def test_members_and_devices():
    init = jax.jit(lambda keys: vj.init_members(keys, VAE, OPTIMIZER, objective=OBJECTIVE))
    states = init(jax.random.split(jax.random.key(1), 2))
    together, _ = fit(states, 1)
    alone, _ = fit(vj.member(states, 1), 1)
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, vj.member(together, 1).variables, alone.variables)
    spread, _ = fit(fresh(), 1, mesh=vj.device_mesh(4))
    jax.tree.map(close, spread.variables, fit(fresh(), 1)[0].variables)


def test_a_loss_that_is_not_finite_stops_the_run():
    make = lambda weight: vj.make_train_step(VAE, vj.Adversarial(DISCRIMINATOR, feature_weight=weight), OPTIMIZER)  # noqa: E731
    state = replace(fresh(), settings=jnp.float32(3e38))
    with pytest.raises(vj.NotFiniteError, match="step 1: the feature_error, "):
        fit(state, 1, vj.with_settings(make))


def test_other_models_and_objectives():
    perceptual = vj.Perceptual(vj.ConvFeatures((3,)), ("conv1",), (2.0,))
    both = vj.Adversarial(DISCRIMINATOR, objective=perceptual)
    frozen = {"features": drawn(perceptual.features.init, jax.random.key(0), jnp.zeros((1, *SHAPE)))}
    loss = loss_of(both, variables=variables_of(both) | {"frozen": frozen})
    assert "perceptual" in loss.terms
    conditional = vj.mlp_vae(SHAPE, 2, (4,), vj.Bernoulli(), classes=3)
    batch = vj.Batch(jnp.asarray(np.round(BATCH.x)), label=jnp.asarray(np.arange(8) % 3))
    assert np.isfinite(loss_of(OBJECTIVE, batch, conditional).per_example["model"]).all()
    autoencoder = vj.mlp_vae(SHAPE, 2, (4,), posterior=vj.Delta, prior=vj.GaussianMixture(2))
    labelled = vj.Batch(BATCH.x, label=jnp.arange(8))  # labels that the model does not take
    adversarial = vj.Adversarial(DISCRIMINATOR, objective=vj.Reconstruction())
    assert np.isfinite(loss_of(adversarial, labelled, autoencoder).per_example["model"]).all()
    in_wrong_order = vj.Perceptual(vj.ConvFeatures((3,)), ("conv1",), (2.0,), OBJECTIVE)
    with pytest.raises(vj.InputError, match="put the adversarial loss outside"):
        loss_of(in_wrong_order, variables=variables_of() | {"frozen": frozen})


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True)(x).sum(axis=(1, 2, 3)), x


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discriminator": vj.Discriminator}, "discriminator is the class Discriminator"),
        ({"weight": -1.0}, "weight is -1.0"),
        ({"feature_weight": np.inf}, "feature_weight is inf"),
        ({"noise": -0.5}, "noise is -0.5"),
        ({"penalty": -0.1}, "penalty is -0.1"),
        ({"objective": None}, "objective is None"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(vj.InputError, match=message):
        vj.Adversarial(**settings)


def test_missing_parts_and_a_normalised_discriminator_are_refused():
    with pytest.raises(vj.InputError, match="the batch has missing entries, which"):
        loss_of(OBJECTIVE, replace(BATCH, observed=jnp.ones_like(BATCH.x)))
    with pytest.raises(vj.InputError, match="the state has no discriminator"):
        loss_of(OBJECTIVE, variables=drawn(VAE.init, jax.random.key(0)))
    with pytest.raises(vj.InputError, match=r"variables are not those of this Discriminator: .*shape"):
        loss_of(OBJECTIVE, variables=variables_of(vj.Adversarial(vj.Discriminator((6,)))))
    with pytest.raises(vj.InputError, match="has the collection batch_stats; expected params only"):
        variables_of(vj.Adversarial(Normalised()))
    with pytest.raises(vj.InputError, match="returns no p"):
        loss_of(vj.Adversarial(DISCRIMINATOR, objective=vj.IWAE(2)))


@pytest.mark.parametrize("compared", [-1, 0, 3])
def test_a_discriminator_compares_activations_that_it_has(compared):
    with pytest.raises(vj.InputError, match=f"compared is {compared}; expected the number of a convolution, 1 to 2"):
        vj.Adversarial(vj.Discriminator((4, 8), compared)).init(jax.random.key(0), VAE)


@pytest.mark.parametrize(
    ("accuracies", "outcome"),
    [
        ([0.6, 0.9, 0.99, 1.0], "is saturated in the second half of the run.*accuracy is 100%.*lower or decaying"),
        ([0.9, 0.6, 0.52, 0.5], "is at chance level in the second half.*accuracy is 50% in.*higher learning rate"),
        ([0.5, 0.99, 0.99, 0.9], None),
        ([[0.7, 0.7], [0.7, 0.99]], "is saturated"),
    ],
)
def test_a_one_sided_discriminator_gives_a_warning(accuracies, outcome):
    history = [{"discriminator_accuracy": accuracy} for accuracy in accuracies]
    if outcome is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            vj.warn_if_one_sided(history)
    else:
        with pytest.warns(vj.AdversarialWarning, match=outcome):
            vj.warn_if_one_sided(history)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vj.warn_if_one_sided([{"discriminator_accuracy": 1.0}], high=math.inf)  # of a relativistic discriminator
    with pytest.raises(vj.InputError, match="has no discriminator_accuracy"):
        vj.warn_if_one_sided([{"loss": 1.0}])
