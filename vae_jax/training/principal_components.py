"""Variables of a VAE with linear paths at which it is probabilistic PCA, or of an autoencoder at which it is PCA."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vae_jax.checkpoints.models import leaves_of_model
from vae_jax.data.arrays import as_reals, require_finite
from vae_jax.distributions import Delta, DiagonalGaussian, UnitGaussian
from vae_jax.distributions.likelihoods import ColourMixtureOfLogistics, Gaussian, LearnedGaussian, OptimalGaussian
from vae_jax.errors import InputError, named
from vae_jax.models import VAE, Variables
from vae_jax.networks.conv import LINEAR_SCALE

_BLOCK = 4_096  # examples that are converted to double precision at a time
_EXACT = 4_096  # examples or entries up to which all eigenvalues are computed
_POWER_ITERATIONS = 7  # of the approximation for more entries
_CHANNELS = 3
_ITERATIONS = 6  # of the covariance between channels, whose error halves with each one


def start_at_pca(vae: Any, variables: Any, data: Any) -> Variables:
    """Variables at which a VAE with linear paths is the probabilistic PCA of the data (Tipping and Bishop, 1999).

    The optimum of a VAE whose networks are linear is probabilistic PCA (Lucas et al., 2019), where the bound is tight.
    The linear paths and the scale are set to it, and the weights of the last layers of both networks to 0, so that the
    training of the other layers starts from there. For 50,000 images of 3,072 entries it takes half a minute.

    With more than 4,096 examples and entries, the principal components are approximate (Halko et al., 2011): the
    posterior stays exact, and the likelihood is slightly below its maximum. For 16,000 images of 12,288 entries and 128
    latent dimensions this takes half a minute.

    With the leading eigenvalues L and eigenvectors U of the covariance of the data, s^2 the mean of the other
    eigenvalues or the variance of a `Gaussian` likelihood, and m the mean of the data:

        p(x|z) = N(m + U (L - s^2)^(1/2) z, s^2),    q(z|x) = N(L^(-1) (L - s^2)^(1/2) U^T (x - m), s^2 L^(-1)).

    Eigenvalues below the variance of a `Gaussian` count as equal to it, so that these latent dimensions start unused.
    With the posterior `Delta`, s is 0, whatever the variance: the autoencoder is PCA, with encodings of unit variance.

    A `ColourMixtureOfLogistics` has dependent channels, so the noise has a covariance S between the channels of a
    pixel: the model is probabilistic PCA of the pixels multiplied by S^(-1/2), and S is the covariance of the
    residuals. All components start with the conditional means of the channels, and with scales around the conditional
    standard deviations, which differ so that training can tell the components apart.

    NumPy computes this in double precision, so the function cannot be traced. The prior must be N(0, I) at the given
    variables, as `StandardNormal` is always and a `FlowPrior` is before training.

    Args:
      vae: Model of `conv_vae` or `resnet_vae` with `linear=True`, and a Gaussian likelihood, of one fixed variance or
        of a learned or an optimal scale, or a `ColourMixtureOfLogistics`; with the posterior `Delta`, a `Gaussian`.
      variables: Initial variables of the model; they are not changed.
      data: Training examples after the transform, [n, *event], more than there are latent dimensions.

    Returns:
      The variables.

    Raises:
      InputError: The model has no linear paths, or another posterior or likelihood; the variables are not those of the
        model; the prior is not N(0, I); the examples have another shape, are bytes or not finite, or are too few for
        the latent dimensions; or they have no variance outside of the principal components or, with `Delta`, along one
        of them.
    """
    _require_linear_gaussian(vae)
    leaves_of_model(vae, variables)
    _require_standard_normal(vae, variables)
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
    moments = _moments(rows.reshape(len(rows), -1))
    mean, colour = moments.mean, np.eye(1)
    if isinstance(vae.likelihood, ColourMixtureOfLogistics):
        colour = _noise_between_channels(moments, vae.latent_dim)
        moments = _whitened(moments, colour)
    directions, kept, noise = _principal_components(moments, vae.latent_dim)
    if vae.posterior is Delta:
        noise = 0.0
        if not kept[0] > 1e-9 * kept[-1]:
            raise InputError(
                f"the data have fewer than {vae.latent_dim} principal components; take fewer latent dimensions"
            )
    elif isinstance(vae.likelihood, Gaussian):
        noise = float(vae.likelihood.variance)
        kept = np.maximum(kept, noise)
    elif not noise > 1e-9 * kept[-1]:
        raise InputError(
            f"the variance outside of the first {vae.latent_dim} principal components is {noise:g}; expected more than "
            "rounding errors: take fewer latent dimensions, or dequantised examples"
        )
    gains = np.sqrt(np.maximum(kept - noise, 0))  # equal eigenvalues differ by rounding errors
    # [D, Z] and [Z, D], for pixels that are not whitened.
    encoding = _by_pixel(np.linalg.inv(colour).T, directions * (gains / kept))
    decoding = _by_pixel(colour, directions * gains).T
    means, bias = encoding * math.sqrt(len(mean)) / LINEAR_SCALE, (0.5 - mean) @ encoding
    if vae.posterior is not Delta:  # the logarithms of the variances follow, which do not depend on the pixels
        means = np.concatenate([means, np.zeros_like(means)], axis=1)
        bias = np.concatenate([bias, np.log(noise / kept)])
    params = variables["params"]
    last = _zeros(params["decoder"][vae.decoder.last_layer])
    if isinstance(vae.likelihood, ColourMixtureOfLogistics):
        conditional, outputs = _conditional_on_channels(colour * math.sqrt(noise), vae.likelihood.components)
        decoding = _by_pixel(conditional, decoding.T).T
        mean = 0.5 + _by_pixel(conditional, (mean - 0.5)[:, None])[:, 0]
        last |= {"bias": jnp.asarray(outputs, jnp.float32)}
    pixels = decoding * math.sqrt(vae.latent_dim) / LINEAR_SCALE
    encoder = params["encoder"] | {
        "linear": {"kernel": jnp.asarray(means, jnp.float32)},
        vae.encoder.last_layer: _zeros(params["encoder"][vae.encoder.last_layer])
        | {"bias": jnp.asarray(bias, jnp.float32)},
    }
    decoder = params["decoder"] | {
        "linear": {"kernel": jnp.asarray(pixels, jnp.float32), "bias": jnp.asarray(mean, jnp.float32)},
        vae.decoder.last_layer: last,
    }
    start = variables | {"params": params | {"encoder": encoder, "decoder": decoder}}
    if isinstance(vae.likelihood, ColourMixtureOfLogistics | Gaussian):
        return start
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
    if vae.posterior not in (DiagonalGaussian, Delta):
        raise InputError(
            f"the model has the posterior {vae.posterior}; that of probabilistic PCA is DiagonalGaussian, and that of "
            "PCA Delta"
        )
    if vae.posterior is Delta and not isinstance(vae.likelihood, Gaussian):
        raise InputError(f"the likelihood is {vae.likelihood} with the posterior Delta; expected Gaussian()")
    if not isinstance(vae.likelihood, Gaussian | LearnedGaussian | OptimalGaussian | ColourMixtureOfLogistics):
        raise InputError(
            f"the likelihood is {vae.likelihood}; expected Gaussian(), LearnedGaussian(), OptimalGaussian() or "
            "ColourMixtureOfLogistics()"
        )
    if isinstance(vae.likelihood, Gaussian) and np.ndim(vae.likelihood.variance):
        raise InputError(f"the variance has shape {np.shape(vae.likelihood.variance)}; expected one number")


def _require_standard_normal(vae: VAE, variables: Variables) -> None:
    """Raise `InputError` unless the prior has the density of N(0, I) at 100 random points."""
    z = jax.random.normal(jax.random.key(0), (100, vae.latent_dim))
    log_pz = UnitGaussian(vae.latent_dim).log_prob(z)
    if not np.allclose(_log_pz(vae, variables, z), log_pz, rtol=1e-4, atol=1e-3):
        raise InputError(
            f"the prior {vae.prior} is not N(0, I) at these variables, as that of probabilistic PCA; take "
            "StandardNormal(), or a FlowPrior before training"
        )


@jax.jit
def _log_pz(vae: VAE, variables: Variables, z: Array) -> Array:
    return vae.prior_distribution(variables).log_prob(z)


class _Moments(NamedTuple):
    """Mean [D], and the covariance [D, D], or the centred rows / sqrt(n), [n, D], if n <= D or both are large."""

    mean: np.ndarray
    matrix: np.ndarray
    is_covariance: bool


def _moments(rows: np.ndarray) -> _Moments:
    """The moments of rows [n, D] in double precision, but for the centred rows if n and D are large."""
    mean = rows.mean(axis=0, dtype=np.float64)
    if min(rows.shape) > _EXACT:
        return _Moments(mean, (rows - mean.astype(np.float32)) / np.float32(math.sqrt(len(rows))), is_covariance=False)
    if len(rows) <= len(mean):
        return _Moments(mean, (rows - mean) / math.sqrt(len(rows)), is_covariance=False)
    blocks = (rows[start : start + _BLOCK] - mean for start in range(0, len(rows), _BLOCK))
    return _Moments(mean, sum(block.T @ block for block in blocks) / len(rows), is_covariance=True)


def _whitened(moments: _Moments, colour: np.ndarray) -> _Moments:
    """The moments of pixels whose channels are multiplied by the inverse of the matrix `colour`."""
    inverse = np.linalg.inv(colour)
    matrix = _by_pixel(inverse, moments.matrix.T)
    return moments._replace(matrix=_by_pixel(inverse, matrix.T) if moments.is_covariance else matrix.T)


def _by_pixel(matrix: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Columns [D, n] with the c entries of each pixel multiplied by a matrix [c, c]."""
    return np.matmul(matrix, columns.reshape(-1, len(matrix), columns.shape[1])).reshape(columns.shape)


