"""Bits-back coding of images with asymmetric numeral systems (Townsend et al., 2019, BB-ANS).

The coder is a stack. An image x is appended in three steps, which `remove` inverts in reverse order:

1. z is decoded from the stack with q(z|x), which removes -log q(z|x);
2. x is encoded with p(x|z), which adds -log p(x|z);
3. z is encoded with p(z), which adds -log p(z).

In expectation an image adds its negative ELBO, if the bits from which z is decoded look random. They are those of z of
the image before, and a model's z have the distribution N(0, I) over the images only roughly. Therefore the bins of z
are masked by pseudo-random numbers before they are encoded, which is free, because all bins have the same probability.
"""

import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from constriction import stream
from jaxtyping import Array, Float, Int, UInt8

from vae_jax.compression.bins import BINS, PRIOR, TABLE, decode_bins, encode_bins, medians
from vae_jax.errors import InputError
from vae_jax.models import VAE, Variables

Image = UInt8[np.ndarray, "..."]


class Networks(NamedTuple):
    """Networks of one image at a time, so that they are computed in the same way in both directions.

    Attributes:
      event_shape: Shape of an image.
      latent_dim: Number of latents of an image.
      posterior: Function from an image to the means and the standard deviations of q(z|x).
      pmf: Function from latents to the probabilities of p(x|z), [pixels, levels].
    """

    event_shape: tuple[int, ...]
    latent_dim: int
    posterior: Callable[[Image], tuple[np.ndarray, np.ndarray]]
    pmf: Callable[[np.ndarray], np.ndarray]


def networks_of(vae: VAE, variables: Variables) -> Networks:
    """The networks of a VAE, compiled for one image on the CPU."""
    support = vae.likelihood.support

    @jax.jit
    def posterior(variables: Variables, image: Array) -> tuple[Array, Array]:
        found = vae.encode(variables, support.low + support.spacing * image[None])
        return found.mean[0], jnp.sqrt(found.variance[0])

    @jax.jit
    def pmf(variables: Variables, z: Array) -> Float[Array, "pixels levels"]:
        px_z: Any = vae.decode(variables, z[None])
        masses = px_z.pmf()
        return masses.reshape(-1, masses.shape[-1])

    on_cpu = jax.device_put(variables, jax.local_devices(backend="cpu")[0])
    return Networks(
        vae.event_shape,
        vae.latent_dim,
        functools.partial(_finite, posterior, on_cpu),
        functools.partial(_finite, pmf, on_cpu),
    )


def append(coder: stream.stack.AnsCoder, networks: Networks, number: int, image: Image) -> None:
    """Append the image with this number to the stack."""
    bins = decode_bins(coder, *networks.posterior(image))
    coder.encode_reverse(image.ravel().astype(np.int32), TABLE, networks.pmf(medians()[bins]))
    coder.encode_reverse(bins ^ _mask(number, networks.latent_dim), PRIOR)


def remove(coder: stream.stack.AnsCoder, networks: Networks, number: int) -> Image:
    """Remove the image with this number, which was appended last, from the stack."""
    bins = coder.decode(PRIOR, networks.latent_dim) ^ _mask(number, networks.latent_dim)
    levels = coder.decode(TABLE, networks.pmf(medians()[bins]))
    image = levels.astype(np.uint8).reshape(networks.event_shape)
    encode_bins(coder, bins, *networks.posterior(image))
    return image


def _mask(number: int, latent_dim: int) -> Int[np.ndarray, " latents"]:
    """Pseudo-random bins, which depend on the number of the image."""
    return np.frombuffer(hashlib.shake_256(str(number).encode()).digest(4 * latent_dim), "<i4") % BINS


def _finite(network: Callable[..., Any], variables: Variables, of: np.ndarray) -> Any:
    """The outputs of a network as arrays of NumPy.

    Raises:
      InputError: They are not finite.
    """
    outputs = jax.tree.map(np.asarray, network(variables, of))
    if not all(np.isfinite(array).all() for array in jax.tree.leaves(outputs)):
        raise InputError("the networks return NaN or infinite values; expected finite ones: the training diverged")
    return outputs
