"""Classification of attributes of images, and effects on them of a vector that is added to encodings."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from vae_jax.checkpoints.models import leaves_of_model
from vae_jax.data import Split
from vae_jax.data.arrays import as_finite, as_reals
from vae_jax.data.transforms import Batch, Mirrored, as_split
from vae_jax.errors import InputError, named, require_positive_int
from vae_jax.evaluation.blocks import in_blocks
from vae_jax.evaluation.classifier import Classifier, fit_classifier, require_bytes, require_images
from vae_jax.evaluation.passes import decode_all
from vae_jax.models import VAE, Variables
from vae_jax.networks import ConvEncoder, ConvFeatures
from vae_jax.objectives import Loss
from vae_jax.values import shape_repr

GREATEST_WEIGHT = 10.0
"""Upper limit of the weight of an example in training; it applies to rare combinations of attributes."""


@dataclass(frozen=True, eq=False)
class AttributeCrossEntropy:
    """Objective of a classifier of several attributes: weighted sum of -log p(attribute|x), in nats.

    The label of an example is the number of its combination of attributes, of which bit i is attribute i.

    Attributes:
      weights: Weight of the examples of each combination, [combinations].
    """

    weights: Float[Array, " combinations"]

    def __call__(
        self, key: Key[Array, "*keys"], model: Classifier, variables: Variables, batch: Batch, step: Int[Array, ""]
    ) -> Loss:
        """Weighted loss of each example, and the fraction of its attributes that are classified correctly."""
        if batch.label is None:
            raise InputError("the batch has no attributes; expected attributes of each image to train a classifier")
        logits = model.logits(variables, batch.x)
        attributes = (batch.label[:, None] >> jnp.arange(model.classes)[None]) & 1
        loss = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, attributes), axis=1)
        right = jnp.mean((logits > 0) == (attributes > 0), axis=1)
        return Loss(self.weights[batch.label] * loss, {"accuracy": right}, {})


@shape_repr
class AttributePredictions(NamedTuple):
    """Outputs of a trained classifier of attributes.

    Attributes:
      probabilities: Marginal probability of each attribute, [n, attributes].
      features: Outputs of the last hidden layer, [n, features].
    """

    probabilities: Float[Any, "n attributes"]
    features: Float[Any, "n features"]


@partial(jax.jit, static_argnames="classifier")
def _predict(first: int | Array, x: Array, variables: Variables, classifier: Classifier) -> AttributePredictions:
    logits, features = classifier.logits_and_features(variables, x)
    return AttributePredictions(jax.nn.sigmoid(logits), features)


@dataclass(frozen=True, eq=False)
class AttributeClassifier:
    """Trained classifier of attributes, called with any number of images in [0, 1].

    Attributes:
      names: Names of the attributes.
      classifier: Classifier with one logit per attribute.
      variables: Variables of the classifier.
    """

    names: tuple[str, ...]
    classifier: Classifier
    variables: Variables

    def __call__(self, x: Any) -> AttributePredictions:
        """Probabilities and features of images [n, height, width, channels] in [0, 1], on the host.

        Raises:
          InputError: The images have another shape, or are bytes.
        """
        x = require_images(x, self.classifier)
        return in_blocks(partial(_predict, variables=self.variables, classifier=self.classifier), x)

    def accuracy(self, data: Split) -> dict[str, float]:
        """Balanced accuracy of each attribute on stored images.

        It is the mean of the accuracies on images with and without the attribute. A classifier that always predicts
        the more common value thus has 0.5.

        Args:
          data: Images with attributes, stored as bytes.

        Raises:
          InputError: The images have no attributes, have another shape, or are not bytes.
          DataError: An attribute is unknown, or all or none of the images have it.
        """
        require_bytes(data)
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
    independent: bool = True,
    progress: bool = True,
) -> AttributeClassifier:
    """Train a classifier of attributes on randomly mirrored images, weighted as if the attributes were independent.

    Attributes are correlated in the data. A classifier trained without weights may predict a woman from blond hair,
    also if only the hair colour was edited. Therefore an example has the weight prod_i p(attribute i) / p(attributes),
    limited to `GREATEST_WEIGHT`. A classifier that only serves for its features (`conv_features`) needs no weights.

    Args:
      key: Key of the parameters and of the order of the data.
      data: Images with attributes, stored as bytes.
      names: Names of the attributes, at most 16.
      steps: Minimum number of training steps, which is rounded up to whole epochs.
      batch_size: Number of images per step.
      convolutions: Number of channels after each convolution.
      independent: Whether the examples are weighted.
      progress: Whether to show a progress bar.

    Returns:
      The trained classifier.

    Raises:
      InputError: There are no attributes, more than 16 names, or no steps, or the images are not bytes.
      DataError: An attribute is unknown, or all or none of the images have it.
    """
    require_positive_int(steps=steps, batch_size=batch_size)
    if not 1 <= len(names) <= 16:
        raise InputError(f"{len(names)} attributes were named; expected 1 to 16")
    data = as_split(data)
    attributes = _values(data, names)
    codes = (attributes @ (1 << np.arange(len(names)))).astype(np.int32)
    weights = _independence_weights(attributes, codes) if independent else jnp.ones(2 ** len(names))
    classifier = Classifier(data.event_shape, len(names), (128,), convolutions)
    variables = fit_classifier(
        key,
        classifier,
        AttributeCrossEntropy(weights),
        Split(data.images, codes),
        steps=steps,
        batch_size=batch_size,
        learning_rate=1e-3,
        weight_decay=0.05,
        transform=Mirrored(),
        progress=progress,
    )
    return AttributeClassifier(tuple(names), classifier, variables)


def conv_features(trained: Any, variables: Any = None) -> tuple[ConvFeatures, Variables]:
    """The convolutions of a trained network as the feature network of a `Perceptual` loss, and its variables.

    The features of an encoder need neither labels nor attributes.

    Args:
      trained: Classifier of `train_attribute_classifier`, or a VAE with a `ConvEncoder`.
      variables: Variables of the VAE, if it is one.

    Raises:
      InputError: The network has no convolutions, or the variables are not those of the VAE.
    """
    if isinstance(trained, AttributeClassifier) and trained.classifier.convolutions:
        widths, layers = trained.classifier.convolutions, trained.variables["params"]["ConvEncoder_0"]
    elif isinstance(getattr(trained, "encoder", None), ConvEncoder):
        leaves_of_model(trained, variables)
        widths, layers = trained.encoder.features, variables["params"]["encoder"]
    else:
        raise InputError(
            f"{named(trained)} has no convolutions; expected a classifier of train_attribute_classifier or a VAE "
            "with a ConvEncoder: conv_features(vae, variables)"
        )
    return ConvFeatures(widths), {"params": {name: of for name, of in layers.items() if name.startswith("Downsample")}}


def _values(data: Split, names: Sequence[str]) -> Bool[np.ndarray, "n attributes"]:
    if data.attributes is None:
        raise InputError("the images have no attributes; expected attributes of each image to train a classifier")
    return np.stack([data.attributes.require_both(name) for name in names], axis=1)


def _independence_weights(
    attributes: Bool[np.ndarray, "n attributes"], codes: Int[np.ndarray, " n"]
) -> Float[Array, " combinations"]:
    """Weight of each combination of attributes; the mean over the examples is 1 before the weights are limited."""
    combinations = np.arange(2 ** attributes.shape[1])
    bits = (combinations[:, None] >> np.arange(attributes.shape[1])) & 1
    shares = attributes.mean(axis=0)
    independent = np.prod(np.where(bits, shares, 1 - shares), axis=1)
    joint = np.bincount(codes, minlength=len(combinations)) / len(codes)
    return jnp.asarray(np.minimum(independent / np.maximum(joint, 1e-12), GREATEST_WEIGHT), jnp.float32)


@shape_repr
class Edits(NamedTuple):
    """Classification of faces that are decoded at steps along a vector.

    Attributes:
      steps: Multiples of the vector that are added, [steps]; the first is 0.
      probabilities: Probabilities of the attributes, [steps, n, attributes].
      distances: Distances of the classifier's features from those at step 0, [steps, n], in units of the mean distance
        between two different faces at step 0; NaN if all faces are the same at step 0.
    """

    steps: Float[np.ndarray, " steps"]
    probabilities: Float[np.ndarray, "steps n attributes"]
    distances: Float[np.ndarray, "steps n"]

    def flipped(self, attribute: int) -> Float[np.ndarray, " steps"]:
        """Fraction of the faces without the attribute at step 0 that have it (probability above 1/2) at each step.

        The result is NaN if all faces have the attribute at step 0.

        Raises:
          InputError: The classifier has no attribute of this number.
        """
        self._require(attribute)
        lacking = self.probabilities[0, :, attribute] <= 0.5
        if not lacking.any():
            return np.full(len(self.steps), np.nan)
        return np.mean(self.probabilities[:, lacking, attribute] > 0.5, axis=1)

    def mean_probability(self, attribute: int) -> Float[np.ndarray, " steps"]:
        """Probability of an attribute at each step, averaged over the faces, [steps].

        Raises:
          InputError: The classifier has no attribute of this number.
        """
        self._require(attribute)
        return self.probabilities[:, :, attribute].mean(axis=1)

    def _require(self, attribute: Any) -> None:
        count = self.probabilities.shape[-1]
        if not isinstance(attribute, Integral) or not 0 <= int(attribute) < count:
            raise InputError(f"attribute is {attribute!r}; expected a number from 0 to {count - 1}: names.index(name)")


def edit(
    vae: VAE,
    variables: Variables,
    classifier: AttributeClassifier,
    z: Float[Any, "n latent"],
    vector: Float[Any, " latent"],
    steps: Sequence[float],
) -> Edits:
    """Decode z + step * vector for each step, and classify E[x|z].

    Args:
      vae: Model that decodes the latents.
      variables: Variables of the model.
      classifier: Classifier of the attributes.
      z: Encodings of the faces, [n, latent].
      vector: Vector to add, [latent].
      steps: Multiples of the vector; the first is 0.

    Raises:
      InputError: The steps do not begin with 0, or there are fewer than two faces, which define the unit of distance.
        An argument has another shape, or is not finite.
    """
    z, vector = as_reals("z", z, "[n, latent]"), as_finite("vector", vector, "[latent]")
    multiples = as_finite("steps", steps, "[steps]")
    if vector.shape != z.shape[1:]:
        raise InputError(f"vector has shape {vector.shape}; expected {z.shape[1:]}, that of one encoding")
    if len(z) < 2:
        raise InputError(
            f"{len(z)} faces can't be edited and classified; the distance between two is the unit, so give 2"
        )
    if len(multiples) == 0 or multiples[0] != 0:
        raise InputError(f"the steps begin with {multiples[:1].tolist()}; expected 0, the reference of the others")
    classified = [
        classifier(np.clip(decode_all(vae, variables, np.asarray(z + s * vector, np.float32)), 0, 1)) for s in multiples
    ]
    features = np.stack([each.features for each in classified])
    apart = np.linalg.norm(features[0] - np.roll(features[0], 1, axis=0), axis=-1).mean()
    distances = np.linalg.norm(features - features[0], axis=-1) / (apart if apart > 0 else np.nan)
    return Edits(multiples, np.stack([each.probabilities for each in classified]), distances)


def at_share(share: float, shares: Float[Any, " steps"], values: Float[Any, " steps"]) -> float | None:
    """Linearly interpolated value at the point where `shares` first reaches `share`.

    Args:
      share: Fraction to reach.
      shares: Fractions that increase with the steps, [steps].
      values: Values at the steps, [steps].

    Returns:
      The value, or None if `share` is not reached.

    Raises:
      InputError: There is not one value for each of the shares.
    """
    if len(shares) != len(values):
        raise InputError(f"there are {len(shares)} shares but {len(values)} values; expected one for each step")
    reached = np.flatnonzero(np.asarray(shares) >= share)
    if len(reached) == 0:
        return None
    after = int(reached[0])
    if after == 0:
        return float(values[0])
    before = after - 1
    way = (share - shares[before]) / (shares[after] - shares[before])
    return float(values[before] + way * (values[after] - values[before]))
