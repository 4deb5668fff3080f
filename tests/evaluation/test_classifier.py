"""The classifier learns, counts what it says, and is the same classifier each time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_split

import vae_jax as vj
from vae_jax.evaluation.classifier import Predictions

DATA = small_split(96)
GREY = DATA.images / np.float32(255)


def test_the_same_key_gives_the_same_classifier():
    classifier = vj.train_classifier(jax.random.key(0), DATA, steps=60, batch_size=32, progress=False)
    judgement = classifier.on(DATA)
    assert judgement.accuracy(DATA.labels) > 0.95
    assert judgement.features.shape == (96, 128)
    np.testing.assert_allclose(judgement.probabilities.sum(axis=-1), 1, rtol=1e-5)
    again = vj.train_classifier(jax.random.key(0), DATA, steps=60, batch_size=32, progress=False)
    np.testing.assert_array_equal(again(GREY).probabilities, judgement.probabilities)


@pytest.mark.parametrize(("batch_size", "epochs"), [(32, 3), (256, 7)])
def test_at_least_as_many_steps_are_taken_in_whole_epochs(monkeypatch, batch_size, epochs):
    runs = []
    monkeypatch.setattr(
        "vae_jax.evaluation.classifier.fit", lambda state, *args, **settings: (state, runs.append(settings))
    )
    vj.train_classifier(jax.random.key(0), DATA, steps=7, batch_size=batch_size)
    (run,) = runs
    assert (run["epochs"], run["batch_size"]) == (epochs, min(batch_size, 96))


def test_features_are_the_last_hidden_layer_after_its_relu():
    classifier = vj.Classifier((6, 6, 1), classes=3, hidden=(4,))
    variables = classifier.init(jax.random.key(0))
    hidden = variables["params"]["MLP_0"]["Dense_0"]["kernel"]  # biases are 0 at first
    expected = jnp.maximum(GREY.reshape(96, -1) @ hidden, 0)
    features = classifier.features(variables, jnp.asarray(GREY))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    logits = classifier.logits(variables, jnp.asarray(GREY))
    np.testing.assert_allclose(logits, expected @ variables["params"]["Dense_0"]["kernel"], rtol=1e-4, atol=1e-5)


def test_cross_entropy_is_minus_the_log_probability_of_the_label():
    classifier = vj.Classifier((6, 6, 1), classes=3, hidden=(4,))
    variables = classifier.init(jax.random.key(0))
    x, labels = jnp.asarray(GREY), jnp.asarray(DATA.labels)
    loss = vj.CrossEntropy()(jax.random.key(1), classifier, variables, vj.Batch(x, label=labels), jnp.int32(0))
    probabilities = jax.nn.softmax(classifier.logits(variables, x))
    np.testing.assert_allclose(loss.per_example, -np.log(probabilities[np.arange(96), labels]), rtol=1e-4)
    right = probabilities.argmax(axis=-1) == labels
    np.testing.assert_array_equal(loss.terms["accuracy"], right)


def test_accuracy_is_the_share_of_correct_predictions():
    probabilities = np.array([[0.95, 0.05, 0.0], [0.5, 0.4, 0.1], [0.0, 0.1, 0.9], [0.3, 0.3, 0.4]])
    assert Predictions(probabilities, np.zeros((4, 2))).accuracy(np.array([0, 1, 2, 2])) == 0.75


def test_images_without_labels_are_refused():
    with pytest.raises(vj.InputError, match="no labels"):
        vj.train_classifier(jax.random.key(0), vj.Split(DATA.images))
    classifier = vj.Classifier((6, 6, 1), classes=3, hidden=(4,))
    batch = vj.Batch(jnp.zeros((2, 6, 6, 1)))
    with pytest.raises(vj.InputError, match="no labels"):
        vj.CrossEntropy()(jax.random.key(0), classifier, classifier.init(jax.random.key(0)), batch, jnp.int32(0))


def test_a_classifier_without_a_hidden_layer_is_refused():
    with pytest.raises(vj.InputError, match="hidden"):
        vj.Classifier(hidden=())


def test_images_of_another_type_are_refused():
    """A classifier is trained on bytes and called with values in [0, 1]."""
    real = vj.Split(GREY, DATA.labels)
    classifier = vj.Classifier((6, 6, 1), classes=3, hidden=(4,))
    trained = vj.TrainedClassifier(classifier, classifier.init(jax.random.key(0)))
    for refuses in (lambda: trained.on(real), lambda: vj.train_classifier(jax.random.key(0), real)):
        with pytest.raises(vj.InputError, match="the images are float32; expected bytes, uint8 from 0 to 255"):
            refuses()
    with pytest.raises(vj.InputError, match="the images are uint8; expected values in"):
        trained(DATA.images)
    np.testing.assert_array_equal(trained.on(DATA).features, trained(GREY).features)
