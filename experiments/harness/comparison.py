"""A plain autoencoder against a variational one: their latent spaces in arrays, numbers and pictures."""

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from harness.options import Options
from harness.recipe import Trained, bound_in_numbers
from harness.run import Run
from jaxtyping import Array, Float, Int, Key
from matplotlib.figure import Figure

from vae_jax.data import Dataset
from vae_jax.data.transforms import Scale, Transform
from vae_jax.distributions import Delta, DiagonalGaussian
from vae_jax.errors import InputError
from vae_jax.evaluation.classifier import TrainedClassifier
from vae_jax.evaluation.distances import frechet_distance
from vae_jax.evaluation.latents import Sphere, aggregate, inscribed_lattice, sphere_about_mean, uniform_in_square
from vae_jax.evaluation.passes import decode_all, encode_all
from vae_jax.models import mlp_vae
from vae_jax.objectives import ELBO, Objective, Reconstruction
from vae_jax.plotting.curves import training_curves_figure
from vae_jax.plotting.images import encodings_figure, images_figure, latent_spaces_figure


class Contestant(NamedTuple):
    """One side of the comparison."""

    title: str
    posterior: type[DiagonalGaussian] | type[Delta]
    objective: Objective


CONTESTANTS = {
    "ae": Contestant("Autoencoder", Delta, Reconstruction()),
    "vae": Contestant("Variational autoencoder", DiagonalGaussian, ELBO()),
}


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """A trained model's latent space: arrays for the pictures, and `numbers` for the report.

    Attributes:
      encodings: posterior means of the test images.
      sphere: about their mean, holding 99 % of them.
      lattice: sites inscribed in its circle.
      decoded: E[x|z] at the sites, in the lattice's order.
      draws: E[x|z] of as many draws as there are sites: of "prior", "fitted", "square" and "reconstruction".
      numbers: see `survey`.
    """

    encodings: Float[np.ndarray, "n latent"]
    sphere: Sphere
    lattice: Float[np.ndarray, "size size latent"]
    decoded: Float[np.ndarray, "sites height width channels"]
    draws: dict[str, np.ndarray] = field(repr=False)
    numbers: dict[str, Any] = field(repr=False)


def survey(
    key: Key[Array, ""],
    trained: Trained,
    data: Dataset,
    classifier: TrainedClassifier,
    *,
    transform: Transform = Scale(),
    sites: int = 15,
) -> LatentSpace:
    """Look at the latent space of a trained model.

    The numbers, in nats per image where they are bounds:

    * {train, test}_{reconstruction, kl, negative_elbo}: at one sampled z for each image;
    * legible_share, lattice_classes: of the lattice's images, as `Predictions` has them;
    * frechet: squared Fréchet distance in the classifier's features between the test images and as many decoded means E[x|z]
      of z drawn from N(0, I) ("prior"), from a Gaussian fitted to the aggregated posterior of the training images
      ("fitted"), uniformly from the lattice's square ("square"), from q(z|x) of the test images ("reconstruction");
      and, for scale, as many training images ("train");
    * aggregated_posterior: of the training images: mean, covariance, and the KL of a Gaussian of these from N(0, I).
    """
    vae, variables = trained.vae, trained.variables
    train_key, test_key, encode_key, aggregate_key, prior_key, fitted_key, square_key, sample_key = jax.random.split(
        key, 8
    )
    posterior = encode_all(encode_key, vae, variables, data.test, transform=transform)
    aggregated = aggregate(encode_all(aggregate_key, vae, variables, data.train, transform=transform))
    sphere = sphere_about_mean(posterior.mean)
    lattice = inscribed_lattice(sphere, sites)
    decoded = decode_all(vae, variables, lattice.reshape(-1, vae.latent_dim))
    on_lattice = classifier(decoded)
    count = len(data.test)
    draws = {
        "prior": vae.prior_distribution(variables).sample(prior_key, count),
        "fitted": aggregated.sample(fitted_key, count),
        "square": uniform_in_square(square_key, sphere, count),
        "reconstruction": posterior.sample(sample_key),
    }
    test_features = classifier.on(data.test).features
    images = {name: decode_all(vae, variables, z) for name, z in draws.items()}
    frechet = {name: frechet_distance(classifier(x).features, test_features) for name, x in images.items()}
    frechet["train"] = frechet_distance(classifier.on(data.train[:count]).features, test_features)
    numbers = {
        **bound_in_numbers(train_key, vae, variables, data.train, transform, "train"),
        **bound_in_numbers(test_key, vae, variables, data.test, transform, "test"),
        "legible_share": on_lattice.legible_share(),
        "lattice_classes": on_lattice.effective_classes(),
        "frechet": frechet,
        "aggregated_posterior": {
            "mean": aggregated.mean.tolist(),
            "covariance": aggregated.covariance.tolist(),
            "kl_from_prior": aggregated.kl,
        },
        "seconds_per_epoch": trained.seconds_per_epoch,
        "history": trained.history,
    }
    shown = {name: x[: sites * sites] for name, x in images.items()}
    return LatentSpace(np.asarray(posterior.mean), sphere, lattice, decoded, shown, numbers)


