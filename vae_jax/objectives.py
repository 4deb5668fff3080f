"""What training minimises, as values: `objective(key, model, variables, batch, step) -> Loss`.

Every loss is per example and in nats; the one mean is taken by the train step.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, Int, Key

from vae_jax.errors import InputError
from vae_jax.model import VAE, Labels, Variables
from vae_jax.observation import Batch


class Loss(NamedTuple):
    """A loss and what it is made of.

    Attributes:
      per_example: what is minimised.
      terms: parts of it worth a curve of their own.
      updates: collections of variables that the forward pass has changed.
    """

    per_example: Float[Array, " batch"]
    terms: dict[str, Float[Array, " batch"]]
    updates: Variables


@runtime_checkable
class Objective(Protocol):
    """The signature of an objective."""

    def __call__(
        self, key: Key[Array, "*keys"], model: Any, variables: Variables, batch: Batch, step: Int[Array, ""]
    ) -> Loss:
        """The loss of each example; `key` is one key, or one per example."""


class ELBOTerms(NamedTuple):
    """The two terms of the evidence lower bound, log p(x) >= log_px_z - kl, in nats per example."""

    log_px_z: Float[Array, " batch"]
    kl: Float[Array, " batch"]


def elbo_terms(
    key: Key[Array, "*keys"],
    vae: VAE,
    variables: Variables,
    x: Float[Array, "batch height width channels"],
    label: Labels = None,
) -> ELBOTerms:
    """log p(x|z) at one draw z from q(z|x), and KL(q(z|x) || p(z)) in closed form (Kingma and Welling, 2014, eq. 7).

    For use after training: batch statistics are not touched.
    """
    forward = vae.forward(key, variables, Batch(x, label=label), train=False)
    return ELBOTerms(forward.p_x.log_prob(x)[0], forward.posterior.kl().sum(axis=-1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ELBO:
    """The negative evidence lower bound, with the KL weighted by `beta` (Higgins et al., 2017; 1 is the bound itself).

    `beta` is a leaf of the tree, so that vmap can carry an axis of them.
    """

    beta: float | Float[Array, ""] = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.beta, jax.core.Tracer) and not 0 <= self.beta < float("inf"):
            raise InputError(f"beta is {self.beta}; expected a number from 0")

    def __call__(
        self, key: Key[Array, "*keys"], model: VAE, variables: Variables, batch: Batch, step: Int[Array, ""]
    ) -> Loss:
        """-log p(x|z) + beta KL, one draw of z for each example."""
        forward = model.forward(key, variables, batch)
        log_px_z = forward.p_x.log_prob(batch.targets)[0]
        kl = forward.posterior.kl().sum(axis=-1)
        return Loss(self.beta * kl - log_px_z, {"log_px_z": log_px_z, "kl": kl}, forward.updates)


@dataclass(frozen=True)
class Reconstruction:
    """The plain autoencoder's loss, -log p(x|z), with no pull towards a prior."""

    def __call__(
        self, key: Key[Array, "*keys"], model: VAE, variables: Variables, batch: Batch, step: Int[Array, ""]
    ) -> Loss:
        """-log p(x|z) at one draw of z, which is the encoding itself under a `Delta` posterior."""
        forward = model.forward(key, variables, batch)
        log_px_z = forward.p_x.log_prob(batch.targets)[0]
        return Loss(-log_px_z, {"log_px_z": log_px_z}, forward.updates)
