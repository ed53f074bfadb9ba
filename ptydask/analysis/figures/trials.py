"""What of the trials can be drawn: numbers as arrays, and words for what cannot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import style
from ptydask.model import Direction, TrialRecord, TrialState
from ptydask.ranking import count_states


@dataclass(frozen=True)
class TrialErrors:
    """Trials of one state that have an error: ``numbers`` (N,), ``errors`` (N,), both by number."""

    records: tuple[TrialRecord, ...]
    numbers: NDArray[np.int64]
    errors: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.records)


def with_error(data: StudyData, *states: TrialState) -> TrialErrors:
    """The trials in one of these states (none given: completed) whose error is a finite number."""
    wanted = states or (TrialState.COMPLETE,)
    records = tuple(r for r in data.records if r.state in wanted and _has_error(r))
    return TrialErrors(
        records,
        np.array([r.number for r in records], dtype=np.int64),
        np.array([r.error for r in records], dtype=float),
    )


def completed(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Those that completed with a finite error."""
    return [record for record in records if record.state is TrialState.COMPLETE and _has_error(record)]


def _has_error(record: TrialRecord) -> bool:
    return record.error is not None and math.isfinite(record.error)


def best(data: StudyData) -> TrialRecord | None:
    """The completed trial with the best finite error; None when nothing completed."""
    complete = with_error(data)
    return complete.records[best_first(complete.errors, data.meta.direction)[0]] if len(complete) else None


def study_title(data: StudyData) -> str:
    """The study's name, for the beginning of a title."""
    return style.display_name(data.meta.name, 36)


def counts_text(records: Iterable[TrialRecord]) -> str:
    """``30 trials: 12 complete, 17 pruned, 1 failed``."""
    tally = count_states(record.state for record in records)
    told = ", ".join(f"{count:,} {word}" for word, count in tally.items() if count)
    total = style.format_count(sum(tally.values()), "trial")
    return f"{total}: {told}" if told else total


def without_error(data: StudyData) -> str:
    """How many completed or pruned trials have no finite error, in words; "" where all have one."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    count = sum(r.state in states for r in data.records) - len(with_error(data, *states))
    return f"{style.format_count(count, 'trial')} without a finite error not shown" if count else ""


def nothing_complete(data: StudyData) -> str | None:
    """Why there are no completed trials to draw, in words; None where there are some."""
    if len(with_error(data)):
        return None
    if not data.records:
        return "No trial has ended so far."
    return f"No trial has completed with a finite error so far ({counts_text(data.records)})."


def best_so_far(errors: NDArray[np.float64], direction: Direction) -> NDArray[np.float64]:
    """(N,): the best of the errors up to each."""
    pick = np.minimum if direction == "minimize" else np.maximum
    return np.asarray(pick.accumulate(errors)) if len(errors) else errors


def best_first(errors: NDArray[np.float64], direction: Direction) -> NDArray[np.int64]:
    """The order of the errors, best first, the earlier one on a tie."""
    return np.argsort(errors if direction == "minimize" else -errors, kind="stable")


def parameter_values(records: Sequence[TrialRecord], name: str) -> list[Any]:
    """Each trial's value of a parameter; ``...`` where it has none."""
    return [record.params.get(name, ...) for record in records]


def urls(numbers: Iterable[int], link: Any) -> list[str] | None:
    """The URL of each trial, for ``set_urls``; None without ``link``."""
    return None if link is None else [link(int(number)) for number in numbers]
