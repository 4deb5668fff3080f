"""Exceptions, warnings and checks of arguments; each message is a sentence with value, expectation and remedy."""

import functools
import warnings
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from signal import Signals
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")


class InputError(ValueError):
    """A value given by the caller can't be used; the message names it, what was expected and what to do."""


class DataError(InputError):
    """A file or an array of pixels or labels can't be used."""


class DataNotFoundError(DataError):
    """A data set is in none of the places where it was looked for."""


class NotFiniteError(RuntimeError):
    """Training met a loss or a gradient that is not finite; the message names the step and the terms.

    Attributes:
      state: the `TrainState` before that step.
    """

    def __init__(self, message: str, state: Any) -> None:
        super().__init__(message)
        self.state = state


class StoppedError(KeyboardInterrupt):
    """Training was stopped by Ctrl-C or a signal; the message says how to resume.

    Attributes:
      state: the `TrainState` at that moment.
      signal: what stopped it.
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
    """Decorator of a function, or a class, whose keyword arguments `names` have new names: the old ones warn."""

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
    """The last state of a script's run could not be saved.

    The message names the folder, the step, the reason, and what is still there.
    """


class CheckpointWarning(UserWarning):
    """A checkpoint can't be read and an earlier one is taken, one can't be written, or a folder can't be locked."""


def require_positive_int(**values: object) -> None:
    """Raise `InputError` unless each value is a whole number of at least one."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
            raise InputError(f"{name} is {value!r}; expected a whole number of at least 1")


def require_positive(**values: Any) -> None:
    """Raise `InputError` unless each value is a finite number above 0, or an array of them; traced values pass."""
    for name, value in values.items():
        if not _all_within(value, lambda numbers: (numbers > 0) & (numbers < np.inf)):
            raise InputError(f"{name} is {value!r}; expected a finite number above 0")


def require_not_negative(**values: Any) -> None:
    """Raise `InputError` unless each value is a finite number from 0, or an array of them; traced values pass."""
    for name, value in values.items():
        if not _all_within(value, lambda numbers: (numbers >= 0) & (numbers < np.inf)):
            raise InputError(f"{name} is {value!r}; expected a finite number from 0")


def _all_within(value: Any, holds: Callable[[Any], Any]) -> bool:
    if is_traced(value):
        return True
    if not isinstance(value, Real | np.ndarray | jax.Array | np.generic) or isinstance(value, bool):
        return False
    return bool(np.all(holds(np.asarray(value))))  # by NumPy: importing the library starts no backend of JAX


def is_traced(tree: Any) -> bool:
    """Whether a leaf of the tree has no value yet, since a program that computes it is being traced.

    What is not traced may be looked at even within a traced function, under `jax.ensure_compile_time_eval`.
    """
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def require_finite(variables: Any) -> None:
    """Raise `InputError` where a leaf of the tree is NaN or infinite; traced leaves pass."""
    with jax.ensure_compile_time_eval():
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
            if not is_traced(leaf) and not jnp.all(jnp.isfinite(leaf)):
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise InputError(f"the variable {name} holds NaN or infinite values; its training has diverged")


def require_writable_folder(path: Path) -> None:
    """Make the folder if need be; raise `InputError` unless files can be written in it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may have made the same test
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write to the folder {path} ({reason}); choose another one") from error
