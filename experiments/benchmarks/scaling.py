"""Seconds per epoch of the MLP VAE against the number of images, latent size, batch size, members and devices.

One quantity varies at a time, and the others stay at their defaults. The exponent of the power law seconds ~ n^a is
fitted to the medians of each quantity. Not every quantity follows a power law: few weights depend on the number of
latent dimensions, and each step has a fixed cost, whatever the batch size. Members train side by side on an accelerator
and in turn on a CPU. Devices share each batch, and those of a CPU share its cores.

The images are random. All points are measured in alternation (A B C A B C), so that disturbances on a shared machine
affect all of them; on such a machine, the exponents are more reliable than the seconds.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

import vae_jax as vj
from vae_jax.errors import require_positive_int, require_writable_folder
from vae_jax.progress import Progress
from vae_jax.training.sharding import Layout

sys.path.insert(0, str(Path(__file__).parents[1]))  # the folder of the harness

from benchmarks.power_law import fit_power_law
from harness.report import save_picture, write_report
from harness.script import run_script

IMAGE_SHAPE = (28, 28, 1)


@dataclass(frozen=True)
class Config:
    """Options of this benchmark."""

    vary_images: tuple[int, ...] = (2048, 4096, 8192, 16384, 32768)
    """Numbers of images. An epoch leaves out the remainder that does not fill a batch."""
    vary_latent_dim: tuple[int, ...] = (2, 5, 10, 20, 50, 100)
    """Numbers of latent dimensions."""
    vary_batch_size: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    """Numbers of images in a training step."""
    vary_members: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of models that train as one program. If there are several devices, their number varies as 1, 2, 4, ..."""
    images: int = 8192
    """Number of images while another quantity varies."""
    latent_dim: int = 10
    """Number of latent dimensions while another quantity varies."""
    batch_size: int = 128
    """Number of images in a training step while another quantity varies."""
    hidden: tuple[int, ...] = (500, 250)
    """Widths of the hidden layers of the encoder. The decoder has them in reverse order."""
    rounds: int = 3
    """Number of runs of each point."""
    epochs: int = 4
    """Number of epochs in a run. The first epoch does not count."""
    seed: int = 0
    """Seed of the images, the initial parameters, the order of the data and the noise."""
    out: Path = Path("runs/scaling")
    """Folder for the report and the picture."""


@dataclass(frozen=True)
class Point:
    """One setting of the quantities, for which the time is measured."""

    images: int
    latent_dim: int
    batch_size: int
    members: int = 1
    devices: int = 1


NAMES = {"latent_dim": "latent dimensions", "batch_size": "batch size"}


def main(config: Config) -> None:
    """Measure all points in alternation, fit the power laws, and write the picture and the report."""
    started = time.perf_counter()
    sweeps = sweeps_of(config)
    require_writable_folder(config.out)
    points = list(dict.fromkeys(point for sweep in sweeps.values() for point in sweep))
    turns = measure(points, config)
    found = {quantity: summary(quantity, sweep, turns) for quantity, sweep in sweeps.items()}
    for numbers in found.values():
        each = zip(numbers["sizes"], numbers["seconds_per_epoch"], strict=True)
        print(f"{numbers['name']}: seconds ~ n^{numbers['law']}")
        print("  " + ", ".join(f"{size:,}: {seconds:.3g} s" for size, seconds in each))
    save_picture(config.out / "scaling", seconds_by_size(list(found.values()), title(config)))
    content = {
        "experiment": "scaling",
        "label": title(config),
        "seconds": time.perf_counter() - started,
        "cpu_cores": os.cpu_count(),
        "quantities": {name: numbers | {"law": asdict(numbers["law"])} for name, numbers in found.items()},
    }
    write_report(config.out / "scaling.json", content, config)
    print(f"{config.out}/scaling*: the report and the picture, after {content['seconds']:.0f} s")


def sweeps_of(config: Config) -> dict[str, list[Point]]:
    """The points of each quantity, in order of size.

    Raises:
      InputError: An option cannot be used. All options are checked here, before any training.
    """
    given = {name: getattr(config, name) for name in ("images", "latent_dim", "batch_size", "rounds")}
    require_positive_int(**given, **{f"hidden[{i}]": width for i, width in enumerate(config.hidden)})
    if config.epochs < 2:
        raise vj.InputError(f"epochs is {config.epochs}; the first does not count, so give at least 2")
    if not 0 <= config.seed < 2**32:
        raise vj.InputError(f"seed is {config.seed}; expected a whole number from 0 to 2**32 - 1")
    lists = {name: getattr(config, f"vary_{name}") for name in ("images", "latent_dim", "batch_size", "members")}
    for name, sizes in lists.items():
        require_positive_int(**{f"vary_{name}[{i}]": size for i, size in enumerate(sizes)})
        if len(set(sizes)) < len(sizes):
            raise vj.InputError(f"vary_{name} is {list(sizes)}; give each size once")
        if len(sizes) < 2:
            raise vj.InputError(f"vary_{name} is {list(sizes)}; an exponent needs at least 2 sizes")
    if jax.device_count() > 1:
        lists["devices"] = tuple(2**power for power in range(jax.device_count().bit_length()))
    usual = Point(config.images, config.latent_dim, config.batch_size)
    sweeps = {name: [replace(usual, **{name: size}) for size in sorted(sizes)] for name, sizes in lists.items()}
    for name, sweep in sweeps.items():
        for point in sweep:
            if point.batch_size > point.images:
                raise vj.InputError(
                    f"where {name} varies, batch_size is {point.batch_size} but there are only {point.images} images; "
                    "give smaller batches or more images"
                )
            Layout(vj.device_mesh(point.devices)).require_divisible(batch_size=point.batch_size)
    return sweeps


