"""Exceptions, warnings and checks of arguments.

Each message is one sentence: the value found, the expected values, the remedy.
"""

import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from signal import Signals
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")


class InputError(ValueError):
    """An argument cannot be used."""


class DataError(InputError):
    """A file, or an array of examples or labels, cannot be used."""


class DataNotFoundError(DataError):
    """A data set was not found in any of the places that were searched."""


class NotFiniteError(RuntimeError):
    """A loss or a gradient was not finite during training; the message names the step and the terms.

    Attributes:
      state: `TrainState` before that step.
    """

    def __init__(self, message: str, state: Any) -> None:
        super().__init__(message)
        self.state = state


class StoppedError(KeyboardInterrupt):
    """Training was stopped by Ctrl-C or a signal; the message says how to resume.

    Attributes:
      state: `TrainState` after the last step.
      signal: Signal that was received.
    """

    def __init__(
        self, signal: Signals, done: int, total: int, state: Any, kept_in: Path | None, failure: str | None = None
    ) -> None:
        if failure is not None:
            where = f"not everything could be saved: {failure}; to resume, pass this error's `state` to fit"
        elif kept_in is not None:
            where = f"the state is saved in {kept_in}: the same run, started again, resumes from there"
        else:
            where = "this run saves no checkpoints; to resume, pass this error's `state` to fit"
        super().__init__(f"{signal.name} stopped the training after step {done:,} of {total:,}; {where}")
        self.state, self.signal = state, signal


def renamed(**names: str) -> Callable[[T], T]:
    """Decorator that accepts old names of keyword arguments, `old="new"`, with a `DeprecationWarning`.

    It decorates a function, or a class whose `__init__` has the arguments.
    """

    def decorate(function: T) -> T:
        inner: Any = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]

        @functools.wraps(inner)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            for old, new in names.items():
                if old in kwargs:
                    warnings.warn(f"the argument {old} is now called {new}", DeprecationWarning, stacklevel=2)
                    kwargs[new] = kwargs.pop(old)
            return inner(*args, **kwargs)

        if not isinstance(function, type):
            return wrapper  # type: ignore[return-value]
        function.__init__ = wrapper  # type: ignore[misc]
        return function

    return decorate


class CheckpointError(RuntimeError):
    """The last state of a script's run, or a model, could not be saved.

    The message names the folder, the step, the reason, and the checkpoints that exist.
    """


class CheckpointWarning(UserWarning):
    """A checkpoint cannot be read (an earlier one is used) or written, or a folder cannot be locked.

    It is given too if a model is stored that another process cannot make again.
    """


def require_bool(**values: Any) -> None:
    """Raise `InputError` unless each value is True or False."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{name} is {value!r}; expected True or False")


def require_positive_int(**values: object) -> None:
    """Raise `InputError` unless each value is a whole number of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
            raise InputError(f"{name} is {value!r}; expected a whole number of at least 1")


def require_positive(**values: Any) -> None:
    """Raise `InputError` unless each value is a finite number above 0, or an array of such; traced values pass."""
    for name, value in values.items():
        if not _all_within(value, lambda numbers: (numbers > 0) & (numbers < np.inf)):
            raise InputError(f"{name} is {value!r}; expected a finite number above 0")


def require_not_negative(**values: Any) -> None:
    """Raise `InputError` unless each value is a finite number of 0 or more, or an array of such; traced values pass."""
    for name, value in values.items():
        if not _all_within(value, lambda numbers: (numbers >= 0) & (numbers < np.inf)):
            raise InputError(f"{name} is {value!r}; expected a finite number of at least 0")


def _all_within(value: Any, holds: Callable[[Any], Any]) -> bool:
    if is_traced(value):
        return True
    if not isinstance(value, Real | np.ndarray | jax.Array | np.generic) or isinstance(value, bool):
        return False
    # NumPy, because importing the library must not start a backend of JAX.
    return bool(np.all(holds(np.asarray(value))))


