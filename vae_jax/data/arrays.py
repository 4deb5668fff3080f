"""Conversion of arrays, data frames and lists to the dtypes and shapes of a split."""

from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.errors import DataError, InputError, named

_CLASS_NUMBERS = "np.unique(labels, return_inverse=True)[1]"


def as_array(name: str, values: Any, remedy: str = "") -> np.ndarray:
    """The numeric or boolean array of an array, a data frame or nested lists.

    Args:
      name: Name of the argument, for messages.
      values: Object that NumPy can convert.
      remedy: Remedy for values that are not numbers; by default that of examples.

    Raises:
      DataError: The values are ragged or masked, are not an array, or are not real numbers.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(
            f"{name} is a masked array; expected an array without a mask: give x.filled(0), and ~x.mask as "
            "train_observed or test_observed"
        )
    try:
        array = np.asarray(values)
    except Exception as error:  # the types of NumPy for ragged lists, and any type of an `__array__`
        raise DataError(_reason(name, values, error)) from error
    if array.ndim == 0:
        raise DataError(f"{name} is {named(values)}; expected an array, a data frame or nested lists of numbers")
    if jax.dtypes.issubdtype(array.dtype, np.floating) or array.dtype.kind in "iub":
        return array
    if array.dtype.kind == "O":
        others = [entry for entry in array.flat if not isinstance(entry, Real)]
        held = f"values that are not numbers, such as {_shortened(others[0])}" if others else "numbers as objects"
        found = f"dtype object ({held})"
        default = "select the numeric columns" if others else "convert it by .astype(np.float32)"
    elif array.dtype.kind in "US":
        found = f"dtype {array.dtype} (text, such as {_shortened(next(iter(array.flat), ''))})"
        default = "select the numeric columns, or encode the text as numbers"
    else:
        found, default = f"dtype {array.dtype}", "convert it by .astype(np.float32)"
    raise DataError(f"{name} has {found}; expected real numbers: {remedy or default}")


def as_reals(name: str, values: Any, expected: str | None = None) -> Any:
    """An argument as an array of real numbers: JAX arrays stay on the device, other objects become NumPy arrays.

    Args:
      name: Name of the argument, for messages.
      values: Array, or an object that NumPy can convert, such as nested lists.
      expected: Shape for the message, such as "[n, latent]", whose number of axes is required; None for any shape.

    Returns:
      The array; whole numbers and truth values are converted to floating point.

    Raises:
      InputError: The values are ragged, are not numbers, or have another number of axes.
    """
    array = values if isinstance(values, jax.Array) else as_array(name, values)
    if expected is not None and array.ndim != expected.count(",") + 1:
        raise InputError(f"{name} has shape {array.shape}; expected {expected}: reshape it")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def as_finite(name: str, values: Any, expected: str) -> np.ndarray:
    """An argument as a NumPy array of float64.

    Raises:
      InputError: As `as_reals` does, or some entries are not finite.
    """
    array = np.asarray(as_reals(name, values, expected), np.float64)
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds NaN or infinite values; expected finite values")
    return array


def as_examples(name: str, examples: Any, observed: Any = None, insist: str | None = None) -> np.ndarray:
    """Examples as a split stores them: bytes [N, height, width, channels], int32 or float32, with NaN for missing ones.

    Args:
      name: Name of the argument, for messages.
      examples: Object that NumPy can convert.
      observed: Mask of the entries that are known, or None if all are.
      insist: Code by which the caller accepts examples with few rows and many channels; None accepts them.

    Raises:
      DataError: The dtype, the shape or the range is wrong.
    """
    examples = as_array(name, examples)
    if examples.ndim < 2:
        raise DataError(f"{name} has shape {examples.shape}; expected [N, height, width, channels] or [N, columns]")
    if insist is not None:
        _require_channels_last(name, examples.shape, insist)
    if observed is not None:
        return _without_missing(name, examples, as_array(f"the mask of {name}", observed))
    if jax.dtypes.issubdtype(examples.dtype, np.floating):
        require_finite(name, examples, has_missing=False)
        return _as_float32(name, examples)
    if examples.dtype == np.bool_:
        raise DataError(f"{name} has dtype bool; expected numbers: convert it by .astype(np.float32)")
    if examples.ndim in (3, 4):
        _require_range(
            name,
            examples,
            255,
            "rescale images to this range, or give other numbers as real numbers by .astype(np.float32)",
        )
        return examples.astype(np.uint8, copy=False).reshape(*examples.shape[:3], *examples.shape[3:] or (1,))
    limits = np.iinfo(np.int32)
    if examples.size and not limits.min <= examples.min() <= examples.max() <= limits.max:
        raise DataError(
            f"{name} runs from {examples.min()} to {examples.max()}; expected numbers that fit int32, or real numbers: "
            "convert it by .astype(np.float32)"
        )
    return examples.astype(np.int32, copy=False)


def are_bytes(*arrays: np.ndarray) -> bool:
    """Whether arrays of real numbers hold bytes of images: whole numbers from 0 to 255, of which some are above 1."""
    return all(map(_within_bytes, arrays)) and any(examples.max() > 1 for examples in arrays)


def as_labels(name: str, labels: Any) -> np.ndarray | None:
    """Class numbers as a split stores them, int32 [N], or None.

    Raises:
      DataError: The dtype, the shape or the range is wrong.
    """
    if labels is None:
        return None
    labels = as_array(name, labels, remedy=f"{_CLASS_NUMBERS} numbers the classes")
    if labels.ndim != 1:
        one_hot = labels.ndim == 2 and labels.shape[1] > 1
        remedy = "labels.argmax(axis=1) for one-hot labels" if one_hot else "labels.ravel()"
        raise DataError(f"{name} has shape {labels.shape}; expected [N]: {remedy}")
    if not np.issubdtype(labels.dtype, np.integer):
        whole = labels.dtype == np.bool_ or bool(np.all(labels == np.round(labels)))
        remedy = "convert them by .astype(np.int32)" if whole else f"{_CLASS_NUMBERS} numbers the classes"
        raise DataError(f"{name} has dtype {labels.dtype}; expected class numbers from 0: {remedy}")
    _require_range(name, labels, np.iinfo(np.int32).max, f"{_CLASS_NUMBERS} numbers the classes")
    return labels.astype(np.int32, copy=False)


def require_labels(name: str, labels: Any, count: int) -> np.ndarray:
    """The class numbers of so many examples, int32 [count].

    Raises:
      DataError: They are None, of another number, or no class numbers.
    """
    found = as_labels(name, labels)
    if found is None or len(found) != count:
        there = "None" if found is None else f"{len(found):,} class numbers"
        raise DataError(f"{name} is {there}; expected one class number for each of the {count:,} examples")
    return found


def require_finite(name: str, values: np.ndarray, has_missing: bool) -> None:
    """Raise `DataError` if a value is infinite, or is NaN and not missing."""
    if np.isinf(values).any() or (not has_missing and np.isnan(values).any()):
        raise DataError(
            f"{name} hold NaN or infinite values; expected finite numbers, or a mask of the known entries "
            "(Dataset.from_arrays(..., train_observed=, test_observed=))"
        )


def _reason(name: str, values: Any, error: Exception) -> str:
    """The message for values that NumPy cannot convert."""
    if isinstance(values, list | tuple) and isinstance(error, ValueError):
        shapes = [_shape(entry) for entry in values]
        other = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
        found = "" if other is None else f": example 0 has shape {shapes[0]}, but example {other} {shapes[other]}"
        return f"{name} is ragged{found}; expected examples of one shape: pad or crop them"
    text = str(error).partition("\n")[0].rstrip(".")
    return f"{name} is {named(values)} that NumPy cannot convert ({text}); expected an array: give a NumPy array"


def _shape(entry: Any) -> tuple[int | str, ...]:
    try:
        return np.shape(entry)
    except ValueError:
        return len(entry), "ragged"


def _shortened(entry: Any) -> str:
    text = repr(entry).partition("\n")[0]
    return text if len(text) <= 40 else f"{text[:40]}..."


def _require_channels_last(name: str, shape: tuple[int, ...], insist: str) -> None:
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        raise DataError(
            f"{name} has shape {shape}; expected [N, height, width, channels]: np.moveaxis(images, 1, -1) if the "
            f"channels are the first axis of an image, {insist} if they are the last"
        )


def _within_bytes(examples: np.ndarray) -> bool:
    if not (examples.ndim == 3 or (examples.ndim == 4 and examples.shape[3] in (1, 3))) or examples.size == 0:
        return False
    if not jax.dtypes.issubdtype(examples.dtype, np.floating):
        return examples.dtype == np.uint8
    return all(np.all((part >= 0) & (part <= 255) & (part == np.round(part))) for part in (examples[:1], examples))


def _without_missing(name: str, examples: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Real numbers, NaN where they are not observed."""
    if observed.dtype != np.bool_ or observed.shape != examples.shape:
        raise DataError(
            f"the mask of {name} is {observed.dtype} of shape {observed.shape}; expected bool {examples.shape}: "
            "True marks the known entries"
        )
    require_finite(name, examples[observed], has_missing=False)
    return _as_float32(name, np.where(observed, examples, np.nan))


def _as_float32(name: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        converted = values.astype(np.float32, copy=False)
    if np.isinf(converted).any():
        raise DataError(f"{name} holds numbers beyond the range of float32; rescale them, such as to unit variance")
    return converted


def _require_range(name: str, values: np.ndarray, highest: int, remedy: str) -> None:
    if values.size and (values.min() < 0 or values.max() > highest):
        raise DataError(f"{name} runs from {values.min()} to {values.max()}; expected 0 to {highest}: {remedy}")
