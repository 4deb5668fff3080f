"""Numbers -> curves, as `figures` for images: functions that return a matplotlib `Figure` and do nothing else."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

# Okabe and Ito's colours, which stay apart for the colour-blind.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def training_curves_figure(curves: Mapping[str, Sequence[Sequence[float]]], ylabel: str, title: str) -> Figure:
    """Training (thin) and test (thick) curves of several models against epochs.

    Args:
      curves: by the model's name, one number an epoch: training, then test.
      ylabel: what is drawn, with its unit.
      title: of the figure.
    """
    figure, axes = _figure(title)
    for (name, (train, test)), colour in zip(curves.items(), itertools.cycle(COLOURS), strict=False):
        epochs = np.arange(1, len(train) + 1)
        axes.plot(epochs, train, color=colour, linewidth=1, linestyle="--", label=f"{name}, training (running mean)")
        axes.plot(epochs, test, color=colour, linewidth=2, label=f"{name}, test")
    _frame_epochs(axes, [curve for pair in curves.values() for curve in pair], ylabel)
    return figure


def curves_figure(
    curves: Mapping[str, Sequence[float]], ylabel: str, title: str, marks: Mapping[str, tuple[int, float]]
) -> Figure:
    """One number an epoch of several models, and single points (epoch, number) to be held against."""
    figure, axes = _figure(title)
    for (name, curve), colour in zip(curves.items(), itertools.cycle(COLOURS[1:]), strict=False):
        axes.plot(np.arange(1, len(curve) + 1), curve, "-o", color=colour, markersize=3, label=name)
    for (name, (epoch, value)), colour in zip(marks.items(), itertools.cycle(COLOURS), strict=False):
        axes.plot(epoch, value, "*", color=colour, markersize=12, linestyle="", label=f"{name}: {value:g}")
    _frame_epochs(axes, list(curves.values()), ylabel)
    return figure


def along_the_path_figure(curves: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """By the model's name, "confidence" and "nearest_distance" against the share of the way."""
    figure = Figure(figsize=(9.4, 4.3), layout="constrained")
    panels = {
        "confidence": "classifier's greatest probability",
        "nearest_distance": "distance to the nearest training image",
    }
    for axes, (part, ylabel) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for (name, values), colour in zip(curves.items(), itertools.cycle(COLOURS), strict=False):
            axes.plot(np.linspace(0, 1, len(values[part])), values[part], "-o", color=colour, markersize=3, label=name)
        axes.set(xlabel="share of the way", ylabel=ylabel)
        axes.grid(alpha=0.3)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), title=title, loc="outside upper center", ncols=4, frameon=False
    )
    return figure


def drift_figure(effects: Mapping[str, Mapping[str, Mapping[str, Any]]], title: str) -> Figure:
    """How often attributes flip as the step grows, and how far their confounders have drifted by then.

    Args:
      effects: by attribute and kind of vector, "steps", "flip_by_step" and "confounder_by_step", by confounder.
      title: of the figure.
    """
    figure = Figure(figsize=(4.1 * len(effects), 6.6), layout="constrained")
    styles = {"plain": "--", "balanced": "-"}
    for (name, by_kind), (above, below) in zip(effects.items(), figure.subplots(2, len(effects)).T, strict=True):
        for kind, effect in by_kind.items():
            flips = effect["flip_by_step"]
            above.plot(effect["steps"], flips, styles[kind], color="black", label=f"{kind} vector")
            for (other, values), colour in zip(effect["confounder_by_step"].items(), COLOURS, strict=False):
                drift = np.asarray(values) - values[0]
                below.plot(flips, drift, styles[kind], color=colour, label=f"P({other}), {kind}")
        readable = name.replace("_", " ").lower()
        above.set(title=readable, xlabel="step, in lengths of the vector", ylabel="share flipped", ylim=(-0.03, 1.03))
        below.set(xlabel="share flipped", ylabel="drift of the mean probability", xlim=(-0.03, 1.03))
        below.axhline(0, color="grey", linewidth=0.8)
        for axes in (above, below):
            axes.grid(alpha=0.3)
            axes.legend(frameon=False, fontsize="small")
    figure.suptitle(title)
    return figure


