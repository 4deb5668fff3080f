"""Anomaly detection on MNIST: VAEs trained on usual images alone, beside PCA, isolation forest and one-class SVM.

One class: a model is trained on the images of one digit, and the other nine digits of the test split are the anomalies.
`--leave-one-out`: a model is trained on nine digits, and the tenth is the anomaly. This is harder, because the usual
images vary more. Either is repeated for each digit. A score orders the test images from usual to unusual, and its AUROC
is the probability that an anomaly is less usual than a usual image. The scores of the VAE are

* the squared error of the reconstruction at the posterior mean;
* the negative ELBO, and -log p(x) by importance sampling (Burda et al., 2016), minus the entropy of the grey pixels,
  which is the least possible cross-entropy of an image;
* the likelihood ratio (Ren et al., 2019): -log p(x) minus that of a background model, trained on perturbed images.

Images with little ink have small errors whatever they show, so that a 1 looks usual to each model. Three scores are
therefore also divided by a power of the ink, the sum of the pixels in [0, 1]: the squared error and -log p(x) of the
VAE, and the squared error of PCA.

All digits have the same latent size, number of steps, rate of the perturbation, correction for the ink, default score
and settings of the baselines. These were chosen by the AUROC of some digits on part of the last 10,000 training images,
in which other digits were anomalies; a user without anomalies could not choose in this way. The test split was not used
for any choice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from harness.images import in_unit
from harness.options import Options, TrainingOptions
from harness.recipe import averaged_adamw
from harness.report import Report
from harness.run import Run
from harness.script import run_script
from matplotlib.figure import Figure

import vae_jax as vj
from vae_jax.errors import require_not_negative, require_positive_int
from vae_jax.models import Variables

SCORES = {  # name in the report: name in the picture
    "error": "VAE, squared error",
    "error_by_ink": "VAE, squared error by ink",
    "elbo": "VAE, negative ELBO",
    "log_px": "VAE, -log p(x)",
    "log_px_by_ink": "VAE, -log p(x) by ink",
    "ratio": "VAE, likelihood ratio",
    "pca": "PCA, squared error",
    "pca_by_ink": "PCA, squared error by ink",
    "forest": "isolation forest",
    "svm": "one-class SVM",
}
Scores = dict[str, np.ndarray]  # one number per image by score; higher is less usual
SVM_GAMMA = 3.0  # in units of scikit-learn's "scale"
SHOWN = 8  # number of images of each kind and digit in the picture


@dataclass(frozen=True)
class Config(Options):
    """Options of this experiment."""

    leave_one_out: bool = False
    """Train on all digits but one, which is the anomaly, instead of training on one digit."""
    digits: tuple[int, ...] | None = None
    """Digits for which the experiment is repeated. The default is all labels of the data set."""
    latent_dim: int = 16
    """Number of latent dimensions."""
    hidden: tuple[int, ...] = (256, 128)
    """Widths of the encoder's hidden layers; the decoder reverses their order."""
    background: float = 1.0
    """Probability that a pixel of a training image of the background model is replaced by another one of the image."""
    samples: int = 100
    """Number of importance samples in the estimate of log p(x) of each test image."""
    components: int | None = None
    """Largest number of principal components. The default is 30, and 20 with --leave-one-out."""
    power: float | None = None
    """Power of the ink by which scores are divided. The default is 0.5, and 1 with --leave-one-out."""
    svm_images: int = 2_000
    """Largest number of training images of the one-class SVM, whose time grows with their square."""
    score: str = "log_px_by_ink"
    """Score that selects the images of the picture: error, error_by_ink, elbo, log_px, log_px_by_ink, ratio, pca,
    pca_by_ink, forest or svm."""
    out: Path = Path("runs/anomaly_detection")
    """Folder for the report and the pictures."""
    training: TrainingOptions = TrainingOptions(learning_rate=2e-3)


@vj.value
class Perturbed:
    """Grey images whose pixels are replaced, with probability `rate`, by a random pixel of the same image.

    Ren et al. (2019) draw uniform values instead; pixels of the image keep the amount of ink.
    """

    rate: float

    support = vj.Scale().support

    @property
    def label(self) -> str:
        """Description with the rate."""
        return f"grey, {self.rate:.0%} of the pixels replaced"

    def __call__(self, keys: jax.Array, images: jax.Array, labels: jax.Array | None = None) -> vj.Batch:
        """The perturbed bytes / 255."""
        return vj.Scale()(keys, jax.vmap(self.perturb)(keys, images), labels)

    def perturb(self, key: jax.Array, image: jax.Array) -> jax.Array:
        """Replace pixels of one image."""
        where, which = jax.random.split(key)
        other = jax.random.choice(which, image.reshape(-1), image.shape)
        return jnp.where(jax.random.bernoulli(where, self.rate, image.shape), other, image)


