"""Distances and sharpness against closed forms and other routes."""

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage

import vae_jax as vj
from vae_jax.evaluation.distances import nearest_distance


def test_nearest_distance_is_brute_force():
    generator = np.random.default_rng(0)
    images, references = generator.random((7, 4, 4, 1), np.float32), generator.random((30, 4, 4, 1), np.float32)
    differences = images[:, None] - references[None]
    expected = np.sqrt((differences**2).sum(axis=(2, 3, 4))).min(axis=1)
    np.testing.assert_allclose(nearest_distance(images, references), expected, rtol=1e-4)
    np.testing.assert_array_equal(nearest_distance(references[:2], references), 0)
    np.testing.assert_array_equal(nearest_distance(references[:2] + 1e4, references + 1e4), 0)
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
    same = [np.random.default_rng(seed).normal(size=(20, 30)) for seed in range(20)]
    assert min(vj.frechet_distance(each, each) for each in same) == 0  # rounding would make some negative
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


def test_density_and_coverage_are_counted_by_hand():
    """Real points 0, 1, 2, 10 with k = 1: radii 1, 1, 1, 8."""
    real, generated = np.array([[0.0], [1.0], [2.0], [10.0]]), np.array([[0.5], [2.5], [100.0]])
    found = vj.density_and_coverage(real, generated, k=1)
    np.testing.assert_array_equal(found.density, [2, 2, 0])  # balls of 0 and 1; of 2 and 10; none
    np.testing.assert_array_equal(found.coverage, [1, 1, 1, 1])
    two = vj.density_and_coverage(real, generated[2:], k=2)
    assert not two.coverage.any()
    np.testing.assert_array_equal(vj.density_and_coverage(real, generated[:1], k=2).density, [3 / 2])


def test_density_and_coverage_of_one_distribution():
    generator = np.random.default_rng(0)
    real, generated = generator.normal(size=(2, 600, 3))
    found = vj.density_and_coverage(real, generated)
    density, coverage = map(vj.mean_and_stderr, found)
    assert density.mean == pytest.approx(1, abs=4 * density.standard_error)
    assert coverage.mean == pytest.approx(1 - 2**-5, abs=4 * coverage.standard_error)  # Naeem et al., equation 10
    assert vj.density_and_coverage(real, 0.1 * generated).coverage.mean() < 0.5  # one mode
    assert vj.density_and_coverage(real, generated + 20).density.mean() == 0


def test_sharpness_is_the_variance_of_scipys_laplacian():
    images = np.random.default_rng(0).random((3, 7, 9, 2)).astype(np.float32)
    grey = images.astype(np.float64).mean(axis=-1)
    expected = [scipy.ndimage.laplace(image)[1:-1, 1:-1].var() for image in grey]
    np.testing.assert_allclose(vj.sharpness(images), expected, rtol=1e-9)
    ramp = np.linspace(0, 1, 8).reshape(1, 1, 8, 1) * np.ones((1, 8, 1, 1))
    np.testing.assert_allclose(vj.sharpness(ramp), 0, atol=1e-12)


def test_the_bootstrap_error_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=400)
    error = vj.bootstrap_stderr(np.mean, values, resamples=400)
    assert error == pytest.approx(values.std(ddof=1) / 20, rel=0.12)
    assert vj.bootstrap_stderr(np.mean, values, seed=1) == vj.bootstrap_stderr(np.mean, values, seed=1)
    of_two = vj.bootstrap_stderr(lambda a, b: a.mean() - b.mean(), values, 2 * values[:100], resamples=400)
    assert of_two == pytest.approx(np.sqrt(1 / 400 + 4 / 100), rel=0.2)  # resampled independently


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vj.density_and_coverage(np.zeros((5, 2)), np.zeros((4, 2))), "n above k = 5"),
        (lambda: vj.density_and_coverage(np.zeros((9, 2)), np.zeros((4, 3))), "expected"),
        (lambda: vj.density_and_coverage(np.full((9, 2), np.inf), np.zeros((4, 2))), "finite"),
        (lambda: vj.density_and_coverage(np.zeros((9, 2)), np.zeros((4, 2)), k=0), "k is 0"),
        (lambda: vj.sharpness(np.zeros((2, 2, 9, 1))), "from 3 x 3 pixels"),
        (lambda: vj.sharpness(np.zeros((4, 9, 9))), "expected"),
        (lambda: vj.bootstrap_stderr(np.mean, np.zeros(3), resamples=1), "resamples is 1"),
        (lambda: vj.bootstrap_stderr(np.mean), "of 0 sets"),
    ],
)
def test_bad_input_of_the_measures(call, message):
    with pytest.raises(vj.InputError, match=message):
        call()
