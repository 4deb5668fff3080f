"""A model with its variables: saved by one call, loaded again, or restored from the checkpoints of a run."""

import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vae_jax.checkpoints.allowed import require_own
from vae_jax.checkpoints.description import build, describe, own_packages, plain
from vae_jax.checkpoints.differences import difference
from vae_jax.checkpoints.lock import FolderLock
from vae_jax.checkpoints.numbered import SealedFolder, by_name, newest_whole, refuse_broken
from vae_jax.distributions.likelihoods.base import Variables
from vae_jax.errors import CheckpointError, CheckpointWarning, InputError, named, require_path, require_variables

BEST = "best"
"""The folder of the best checkpoint, within that of the newest ones."""

_OF_A_SAVED_MODEL = {"kind": "a saved model"}  # in place of the configuration of a run
_SHAPE = re.compile(r"(\w+)\[([\d, ]*)\]")


class SavedModel(NamedTuple):
    """A model that was loaded from a file.

    Attributes:
      model: Model, such as a `VAE`.
      variables: Variables of the model.
      transform: Transform of its data, or None if none was saved.
    """

    model: Any
    variables: Variables
    transform: Any


def save(path: Any, model: Any, variables: Any, transform: Any = None) -> None:
    """Save a model and its variables in a folder, from which `load_model` restores them.

    The folder is written atomically: a model that was saved there before is replaced when the new one is complete, and
    kept if the write fails. Files and arrays have SHA-256 digests. Variables of other parts, such as a discriminator of
    the objective, are left out. If there are several processes, only process 0 writes.

    A model that contains a class or a function of a notebook or script, or a lambda, gives a `CheckpointWarning`:
    `load_model(path, model=model)` then needs the model.

    Args:
      path: Folder of the model; it is created if it does not exist.
      model: Model to save.
      variables: Variables of the model, such as `state.variables` or `averaged_variables(state)`.
      transform: Transform of the data on which the model was trained.

    Raises:
      InputError: The folder can't be written, holds other files or the checkpoints of a run, or is in use; the
        variables are not those of the model; or the transform can't be imported by another process.
      CheckpointError: The write failed.
    """
    require_path("a folder: vj.save(path, model, variables)", path=path)
    leaves = leaves_of_model(model, variables)
    description, of_transform = describe(model), describe(transform)
    warn_unless_built(description, "load_model", Path(path))
    if reason := reason_not_built(of_transform, "transform"):
        raise InputError(f"the transform can't be saved: {reason}; or leave it out")
    if jax.process_index() != 0:
        return
    lock = FolderLock(Path(path).absolute())
    folder = SealedFolder(Path(path), lock=lock)
    folder.prepare()
    try:
        lock.take()
        if any((folder.path / str(number) / "state").exists() for number in folder.numbers()):
            raise InputError(f"{folder.path} holds the checkpoints of a run; choose another folder")
        folder.remove_unfinished()
        content = {"config": _OF_A_SAVED_MODEL, "run": {}, "model": description, "transform": of_transform}
        number = max(folder.numbers(), default=0) + 1
        folder.write(number, {"variables": leaves}, content | {"members": None, "notes": {}})
        folder.finish()
    finally:
        lock.release()
    if folder.failure is not None:
        raise CheckpointError(folder.failure)


def load_model(path: Path | str, modules: Collection[str] = (), model: Any = None) -> SavedModel:
    """Load a model that `save` has saved, verified by its SHA-256 digests.

    The file may name values and numeric functions of this library, JAX, Flax and optax, so that a file from an
    untrusted source can't choose which code runs. Any other code must be allowed by `modules`.

    Args:
      path: Folder of the model. The folder of a run's checkpoints is accepted too; it has no transform.
      modules: Names of packages or modules that define networks or functions of the model, such as ("mine",). They are
        trusted with their submodules: they are imported, and the classes and functions that they define may be called.
      model: The model itself, where another process can't import its code, as in a notebook. It is compared with the
        saved description.

    Raises:
      InputError: The folder has no model, the model is broken, its code is missing, not trusted or has changed, or
        `model` is another one.
    """
    require_path("a folder written by vj.save", path=path)
    require_own(modules)
    found, variables, content = _read(SealedFolder(Path(path)), None, modules, model, "load_model")
    return SavedModel(found, variables, build(content.get("transform"), "transform", modules))


