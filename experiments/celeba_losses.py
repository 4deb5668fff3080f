"""Losses for sharper faces: a plain VAE, a perceptual loss, a discriminator, and both, side by side.

The script trains four convolutional VAEs of one architecture on faces of 64 x 64 pixels. The first has the ELBO. The
second adds a perceptual loss (Hou et al., 2017), the third an adversarial loss and the squared error between the
discriminator's activations (VAE/GAN: Larsen et al., 2016), and the fourth both, as in the autoencoder of latent
diffusion (Rombach et al., 2022). All of them keep the pixel likelihood of the first. As in latent diffusion, the
discriminator does not see draws from N(0, I), and its loss trains decoder and encoder. It judges pairs of a face and
its reconstruction (Jolicoeur-Martineau, 2019).

Encoders and decoders have linear paths, and all four models start at the probabilistic PCA of the training images and
of their mirror images (Tipping and Bishop, 1999), where the aggregated posterior has the moments of N(0, I).

The features of the perceptual loss are those of a small classifier of attributes, which is trained here, of the encoder
of the plain VAE, or of VGG-19, whose published weights are read from a file. Draws come from N(0, I), and from a
Gaussian mixture and a flow that are fitted after training to the encodings of up to 8,000 training faces and of their
mirror images (Ghosh et al., 2020).

Draws and reconstructions are measured in the features of a second classifier, against which no model is trained: it has
another architecture, another seed and other attributes. Without CelebA, the data set consists of drawn faces.

`--weight-decay` is that of all parameters of the models, biases as well, unlike in the other scripts. With
`--checkpoint-dir`, the classifiers are saved too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
import optax
from flax import linen as nn
from harness.estimates import estimate, with_error
from harness.face_measures import SETS, detected, of_images, require_enough
from harness.faces import (
    CLASSIFIED,
    CONFOUNDERS,
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
from harness.images import mirrored_too, scaled
from harness.options import Options, TrainingOptions
from harness.recipe import LINEAR_RATE, Trained, labels_of_paths
from harness.report import Report
from harness.run import Run
from harness.script import run_script
from matplotlib.figure import Figure

import vae_jax as vj
from vae_jax.errors import require_not_negative, require_positive, require_positive_int
from vae_jax.evaluation.attributes import AttributeClassifier, edit
from vae_jax.evaluation.blocks import in_blocks
from vae_jax.evaluation.latents import attribute_vector, straight_paths
from vae_jax.models import Variables
from vae_jax.objectives import Objective, layer_distances

Name = Literal["plain", "perceptual", "adversarial", "both"]
MODELS = get_args(Name)
MOST_ATTRIBUTES = 12  # of the classifier whose features are compared
COMPARED = (16, 32, 64)  # channels of its convolutions
MEASURING = (24, 48, 96, 96)  # channels of the convolutions of the classifier that measures
VGG_LAYERS = ("relu1_2", "relu2_2", "relu3_2")
SHARE = 0.5  # of flipped faces at which the vectors of two models are compared
PRIORS = {"normal": vj.StandardNormal(), "mixture": vj.FullGaussianMixture(10), "flow": vj.FlowPrior(vj.Coupling())}
DRAWS = (*PRIORS, "aggregated_posterior")
MEASURES = {  # of decoded images, in the printed table
    "frechet": "Fréchet",
    "density": "density",
    "coverage": "coverage",
    "sharpness": "sharpness",
    "detected": "with a face",
}
FITTED = 8_000  # at most so many training faces are encoded, with their mirror images, to fit a prior
COUNT = 1_000  # of faces, reconstructions and draws in each distance
SHOWN = 8


class Features(NamedTuple):
    """A feature network with its variables, the layers that are compared, and the unit of distance in each."""

    network: nn.Module
    variables: Variables
    layers: tuple[str, ...]
    scales: tuple[float, ...]


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    models: tuple[Name, ...] = MODELS
    """Models that are trained and measured."""
    latent_dim: int = 128
    """Number of latent dimensions."""
    channels: tuple[int, ...] = (16, 32, 64, 128)
    """Numbers of channels of the convolutions of the encoder; the decoder reverses their order."""
    discriminator_channels: tuple[int, ...] = (32, 64, 96, 128)
    """Numbers of channels of the convolutions of the discriminator."""
    variance: float = 0.03
    """Variance of the Gaussian likelihood of the pixels in [0, 1], in all four models."""
    perceptual_weight: float = 5_000.0
    """Perceptual loss of each layer, in nats, of a reconstruction that is as far from its face as two different faces
    are from each other."""
    adversarial_weight: float = 1_000.0
    """Weight of the adversarial loss of the decoder and, without --discriminate-draws, of the encoder."""
    feature_weight: float = 12.0
    """Weight of the squared error of the discriminator's activations."""
    noise: float = 0.0
    """Standard deviation of the Gaussian noise on the images that the discriminator sees."""
    penalty: float = 1.0
    """Weight of half the squared gradient of the discriminator at the faces (R1)."""
    discriminate_draws: bool = False
    """Whether the discriminator sees draws from N(0, I) as well as reconstructions, and the encoder does not follow the
    adversarial loss, as in Larsen et al. (2016)."""
    relativistic: bool = True
    """Whether the discriminator judges pairs of a face and a decoded image (Jolicoeur-Martineau, 2019)."""
    discriminator_rate: float = 1e-3
    """Peak learning rate of the discriminator, whose warm-up and decay are those of the model's."""
    pca: bool = True
    """Whether the models start at probabilistic PCA, with a smaller learning rate for their linear paths."""
    features: Literal["attributes", "encoder", "vgg19"] = "attributes"
    """Feature network of the perceptual loss: a classifier of attributes that is trained here, the encoder of the plain
    VAE, which needs no attributes, or VGG-19."""
    weights: Path | None = None
    """File with the published parameters of VGG-19, .safetensors or .npz with torchvision's names; required by
    --features vgg19."""
    classifier_steps: int | None = None
    """Number of training steps of each of the two classifiers, in whole epochs. The default is 1,500 on CelebA, and
    600 on other faces, such as drawn ones."""
    prior_steps: int | None = None
    """Number of training steps of the flow that is fitted to the encodings. The default is 3,000."""
    out: Path = Path("runs/celeba_losses")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=2e-3, weight_decay=0.1)


