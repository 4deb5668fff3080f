"""Figures of curves."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae_jax.errors import InputError
from vae_jax.plotting.colours import COLOURS
from vae_jax.plotting.notebook_figure import NotebookFigure


def training_curves(curves: Mapping[str, Sequence[Sequence[float]]], ylabel: str, title: str) -> Figure:
    """Training curves (dashed) and test curves (solid) of several models against the epoch.

    Args:
      curves: Training and test curve by the name of the model, each with one number per epoch.
      ylabel: Label of the vertical axis, with the unit.
      title: Title of the figure.
    """
    figure, axes = single_axes(title)
    for (name, (train, test)), colour in zip(curves.items(), itertools.cycle(COLOURS), strict=False):
        epochs = np.arange(1, len(train) + 1)
        axes.plot(epochs, train, color=colour, linewidth=1, linestyle="--", label=f"{name}, training (running mean)")
        axes.plot(epochs, test, color=colour, linewidth=2, label=f"{name}, test")
    _frame_epochs(axes, [curve for pair in curves.values() for curve in pair], ylabel)
    return figure


def curves(
    curves: Mapping[str, Sequence[float]], ylabel: str, title: str, marks: Mapping[str, tuple[int, float]]
) -> Figure:
    """Curves of several models against the epoch, with single points for comparison.

    Args:
      curves: One number per epoch, by the name of the model.
      ylabel: Label of the vertical axis, with the unit.
      title: Title of the figure.
      marks: Points (epoch, number) by name.

    Raises:
      InputError: There are no curves, or one has no numbers.
    """
    if not curves or not all(len(curve) for curve in curves.values()):
        raise InputError("there are no curves, or one is empty; expected one number or more of one model or more")
    figure, axes = single_axes(title)
    for (name, curve), colour in zip(curves.items(), itertools.cycle(COLOURS[1:]), strict=False):
        axes.plot(np.arange(1, len(curve) + 1), curve, "-o", color=colour, markersize=3, label=name)
    for (name, (epoch, value)), colour in zip(marks.items(), itertools.cycle(COLOURS), strict=False):
        axes.plot(epoch, value, "*", color=colour, markersize=12, linestyle="", label=f"{name}: {value:g}")
    _frame_epochs(axes, list(curves.values()), ylabel)
    return figure


def single_axes(title: str) -> tuple[Figure, Any]:
    """Figure with one pair of axes, a grid and a title; returns the figure and the axes."""
    figure = NotebookFigure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize="medium", wrap=True)
    return figure, axes


def _frame_epochs(axes: Axes, curves: Sequence[Sequence[float]], ylabel: str) -> None:
    """Set limits and labels; the vertical range ignores the first twentieth of each curve, which is steep."""
    late = [value for curve in curves for value in curve[len(curve) // 20 :]]
    margin = 0.05 * (max(late) - min(late)) + 1e-6
    axes.set(xlabel="epoch", ylabel=ylabel, ylim=(min(late) - margin, max(late) + margin))
    last = max(2, *(len(curve) for curve in curves))
    padding = 0.02 * (last - 1)
    axes.set_xlim(1 - padding, last + padding)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
