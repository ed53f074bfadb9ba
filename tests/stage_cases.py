"""A study in stages for tests: its params file, and what of it must not depend on when it was killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ptydask.ranking import best_of
from ptydask.store import reader

SCALES = [0.9, 1.0, 1.1, 1.2]
ROTATIONS = [-2.5, -1.0, 0.5, 2.0, 3.0]
"""No two of them as good as each other."""


def grid(**values: list[float]) -> dict[str, Any]:
    return {"name": "GridSampler", "configs": {"search_space": values}}


def write_staged(
    toy_params: Callable[..., Path], stages: list[dict[str, Any]] | None = None, final: Any = ..., **toy: object
) -> Path:
    """A params file of three stages and the final one, all of them grids: their trials are known beforehand."""
    path = toy_params(**toy)
    params = yaml.safe_load(path.read_text())
    params["ptydask"] = {
        "stages": stages
        or [
            {"name": "rough", "tune": ["scale"], "trials": len(SCALES), "sampler": grid(scale=SCALES)},
            {"name": "turn", "tune": ["rotation"], "trials": len(ROTATIONS), "sampler": grid(rotation=ROTATIONS)},
            {"name": "again", "tune": ["scale"], "trials": 3, "sampler": grid(scale=SCALES[:3])},
        ],
        "final": {"iterations": 2} if final is ... else final,
    }
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return path


def summarise(results: Path) -> list[dict[str, Any]]:
    """Every stage without the trials' numbers, which a kill may change: a trial that is tried again has another.

    Asserts that each goes on from the best trial of the one before it, and that every trial can be read.
    """
    told: list[dict[str, Any]] = []
    with reader.open(results) as file:
        best: dict[str, int] = {}
        for name in file.stage_names():
            with file.stage(name) as stage:
                records, lineage = stage.records(), stage.meta.lineage
                assert lineage is not None
                assert lineage.name == name
                assert lineage.from_trial == best.get(lineage.from_stage)
                assert all(best[origin] == number for origin, number in lineage.origins.values())
                for record in records:
                    assert stage.trial(record.number).record.params == record.params
                top = best_of(records, stage.meta.direction)
                assert top is not None
                best[name] = top.number
                told.append(
                    {
                        "name": name,
                        "trials": sorted((sorted(r.params.items()), r.error, r.state.value) for r in records),
                        "best": dict(top.params),
                        "values": dict(lineage.values),
                        "origins": {name: origin for name, (origin, _) in lineage.origins.items()},
                        "stages": lineage.stages,
                    }
                )
    return told
