"""Convolutional networks, for images."""

import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from vae_jax.networks.convolution import Downsample, Upsample
from vae_jax.networks.dense import joined

_LINEAR_SCALE = 4.0


class ConvEncoder(nn.Module):
    """Stride-2 convolutions with ReLU, each halving the image, then one dense layer.

    Attributes:
      features: channels after each convolution.
      output_shape: shape of one example's outputs.
      linear: whether a linear map of the pixels, of which 1/2 is taken first, is added to the outputs. With both
        networks' an autoencoder soon has the principal components, and learns what they leave.
    """

    features: tuple[int, ...]
    output_shape: tuple[int, ...]
    linear: bool = False

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width channels"], train: bool = False, condition: PyTree = None
    ) -> Float[Array, "batch ..."]:
        """Outputs of one batch, [batch, *output_shape]; `condition` joins the dense layer's inputs."""
        h = inputs
        for features in self.features:
            h = nn.relu(Downsample(features)(h))
        outputs = nn.Dense(math.prod(self.output_shape))(joined(h, condition))
        if self.linear:
            # Centred, or nearly so: a common mean would be most of what the weights' gradients have to say.
            pixels = _scaled(inputs.reshape(len(inputs), -1) - 0.5)
            kernel_init = nn.initializers.normal(1 / _LINEAR_SCALE)
            outputs += nn.Dense(outputs.shape[1], use_bias=False, kernel_init=kernel_init, name="linear")(pixels)
        return jnp.reshape(outputs, (len(inputs), *self.output_shape))


class ConvDecoder(nn.Module):
    """The mirror image of `ConvEncoder`: one dense layer, then transposed convolutions, each doubling the image.

    Attributes:
      features: channels before each convolution, ReLU after each of them but the last.
      output_shape: height, width, and one axis or more of channels.
      linear: whether a linear map of the inputs, and a bias that begins at 1/2, are added to the outputs.
    """

    features: tuple[int, ...]
    output_shape: tuple[int, ...]
    linear: bool = False

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch latent"], train: bool = False, condition: PyTree = None
    ) -> Float[Array, "batch ..."]:
        """Outputs of one batch, [batch, *output_shape]; `condition` joins the dense layer's inputs."""
        height, width, *channels = self.output_shape
        scale = 2 ** len(self.features)
        start = (height // scale, width // scale, self.features[0])
        h = nn.Dense(math.prod(start), kernel_init=nn.initializers.he_normal())(joined(inputs, condition))
        h = h.reshape(-1, *start)
        for features in (*self.features[1:], math.prod(channels)):
            h = Upsample(features)(nn.relu(h))
        if self.linear:
            zeros, grey = nn.initializers.zeros, nn.initializers.constant(0.5)
            pixels = nn.Dense(math.prod(self.output_shape), kernel_init=zeros, bias_init=grey, name="linear")
            h += pixels(_scaled(inputs)).reshape(h.shape)
        return h.reshape(-1, *self.output_shape)


def _scaled(inputs: Float[Array, "batch n"]) -> Float[Array, "batch n"]:
    """What a linear path takes: its weights are of one order then, however many inputs there are.

    Adam's steps are of one size. In weights of order 1/sqrt(n), one at a rate of 2e-3 changes a sum over 12,288 pixels
    by several units, and throws encodings far from the prior.
    """
    return inputs * (_LINEAR_SCALE / math.sqrt(inputs.shape[1]))
