"""The stages of a study, as the section ``ptydask`` of a file describes them: read, checked, put into a params file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ptydask.config.own_settings import OwnSettings
from ptydask.distributions import Distribution, FloatRange, IntRange
from ptydask.lineage import FINAL, StageLineage
from ptydask.model import ComponentSpec, Scalar
from ptydask.ranking import NoGain
from ptydask.space import ranges, reshaping
from ptydask.space.metrics import METRICS


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
    batch_size: int | None = None
    """Patterns in a batch: with a part of the scan, fewer make as many steps in an iteration."""
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


def find_step(dist: Distribution, around: Around) -> float | None:
    """The grid step that ``around`` counts in, ``dist`` being the range before; None where there is none."""
    if around.step is not None:
        return around.step
    return getattr(dist, "step", None)


def place_range(name: str, dist: Distribution, around: Around, best: Scalar) -> Distribution:
    """The range about ``best`` of the parameter ``name``, which had the range ``dist``.

    It is clipped to what the parameter may be. Raises ValueError where that range has no step to count, or ``best`` is
    no number.
    """
    step = find_step(dist, around)
    if step is None or not isinstance(dist, FloatRange | IntRange) or not ranges.is_number(best):
        raise ValueError(f"{name} has no range about {best!r}")
    low, high = best - around.steps * step, best + around.steps * step
    placed = reshaping.surround(dist, low, high, name, step=around.step)
    if placed.low <= best:
        return placed
    # The first value of the new steps that the parameter may have is beyond the best: they begin there.
    width = int(step) if isinstance(dist, IntRange) else step
    from_best = replace(dist, low=best, high=best + width, step=width)  # type: ignore[arg-type]
    return reshaping.surround(from_best, low, high, name)


def latest_ranges(stage: Stage, space: Mapping[str, Distribution]) -> dict[str, Distribution]:
    """The ranges that later stages count steps in, of what ``stage`` tunes: as its plan's ``space`` has them.

    What that leaves out, as it does nothing, has the range that was written.
    """
    written = {name: dist for name, dist in stage.tune.items() if dist is not None and not isinstance(dist, Around)}
    return {**written, **space}


_WRITTEN_TO: Mapping[str, tuple[str, ...]] = {
    "batch_size": ("recon_params.BATCH_SIZE",),
    "iterations": ("recon_params.NITER",),
    "scan": ("recon_params.INDICES_MODE", "recon_params.BATCH_SIZE"),
    "pixels": ("init_params.meas_crop", "init_params.meas_resample"),
    "metric": ("error_metric", "hypertune_params.error_metric", "ptydask.error_metric"),
    "trials": ("hypertune_params.n_trials",),
    "tune": ("the tuned parameters",),
    "sampler": ("hypertune_params.sampler_params",),
    "pruner": ("hypertune_params.pruner_params",),
}
"""Where in a params file a key of a stage takes effect, as messages name it."""


def key_in_stage(key: str, stage: Stage) -> str:
    """The key of ``stage`` that set what the params file, as it is for the stage, has at ``key``; empty for none."""
    prefix = "hypertune_params.tune_params."
    if key.startswith(prefix):
        name = key.removeprefix(prefix).partition(".")[0]
        return f"tune.{name}" if stage.tune.get(name) is not None else ""
    for own, places in _WRITTEN_TO.items():
        place = next((place for place in places if key == place or key.startswith((f"{place}.", f"{place}["))), None)
        if place is not None and getattr(stage, own) not in (None, "file", {}):
            return own + (key.removeprefix(place) if own in ("sampler", "pruner") else "")
    return ""


def settings_of_stage(own: OwnSettings, stage: Stage) -> OwnSettings:
    """What a stage says, and the study's own settings ``own`` where it says nothing.

    The final stage sees all of the data, and is scored by the loss where the study's metric would hold some out.
    """
    metric = stage.metric or own.error_metric
    if stage.is_final and metric is not None and metric in METRICS and METRICS[metric].held_out:
        metric = "loss"
    search = stage.search or (None if stage.sampler is None else "file") or own.search
    own = replace(own, error_metric=metric, search=search)
    if stage.until_settled is None:
        return own
    return replace(own, until_settled=stage.until_settled, no_gain=stage.no_gain)


def rehearse_stage(stages: tuple[Stage, ...], place: int, ranges_before: Mapping[str, Distribution]) -> StageInput:
    """The stage at ``place`` with a lineage as it might have one: of what was tuned before, the middle of its range."""
    stage, before = stages[place], stages[place - 1].name if place else ""
    lineage = StageLineage(
        name=stage.name,
        stages=tuple(other.name for other in stages),
        from_stage=before,
        from_trial=0 if before else None,
        values={name: ranges.middle(dist) for name, dist in ranges_before.items()},
        origins=dict.fromkeys(ranges_before, (before, 0)),
        start_stage=stage.start_from,
        start_trial=0 if stage.start_from else None,
    )
    return StageInput(stage, lineage, ranges_before)
