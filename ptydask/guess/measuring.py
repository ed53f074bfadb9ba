"""A params file's patterns from reading them to the table of guesses."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ptydask.guess import disk, mass, parallax_guesses, patterns, table
from ptydask.guess.disk import Disk
from ptydask.guess.parallax import ParallaxFit
from ptydask.guess.patterns import Geometry, PatternSample
from ptydask.guess.table import Report


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
    geometry = patterns.read_geometry(init)
    sample = patterns.read_patterns(init, geometry)
    measured = disk.measure_disk(sample.mean)
    dark = sample.dark if sample.dark.any() else None
    turn = mass.measure_rotation(sample.mass, dark)
    guesses = [
        *table.guess_by_disk(measured, geometry),
        *table.guess_by_mass(turn, geometry, dark_seen=dark is not None),
    ]
    fit = None
    if parallax:
        more, fit = parallax_guesses.guess_by_parallax(sample, measured, geometry, init)
        guesses += more
    warnings = table.list_warnings(guesses, measured, sample, geometry)
    facts = table.list_facts(sample, measured, geometry)
    return Measured(geometry, sample, measured, Report(tuple(guesses), warnings, tuple(facts)), fit)
