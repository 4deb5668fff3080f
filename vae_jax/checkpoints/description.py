"""Values as JSON and back: the description of a model and of a run in a checkpoint.

None, booleans, numbers and strings stand for themselves, and a list for a tuple. Any other value is an object; its
first key is a Python keyword, which no field can be named:

* {"class": "module:name", fields...}: a dataclass, Linen module, named tuple or partial;
* {"import": "module:name"}: a class or function;
* {"def": ...}: a value that can't be imported;
* {"is": "default"}: the default of its field, where that can't be imported.
"""

import dataclasses
import dis
import functools
import hashlib
import inspect
import itertools
import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar
from types import CodeType, FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vae_jax.checkpoints.allowed import LIBRARIES, find, is_named_tuple, is_own, require_own
from vae_jax.errors import InputError

_PUBLIC = ("jax.nn", "jax.nn.initializers", "jax.numpy", "flax.linen")  # re-export functions of private modules
_LARGEST_ARRAY = 1_000
_DEFAULT = {"is": "default"}
_UNDER_WAY: ContextVar[tuple[Any, ...]] = ContextVar("under_way", default=())  # being described, outermost first


def describe(value: Any) -> Any:
    """Describe a value as JSON can hold it; the description of a value is the same in every process.

    Some values are described for comparison only, and `build` refuses them:

    * a function that can't be imported, such as a schedule, by its name and the variables that it encloses; a function
      from outside the libraries, such as a lambda, also by its bytecode and the global variables that it reads;
    * a large array by its SHA-256;
    * an object by its class and its attributes, or by its `repr` if the class defines one;
    * a traced value by its type and shape.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is tuple:
        return [describe(item) for item in value]
    if type(value) is list:
        return {"class": "builtins:list", "items": [describe(item) for item in value]}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"class": "builtins:dict", "items": {key: describe(item) for key, item in value.items()}}
    if isinstance(value, Mapping):
        return {"def": "a dict of other keys than strings", "items": [describe(item) for item in value.items()]}
    if isinstance(value, set | frozenset):  # sorted, because their order differs between processes
        return {"def": "a set", "items": sorted((describe(item) for item in value), key=json.dumps)}
    if isinstance(value, jax.core.Tracer):
        return {"def": f"a traced {value.dtype}{list(value.shape)}"}
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _described_array(value)
    if (fields := _fields(value)) is not None:
        return _named(type(value), "class") | fields
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        named = _named(value, "import")
        return named if "import" in named else named | _described_parts(value, _enclosed(value))
    if inspect.ismodule(value):
        return {"def": f"module {value.__name__}"}
    attributes = getattr(value, "__dict__", {}) if type(value).__repr__ is object.__repr__ else {}
    return {"def": re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))} | _described_parts(value, attributes)


def build(description: Any, name: str = "the value", modules: Collection[str] = ()) -> Any:
    """Build a value from its description.

    A description may come from an untrusted source. It may name values and numeric functions of this library, JAX,
    Flax and optax (see `vae_jax.checkpoints.allowed`); nothing else is imported. Only constructors of dataclasses,
    Linen modules, named tuples and `functools.partial` are called.

    Args:
      description: Result of `describe`.
      name: Name of the value in error messages.
      modules: Names of the caller's packages and modules, with their submodules. Their code is trusted: they are
        imported if the description names a class or a function that they define.

    Raises:
      InputError: A name in the description is not allowed or can't be found, a value doesn't match its description, or
        `modules` holds a module of Python, JAX, Flax or optax.
    """
    require_own(modules)
    try:
        return _build(description, name, modules)
    except RecursionError as error:
        raise InputError(f"{name} is nested too deeply to be built; expected a description by `describe`") from error


def plain(name: str, value: Any) -> Any:
    """A value as it is read back from JSON; NaN as text, so that it equals itself.

    Raises:
      InputError: JSON can't hold the value.
    """
    try:
        return json.loads(json.dumps(value), parse_constant=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{name} can't be kept as JSON ({error}); give numbers, text, lists and dicts, an array as array.tolist()"
        ) from error


def own_packages(description: Any) -> set[str]:
    """The packages named in a description that `build` allows only if they are in `modules`."""
    if isinstance(description, list):
        return set().union(*map(own_packages, description))
    if not isinstance(description, dict):
        return set()
    addresses = [description[kind] for kind in ("class", "import") if isinstance(description.get(kind), str)]
    named = {re.split("[.:]", address)[0] for address in addresses}
    return {package for package in named if is_own(package)}.union(*map(own_packages, description.values()))


def _build(description: Any, name: str, modules: Collection[str]) -> Any:
    if isinstance(description, list):
        return tuple(_build(item, f"{name}[{i}]", modules) for i, item in enumerate(description))
    if not isinstance(description, dict):
        return description
    if "import" in description:
        return find(description["import"], name, modules)
    if "class" not in description:
        what = description.get("def", description)
        raise InputError(f"{name} is {what}, which can't be imported; define it with def or class in a module")
    address = description["class"]
    if address == "builtins:list":
        return list(_build(_entry(description, "items", list, name), name, modules))
    if address == "builtins:dict":
        items = _entry(description, "items", dict, name)
        return {key: _build(item, f"{name}[{key!r}]", modules) for key, item in items.items()}
    if address in ("jax:Array", "numpy:ndarray", "numpy:generic"):
        return _build_array(description, name)
    return _build_object(description, name, modules)


def _build_object(description: dict[str, Any], name: str, modules: Collection[str]) -> Any:
    address = description["class"]
    kind: Any = functools.partial if address == "functools:partial" else find(address, name, modules)
    defaults = _parameters(kind)
    if defaults is None:
        raise InputError(f"{name} is {address}, which is no dataclass, Linen module or named tuple")
    fields = {field: item for field, item in description.items() if field != "class"}
    if unknown := ", ".join(repr(field) for field in fields if field not in defaults):
        raise InputError(f"{name} can't be made (it has no {unknown}); use the version of {address} that wrote it")
    built = {
        field: _build(item, f"{name}.{field}", modules)
        for field, item in fields.items()
        if not _is_left_to_class(item, defaults[field])
    }
    try:
        if kind is functools.partial:
            return functools.partial(built["func"], *built["args"], **built["keywords"])
        return kind(**built)
    except Exception as error:  # of any type, because the constructor may be the caller's
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{name} can't be made ({reason}); use the version of {address} that wrote it") from error


def _is_left_to_class(item: Any, default: Any) -> bool:
    """Whether an item is the default of its field: then the class supplies it, and no rule has to allow it."""
    return item == _DEFAULT or (isinstance(item, dict) and "import" in item and item == describe(default))


def _build_array(description: dict[str, Any], name: str) -> jax.Array | np.ndarray | np.generic:
    values, shape = (_entry(description, entry, list, name) for entry in ("values", "shape"))
    try:
        dtype = jnp.dtype(_entry(description, "dtype", str, name))
        if not (jnp.issubdtype(dtype, np.number) or dtype == np.bool_):
            raise TypeError(f"{dtype} is no type of numbers")
        array = np.asarray(values, dtype).reshape(shape)
        if description["class"] == "jax:Array":
            return jnp.asarray(array)
        return array if description["class"] == "numpy:ndarray" else array[()]
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is no array ({error}); expected a dtype, a shape and numbers as values") from error


def _entry(description: dict[str, Any], entry: str, kind: type, name: str) -> Any:
    """An entry of a description, checked to have the type that `describe` gives it."""
    found = description.get(entry)
    if not isinstance(found, kind):
        raise InputError(f"{name} has {entry} {found!r}; expected a {kind.__name__}, as `describe` gives it")
    return found


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
    """The described arguments of the class of a value; None unless `build` can call the class."""
    defaults = _parameters(type(value))
    if defaults is None:
        return None
    return {field: _described_field(getattr(value, field), default) for field, default in defaults.items()}


def _parameters(kind: Any) -> dict[str, Any] | None:
    """The defaults of the arguments of a class, by name; None unless `build` can call the class."""
    if is_named_tuple(kind):
        return dict.fromkeys(kind._fields, dataclasses.MISSING)
    if isinstance(kind, type) and issubclass(kind, functools.partial):
        return dict.fromkeys(("func", "args", "keywords"), dataclasses.MISSING)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return None
    own = "parent" if issubclass(kind, nn.Module) else None  # set by Linen
    return {field.name: field.default for field in dataclasses.fields(kind) if field.init and field.name != own}


def _described_field(value: Any, default: Any) -> Any:
    """The description of a field; a default that can't be imported, such as Linen's initialisers, has a short one."""
    described = describe(value)
    return _DEFAULT if value is default and isinstance(described, dict) and "def" in described else described


def _named(value: Any, kind: str) -> dict[str, Any]:
    """{kind: address} of the same object, public if possible; {"def": name} if it can't be imported."""
    module, qualname = value.__module__ or "builtins", value.__qualname__
    packages = itertools.accumulate(module.split("."), "{}.{}".format)  # short names change least between versions
    public = [package for package in (*_PUBLIC, *packages) if "._" not in package]
    for place in (*public, module):
        first, *others = qualname.split(".")
        found = vars(sys.modules[place]).get(first) if place in sys.modules else None
        if functools.reduce(lambda scope, part: getattr(scope, part, None), others, found) is value:
            return {kind: f"{place}:{qualname}"}
    return {"def": f"{module}:{qualname}"}


