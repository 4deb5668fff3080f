"""Evidence lower bound, and reconstruction loss of a plain autoencoder."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from vae_jax.data.transforms import Batch
from vae_jax.errors import InputError, named, require_not_negative, require_positive_int
from vae_jax.models.protocol import LatentVariableModel, Terms, Variables
from vae_jax.objectives.base import Loss
from vae_jax.objectives.bounds import sum_over_units
from vae_jax.values import parameter, value

_CHECKED_STEPS = 1_000  # at most, of a schedule


@value
class AnalyticKL:
    """KL(q(z|x) || p(z)) in closed form if there is one, and otherwise as in `SampledKL`."""

    def __call__(self, terms: Terms) -> dict[str, Float[Array, "samples batch units"]]:
        """KL of each sample by layer and unit, in nats."""
        return terms.kl


@value
class SampledKL:
    """Estimate log q(z|x) - log p(z) of the KL at the samples, as in importance weights.

    Its expectation is the analytic KL. Near convergence its noise cancels that of log p(x|z) (Roeder et al., 2017);
    otherwise it increases the variance.
    """

    def __call__(self, terms: Terms) -> dict[str, Float[Array, "samples batch units"]]:
        """KL of each sample by layer and unit, in nats.

        Raises:
          InputError: The model is a plain autoencoder, whose posterior has no density.
        """
        if not terms.log_ratio:
            raise InputError("a plain autoencoder has no sampled KL, as its posterior has no density")
        return terms.log_ratio


@value
class ELBO:
    """Negative evidence lower bound in nats, with the KL weighted by `beta` (Higgins et al., 2017).

    `beta` and `free_bits` are leaves of the value: `jax.vmap(..., in_axes=vj.axes(objective, beta=0))` maps over an
    axis of them.

    Attributes:
      beta: Weight of the KL, or an optax schedule of it over the steps; 1 gives the bound. A warm-up (Bowman et al.,
        2016) is `optax.linear_schedule(0, 1, steps)`.
      kl: Estimator of the KL.
      samples: Number of samples of z per example.
      free_bits: Lower limit of the KL of each unit, averaged over the batch, in nats; below it, the KL of the unit has
        no gradient (Kingma et al., 2016, equation 15). 0 gives the bound. A unit is a latent dimension if posterior and
        prior factorise over the dimensions, and otherwise a layer.
      axis_name: Axis of `pmap` over which the batch of this average is distributed.

    Raises:
      InputError: `samples` is not a positive integer, `beta` or `free_bits` is negative, or `kl` is no estimator.
    """

    beta: float | Float[Array, "..."] | Callable[[Array], Array] = parameter(default=1.0)
    kl: AnalyticKL | SampledKL = AnalyticKL()
    samples: int = 1
    free_bits: float | Float[Array, "..."] = parameter(default=0.0)
    axis_name: str | None = None

    def __post_init__(self) -> None:
        require_positive_int(samples=self.samples)
        require_not_negative(free_bits=self.free_bits)
        if isinstance(self.kl, type):
            raise InputError(f"kl is the class {self.kl.__name__}; expected a value: {self.kl.__name__}()")
        if not callable(self.kl):
            raise InputError(f"kl is {named(self.kl)}; expected vj.AnalyticKL() or vj.SampledKL()")
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
        """Loss -log p(x|z) + beta KL of each example, averaged over the samples; terms "log_px_z" and "kl"."""
        terms = model.terms(key, variables, batch, jnp.arange(self.samples), train=True)
        log_px_z = terms.log_px_z.mean(axis=0)
        by_layer = {layer: kl.mean(axis=0) for layer, kl in self.kl(terms).items()}  # [B, U]
        kl = sum_over_units(by_layer)
        penalty = sum_over_units({layer: self._with_free_bits(own, batch) for layer, own in by_layer.items()})
        beta = self.beta(step) if callable(self.beta) else self.beta
        layers = {f"kl_{layer}": own.sum(axis=-1) for layer, own in by_layer.items()} if len(by_layer) > 1 else {}
        named = {"log_px_z": log_px_z, "kl": kl, **layers}
        return Loss(beta * penalty - log_px_z, named, terms.updates, terms.px_z)

    def require_schedules(self, steps: int) -> None:
        """Raise `InputError` if the schedule of beta can't be traced, or is negative or NaN in some of 1,000 steps."""
        if not callable(self.beta):
            return
        at = np.unique(np.linspace(0, steps - 1, _CHECKED_STEPS, dtype=np.int32))
        try:
            values = np.asarray(jax.vmap(self.beta)(jnp.asarray(at)))
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
            raise InputError(
                "beta is a function that can't be compiled; expected one of jax.numpy, with jnp.minimum and jnp.where "
                "in place of min and if, or a schedule of optax, such as optax.linear_schedule(0, 1, 1000)"
            ) from error
        if len(wrong := np.flatnonzero(~(values >= 0))):
            step, found = at[wrong[0]], values[wrong[0]]
            raise InputError(f"beta is {found:.3g} in step {step} of {steps}; expected a schedule of 0 or more")

    def _with_free_bits(self, kl: Float[Array, "batch units"], batch: Batch) -> Float[Array, "batch units"]:
        """KL of each example, changed so that the mean over the batch is max(mean KL, free bits) of each unit."""
        if isinstance(self.free_bits, int | float) and self.free_bits == 0:
            return kl
        mask = jnp.ones(len(kl)) if batch.mask is None else batch.mask
        total, weight = mask @ kl, mask.sum()
        if self.axis_name is not None:
            total, weight = jax.lax.psum((total, weight), self.axis_name)
        # A traced 0 gives the bound too, although a sampled KL may be below 0.
        is_free = (total <= self.free_bits * weight) & (self.free_bits > 0)
        return jnp.where(is_free[None], self.free_bits, kl)


@value
class Reconstruction:
    """Loss -log p(x|z) of a plain autoencoder, in nats, without a term for the prior."""

    def __call__(
        self,
        key: Key[Array, "*keys"],
        model: LatentVariableModel,
        variables: Variables,
        batch: Batch,
        step: Int[Array, ""],
    ) -> Loss:
        """Loss -log p(x|z) of each example at one sample of z; with a `Delta` posterior, z is the encoding."""
        terms = model.terms(key, variables, batch, train=True)
        return Loss(-terms.log_px_z[0], {"log_px_z": terms.log_px_z[0]}, terms.updates, terms.px_z)
