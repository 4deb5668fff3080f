"""Flax NNX networks as Linen modules."""

import inspect
from typing import Any

from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float


class NNXNetwork(nn.Module):
    """Flax NNX network as a Linen module (`flax.nnx.bridge.ToLinen`).

    An NNX module has no argument `train`. Instead, `module.train()` or `module.eval()` is called before each forward
    pass, which sets the mode of its dropout and batch norm layers; `ToLinen` alone would not change the mode.

    Attributes:
      nnx_class: NNX class. Its `__init__` accepts `rngs` and the settings, its `__call__` the inputs and, if needed,
        `condition`, `mask` or `observed`.
      settings: Names and values of the other arguments of `__init__`.
    """

    nnx_class: Any
    settings: tuple[tuple[str, Any], ...] = ()

    @nn.compact
    def __call__(self, inputs: Float[Array, "batch ..."], train: bool = False, **arguments: Any) -> Array:
        """Outputs of a batch, [batch, ...]."""
        from flax.nnx import bridge  # imported here, because few programs use NNX

        def in_mode(module: Any, *args: Any, **kwargs: Any) -> Array:
            set_mode = module.train if train else module.eval
            set_mode()
            return module(*args, **kwargs)

        module = bridge.ToLinen(self.nnx_class, kwargs=FrozenDict(self.settings), name="nnx")
        return module(inputs, nnx_method=in_mode, **arguments)


def from_nnx(cls: type, **kwargs: Any) -> NNXNetwork:
    """Convert a Flax NNX class to a Linen module.

    Args:
      cls: NNX class, not an instance: `model.init` creates the weights by `cls(**kwargs, rngs=...)`.
      **kwargs: Other arguments of the class.

    Returns:
      The network as a Linen module.
    """
    return NNXNetwork(cls, tuple(sorted(kwargs.items())))


def takes(network: nn.Module, argument: str) -> bool:
    """Whether `__call__` of the network has an argument of this name."""
    cls = network.nnx_class if isinstance(network, NNXNetwork) else type(network)
    return argument in inspect.signature(cls.__call__).parameters
