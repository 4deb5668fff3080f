"""Arrays -> matplotlib figures. Nothing here trains, loads or saves.

Every function returns a `Figure` made without pyplot, so that a notebook shows it and a script saves it, and no global
state is touched.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from vae_jax.evaluation.latents import Sphere, sphere_about_mean

# Ten colours that stay apart for the colour-blind (Paul Tol's muted scheme, its pale grey made darker).
CLASS_COLOURS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#777777",
)  # fmt: skip


def encodings_figure(
    encodings: Float[Any, "n latent"],
    labels: Int[Any, " n"] | None,
    sphere: Sphere,
    title: str,
    lattice: Float[Any, "size size latent"] | None = None,
) -> Figure:
    """The first two dimensions of encodings with their circle, and a lattice over them if there is one."""
    figure = Figure(figsize=(5.6, 6.1), layout="constrained")
    axes = figure.subplots()
    draw_encodings(axes, encodings, labels, sphere, lattice)
    _title(figure, title, labels)
    return figure


def images_figure(images: Float[Any, "n height width channels"], columns: int, title: str) -> Figure:
    """A sheet of images in [0, 1], row after row."""
    high, wide, _ = tile(np.asarray(images), columns).shape
    figure = Figure(figsize=(5.8, 5.8 * high / wide + 0.6), layout="constrained")
    axes = figure.subplots()
    draw_images(axes, images, columns)
    figure.suptitle(title, fontsize="medium")
    return figure


def rows_figure(
    images: Float[Any, "rows columns height width channels"], headings: Sequence[str], title: str
) -> Figure:
    """Rows of images in [0, 1], a heading over each column."""
    rows, columns, high, wide, _ = np.shape(images)
    figure = Figure(figsize=(5.8, 5.8 * rows * high / (columns * wide) + 0.75), layout="constrained")
    axes = figure.subplots()
    draw_images(axes, np.concatenate(images), columns)
    axes.set_xticks(wide * (np.arange(columns) + 0.5), headings)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    figure.suptitle(title, fontsize="medium")
    return figure


def sheets_figure(
    sheets: Sequence[tuple[str, Float[Any, "_ height width channels"]]], images_a_row: int, columns: int, title: str
) -> Figure:
    """Several sheets of images, each under its own title, `columns` of them side by side."""
    rows = -(-len(sheets) // columns)
    high, wide, _ = tile(sheets[0][1], images_a_row).shape
    width = 9.2 / columns
    figure = Figure(figsize=(width * columns, (width * high / wide + 0.4) * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(sheets) :]:
        axes.set_axis_off()
    for (name, images), axes in zip(sheets, grid.flat, strict=False):
        draw_images(axes, images, images_a_row)
        axes.set_title(name, fontsize="medium")
    figure.suptitle(title)
    return figure


def latent_spaces_figure(
    columns: Mapping[str, Any], labels: Int[Any, " n"] | None, captions: Mapping[str, str], title: str
) -> Figure:
    """Models side by side: above, encodings with circle and lattice; below, what the lattice decodes to.

    Args:
      columns: a `LatentSpace` by the model's name.
      labels: classes of the encodings.
      captions: under each column, by the model's name.
      title: of the whole.
    """
    figure = Figure(figsize=(4.6 * len(columns), 9.9), layout="constrained")
    grid = figure.subplots(2, len(columns), squeeze=False)
    for (name, space), (above, below) in zip(columns.items(), grid.T, strict=True):
        draw_encodings(above, space.encodings, labels, space.sphere, space.lattice)
        above.set_title(name)
        draw_images(below, space.decoded, len(space.lattice))
        below.set_xlabel(captions[name])
    _title(figure, title, labels)
    return figure


def clouds_figure(clouds: Mapping[str, Float[Any, "n latent"]], labels: Int[Any, " n"] | None, title: str) -> Figure:
    """Clouds of encodings side by side, each with its circle, under its name."""
    figure = Figure(figsize=(4.8 * len(clouds), 5.5), layout="constrained")
    for (name, encodings), axes in zip(clouds.items(), figure.subplots(1, len(clouds), squeeze=False)[0], strict=True):
        draw_encodings(axes, encodings, labels, sphere_about_mean(encodings))
        axes.set_title(name, fontsize="medium")
    _title(figure, title, labels)
    return figure


def paths_figure(
    clouds: Mapping[str, tuple[Float[Any, "n latent"], Float[Any, "paths steps latent"]]],
    labels: Int[Any, " n"] | None,
    title: str,
) -> Figure:
    """As `clouds_figure`, with paths drawn over each cloud."""
    figure = clouds_figure({name: encodings for name, (encodings, _) in clouds.items()}, labels, title)
    for (_, paths), axes in zip(clouds.values(), figure.axes, strict=True):
        for path in np.asarray(paths):
            axes.plot(path[:, 0], path[:, 1], "-o", color="black", markersize=3, linewidth=1)
    return figure


def draw_encodings(
    axes: Axes,
    encodings: Float[Any, "n latent"],
    labels: Int[Any, " n"] | None,
    sphere: Sphere,
    lattice: Float[Any, "size size latent"] | None = None,
) -> None:
    """Points coloured by class, each class named at its median, with the circle that holds 99 % of them."""
    x, y = np.asarray(encodings)[:, :2].T
    size = float(np.clip(30_000 / len(x), 3, 20))
    centre = (float(sphere.centre[0]), float(sphere.centre[1]))
    reach = 1.04 * sphere.radius
    if labels is None:
        axes.scatter(x, y, s=size, c=CLASS_COLOURS[9], alpha=0.6, linewidths=0, rasterized=True)
    else:
        colours = np.array(CLASS_COLOURS)[np.asarray(labels) % len(CLASS_COLOURS)]
        axes.scatter(x, y, s=size, c=colours, alpha=0.6, linewidths=0, rasterized=True)
    axes.add_patch(Circle(centre, sphere.radius, fill=False, linewidth=1.2))
    if lattice is not None:
        axes.scatter(lattice[..., 0], lattice[..., 1], s=5, c="black", linewidths=0)
    elif labels is not None:
        _name_classes(axes, x, y, np.asarray(labels), apart=0.12 * reach)
    axes.set(xlim=(centre[0] - reach, centre[0] + reach), ylim=(centre[1] - reach, centre[1] + reach))
    axes.set(xlabel="latent dimension 1", ylabel="latent dimension 2", aspect="equal")


def _title(figure: Figure, title: str, labels: Int[Any, " n"] | None) -> None:
    """A title; where there are classes it is that of the legend which names their colours."""
    if labels is None:
        figure.suptitle(title)
        return
    legend = figure.legend(
        handles=_class_handles(labels), title=title, title_fontsize="medium", ncols=10, loc="outside upper center",
        frameon=False, columnspacing=0.8, handletextpad=0.1, borderpad=0.1,
    )  # fmt: skip
    legend.get_title().set_multialignment("center")


def _class_handles(labels: Int[Any, " n"]) -> list[Line2D]:
    """A legend's handles, one for each class there is."""
    return [
        Line2D([], [], marker="o", linestyle="", color=CLASS_COLOURS[label % len(CLASS_COLOURS)], label=str(label))
        for label in np.unique(labels)
    ]