def restore_model(
    folder: Path | str,
    *,
    best: bool = False,
    member: int | None = None,
    modules: Collection[str] = (),
    model: Any = None,
) -> tuple[Any, Variables]:
    """A model and its variables from the checkpoints of a run with `Checkpoints(..., model=)`.

    They come from the newest checkpoint that is whole, verified by its SHA-256 digests. The checkpoint may name values
    and numeric functions of this library, JAX, Flax and optax, so that it can't choose which code runs. Any other code
    must be allowed by `modules`.

    Args:
      folder: Folder of the checkpoints.
      best: Whether to take the best checkpoint instead of the newest.
      member: Number of the member, for a run of several; by default the variables of all members are returned, stacked
        along the first axis.
      modules: Names of packages or modules that define networks or functions of the model, such as ("mine",). They are
        trusted with their submodules: they are imported, and the classes and functions that they define may be called.
      model: The model itself, where another process can't import its code, as in a notebook. It is compared with the
        description in the checkpoint.

    Raises:
      InputError: There is no such checkpoint, none is whole, none has a model, the code of the model is missing, not
        trusted or has changed, or `model` is another one.
    """
    require_path("the folder of a run's checkpoints", folder=folder)
    require_own(modules)
    stored = SealedFolder(Path(folder) / BEST if best else Path(folder))
    return _read(stored, member, modules, model, "restore_model")[:2]


def _read(
    stored: SealedFolder, member: int | None, modules: Collection[str], model: Any, function: str
) -> tuple[Any, Variables, dict[str, Any]]:
    """The model, its variables and the other content of the newest checkpoint that is whole."""

    def read(stored: SealedFolder, step: int) -> tuple[Any, Variables, dict[str, Any]]:
        content = stored.read_content(step)
        if content["model"] is None:
            raise InputError(f"the checkpoints in {stored.path} have no model; use Checkpoints(..., model=) to keep it")
        members = content["members"]
        if member is not None and (members is None or not 0 <= member < members):
            there = "a single model, without members" if members is None else f"members 0 to {members - 1}"
            raise InputError(f"member is {member}, but {stored.path} holds {there}")
        found = _built(content["model"], modules, function) if model is None else model
        if model is not None:
            _require_same_model(content["model"], model, stored.path)
        of_model = variables_of(found)
        like = _as_stored(content["trees"]["variables"], by_name(of_model), members)
        leaves = dict(zip(like, stored.read_tree(step, content, "variables", like), strict=True))
        chosen = [leaves[name] if member is None else leaves[name][member] for name in by_name(of_model)]
        return found, jax.tree.unflatten(jax.tree.structure(of_model), chosen), content

    restored = newest_whole(stored, read)
    if restored is None:
        refuse_broken(stored, "use a copy of it from elsewhere, or train the model again")
        remedy = "expected the folder of a run's checkpoints"
        if function == "load_model":
            remedy = "expected a folder written by vj.save"
        elif stored.path.name == BEST:
            remedy = "keep one with Checkpoints(..., best=)"
        raise InputError(f"there is no checkpoint in {stored.path}; {remedy}")
    model, variables, content = restored
    return model, variables, content


def variables_of(model: Any) -> PyTree:
    """Shapes and types of the variables that a model makes.

    Raises:
      InputError: The model can't make them.
    """
    event_shape = getattr(model, "event_shape", None)
    try:
        try:
            return jax.eval_shape(model.init, jax.random.key(0))
        except InputError:  # its prior starts from training examples
            if event_shape is None:
                raise
            return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *event_shape)))
    except Exception as error:  # of any type, because the code may be the caller's
        reason = str(error).split("\n")[0] or type(error).__name__
        text = f"the code of the model can't make its variables ({reason}); use the code with which it was trained"
        raise InputError(text) from error


