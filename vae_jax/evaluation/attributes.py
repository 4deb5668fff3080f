"""Attributes of images: a classifier that tells them, and what a vector added to encodings does to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from vae_jax.data import Split
from vae_jax.data.transforms import Batch, Mirrored
from vae_jax.errors import InputError, require_positive_int
from vae_jax.evaluation.blocks import in_blocks
from vae_jax.evaluation.classifier import Classifier, fit_classifier
from vae_jax.evaluation.passes import decode_all
from vae_jax.models import VAE, Variables
from vae_jax.objectives import Loss
from vae_jax.values import shape_repr

GREATEST_WEIGHT = 10.0
"""Of an example in the classifier's training, however rare its combination of attributes."""


@dataclass(frozen=True, eq=False)
class AttributeCrossEntropy:
    """The objective of a classifier of several attributes: the sum of their -log p(attribute|x), in nats.

    A batch's label is the number of its combination: bit i is attribute i.

    Attributes:
      weights: of the examples of each combination.
    """

    weights: Float[Array, " combinations"]

    def __call__(
        self, key: Key[Array, "*keys"], model: Classifier, variables: Variables, batch: Batch, step: Int[Array, ""]
    ) -> Loss:
        """The weighted loss of each example, and the share of attributes that are told right."""
        if batch.label is None:
            raise InputError("the batch has no attributes; a classifier can't be trained without")
        logits = model.logits(variables, batch.x)
        attributes = (batch.label[:, None] >> jnp.arange(model.classes)[None]) & 1
        loss = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, attributes), axis=1)
        right = jnp.mean((logits > 0) == (attributes > 0), axis=1)
        return Loss(self.weights[batch.label] * loss, {"accuracy": right}, {})


@shape_repr
class AttributePredictions(NamedTuple):
    """What a trained classifier says of images.

    Attributes:
      probabilities: of each attribute, independently.
      features: its last hidden layer.
    """

    probabilities: Float[Any, "n attributes"]
    features: Float[Any, "n features"]


@partial(jax.jit, static_argnames="classifier")
def _predict(first: int | Array, x: Array, variables: Variables, classifier: Classifier) -> AttributePredictions:
    return AttributePredictions(jax.nn.sigmoid(classifier.logits(variables, x)), classifier.features(variables, x))


@dataclass(frozen=True, eq=False)
class AttributeClassifier:
    """A trained classifier of attributes: `classifier(x)` for any number of images in [0, 1], on the host.

    Attributes:
      names: of the attributes.
      classifier: with a logit for each.
      variables: of the classifier.
    """

    names: tuple[str, ...]
    classifier: Classifier
    variables: Variables

    def __call__(self, x: Float[Any, "n height width channels"]) -> AttributePredictions:
        """Probabilities and features of images as the classifier was trained to see them."""
        return in_blocks(partial(_predict, variables=self.variables, classifier=self.classifier), x)

    def accuracy(self, data: Split) -> dict[str, float]:
        """Balanced accuracy on stored images: for each attribute, the mean of the accuracies with it and without it.

        So a classifier that calls everything by the commoner side has 0.5.
        """
        told = self(data.images / np.float32(255)).probabilities > 0.5
        truth = _values(data, self.names)
        sides = [(told[has, i].mean() + (~told[~has, i]).mean()) / 2 for i, has in enumerate(truth.T)]
        return {name: float(share) for name, share in zip(self.names, sides, strict=True)}


def train_attribute_classifier(
    key: Key[Array, ""],
    data: Split,
    names: Sequence[str],
    *,
    steps: int = 2_000,
    batch_size: int = 32,
    convolutions: tuple[int, ...] = (32, 64, 128, 256),
    progress: bool = True,
) -> AttributeClassifier:
    """A classifier of attributes, trained on images, mirrored at random, as if the attributes were independent.

    In the data they are not, and a classifier that has learned that blond hair goes with women sees a woman where
    hair was dyed. So each example has the weight prod_i p(attribute i) / p(all its attributes), at most
    `GREATEST_WEIGHT`.

    Args:
      key: of its parameters and of the order of its data.
      data: images with attributes.
      names: of the attributes, 16 at most.
      steps: at least as many are taken, in whole epochs.
      batch_size: images a step.
      convolutions: channels after each convolution.
      progress: whether to show a bar.

    Raises:
      InputError: no attributes, more than 16, or no steps.
      DataError: an attribute that the images don't know, or that all or none of them have.
    """
    require_positive_int(steps=steps, batch_size=batch_size)
    if not 1 <= len(names) <= 16:
        raise InputError(f"{len(names)} attributes were named; expected 1 to 16")
    attributes = _values(data, names)
    codes = (attributes @ (1 << np.arange(len(names)))).astype(np.int32)
    classifier = Classifier(data.image_shape, len(names), (128,), convolutions)
    variables = fit_classifier(
        key,
        classifier,
        AttributeCrossEntropy(_independence_weights(attributes, codes)),
        Split(data.images, codes),
        steps=steps,
        batch_size=batch_size,
        learning_rate=1e-3,
        weight_decay=0.05,
        transform=Mirrored(),
        progress=progress,
    )
    return AttributeClassifier(tuple(names), classifier, variables)


