"""The same comparison with ten latent dimensions, where a plane shows little.

Trains an autoencoder and a variational autoencoder of the layers 784-500-250-10 and back, looks at the plane of the
first two latent dimensions, with the lattice on the great circle of the sphere that holds 99 % of the encodings, and
draws what the plane can't show: images decoded from N(0, I) and from a Gaussian fitted to the encodings, for both.
"""

from dataclasses import dataclass
from pathlib import Path

from harness.comparison import CONTESTANTS, ComparisonOptions, run_comparison
from harness.run import run_script

from vae_jax.plotting.images import sheets_figure

DRAWS = {"prior": "N(0, I)", "fitted": "a Gaussian fitted to the encodings"}


@dataclass(frozen=True)
class Config(ComparisonOptions):
    """Options of this experiment."""

    latent_dim: int = 10
    """Number of latent dimensions."""
    learning_rate: float = 6e-3
    """AdamW's peak rate, after a warm-up and before the cosine decay to 0."""
    weight_decay: float = 0.05
    """AdamW's decay of the weight matrices, in units of the learning rate: wider latents overfit without it."""
    out: Path = Path("runs/mnist_latent10")
    """Folder for the report and the pictures."""


def main(config: Config) -> None:
    """Train, measure, draw, report; then the draws that the plane can't show."""
    run, spaces = run_comparison("mnist_latent10", config)
    sheets = [
        (
            f"{CONTESTANTS[name].title}, z from {distribution}\nFréchet distance {space.numbers['frechet'][draw]:.0f}",
            space.draws[draw],
        )
        for draw, distribution in DRAWS.items()
        for name, space in spaces.items()
    ]
    run.save("draws", sheets_figure(sheets, images_a_row=15, columns=2, title=f"225 draws each, E[x|z], {run.where}"))


if __name__ == "__main__":
    run_script(main, Config)
