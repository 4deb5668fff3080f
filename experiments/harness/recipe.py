"""The recipe of the scripts: AdamW with warm-up and cosine decay, averaged parameters, the bound after each epoch."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import optax
from jaxtyping import Array, Key, PyTree

from vae_jax.checkpoints.store import Checkpoints, NoCheckpoints
from vae_jax.data import Dataset, Split
from vae_jax.data.transforms import Scale, Transform
from vae_jax.errors import InputError, require_positive_int
from vae_jax.evaluation.bounds import evaluate
from vae_jax.evaluation.estimate import mean_and_stderr
from vae_jax.models import VAE, Variables
from vae_jax.objectives import Objective
from vae_jax.training.averaging import averaged, averaged_variables
from vae_jax.training.loop import Record, fit
from vae_jax.training.step import TrainState, init, make_train_step, warm_up_then_cosine


@dataclass(frozen=True, eq=False)
class Trained:
    """A model, its variables, and how it came to them."""

    vae: VAE
    variables: Variables
    history: list[Record]

    @property
    def seconds_per_epoch(self) -> float:
        """The median over the epochs; neither compiling nor measuring counts."""
        return float(np.median([record["seconds"] for record in self.history]))


def train_vae(
    key: Key[Array, ""],
    vae: VAE,
    objective: Objective,
    data: Dataset,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.0,
    transform: Transform = Scale(),
    augmented: Transform | None = None,
    store: Checkpoints | NoCheckpoints = NoCheckpoints(),
    title: str = "training",
    progress: bool = True,
    fit: Callable[..., tuple[TrainState, list[Record]]] = fit,
) -> Trained:
    """Train by `averaged_adamw`; what comes out are the averaged parameters, of batch statistics the last.

    The history has the test split's terms after each epoch, for the curves alone: nothing is chosen by them. They are
    "test_reconstruction" and "test_kl" in nats per image, at one sampled z each. Where training is to see more than
    `transform` makes of the images, `augmented` does: mirrored ones, say. A run resumes from its own checkpoints in
    `store`. `fit` may be another function of the same arguments.

    Raises:
      InputError: no epochs, a batch that the data can't fill, or values that the likelihood doesn't take.
    """
    init_key, measure_key = jax.random.split(key)
    require_positive_int(epochs=epochs, batch_size=batch_size)
    if batch_size > len(data.train):
        raise InputError(f"batch_size is {batch_size} but there are only {len(data.train)} training images")
    augmented = augmented or transform
    for each in (transform, augmented):
        vae.require_data(data.train, each)
    optimizer = averaged_adamw(learning_rate, weight_decay, steps=epochs * (len(data.train) // batch_size))
    step = make_train_step(vae, objective, optimizer)

    def eval_fn(state: TrainState) -> Record:
        return bound_in_numbers(measure_key, vae, averaged_variables(state), data.test, transform, "test")

    state, history = fit(
        init(init_key, vae, optimizer),
        step,
        data.train,
        transform=augmented,
        epochs=epochs,
        batch_size=batch_size,
        eval_fn=eval_fn,
        store=store,
        title=title,
        progress=progress,
    )
    return Trained(vae, averaged_variables(state), history)


def averaged_adamw(peak: float, weight_decay: float, steps: int, eps: float = 1e-8) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter, 2019) with warm-up and cosine decay, its parameters averaged.

    Args:
      peak: the learning rate after the warm-up.
      weight_decay: of weight matrices alone, in units of the learning rate.
      steps: of the whole run.
      eps: Adam's.
    """

    def is_matrix(params: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    schedule = warm_up_then_cosine(peak, steps)
    return averaged(optax.adamw(schedule, eps=eps, weight_decay=weight_decay, mask=is_matrix))


def bound_in_numbers(
    key: Key[Array, ""], vae: VAE, variables: Variables, data: Split, transform: Transform, split: str
) -> Record:
    """Means over a split in nats per image, one sampled z each, and the bound's standard error over the images."""
    terms = evaluate(key, vae, variables, data, transform=transform)
    negative_elbo = mean_and_stderr(terms.kl - terms.log_px_z)
    return {
        f"{split}_reconstruction": mean_and_stderr(-terms.log_px_z).mean,
        f"{split}_kl": mean_and_stderr(terms.kl).mean,
        f"{split}_negative_elbo": negative_elbo.mean,
        f"{split}_negative_elbo_standard_error": negative_elbo.standard_error,
    }
