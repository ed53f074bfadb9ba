"""The bright-field disk of the mean pattern: where its edge is along each direction, and the ellipse through that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates  # type: ignore[import-untyped]

from ptydask.guess.patterns import find_bright

_DIRECTIONS = 72
_STEPS = 8
"""Of a radial profile, for each pixel."""
_PIXELATION = 0.15
"""Pixels by which the disk that a pixelated detector sees may be larger or smaller than that of the microscope."""
_FEWEST = 0.6
"""Share of the directions that must have an edge."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Lengths in detector pixels; the centre from the middle of pixel (0, 0)."""

    centre: tuple[float, float]
    """(y, x)"""
    radius: float
    """The geometric mean of the half axes."""
    radius_deviation: float
    """Of the radius, from how far the edges of all directions lie from the ellipse, and from the width of the edge."""
    ellipticity: float
    """The longer half axis over the shorter, less 1."""
    ellipticity_deviation: float
    edge_width: float
    """Over which the intensity falls from 3/4 to 1/4 of its step."""
    seen: float
    """Share of the directions along which the detector has an edge."""


def measure_disk(mean: NDArray[np.float64]) -> Disk | None:
    """The disk of a mean pattern (ky, kx); None where too little of its edge is on the detector.

    The edge is where the intensity has fallen half of the way from the disk's level to that outside of it, along 72
    directions; r(phi) = r0 + a1 cos(phi) + b1 sin(phi) + a2 cos(2 phi) + b2 sin(2 phi) through these gives the centre's
    error (a1, b1), which is corrected until it is none, the radius and, by its second order, the ellipse.
    """
    y, x = np.nonzero(find_bright(mean))
    if not len(y):
        return None
    centre, radius = np.array([y.mean(), x.mean()]), math.sqrt(len(y) / math.pi)
    if radius < 1.5:
        return None
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    fit = np.zeros(5)
    deviation = width = seen = 0.0
    for _ in range(8):
        edges, widths = _find_edges(mean, centre, radius, angles)
        there = np.isfinite(edges)
        seen = float(there.mean())
        if seen < _FEWEST:
            return None
        fit, deviation = _fit_edges(angles[there], edges[there])
        width = float(np.median(widths[there]))
        radius = float(fit[0])
        centre = centre + fit[1:3]
        if np.hypot(*fit[1:3]) < 1e-3:
            break
    half = math.hypot(fit[3], fit[4])
    if not 1 < radius < len(mean) or half > radius / 2:
        return None
    return Disk(
        centre=(float(centre[0]), float(centre[1])),
        radius=math.sqrt((radius + half) * (radius - half)),
        radius_deviation=math.hypot(deviation, 0.05 * width, _PIXELATION),
        ellipticity=(radius + half) / (radius - half) - 1,
        ellipticity_deviation=2 * math.sqrt(2) * deviation / radius,
        edge_width=width,
        seen=seen,
    )


def _find_edges(
    mean: NDArray[np.float64], centre: NDArray[np.float64], radius: float, angles: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radius and width of the edge along each direction; NaN where it is not on the detector."""
    reach = 1.6 * radius + 2
    radii = np.arange(0.4 * radius, reach, 1 / _STEPS)
    places = centre[:, None, None] + radii * np.stack([np.cos(angles), np.sin(angles)])[:, :, None]
    profiles = map_coordinates(mean, places, order=1, mode="constant", cval=np.nan)
    edges, widths = np.full(len(angles), np.nan), np.full(len(angles), np.nan)
    inside = radii < 0.8 * radius
    for number, profile in enumerate(profiles):
        known = np.isfinite(profile)
        outside = known & (radii > 1.2 * radius)
        if known[radii <= 1.15 * radius].all():
            top = np.nanmedian(profile[inside])
            bottom = np.median(profile[outside]) if outside.any() else 0.0
            crossings = [_last_fall(radii, profile, bottom + part * (top - bottom)) for part in (0.5, 0.75, 0.25)]
            edges[number], widths[number] = crossings[0], crossings[2] - crossings[1]
    return edges, widths


def _last_fall(radii: NDArray[np.float64], profile: NDArray[np.float64], level: float) -> float:
    """The outermost radius at which the profile falls through ``level``, between its points; NaN where it does not."""
    falls = np.nonzero((profile[:-1] >= level) & (profile[1:] < level))[0]
    if not len(falls):
        return math.nan
    at = falls[-1]
    return float(radii[at] + (profile[at] - level) / (profile[at] - profile[at + 1]) * (radii[1] - radii[0]))


def _fit_edges(angles: NDArray[np.float64], edges: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """r0, a1 (along y), b1 (x), a2, b2, and the standard error of r0; what lies far off is left out."""
    terms = np.stack([np.ones_like(angles), *(f(n * angles) for n in (1, 2) for f in (np.cos, np.sin))], axis=1)
    good = np.abs(edges - np.median(edges)) < max(1.0, 4 * 1.4826 * np.median(np.abs(edges - np.median(edges))))
    fit = np.linalg.lstsq(terms[good], edges[good], rcond=None)[0]
    left = edges[good] - terms[good] @ fit
    # Neighbouring directions see the same pixels: a quarter of them counts.
    return fit, float(np.std(left) / math.sqrt(max(1, good.sum() / 4)))
