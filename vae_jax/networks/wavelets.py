"""Networks of a ladder VAE whose layers of latents start as the scales of a Haar transform.

The transform replaces blocks of 2 x 2 pixels by their mean and three differences, for each colour, and goes on with the
image of the means. The mean of each posterior is a set of coefficients plus a learned correction, and a decoder that
inverts the transform gives the locations of the pixels. The networks mainly learn the priors: the mean and the variance
of the differences at one scale, given the coarser ones.

At first, the samples of the posterior are the coefficients with independent noise. The decoder then returns the image
with independent noise, so no layer of latents starts without information.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from vae_jax.distributions.likelihoods import Likelihood
from vae_jax.networks.conv4x4 import Upsample
from vae_jax.networks.dense import joined
from vae_jax.networks.ladder import Latent, ResidualBlock, parameters_of_maps
from vae_jax.networks.residual import Conv3x3

_PRECISION = jax.lax.Precision.HIGHEST  # the default of accelerators does not resolve levels of bytes, 1 / 255
_SIGNS = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], np.float32)


def gain(level: int) -> float:
    """Latents per coefficient after a number of halvings, so that those of natural images are of order 1."""
    return 64 / 2**level


def haar(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch h w 4 channels"]:
    """Mean and horizontal, vertical and diagonal difference of each block of 2 x 2 pixels, all divided by 4."""
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    blocks = blocks.reshape(batch, height // 2, width // 2, 4, channels)
    return jnp.einsum("kp,bhwpc->bhwkc", _SIGNS / 4, blocks, precision=_PRECISION)


def inverse_haar(bands: Float[Array, "batch h w 4 channels"]) -> Float[Array, "batch height width channels"]:
    """The image of which `haar` gives the bands."""
    return _joined_blocks(jnp.einsum("pk,bhwkc->bhwpc", _SIGNS, bands, precision=_PRECISION))


def _joined_blocks(blocks: Float[Array, "batch h w 4 channels"]) -> Float[Array, "batch height width channels"]:
    """The image of blocks of 2 x 2 pixels."""
    batch, h, w, _, channels = blocks.shape
    pixels = blocks.reshape(batch, h, w, 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(batch, 2 * h, 2 * w, channels)


def colour_basis(channels: int) -> Float[np.ndarray, "channels channels"]:
    """Orthonormal basis of the cosine transform, as columns: of three channels, grey, red - blue, and green - both."""
    k, n = np.meshgrid(np.arange(channels), np.arange(channels))
    basis = np.cos(np.pi * k * (2 * n + 1) / (2 * channels))
    return (basis / np.linalg.norm(basis, axis=0)).astype(np.float32)


def noise(deviation: float, level: int) -> float:
    """Standard deviation of latents after a number of halvings, from that of independent noise of the pixels."""
    return gain(level) * deviation / 2**level


class WaveletBottomUp(nn.Module):
    """Haar coefficients of an image: the means at the coarsest scale, and the differences of all scales.

    Attributes:
      scales: Number of scales, each of which halves height and width.
      deviation: Standard deviation of the posterior at first, in units of pixels.
    """

    scales: int
    deviation: float

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width channels"], train: bool = False, condition: PyTree = None
    ) -> tuple[Float[Array, "batch 2 means"], tuple[Array, ...]]:
        """Parameters of the top layer, and the differences of each scale, [batch, h, w, 3, channels], top-down."""
        means = jnp.matmul(inputs - 0.5, colour_basis(inputs.shape[-1]), precision=_PRECISION)
        differences = []
        for level in range(1, self.scales + 1):
            bands = haar(means)
            means = bands[:, :, :, 0]
            differences.append(gain(level) * bands[:, :, :, 1:])
        mean = gain(self.scales) * means.reshape(len(inputs), -1)
        start = nn.initializers.constant(2 * math.log(noise(self.deviation, self.scales)))
        log_variance = self.param("log_variance", start, mean.shape[1:], jnp.float32)
        return jnp.stack([mean, jnp.broadcast_to(log_variance, mean.shape)], axis=1), tuple(reversed(differences))


class WaveletTopDown(nn.Module):
    """Residual blocks at each scale, which give the priors of its differences, and the inverse of the Haar transform.

    The differences of a scale are two layers of latents: those of the first channel of the colour basis, and those of
    the others. Images with one channel have one layer per scale.

    Attributes:
      channels: Number of channels of the network at each scale, the coarsest first.
      blocks: Number of residual blocks before each layer of latents of each scale, the coarsest first.
      deviation: Standard deviation of the posterior at first, in units of pixels.
      event_shape: Shape of one image: height, width and channels.
      likelihood: Likelihood of the outputs, whose locations are the image.
    """

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    deviation: float
    event_shape: tuple[int, int, int]
    likelihood: Likelihood

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "batch latent"],
        latent: Latent,
        features: Sequence[Array] | None = None,
        train: bool = False,
        condition: PyTree = None,
    ) -> Float[Array, "batch ..."]:
        """Outputs of a batch, [batch, *likelihood.output_shape(event_shape)]."""
        height, width, colours = self.event_shape
        parts = (slice(0, 1), slice(1, colours)) if colours > 1 else (slice(0, 1),)
        scales = len(self.channels)
        means = z.reshape(-1, height >> scales, width >> scales, colours) / gain(scales)
        h = nn.Dense(self.channels[0], name="start")(joined(z, condition))[:, None, None]
        for scale, channels in enumerate(self.channels):
            if scale:
                h = Upsample(channels, name=f"upsample_{scale}")(nn.swish(h))
            h = h + Conv3x3(channels, bias=True, name=f"means_{scale}")(8 * means)  # of order 1
            level, differences = scales - scale, []
            for number, part in enumerate(parts):
                for block in range(self.blocks[scale]):
                    h = ResidualBlock(name=f"block_{scale}_{number}_{block}")(h)
                found = None if features is None else features[scale][..., part]
                h, drawn = self._with_latents(f"{scale}_{number}", h, part.stop - part.start, latent, found, level)
                differences.append(drawn / gain(level))
            means = inverse_haar(jnp.concatenate([means[:, :, :, None], jnp.concatenate(differences, axis=-1)], axis=3))
        return self._outputs(h, jnp.matmul(means, colour_basis(colours).T, precision=_PRECISION) + 0.5)

    def _with_latents(
        self, name: str, h: Array, colours: int, latent: Latent, found: Array | None, level: int
    ) -> tuple[Array, Array]:
        """The state after a layer of latents, and its latents, [batch, h, w, 3, colours].

        The mean of the posterior is `found` plus a correction in units of its standard deviation at first.
        """
        shape = (*h.shape[:3], 3, colours)
        activated = nn.swish(h)
        p, q = parameters_of_maps(activated, 3 * colours, f"prior_{name}"), None
        if found is not None:
            inputs = jnp.concatenate([activated, found.reshape(*shape[:3], -1)], axis=-1)
            own = nn.swish(nn.Dense(h.shape[-1], name=f"inference_{name}")(inputs))
            mean, log_variance = jnp.unstack(parameters_of_maps(own, 3 * colours, f"posterior_{name}"), axis=1)
            unit = noise(self.deviation, level)
            q = jnp.stack([found.reshape(mean.shape) + unit * mean, log_variance + 2 * math.log(unit)], axis=1)
        z = latent(p, q).reshape(shape)
        return h + nn.Dense(h.shape[-1], name=f"latents_{name}")(z.reshape(*shape[:3], -1)), z

    def _outputs(self, h: Array, locations: Array) -> Float[Array, "batch ..."]:
        """Outputs with the image as locations; those of the network, 2 x 2 pixels from each of h, are 0 at first."""
        shape = self.likelihood.output_shape(self.event_shape)
        numbers = math.prod(shape[2:])
        maps = nn.Dense(4 * numbers, kernel_init=nn.initializers.zeros, name="outputs")(nn.swish(h))
        outputs = _joined_blocks(maps.reshape(*h.shape[:3], 4, numbers)).reshape(-1, *shape)
        return self.likelihood.with_locations(outputs, locations, self.deviation)
