"""Small classifiers of images, trained by `fit`, for accuracies and for the features of Fréchet distances."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from vae_jax.data import Split
from vae_jax.data.arrays import as_reals, require_labels
from vae_jax.data.transforms import Batch, Scale, Transform, as_split
from vae_jax.errors import InputError, require_positive_int
from vae_jax.evaluation.blocks import in_blocks
from vae_jax.models import Variables
from vae_jax.networks import MLP, ConvEncoder
from vae_jax.objectives import Loss, Objective
from vae_jax.training.loop import fit
from vae_jax.training.schedules import warm_up_then_cosine
from vae_jax.training.step import init, make_train_step
from vae_jax.values import shape_repr


class _Network(nn.Module):
    convolutions: tuple[int, ...]
    hidden: tuple[int, ...]
    classes: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Class logits [B, classes] and the last hidden layer [B, hidden[-1]]."""
        if self.convolutions:
            x = nn.relu(ConvEncoder(self.convolutions, self.hidden[:1])(x))
        layers = self.hidden[1:] if self.convolutions else self.hidden
        h = nn.relu(MLP(layers[:-1], layers[-1:])(x)) if layers else x
        return nn.Dense(self.classes)(h), h


@dataclass(frozen=True)
class Classifier:
    """Classifier network: optional stride-2 convolutions, then dense layers, each followed by ReLU.

    Attributes:
      image_shape: Height, width and channels.
      classes: Number of classes.
      hidden: Widths of the dense layers; the outputs of the last one are the features.
      convolutions: Numbers of channels after each convolution.
    """

    image_shape: tuple[int, ...] = (28, 28, 1)
    classes: int = 10
    hidden: tuple[int, ...] = (512, 128)
    convolutions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        widths = {"hidden": self.hidden, "convolutions": self.convolutions}
        named = {f"{name}[{i}]": width for name, list_ in widths.items() for i, width in enumerate(list_)}
        require_positive_int(classes=self.classes, **named)
        if not self.hidden:
            raise InputError("hidden is empty; expected at least one width: the last hidden layer gives the features")

    @property
    def _network(self) -> _Network:
        return _Network(self.convolutions, self.hidden, self.classes)

    def init(self, key: Key[Array, ""]) -> Variables:
        """Initialise the variables."""
        return dict(jax.jit(self._network.init)(key, jnp.zeros((1, *self.image_shape))))

    def logits(
        self, variables: Variables, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Unnormalised log-probabilities of the classes."""
        return self.logits_and_features(variables, x)[0]

    def features(
        self, variables: Variables, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch features"]:
        """Outputs of the last hidden layer."""
        return self.logits_and_features(variables, x)[1]

    def logits_and_features(
        self, variables: Variables, x: Float[Array, "batch height width channels"]
    ) -> tuple[Float[Array, "batch classes"], Float[Array, "batch features"]]:
        """`logits` and `features`, by one pass through the network."""
        return cast(tuple[Array, Array], self._network.apply(variables, x))


@dataclass(frozen=True)
class CrossEntropy:
    """Objective of a classifier: -log p(label|x), in nats."""

    def __call__(
        self,
        key: Key[Array, "*keys"],
        model: Classifier,
        variables: Variables,
        batch: Batch,
        step: Int[Array, ""],
    ) -> Loss:
        """Loss of each example, and whether its most probable class is its label."""
        if batch.label is None:
            raise InputError("the batch has no labels; expected a label per image to train a classifier")
        logits = model.logits(variables, batch.x)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
        return Loss(loss, {"accuracy": jnp.argmax(logits, axis=-1) == batch.label}, {})


@partial(jax.jit, static_argnames=("classifier",))
def _predict(first: int | Array, x: Array, variables: Variables, classifier: Classifier) -> "Predictions":
    logits, features = classifier.logits_and_features(variables, x)
    return Predictions(jax.nn.softmax(logits), features)


@shape_repr
class Predictions(NamedTuple):
    """Outputs of a trained classifier.

    Attributes:
      probabilities: Probabilities of the classes.
      features: Outputs of the last hidden layer.
    """

    probabilities: Float[Any, "n classes"]
    features: Float[Any, "n features"]

    def accuracy(self, labels: Int[Any, " n"]) -> float:
        """Share of images whose most probable class is their label.

        Raises:
          DataError: There is not one class number for each image.
        """
        found = self.probabilities.argmax(axis=-1)
        return float(np.mean(found == require_labels("labels", labels, len(found))))


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """Trained classifier, called with any number of images.

    Attributes:
      classifier: Network.
      variables: Variables of the network.
    """

    classifier: Classifier
    variables: Variables

    def __call__(self, x: Any) -> Predictions:
        """Class probabilities and features of images, on the host.

        Args:
          x: Images with values in [0, 1], [n, height, width, channels].

        Raises:
          InputError: The images have another shape, or are bytes.
        """
        x = require_images(x, self.classifier)
        return in_blocks(partial(_predict, variables=self.variables, classifier=self.classifier), x)

    def on(self, data: Split) -> Predictions:
        """Predictions for the stored images of a split.

        Raises:
          InputError: The images have another shape, or are not bytes.
        """
        require_bytes(data)
        return self(data.images / np.float32(255))


def require_bytes(data: Split) -> None:
    """Raise `InputError` unless the images of a split are stored as bytes."""
    if data.images.dtype != np.uint8:
        raise InputError(f"the images are {data.images.dtype}; expected bytes, uint8 from 0 to 255: rescale them")


def require_images(x: Any, classifier: Classifier) -> Float[Any, "n height width channels"]:
    """The images as an array of real numbers.

    Raises:
      InputError: The images have another shape than those of the classifier, or are bytes.
    """
    if getattr(x, "dtype", None) == np.uint8:
        raise InputError("the images are uint8; expected values in [0, 1]: divide them by np.float32(255)")
    x = as_reals("images", x)
    if x.shape[1:] != classifier.image_shape:
        expected = ", ".join(map(str, classifier.image_shape))
        raise InputError(f"images have shape {x.shape}; expected [n, {expected}]: the images that it was trained on")
    return x


def train_classifier(
    key: Key[Array, ""], data: Split, *, steps: int = 2_000, batch_size: int = 256, progress: bool = True
) -> TrainedClassifier:
    """Train a classifier on labelled images; the same key and data give the same classifier.

    Args:
      key: Key of the initial parameters and of the order of the data.
      data: Labelled images, stored as bytes; the classifier is trained on values in [0, 1].
      steps: Minimum number of steps; the number of epochs is rounded up.
      batch_size: Number of images per step.
      progress: Whether to show a progress bar.

    Raises:
      InputError: The data have no labels or are not bytes, or `steps` or `batch_size` is not at least 1.
    """
    data = as_split(data)
    if data.labels is None:
        raise InputError("the images have no labels; expected a label per image to train a classifier")
    require_positive_int(steps=steps, batch_size=batch_size)
    classifier = Classifier(data.event_shape, classes=int(data.labels.max()) + 1)
    variables = fit_classifier(
        key, classifier, CrossEntropy(), data, steps=steps, batch_size=batch_size, learning_rate=2e-3, progress=progress
    )
    return TrainedClassifier(classifier, variables)


def fit_classifier(
    key: Key[Array, ""],
    classifier: Classifier,
    objective: Objective,
    data: Split,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    transform: Transform = Scale(),
    progress: bool = True,
) -> Variables:
    """Train a classifier by AdamW with linear warm-up and cosine decay, and return its variables.

    Args:
      key: Key of the initial parameters and of the order of the data.
      classifier: Network.
      objective: Objective to minimise.
      data: Labelled images, stored as bytes.
      steps: Minimum number of steps; the number of epochs is rounded up.
      batch_size: Number of images per step, at most all of them.
      learning_rate: Learning rate after the warm-up.
      weight_decay: Weight decay of AdamW.
      transform: Transform of the images.
      progress: Whether to show a progress bar.

    Raises:
      InputError: The images are not bytes.
    """
    require_bytes(data)
    batch_size = min(batch_size, len(data))
    steps_per_epoch = len(data) // batch_size
    epochs = -(-steps // steps_per_epoch)
    schedule = warm_up_then_cosine(learning_rate, steps=epochs * steps_per_epoch)
    optimizer = optax.adamw(schedule, weight_decay=weight_decay)
    state, _ = fit(
        init(key, classifier, optimizer),
        make_train_step(classifier, objective, optimizer),
        data,
        transform=transform,
        epochs=epochs,
        batch_size=batch_size,
        progress=progress,
        title="classifier",
    )
    return state.variables
