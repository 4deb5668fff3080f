"""Means over examples and their standard errors."""

import math
from typing import Any, NamedTuple

import numpy as np

from vae_jax.data.arrays import as_reals
from vae_jax.errors import InputError


class Estimate(NamedTuple):
    """A mean over examples and its standard error."""

    mean: float
    standard_error: float


def mean_and_stderr(values: Any) -> Estimate:
    """The mean of one number per example, and the standard error of that mean over the examples.

    >>> vj.mean_and_stderr([1.0, 2.0, 3.0, 4.0])
    Estimate(mean=2.5, standard_error=0.6454972243679028)

    Args:
      values: Numbers, [n]; the computation is in float64.

    Returns:
      Mean and standard error; the standard error of a single value is NaN.

    Raises:
      InputError: There are no values, or their shape is not [n].
    """
    values = np.asarray(as_reals("values", values, "[n]"), np.float64)
    if not len(values):
        raise InputError("values is empty; expected at least one number to take the mean of")
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), float(error))
