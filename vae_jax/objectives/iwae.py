"""Importance-weighted bound."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from vae_jax.data.transforms import Batch
from vae_jax.errors import InputError, require_positive_int
from vae_jax.models.protocol import LatentVariableModel, Variables
from vae_jax.objectives.base import Loss
from vae_jax.objectives.bounds import log_weights_of
from vae_jax.values import value


@value
class IWAE:
    """Negative importance-weighted bound, -log of the mean of `samples` weights (Burda et al., 2016, equation 8).

    With one sample it is the ELBO with a sampled KL. The unit is nats.

    Attributes:
      samples: Number of samples of z per example, K.
      doubly_reparameterised: Whether the gradient of the encoder weights each sample by its squared normalised weight
        and omits the score of q(z|x) (Tucker et al., 2019, equation 8). Its expectation is the same, and its variance
        is lower with many samples. The model must have a single latent layer.

    Raises:
      InputError: `samples` is not a positive integer.
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
        """Loss -log 1/K sum of the weights of each example; the term "elbo" is the mean of the log weights.

        Raises:
          InputError: The model is a plain autoencoder, or `doubly_reparameterised` is set and the model has several
            latent layers.
        """
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
            # The same values again, which the compiler computes once; only the gradient differs.
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
    """Return `values`; in the backward pass, their gradient is multiplied by `factor`."""
    return values


def _scale_gradient_forward(values: Array, factor: Array) -> tuple[Array, Array]:
    return values, factor


def _scale_gradient_backward(factor: Array, gradient: Array) -> tuple[Array, None]:
    return gradient * factor, None


_scale_gradient.defvjp(_scale_gradient_forward, _scale_gradient_backward)
