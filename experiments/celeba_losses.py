"""Losses for sharper faces: a plain VAE, a perceptual loss, a discriminator, and both, side by side.

The script trains four convolutional VAEs of one architecture on faces of 64 x 64 pixels. The first has the ELBO. The
second adds a perceptual loss (Hou et al., 2017), the third a discriminator with a squared error of its activations
(VAE/GAN: Larsen et al., 2016), and the fourth both, as the autoencoder of latent diffusion. All of them keep the pixel
likelihood of the first.

The features of the perceptual loss are those of a small classifier of attributes, which is trained here, of the encoder
of the plain VAE, or of VGG-19, whose published weights are read from a file. Draws come from N(0, I), and from a
Gaussian mixture and a flow that are fitted to the encodings after training (Ghosh et al., 2020).

Draws and reconstructions are measured in the features of a second classifier, against which no model is trained: it has
another architecture, another seed and other attributes. Without CelebA, the data set consists of drawn faces.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from flax import linen as nn
from harness.options import Options, TrainingOptions
from harness.recipe import Trained
from harness.run import Report, Run, run_script

import vae_jax as vj
from vae_jax.errors import require_not_negative, require_positive, require_positive_int
from vae_jax.evaluation.attributes import AttributeClassifier, at_share, edit, train_attribute_classifier
from vae_jax.evaluation.blocks import in_blocks
from vae_jax.evaluation.latents import attribute_vector, straight_paths
from vae_jax.models import Variables
from vae_jax.objectives import Objective, layer_distances

MODELS = ("plain", "perceptual", "adversarial", "both")
CONFOUNDERS = {"Blond_Hair": ("Male",), "Eyeglasses": ("Male", "Young")}
CLASSIFIED = ("Blond_Hair", "Eyeglasses", "Male", "Young")  # by the classifier that measures
MOST_ATTRIBUTES = 12  # of the classifier whose features are compared
CONVOLUTIONS = (16, 32, 64)  # of the same
INDEPENDENT = (24, 48, 96, 96)  # convolutions of the classifier that measures
VGG_LAYERS = ("relu1_2", "relu2_2", "relu3_2")
STEPS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)  # along an attribute vector, in units of its length
SHARE = 0.5  # of flipped faces at which the vectors of two models are compared
PRIORS = {"normal": vj.StandardNormal(), "mixture": vj.GaussianMixture(10), "flow": vj.FlowPrior(vj.Coupling())}
COUNT = 1_000  # of faces, reconstructions and draws in each distance
DETECTED = 100  # images in which a face detector looks for faces; it takes 50 ms an image
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

    latent_dim: int = 64
    """Number of latent dimensions."""
    channels: tuple[int, ...] = (16, 32, 64, 128)
    """Numbers of channels of the convolutions of the encoder; the decoder reverses their order."""
    discriminator_channels: tuple[int, ...] = (16, 32, 64, 128)
    """Numbers of channels of the convolutions of the discriminator."""
    variance: float = 0.1
    """Variance of the Gaussian likelihood of the pixels in [0, 1], in all four models."""
    perceptual_weight: float = 1_500.0
    """Weight of each layer of the perceptual loss, in nats, for a face that is as far from its reconstruction as two
    different faces are from each other."""
    adversarial_weight: float = 300.0
    """Weight of the adversarial loss of the decoder."""
    feature_weight: float = 4.0
    """Weight of the squared error of the discriminator's activations."""
    noise: float = 0.05
    """Standard deviation of the Gaussian noise on the images that the discriminator sees."""
    penalty: float = 1.0
    """Weight of half the squared gradient of the discriminator at the faces (R1)."""
    discriminator_rate: float = 4e-4
    """Peak learning rate of the discriminator, whose warm-up and decay are those of the model's."""
    features: Literal["attributes", "encoder", "vgg19"] = "attributes"
    """Feature network of the perceptual loss: a classifier of attributes that is trained here, the encoder of the plain
    VAE, which needs no attributes, or VGG-19."""
    weights: Path | None = None
    """File with the published parameters of VGG-19, .safetensors or .npz with torchvision's names; needed by
    --features vgg19."""
    classifier_steps: int | None = None
    """Number of training steps of each of the two classifiers, in whole epochs. The default is 1,500."""
    prior_steps: int | None = None
    """Number of training steps of the flow that is fitted to the encodings. The default is 3,000."""
    out: Path = Path("runs/celeba_losses")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=2e-3, weight_decay=0.1)


