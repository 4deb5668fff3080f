"""Dense networks."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PyTree, Shaped

from vae_jax.errors import InputError


def identity(x: Array) -> Array:
    """Return the argument."""
    return x


class MLP(nn.Module):
    """Dense layers with activations, from inputs of any shape to outputs of `output_shape`.

    Attributes:
      hidden: Widths of the hidden layers.
      output_shape: Shape of the outputs of one example.
      activation: Activation function after each hidden layer. Weights are initialised as in He et al. (2015) with ReLU,
        and as in Glorot and Bengio (2010) with other activations.
      output_activation: Activation function after the last layer.
      batch_norm: Momentum of the running statistics if the hidden layers are batch-normalised (Ioffe and Szegedy,
        2015): the weight of the old value. It corresponds to 1 - momentum in PyTorch.
      axis_name: Axis of `pmap` over which the batch is distributed; the statistics are then those of the whole batch.
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
        """Outputs of a batch, [batch, *output_shape].

        `condition` is concatenated to the inputs. Batch statistics exclude examples whose `mask` is 0.

        Raises:
          InputError: A mask is given, but the batch statistics are computed over an axis of `pmap`.
        """
        h = joined(inputs, condition)  # [B, entries] or [B, Z]
        axis_name = None if self.is_initializing() else self.axis_name  # there is no axis while variables are made
        kernel_init = nn.initializers.he_normal() if self.activation is nn.relu else nn.initializers.glorot_uniform()
        for width in self.hidden:
            h = nn.Dense(width, kernel_init=kernel_init)(h)
            if self.batch_norm is not None:
                h = batch_normalised(h, train, mask, self.batch_norm, axis_name)
            h = self.activation(h)
        outputs = self.output_activation(nn.Dense(math.prod(self.output_shape))(h))
        return jnp.reshape(outputs, (len(inputs), *self.output_shape))


def batch_normalised(
    h: Float[Array, "batch *rest"],
    train: bool,
    mask: Shaped[Array, " batch"] | None,
    momentum: float,
    axis_name: str | None = None,
) -> Float[Array, "batch *rest"]:
    """Batch-normalised activations, with statistics of all axes but the last; called in a compact method.

    Args:
      h: Activations, [batch, ..., channels].
      train: Whether the statistics of the batch are used, and the running ones updated.
      mask: Examples whose mask is 0 are left out of the statistics.
      momentum: Weight of the old running statistics in an update.
      axis_name: Axis of `pmap` over which the batch is distributed.

    Raises:
      InputError: A mask is given, but the batch statistics are computed over an axis of `pmap`.
    """
    if axis_name is not None and mask is not None:
        raise InputError(
            "batch norm under pmap takes the mean of the devices' means, so it can't leave masked examples out; "
            "drop the mask, or share the batch by fit(mesh=vj.device_mesh())"
        )
    normalise = nn.BatchNorm(use_running_average=not train, momentum=momentum, axis_name=axis_name)
    return normalise(h, mask=None if mask is None else mask.reshape(-1, *[1] * (h.ndim - 1)) > 0)


def joined(inputs: Float[Array, "batch ..."], condition: PyTree) -> Float[Array, "batch n"]:
    """Concatenate the inputs and all arrays of a condition as rows, [batch, n]."""
    parts = [inputs, *jax.tree.leaves(condition)]
    rows = [part.reshape(len(inputs), -1) for part in parts]
    return rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=-1)


class Gated(nn.Module):
    """Gated dense layers, h = (W x + b) * sigmoid(V x + c) (Dauphin et al., 2017), followed by a dense layer.

    Attributes:
      hidden: Widths of the gated layers.
      output_shape: Shape of the outputs of one example.
    """

    hidden: tuple[int, ...]
    output_shape: tuple[int, ...]

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch ..."], train: bool = False, condition: PyTree = None
    ) -> Float[Array, "batch ..."]:
        """Outputs of a batch, [batch, *output_shape]; `condition` is concatenated to the inputs."""
        h = joined(inputs, condition)
        for width in self.hidden:
            h = gated(h, width)
        outputs = nn.Dense(math.prod(self.output_shape))(h)
        return jnp.reshape(outputs, (len(inputs), *self.output_shape))


def gated(h: Float[Array, "batch n"], width: int) -> Float[Array, "batch {width}"]:
    """One gated dense layer, in the compact method of a network."""
    linear, gate = jnp.split(nn.Dense(2 * width)(h), 2, axis=-1)
    return linear * nn.sigmoid(gate)
