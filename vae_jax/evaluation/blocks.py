"""Computations over any number of examples, one block at a time."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree, Shaped

from vae_jax.errors import InputError, is_traced, require_positive_int

BLOCK = 1_000
"""Number of examples per block, unless they are large."""


def block_of(*shapes: tuple[int, ...]) -> int:
    """Number of examples of these shapes per block: at most `BLOCK`, and at most a million numbers."""
    return max(1, min(BLOCK, 2**20 // max(math.prod(shape) for shape in shapes)))


def on_host(array: Shaped[Any, "..."], dtype: type | None = None) -> Shaped[Any, "..."]:
    """The array as a NumPy array, converted to `dtype` if given; a traced array unchanged."""
    return array if is_traced(array) else np.asarray(array, dtype)


def in_blocks(function: Callable[..., PyTree], *arrays: Shaped[Any, "n ..."], block: int | None = None) -> PyTree:
    """Apply `function(first, *blocks)` to blocks of examples and concatenate the results.

    The last block is padded with copies of its last example, and the padding is removed from the result. All blocks
    thus have one shape, and the function is compiled once. The block is the next power of two if there are fewer
    examples than `block`.

    Args:
      function: Function of the position of the first example and one block of each array; returns a tree of arrays
        [block, ...].
      *arrays: Arrays [n, ...], on the host or the device.
      block: Number of examples per block; by default `block_of` of the arrays.

    Returns:
      Tree of arrays [n, ...]: traced if the results of the function are, otherwise on the host.

    Raises:
      InputError: There are no examples, or `block` is not a whole number of at least 1.
    """
    if block is not None:
        require_positive_int(block=block)
    total = len(arrays[0])
    if total == 0:
        raise InputError("there are no examples; expected at least one")
    size = min(block or block_of(*(array.shape[1:] for array in arrays)), 1 << (total - 1).bit_length())
    results = []
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size), total - 1)
        kept = min(size, total - start)
        result = function(start, *(array[rows] for array in arrays))
        results.append(jax.tree.map(lambda leaf, kept=kept: on_host(leaf)[:kept], result))
    join = jnp.concatenate if is_traced(results) else np.concatenate
    return jax.tree.map(lambda *leaves: join(leaves), *results)
