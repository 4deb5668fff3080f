"""What the model sees of bytes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax as vj
from vae_jax.distributions import example_keys

BYTES = jnp.array([0, 51, 128, 255], jnp.uint8).reshape(1, 2, 2, 1)
KEYS = example_keys(jax.random.key(0), 1)


@pytest.mark.parametrize(("low", "high", "label"), [(0.0, 1.0, "grey"), (-1.0, 1.0, "grey in [-1, 1]")])
def test_scale_brings_bytes_to_its_range(low, high, label):
    observe = vj.Scale(low, high)
    batch = observe(KEYS, BYTES, jnp.array([3]))
    expected = low + (high - low) * np.array([0, 51, 128, 255]) / 255
    np.testing.assert_allclose(batch.x.ravel(), expected, atol=1e-6)
    assert batch.label.tolist() == [3]
    assert observe.label == label


def test_a_target_takes_the_place_of_x():
    x = vj.Scale()(KEYS, BYTES).x
    np.testing.assert_array_equal(vj.Batch(x).targets, x)
    np.testing.assert_array_equal(vj.Batch(x, target=1 - x).targets, 1 - x)


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (0.5, 0.5), (float("nan"), 1.0)])
def test_a_range_that_is_none_is_refused(low, high):
    with pytest.raises(vj.InputError, match="no range"):
        vj.Scale(low, high)
