"""Pictures and a table that compare an autoencoder with a variational autoencoder."""

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from harness.recipe import Trained
from vae_jax.evaluation.latents import Sphere
from vae_jax.plotting import draw_encodings, draw_images, title_with_classes, training_curves


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """The latent space of a trained model: arrays for the pictures, and `numbers` for the report.

    Attributes:
      encodings: Posterior means of the test images.
      circle: Circle around their mean that contains 99 % of them.
      lattice: Points of the lattice inscribed in the circle.
      decoded: E[x|z] at the points, in the order of the lattice.
      draws: E[x|z] at samples of each distribution of z, by its name; as many as there are points.
      numbers: Numbers for the report (see `mnist_lattice.latent_space`).
      trained: The model.
    """

    encodings: Float[np.ndarray, "n latent"]
    circle: Sphere
    lattice: Float[np.ndarray, "size size latent"]
    decoded: Float[np.ndarray, "points height width channels"]
    draws: dict[str, np.ndarray] = field(repr=False)
    numbers: dict[str, Any] = field(repr=False)
    trained: Trained = field(repr=False)


def side_by_side(spaces: Mapping[str, LatentSpace], labels: Int[np.ndarray, " n"] | None, title: str) -> Figure:
    """Plot several models side by side: encodings with circle and lattice above, the decoded lattice below.

    Args:
      spaces: Latent spaces by the title of the model.
      labels: Classes of the test images, or None.
      title: Title of the figure.

    Returns:
      The figure.
    """
    figure = Figure(figsize=(4.6 * len(spaces), 9.9), layout="constrained")
    grid = figure.subplots(2, len(spaces), squeeze=False)
    for (name, space), (above, below) in zip(spaces.items(), grid.T, strict=True):
        draw_encodings(above, space.encodings, labels, space.circle, space.lattice)
        above.set_title(name)
        draw_images(below, space.decoded, len(space.lattice))
        below.set_xlabel(caption(space.numbers))
    title_with_classes(figure, title, labels)
    return figure


def curves(spaces: Mapping[str, LatentSpace], title: str) -> Figure:
    """Plot the training loss and the negative ELBO of the test images against epochs, one colour per model."""
    names = ("loss", "test_negative_elbo")
    by_model = {
        model: [[record[name] for record in space.numbers["history"]] for name in names]
        for model, space in spaces.items()
    }
    return training_curves(by_model, "negative ELBO (AE: reconstruction), nats per image", title)


def caption(numbers: Mapping[str, Any]) -> str:
    """The caption of a decoded lattice, in three lines."""
    return (
        f"test images: reconstruction {numbers['test_reconstruction']:.1f} + KL {numbers['test_kl']:.1f} nats\n"
        f"lattice: {numbers['legible_share']:.0%} legible, {numbers['lattice_classes']:.1f} effective classes\n"
        f"draws from the prior: Fréchet distance {numbers['frechet']['prior']:.0f}"
    )


def table(spaces: Mapping[str, LatentSpace], label: str) -> str:
    """Format the numbers of several models as a text table, with one column per model.

    Args:
      spaces: Latent spaces by the title of the model.
      label: First line of the table: data, unit, noise and seed.

    Returns:
      The table.
    """
    rows: dict[str, tuple[str, str]] = {}  # by title: path to the number, and format
    for split in ("train", "test"):
        for term in ("reconstruction", "kl", "negative_elbo"):
            rows[f"{split} {term.replace('_', ' ')}"] = (f"{split}_{term}", ".2f")
    rows["  its standard error"] = ("test_negative_elbo_standard_error", ".2f")
    rows["legible share of the lattice"] = ("legible_share", ".3f")
    rows["effective classes on it"] = ("lattice_classes", ".1f")
    for name in ("prior", "fitted", "square", "reconstruction", "train"):
        rows[f"Fréchet distance, {name}"] = (f"frechet.{name}", ".1f")
    rows["KL of q(z) from the prior"] = ("aggregated_posterior.kl_from_prior", ".2f")
    rows["seconds per epoch"] = ("seconds_per_epoch", ".2f")
    lines = [label, "", f"{'':30}" + "".join(f"{name:>26}" for name in spaces)]
    for title, (path, form) in rows.items():
        cells = [functools.reduce(operator.getitem, path.split("."), space.numbers) for space in spaces.values()]
        lines.append(f"{title:30}" + "".join(f"{cell:>26{form}}" for cell in cells))
    return "\n".join(lines)
