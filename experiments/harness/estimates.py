"""Means over images with their standard errors, for reports and printed tables."""

from collections.abc import Mapping
from typing import Any

import vae_jax as vj


def estimate(values: Any) -> dict[str, float]:
    """The "mean" of one number per image, with its "standard_error"."""
    return vj.mean_and_stderr(values)._asdict()


def means_and_errors(**values: Any) -> dict[str, float]:
    """The mean of each list of one number per image by its name, and its standard error as "NAME_standard_error"."""
    found = {name: vj.mean_and_stderr(each) for name, each in values.items()}
    means = {name: each.mean for name, each in found.items()}
    return means | {f"{name}_standard_error": each.standard_error for name, each in found.items()}


def with_error(found: Mapping[str, float], digits: int = 2) -> str:
    """A result of `estimate` as text."""
    return f"{found['mean']:.{digits}f} +- {found['standard_error']:.{digits}f}"
