"""Attribute vectors in closed form, the classifier of attributes, and edits whose effects are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import vae_jax as vj
from vae_jax.evaluation.attributes import (
    GREATEST_WEIGHT,
    AttributeClassifier,
    AttributeCrossEntropy,
    Edits,
    _independence_weights,
    at_share,
    edit,
    train_attribute_classifier,
)
from vae_jax.evaluation.latents import attribute_counts, attribute_vector

# In rows: attribute, confounder, and how many have that combination.
TABLE = np.array([(0, 0, 30), (0, 1, 10), (1, 0, 5), (1, 1, 15)])


def crowd():
    """Attribute and confounder of 60 examples."""
    rows = np.repeat(TABLE[:, :2], TABLE[:, 2], axis=0).astype(bool)
    return rows[:, 0], rows[:, 1]


def test_the_balanced_vector_is_free_of_the_confounder():
    attribute, confounder = crowd()
    of_attribute, of_confounder = np.array([1.0, 2.0, 0.0]), np.array([0.0, 3.0, -1.0])
    encodings = np.outer(attribute, of_attribute) + np.outer(confounder, of_confounder)
    plain = attribute_vector(encodings, attribute)
    np.testing.assert_allclose(plain, of_attribute + (15 / 20 - 10 / 40) * of_confounder)
    np.testing.assert_allclose(attribute_vector(encodings, attribute, confounder[:, None]), of_attribute)


def test_a_combination_with_one_side_alone_is_left_out():
    attribute, confounder = crowd()
    only = attribute & confounder  # a third column that goes with the attribute alone
    encodings = np.arange(60.0)[:, None]
    both = attribute_vector(encodings, attribute, np.stack([confounder, only], axis=1))
    kept = ~confounder
    np.testing.assert_allclose(both, attribute_vector(encodings[kept], attribute[kept]))


def test_combinations_count_by_the_precision_of_their_differences():
    """Of a linear model with an intercept for each combination, the vector is the least-squares coefficient."""
    generator = np.random.default_rng(0)
    attribute, confounder = crowd()
    encodings = generator.normal(size=(60, 3))
    design = np.stack([attribute, ~confounder, confounder], axis=1).astype(float)
    expected = np.linalg.lstsq(design, encodings, rcond=None)[0][0]
    np.testing.assert_allclose(attribute_vector(encodings, attribute, confounder[:, None]), expected)
    assert attribute_counts(attribute, confounder[:, None]) == [(5, 30), (15, 10)]
    assert attribute_counts(attribute) == [(20, 40)]
    numbers = attribute.astype(int), confounder[:, None].astype(np.float32)
    np.testing.assert_array_equal(
        attribute_vector(encodings, *numbers), attribute_vector(encodings, *map(np.bool_, numbers))
    )
    assert attribute_counts(*numbers) == [(5, 30), (15, 10)]


@pytest.mark.parametrize(
    ("attribute", "confounders", "message"),
    [
        (np.zeros(4, bool), None, "no combination"),
        (np.ones(4, bool), None, "no combination"),
        (np.array([True, False, True]), None, "4 encodings but 3 values"),
        (np.array([1, -1, 1, -1]), None, "attribute has other values than 0 and 1"),
        (np.array([True, False] * 2), np.array([[0.5]] * 4), "confounders has other values"),
        (np.array([True, False] * 2), np.array([[True], [False]] * 2), "no combination"),
    ],
)
def test_no_vector_without_both_sides(attribute, confounders, message):
    with pytest.raises(vj.InputError, match=message):
        attribute_vector(np.zeros((4, 2)), attribute, confounders)


def test_weights_make_attributes_independent():
    attributes = np.stack(crowd(), axis=1)
    codes = (attributes @ np.array([1, 2])).astype(np.int32)
    weights = np.asarray(_independence_weights(attributes, codes))[codes]
    assert weights.mean() == pytest.approx(1)
    weighted = np.average(attributes, axis=0, weights=weights)
    np.testing.assert_allclose(weighted, attributes.mean(axis=0), rtol=1e-6)
    both = np.average(attributes.all(axis=1), weights=weights)
    assert both == pytest.approx(weighted.prod())


def test_no_weight_is_beyond_the_greatest():
    attributes = np.repeat([[0, 0], [1, 1], [1, 0]], [500, 499, 1], axis=0).astype(bool)
    weights = _independence_weights(attributes, (attributes @ np.array([1, 2])).astype(np.int32))
    assert weights[1] == GREATEST_WEIGHT


def split(count=256, seed=0) -> vj.Split:
    """Noise with a bright left half, a bright top, each its own attribute; but mirrored, left is right."""
    generator = np.random.default_rng(seed)
    values = generator.random((count, 2)) < 0.5
    images = generator.integers(0, 60, (count, 8, 8, 3), dtype=np.uint8)
    images[values[:, 0], :4] += 100
    images[values[:, 1], :, :, 2] += 90
    return vj.Split(images, attributes=vj.Attributes(("Top", "Blue"), values))


def test_a_classifier_learns_attributes():
    data = split()
    classifier = train_attribute_classifier(
        jax.random.key(0), data, ("Blue", "Top"), steps=64, batch_size=32, convolutions=(8, 8), progress=False
    )
    assert classifier.names == ("Blue", "Top")
    accuracy = classifier.accuracy(split(64, seed=1))
    assert min(accuracy.values()) > 0.95
    assert classifier(data.images / np.float32(255)).features.shape == (256, 128)


def test_the_loss_of_an_example_is_weighted_by_its_combination():
    classifier = vj.Classifier((2, 2, 1), classes=2, hidden=(4,))
    variables = classifier.init(jax.random.key(0))
    batch = vj.Batch(jax.random.uniform(jax.random.key(1), (4, 2, 2, 1)), label=jnp.array([0, 1, 2, 3]))
    weights = jnp.array([1.0, 2.0, 0.0, 0.5])
    weighted, plain = (
        AttributeCrossEntropy(of_each)(jax.random.key(2), classifier, variables, batch, jnp.int32(0)).per_example
        for of_each in (weights, jnp.ones(4))
    )
    np.testing.assert_allclose(weighted, weights * plain, rtol=1e-6)


def test_a_classifier_of_correlated_attributes_does_not_tell_one_by_the_other():
    """The second attribute is not to be seen, but 90 % of the images have both or neither."""
    generator = np.random.default_rng(0)
    top = np.arange(256) % 2 == 0
    values = np.stack([top, top ^ (generator.random(256) < 0.1)], axis=1)
    images = np.zeros((256, 8, 8, 3), np.uint8)
    images[top, :4] = 255
    data = vj.Split(images, attributes=vj.Attributes(("Top", "Hidden"), values))
    classifier = train_attribute_classifier(
        jax.random.key(0), data, ("Top", "Hidden"), steps=320, batch_size=32, convolutions=(32,), progress=False
    )
    of_top, of_others = classifier(images[:2] / np.float32(255)).probabilities
    assert of_top[0] > 0.9 > 0.1 > of_others[0]
    np.testing.assert_allclose([of_top[1], of_others[1]], 0.5, atol=0.1)  # without the weights 0.9 and 0.1


def test_a_classifier_without_an_opinion_has_half():
    classifier = hand_made_classifier(weight=0.0)
    values = np.arange(40)[:, None] < 4
    data = vj.Split(np.zeros((40, 2, 2, 1), np.uint8), attributes=vj.Attributes(("Bright",), values))
    assert classifier.accuracy(data) == {"Bright": 0.5}


REAL = vj.Split(split().images / np.float32(255), attributes=split().attributes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda classifier: classifier(np.zeros((2, 2, 2, 1), np.uint8)), "the images are uint8; expected values in"),
        (lambda classifier: classifier(np.zeros((2, 3, 2, 1))), r"shape \(2, 3, 2, 1\); expected \[n, 2, 2, 1\]"),
        (lambda classifier: classifier.accuracy(REAL), "the images are float32; expected bytes"),
    ],
)
def test_images_of_another_type_or_shape_are_refused(call, message):
    with pytest.raises(vj.InputError, match=message):
        call(hand_made_classifier())


@pytest.mark.parametrize(
    ("data", "names", "error", "message"),
    [
        (split(), ("Tip",), vj.DataError, "did you mean Top"),
        (split(), (), vj.InputError, "0 attributes"),
        (vj.Split(split().images), ("Top",), vj.InputError, "no attributes"),
        (REAL, ("Top",), vj.InputError, "the images are float32; expected bytes"),
    ],
)
def test_a_classifier_needs_attributes(data, names, error, message):
    with pytest.raises(error, match=message):
        train_attribute_classifier(jax.random.key(0), data, names)


class Pixels(nn.Module):
    """The latents are the pixels, and back."""

    output_shape: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs, train=False):
        return inputs.reshape(len(inputs), *self.output_shape)


def hand_made_classifier(weight: float = 10.0) -> AttributeClassifier:
    """Of images of 2 x 2: "Bright" if the first pixel is above 1/2; its features are the pixels."""
    classifier = vj.Classifier((2, 2, 1), classes=1, hidden=(4,))
    shapes = jax.tree.map(jnp.shape, classifier.init(jax.random.key(0)), is_leaf=lambda leaf: hasattr(leaf, "shape"))
    assert shapes["params"]["Dense_0"]["kernel"] == (4, 1)
    variables = {
        "params": {
            "MLP_0": {"Dense_0": {"kernel": jnp.eye(4), "bias": jnp.zeros(4)}},
            "Dense_0": {"kernel": weight * jnp.eye(4, 1), "bias": jnp.full(1, -weight / 2)},
        }
    }
    return AttributeClassifier(("Bright",), classifier, variables)


def test_edits_whose_effect_is_known():
    vae = vj.VAE(Pixels((1, 4)), Pixels((2, 2, 1)), (2, 2, 1), 4, vj.Delta, vj.Gaussian())
    z = np.zeros((4, 4))
    z[:, 0], z[:, 1] = [0.1, 0.2, 0.3, 0.9], [0, 0.5, 0, 0.5]  # the last one is bright from the start
    edits = edit(vae, {"params": {}}, hand_made_classifier(), z, np.array([1.0, 0, 0, 0]), [0.0, 0.25, 0.35, 0.5])
    np.testing.assert_allclose(edits.flipped(0), [0, 1 / 3, 2 / 3, 1])
    expected = 1 / (1 + np.exp(-10 * (np.clip(z[:, 0] + 0.35, 0, 1) - 0.5)))
    np.testing.assert_allclose(edits.probabilities[2, :, 0], expected, atol=1e-5)
    np.testing.assert_allclose(edits.mean_probability(0)[2], expected.mean(), atol=1e-5)
    apart = np.linalg.norm(z - np.roll(z, 1, axis=0), axis=1).mean()
    np.testing.assert_allclose(edits.distances[1], np.array([0.25, 0.25, 0.25, 0.1]) / apart, atol=1e-5)
    with pytest.raises(vj.InputError, match="expected 0"):
        edit(vae, {"params": {}}, hand_made_classifier(), z, np.ones(4), [1.0])
    with pytest.raises(vj.InputError, match="give 2"):
        edit(vae, {"params": {}}, hand_made_classifier(), z[:1], np.ones(4), [0.0, 1.0])


def test_the_distances_of_faces_that_are_all_the_same_are_nan():
    vae = vj.VAE(Pixels((1, 4)), Pixels((2, 2, 1)), (2, 2, 1), 4, vj.Delta, vj.Gaussian())
    edits = edit(vae, {"params": {}}, hand_made_classifier(), np.zeros((3, 4)), np.ones(4), [0.0, 0.5])
    assert np.isnan(edits.distances).all()
    assert np.isfinite(edits.probabilities).all()


def test_no_share_of_none():
    edits = Edits(np.zeros(2), np.ones((2, 3, 1)), np.zeros((2, 3)))
    assert np.isnan(edits.flipped(0)).all()
    assert at_share(0.5, edits.flipped(0), edits.steps) is None


def test_a_value_at_a_share():
    shares, values = np.array([0.0, 0.4, 0.8, 0.7]), np.array([0.0, 1.0, 3.0, 9.0])
    assert at_share(0.6, shares, values) == pytest.approx(2)
    assert at_share(0.0, shares, values) == 0
    assert at_share(0.9, shares, values) is None
