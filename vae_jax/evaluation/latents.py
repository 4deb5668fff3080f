"""The latent space: where the encodings lie, the circle that holds them, the lattice inscribed in it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from vae_jax.data.arrays import as_reals
from vae_jax.distributions import Posterior
from vae_jax.errors import InputError, require_positive_int


class Sphere(NamedTuple):
    """A circle in two latent dimensions, a hypersphere in more.

    Attributes:
      centre: its centre.
      radius: its radius, in the latent space's own unit.
    """

    centre: Float[np.ndarray, " latent"]
    radius: float


def circle(encodings: Float[Any, "n latent"], share: float = 0.99) -> Sphere:
    """The smallest sphere about the mean of the encodings that holds at least `share` of them.

    Raises:
      InputError: a share outside (0, 1], no encodings, or some that are not finite.
    """
    encodings = np.asarray(as_reals("encodings", encodings, "[n, latent]"), np.float64)
    if not 0 < share <= 1:
        raise InputError(f"share is {share}; expected a number above 0, at most 1")
    if len(encodings) == 0 or not np.isfinite(encodings).all():
        raise InputError(f"the {len(encodings)} encodings are none, or not all finite; no sphere holds them")
    centre = encodings.mean(axis=0)
    distances = np.sort(np.linalg.norm(encodings - centre, axis=1))
    return Sphere(centre, float(distances[math.ceil(share * len(distances)) - 1]))


def inscribed_lattice(sphere: Sphere, size: int = 15) -> Float[np.ndarray, "size size latent"]:
    """The square lattice, its corners on the circle, in the plane of the first two latent dimensions.

    In more than two dimensions the circle is the sphere's great circle, and the other coordinates are the centre's. The
    first row is the top one: dimension 0 grows to the right, dimension 1 upwards, as in a plot.

    Raises:
      InputError: fewer than two latent dimensions, or a size below one.
    """
    require_positive_int(size=size)
    half_side = _half_side(sphere)
    offsets = np.linspace(-half_side, half_side, size) if size > 1 else np.zeros(1)
    sites = np.tile(sphere.centre, (size, size, 1))
    sites[..., 0] += offsets[None, :]
    sites[..., 1] += offsets[::-1, None]
    return sites


def uniform_in_square(key: Key[Array, ""], sphere: Sphere, count: int) -> Float[np.ndarray, "count latent"]:
    """Uniform draws from the square of `inscribed_lattice`."""
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
    """Points at equal distances on the straight lines from each start to its end, both included."""
    require_positive_int(steps=steps)
    share = np.linspace(0, 1, steps)[:, None]
    start, end = np.asarray(start)[:, None], np.asarray(end)[:, None]
    return (1 - share) * start + share * end


def nearest_mean_accuracy(
    train: Float[Any, "n latent"],
    train_labels: Int[Any, " n"],
    test: Float[Any, "m latent"],
    test_labels: Int[Any, " m"],
) -> float:
    """The share of test encodings whose nearest class mean, of the training encodings, is that of their own class."""
    classes = np.unique(train_labels)
    means = np.stack([np.asarray(train)[train_labels == label].mean(axis=0) for label in classes])
    distances = np.linalg.norm(np.asarray(test)[:, None] - means[None], axis=-1)
    return float(np.mean(classes[distances.argmin(axis=1)] == test_labels))


def class_separation(encodings: Float[Any, "n latent"], labels: Int[Any, " n"]) -> float:
    """The share of the encodings' variance that lies between the classes' means, from 0 to 1."""
    encodings = np.asarray(encodings, np.float64)
    within = sum(
        np.sum((of_class - of_class.mean(axis=0)) ** 2)
        for of_class in (encodings[labels == c] for c in np.unique(labels))
    )
    return float(1 - within / np.sum((encodings - encodings.mean(axis=0)) ** 2))


def attribute_vector(
    encodings: Float[Any, "n latent"],
    attribute: Bool[Any, " n_attribute"],
    confounders: Bool[Any, "n_confounders confounders"] | None = None,
) -> Float[np.ndarray, " latent"]:
    """The mean encoding of the images with an attribute minus that of those without it.

    With confounders the difference is taken within each of their combinations, so that what goes along with a
    confounder cancels. The vector is the mean of these differences weighted by n1 n0 / (n1 + n0), n1 and n0 the images
    of the combination with and without the attribute: by the inverse of each difference's variance, as in a regression
    with an intercept for each combination (`attribute_counts` tells n1 and n0).

    Args:
      encodings: of training images.
      attribute: which of them have it.
      confounders: other attributes of theirs; a combination in which all images or none have the attribute is left out.

    Raises:
      InputError: numbers of examples that differ, or no combination in which some have the attribute and some have not.
    """
    encodings, attribute = np.asarray(encodings, np.float64), np.asarray(attribute)
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
    attribute: Bool[Any, " n_attribute"], confounders: Bool[Any, "n_confounders confounders"] | None = None
) -> list[tuple[int, int]]:
    """Images with and without the attribute, for each combination of the confounders that occurs, in sorted order.

    Raises:
      InputError: numbers of examples that differ.
    """
    return [counts for _, counts in _combinations(np.asarray(attribute), confounders)]


def _combinations(
    attribute: Bool[np.ndarray, " n_attribute"], confounders: Bool[Any, "n_confounders confounders"] | None
) -> Iterator[tuple[Bool[np.ndarray, " n_attribute"], tuple[int, int]]]:
    """For each combination of the confounders: which images it holds, and how many with and without the attribute."""
    others = np.zeros((len(attribute), 0), bool) if confounders is None else np.asarray(confounders)
    if len(attribute) != len(others):
        raise InputError(f"there are {len(attribute)} values of the attribute but {len(others)} of its confounders")
    for combination in np.unique(others, axis=0):
        here = np.all(others == combination, axis=1)
        yield here, (int(attribute[here].sum()), int((~attribute[here]).sum()))


@dataclass(frozen=True)
class AggregatedPosterior:
    """Mean and covariance of q(z) = E[q(z|x)] over a data set, and how far a Gaussian of these is from the prior.

    Attributes:
      mean: of q(z).
      covariance: of q(z): that of the encodings plus the mean posterior variance.
    """

    mean: Float[np.ndarray, " latent"]
    covariance: Float[np.ndarray, "latent latent"]

    @property
    def kl(self) -> float:
        """KL(N(mean, covariance) || N(0, I)) in nats; infinite where the covariance is singular.

        1/2 (tr C + |m|^2 - Z - log det C).
        """
        sign, log_det = np.linalg.slogdet(self.covariance)
        if sign <= 0:
            return float("inf")
        return float(0.5 * (np.trace(self.covariance) + self.mean @ self.mean - len(self.mean) - log_det))

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "count latent"]:
        """Draws from N(mean, covariance), which may be singular."""
        variances, directions = np.linalg.eigh(self.covariance)
        root = directions * np.sqrt(np.maximum(variances, 0))  # in float64: rounding makes a variance of 0 negative
        noise = np.asarray(jax.random.normal(key, (count, len(self.mean))))
        return jnp.asarray(self.mean + noise @ root.T, jnp.float32)


def aggregate(posterior: Posterior) -> AggregatedPosterior:
    """The aggregated posterior of the images encoded in `posterior`."""
    mean = np.asarray(posterior.mean, np.float64)
    variance = np.asarray(posterior.variance, np.float64).mean(axis=0)
    return AggregatedPosterior(
        mean.mean(axis=0), np.cov(mean, rowvar=False, ddof=0).reshape(len(variance), -1) + np.diag(variance)
    )
