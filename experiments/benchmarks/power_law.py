"""How a cost grows with a size: the power law through some measurements."""

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
      factor: the cost at size 1, in the unit of the costs.
      exponent: the slope of log cost against log size.
      standard_error: of the exponent, from the residuals; NaN of two points, which leave none.
    """

    factor: float
    exponent: float
    standard_error: float

    def __call__(self, sizes: Sequence[int]) -> Float[np.ndarray, " n"]:
        """The costs at these sizes."""
        return self.factor * np.asarray(sizes, np.float64) ** self.exponent

    def __str__(self) -> str:
        """The exponent and its standard error, if it has one."""
        if math.isnan(self.standard_error):
            return f"{self.exponent:.2f}"
        digits = 2 if self.standard_error >= 0.01 else 3
        return f"{self.exponent:.{digits}f} +- {self.standard_error:.{digits}f}"


def fit_power_law(sizes: Sequence[int], costs: Sequence[float]) -> PowerLaw:
    """Least squares in log cost against log size: each relative deviation counts alike.

    The standard error is sqrt(residuals^2 / (n - 2) / sum (log size - mean)^2). It tells how far the points are from
    any power law, not only how noisy they are.

    Raises:
      InputError: fewer than two different sizes, not a cost for each, or one that is not above 0.
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
