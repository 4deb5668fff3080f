"""Fit of a power law to measurements of a cost at several sizes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vae_jax.errors import InputError, require_positive, require_positive_int


@dataclass(frozen=True)
class PowerLaw:
    """cost = factor * size ** exponent.

    Attributes:
      factor: Cost at size 1, in the unit of the costs.
      exponent: Slope of log cost against log size.
      standard_error: Standard error of the exponent, from the residuals; NaN for two points, which have no residuals.
    """

    factor: float
    exponent: float
    standard_error: float

    def __call__(self, sizes: Sequence[int]) -> Float[np.ndarray, " n"]:
        """The costs at the given sizes."""
        return self.factor * np.asarray(sizes, np.float64) ** self.exponent

    def __str__(self) -> str:
        """The exponent, and its standard error unless that is NaN."""
        if math.isnan(self.standard_error):
            return f"{self.exponent:.2f}"
        digits = 2 if self.standard_error >= 0.01 else 3
        return f"{self.exponent:.{digits}f} +- {self.standard_error:.{digits}f}"


def fit_power_law(sizes: Sequence[int], costs: Sequence[float]) -> PowerLaw:
    """Fit a power law by least squares of log cost against log size, which weights relative deviations equally.

    The standard error is sqrt(sum residuals^2 / (n - 2) / sum (log size - mean)^2). It includes systematic deviations
    of the points from a power law, besides their noise.

    Args:
      sizes: Positive sizes.
      costs: Positive costs, one for each size.

    Returns:
      The power law.

    Raises:
      InputError: There are fewer than two different sizes, or not one cost for each, or a value is not positive.
    """
    if len(sizes) != len(costs):
        raise InputError(f"there are {len(sizes)} sizes but {len(costs)} costs; expected one for each")
    if len(set(sizes)) < 2:
        raise InputError(f"the sizes are {list(sizes)}; an exponent needs at least two that differ")
    require_positive_int(**{f"sizes[{i}]": size for i, size in enumerate(sizes)})
    require_positive(**{f"costs[{i}]": cost for i, cost in enumerate(costs)})
    x, y = np.log(np.asarray(sizes, np.float64)), np.log(np.asarray(costs, np.float64))
    spread = np.sum((x - x.mean()) ** 2)
    exponent = np.sum((x - x.mean()) * (y - y.mean())) / spread
    residuals = y - y.mean() - exponent * (x - x.mean())
    variance = np.sum(residuals**2) / (len(x) - 2) if len(x) > 2 else math.nan
    factor = math.exp(y.mean() - exponent * x.mean())
    return PowerLaw(factor, float(exponent), math.sqrt(variance / spread))
