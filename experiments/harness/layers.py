"""Ladder VAEs: priors, samples at several temperatures, samples that share upper layers, and the bound in training."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from matplotlib.figure import Figure

import vae_jax as vj
from vae_jax.models import Variables

PRIORS = {"normal": vj.StandardNormal(), "flow": vj.FlowPrior(vj.Coupling(layers=4, hidden=(100,)))}  # of the top layer
TEMPERATURES = (1.0, 0.8, 0.6)
DRAWS, PER_ROW = 40, 10  # samples at each temperature, and in a row


def samples_by_temperature(
    key: Key[Array, ""],
    model: vj.LadderVAE,
    variables: Variables,
    where: str,
    temperatures: Sequence[float] = TEMPERATURES,
) -> Figure:
    """Samples of the model with the same noise, of which the standard deviation is multiplied by each temperature."""
    sheets = [
        (
            f"temperature {temperature:g}",
            np.asarray(_samples(jax.random.clone(key), model, variables, DRAWS, temperature=temperature)[1]),
        )
        for temperature in temperatures
    ]
    return vj.plot.sheets(sheets, PER_ROW, len(sheets), f"E[x|z] of samples from the ladder VAE; {where}")


def samples_by_given_layers(
    key: Key[Array, ""],
    model: vj.LadderVAE,
    variables: Variables,
    where: str,
    shared: Sequence[int] | None = None,
) -> Figure:
    """Rows of samples that share the latents of the upper layers, for each number of layers that they share.

    Each of the rows starts from one sample of all layers.

    Args:
      key: Key of the samples.
      model: Model to sample from.
      variables: Variables of the model.
      where: Data and seed, for the title.
      shared: Numbers of layers that are shared, one sheet each; by default from 1 to all layers but the last.
    """
    first_key, below_key = jax.random.split(key)
    rows = 4
    first, _ = _samples(first_key, model, variables, rows)
    names = [f"z{number}" for number in range(1, len(first) + 1)]  # compiled functions sort the keys of a dict
    sheets = []
    for count in range(1, len(names)) if shared is None else shared:
        given = {name: np.repeat(first[name], PER_ROW, axis=0) for name in names[:count]}
        own = jax.random.fold_in(below_key, count)
        _, drawn = _samples(own, model, variables, rows * PER_ROW, given=given)
        sheets.append((f"{', '.join(names[:count])} fixed within a row", np.asarray(drawn)))
    title = f"E[x|z] with the upper layers fixed and those below sampled; {where}"
    return vj.plot.sheets(sheets, PER_ROW, len(sheets), title)


@partial(jax.jit, static_argnames="count")
def _samples(
    key: Key[Array, ""], model: vj.LadderVAE, variables: Variables, count: int, **settings: Any
) -> tuple[dict[str, Array], Array]:
    """Samples of the latents of each layer, and E[x|z] of them, clipped to the range of pixels."""
    drawn = model.sample(key, variables, count, **settings)
    return drawn.z, jnp.clip(drawn.px_z.mean, 0, 1)


def bound_by_minutes(
    minutes: Sequence[float], bounds: Sequence[float], unit: str, title: str, estimate: float | None = None
) -> Figure:
    """Plot the negative ELBO of the test images against minutes of training.

    Args:
      minutes: Minutes of training at the end of each epoch.
      bounds: Negative ELBO after each epoch.
      unit: Label of the axis.
      title: Title.
      estimate: Estimate of -log p(x) at the end, if there is one.
    """
    figure, axes = vj.plot.single_axes(title)
    blue, red = vj.plot.COLOURS[1], vj.plot.COLOURS[0]
    marker = "o" if len(bounds) < 30 else None
    axes.plot(minutes, bounds, color=blue, marker=marker, label="negative ELBO of the averaged parameters")
    lowest = min(bounds)
    if estimate is not None:
        axes.plot(minutes[-1], estimate, "*", color=red, markersize=12, label="-log p(x) at the end")
        lowest = min(lowest, estimate)
    highest = max(bounds[len(bounds) // 10 :])
    margin = 0.05 * (highest - lowest) + 1e-3 * abs(lowest)
    axes.set_ylim(lowest - margin, highest + margin)
    axes.set(xlabel="minutes of training", ylabel=unit)
    axes.legend(frameon=False)
    return figure