def trade_off_figure(sweep: Sequence[Mapping[str, float]], title: str) -> Figure:
    """KL against squared error, a point for each "C"."""
    figure, axes = _figure(title)
    errors, kls = ([row[name] for row in sweep] for name in ("test_reconstruction", "test_kl"))
    axes.plot(errors, kls, "-o", color=COLOURS[1])
    for row in sweep:
        where = (row["test_reconstruction"], row["test_kl"])
        axes.annotate(f"C = {row['C']:g}", where, xytext=(6, 6), textcoords="offset points")
    axes.set(xlabel="squared error per test image", ylabel="KL, nats per test image")
    axes.margins(x=0.2, y=0.12)
    return figure


def bounds_figure(
    models: Mapping[str, tuple[int, Mapping[str, float]]], references: Mapping[str, float], title: str
) -> Figure:
    """How the bound on log p(x) closes as importance samples are added, each model's own bound marked.

    Args:
      models: by name, the samples of the bound it was trained by, and the bound by the number of samples, in nats.
      references: -log p(x) of others, by name.
      title: of the figure.
    """
    figure, axes = _figure(title)
    for (name, (own, bounds)), colour in zip(models.items(), itertools.cycle(COLOURS), strict=False):
        samples, values = [int(key) for key in bounds], [-value for value in bounds.values()]
        axes.plot(samples, values, "-o", color=colour, markersize=3, label=name)
        axes.plot(own, -bounds[str(own)], "*", color=colour, markersize=14)
    for (name, value), colour in zip(references.items(), itertools.cycle(COLOURS), strict=False):
        axes.axhline(value, color=colour, linestyle=":", linewidth=1.2, label=f"{name}: {value:g}")
    axes.set(xscale="log", xlabel="importance samples (star: the bound it was trained by)")
    axes.set(ylabel="bound on -log p(x), nats per test image")
    axes.legend(frameon=False, ncols=2)
    return figure


