"""All examples through a transform, an encoder or a decoder."""

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from vae_jax.data import Split
from vae_jax.data.transforms import Examples, Transform, as_split, as_transform
from vae_jax.distributions import Posterior, example_keys
from vae_jax.errors import renamed
from vae_jax.evaluation.blocks import block_of, in_blocks
from vae_jax.models import VAE, Variables
from vae_jax.values import jit


def inputs_of(data: Split) -> list[np.ndarray]:
    """The examples, and their labels where there are any."""
    return [data.images] if data.labels is None else [data.images, np.asarray(data.labels)]


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
    return vae.code(variables, transform(example_keys(key, len(examples), first), examples, labels)).posterior


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
    """q(z|x) of each example, on the host; `key` matters only where observing has chance in it."""
    data = as_split(data)
    vae.require_inputs(data)
    transform = as_transform(transform, data)
    run = partial(_encode, key=key, variables=variables, vae=vae, transform=transform)
    return in_blocks(run, *inputs_of(data), block=block)


@jit
def _decode(first: int | Array, z: Array, condition: PyTree = None, *, variables: Variables, vae: VAE) -> Array:
    return vae.decode(variables, z, condition).mean


@renamed(labels="condition")
def decode_all(
    vae: VAE,
    variables: Variables,
    z: Float[Any, "n latent"],
    condition: PyTree = None,
    *,
    block: int | None = None,
) -> Float[Any, "n ..."]:
    """E[x|z] of each latent, on the host.

    Raises:
      InputError: no latents or some of another dimension, or a condition that the model does not take.
    """
    vae.require_condition(condition, len(z))
    inputs = [z] if condition is None else [z, condition]
    run = partial(_decode, variables=variables, vae=vae)
    return in_blocks(run, *inputs, block=block or block_of(vae.event_shape))


@jit
def _transform(first: int | Array, examples: Array, *, key: Array, transform: Transform) -> Array:
    return transform(example_keys(key, len(examples), first), examples).x


@renamed(observe="transform")
def transform_all(
    key: Key[Array, ""], data: Examples, *, transform: Transform | None = None, block: int | None = None
) -> Float[Any, "n ..."]:
    """What the model sees of each example, on the host: one draw for each where observing has chance in it."""
    data = as_split(data)
    transform = as_transform(transform, data)
    return in_blocks(partial(_transform, key=key, transform=transform), data.images, block=block)
