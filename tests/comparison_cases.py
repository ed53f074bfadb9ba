"""Studies for comparisons, without files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import store_cases

from ptydask.analysis.comparison import StudyComparison
from ptydask.analysis.study_best import StudyBest
from ptydask.comparing import with_differing_settings
from ptydask.model import Optimum

DATA = {"data": "/data/one/scan.h5", "data_sha256": "aa" * 32}
CONFIG = {
    "init_params": {"probe_kv": 80, "pos_scan_affine": [1.03, 0.0, -2.0, 0.0], "random_seed": 1},
    "recon_params": {"NITER": 20},
}
SPACE = json.dumps({"scale": {}, "rotation": {}})


def study(name: str = "a.h5", error: float | None = 0.5, tuned: str = SPACE, **changes: Any) -> StudyBest:
    """One study; no trial has completed where there is no ``error``."""
    confirmation = changes.pop("confirmation", None)
    said = {"config_json": json.dumps(CONFIG), "search_space_json": tuned, "provenance": DATA, **changes}
    params = dict.fromkeys(json.loads(tuned), 0.98)
    best = None if error is None else store_cases.record(1, error, params=params)
    problem = "no trial has completed" if error is None else ""
    return StudyBest(Path.cwd() / name, store_cases.meta(**said), 3, best, confirmation, problem=problem)


def compare(*studies: StudyBest) -> StudyComparison:
    return StudyComparison(studies)


def compare_settings(*configs: str) -> StudyComparison:
    """Of studies a.h5, b.h5, ... with these configurations."""
    studies = [study(f"{letter}.h5", config_json=config) for letter, config in zip("abcdefg", configs, strict=False)]
    return StudyComparison(tuple(with_differing_settings(studies)))


def with_optimum(name: str, at_edge: tuple[str, ...] = (), **optima: tuple[float, float]) -> StudyBest:
    """A study with these optima, and their standard deviations."""
    centers = {parameter: pair[0] for parameter, pair in optima.items()}
    optimum = Optimum(centers, {parameter: pair[1] for parameter, pair in optima.items()}, 1, True)
    return replace(study(name), optimum=optimum, at_edge=frozenset(at_edge))


def with_niter(count: int, **more: Any) -> str:
    return json.dumps({**CONFIG, "recon_params": {"NITER": count}, **more})