def is_traced(tree: Any) -> bool:
    """Whether a leaf of the tree is a tracer, which has no value.

    Leaves that are not tracers can be checked within a traced function too, under `jax.ensure_compile_time_eval`.
    """
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def require_finite_variables(variables: Any) -> None:
    """Raise `InputError` if a leaf of the tree holds NaN or infinite values; traced leaves pass."""
    leaves = [pair for pair in jax.tree_util.tree_leaves_with_path(variables) if not is_traced(pair[1])]
    with jax.ensure_compile_time_eval():
        for (path, _), finite in zip(leaves, _are_finite([leaf for _, leaf in leaves]), strict=True):
            if not finite:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise InputError(
                    f"the variable {name} holds NaN or infinite values; expected finite values: the training diverged"
                )


def require_finite_values(name: str, values: Any, remedy: str = "") -> None:
    """Raise `InputError` if an entry of an array is NaN or infinite; traced values are not checked."""
    if is_traced(values):
        return
    with jax.ensure_compile_time_eval():
        if not jnp.isfinite(values).all():
            raise InputError(f"{name} holds NaN or infinite values; expected finite values{remedy}")


@jax.jit
def _are_finite(leaves: list[Any]) -> list[jax.Array]:
    """Whether each leaf holds finite values alone, by one program."""
    return [jnp.isfinite(leaf).all() for leaf in leaves]


def require_path(expected: str, **paths: Any) -> None:
    """Raise `InputError`, whose message ends with what is expected, unless each argument is a path."""
    for name, path in paths.items():
        if not isinstance(path, str | os.PathLike):
            raise InputError(f"{name} is {named(path)}; expected {expected}")


def require_writable_folder(path: Path) -> None:
    """Create the folder if it does not exist; raise `InputError` if files cannot be written in it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may run the same check
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write to the folder {path} ({reason}); choose another one") from error


def require_typed_key(key: Any, expected: str) -> None:
    """Raise `InputError` unless the argument is a typed key or an array of such."""
    if not isinstance(key, jax.Array):
        raise InputError(f"key is {named(key)}; {expected}")
    if not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        old = key.dtype == np.uint32 and key.shape[-1:] == (2,)
        kind = "an old-style key of jax.random.PRNGKey" if old else named(key)
        raise InputError(f"key is {kind}; {expected}")


def require_key(key: Any, remedy: str = "") -> None:
    """Raise `InputError` unless the argument is one typed key."""
    remedy = f": {remedy}" if remedy else ""
    require_typed_key(key, f"expected a typed key, such as jax.random.key(0){remedy}")
    if key.shape:
        raise InputError(f"key has shape {key.shape}; expected one key{remedy}")


def require_variables(variables: Any) -> None:
    """Raise `InputError` unless the argument is a dictionary, as the variables of a model are."""
    if not isinstance(variables, Mapping):
        remedy = "state.variables" if hasattr(variables, "variables") else "the variables of model.init or of a state"
        raise InputError(f"variables is {named(variables)}; expected a dict of collections: {remedy}")


def named(value: Any) -> str:
    """The kind of a value for an error message: an array by dtype and shape, a number or a string by its value."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, jax.Array | np.ndarray):  # a tracer too
        return f"an array {array_spec(value)}"
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return repr(value)
    if isinstance(value, list | tuple | dict | set):
        return f"{'a' if len(value) else 'an empty'} {type(value).__name__}"
    return f"an object of type {type(value).__name__}"


def array_spec(array: Any) -> str:
    """Dtype and shape of an array, such as float32[64, 28, 28, 1]."""
    return f"{array.dtype}{list(array.shape)}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and the number of the others."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def size_of(size: int) -> str:
    """A number of bytes in a unit of its magnitude, such as 44.9 MiB."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min(max(0, (size.bit_length() - 1) // 10), len(units) - 1)
    return f"{size / 1024**power:.3g} {units[power]}" if power else f"{size} B"
