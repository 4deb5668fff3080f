"""Mistakes of a newcomer: each is answered by one sentence that names the value, the expectation and the remedy."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from conftest import small_split

import vae_jax as vj
from vae_jax.evaluation.classifier import Classifier, Predictions

SPLIT = small_split(16)
DATA = vj.Dataset("noise", SPLIT, small_split(8, seed=1), "made for the test")
VAE = vj.mlp_vae((6, 6, 1), hidden=(8,))
OPTIMIZER = optax.adam(1e-3)
STATE = vj.init(jax.random.key(0), VAE, OPTIMIZER)
OTHER = vj.mlp_vae((6, 6, 1), hidden=(9,)).init(jax.random.key(0))
CONDITIONAL = vj.mlp_vae((6, 6, 1), hidden=(8,), classes=3)
LABELLED = CONDITIONAL.init(jax.random.key(0))
ON_ARRAYS = vj.mlp_vae((6, 6, 1), hidden=(8,), condition_shape=(2,))
KEYS = jax.random.split(jax.random.key(0))
VAMP = vj.mlp_vae((6, 6, 1), hidden=(8,), prior=vj.VampPrior(2))
X = SPLIT.images / np.float32(255)
STEP = vj.make_train_step(VAE, vj.ELBO(), OPTIMIZER)
CODES = np.random.default_rng(0).normal(size=(16, 2))
HAS = np.arange(16) % 2 == 0
CLASSIFIER = vj.attributes.AttributeClassifier(
    ("Bright",), Classifier((6, 6, 1), 1, (2,)), Classifier((6, 6, 1), 1, (2,)).init(jax.random.key(0))
)
EDITS = vj.attributes.Edits(np.zeros(1), np.zeros((1, 3, 2)), np.zeros((1, 3)))
PREDICTIONS = Predictions(np.eye(4), np.zeros((4, 2)))


@pytest.fixture(autouse=True)
def as_outside_of_tests():
    """Switch off the run-time checks of annotations, which are made in tests alone."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def fit(data=SPLIT, step=STEP, **settings):
    return vj.fit(STATE, step, data, **({"epochs": 1, "batch_size": 8, "progress": False} | settings))


def with_prior(prior):
    return vj.mlp_vae((6, 6, 1), hidden=(8,), prior=prior)


def scored(**settings):
    vae = vj.mlp_vae((6, 6, 1), hidden=(8,), **settings)
    return vj.elbo_terms(jax.random.key(1), vae, vae.init(jax.random.key(0)), X)


