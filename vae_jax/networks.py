"""Linen networks: x -> parameters of q(z|x), z -> parameters of p(x|z).

A network of one's own needs one method, `__call__(self, inputs, train=False)`, and a third argument `condition` where
the model is conditional. `train` is True only in a train step: batch statistics are updated, and dropout is active. A
network with batch statistics also takes `mask` [batch], which is 0 for the examples that are padding.

The noise of `nn.Dropout`, or of any `self.make_rng(...)`, is drawn per example: it depends on the example's key alone.
The exception are networks with batch statistics, whose noise is drawn for the batch as a whole, from the key of its
first example.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float, PyTree, Shaped

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
        condition: PyTree = None,
        mask: Shaped[Array, " batch"] | None = None,
    ) -> Float[Array, "batch ..."]:
        """Outputs of one batch, [batch, *output_shape].

        `condition` joins the inputs. Examples where `mask` is 0 do not enter the batch statistics.
        """
        h = _joined(inputs, condition)  # [B, entries] or [B, Z]
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
        self, inputs: Float[Array, "batch height width channels"], train: bool = False, condition: PyTree = None
    ) -> Float[Array, "batch ..."]:
        """Outputs of one batch, [batch, *output_shape]; `condition` joins the dense layer's inputs."""
        h = inputs
        for features in self.features:
            h = nn.relu(Downsample(features)(h))
        outputs = nn.Dense(math.prod(self.output_shape))(_joined(h, condition))
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
        h = nn.Dense(math.prod(start), kernel_init=nn.initializers.he_normal())(_joined(inputs, condition))
        h = h.reshape(-1, *start)
        for features in (*self.features[1:], math.prod(channels)):
            h = Upsample(features)(nn.relu(h))
        if self.linear:
            zeros, grey = nn.initializers.zeros, nn.initializers.constant(0.5)
            pixels = nn.Dense(math.prod(self.output_shape), kernel_init=zeros, bias_init=grey, name="linear")
            h += pixels(_scaled(inputs)).reshape(h.shape)
        return h.reshape(-1, *self.output_shape)


def _joined(inputs: Float[Array, "batch ..."], condition: PyTree) -> Float[Array, "batch n"]:
    """The inputs and every array of a condition as rows, [batch, n]."""
    parts = [inputs, *jax.tree.leaves(condition)]
    rows = [part.reshape(len(inputs), -1) for part in parts]
    return rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=-1)


class Gated(nn.Module):
    """Dense layers with gates, h = (W x + b) * sigmoid(V x + c) (Dauphin et al., 2017), then a dense layer.

    Attributes:
      hidden: widths of the gated layers.
      output_shape: shape of one example's outputs.
    """

    hidden: tuple[int, ...]
    output_shape: tuple[int, ...]

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch ..."], train: bool = False, condition: PyTree = None
    ) -> Float[Array, "batch ..."]:
        """Outputs of one batch, [batch, *output_shape]; `condition` joins the inputs."""
        h = _joined(inputs, condition)
        for width in self.hidden:
            linear, gate = jnp.split(nn.Dense(2 * width)(h), 2, axis=-1)
            h = linear * nn.sigmoid(gate)
        outputs = nn.Dense(math.prod(self.output_shape))(h)
        return jnp.reshape(outputs, (len(inputs), *self.output_shape))


class NNXNetwork(nn.Module):
    """A network written as a Flax NNX class, as a Linen module (`flax.nnx.bridge.ToLinen`).

    An NNX module has no argument `train`: `module.train()` and `module.eval()` set the mode of its dropout and batch
    norm layers, and one of them is called before each pass. `ToLinen` alone would leave the mode as the class sets it.

    Attributes:
      nnx_class: its `__init__` takes `rngs` and the settings, its `__call__` inputs and, if it needs them, `condition`,
        `mask` or `observed`.
      settings: names and values of the other arguments of `__init__`.
    """

    nnx_class: Any
    settings: tuple[tuple[str, Any], ...] = ()

    @nn.compact
    def __call__(self, inputs: Float[Array, "batch ..."], train: bool = False, **arguments: Any) -> Array:
        """Outputs of one batch."""
        from flax.nnx import bridge  # imported here: most programs have no NNX class

        def in_mode(module: Any, *args: Any, **kwargs: Any) -> Array:
            set_mode = module.train if train else module.eval
            set_mode()
            return module(*args, **kwargs)

        module = bridge.ToLinen(self.nnx_class, kwargs=FrozenDict(self.settings), name="nnx")
        return module(inputs, nnx_method=in_mode, **arguments)


def from_nnx(cls: type, **kwargs: Any) -> NNXNetwork:
    """A network written as a Flax NNX class, as a Linen module.

    The class is given, not an instance: its weights are made by `model.init`, from `cls(**kwargs, rngs=...)`.
    """
    return NNXNetwork(cls, tuple(sorted(kwargs.items())))


def takes(network: nn.Module, argument: str) -> bool:
    """Whether the network's `__call__` names this argument."""
    cls = network.nnx_class if isinstance(network, NNXNetwork) else type(network)
    return argument in inspect.signature(cls.__call__).parameters


def _scaled(inputs: Float[Array, "batch n"]) -> Float[Array, "batch n"]:
    """What a linear path takes: its weights are of one order then, however many inputs there are.

    Adam's steps are of one size. In weights of order 1/sqrt(n), one at a rate of 2e-3 changes a sum over 12,288 pixels
    by several units, and throws encodings far from the prior.
    """
    return inputs * (_LINEAR_SCALE / math.sqrt(inputs.shape[1]))
