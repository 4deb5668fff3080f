"""Distances of images: to the nearest of a set, and of one set from another."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vae_jax.errors import InputError
from vae_jax.evaluation.blocks import in_blocks, on_host


@jax.jit
def _nearest(first: int | Array, images: Array, references: Array) -> Array:
    # The product tells which reference is nearest; its rounding would hide distances near 0, so that one is subtracted.
    nearest = jnp.argmin(jnp.sum(references**2, axis=1)[None] - 2 * images @ references.T, axis=1)
    return jnp.linalg.norm(images - references[nearest], axis=1)


def nearest_distance(
    images: Float[Any, "n height width channels"], references: Float[Any, "m height width channels"]
) -> Float[Any, " n"]:
    """Euclidean distance, over pixels, of each image to the nearest of the references."""
    flat = jnp.asarray(references).reshape(len(references), -1)
    return in_blocks(partial(_nearest, references=flat), on_host(images).reshape(len(images), -1), block=250)


def frechet_distance(a: Float[Any, "n features_a"], b: Float[Any, "m features_b"]) -> float:
    """The squared Fréchet distance between Gaussians fitted to two sets of features (Dowson and Landau, 1982).

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)). With C = R'R from a QR decomposition of the centred features, the
    trace of the square root is the sum of the singular values of R_a R_b', which no singular covariance disturbs.

    Raises:
      InputError: fewer than two rows, or features of different number, or values that are not finite.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if min(len(a), len(b)) < 2 or a.shape[1:] != b.shape[1:]:
        raise InputError(f"features have shapes {a.shape} and {b.shape}; expected [2 or more, D] of one D")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("the features hold NaN or infinite values, so there is no distance between them")
    root_a, root_b = _root_of_covariance(a), _root_of_covariance(b)
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    difference = a.mean(axis=0) - b.mean(axis=0)
    return float(difference @ difference + np.sum(root_a**2) + np.sum(root_b**2) - 2 * cross)


def _root_of_covariance(features: np.ndarray) -> np.ndarray:
    """R with R'R = the unbiased covariance."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"))
