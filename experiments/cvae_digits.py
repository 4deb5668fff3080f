"""A conditional VAE that generates digits of a given class, with a latent vector that represents the style.

The one-hot label is an input of the encoder and the decoder. A separately trained classifier measures how often the
generated digit has the given class. The encodings measure how much information on the label the latent vector contains,
compared with the same VAE without labels.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness.options import PageOptions
from harness.recipe import Trained
from harness.report import Report
from harness.run import Run
from harness.script import run_script

import vae_jax as vj
from vae_jax.errors import require_positive_int

DRAWS = 10_000  # number of samples for the agreement
COLUMNS = 12  # number of samples of each digit in the pictures


@dataclass(frozen=True)
class Config(PageOptions):
    """Options of this experiment."""

    classes: int = 10
    """Number of classes. Each label must be less than this number."""
    latent_dim: int = 2
    """Number of latent dimensions."""
    out: Path = Path("runs/cvae_digits")
    """Folder for the report and the pictures."""


def main(config: Config) -> Report:
    """Train with and without labels, generate digits of each class, classify them, and write the report."""
    require_positive_int(classes=config.classes, latent_dim=config.latent_dim)
    run = Run.start("cvae_digits", config)
    conditional = vj.mlp_vae(run.data.event_shape, config.latent_dim, classes=config.classes)
    for split in (run.data.train, run.data.test):
        conditional.require_inputs(split)
    classifier, accuracy = run.classifier()
    *train_keys, grid_key, draw_key, encode_key = jax.random.split(run.key, 5)
    kinds = {"conditional": conditional, "unconditional": replace(conditional, classes=None)}
    models = {
        name: run.train(key, vae, vj.ELBO(), title=f"{name} VAE")
        for key, (name, vae) in zip(train_keys, kinds.items(), strict=True)
    }
    numbers: dict[str, Any] = {
        "label_agreement": agreement(draw_key, models["conditional"], classifier, config.classes),
        "test_negative_elbo": models["conditional"].history[-1]["test_negative_elbo"],
        "unconditional_test_negative_elbo": models["unconditional"].history[-1]["test_negative_elbo"],
    }
    clouds = {}
    for name, model in models.items():
        clouds[name], numbers[f"{name}_latent"] = what_the_latent_keeps(encode_key, model, run)
    draw_digits(grid_key, models["conditional"], run, config.classes)
    if config.latent_dim >= 2:
        titles = {
            f"{name}: nearest-mean accuracy {numbers[f'{name}_latent']['nearest_mean_accuracy']:.0%}": cloud
            for name, cloud in clouds.items()
        }
        run.save(
            "latents",
            vj.plot.clouds(titles, run.data.test.labels, f"Encodings of the test images, {run.data_and_seed}"),
        )
    print(f"{run.label()}:")
    print("\n".join(f"{name}: {value}" for name, value in numbers.items()))
    report = run.report({"label": run.label(), "classifier_accuracy": accuracy, "draws": DRAWS, **numbers})
    if config.page:
        caption = f"{numbers['label_agreement']:.1%} of {DRAWS:,} draws have the label asked for, by a classifier."
        run.page({f"{name} VAE": model for name, model in models.items()}, report, caption)
    return report


def agreement(key: jax.Array, trained: Trained, classifier: vj.TrainedClassifier, classes: int) -> float:
    """The share of samples, equally many of each class, that the classifier assigns to the given class."""
    asked = np.arange(DRAWS) % classes
    z = trained.model.prior_distribution(trained.variables).sample(key, DRAWS)
    return classifier(trained.decode(z, asked)).accuracy(asked)


def what_the_latent_keeps(key: jax.Array, trained: Trained, run: Run) -> tuple[np.ndarray, dict[str, float]]:
    """Compute the encodings of the test images, and measure how well they predict the label."""
    train, test = (trained.encode(key, split) for split in (run.data.train, run.data.test))
    return test, {
        "nearest_mean_accuracy": vj.latents.nearest_mean_accuracy(
            train, run.data.train.labels, test, run.data.test.labels
        ),
        "class_separation": vj.latents.class_separation(test, run.data.test.labels),
    }


def draw_digits(key: jax.Array, trained: Trained, run: Run, classes: int) -> None:
    """Write pictures with a row for each digit: with a new latent vector per image, and with one per column."""
    digits = np.repeat(np.arange(classes), COLUMNS)
    each = trained.model.prior_distribution(trained.variables).sample(key, len(digits))
    same = jnp.tile(each[:COLUMNS], (classes, 1))
    for part, z, text in (
        ("draws", each, "a new latent for each image"),
        ("styles", same, "one latent down each column"),
    ):
        images = trained.decode(z, digits)
        title = f"A row for each digit asked for, {text}\nE[x|z, label], {run.data_and_seed}"
        run.save(part, vj.plot.images(images, COLUMNS, title))


if __name__ == "__main__":
    run_script(main, Config)