def minutes_figure(models: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str) -> Figure:
    """The bound on log p(x) of the test images by which each model is trained, against minutes of training."""
    figure, axes = _figure(title)
    for (name, (minutes, bounds)), colour in zip(models.items(), itertools.cycle(COLOURS), strict=False):
        axes.plot(minutes, -np.asarray(bounds), color=colour, label=name)
    late = [-bound for _, bounds in models.values() for bound in bounds[len(bounds) // 10 :]]
    axes.set(xlabel="minutes of training", ylabel="its own bound on -log p(x), nats per test image")
    axes.set_ylim(min(late) - 0.5, max(late) + 0.5)
    axes.legend(frameon=False)
    return figure


def scores_figure(scores: Mapping[str, Mapping[str, tuple[float, float]]], xlabel: str, title: str) -> Figure:
    """Means with their standard errors, one panel for each data set and one line for each model.

    Args:
      scores: by data set and model, mean and standard error.
      xlabel: what they are of, with its unit.
      title: of the figure.
    """
    lines = max(len(models) for models in scores.values())
    figure = Figure(figsize=(1.5 + 3.6 * len(scores), 1.3 + 0.3 * lines), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    for axes, (data_set, models) in zip(panels, scores.items(), strict=True):
        for line, (name, (mean, error)) in enumerate(models.items()):
            colour = COLOURS[1] if name.startswith("VAE") else COLOURS[6]
            axes.errorbar(mean, line, xerr=error, fmt="o", color=colour, capsize=3)
        axes.set(yticks=range(len(models)), yticklabels=list(models), xlabel=xlabel, title=data_set)
        axes.invert_yaxis()
        axes.grid(alpha=0.3)
        if axes is not panels[0]:
            axes.set_yticklabels([])
    figure.suptitle(title, fontsize="medium")
    return figure


def scaling_figure(quantities: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Seconds per epoch against one quantity a panel, on logarithmic axes.

    Points are medians, whiskers go from the least to the most seconds, lines are the fitted power laws.

    Args:
      quantities: of each its "name", "sizes", "seconds_per_epoch" (the medians), "seconds_by_turn" (lists of them, of
        each size), "law" (a `PowerLaw`), and a "note" on it.
      title: of the figure.
    """
    figure = Figure(figsize=(10.5, 3.3), layout="constrained")
    width = 10.5 / len(quantities)
    row = figure.subplots(1, len(quantities), sharey=True, squeeze=False)[0]
    for axes, quantity in zip(row, quantities, strict=True):
        sizes, medians, law = quantity["sizes"], np.array(quantity["seconds_per_epoch"]), quantity["law"]
        seconds = [np.ravel(turns) for turns in quantity["seconds_by_turn"]]
        whiskers = [medians - [min(values) for values in seconds], [max(values) for values in seconds] - medians]
        axes.plot(sizes, law(sizes), color=COLOURS[0], linewidth=1.5)
        axes.errorbar(sizes, medians, whiskers, fmt="o", color=COLOURS[1], markersize=4.5, linewidth=1.2, capsize=2.5)
        axes.set(xscale="log", yscale="log")
        axes.set_title("exponent $" + str(law).replace("+-", r"\pm") + "$", fontsize="medium")
        note = f"({quantity['note']})"
        if len(note) > 15.5 * width:  # two lines of about the same length
            note = textwrap.fill(note, len(note) // 2 + 4)
        axes.set_xlabel(f"{quantity['name']}\n{note}", fontsize="small")
        ticks = [f"{size:,}" for size in sizes]
        if len(" ".join(ticks)) > 13 * width:  # too many to stand side by side
            ticks[1::2] = [""] * len(ticks[1::2])
        axes.set_xticks(sizes, ticks, fontsize="small")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(x=0.1)
        axes.grid(alpha=0.3)
    row[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    row[0].yaxis.set_major_formatter("{x:g}")
    row[0].yaxis.set_minor_formatter(NullFormatter())
    row[0].set_ylabel("seconds per epoch", fontsize="small")
    figure.suptitle(title, fontsize="medium", wrap=True)
    return figure


def with_bands(figures: Sequence[Figure]) -> Figure:
    """The first of several members' figures, its curves now their mean, in a band of one standard deviation.

    Curves are lines that stand at the same place in each figure and differ in their ordinates alone.
    """
    figure = figures[0]
    if len(figures) == 1:
        return figure
    banded = False
    for panels in zip(*(each.axes for each in figures), strict=True):
        for lines in zip(*(axes.lines for axes in panels), strict=False):
            curves = [np.asarray(line.get_xydata(), float) for line in lines]
            if any(curve.shape != curves[0].shape or (curve[:, 0] != curves[0][:, 0]).any() for curve in curves):
                continue
            abscissas, ordinates = curves[0][:, 0], np.stack(curves)[:, :, 1]
            mean, deviation = np.mean(ordinates, axis=0), np.std(ordinates, axis=0, ddof=1)
            if not deviation.any():
                continue
            limits = np.array([axes.get_ylim() for axes in panels])
            panels[0].set_ylim(limits.min(), limits.max())
            lines[0].set_ydata(mean)
            colour = lines[0].get_color()
            panels[0].fill_between(abscissas, mean - deviation, mean + deviation, color=colour, alpha=0.25, linewidth=0)
            banded = True
    if banded:
        what = f"curves: mean and standard deviation of {len(figures)} seeds"
        title = figure.get_suptitle()
        if title:
            figure.suptitle(f"{title}; {what}", fontsize="medium", wrap=True)
        else:
            figure.supxlabel(what, fontsize="medium")
    return figure


def _figure(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize="medium", wrap=True)
    return figure, axes


def _frame_epochs(axes: Axes, curves: Sequence[Sequence[float]], ylabel: str) -> None:
    """Limits that leave out the first twentieth of the epochs, where every curve is steep."""
    late = [value for curve in curves for value in curve[len(curve) // 20 :]]
    margin = 0.05 * (max(late) - min(late)) + 1e-6
    axes.set(xlabel="epoch", ylabel=ylabel, ylim=(min(late) - margin, max(late) + margin))
    axes.set_xlim(1, max(2, *(len(curve) for curve in curves)))
    axes.legend(frameon=False)
