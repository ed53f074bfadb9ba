"""What Optuna wrote into PtyRAD's log: the exact values of trials whose study was kept in memory only. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from ptydask.model import Scalar

_LINE = re.compile(
    r"(?:(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ - )?.*?\bTrial (?P<number>\d+) "
    r"(?:(?P<finished>finished) with value: (?P<value>\S+) and parameters: (?P<params>\{.*?\})\. Best is trial"
    r"|(?P<pruned>pruned)\."
    r"|failed with (?:parameters|value).*?(?: because of the following error: (?P<why>.*?)\.?)?$)"
)


@dataclass(frozen=True, slots=True)
class LoggedTrial:
    """One line about a trial."""

    number: int
    state: str
    """COMPLETE, PRUNED or FAIL."""
    value: float | None = None
    params: Mapping[str, Scalar] | None = None
    why: str = ""
    """Of a failed one."""
    ended: datetime | None = None


def parse_log(lines: Iterable[str]) -> Iterator[LoggedTrial]:
    """What each of the ``lines`` tells that tells how a trial ended."""
    for line in lines:
        match = _LINE.match(line.rstrip("\r\n")) if "Trial " in line else None
        if match is None:
            continue
        number = int(match["number"])
        ended = datetime.fromisoformat(match["time"]).astimezone() if match["time"] else None
        if match["finished"]:
            outcome = _parse_finished(match["value"], match["params"])
            if outcome is not None:
                yield LoggedTrial(number, "COMPLETE", *outcome, ended=ended)
        elif match["pruned"]:
            yield LoggedTrial(number, "PRUNED", ended=ended)
        else:
            yield LoggedTrial(number, "FAIL", why=match["why"] or "", ended=ended)


def _parse_finished(value: str, params: str) -> tuple[float, Mapping[str, Scalar]] | None:
    try:
        parsed = ast.literal_eval(params)
        return (float(value), parsed) if isinstance(parsed, dict) else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
