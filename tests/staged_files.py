"""Studies of several stages, as small results files, for the tests of whoever reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import store_cases

from ptydask.lineage import StageLineage
from ptydask.model import Scalar, StudyMeta, TrialRecord
from ptydask.store import Store, reader
from ptydask.store.upkeep.staging import begin_stage

NAMES = ("dz", "scan", "final")
RANGES: Mapping[str, tuple[float, float]] = {"dz": (8.0, 20.0), "scale": (0.9, 1.1), "rotation": (-4.0, 4.0)}
TUNED: Mapping[str, tuple[str, ...]] = {"dz": ("dz",), "scan": ("scale", "rotation"), "final": ()}
BEST = {"dz": 2, "scan": 3, "final": 0}
"""The best trial of each stage; the values of those of ``dz`` and ``scan`` are those of :data:`FOUND`."""
FOUND: Mapping[str, float] = {"dz": 15.25, "scale": 1.02, "rotation": -1.5}


def lineage(stage: str, names: Sequence[str] = NAMES) -> StageLineage:
    """What a stage has from those before it, as a run would say."""
    before = names[: names.index(stage)]
    origins = {parameter: (name, BEST[name]) for name in before for parameter in TUNED[name]}
    return StageLineage(
        stage,
        tuple(names),
        from_stage=before[-1] if before else "",
        from_trial=BEST[before[-1]] if before else None,
        values={parameter: FOUND[parameter] for parameter in origins},
        origins=origins,
        start_stage="scan" if stage == "final" else "",
        start_trial=BEST["scan"] if stage == "final" else None,
    )


def space_json(stage: str) -> str:
    """The stage's search space in Optuna's words."""
    space = {
        name: {
            "name": "FloatDistribution",
            "attributes": dict(zip(("low", "high"), RANGES[name], strict=True)) | {"step": None, "log": False},
        }
        for name in TUNED[stage]
    }
    return json.dumps(space)


def meta(stage: str, **changes: Any) -> StudyMeta:
    """A stage of the study ``demo``; the metric of ``scan`` is the contrast."""
    metric = {"metric": "contrast", "direction": "maximize"} if stage == "scan" else {}
    return store_cases.meta(
        f"demo {stage}", **{"search_space_json": space_json(stage), "lineage": lineage(stage), **metric, **changes}
    )


def records(stage: str) -> list[TrialRecord]:
    """Its trials, :data:`BEST` among them."""
    if stage == "final":
        return [store_cases.record(0, 0.01, params={}, metrics={"loss": 0.01, "contrast": 0.5})]
    made = []
    for number in range(BEST[stage] + 2):
        off = abs(number - BEST[stage])
        params: dict[str, Scalar] = {name: FOUND[name] + 0.25 * off for name in TUNED[stage]}
        metrics = {"loss": 0.02 + 0.01 * off, "contrast": 0.4 - 0.05 * off}
        made.append(store_cases.record(number, metrics[meta(stage).metric], params=params, metrics=metrics))
    return made


def staged(path: Path, stages: Sequence[str] = NAMES, metas: Mapping[str, StudyMeta] | None = None) -> Path:
    """A file in which these stages are finished; ``metas`` stand in place of :func:`meta`."""
    described = {stage: (metas or {}).get(stage) or meta(stage) for stage in stages}
    for place, (stage, about) in enumerate(described.items()):
        if place:
            begin_stage(path, about)
        store = Store.open(path, about)
        for record in records(stage):
            store_cases.put(store, record, store_cases.output(record.number))
        store.finish()
        store.close()
    with reader.open(path) as results:
        assert results.stage_names() == tuple(stages)
    return path
