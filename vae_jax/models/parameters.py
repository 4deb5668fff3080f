"""Text table of the parameters of a model."""

import math
from typing import Any

import jax
from jaxtyping import PyTree


def parameter_table(model: Any = None, variables: PyTree = None) -> str:
    """Text table of the path, shape, dtype and size of each array, with their total.

    >>> print(vj.parameter_table(vj.mlp_vae((4,), latent_dim=1, hidden=(2,))).splitlines()[-1].split())
    ['total', '32']

    Args:
      model: Model whose `init(key)` creates the variables; only their shapes are computed.
      variables: Variables of a model, or any tree of arrays, in place of `model`.

    Returns:
      The table, one line per array.
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
    """Number of entries of all arrays of a tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))
