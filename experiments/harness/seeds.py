"""Statistics over several runs with consecutive seeds: mean and standard deviation of each number."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np


def mean_and_deviation(of_members: Sequence[Any]) -> Any:
    """Compute the mean and the standard deviation of each number in several trees of the same structure.

    Lists of numbers of equal length are reduced elementwise. A value that is not a number is returned unchanged if it
    is the same for all members, and otherwise as a list with the value of each member.

    Args:
      of_members: One tree of numbers per member.

    Returns:
      A tree with a dict of "mean" and "standard_deviation" (with the divisor n - 1) in place of each number.
    """
    first = of_members[0]
    if all(isinstance(each, Mapping) and each.keys() == first.keys() for each in of_members):
        return {name: mean_and_deviation([each[name] for each in of_members]) for name in first}
    if all(each == first for each in of_members) and not _is_numeric(first):
        return first
    if all(_is_numeric(each) and np.shape(each) == np.shape(first) for each in of_members):
        values = np.array(of_members, np.float64)
        return {"mean": values.mean(axis=0).tolist(), "standard_deviation": values.std(axis=0, ddof=1).tolist()}
    if all(isinstance(each, list | tuple) and len(each) == len(first) for each in of_members):
        return [mean_and_deviation(each) for each in zip(*of_members, strict=True)]
    return list(of_members)


def scalars(summary: Any, name: str = "") -> Iterator[tuple[str, float, float]]:
    """Yield the name, mean and standard deviation of each scalar in a result of `mean_and_deviation`."""
    if not isinstance(summary, Mapping):
        return
    if summary.keys() == {"mean", "standard_deviation"}:
        if not isinstance(summary["mean"], list):
            yield name, summary["mean"], summary["standard_deviation"]
        return
    for part, of_part in summary.items():
        yield from scalars(of_part, f"{name}.{part}" if name else str(part))


def _is_numeric(value: Any) -> bool:
    """Whether a value is a number or a rectangular nested list of numbers."""
    if isinstance(value, list | tuple):
        try:
            return len(value) > 0 and np.asarray(value).dtype.kind in "iuf"
        except ValueError:  # raised for lists of different lengths
            return False
    return isinstance(value, int | float) and not isinstance(value, bool)