def evaluate(data=SPLIT, **settings):
    return vj.evaluate(jax.random.key(1), VAE, STATE.variables, data, **settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(DATA), "a Dataset was given; expected one of its splits, such as data.train"),
        (lambda: evaluate(DATA), "a Dataset was given; expected one of its splits, such as data.train"),
        (lambda: fit("mnist"), "the data are 'mnist'; expected a Split, or an array"),
        (
            lambda: fit(transform=vj.Binarize),
            r"transform is the class Binarize; .*: make an object of it by Binarize\(\)",
        ),
        (
            lambda: evaluate(transform=vj.Binarize),
            r"transform is the class Binarize; .*: make an object of it by Binarize\(\)",
        ),
        (lambda: evaluate(transform="binary"), "transform is 'binary'; expected a transform, such as vj.Binarize"),
        (lambda: vj.mlp_vae(hidden=500), r"hidden is 500; expected a tuple of whole numbers, such as \(500, 500\)"),
        (lambda: vj.conv_vae(features=32), r"features is 32; expected a tuple of whole numbers, such as \(32, 32\)"),
        (lambda: vj.batch_norm_vae(hidden=49), r"hidden is 49; expected a tuple of whole numbers, such as \(49, 49\)"),
        (lambda: vj.mlp_vae(activation="relu"), "activation is 'relu'; expected a function, such as flax.linen.relu"),
        (
            lambda: vj.mlp_vae(likelihood=vj.Bernoulli),
            r"likelihood is the class Bernoulli; expected a value: Bernoulli\(\)",
        ),
        (
            lambda: vj.mlp_vae(likelihood="gaussian"),
            "likelihood is 'gaussian'; expected a likelihood, such as vj.Bernoulli",
        ),
        (
            lambda: vj.conv_vae(likelihood=vj.Gaussian),
            r"likelihood is the class Gaussian; expected a value: Gaussian\(\)",
        ),
        (lambda: vj.mlp_vae(prior=vj.StandardNormal), r"prior is the class StandardNormal; expected a value"),
        (lambda: vj.mlp_vae(prior="normal"), "prior is 'normal'; expected a prior, such as vj.StandardNormal"),
        (lambda: vj.mlp_vae(posterior=vj.FlowPosterior), "posterior is the class FlowPosterior; expected a value"),
        (lambda: vj.FlowPrior(vj.Coupling), r"flow is .*Coupling.*; expected a flow, such as Coupling\(\)"),
        (lambda: vj.FlowPosterior("coupling"), r"flow is 'coupling'; expected a flow, such as Coupling\(\)"),
        (lambda: vj.ELBO(kl=vj.SampledKL), r"kl is the class SampledKL; expected a value: SampledKL\(\)"),
        (
            lambda: vj.Adversarial().init(jax.random.key(0), vj.mlp_vae((28, 28, 1), hidden=(8,))),
            "images of 28 x 28 pixels cannot be halved 4 times by Discriminator; expected multiples of 16",
        ),
        (
            lambda: vj.log_likelihood(jax.random.key(0), VAE, STATE.variables, SPLIT),
            r"x is a split; expected its examples after the transform: vj.transform_to_batch\(key, split\)",
        ),
        (
            lambda: vj.mlp_vae(posterior="gaussian"),
            "posterior is 'gaussian'; expected a posterior, such as vj.Diagonal",
        ),
        (lambda: vj.FlowPosterior(vj.Coupling(), vj.Delta), "base is Delta; expected vj.DiagonalGaussian or vj.FullG"),
        (
            lambda: vj.VAE(VAE.encoder, VAE.decoder, (6, 6, 1), 2, likelihood=vj.Bernoulli),
            "likelihood is the class Bernoulli",
        ),
        (lambda: vj.mlp_vae(20), r"event_shape is 20; expected a tuple of sizes, such as \(20,\)"),
        (lambda: vj.mlp_vae("mnist"), "event_shape is 'mnist'; expected a tuple of sizes"),
        (lambda: vj.conv_vae((64, 64, 0)), r"event_shape\[2\] is 0; expected a whole number of at least 1"),
        (lambda: vj.mlp_vae((4,), condition_shape=3), r"condition_shape is 3; expected a tuple of sizes"),
        (lambda: vj.mlp_vae((4,), condition_shape=(0,)), r"condition_shape is \(0,\); expected a tuple of sizes"),
        (lambda: vj.mlp_vae((4,), condition_shape={"age": (1,)}), "condition_shape is {'age': .*; expected .* pairs"),
        (lambda: vj.mlp_vae((4,), condition_shape=(("age", 1),)), r"condition_shape is .*'age', 1.*; .* pairs"),
        (lambda: vj.mlp_vae((4,), condition_shape=(True,)), r"condition_shape is \(True,\); expected a tuple of sizes"),
        (
            lambda: vj.mlp_vae((4,), condition_shape=(("age", (1,)), ("age", (2,)))),
            "condition_shape has the names age, age; expected each name once",
        ),
        (lambda: vj.batch_norm_vae(()), r"event_shape is \(\); expected a tuple of sizes"),
        (lambda: VAE.encode(X, STATE.variables), "x is a dict; expected an array"),
        (lambda: VAE.encode(STATE.variables, SPLIT.images), "x is uint8; expected real numbers: .*vj.encode_all"),
        (
            lambda: vj.elbo_terms(jax.random.key(0), VAE, STATE.variables, SPLIT.images),
            "x is uint8; .*transform_all",
        ),
        (lambda: vj.log_likelihood(jax.random.key(0), VAE, STATE.variables, SPLIT.images), "x is uint8; expected real"),
        (lambda: STEP(STATE, vj.Batch(jnp.asarray(SPLIT.images))), "x is uint8; expected real numbers: apply a"),
        (lambda: jax.jit(STEP)(STATE, vj.Batch(jnp.asarray(SPLIT.images))), "x is uint8; expected real numbers"),
        (lambda: VAE.encode(STATE.variables, X * np.nan), "x holds NaN or infinite values; .*Batch.observed"),
        (
            lambda: vj.elbo_terms(jax.random.key(0), VAE, STATE.variables, vj.Batch(X * np.nan, target=X)),
            "x holds NaN or infinite values",
        ),
        (
            lambda: vj.log_likelihood(jax.random.key(0), VAE, STATE.variables, vj.Batch(X + np.inf, target=X)),
            "x holds NaN or infinite values",
        ),
        (
            lambda: ON_ARRAYS.encode(ON_ARRAYS.init(jax.random.key(0)), X, np.full((16, 2), np.nan)),
            "the condition holds NaN or infinite values; expected finite values",
        ),
        (lambda: VAE.decode(STATE.variables, [[0.0, np.nan]]), "z holds NaN or infinite values"),
        (lambda: vj.decode_all(VAE, STATE.variables, [[0.0, np.nan]]), "z holds NaN or infinite values"),
        (
            lambda: vj.elbo_terms(jax.random.key(0), VAE, STATE.variables, vj.Batch(X, target=X[:1])),
            "the batch has 16 examples and 1 targets; expected one for each",
        ),
        (
            lambda: vj.log_likelihood(jax.random.key(0), VAE, STATE.variables, vj.Batch(X[:2], target=X)),
            "the batch has 2 examples and 16 targets",
        ),
        (
            lambda: vj.elbo_terms(jax.random.split(jax.random.key(0), 3), VAE, STATE.variables, X),
            r"key has shape \(3,\); expected one key, or one for each of 16 examples",
        ),
        (
            lambda: with_prior(vj.GaussianMixture(2)).sample(jax.random.key(0), STATE.variables, 3),
            "the variables have no means of GaussianMixture; expected those of this model",
        ),
        (
            lambda: scored(likelihood=vj.Gaussian(np.ones(3))),
            r"a parameter of p\(x\|z\) has shape \(3,\); expected a number, or .* of an event, \(6, 6, 1\)",
        ),
        (
            lambda: with_prior(vj.FlowPrior(vj.Coupling(1))).sample(jax.random.key(0), STATE.variables, 3),
            "the variables have no parameters of FlowPrior",
        ),
        (
            lambda: with_prior(vj.GaussianMixture(2)).sample(
                jax.random.key(0), with_prior(vj.GaussianMixture(3)).init(jax.random.key(0)), 3
            ),
            "the variables have 3 components, and the prior 2; expected the same",
        ),
        (
            lambda: VAMP.sample(jax.random.key(0), {"params": {"prior": {"pseudo_inputs": X[:3]}}}, 3),
            "the variables have 3 components, and the prior 2",
        ),
        (
            lambda: fit(step=vj.make_train_step(VAE, vj.ELBO(), OPTIMIZER, axis_name="devices")),
            "axis_name is 'devices' in TrainStep; expected None: it is for jax.pmap",
        ),
        (
            lambda: fit(step=vj.make_train_step(VAE, vj.ELBO(axis_name="all"), OPTIMIZER)),
            "axis_name is 'all' in ELBO",
        ),
        (
            lambda: fit(step=vj.make_train_step(VAE, vj.ELBO(beta=lambda step: min(1.0, step / 9)), OPTIMIZER)),
            "beta is a function that can't be compiled; expected one of jax.numpy",
        ),
        (lambda: vj.ELBO(kl="analytic"), r"kl is 'analytic'; expected vj.AnalyticKL\(\) or vj.SampledKL\(\)"),
        (
            lambda: vj.VAE(type(VAE.encoder), VAE.decoder, (6, 6, 1), 2),
            r"encoder is the class MLP; expected a module of Linen, MLP\(\.\.\.\)",
        ),
        (lambda: vj.VAE(VAE.encoder, np.tanh, (6, 6, 1), 2), "decoder is an object of type ufunc; expected a module"),
        (lambda: VAE.encode(STATE, X), "variables is an object of type TrainState; expected .*: state.variables"),
        (lambda: VAE.encode(OTHER, X), "the variables are not those of this MLP: .*"),
        (lambda: VAE.decode(STATE, np.zeros((1, 2))), "variables is an object of type TrainState"),
        (lambda: VAE.decode(OTHER, np.zeros((1, 2))), "the variables are not those of this MLP: .*"),
        (lambda: VAE.decode(STATE.variables, np.zeros(2)), r"z has shape \(2,\); expected \[batch, 2\]"),
        (lambda: VAE.decode(STATE.variables, [[0.0], [1.0, 2.0]]), "z is .*"),
        (lambda: VAE.sample(jax.random.key(0), STATE, 3), "variables is an object of type TrainState"),
        (lambda: VAE.sample(0, STATE.variables, 3), r"key is 0; expected a typed key, such as jax.random.key\(0\)"),
        (
            lambda: VAE.sample(jax.random.key(0), STATE.variables, 1, given={"z": [[0.0, 0.0, 0.0]]}),
            r"z has shape \(1, 3\); expected \(1, 2\)",
        ),
        (
            lambda: VAE.sample(jax.random.key(0), STATE.variables, 1, given=np.zeros((1, 2))),
            r'given is an array float64\[1, 2\]; expected the latents of each layer by its name, such as {"z": z}',
        ),
        (
            lambda: vj.ladder_vae().sample(jax.random.key(0), {"params": {}}, 1, given=[np.zeros((1, 2))]),
            "given is a list; expected the latents of each layer by its name",
        ),
        (lambda: VAE.interpolate(STATE.variables, X, X, 1), "steps is 1, .*expected two steps or more"),
        (lambda: VAE.interpolate(STATE.variables, X, X[1:]), "one shape"),
        (lambda: VAE.traverse(STATE.variables, X, [0.0], [2]), "dimensions has 2; expected whole numbers from 0 to 1"),
        (lambda: VAE.traverse(STATE.variables, X, [0.0], 1), r"dimensions is 1; expected a sequence .*\[0, 1\]"),
        (lambda: VAE.traverse(STATE.variables, X, 0.0), r"values has shape \(\)"),
        (lambda: VAE.traverse(STATE.variables, X, [0.0], []), "there are 0 dimensions"),
        (lambda: vj.evaluate(0, VAE, STATE.variables, SPLIT), "key is 0; expected a typed key"),
        (lambda: vj.evaluate(jax.random.key(0), VAE, STATE, SPLIT), "variables is an object of type TrainState"),
        (lambda: vj.encode_all(jax.random.PRNGKey(0), VAE, STATE.variables, SPLIT), "key is an old-style key"),
        (lambda: vj.kl_by_unit(jax.random.PRNGKey(0), VAE, STATE.variables, SPLIT), "key is an old-style key"),
        (lambda: DATA.hold_out(2.0), "cannot hold out 2.0 of"),
        (lambda: vj.elbo_terms(0, VAE, STATE.variables, X), "key is 0; expected a typed key"),
        (lambda: vj.decode_all(vj.ladder_vae(), {}, np.zeros((5, 2))), r"of type LadderVAE; .*given=z\)"),
        (lambda: vj.init(jax.random.key(0), VAMP, OPTIMIZER, data=SPLIT), r"data is .* Split; .*transform_all"),
        (lambda: vj.init(jax.random.key(0), VAMP, OPTIMIZER, data=X * np.nan), "data holds NaN or infinite values"),
        (
            lambda: vj.init(jax.random.key(0), vj.mlp_vae((4,)), OPTIMIZER, objective=vj.Adversarial()),
            r"a Discriminator was given examples of shape \(4,\); expected images",
        ),
        (lambda: vj.Adversarial(draws="no"), "draws is 'no'; expected True or False"),
        (
            lambda: vj.mlp_vae((3,), likelihood=vj.StudentT(scale=np.ones(3))).init(jax.random.key(0)),
            r"the initial scale has shape \(3,\); expected a number",
        ),
        (lambda: vj.transform_all(None, SPLIT), "key is None; expected a typed key"),
        (lambda: vj.importance_estimate(KEYS, VAE, STATE.variables, X), r"key has shape \(2,\); expected one key"),
        (lambda: vj.elbo_terms(jax.random.key(0), VAE, STATE.variables, [[0.0], [1.0, 2.0]]), "x is .*"),
        (
            lambda: CONDITIONAL.sample(jax.random.key(0), LABELLED, 2, ["a", "b"]),
            "labels has dtype <U1 .*numbers the classes",
        ),
        (lambda: CONDITIONAL.encode(LABELLED, X[:2], [0.5, 1.0]), "labels have dtype float64; expected class numbers"),
        (lambda: CONDITIONAL.decode(LABELLED, np.zeros((2, 2)), [0, 3]), "labels run from 0 to 3; expected 0 to 2"),
        (lambda: vj.decode_all(CONDITIONAL, LABELLED, np.zeros((2, 2)), [[0, 1]]), r"labels have shape \(1, 2\)"),
        (
            lambda: vj.elbo_terms(jax.random.key(0), CONDITIONAL, LABELLED, X[:2], [0.5, 1.0]),
            "labels have dtype float64",
        ),
        (
            lambda: ON_ARRAYS.sample(jax.random.key(0), STATE.variables, 2, [0.5, 1.0]),
            r"the condition has shape \[\(\), \(\)\]",
        ),
        (lambda: vj.latents.circle(np.zeros(3)), r"encodings has shape \(3,\); expected \[n, latent\]"),
        (lambda: vj.plot.images(np.zeros((3, 4)), 2, ""), r"images have shape \(3, 4\); expected \[n, height, width"),
        (lambda: vj.plot.images(np.zeros((3, 4, 4, 1)), 0, ""), "columns is 0"),
        (lambda: vj.plot.images(np.zeros((1, 8, 8, 2)), 1, ""), "images have 2 channels; expected 1, 3 or 4"),
        (lambda: vj.plot.rows(np.zeros((0, 3, 8, 8, 1)), "abc", ""), r"images have shape \(0, 3"),
        (lambda: vj.plot.rows(np.zeros((2, 0, 8, 8, 1)), [], ""), r"images have shape \(2, 0"),
        (lambda: vj.plot.sheets([], 1, 1, ""), "there are no sheets"),
        (lambda: vj.plot.curves({}, "", "", {}), "there are no curves"),
        (lambda: vj.plot.curves({"a": []}, "", "", {}), "there are no curves, or one is empty"),
        (lambda: vj.plot.clouds({}, None, ""), "there are no encodings"),
        (lambda: vj.plot.clouds({"a": np.zeros((5, 1))}, None, ""), r"encodings have shape \(5, 1\); expected .* two"),
        (lambda: vj.plot.rows(np.zeros((3, 4, 4, 1)), "abc", ""), r"images have shape .*expected \[rows, columns"),
    ],
)
def test_a_mistake_is_answered_by_one_sentence(call, message):
    with pytest.raises(vj.InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def edited(z=CODES, vector=CODES[0], steps=(0.0, 1.0)):
    return vj.attributes.edit(VAE, STATE.variables, CLASSIFIER, z, vector, steps)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PREDICTIONS.accuracy(np.zeros((4, 1), int)), r"labels has shape \(4, 1\); expected \[N\]"),
        (lambda: PREDICTIONS.accuracy([1]), "labels is 1 class numbers; expected one class number for each of the 4"),
        (lambda: PREDICTIONS.accuracy(None), "labels is None; expected one class number for each of the 4 examples"),
        (
            lambda: vj.latents.nearest_mean_accuracy(CODES, SPLIT.labels, CODES, SPLIT.labels[:1]),
            "test_labels is 1 class numbers; expected one class number for each of the 16",
        ),
        (
            lambda: vj.latents.nearest_mean_accuracy(CODES, SPLIT.labels[:, None], CODES, SPLIT.labels),
            r"train_labels has shape \(16, 1\)",
        ),
        (
            lambda: vj.latents.nearest_mean_accuracy(CODES, SPLIT.labels, CODES[:, :1], SPLIT.labels),
            r"train has shape \(16, 2\) and test \(16, 1\); expected encodings of one latent space",
        ),
        (
            lambda: vj.latents.nearest_mean_accuracy(CODES, SPLIT.labels, CODES * np.nan, SPLIT.labels),
            "test holds NaN or infinite values",
        ),
        (lambda: vj.latents.class_separation(CODES * np.nan, SPLIT.labels), "encodings holds NaN or infinite values"),
        (lambda: vj.latents.class_separation(CODES, SPLIT.labels[:3]), "labels is 3 class numbers"),
        (
            lambda: vj.latents.straight_paths(CODES[0], CODES[1], 3),
            r"start has shape \(2,\); expected \[paths, latent\]",
        ),
        (
            lambda: vj.latents.straight_paths(CODES[:1], CODES, 3),
            r"start has shape \(1, 2\) and end \(16, 2\); expected an end for each start",
        ),
        (lambda: vj.latents.attribute_vector(CODES * np.inf, HAS), "encodings holds NaN or infinite values"),
        (lambda: vj.latents.attribute_vector(CODES, HAS[:, None]), r"attribute has shape \(16, 1\); expected \[n\]"),
        (lambda: vj.latents.attribute_vector(CODES, True), "attribute is True; expected an array"),
        (lambda: vj.latents.attribute_vector(CODES[:, 0], HAS), r"encodings has shape \(16,\); expected \[n, latent\]"),
        (lambda: vj.latents.attribute_counts(HAS, HAS), r"confounders has shape \(16,\); expected \[n, confounders\]"),
        (lambda: edited(vector=1.0), "vector is 1.0; expected an array"),
        (lambda: edited(vector=CODES), r"vector has shape \(16, 2\); expected \[latent\]"),
        (lambda: edited(vector=np.ones(3)), r"vector has shape \(3,\); expected \(2,\), that of one encoding"),
        (lambda: edited(vector=CODES[0] * np.nan), "vector holds NaN or infinite values"),
        (lambda: edited(steps=[0.0, np.inf]), "steps holds NaN or infinite values"),
        (lambda: edited(steps=[[0.0, 1.0]]), r"steps has shape \(1, 2\); expected \[steps\]"),
        (lambda: EDITS.flipped("Bright"), "attribute is 'Bright'; expected a number from 0 to 1: names.index"),
        (lambda: EDITS.mean_probability(2), "attribute is 2; expected a number from 0 to 1"),
        (lambda: vj.attributes.at_share(0.5, [0.0, 0.6], [1.0]), "there are 2 shares but 1 values"),
        (lambda: vj.EarlyStopping("loss", min_delta=np.zeros(2)), "min_delta is an array .*; expected one number"),
        (
            lambda: vj.train_classifier(jax.random.key(2), SPLIT.images),
            "the images have no labels; expected a label per image",
        ),
        (
            lambda: vj.attributes.train_attribute_classifier(jax.random.key(2), SPLIT.images, ["Bright"]),
            "the images have no attributes; expected attributes of each image",
        ),
        (lambda: vj.train_classifier(jax.random.key(2), DATA), "a Dataset was given; expected one of its splits"),
    ],
)
def test_what_has_another_shape_is_answered_by_one_sentence(call, message):
    with pytest.raises(vj.InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_encodings_may_be_lists():
    assert edited(z=CODES.tolist(), vector=CODES[0].tolist()).probabilities.shape == (2, 16, 1)
    labels = SPLIT.labels.tolist()
    accuracy = vj.latents.nearest_mean_accuracy(CODES.tolist(), labels, CODES.tolist(), labels)
    assert accuracy == vj.latents.nearest_mean_accuracy(CODES, SPLIT.labels, CODES, SPLIT.labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: vj.load_model(None), "path is None; expected a folder written by vj.save"),
        (lambda folder: vj.load_model(folder, modules=None), r"modules is None; expected a tuple of names"),
        (lambda folder: vj.restore_model(5), "folder is 5; expected the folder of a run's checkpoints"),
        (lambda folder: vj.restore_model(folder, modules="mine"), r"modules is 'mine'; expected .*such as \('mine',\)"),
        (lambda folder: vj.Checkpoints(None, {}), "folder is None; expected the folder of a run's checkpoints"),
        (lambda folder: vj.Checkpoints(folder, {}, allow="key"), "allow is 'key'; expected a tuple with some of"),
        (lambda folder: vj.Checkpoints(folder, {}, allow=None), "allow is None; expected a tuple with some of"),
        (lambda folder: vj.Checkpoints(folder, {}, allow=("keys",)), r"allow is \('keys',\); expected a tuple"),
        (lambda folder: vj.Checkpoints(folder, {}, allow=[["key"]]), r"allow is \[\['key'\]\]; expected a tuple"),
        (lambda folder: vj.Checkpoints(folder, {}, variables=5), "variables is 5; expected a function, such as"),
        (lambda folder: vj.Checkpoints(folder, {}, best=["loss"]), "best is a list; expected the name of a number"),
        (
            lambda folder: vj.export_page(folder, VAE, STATE.variables, vectors={"a": CODES[0]}),
            "vectors is a dict; expected a dict of those of each attribute by kind",
        ),
        (
            lambda folder: vj.export_page(folder, VAE, STATE.variables, vectors=[CODES[0]]),
            "vectors is a list; expected a dict of those of each attribute by kind",
        ),
        (lambda folder: vj.export(VAE, STATE.variables, folder, "cpu"), "platforms is 'cpu'; expected some of cpu, "),
        (lambda folder: vj.export(VAE, STATE.variables, folder, ()), r"platforms is \(\); expected some of cpu, "),
        (lambda folder: vj.export(VAE, STATE.variables, folder, ["gpu"]), r"platforms is \['gpu'\]; expected some of"),
    ],
)
def test_what_stores_nothing_is_answered_by_one_sentence(call, message, tmp_path):
    folder = tmp_path / "folder"
    with pytest.raises(vj.InputError, match=message) as error:
        call(folder)
    assert "\n" not in str(error.value)
    assert not folder.exists()


