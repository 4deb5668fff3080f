"""A plain autoencoder against a variational autoencoder: their latent planes, and what lattices in them decode to.

Trains both with the same dense layers (784-500-250-2 and back) on grey MNIST, draws their encodings, the lattice
inscribed in the circle that holds 99 % of them, and the decoded digits, and measures what the pictures show.
"""

from dataclasses import dataclass
from pathlib import Path

import jax

import vae_jax as vj
from vae_jax.comparison import CONTESTANTS, compare, comparison_figures, require_plane, table
from vae_jax.experiment import Options, Run, run_script


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
    require_plane(config.latent_dim)
    run = Run.start("mnist_lattice", config)
    judge = vj.train_judge(jax.random.fold_in(jax.random.key(config.judge_seed), 1), run.data.train)
    accuracy = judge.on(run.data.test).agreement(run.data.test.labels)
    print(f"classifier of seed {config.judge_seed}: {accuracy:.2%} of {run.data.name}'s test images right")
    spaces = compare(
        jax.random.key(config.seed),
        run.data,
        judge,
        config.latent_dim,
        epochs=run.epochs,
        batch_size=run.batch_size,
        learning_rate=config.learning_rate,
    )
    for part, figure in comparison_figures(spaces, run.data.test.labels, run.label()).items():
        run.save(part, figure)
    print(table({CONTESTANTS[name].title: space.numbers for name, space in spaces.items()}, run.label()))
    models = {name: space.numbers for name, space in spaces.items()}
    run.report({"label": run.label(), "judge_accuracy": accuracy, **models})


if __name__ == "__main__":
    run_script(main, Config)
