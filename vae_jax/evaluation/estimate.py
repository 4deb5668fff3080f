"""Means over examples, with standard errors."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped


class Estimate(NamedTuple):
    """A mean over examples and its standard error."""

    mean: float
    standard_error: float


def mean_and_stderr(values: Shaped[Any, " n"]) -> Estimate:
    """The mean of one number per example, in float64, and the standard error of that mean over the examples.

    The standard error of a single value is NaN.
    """
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), float(error))
