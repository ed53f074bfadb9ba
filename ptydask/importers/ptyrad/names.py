"""The names of PtyRAD's files: what they say of a trial. Pure. How PtyRAD makes them: ``export.ptyrad_names``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ptydask.analysis.export.ptyrad_names import LONGEST
from ptydask.model import Scalar
from ptydask.space.tunables import LEGACY, PARAMETERS

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|[-+]?inf"
_KNOWN = "|".join(sorted({*PARAMETERS, *LEGACY}, key=len, reverse=True))
_PARAMETER = re.compile(rf"_(?:({_KNOWN})_([^_]+)|([A-Za-z]\w*?)_({_NUMBER}|True|False))(?=_|$)")
_COLLATED = re.compile(r"(?P<kind>.+?)_error_(?P<error>-?\d+\.\d{5}|nan|-?inf)_t(?P<number>\d{4,})(?P<rest>_.*)?")
_ITERATION = re.compile(r"_iter(\d{4,})$")
_SAVED = re.compile(r".+?_iter(\d{4,})")
_FOLDER = re.compile(r"(?:\d{6,}(?:_\d{6})?_)?t(\d{4,})(?:_.*)?")


@dataclass(frozen=True, slots=True)
class TrialName:
    """What the name of a file in a hypertune folder says."""

    kind: str
    """``model``, ``objp_zsum_crop_08bit``, ``probe_amp``, ``summary_loss`` ..."""
    number: int
    error: str
    """With five digits after the point."""
    params: Mapping[str, str] = field(default_factory=dict)
    """With three digits, learning rates with two; PtyRAD's own, perhaps old, names."""
    iteration: int | None = None
    """The last one that was done; None where the name was cut."""
    cut: bool = False
    """Whether parameters may be missing, as the name was too long."""


def trial_name(name: str) -> TrialName | None:
    """The name of a collated file; None for any other."""
    stem, _, suffix = name.rpartition(".")
    match = _COLLATED.fullmatch(stem)
    if match is None or not suffix:
        return None
    rest = match["rest"] or ""
    last = _ITERATION.search(rest)
    params: dict[str, str] = {}
    body = rest[: last.start()] if last else rest
    start = 0
    while parameter := _PARAMETER.match(body, start):
        params[parameter[1] or parameter[3]] = parameter[2] or parameter[4]
        start = parameter.end()
    # Without a whole iteration at its end, and as long as a name can be, it may have been cut anywhere.
    cut = last is None and len(name.encode()) >= LONGEST
    if cut and start == len(body) and params:
        params.popitem()  # the value that the cut went through
    if not cut and (last is None or start < len(body)):
        return None
    return TrialName(match["kind"], int(match["number"]), match["error"], params, int(last[1]) if last else None, cut)


def saved_iteration(name: str) -> int | None:
    """The iteration of ``model_iter0010.hdf5``, which lies in a trial's own folder; None for any other name."""
    match = _SAVED.fullmatch(name.rpartition(".")[0])
    return None if match is None or "_error_" in name else int(match[1])


def folder_number(name: str) -> int | None:
    """The number of the trial whose own folder this is: ``t0003_full_N64_...``; None for any other."""
    match = _FOLDER.fullmatch(name)
    return int(match[1]) if match else None


def parse_name_value(text: str) -> Scalar:
    """The value that a text in a name stands for, as far as it goes."""
    if re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)
    return number if math.isfinite(number) else text
