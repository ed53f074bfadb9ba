"""The best of several studies as one web page that needs no network: the table, what to know of it, their images."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Literal

from ptydask import __version__
from ptydask.analysis import figures
from ptydask.analysis.comparison import StudyComparison
from ptydask.analysis.montage.picture_kinds import PictureKind
from ptydask.analysis.report import page, pictures
from ptydask.errors import UsageError
from ptydask.store import files

SHOWN: tuple[tuple[PictureKind, str], ...] = (
    ("phase", "Phase, summed over depth"),
    ("spectrum", "Power spectrum of that phase, Hann window"),
    ("probe", "Amplitude of the probe, all modes"),
)
_DPI = 200
"""Of the images: sharp on a screen, and some hundred kilobytes for a dozen studies."""
_COLUMNS = 4
"""Of pictures, at most: what fills a page."""
_WIDE, _WIDEST = 480, 1360
"""Pixels of a picture and of all in a row, at most; a narrower window makes them smaller."""

Scale = Literal["common", "each"]


def write(compared: StudyComparison, path: Path, *, scale: Scale = "common", made: datetime | None = None) -> Path:
    """Write the page of :func:`render` to ``path``, which is there whole or not at all; returns it.

    Raises UsageError for a name that is no page's, so that nothing else is ever overwritten.
    """
    check_page_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, render(compared, scale=scale, made=made), durable=False)
    return path


def check_page_name(path: Path) -> None:
    """Raises UsageError for a name that is no web page's."""
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        raise UsageError(f"{path}: a comparison is a web page, a file whose name ends in .html")


def render(compared: StudyComparison, *, scale: Scale = "common", made: datetime | None = None) -> str:
    """The page, HTML; two of the same files differ in ``made`` alone (now, if not given).

    ``scale``: one grey scale for the images of all studies, or each its own. Raises MissingDependency without
    Matplotlib or Pillow.
    """
    figures.need_matplotlib()
    pictures.import_pillow()
    notes = [*compared.notes(), *compared.unreadable.values()]
    when = (made or datetime.now(UTC)).isoformat(timespec="seconds")
    return Template(page.read_asset("comparison.html")).substitute(
        policy=page.content_security_policy(),
        css=page.read_asset("page.css"),
        table=_table(compared),
        notes="\n".join(f"<p>{html.escape(note)}</p>" for note in notes),
        images="\n".join(_section(compared, what, title, scale) for what, title in SHOWN),
        footer=html.escape(f"ptydask {__version__}, {when}"),
    )


def _table(compared: StudyComparison) -> str:
    rows = [
        _row("td", cells, study is compared.best)
        for study, cells in zip(compared.studies, compared.rows(), strict=True)
    ]
    return f"<table><thead>{_row('th', compared.columns)}</thead><tbody>{''.join(rows)}</tbody></table>"


def _row(tag: str, cells: Sequence[str], best: bool = False) -> str:
    text = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f'<tr class="best">{text}</tr>' if best else f"<tr>{text}</tr>"


def _column_count(count: int) -> int:
    """Full rows where that can be: 6 in rows of 3, 8 in rows of 4, 5 as 3 and 2."""
    rows = -(-count // _COLUMNS)
    return -(-count // rows)


def _section(compared: StudyComparison, what: PictureKind, title: str, scale: Scale) -> str:
    """A heading, the picture, and which studies have none."""
    from ptydask.analysis.montage import study_images, trial_images

    images = study_images.read_study_images(compared.studies, what)
    body = '<p class="empty">No study has one.</p>'
    if images.sheet is not None:
        columns = _column_count(len(images.sheet.pictures))
        common = scale == "common"
        drawn = trial_images.draw_sheet(images.sheet, columns=columns, common=common, dpi=_DPI, title=None)
        png = io.BytesIO()
        drawn.savefig(png, format="png", dpi=_DPI)
        names = ", ".join(study.file for study in compared.studies if study.file not in images.lost)
        alt = html.escape(f"{title}: {names}", quote=True)
        source, width = pictures.compress_png(png.getvalue()), min(_WIDEST, _WIDE * columns)
        body = f'<img class="sheet" width="{width}" src="{source}" alt="{alt}">'
    lost = "".join(f"<p>{html.escape(f'{file}: {why}')}</p>" for file, why in images.lost.items())
    return f'<section id="{what}"><h2>{html.escape(title)}</h2>{body}<div class="note">{lost}</div></section>'
