"""What a montage shows, and the decisions on it: grey scale, scale bar, captions, columns. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis import greys
from ptydask.analysis.montage.picture_kinds import LOOKS, PictureKind, PictureLook
from ptydask.model import StudyMeta, TrialRecord
from ptydask.ranking import parameter_names
from ptydask.space.reshaping import step_near

CELL = LOOKS["phase"].cell
"""Width of a cell, inches."""
_MOST_PIXELS = 40_000_000
"""Of all images together: where they have more, they are averaged down to their cells."""
_REACH = 1.6
"""Nine of ten arrows are at most so many times as long as they are apart."""
_STRIP = range(4, 9)
"""Pictures of a trial in a row, where it has more than fit one."""


@dataclass(frozen=True)
class CellCircle:
    """A circle around a cell's centre; ``radius`` in the unit of its axes."""

    radius: float
    text: str = ""
    dashed: bool = False


@dataclass(frozen=True)
class CellArrows:
    """Arrows on a cell: ``starts`` from its upper left corner and ``shifts``, both (N, 2) as (y, x), angstrom."""

    starts: NDArray[np.float64]
    shifts: NDArray[np.float64]

    @property
    def lengths(self) -> NDArray[np.float64]:
        """(N,), angstrom."""
        return np.hypot(*self.shifts.T)


@dataclass(frozen=True)
class MontageCell:
    """What is in one cell. ``height`` and ``width`` are in ``axis_unit``; None where the pixel size is not known."""

    record: TrialRecord
    data: NDArray[Any]
    """(y, x)"""
    height: float | None
    width: float | None
    units: str = ""
    thumbnail: bool = False
    """Grey levels of a stand-in, each image's own; ``data`` is 1 to 255."""
    label: str = ""
    """Words in place of the trial's number: the iteration of a snapshot, a slice, a probe mode."""
    lines: tuple[str, ...] = ()
    """Lines of its caption below the error."""
    axis_unit: str = "angstrom"
    """``angstrom``; in reciprocal space ``1/angstrom`` or ``mrad``."""
    centre: tuple[float, float] | None = None
    """(y, x) of the circles' centre from the upper left corner."""
    circles: tuple[CellCircle, ...] = ()
    arrows: CellArrows | None = None


@dataclass(frozen=True)
class MontageSheet:
    """All pictures in their order, and why each trial that is missing is missing."""

    meta: StudyMeta
    what: PictureKind
    pictures: tuple[MontageCell, ...]
    lost: Mapping[int, str] = field(default_factory=dict)
    ranks: Mapping[int, int] = field(default_factory=dict)
    """Trial number -> its rank among all that completed."""
    reference: int | None = None
    """The trial that all others are compared with."""
    own_look: PictureLook | None = None
    """In place of what is usual for this kind."""

    @property
    def look(self) -> PictureLook:
        """How its pictures are drawn."""
        return self.own_look or LOOKS[self.what]


def missing_words(what: PictureKind) -> str:
    """What a trial without such a picture lacks."""
    if what == "difference":
        return "a difference to another trial"
    return "an image" if what == "phase" else f"a picture of its {what}" if what == "slices" else what


def columns_for(count: int, aspect: float = 1.0) -> int:
    """How many columns make a sheet of ``count`` cells, each ``aspect`` as high as wide, a little wider than high."""
    return max(1, min(count, round(math.sqrt(count * aspect * 1.3))))


def place_strips(pictures: Sequence[MontageCell], columns: int | None) -> tuple[int, list[int]]:
    """How many columns there are, and the place of each picture, where every trial begins a row of its own.

    Up to eight pictures of a trial are one row, more are several with as few gaps as can be.
    """
    counts: dict[int, int] = {}
    for picture in pictures:
        counts[picture.record.number] = counts.get(picture.record.number, 0) + 1
    longest = max(counts.values())
    if columns is None and longest in range(1, _STRIP.stop):
        columns = longest
    columns = min(longest, columns or min(_STRIP, key=lambda n: (-longest % n, -n)))
    places, first = list[int](), 0
    for count in counts.values():
        places += range(first, first + count)
        first += -(-count // columns) * columns
    return columns, places


def arrow_factor(pictures: Sequence[MontageCell]) -> int:
    """How many times their length arrows are drawn: 1, 2, 5, 10, ..., so that few reach beyond the next one."""
    factors: list[float] = []
    for picture in pictures:
        arrows = picture.arrows
        if arrows is not None and len(arrows.starts) and picture.height and picture.width:
            apart = math.sqrt(picture.height * picture.width / len(arrows.starts))
            factors.append(_REACH * apart / max(float(np.quantile(arrows.lengths, 0.9)), 1e-9))
    return int(step_near(min(max(1.0, min(factors, default=1.0)), 1e6)))


def colour_limits(pictures: Sequence[MontageCell], look: PictureLook) -> tuple[float, float]:
    """The values of the first and the last colour of a sheet: of arrows from 0 on, of differences around 0."""
    lengths = [picture.arrows.lengths for picture in pictures if picture.arrows is not None]
    if lengths and sum(map(len, lengths)):
        return 0.0, float(np.quantile(np.concatenate(lengths), 0.99))
    if look.scale == "0 to 1":
        return 0.0, 1.0
    low, high = sheet_grey_limits(pictures)
    if look.scale == "around 0":
        low, high = -max(-low, high), max(-low, high)
    return (0.0, high) if look.scale == "from 0" and high > 0 else (low, high)


def cell_pixels(count: int, dpi: float | None = None, cell: float = CELL) -> int:
    """How many pixels a cell can have across: what ``dpi`` gives, else so many that a picture opens everywhere."""
    return round(cell * dpi) if dpi else max(64, min(2000, math.isqrt(_MOST_PIXELS // max(1, count))))


def sheet_grey_limits(pictures: Sequence[MontageCell]) -> tuple[float, float]:
    """Black and white for all pictures, see :func:`ptydask.analysis.greys.shared_grey_limits`."""
    return greys.shared_grey_limits(
        greys.grey_limits(picture.data) for picture in pictures if not picture.thumbnail
    ) or (0.0, 1.0)


def scale_bar(width: float) -> float:
    """The longest of 1, 2, 5, 10, ... angstrom that is at most 0.35 of ``width``."""
    return step_near(0.35 * width)


def length_text(angstrom: float) -> str:
    """``5 Å``, ``2 nm``, ``1 µm``."""
    for least, unit in ((1e4, "µm"), (20.0, "nm")):
        if angstrom >= least:
            return f"{angstrom / {'µm': 1e4, 'nm': 10.0}[unit]:g} {unit}"
    return f"{angstrom:g} Å"


def varying_parameters(records: Sequence[TrialRecord]) -> tuple[list[str], dict[str, Any]]:
    """The parameters that differ among these trials, and name and value of those that all have alike."""
    names = parameter_names(records)
    values = {name: [record.params.get(name, ...) for record in records] for name in names}
    alike = {n: v[0] for n, v in values.items() if all(repr(value) == repr(v[0]) for value in v)}
    return [name for name in names if name not in alike], alike
