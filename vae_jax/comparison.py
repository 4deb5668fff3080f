"""A trained model in numbers and arrays: what a comparison of latent spaces says and draws of each."""

from collections.abc import Callable, Mapping
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
    * legible_share: of the lattice's images, as `Judgement.legible_share`;
    * frechet: squared Fréchet distance in the judge's features between the test images and as many decoded means E[x|z]
      of z drawn from N(0, I) ("prior"), from a Gaussian fitted to the aggregated posterior of the training images
      ("fitted"), uniformly from the lattice's square ("square"), from q(z|x) of the test images ("reconstruction");
      and, for scale, as many training images ("train");
    * aggregated_posterior: of the training images: mean, covariance, and the KL of a Gaussian of these from N(0, I).
    """
    vae, variables = trained.vae, trained.variables
    train_key, test_key, encode_key, prior_key, fitted_key, square_key, sample_key = jax.random.split(key, 7)
    encodings = encode_all(encode_key, vae, variables, data.test, observe=observe)
    aggregated = aggregate(encode_all(encode_key, vae, variables, data.train, observe=observe))
    sphere = sphere_about_mean(encodings.mean)
    lattice = inscribed_lattice(sphere, sites)
    decoded = decode_all(vae, variables, lattice.reshape(-1, vae.latent_dim))
    count = len(data.test)
    draws = {
        "prior": jax.random.normal(prior_key, (count, vae.latent_dim)),
        "fitted": aggregated.sample(fitted_key, count),
        "square": uniform_in_square(square_key, sphere, count),
        "reconstruction": encodings.sample(sample_key),
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
        "legible_share": judge(decoded).legible_share(),
        "frechet": frechet,
        "aggregated_posterior": {
            "mean": aggregated.mean.tolist(),
            "covariance": aggregated.covariance.tolist(),
            "kl_from_prior": aggregated.kl,
        },
        "seconds_per_epoch": trained.seconds_per_epoch,
        "history": trained.history,
    }
    return LatentSpace(encodings.mean, sphere, lattice, decoded, numbers)


def caption(numbers: Mapping[str, Any]) -> str:
    """Two lines under a picture."""
    return (
        f"test reconstruction {numbers['test_reconstruction']:.1f} nats, KL {numbers['test_kl']:.1f}\n"
        f"legible {numbers['legible_share']:.0%} of the lattice; Fréchet distance of the prior's draws "
        f"{numbers['frechet']['prior']:.0f}"
    )


def table(columns: Mapping[str, Mapping[str, Any]], label: str) -> str:
    """The numbers of several models as text, a column each.

    Args:
      columns: a `LatentSpace.numbers` by the model's name.
      label: data and seed.
    """
    rows: dict[str, Callable[[Mapping[str, Any]], str]] = {}
    for split in ("train", "test"):
        for term in ("reconstruction", "kl", "negative_elbo"):
            rows[f"{split} {term.replace('_', ' ')}"] = lambda n, name=f"{split}_{term}": f"{n[name]:.2f}"
    rows["  its standard error"] = lambda n: f"{n['test_negative_elbo_standard_error']:.2f}"
    rows["legible share of the lattice"] = lambda n: f"{n['legible_share']:.3f}"
    for name in ("prior", "fitted", "square", "reconstruction", "train"):
        rows[f"Fréchet distance, {name}"] = lambda n, name=name: f"{n['frechet'][name]:.1f}"
    rows["KL of q(z) from the prior"] = lambda n: f"{n['aggregated_posterior']['kl_from_prior']:.2f}"
    rows["seconds per epoch"] = lambda n: f"{n['seconds_per_epoch']:.2f}"
    lines = [f"{label}; grey cross-entropy, nats per image, one sampled z each", ""]
    lines.append(f"{'':30}" + "".join(f"{name:>26}" for name in columns))
    for row, text in rows.items():
        lines.append(f"{row:30}" + "".join(f"{text(numbers):>26}" for numbers in columns.values()))
    return "\n".join(lines)
