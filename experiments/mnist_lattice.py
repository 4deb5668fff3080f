"""A plain autoencoder against a variational autoencoder: their latent planes, and what lattices in them decode to.

Trains both with the same dense layers (784-500-250-2 and back) on grey MNIST, draws their encodings, the lattice
inscribed in the circle that holds 99 % of them, and the decoded digits, and measures what the pictures show.
"""

from dataclasses import dataclass
from pathlib import Path

from harness.comparison import ComparisonOptions, run_comparison
from harness.run import run_script


@dataclass(frozen=True)
class Config(ComparisonOptions):
    """Options of this experiment."""

    out: Path = Path("runs/mnist_lattice")
    """Folder for the report and the pictures."""


def main(config: Config) -> None:
    """Train, measure, draw, report."""
    run_comparison("mnist_lattice", config)


if __name__ == "__main__":
    run_script(main, Config)
