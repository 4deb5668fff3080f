"""The comparison of `mnist_lattice.py` with ten latent dimensions.

The script trains an autoencoder and a variational autoencoder with the layers 784-500-250-10 and a mirrored decoder.
The pictures show the plane of the first two latent dimensions and the lattice on the great circle of the sphere that
contains 99 % of the encodings. Because a plane shows little of ten dimensions, further pictures show images decoded
from samples of N(0, I) and of a Gaussian fitted to the encodings.
"""

from dataclasses import dataclass
from pathlib import Path

from harness.options import PageOptions, TrainingOptions
from harness.report import Report
from harness.run import Run
from harness.script import run_script
from mnist_lattice import compare, write_page

import vae_jax as vj

DRAWS = {"prior": "N(0, I)", "fitted": "a Gaussian fitted to the encodings"}


@dataclass(frozen=True)
class Config(PageOptions):
    """Options of this experiment."""

    latent_dim: int = 10
    """Number of latent dimensions."""
    out: Path = Path("runs/mnist_latent10")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=6e-3, weight_decay=0.05)  # overfits without weight decay


def main(config: Config) -> Report:
    """Compare both models, write pictures of samples from each, and write the report."""
    run = Run.start("mnist_latent10", config)
    numbers, spaces = compare(run, config.latent_dim)
    sheets = [
        (f"{title}, z from {text}\nFréchet distance {space.numbers['frechet'][name]:.0f}", space.draws[name])
        for name, text in DRAWS.items()
        for title, space in spaces.items()
    ]
    run.save(
        "draws",
        vj.plot.sheets(sheets, images_a_row=15, columns=2, title=f"225 draws each, E[x|z], {run.data_and_seed}"),
    )
    report = run.report(numbers)
    if config.page:
        write_page(run, report, spaces)
    return report


if __name__ == "__main__":
    run_script(main, Config)
