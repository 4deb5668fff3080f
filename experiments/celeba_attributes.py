"""Attribute vectors on faces: blond hair, glasses, and both, added to the encodings of faces that have neither.

The script trains a convolutional autoencoder and a convolutional VAE on faces of 64 x 64 pixels. Their networks have
linear paths, and the VAE starts at probabilistic PCA (Tipping and Bishop, 1999).

An attribute vector is the difference between the mean encodings of the training faces with and without an attribute.
Blond hair is correlated with being female, and glasses with being male and with age; a second vector is therefore
balanced over these confounders. A classifier, trained as if the attributes were independent, measures the share of
held-out faces in which an attribute appears as the step along its vector grows, and the change of the confounders.

Without CelebA, the data set consists of drawn faces. CelebA has no label for sunglasses: its `Eyeglasses` include both
clear and dark glasses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from harness.faces import (
    CLASSIFIED,
    CONFOUNDERS,
    PCA_IMAGES,
    STEPS,
    attribute_classifier,
    attributes_of,
    decode,
    effect,
    pca_start,
    print_accuracy,
    require_attributes,
    sentences,
    with_confounders,
)
from harness.images import as_rows, in_unit, mirrored_too, scaled
from harness.options import PageOptions, TrainingOptions
from harness.recipe import Trained, adamw_from_pca
from harness.report import Report
from harness.run import Run
from harness.script import run_script
from matplotlib.figure import Figure

import vae_jax as vj
from vae_jax.errors import require_positive, require_positive_int
from vae_jax.evaluation.attributes import AttributeClassifier, edit
from vae_jax.evaluation.latents import attribute_counts, attribute_vector

TABLE = (1.0, 1.5, 2.0)  # steps of the printed table
SHARES = (0.5, 0.75, 0.9)  # shares of flipped faces at which vectors are compared
HELD_OUT = 1_000  # largest number of test faces that are edited and classified
FACES = 6  # number of rows in each picture of steps


@dataclass(frozen=True)
class Config(PageOptions):
    """Options of this experiment."""

    latent_dim: int = 100
    """Number of latent dimensions."""
    channels: tuple[int, ...] = (32, 64, 128, 256)
    """Numbers of channels of the convolutions in the encoders and the classifier; the decoders reverse their order."""
    variance: float = 0.1
    """Variance of the Gaussian likelihood of the VAE, for pixels in [0, 1]. A smaller variance gives sharper faces and
    a larger KL."""
    classifier_steps: int | None = None
    """Number of training steps of the attribute classifier, in whole epochs. The default is 2,000 on CelebA, and 1,000
    on other faces: drawn ones need less training."""
    out: Path = Path("runs/celeba_attributes")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=2e-3, weight_decay=0.3)


def main(config: Config) -> Report:
    """Train the models, compute the attribute vectors, measure their effects, and write the pictures and the report."""
    require_positive(variance=config.variance)
    run = Run.start(
        "celeba_attributes", config, native="celeba", epochs=30, batch_size=32, small=0, stand_in_steps=1_000
    )
    default_steps = run.steps_or_smoke(2_000 if run.is_native else 1_000)
    classifier_steps = default_steps if config.classifier_steps is None else config.classifier_steps
    require_positive_int(classifier_steps=classifier_steps)
    require_attributes(run.data)
    autoencoder, variational = (
        model_of(run.data.event_shape, config, posterior) for posterior in (vj.Delta, vj.DiagonalGaussian)
    )
    ae_key, vae_key, encode_key, start_key, draw_key = jax.random.split(run.key, 5)
    start = pca_start(start_key, run, variational)
    classifier = attribute_classifier(
        run.classifier_key(4),
        run,
        "attribute classifier",
        CLASSIFIED,
        steps=classifier_steps,
        convolutions=config.channels,
    )
    print_accuracy(f"classifier of seed {config.classifier_seed}", classifier, run.data)
    ae = run.train(ae_key, autoencoder, vj.Reconstruction(), train_transform=vj.Mirrored(), title="autoencoder")
    training = config.training
    vae = run.train(
        vae_key,
        variational,
        vj.ELBO(),
        train_transform=vj.Mirrored(),
        variables=start,
        optimizer=vj.averaged(adamw_from_pca(training.learning_rate, training.weight_decay, run.steps)),
        title="VAE",
    )

    errors = {"pca": pca_squared_error(run, config.latent_dim)}
    for name, model in (("ae", ae), ("vae", vae)):
        errors[name] = squared_error(model, model.encode(encode_key, run.data.test), run.data.test)
    label = f"{run.data_and_seed}, images in [0, 1], at the posterior mean"
    values = ", ".join(f"{name} {value:.1f}" for name, value in errors.items())
    print(f"squared error per test image ({label}): {values}")

    encodings = vae.encode(encode_key, run.data.train)
    vectors = {name: attribute_vectors(encodings, run.data.train, name) for name in CONFOUNDERS}
    z = vae.encode(encode_key, run.data.test)
    effects = {name: measure(name, vectors[name], z, run.data.test, vae, classifier) for name in CONFOUNDERS}
    for name, by_kind in effects.items():
        print_effects(name, by_kind)
    shown = run.data.test[:8]
    rows = [decode(model, model.encode(encode_key, shown)) for model in (ae, vae)]
    text = f"Held-out faces, the autoencoder's reconstructions, the VAE's, {run.data_and_seed}"
    run.save("reconstructions", vj.plot.images(np.concatenate([scaled(shown), *rows]), 8, text))
    draw(draw_key, run, vae, z, vectors, effects)
    report = run.report(
        {
            "label": label,
            **{f"{name}_test_squared_error": value for name, value in errors.items()},
            "test_kl": vae.history[-1]["test_kl"],
            "test_kl_label": run.label(vae.model.likelihood),
            "classifier_balanced_accuracy": classifier.accuracy(run.data.test),
            "attributes": effects,
            "images_by_combination": {name: counts_by_combination(run.data.train, name) for name in CONFOUNDERS},
            "seconds_per_epoch": {"ae": ae.seconds_per_epoch, "vae": vae.seconds_per_epoch},
        }
    )
    if config.page:
        caption = f"Squared error per test image: VAE {errors['vae']:.1f} ({label})."
        run.page({"VAE": vae}, report, caption, vectors=vectors, classifier=classifier)
    return report


def model_of(event_shape: tuple[int, ...], config: Config, posterior: Any) -> vj.VAE:
    """The VAE, or with `Delta` the plain autoencoder."""
    likelihood = vj.Gaussian(1.0 if posterior is vj.Delta else config.variance)
    return vj.conv_vae(event_shape, config.latent_dim, config.channels, likelihood, posterior, linear=True)


def squared_error(trained: Trained, z: np.ndarray, split: vj.Split) -> float:
    """The squared error between pixels in [0, 1] and E[x|z], summed over an image and averaged over the images."""
    pairs = zip(split.images, trained.decode(z), strict=True)
    return float(np.mean([np.sum((x / 255.0 - y) ** 2) for x, y in pairs]))


def pca_squared_error(run: Run, components: int) -> float:
    """The squared error of a PCA with this number of components, fitted to training images and their mirror images."""
    from sklearn.decomposition import PCA  # imported here, because it takes a second to load

    seen = run.data.train.images[: PCA_IMAGES // 2]
    train, test = (as_rows(in_unit(images)) for images in (mirrored_too(seen), run.data.test.images))
    pca = PCA(min(components, *train.shape), svd_solver="randomized", random_state=run.options.seed).fit(train)
    return float(np.mean(np.sum((test - pca.inverse_transform(pca.transform(test))) ** 2, axis=1, dtype=np.float64)))


def attribute_vectors(encodings: np.ndarray, split: vj.Split, name: str) -> dict[str, np.ndarray]:
    """Compute the plain difference of the mean encodings, and the difference balanced over the confounders."""
    has, confounders = with_confounders(split, name)
    return {"plain": attribute_vector(encodings, has), "balanced": attribute_vector(encodings, has, confounders)}


def counts_by_combination(split: vj.Split, name: str) -> list[dict[str, int]]:
    """Count images with and without an attribute per combination of confounders, from all absent to all present."""
    counts = attribute_counts(*with_confounders(split, name))
    return [{"with": n1, "without": n0} for n1, n0 in counts]


def measure(
    name: str,
    vectors: Mapping[str, np.ndarray],
    z: np.ndarray,
    split: vj.Split,
    vae: Trained,
    classifier: AttributeClassifier,
) -> dict[str, dict[str, Any]]:
    """Measure the effect of both kinds of vector, by step, on the held-out faces without the attribute."""
    lacking = z[~attributes_of(split)[name]][:HELD_OUT]
    return {
        kind: effect(name, edit(vae.model, vae.variables, classifier, lacking, vector, STEPS), SHARES)
        for kind, vector in vectors.items()
    }


def print_effects(name: str, by_kind: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the table of the effects of an attribute."""
    for kind, of_kind in by_kind.items():
        flips = dict(zip(of_kind["steps"], of_kind["flip_by_step"], strict=True))
        print(f"{name}, {kind} vector: flipped {', '.join(f'{flips[step]:.0%} at {step:g}' for step in TABLE)}")
        for sentence in sentences(of_kind):
            print(f"  {sentence}")