def test_old_names_work_and_warn():
    with pytest.warns(DeprecationWarning, match="observe is now called transform"):
        terms = evaluate(observe=vj.Scale())
    np.testing.assert_array_equal(terms.kl, evaluate().kl)
    with pytest.warns(DeprecationWarning, match="measure is now called eval_fn"):
        _, history = fit(measure=lambda state: {"steps": float(state.step)})
    assert history[0]["steps"] == 2
    names = {"estimate": "mean_and_stderr", "Judge": "TrainedClassifier", "train_judge": "train_classifier"}
    for old, new in names.items():
        with pytest.warns(DeprecationWarning, match=f"vae_jax.{old} is now called vae_jax.{new}"):
            assert getattr(vj, old) is getattr(vj, new)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = vj.nonsense


def test_labels_may_be_a_list():
    x, labels = X[:3], np.array([2, 0, 1])
    z = CONDITIONAL.encode(LABELLED, x, labels).mean
    for of in (
        lambda labels: CONDITIONAL.encode(LABELLED, x, labels).mean,
        lambda labels: CONDITIONAL.decode(LABELLED, z, labels).mean,
        lambda labels: CONDITIONAL.sample(jax.random.key(0), LABELLED, 3, labels).px_z.mean,
        lambda labels: vj.decode_all(CONDITIONAL, LABELLED, z, labels),
        lambda labels: vj.elbo_terms(jax.random.key(0), CONDITIONAL, LABELLED, x, labels).kl,
        lambda labels: vj.log_likelihood(jax.random.key(0), CONDITIONAL, LABELLED, x, 2, labels),
    ):
        np.testing.assert_array_equal(of(labels.tolist()), of(labels))
        np.testing.assert_array_equal(of(labels.tolist()), of(jnp.asarray(labels)))
