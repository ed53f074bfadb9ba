"""Lines on a terminal that are redrawn in place, in a window of any size."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from ptydask.formatting import encodable_text, inert_text, unicode_ready, window_size, wrap_line
from ptydask.progress.frame import ASCII, BLOCKS, Line, text_of

if TYPE_CHECKING:
    from rich.text import Text

LinesFor = Callable[[int, int], list[Line]]
"""The lines for a window of so many columns and lines."""


class Screen:
    """The lines at the bottom of a terminal. No method raises when the terminal has gone away."""

    def __init__(self, stream: IO[str], environ: Mapping[str, str]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._stream = stream
        self.glyphs = BLOCKS if unicode_ready(stream, environ) else ASCII
        self._console = Console(
            file=stream,
            force_terminal=True,
            no_color=bool(environ.get("NO_COLOR")),
            highlight=False,
            markup=False,
            emoji=False,
        )
        # Whatever else writes to stderr while the lines are up appears above them, not through them.
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=stream is sys.stderr,
            vertical_overflow="crop",
        )
        self._width = 0
        self._drawn: list[int] = []
        self._closed = False

    def draw(self, lines_for: LinesFor) -> None:
        """Put the lines in the place of those drawn before."""
        if self._closed:
            return
        with suppress(OSError, ValueError):
            width, height = self._fit_window()
            # One column and one line less than there are: no terminal wraps or scrolls then.
            lines = lines_for(max(10, width - 1), max(3, height - 1))
            self._live.start()
            self._live.update(styled(lines, self._stream), refresh=True)
            self._drawn = [len(text_of(line)) for line in lines]

    def above(self, lines: Iterable[str], style: str = "") -> None:
        """Print lines that stay, above those that are redrawn."""
        for text in lines:
            with suppress(OSError, ValueError):
                width, _ = self._fit_window()
                lines_of_text = [((line, style),) for line in wrap_line(inert_text(text.rstrip()), max(10, width - 1))]
                self._console.print(styled(lines_of_text, self._stream), soft_wrap=True)

    def close(self) -> None:
        """Leave the lines as they are and show the cursor again. Harmless when called twice."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError, ValueError):
            self._live.stop()

    def _fit_window(self) -> tuple[int, int]:
        """Take the window's size; clear what a window made narrower has wrapped of the lines on it."""
        from rich.console import ConsoleDimensions
        from rich.control import Control
        from rich.segment import ControlType

        width, height = window_size(self._stream)
        if self._drawn and width < self._width:
            extra = sum(max(1, math.ceil(length / width)) - 1 for length in self._drawn)
            for _ in range(extra):
                self._console.control(Control((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)))
            # Whatever is printed next redraws them, cropped.
            self._drawn = [min(length, width) for length in self._drawn]
        self._width = width
        self._console.size = ConsoleDimensions(width, height)
        return width, height


def styled(lines: Sequence[Line], stream: IO[str]) -> Text:
    """Lines as rich's text, with ``?`` for what the stream cannot encode."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop")
    for i, line in enumerate(lines):
        text.append("\n" if i else "")
        for piece, style in line:
            text.append(encodable_text(piece, stream), style or None)
    return text


def can_redraw(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether ``stream`` is a terminal on which lines can be redrawn."""
    return not stream.closed and stream.isatty() and environ.get("TERM", "") not in ("", "dumb", "unknown")