def _described_parts(whole: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The described parts of a function or an object; empty if it is a part of itself."""
    under_way = _UNDER_WAY.get()
    if any(whole is other for other in under_way):
        return {}
    token = _UNDER_WAY.set((*under_way, whole))
    try:
        return {name: describe(part) for name, part in parts.items()}
    finally:
        _UNDER_WAY.reset(token)


def _enclosed(function: Any) -> dict[str, Any]:
    """The variables on which a function depends: enclosed variables, defaults, the object of a method.

    Functions from outside the libraries may share a name, as lambdas do; they also have a digest of their bytecode and
    the global variables that they read.
    """
    inner = inspect.unwrap(function)
    if inspect.ismethod(inner):
        return {"self": inner.__self__}
    if not inspect.isfunction(inner):
        return {}
    defaults = {name: parameter.default for name, parameter in inspect.signature(inner).parameters.items()}
    values = {name: value for name, value in defaults.items() if value is not inspect.Parameter.empty}
    values |= inspect.getclosurevars(inner).nonlocals
    if (inner.__module__ or "").split(".")[0] in LIBRARIES:
        return values
    return values | _globals(inner) | {"co_code": _digest(inner.__code__)}


def _globals(function: FunctionType) -> dict[str, Any]:
    """The global variables that a function reads."""
    read = [
        step.argval
        for code in _codes(function.__code__)
        for step in dis.get_instructions(code)
        if step.opname == "LOAD_GLOBAL"
    ]
    return {name: function.__globals__[name] for name in read if name in function.__globals__}


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code objects of a function and of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _digest(code: CodeType) -> str:
    """SHA-256 of the bytecode, independent of the position of its source."""
    sha = hashlib.sha256()
    for part in _codes(code):
        constants = [describe(constant) for constant in part.co_consts if not isinstance(constant, CodeType)]
        sha.update(f"{part.co_code.hex()} {part.co_names} {part.co_varnames} {constants}".encode())
    return sha.hexdigest()