def main(config: Config) -> Report:
    """Train two models for each digit, score the test images, and write the pictures and the report."""
    config = completed(config)
    name = "anomaly_detection_leave_one_out" if config.leave_one_out else "anomaly_detection"
    epochs, stand_in_steps = (3, 1_000) if config.leave_one_out else (25, 5_000)
    run = Run.start(name, config, epochs=epochs, batch_size=128, stand_in_steps=stand_in_steps)
    digits = checked_digits(run.data, config)
    usual = usual_images(run.data.train, digits, config.leave_one_out)
    training = make_training(run, config, len(usual[digits[0]]))
    task = "one digit left out" if config.leave_one_out else "one class"
    test, label = run.data.test, f"{task}, {run.data_and_seed}"
    scores: dict[int, Scores] = {}
    auroc: dict[str, dict[int, float]] = {name: {} for name in SCORES}
    for digit in digits:
        key = jax.random.fold_in(run.key, digit)
        scores[digit] = vae_scores(key, training, usual[digit], test, config, f"{task} {digit}")
        scores[digit] |= baseline_scores(usual[digit], test, config)
        for name, score in scores[digit].items():
            auroc[name][digit] = area(score, is_anomaly(test, digit, config.leave_one_out))
        print(f"{task} {digit}: " + ", ".join(f"{name} {of_digit[digit]:.3f}" for name, of_digit in auroc.items()))
    results = {name: summary(of_digit) for name, of_digit in auroc.items()}
    print("\n".join(table_line(SCORES[name], numbers) for name, numbers in results.items()))
    run.save("scores", dot_chart(results, f"AUROC; small: digits, the lowest one numbered; large: mean\n{label}"))
    text = f"Test images ranked by {SCORES[config.score]}; one row per digit of the training images"
    run.save("images", extremes(scores, test, config, f"{text}\n{label}"))
    sizes = {"training_images_of_a_model": len(usual[digits[0]]), "steps_of_a_model": training.steps}
    return run.report({"label": f"AUROC, {label}", "samples": config.samples, **sizes, "auroc": results})


def completed(config: Config) -> Config:
    """The options with the defaults of the task; raises `InputError` if one of them cannot be used."""
    components, power = (20, 1.0) if config.leave_one_out else (30, 0.5)
    config = replace(
        config,
        components=components if config.components is None else config.components,
        power=power if config.power is None else config.power,
    )
    require_not_negative(power=config.power)
    counts = {"samples": config.samples, "components": config.components, "svm_images": config.svm_images}
    require_positive_int(latent_dim=config.latent_dim, **counts)
    if not 0 < config.background <= 1:
        raise vj.InputError(f"background is {config.background}; expected a probability above 0 and up to 1")
    if config.score not in SCORES:
        raise vj.InputError(f"score is {config.score!r}; expected one of {', '.join(SCORES)}")
    return config


def checked_digits(data: vj.Dataset, config: Config) -> tuple[int, ...]:
    """The digits of the experiment; raises `InputError` unless both splits have images of them and of others."""
    splits = {"training": data.train.labels, "test": data.test.labels}
    if any(labels is None for labels in splits.values()):
        raise vj.InputError(f"the images of {data.name} have no labels; expected one label per image, as MNIST has")
    classes = {name: np.unique(np.asarray(labels)) for name, labels in splits.items()}
    known = np.union1d(*classes.values())
    digits = tuple(map(int, known)) if config.digits is None else config.digits
    if not digits or len(set(digits)) < len(digits) or not set(digits) <= set(known):
        raise vj.InputError(f"digits are {list(digits)}; expected different labels of {data.name}: {known.tolist()}")
    for name in splits:
        if empty := sorted(set(digits) - set(classes[name])):
            raise vj.InputError(f"there are no {name} images of {empty[0]}; expected images of each digit")
        if len(classes[name]) < 2:
            raise vj.InputError(f"all {name} images are of {classes[name][0]}; expected two digits or more")
    return digits


