"""The progress of a run below a notebook's cell: one output, replaced as the run goes on."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from html import escape
from typing import Any, Protocol

from ptydask.formatting import duration_text, inert_text
from ptydask.model import RunSnapshot, TrialRecord, TrialState
from ptydask.progress.frame import BLOCKS, Line, finished_line, render_frame

_WIDTH, _HEIGHT = 110, 30
"""Characters and lines of the progress."""
_NOTICES = 40
"""The latest lines that stay above the progress."""
_PAUSE = 0.5
"""Seconds between two updates, at least: each one is a message to every open browser."""
_CSS = {"bold": "font-weight:bold", "dim": "opacity:.6", "yellow": "color:#b58900", "red": "color:#dc322f"}
_CSS |= {"green": "color:#2aa152", "cyan": "color:#2a9d8f", "magenta": "color:#c0399f"}


class DisplayHandle(Protocol):
    """What ``IPython.display.display`` gives back for an output that can be replaced."""

    def update(self, obj: Any) -> None:
        """Replace what is shown."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; IPython is not imported to find out."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class NotebookView:
    """See :class:`ptydask.driver.contract.View`."""

    def __init__(self) -> None:
        self._handle: DisplayHandle | None = None
        self._above: deque[Line] = deque(maxlen=_NOTICES)
        self._plan: list[Line] = []
        self._progress: list[Line] = []
        self._shown = float("-inf")

    def plan(self, lines: Sequence[str]) -> None:
        """Show the lines as they are."""
        self._plan = [((inert_text(line), ""),) for line in lines]
        self._show()

    def update(self, snapshot: RunSnapshot) -> None:
        """Show the run as it is now."""
        self._progress = render_frame(snapshot, _WIDTH, _HEIGHT, BLOCKS)
        if time.monotonic() - self._shown >= _PAUSE:
            self._show()

    def finished(self, record: TrialRecord, best: bool, snapshot: RunSnapshot) -> None:
        """A new best and a failure stay above the progress."""
        if best or record.state is TrialState.FAIL:
            self._above.append(((finished_line(record, best, snapshot), "green" if best else "red"),))
        self.update(snapshot)

    def notice(self, text: str) -> None:
        """Show the text above the progress, and leave it there."""
        self._above.extend(((inert_text(line), "yellow"),) for line in text.splitlines())
        self._show()

    def close(self, final: RunSnapshot | None = None) -> None:
        """Show how it ended."""
        if final is not None:
            self._progress = render_frame(final, _WIDTH, _HEIGHT, BLOCKS, over=f"took {duration_text(final.seconds)}")
        self._show()

    def _show(self) -> None:
        from IPython.display import HTML, display

        page = HTML(lines_html([*self._plan, *self._above, *self._progress]))
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)
        self._shown = time.monotonic()


def lines_html(lines: Sequence[Line]) -> str:
    """Lines with their styles as HTML in which every text is only text."""
    rows = ("".join(_span_html(text, style) for text, style in line) for line in lines)
    return f'<pre style="line-height:1.3">{"<br>".join(rows)}</pre>'


def _span_html(text: str, style: str) -> str:
    css = ";".join(_CSS[word] for word in style.split() if word in _CSS)
    return f'<span style="{css}">{escape(text)}</span>' if css else escape(text)
