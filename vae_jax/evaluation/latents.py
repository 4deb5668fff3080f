"""Geometry of the latent space: enclosing spheres, lattices, paths, attribute vectors and the aggregated posterior."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from vae_jax.data.arrays import as_finite, as_reals, require_labels
from vae_jax.distributions import FullGaussian, Posterior, Transformed
from vae_jax.errors import InputError, require_positive_int


class Sphere(NamedTuple):
    """Circle in two latent dimensions, or hypersphere in more.

    Attributes:
      centre: Centre, [latent].
      radius: Radius, in the units of the latents.
    """

    centre: Float[np.ndarray, " latent"]
    radius: float


def circle(encodings: Float[Any, "n latent"], share: float = 0.99) -> Sphere:
    """Smallest sphere around the mean of the encodings that contains at least the fraction `share` of them.

    >>> vj.latents.circle(np.array([[-1.0, 0.0], [1.0, 0.0]]), share=1.0).radius
    1.0

    Args:
      encodings: Encodings, [n, latent].
      share: Fraction of the encodings, in (0, 1].

    Raises:
      InputError: The share is outside (0, 1], there are no encodings, or some of them are not finite.
    """
    encodings = as_finite("encodings", encodings, "[n, latent]")
    if not 0 < share <= 1:
        raise InputError(f"share is {share}; expected a number above 0, at most 1")
    if len(encodings) == 0:
        raise InputError("there are no encodings; expected at least one")
    centre = encodings.mean(axis=0)
    distances = np.sort(np.linalg.norm(encodings - centre, axis=1))
    count = math.ceil(share * len(distances) * (1 - 1e-12))  # 0.14 * 100 is 14.000000000000002
    return Sphere(centre, float(distances[count - 1]))


def inscribed_lattice(sphere: Sphere, size: int = 15) -> Float[np.ndarray, "size size latent"]:
    """Square lattice in the plane of the first two latent dimensions, with its corners on the circle.

    In more than two dimensions, the circle is a great circle of the sphere, and the other coordinates are those of the
    centre. The first row is at the top: dimension 0 increases to the right and dimension 1 upwards, as in a plot.

    >>> sphere = vj.latents.circle(np.array([[-1.0, 0.0], [1.0, 0.0]]), share=1.0)
    >>> vj.latents.inscribed_lattice(sphere, 2).round(3).tolist()
    [[[-0.707, 0.707], [0.707, 0.707]], [[-0.707, -0.707], [0.707, -0.707]]]

    Args:
      sphere: Sphere in which the lattice is inscribed.
      size: Number of points per side.

    Returns:
      The points, [size, size, latent].

    Raises:
      InputError: There are fewer than two latent dimensions, or `size` is not a positive integer.
    """
    require_positive_int(size=size)
    half_side = _half_side(sphere)
    offsets = np.linspace(-half_side, half_side, size) if size > 1 else np.zeros(1)
    sites = np.tile(sphere.centre, (size, size, 1))
    sites[..., 0] += offsets[None, :]
    sites[..., 1] += offsets[::-1, None]
    return sites


def uniform_in_square(key: Key[Array, ""], sphere: Sphere, count: int) -> Float[np.ndarray, "count latent"]:
    """Uniform samples from the square of `inscribed_lattice`, [count, latent].

    Raises:
      InputError: There are fewer than two latent dimensions.
    """
    half_side = _half_side(sphere)
    draws = np.tile(sphere.centre, (count, 1))
    draws[:, :2] += jax.random.uniform(key, (count, 2), minval=-half_side, maxval=half_side)
    return draws


def _half_side(sphere: Sphere) -> float:
    if len(sphere.centre) < 2:
        raise InputError(f"a square needs two latent dimensions; there is {len(sphere.centre)}")
    return sphere.radius / math.sqrt(2)


def straight_paths(
    start: Float[Any, "paths latent"], end: Float[Any, "paths latent"], steps: int
) -> Float[np.ndarray, "paths steps latent"]:
    """Evenly spaced points on the line from each start to its end, including both.

    >>> vj.latents.straight_paths(np.zeros((1, 2)), np.ones((1, 2)), 3)[0].tolist()
    [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]

    Args:
      start: First points, [paths, latent].
      end: Last points, [paths, latent].
      steps: Number of points per path.

    Returns:
      The points, [paths, steps, latent].

    Raises:
      InputError: `steps` is not a positive integer, or the points have another shape or are not finite.
    """
    require_positive_int(steps=steps)
    share = np.linspace(0, 1, steps)[:, None]
    start, end = (as_finite(name, each, "[paths, latent]") for name, each in {"start": start, "end": end}.items())
    if start.shape != end.shape:
        raise InputError(f"start has shape {start.shape} and end {end.shape}; expected an end for each start")
    return (1 - share) * start[:, None] + share * end[:, None]


def nearest_mean_accuracy(
    train: Float[Any, "n latent"],
    train_labels: Int[Any, " n"],
    test: Float[Any, "m latent"],
    test_labels: Int[Any, " m"],
) -> float:
    """Accuracy of nearest-mean classification of the test encodings by the class means of the training encodings.

    Args:
      train: Training encodings, [n, latent].
      train_labels: Labels of the training encodings, [n].
      test: Test encodings, [m, latent].
      test_labels: Labels of the test encodings, [m].

    Returns:
      Fraction of the test encodings that are classified correctly.

    Raises:
      InputError: There is not one class number for each encoding, the encodings have another shape or are not finite,
        or there are none.
    """
    train, test = as_finite("train", train, "[n, latent]"), as_finite("test", test, "[m, latent]")
    if len(train) == 0 or train.shape[1:] != test.shape[1:]:
        raise InputError(f"train has shape {train.shape} and test {test.shape}; expected encodings of one latent space")
    train_labels = require_labels("train_labels", train_labels, len(train))
    test_labels = require_labels("test_labels", test_labels, len(test))
    classes = np.unique(train_labels)
    means = np.stack([train[train_labels == label].mean(axis=0) for label in classes])
    distances = np.linalg.norm(test[:, None] - means[None], axis=-1)
    return float(np.mean(classes[distances.argmin(axis=1)] == test_labels))


def class_separation(encodings: Float[Any, "n latent"], labels: Int[Any, " n"]) -> float:
    """Between-class variance of the encodings as a fraction of their total variance, from 0 to 1; 0 if they are equal.

    Args:
      encodings: Encodings, [n, latent].
      labels: Labels, [n].

    Raises:
      InputError: There is not one class number for each encoding, or the encodings have another shape or are not
        finite.
    """
    encodings = as_finite("encodings", encodings, "[n, latent]")
    labels = require_labels("labels", labels, len(encodings))
    within = sum(
        np.sum((of_class - of_class.mean(axis=0)) ** 2)
        for of_class in (encodings[labels == c] for c in np.unique(labels))
    )
    total = np.sum((encodings - encodings.mean(axis=0)) ** 2)
    return float(1 - within / total) if total > 0 else 0.0


def attribute_vector(
    encodings: Float[Any, "n latent"],
    attribute: Shaped[Any, " n_attribute"],
    confounders: Shaped[Any, "n_confounders confounders"] | None = None,
) -> Float[np.ndarray, " latent"]:
    """Difference between the mean encodings of the images with and without an attribute.

    With confounders, the difference is computed within each combination of them, so that effects of the confounders
    cancel. The vector is the mean of these differences weighted by n1 n0 / (n1 + n0), where n1 and n0 are the numbers
    of images of the combination with and without the attribute (see `attribute_counts`). These weights are the inverse
    variances of the differences, as in a regression with an intercept for each combination.

    Args:
      encodings: Encodings of training images, [n, latent].
      attribute: Whether each image has the attribute, [n], booleans or 0 and 1.
      confounders: Other attributes of the images, [n, confounders]. Combinations in which all images or none have the
        attribute are left out.

    Returns:
      The vector, [latent].

    Raises:
      InputError: The numbers of examples differ, an attribute is neither 0 nor 1, no combination has images with and
        without the attribute, an argument has another number of axes, or the encodings are not finite.
    """
    encodings, attribute = as_finite("encodings", encodings, "[n, latent]"), _as_booleans("attribute", attribute, "[n]")
    if len(encodings) != len(attribute):
        raise InputError(f"there are {len(encodings)} encodings but {len(attribute)} values of the attribute")
    differences, weights = [], []
    for here, (n1, n0) in _combinations(attribute, confounders):
        if n1 and n0:
            differences.append(encodings[here & attribute].mean(axis=0) - encodings[here & ~attribute].mean(axis=0))
            weights.append(n1 * n0 / (n1 + n0))
    if not differences:
        raise InputError("no combination of the confounders has images with the attribute and images without it")
    return np.average(differences, axis=0, weights=weights)


def attribute_counts(
    attribute: Shaped[Any, " n_attribute"], confounders: Shaped[Any, "n_confounders confounders"] | None = None
) -> list[tuple[int, int]]:
    """Numbers of images with and without the attribute, for each combination of confounders that occurs, sorted.

    Args:
      attribute: Whether each image has the attribute, [n], booleans or 0 and 1.
      confounders: Other attributes of the images, [n, confounders].

    Raises:
      InputError: The numbers of examples differ, an attribute is neither 0 nor 1, or an argument has another number of
        axes.
    """
    return [counts for _, counts in _combinations(_as_booleans("attribute", attribute, "[n]"), confounders)]


def _combinations(
    attribute: Bool[np.ndarray, " n_attribute"], confounders: Shaped[Any, "n_confounders confounders"] | None
) -> Iterator[tuple[Bool[np.ndarray, " n_attribute"], tuple[int, int]]]:
    """Mask of the images of each combination of confounders, and their numbers with and without the attribute."""
    given = np.zeros((len(attribute), 0), bool) if confounders is None else confounders
    others = _as_booleans("confounders", given, "[n, confounders]")
    if len(attribute) != len(others):
        raise InputError(f"there are {len(attribute)} values of the attribute but {len(others)} of its confounders")
    for combination in np.unique(others, axis=0):
        here = np.all(others == combination, axis=1)
        yield here, (int(attribute[here].sum()), int((~attribute[here]).sum()))


def _as_booleans(name: str, values: Any, expected: str) -> Bool[np.ndarray, "..."]:
    """An argument as an array of booleans.

    Raises:
      InputError: It has another number of axes than expected, or a value is neither 0 nor 1.
    """
    values = np.asarray(as_reals(name, values, expected))
    if not np.isin(values, (0, 1)).all():
        raise InputError(f"{name} has other values than 0 and 1; expected booleans: which images have the attribute")
    return values.astype(bool)


@dataclass(frozen=True)
class AggregatedPosterior:
    """Mean and covariance of the aggregated posterior q(z) = E[q(z|x)] over a data set.

    Attributes:
      mean: Mean of q(z), [latent].
      covariance: Covariance of q(z), [latent, latent]: covariance of the encodings plus the mean posterior covariance,
        that of a flow linearised.
    """

    mean: Float[np.ndarray, " latent"]
    covariance: Float[np.ndarray, "latent latent"]

    @property
    def kl(self) -> float:
        """KL(N(mean, covariance) || N(0, I)) in nats; infinite if the covariance is singular.

        It is 1/2 (tr C + |m|^2 - Z - log det C), with mean m, covariance C and Z latent dimensions.
        """
        sign, log_det = np.linalg.slogdet(self.covariance)
        if sign <= 0:
            return float("inf")
        return float(0.5 * (np.trace(self.covariance) + self.mean @ self.mean - len(self.mean) - log_det))

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "count latent"]:
        """Samples of N(mean, covariance), [count, latent]; the covariance may be singular."""
        variances, directions = np.linalg.eigh(self.covariance)
        root = directions * np.sqrt(np.maximum(variances, 0))  # in float64; rounding can make a variance of 0 negative
        noise = np.asarray(jax.random.normal(key, (count, len(self.mean))))
        return jnp.asarray(self.mean + noise @ root.T, jnp.float32)


def aggregate(posterior: Posterior) -> AggregatedPosterior:
    """Aggregated posterior of the examples with posteriors `posterior`, [n, latent]."""
    mean = np.asarray(posterior.mean, np.float64)
    of_means = np.cov(mean, rowvar=False, ddof=0).reshape(mean.shape[1], -1)
    return AggregatedPosterior(mean.mean(axis=0), of_means + _mean_covariance(posterior))


def _mean_covariance(posterior: Posterior) -> Float[np.ndarray, "latent latent"]:
    """The covariance of q(z|x), averaged over the examples."""
    if isinstance(posterior, FullGaussian | Transformed):
        roots = np.asarray(posterior.covariance_root, np.float64)
        return np.tensordot(roots, roots, ((0, 2), (0, 2))) / len(roots)
    return np.diag(np.asarray(posterior.variance, np.float64).mean(axis=0))
