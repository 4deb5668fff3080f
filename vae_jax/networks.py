"""Linen networks, deterministic: x -> parameters of q(z|x), z -> parameters of p(x|z). No sampling inside.

A network of one's own needs one method, `__call__(self, inputs, train=False)`. `train` is True only in a train step:
that is where batch statistics may be updated.
"""

import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


class MLP(nn.Module):
    """Dense layers with ReLU between them, from inputs of any shape to outputs of `output_shape`.

    Attributes:
      hidden: widths of the hidden layers.
      output_shape: shape of one example's outputs; the last layer is linear.
    """

    hidden: tuple[int, ...]
    output_shape: tuple[int, ...]

    @nn.compact
    def __call__(self, inputs: Float[Array, "batch ..."], train: bool = False) -> Float[Array, "batch ..."]:
        """Outputs of one batch, [batch, *output_shape]."""
        h = inputs.reshape(len(inputs), -1)  # [B, pixels] or [B, Z]
        for width in self.hidden:
            h = nn.relu(nn.Dense(width, kernel_init=nn.initializers.he_normal())(h))
        outputs = nn.Dense(math.prod(self.output_shape))(h)
        return jnp.reshape(outputs, (len(inputs), *self.output_shape))
