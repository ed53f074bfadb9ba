"""From the values of an image to greys, one way for pages, notebooks and montages. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ptydask.model import Image

_TAILS = (0.5, 99.5)
"""Percentiles of an image that are black and white: a few hot pixels do not make all others grey."""


def grey_limits(data: NDArray[np.floating]) -> tuple[float, float] | None:
    """The values of black and white of one image, white above black; None where it has no finite pixel."""
    finite = data[np.isfinite(data)]
    if not finite.size:
        return None
    low, high = (float(value) for value in np.percentile(finite, _TAILS))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def shared_grey_limits(images: Iterable[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Black and white for images beside each other, from the :func:`grey_limits` of each; None where none has any.

    Three quarters of the images stay within: one that diverged takes the contrast from no other.
    """
    limits = [pair for pair in images if pair is not None]
    if not limits:
        return None
    lows, highs = np.array(limits).T
    return float(np.quantile(lows, 0.25)), float(np.quantile(highs, 0.75))


def phase_median(image: Image) -> float:
    """The median of a phase image, since a phase has no zero; 0 for any other image."""
    data = np.asarray(image.data, np.float32)
    finite = data[np.isfinite(data)]
    return float(np.median(finite)) if image.units == "rad" and finite.size else 0.0


def binning(shape: tuple[int, ...], most: int) -> int:
    """How many pixels are to be one, so that at most ``most`` are left along a side."""
    return max(1, -(-max(shape) // max(1, most)))


def binned(data: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Means of n x n pixels; a last row or column that has fewer than n is left out."""
    rows, columns = (max(1, size // n) for size in data.shape)
    if n == 1 or min(data.shape) < n:
        return data
    blocks = data[: rows * n, : columns * n].reshape(rows, n, columns, n)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float64), dtype=np.float32)


def without_margin(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A stored thumbnail without the zeros around it; its own pixels are 1 to 255."""
    rows, columns = np.flatnonzero(tile.any(1)), np.flatnonzero(tile.any(0))
    return tile[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else tile
