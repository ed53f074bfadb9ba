"""Two images of the same region: where one lies on the other, and their difference without a constant. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis.reciprocal_space import hann_window
from ptydask.errors import import_optional
from ptydask.model import Image

Array = NDArray[np.float64]

_SPLINE = 5
"""Order of the splines between pixels: at half of the highest frequency a part in a thousand off."""
_PASSES = 8
_MIDDLE = 1024
"""Pixels along a side that say where two images fit: more would say no more."""
_NEAR = 1e-3
"""Pixels: a shift this small is none."""
_BORDER = 4
"""Pixels along the borders of an image in which a spline through it is not to be trusted."""
_SAME = 1e-6
"""Pixel sizes that differ by no more than this part of them are one."""
_FARTHEST = 0.25
"""Of a side: two images of one scan lie no farther apart."""


@dataclass(frozen=True, slots=True)
class ImageDifference:
    """One image less another, where both are."""

    image: Image
    """On the axes of the first; units are theirs."""
    shift: tuple[float, float]
    """(y, x) in the unit of the axes: how far the other's content lay beyond the first's."""
    constant: float
    """What was taken off: the mean of the difference, since a phase has no zero."""
    correlation: float
    """Pearson's coefficient of the two, 1 where they differ by a factor and a constant alone; NaN of a flat image."""
    resampled: bool
    """The other had pixels of another size, and was interpolated on the first's."""

    @property
    def rms(self) -> float:
        """The root of the mean square of the difference."""
        return float(np.sqrt(np.mean(np.square(self.image.data, dtype=np.float64))))

    def removed(self) -> str:
        """What was done to the other image before the difference was taken, in words."""
        unit = {"angstrom": "Å"}.get(self.image.axis_units, self.image.axis_units)
        y, x = (f"{round(value, 3) + 0:g}" for value in self.shift)
        parts = [f"shift (y, x) = ({y}, {x}) {unit}", f"mean {self.constant:.2g} {self.image.units}".rstrip()]
        if self.resampled:
            parts.append("another pixel size")
        return f"taken out: {', '.join(parts)}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where one image lies on another: pixel i of the first is at ``offset + ratio * i`` of the other."""

    ratios: Array
    """(y, x): pixel sizes of the first over those of the other."""
    offset: Array
    """(y, x) in pixels of the other, to parts of one."""
    start: Array
    """The offset that the axes alone say."""

    @property
    def alike(self) -> bool:
        """Whether the pixels of both have one size."""
        return bool(np.abs(self.ratios - 1).max() < _SAME)


def align_images(first: Image, other: Image) -> Alignment:
    """Where ``other`` lies on ``first``: where the correlation of the two is highest, near where their axes say.

    Of a perfect lattice, which fits itself at every period, a small shift. Raises ValueError for images without axes,
    with NaN, or that have less than 4 pixels in common; MissingDependency without SciPy.
    """
    ndimage = import_optional("scipy.ndimage", "the difference of two images needs", "analysis", "scipy")
    a, b = _finite_values(first), _finite_values(other)
    return _align(ndimage, a, ndimage.spline_filter(b, _SPLINE), first, other)


def subtract_images(first: Image, other: Image) -> ImageDifference:
    """``first`` less ``other``, after ``other`` was moved onto it by parts of a pixel and the mean was taken off.

    Their axes say where both are, to a quarter of a side; their pixels may differ in size. The shift and the errors
    raised are those of :func:`align_images`.
    """
    ndimage = import_optional("scipy.ndimage", "the difference of two images needs", "analysis", "scipy")
    a, b = _finite_values(first), _finite_values(other)
    spline = ndimage.spline_filter(b, _SPLINE)
    place = _align(ndimage, a, spline, first, other)
    offset = place.offset
    whole = place.alike and bool(np.abs(offset - np.round(offset)).max() < _NEAR)
    offset = np.round(offset) if whole else offset
    region, mine, theirs = _overlap(ndimage, a, spline, place.ratios, offset)
    if not whole:
        region, mine, theirs = _without_border(region, mine, theirs)
    difference = mine - theirs
    constant = float(difference.mean())
    part = Image(
        difference - constant,
        first.y[region[0]],
        first.x[region[1]],
        first.units,
        first.axis_units,
        "difference of two trials",
    )
    with np.errstate(all="ignore"):
        correlation = float(np.corrcoef(mine.ravel(), theirs.ravel())[0, 1])
    y, x = ((offset - place.start) * _pixel_sizes(other)).tolist()
    return ImageDifference(part, (y, x), constant, correlation, not place.alike)