def main(config: Config) -> Report:
    """Train the classifiers and the four models, measure them, and write the pictures and the report."""
    require_positive(variance=config.variance, perceptual_weight=config.perceptual_weight)
    require_positive(discriminator_rate=config.discriminator_rate)
    require_not_negative(adversarial_weight=config.adversarial_weight)
    network: tuple[vj.VGG19 | vj.ConvFeatures, Variables] | None = vgg19(config)
    run = Run.start("celeba_losses", config, native="celeba", epochs=12, batch_size=32, small=0, stand_in_steps=600)
    default = run.classifier_steps(1_500 if run.data.name.startswith("celeba") else 600)
    steps = default if config.classifier_steps is None else config.classifier_steps
    prior_steps = run.classifier_steps(3_000) if config.prior_steps is None else config.prior_steps
    require_positive_int(classifier_steps=steps, prior_steps=prior_steps)
    require_attributes(run)
    compared_key, independent_key = jax.random.split(jax.random.fold_in(jax.random.key(config.classifier_seed), 3))
    if config.features == "attributes":
        network = vj.conv_features(compared_classifier(compared_key, run, steps))
    independent = independent_classifier(independent_key, run, steps)

    event_shape, likelihood = run.data.event_shape, vj.Gaussian(config.variance)
    vae = vj.conv_vae(event_shape, config.latent_dim, config.channels, likelihood, linear=True)
    keys = {
        name: jax.random.split(key)  # for the training, and for the measurements
        for name, key in zip(MODELS, jax.random.split(run.key, len(MODELS)), strict=True)
    }

    def train(name: str, objective: Objective, frozen: Any = None) -> Trained:
        return run.train(
            keys[name][0],
            vae,
            objective,
            train_transform=vj.Mirrored(),
            optimizer=optimizer(run, config),
            frozen=frozen,
            title=name,
        )

    plain = train("plain", vj.ELBO())
    features = scaled(run, *(network or vj.conv_features(plain.model, plain.variables)))
    weights = tuple(config.perceptual_weight / scale for scale in features.scales)
    perceptual = vj.Perceptual(features.network, features.layers, weights)
    adversarial = vj.Adversarial(
        vj.Discriminator(config.discriminator_channels),
        config.adversarial_weight,
        config.feature_weight,
        config.noise,
        config.penalty,
    )
    frozen = {"features": features.variables}
    models = {
        "plain": plain,
        "perceptual": train("perceptual", perceptual, frozen),
        "adversarial": train("adversarial", adversarial),
        "both": train("both", replace(adversarial, objective=perceptual), frozen),
    }

    real = faces(run.data.test.images)
    of_faces = {"detected": detected(real)}
    measured, pictures = {}, {}
    for name, trained in models.items():
        measured[name], pictures[name] = measure(keys[name][1], run, trained, features, independent, real, prior_steps)
        measured[name] |= of_training(trained)
        print_row(name, measured[name], of_faces)
    draw(run, real, pictures, measured)
    label = (
        f"{run.where}, images in [0, 1], reconstructions at the posterior mean, distances between {len(real)} images"
    )
    return run.report(
        {
            "label": f"{label} each, in {independent.classifier.hidden[-1]} features",
            "features": config.features,
            "layers": list(features.layers),
            "independent_balanced_accuracy": independent.accuracy(run.data.test),
            "faces": of_faces,
            "models": measured,
        }
    )


def of_training(trained: Trained) -> dict[str, Any]:
    """The seconds per epoch and the accuracy of the discriminator, if there is one, in each epoch."""
    accuracy = [record.get("discriminator_accuracy") for record in trained.history]
    if accuracy[-1] is not None:
        vj.warn_if_one_sided(trained.history)
    return {
        "seconds_per_epoch": trained.seconds_per_epoch,
        "discriminator_accuracy": [each for each in accuracy if each is not None],
    }


