"""Networks written as Flax NNX classes."""

import inspect
from typing import Any

from flax import linen as nn
from flax.core import FrozenDict
from jaxtyping import Array, Float


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
