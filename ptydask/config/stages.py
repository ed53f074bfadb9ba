"""The stages of a study, as the section ``ptydask`` of a file describes them: read, checked, put into a params file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ptydask.lineage import StageLineage
from ptydask.model import ComponentSpec, Distribution, NoGain

FINAL = "final"
"""The name of the stage that reconstructs the whole scan once, with all that was found."""


@dataclass(frozen=True, slots=True)
class Around:
    """A range about the best value that an earlier stage found."""

    steps: float
    """So many of the range's grid steps to either side."""
    step: float | None = None
    """The new grid step; None for the one that the earlier range had."""


@dataclass(frozen=True, slots=True)
class ScanPart:
    """The scan positions of a cheap look: every so many in both directions, or a square in the centre."""

    every: int = 1
    center: int | None = None
    """Positions along either side of the square."""


@dataclass(frozen=True, slots=True)
class PatternPart:
    """The detector pixels of a cheap look."""

    crop: int | None = None
    """So many pixels in the middle, in either direction."""
    bin: int | None = None
    """So many pixels in either direction are added up."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage as it was written. None: as the file has it for the whole study."""

    name: str
    tune: Mapping[str, Distribution | Around | None] = field(default_factory=dict)
    """Parameter -> its range in this stage; None is the range that ``tune_params`` has. Empty: nothing is tuned."""
    trials: int | None = None
    """In total, whatever the number of workers."""
    metric: str | None = None
    iterations: int | None = None
    scan: ScanPart | None = None
    pixels: PatternPart | None = None
    sampler: ComponentSpec | None = None
    pruner: ComponentSpec | Literal["file"] | None = "file"
    """None: no trial is pruned."""
    search: Literal["auto", "file"] | None = None
    start_from: str = ""
    """The earlier stage whose best trial's reconstruction its trials start from; empty where they start anew."""
    until_settled: bool | None = None
    no_gain: NoGain | None = None

    @property
    def is_final(self) -> bool:
        """Whether it is the one that reconstructs the whole scan once, for the picture."""
        return self.name == FINAL


@dataclass(frozen=True, slots=True)
class StageInput:
    """A stage to be planned, and what it has from those before it."""

    stage: Stage
    lineage: StageLineage
    ranges: Mapping[str, Distribution] = field(default_factory=dict)
    """Of each parameter that an earlier stage tuned, the latest range: the steps that ``Around`` counts in."""
