"""How all figures look, and how they are written: one place for colours, sizes and fonts."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ptydask.errors import one_line
from ptydask.model import TrialState

# Okabe and Ito, Color Universal Design: told apart by every kind of colour vision. Shapes differ as well.
BLUE, SKY, ORANGE, VERMILION, YELLOW = "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#F0E442"
GREEN, PURPLE = "#009E73", "#CC79A7"
INK, GREY, PALE = "#222222", "#666666", "#BBBBBB"
STATES = {TrialState.COMPLETE: BLUE, TrialState.PRUNED: ORANGE, TrialState.FAIL: VERMILION}
MARKERS = {TrialState.COMPLETE: "o", TrialState.PRUNED: "D", TrialState.FAIL: "x"}

DENSE = 2000
"""From this many points or lines on they are drawn as a picture, also in SVG and PDF."""
NAME_LENGTH = 28

_LOOK = {
    "font.size": 9,
    "font.family": ["DejaVu Sans"],
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 5),
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "image.cmap": "viridis",
    "svg.fonttype": "none",
    "svg.hashsalt": "ptydask",
    "pdf.fonttype": 42,
    "path.simplify_threshold": 0.2,
}
_GLYPH = "Glyph .* missing from font"


_SIZE: ContextVar[tuple[float, float] | None] = ContextVar("size", default=None)


@contextmanager
def style_context(size: tuple[float, float] | None = None) -> Iterator[None]:
    """Matplotlib's own defaults with this look, whatever the user's matplotlibrc says; as before afterwards.

    Figures that are made meanwhile have ``size`` (inches), where it is given, in place of their own.
    """
    token = _SIZE.set(size)
    defaults = {key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith(("backend", "date."))}
    with warnings.catch_warnings(), np.errstate(all="ignore"), mpl.rc_context():
        warnings.filterwarnings("ignore", _GLYPH)  # a name in a script that the font lacks has boxes for letters
        warnings.simplefilter("ignore", mpl.MatplotlibDeprecationWarning)
        mpl.rcParams.update({**defaults, **_LOOK})
        try:
            yield
        finally:
            _SIZE.reset(token)


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure of so many inches, unless another size was asked for, that leaves room for its labels.

    ``title`` says above it what it is, and is escaped already.
    """
    figure = Figure(figsize=_SIZE.get() or (width, height), layout="constrained")
    if title:
        figure.suptitle(_wrap_text(title, figure, 13), x=0.01, ha="left", fontsize=9)
    return figure


def text_figure(title: str, reason: str) -> Figure:
    """A figure of words, for where there is nothing to draw. ``title`` is escaped already."""
    figure = new_figure(6.4, 1.5)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_title(title)
    text = "\n".join(textwrap.wrap(escape_text(reason), 70))
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY, fontsize=10)
    return figure


def note(figure: Figure, remarks: Sequence[str]) -> None:
    """Small words below a figure: what a reader must know to read it rightly."""
    if text := " \N{MIDDLE DOT} ".join(escape_text(remark) for remark in remarks if remark):
        figure.supxlabel(_wrap_text(text, figure, 17), x=0.99, ha="right", fontsize=7, color=GREY)


def _wrap_text(text: str, figure: Figure, letters: int) -> str:
    """Lines as long as the figure is wide, at so many letters an inch."""
    return "\n".join(textwrap.wrap(one_line(text), max(10, int(figure.get_figwidth() * letters))))


def scatter_points(axes: Any, x: Any, y: Any, urls: Sequence[str] | None = None, **look: Any) -> None:
    """A scatter whose points lead to ``urls``, one each; those of a dense one cannot, as they become a picture."""
    points = axes.scatter(x, y, **look)
    if urls is not None and not look.get("rasterized"):
        points.set_urls(list(urls))


def draw_lines(axes: Any, lines: Any, urls: Sequence[str] | None = None, **look: Any) -> None:
    """Lines, each (points, 2), that lead to ``urls``, one each; those of a dense drawing cannot."""
    collection = LineCollection(lines, **look)
    if urls is not None and not look.get("rasterized"):
        collection.set_urls(list(urls))
    axes.add_collection(collection)


def mark_best(axes: Any, x: Any, y: Any, urls: Sequence[str] | None = None, **look: Any) -> None:
    """The best trial."""
    scatter_points(axes, x, y, urls, s=110, marker="*", color=YELLOW, edgecolors=INK, linewidths=0.8, zorder=6, **look)


def legend(axes: Any, *, above: float = 1.02, entry: float = 1.3, **options: Any) -> None:
    """The legend in lines above the axes, so that it never lies on the data; ``entry``: inches of an entry."""
    columns = max(1, min(5, int(axes.figure.get_figwidth() / entry)))
    padding = {"borderaxespad": 0.2, "borderpad": 0.2, "handletextpad": 0.4, "columnspacing": 1.4}
    drawn = axes.legend(loc="lower left", bbox_to_anchor=(0.0, above), ncols=columns, **padding, **options)
    for handle in drawn.legend_handles:
        handle.set_alpha(1.0)


def escape_text(text: str) -> str:
    """Text that Matplotlib takes letter by letter: no formulas, one line, control characters as ``?``."""
    printable = "".join(char if char.isprintable() else "?" for char in one_line(text))
    return printable.replace("$", r"\$")


def display_name(text: str, length: int = NAME_LENGTH) -> str:
    """A parameter's name to be shown: the middle of a long one is left out."""
    line = one_line(text)
    if len(line) > length:
        line = f"{line[: length * 2 // 3 - 1]}\N{HORIZONTAL ELLIPSIS}{line[-(length // 3) :]}"
    return escape_text(line)


def format_count(count: int, what: str) -> str:
    """``1 trial``, ``3 trials``, ``5,000 trials``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
