"""Linen networks, deterministic: x -> parameters of q(z|x), z -> parameters of p(x|z). No sampling inside.

A network of one's own needs one method, `__call__(self, inputs, train=False)`, and a third argument `condition` where
the model is conditional. `train` is True only in a train step: that is where batch statistics may be updated. A network
with batch statistics also takes `mask` [batch], which is 0 for the examples that are padding.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Shaped

from vae_jax.convolution import Downsample, Upsample
from vae_jax.errors import InputError

_LINEAR_SCALE = 4.0


def identity(x: Array) -> Array:
    """x."""
    return x


class MLP(nn.Module):
    """Dense layers with an activation between them, from inputs of any shape to outputs of `output_shape`.

    Attributes:
      hidden: widths of the hidden layers.
      output_shape: shape of one example's outputs.
      activation: after each hidden layer; ReLU's weights begin as He et al. (2015) have them, others' as Glorot and
        Bengio (2010).
      output_activation: after the last layer.
      batch_norm: momentum of the running statistics if the hidden layers are batch-normalised (Ioffe and Szegedy,
        2015), the share of the old value that is kept: PyTorch's momentum m is 1 - m here.
      axis_name: under pmap, the axis over which the batch is spread: the statistics are then the whole batch's.
    """

    hidden: tuple[int, ...]
    output_shape: tuple[int, ...]
    activation: Callable[[Array], Array] = nn.relu
    output_activation: Callable[[Array], Array] = identity
    batch_norm: float | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "batch ..."],
        train: bool = False,
        condition: Float[Array, "batch classes"] | None = None,
        mask: Shaped[Array, " batch"] | None = None,
    ) -> Float[Array, "batch ..."]:
        """Outputs of one batch, [batch, *output_shape].

        `condition` joins the inputs. Examples where `mask` is 0 do not enter the batch statistics.
        """
        h = inputs.reshape(len(inputs), -1)  # [B, pixels] or [B, Z]
        if condition is not None:
            h = jnp.concatenate([h, condition], axis=-1)
        kernel_init = nn.initializers.he_normal() if self.activation is nn.relu else nn.initializers.glorot_uniform()
        for width in self.hidden:
            h = nn.Dense(width, kernel_init=kernel_init)(h)
            if self.batch_norm is not None:
                h = self._normalised(h, train, self.batch_norm, mask)
            h = self.activation(h)
        outputs = self.output_activation(nn.Dense(math.prod(self.output_shape))(h))
        return jnp.reshape(outputs, (len(inputs), *self.output_shape))

    def _normalised(self, h: Array, train: bool, momentum: float, mask: Array | None) -> Array:
        # While the variables are made there is no axis to take a mean over.
        axis_name = None if self.is_initializing() else self.axis_name
        if axis_name is not None and mask is not None:
            raise InputError(
                "batch norm under pmap takes the mean of the devices' means, so it can't leave masked examples out; "
                "drop the mask, or share the batch by fit(mesh=vj.device_mesh())"
            )
        normalise = nn.BatchNorm(use_running_average=not train, momentum=momentum, axis_name=axis_name)
        return normalise(h, mask=None if mask is None else mask[:, None] > 0)


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
        self, inputs: Float[Array, "batch height width channels"], train: bool = False
    ) -> Float[Array, "batch ..."]:
        """Outputs of one batch, [batch, *output_shape]."""
        h = inputs
        for features in self.features:
            h = nn.relu(Downsample(features)(h))
        outputs = nn.Dense(math.prod(self.output_shape))(h.reshape(len(h), -1))
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
      output_shape: height, width, channels.
      linear: whether a linear map of the inputs, and a bias that begins at 1/2, are added to the outputs.
    """

    features: tuple[int, ...]
    output_shape: tuple[int, ...]
    linear: bool = False

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch latent"], train: bool = False
    ) -> Float[Array, "batch height width channels"]:
        """Outputs of one batch, [batch, *output_shape]."""
        height, width, channels = self.output_shape
        scale = 2 ** len(self.features)
        start = (height // scale, width // scale, self.features[0])
        h = nn.Dense(math.prod(start), kernel_init=nn.initializers.he_normal())(inputs).reshape(-1, *start)
        for features in (*self.features[1:], channels):
            h = Upsample(features)(nn.relu(h))
        if self.linear:
            zeros, grey = nn.initializers.zeros, nn.initializers.constant(0.5)
            pixels = nn.Dense(math.prod(self.output_shape), kernel_init=zeros, bias_init=grey, name="linear")
            h += pixels(_scaled(inputs)).reshape(h.shape)
        return h


def _scaled(inputs: Float[Array, "batch n"]) -> Float[Array, "batch n"]:
    """What a linear path takes: its weights are of one order then, however many inputs there are.

    Adam's steps are of one size. In weights of order 1/sqrt(n), one at a rate of 2e-3 changes a sum over 12,288 pixels
    by several units, and throws encodings far from the prior.
    """
    return inputs * (_LINEAR_SCALE / math.sqrt(inputs.shape[1]))
