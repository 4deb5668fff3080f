"""A plain autoencoder against a variational autoencoder: their latent planes, and what lattices in them decode to.

Trains both with the same dense layers (784-500-250-2 and back) on grey MNIST, draws their encodings, the lattice
inscribed in the circle that holds 99 % of them, and the decoded digits, and measures what the pictures show.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

import vae_jax as vj
from vae_jax.comparison import LatentSpace, caption, survey, table, train_vae
from vae_jax.experiment import Options, Run, run_script
from vae_jax.figures import encodings_figure, images_figure, latent_spaces_figure, training_curves_figure
from vae_jax.objectives import Objective

MODELS: dict[str, tuple[str, type, Objective]] = {
    "ae": ("Autoencoder", vj.Delta, vj.Reconstruction()),
    "vae": ("Variational autoencoder", vj.DiagonalGaussian, vj.ELBO()),
}


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    latent_dim: int = 2
    """Number of latent dimensions."""
    judge_seed: int = 0
    """Seed of the classifier that judges legibility, apart from the run's, so that runs are judged alike."""
    out: Path = Path("runs/mnist_lattice")
    """Folder for the report and the pictures."""


def main(config: Config) -> None:
    """Train, measure, draw, report."""
    run = Run.start("mnist_lattice", config)
    if config.latent_dim < 2:
        raise vj.InputError(f"latent_dim is {config.latent_dim}; a lattice needs at least 2")
    vaes = {
        name: vj.mlp_vae(run.data.image_shape, config.latent_dim, posterior=family)
        for name, (_, family, _) in MODELS.items()
    }
    judge = vj.train_judge(run.data.train, seed=config.judge_seed)
    judge_accuracy = judge(run.data.test.images / np.float32(255)).agreement(run.data.test.labels)
    print(f"classifier: {judge_accuracy:.2%} of the test images right")
    spaces = {}
    for name, (title, _, objective) in MODELS.items():
        train_key, survey_key = jax.random.split(jax.random.key(config.seed))
        trained = train_vae(
            train_key,
            vaes[name],
            objective,
            run.data,
            epochs=run.epochs,
            batch_size=run.batch_size,
            learning_rate=config.learning_rate,
            title=title,
        )
        spaces[name] = survey(survey_key, trained, run.data, judge)
    draw(run, spaces)
    print(
        table(
            {MODELS[name][0]: space.numbers for name, space in spaces.items()},
            f"{run.data.name}, seed {config.seed}",
        )
    )
    run.report({"judge_accuracy": judge_accuracy} | {name: space.numbers for name, space in spaces.items()})


def draw(run: Run, spaces: dict[str, LatentSpace]) -> None:
    """The pictures of each model, then both side by side, then the curves."""
    labels = run.data.test.labels
    what = f"{run.data.name}, {len(run.data.test):,} test images"
    for name, space in spaces.items():
        title = MODELS[name][0]
        sites = len(space.lattice)
        for part, lattice in (("encodings", None), ("lattice", space.lattice)):
            figure = encodings_figure(space.encodings, labels, space.sphere, f"{title}: {what}", lattice)
            run.save(f"{name}_{part}", figure)
        digits = images_figure(
            space.decoded, sites, f"{title}: E[x|z] on the {sites} x {sites} lattice, {run.data.name}"
        )
        run.save(f"{name}_digits", digits)
    columns = {MODELS[name][0]: space for name, space in spaces.items()}
    captions = {title: caption(space.numbers) for title, space in columns.items()}
    run.save(
        "side_by_side",
        latent_spaces_figure(columns, labels, captions, f"Encodings of {what}, and the lattice decoded"),
    )
    curves = {
        title: (
            [r["loss"] for r in space.numbers["history"]],
            [r["test_negative_elbo"] for r in space.numbers["history"]],
        )
        for title, space in columns.items()
    }
    run.save(
        "curves",
        training_curves_figure(
            curves,
            "negative ELBO / reconstruction, nats per image",
            f"{run.data.name}, grey cross-entropy, one sampled z",
        ),
    )


if __name__ == "__main__":
    run_script(main, Config)
