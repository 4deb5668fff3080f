"""Residual networks for images (He et al., 2016): an encoder, and a decoder that mirrors it."""

import math
from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float, PyTree, Shaped

from vae_jax.distributions.likelihoods import Likelihood
from vae_jax.errors import InputError
from vae_jax.networks.conv import linear_outputs, with_linear_path
from vae_jax.networks.conv3x3 import Image, conv3x3
from vae_jax.networks.conv4x4 import downsample, require_halved, upsample
from vae_jax.networks.dense import batch_normalised, joined

_CHANNELS_PER_GROUP = 16  # Wu and He (2018), table 3
_MOMENTUM = 0.9  # the default of PyTorch, whose momentum is 1 minus this

Norm = Callable[[Array], Array]


class Conv3x3(nn.Module):
    """3 x 3 convolution with zero padding of one pixel that keeps, halves or doubles height and width.

    "halve" is a stride of 2. "double" is nearest-neighbour upsampling before the convolution. Both are computed as the
    4 x 4 convolution of stride 2 and its transpose, whose gradients are fast in the loops of a compiled epoch on CPUs.
    To halve, the kernel is padded with zeros: 16 multiplications for a pixel of the output instead of 9. To double, it
    is summed over the pixels that the upsampling makes equal: 16 for four pixels instead of 36.

    Attributes:
      features: Number of channels of the outputs.
      resize: "keep", "halve" or "double".
      bias: Whether a bias is added.
    """

    features: int
    resize: str = "keep"
    bias: bool = False

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "batch h w {self.features}"]:
        """Outputs of a batch; height and width are those of the inputs, or half or twice as large."""
        kernel = self.param("kernel", nn.initializers.he_normal(), (3, 3, x.shape[-1], self.features), jnp.float32)
        x, kernel = promote_dtype(x, kernel)
        y = self._convolved(x, kernel)
        if not self.bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y + bias.astype(y.dtype).reshape(1, 1, 1, -1)

    def _convolved(self, x: Image, kernel: Array) -> Array:
        if self.resize == "keep":
            return conv3x3(x, kernel)
        if self.resize == "halve":
            return downsample(x, jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0))))
        return upsample(x, _kernel_of_upsampling(kernel))


def _kernel_of_upsampling(kernel: Float[Array, "3 3 channels features"]) -> Float[Array, "4 4 features channels"]:
    """Kernel of the transposed 4 x 4 convolution that is equal to upsampling followed by the 3 x 3 convolution.

    The output pixel (2h + a, 2w + b) is the sum over the 3 x 3 pixels around it, of which each is a copy of an input
    pixel. Input pixel h reaches the outputs 2h - 1 to 2h + 2, so that the mirrored kernel is convolved with 2 x 2 ones.
    """
    mirrored = jnp.pad(kernel[::-1, ::-1], ((1, 1), (1, 1), (0, 0), (0, 0)))
    rows = mirrored[:-1] + mirrored[1:]
    return (rows[:, :-1] + rows[:, 1:]).transpose(0, 1, 3, 2)


class EncoderBlock(nn.Module):
    """Residual block whose first convolution changes the number of channels, and halves height and width or keeps them.

    Attributes:
      features: Number of channels of the outputs.
      halve: Whether height and width are halved.
      norm: Normalisation, called in this module.
    """

    features: int
    halve: bool
    norm: Norm

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "batch h w {self.features}"]:
        """Outputs of a batch."""
        h = nn.relu(self.norm(Conv3x3(self.features, "halve" if self.halve else "keep")(x)))
        h = self.norm(Conv3x3(self.features)(h))
        if self.halve or x.shape[-1] != self.features:
            x = self.norm(nn.Dense(self.features, use_bias=False)(x[:, ::2, ::2] if self.halve else x))
        return nn.relu(h + x)


class DecoderBlock(nn.Module):
    """Residual block whose second convolution changes the number of channels, and doubles height and width or not.

    Attributes:
      features: Number of channels of the outputs.
      double: Whether height and width are doubled, by nearest-neighbour upsampling.
      norm: Normalisation, called in this module.
    """

    features: int
    double: bool
    norm: Norm

    @nn.compact
    def __call__(self, x: Image) -> Float[Array, "batch h w {self.features}"]:
        """Outputs of a batch."""
        h = nn.relu(self.norm(Conv3x3(x.shape[-1])(x)))
        h = self.norm(Conv3x3(self.features, "double" if self.double else "keep")(h))
        if self.double or x.shape[-1] != self.features:
            # Equal to normalising after the upsampling, because each pixel is copied equally often.
            x = self.norm(nn.Dense(self.features, use_bias=False)(x))
        return nn.relu(h + (doubled(x) if self.double else x))


def doubled(x: Image) -> Float[Array, "batch 2*height 2*width channels"]:
    """Nearest-neighbour upsampling: each pixel becomes 2 x 2 pixels."""
    batch, height, width, channels = x.shape
    copies = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return copies.reshape(batch, 2 * height, 2 * width, channels)


