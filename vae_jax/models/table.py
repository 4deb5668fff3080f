"""A table of the parameters of a model, as text."""

import math
from typing import Any

import jax
from jaxtyping import PyTree


def parameter_table(model: Any = None, variables: PyTree = None) -> str:
    """A table with the path, shape, dtype and number of the parameters, and their total.

    Args:
      model: model whose `init(key)` makes the variables; only their shapes are computed.
      variables: variables of a model, or any tree of arrays, in place of `model`.
    """
    if variables is None:
        variables = jax.eval_shape(model.init, jax.random.key(0))
    rows = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), str(tuple(leaf.shape)), str(leaf.dtype), leaf.size)
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    ]
    total = ("total", "", "", sum(size for *_, size in rows))
    table = [(*texts, f"{size:,}") for *texts, size in [*rows, total]]
    header = ("path", "shape", "dtype", "parameters")
    widths = [max(len(row[column]) for row in [header, *table]) for column in range(4)]
    form = "  ".join(f"{{:{align}{width}}}" for align, width in zip("<<<>", widths, strict=True))
    lines = [form.format(*row) for row in [header, *table]]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def parameter_count(variables: PyTree) -> int:
    """The number of entries of all arrays in a tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))
