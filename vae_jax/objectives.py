"""What training minimises, as values: `objective(key, model, variables, batch, step) -> Loss`.

Every loss is per example and in nats; the one mean is taken by the train step.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vae_jax.distributions import Delta, Posterior
from vae_jax.errors import InputError, require_finite, require_not_negative, require_positive_int
from vae_jax.likelihoods import ImageDistribution
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

    Raises:
      InputError: x of another shape or with values that the likelihood doesn't take, or variables that are not finite.
    """
    require_finite(variables)
    return elbo_terms_of(key, vae, variables, Batch(x, label=label))


def elbo_terms_of(key: Key[Array, "*keys"], vae: VAE, variables: Variables, batch: Batch) -> ELBOTerms:
    """`elbo_terms` of a batch: log p(x|z) is that of its targets."""
    forward = vae.forward(key, variables, batch, train=False)
    return ELBOTerms(forward.px_z.log_prob(batch.targets)[0], forward.posterior.kl().sum(axis=-1))


def log_weights(
    key: Key[Array, "*keys"],
    vae: VAE,
    variables: Variables,
    x: Float[Array, "batch height width channels"],
    samples: int,
    label: Labels = None,
) -> Float[Array, "samples batch"]:
    """log p(x, z) - log q(z|x) at draws z from q(z|x), in nats: the log importance weights of log p(x).

    Their mean over the samples estimates the ELBO, the log of the mean of their exponentials bounds log p(x) more
    tightly (Burda et al., 2016, eq. 8). Batch statistics are not touched.

    Raises:
      InputError: as `elbo_terms`; no samples, or a plain autoencoder, which has no density.
    """
    require_positive_int(samples=samples)
    require_finite(variables)
    forward = vae.forward(key, variables, Batch(x, label=label), samples=samples, train=False)
    return log_weights_of(forward.posterior, forward.z, forward.px_z, x)


def log_weights_of(
    posterior: Posterior, z: Float[Array, "samples batch latent"], px_z: ImageDistribution, target: Array
) -> Float[Array, "samples batch"]:
    """log p(x|z) + log p(z) - log q(z|x) at draws already made and decoded.

    Raises:
      InputError: a plain autoencoder, which has no density.
    """
    if isinstance(posterior, Delta):
        raise InputError("a plain autoencoder has no importance weights, as its posterior has no density")
    return px_z.log_prob(target) - posterior.log_ratio(z).sum(axis=-1)


@dataclass(frozen=True)
class AnalyticKL:
    """The KL of the posterior from the prior in closed form."""

    def __call__(
        self, posterior: Posterior, z: Float[Array, "samples batch latent"]
    ) -> Float[Array, "samples batch latent"]:
        """The same at every draw."""
        return jnp.broadcast_to(posterior.kl(), z.shape)


@dataclass(frozen=True)
class SampledKL:
    """log q(z|x) - log p(z) at the draws: as the analytic KL in expectation, and what importance weights are made of.

    Near convergence its noise and that of log p(x|z) cancel (Roeder et al., 2017); far from it, it only adds variance.
    """

    def __call__(
        self, posterior: Posterior, z: Float[Array, "samples batch latent"]
    ) -> Float[Array, "samples batch latent"]:
        """Of each draw."""
        return posterior.log_ratio(z)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ELBO:
    """The negative evidence lower bound, with the KL weighted by `beta` (Higgins et al., 2017; 1 is the bound itself).

    `beta` and `free_bits` are leaves of the tree, so that vmap can carry an axis of them.

    Attributes:
      beta: weight of the KL, or an optax schedule of it over the steps: a warm-up (Bowman et al., 2016) is
        `optax.linear_schedule(0, 1, steps)`.
      kl: how the KL is measured.
      samples: draws of z for each example.
      free_bits: nats of each latent dimension's KL, averaged over the batch, that cost no more than they do anyway
        (Kingma et al., 2016, eq. 15); 0 is the bound itself.
      axis_name: under pmap, the axis over which the batch of that average is spread.
    """

    beta: float | Float[Array, ""] | Callable[[Array], Array] = 1.0
    kl: AnalyticKL | SampledKL = field(default=AnalyticKL(), metadata={"static": True})
    samples: int = field(default=1, metadata={"static": True})
    free_bits: float | Float[Array, ""] = 0.0
    axis_name: str | None = field(default=None, metadata={"static": True})

    def __post_init__(self) -> None:
        require_positive_int(samples=self.samples)
        for name, weight in (("beta", self.beta), ("free_bits", self.free_bits)):
            if not isinstance(weight, jax.core.Tracer) and not callable(weight):
                require_not_negative(**{name: weight})

    def __call__(
        self, key: Key[Array, "*keys"], model: VAE, variables: Variables, batch: Batch, step: Int[Array, ""]
    ) -> Loss:
        """-log p(x|z) + beta KL, means over the draws of each example."""
        forward = model.forward(key, variables, batch, samples=self.samples)
        log_px_z = forward.px_z.log_prob(batch.targets).mean(axis=0)
        by_dimension = self.kl(forward.posterior, forward.z).mean(axis=0)  # [B, Z]
        kl, paid = by_dimension.sum(axis=-1), self._paid(by_dimension, batch).sum(axis=-1)
        beta = self.beta(step) if callable(self.beta) else self.beta
        return Loss(beta * paid - log_px_z, {"log_px_z": log_px_z, "kl": kl}, forward.updates)

    def _paid(self, kl: Float[Array, "batch latent"], batch: Batch) -> Float[Array, "batch latent"]:
        """Per example, such that the mean over the batch is max(mean KL, free bits) of each dimension."""
        if isinstance(self.free_bits, int | float) and self.free_bits == 0:
            return kl
        mask = jnp.ones(len(kl)) if batch.mask is None else batch.mask
        total, weight = mask @ kl, mask.sum()
        if self.axis_name is not None:
            total, weight = jax.lax.psum((total, weight), self.axis_name)
        return jnp.where((total > self.free_bits * weight)[None], kl, self.free_bits)


