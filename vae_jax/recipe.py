"""The recipe of every script: Adam with warm-up and cosine decay, the bound on the test split after each epoch."""

from dataclasses import dataclass

import jax
import numpy as np
import optax
from jaxtyping import Array, Key

from vae_jax.data import Dataset, Split
from vae_jax.errors import InputError, require_positive_int
from vae_jax.evaluate import estimate, evaluate
from vae_jax.model import VAE, Variables
from vae_jax.objectives import Objective
from vae_jax.observation import Observe, Scale
from vae_jax.train import Record, TrainState, fit, init, make_train_step, warm_up_then_cosine


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
    observe: Observe = Scale(),
    title: str = "training",
    progress: bool = True,
) -> Trained:
    """Train with Adam, warm-up and cosine decay; the history has the test split's terms after each epoch.

    The test split's are for the curves alone: nothing is chosen by them. They are "test_reconstruction" and "test_kl"
    in nats per image, at one sampled z each.

    Raises:
      InputError: no epochs, a batch that the data can't fill, or values that the likelihood doesn't take.
    """
    init_key, measure_key = jax.random.split(key)
    require_positive_int(epochs=epochs, batch_size=batch_size)
    if batch_size > len(data.train):
        raise InputError(f"batch_size is {batch_size} but there are only {len(data.train)} training images")
    require_support(vae, observe)
    optimizer = optax.adam(warm_up_then_cosine(learning_rate, steps=epochs * (len(data.train) // batch_size)))
    step = make_train_step(vae, objective, optimizer)

    def measure(state: TrainState) -> Record:
        return bound_in_numbers(measure_key, vae, state.variables, data.test, observe, "test")

    state, history = fit(
        init(init_key, vae, optimizer),
        step,
        data.train,
        observe=observe,
        epochs=epochs,
        batch_size=batch_size,
        measure=measure,
        title=title,
        progress=progress,
    )
    return Trained(vae, state.variables, history)


def require_support(vae: VAE, observe: Observe) -> None:
    """Raise `InputError` where the likelihood doesn't take what `observe` makes: such a loss has no lower bound."""
    (low, high), (least, greatest) = observe.range, vae.likelihood.support
    if low < least or high > greatest:
        raise InputError(
            f"the likelihood takes values from {least:g} to {greatest:g}, but what is observed runs from {low:g} to "
            f"{high:g}; choose another likelihood or another range"
        )


def bound_in_numbers(
    key: Key[Array, ""], vae: VAE, variables: Variables, data: Split, observe: Observe, split: str
) -> Record:
    """Means over a split in nats per image, one sampled z each, and the bound's standard error over the images."""
    terms = evaluate(key, vae, variables, data, observe=observe)
    negative_elbo = estimate(terms.kl - terms.log_px_z)
    return {
        f"{split}_reconstruction": estimate(-terms.log_px_z).mean,
        f"{split}_kl": estimate(terms.kl).mean,
        f"{split}_negative_elbo": negative_elbo.mean,
        f"{split}_negative_elbo_standard_error": negative_elbo.standard_error,
    }
