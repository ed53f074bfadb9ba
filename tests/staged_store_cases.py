"""Studies of several stages for the tests of the store and of what reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from store_cases import meta, output, put, record

from ptydask.lineage import StageLineage
from ptydask.model import StudyMeta
from ptydask.store import Store, reader
from ptydask.store.upkeep import staging

STAGES = ("dz", "scan", "final")
COUNTS = {"dz": 3, "scan": 2, "final": 1}
"""Trials of each stage."""


def stage_meta(name: str, stages: tuple[str, ...] = STAGES, **changes: Any) -> StudyMeta:
    """What a stage says of itself: its values are of the last trial of the stage before."""
    before = stages[: stages.index(name)]
    values = {stage: 1.5 + place for place, stage in enumerate(before)}
    lineage = StageLineage(
        name,
        stages,
        from_stage=before[-1] if before else "",
        from_trial=COUNTS.get(before[-1], 1) - 1 if before else None,
        values=values,
        origins={stage: (stage, 0) for stage in before},
    )
    return meta(f"tBL_WSe2 {name}", lineage=lineage, **changes)


def run_stage(path: Path, name: str, stages: tuple[str, ...] = STAGES, count: int | None = None) -> Path:
    """Begin the stage, where it is not the first, and run all of its trials."""
    if name != stages[0]:
        staging.begin_stage(path, stage_meta(name, stages))
    store = Store.open(path, stage_meta(name, stages))
    for number in range(COUNTS.get(name, 1) if count is None else count):
        put(store, stage_record(name, number, stages), output(number))
    return store.finish()


def stage_record(name: str, number: int, stages: tuple[str, ...] = STAGES) -> Any:
    """A trial that tells its stage."""
    return record(number, (stages.index(name) + 1) / (number + 3))


def staged(path: Path, stages: tuple[str, ...] = STAGES) -> Path:
    """A finished study of these stages."""
    for name in stages:
        run_stage(path, name, stages)
    return path


def read_stages(path: Path) -> dict[str, list[int]]:
    """The numbers of the trials of each stage that a reader finds, the latest last; every array of each is read."""
    found = {}
    with reader.open(path) as results:
        for name in results.stage_names():
            with results.stage(name) as stage:
                for made in stage.records():
                    assert made == stage_record(name, made.number, stage.meta.lineage.stages)  # type: ignore[union-attr]
                    for array in stage.trial(made.number).arrays.values():
                        array.read()
                found[name] = [made.number for made in stage.records()]
    return found


def arrays_kept(path: Path, name: str) -> list[int]:
    """The trials of a stage that have arrays."""
    with reader.open(path, stage=name) as stage:
        return [made.number for made in stage.records() if stage.trial(made.number).arrays]