def is_anomaly(split: vj.Split, digit: int, leave_one_out: bool) -> np.ndarray:
    """Whether each image is an anomaly: of another digit, or with `leave_one_out` of this digit."""
    return (np.asarray(split.labels) == digit) == leave_one_out


def usual_images(train: vj.Split, digits: tuple[int, ...], leave_one_out: bool) -> dict[int, vj.Split]:
    """The usual training images for each digit: equally many, so that training is compiled once for all digits."""
    rows = {digit: np.flatnonzero(~is_anomaly(train, digit, leave_one_out)) for digit in digits}
    size = min(map(len, rows.values()))
    return {digit: train[kept[:size]] for digit, kept in rows.items()}


@dataclass(frozen=True, eq=False)
class Training:
    """The model and the training step that all digits share."""

    run: Run
    vae: vj.VAE
    optimizer: Any
    step: Any
    batch_size: int
    steps: int

    def __call__(self, key: jax.Array, images: vj.Split, transform: Any, title: str) -> Variables:
        """Train a model, and return its variables with averaged parameters."""
        self.vae.require_data(images, transform)
        state, _ = vj.fit(
            vj.init(key, self.vae, self.optimizer),
            self.step,
            images,
            transform=transform,
            epochs=self.run.epochs,
            batch_size=self.batch_size,
            store=self.run.checkpoints(title, model=self.vae, variables=vj.averaged_variables),
            title=title,
            **self.run.fit_arguments,
        )
        return vj.averaged_variables(state)


def make_training(run: Run, config: Config, images: int) -> Training:
    """The training on this number of images."""
    batch_size = min(run.batch_size, images)
    steps = run.epochs * (images // batch_size)
    vae = vj.mlp_vae(run.data.event_shape, config.latent_dim, config.hidden)
    optimizer = averaged_adamw(config.training.learning_rate, config.training.weight_decay, steps)
    return Training(run, vae, optimizer, vj.make_train_step(vae, vj.ELBO(), optimizer), batch_size, steps)


def vae_scores(
    key: jax.Array, training: Training, usual: vj.Split, test: vj.Split, config: Config, title: str
) -> Scores:
    """Train a VAE and its background model on usual images, and score the test images."""
    keys, vae = jax.random.split(key, 7), training.vae
    variables = training(keys[0], usual, vj.Scale(), title)
    background = training(keys[1], usual, Perturbed(config.background), f"{title} background")
    x = vj.transform_all(keys[2], test, transform=vj.Scale())
    terms = vj.evaluate(keys[3], vae, variables, test, transform=vj.Scale())
    log_px, of_background = (
        np.asarray(vj.log_likelihood(own_key, vae, trained, x, config.samples), np.float64)
        for own_key, trained in ((keys[4], variables), (keys[5], background))
    )
    mean = vj.encode_all(keys[6], vae, variables, test, transform=vj.Scale()).mean
    error = squared_error(x, vj.decode_all(vae, variables, mean))
    least, weight = entropy(x), ink(x) ** config.power
    return {
        "error": error,
        "error_by_ink": error / weight,
        "elbo": terms.kl - terms.log_px_z - least,
        "log_px": -log_px - least,
        "log_px_by_ink": (-log_px - least) / weight,
        "ratio": of_background - log_px,
    }


def flat(x: np.ndarray) -> np.ndarray:
    """The images as rows of float64, [n, pixels]."""
    return np.asarray(x, np.float64).reshape(len(x), -1)


def squared_error(x: np.ndarray, reconstruction: np.ndarray) -> np.ndarray:
    """The squared error of each image, summed over the pixels in [0, 1]."""
    return np.sum((flat(x) - flat(reconstruction)) ** 2, axis=1)


def ink(x: np.ndarray) -> np.ndarray:
    """The sum of the pixels in [0, 1] of each image, at least 1."""
    return np.maximum(1, np.sum(flat(x), axis=1))


def entropy(x: np.ndarray) -> np.ndarray:
    """The entropy of Bernoulli pixels with means x in nats: the least cross-entropy of each image."""
    from scipy.special import entr  # imported here, because it takes a second to load

    p = flat(x)
    return np.sum(entr(p) + entr(1 - p), axis=1)


def baseline_scores(usual: vj.Split, test: vj.Split, config: Config) -> Scores:
    """Fit the methods of scikit-learn to usual images, and score the test images."""
    from sklearn.decomposition import PCA  # imported here, because they take a second to load
    from sklearn.ensemble import IsolationForest
    from sklearn.svm import OneClassSVM

    train, x = (flat(split.images).astype(np.float32) / 255 for split in (usual, test))
    pca = PCA(min(config.components, *train.shape), svd_solver="covariance_eigh").fit(train)
    forest = IsolationForest(n_estimators=200, random_state=config.seed).fit(train)
    svm = OneClassSVM(nu=0.1, gamma=SVM_GAMMA / (train.shape[1] * train.var())).fit(train[: config.svm_images])
    error = squared_error(x, pca.inverse_transform(pca.transform(x)))
    return {
        "pca": error,
        "pca_by_ink": error / ink(x) ** config.power,
        "forest": -forest.score_samples(x),
        "svm": -svm.score_samples(x),
    }


def area(score: np.ndarray, anomaly: np.ndarray) -> float:
    """The AUROC: the share of pairs of an anomaly and a usual image in which the anomaly has the higher score."""
    from sklearn.metrics import roc_auc_score  # imported here, because it takes a second to load

    return float(roc_auc_score(anomaly, score))


def summary(of_digit: Mapping[int, float]) -> dict[str, Any]:
    """The mean over the digits, the standard deviation (0 of a single digit), and the AUROC of each digit."""
    values = list(of_digit.values())
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "deviation_of_digits": deviation, "of_digit": dict(of_digit)}


