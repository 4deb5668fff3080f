"""Classes and functions that a description may name.

A checkpoint may come from an untrusted source, and a name suffices to run code. The rules below allow values
(dataclasses, Linen modules, named tuples), scalar types and numeric functions of this library, JAX, Flax and optax.
Classes and functions of modules that the caller trusts are allowed too. No other module is imported.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vae_jax.errors import InputError
from vae_jax.values import is_value

_Rule = Callable[[str, str, Any], bool]
"""Function of a module, a name in it and the object of that name; returns whether the object is allowed."""


def find(address: Any, name: str, modules: Collection[str] = ()) -> Any:
    """The class or function at an address "module:name", if a description may name it.

    Args:
      address: Address in this library, JAX, Flax or optax, or in one of `modules`.
      name: Name of the value in error messages.
      modules: Trusted packages and modules, with their submodules. The classes and Python functions that they define
        are allowed; objects that they import from elsewhere are not.

    Raises:
      InputError: The object is not allowed, or does not exist.
    """
    parts = address.replace(":", ".").split(".") if isinstance(address, str) and address.count(":") == 1 else [""]
    if not all(part.isidentifier() for part in parts):
        raise InputError(f"{name} is {address!r}, which is no address; expected text such as 'vae_jax.networks:MLP'")
    module, qualname = address.split(":")
    trusted = _is_within(module, modules)
    is_allowed = partial(_is_defined_in, modules) if trusted else _library_rule(module, qualname)
    if is_allowed is None:
        raise InputError(f"{name} is {address}, {_refusal(parts[0])}")
    try:
        found = _look_up(module, qualname)
    except Exception as error:  # of any type, because importing a trusted module runs its code
        raise InputError(
            f"{name} is {address}, which can't be found ({error}); install the version of {parts[0]} that wrote it, or "
            "put its module on the path"
        ) from error
    if not is_allowed(module, qualname, found):
        reason = f"which none of {', '.join(modules)} defines as a class or a function" if trusted else None
        raise InputError(f"{name} is {address}, {reason or _refusal(parts[0])}")
    return found


def require_own(modules: Collection[str]) -> None:
    """Raise `InputError` unless each entry is the name of a module that the caller may trust as a whole."""
    if isinstance(modules, str) or not isinstance(modules, Collection):
        example = modules if isinstance(modules, str) else "mine"
        raise InputError(f"modules is {modules!r}; expected a tuple of names, such as ({example!r},)")
    for module in modules:
        if not isinstance(module, str) or not is_own(module):
            raise InputError(
                f"modules holds {module!r}; expected the names of modules that define the model, and no module of "
                f"Python or of {', '.join(sorted(LIBRARIES))}"
            )


def is_own(module: str) -> bool:
    """Whether a caller may trust the module as a whole: it belongs neither to Python nor to `LIBRARIES`."""
    return module.split(".")[0] not in sys.stdlib_module_names | LIBRARIES | {"__main__"}


def is_named_tuple(found: Any) -> bool:
    """Whether the object is a class of named tuples."""
    return isinstance(found, type) and issubclass(found, tuple) and hasattr(found, "_fields")


def _refusal(package: str) -> str:
    if package == "__main__":
        return "which no other process can import; move its definition from the script or notebook into a module"
    if is_own(package):
        return f"which is code of {package}; if you trust that code, allow it by modules=({package!r},)"
    return (
        "which is none of the values and numeric functions that a description may name; if your model needs it, wrap "
        "it in a function of your own module, and allow that module by modules="
    )


def _look_up(module: str, qualname: str) -> Any:
    """A global of a module, or an attribute of a class that is a global; never an attribute of another object."""
    first, *inner = qualname.split(".")
    found = vars(importlib.import_module(module)).get(first)
    for part in inner:
        found = getattr(found, part, None) if isinstance(found, type) and not part.startswith("__") else None
    if found is None:
        raise AttributeError(f"{module} has no {qualname}")
    return found


def _is_within(module: Any, packages: Collection[str]) -> bool:
    return isinstance(module, str) and any(module == name or module.startswith(f"{name}.") for name in packages)


def _is_defined_in(modules: Collection[str], module: str, name: str, found: Any) -> bool:
    """Whether the object is a class or a Python function, jitted or not, that a trusted module defines."""
    code = isinstance(found, type) or inspect.isfunction(inspect.unwrap(found))
    return code and _is_within(found.__module__, modules)


def _library_rule(module: str, qualname: str) -> _Rule | None:
    """The rule for a name of a library; None if no such name is allowed."""
    if "." in qualname or any(part.startswith("_") for part in [*module.split("."), qualname]):
        return None
    return _of_this_library if _is_within(module, ("vae_jax",)) else _RULES.get(module)


def _of_this_library(module: str, name: str, found: Any) -> bool:
    """Linen modules, the activation `identity`, and values that are in `__all__`."""
    if isinstance(found, type) and _is_within(found.__module__, ("vae_jax",)):
        exported = name in vars(sys.modules[module]).get("__all__", ())
        return issubclass(found, nn.Module) or (exported and (_is_frozen(found) or is_named_tuple(found)))
    return inspect.isfunction(found) and (found.__module__, found.__name__) == ("vae_jax.networks.dense", "identity")


def _is_frozen(kind: type) -> bool:
    """Whether the class was made by `value`, or is a frozen dataclass that is compared by its fields."""
    if is_value(kind):
        return True
    parameters: Any = getattr(kind, "__dataclass_params__", None)
    return parameters is not None and parameters.frozen and parameters.eq


def _is_function(found: Any) -> bool:
    return callable(found) and not isinstance(found, type)


def _of_python(module: str, name: str, found: Any) -> bool:
    return name in ("bool", "int", "float")


def _of_numpy(module: str, name: str, found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, np.number | np.bool_)


def _of_jax_numpy(module: str, name: str, found: Any) -> bool:
    """Scalar types, and elementwise functions: the names of NumPy's ufuncs."""
    return isinstance(found, type(jnp.float32)) or isinstance(vars(np).get(name), np.ufunc)


def _of_jax_nn(module: str, name: str, found: Any) -> bool:
    return _is_function(found)


_OF_LINEN = {*vars(jax.nn), *vars(jax.nn.initializers), "ones_init", "zeros_init", "avg_pool", "max_pool"}


def _of_linen(module: str, name: str, found: Any) -> bool:
    """Linen modules, activations, initializers and pooling."""
    if isinstance(found, type):
        return issubclass(found, nn.Module)
    return name in _OF_LINEN and _is_function(found)


def _of_optax(module: str, name: str, found: Any) -> bool:
    return is_named_tuple(found)


_RULES: dict[str, _Rule] = {
    "builtins": _of_python,
    "numpy": _of_numpy,
    "jax.numpy": _of_jax_numpy,
    "jax.nn": _of_jax_nn,
    "jax.nn.initializers": _of_jax_nn,
    "flax.linen": _of_linen,
    "optax": _of_optax,
}
LIBRARIES = {"vae_jax", *(module.split(".")[0] for module in _RULES if module != "builtins")}
"""The packages of which the rules allow some names."""