def main(config: Config) -> Report:
    """Train the classifiers and the models, measure them, and write the pictures and the report."""
    if not config.models:
        raise vj.InputError(f"models is (); expected one or more of {', '.join(MODELS)}")
    if config.features == "encoder" and "plain" not in config.models:
        raise vj.InputError("--features encoder takes the encoder of the plain model; add plain to --models")
    require_positive(variance=config.variance, perceptual_weight=config.perceptual_weight)
    require_positive(discriminator_rate=config.discriminator_rate)
    published = vgg19(config)
    run = Run.start("celeba_losses", config, native="celeba", epochs=12, batch_size=32, small=0, stand_in_steps=500)
    default = run.steps_or_smoke(1_500 if run.is_native else 600)
    steps = default if config.classifier_steps is None else config.classifier_steps
    prior_steps = run.steps_or_smoke(3_000) if config.prior_steps is None else config.prior_steps
    require_positive_int(classifier_steps=steps, prior_steps=prior_steps)
    require_enough(run.data)
    require_attributes(run.data)
    vae, adversarial = model_and_objective(run.data.event_shape, config)
    start_key, *model_keys, faces_key = jax.random.split(run.key, 2 + len(MODELS))
    start = pca_start(start_key, run, vae) if config.pca else None
    compared, independent = classifiers(run, config, steps)
    pairs = [jax.random.split(key) for key in model_keys]
    train_keys, measure_keys = (dict(zip(MODELS, keys, strict=True)) for keys in zip(*pairs, strict=True))
    models, features = train_models(train_keys, run, config, vae, start, adversarial, published or compared)

    real = scaled(run.data.test[:COUNT])
    chosen = np.resize(jax.random.permutation(faces_key, len(run.data.train)), SETS * len(real))
    seen = run.data.train[chosen]
    of_seen = of_images(scaled(seen), real, partial(features_of, independent), paired=False)
    of_faces = {"detected": detected(real), "training_faces": of_seen}
    print(f"training faces, measured as draws are: {with_titles(of_seen)}")
    measured, pictures = {}, {}
    for name, trained in models.items():
        measured[name], pictures[name] = measure(
            measure_keys[name], run, trained, features, independent, real, seen, prior_steps
        )
        measured[name] |= of_training(trained, config)
        print_row(name, measured[name], of_faces)
    draw(run, real, pictures, measured)
    return run.report(
        {
            "label": label(run, real, independent),
            "features": config.features,
            "layers": list(features.layers),
            "independent_balanced_accuracy": independent.accuracy(run.data.test),
            "faces": of_faces,
            "models": measured,
        }
    )


