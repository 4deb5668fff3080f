"""Convolutional networks for images."""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from vae_jax.distributions.likelihoods import Likelihood
from vae_jax.networks.conv4x4 import Downsample, Upsample
from vae_jax.networks.dense import joined

LINEAR_SCALE = 4.0  # see `_scaled`


class ConvEncoder(nn.Module):
    """Convolutions of stride 2 with ReLU, followed by one dense layer.

    Attributes:
      features: Number of channels after each convolution; each convolution halves height and width.
      output_shape: Shape of the outputs of one example.
      linear: Whether a linear map of the pixels minus 1/2 is added to the outputs. With such maps in encoder and
        decoder, an autoencoder quickly learns the principal components, and the other layers learn the residual.
    """

    features: tuple[int, ...]
    output_shape: tuple[int, ...]
    linear: bool = False

    @property
    def last_layer(self) -> str:
        """Name of the layer of the outputs, apart from the linear path."""
        return "Dense_0"

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width channels"], train: bool = False, condition: PyTree = None
    ) -> Float[Array, "batch ..."]:
        """Outputs of a batch, [batch, *output_shape]; `condition` is concatenated to the inputs of the dense layer."""
        h = inputs
        for features in self.features:
            h = nn.relu(Downsample(features)(h))
        outputs = nn.Dense(math.prod(self.output_shape))(joined(h, condition))
        if self.linear:
            outputs += linear_outputs(inputs, outputs.shape[1])
        return jnp.reshape(outputs, (len(inputs), *self.output_shape))


class ConvDecoder(nn.Module):
    """One dense layer, followed by transposed convolutions of stride 2 with a ReLU before each.

    Attributes:
      features: Number of channels before each convolution; each convolution doubles height and width.
      output_shape: Shape of the outputs of one example: height, width, and one or more axes of channels.
      linear: Whether a linear map of the inputs, with a bias initialised at 1/2, is added to the outputs.
      likelihood: Likelihood whose locations the linear map moves, or None if the outputs are the locations.
      event_shape: Shape of the locations of one example, with `likelihood`.
    """

    features: tuple[int, ...]
    output_shape: tuple[int, ...]
    linear: bool = False
    likelihood: Likelihood | None = None
    event_shape: tuple[int, ...] | None = None

    @property
    def last_layer(self) -> str:
        """Name of the layer of the outputs, apart from the linear path."""
        return f"Upsample_{len(self.features) - 1}"

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch latent"], train: bool = False, condition: PyTree = None
    ) -> Float[Array, "batch ..."]:
        """Outputs of a batch, [batch, *output_shape]; `condition` is concatenated to the inputs of the dense layer."""
        height, width, *channels = self.output_shape
        scale = 2 ** len(self.features)
        start = (height // scale, width // scale, self.features[0])
        h = nn.Dense(math.prod(start), kernel_init=nn.initializers.he_normal())(joined(inputs, condition))
        h = h.reshape(-1, *start)
        for features in (*self.features[1:], math.prod(channels)):
            h = Upsample(features)(nn.relu(h))
        outputs = h.reshape(-1, *self.output_shape)
        return with_linear_path(self, inputs, outputs) if self.linear else outputs


def linear_outputs(inputs: Float[Array, "batch ..."], size: int) -> Float[Array, "batch {size}"]:
    """Linear map of the pixels minus 1/2, as the layer "linear" of the network in whose compact method it is called."""
    # Approximately centred, because a common mean of the pixels would dominate the gradient of the weights.
    pixels = _scaled(inputs.reshape(len(inputs), -1) - 0.5)
    kernel_init = nn.initializers.normal(1 / LINEAR_SCALE)
    return nn.Dense(size, use_bias=False, kernel_init=kernel_init, name="linear")(pixels)


def with_linear_path(
    network: Any, inputs: Float[Array, "batch latent"], outputs: Float[Array, "batch ..."]
) -> Float[Array, "batch ..."]:
    """The outputs, [batch, *output_shape], and the linear map of the inputs to the locations of a decoder."""
    if network.likelihood is None:
        return outputs + _linear_pixels(inputs, network.output_shape)
    added: Array = network.likelihood.with_locations(outputs, _linear_pixels(inputs, network.event_shape))
    return added


def _linear_pixels(inputs: Float[Array, "batch latent"], shape: tuple[int, ...]) -> Float[Array, "batch ..."]:
    """Linear map of the latents with a bias initialised at 1/2, [batch, *shape], as the layer "linear" of a network."""
    zeros, grey = nn.initializers.zeros, nn.initializers.constant(0.5)
    pixels = nn.Dense(math.prod(shape), kernel_init=zeros, bias_init=grey, name="linear")(_scaled(inputs))
    return pixels.reshape(-1, *shape)


def _scaled(inputs: Float[Array, "batch n"]) -> Float[Array, "batch n"]:
    """Inputs of a linear map, scaled so that the order of its weights does not depend on the number of inputs.

    The size of Adam's steps does not depend on the scale of the weights. With weights of order 1/sqrt(n), one step at a
    learning rate of 2e-3 would change a sum over 12,288 pixels by several units and move encodings far from the prior.
    """
    return inputs * (LINEAR_SCALE / math.sqrt(inputs.shape[1]))