def vgg19(config: Config) -> tuple[vj.VGG19, Variables] | None:
    """VGG-19 with its published parameters, or None if it is not asked for.

    Raises:
      InputError: It is asked for without a file, or the file can't be used.
    """
    if config.features == "vgg19" and config.weights is None:
        raise vj.InputError("--features vgg19 needs --weights FILE, with the published parameters of VGG-19")
    return (vj.VGG19(), vj.load_vgg19(config.weights)) if config.features == "vgg19" else None


def independent_classifier(key: jax.Array, run: Run, steps: int) -> AttributeClassifier:
    """The classifier that measures."""
    classifier = train_attribute_classifier(key, run.data.train, CLASSIFIED, steps=steps, convolutions=INDEPENDENT)
    print_accuracy("independent", run, classifier)
    return classifier


def compared_classifier(key: jax.Array, run: Run, steps: int) -> AttributeClassifier:
    """The classifier whose features are compared, of other attributes.

    Raises:
      InputError: There are no other attributes.
    """
    attributes = run.data.train.attributes
    assert attributes is not None
    shares = dict(zip(attributes.names, attributes.values.mean(axis=0), strict=True))
    others = [name for name in shares if name not in CLASSIFIED and 0 < shares[name] < 1]
    if not others:
        raise vj.InputError(f"the images have no other attributes than {', '.join(CLASSIFIED)}; take celeba or faces")
    balanced = sorted(others, key=lambda name: abs(shares[name] - 0.5))[:MOST_ATTRIBUTES]
    classifier = train_attribute_classifier(
        key, run.data.train, balanced, steps=steps, convolutions=CONVOLUTIONS, independent=False
    )
    print_accuracy("compared", run, classifier)
    return classifier


def print_accuracy(name: str, run: Run, classifier: AttributeClassifier) -> None:
    """Print the balanced accuracy of a classifier on the test images."""
    told = ", ".join(f"{each} {share:.1%}" for each, share in classifier.accuracy(run.data.test).items())
    print(f"{name} classifier, balanced accuracy on {run.data.name}'s test images: {told}")


def require_attributes(run: Run) -> None:
    """Raise `InputError` unless faces with and without each measured attribute are in both splits."""
    for split in (run.data.train, run.data.test):
        if split.attributes is None:
            raise vj.InputError("the images have no attributes; take celeba or faces")
        for name in CLASSIFIED:
            split.attributes.require_both(name)


def scaled(run: Run, network: vj.VGG19 | vj.ConvFeatures, variables: Variables) -> Features:
    """The feature network, with the mean distance of two different training faces in each layer as the unit."""
    layers: tuple[str, ...] = VGG_LAYERS
    if isinstance(network, vj.ConvFeatures):
        layers = tuple(f"conv{number + 1}" for number in range(len(network.features)))
    shown = faces(run.data.train.images[:256])
    apart = distances(network, variables, layers, shown[1:], shown[:-1])
    return Features(network, variables, layers, tuple(float(each.mean()) for each in apart))


def optimizer(run: Run, config: Config) -> optax.GradientTransformation:
    """AdamW, and Adam for the discriminator, with warm-up and cosine decay and averaged parameters."""
    schedule = partial(vj.warm_up_then_cosine, steps=run.steps)
    parts = {
        "model": optax.adamw(schedule(config.training.learning_rate), weight_decay=config.training.weight_decay),
        "discriminator": optax.adam(schedule(config.discriminator_rate), b1=0.5),
    }
    return vj.averaged(optax.partition(parts, vj.Adversarial.labels))


def faces(images: np.ndarray) -> np.ndarray:
    """The first stored images as numbers in [0, 1]."""
    return images[:COUNT] / np.float32(255)


def decode(trained: Trained, z: Any) -> np.ndarray:
    """Compute E[x|z], clipped to the range of the pixels."""
    return np.clip(vj.decode_all(trained.model, trained.variables, np.asarray(z, np.float32)), 0, 1)