def _values(data: Split, names: Sequence[str]) -> Bool[np.ndarray, "n attributes"]:
    if data.attributes is None:
        raise InputError("the images have no attributes; a classifier of attributes can't do without")
    return np.stack([data.attributes.require_both(name) for name in names], axis=1)


def _independence_weights(
    attributes: Bool[np.ndarray, "n attributes"], codes: Int[np.ndarray, " n"]
) -> Float[Array, " combinations"]:
    """By the number of the combination; mean 1 over the examples before the greatest weight is held down."""
    combinations = np.arange(2 ** attributes.shape[1])
    bits = (combinations[:, None] >> np.arange(attributes.shape[1])) & 1
    shares = attributes.mean(axis=0)
    independent = np.prod(np.where(bits, shares, 1 - shares), axis=1)
    joint = np.bincount(codes, minlength=len(combinations)) / len(codes)
    return jnp.asarray(np.minimum(independent / np.maximum(joint, 1e-12), GREATEST_WEIGHT), jnp.float32)


@shape_repr
class Edits(NamedTuple):
    """Faces decoded at steps along a vector, as a classifier sees them; step 0 is the first.

    Attributes:
      steps: multiples of the vector that were added.
      probabilities: of the classifier's attributes.
      distances: of the classifier's features from those of step 0, in units of the mean distance of two different faces
        there.
    """

    steps: Float[np.ndarray, " steps"]
    probabilities: Float[np.ndarray, "steps n attributes"]
    distances: Float[np.ndarray, "steps n"]

    def flipped(self, attribute: int) -> Float[np.ndarray, " steps"]:
        """The share of faces that have the attribute (probability above 1/2), of those that lack it at step 0.

        NaN where none lacks it.
        """
        lacking = self.probabilities[0, :, attribute] <= 0.5
        if not lacking.any():
            return np.full(len(self.steps), np.nan)
        return np.mean(self.probabilities[:, lacking, attribute] > 0.5, axis=1)

    def mean_probability(self, attribute: int) -> Float[np.ndarray, " steps"]:
        """Over the faces."""
        return self.probabilities[:, :, attribute].mean(axis=1)


def edit(
    vae: VAE,
    variables: Variables,
    classifier: AttributeClassifier,
    z: Float[Any, "n latent"],
    vector: Float[Any, " latent"],
    steps: Sequence[float],
) -> Edits:
    """Decode z + step * vector for each step, and classify E[x|z].

    Raises:
      InputError: steps that don't begin with 0, or fewer than two faces, so that there is no distance between two.
    """
    if len(z) < 2:
        raise InputError(
            f"{len(z)} faces can't be edited and classified; the distance between two is the unit, so give 2"
        )
    if len(steps) == 0 or steps[0] != 0:
        raise InputError(f"the steps begin with {list(steps[:1])}; expected 0, which the others are held against")
    classified = [
        classifier(np.clip(decode_all(vae, variables, np.asarray(z + s * vector, np.float32)), 0, 1)) for s in steps
    ]
    features = np.stack([each.features for each in classified])
    apart = np.linalg.norm(features[0] - np.roll(features[0], 1, axis=0), axis=-1).mean()
    distances = np.linalg.norm(features - features[0], axis=-1) / apart
    return Edits(np.asarray(steps, float), np.stack([each.probabilities for each in classified]), distances)


def at_share(share: float, shares: Float[Any, " steps"], values: Float[Any, " steps"]) -> float | None:
    """A value where a share that grows with the steps first reaches `share`, between two steps by interpolation."""
    reached = np.flatnonzero(np.asarray(shares) >= share)
    if len(reached) == 0:
        return None
    after = int(reached[0])
    if after == 0:
        return float(values[0])
    before = after - 1
    way = (share - shares[before]) / (shares[after] - shares[before])
    return float(values[before] + way * (values[after] - values[before]))
