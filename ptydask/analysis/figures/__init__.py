"""Figures of a study, for a paper and for the report: ``draw(kind, data)`` gives a Matplotlib figure.

Importing this package imports no Matplotlib; drawing does.
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask.errors import UsageError, nearest_hint, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ptydask.analysis.data import StudyData

Link = Callable[[int], str]
"""A trial's number -> the URL of what is known of it."""

KINDS: Mapping[str, str] = {
    "history": "the error of every trial, and the best so far",
    "progress": "the best so far over the time since the study began, and over worker hours",
    "curves": "the error at every iteration, pruned trials marked",
    "importance": "which parameters decide whether a trial is among the best tenth, and those by slopes",
    "slice": "the error over each parameter",
    "profile": "the best error at each value of a parameter, and what is as good within luck",
    "contour": "the best error over two parameters, or over every pair of several",
    "slopes": "trials with slopes over two parameters, an arrow downhill at each, and the model that they make",
    "parallel": "one line a trial across all parameters",
    "metrics": "rank correlation of the metrics with each other, over the trials",
    "frc": "Fourier ring correlation of the confirmed trials, with the half-bit line",
    "timeline": "when which worker was at what",
}
"""The kinds of figures, and what each shows."""

_METADATA: Mapping[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": "ptydask"},
}
"""By suffix, so that nothing in a file differs from one writing to the next."""


def draw(
    kind: str,
    data: StudyData,
    *,
    parameters: Sequence[str] | None = None,
    link: Link | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """The figure ``kind`` of :data:`KINDS`; one that says why in words where there is nothing to draw.

    ``parameters`` are those that are shown; None is all, and for ``contour`` the two most important. ``link`` makes
    the points and lines of an SVG clickable. ``size`` is width and height in inches. Raises UsageError for an unknown
    kind or parameter, MissingDependency without Matplotlib.
    """
    parameters = [parameters] if isinstance(parameters, str) else parameters
    if kind not in KINDS:
        raise UsageError(f"there is no figure {kind!r}; {nearest_hint(kind, KINDS)}")
    for name in parameters or ():
        if name not in data.parameters:
            hint = nearest_hint(name, data.parameters) or "see ptydask ls"
            raise UsageError(f"no trial has a parameter {name!r}; {hint}")
    need_matplotlib()
    from ptydask.analysis.figures import style

    module = importlib.import_module(f"ptydask.analysis.figures.{kind}")
    with style.style_context(size):
        figure: Figure = module.draw(data, parameters, link)
    return figure


def drawable_kinds(data: StudyData) -> list[str]:
    """The kinds that have something to show for these trials, in the order of :data:`KINDS`."""
    need_matplotlib()
    return [kind for kind in KINDS if importlib.import_module(f"ptydask.analysis.figures.{kind}").lacks(data) is None]


def save(figure: Figure, path: Path | str, *, dpi: float = 200) -> None:
    """Write a figure; the suffix (png, svg, pdf, tif, ...) says how. The file is there whole or not at all.

    Raises UsageError for a suffix that Matplotlib does not write.
    """
    from ptydask.analysis.figures import style
    from ptydask.store import files

    path = Path(path)
    suffix = check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    out = io.BytesIO()
    with style.style_context():
        # zlib at its usual level takes a minute for the noise of a large montage, for a few percent
        quick: dict[str, Any] = {"pil_kwargs": {"compress_level": 3}} if suffix == "png" else {}
        figure.savefig(out, format=suffix, dpi=dpi, metadata=_METADATA.get(suffix), **quick)
    files.write_bytes(path, out.getvalue(), durable=False)


def check_suffix(path: Path) -> str:
    """The kind of picture that a file's name asks for: ``png``.

    Raises UsageError for one that Matplotlib does not write, MissingDependency without Matplotlib.
    """
    need_matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    suffix, suffixes = path.suffix.lower().removeprefix("."), FigureCanvasBase.get_supported_filetypes()
    if suffix not in suffixes:
        raise UsageError(
            f"{path}: no picture is written as {path.suffix or 'a file without a suffix'!r}; "
            f"{nearest_hint(suffix, suffixes) or 'png, svg, pdf and tif are'}"
        )
    return suffix


def svg(figure: Figure, *, prefix: str = "") -> str:
    """The figure as an ``<svg>`` element to put into a page: text stays text, dense parts are pictures.

    ``prefix`` goes before every ``id`` in it, so that several figures may share a page.
    """
    from ptydask.analysis.figures import style

    out = io.StringIO()
    with style.style_context():
        figure.savefig(out, format="svg", dpi=150, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace("<svg ", '<svg style="stroke-linejoin:round;stroke-linecap:butt" ', 1)
    # Matplotlib's own <style> would be the whole page's, and its metadata nobody's.
    text = re.sub(r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*", "", text, flags=re.DOTALL)
    text = text.replace("font-family: 'DejaVu Sans'", "font-family: 'DejaVu Sans', Verdana, sans-serif")
    if not prefix:
        return text
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    return re.sub(r'(<use\b[^>]*?href="|url\()#', rf"\g<1>#{prefix}", text)


def need_matplotlib() -> None:
    """Raises MissingDependency, with what to do, where Matplotlib is not installed."""
    require("matplotlib", "figures need", "analysis")