def measure(
    key: jax.Array,
    run: Run,
    trained: Trained,
    features: Features,
    independent: AttributeClassifier,
    real: np.ndarray,
    prior_steps: int,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The numbers of a model, and the images that are shown."""
    encode_key, attribute_key, *prior_keys = jax.random.split(key, 2 + len(PRIORS))
    model, variables, test = trained.model, trained.variables, run.data.test[: len(real)]
    z = np.asarray(vj.encode_all(encode_key, model, variables, test).mean)
    again = decode(trained, z)
    numbers: dict[str, Any] = {
        "squared_error": estimate(((again - real) ** 2).sum(axis=(1, 2, 3), dtype=np.float64)),
        "perceptual_distance": estimate(relative_distance(features, real, again)),
        "reconstructions": of_images(again, real, independent),
        "test_kl": trained.history[-1]["test_kl"],
    }
    shown = {
        "reconstructions": again[:SHOWN],
        "interpolation": decode(trained, straight_paths(z[:1], z[1:2], SHOWN)[0]),
    }
    for (name, prior), prior_key in zip(PRIORS.items(), prior_keys, strict=True):
        fit_key, draw_key = jax.random.split(prior_key)
        fitted = model, variables
        if prior != model.prior:
            fitted = vj.fit_prior(fit_key, model, variables, run.data.train, prior, draws=1, steps=prior_steps)
        draws = decode(trained, fitted[0].prior_distribution(fitted[1]).sample(draw_key, len(real)))
        numbers[name] = of_images(draws, real, independent)
        shown[name] = draws[: 4 * SHOWN]
    numbers["attributes"], edited = attribute_effects(attribute_key, run, trained, independent, z)
    return numbers, shown | edited


def estimate(values: np.ndarray) -> dict[str, float]:
    """The mean of one number per image, with its standard error."""
    return vj.mean_and_stderr(values)._asdict()


def ratio(values: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """The ratio of the means over two sets of images, with the standard error by the bootstrap."""

    def of_means(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean(a) / np.mean(b))

    return {"mean": of_means(values, reference), "standard_error": vj.bootstrap_stderr(of_means, values, reference)}


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


def of_images(images: np.ndarray, real: np.ndarray, independent: AttributeClassifier) -> dict[str, Any]:
    """Distances of decoded images from the faces in the independent features, sharpness, and the share with a face."""
    wanted, found = independent(real).features, independent(images).features
    near = vj.density_and_coverage(wanted, found)
    error = vj.bootstrap_stderr(vj.frechet_distance, wanted, found, resamples=20)
    return {
        "frechet": {"mean": vj.frechet_distance(wanted, found), "standard_error": error},
        "density": estimate(near.density),
        "coverage": estimate(near.coverage),
        "sharpness": ratio(vj.sharpness(images), vj.sharpness(real)),
        "detected": detected(images),
    }


def detected(images: np.ndarray) -> dict[str, float]:
    """The share of the first images in which a detector finds a face, with its standard error."""
    return estimate(np.array([has_face(image) for image in images[:DETECTED]], np.float64))


def has_face(image: np.ndarray) -> bool:
    """Whether a detector finds a face in an image, which is padded, because the faces fill it."""
    padded = np.round(255 * np.pad(image, ((16, 16), (16, 16), (0, 0)), mode="edge")).astype(np.uint8)
    sizes = {"min_size": (24, 24), "max_size": padded.shape[:2]}
    return bool(detector().detect_multi_scale(padded, scale_factor=1.2, step_ratio=1, **sizes))


@lru_cache
def detector() -> Any:
    """OpenCV's cascade of local binary patterns for frontal faces, which scikit-image has."""
    from skimage.data import lbp_frontal_face_cascade_filename  # imported here, because they take a second to load
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())


