"""Metrics of a reconstruction that need no second look at the data: of its projected phase and of its positions.

Plain NumPy, so that a trial on any device, an imported one and an image read from a results file give the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

NAMES = ("robust_contrast", "entropy", "total_variation")
"""What :func:`measure_image` gives."""
PERCENT = 1
"""Of the pixels at either end of the values, which are pulled in: one outlying pixel changes no metric then."""
BINS = 64
"""Of the histogram that the entropy is taken of."""


def measure_image(phase: Array, pixel_size: float) -> dict[str, float]:
    """``robust_contrast`` (1), ``entropy`` (bit) and ``total_variation`` (1/unit of ``pixel_size``) of an image (y, x).

    Its lowest and highest percent of pixels are set to the 1st and 99th percentile first. With c the result above the
    1st percentile:

    - robust_contrast = std(c) / mean(c), PtyRAD's contrast with the percentile for the minimum;
    - entropy = -sum p log2 p over the shares p of 64 equal bins between the two percentiles (Shannon);
    - total_variation = mean(sqrt(cy^2 + cx^2)) / (std(c) pixel_size), with forward differences cy, cx (Rudin, Osher and
      Fatemi 1992), divided by what an image of the same shape but larger values would have more of.

    None of them changes when the phase is shifted or scaled. All are NaN for a flat image, where the percentiles are
    equal, and for one with values that are not finite, or with none.
    """
    low, high = _percentiles(phase.ravel()) if phase.size and np.isfinite(phase).all() else (0.0, 0.0)
    if low == high:
        return dict.fromkeys(NAMES, np.nan)
    above = np.clip(phase, low, high).astype(np.float64) - low
    return {
        "robust_contrast": float(above.std() / above.mean()),
        "entropy": _entropy(above / (high - low)),
        "total_variation": _mean_gradient(above) / (float(above.std()) * pixel_size),
    }


def _percentiles(values: Array) -> tuple[float, float]:
    """The 1st and 99th percentile as values that are there: no interpolation, so that float32 stays float32."""
    at = round((values.size - 1) * PERCENT / 100)
    ends = np.partition(values, (at, values.size - 1 - at))
    return float(ends[at]), float(ends[-1 - at])


def _entropy(shares: NDArray[np.float64]) -> float:
    counts = np.bincount(np.minimum((shares * BINS).astype(np.int32), BINS - 1).ravel(), minlength=BINS)
    taken = counts[counts > 0] / shares.size
    return float(-(taken * np.log2(taken)).sum())


def _mean_gradient(image: NDArray[np.float64]) -> float:
    """Per pixel; 0 for an image of one row or column, which has no neighbours in both directions."""
    down, right = image[1:, :-1] - image[:-1, :-1], image[:-1, 1:] - image[:-1, :-1]
    return float(np.sqrt(down * down + right * right).mean()) if down.size else 0.0


def is_cheap(pixels: int, propagated: int, batches: int) -> bool:
    """Whether measuring an image of so many ``pixels`` after every iteration takes under 1 % of the iteration's time.

    ``propagated`` are the pixels of all patterns times probe modes times slices. Measuring takes 0.3 ms and 30 ns a
    pixel on one core. An iteration takes at least 0.3 ns for each that is propagated (PtyRAD on an A100, 1024 patterns
    a batch; no faster device has been measured) and 3 ms a batch (its few hundred kernels are started one after the
    other). No clock is asked, so that the same trial has the same curves everywhere.
    """
    return 3e5 + 30 * pixels <= 0.01 * max(0.3 * propagated, 3e6 * batches)


def position_drift(shifts: Array, first: Array, pixel_size: float) -> float:
    """How far the positions moved, in the unit of ``pixel_size``: sqrt(mean |d - mean d|^2), d = ``shifts - first``.

    Both are (N, 2) in pixels, of the positions that were reconstructed. What all moved alike is left out: the object
    moves with it, and no pattern changes.
    """
    moved = shifts.astype(np.float64) - first.astype(np.float64)
    return float(np.sqrt(((moved - moved.mean(0)) ** 2).sum(1).mean())) * pixel_size
