"""Calls of networks with the variables of a model, and the keys of their noise."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Int, Key, PyTree

from vae_jax.distributions import example_keys
from vae_jax.errors import InputError, require_variables
from vae_jax.models.protocol import Variables
from vae_jax.networks import NNXNetwork, takes

_DROPOUT_SIGNATURE = inspect.signature(nn.Dropout.__call__)
_EXAMPLES = "vae_jax.examples"  # name of the axis of the examples' keys, and of the random stream of their dropout
_NETWORK = 2**31 - 1  # stream of an example's key for the noise of the networks; the others are numbers of samples


def apply_network(
    network: nn.Module,
    variables: Variables,
    inputs: Array,
    train: bool,
    arguments: dict[str, Any],
    mask: Array | None,
    keys: Key[Array, " batch"] | None,
    compute_dtype: str | None = None,
) -> tuple[Any, Variables]:
    """Outputs of a network, and the collections of variables that it has updated in training.

    With `compute_dtype`, the network receives its parameters and all arguments in this type, and the outputs are
    returned in the type that they have without it. Other collections, such as batch statistics, keep their types.
    """
    params, given, others = as_dtype((variables.get("params", {}), inputs, arguments), compute_dtype)
    with require_own_variables(network):
        outputs, updates = _apply(network, variables | {"params": params}, given, train, others, mask, keys)
    full = jnp.result_type(inputs, *jax.tree.leaves(variables.get("params", {})))
    return as_dtype(outputs, compute_dtype and full), updates


def as_dtype(tree: PyTree, dtype: Any) -> PyTree:
    """A tree with all real numbers in another type; the tree itself if the type is None."""
    if dtype is None:
        return tree
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def require_compute_dtype(compute_dtype: Any) -> None:
    """Raise `InputError` unless networks can be computed in this type."""
    if compute_dtype is not None and not (isinstance(compute_dtype, str) and compute_dtype == "bfloat16"):
        raise InputError(
            f"compute_dtype is {compute_dtype!r}; expected 'bfloat16', or None for the type of the parameters"
        )


def _apply(
    network: nn.Module,
    variables: Variables,
    inputs: Array,
    train: bool,
    arguments: dict[str, Any],
    mask: Array | None,
    keys: Key[Array, " batch"] | None,
) -> tuple[Any, Variables]:
    """`apply_network` in the types of its arguments."""
    if not train:
        return network.apply(variables, inputs, **arguments), {}
    mutable = [collection for collection in variables if collection != "params"]
    if mask is not None and mutable:
        if not takes(network, "mask"):
            raise InputError(
                f"the batch has a mask, but {type(network).__name__}, which has batch statistics, takes none; give its "
                "__call__ an argument `mask`, for nn.BatchNorm to leave the padding out"
            )
        arguments = arguments | {"mask": mask}
    if keys is None or not isinstance(network, NNXNetwork):
        try:
            outputs, updates = network.apply(variables, inputs, train=True, mutable=mutable, **arguments)
        except flax.errors.InvalidRngError:  # the network draws random numbers, such as those of dropout
            if keys is None:
                raise
        else:
            return outputs, dict(updates)
        try:
            return _with_dropout(network, variables, inputs, mutable, arguments, keys)
        except (flax.errors.InvalidRngError, _OtherNoiseError):  # it draws more than dropout of examples
            pass
    if mutable:  # batch statistics couple the examples, so the noise has one key for the batch
        outputs, updates = network.apply(
            variables, inputs, train=True, mutable=mutable, rngs=rngs(keys[0]), **arguments
        )
        return outputs, dict(updates)

    def one(key: Array, x: Array, own: dict[str, Any]) -> Any:
        alone = jax.tree.map(lambda leaf: leaf[None], (x, own))
        outputs = network.apply(variables, alone[0], train=True, rngs=rngs(key), **alone[1])
        return jax.tree.map(lambda leaf: leaf[0], outputs)

    return jax.vmap(one)(keys, inputs, arguments), {}


class _OtherNoiseError(Exception):
    """A dropout layer has inputs whose first axis is not that of the examples, or a key of its own."""


def _with_dropout(
    network: nn.Module,
    variables: Variables,
    inputs: Array,
    mutable: list[str],
    arguments: dict[str, Any],
    keys: Key[Array, " batch"],
) -> tuple[Any, Variables]:
    """Apply a network whose only noise is that of `nn.Dropout`, which each example draws from its own key.

    Under the `vmap`, the keys alone are mapped, so that all else is computed once, for the whole batch. If `vmap`
    mapped the examples as well, there would be a gradient of each convolution's kernel for each example.

    Raises:
      flax.errors.InvalidRngError: The network draws other random numbers.
      _OtherNoiseError: A dropout layer cannot draw for each example.
    """

    def dropped(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if type(context.module) is not nn.Dropout or context.method_name != "__call__":
            return call(*args, **kwargs)
        given = _DROPOUT_SIGNATURE.bind(context.module, *args, **kwargs).arguments
        x, deterministic = given["inputs"], given.get("deterministic")
        if x.shape[:1] != keys.shape or given.get("rng") is not None:
            raise _OtherNoiseError
        of_examples = jax.lax.all_gather(context.module.make_rng(_EXAMPLES), _EXAMPLES)
        return jax.vmap(lambda key, x: call(x[None], deterministic, rng=key)[0])(of_examples, x)

    def apply(key: Array) -> tuple[Any, Any]:
        with nn.intercept_methods(dropped):
            return network.apply(variables, inputs, train=True, mutable=mutable, rngs={_EXAMPLES: key}, **arguments)

    outputs, updates = jax.vmap(apply, out_axes=None, axis_name=_EXAMPLES)(keys)
    return outputs, dict(updates)


_FOREIGN = (
    flax.errors.ScopeParamShapeError,
    flax.errors.ScopeParamNotFoundError,
    flax.errors.ScopeCollectionNotFound,
    flax.errors.ScopeVariableNotFoundError,
)


@contextmanager
def require_own_variables(network: nn.Module) -> Iterator[None]:
    """Raise `InputError` in place of the errors of Linen if a network is called with the variables of another one."""
    try:
        yield
    except _FOREIGN as error:
        reason = str(error).split(". (http")[0].replace("\n", " ")
        raise InputError(f"the variables are not those of this {type(network).__name__}: {reason}") from error


def rngs(key: Key[Array, ""]) -> dict[str, Array]:
    """Key of all random streams: those of Linen fall back to "params", and those of NNX to "default"."""
    return {"params": key, "default": key}


def network_keys(key: Array, batch: int) -> Key[Array, " batch"]:
    """Keys of the noise within the networks, such as dropout, one per example."""
    return folded(example_keys(key, batch), _NETWORK)


def folded(keys: Key[Array, " batch"], number: Int[Array, ""] | int) -> Key[Array, " batch"]:
    """Fold a number into each key."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def of_part(variables: Variables, part: str) -> Variables:
    """{collection: {part: tree}} -> {collection: tree} of one part."""
    require_variables(variables)
    return {collection: parts[part] for collection, parts in variables.items() if part in parts}


def by_collection(**parts: Variables) -> Variables:
    """{part: {collection: tree}} -> {collection: {part: tree}}."""
    collections = sorted({collection for variables in parts.values() for collection in variables})
    return {
        collection: {part: variables[collection] for part, variables in parts.items() if collection in variables}
        for collection in collections
    }
