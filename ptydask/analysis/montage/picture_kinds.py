"""What can be shown of a trial, and how each kind is to be drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ptydask.errors import UsageError, nearest_hint

PictureKind = Literal[
    "phase", "amplitude", "slices", "spectrum", "probe", "modes", "probe-reciprocal", "positions", "difference"
]
SYNONYMS: Mapping[str, PictureKind] = {"object": "phase"}


@dataclass(frozen=True)
class PictureLook:
    """How the pictures of one kind are drawn."""

    words: str
    """What is shown, above the pictures."""
    note: str = ""
    """What a reader must know of the colour scale, below them."""
    colours: str = "gray"
    """Matplotlib's name of the colour map."""
    cell: float = 2.0
    """Width of a picture, inches."""
    strip: bool = False
    """A trial has several pictures, and a row, or some, of its own."""
    scale: Literal["percentiles", "from 0", "0 to 1", "around 0"] = "percentiles"
    """Where the colours begin and end."""
    pale: bool = False
    """Words and bars on the picture are dark."""
    every_scale: bool = False
    """Each picture has its scale bar, or what its rings are; else the first of a row, for all of it."""


LOOKS: Mapping[PictureKind, PictureLook] = {
    "phase": PictureLook("phase, summed over depth", "phase less each image's median"),
    "amplitude": PictureLook("amplitude of the object, mean over depth"),
    "slices": PictureLook("phase of each slice", "phase less each slice's median", strip=True),
    "spectrum": PictureLook("power spectrum of the phase, summed over depth, Hann window", cell=3.0),
    "probe": PictureLook(
        "amplitude of the probe, all modes", "square root of intensity, in the units of the patterns as normalised"
    ),
    "modes": PictureLook("amplitude of each probe mode, and its share of the intensity", strip=True, scale="0 to 1"),
    "probe-reciprocal": PictureLook("amplitude of the probe in reciprocal space, all modes", cell=3.0, scale="from 0"),
    "positions": PictureLook("where the positions were refined to", colours="viridis", cell=4.5, pale=True),
    "difference": PictureLook(
        "difference of the phase, summed over depth", colours="RdBu_r", cell=3.0, scale="around 0", pale=True
    ),
}


def parse_kind(name: str) -> PictureKind:
    """The kind of that name or synonym. Raises UsageError, with the nearest, where there is none."""
    for kind in get_args(PictureKind):
        if kind == SYNONYMS.get(name, name):
            return kind
    raise UsageError(f"there is no picture {name!r} of a trial; {nearest_hint(name, LOOKS)}")
