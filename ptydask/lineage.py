"""What a stage of a study has from the stages before it: frozen dataclasses, no more than NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ptydask.model import Scalar

if TYPE_CHECKING:
    from numpy.typing import NDArray

FINAL = "final"
"""The name of the stage that reconstructs the whole scan once, with all that was found."""


@dataclass(frozen=True, slots=True)
class StageLineage:
    """Which stage of several a study is, and what it has from those before it."""

    name: str
    stages: tuple[str, ...]
    """The names of all stages, in their order."""
    from_stage: str = ""
    """The stage whose best trial it goes on from; empty for the first stage."""
    from_trial: int | None = None
    """The number of that trial."""
    values: Mapping[str, Scalar] = field(default_factory=dict)
    """What the stages before it found, by parameter: its trials have these values, unless they tune them."""
    origins: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """The stage and the trial that each of these values is of."""
    start_stage: str = ""
    """The stage whose best trial's reconstruction its trials start from; empty where they start anew."""
    start_trial: int | None = None
    """The number of that trial."""

    @property
    def number(self) -> int:
        """Its place among the stages, counted from 1."""
        return self.stages.index(self.name) + 1

    @property
    def place(self) -> str:
        """``2 of 4: scan``: which stage it is, for a person."""
        return f"{self.number} of {len(self.stages)}: {self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class TrialStart:
    """A reconstruction that trials start from: what the results file holds of one trial."""

    stage: str
    trial: int
    arrays: Mapping[str, NDArray[Any]]
    """By their names in the results file."""
    attributes: Mapping[str, Scalar]
    """The trial's facts there: pixel size, scan affine and others, see ``engines/ptyrad/kept_arrays.geometry``."""
    sha256: str
    """Of all of it."""
    params: Mapping[str, Scalar] = field(default_factory=dict)
    """The value that the trial had of everything that its engine can tune, tuned or not."""