@dataclass(frozen=True)
class IWAE:
    """The negative importance-weighted bound, -log of the mean of `samples` weights (Burda et al., 2016, eq. 8).

    With one sample it is the ELBO with a sampled KL.

    Attributes:
      samples: draws of z for each example.
      doubly_reparameterised: whether the encoder's gradient weights each draw by the square of its normalised weight
        and leaves the score of q(z|x) out (Tucker et al., 2019, eq. 8): the same in expectation, with less noise as
        `samples` grow.
    """

    samples: int
    doubly_reparameterised: bool = False

    def __post_init__(self) -> None:
        require_positive_int(samples=self.samples)

    def __call__(
        self, key: Key[Array, "*keys"], model: VAE, variables: Variables, batch: Batch, step: Int[Array, ""]
    ) -> Loss:
        """-log 1/K sum of the weights; the term "elbo" is the mean of their logs."""
        forward = model.forward(key, variables, batch, samples=self.samples)
        log_w = log_weights_of(forward.posterior, forward.z, forward.px_z, batch.targets)
        if self.doubly_reparameterised:
            share = jax.lax.stop_gradient(jax.nn.softmax(log_w, axis=0))[..., None]
            # The same pass again, which the compiler sees; only its gradient differs.
            forward = model.forward(
                key, variables, batch, samples=self.samples, through=lambda z: _scale_gradient(z, share)
            )
            fixed = jax.lax.stop_gradient(forward.posterior)
            log_w = log_weights_of(fixed, forward.z, forward.px_z, batch.targets)
        bound = jax.nn.logsumexp(log_w, axis=0) - jnp.log(self.samples)
        return Loss(-bound, {"elbo": log_w.mean(axis=0)}, forward.updates)


@jax.custom_vjp
def _scale_gradient(values: Array, factor: Array) -> Array:
    """The values; their gradient is multiplied by `factor` on its way back."""
    return values


def _scale_gradient_forward(values: Array, factor: Array) -> tuple[Array, Array]:
    return values, factor


def _scale_gradient_backward(factor: Array, gradient: Array) -> tuple[Array, None]:
    return gradient * factor, None


_scale_gradient.defvjp(_scale_gradient_forward, _scale_gradient_backward)


@dataclass(frozen=True)
class Reconstruction:
    """The plain autoencoder's loss, -log p(x|z), with no pull towards a prior."""

    def __call__(
        self, key: Key[Array, "*keys"], model: VAE, variables: Variables, batch: Batch, step: Int[Array, ""]
    ) -> Loss:
        """-log p(x|z) at one draw of z, which is the encoding itself under a `Delta` posterior."""
        forward = model.forward(key, variables, batch)
        log_px_z = forward.px_z.log_prob(batch.targets)[0]
        return Loss(-log_px_z, {"log_px_z": log_px_z}, forward.updates)
