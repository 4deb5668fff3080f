"""Linear interpolation between the encodings of two digits in the latent spaces of an autoencoder and a VAE.

The script trains both with 2 and with 10 latent dimensions, and decodes points on the straight lines between encodings
of test images. At each point it measures the confidence of a classifier and the distance to the nearest training image.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from harness.images import scaled
from harness.options import Options
from harness.report import Report
from harness.run import Run
from harness.script import run_script
from matplotlib.figure import Figure

import vae_jax as vj
from vae_jax.errors import require_positive_int

DIMENSIONS = (2, 10)
MODELS: dict[str, tuple[str, Any, Any]] = {  # by name: title, posterior, objective
    "ae": ("Autoencoder", vj.Delta, vj.Reconstruction()),
    "vae": ("Variational autoencoder", vj.DiagonalGaussian, vj.ELBO()),
}
ROWS = 3  # number of paths of each model in the pictures


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    start: int = 1
    """Digit at which the paths start."""
    end: int = 7
    """Digit at which the paths end."""
    pairs: int = 100
    """Number of pairs of test images over which the measurements are averaged."""
    steps: int = 13
    """Number of points on a path, including both ends."""
    out: Path = Path("runs/mnist_interpolation")
    """Folder for the report and the pictures."""


def main(config: Config) -> Report:
    """Train four models, interpolate, measure the paths, and write the pictures and the report."""
    require_positive_int(pairs=config.pairs, steps=config.steps)
    run = Run.start("mnist_interpolation", config, epochs=20)
    pairs_key, *train_keys, encode_key = jax.random.split(run.key, 2 + len(DIMENSIONS) * len(MODELS))
    starts, ends = pairs_of(pairs_key, run.data.test, config)
    classifier, accuracy = run.classifier()
    training = scaled(run.data.train)
    results: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in MODELS}
    rows, clouds = [], {}
    for dimensions in DIMENSIONS:
        for name, (title, posterior, objective) in MODELS.items():
            vae = vj.mlp_vae(run.data.event_shape, dimensions, posterior=posterior)
            trained = run.train(train_keys.pop(), vae, objective, title=f"{title}, {dimensions}-D")
            encodings = trained.encode(encode_key, run.data.test)
            paths = vj.latents.straight_paths(encodings[starts], encodings[ends], config.steps)
            images = trained.decode(paths.reshape(-1, dimensions))
            results[name][str(dimensions)] = {
                **along("confidence", classifier(images).probabilities.max(axis=-1), config),
                **along("nearest_distance", vj.nearest_distance(images, training), config),
            }
            rows.append((f"{title}, {dimensions}-D", images[: ROWS * config.steps]))
            if dimensions == 2:
                clouds[title] = (encodings, paths[:ROWS])
    draw(run, config, results, rows, clouds)
    note = "means over pairs; confidence: greatest probability of the classifier; distance: Euclidean, pixels in [0, 1]"
    return run.report({"label": f"{run.data_and_seed}; {note}", "classifier_accuracy": accuracy, **results})


def pairs_of(key: jax.Array, data: vj.Split, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Sample the positions of images of the two digits with replacement, one of each per pair.

    Raises:
      InputError: A digit does not occur among the images.
    """
    positions = []
    for number, digit in enumerate((config.start, config.end)):
        images = np.flatnonzero(data.labels == digit)
        if not len(images):
            raise vj.InputError(f"there is no test image of a {digit}; choose another digit")
        positions.append(np.asarray(jax.random.choice(jax.random.fold_in(key, number), images, (config.pairs,))))
    return positions[0], positions[1]


def along(name: str, values: np.ndarray, config: Config) -> dict[str, list[float]]:
    """Compute the mean over the pairs, and its standard error, at each step."""
    means = [vj.mean_and_stderr(at_step) for at_step in values.reshape(config.pairs, config.steps).T]
    return {name: [each.mean for each in means], f"{name}_standard_error": [each.standard_error for each in means]}


def draw(run: Run, config: Config, results: dict, rows: list[tuple[str, np.ndarray]], clouds: dict[str, Any]) -> None:
    """Write the pictures: decoded paths, the paths among the encodings, and the measurements along the paths."""
    where = f"from a {config.start} to a {config.end}, {run.data_and_seed}"
    run.save("rows", vj.plot.sheets(rows, config.steps, 2, f"Decoded steps of straight paths {where}"))
    run.save("paths", vj.plot.paths(clouds, run.data.test.labels, f"Straight paths {where}; dots: decoded steps"))
    curves = {
        f"{title}, {dimensions}-D": results[name][str(dimensions)]
        for dimensions in DIMENSIONS
        for name, (title, *_) in MODELS.items()
    }
    run.save("numbers", along_the_path(curves, f"Mean over {config.pairs} paths {where}; bands: one standard error"))
    for name, values in curves.items():
        middle = config.steps // 2
        print(
            f"{name}: halfway {where}: confidence {values['confidence'][middle]:.3f}, "
            f"distance to the nearest training image {values['nearest_distance'][middle]:.2f}"
        )


def along_the_path(curves: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """Plot "confidence" and "nearest_distance", by the name of the model, against the position on the path."""
    figure = Figure(figsize=(9.4, 4.3), layout="constrained")
    panels = {
        "confidence": "classifier's greatest probability",
        "nearest_distance": "distance to the nearest training image",
    }
    for axes, (part, ylabel) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for (name, values), colour in zip(curves.items(), itertools.cycle(vj.plot.COLOURS), strict=False):
            share, mean = np.linspace(0, 1, len(values[part])), np.asarray(values[part])
            error = np.asarray(values[f"{part}_standard_error"])
            axes.plot(share, mean, "-o", color=colour, markersize=3, label=name)
            axes.fill_between(share, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        axes.set(xlabel="position on the path", ylabel=ylabel)
        axes.grid(alpha=0.3)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), title=title, loc="outside upper center", ncols=4, frameon=False
    )
    return figure


if __name__ == "__main__":
    run_script(main, Config)
