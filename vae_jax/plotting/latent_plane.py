"""Figures of the first two dimensions of encodings."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from vae_jax.errors import InputError
from vae_jax.evaluation.latents import Sphere, circle
from vae_jax.plotting.colours import CLASS_COLOURS
from vae_jax.plotting.notebook_figure import NotebookFigure


def encodings(
    encodings: Float[Any, "n latent"],
    labels: Int[Any, " n"] | None,
    sphere: Sphere,
    title: str,
    lattice: Float[Any, "size size latent"] | None = None,
) -> Figure:
    """Scatter plot of the first two dimensions of encodings.

    Args:
      encodings: Encodings, [n, latent].
      labels: Classes of the encodings, which determine their colours, or None.
      sphere: Circle to draw, such as that of `circle`.
      title: Title of the figure.
      lattice: Lattice to draw over the encodings.

    Raises:
      InputError: The encodings have one dimension.
    """
    figure = NotebookFigure(figsize=(5.6, 6.1), layout="constrained")
    axes = figure.subplots()
    draw_encodings(axes, encodings, labels, sphere, lattice)
    title_with_classes(figure, title, labels)
    return figure


def clouds(models: Mapping[str, Float[Any, "n latent"]], labels: Int[Any, " n"] | None, title: str) -> Figure:
    """Scatter plots of the encodings of several models side by side, each with its circle.

    Args:
      models: Encodings [n, latent] by the name of the model.
      labels: Classes of the encodings, which determine their colours, or None.
      title: Title of the figure.

    Raises:
      InputError: There are no models, or their encodings have one dimension.
    """
    if not models:
        raise InputError("there are no encodings; expected those of one model or more, by its name")
    figure = NotebookFigure(figsize=(4.8 * len(models), 5.5), layout="constrained")
    for (name, encodings), axes in zip(models.items(), figure.subplots(1, len(models), squeeze=False)[0], strict=True):
        draw_encodings(axes, encodings, labels, circle(encodings))
        axes.set_title(name, fontsize="medium")
    title_with_classes(figure, title, labels)
    return figure


def paths(
    models: Mapping[str, tuple[Float[Any, "n latent"], Float[Any, "paths steps latent"]]],
    labels: Int[Any, " n"] | None,
    title: str,
) -> Figure:
    """Scatter plots as in `clouds`, with paths of each model.

    Args:
      models: Encodings [n, latent] and paths [paths, steps, latent] by the name of the model.
      labels: Classes of the encodings, which determine their colours, or None.
      title: Title of the figure.
    """
    figure = clouds({name: encodings for name, (encodings, _) in models.items()}, labels, title)
    for (_, of_model), axes in zip(models.values(), figure.axes, strict=True):
        for path in np.asarray(of_model):
            axes.plot(path[:, 0], path[:, 1], "-o", color="black", markersize=3, linewidth=1)
    return figure


def draw_encodings(
    axes: Axes,
    encodings: Float[Any, "n latent"],
    labels: Int[Any, " n"] | None,
    sphere: Sphere,
    lattice: Float[Any, "size size latent"] | None = None,
) -> None:
    """Draw encodings as points coloured by class, with the circle `sphere`.

    The number of each class is written at its median, or instead the lattice is drawn if it is given.
    """
    if np.ndim(encodings) != 2 or np.shape(encodings)[1] < 2:
        raise InputError(f"encodings have shape {np.shape(encodings)}; expected [n, latent], two dimensions or more")
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


def title_with_classes(figure: Figure, title: str, labels: Int[Any, " n"] | None) -> None:
    """Add a title, and below it a legend of the colours of the classes if there are labels."""
    if labels is None:
        figure.suptitle(title)
        return
    legend = figure.legend(
        handles=_class_handles(labels), title=title, title_fontsize="medium", ncols=10, loc="outside upper center",
        frameon=False, columnspacing=0.8, handletextpad=0.1, borderpad=0.1,
    )  # fmt: skip
    legend.get_title().set_multialignment("center")


def _class_handles(labels: Int[Any, " n"]) -> list[Line2D]:
    """Handles of the legend, one for each class that occurs."""
    return [
        Line2D([], [], marker="o", linestyle="", color=CLASS_COLOURS[label % len(CLASS_COLOURS)], label=str(label))
        for label in np.unique(labels)
    ]


def _name_classes(axes: Axes, x: np.ndarray, y: np.ndarray, labels: np.ndarray, apart: float) -> None:
    """Write the number of each class at its median, unless it is closer than `apart` to another number.

    If most medians are that close, the classes are mixed, and no number is written.
    """
    classes = np.unique(labels)
    placed: dict[int, tuple[float, float]] = {}
    for label in classes:
        position = np.median(x[labels == label]), np.median(y[labels == label])
        if all(math.dist(position, other) >= apart for other in placed.values()):
            placed[label] = position
    if 2 * len(placed) < len(classes):
        return
    for label, position in placed.items():
        text = axes.text(position[0], position[1], str(label), size=15, weight="bold", ha="center", va="center")
        text.set_color(CLASS_COLOURS[label % len(CLASS_COLOURS)])
        text.set_path_effects([patheffects.withStroke(linewidth=3, foreground="white")])
