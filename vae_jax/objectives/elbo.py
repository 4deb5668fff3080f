"""The evidence lower bound, and the plain autoencoder's loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vae_jax.data.transforms import Batch
from vae_jax.errors import InputError, require_not_negative, require_positive_int
from vae_jax.models.protocol import LatentVariableModel, Terms, Variables
from vae_jax.objectives.base import Loss
from vae_jax.objectives.bounds import sum_over_units
from vae_jax.values import parameter, value


@value
class AnalyticKL:
    """The KL of the posterior from the prior: in closed form where there is one, else as `SampledKL`."""

    def __call__(self, terms: Terms) -> dict[str, Float[Array, "samples batch units"]]:
        """Of each draw, by layer and unit."""
        return terms.kl


@value
class SampledKL:
    """log q(z|x) - log p(z) at the draws: as the analytic KL in expectation, and what importance weights are made of.

    Near convergence its noise and that of log p(x|z) cancel (Roeder et al., 2017); far from it, it only adds variance.
    """

    def __call__(self, terms: Terms) -> dict[str, Float[Array, "samples batch units"]]:
        """Of each draw, by layer and unit.

        Raises:
          InputError: a plain autoencoder, which has no density.
        """
        if not terms.log_ratio:
            raise InputError("a plain autoencoder has no sampled KL, as its posterior has no density")
        return terms.log_ratio


@value
class ELBO:
    """The negative evidence lower bound, with the KL weighted by `beta` (Higgins et al., 2017; 1 is the bound itself).

    `beta` and `free_bits` are parameters of the value: `jax.vmap(..., in_axes=vj.axes(objective, beta=0))` maps over an
    axis of them.

    Attributes:
      beta: weight of the KL, or an optax schedule of it over the steps: a warm-up (Bowman et al., 2016) is
        `optax.linear_schedule(0, 1, steps)`.
      kl: how the KL is measured.
      samples: draws of z for each example.
      free_bits: nats of each unit's KL, averaged over the batch, that cost no more than they do anyway (Kingma et al.,
        2016, eq. 15); 0 is the bound itself. A unit is a latent dimension where posterior and prior factorise over the
        dimensions, else a layer.
      axis_name: under pmap, the axis over which the batch of that average is spread.
    """

    beta: float | Float[Array, "..."] | Callable[[Array], Array] = parameter(default=1.0)
    kl: AnalyticKL | SampledKL = AnalyticKL()
    samples: int = 1
    free_bits: float | Float[Array, "..."] = parameter(default=0.0)
    axis_name: str | None = None

    def __post_init__(self) -> None:
        require_positive_int(samples=self.samples)
        require_not_negative(free_bits=self.free_bits)
        if not callable(self.beta):
            require_not_negative(beta=self.beta)

    def __call__(
        self,
        key: Key[Array, "*keys"],
        model: LatentVariableModel,
        variables: Variables,
        batch: Batch,
        step: Int[Array, ""],
    ) -> Loss:
        """-log p(x|z) + beta KL, means over the draws of each example."""
        terms = model.terms(key, variables, batch, jnp.arange(self.samples), train=True)
        log_px_z = terms.log_px_z.mean(axis=0)
        by_layer = {layer: kl.mean(axis=0) for layer, kl in self.kl(terms).items()}  # [B, U]
        kl = sum_over_units(by_layer)
        paid = sum_over_units({layer: self._paid(kl, batch) for layer, kl in by_layer.items()})
        beta = self.beta(step) if callable(self.beta) else self.beta
        layers = {f"kl_{layer}": kl.sum(axis=-1) for layer, kl in by_layer.items()} if len(by_layer) > 1 else {}
        return Loss(beta * paid - log_px_z, {"log_px_z": log_px_z, "kl": kl, **layers}, terms.updates)

    def _paid(self, kl: Float[Array, "batch units"], batch: Batch) -> Float[Array, "batch units"]:
        """Per example, such that the mean over the batch is max(mean KL, free bits) of each unit."""
        if isinstance(self.free_bits, int | float) and self.free_bits == 0:
            return kl
        mask = jnp.ones(len(kl)) if batch.mask is None else batch.mask
        total, weight = mask @ kl, mask.sum()
        if self.axis_name is not None:
            total, weight = jax.lax.psum((total, weight), self.axis_name)
        # A traced 0 is the bound itself too, whose sampled KL may be below 0.
        is_free = (total <= self.free_bits * weight) & (self.free_bits > 0)
        return jnp.where(is_free[None], self.free_bits, kl)


@value
class Reconstruction:
    """The plain autoencoder's loss, -log p(x|z), with no pull towards a prior."""

    def __call__(
        self,
        key: Key[Array, "*keys"],
        model: LatentVariableModel,
        variables: Variables,
        batch: Batch,
        step: Int[Array, ""],
    ) -> Loss:
        """-log p(x|z) at one draw of z, which is the encoding itself under a `Delta` posterior."""
        terms = model.terms(key, variables, batch, train=True)
        return Loss(-terms.log_px_z[0], {"log_px_z": terms.log_px_z[0]}, terms.updates)