def _name_classes(axes: Axes, x: np.ndarray, y: np.ndarray, labels: np.ndarray, apart: float) -> None:
    """Each class's number at its median, unless another one is there already."""
    placed: list[tuple[float, float]] = []
    for label in np.unique(labels):
        position = np.median(x[labels == label]), np.median(y[labels == label])
        if any(math.dist(position, other) < apart for other in placed):
            continue
        placed.append(position)
        text = axes.text(position[0], position[1], str(label), size=15, weight="bold", ha="center", va="center")
        text.set_color(CLASS_COLOURS[label % len(CLASS_COLOURS)])
        text.set_path_effects([patheffects.withStroke(linewidth=3, foreground="white")])


def draw_images(axes: Axes, images: Float[Any, "n height width channels"], columns: int) -> None:
    """A sheet of images, dark on light if they are grey."""
    sheet = tile(np.asarray(images), columns)
    axes.imshow(sheet.squeeze(), cmap="gray_r", vmin=0, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def tile(images: Float[np.ndarray, "n height width channels"], columns: int) -> Float[np.ndarray, "h w channels"]:
    """Images put together row after row; places left over are 0."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    sheet = np.zeros((rows * columns, height, width, channels), images.dtype)
    sheet[:count] = images
    sheet = sheet.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return sheet.reshape(rows * height, columns * width, channels)
