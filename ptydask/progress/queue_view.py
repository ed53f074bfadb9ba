"""A queue of studies in one view: the frame of the first under way, the others in a line each, and a summary."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from ptydask.driver.contract import View
from ptydask.driver.queue import StudyEnd, label_studies
from ptydask.errors import ConfigError, explain_error
from ptydask.formatting import error_text, printable_text, shorten_text
from ptydask.model import TrialRecord
from ptydask.progress.frame import closing_line
from ptydask.run_snapshot import RunSnapshot


class QueueView:
    """Passes on what the studies of a queue tell, each from a thread of its own, to one view."""

    def __init__(self, view: View, names: Sequence[str]) -> None:
        self._view, self._names = view, names
        self._lock = threading.RLock()
        self._latest: dict[int, RunSnapshot] = {}
        self._ended: set[int] = set()
        self.views: tuple[View, ...] = tuple(_StudyView(self, place) for place in range(len(names)))
        """One for each study."""

    def plan(self, place: int, lines: Sequence[str]) -> None:
        """Print the lines with the study's name."""
        with self._lock:
            self._view.plan([f"{self._names[place]}: {line}" for line in lines])

    def update(self, place: int, snapshot: RunSnapshot) -> None:
        """Redraw, where this is the study that is shown."""
        with self._lock:
            self._latest[place] = snapshot
            if place == self._shown():
                self._view.update(self._of_queue(place))

    def finished(self, place: int, record: TrialRecord, best: bool, snapshot: RunSnapshot) -> None:
        """Tell of a trial, and which study it is of."""
        with self._lock:
            self._latest[place] = snapshot
            self._view.finished(record, best, self._of_queue(place))
            if (shown := self._shown()) is not None and shown != place:
                self._view.update(self._of_queue(shown))

    def notice(self, place: int, text: str) -> None:
        """Tell it with the study's name."""
        with self._lock:
            self._view.notice(f"{self._names[place]}: {text}")

    def close(self, place: int, final: RunSnapshot | None) -> None:
        """Tell how the study ended; the view stays open for the others."""
        with self._lock:
            if place not in self._ended:
                self._ended.add(place)
                if final is not None:
                    self._view.plan([closing_line(replace(final, study=self._names[place]))])

    def latest(self, place: int) -> RunSnapshot | None:
        """What a study told last; None where it told nothing."""
        return self._latest.get(place)

    def _shown(self) -> int | None:
        return min(self._latest.keys() - self._ended, default=None)

    def _of_queue(self, place: int) -> RunSnapshot:
        others = sorted({*range(len(self._names))} - {place}, key=lambda other: (other in self._ended, other))
        return replace(
            self._latest[place],
            queue=f"{place + 1} of {len(self._names)}: {self._names[place]}",
            others=tuple(map(self._line_of, others)),
        )

    def _line_of(self, place: int) -> str:
        """``gold-b: 12/60, 2 running, best 0.0123``, or how it ended, or that it waits."""
        snapshot, name = self._latest.get(place), self._names[place]
        if snapshot is None:
            return f"{name}: {'done' if place in self._ended else 'waits'}"
        words = [f"{snapshot.recorded}/{snapshot.total}"]
        words += ["done"] if place in self._ended else [f"{snapshot.counts.get('running', 0)} running"]
        words += [f"best {error_text(snapshot.best.error)}"] if snapshot.best is not None else []
        return f"{name}: {', '.join(words)}"


class _StudyView:
    """The view of one study of a queue."""

    def __init__(self, queue: QueueView, place: int) -> None:
        self._queue, self._place = queue, place

    def plan(self, lines: Sequence[str]) -> None:
        self._queue.plan(self._place, lines)

    def update(self, snapshot: RunSnapshot) -> None:
        self._queue.update(self._place, snapshot)

    def finished(self, record: TrialRecord, best: bool, snapshot: RunSnapshot) -> None:
        self._queue.finished(self._place, record, best, snapshot)

    def notice(self, text: str) -> None:
        self._queue.notice(self._place, text)

    def close(self, final: RunSnapshot | None = None) -> None:
        self._queue.close(self._place, final)


_LONGEST = 48
"""Characters of how a study ended."""
SUMMARY = ("study", "trials", "failed", "best", "results", "how it ended")
"""The columns of the summary."""


def summary_rows(ends: Sequence[StudyEnd]) -> list[tuple[str, ...]]:
    """One row of :data:`SUMMARY` for each study of a queue that is over."""
    labels = label_studies([end.prepared.plan for end in ends])
    return [_summary_row(label, end) for label, end in zip(labels, ends, strict=True)]


def _summary_row(label: str, end: StudyEnd) -> tuple[str, ...]:
    plan, last = end.prepared.plan, end.last
    if last is None:
        return (label, f"0/{end.total}", "-", "-", "-", _ending(end))
    best = error_text(last.best.error) if last.best else "-"
    failed = str(end.outcome.failed if end.outcome else last.counts.get("failed", 0))
    stage = f"stage {last.stage}: " if last.stage else ""
    return (label, f"{last.recorded}/{last.total}", failed, best, str(plan.results), stage + _ending(end))


def _ending(end: StudyEnd) -> str:
    if end.stopped:
        return "not begun" if end.error is None else "stopped"
    if end.error is not None:
        return shorten_text(printable_text(_reason(end.error)), _LONGEST)  # all of it was told when the study ended
    if end.outcome is None:
        return "nothing left to do"
    if not end.outcome.complete:
        return "its time is over"
    return "SQLite study behind" if end.outcome.behind else "complete"


def _reason(error: BaseException) -> str:
    return error.rule if isinstance(error, ConfigError) else explain_error(error)
