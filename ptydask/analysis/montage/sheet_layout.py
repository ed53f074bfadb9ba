"""What a montage shows, and the decisions on it: grey scale, scale bar, captions, columns. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from ptydask.analysis import greys
from ptydask.model import StudyMeta, TrialRecord
from ptydask.ranking import parameter_names

ImageSource = Literal["phase", "amplitude", "probe"]

CELL = 2.0
"""Width of a cell, inches."""
_MOST_PIXELS = 40_000_000
"""Of all images together: where they have more, they are averaged down to their cells."""


@dataclass(frozen=True)
class MontageCell:
    """What is in one cell. ``height`` and ``width`` are in angstrom; None where the pixel size is not known."""

    record: TrialRecord
    data: NDArray[Any]
    """(y, x)"""
    height: float | None
    width: float | None
    units: str = ""
    thumbnail: bool = False
    """Grey levels of a stand-in, each image's own; ``data`` is 1 to 255."""
    label: str = ""
    """Words in place of the trial's number: the iteration of a snapshot."""


@dataclass(frozen=True)
class MontageSheet:
    """All pictures in their order, and why each trial that is missing is missing."""

    meta: StudyMeta
    array: ImageSource
    pictures: tuple[MontageCell, ...]
    lost: Mapping[int, str] = field(default_factory=dict)
    ranks: Mapping[int, int] = field(default_factory=dict)
    """Trial number -> its rank among all that completed."""


def columns_for(count: int, aspect: float = 1.0) -> int:
    """How many columns make a sheet of ``count`` cells, each ``aspect`` as high as wide, a little wider than high."""
    return max(1, min(count, round(math.sqrt(count * aspect * 1.3))))


def cell_pixels(count: int, dpi: float | None = None) -> int:
    """How many pixels a cell can have across: what ``dpi`` gives, else so many that a picture opens everywhere."""
    return round(CELL * dpi) if dpi else max(64, min(2000, math.isqrt(_MOST_PIXELS // max(1, count))))


def sheet_grey_limits(pictures: Sequence[MontageCell]) -> tuple[float, float]:
    """Black and white for all pictures, see :func:`ptydask.analysis.greys.shared_grey_limits`."""
    return greys.shared_grey_limits(
        greys.grey_limits(picture.data) for picture in pictures if not picture.thumbnail
    ) or (0.0, 1.0)


def scale_bar(width: float) -> float:
    """The longest of 1, 2, 5, 10, ... angstrom that is at most 0.35 of ``width``."""
    power = 10.0 ** math.floor(math.log10(0.35 * width))
    return max(m * power for m in (1, 2, 5) if m * power <= 0.35 * width * (1 + 1e-9))


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
