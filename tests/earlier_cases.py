"""Studies to start from, and plans that start from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from store_cases import meta, record

from ptydask.distributions import Distribution, FloatRange
from ptydask.driver.earlier import EarlierStudy
from ptydask.model import OWN_VALUES, TRIED, Budget, ComponentSpec, Point, Scalar, SourceFile, StudyPlan
from ptydask.store import reader

SPACE: dict[str, Distribution] = {"scale": FloatRange(0.9, 1.1, 0.02), "rotation": FloatRange(-4.0, 4.0, 0.5)}


def plan(space: Mapping[str, Distribution] = SPACE, **changes: Any) -> StudyPlan:
    given: dict[str, Any] = {
        "name": "s",
        "source": SourceFile(Path("p.yaml"), "", "yaml"),
        "engine": "toy",
        "config": {"init_params": {}},
        "space": dict(space),
        "metric": "loss",
        "direction": "minimize",
        "sampler": ComponentSpec("RandomSampler"),
        "pruner": None,
        "budget": Budget(20),
        "storage": None,
        "results": Path("new.h5"),
        "seed": 3,
        "points": (Point(dict.fromkeys(space, 1.0), OWN_VALUES),),
    }
    return StudyPlan(**{**given, **changes})


def earlier(
    points: list[dict[str, Scalar]], name: str = "last.h5", values: Mapping[str, Scalar] | None = None, **changes: Any
) -> EarlierStudy:
    """A study whose trials had these points, the best first."""
    trials = tuple(record(number, 0.1 * (number + 1), params=point) for number, point in enumerate(points))
    given: dict[str, Any] = {"engine": "toy", "config_json": '{"init_params": {}}', **changes}
    return EarlierStudy(Path(name), name, meta(**given), trials, values or {})


def at(scale: float, rotation: float) -> dict[str, Scalar]:
    return {"scale": scale, "rotation": rotation}


def first(of: StudyPlan) -> list[tuple[str, dict[str, Scalar]]]:
    """What is tried before the sampler chooses, apart from the file's own values and a person's guesses."""
    return [(point.origin, dict(point.params)) for point in of.points if point.origin not in (OWN_VALUES, TRIED)]


def points_taken(results: Path, stage: str = "") -> dict[str, Mapping[str, Scalar]]:
    """Of the trials that began at an earlier study's point: origin and point."""
    with reader.open(results, stage) as study:
        return {r.origin: r.params for r in study.records() if r.origin.startswith("from ")}
