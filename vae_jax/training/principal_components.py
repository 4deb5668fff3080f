"""Variables of a VAE with linear paths at which it is probabilistic PCA."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.checkpoints.models import leaves_of_model
from vae_jax.data.arrays import as_reals, require_finite
from vae_jax.distributions import DiagonalGaussian, StandardNormal
from vae_jax.distributions.likelihoods import LearnedGaussian, OptimalGaussian
from vae_jax.errors import InputError, named
from vae_jax.models import VAE, Variables
from vae_jax.networks.conv import LINEAR_SCALE

_BLOCK = 4_096  # examples that are converted to double precision at a time


def start_at_pca(vae: Any, variables: Any, data: Any) -> Variables:
    """Variables at which a VAE with linear paths is the probabilistic PCA of the data (Tipping and Bishop, 1999).

    The optimum of a VAE whose networks are linear is probabilistic PCA (Lucas et al., 2019), where the bound is tight.
    The linear paths and the scale are set to it, and the weights of the last layers of both networks to 0, so that the
    training of the other layers starts from there. For 50,000 images of 3,072 entries it takes half a minute.

    With the leading eigenvalues L and eigenvectors U of the covariance of the data, s^2 the mean of the other
    eigenvalues, and m the mean of the data:

        p(x|z) = N(m + U (L - s^2)^(1/2) z, s^2),    q(z|x) = N(L^(-1) (L - s^2)^(1/2) U^T (x - m), s^2 L^(-1)).

    NumPy computes this in double precision, so the function cannot be traced.

    Args:
      vae: Model of `conv_vae` or `resnet_vae` with `linear=True`, and a Gaussian likelihood of a learned or an optimal
        scale.
      variables: Initial variables of the model; they are not changed.
      data: Training examples after the transform, [n, *event], more than there are latent dimensions.

    Returns:
      The variables.

    Raises:
      InputError: The model has no linear paths, or another posterior, prior or likelihood; the variables are not those
        of the model; the examples have another shape, are bytes or not finite, or are too few for the latent
        dimensions; or they have no variance outside of the principal components.
    """
    _require_linear_gaussian(vae)
    leaves_of_model(vae, variables)
    if getattr(data, "dtype", None) == np.uint8:
        raise InputError("data are uint8; expected examples after the transform: vj.transform_all(key, data.train)")
    rows = np.asarray(as_reals("data", data), np.float32)
    entries = math.prod(vae.event_shape)
    if rows.shape[1:] != vae.event_shape or not vae.latent_dim < min(len(rows), entries):
        raise InputError(
            f"data have shape {rows.shape} for {vae.latent_dim} latents; expected [n, "
            f"{', '.join(map(str, vae.event_shape))}] with more examples and more entries than latents"
        )
    require_finite("the data", rows, has_missing=False)
    mean, directions, kept, noise = _principal_components(rows.reshape(len(rows), -1), vae.latent_dim)
    if not noise > 1e-9 * kept[-1]:
        raise InputError(
            f"the variance outside of the first {vae.latent_dim} principal components is {noise:g}; expected more than "
            "rounding errors: take fewer latent dimensions, or dequantised examples"
        )
    gains = np.sqrt(np.maximum(kept - noise, 0))  # equal eigenvalues differ by rounding errors
    encoding, decoding = directions * (gains / kept), (directions * gains).T  # [D, Z] and [Z, D]
    # The encoder returns the means, then the logarithms of the variances, which do not depend on the pixels.
    means = np.concatenate([encoding, np.zeros_like(encoding)], axis=1) * math.sqrt(len(mean)) / LINEAR_SCALE
    bias = np.concatenate([(0.5 - mean) @ encoding, np.log(noise / kept)])
    pixels = decoding * math.sqrt(vae.latent_dim) / LINEAR_SCALE
    params = variables["params"]
    encoder = params["encoder"] | {
        "linear": {"kernel": jnp.asarray(means, jnp.float32)},
        vae.encoder.last_layer: _zeros(params["encoder"][vae.encoder.last_layer])
        | {"bias": jnp.asarray(bias, jnp.float32)},
    }
    decoder = params["decoder"] | {
        "linear": {"kernel": jnp.asarray(pixels, jnp.float32), "bias": jnp.asarray(mean, jnp.float32)},
        vae.decoder.last_layer: _zeros(params["decoder"][vae.decoder.last_layer]),
    }
    start = variables | {"params": params | {"encoder": encoder, "decoder": decoder}}
    if isinstance(vae.likelihood, LearnedGaussian):
        scale = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5 * math.log(noise)), params["likelihood"])
        return start | {"params": start["params"] | {"likelihood": scale}}
    running = {"variance": jnp.float32(noise), "weight": jnp.float32(1)}
    return start | {"batch_stats": start["batch_stats"] | {"likelihood": running}}


def _require_linear_gaussian(vae: Any) -> None:
    """Raise `InputError` unless probabilistic PCA is one of the model's distributions."""
    if not isinstance(vae, VAE):
        raise InputError(f"vae is {named(vae)}; expected a model: vj.start_at_pca(vae, variables, data)")
    if not (getattr(vae.encoder, "linear", False) and getattr(vae.decoder, "linear", False)):
        raise InputError("the model has no linear paths; make it by conv_vae or resnet_vae with linear=True")
    if vae.posterior is not DiagonalGaussian or not isinstance(vae.prior, StandardNormal):
        raise InputError(
            f"the model has the posterior {vae.posterior} and the prior {vae.prior}; probabilistic PCA is a model of "
            "the posterior DiagonalGaussian and the prior StandardNormal()"
        )
    if not isinstance(vae.likelihood, LearnedGaussian | OptimalGaussian):
        raise InputError(
            f"the likelihood is {vae.likelihood}; probabilistic PCA has one of LearnedGaussian() and OptimalGaussian()"
        )


def _principal_components(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean [D], leading eigenvectors [D, count] and eigenvalues [count] of the covariance, and the mean of the rest."""
    mean = rows.mean(axis=0, dtype=np.float64)
    if len(rows) > len(mean):
        blocks = (rows[start : start + _BLOCK] - mean for start in range(0, len(rows), _BLOCK))
        eigenvalues, eigenvectors = np.linalg.eigh(sum(block.T @ block for block in blocks) / len(rows))
    else:
        _, singular, transposed = np.linalg.svd(rows - mean, full_matrices=False)
        eigenvalues, eigenvectors = singular[::-1] ** 2 / len(rows), transposed[::-1].T
    rest = eigenvalues[:-count].sum() / (len(mean) - count)
    return mean, eigenvectors[:, -count:], eigenvalues[-count:], float(rest)


def _zeros(layer: Variables) -> Variables:
    return jax.tree.map(jnp.zeros_like, layer)