def table_line(name: str, numbers: Mapping[str, Any]) -> str:
    """The line of a score in the printed table."""
    lowest = min(numbers["of_digit"], key=numbers["of_digit"].get)
    return (
        f"{name:<26} AUROC {numbers['mean']:.3f}, standard deviation of the digits "
        f"{numbers['deviation_of_digits']:.3f}, lowest {numbers['of_digit'][lowest]:.3f} (digit {lowest})"
    )


def dot_chart(results: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """Plot the AUROC of each digit, and the mean, by score; the baselines have another colour."""
    figure = Figure(figsize=(6.8, 0.36 * len(results) + 1.2), layout="constrained")
    axes = figure.subplots()
    for place, (name, numbers) in enumerate(results.items()):
        of_digit, colour = numbers["of_digit"], vj.plot.COLOURS[1 if "VAE" in SCORES[name] else 0]
        axes.plot(list(of_digit.values()), [place] * len(of_digit), "o", color=colour, alpha=0.4, markersize=4)
        axes.plot(numbers["mean"], place, "o", color=colour, markersize=9, markeredgecolor="white")
        lowest = min(of_digit, key=lambda digit: of_digit[digit])
        axes.annotate(f"{lowest} ", (of_digit[lowest], place), ha="right", va="center", size=8)
        axes.annotate(f"{numbers['mean']:.3f}", (1.02, place), xycoords=("axes fraction", "data"), va="center")
    axes.set_yticks(range(len(results)), [SCORES[name] for name in results])
    axes.set(xlabel="AUROC", ylim=(len(results) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
    axes.text(1.02, 1.01, "mean", transform=axes.transAxes, va="bottom")
    figure.suptitle(title, fontsize="medium")
    return figure


def extremes(scores: Mapping[int, Scores], test: vj.Split, config: Config, title: str) -> Figure:
    """Draw the most usual test images, the least usual of the usual ones and the most usual anomalies of each digit."""
    kinds: list[list[np.ndarray]] = [[], [], []]
    for digit, of_digit in scores.items():
        order = np.argsort(of_digit[config.score], kind="stable")
        anomaly = is_anomaly(test, digit, config.leave_one_out)[order]
        rows = (order, order[~anomaly][::-1], order[anomaly])
        for kept, row in zip(kinds, rows, strict=True):
            kept.append(some(test.images, row))
    names = ("most usual images", "least usual of the usual images", "most usual anomalies")
    sheets = [(name, np.concatenate(images)) for name, images in zip(names, kinds, strict=True)]
    return vj.plot.sheets(sheets, SHOWN, 3, title, [str(digit) for digit in scores])


def some(images: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The first images in this order in [0, 1], `SHOWN` of them, filled up with empty ones."""
    kept = in_unit(images[order[:SHOWN]])
    return np.concatenate([kept, np.zeros((SHOWN - len(kept), *kept.shape[1:]), kept.dtype)])


if __name__ == "__main__":
    run_script(main, Config)
