"""A trained model in numbers and arrays: what a comparison of latent spaces says and draws of each."""

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.classifier import Judge
from vae_jax.data import Dataset, Split
from vae_jax.evaluate import aggregate, decode_all, encode_all, estimate, evaluate, frechet_distance
from vae_jax.latents import Sphere, inscribed_lattice, sphere_about_mean, uniform_in_square
from vae_jax.model import VAE, Variables
from vae_jax.objectives import Objective
from vae_jax.observation import Observe, Scale
from vae_jax.train import Record, TrainState, fit, init, make_train_step, warm_up_then_cosine


@dataclass(frozen=True, eq=False)
class Trained:
    """A model, its variables, and how it came to them."""

    vae: VAE
    variables: Variables
    history: list[Record]

    @property
    def seconds_per_epoch(self) -> float:
        """The median, which leaves compilation in the first epoch out."""
        return float(np.median([record["seconds"] for record in self.history]))


def train_vae(
    key: Key[Array, ""],
    vae: VAE,
    objective: Objective,
    data: Dataset,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    observe: Observe = Scale(),
    title: str = "training",
    progress: bool = True,
) -> Trained:
    """Train with Adam, warm-up and cosine decay; the history has the test split's terms after each epoch.

    The test split's are for the curves alone: nothing is chosen by them. They are "test_reconstruction" and "test_kl"
    in nats per image, at one sampled z each.
    """
    init_key, measure_key = jax.random.split(key)
    optimizer = warm_up_then_cosine(learning_rate, steps=epochs * (len(data.train) // batch_size))
    step = make_train_step(vae, objective, optimizer)

    def measure(state: TrainState) -> Record:
        return bound_in_numbers(measure_key, vae, state.variables, data.test, observe, "test")

    state, history = fit(
        init(init_key, vae, optimizer),
        step,
        data.train,
        observe=observe,
        epochs=epochs,
        batch_size=batch_size,
        measure=measure,
        title=title,
        progress=progress,
    )
    return Trained(vae, state.variables, history)


def bound_in_numbers(
    key: Key[Array, ""], vae: VAE, variables: Variables, data: Split, observe: Observe, split: str
) -> Record:
    """Means over a split in nats per image, one sampled z each, and the bound's standard error over the images."""
    terms = evaluate(key, vae, variables, data, observe=observe)
    negative_elbo = estimate(terms.kl - terms.log_px_z)
    return {
        f"{split}_reconstruction": estimate(-terms.log_px_z).mean,
        f"{split}_kl": estimate(terms.kl).mean,
        f"{split}_negative_elbo": negative_elbo.mean,
        f"{split}_negative_elbo_standard_error": negative_elbo.standard_error,
    }


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """A trained model's latent space: arrays for the pictures, and `numbers` for the report.

    Attributes:
      encodings: posterior means of the test images.
      sphere: about their mean, holding 99 % of them.
      lattice: sites inscribed in its circle.
      decoded: E[x|z] at the sites, in the lattice's order.
      numbers: see `survey`.
    """

    encodings: Float[np.ndarray, "n latent"]
    sphere: Sphere
    lattice: Float[np.ndarray, "size size latent"]
    decoded: Float[np.ndarray, "sites height width channels"]
    numbers: dict[str, Any] = field(repr=False)


def survey(
    key: Key[Array, ""],
    trained: Trained,
    data: Dataset,
    judge: Judge,
    *,
    observe: Observe = Scale(),
    sites: int = 15,
) -> LatentSpace:
    """Look at the latent space of a trained model.

    The numbers, in nats per image where they are bounds:

    * {train, test}_{reconstruction, kl, negative_elbo}: at one sampled z for each image;
    * legible_share, lattice_classes: of the lattice's images, as `Judgement` has them;
    * frechet: squared Fréchet distance in the judge's features between the test images and as many decoded means E[x|z]
      of z drawn from N(0, I) ("prior"), from a Gaussian fitted to the aggregated posterior of the training images
      ("fitted"), uniformly from the lattice's square ("square"), from q(z|x) of the test images ("reconstruction");
      and, for scale, as many training images ("train");
    * aggregated_posterior: of the training images: mean, covariance, and the KL of a Gaussian of these from N(0, I).
    """
    vae, variables = trained.vae, trained.variables
    train_key, test_key, encode_key, prior_key, fitted_key, square_key, sample_key = jax.random.split(key, 7)
    posterior = encode_all(encode_key, vae, variables, data.test, observe=observe)
    aggregated = aggregate(encode_all(encode_key, vae, variables, data.train, observe=observe))
    sphere = sphere_about_mean(posterior.mean)
    lattice = inscribed_lattice(sphere, sites)
    decoded = decode_all(vae, variables, lattice.reshape(-1, vae.latent_dim))
    on_lattice = judge(decoded)
    count = len(data.test)
    draws = {
        "prior": jax.random.normal(prior_key, (count, vae.latent_dim)),
        "fitted": aggregated.sample(fitted_key, count),
        "square": uniform_in_square(square_key, sphere, count),
        "reconstruction": posterior.sample(sample_key),
    }
    test_features = judge(data.test.images / np.float32(255)).features
    frechet = {
        name: frechet_distance(judge(decode_all(vae, variables, z)).features, test_features)
        for name, z in draws.items()
    }
    frechet["train"] = frechet_distance(judge(data.train[:count].images / np.float32(255)).features, test_features)
    numbers = {
        **bound_in_numbers(train_key, vae, variables, data.train, observe, "train"),
        **bound_in_numbers(test_key, vae, variables, data.test, observe, "test"),
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
    return LatentSpace(np.asarray(posterior.mean), sphere, lattice, decoded, numbers)


def caption(numbers: Mapping[str, Any]) -> str:
    """Three lines under a picture."""
    return (
        f"test images: reconstruction {numbers['test_reconstruction']:.1f} + KL {numbers['test_kl']:.1f} nats\n"
        f"lattice: {numbers['legible_share']:.0%} legible, {numbers['lattice_classes']:.1f} of the classes\n"
        f"draws from the prior: Fréchet distance {numbers['frechet']['prior']:.0f}"
    )


def table(columns: Mapping[str, Mapping[str, Any]], label: str) -> str:
    """The numbers of several models as text, a column each.

    Args:
      columns: a `LatentSpace.numbers` by the model's name.
      label: data and seed.
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
    lines = [f"{label}; grey cross-entropy, nats per image, one sampled z each", ""]
    lines.append(f"{'':30}" + "".join(f"{name:>26}" for name in columns))
    for title, (path, form) in rows.items():
        cells = [functools.reduce(operator.getitem, path.split("."), numbers) for numbers in columns.values()]
        lines.append(f"{title:30}" + "".join(f"{cell:>26{form}}" for cell in cells))
    return "\n".join(lines)
