"""Figures of grids of images in [0, 1]."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vae_jax.errors import InputError, require_positive_int
from vae_jax.plotting.notebook_figure import NotebookFigure


def images(images: Float[Any, "n height width channels"], columns: int, title: str) -> Figure:
    """Grid of images, in row-major order.

    Args:
      images: Images in [0, 1], [n, height, width, channels].
      columns: Number of images per row.
      title: Title of the figure.

    Raises:
      InputError: There are no images, they have another number of axes, or `columns` is not a positive integer.
    """
    high, wide, _ = tile(np.asarray(images), columns).shape
    of_title = 0.15 + 0.17 * len(title.splitlines())  # inches, with the padding
    figure = NotebookFigure(figsize=(5.8, 5.7 * high / wide + of_title), layout="constrained")
    axes = figure.subplots()
    draw_images(axes, images, columns)
    figure.suptitle(title, fontsize="medium")
    return figure


def rows(images: Float[Any, "rows columns height width channels"], headings: Sequence[str], title: str) -> Figure:
    """Rows of images, with a heading above each column.

    Args:
      images: Images in [0, 1], [rows, columns, height, width, channels].
      headings: Headings of the columns.
      title: Title of the figure.

    Raises:
      InputError: The images have another number of axes, or there are none.
    """
    if np.ndim(images) != 5 or not np.size(images):
        raise InputError(f"images have shape {np.shape(images)}; expected [rows, columns, height, width, channels]")
    rows, columns, high, wide, _ = np.shape(images)
    figure = NotebookFigure(figsize=(5.8, 5.8 * rows * high / (columns * wide) + 0.75), layout="constrained")
    axes = figure.subplots()
    draw_images(axes, np.concatenate(images), columns)
    axes.set_xticks(wide * (np.arange(columns) + 0.5), headings)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    figure.suptitle(title, fontsize="medium")
    return figure


def sheets(
    sheets: Sequence[tuple[str, Float[Any, "_ height width channels"]]],
    images_a_row: int,
    columns: int,
    title: str,
    row_labels: Sequence[str] = (),
) -> Figure:
    """Several grids of images, each with a title.

    Args:
      sheets: Title and images in [0, 1], [n, height, width, channels], of each grid.
      images_a_row: Number of images per row of a grid.
      columns: Number of grids side by side.
      title: Title of the figure.
      row_labels: Labels of the rows of each grid, if given.

    Raises:
      InputError: There are no grids, a grid has no images, or its images have another number of axes.
    """
    if not sheets:
        raise InputError("there are no sheets; expected a title and images of one grid or more")
    rows = -(-len(sheets) // columns)
    high, wide, _ = tile(sheets[0][1], images_a_row).shape
    width = 9.2 / columns  # inches, of which labels and padding take a part
    pixels = width - 0.1 - 0.09 * max(map(len, row_labels), default=0)
    height = pixels * high / wide + (0.3 if any(name for name, _ in sheets) else 0.1)
    figure = NotebookFigure(figsize=(width * columns, height * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(sheets) :]:
        axes.set_axis_off()
    for (name, images), axes in zip(sheets, grid.flat, strict=False):
        draw_images(axes, images, images_a_row)
        axes.set_title(name, fontsize="medium")
        axes.set_yticks(images.shape[1] * (np.arange(len(row_labels)) + 0.5), row_labels)
        axes.tick_params(length=0)
    figure.suptitle(title)
    return figure


def draw_images(axes: Axes, images: Float[Any, "n height width channels"], columns: int) -> None:
    """Draw a grid of images [n, height, width, channels] in [0, 1]; grey images are dark on a light background."""
    sheet = tile(np.asarray(images), columns)
    axes.imshow(sheet[..., 0] if sheet.shape[-1] == 1 else sheet, cmap="gray_r", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def tile(images: Real[np.ndarray, "n height width channels"], columns: int) -> Real[np.ndarray, "h w channels"]:
    """Join images into one array in row-major order; unused places are 0.

    Args:
      images: Images, [n, height, width, channels].
      columns: Number of images per row.

    Returns:
      Array of shape [rows * height, columns * width, channels].

    Raises:
      InputError: There are no images, they have another number of axes or of channels, or `columns` is not a positive
        integer.
    """
    if images.ndim != 4 or not images.size:
        raise InputError(f"images have shape {images.shape}; expected [n, height, width, channels]: reshape them")
    if images.shape[-1] not in (1, 3, 4):
        raise InputError(f"images have {images.shape[-1]} channels; expected 1, 3 or 4: choose some of them")
    require_positive_int(columns=columns)
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, height, width, channels), images.dtype)
    sheet[:count] = images
    sheet = sheet.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return sheet.reshape(rows * height, columns * width, channels)
