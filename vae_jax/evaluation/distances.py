"""Distances between images and between sets of features, and the sharpness of images."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vae_jax.data.arrays import as_reals
from vae_jax.errors import InputError, array_spec, require_positive_int
from vae_jax.evaluation.blocks import in_blocks, on_host
from vae_jax.values import shape_repr


@jax.jit
def _nearest(first: int | Array, images: Array, references: Array, middle: Array) -> Array:
    # The matrix product finds the nearest reference; the distance is computed from the difference, because the rounding
    # error of the product is larger than small distances. Far from the origin it would be larger still.
    images = images - middle
    products = jnp.matmul(2 * images, references.T, precision=jax.lax.Precision.HIGHEST)
    nearest = jnp.argmin(jnp.sum(references**2, axis=1)[None] - products, axis=1)
    return jnp.linalg.norm(images - references[nearest], axis=1)


def nearest_distance(images: Any, references: Any) -> Float[Any, " n"]:
    """Euclidean distance, over all pixels, of each image to the nearest of the references.

    >>> vj.nearest_distance(np.zeros((1, 2, 2, 1)), np.ones((5, 2, 2, 1))).tolist()
    [2.0]

    Args:
      images: Images, [n, height, width, channels].
      references: Images of the same shape, [m, height, width, channels].

    Returns:
      Distances in the unit of the pixels, [n].

    Raises:
      InputError: There are no images or no references, or their shapes differ.
    """
    images, references = as_reals("images", images), as_reals("references", references)
    if images.shape[1:] != references.shape[1:] or not references.size:
        raise InputError(
            f"images and references have shapes {images.shape} and {references.shape}; expected [n, ...] and [m, ...] "
            "of one shape per image, with at least one reference"
        )
    flat = jnp.asarray(references).reshape(len(references), -1)
    middle = flat.mean(axis=0, keepdims=True)
    run = partial(_nearest, references=flat - middle, middle=middle)
    return in_blocks(run, on_host(images).reshape(len(images), -1), block=250)


def frechet_distance(a: Any, b: Any) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of features (Dowson and Landau, 1982).

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), in float64. With C = R'R from a QR decomposition of the centred
    features, the trace of the square root is the sum of the singular values of R_a R_b', which is accurate for singular
    covariances too.

    >>> features = np.random.default_rng(0).normal(size=(100, 3))
    >>> round(vj.frechet_distance(features, features + 2.0), 6)
    12.0

    Args:
      a: Features of one set, [n, features], with n of at least 2.
      b: Features of the other set, [m, features], with m of at least 2.

    Raises:
      InputError: A set has fewer than two rows, the numbers of features differ, or values are not finite.
    """
    a, b = (np.asarray(as_reals("features", features), np.float64) for features in (a, b))
    if not (a.ndim == b.ndim == 2) or min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise InputError(
            f"features have shapes {a.shape} and {b.shape}; expected [n, D] and [m, D], n and m at least 2: give one "
            "row per image"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("the features hold NaN or infinite values; expected finite values: remove those images")
    root_a, root_b = _root_of_covariance(a), _root_of_covariance(b)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    difference = a.mean(axis=0) - b.mean(axis=0)
    distance = difference @ difference + np.sum(root_a**2) + np.sum(root_b**2) - 2 * cross
    return max(0.0, float(distance))  # rounding can make that of equal sets negative


def _root_of_covariance(features: np.ndarray) -> np.ndarray:
    """The matrix R for which R'R is the unbiased covariance."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"))


@shape_repr
class Neighbourhoods(NamedTuple):
    """Density and coverage of generated examples (Naeem et al., 2020), one number an example.

    Attributes:
      density: Number of real neighbourhoods that contain each generated example, divided by k; its mean is the density,
        1 in expectation if both sets have one distribution.
      coverage: Whether each real neighbourhood contains a generated example; its mean is the coverage, at most 1.
    """

    density: Float[np.ndarray, " generated"]
    coverage: Float[np.ndarray, " real"]


def density_and_coverage(real: Any, generated: Any, k: int = 5) -> Neighbourhoods:
    """Density and coverage of generated examples in a space of features (Naeem et al., 2020, equations 5 and 6).

    The neighbourhood of a real example is the ball whose radius is the distance to its k-th nearest other real example.
    The density measures fidelity and the coverage diversity; `mean_and_stderr` gives the mean of each with its standard
    error over the examples. The coverage grows with the number of generated examples, so compare equal numbers.

    Args:
      real: Features of real examples, [n, features], with n above k.
      generated: Features of generated examples, [m, features].
      k: Number of neighbours that sets the radius.

    Raises:
      InputError: There are not more than k real examples or no generated ones, the numbers of features differ, or
        values are not finite.
    """
    require_positive_int(k=k)
    real, generated = (_finite_rows(features) for features in (real, generated))
    if len(real) <= k or not len(generated) or real.shape[1] != generated.shape[1]:
        raise InputError(
            f"features have shapes {real.shape} and {generated.shape}; expected [n, D] and [m, D], n above k = {k} and "
            "m at least 1"
        )
    from scipy.spatial.distance import cdist  # imported here, because the rest of the library does without SciPy

    radii = np.sort(cdist(real, real), axis=1)[:, k]  # after the distance of 0 to itself
    within = cdist(generated, real) <= radii[None]
    return Neighbourhoods(within.sum(axis=1) / k, within.any(axis=0).astype(np.float64))


def sharpness(images: Any) -> Float[np.ndarray, " n"]:
    """Variance of the discrete Laplacian of the brightness of each image (Pech-Pacheco et al., 2000), [n].

    The brightness is the mean of the channels, and the Laplacian the sum of the four neighbours of a pixel minus four
    times the pixel. Noise counts as sharp too, so compare with the images that are to be reconstructed.

    Args:
      images: Images of at least 3 x 3 pixels, [n, height, width, channels]; the unit is that of the pixels, squared.

    Raises:
      InputError: There are no such images.
    """
    images = as_reals("images", images)
    if images.ndim != 4 or not images.size or min(images.shape[1:3]) < 3:
        raise InputError(f"images have shape {images.shape}; expected [n, height, width, channels], from 3 x 3 pixels")
    grey = np.asarray(images, np.float64).mean(axis=-1)
    neighbours = grey[:, 2:, 1:-1] + grey[:, :-2, 1:-1] + grey[:, 1:-1, 2:] + grey[:, 1:-1, :-2]
    return np.asarray(np.var(neighbours - 4 * grey[:, 1:-1, 1:-1], axis=(1, 2)))


def bootstrap_stderr(statistic: Callable[..., float], *sets: Any, resamples: int = 50, seed: int = 0) -> float:
    """Standard error of a statistic of sets of examples by the bootstrap (Efron, 1979).

    Each set is resampled with replacement, independently of the others.

        distance = vj.frechet_distance(a, b)
        error = vj.bootstrap_stderr(vj.frechet_distance, a, b)

    Args:
      statistic: Function of the sets that returns a number.
      *sets: Arrays, [n, ...] each.
      resamples: Number of resamples, at least 2.
      seed: Seed of the resamples.

    Returns:
      The standard deviation of the statistic over the resamples.

    Raises:
      InputError: A set is empty, or there are fewer than two resamples.
    """
    arrays = [as_reals("set", each) for each in sets]
    if resamples < 2 or not arrays or min(map(len, arrays)) < 1:
        raise InputError(f"resamples is {resamples}, of {len(arrays)} sets; expected 2 or more, and sets with examples")
    generator = np.random.default_rng(seed)

    def resampled(array: np.ndarray) -> np.ndarray:
        return array[generator.integers(0, len(array), len(array))]

    return float(np.std([statistic(*map(resampled, arrays)) for _ in range(resamples)], ddof=1))


def _finite_rows(features: Any) -> Float[np.ndarray, "n features"]:
    """Features as float64.

    Raises:
      InputError: They are no rows of finite numbers.
    """
    rows = np.asarray(as_reals("features", features), np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise InputError(f"features are {array_spec(rows)}; expected finite numbers, [n, features], one row an image")
    return rows
