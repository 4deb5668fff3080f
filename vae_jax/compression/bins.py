"""Latents discretised to bins of equal mass under N(0, 1), as in Townsend et al. (2019, section 2.5).

The number of a bin has `DIGITS` digits in base `BASE`. The digits are coded in order, each with its probability given
the digits before it. So q(z|x) is integrated over BASE bins per digit, and not over all `BINS` bins.
"""

import functools

import numpy as np
from constriction import stream
from jaxtyping import Float, Int
from scipy.special import ndtr, ndtri

BASE, DIGITS = 16, 4
BINS = BASE**DIGITS
PRIOR = stream.model.Uniform(BINS)
TABLE = stream.model.Categorical(perfect=False)
"""Family of distributions with a row of probabilities for each symbol; each symbol gets at least 2^-24."""

_WIDTHS = [BASE**place for place in reversed(range(DIGITS))]  # number of bins that share the digits up to each one
_TINY = 1e-30  # a row of zeros, far from the mean, becomes a uniform distribution

Bins = Int[np.ndarray, " latents"]
Reals = Float[np.ndarray, " latents"]


@functools.cache
def edges() -> Float[np.ndarray, " edges"]:
    """The BINS + 1 edges of the bins, from minus infinity to infinity."""
    return ndtri(np.arange(BINS + 1) / BINS)


@functools.cache
def medians() -> Float[np.ndarray, " bins"]:
    """The median of N(0, 1) in each bin, which is the value of the latents in the bin."""
    return ndtri((np.arange(BINS) + 0.5) / BINS)


def decode_bins(coder: stream.stack.AnsCoder, mean: Reals, deviation: Reals) -> Bins:
    """Decode the bins of latents with the probabilities of N(mean, deviation^2)."""
    bins = np.zeros(len(mean), np.int32)
    for width in _WIDTHS:
        bins += width * coder.decode(TABLE, _masses(bins, width, mean, deviation))
    return bins


def encode_bins(coder: stream.stack.AnsCoder, bins: Bins, mean: Reals, deviation: Reals) -> None:
    """Encode the bins of latents with the probabilities of N(mean, deviation^2): the inverse of `decode_bins`."""
    for width in reversed(_WIDTHS):
        place = bins % (BASE * width)
        coder.encode_reverse(place // width, TABLE, _masses(bins - place, width, mean, deviation))


def _masses(first: Bins, width: int, mean: Reals, deviation: Reals) -> Float[np.ndarray, "latents base"]:
    """Masses of the values of a digit, each of which is `width` bins; `first` is the first bin of the value 0."""
    at = edges()[first[:, None] + width * np.arange(BASE + 1)]
    return np.diff(ndtr((at - mean[:, None]) / deviation[:, None])) + _TINY