def draw(
    key: jax.Array,
    run: Run,
    vae: Trained,
    z: np.ndarray,
    vectors: Mapping[str, Mapping[str, np.ndarray]],
    effects: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> None:
    """Write the pictures: samples from the prior, rows of decoded steps, and the effects."""
    samples = decode(vae, vae.model.prior_distribution(vae.variables).sample(key, 48))
    run.save("prior", vj.plot.images(samples, 8, f"48 draws from the prior, E[x|z], {run.data_and_seed}"))

    attributes = attributes_of(run.data.test)
    neither = np.flatnonzero(~attributes["Blond_Hair"] & ~attributes["Eyeglasses"])
    # As many women as men, so that the effect on each is visible.
    faces = np.concatenate([neither[attributes["Male"][neither] == sex][: FACES // 2] for sex in (False, True)])
    balanced = {name: by_kind["balanced"] for name, by_kind in vectors.items()}
    pictures = {
        "blond": ("blond hair", balanced["Blond_Hair"]),
        "glasses": ("glasses", balanced["Eyeglasses"]),
        "both": ("blond hair and glasses", balanced["Blond_Hair"] + balanced["Eyeglasses"]),
    }
    headings = [f"{step:g}" for step in STEPS]
    for part, (what, vector) in pictures.items():
        images = np.stack([decode(vae, z[faces] + step * vector) for step in STEPS], axis=1)
        text = f"Steps along the balanced vector of {what}\nE[x|z] of held-out faces, {run.data_and_seed}"
        run.save(part, vj.plot.rows(images, headings, text))
    run.save("effects", drift(effects, f"Held-out faces, decoded and classified; {run.data_and_seed}"))


def drift(effects: Mapping[str, Mapping[str, Mapping[str, Any]]], title: str) -> Figure:
    """Plot the share of flipped faces against the step, and the drift of the confounders against that share.

    Args:
      effects: Effects by attribute and kind of vector: "steps", "flip_by_step", and "confounder_by_step" by confounder.
      title: Title of the figure.

    Returns:
      The figure.
    """
    figure = Figure(figsize=(4.1 * len(effects), 6.6), layout="constrained")
    styles = {"plain": "--", "balanced": "-"}
    for (name, by_kind), (above, below) in zip(effects.items(), figure.subplots(2, len(effects)).T, strict=True):
        for kind, of_kind in by_kind.items():
            flips = of_kind["flip_by_step"]
            above.plot(of_kind["steps"], flips, styles[kind], color="black", label=f"{kind} vector")
            for (other, values), colour in zip(of_kind["confounder_by_step"].items(), vj.plot.COLOURS, strict=False):
                drift = np.asarray(values) - values[0]
                below.plot(flips, drift, styles[kind], color=colour, label=f"P({other}), {kind}")
        readable = name.replace("_", " ").lower()
        above.set(title=readable, xlabel="step, in lengths of the vector", ylabel="share flipped", ylim=(-0.03, 1.03))
        below.set(xlabel="share flipped", ylabel="drift of the mean probability", xlim=(-0.03, 1.03))
        below.axhline(0, color="grey", linewidth=0.8)
        for axes in (above, below):
            axes.grid(alpha=0.3)
            axes.legend(frameon=False, fontsize="small")
    figure.suptitle(title)
    return figure


if __name__ == "__main__":
    run_script(main, Config)
