"""Transforms of bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import vae_jax as vj
from vae_jax.distributions import example_keys

BYTES = jnp.array([0, 51, 128, 255], jnp.uint8).reshape(1, 2, 2, 1)
KEYS = example_keys(jax.random.key(0), 1)


@pytest.mark.parametrize(("low", "high", "label"), [(0.0, 1.0, "grey"), (-1.0, 1.0, "grey in [-1, 1]")])
def test_scale_maps_bytes_to_its_range(low, high, label):
    transform = vj.Scale(low, high)
    batch = transform(KEYS, BYTES, jnp.array([3]))
    expected = low + (high - low) * np.array([0, 51, 128, 255]) / 255
    np.testing.assert_allclose(batch.x.ravel(), expected, atol=1e-6)
    assert batch.label.tolist() == [3]
    assert transform.label == label


def test_targets_are_the_target_or_x():
    x = vj.Scale()(KEYS, BYTES).x
    np.testing.assert_array_equal(vj.Batch(x).targets, x)
    np.testing.assert_array_equal(vj.Batch(x, target=1 - x).targets, 1 - x)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (0.5, 0.5), (float("nan"), 1.0)])
def test_an_empty_range_is_an_error(low, high):
    with pytest.raises(vj.InputError, match="is not a range"):
        vj.Scale(low, high)


@pytest.mark.parametrize(
    "transform", [vj.Scale(-1.0, 1.0), vj.Binarize(), vj.StaticBinarize(), vj.Dequantize(), vj.Mirrored()]
)
def test_batches_are_the_same_where_float64_is_enabled(transform):
    images = jnp.arange(36 * 20).reshape(20, 6, 6, 1).astype(jnp.uint8)
    expected = transform(example_keys(jax.random.key(1), 20), images).x
    with jax.enable_x64(True):
        found = transform(example_keys(jax.random.key(1), 20), images).x
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, expected)


def test_binary_pixels_are_one_with_probability_byte_over_255():
    images = jnp.tile(BYTES, (4000, 1, 1, 1))
    for transform in (vj.Binarize(), vj.StaticBinarize(3)):
        x = transform(example_keys(jax.random.key(1), 4000), images).x
        assert set(np.unique(x)) == {0.0, 1.0}
        if isinstance(transform, vj.Binarize):
            p = np.array([0, 51, 128, 255]).reshape(2, 2, 1) / 255
            assert np.all(np.abs(x.mean(axis=0) - p) <= 5 * np.sqrt(p * (1 - p) / 4000))
        else:
            assert np.all(x == x[:1]), "equal images have different samples"


def test_dynamic_binarisation_depends_on_the_key_and_static_does_not():
    images = jax.random.randint(jax.random.key(0), (50, 6, 6, 1), 0, 256).astype(jnp.uint8)
    one, other = example_keys(jax.random.key(1), 50), example_keys(jax.random.key(2), 50)
    assert not np.array_equal(vj.Binarize()(one, images).x, vj.Binarize()(other, images).x)
    static = vj.StaticBinarize(0)(one, images).x
    others = example_keys(jax.random.key(3), 47)
    with jax.default_prng_impl("rbg"):  # whose draws under vmap depend on the position
        np.testing.assert_array_equal(static[3:], vj.StaticBinarize(0)(others, images[3:]).x)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(static[order], vj.StaticBinarize(0)(other, images[order]).x)
    assert not np.array_equal(static, vj.StaticBinarize(1)(one, images).x)
    greys = np.asarray(images, np.float64) / 255
    error = np.sqrt((greys * (1 - greys)).sum()) / greys.size
    assert abs(static.mean() - greys.mean()) < 5 * error
    one_pixel_off = images.at[:, 3, 3, 0].set(images[:, 3, 3, 0] ^ 1)
    changed = vj.StaticBinarize(0)(one, one_pixel_off).x
    assert np.all(np.any(static != changed, axis=(1, 2, 3))), "the sample does not depend on all bytes"


def test_dequantised_bytes_are_uniform_within_their_level():
    images = jnp.full((2000, 1, 1, 1), 51, jnp.uint8)
    x = vj.Dequantize()(example_keys(jax.random.key(1), 2000), images).x
    within = np.asarray(x, np.float64).ravel() * 256 - 51
    assert scipy.stats.kstest(within, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("values", "other", "holds"),
    [
        (vj.Support(0.0, 1.0), vj.Support(0.0, 1.0, 2), True),
        (vj.Support(0.0, 1.0, 256), vj.Support(0.0, 1.0, 2), True),
        (vj.Support(0.0, 1.0, 256), vj.Support(0.0, 1.0, 52), True),
        (vj.Support(0.0, 1.0, 256), vj.Support(0.0, 1.0, 3), False),
        (vj.Support(0.0, 1.0, 2), vj.Support(0.0, 1.0, 256), False),
        (vj.Support(0.0, 1.0, 256), vj.Support(0.0, 1.0), False),
        (vj.Support(0.0, 1.0), vj.Support(-1.0, 1.0), False),
        (vj.Support(-np.inf, np.inf), vj.Support(-1.0, 1.0, 256), True),
    ],
)
def test_a_support_holds_another_if_it_has_all_of_its_values(values, other, holds):
    assert values.holds(other) == holds


def test_half_of_the_images_are_mirrored():
    images = jnp.tile(BYTES, (2000, 1, 1, 1))
    keys = example_keys(jax.random.key(1), 2000)
    x = np.asarray(vj.Mirrored(vj.Scale(0.0, 255.0))(keys, images, jnp.arange(2000)).x)[..., 0]
    mirrored = (x == np.array([[51, 0], [255, 128]])).all(axis=(1, 2))
    assert (mirrored | (x == np.array([[0, 51], [128, 255]])).all(axis=(1, 2))).all()
    assert scipy.stats.binomtest(int(mirrored.sum()), 2000).pvalue > 1e-4
    assert vj.Mirrored().label == "grey, mirrored at random"
    assert vj.Mirrored(vj.Binarize()).support == vj.Binarize.support


def test_the_noise_of_mirrored_images_is_independent_of_the_mirroring():
    """Mirroring and binarisation use different keys."""
    keys = example_keys(jax.random.key(1), 4000)
    half = jnp.full((4000, 1, 2, 1), 128, jnp.uint8).at[:, :, 0].set(0)
    x = np.asarray(vj.Mirrored(vj.Binarize())(keys, half).x)[:, 0, :, 0]
    assert scipy.stats.binomtest(int(x.sum()), 4000, 128 / 255).pvalue > 1e-4


@pytest.mark.parametrize(
    "transform", [vj.Scale(), vj.Binarize(), vj.StaticBinarize(), vj.Dequantize(), vj.Mirrored(vj.Binarize())]
)
def test_real_numbers_are_not_divided_by_255_again(transform):
    message = r"takes bytes from 0 to 255, but the examples are float32; give bytes, .* or take vj.Raw\(0, 1\)"
    for call in (transform, jax.jit(transform)):
        with pytest.raises(vj.InputError, match=message):
            call(example_keys(jax.random.key(1), 1), BYTES.astype(jnp.float32) / 255)
