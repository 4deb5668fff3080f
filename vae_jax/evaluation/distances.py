"""Distances of images to their nearest neighbours, and Fréchet distances of sets of features."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vae_jax.data.arrays import as_reals
from vae_jax.errors import InputError
from vae_jax.evaluation.blocks import in_blocks, on_host


@jax.jit
def _nearest(first: int | Array, images: Array, references: Array) -> Array:
    # The matrix product finds the nearest reference; the distance is computed from the difference, because the rounding
    # error of the product is larger than small distances.
    nearest = jnp.argmin(jnp.sum(references**2, axis=1)[None] - 2 * images @ references.T, axis=1)
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
    return in_blocks(partial(_nearest, references=flat), on_host(images).reshape(len(images), -1), block=250)


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
    return float(difference @ difference + np.sum(root_a**2) + np.sum(root_b**2) - 2 * cross)


def _root_of_covariance(features: np.ndarray) -> np.ndarray:
    """The matrix R for which R'R is the unbiased covariance."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"))
