"""Which latent units a model uses."""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from vae_jax.data.transforms import Examples, Transform, as_split, as_transform
from vae_jax.distributions import Posterior, example_keys
from vae_jax.errors import renamed, require_finite
from vae_jax.evaluation.blocks import in_blocks, on_host
from vae_jax.evaluation.passes import inputs_of
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
    observation_keys, noise_keys = (
        example_keys(jax.random.fold_in(key, stream), len(examples), first) for stream in range(2)
    )
    terms = model.terms(noise_keys, variables, transform(observation_keys, examples, labels))
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
    """The KL of each example by layer and unit, in nats, on the host; sampled where there is no closed form.

    `active_units` takes it, for models of any number of layers.
    """
    require_finite(variables)
    data = as_split(data)
    transform = as_transform(transform, data)
    model.require_data(data, transform)
    run = partial(_kl_by_unit, key=key, variables=variables, model=model, transform=transform)
    return in_blocks(run, *inputs_of(data), block=block)


def active_units(of: Posterior | Mapping[str, Float[Any, "n units"]], threshold: float = 0.01) -> Any:
    """Which latent units are used.

    Args:
      of: q(z|x) of many examples, from `encode_all`: a dimension is active where E[z|x] has a variance above
        `threshold` over the examples (Burda et al., 2016, section 5.1). Or the KL by layer, from `kl_by_unit`: a unit
        is active where its mean over the examples is above `threshold` nats.
      threshold: that of Burda et al. (2016), in squared units of the latent, or in nats.

    Returns:
      A truth value for each unit, [units]; by layer if `of` is.
    """
    if isinstance(of, Mapping):
        return {layer: on_host(kl, np.float64).mean(axis=0) > threshold for layer, kl in of.items()}
    return on_host(of.mean, np.float64).var(axis=0) > threshold


class PosteriorCollapseWarning(UserWarning):
    """q(z|x) is the prior whatever x is: the latent says nothing of the image."""


def warn_if_collapsed(posterior: Posterior) -> None:
    """Warn if no latent dimension is active."""
    if not np.any(active_units(posterior)):
        warnings.warn(
            "the posterior has collapsed: no latent dimension changes with the image. Try a KL warm-up "
            "(ELBO(beta=optax.linear_schedule(0, 1, steps))), free bits (ELBO(free_bits=0.1)) or a smaller beta",
            PosteriorCollapseWarning,
            stacklevel=2,
        )
