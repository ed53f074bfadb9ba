"""Which trials keep their arrays when a file is made smaller: pure, from the trials' own numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ptydask.errors import UsageError, nearest_hint, shorten
from ptydask.model import Direction, TrialRecord
from ptydask.ranking import best_of, is_better, ranked

WORDS = ("all", "none", "best:K", "improvements", "every:N")


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """A trial keeps its arrays where any of these says so."""

    everything: bool = False
    best: int | None = None
    """The first so many of the ranking; 0 says that the best trial may lose its arrays."""
    improvements: bool = False
    """Trials that were the best so far when they ended."""
    every: int | None = None
    """Trials whose number this divides: the same ones when the file is packed again with more trials."""

    def __str__(self) -> str:
        parts = ["all"] if self.everything else []
        parts += [f"best:{self.best}"] if self.best is not None else []
        parts += ["improvements"] if self.improvements else []
        parts += [f"every:{self.every}"] if self.every else []
        return ",".join(parts) or "none"


ALL = RetentionRule(everything=True)
NONE = RetentionRule()


def parse(text: str) -> RetentionRule:
    """``best:20,improvements,every:50`` and the like. Raises UsageError."""
    if text.strip() in ("all", "none"):
        return ALL if text.strip() == "all" else NONE
    best = every = None
    improvements = False
    for part in (part.strip() for part in text.split(",")):
        word, colon, number = part.partition(":")
        if part == "improvements":
            improvements = True
        elif word == "best" and colon:
            best = _parse_count(part, number, least=0)
        elif word == "every" and colon:
            every = _parse_count(part, number, least=1)
        elif part in ("all", "none"):
            raise UsageError(f"--arrays {shorten(text)}: {part!r} stands alone")
        else:
            hint = nearest_hint(f"{word}:" if colon else word, ("best:", "improvements", "every:", "all", "none"))
            raise UsageError(f"--arrays {shorten(text)}: unknown {part!r}; {hint or 'known: ' + ', '.join(WORDS)}")
    return RetentionRule(best=best, improvements=improvements, every=every)


def _parse_count(part: str, number: str, least: int) -> int:
    if not (number.isdecimal() and number.isascii() and int(number) >= least):
        raise UsageError(f"--arrays {part}: a whole number from {least} on is needed after the colon")
    return int(number)


def kept_trials(rule: RetentionRule, records: Sequence[TrialRecord], direction: Direction) -> frozenset[int]:
    """The numbers of the trials that keep their arrays, where they have any."""
    if rule.everything:
        return frozenset(record.number for record in records)
    kept = {record.number for record in ranked(records, direction)[: rule.best or 0]}
    if rule.improvements:
        kept |= improvements(records, direction)
    if rule.every:
        kept |= {record.number for record in records if record.number % rule.every == 0}
    return frozenset(kept)


def forgets_the_best(rule: RetentionRule, records: Sequence[TrialRecord], direction: Direction) -> bool:
    """Whether the best trial loses its arrays although nobody said ``none`` or ``best:0``."""
    best = best_of(records, direction)
    if best is None or rule == NONE or rule.best == 0:
        return False
    return best.number not in kept_trials(rule, records, direction)


def improvements(records: Iterable[TrialRecord], direction: Direction) -> set[int]:
    """The completed trials that were better than all that had ended before them."""
    numbers: set[int] = set()
    best: float | None = None
    for record in sorted(ranked(records, direction), key=lambda r: (_end_time(r), r.number)):
        if record.error is not None and (best is None or is_better(record.error, best, direction)):
            best = record.error
            numbers.add(record.number)
    return numbers


def _end_time(record: TrialRecord) -> float:
    """Seconds since 1970; minus infinity where the record does not say: the number then decides."""
    try:
        return (datetime.fromisoformat(record.started) + timedelta(seconds=record.seconds)).timestamp()
    except (ValueError, OverflowError):
        return float("-inf")
