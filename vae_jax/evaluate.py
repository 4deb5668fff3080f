"""Numbers about a trained model: exact over any number of examples, per example until the caller takes the mean."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from vae_jax.data import Split
from vae_jax.distributions import Posterior, example_keys
from vae_jax.errors import InputError
from vae_jax.model import VAE, Labels, Variables
from vae_jax.objectives import ELBOTerms, elbo_terms
from vae_jax.observation import Observe, Scale

BLOCK = 1_000
"""Examples that are on their way through the model at once."""


class Estimate(NamedTuple):
    """A mean over examples and its standard error."""

    mean: float
    standard_error: float


def estimate(values: Shaped[Any, " n"]) -> Estimate:
    """The mean of one number per example, in float64, and the standard error of that mean over the examples."""
    values = np.asarray(values, np.float64)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0)


def in_blocks(function: Callable[..., PyTree], *arrays: Shaped[Any, "n ..."], block: int = BLOCK) -> PyTree:
    """`function(first, *blocks)` over blocks of examples, its results joined: as if over all of them at once.

    The last block is filled up with copies of its last example, which are cut off again, so that a compiled function
    meets one shape alone.

    Args:
      function: from the position of a block's first example and a block of each array to a tree of arrays [block, ...].
      *arrays: [n, ...], on the host or the device.
      block: examples in a block.

    Returns:
      The tree, its leaves [n, ...] on the host.

    Raises:
      InputError: no examples.
    """
    total = len(arrays[0])
    if total == 0:
        raise InputError("there are no examples to go through")
    size = min(block, total)
    results = []
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size), total - 1)
        kept = min(size, total - start)
        result = function(start, *(array[rows] for array in arrays))
        results.append(jax.tree.map(lambda leaf, kept=kept: np.asarray(leaf[:kept]), result))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)


@partial(jax.jit, static_argnames=("vae", "observe"))
def _elbo_terms(
    first: int | Array,
    images: Array,
    labels: Labels = None,
    *,
    key: Array,
    variables: Variables,
    vae: VAE,
    observe: Observe,
) -> ELBOTerms:
    observation_keys, noise_keys = (
        example_keys(jax.random.fold_in(key, stream), len(images), first) for stream in range(2)
    )
    batch = observe(observation_keys, images, labels)
    return elbo_terms(noise_keys, vae, variables, batch.x, batch.label)


def evaluate(
    key: Key[Array, ""], vae: VAE, variables: Variables, data: Split, *, observe: Observe = Scale(), block: int = BLOCK
) -> ELBOTerms:
    """The ELBO's terms of each image, at one sampled z each, in nats.

    The noise of an image depends on `key` and its position alone, so the numbers do not depend on `block`.

    Returns:
      `log_px_z` and `kl`, float32 [N] on the host; `estimate` takes their means.
    """
    run = partial(_elbo_terms, key=key, variables=variables, vae=vae, observe=observe)
    return in_blocks(run, *_inputs(vae, data), block=block)


def _inputs(vae: VAE, data: Split) -> list[np.ndarray]:
    """The images, and their labels if the model is conditional."""
    if vae.classes is None:
        return [data.images]
    require_labels(data, vae.classes)
    return [data.images, np.asarray(data.labels)]


def require_labels(data: Split, classes: int) -> None:
    """Raise `InputError` unless each image has a label of one of that many classes."""
    if data.labels is None:
        raise InputError("the images have no labels, and a conditional model needs them")
    if data.labels.max() >= classes:
        raise InputError(f"labels run up to {data.labels.max()}, but the model has {classes} classes")


@partial(jax.jit, static_argnames=("vae", "observe"))
def _encode(
    first: int | Array,
    images: Array,
    labels: Labels = None,
    *,
    key: Array,
    variables: Variables,
    vae: VAE,
    observe: Observe,
) -> Posterior:
    batch = observe(example_keys(key, len(images), first), images, labels)
    return vae.encode(variables, batch.x, batch.label)


def encode_all(
    key: Key[Array, ""], vae: VAE, variables: Variables, data: Split, *, observe: Observe = Scale(), block: int = BLOCK
) -> Posterior:
    """q(z|x) of each image, on the host; `key` matters only where observing has chance in it."""
    run = partial(_encode, key=key, variables=variables, vae=vae, observe=observe)
    return in_blocks(run, *_inputs(vae, data), block=block)


@partial(jax.jit, static_argnames=("vae",))
def _decode(first: int | Array, z: Array, labels: Labels = None, *, variables: Variables, vae: VAE) -> Array:
    return vae.decode(variables, z, labels).mean


def decode_all(
    vae: VAE,
    variables: Variables,
    z: Float[Any, "n latent"],
    labels: Int[Any, " n"] | None = None,
    *,
    block: int = BLOCK,
) -> Float[np.ndarray, "n height width channels"]:
    """E[x|z] of each latent, on the host."""
    inputs = [z] if labels is None else [z, labels]
    return in_blocks(partial(_decode, variables=variables, vae=vae), *inputs, block=block)


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


@jax.jit
def _nearest(first: int | Array, images: Array, references: Array) -> Array:
    squares = jnp.sum(references**2, axis=1)[None] - 2 * images @ references.T + jnp.sum(images**2, axis=1)[:, None]
    return jnp.sqrt(jnp.maximum(squares.min(axis=1), 0))


def nearest_distance(
    images: Float[Any, "n height width channels"], references: Float[Any, "m height width channels"]
) -> Float[np.ndarray, " n"]:
    """Euclidean distance, over pixels, of each image to the nearest of the references; exact to about 1e-2."""
    flat = jnp.asarray(references).reshape(len(references), -1)
    return in_blocks(partial(_nearest, references=flat), np.asarray(images).reshape(len(images), -1), block=250)


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
