"""Whether two studies are of the same microscope settings: pure comparisons of what their configurations say.

Of a params file of PtyRAD these are the settings which rotation, scale, aberrations and calibration hang on: voltage,
convergence angle, calibration, detector, scan step, the scan affine and the aberrations that the file begins with. Not
the data, the part of them that is taken, the number of scan positions, the specimen (slices, thickness, tilts), or how
it is reconstructed.

Of a sweep it is the program, or the function, and what is measured of it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ptydask.driver.comparability import brief_text
from ptydask.model import Scalar
from ptydask.space import ranges, tunables

DEFOCUS = ("C10", "z_shift")
"""What is set anew from one data set to the next, in a series of defocus or by hand, while all else stays as it is."""
_SETTINGS = (
    *("probe_illum_type", "probe_kv", "beam_kev", "probe_dRn", "probe_Rn", "probe_D_H", "probe_D_FZP", "probe_Ls"),
    *("meas_Npix", "meas_permute", "meas_flipT", "pos_scan_flipT", "pos_scan_step_size"),
)
"""Keys of ``init_params`` that are the microscope's, and are compared as they are written."""
_MEASURED = (
    *("conv_angle", "dx"),
    *(name for name in tunables.PROBE if name[0] == "C" and name not in DEFOCUS),
    *tunables.AFFINE,
)
"""PtyRAD's tunable parameters that are the microscope's: an earlier study may have found them."""
_DEFAULTS = {"probe_illum_type": "electron", "meas_flipT": [0, 0, 0], "pos_scan_flipT": [0, 0, 0]}
_ROUNDED = 1e-3
"""Relative difference of values that are one value, written with fewer digits."""
_NEAR = 1e-2
"""The same of a value that was found, as somebody writes it into the next file."""

Difference = tuple[str, object, object]
"""Dotted key or name, the earlier value, the value here."""


def first_difference(
    old: Mapping[str, Any], new: Mapping[str, Any], best: Mapping[str, Scalar], found: Collection[str] = ()
) -> str:
    """``init_params.probe_kv 300 (here 80)``: the first setting of the microscope that differs; "" where none does.

    ``old`` and ``new`` are configurations of one engine, with the values that their files began with. A value that the
    ``best`` trial of the earlier study had is no difference: somebody wrote it into the new file. ``found`` are
    parameters whose value in ``new`` is no longer the file's. Defocus does not count, see :func:`differing_defocus`.
    Raises ValueError, TypeError, KeyError or AttributeError where a configuration is none.
    """
    differences = _compare_params if "init_params" in new else _compare_programs
    for name, before, now in differences(old, new, best, found):
        return f"{name} {_text(before)} (here {_text(now)})"
    return ""


def differing_defocus(
    old: Mapping[str, Any], new: Mapping[str, Any], best: Mapping[str, Scalar], found: Collection[str] = ()
) -> dict[str, str]:
    """Which of :data:`DEFOCUS` the two files give other values, and in words; as :func:`first_difference` has it."""
    if "init_params" not in new or "init_params" not in old:
        return {}
    differences = _compare_values(old, new, DEFOCUS, best, found)
    return {name: f"{name} {_text(before)} (here {_text(now)})" for name, before, now in differences}


def _compare_params(
    old: Mapping[str, Any], new: Mapping[str, Any], best: Mapping[str, Scalar], found: Collection[str]
) -> Iterator[Difference]:
    before, now = old["init_params"], new["init_params"]
    for key in _SETTINGS:
        values = _written(before, key), _written(now, key)
        if not _is_same(*values, _ROUNDED):
            yield f"init_params.{key}", *values
    modes = _calibration_mode(before), _calibration_mode(now)
    if modes[0] != modes[1] and "fitRBF" in modes and "dx" not in {*best, *found}:  # one is known after the fit alone
        yield "init_params.meas_calibration.mode", *modes
    yield from _compare_values(old, new, _MEASURED, best, found)


def _written(init: Mapping[str, Any], key: str) -> object:
    value = init.get(key)
    return _DEFAULTS.get(key) if value is None else value


def _calibration_mode(init: Mapping[str, Any]) -> object:
    return (init.get("meas_calibration") or {}).get("mode", "fitRBF")


def _compare_values(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    names: Collection[str],
    best: Mapping[str, Scalar],
    found: Collection[str],
) -> Iterator[Difference]:
    """Parameters whose value in the new file is neither the earlier file's nor what the earlier study found."""
    for name in names:
        before, now = tunables.current_value(old, name), tunables.current_value(new, name)
        known = name in found or (name in best and _is_same(best[name], now, _NEAR))
        if not known and not _is_same(before, now, _ROUNDED):
            yield name, before, now


def _compare_programs(
    old: Mapping[str, Any], new: Mapping[str, Any], best: Mapping[str, Scalar], found: Collection[str]
) -> Iterator[Difference]:
    programs = _program_of(old), _program_of(new)
    if programs[0] != programs[1]:
        yield "program", *programs


def _program_of(config: Mapping[str, Any]) -> object:
    """What a sweep runs: its function, else its program, with the folder, else the whole command."""
    if target := config["engine"].get("callable"):
        return target
    if program := config.get("program"):
        return os.path.normpath(Path(config.get("directory") or "") / program)
    return config.get("command")


def _is_same(before: object, now: object, tolerance: float) -> bool:
    if ranges.is_number(before) and ranges.is_number(now):
        return math.isclose(before, now, rel_tol=tolerance, abs_tol=1e-9)
    return before == now


def _text(value: object) -> str:
    return "nothing" if value is None else brief_text(value)
