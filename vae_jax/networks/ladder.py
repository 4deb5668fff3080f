"""Networks of ladder VAEs: a bottom-up encoder, and a top-down decoder that samples the layers of latents on its way.

An encoder returns the parameters of the posterior of the top layer, and features for the layers below it. A decoder
starts from the latents of the top layer. At each layer below, it calls `latent(p, q)` with the parameters of prior and
posterior given the layers above, [batch, 2, size] each: means and log-variances. It receives the latents, [batch,
size]. Without features there is no posterior, and q is None. The model samples the latents and computes their densities
(see `LadderVAE`).
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from vae_jax.networks.conv4x4 import Downsample, Upsample
from vae_jax.networks.dense import Gated, gated, joined
from vae_jax.networks.residual import Conv3x3

Latent = Callable[[Array, Array | None], Array]
"""Function from the parameters of prior and posterior, [batch, 2, size], to latents, [batch, size]."""


class GatedLayers(nn.Module):
    """Gated dense layers (see `Gated`) of the concatenated inputs.

    Attributes:
      hidden: Widths of the layers.
    """

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, *inputs: PyTree) -> Float[Array, "batch width"]:
        """Outputs of a batch, [batch, hidden[-1]]."""
        h = joined(inputs[0], inputs[1:])
        for width in self.hidden:
            h = gated(h, width)
        return h


class DenseBottomUp(nn.Module):
    """Gated dense layers from the inputs to features for each layer of latents, the bottom layer first.

    Attributes:
      hidden: Widths of the gated layers before the features of each layer of latents.
      output_shape: Shape of the parameters of the top layer of one example.
      layers: Number of layers of latents.
    """

    hidden: tuple[int, ...]
    output_shape: tuple[int, ...]
    layers: int

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch ..."], train: bool = False, condition: PyTree = None
    ) -> tuple[Float[Array, "batch ..."], tuple[Array, ...]]:
        """Parameters of the top layer, [batch, *output_shape], and features of the layers below, top-down."""
        features = [GatedLayers(self.hidden)(inputs, condition)]
        for _ in range(self.layers - 1):
            features.append(features[-1] + GatedLayers(self.hidden)(features[-1]))
        outputs = nn.Dense(math.prod(self.output_shape))(features[-1])
        return outputs.reshape(-1, *self.output_shape), tuple(reversed(features[:-1]))


class DenseTopDown(nn.Module):
    """Gated dense layers from the latents of the top layer to the outputs, with further latents on the way.

    Each prior and each posterior has gated layers of its own, as in the two-layered model of Tomczak and Welling (2018,
    section 4).

    Attributes:
      hidden: Widths of the gated layers of each layer of latents: of its prior, of its posterior, and after it.
      output_shape: Shape of the outputs of one example.
      latent_dims: Number of latents of each layer below the top one, top-down.
    """

    hidden: tuple[int, ...]
    output_shape: tuple[int, ...]
    latent_dims: tuple[int, ...]

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "batch latent"],
        latent: Latent,
        features: Any = None,
        train: bool = False,
        condition: PyTree = None,
    ) -> Float[Array, "batch ..."]:
        """Outputs of a batch, [batch, *output_shape]."""
        h = GatedLayers(self.hidden, name="layers_1")(z, condition)
        for number, size in enumerate(self.latent_dims, start=2):
            p, q = self._parameters(f"prior_{number}", size, h), None
            if features is not None:
                q = self._parameters(f"posterior_{number}", size, h, features[number - 2])
            h = h + GatedLayers(self.hidden, name=f"layers_{number}")(h, latent(p, q))
        return nn.Dense(math.prod(self.output_shape), name="outputs")(h).reshape(-1, *self.output_shape)

    def _parameters(self, name: str, size: int, *inputs: Array) -> Float[Array, "batch 2 {size}"]:
        return Gated(self.hidden, (2, size), name=name)(jnp.concatenate(inputs, axis=-1))


class ResidualBlock(nn.Module):
    """h + conv(swish(conv(swish(h)))) with two 3 x 3 convolutions, and no normalisation.

    The second convolution starts at a tenth of He's standard deviation, so that many blocks in a row keep the scale.
    """

    @nn.compact
    def __call__(self, h: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
        """Outputs of a batch, of the shape of the inputs."""
        inner = Conv3x3(h.shape[-1], bias=True)(nn.swish(h))
        return h + 0.1 * Conv3x3(h.shape[-1], bias=True)(nn.swish(inner))


class ConvBottomUp(nn.Module):
    """Residual blocks at each scale of an image, of which the finest is half of its height and width.

    Attributes:
      channels: Number of channels at each scale, the finest first.
      blocks: Number of residual blocks at each scale.
      output_shape: Shape of the parameters of the top layer of one example.
    """

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    output_shape: tuple[int, ...]

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width channels"], train: bool = False, condition: PyTree = None
    ) -> tuple[Float[Array, "batch ..."], tuple[Array, ...]]:
        """Parameters of the top layer, [batch, *output_shape], and features of each scale, the coarsest first."""
        h, features = inputs, []
        for channels, blocks in zip(self.channels, self.blocks, strict=True):
            h = Downsample(channels)(h if h is inputs else nn.swish(h))
            for _ in range(blocks):
                h = ResidualBlock()(h)
            features.append(h)
        outputs = nn.Dense(math.prod(self.output_shape))(joined(nn.swish(h), condition))
        return outputs.reshape(-1, *self.output_shape), tuple(reversed(features))


class ConvTopDown(nn.Module):
    """Residual blocks from the latents of the top layer to an image, with maps of latents on the way.

    The parameters of each posterior are those of the prior plus an output of the network (Vahdat and Kautz, 2020,
    section 3.2). Prior and posterior are N(0, I) at first, so that deep decoders start with bounded outputs.

    Attributes:
      channels: Number of channels at each scale, the coarsest first; the finest is half of the image.
      groups: Number of layers of latents at each scale.
      latent_channels: Number of channels of each map of latents.
      output_shape: Shape of the outputs of one example: height, width, and one or more axes of channels.
    """

    channels: tuple[int, ...]
    groups: tuple[int, ...]
    latent_channels: int
    output_shape: tuple[int, ...]

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "batch latent"],
        latent: Latent,
        features: Any = None,
        train: bool = False,
        condition: PyTree = None,
    ) -> Float[Array, "batch ..."]:
        """Outputs of a batch, [batch, *output_shape]."""
        height, width, *outputs = self.output_shape
        coarsest = 2 ** len(self.channels)
        start = (height // coarsest, width // coarsest, self.channels[0])
        h = nn.Dense(math.prod(start), name="start")(joined(z, condition)).reshape(-1, *start)
        for scale, groups in enumerate(self.groups):
            if scale:
                h = Upsample(self.channels[scale], name=f"upsample_{scale}")(nn.swish(h))
            for group in range(groups):
                h = self._with_latents(f"{scale}_{group}", h, latent, None if features is None else features[scale])
        h = Upsample(math.prod(outputs), name="outputs")(nn.swish(h))
        return h.reshape(-1, *self.output_shape)

    def _with_latents(self, name: str, h: Array, latent: Latent, features: Array | None) -> Array:
        """The state after a map of latents and a residual block."""
        p, q = self._parameters(f"prior_{name}", h), None
        if features is not None:
            both = nn.Dense(h.shape[-1], name=f"features_{name}")(jnp.concatenate([h, features], axis=-1))
            own = Conv3x3(h.shape[-1], bias=True, name=f"inference_{name}")(nn.swish(both))
            q = p + self._parameters(f"posterior_{name}", own)
        z = latent(p, q).reshape(*h.shape[:3], self.latent_channels)
        return ResidualBlock(name=f"block_{name}")(h + nn.Dense(h.shape[-1], name=f"latents_{name}")(z))

    def _parameters(self, name: str, h: Array) -> Float[Array, "batch 2 size"]:
        return parameters_of_maps(nn.swish(h), self.latent_channels, name)


def parameters_of_maps(
    h: Float[Array, "batch height width channels"], latent_channels: int, name: str
) -> Float[Array, "batch 2 size"]:
    """Means and log-variances of a map of latents, or what is added to them, which are 0 at first.

    They are the outputs of a dense layer with this name of the module in whose compact method the function is called.
    """
    maps = nn.Dense(2 * latent_channels, kernel_init=nn.initializers.zeros, name=name)(h)
    return jnp.moveaxis(maps.reshape(len(h), -1, 2, latent_channels), 2, 1).reshape(len(h), 2, -1)
