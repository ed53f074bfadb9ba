"""Whether the values and the slopes of trials belong together: a pure decision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptydask.proposals.gaussian_process import Floats, GaussianProcess, Observations

CLEARLY = 3.0
"""The logarithm of the odds that are taken for certain."""
_FEWEST = 4
"""Values, before slopes are taken for noise beside them."""
_TINY = 1e-300


def weigh_agreement(model: GaussianProcess, seen: Observations) -> float:
    """The logarithm of the odds that one smooth loss has both the values and the slopes.

    Against it stands that they have nothing to do with each other: each has a smooth loss of its own, or is noise. So
    it is below 0 for slopes of the wrong sign, and for those of a loss that says nothing.
    """
    nothing = np.full_like(seen.slopes, np.nan)
    values = GaussianProcess(replace(seen, slopes=nothing)).evidence
    slopes = GaussianProcess(replace(seen, values=nothing[:, 0])).evidence
    noise = _slopes_as_noise(seen)
    known = seen.values[np.isfinite(seen.values)]
    apart = max(values, _noise_evidence(known, float(known.mean()))) + max(slopes, noise)
    return model.evidence - apart


def _noise_evidence(told: Floats, mean: float) -> float:
    """The logarithm of the greatest likelihood of normal deviates."""
    if not len(told):
        return 0.0
    return -0.5 * len(told) * (np.log(2 * np.pi * max(float(np.mean((told - mean) ** 2)), _TINY)) + 1.0)


def _slopes_as_noise(seen: Observations) -> float:
    return sum(_noise_evidence(column[np.isfinite(column)], 0.0) for column in seen.slopes.T)


def find_contradicted(model: GaussianProcess, seen: Observations) -> NDArray[np.bool_]:
    """In which coordinates (d,) the slopes say nothing true, clearly.

    They are all 0; they are noise beside the values; or they belong to the values with the other sign.
    """
    sloped: NDArray[np.bool_] = np.asarray(np.isfinite(seen.slopes).any(0))
    contradicted: NDArray[np.bool_] = np.asarray(sloped & (np.nan_to_num(seen.slopes) == 0).all(0))
    if contradicted.any():
        seen = replace(seen, slopes=np.where(contradicted, np.nan, seen.slopes))
        model, sloped = GaussianProcess(seen), sloped & ~contradicted
    if not sloped.any() or not np.isfinite(seen.values).any():
        return contradicted
    if np.isfinite(seen.values).sum() >= _FEWEST:
        values = GaussianProcess(replace(seen, slopes=np.full_like(seen.slopes, np.nan)))
        if values.evidence + _slopes_as_noise(seen) > model.evidence + CLEARLY:
            return np.logical_or(contradicted, sloped)
    alone = [np.arange(len(sloped)) == axis for axis in np.flatnonzero(sloped)]
    for turned in [sloped, *alone] if len(alone) > 1 else alone:
        other = replace(seen, slopes=np.where(turned, -seen.slopes, seen.slopes))
        if GaussianProcess(other, like=model).evidence > model.evidence + CLEARLY:
            contradicted = np.logical_or(contradicted, turned)
    return contradicted
