"""The nearest image by brute force, the Fréchet distance by its formula."""

import numpy as np
import pytest
import scipy.linalg

import vae_jax as vj
from vae_jax.evaluation.distances import nearest_distance


def test_nearest_distance_is_brute_force():
    generator = np.random.default_rng(0)
    images, references = generator.random((7, 4, 4, 1), np.float32), generator.random((30, 4, 4, 1), np.float32)
    differences = images[:, None] - references[None]
    expected = np.sqrt((differences**2).sum(axis=(2, 3, 4))).min(axis=1)
    np.testing.assert_allclose(nearest_distance(images, references), expected, rtol=1e-4)
    np.testing.assert_array_equal(nearest_distance(references[:2], references), 0)
    bright = np.full((1, 28, 28, 1), 0.9, np.float32)  # whose square is large beside the distance
    assert nearest_distance(bright + 1e-4, np.concatenate([bright, 0 * bright])) == pytest.approx(28e-4, rel=1e-3)


def test_frechet_distance_is_the_formula():
    generator = np.random.default_rng(0)
    a = generator.normal(size=(400, 5)) @ generator.normal(size=(5, 5))
    b = generator.normal(size=(300, 5)) @ generator.normal(size=(5, 5)) + 1
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert vj.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert vj.frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_singular_covariances():
    generator = np.random.default_rng(0)
    line = generator.normal(size=(200, 1)) * [[1.0, 0.0, 0.0]]
    assert vj.frechet_distance(line, line) == pytest.approx(0, abs=1e-12)
    assert vj.frechet_distance(line, line + np.array([0.0, 2.0, 0.0])) == pytest.approx(4, rel=1e-9)
    variance = line[:, 0].var(ddof=1)
    across = line[:, [1, 0, 2]]  # orthogonal lines: nothing is shared, so the traces add up
    mean = line[:, 0].mean()
    assert vj.frechet_distance(line, across) == pytest.approx(2 * variance + 2 * mean**2, rel=1e-9)
    few = generator.normal(size=(3, 50))
    assert vj.frechet_distance(few, few) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("a", "message"),
    [(np.zeros((1, 3)), "expected"), (np.zeros((4, 2)), "expected"), (np.full((4, 3), np.nan), "NaN")],
)
def test_features_without_a_distance_are_refused(a, message):
    with pytest.raises(vj.InputError, match=message):
        vj.frechet_distance(a, np.zeros((4, 3)))
