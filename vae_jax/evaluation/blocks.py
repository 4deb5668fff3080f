"""Any number of examples, a block of them at a time."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree, Shaped

from vae_jax.errors import InputError, is_traced

BLOCK = 1_000
"""Examples that are on their way through a model at once, fewer if they are large."""


def block_of(*shapes: tuple[int, ...]) -> int:
    """How many examples of these shapes make a block: `BLOCK`, or as many as have a million numbers."""
    return max(1, min(BLOCK, 2**20 // max(math.prod(shape) for shape in shapes)))


def on_host(array: Shaped[Any, "..."], dtype: type | None = None) -> Shaped[Any, "..."]:
    """The array as NumPy's, of another type if one is given; a traced array as it is."""
    return array if is_traced(array) else np.asarray(array, dtype)


def in_blocks(function: Callable[..., PyTree], *arrays: Shaped[Any, "n ..."], block: int | None = None) -> PyTree:
    """`function(first, *blocks)` over blocks of examples, its results joined: as if over all of them at once.

    The last block is filled up with copies of its last example, which are cut off again, so that a compiled function
    meets one shape alone; and where there are fewer examples than a block, one of few shapes.

    Args:
      function: from the position of a block's first example and a block of each array to a tree of arrays [block, ...].
      *arrays: [n, ...], on the host or the device.
      block: examples in a block; by default what `block_of` says of the arrays.

    Returns:
      The tree, its leaves [n, ...] on the host, or traced where the function's results are.

    Raises:
      InputError: no examples.
    """
    total = len(arrays[0])
    if total == 0:
        raise InputError("there are no examples to go through")
    size = min(block or block_of(*(array.shape[1:] for array in arrays)), 1 << (total - 1).bit_length())
    results = []
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size), total - 1)
        kept = min(size, total - start)
        result = function(start, *(array[rows] for array in arrays))
        results.append(jax.tree.map(lambda leaf, kept=kept: on_host(leaf[:kept]), result))
    join = jnp.concatenate if is_traced(results) else np.concatenate
    return jax.tree.map(lambda *leaves: join(leaves), *results)