class ResNetEncoder(nn.Module):
    """Residual encoder: a 3 x 3 convolution, stages of blocks, a mean over the pixels, and one dense layer.

    Each stage but the first halves height and width and doubles the number of channels. With four stages of two blocks
    it is the ResNet-18 of He et al. (2016) with a 3 x 3 convolution of stride 1, and no pooling, before the blocks.

    Attributes:
      width: Number of channels of the first stage.
      output_shape: Shape of the outputs of one example.
      blocks: Number of blocks of each stage.
      norm: "batch" (Ioffe and Szegedy, 2015) or "group" (Wu and He, 2018). A group has 16 channels,
        or as many as the greatest power of two that divides the number of channels, if this is less.
      pool: Whether the dense layer takes the mean over the pixels of the last stage, which does not depend on their
        positions; otherwise it takes all of these pixels.
      linear: Whether a linear map of the pixels minus 1/2 is added to the outputs (see `ConvEncoder`).
      axis_name: Axis of `pmap` over which the batch is distributed; batch statistics are those of the whole batch.
    """

    width: int
    output_shape: tuple[int, ...]
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    norm: str = "batch"
    pool: bool = True
    linear: bool = False
    axis_name: str | None = None

    last_layer: ClassVar[str] = "outputs"
    """Name of the layer of the outputs, apart from the linear path."""

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch height width channels"],
        train: bool = False,
        condition: PyTree = None,
        mask: Shaped[Array, " batch"] | None = None,
    ) -> Float[Array, "batch ..."]:
        """Outputs of a batch, [batch, *output_shape]; `condition` is concatenated to the inputs of the dense layer.

        Batch statistics exclude examples whose `mask` is 0.
        """
        norm = _norm(self, train, mask)
        h = nn.relu(norm(Conv3x3(self.width)(inputs)))
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                h = EncoderBlock(self.width * 2**stage, stage > 0 and block == 0, norm)(h)
        h = joined(h.mean(axis=(1, 2)) if self.pool else h, condition)
        outputs = nn.Dense(math.prod(self.output_shape), name=self.last_layer)(h)
        if self.linear:
            outputs += linear_outputs(inputs, outputs.shape[1])
        return outputs.reshape(-1, *self.output_shape)


class ResNetDecoder(nn.Module):
    """Residual decoder: one dense layer, stages of blocks, and a 3 x 3 convolution.

    Each stage but the last doubles height and width by nearest-neighbour upsampling and halves the number of channels.

    Attributes:
      width: Number of channels of the last stages.
      output_shape: Shape of the outputs of one example: height, width, and one or more axes of channels.
      blocks: Number of blocks of each stage.
      norm: "batch" or "group" (see `ResNetEncoder`).
      linear: Whether a linear map of the inputs, with a bias initialised at 1/2, is added to the outputs.
      likelihood: Likelihood whose locations the linear map moves (see `ConvDecoder`).
      event_shape: Shape of the locations of one example, with `likelihood`.
      axis_name: Axis of `pmap` over which the batch is distributed; batch statistics are those of the whole batch.
    """

    width: int
    output_shape: tuple[int, ...]
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    norm: str = "batch"
    linear: bool = False
    likelihood: Likelihood | None = None
    event_shape: tuple[int, ...] | None = None
    axis_name: str | None = None

    last_layer: ClassVar[str] = "outputs"
    """Name of the layer of the outputs, apart from the linear path."""

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch latent"],
        train: bool = False,
        condition: PyTree = None,
        mask: Shaped[Array, " batch"] | None = None,
    ) -> Float[Array, "batch ..."]:
        """Outputs of a batch, [batch, *output_shape]; `condition` is concatenated to the inputs of the dense layer.

        Batch statistics exclude examples whose `mask` is 0.
        """
        norm = _norm(self, train, mask)
        height, width, *channels = self.output_shape
        stages = len(self.blocks)
        scale = 2 ** (stages - 1)
        require_halved(height, width, stages - 1)
        start = (height // scale, width // scale, self.width * scale)
        h = nn.Dense(math.prod(start))(joined(inputs, condition)).reshape(-1, *start)
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                features = self.width * max(scale // 2 ** (stage + 1), 1)
                h = DecoderBlock(features, stage < stages - 1 and block == 0, norm)(h)
        last = Conv3x3(math.prod(channels), bias=self.likelihood is not None, name=self.last_layer)
        outputs = last(h).reshape(-1, *self.output_shape)
        return with_linear_path(self, inputs, outputs) if self.linear else outputs


def require_norm(norm: str) -> None:
    """Raise `InputError` unless there is a normalisation of this name."""
    if norm not in ("batch", "group"):
        raise InputError(f"norm is {norm!r}; expected 'batch' or 'group'")


def _norm(network: ResNetEncoder | ResNetDecoder, train: bool, mask: Array | None) -> Norm:
    """The normalisation of a network in this call."""
    require_norm(network.norm)
    if network.norm == "group":
        return lambda h: nn.GroupNorm(num_groups=None, group_size=math.gcd(_CHANNELS_PER_GROUP, h.shape[-1]))(h)
    axis_name = None if network.is_initializing() else network.axis_name  # there is no axis while variables are made
    return lambda h: batch_normalised(h, train, mask, _MOMENTUM, axis_name)
