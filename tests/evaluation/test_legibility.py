"""Legibility: digits are legible, blobs, blends, shuffled images and noise are not."""

import jax
import numpy as np
import pytest
from conftest import small_split

import vae_jax as vj
from vae_jax.evaluation.classifier import Predictions
from vae_jax.evaluation.legibility import _blurred, rejected_images

REAL = vj.Split(small_split(9).images / np.float32(255), small_split(9).labels)
KINDS = ("means", "blends", "shuffled", "noise")


@pytest.fixture(scope="module")
def digits():
    return vj.load("digits")


@pytest.fixture(scope="module")
def legibility(digits):
    return vj.train_legibility_classifier(jax.random.key(0), digits.train, steps=600, batch_size=128, progress=False)


def in_unit_interval(images):
    return images / np.float32(255)


def test_unseen_digits_are_legible_even_if_they_are_smooth(legibility, digits):
    images = digits.test.images
    assert legibility.share(in_unit_interval(images)) > 0.7
    assert legibility.share(in_unit_interval(_blurred(np.random.default_rng(0), images))) > 0.65
    assert legibility.effective_classes(in_unit_interval(images)) > 9.5


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_no_class_are_not(legibility, digits, kind):
    images = in_unit_interval(rejected_images(np.random.default_rng(1), digits.test, 400))
    start = 100 * KINDS.index(kind)
    assert legibility.share(images[start : start + 100]) < 0.15


def test_the_mean_of_all_digits_and_plain_grey_are_not(legibility, digits):
    mean = in_unit_interval(digits.train.images).mean(axis=0)
    greys = np.ones((5, 28, 28, 1), np.float32) * np.linspace(0, 1, 5, dtype=np.float32)[:, None, None, None]
    assert legibility.share(np.repeat(mean[None], 225, axis=0)) == 0
    assert legibility.share(greys) == 0


class Fixed(vj.TrainedClassifier):
    """A classifier with given probabilities."""

    def __init__(self, *probabilities):
        object.__setattr__(self, "probabilities", np.array(probabilities))

    def __call__(self, images):
        return Predictions(self.probabilities, np.zeros((len(images), 1)))


def test_share_and_effective_classes_leave_the_rejected_class_out():
    found = vj.LegibilityClassifier(Fixed([0.95, 0.0, 0.05], [0.5, 0.4, 0.1], [0.0, 0.05, 0.95], [0.05, 0.9, 0.05]))
    images = np.zeros((4, 6, 6, 1), np.float32)
    assert found.share(images) == 0.5
    assert found.share(images, confidence=0.4) == 0.75
    shares = np.array([1.5, 1.35]) / 2.85
    assert found.effective_classes(images) == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))
    one = vj.LegibilityClassifier(Fixed([1.0, 0.0, 0.0], [1.0, 0.0, 0.0]))
    assert one.effective_classes(images[:2]) == pytest.approx(1)


def test_rejected_images_are_what_they_are_said_to_be():
    data = small_split(30)
    images = rejected_images(np.random.default_rng(0), data, 40)
    assert images.shape == (40, 6, 6, 1)
    assert images.dtype == np.uint8
    sorted_rows = {tuple(np.sort(image.ravel())) for image in data.images}
    assert all(tuple(np.sort(image.ravel())) in sorted_rows for image in images[20:30]), "shuffled pixels of an image"
    assert not any((image == other).all() for image in images[20:30] for other in data.images)
    np.testing.assert_array_equal(images, rejected_images(np.random.default_rng(0), data, 40))


def test_blurring_keeps_the_brightness_inside_and_is_that_of_a_gaussian():
    image = np.zeros((1, 15, 15, 1), np.uint8)
    image[0, 7, 7] = 255
    blurred = _blurred(np.random.default_rng(3), image)[0, :, :, 0].astype(float)
    assert blurred.sum() == pytest.approx(255, abs=8)
    np.testing.assert_array_equal(blurred, blurred.T)
    np.testing.assert_array_equal(blurred, blurred[::-1])
    assert blurred.max() < 250


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (vj.Split(small_split(9).images), "no labels"),
        (vj.Split(small_split(9).images, np.zeros(9, np.int32)), "one class"),
        (REAL, "the images are float32; expected bytes"),
    ],
)
def test_data_without_two_classes_are_refused(data, message):
    with pytest.raises(vj.InputError, match=message):
        vj.train_legibility_classifier(jax.random.key(0), data, steps=1)


def test_real_numbers_make_no_rejected_images():
    with pytest.raises(vj.InputError, match="the images are float32; expected bytes"):
        rejected_images(np.random.default_rng(0), REAL, 8)


def test_the_same_key_gives_the_same_classifier_and_another_one_another():
    data = small_split(48)
    images = in_unit_interval(small_split(9, seed=1).images)
    first, again, other = (
        vj.train_legibility_classifier(jax.random.key(seed), data, steps=3, progress=False)(images).probabilities
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
