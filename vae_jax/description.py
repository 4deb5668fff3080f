"""Values as JSON and back: what a checkpoint says of its model, and of the run that made it.

None, truth values, numbers and strings stand for themselves, a list for a tuple. All else is an object whose first
entry says what it is, by a word that no field can be named by: {"class": "module:name", fields...} a dataclass, a Linen
module, a named tuple or a partial, {"import": "module:name"} a class or a function, {"def": ...} what has no such name,
{"is": "default"} what is its field's default and has none.
"""

import dataclasses
import functools
import hashlib
import importlib
import inspect
import itertools
import re
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vae_jax.errors import InputError

_PUBLIC = ("jax.nn", "jax.nn.initializers", "jax.numpy", "flax.linen")  # of functions whose own module is a private one
_LARGEST_ARRAY = 1_000
_DEFAULT = {"is": "default"}


def describe(value: Any) -> Any:
    """A value as JSON can hold it: the same for the same value in every process.

    A function that can't be imported, such as a schedule made by a call, is told from others by its name and by what it
    closes over, a large array by its SHA-256, and anything else by its `repr`; `build` refuses these.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is tuple:
        return [describe(item) for item in value]
    if type(value) is list:
        return {"class": "builtins:list", "items": [describe(item) for item in value]}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"class": "builtins:dict", "items": {key: describe(item) for key, item in value.items()}}
    if isinstance(value, jax.Array | np.ndarray | np.generic) and not isinstance(value, jax.core.Tracer):
        return _described_array(value)
    if (fields := _fields(value)) is not None:
        return _named(type(value), "class") | fields
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        named = _named(value, "import")
        return named if "import" in named else named | _enclosed(value)
    return {"def": re.sub(r" at 0x[0-9a-f]+", "", repr(value))}


def build(description: Any, name: str = "the value") -> Any:
    """The value that `describe` has described.

    Classes and functions are imported from where the description says, so that importing runs code: build what you
    trust. Of what it imports it calls only dataclasses, Linen modules, named tuples and `functools.partial`.

    Args:
      description: by `describe`.
      name: of the value, for the message where it can't be built.

    Raises:
      InputError: something in it can't be imported, or isn't what the description says.
    """
    if isinstance(description, list):
        return tuple(build(item, f"{name}[{i}]") for i, item in enumerate(description))
    if not isinstance(description, dict):
        return description
    if "import" in description:
        return _imported(description["import"], name)
    if "class" not in description:
        what = description.get("def", description)
        raise InputError(f"{name} is {what}, which can't be imported; define it with def or class in a module")
    fields = dict(description)
    address = fields.pop("class")
    if address == "builtins:list":
        return list(build(fields["items"], name))
    if address == "builtins:dict":
        return {key: build(item, f"{name}[{key!r}]") for key, item in fields["items"].items()}
    if address in ("jax:Array", "numpy:ndarray", "numpy:generic"):
        array = np.asarray(fields["values"], jnp.dtype(fields["dtype"])).reshape(fields["shape"])
        return jnp.asarray(array) if address == "jax:Array" else array if address == "numpy:ndarray" else array[()]
    kind = _imported(address, name)
    built = {field: build(item, f"{name}.{field}") for field, item in fields.items() if item != _DEFAULT}
    if kind is functools.partial:
        return functools.partial(built["func"], *built["args"], **built["keywords"])
    if not (isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"))):
        raise InputError(f"{name} is {address}, which is no dataclass, Linen module or named tuple")
    try:
        return kind(**built)
    except TypeError as error:
        raise InputError(f"{name} can't be made ({error}); take the version of {address} that made it") from error


def _described_array(array: jax.Array | np.ndarray | np.generic) -> dict[str, Any]:
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    shape = list(array.shape)
    if array.size > _LARGEST_ARRAY:
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return {"def": f"an array of {array.dtype}{shape}, SHA-256 {digest}"}
    address = {jax.Array: "jax:Array", np.ndarray: "numpy:ndarray", np.generic: "numpy:generic"}
    kind = next(name for kind, name in address.items() if isinstance(array, kind))
    return {"class": kind, "dtype": str(array.dtype), "shape": shape, "values": np.asarray(array).ravel().tolist()}


def _fields(value: Any) -> dict[str, Any] | None:
    """What its class makes it from, described; None for a value of any other class than `build` can call."""
    if isinstance(value, functools.partial):
        return {name: describe(getattr(value, name)) for name in ("func", "args", "keywords")}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: describe(field) for name, field in zip(value._fields, value, strict=True)}
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return None
    own = "parent" if isinstance(value, nn.Module) else None  # Linen's, which says where a module stands
    fields = [field for field in dataclasses.fields(value) if field.init and field.name != own]
    return {field.name: _described_field(getattr(value, field.name), field.default) for field in fields}


def _described_field(value: Any, default: Any) -> Any:
    """A default has no need of a name: the initialisers of Linen's own layers have none."""
    described = describe(value)
    return _DEFAULT if value is default and isinstance(described, dict) and "def" in described else described


def _named(value: Any, kind: str) -> dict[str, Any]:
    """{kind: where the very same object is imported from}, by a public name if there is one; else {"def": its name}."""
    module, qualname = value.__module__ or "builtins", value.__qualname__
    packages = itertools.accumulate(module.split("."), "{}.{}".format)  # the shortest name outlives changes best
    public = [package for package in (*_PUBLIC, *packages) if "._" not in package]
    for place in (*public, module):
        first, *others = qualname.split(".")
        found = vars(sys.modules[place]).get(first) if place in sys.modules else None
        if functools.reduce(lambda scope, part: getattr(scope, part, None), others, found) is value:
            return {kind: f"{place}:{qualname}"}
    return {"def": f"{module}:{qualname}"}


def _enclosed(function: Any) -> dict[str, Any]:
    """What a function that can't be imported knows beside its code: enclosed variables, defaults, its object."""
    inner = inspect.unwrap(function)
    values: dict[str, Any] = {"self": inner.__self__} if inspect.ismethod(inner) else {}
    if inspect.isfunction(inner):
        values |= {name: value.default for name, value in inspect.signature(inner).parameters.items()}
        values |= inspect.getclosurevars(inner).nonlocals
    absent = (inspect.Parameter.empty, function, inner)  # a function that calls itself encloses itself
    return {name: describe(value) for name, value in values.items() if not any(value is thing for thing in absent)}


def _imported(address: str, name: str) -> Any:
    module, _, qualname = address.partition(":")
    try:
        found = functools.reduce(getattr, qualname.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{name} is {address}, which can't be found ({error}); install the version of {module.split('.')[0]} that "
            "it was made with, or put its module on the path"
        ) from error
    if not callable(found):
        raise InputError(f"{name} is {address}, which is neither a class nor a function")
    return found
