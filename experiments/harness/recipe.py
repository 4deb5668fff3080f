"""The training recipe of the scripts: AdamW with warm-up and cosine decay, averaged parameters, ELBO per epoch."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Key, PyTree

import vae_jax as vj
from vae_jax.data import Split, Transform
from vae_jax.models import Variables
from vae_jax.training import Record

# Learning rate of linear paths that start at probabilistic PCA, relative to that of the other layers.
LINEAR_RATE = 1 / 20


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained model.

    Attributes:
      model: The model.
      variables: Parameters, averaged by `Run.train`, and other variable collections of the model.
      history: One record per epoch, from `vj.fit`.
    """

    model: Any
    variables: Variables
    history: list[Record]

    @property
    def seconds_per_epoch(self) -> float:
        """Median training time per epoch, without compilation and evaluation."""
        return float(np.median([record["seconds"] for record in self.history]))

    @property
    def minutes(self) -> float:
        """Time of training in minutes, without compilation and evaluation."""
        return sum(record["seconds"] for record in self.history) / 60

    @property
    def minutes_by_epoch(self) -> list[float]:
        """Minutes of training at the end of each epoch."""
        return (np.cumsum([record["seconds"] for record in self.history]) / 60).tolist()

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.variables["params"]))

    def encode(self, key: Key[Array, ""], split: Split, transform: Transform | None = None) -> np.ndarray:
        """Compute the means of q(z|x), [n, latent]; the key is that of the transform (see `vj.encode_all`)."""
        return np.asarray(vj.encode_all(key, self.model, self.variables, split, transform=transform).mean)

    def decode(self, z: Any, condition: PyTree = None) -> np.ndarray:
        """Compute E[x|z], or E[x|z, condition], [n, *event]."""
        return vj.decode_all(self.model, self.variables, z, condition)


def adamw(peak: float, weight_decay: float, steps: int, eps: float = 1e-8) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter, 2019) with warm-up and cosine decay; only weight matrices decay.

    Args:
      peak: Learning rate after the warm-up.
      weight_decay: Weight decay of the weight matrices; each step multiplies it by the learning rate.
      steps: Total number of training steps.
      eps: Epsilon of Adam.

    Returns:
      The optimizer.
    """

    def is_matrix(params: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.ndim > 1, params)

    schedule = vj.warm_up_then_cosine(peak, steps)
    return optax.adamw(schedule, eps=eps, weight_decay=weight_decay, mask=is_matrix)


def adamw_from_pca(peak: float, weight_decay: float, steps: int) -> optax.GradientTransformation:
    """`adamw` with a smaller learning rate for linear paths, which start at probabilistic PCA."""
    rates = {"linear": LINEAR_RATE * peak, "other": peak}
    return optax.partition({part: adamw(rate, weight_decay, steps) for part, rate in rates.items()}, labels_of_paths)


def averaged_adamw(peak: float, weight_decay: float, steps: int, eps: float = 1e-8) -> optax.GradientTransformation:
    """`adamw` with averaged parameters (`vj.averaged`)."""
    return vj.averaged(adamw(peak, weight_decay, steps, eps))


def labels_of_paths(params: PyTree) -> PyTree:
    """For each parameter "linear" in a linear path, "discriminator" in a discriminator, and "other" elsewhere.

    Linear paths that start at probabilistic PCA have a smaller learning rate, `LINEAR_RATE`. The size of Adam's steps
    does not decrease with the gradient, so that at the full rate the noise of the gradients moves these paths away from
    their optimum by more than the other layers gain.
    """

    def label(path: tuple[Any, ...], _: Any) -> str:
        names = [entry.key for entry in path]
        return next((name for name in ("linear", "discriminator") if name in names), "other")

    return jax.tree.map_with_path(label, params)


def require_warm_up(kl_warm_up: float) -> None:
    """Raise `InputError` unless this is a share of the steps."""
    if not 0 < kl_warm_up <= 1:
        raise vj.InputError(f"kl_warm_up is {kl_warm_up}; expected a share of the steps, above 0 and up to 1")


def kl_warm_up(share: float, steps: int) -> optax.Schedule:
    """Weight of the KL: from 0 to 1, linearly, in this share of the training steps (Bowman et al., 2016)."""
    return optax.linear_schedule(0.0, 1.0, max(1, int(share * steps)))


def elbo_numbers(
    key: Key[Array, ""], model: Any, variables: Variables, data: Split, transform: Transform, split: str
) -> Record:
    """Compute the ELBO and its terms over a split, in nats per image, with one sampled z per image.

    Returns:
      The mean reconstruction term, KL and negative ELBO, and the standard error of the negative ELBO.
    """
    terms = vj.evaluate(key, model, variables, data, transform=transform)
    negative_elbo = vj.mean_and_stderr(terms.kl - terms.log_px_z)
    return {
        f"{split}_reconstruction": vj.mean_and_stderr(-terms.log_px_z).mean,
        f"{split}_kl": vj.mean_and_stderr(terms.kl).mean,
        f"{split}_negative_elbo": negative_elbo.mean,
        f"{split}_negative_elbo_standard_error": negative_elbo.standard_error,
    }
