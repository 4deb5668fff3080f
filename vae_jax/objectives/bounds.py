"""Terms of the bounds on log p(x), used by evaluation and objectives."""

import functools
import operator
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from vae_jax.data.arrays import as_reals
from vae_jax.data.transforms import Batch
from vae_jax.errors import InputError, renamed, require_finite_variables, require_positive_int
from vae_jax.models.base import require_transformed
from vae_jax.models.protocol import LatentVariableModel, Terms, Variables, as_condition
from vae_jax.values import shape_repr


@shape_repr
class ELBOTerms(NamedTuple):
    """Terms of the evidence lower bound, log p(x) >= log_px_z - kl, in nats per example.

    Attributes:
      log_px_z: log p(x|z) at a sample of z, [batch].
      kl: KL(q(z|x) || p(z)), [batch].
    """

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
    """log p(x|z) at one sample z of q(z|x), and KL(q(z|x) || p(z)) (Kingma and Welling, 2014, equation 7), in nats.

    The KL is in closed form if there is one, and otherwise log q(z|x) - log p(z) at the sample. The model is used in
    evaluation mode, so batch statistics are not updated.

    Args:
      key: Key of the samples, one or one per example.
      model: Model whose bound is computed.
      variables: Variables of the model.
      x: Examples [batch, *event], or a `Batch`, whose targets then are the x of log p(x|z).
      condition: Condition of each example if the model is conditional; labels if it has classes.

    Returns:
      `log_px_z` and `kl`, [batch] each.

    Raises:
      InputError: The examples do not have the shape of the model or have values that the likelihood does not accept, or
        the variables are not finite.
    """
    require_finite_variables(variables)
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
    """Log importance weights log p(x, z) - log q(z|x) at samples z of q(z|x), in nats.

    Their mean over the samples estimates the ELBO. The log of the mean of their exponentials is a tighter bound on
    log p(x) (Burda et al., 2016, equation 8). Batch statistics are not updated.

    Args:
      key: Key of the samples, one or one per example.
      model: Model other than a plain autoencoder.
      variables: Variables of the model.
      x: Examples [batch, *event], or a `Batch`.
      samples: Number of samples per example.
      condition: Condition of each example if the model is conditional; labels if it has classes.

    Returns:
      The log weights, [samples, batch].

    Raises:
      InputError: There are no samples, the model is a plain autoencoder, which has no density, or as in `elbo_terms`.
    """
    require_positive_int(samples=samples)
    require_finite_variables(variables)
    return log_weights_of(model.terms(key, variables, as_batch(model, x, condition), jnp.arange(samples)))


def log_weights_of(terms: Terms) -> Float[Array, "samples batch"]:
    """Log importance weights log p(x|z) + log p(z) - log q(z|x) of the given terms, [samples, batch], in nats.

    Raises:
      InputError: The terms are those of a plain autoencoder, which has no density.
    """
    if not terms.log_ratio:
        raise InputError("a plain autoencoder has no importance weights, as its posterior has no density")
    return terms.log_px_z - sum_over_units(terms.log_ratio)


def sum_over_units(by_layer: dict[str, Float[Array, "*axes units"]]) -> Float[Array, "*axes"]:
    """Sum over the layers and their units."""
    return functools.reduce(operator.add, [values.sum(axis=-1) for values in by_layer.values()])


def as_batch(model: Any, x: Any, condition: PyTree) -> Batch:
    """Batch of the examples, with the condition as label if the model has classes; a `Batch` is returned unchanged.

    Raises:
      InputError: The examples are bytes or are not numbers, the labels are not whole numbers, or there is a condition
        beside a `Batch`.
    """
    if isinstance(x, Batch):
        if condition is not None:
            raise InputError(
                "x is a Batch and a condition is given beside it; put the condition, or label, into the batch"
            )
        return x
    require_transformed(x)
    x = as_reals("x", x)
    if condition is None:
        return Batch(x)
    if getattr(model, "classes", None) is not None:
        return Batch(x, label=as_condition(model, condition))
    return Batch(x, condition=condition)
