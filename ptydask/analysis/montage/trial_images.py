"""The images of several trials side by side: one grey scale, one physical scale, best first, as one picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis import figures, greys, microscopy, sweep
from ptydask.analysis.montage import sheet_layout, trial_cells
from ptydask.analysis.montage.picture_kinds import LOOKS, PictureKind, parse_kind
from ptydask.analysis.montage.sheet_layout import MontageCell, MontageSheet
from ptydask.analysis.montage.trial_cells import CellRequest
from ptydask.errors import StoreError, UsageError, nearest_hint
from ptydask.model import Direction, TrialRecord, TrialState
from ptydask.ranking import in_order, parameter_names, ranked
from ptydask.store.reader import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OF_SNAPSHOTS = ("phase", "amplitude", "probe")
"""What can be shown of a trial's snapshots."""


def draw(
    results: Results,
    records: Sequence[TrialRecord],
    *,
    what: PictureKind = "phase",
    columns: int | None = None,
    crop: float = 1.0,
    common: bool = True,
    dpi: float | None = None,
    title: str = "",
) -> Figure:
    """The images of these trials in their order, captions below, with a scale bar: :func:`read` and :func:`draw_sheet`.

    ``common``: one grey scale for all, else each image its own. ``dpi`` None is what shows every pixel, up to 40
    million; the figure's ``dpi`` says which. Raises MissingDependency without Matplotlib.
    """
    figures.need_matplotlib()
    pixels = sheet_layout.cell_pixels(len(records), dpi, LOOKS[parse_kind(what)].cell)
    sheet = read(results, records, what=what, crop=crop, pixels=pixels)
    return draw_sheet(sheet, columns=columns, common=common, dpi=dpi, title=title)


def draw_sheet(
    sheet: MontageSheet,
    *,
    columns: int | None = None,
    common: bool = True,
    dpi: float | None = None,
    title: str | None = "",
) -> Figure:
    """A sheet that was read, as a figure; one of words where it has no picture.

    ``title`` goes after the study's; None: nothing stands above the pictures.
    """
    figures.need_matplotlib()
    from ptydask.analysis.figures import style
    from ptydask.analysis.montage import drawing

    with style.style_context():
        return drawing.draw_sheet(sheet, columns=columns, common=common, dpi=dpi, title=title)


def why_no_images(results: Results) -> str:
    """Why no trial of the study can have an image: a sweep's program makes none; "" where trials may."""
    if not sweep.is_sweep(results.meta) or results.pictures():
        return ""
    return f"no trial has an image: {sweep.program(results.meta) or 'the program'} made numbers and files, no images"


# --- which trials, in which order ----------------------------------------------------------------------


def ordered(
    records: Iterable[TrialRecord],
    *,
    sort: str = "error",
    direction: Direction = "minimize",
    state: TrialState | None = TrialState.COMPLETE,
    reverse: bool = False,
) -> list[TrialRecord]:
    """The trials in ``state`` (None: all) by ``error`` (best first), ``number``, or a parameter's value, rising.

    Trials without a value come last, ties by number. Raises UsageError for a parameter that no trial has.
    """
    taken = [record for record in records if state is None or record.state is state]
    names = ["error", "number", *parameter_names(taken)]
    if taken and sort not in names:
        raise UsageError(f"no trial has a parameter {sort!r}; {nearest_hint(sort, names)}")

    def value_of(record: TrialRecord) -> Any:
        return getattr(record, sort) if sort in ("error", "number") else record.params.get(sort)

    best_first = sort == "error" and direction == "maximize"
    return in_order(taken, value_of, reverse=reverse != best_first)


# --- reading -------------------------------------------------------------------------------------------


def read(
    results: Results,
    records: Sequence[TrialRecord],
    *,
    what: PictureKind = "phase",
    crop: float = 1.0,
    pixels: int = 1000,
    most: int | None = None,
) -> MontageSheet:
    """The pictures of these trials, read one by one and averaged down to at most ``pixels`` along a side.

    ``phase`` is the image that the trial left, its median taken off, since a phase has no zero; ``amplitude`` is
    that of the object, the mean over modes and slices, of the same region; ``probe`` the root of the probe's
    intensity, summed over its modes; the others are those of :mod:`ptydask.analysis.microscopy`, and ``difference``
    is to the first of the trials. ``crop`` is the part of each side that is kept, around the middle. Where a trial's
    arrays are gone its thumbnail stands in. With ``most``, reading ends at so many trials. Raises UsageError for
    another ``what``.
    """
    what = parse_kind(what)
    request = CellRequest(results.meta, what, crop, pixels)
    cells: list[MontageCell] = []
    lost: dict[int, str] = {}
    thumbnails: dict[int, NDArray[np.uint8]] | None = None
    shown = 0
    for record in records:
        if most is not None and shown >= most:
            break
        try:
            trial = results.trial(record.number)
            if what == "difference" and request.reference is None:
                microscopy.phase_image(trial)  # one that has none is no reference
                request, shown = replace(request, reference=trial), 1
                continue
            read_cells = trial_cells.read_cells(trial, request)
        except StoreError as error:
            lost[record.number] = str(error)
            continue
        if read_cells:
            cells += read_cells
            shown += 1
            continue
        if thumbnails is None:
            thumbnails = results.pictures() if what == "phase" else {}
        if record.number in thumbnails:
            tile = greys.without_margin(thumbnails[record.number]).astype(np.float32)
            cells.append(MontageCell(record, trial_cells.crop_middle(tile, crop), None, None, thumbnail=True))
            shown += 1
        else:
            lost[record.number] = trial.lost or f"no {what} was kept"
    best_first = ranked(results.records(), results.meta.direction)
    ranks = {record.number: rank for rank, record in enumerate(best_first, 1)}
    compared = None if request.reference is None else request.reference.record.number
    return MontageSheet(results.meta, what, tuple(cells), lost, ranks, compared)


def read_snapshots(
    results: Results, number: int, *, what: PictureKind = "phase", crop: float = 1.0, pixels: int = 1000
) -> MontageSheet:
    """One trial's snapshots in rising iteration, its end last. Raises StoreError, and UsageError without any."""
    what = parse_kind(what)
    if what not in _OF_SNAPSHOTS:
        raise UsageError(f"snapshots are shown as {', '.join(_OF_SNAPSHOTS)}, not as {what}")
    trial = results.trial(number)
    if not trial.snapshots:
        raise UsageError(f"{results.path}: trial {number} has no snapshots; SAVE_ITERS in the params file keeps some")
    request = CellRequest(results.meta, what, crop, pixels)
    cells, lost = [], {}
    for step, arrays in sorted(trial.snapshots.items()):
        image = trial_cells.project_arrays(trial, arrays, what)
        if image is None:
            lost[step] = f"no {what} was kept at iteration {step}"
            continue
        cells.append(trial_cells.make_cell(trial.record, image, request, label=f"iteration {step}"))
    cells += [replace(cell, label="end", lines=()) for cell in trial_cells.read_cells(trial, request)]
    return MontageSheet(results.meta, what, tuple(cells), lost)
