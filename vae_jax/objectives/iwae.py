"""The importance-weighted bound."""

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
