"""What the scripts on CelebA share: attributes, their classifiers, decoded faces, and steps along attribute vectors."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

import vae_jax as vj
from harness.images import in_unit, mirrored_too
from harness.recipe import Trained
from harness.run import Run
from vae_jax.data import Attributes
from vae_jax.evaluation import Classifier
from vae_jax.evaluation.attributes import AttributeClassifier, Edits, at_share, train_attribute_classifier
from vae_jax.models import Variables

CONFOUNDERS = {"Blond_Hair": ("Male",), "Eyeglasses": ("Male", "Young")}  # by the attribute that is edited
CLASSIFIED = ("Blond_Hair", "Eyeglasses", "Male", "Young")
PCA_IMAGES = 20_000  # largest number of images of a PCA, including mirror images
STEPS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)  # along a vector, in units of its length


def attributes_of(split: vj.Split) -> Attributes:
    """The attributes of the images.

    Raises:
      InputError: They have none.
    """
    if split.attributes is None:
        raise vj.InputError("the images have no attributes; take celeba or faces")
    return split.attributes


def require_attributes(data: vj.Dataset) -> None:
    """Raise `InputError` unless the attributes can be classified and edited.

    Both splits need images with and without each classified attribute. An attribute is edited in the test images that
    lack it, and the distance between two of them is the unit of distance.
    """
    for split in (data.train, data.test):
        for name in CLASSIFIED:
            attributes_of(split).require_both(name)
    for name in CONFOUNDERS:
        lacking = int(np.sum(~attributes_of(data.test)[name]))
        if lacking < 2:
            raise vj.InputError(f"{lacking} of the test images lacks {name}; expected 2 or more, which are edited")


def with_confounders(split: vj.Split, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The presence of the attribute in each image, [n], and of its confounders, [n, confounders]."""
    attributes = attributes_of(split)
    return attributes[name], np.stack([attributes[other] for other in CONFOUNDERS[name]], axis=1)


def attribute_classifier(
    key: Key[Array, ""],
    run: Run,
    title: str,
    names: Sequence[str],
    *,
    steps: int,
    convolutions: tuple[int, ...],
    independent: bool = True,
) -> AttributeClassifier:
    """Train a classifier of attributes on the data of a run, or load the one that an earlier start has saved.

    Args:
      key: Key of the training.
      run: The run.
      title: Title of the classifier, also used as the name of its folder under `--checkpoint-dir`.
      names: Names of the attributes.
      steps: Number of training steps (see `train_attribute_classifier`, also for the other arguments).
      convolutions: Number of channels after each convolution.
      independent: Whether the examples are weighted as if the attributes were independent.

    Raises:
      InputError: The folder has a classifier of other settings.
    """
    settings: dict[str, Any] = {"steps": steps, "convolutions": convolutions, "independent": independent}
    classifier = Classifier(run.data.event_shape, len(names), (128,), convolutions)
    variables = run.kept(
        title,
        classifier.init,
        lambda: train_attribute_classifier(key, run.data.train, names, **settings).variables,
        key=jax.random.key_data(key).tolist(),
        data=run.data.train.digest,
        attributes=list(names),
        **settings,
    )
    return AttributeClassifier(tuple(names), classifier, variables)


def print_accuracy(title: str, classifier: AttributeClassifier, data: vj.Dataset) -> None:
    """Print the balanced accuracy of a classifier on the test images."""
    shares = ", ".join(f"{name} {share:.1%}" for name, share in classifier.accuracy(data.test).items())
    print(f"{title}, balanced accuracy on {data.name}'s test images: {shares}")


def pca_start(key: Key[Array, ""], run: Run, model: vj.VAE) -> Variables:
    """Variables at which the model is the probabilistic PCA of training images and their mirror images."""
    images = mirrored_too(run.data.train.images[: PCA_IMAGES // 2])
    return vj.start_at_pca(model, model.init(key), in_unit(images))


def decode(trained: Trained, z: Sequence[Any] | np.ndarray | jax.Array) -> np.ndarray:
    """Compute E[x|z], clipped to the range of the pixels."""
    return np.clip(trained.decode(np.asarray(z, np.float32)), 0, 1)


def effect(name: str, edits: Edits, shares: Sequence[float]) -> dict[str, Any]:
    """The effect of steps along the vector of an attribute: fractions of the faces and means over them.

    Args:
      name: Name of the attribute.
      edits: Classification by `CLASSIFIED` of the faces at each step.
      shares: Fractions of flipped faces at which vectors are compared.

    Returns:
      Lists with a number for each step, and for each share the interpolated step, the drift of the mean probability of
      each confounder, and the distance from the unedited faces, each None if the share is not reached.
    """
    flips = edits.flipped(CLASSIFIED.index(name))
    confounders = {other: edits.mean_probability(CLASSIFIED.index(other)) for other in CONFOUNDERS[name]}
    distances = edits.distances.mean(axis=1)
    return {
        "steps": edits.steps.tolist(),
        "flip_by_step": flips.tolist(),
        "confounder_by_step": {other: values.tolist() for other, values in confounders.items()},
        "distance_by_step": distances.tolist(),
        "at_flipped_share": {
            f"{share:g}": {
                "step": at_share(share, flips, edits.steps),
                "drift": {other: at_share(share, flips, values - values[0]) for other, values in confounders.items()},
                "distance": at_share(share, flips, distances),
            }
            for share in shares
        },
    }


def sentences(effect: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence on each share of flipped faces in the result of `effect`."""
    for share, found in effect["at_flipped_share"].items():
        if found["step"] is None:
            yield f"{float(share):.0%} flipped: not within {effect['steps'][-1]:g} steps"
            continue
        drifts = ", ".join(f"P({other}) by {drift:+.2f}" for other, drift in found["drift"].items())
        yield (
            f"{float(share):.0%} flipped at {found['step']:.2f}: {drifts}; distance from the unedited faces "
            f"{found['distance']:.2f}, where 1 is that between two different faces"
        )
