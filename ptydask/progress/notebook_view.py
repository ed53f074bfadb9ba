"""The progress of a run below a notebook's cell: one output, replaced as the run goes on."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING

from ptydask.formatting import inert_text
from ptydask.progress.frame import BLOCKS, Line
from ptydask.progress.screen import LinesFor

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

_WIDTH, _HEIGHT = 110, 30
"""Characters and lines of the progress."""
_NOTICES = 40
"""The latest lines that stay above the progress."""
_PAUSE = 0.5
"""Seconds between two updates, at least: each one is a message to every open browser."""
_CSS = {"bold": "font-weight:bold", "dim": "opacity:.6", "yellow": "color:#b58900", "red": "color:#dc322f"}
_CSS |= {"green": "color:#2aa152", "cyan": "color:#2a9d8f", "magenta": "color:#c0399f"}


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; IPython is not imported to find out."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class NotebookScreen:
    """What :class:`ptydask.progress.screen.Screen` is on a terminal, below a notebook's cell."""

    glyphs = BLOCKS

    def __init__(self) -> None:
        self._handle: DisplayHandle | None = None
        self._plan: list[Line] = []
        self._notices: deque[Line] = deque(maxlen=_NOTICES)
        self._progress: list[Line] = []
        self._displayed = float("-inf")

    def draw(self, lines_for: LinesFor) -> None:
        """Put the lines in the place of those drawn before, unless that was a moment ago."""
        self._progress = lines_for(_WIDTH, _HEIGHT)
        if time.monotonic() - self._displayed >= _PAUSE:
            self._display()

    def above(self, lines: Iterable[str], style: str = "") -> None:
        """Show lines that stay, above those that are redrawn: those without a style, the plan's, for good."""
        kept = self._notices if style else self._plan
        kept.extend(((inert_text(line), style),) for line in lines)
        self._display()

    def close(self) -> None:
        """Show the last lines that were drawn."""
        self._display()

    def _display(self) -> None:
        from IPython.display import HTML, display

        page = HTML(lines_html([*self._plan, *self._notices, *self._progress]))
        with suppress(Exception):  # whatever the kernel's connection raises: no study ends because nobody looks
            if self._handle is None:
                self._handle = display(page, display_id=True)
            else:
                self._handle.update(page)
        self._displayed = time.monotonic()


def lines_html(lines: Sequence[Line]) -> str:
    """Lines with their styles as HTML in which every text is only text."""
    rows = ("".join(_span_html(text, style) for text, style in line) for line in lines)
    return f'<pre style="line-height:1.3">{"<br>".join(rows)}</pre>'


def _span_html(text: str, style: str) -> str:
    css = ";".join(_CSS[word] for word in style.split() if word in _CSS)
    return f'<span style="{css}">{escape(text)}</span>' if css else escape(text)
