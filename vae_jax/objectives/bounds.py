"""Terms of the bounds on log p(x), for use after training and in objectives."""

import functools
import operator
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from vae_jax.data.arrays import as_reals
from vae_jax.data.transforms import Batch
from vae_jax.errors import InputError, renamed, require_finite, require_positive_int
from vae_jax.models.protocol import LatentVariableModel, Terms, Variables
from vae_jax.values import shape_repr


@shape_repr
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


def as_batch(model: Any, x: Any, condition: PyTree) -> Batch:
    """`x` itself if it is a batch, else a batch of it whose condition is a label if the model has classes."""
    if isinstance(x, Batch):
        return x
    x = as_reals("x", x)
    if condition is None:
        return Batch(x)
    if getattr(model, "classes", None) is not None:
        return Batch(x, label=condition)
    return Batch(x, condition=condition)