def classifiers(
    run: Run, config: Config, steps: int
) -> tuple[tuple[vj.ConvFeatures, Variables] | None, AttributeClassifier]:
    """Train the classifiers for this number of steps each.

    Returns:
      The convolutions and the variables of the classifier whose features are compared, or None if others are, and the
      classifier that measures.
    """
    compared = None
    compared_key, independent_key = jax.random.split(run.classifier_key(3))
    if config.features == "attributes":
        names, title = other_attributes(run.data.train), "compared classifier"
        classifier = attribute_classifier(
            compared_key, run, title, names, steps=steps, convolutions=COMPARED, independent=False
        )
        print_accuracy(title, classifier, run.data)
        compared = vj.conv_features(classifier)
    title = "independent classifier"
    independent = attribute_classifier(independent_key, run, title, CLASSIFIED, steps=steps, convolutions=MEASURING)
    print_accuracy(title, independent, run.data)
    return compared, independent


def model_and_objective(event_shape: tuple[int, ...], config: Config) -> tuple[vj.VAE, vj.Adversarial]:
    """The VAE of all four models, and the objective with the discriminator.

    Raises:
      InputError: A size, a weight or the channels of the discriminator can't be used with images of this shape.
    """
    weights = {"adversarial_weight": config.adversarial_weight, "feature_weight": config.feature_weight}
    require_not_negative(**weights, noise=config.noise, penalty=config.penalty)
    likelihood = vj.Gaussian(config.variance)
    vae = vj.conv_vae(event_shape, config.latent_dim, config.channels, likelihood, linear=True)
    widths = config.discriminator_channels
    if not widths:
        raise vj.InputError("discriminator_channels is (); expected one number of channels or more")
    require_positive_int(**{f"discriminator_channels[{i}]": width for i, width in enumerate(widths)})
    adversarial = vj.Adversarial(
        vj.Discriminator(widths),
        config.adversarial_weight,
        config.feature_weight,
        config.noise,
        config.penalty,
        draws=config.discriminate_draws,
        relativistic=config.relativistic,
    )
    try:
        jax.eval_shape(lambda key: adversarial.init(key, vae), jax.random.key(0))
    except vj.InputError as error:
        raise vj.InputError(f"discriminator_channels is {widths}, with which {error}") from error
    return vae, adversarial


def train_models(
    keys: Mapping[str, jax.Array],
    run: Run,
    config: Config,
    vae: vj.VAE,
    start: Variables | None,
    adversarial: vj.Adversarial,
    network: tuple[vj.VGG19 | vj.ConvFeatures, Variables] | None,
) -> tuple[dict[str, Trained], Features]:
    """Train the models.

    Args:
      keys: Key of each of the four models.
      run: The run.
      config: Options.
      vae: The VAE.
      start: Variables from which all models start; None for random ones.
      adversarial: Objective with the discriminator.
      network: Feature network and its variables; None for the encoder of the plain model.

    Returns:
      The models by name, and the features of the perceptual loss.
    """

    def train(name: str, objective: Objective, frozen: Any = None) -> Trained:
        return run.train(
            keys[name],
            vae,
            objective,
            train_transform=vj.Mirrored(),
            variables=start,
            optimizer=optimizer(run, config),
            frozen=frozen,
            title=name,
        )

    models = {"plain": train("plain", vj.ELBO())} if "plain" in config.models else {}
    features = features_with_scales(
        run, *(network or vj.conv_features(models["plain"].model, models["plain"].variables))
    )
    weights = tuple(config.perceptual_weight / scale for scale in features.scales)
    perceptual = vj.Perceptual(features.network, features.layers, weights)
    frozen = {"features": features.variables}
    others: dict[str, tuple[Objective, Any]] = {
        "perceptual": (perceptual, frozen),
        "adversarial": (adversarial, None),
        "both": (replace(adversarial, objective=perceptual), frozen),
    }
    models |= {name: train(name, *settings) for name, settings in others.items() if name in config.models}
    return models, features