def _principal_components(moments: _Moments, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Leading eigenvectors [D, count] and eigenvalues [count] of the covariance, and the mean of the rest."""
    if moments.is_covariance:
        eigenvalues, eigenvectors = np.linalg.eigh(moments.matrix)
    elif min(moments.matrix.shape) <= _EXACT:
        _, singular, transposed = np.linalg.svd(moments.matrix, full_matrices=False)
        eigenvalues, eigenvectors = singular[::-1] ** 2, transposed[::-1].T
    else:
        return _approximate_components(moments.matrix, count)
    rest = eigenvalues[:-count].sum() / (len(moments.mean) - count)
    return eigenvectors[:, -count:], eigenvalues[-count:], float(rest)


def _approximate_components(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """`_principal_components` by subspace iteration from random directions (Halko et al., 2011)."""
    from sklearn.utils.extmath import randomized_svd  # imported here, because it takes a second to load

    oversamples = max(10, count // 4)
    _, singular, transposed = randomized_svd(
        rows, count, n_oversamples=oversamples, n_iter=_POWER_ITERATIONS, random_state=0
    )
    kept = singular[::-1].astype(np.float64) ** 2
    rest = np.square(rows).sum(dtype=np.float64) - kept.sum()
    return transposed[::-1].T, kept, float(rest / (rows.shape[1] - count))


def _noise_between_channels(moments: _Moments, count: int) -> np.ndarray:
    """A lower triangular root of the covariance of the noise between the channels of a pixel, [3, 3].

    At the maximum of the likelihood it is the mean over the pixels of C - W W^T, where C is the covariance of the data
    and W W^T that of the components. They are those of the pixels whitened by the noise, so it is computed repeatedly.

    Raises:
      InputError: The residual channels are linearly dependent, as those of grey images are.
    """
    colour = np.eye(_CHANNELS)
    for _ in range(_ITERATIONS):
        whitened = _whitened(moments, colour)
        directions, kept, noise = _principal_components(whitened, count)
        by_pixel = directions.reshape(-1, _CHANNELS, count)
        left = _between_channels(whitened) - np.einsum("pck,pdk->cd", by_pixel * (kept - noise), by_pixel)
        try:
            colour = colour @ np.linalg.cholesky(left / len(by_pixel))
        except np.linalg.LinAlgError as error:
            raise InputError(
                f"the residual channels after {count} principal components are linearly dependent; expected images in "
                "colour"
            ) from error
    return colour


def _between_channels(moments: _Moments) -> np.ndarray:
    """Sum over the pixels of the covariance between their channels, [3, 3]."""
    by_pixel = moments.matrix.reshape(len(moments.matrix), -1, _CHANNELS)
    if not moments.is_covariance:
        return np.einsum("npc,npd->cd", by_pixel, by_pixel)
    return np.einsum("pcpd->cd", by_pixel.reshape(-1, _CHANNELS, *by_pixel.shape[1:]))


def _conditional_on_channels(colour: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """A mixture with noise of covariance colour @ colour.T between the channels of each pixel, colour triangular.

    Returns:
      The matrix [3, 3] from means of the channels to locations, which are conditional on channels of 1/2, and the
      outputs of a decoder, [10 K], at which the means are 1/2.
    """
    deviations = np.diag(colour)  # of each channel given the preceding ones
    conditional = np.linalg.inv(colour / deviations)
    coefficients = np.clip(-conditional[np.tril_indices(_CHANNELS, -1)], -0.99, 0.99)  # the range of tanh
    conditional[np.tril_indices(_CHANNELS, -1)] = -coefficients
    spread = np.exp(np.linspace(-1.5, 0.75, components)) if components > 1 else np.ones(1)
    log_scales = np.log(2 * np.outer(deviations * math.sqrt(3) / math.pi, spread))  # levels range from -1 to 1
    outputs = [np.zeros((4, components)), log_scales, np.repeat(np.arctanh(coefficients)[:, None], components, axis=1)]
    return conditional, np.concatenate(outputs).ravel()


def _zeros(layer: Variables) -> Variables:
    return jax.tree.map(jnp.zeros_like, layer)
