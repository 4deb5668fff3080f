"""Comparison of an autoencoder and a variational autoencoder on MNIST: 2-D encodings, and the decoded lattice.

Both models have the layers 784-500-250-2 and a mirrored decoder. The script plots the encodings of the test images with
the circle that contains 99 % of them, the square lattice inscribed in that circle, and the decoded lattice. It measures
the ELBO, the share of decoded images that are legible, and Fréchet distances of generated images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from harness.comparison import LatentSpace, curves, side_by_side, table
from harness.images import scaled
from harness.options import PageOptions
from harness.recipe import Trained, elbo_numbers
from harness.report import Report
from harness.run import Run
from harness.script import run_script

import vae_jax as vj

TITLES = {"ae": "Autoencoder", "vae": "Variational autoencoder"}


@dataclass(frozen=True)
class Config(PageOptions):
    """Options of this experiment."""

    latent_dim: int = 2
    """Number of latent dimensions. The pictures show the plane of the first two."""
    out: Path = Path("runs/mnist_lattice")
    """Folder for the report and the pictures."""


def main(config: Config) -> Report:
    """Train both models, plot and measure their latent spaces, and write the report."""
    run = Run.start("mnist_lattice", config)
    numbers, spaces = compare(run, config.latent_dim)
    report = run.report(numbers)
    if config.page:
        write_page(run, report, spaces)
    return report


def compare(run: Run, latent_dim: int) -> tuple[dict[str, Any], dict[str, LatentSpace]]:
    """Train both models, plot and measure their latent spaces; return the numbers, and the spaces by title."""
    if latent_dim < 2:
        raise vj.InputError(f"latent_dim is {latent_dim}; a lattice needs at least 2")
    shape, labels = run.data.event_shape, run.data.test.labels
    models: dict[str, tuple[vj.VAE, Any]] = {
        "ae": (vj.mlp_vae(shape, latent_dim, hidden=(500, 250), posterior=vj.Delta), vj.Reconstruction()),
        "vae": (vj.mlp_vae(shape, latent_dim, hidden=(500, 250)), vj.ELBO()),
    }
    classifier, accuracy = run.classifier()
    legibility, legible_test_images = legibility_classifier(run)
    spaces = {}
    for number, (name, (model, objective)) in enumerate(models.items()):
        train_key, key = jax.random.split(jax.random.fold_in(run.key, number))
        trained = run.train(train_key, model, objective, title=TITLES[name])
        space = spaces[name] = latent_space(key, trained, run.data, classifier, legibility)
        text = f"{TITLES[name]}: {len(space.encodings):,} test images, {run.data_and_seed}"
        run.save(f"{name}_encodings", vj.plot.encodings(space.encodings, labels, space.circle, text))
        run.save(f"{name}_lattice", vj.plot.encodings(space.encodings, labels, space.circle, text, space.lattice))
        side = len(space.lattice)
        text = f"{TITLES[name]}: E[x|z] on the {side} x {side} lattice, {run.data_and_seed}"
        run.save(f"{name}_digits", vj.plot.images(space.decoded, side, text))
    by_title = {TITLES[name]: space for name, space in spaces.items()}
    text = f"Encodings of the test images, and the lattice decoded\n{run.label()}"
    run.save("side_by_side", side_by_side(by_title, labels, text))
    run.save("curves", curves(by_title, run.label()))
    print(table(by_title, run.label()))
    numbers = {name: space.numbers for name, space in spaces.items()}
    of_classifiers = {"classifier_accuracy": accuracy, "legible_share_of_test_images": legible_test_images}
    return {"label": run.label(), **of_classifiers, **numbers}, by_title


def legibility_classifier(run: Run) -> tuple[vj.LegibilityClassifier, float]:
    """Train a legibility classifier on the data of the run; also return the legible share of the test images."""
    key, steps = run.classifier_key(2), run.steps_or_smoke(3_000)
    classifier = vj.train_legibility_classifier(key, run.data.train, steps=steps)
    share = classifier.share(scaled(run.data.test))
    print(f"legibility classifier of seed {run.options.classifier_seed}: {share:.2%} of the test images are legible")
    return classifier, share


def write_page(run: Run, report: Report, spaces: dict[str, LatentSpace]) -> None:
    """Write the page of both models."""
    bounds = ", ".join(f"{title} {space.numbers['test_negative_elbo']:.1f}" for title, space in spaces.items())
    caption = f"Negative ELBO of the test images: {bounds} ({run.label()})."
    run.page({title: space.trained for title, space in spaces.items()}, report, caption)


def latent_space(
    key: jax.Array,
    trained: Trained,
    data: vj.Dataset,
    classifier: vj.TrainedClassifier,
    legibility: vj.LegibilityClassifier,
    size: int = 15,
) -> LatentSpace:
    """Compute the encodings, circle, lattice and decoded lattice of a trained model, and the numbers for the report."""
    model, variables = trained.model, trained.variables
    keys = jax.random.split(key, 8)
    posterior = vj.encode_all(keys[2], model, variables, data.test)
    circle = vj.latents.circle(posterior.mean, share=0.99)
    lattice = vj.latents.inscribed_lattice(circle, size)
    decoded = vj.decode_all(model, variables, lattice.reshape(-1, model.latent_dim))
    aggregated = vj.latents.aggregate(vj.encode_all(keys[3], model, variables, data.train))
    count = len(data.test)
    draws_of_z = {
        "prior": model.prior_distribution(variables).sample(keys[4], count),
        "fitted": aggregated.sample(keys[5], count),  # a Gaussian with the mean and covariance of q(z)
        "square": vj.latents.uniform_in_square(keys[6], circle, count),
        "reconstruction": posterior.sample(keys[7]),
    }
    draws = {name: vj.decode_all(model, variables, z) for name, z in draws_of_z.items()}
    features = {name: classifier(images).features for name, images in draws.items()}
    features["train"] = classifier.on(data.train[:count]).features  # reference: the distance between real images
    test_features = classifier.on(data.test).features
    numbers = {
        **elbo_numbers(keys[0], model, variables, data.train, vj.Scale(), "train"),
        **elbo_numbers(keys[1], model, variables, data.test, vj.Scale(), "test"),
        "legible_share": legibility.share(decoded),
        "lattice_classes": legibility.effective_classes(decoded),
        "frechet": {name: vj.frechet_distance(found, test_features) for name, found in features.items()},
        "aggregated_posterior": {
            "mean": aggregated.mean.tolist(),
            "covariance": aggregated.covariance.tolist(),
            "kl_from_prior": aggregated.kl,
        },
        "seconds_per_epoch": trained.seconds_per_epoch,
        "history": trained.history,
    }
    shown = {name: images[: size * size] for name, images in draws.items()}
    return LatentSpace(np.asarray(posterior.mean), circle, lattice, decoded, shown, numbers, trained)


if __name__ == "__main__":
    run_script(main, Config)
