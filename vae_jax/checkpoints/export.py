"""Encoder and decoder of a model as files that run without this library, by `jax.export`."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vae_jax.checkpoints.models import leaves_of_model, variables_of
from vae_jax.errors import InputError, named, require_finite_variables, require_path, require_writable_folder

PLATFORMS = ("cpu", "cuda", "tpu")
"""The platforms on which an exported file runs."""

_README = """\
Encoder and decoder of a variational autoencoder, exported by `vae_jax.export` with JAX {version}.
They run with JAX and its optional package flatbuffers: pip install jax flatbuffers. The batch size is free.

    from pathlib import Path
    from jax import export

    encoder = export.deserialize(Path("encoder.bin").read_bytes())
    decoder = export.deserialize(Path("decoder.bin").read_bytes())
    mean, scale = encoder.call({x})  # mean and standard deviation of q(z|x)
    image = decoder.call({z})  # mean of p(x|z)

{arguments}
Platforms: {platforms}.
"""


def export(model: Any, variables: Any, folder: Any, platforms: Sequence[str] = PLATFORMS) -> None:
    """Export the encoder and the decoder of a model to files that run without this library and without Flax.

    Writing and reading them requires the package flatbuffers, which JAX does not install: `pip install flatbuffers`.

    The folder then has `encoder.bin`, `decoder.bin` and a `README.txt` with the shapes. The files are read by
    `jax.export.deserialize(bytes).call(...)`. The encoder returns a pair: mean and standard deviation of q(z|x), each
    [batch, latent]. The decoder returns the mean of p(x|z), [batch, *event]. The arguments are x [batch, *event], or z
    [batch, latent], in float32; the functions of a conditional model take the condition as a second argument: labels
    [batch] in int32, or the arrays of `condition_shape`. The batch size is symbolic: any size runs.

    Each function is exported as a map over single examples. Values differ from `model.encode` and `model.decode` by
    rounding. Both functions are those of evaluation: without dropout, with running batch statistics.

    Args:
      model: A `VAE`, or a model with its methods `encode` and `decode`.
      variables: Variables of the model, such as `state.variables` or `averaged_variables(state)`.
      folder: Folder of the files; it is created if it does not exist. Existing files are replaced atomically.
      platforms: Platforms on which the files run, such as ("cpu", "cuda", "tpu").

    Raises:
      InputError: The folder can't be written, or flatbuffers is not installed. The variables are not those of the
        model, or are not finite. The model has no methods `encode` and `decode`, its distributions have no mean, or a
        network can't be exported. There are no platforms, or JAX has no platform of that name.
    """
    require_path("a path: vj.export(model, variables, folder)", folder=folder)
    _require_platforms(platforms)
    if importlib.util.find_spec("flatbuffers") is None:
        raise InputError("jax.export needs the package flatbuffers to serialise; install it: pip install flatbuffers")
    if not all(callable(getattr(model, name, None)) for name in ("encode", "decode")):
        raise InputError(f"model is {named(model)} without the methods encode and decode; expected a VAE")
    own = variables_of(model)
    variables = jax.tree.unflatten(jax.tree.structure(own), leaves_of_model(model, variables).values())
    require_finite_variables(variables)
    event, latent = tuple(model.event_shape), model.latent_dim
    condition = _condition(model)
    inputs = {
        "encoder": (("x", (event, np.float32)), *condition),
        "decoder": (("z", ((latent,), np.float32)), *condition),
    }

    def encode(x: Array, *condition: PyTree) -> tuple[Array, Array]:
        posterior = model.encode(variables, x, *condition)
        return posterior.mean, jnp.sqrt(posterior.variance)

    def decode(z: Array, *condition: PyTree) -> Array:
        return model.decode(variables, z, *condition).mean

    functions = {"encoder": encode, "decoder": decode}
    files = {
        name: _exported(function, [argument for _, argument in inputs[name]], name, platforms)
        for name, function in functions.items()
    }
    folder = Path(folder)
    require_writable_folder(folder)
    of_each = {name: "\n".join(f"{name}: {_text(argument)}" for argument in inputs[name]) for name in inputs}
    calls = {name: ", ".join(name for name, _ in inputs[part]) for name, part in (("x", "encoder"), ("z", "decoder"))}
    text = _README.format(
        version=jax.__version__, platforms=", ".join(platforms), arguments="\n".join(of_each.values()) + "\n", **calls
    )
    contents = {f"{name}.bin": file for name, file in files.items()} | {"README.txt": text.encode()}
    for file, content in contents.items():
        temporary = folder / f".{file}.tmp"
        temporary.write_bytes(content)
        temporary.replace(folder / file)


def _require_platforms(platforms: Any) -> None:
    """Raise `InputError` unless there is a sequence of names of JAX's platforms; JAX takes any name."""
    known = (*PLATFORMS, "rocm")
    several = isinstance(platforms, Sequence) and not isinstance(platforms, str) and len(platforms) > 0
    if not several or not all(platform in known for platform in platforms):
        raise InputError(f"platforms is {platforms!r}; expected some of {', '.join(known)}, such as ('cpu',)")


def _exported(function: Callable[..., Any], shapes: Sequence[Any], name: str, platforms: Sequence[str]) -> bytes:
    """A function of a batch, serialised; it is mapped over single examples, whose networks see a batch of one.

    Many networks, such as the convolutions of this library, use `len(x)` in Python, which a symbolic size refuses.
    """

    def of_one(*arguments: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[0], function(*jax.tree.map(lambda leaf: leaf[None], arguments)))

    (size,) = jax.export.symbolic_shape("batch")

    def spec(shape: Any) -> Any:
        return jax.ShapeDtypeStruct((size, *shape[0]), shape[1])

    arguments = jax.tree.map(spec, list(shapes), is_leaf=_is_spec)
    try:
        exported = jax.export.export(jax.jit(jax.vmap(of_one)), platforms=list(platforms))(*arguments)
        return bytes(exported.serialize())
    except Exception as error:  # of any type, because the networks may be the caller's
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(
            f"the {name} can't be exported ({reason}); use networks and distributions of arrays"
        ) from error


def _condition(model: Any) -> tuple[tuple[str, Any], ...]:
    """The condition as an argument: its name, and the shape and the type of one example; empty without a condition."""
    if getattr(model, "classes", None) is not None:
        return (("label", ((), np.int32)),)
    shape = getattr(model, "condition_shape", None)
    if shape is None:
        return ()
    if all(isinstance(size, int) for size in shape):
        return (("condition", (tuple(shape), np.float32)),)
    return (("condition", {name: (tuple(sizes), np.float32) for name, sizes in shape}),)


def _is_spec(node: Any) -> bool:
    return isinstance(node, tuple)


def _text(argument: tuple[str, Any]) -> str:
    """An argument with its shape and its type."""

    def one(shape: Any) -> str:
        return f"{np.dtype(shape[1])}[{', '.join(map(str, ('batch', *shape[0])))}]"

    name, shapes = argument
    return f"{name} is {one(shapes) if _is_spec(shapes) else {key: one(shape) for key, shape in shapes.items()}}"
