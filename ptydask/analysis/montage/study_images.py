"""The images of the best trials of several studies side by side, at one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ptydask.analysis.figures import style
from ptydask.analysis.montage import sheet_layout, trial_images
from ptydask.analysis.montage.picture_kinds import LOOKS, PictureKind, parse_kind
from ptydask.analysis.montage.sheet_layout import MontageCell, MontageSheet
from ptydask.analysis.study_best import StudyBest
from ptydask.errors import StoreError
from ptydask.formatting import error_text
from ptydask.store import reader

_LETTERS = 36
"""Of a file's name below its image, at most."""
_CELL = 2.5
"""Width of a picture, inches: alike for all kinds, so that a study has its place in each sheet."""


@dataclass(frozen=True)
class StudySheet:
    """The pictures of several studies, and why each study that is missing is missing."""

    sheet: MontageSheet | None
    """None where no study has such a picture."""
    lost: Mapping[str, str]
    """Results file, as its study has it -> why."""


def read_study_images(studies: Sequence[StudyBest], what: PictureKind = "phase") -> StudySheet:
    """The picture of each study's best trial, in the order of the studies; raises UsageError for another ``what``."""
    what = parse_kind(what)
    look = replace(LOOKS[what], cell=_CELL, every_scale=True)
    pixels = sheet_layout.cell_pixels(len(studies), cell=_CELL)
    cells: list[MontageCell] = []
    lost: dict[str, str] = {}
    for study in studies:
        if study.best is None:
            lost[study.file] = study.problem
            continue
        try:
            with reader.open(study.path, study.meta.stage) as results:
                sheet = trial_images.read(results, [study.best], what=what, pixels=pixels)
                none = trial_images.why_no_images(results)
        except StoreError as error:
            lost[study.file] = str(error)
            continue
        cells += [_name_cell(cell, study, with_error=what == "phase") for cell in sheet.pictures]
        if not sheet.pictures:
            lost[study.file] = none or f"trial {study.best.number}: {sheet.lost.get(study.best.number, 'has none')}"
    if not cells:
        return StudySheet(None, lost)
    return StudySheet(MontageSheet(studies[0].meta, what, tuple(cells), own_look=look), lost)


def _name_cell(cell: MontageCell, study: StudyBest, *, with_error: bool) -> MontageCell:
    """The cell with its file below it, and on request trial and error."""
    error = f"trial {cell.record.number}, {study.meta.metric} {error_text(cell.record.error)}"
    lines = (*[style.escape_text(error)] * with_error, *cell.lines)
    return replace(cell, label=style.display_name(study.file, _LETTERS), lines=lines)