@dataclass(frozen=True)
class ComparisonOptions(Options):
    """Options of a comparison."""

    latent_dim: int = 2
    """Number of latent dimensions."""


def run_comparison(name: str, options: ComparisonOptions) -> tuple[Run, dict[str, LatentSpace]]:
    """The whole experiment: train and survey both contestants, draw, print the table, write the report.

    Both have dense layers 500-250 and back with ReLU and a Bernoulli likelihood on grey pixels.
    """
    if options.latent_dim < 2:
        raise InputError(f"latent_dim is {options.latent_dim}; a lattice needs at least 2")
    run = Run.start(name, options)
    classifier, accuracy = run.classifier()
    spaces = {}
    for number, (contestant, (title, posterior, objective)) in enumerate(CONTESTANTS.items()):
        train_key, survey_key = jax.random.split(jax.random.fold_in(run.key, number))
        vae = mlp_vae(run.data.image_shape, options.latent_dim, posterior=posterior)
        trained = run.train(train_key, vae, objective, title=title)
        spaces[contestant] = survey(survey_key, trained, run.data, classifier)
    for part, figure in comparison_figures(spaces, run.data.test.labels, run.where, run.label()).items():
        run.save(part, figure)
    print(table({CONTESTANTS[contestant].title: space.numbers for contestant, space in spaces.items()}, run.label()))
    numbers = {contestant: space.numbers for contestant, space in spaces.items()}
    run.report({"label": run.label(), "classifier_accuracy": accuracy, **numbers})
    return run, spaces


def comparison_figures(
    spaces: Mapping[str, LatentSpace], labels: Int[np.ndarray, " n"] | None, where: str, label: str
) -> dict[str, Figure]:
    """The pictures of each model, both side by side, and the training curves, by the part of the file name.

    Args:
      spaces: by the contestants' names.
      labels: classes of the test images.
      where: data and seed, for the titles of what has no unit.
      label: data, unit, noise and seed, for the titles of what has numbers.
    """
    figures = {}
    for name, space in spaces.items():
        title = CONTESTANTS[name].title
        for part, lattice in (("encodings", None), ("lattice", space.lattice)):
            text = f"{title}: {len(space.encodings):,} test images, {where}"
            figures[f"{name}_{part}"] = encodings_figure(space.encodings, labels, space.sphere, text, lattice)
        side = len(space.lattice)
        text = f"{title}: E[x|z] on the {side} x {side} lattice, {where}"
        figures[f"{name}_digits"] = images_figure(space.decoded, side, text)
    columns = {CONTESTANTS[name].title: space for name, space in spaces.items()}
    captions = {title: caption(space.numbers) for title, space in columns.items()}
    text = f"Encodings of the test images, and the lattice decoded\n{label}"
    figures["side_by_side"] = latent_spaces_figure(columns, labels, captions, text)
    curves = {
        title: [[record[name] for record in space.numbers["history"]] for name in ("loss", "test_negative_elbo")]
        for title, space in columns.items()
    }
    figures["curves"] = training_curves_figure(curves, "negative ELBO (AE: reconstruction), nats per image", label)
    return figures


def caption(numbers: Mapping[str, Any]) -> str:
    """Three lines under a picture."""
    return (
        f"test images: reconstruction {numbers['test_reconstruction']:.1f} + KL {numbers['test_kl']:.1f} nats\n"
        f"lattice: {numbers['legible_share']:.0%} legible, spread over {numbers['lattice_classes']:.1f} classes\n"
        f"draws from the prior: Fréchet distance {numbers['frechet']['prior']:.0f}"
    )


def table(columns: Mapping[str, Mapping[str, Any]], label: str) -> str:
    """The numbers of several models as text, a column each.

    Args:
      columns: a `LatentSpace.numbers` by the model's name.
      label: data, unit, noise and seed.
    """
    rows: dict[str, tuple[str, str]] = {}  # title: path to the number, format
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
    lines = [label, ""]
    lines.append(f"{'':30}" + "".join(f"{name:>26}" for name in columns))
    for title, (path, form) in rows.items():
        cells = [functools.reduce(operator.getitem, path.split("."), numbers) for numbers in columns.values()]
        lines.append(f"{title:30}" + "".join(f"{cell:>26{form}}" for cell in cells))
    return "\n".join(lines)
