"""Values: frozen dataclasses that are pytrees by one rule.

Fields made by `parameter` hold real numbers or arrays that only enter arithmetic, or other values. They are the leaves
and children of the tree: arguments of `jit`, and inputs of `vmap` and `grad`. All other fields are static: whole
numbers, booleans, strings, shapes, modules and functions. A parameter that is a function, such as a schedule, is static
too.

`hash` covers the static part. `==` compares both parts and needs concrete leaves. `__post_init__` runs when the
constructor is called, and not when JAX unflattens a tree.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np
from jax.tree_util import GetAttrKey

from vae_jax.errors import InputError

T = TypeVar("T")
_VALUES: set[type] = set()
_NUMBERS = (jax.Array, np.ndarray, np.generic, int, float, complex)


def parameter(*, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that is a leaf, or a child, of the tree."""
    return dataclasses.field(default=default, metadata={"parameter": True})


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(parameter, dataclasses.field))
def value(cls: type[T]) -> type[T]:
    """Class decorator: makes a frozen dataclass that is a pytree by the rule of this module."""
    cls = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    setattr(cls, "__hash__", _hash)  # noqa: B010 (mypy takes no assignment to a method)
    setattr(cls, "__eq__", _equal)  # noqa: B010
    if cls.__repr__ is object.__repr__:
        cls = shape_repr(cls)
    jax.tree_util.register_pytree_with_keys(
        cls, _flatten_with_keys, lambda aux, children: _unflatten(cls, aux, children)
    )
    _VALUES.add(cls)
    return cls


def shape_repr(cls: type[T]) -> type[T]:
    """Class decorator: a `repr` of a dataclass or named tuple that gives arrays by dtype and shape."""
    setattr(cls, "__repr__", _repr)  # noqa: B010 (mypy takes no assignment to a method)
    return cls


def _repr(of: Any) -> str:
    names = getattr(of, "_fields", None) or [field.name for field in dataclasses.fields(of) if field.repr]
    return f"{type(of).__name__}({', '.join(f'{name}={_short(getattr(of, name))}' for name in names)})"


def _short(content: Any) -> str:
    """`repr` of the content of a field, with dtype and shape in place of the entries of arrays."""
    if isinstance(content, jax.Array | np.ndarray) and content.ndim:
        return f"{content.dtype}{list(content.shape)}"
    if isinstance(content, dict):
        return "{" + ", ".join(f"{name!r}: {_short(item)}" for name, item in content.items()) + "}"
    if isinstance(content, type):
        return content.__qualname__
    return repr(content)


def is_value(of: type) -> bool:
    """Whether a class is decorated by `value`."""
    return of in _VALUES


def axes(of: T, **mapped: Any) -> T:
    """The `in_axes` of a value for `jax.vmap`: the named parameters are mapped over, all others are not.

    `jax.vmap(loss, in_axes=(axes(objective, beta=0),))(objective)` maps over the leading axis of `objective.beta`. For
    a parameter that is a value, give the `axes` of that value.

    >>> objective = vj.ELBO(beta=jnp.array([0.5, 1.0, 2.0]))
    >>> jax.vmap(lambda of_one: 10 * of_one.beta, in_axes=(vj.axes(objective, beta=0),))(objective).tolist()
    [5.0, 10.0, 20.0]

    Args:
      of: Value, such as an objective or a model.
      **mapped: Axis, or tree of axes, of each parameter that is mapped over.

    Raises:
      InputError: The value has no parameter of that name.
    """
    (names, static), children = _parts(of)
    for name in mapped:
        if name not in names:
            raise InputError(f"{type(of).__name__} has no parameter {name!r}; expected one of {', '.join(names)}")
    nothing = [jax.tree.map(lambda leaf: None, child) for child in children]
    return _unflatten(type(of), (names, static), [mapped.get(*pair) for pair in zip(names, nothing, strict=True)])


def jit(function: Callable[..., T], **settings: Any) -> Callable[..., T]:
    """`jax.jit` of a function of arrays and values; any other argument, such as a function, is a static constant."""

    @functools.partial(jax.jit, **settings)
    def compiled(*args: Any, **kwargs: Any) -> T:
        return function(*map(_revealed, args), **{name: _revealed(content) for name, content in kwargs.items()})

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> T:
        return compiled(*map(_held, args), **{name: _held(content) for name, content in kwargs.items()})

    return call


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Constant:
    content: Any


def _held(content: Any) -> Any:
    is_other_leaf = jax.tree_util.all_leaves([content]) and not isinstance(content, _NUMBERS)
    return _Constant(content) if is_other_leaf else content


def _revealed(content: Any) -> Any:
    return content.content if isinstance(content, _Constant) else content


def _parts(of: Any) -> tuple[tuple[tuple[str, ...], tuple[tuple[str, Any], ...]], list[Any]]:
    """The names of the parameters and the static fields, and the parameters."""
    names, static = [], []
    for field in dataclasses.fields(of):
        content = getattr(of, field.name)
        if field.metadata.get("parameter") and not (callable(content) and type(content) not in _VALUES):
            names.append(field.name)
        else:
            static.append((field.name, content))
    return (tuple(names), tuple(static)), [getattr(of, name) for name in names]


def _flatten_with_keys(of: Any) -> tuple[list[tuple[GetAttrKey, Any]], Any]:
    aux, children = _parts(of)
    return [(GetAttrKey(name), child) for name, child in zip(aux[0], children, strict=True)], aux


def _unflatten(cls: type[T], aux: Any, children: Any) -> T:
    made = object.__new__(cls)
    for name, content in (*zip(aux[0], children, strict=True), *aux[1]):
        object.__setattr__(made, name, content)
    return made


def _hash(of: Any) -> int:
    static, children = _parts(of)
    return hash((type(of), static, jax.tree.structure(children)))


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    (static, children), (other_static, other_children) = _parts(one), _parts(other)
    leaves, structure = jax.tree.flatten(children)
    other_leaves, other_structure = jax.tree.flatten(other_children)
    if (static, structure) != (other_static, other_structure):
        return False
    pairs = zip(leaves, other_leaves, strict=True)
    return all(np.shape(a) == np.shape(b) and bool(np.all(np.asarray(a) == np.asarray(b))) for a, b in pairs)
