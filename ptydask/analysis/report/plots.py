"""The study's figures as pictures within a page: SVG whose points lead to the trials, WebP where one would be large."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ptydask.analysis import figures
from ptydask.analysis.data import StudyData
from ptydask.analysis.forks import shared_with_forks
from ptydask.analysis.report import pictures

_LARGEST = 1_500_000
"""Characters of SVG from which on a figure becomes a picture: a browser is slow with tens of thousands of elements."""
_COLUMN = 8.5
"""Inches; a wider figure does not fit half of the page."""
_TITLES = {
    "history": "Every trial",
    "progress": "The best so far, over time",
    "curves": "Curves",
    "importance": "Importance of the parameters",
    "slice": "One parameter at a time",
    "profile": "What is as good within luck",
    "contour": "Two parameters at a time",
    "slopes": "Slopes, and where they lead",
    "parallel": "All parameters of every trial",
    "metrics": "Do the metrics agree?",
    "frc": "Fourier ring correlation",
    "timeline": "Workers",
}


def trial_anchor(number: int) -> str:
    """The address of a trial within the page."""
    return f"#trial-{number}"


@contextmanager
def drawn_meanwhile(study: StudyData, *, of_page: bool) -> Iterator[Callable[[], list[dict[str, str]]]]:
    """Begin every figure that these trials suffice for on other cores; what is yielded waits for them, and gives them.

    Each has ``kind``, ``title``, ``about``, ``markup`` in HTML, and ``size``: "wide" for a figure that wants the whole
    width of the page, else ""; the wide ones come last. Where the trials are not those ``of_page``, but of another
    stage, their marks lead nowhere, and the titles name the stage.

    Raises MissingDependency without Matplotlib.
    """
    kinds = figures.drawable_kinds(study)
    with shared_with_forks(lambda k: _draw_kind(kinds[k], study, of_page=of_page), len(kinds)) as drawn:
        yield lambda: sorted(drawn(), key=lambda plot: plot["size"])


def _draw_kind(kind: str, study: StudyData, *, of_page: bool) -> dict[str, str]:
    about = figures.KINDS[kind]
    figure = figures.draw(kind, study, link=trial_anchor if of_page else None)
    size = "wide" if figure.get_figwidth() > _COLUMN else ""
    markup = figure_markup(figure, kind, about)
    of_stage = "" if of_page or study.meta.lineage is None else f", stage {study.meta.lineage.name}"
    every = kind == "history" and len(study.stages) > 1  # it is of all of them
    title = f"{_TITLES.get(kind, kind)}{', stage by stage' if every else of_stage}"
    return {"kind": kind, "title": title, "about": about, "markup": markup, "size": size}


def figure_markup(figure: Any, kind: str, about: str) -> str:
    """The figure as an ``<svg>``, or as an ``<img>`` where that would be large.

    Its links are out of the order of the Tab key: hundreds of points would be in the way, and the table leads to
    the same pages.
    """
    text = figures.svg(figure, prefix=f"{kind}-")
    if len(text) <= _LARGEST:
        return text.replace("<a xlink:href=", '<a tabindex="-1" xlink:href=').replace(' target="_blank"', "")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160, metadata={"Software": None})
    width = round(figure.get_figwidth() * 96)
    return f'<img alt="{html.escape(about)}" width="{width}" src="{pictures.compress_png(out.getvalue())}">'