def label(run: Run, real: np.ndarray, independent: AttributeClassifier) -> str:
    """What the numbers in the report are."""
    return (
        f"{run.data_and_seed}, images in [0, 1], reconstructions at the posterior mean, distances between {len(real)} "
        f"images each, in {independent.classifier.hidden[-1]} features, those of draws averaged over {SETS} sets; "
        f"priors fitted to one sample of q(z|x) of each of the first {min(FITTED, len(run.data.train))} training faces "
        f"and of its mirror image; the aggregated posterior from samples of {SETS * len(real)} training faces; the "
        "density, the coverage and the share with a face are those of the first set; the standard error of the "
        "density is over the decoded images alone, that of the coverage over the faces alone"
    )


def of_training(trained: Trained, config: Config) -> dict[str, Any]:
    """The seconds per epoch and the accuracy of the discriminator, if there is one, in each epoch."""
    accuracy = [record.get("discriminator_accuracy") for record in trained.history]
    if accuracy[-1] is not None:
        limits = {"high": math.inf} if config.relativistic else {}
        vj.warn_if_one_sided(trained.history, **limits)
    return {
        "seconds_per_epoch": trained.seconds_per_epoch,
        "discriminator_accuracy": [each for each in accuracy if each is not None],
    }


def vgg19(config: Config) -> tuple[vj.VGG19, Variables] | None:
    """VGG-19 with its published parameters, or None if it is not asked for.

    Raises:
      InputError: It is asked for without a file, there is a file for other features, or the file can't be used.
    """
    if config.features == "vgg19" and config.weights is None:
        raise vj.InputError("--features vgg19 needs --weights FILE, with the published parameters of VGG-19")
    if config.features != "vgg19" and config.weights is not None:
        raise vj.InputError(
            f"--weights is {config.weights}, but the features are those of {config.features}; add --features vgg19"
        )
    return None if config.weights is None else (vj.VGG19(), vj.load_vgg19(config.weights))


def other_attributes(split: vj.Split) -> list[str]:
    """The attributes that are not measured and are the most balanced, for the classifier whose features are compared.

    Raises:
      InputError: There are none.
    """
    attributes = attributes_of(split)
    shares = dict(zip(attributes.names, attributes.values.mean(axis=0), strict=True))
    others = [name for name in shares if name not in CLASSIFIED and 0 < shares[name] < 1]
    if not others:
        raise vj.InputError(f"the images have no other attributes than {', '.join(CLASSIFIED)}; take celeba or faces")
    return sorted(others, key=lambda name: abs(shares[name] - 0.5))[:MOST_ATTRIBUTES]


def features_with_scales(run: Run, network: vj.VGG19 | vj.ConvFeatures, variables: Variables) -> Features:
    """The feature network, with the mean distance of two different training faces in each layer as the unit."""
    layers: tuple[str, ...] = VGG_LAYERS
    if isinstance(network, vj.ConvFeatures):
        layers = tuple(f"conv{number + 1}" for number in range(len(network.features)))
    shown = scaled(run.data.train[:256])
    apart = distances(network, variables, layers, shown[1:], shown[:-1])
    return Features(network, variables, layers, tuple(float(each.mean()) for each in apart))


