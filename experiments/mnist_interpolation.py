"""Straight paths between the encodings of two digits, through the latent spaces of an autoencoder and a VAE.

Trains both with 2 and with 10 latent dimensions, decodes steps on the lines between encodings of test images, and
measures along the way how sure a classifier is of one digit, and how far each step is from the nearest training image.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from harness.comparison import CONTESTANTS
from harness.options import Options
from harness.run import Run, run_script

import vae_jax as vj
from vae_jax.errors import require_positive_int
from vae_jax.evaluation.distances import nearest_distance
from vae_jax.evaluation.latents import straight_paths
from vae_jax.plotting.curves import along_the_path_figure
from vae_jax.plotting.images import paths_figure, sheets_figure

DIMENSIONS = (2, 10)
ROWS = 3  # paths shown of each model


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    start: int = 1
    """The digit from which the paths start."""
    end: int = 7
    """The digit at which they end."""
    pairs: int = 100
    """Pairs of test images over which the numbers are averaged."""
    steps: int = 13
    """Steps of a path, both ends included."""
    out: Path = Path("runs/mnist_interpolation")
    """Folder for the report and the pictures."""


def main(config: Config) -> None:
    """Train four models, walk, measure, draw, report."""
    require_positive_int(pairs=config.pairs, steps=config.steps)
    run = Run.start("mnist_interpolation", config, epochs=20)
    pairs_key, *train_keys, encode_key = jax.random.split(run.key, 2 + len(DIMENSIONS) * len(CONTESTANTS))
    starts, ends = pairs_of(pairs_key, run.data.test, config)
    classifier, accuracy = run.classifier()
    training = run.data.train.images / np.float32(255)
    results: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in CONTESTANTS}
    rows, clouds = [], {}
    for dimensions in DIMENSIONS:
        for name, (title, posterior, objective) in CONTESTANTS.items():
            vae = vj.mlp_vae(run.data.image_shape, dimensions, posterior=posterior)
            trained = run.train(train_keys.pop(), vae, objective, title=f"{title}, {dimensions}-D")
            encodings = np.asarray(vj.encode_all(encode_key, vae, trained.variables, run.data.test).mean)
            paths = straight_paths(encodings[starts], encodings[ends], config.steps)
            images = vj.decode_all(vae, trained.variables, paths.reshape(-1, dimensions))
            results[name][str(dimensions)] = {
                "confidence": _along(classifier(images).probabilities.max(axis=-1), config),
                "nearest_distance": _along(nearest_distance(images, training), config),
            }
            rows.append((f"{title}, {dimensions}-D", images[: ROWS * config.steps]))
            if dimensions == 2:
                clouds[title] = (encodings, paths[:ROWS])
    draw(run, config, results, rows, clouds)
    note = "mean over pairs; confidence: the classifier's greatest probability; distance: Euclidean, pixels in [0, 1]"
    run.report({"label": f"{run.where}; {note}", "classifier_accuracy": accuracy, **results})


def pairs_of(key: jax.Array, data: vj.Split, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Positions of images of the two digits, as many of each as there are pairs, drawn with replacement."""
    positions = []
    for number, digit in enumerate((config.start, config.end)):
        found = np.flatnonzero(data.labels == digit)
        if not len(found):
            raise vj.InputError(f"there is no test image of a {digit}; choose another digit")
        positions.append(np.asarray(jax.random.choice(jax.random.fold_in(key, number), found, (config.pairs,))))
    return positions[0], positions[1]


def _along(values: np.ndarray, config: Config) -> list[float]:
    return values.reshape(config.pairs, config.steps).mean(axis=0).tolist()


def draw(run: Run, config: Config, results: dict, rows: list[tuple[str, np.ndarray]], clouds: dict[str, Any]) -> None:
    """Rows of decoded steps, the paths over the clouds, the numbers along the way."""
    where = f"from a {config.start} to a {config.end}, {run.where}"
    run.save("rows", sheets_figure(rows, config.steps, 2, f"Decoded steps of straight paths {where}"))
    run.save("paths", paths_figure(clouds, run.data.test.labels, f"Straight paths {where}"))
    curves = {
        f"{title}, {dimensions}-D": results[name][str(dimensions)]
        for dimensions in DIMENSIONS
        for name, (title, *_) in CONTESTANTS.items()
    }
    run.save("numbers", along_the_path_figure(curves, f"Mean over {config.pairs} paths {where}"))
    for name, values in curves.items():
        middle = config.steps // 2
        print(
            f"{name}: halfway {where}: confidence {values['confidence'][middle]:.3f}, "
            f"distance to the nearest training image {values['nearest_distance'][middle]:.2f}"
        )


if __name__ == "__main__":
    run_script(main, Config)