def _align(ndimage: Any, a: Array, spline: Array, first: Image, other: Image) -> Alignment:
    pixels, others = _pixel_sizes(first), _pixel_sizes(other)
    start = (_first_pixel(first) - _first_pixel(other)) / others
    place = Alignment(pixels / others, start, start)
    offset = np.round(start) if place.alike else start.copy()
    for step in range(_PASSES):
        _, mine, theirs = _overlap(ndimage, a, spline, place.ratios, offset, _MIDDLE)
        residual = _locate_peak(mine, theirs)
        if step and np.abs(residual).max() < _NEAR:
            break
        # By whole pixels at first: the windows then lie on the same part of both, and pull the peak no more to 0.
        offset += place.ratios * (residual if step else np.round(residual))
    return replace(place, offset=offset)


def _finite_values(image: Image) -> Array:
    values = np.asarray(image.data, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("an image has values that are no numbers")
    return values


def _pixel_sizes(image: Image) -> Array:
    """Along y and x, from the axes."""
    if min(image.data.shape) < 2 or (len(image.y), len(image.x)) != image.data.shape:
        raise ValueError("an image without axes, or of a single pixel, cannot be compared")
    return np.array([(axis[-1] - axis[0]) / (len(axis) - 1) for axis in (image.y, image.x)], dtype=np.float64)


def _first_pixel(image: Image) -> Array:
    return np.array([image.y[0], image.x[0]], dtype=np.float64)


def _overlap(
    ndimage: Any, a: Array, spline: Array, ratios: Array, offset: Array, most: int | None = None
) -> tuple[tuple[slice, slice], Array, Array]:
    """The part of ``a`` that ``b`` has too, and ``b`` there; with ``most``, so many pixels in the middle of it.

    Pixel i of ``a`` is at ``offset + ratio * i`` of ``b``, of which ``spline`` are the coefficients.
    """
    sizes, others = np.array(a.shape), np.array(spline.shape)
    first = np.maximum(0, np.ceil(-offset / ratios - 1e-9)).astype(int)
    last = np.minimum(sizes - 1, np.floor((others - 1 - offset) / ratios + 1e-9)).astype(int)
    if (last - first < 3).any():
        raise ValueError("the two images have next to nothing in common")
    if most is not None:
        spare = np.maximum(0, last - first + 1 - most)
        first, last = first + spare // 2, last - (spare - spare // 2)
    rows, columns = (slice(int(low), int(high) + 1) for low, high in zip(first, last, strict=True))
    mine = a[rows, columns]
    theirs = ndimage.affine_transform(
        spline,
        ratios,
        offset + ratios * first,
        output_shape=mine.shape,
        order=_SPLINE,
        mode="mirror",
        prefilter=False,
    )
    return (rows, columns), mine, theirs


def _without_border(
    region: tuple[slice, slice], mine: Array, theirs: Array
) -> tuple[tuple[slice, slice], Array, Array]:
    """The three without what splines make of the borders, as far as there is enough left."""
    cuts = [min(_BORDER, (size - 4) // 2) for size in mine.shape]
    inner = tuple(slice(cut, size - cut) for cut, size in zip(cuts, mine.shape, strict=True))
    rows, columns = (slice(part.start + cut, part.stop - cut) for part, cut in zip(region, cuts, strict=True))
    return (rows, columns), mine[inner], theirs[inner]


def _locate_peak(a: Array, b: Array) -> Array:
    """(y, x) in pixels by which the content of ``b`` lies beyond that of ``a``: the peak of their correlation.

    Between pixels it is the vertex of a parabola through the highest value and its neighbours.
    """
    window = hann_window(a.shape)
    transforms = [np.fft.rfft2(window * (image - image.mean())) for image in (a, b)]
    correlation = np.fft.irfft2(np.conj(transforms[0]) * transforms[1], s=a.shape)
    distances = [np.fft.fftfreq(size, 1 / size) for size in a.shape]
    near = np.logical_and.outer(
        *(np.abs(d) <= max(1, _FARTHEST * size) for d, size in zip(distances, a.shape, strict=True))
    )
    peak = np.unravel_index(int(np.where(near, correlation, -np.inf).argmax()), a.shape)
    place = np.zeros(2)
    for axis, index in enumerate(peak):
        line = np.take(correlation, peak[1 - axis], axis=1 - axis)
        left, top, right = (float(line[(index + step) % len(line)]) for step in (-1, 0, 1))
        bend = left - 2 * top + right
        place[axis] = distances[axis][index] + (float(np.clip((left - right) / bend / 2, -0.5, 0.5)) if bend < 0 else 0)
    return place
