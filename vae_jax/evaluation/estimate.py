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


def paired_ratio(values: Any, reference: Any) -> Estimate:
    """The ratio of the means of two numbers per example, and its standard error over the examples.

    The ratio is r = mean(values) / mean(reference). Its error is that of the mean of values - r * reference, divided by
    the mean of the reference (the delta method, of first order), and so takes account of the correlation of the two
    numbers. For numbers of two independent sets of examples, use `bootstrap_stderr`.

    >>> vj.paired_ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    Estimate(mean=0.5, standard_error=0.0)

    Args:
      values: Numbers, [n].
      reference: Numbers of the same examples, [n].

    Returns:
      Ratio and standard error; the standard error for a single example is NaN.

    Raises:
      InputError: There are no numbers, their shapes are not both [n], or the mean of the reference is 0.
    """
    values, reference = (
        np.asarray(as_reals(name, given, "[n]"), np.float64)
        for name, given in (("values", values), ("reference", reference))
    )
    if values.shape != reference.shape:
        raise InputError(
            f"values have shape {values.shape} and reference {reference.shape}; expected two numbers per example"
        )
    numerator, denominator = mean_and_stderr(values).mean, mean_and_stderr(reference).mean
    if denominator == 0:
        raise InputError("the mean of reference is 0; expected another number to divide by")
    ratio = numerator / denominator
    return Estimate(ratio, mean_and_stderr(values - ratio * reference).standard_error / abs(denominator))
