"""What training minimises, as values: `objective(key, model, variables, batch, step) -> Loss`.

Every loss is per example and in nats; the one mean is taken by the train step.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from vae_jax.errors import InputError, renamed, require_finite, require_not_negative, require_positive_int
from vae_jax.models.protocol import LatentVariableModel, Terms, Variables
from vae_jax.observation import Batch
from vae_jax.values import parameter, value


class Loss(NamedTuple):
    """A loss and what it is made of.

    Attributes:
      per_example: what is minimised. Or a loss for each of several parts, by their names: each is then minimised over
        the parameters of its own part alone (see `make_train_step`).
      terms: parts of it worth a curve of their own.
      updates: collections of variables that the forward pass has changed.
    """

    per_example: Float[Array, " batch"] | dict[str, Float[Array, " batch"]]
    terms: dict[str, Float[Array, " batch"]]
    updates: Variables


@runtime_checkable
class Objective(Protocol):
    """The signature of an objective.

    An objective with parameters of its own, such as those of a discriminator, also has `init(key, model) -> variables`,
    by collection and then by a name that no part of the model has; `init(..., objective=)` adds them to the state.
    """

    def __call__(
        self, key: Key[Array, "*keys"], model: Any, variables: Variables, batch: Batch, step: Int[Array, ""]
    ) -> Loss:
        """The loss of each example; `key` is one key, or one per example."""


class ELBOTerms(NamedTuple):
    """The two terms of the evidence lower bound, log p(x) >= log_px_z - kl, in nats per example."""

    log_px_z: Float[Array, " batch"]
    kl: Float[Array, " batch"]


@renamed(label="condition")
def elbo_terms(
    key: Key[Array, "*keys"],
    model: LatentVariableModel,
    variables: Variables,
    x: Float[Array, "batch ..."] | Batch,
    condition: PyTree = None,
) -> ELBOTerms:
    """log p(x|z) at one draw z from q(z|x), and KL(q(z|x) || p(z)) (Kingma and Welling, 2014, eq. 7).

    The KL is the closed form where there is one, else log q(z|x) - log p(z) at the draw. For use after training: batch
    statistics are not touched.

    Args:
      key: of the draws, one key or one per example.
      model: whose bound it is.
      variables: of the model.
      x: examples, or a `Batch` of them: then log p(x|z) is that of its targets.
      condition: of each example if the model is conditional; labels of a model with classes.

    Raises:
      InputError: x of another shape or with values that the likelihood doesn't take, or variables that are not finite.
    """
    require_finite(variables)
    terms = model.terms(key, variables, as_batch(model, x, condition))
    return ELBOTerms(terms.log_px_z[0], sum_over_units(terms.kl)[0])


@renamed(label="condition")
def log_weights(
    key: Key[Array, "*keys"],
    model: LatentVariableModel,
    variables: Variables,
    x: Float[Array, "batch ..."] | Batch,
    samples: int,
    condition: PyTree = None,
) -> Float[Array, "samples batch"]:
    """log p(x, z) - log q(z|x) at draws z from q(z|x), in nats: the log importance weights of log p(x).

    Their mean over the samples estimates the ELBO, the log of the mean of their exponentials bounds log p(x) more
    tightly (Burda et al., 2016, eq. 8). Batch statistics are not touched.

    Raises:
      InputError: as `elbo_terms`; no samples, or a plain autoencoder, which has no density.
    """
    require_positive_int(samples=samples)
    require_finite(variables)
    return log_weights_of(model.terms(key, variables, as_batch(model, x, condition), jnp.arange(samples)))


def log_weights_of(terms: Terms) -> Float[Array, "samples batch"]:
    """log p(x|z) + log p(z) - log q(z|x) at draws already made.

    Raises:
      InputError: a plain autoencoder, which has no density.
    """
    if not terms.log_ratio:
        raise InputError("a plain autoencoder has no importance weights, as its posterior has no density")
    return terms.log_px_z - sum_over_units(terms.log_ratio)


def sum_over_units(by_layer: dict[str, Float[Array, "*axes units"]]) -> Float[Array, "*axes"]:
    """The sum over layers and their units."""
    return functools.reduce(operator.add, [values.sum(axis=-1) for values in by_layer.values()])


def as_batch(model: Any, x: Float[Any, "batch ..."] | Batch, condition: PyTree) -> Batch:
    """`x` itself if it is a batch, else a batch of it whose condition is a label if the model has classes."""
    if isinstance(x, Batch):
        return x
    if condition is None:
        return Batch(x)
    if getattr(model, "classes", None) is not None:
        return Batch(x, label=condition)
    return Batch(x, condition=condition)


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
class IWAE:
    """The negative importance-weighted bound, -log of the mean of `samples` weights (Burda et al., 2016, eq. 8).

    With one sample it is the ELBO with a sampled KL.

    Attributes:
      samples: draws of z for each example.
      doubly_reparameterised: whether the encoder's gradient weights each draw by the square of its normalised weight
        and leaves the score of q(z|x) out (Tucker et al., 2019, eq. 8): the same in expectation, with less noise as
        `samples` grow. For models of one latent layer.
    """

    samples: int
    doubly_reparameterised: bool = False

    def __post_init__(self) -> None:
        require_positive_int(samples=self.samples)

    def __call__(
        self,
        key: Key[Array, "*keys"],
        model: LatentVariableModel,
        variables: Variables,
        batch: Batch,
        step: Int[Array, ""],
    ) -> Loss:
        """-log 1/K sum of the weights; the term "elbo" is the mean of their logs."""
        draws = jnp.arange(self.samples)
        terms = model.terms(key, variables, batch, draws, train=True)
        log_w = log_weights_of(terms)
        if self.doubly_reparameterised:
            if len(terms.log_ratio) > 1:
                raise InputError(
                    "the doubly reparameterised gradient is for one latent layer, but the model has "
                    f"{len(terms.log_ratio)}; take IWAE({self.samples})"
                )
            share = jax.lax.stop_gradient(jax.nn.softmax(log_w, axis=0))[..., None]
            # The same pass again, which the compiler sees; only its gradient differs.
            terms = model.terms(
                key,
                variables,
                batch,
                draws,
                train=True,
                through=lambda z: _scale_gradient(z, share),
                freeze_posterior=True,
            )
            log_w = log_weights_of(terms)
        bound = jax.nn.logsumexp(log_w, axis=0) - jnp.log(self.samples)
        return Loss(-bound, {"elbo": log_w.mean(axis=0)}, terms.updates)


@jax.custom_vjp
def _scale_gradient(values: Array, factor: Array) -> Array:
    """The values; their gradient is multiplied by `factor` on its way back."""
    return values


def _scale_gradient_forward(values: Array, factor: Array) -> tuple[Array, Array]:
    return values, factor


def _scale_gradient_backward(factor: Array, gradient: Array) -> tuple[Array, None]:
    return gradient * factor, None


_scale_gradient.defvjp(_scale_gradient_forward, _scale_gradient_backward)


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