def measure(points: list[Point], config: Config) -> dict[Point, list[list[float]]]:
    """Measure the seconds of the epochs that count, by point and run."""
    shape = (max(point.images for point in points), *IMAGE_SHAPE)
    images = np.random.default_rng(config.seed).integers(0, 256, shape, np.uint8)
    trainers = {point: trainer(point, images, config) for point in points}
    turns: dict[Point, list[list[float]]] = {point: [] for point in points}
    with Progress("scaling", config.rounds * len(points), unit="turn") as bar:
        for _ in range(config.rounds):
            for point, train in trainers.items():
                _, history = train()
                turns[point].append([record["seconds"] for record in history[1:]])
                bar.advance(1)
    return turns


def summary(quantity: str, sweep: list[Point], turns: dict[Point, list[list[float]]]) -> dict[str, Any]:
    """The sizes and seconds of one quantity, and the power law that is fitted to the medians."""
    sizes = [getattr(point, quantity) for point in sweep]
    medians = [statistics.median(value for turn in turns[point] for value in turn) for point in sweep]
    return {
        "name": NAMES.get(quantity, quantity),
        "law": fit_power_law(sizes, medians),
        "sizes": sizes,
        "seconds_per_epoch": medians,
        "seconds_by_turn": [turns[point] for point in sweep],
    }


def trainer(point: Point, images: np.ndarray, config: Config) -> Callable[[], tuple[vj.TrainState, list[Any]]]:
    """A function that trains one point from its initial state; it compiles only once."""
    key = jax.random.key(config.seed)
    vae, optimizer = vj.mlp_vae(IMAGE_SHAPE, point.latent_dim, hidden=config.hidden), optax.adam(1e-3)
    if point.members == 1:
        state = vj.init(key, vae, optimizer)
    else:
        state = vj.init_members(jax.random.split(key, point.members), vae, optimizer)
    return partial(
        vj.fit,
        state,
        vj.make_train_step(vae, vj.ELBO(), optimizer),
        vj.Split(images[: point.images]),
        epochs=config.epochs,
        batch_size=point.batch_size,
        mesh=None if point.devices == 1 else vj.device_mesh(point.devices),
        progress=False,
    )


def title(config: Config) -> str:
    """The title of the picture: the measured quantity and the machine."""
    machine = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    if jax.default_backend() == "cpu":
        machine += f", {os.cpu_count()} cores"
    widths = "-".join(map(str, (np.prod(IMAGE_SHAPE), *config.hidden)))
    return (
        f"One epoch of the VAE {widths} on random images; where not varied: {config.images:,} images, "
        f"{config.latent_dim} latent dimensions, batch size {config.batch_size}, 1 member\n{machine}; "
        f"points: medians, bars: range over {config.rounds * (config.epochs - 1)} epochs, lines: fitted power laws"
    )


def seconds_by_size(quantities: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Plot the seconds per epoch against each quantity in a separate panel, on logarithmic axes.

    Points are medians, whiskers span the range from minimum to maximum, and lines are the fitted power laws.

    Args:
      quantities: For each quantity its "name", "sizes", "seconds_per_epoch" (the medians), "seconds_by_turn" (the
        seconds of each run, for each size), and "law" (a `PowerLaw`).
      title: Title of the figure.

    Returns:
      The figure.
    """
    figure = Figure(figsize=(10.5, 3.3), layout="constrained")
    width = 10.5 / len(quantities)
    row = figure.subplots(1, len(quantities), sharey=True, squeeze=False)[0]
    for axes, quantity in zip(row, quantities, strict=True):
        sizes, medians, law = quantity["sizes"], np.array(quantity["seconds_per_epoch"]), quantity["law"]
        seconds = [np.ravel(turns) for turns in quantity["seconds_by_turn"]]
        whiskers = [medians - [min(values) for values in seconds], [max(values) for values in seconds] - medians]
        axes.plot(sizes, law(sizes), color=vj.plot.COLOURS[0], linewidth=1.5)
        axes.errorbar(
            sizes, medians, whiskers, fmt="o", color=vj.plot.COLOURS[1], markersize=4.5, linewidth=1.2, capsize=2.5
        )
        axes.set(xscale="log", yscale="log")
        axes.set_title("exponent $" + str(law).replace("+-", r"\pm") + "$", fontsize="medium")
        axes.set_xlabel(quantity["name"], fontsize="small")
        ticks = [f"{size:,}" for size in sizes]
        if len(" ".join(ticks)) > 13 * width:  # too long to fit side by side
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


if __name__ == "__main__":
    run_script(main, Config)