def attribute_effects(
    key: jax.Array, run: Run, trained: Trained, independent: AttributeClassifier, z: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What balanced attribute vectors change in the test faces without the attribute, and the images of one face."""
    train, test = run.data.train.attributes, run.data.test.attributes
    assert train is not None
    assert test is not None
    encodings = np.asarray(vj.encode_all(key, trained.model, trained.variables, run.data.train).mean)
    numbers, shown = {}, {}
    for name, confounders in CONFOUNDERS.items():
        vector = attribute_vector(encodings, train[name], np.stack([train[other] for other in confounders], axis=1))
        lacking = z[~test[name][: len(z)]]
        edits = edit(trained.model, trained.variables, independent, lacking, vector, STEPS)
        flips, distances = edits.flipped(CLASSIFIED.index(name)), edits.distances.mean(axis=1)
        drift = {other: edits.mean_probability(CLASSIFIED.index(other)) for other in confounders}
        numbers[name] = {
            "flip_by_step": flips.tolist(),
            "step_at_half": at_share(SHARE, flips, edits.steps),
            "drift_at_half": {other: at_share(SHARE, flips, each - each[0]) for other, each in drift.items()},
            "distance_at_half": at_share(SHARE, flips, distances),
        }
        shown[name] = np.stack([decode(trained, lacking[:1] + step * vector)[0] for step in STEPS])
    return numbers, shown


def told(found: Mapping[str, float], digits: int = 2) -> str:
    """A number with its standard error."""
    return f"{found['mean']:.{digits}f} +- {found['standard_error']:.{digits}f}"


def print_row(name: str, found: Mapping[str, Any], faces: Mapping[str, Any]) -> None:
    """Print the numbers of a model."""
    error, distance = found["squared_error"], found["perceptual_distance"]
    print(f"{name}: squared error {told(error, 1)}, perceptual distance {told(distance, 3)}")
    for part in ("reconstructions", *PRIORS):
        of = found[part]
        numbers = {"Fréchet": of["frechet"], "density": of["density"], "coverage": of["coverage"]}
        numbers |= {"sharpness": of["sharpness"], "with a face": of["detected"]}
        print(f"  {part}: {', '.join(f'{what} {told(number)}' for what, number in numbers.items())}")
    print(f"  (sharpness relative to that of the faces; the detector finds {told(faces['detected'])} of the faces)")
    for attribute, effect in found["attributes"].items():
        if effect["step_at_half"] is None:
            print(f"  {attribute}: half of the faces are not flipped within {STEPS[-1]:g} steps")
            continue
        drift = ", ".join(f"P({other}) by {value:+.2f}" for other, value in effect["drift_at_half"].items())
        at, away = effect["step_at_half"], effect["distance_at_half"]
        print(f"  {attribute}: half flipped at {at:.2f}; {drift}, {away:.2f} of the distance between two faces away")
    if accuracy := found["discriminator_accuracy"]:
        print(f"  discriminator: accuracy {accuracy[0]:.2f} in the first epoch, {accuracy[-1]:.2f} in the last")


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
    sheet = vj.plot.sheets([("", with_faces)], SHOWN, 1, f"Held-out faces, {run.where}", ["faces", *labels])
    run.save("reconstructions", sheet)
    run.save("decoded", vj.plot.sheets([("", decoded)], SHOWN, 1, f"Held-out faces, decoded, {run.where}", labels))
    text = f"Between the encodings of two held-out faces, {run.where}"
    run.save("interpolation", vj.plot.sheets([("", stacked("interpolation"))], SHOWN, 1, text, labels))
    grids = [
        (f"{name}, {prior}", shown[part])
        for part, prior in zip(PRIORS, ("N(0, I)", "mixture", "flow"), strict=True)
        for name, shown in pictures.items()
    ]
    run.save("draws", vj.plot.sheets(grids, SHOWN, len(labels), f"Draws, E[x|z], {run.where}"))
    steps = [(name.replace("_", " ").lower(), stacked(name)) for name in CONFOUNDERS]
    text = f"Steps of 0 to {STEPS[-1]:g} along balanced attribute vectors, {run.where}"
    run.save("attributes", vj.plot.sheets(steps, len(STEPS), len(steps), text, labels))
    accuracy = {name: found["discriminator_accuracy"] for name, found in measured.items()}
    curves = {name: each for name, each in accuracy.items() if each}
    text = f"Accuracy of the discriminator in training, {run.where}"
    run.save("discriminator", vj.plot.curves(curves, "share of images told apart (1/2 is chance)", text, {}))


if __name__ == "__main__":
    run_script(main, Config)
