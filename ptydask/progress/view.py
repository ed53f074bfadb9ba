"""The progress of a run while one looks on: a live view on a terminal, lines in a log file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO

from ptydask.driver.contract import View
from ptydask.formatting import duration_text, encodable_text, fit_text, inert_text
from ptydask.model import TrialRecord, TrialState
from ptydask.progress.frame import closing_line, finished_line, heartbeat_line, render_frame
from ptydask.progress.notebook_view import NotebookScreen, in_notebook
from ptydask.progress.screen import Screen, can_redraw
from ptydask.run_snapshot import RunSnapshot

HEARTBEAT = 60.0
"""Seconds between two lines that say a run is alive."""


def make_view(
    stream: IO[str],
    *,
    terminal: bool | None = None,
    clock: Callable[[], float] = time.monotonic,
    environ: Mapping[str, str] | None = None,
) -> View:
    """A view of a run on ``stream``: live where it is a terminal that can redraw, else lines."""
    env = os.environ if environ is None else environ
    live = can_redraw(stream, env) if terminal is None else terminal
    return LiveView(Screen(stream, env)) if live else LogView(stream, clock)


def python_view(stream: IO[str]) -> View:
    """A view of a run that Python code started: below the cell in a notebook, else on ``stream``."""
    return LiveView(NotebookScreen()) if in_notebook() else make_view(stream)


class LogView:
    """One line a finished trial and one a minute; nothing that a log file cannot hold."""

    def __init__(self, stream: IO[str], clock: Callable[[], float]) -> None:
        self._stream, self._clock = stream, clock
        self._due = clock() + HEARTBEAT
        self._closed = False

    def plan(self, lines: Sequence[str]) -> None:
        """Write the lines as they are."""
        for line in lines:
            self._write_line(line)

    def update(self, snapshot: RunSnapshot) -> None:
        """Write a line when a minute has gone by."""
        now = self._clock()
        if now >= self._due:
            self._due = now + HEARTBEAT
            self._write_line(heartbeat_line(snapshot))

    def finished(self, record: TrialRecord, best: bool, snapshot: RunSnapshot) -> None:
        """Write the trial's line."""
        self._write_line(finished_line(record, best, snapshot))

    def notice(self, text: str) -> None:
        """Write the text, line by line."""
        for line in text.splitlines():
            self._write_line(line)

    def close(self, final: RunSnapshot | None = None) -> None:
        """Write the closing line."""
        if final is not None and not self._closed:
            self._write_line(closing_line(final))
        self._closed = True

    def _write_line(self, line: str) -> None:
        # A study of days does not end because its log cannot be written: disk full, terminal gone.
        with suppress(OSError, ValueError):
            text = fit_text(inert_text(line.rstrip()), self._stream)
            self._stream.write(encodable_text(f"{text}\n", self._stream))
            self._stream.flush()


class LiveView:
    """A frame that is redrawn in place. New best trials, failures and notices stay above it."""

    def __init__(self, screen: Screen | NotebookScreen) -> None:
        self._screen = screen

    def plan(self, lines: Sequence[str]) -> None:
        """Print the lines as they are."""
        self._screen.above(lines)

    def update(self, snapshot: RunSnapshot, *, over: str = "") -> None:
        """Redraw the frame; ``over`` says in its last line how a run has ended."""
        glyphs = self._screen.glyphs
        self._screen.draw(lambda width, height: render_frame(snapshot, width, height, glyphs, over=over))

    def finished(self, record: TrialRecord, best: bool, snapshot: RunSnapshot) -> None:
        """Redraw; a new best and a failure also stay on the screen."""
        if best or record.state is TrialState.FAIL:
            self._screen.above([finished_line(record, best, snapshot)], "green" if best else "red")
        self.update(snapshot)

    def notice(self, text: str) -> None:
        """Print the text above the frame."""
        self._screen.above(text.splitlines(), "yellow")

    def close(self, final: RunSnapshot | None = None) -> None:
        """Leave the last frame on the screen, that of ``final`` where given, and show the cursor."""
        if final is not None:
            self.update(final, over=f"took {duration_text(final.seconds)}")
        self._screen.close()
