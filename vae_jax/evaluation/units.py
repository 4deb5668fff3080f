"""KL divergence by latent unit, and the units that are active."""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.data.transforms import Examples, Transform, as_split, as_transform
from vae_jax.distributions import Posterior
from vae_jax.errors import InputError, named, renamed, require_finite_variables, require_key
from vae_jax.evaluation.blocks import in_blocks, on_host
from vae_jax.evaluation.passes import inputs_of, observed_batch
from vae_jax.models import LatentVariableModel, Variables
from vae_jax.values import jit


@jit
def _kl_by_unit(
    first: int | Array,
    examples: Array,
    labels: Array | None = None,
    *,
    key: Array,
    variables: Variables,
    model: LatentVariableModel,
    transform: Transform,
) -> dict[str, Array]:
    noise_keys, batch = observed_batch(key, first, examples, labels, transform)
    terms = model.terms(noise_keys, variables, batch)
    return {layer: kl[0] for layer, kl in terms.kl.items()}


@renamed(observe="transform")
def kl_by_unit(
    key: Key[Array, ""],
    model: LatentVariableModel,
    variables: Variables,
    data: Examples,
    *,
    transform: Any = None,
    block: int | None = None,
) -> dict[str, Float[Any, "n units"]]:
    """KL divergence of q(z|x) from the prior for each example, layer and unit, for `active_units`.

    Args:
      key: Key of the transform and of the samples of z.
      model: Model with any number of latent layers.
      variables: Variables of the model.
      data: Split, or array of examples.
      transform: Transform that turns the examples into a batch; by default `Scale()` of bytes, and otherwise the
        stored numbers.
      block: Number of examples per compiled call.

    Returns:
      Arrays [n, units] by layer, in nats, on the host: in closed form if there is one, otherwise at one sampled z.

    Raises:
      InputError: The model does not take the examples, the variables are not finite, or an argument is not valid.
    """
    require_key(key)
    require_finite_variables(variables)
    data = as_split(data)
    transform = as_transform(transform, data)
    model.require_data(data, transform)
    run = partial(_kl_by_unit, key=key, variables=variables, model=model, transform=transform)
    return in_blocks(run, *inputs_of(data), block=block)


def active_units(of: Any, threshold: float = 0.01) -> Any:
    """Which latent units are active.

    >>> means = jnp.array([[-1.0, 0.0], [1.0, 0.0]])
    >>> vj.active_units(vj.DiagonalGaussian(means, jnp.zeros((2, 2)))).tolist()
    [True, False]

    Args:
      of: q(z|x) of two or more examples, from `encode_all`: a dimension is active if the variance of E[z|x] over the
        examples is above `threshold` (Burda et al., 2016, section 5.1). Or the KL by layer, from `kl_by_unit`: a unit
        is active if its mean KL over the examples is above `threshold`.
      threshold: Threshold of the variance, in squared units of the latent, or of the KL, in nats.

    Returns:
      Truth value of each unit, [units]; by layer if `of` is.

    Raises:
      InputError: `of` is neither, or is a posterior of a single example.
    """
    if isinstance(of, Mapping):
        return {layer: on_host(kl, np.float64).mean(axis=0) > threshold for layer, kl in of.items()}
    if not (hasattr(of, "mean") and hasattr(of, "log_prob") and hasattr(of, "sample")):
        raise InputError(f"of is {named(of)}; expected a posterior of vj.encode_all, or the result of vj.kl_by_unit")
    if of.mean.ndim != 2 or len(of.mean) < 2:
        raise InputError(
            f"the posterior means have shape {of.mean.shape}; expected [n, latent], n at least 2: active units are "
            "those whose mean varies over the examples"
        )
    return on_host(of.mean, np.float64).var(axis=0) > threshold


class PosteriorCollapseWarning(UserWarning):
    """q(z|x) equals the prior for every x, so that the latent has no information about x."""


def warn_if_collapsed(posterior: Posterior) -> None:
    """Issue a `PosteriorCollapseWarning` if no latent dimension is active."""
    if not np.any(active_units(posterior)):
        warnings.warn(
            "the posterior has collapsed: no latent dimension is active; try a KL warm-up "
            "(ELBO(beta=optax.linear_schedule(0, 1, steps))), free bits (ELBO(free_bits=0.1)) or a smaller beta",
            PosteriorCollapseWarning,
            stacklevel=2,
        )