def optimizer(run: Run, config: Config) -> optax.GradientTransformation:
    """AdamW, and Adam for the discriminator, with warm-up and cosine decay and averaged parameters.

    All parameters of the model decay, biases as well, unlike in the other scripts. The linear paths have a smaller rate
    if they start at probabilistic PCA.
    """
    schedule = partial(vj.warm_up_then_cosine, steps=run.steps)
    peak, weight_decay = config.training.learning_rate, config.training.weight_decay
    of_linear_paths = LINEAR_RATE * peak if config.pca else peak
    parts = {
        "linear": optax.adamw(schedule(of_linear_paths), weight_decay=weight_decay),
        "other": optax.adamw(schedule(peak), weight_decay=weight_decay),
        "discriminator": optax.adam(schedule(config.discriminator_rate), b1=0.5),
    }
    return vj.averaged(optax.partition(parts, labels_of_paths))


def measure(
    key: jax.Array,
    run: Run,
    trained: Trained,
    features: Features,
    independent: AttributeClassifier,
    real: np.ndarray,
    seen: vj.Split,
    prior_steps: int,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The numbers of a model, and the images that are shown.

    The last of `DRAWS` are decoded from samples of q(z|x) of the training faces in `seen`, as draws from a prior that
    is the aggregated posterior.
    """
    encode_key, attribute_key, *prior_keys, code_key, noise_key = jax.random.split(key, 4 + len(PRIORS))
    model, variables, test = trained.model, trained.variables, run.data.test[: len(real)]
    faces = mirrored_too(run.data.train.images[:FITTED])
    independent_features = partial(features_of, independent)
    z = trained.encode(encode_key, test)
    decoded = decode(trained, z)
    numbers: dict[str, Any] = {
        "squared_error": estimate(((decoded - real) ** 2).sum(axis=(1, 2, 3), dtype=np.float64)),
        "perceptual_distance": estimate(relative_distance(features, real, decoded)),
        "reconstructions": of_images(decoded, real, independent_features, paired=True),
        "test_kl": trained.history[-1]["test_kl"],
    }
    shown = {
        "reconstructions": decoded[:SHOWN],
        "interpolation": decode(trained, straight_paths(z[:1], z[1:2], SHOWN)[0]),
    }
    for (name, prior), prior_key in zip(PRIORS.items(), prior_keys, strict=True):
        fit_key, draw_key = jax.random.split(prior_key)
        fitted = model, variables
        if prior != model.prior:
            fitted = vj.fit_prior(fit_key, model, variables, faces, prior, draws=1, steps=prior_steps)
        draws = decode(trained, fitted[0].prior_distribution(fitted[1]).sample(draw_key, SETS * len(real)))
        numbers[name] = of_images(draws, real, independent_features, paired=False)
        shown[name] = draws[: 2 * SHOWN]
    posterior = vj.encode_all(code_key, model, variables, seen)
    draws = decode(trained, posterior.sample(noise_key))
    numbers["aggregated_posterior"] = of_images(draws, real, independent_features, paired=False)
    numbers["attributes"], edited = attribute_effects(attribute_key, run, trained, independent, z)
    return numbers, shown | edited


def features_of(classifier: AttributeClassifier, images: np.ndarray) -> np.ndarray:
    """The features of images in [0, 1], in which they are compared."""
    return classifier(images).features


def relative_distance(features: Features, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The perceptual distance of pairs of images, averaged over the layers; two different faces have about 1."""

    def of_block(first: int, x: np.ndarray, y: np.ndarray) -> list[jax.Array]:
        return distances(features.network, features.variables, features.layers, x, y)

    found = in_blocks(of_block, x, y)
    relative = [each / scale for each, scale in zip(found, features.scales, strict=True)]
    return np.stack(relative).mean(axis=0, dtype=np.float64)


@partial(jax.jit, static_argnames=("network", "layers"))
def distances(network: nn.Module, variables: Variables, layers: tuple[str, ...], x: Any, y: Any) -> list[jax.Array]:
    """The perceptual distance of pairs of images in each layer, as one program."""
    return layer_distances(network, variables, layers, x, y)


def attribute_effects(
    key: jax.Array, run: Run, trained: Trained, independent: AttributeClassifier, z: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What balanced attribute vectors change in the test faces without the attribute, and the images of one face."""
    encodings = trained.encode(key, run.data.train)
    numbers, shown = {}, {}
    for name in CONFOUNDERS:
        vector = attribute_vector(encodings, *with_confounders(run.data.train, name))
        lacking = z[~attributes_of(run.data.test)[name][: len(z)]]
        numbers[name] = effect(
            name, edit(trained.model, trained.variables, independent, lacking, vector, STEPS), [SHARE]
        )
        shown[name] = np.stack([decode(trained, lacking[:1] + step * vector)[0] for step in STEPS])
    return numbers, shown


def print_row(name: str, found: Mapping[str, Any], faces: Mapping[str, Any]) -> None:
    """Print the numbers of a model."""
    error, distance = found["squared_error"], found["perceptual_distance"]
    print(f"{name}: squared error {with_error(error, 1)}, perceptual distance {with_error(distance, 3)}")
    for part in ("reconstructions", *DRAWS):
        print(f"  {part.replace('_', ' ')}: {with_titles(found[part])}")
    print(
        f"  (sharpness relative to that of the faces; the detector finds {with_error(faces['detected'])} of the faces)"
    )
    for attribute, of_attribute in found["attributes"].items():
        for sentence in sentences(of_attribute):
            print(f"  {attribute}: {sentence}")
    if accuracy := found["discriminator_accuracy"]:
        print(f"  discriminator: accuracy {accuracy[0]:.2f} in the first epoch, {accuracy[-1]:.2f} in the last")


def with_titles(found: Mapping[str, Any]) -> str:
    """The measures of decoded images with their standard errors, for the printed table."""
    return ", ".join(f"{title} {with_error(found[name])}" for name, title in MEASURES.items())


def draw(
    run: Run,
    real: np.ndarray,
    pictures: Mapping[str, Mapping[str, np.ndarray]],
    measured: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write the pictures."""
    labels = list(pictures)

    def stacked(part: str) -> np.ndarray:
        return np.concatenate([shown[part] for shown in pictures.values()])

    decoded = stacked("reconstructions")
    with_faces = np.concatenate([real[:SHOWN], decoded])
    sheet = vj.plot.sheets([("", with_faces)], SHOWN, 1, f"Held-out faces, {run.data_and_seed}", ["faces", *labels])
    run.save("reconstructions", sheet)
    run.save(
        "decoded", vj.plot.sheets([("", decoded)], SHOWN, 1, f"Held-out faces, decoded, {run.data_and_seed}", labels)
    )
    text = f"Between the encodings of two held-out faces, {run.data_and_seed}"
    run.save("interpolation", vj.plot.sheets([("", stacked("interpolation"))], SHOWN, 1, text, labels))
    draws = [
        (title, stacked(part))
        for part, title in zip(PRIORS, ("N(0, I)", "mixture, fitted", "flow, fitted"), strict=True)
    ]
    run.save("draws", vj.plot.sheets(draws, 2 * SHOWN, 1, f"Draws, E[x|z], {run.data_and_seed}", labels))
    steps = [(name.replace("_", " ").lower(), stacked(name)) for name in CONFOUNDERS]
    text = f"Steps along balanced attribute vectors, in lengths of the vector, {run.data_and_seed}"
    run.save("attributes", with_headings(vj.plot.sheets(steps, len(STEPS), len(steps), text, labels), real.shape[2]))
    accuracy = {name: found["discriminator_accuracy"] for name, found in measured.items()}
    curves = {name: each for name, each in accuracy.items() if each}
    if curves:
        title = f"The discriminator in training, {run.data_and_seed}"
        run.save("discriminator", accuracy_of_discriminators(curves, title))


def with_headings(figure: Figure, width: int) -> Figure:
    """The sheets of images of this width, with the steps above their columns."""
    for axes in figure.axes:
        axes.set_xticks(width * (np.arange(len(STEPS)) + 0.5), [f"{step:g}" for step in STEPS])
        axes.xaxis.tick_top()
    return figure


def accuracy_of_discriminators(curves: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Plot the accuracy against the epoch, and that of chance."""
    figure = vj.plot.curves(curves, "accuracy of the discriminator", title, {})
    (axes,) = figure.axes
    axes.axhline(0.5, color="grey", linewidth=1, linestyle="--", label="chance")
    axes.set_ylim(bottom=min(0.48, axes.get_ylim()[0]))
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    run_script(main, Config)
