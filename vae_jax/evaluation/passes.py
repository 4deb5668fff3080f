"""Transform, encode or decode any number of examples."""

import warnings
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from vae_jax.data import Split
from vae_jax.data.arrays import as_reals
from vae_jax.data.transforms import Batch, Examples, Transform, as_split, as_transform
from vae_jax.distributions import FlowPosterior, Posterior, Transformed, example_keys
from vae_jax.errors import InputError, named, renamed, require_finite_values, require_finite_variables, require_key
from vae_jax.evaluation.blocks import block_of, in_blocks
from vae_jax.models import VAE, Variables
from vae_jax.models.apply import of_part
from vae_jax.models.protocol import as_condition
from vae_jax.values import jit


def inputs_of(data: Split) -> list[np.ndarray]:
    """The examples, and the labels if there are any."""
    return [data.images] if data.labels is None else [data.images, np.asarray(data.labels)]


def observed_batch(
    key: Key[Array, ""], first: int | Array, examples: Array, labels: Array | None, transform: Transform
) -> tuple[Key[Array, " block"], Batch]:
    """Keys of the model's noise and the transformed batch of a block of examples, by two streams of the key.

    Args:
      key: Key of both.
      first: Position of the first example of the block, on which the streams depend.
      examples: Stored examples, [block, *event].
      labels: Class numbers [block], or None.
      transform: Transform of the examples.
    """
    transform_keys, noise_keys = (
        example_keys(jax.random.fold_in(key, stream), len(examples), first) for stream in range(2)
    )
    return noise_keys, transform(transform_keys, examples, labels)


@jit
def _encode(
    first: int | Array,
    examples: Array,
    labels: Array | None = None,
    *,
    key: Array,
    variables: Variables,
    vae: VAE,
    transform: Transform,
) -> Posterior:
    posterior = vae.code(variables, transform(example_keys(key, len(examples), first), examples, labels)).posterior
    return posterior.base if isinstance(posterior, Transformed) else posterior  # the flow is that of all examples


@renamed(observe="transform")
def encode_all(
    key: Key[Array, ""],
    vae: VAE,
    variables: Variables,
    data: Examples,
    *,
    transform: Any = None,
    block: int | None = None,
) -> Posterior:
    """q(z|x) of each example.

    Args:
      key: Key of the transform; not used by a deterministic transform.
      vae: Model.
      variables: Variables of the model.
      data: Split, or array of examples.
      transform: Transform that turns the examples into a batch; by default `Scale()` of bytes, and otherwise the
        stored numbers.
      block: Number of examples per compiled call.

    Returns:
      Posterior with parameters [n, latent] on the host.

    Raises:
      InputError: The model does not take the examples or their labels, the variables are not finite, or an argument is
        not valid.
    """
    require_key(key)
    require_finite_variables(variables)
    data = as_split(data)
    vae.require_inputs(data)
    transform = as_transform(transform, data)
    run = partial(_encode, key=key, variables=variables, vae=vae, transform=transform)
    posterior = in_blocks(run, *inputs_of(data), block=block)
    if isinstance(vae.posterior, FlowPosterior):
        return vae.posterior.transformed(posterior, of_part(variables, "posterior"))
    return posterior


@jit
def _decode(z: Array, condition: PyTree, variables: Variables, vae: VAE) -> Array:
    return vae.decode(variables, z, condition).mean


@renamed(labels="condition")
def decode_all(
    vae: VAE,
    variables: Variables,
    z: Any,
    condition: PyTree = None,
    *,
    block: int | None = None,
) -> Float[Any, "n ..."]:
    """E[x|z] of each latent.

    Args:
      vae: Model.
      variables: Variables of the model.
      z: Latents, [n, latent].
      condition: Condition of each latent, such as labels [n], if the model is conditional.
      block: Number of latents per compiled call.

    Returns:
      Mean of p(x|z), [n, *event], on the host.

    Raises:
      InputError: There are no latents, the model has several layers of them, it does not take the latents or the
        condition, or the variables are not finite.
    """
    require_finite_variables(variables)
    if not hasattr(vae, "decode"):
        raise InputError(
            f"the model is {named(vae)}; expected a VAE, with one layer of latents: latents of several layers are "
            "decoded by model.sample(key, variables, n, given=z)"
        )
    z, condition = as_reals("z", z, "[n, latent]"), as_condition(vae, condition)
    if z.shape[1] != vae.latent_dim:
        raise InputError(f"z has shape {z.shape}; expected [n, {vae.latent_dim}]: the model's latents")
    require_finite_values("z", z)
    vae.require_condition(condition, len(z))
    conditions, structure = jax.tree.flatten(condition)

    def run(first: int, z: Any, *conditions: Any) -> Array:
        return _decode(z, jax.tree.unflatten(structure, conditions), variables, vae)

    return in_blocks(run, z, *conditions, block=block_of(vae.event_shape) if block is None else block)


@jit
def _transform(
    first: int | Array, examples: Array, labels: Array | None = None, *, key: Array, transform: Transform
) -> Batch:
    return transform(example_keys(key, len(examples), first), examples, labels)


@renamed(observe="transform")
def transform_all(
    key: Key[Array, ""], data: Examples, *, transform: Transform | None = None, block: int | None = None
) -> Float[Any, "n ..."]:
    """The inputs `x` that a transform makes of the examples, one sample each if the transform is random.

    Args:
      key: Key of the transform; not used by a deterministic transform.
      data: Split, or array of examples.
      transform: Transform; by default `Scale()` of bytes, and otherwise the stored numbers.
      block: Number of examples per compiled call.

    Returns:
      Inputs [n, *event] on the host. A `UserWarning` says if entries are missing, which are 0 in the inputs: the whole
      batch is that of `transform_to_batch`.
    """
    batch = transform_to_batch(key, data, transform=transform, block=block)
    if batch.observed is not None:
        warnings.warn(
            "the examples have missing entries, which are 0 in the result; vj.transform_to_batch also returns which "
            "entries are observed",
            stacklevel=2,
        )
    return batch.x


def transform_to_batch(
    key: Key[Array, ""], data: Examples, *, transform: Transform | None = None, block: int | None = None
) -> Batch:
    """The batch of all examples, with targets, labels and the mask of observed entries where the transform makes them.

    The arguments are those of `transform_all`. `importance_estimate` takes the result.

    Returns:
      Batch with arrays [n, ...] on the host.
    """
    require_key(key)
    data = as_split(data)
    transform = as_transform(transform, data)
    return in_blocks(partial(_transform, key=key, transform=transform), *inputs_of(data), block=block)
