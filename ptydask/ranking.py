"""Trials counted, put in order and ranked, by one rule for all who do: standard library only."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import StatisticsError, correlation, fmean
from typing import Any

from ptydask.model import Direction, TrialRecord, TrialState


@dataclass(frozen=True, slots=True)
class NoGain:
    """That a study ends once its last ``trials`` trials have not made its best error better by ``share`` of itself."""

    share: float
    trials: int


def count_states(states: Iterable[str]) -> dict[str, int]:
    """How many trials ended so: every state's word and a number, in the order in which states are always named."""
    counts = Counter(states)
    return {state.word: counts[state] for state in TrialState}


def parameter_names(records: Iterable[TrialRecord]) -> list[str]:
    """The parameters that some trial has, in the order of their appearance."""
    return list(dict.fromkeys(name for record in records for name in record.params))


def metric_names(records: Iterable[TrialRecord]) -> list[str]:
    """The metrics that some trial has, in the order of their appearance."""
    return list(dict.fromkeys(name for record in records for name in record.metrics))


def gradient_names(records: Iterable[TrialRecord]) -> list[str]:
    """The parameters in which some trial has a slope, in the order of their appearance."""
    return list(dict.fromkeys(name for record in records for name in record.gradient))


def in_order(
    records: Iterable[TrialRecord], value_of: Callable[[TrialRecord], Any], *, reverse: bool = False
) -> list[TrialRecord]:
    """The trials by a value of theirs, rising, ties by number; without one, or with NaN, last in either order."""
    keyed: list[tuple[tuple[int, Any], TrialRecord]] = []
    without_value: list[TrialRecord] = []
    for record in sorted(records, key=lambda record: record.number):
        value = value_of(record)
        if value is None or value != value:
            without_value.append(record)
        elif isinstance(value, int | float):
            keyed.append(((0, value), record))
        else:  # words after numbers, so that a mixed column has an order
            keyed.append(((1, str(value)), record))
    keyed.sort(key=lambda pair: pair[0], reverse=reverse)
    return [*(record for _, record in keyed), *without_value]


def is_better(a: float, b: float, direction: Direction) -> bool:
    """Whether error ``a`` is strictly better than ``b``."""
    return a < b if direction == "minimize" else a > b


def ranked(records: Iterable[TrialRecord], direction: Direction) -> list[TrialRecord]:
    """The completed trials, best error first, the earlier one on a tie.

    Pruned trials have no rank: their error is of fewer iterations. Nor has an error that is NaN.
    """
    return sorted(_ranking(records), key=_rank_key(direction))


def _ranking(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Those that have a rank."""
    return [r for r in records if r.state is TrialState.COMPLETE and r.error is not None and r.error == r.error]


def _rank_key(direction: Direction) -> Callable[[TrialRecord], tuple[float, int]]:
    sign = 1 if direction == "minimize" else -1
    return lambda record: (sign * (record.error or 0.0), record.number)


def best_of(records: Iterable[TrialRecord], direction: Direction) -> TrialRecord | None:
    """The first of :func:`ranked`; None when nothing completed."""
    return min(_ranking(records), key=_rank_key(direction), default=None)


def target_met(records: Iterable[TrialRecord], target: float | None, direction: Direction) -> TrialRecord | None:
    """The best completed trial, if it is as good as ``target``; None where it is not, or where there is no target."""
    best = None if target is None else best_of(records, direction)  # asked for after every trial
    if best is None or best.error is None or target is None or is_better(target, best.error, direction):
        return None
    return best


def lacks_gain(records: Iterable[TrialRecord], direction: Direction, no_gain: NoGain | None) -> bool:
    """Whether the last trials of a study have not made its best error better by what ``no_gain`` asks for.

    The last ones by number, whatever the order in which they were recorded; failed ones do not count. Never before
    there are as many after the first that completed; False where nothing is asked for.
    """
    if no_gain is None:
        return False
    counting = sorted((r for r in records if r.state is not TrialState.FAIL), key=lambda record: record.number)
    before = best_of(counting[: -no_gain.trials], direction)
    after = best_of(counting, direction)
    if before is None or after is None or before.error is None or after.error is None:
        return False
    if math.isinf(before.error):  # nothing can be better; or it diverged, and anything is
        return is_better(before.error, 0.0, direction)
    gain = (before.error - after.error) if direction == "minimize" else (after.error - before.error)
    return gain <= 0 or gain < no_gain.share * abs(before.error)


def why_none_is_best(metric: str, recorded: int, before: str = "") -> str:
    """Why no trial of a study is the best, for a message: none completed, or there is no ``metric`` to rank them by.

    ``before`` is the stage before this one, where it is one of several.
    """
    if metric:
        more = f" of this stage; --stage {shlex.quote(before)} is the one before" if before else ""
        return f"no trial has completed so far ({recorded} recorded){more}"
    return (
        f"no trial is the best ({recorded} recorded): the sweep names no metric, so trials are ranked by nothing; "
        "`ptydask ls FILE.h5 --sort NAME` orders them by any metric"
    )


def rank_correlation(a: list[float], b: list[float]) -> float:
    """Spearman's rank correlation, ties by their mean rank; 0 where one of them does not vary."""
    try:
        return correlation(_mean_ranks(a), _mean_ranks(b))
    except StatisticsError:
        return 0.0


def _mean_ranks(values: list[float]) -> list[float]:
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    return [fmean(places[value]) for value in values]
