"""The circle holds its share, and the lattice lies in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vae_jax as vj
from vae_jax.distributions import Delta, DiagonalGaussian
from vae_jax.evaluation.latents import (
    aggregate,
    circle,
    class_separation,
    inscribed_lattice,
    nearest_mean_accuracy,
    straight_paths,
    uniform_in_square,
)


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 1000])
@pytest.mark.parametrize("dimensions", [2, 10])
def test_the_sphere_is_the_smallest_that_holds_99_percent(count, dimensions):
    encodings = np.random.default_rng(count).normal(2, 3, (count, dimensions))
    sphere = circle(encodings)
    distances = np.linalg.norm(encodings - encodings.mean(axis=0), axis=1)
    held = np.sum(distances <= sphere.radius)
    assert held >= 0.99 * count
    assert np.sum(distances < sphere.radius) < 0.99 * count
    np.testing.assert_allclose(sphere.centre, encodings.mean(axis=0))


def test_the_lattice_is_inscribed_and_lies_as_a_plot_does():
    sphere = circle(np.random.default_rng(0).normal(1, 2, (500, 2)))
    lattice = inscribed_lattice(sphere, 15)
    distances = np.linalg.norm(lattice - sphere.centre, axis=-1)
    assert lattice.shape == (15, 15, 2)
    assert distances.max() <= sphere.radius * (1 + 1e-12)
    np.testing.assert_allclose(distances[[0, 0, -1, -1], [0, -1, 0, -1]], sphere.radius)
    np.testing.assert_allclose(lattice[7, 7], sphere.centre)
    np.testing.assert_allclose(np.diff(lattice[..., 0], axis=1), sphere.radius * np.sqrt(2) / 14)
    np.testing.assert_allclose(np.diff(lattice[..., 1], axis=0), -sphere.radius * np.sqrt(2) / 14)


def test_in_more_dimensions_it_lies_on_the_great_circle():
    sphere = circle(np.random.default_rng(0).normal(1, 2, (500, 10)))
    lattice = inscribed_lattice(sphere, 4)
    np.testing.assert_allclose(np.linalg.norm(lattice[0, 0] - sphere.centre), sphere.radius)
    np.testing.assert_array_equal(lattice[..., 2:], np.broadcast_to(sphere.centre[2:], (4, 4, 8)))


def test_uniform_draws_fill_the_square_alone():
    sphere = circle(np.random.default_rng(0).normal(1, 2, (500, 3)))
    offsets = (uniform_in_square(jax.random.key(0), sphere, 20_000) - sphere.centre) / sphere.radius
    half = 1 / np.sqrt(2)
    assert np.abs(offsets[:, :2]).max() <= half
    np.testing.assert_allclose(offsets[:, :2].var(axis=0), half**2 / 3, rtol=0.03)
    np.testing.assert_allclose(offsets[:, 2], 0, atol=1e-12)


def test_a_share_that_is_rounded_up_takes_no_point_more():
    """0.14 * 100 is 14.000000000000002 in floating point."""
    line = np.arange(-50, 50) + 0.5
    assert circle(np.stack([line, 0 * line], axis=1), 0.14).radius == 6.5


def test_one_site_is_the_centre():
    sphere = circle(np.random.default_rng(0).normal(size=(10, 2)))
    np.testing.assert_array_equal(inscribed_lattice(sphere, 1)[0, 0], sphere.centre)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: circle(np.zeros((3, 2)), share=0.0), "share"),
        (lambda: circle(np.zeros((3, 2)), share=1.1), "share"),
        (lambda: circle(np.zeros((0, 2))), "there are no encodings"),
        (lambda: circle(np.array([[np.nan, 0.0]])), "encodings holds NaN or infinite values"),
        (lambda: inscribed_lattice(circle(np.zeros((3, 1)))), "two latent dimensions"),
        (lambda: inscribed_lattice(circle(np.zeros((3, 2))), 0), "size"),
    ],
)
def test_what_has_no_circle_is_refused(call, message):
    with pytest.raises(vj.InputError, match=message):
        call()


def test_paths_are_straight_and_even():
    start, end = np.array([[0.0, 1.0], [2.0, 2.0]]), np.array([[4.0, -1.0], [2.0, 2.0]])
    paths = straight_paths(start, end, 5)
    np.testing.assert_allclose(paths[0], [[0, 1], [1, 0.5], [2, 0], [3, -0.5], [4, -1]])
    np.testing.assert_allclose(paths[1], np.full((5, 2), 2.0))


def test_nearest_mean_and_separation_tell_clusters_from_none():
    generator = np.random.default_rng(0)
    labels = np.arange(3000) % 3
    apart = generator.normal(size=(3000, 2)) + 10 * np.eye(3)[labels][:, :2]
    assert nearest_mean_accuracy(apart, labels, apart, labels) > 0.99
    mixed = generator.normal(size=(3000, 2))
    assert nearest_mean_accuracy(mixed, labels, mixed, labels) == pytest.approx(1 / 3, abs=0.06)
    assert class_separation(mixed, labels) < 0.01
    between = (
        2 * 100 * (1 / 3) * (2 / 3)
    )  # two coordinates, each 10 for a third of the points; within is 1 a coordinate
    expected = between / (between + 2)
    assert class_separation(apart, labels) == pytest.approx(expected, rel=0.02)
    assert class_separation(np.ones_like(apart), labels) == 0


def test_aggregated_posterior_is_that_of_its_samples():
    generator = np.random.default_rng(0)
    mean, log_variance = generator.normal(1, 2, (300, 2)), generator.normal(0, 1, (300, 2))
    aggregated = aggregate(DiagonalGaussian(jnp.asarray(mean), jnp.asarray(log_variance)))
    draws = mean + np.exp(0.5 * log_variance) * generator.normal(size=(2000, 300, 2))
    draws = draws.reshape(-1, 2)
    np.testing.assert_allclose(aggregated.mean, draws.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(aggregated.covariance, np.cov(draws, rowvar=False), rtol=0.01, atol=0.01)


def test_kl_of_a_fitted_gaussian_is_the_closed_form():
    posterior = DiagonalGaussian(jnp.array([[0.5, -1.0]]), jnp.log(jnp.array([[0.2, 3.0]])))
    assert aggregate(posterior).kl == pytest.approx(float(posterior.kl().sum()), rel=1e-5)
    assert aggregate(Delta(jnp.ones((5, 2)))).kl == float("inf")


@pytest.mark.parametrize("dimensions", [2, 10])
def test_draws_of_a_fitted_gaussian_have_its_moments_though_it_is_singular(dimensions):
    generator = np.random.default_rng(0)
    for seed in range(20):
        points = generator.normal(size=(50, dimensions // 3 + 1)) @ generator.normal(
            size=(dimensions // 3 + 1, dimensions)
        )
        aggregated = aggregate(Delta(jnp.asarray(points, jnp.float32)))
        draws = np.asarray(aggregated.sample(jax.random.key(seed), 20_000))
        scale = aggregated.covariance.diagonal().max()
        np.testing.assert_allclose(draws.mean(axis=0), aggregated.mean, atol=0.05 * np.sqrt(scale))
        np.testing.assert_allclose(np.cov(draws, rowvar=False), aggregated.covariance, atol=0.06 * scale)
