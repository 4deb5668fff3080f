"""Minimal filtering of images (Winograd, 1980; Lavin and Gray, 2016), which turns convolutions into matrix products.

Overlapping tiles of an image, and the kernel, are transformed along both axes. The products of their entries, which are
fewer than those of the convolution itself, are transformed to 2 x 2 pixels of the output. The transforms are sums,
apart from factors of 1/2. In a grid, the array at row i and column j has that entry of all tiles.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

Grid = Sequence[Sequence[Array]]


def along_both(transform: Callable[..., Sequence[Array]], grid: Grid) -> Grid:
    """Transform the rows of a grid, then its columns."""
    rows = [transform(*row) for row in grid]
    return transposed([transform(*column) for column in transposed(rows)])


def transposed(grid: Grid) -> Grid:
    """The columns of a grid as rows."""
    return list(zip(*grid, strict=True))


def products(function: Callable[[Array, Array], Array], a: Grid, b: Grid) -> Grid:
    """The grid of `function` of the entries of two grids."""
    return [[function(*pair) for pair in zip(*rows, strict=True)] for rows in zip(a, b, strict=True)]


def flattened(grid: Grid) -> Grid:
    """The grid with matrices of a row for each tile: [batch, h, w, C] -> [batch h w, C]."""
    return [[entry.reshape(-1, entry.shape[-1]) for entry in row] for row in grid]


def pixels_of(image: Array) -> Grid:
    """The pixels of tiles that do not overlap: [batch, 2h, 2w, C] -> 2 x 2 arrays [batch, h, w, C]."""
    return [[image[:, i::2, j::2] for j in range(2)] for i in range(2)]


def image_of(pixels: Grid, shape: tuple[int, ...]) -> Array:
    """Transpose of `pixels_of`, of flattened pixels; `shape` is [batch, 2h, 2w, C]."""
    batch, height, width, channels = shape
    tiles = jnp.stack([jnp.stack(row, axis=1) for row in pixels], axis=1)  # [batch h w, 2, 2, C]
    tiles = tiles.reshape(batch, height // 2, width // 2, 2, 2, channels)
    return tiles.transpose(0, 1, 3, 2, 4, 5).reshape(shape)


def first_with_first(a: Array, b: Array) -> Array:
    """Product of two matrices over their first axes."""
    return jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())))
