"""Measures of decoded faces: Fréchet distance, density, coverage and sharpness, and the share with a face."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

import vae_jax as vj
from harness.estimates import estimate

NEIGHBOURS = 5  # of a face, whose distances set the radius within which density and coverage count images
SETS = 4  # of draws, over which the Fréchet distance is averaged
DETECTED = 100  # images in which a face detector looks for faces; it takes 50 ms an image


def require_enough(data: vj.Dataset) -> None:
    """Raise `InputError` unless there are enough test faces for the density and the coverage."""
    if len(data.test) <= NEIGHBOURS:
        raise vj.InputError(f"there are {len(data.test)} test faces; expected {NEIGHBOURS + 1} or more, to be measured")


def of_images(
    images: np.ndarray, real: np.ndarray, features: Callable[[np.ndarray], np.ndarray], *, paired: bool
) -> dict[str, Any]:
    """Distances of decoded images from the faces in some features, sharpness, and the share with a face.

    The Fréchet distance is the mean over sets of as many images as there are faces, and the sharpness that of all
    images. The other measures are those of the first set.

    Args:
      images: Decoded images, one set or more.
      real: Faces.
      features: Function from images [n, height, width, 3] to their features [n, d].
      paired: Whether each image is a reconstruction of the face of the same number, for the standard errors.
    """
    of_real, of_decoded = features(real), features(images)
    sets = np.split(of_decoded, len(images) // len(real))
    near = vj.density_and_coverage(of_real, sets[0], NEIGHBOURS)
    sharpness = vj.sharpness(images), vj.sharpness(real)
    return {
        "frechet": paired_frechet(of_real, of_decoded) if paired else mean_frechet(of_real, sets),
        "density": estimate(near.density),
        "coverage": estimate(near.coverage),
        "sharpness": vj.paired_ratio(*sharpness)._asdict() if paired else ratio(*sharpness),
        "detected": detected(images),
    }


def paired_frechet(of_real: np.ndarray, of_decoded: np.ndarray) -> dict[str, float]:
    """The Fréchet distance of pairs, with its standard error by the bootstrap over pairs."""

    def of_pairs(pairs: np.ndarray) -> float:
        return vj.frechet_distance(pairs[:, 0], pairs[:, 1])

    pairs = np.stack([of_real, of_decoded], axis=1)
    return {"mean": of_pairs(pairs), "standard_error": vj.bootstrap_stderr(of_pairs, pairs)}


def mean_frechet(of_real: np.ndarray, sets: Sequence[np.ndarray]) -> dict[str, float]:
    """The mean Fréchet distance of sets of draws, with its standard error by the bootstrap."""

    def of_sets(of_real: np.ndarray, *sets: np.ndarray) -> float:
        return float(np.mean([vj.frechet_distance(of_real, each) for each in sets]))

    stderr = vj.bootstrap_stderr(of_sets, of_real, *sets, resamples=20)
    return {"mean": of_sets(of_real, *sets), "standard_error": stderr}


def detected(images: np.ndarray) -> dict[str, float]:
    """The share of the first images in which a detector finds a face, with its standard error."""
    return estimate(np.array([has_face(image) for image in images[:DETECTED]], np.float64))


def has_face(image: np.ndarray) -> bool:
    """Whether a detector finds a face in an image, which is padded, because the faces fill it."""
    padded = np.round(255 * np.pad(image, ((16, 16), (16, 16), (0, 0)), mode="edge")).astype(np.uint8)
    sizes = {"min_size": (24, 24), "max_size": padded.shape[:2]}
    return bool(detector().detect_multi_scale(padded, scale_factor=1.2, step_ratio=1, **sizes))


@lru_cache
def detector() -> Any:
    """OpenCV's cascade of local binary patterns for frontal faces, which scikit-image has."""
    from skimage.data import lbp_frontal_face_cascade_filename  # imported here, because they take a second to load
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())


def ratio(values: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """The ratio of the means over two independent sets of images, with the standard error by the bootstrap."""

    def of_means(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean(a) / np.mean(b))

    return {"mean": of_means(values, reference), "standard_error": vj.bootstrap_stderr(of_means, values, reference)}
