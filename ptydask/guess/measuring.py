"""A params file's patterns from reading them to the table of guesses."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptydask.guess import disk, mass, parallax_guesses, patterns, report, table
from ptydask.guess.disk import Disk
from ptydask.guess.geometry import Geometry, read_geometry
from ptydask.guess.parallax import ParallaxFit
from ptydask.guess.patterns import PatternSample
from ptydask.guess.report import Report


@dataclass(frozen=True, slots=True)
class Measured:
    """A report and what it is from."""

    geometry: Geometry
    sample: PatternSample
    disk: Disk | None
    report: Report
    parallax: ParallaxFit | None = None
    """What was fitted, whether it is trusted or not."""


def has_parallax() -> bool:
    """Whether fast-acbf is installed, which :func:`guess_params` needs for parallax."""
    return importlib.util.find_spec("fast_acbf") is not None


def guess_params(init: Mapping[str, Any], *, parallax: bool = False) -> Measured:
    """Everything that can be guessed of the patterns that ``init_params`` names; no reconstruction.

    With ``parallax`` what the images of single pixels tell as well, which takes ten seconds or more and fast-acbf.
    Raises MissingDependency without that package, ConfigError for a geometry that the section does not state, DataError
    for patterns that cannot be read.
    """
    geometry = read_geometry(init)
    sample = patterns.read_patterns(init, geometry)
    measured = disk.measure_disk(sample.mean)
    turn = mass.measure_rotation(sample.mass, sample.dark if sample.dark.any() else None)
    guesses = [
        *table.guess_by_disk(measured, geometry),
        *table.guess_by_mass(turn, geometry, measured, dark_tells=table.tells_twin(sample.dark, sample.total)),
    ]
    fit = None
    if parallax:
        more, fit = parallax_guesses.guess_by_parallax(sample, measured, geometry, init)
        guesses += more
    reconciled, disagreements = report.reconcile(guesses)
    warnings = *report.list_warnings(reconciled, measured, sample, geometry), *disagreements
    facts = table.list_facts(sample, measured, geometry)
    return Measured(geometry, sample, measured, Report(reconciled, warnings, tuple(facts)), fit)


_KNOWN: dict[str, Report] = {}


def report_once(init: Mapping[str, Any], *, parallax: bool = False) -> Report:
    """The report of :func:`guess_params`, made once in this process of the same section and the same file."""
    path = Path(init["meas_params"]["path"])
    key = json.dumps([_said_of_patterns(init), parallax, _identity(path)], sort_keys=True, default=str)
    if key not in _KNOWN:
        _KNOWN[key] = guess_params(init, parallax=parallax).report
    return _KNOWN[key]


def _said_of_patterns(init: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in init.items() if name.startswith(("meas_", "pos_", "probe_", "obj_"))}


def _identity(path: Path) -> tuple[str, int, int]:
    """Of a file, that changes with it; also of one that is not there."""
    try:
        stat = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path.resolve()), stat.st_mtime_ns, stat.st_size