def leaves_of_model(model: Any, variables: Any) -> dict[str, Any]:
    """The leaves of the variables that belong to a model, by name.

    Raises:
      InputError: The variables are not those of one model of this kind.
    """
    require_variables(variables)
    if isinstance(model, Mapping) or not callable(getattr(model, "init", None)):
        raise InputError(f"model is {named(model)}; expected a model: vj.save(path, model, variables)")
    found, expected = by_name(variables), by_name(variables_of(model))
    for name, leaf in expected.items():
        shape = tuple(jnp.shape(found[name])) if name in found else None
        if shape == leaf.shape:
            continue
        several = shape is not None and shape[1:] == leaf.shape
        remedy = "take one of several members by vj.member" if several else "expected the variables of this model"
        has = f"has shape {shape}" if name in found else "is missing"
        raise InputError(f"the variable {name} {has}, but the model has one of shape {leaf.shape}; {remedy}")
    for name in found.keys() - expected.keys():
        if _part(name) in map(_part, expected):
            raise InputError(f"the variable {name} is not one of the model; expected the variables of this model")
    return {name: jnp.asarray(found[name]) for name in expected}


def reason_not_built(description: Any, name: str) -> str | None:
    """Why another process can't build a described value, even if it trusts its modules; None if it can."""
    try:
        build(description, name, own_packages(description))
    except InputError as error:
        return str(error)
    return None


def warn_unless_built(description: Any, function: str, folder: Path) -> None:
    """Give a warning if another process can't build a model that is about to be stored."""
    if reason := reason_not_built(description, "model"):
        text = (
            f'{function} can\'t make this model again ({reason}); or give it the model: {function}("{folder}", model=)'
        )
        warnings.warn(text, CheckpointWarning, stacklevel=3)


def _built(description: Any, modules: Collection[str], function: str) -> Any:
    try:
        return build(description, "model", modules)
    except InputError as error:
        raise InputError(f"{error}; or give the model itself: {function}(..., model=)") from error


def _require_same_model(there: Any, model: Any, folder: Path) -> None:
    """Raise `InputError` unless a model has the stored description, its modules aside: its code may have moved."""
    there, here = (_without_modules(plain("model", description)) for description in (there, describe(model)))
    if there != here:
        found = difference("model", there, here)
        raise InputError(f"model is another one than that in {folder} ({found}); give the model that was stored")


def _without_modules(description: Any) -> Any:
    """A description without the modules of code that is of no library."""
    if isinstance(description, list):
        return [_without_modules(item) for item in description]
    if not isinstance(description, dict):
        return description
    found = {name: _without_modules(item) for name, item in description.items()}
    for kind in ("class", "import", "def"):
        address = found.get(kind)
        if isinstance(address, str) and (own_packages({"class": address}) or address.startswith("__main__:")):
            found[kind] = address.split(":")[-1]
    return found


def _as_stored(there: Mapping[str, str], expected: Mapping[str, Any], members: int | None) -> dict[str, jax.Array]:
    """Zeros in the shapes of the model, or of its members, and in the types in which its variables are stored.

    Stored variables of parts that the model does not have, such as those of a discriminator, are included.
    """
    leading = () if members is None else (members,)
    like = {}
    for name, leaf in expected.items():
        shape, dtype = (*leading, *leaf.shape), leaf.dtype
        stored = _parsed(there.get(name, ""))
        if stored is not None and stored[0] == shape and _is_real(stored[1]) and _is_real(dtype):
            dtype = stored[1]
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise InputError(f'the variable {name} is {dtype}; load it after jax.config.update("jax_enable_x64", True)')
        like[name] = _zeros(shape, dtype)
    parts = set(map(_part, expected))
    others = {name: _parsed(text) for name, text in there.items() if _part(name) not in parts}
    return like | {name: _zeros(*stored) for name, stored in others.items() if stored is not None}


def _zeros(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return jax.device_put(np.zeros(shape, dtype))  # jnp.zeros compiles a program for each shape


def _is_real(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))


def _parsed(text: str) -> tuple[tuple[int, ...], Any] | None:
    """The shape and the type of a leaf, from text such as "float32[2, 3]"."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        return None
    try:
        return tuple(int(size) for size in match[2].split(",") if size.strip()), jnp.dtype(match[1])
    except TypeError:
        return None


def _part(name: str) -> str:
    """The collection and the part of a variable: "params.encoder" of "params.encoder.Dense_0.bias"."""
    return ".".join(name.split(".")[:2])
