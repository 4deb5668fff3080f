"""A small classifier of images, trained by `fit`: which digits are legible, and features for Fréchet distances."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from vae_jax.data import Split
from vae_jax.data.transforms import Batch, Scale, Transform
from vae_jax.errors import InputError, require_positive_int
from vae_jax.evaluation.blocks import in_blocks
from vae_jax.models import Variables
from vae_jax.networks import MLP, ConvEncoder
from vae_jax.objectives import Loss, Objective
from vae_jax.training.loop import fit
from vae_jax.training.step import init, make_train_step, warm_up_then_cosine
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
    """Stride-2 convolutions if there are any, then dense layers, ReLU after each; a frozen value with pure methods.

    Attributes:
      image_shape: height, width, channels.
      classes: number of classes.
      hidden: widths of the dense layers; the last is the layer of the features.
      convolutions: channels after each convolution.
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
            raise InputError("hidden is empty; a classifier's features are its last hidden layer, so give it one")

    @property
    def _network(self) -> _Network:
        return _Network(self.convolutions, self.hidden, self.classes)

    def init(self, key: Key[Array, ""]) -> Variables:
        """Fresh variables."""
        return dict(self._network.init(key, jnp.zeros((1, *self.image_shape))))

    def logits(
        self, variables: Variables, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Unnormalised log-probabilities of the classes."""
        return self._apply(variables, x)[0]

    def features(
        self, variables: Variables, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch features"]:
        """The last hidden layer."""
        return self._apply(variables, x)[1]

    def _apply(self, variables: Variables, x: Array) -> Any:
        return self._network.apply(variables, x)


@dataclass(frozen=True)
class CrossEntropy:
    """The objective of a classifier: -log p(label|x), in nats."""

    def __call__(
        self,
        key: Key[Array, "*keys"],
        model: Classifier,
        variables: Variables,
        batch: Batch,
        step: Int[Array, ""],
    ) -> Loss:
        """The loss of each example, and whether its likeliest class is its label."""
        if batch.label is None:
            raise InputError("the batch has no labels; a classifier can't be trained without")
        logits = model.logits(variables, batch.x)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
        return Loss(loss, {"accuracy": jnp.argmax(logits, axis=-1) == batch.label}, {})


@partial(jax.jit, static_argnames=("classifier",))
def _predict(first: int | Array, x: Array, variables: Variables, classifier: Classifier) -> "Predictions":
    return Predictions(jax.nn.softmax(classifier.logits(variables, x)), classifier.features(variables, x))


@shape_repr
class Predictions(NamedTuple):
    """What a trained classifier says of images.

    Attributes:
      probabilities: of the classes.
      features: its last hidden layer.
    """

    probabilities: Float[Any, "n classes"]
    features: Float[Any, "n features"]

    def accuracy(self, labels: Int[Any, " n"]) -> float:
        """The share of images whose likeliest class is their label."""
        return float(np.mean(self.probabilities.argmax(axis=-1) == labels))


@dataclass(frozen=True, eq=False)
class TrainedClassifier:
    """A trained classifier: `classifier(x)` for any number of images, on the host."""

    classifier: Classifier
    variables: Variables

    def __call__(self, x: Float[Any, "n height width channels"]) -> Predictions:
        """Class probabilities and features of images as the classifier was trained to see them."""
        return in_blocks(partial(_predict, variables=self.variables, classifier=self.classifier), x)

    def on(self, data: Split) -> Predictions:
        """The judgement on stored images."""
        return self(data.images / np.float32(255))


def train_classifier(
    key: Key[Array, ""], data: Split, *, steps: int = 2_000, batch_size: int = 256, progress: bool = True
) -> TrainedClassifier:
    """A classifier trained on labelled grey images in [0, 1]; the same key and data give the same classifier.

    Args:
      key: of its parameters and of the order of its data.
      data: labelled images.
      steps: at least as many are taken, in whole epochs.
      batch_size: images a step.
      progress: whether to show a bar.

    Raises:
      InputError: the data have no labels, or there are no steps or no batch.
    """
    if data.labels is None:
        raise InputError("the images have no labels; a classifier can't be trained without")
    require_positive_int(steps=steps, batch_size=batch_size)
    classifier = Classifier(data.image_shape, classes=int(data.labels.max()) + 1)
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
    """The variables of a classifier trained by AdamW, with warm-up and cosine decay.

    Args:
      key: of its parameters and of the order of its data.
      classifier: to be trained.
      objective: what to minimise.
      data: labelled images.
      steps: at least as many are taken, in whole epochs.
      batch_size: images a step, all of them if there are fewer.
      learning_rate: the peak rate.
      weight_decay: in units of the learning rate.
      transform: what the classifier sees of the images.
      progress: whether to show a bar.
    """
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
