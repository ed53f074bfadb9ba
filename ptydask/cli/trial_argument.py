"""Which trial of a results file is meant: a number, or ``best``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ptydask.cli import arguments
from ptydask.errors import StoreError, UsageError, nearest_number
from ptydask.model import TrialRecord
from ptydask.ranking import ranked, why_none_is_best

if TYPE_CHECKING:
    from ptydask.store.reader import Results, TrialData


def parse_trial(text: str) -> int | str:
    """A trial's number, or ``best``, for argparse."""
    number = arguments.digits(text)
    if number is None and text != "best":
        raise argparse.ArgumentTypeError(f"{text!r} is neither a trial's number nor 'best'")
    return text if number is None else number


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--trial N|best`` for a command about one trial."""
    parser.add_argument(
        "--trial", type=parse_trial, default="best", metavar="N|best", help="which trial (default: best)"
    )


def find_trial(which: int | str, results: Results) -> TrialRecord:
    """The trial that is meant. Raises UsageError, which names the nearest, and StoreError where none completed."""
    if which == "best":
        return completed_trials(results)[0]
    by_number = {record.number: record for record in results.records()}
    if which not in by_number:
        raise UsageError(f"{results.path}: {absence_text(int(which), by_number.values())}")
    return by_number[int(which)]


def read_trial(which: int | str, results: Results) -> TrialData:
    """Everything about the trial that is meant. Raises what :func:`find_trial` raises."""
    return results.trial(find_trial(which, results).number)


def completed_trials(results: Results) -> list[TrialRecord]:
    """The completed trials, the best first. Raises StoreError where there is none."""
    records = results.records()
    completed = ranked(records, results.meta.direction)
    if not completed:
        before = "" if results.lineage is None else results.lineage.from_stage
        raise StoreError(f"{results.path}: {why_none_is_best(results.meta.metric, len(records), before)}")
    return completed


def absence_text(number: int, records: Iterable[TrialRecord]) -> str:
    """For an error's text: what became of trial ``number``, of which there is no record."""
    numbers: list[int] = []
    retries: dict[int, int] = {}
    for record in records:
        numbers.append(record.number)
        if record.retry_of is not None:
            retries[record.retry_of] = record.number
    later: list[int] = []
    attempt = number
    while attempt in retries:
        attempt = retries.pop(attempt)  # each once, whatever the file says
        later.append(attempt)
    if later:
        return f"trial {number} was interrupted and tried again as trial {', then '.join(map(str, later))}"
    return f"there is no trial {number}; {nearest_number(number, numbers)}"
