"""The images of several trials side by side: one grey scale, one physical scale, best first, as one picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis import figures, greys, sweep
from ptydask.analysis.montage import sheet_layout
from ptydask.analysis.montage.sheet_layout import ImageSource, MontageCell, MontageSheet
from ptydask.errors import StoreError, UsageError, nearest_hint
from ptydask.model import Direction, Image, TrialRecord, TrialState
from ptydask.ranking import in_order, parameter_names, ranked
from ptydask.store.reader import Results, StoredArray, TrialData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ARRAYS: tuple[ImageSource, ...] = ("phase", "amplitude", "probe")
"""What can be shown of a trial."""
_UNITS = {"angstrom": 1.0, "Ang": 1.0, "Å": 1.0, "nm": 10.0, "m": 1e10}
"""Units of length, in angstrom."""


def draw(
    results: Results,
    records: Sequence[TrialRecord],
    *,
    array: ImageSource = "phase",
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
    pixels = sheet_layout.cell_pixels(len(records), dpi)
    sheet = read(results, records, array=array, crop=crop, pixels=pixels)
    return draw_sheet(sheet, columns=columns, common=common, dpi=dpi, title=title)


def draw_sheet(
    sheet: MontageSheet, *, columns: int | None = None, common: bool = True, dpi: float | None = None, title: str = ""
) -> Figure:
    """A sheet that was read, as a figure; one of words where it has no picture. ``title`` goes after the study's."""
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
    array: ImageSource = "phase",
    crop: float = 1.0,
    pixels: int = 1000,
    most: int | None = None,
) -> MontageSheet:
    """The pictures of these trials, read one by one and averaged down to at most ``pixels`` along a side.

    ``phase`` is the image that the trial left, its median taken off, since a phase has no zero; ``amplitude`` is
    that of the object, the mean over modes and slices, of the same region; ``probe`` the root of the probe's
    intensity, summed over its modes. ``crop`` is the part of each side that is kept, around the middle. Where a
    trial's arrays are gone its thumbnail stands in. With ``most``, reading ends at so many pictures.
    Raises UsageError for another ``array``.
    """
    if array not in ARRAYS:
        raise UsageError(f"there is no array {array!r} to show; {nearest_hint(array, ARRAYS)}")
    cells: list[MontageCell] = []
    lost: dict[int, str] = {}
    thumbnails: dict[int, NDArray[np.uint8]] | None = None
    for record in records:
        if most is not None and len(cells) >= most:
            break
        try:
            trial = results.trial(record.number)
            image = _trial_image(trial, array)
        except StoreError as error:
            lost[record.number] = str(error)
            continue
        if image is not None:
            cells.append(_make_cell(record, image, array, crop, pixels))
            continue
        if thumbnails is None:
            thumbnails = results.pictures() if array == "phase" else {}
        if record.number in thumbnails:
            tile = greys.without_margin(thumbnails[record.number]).astype(np.float32)
            cells.append(MontageCell(record, _crop_middle(tile, crop), None, None, thumbnail=True))
        else:
            lost[record.number] = trial.lost or f"no {array} was kept"
    best_first = ranked(results.records(), results.meta.direction)
    ranks = {record.number: rank for rank, record in enumerate(best_first, 1)}
    return MontageSheet(results.meta, array, tuple(cells), lost, ranks)


def read_snapshots(
    results: Results, number: int, *, array: ImageSource = "phase", crop: float = 1.0, pixels: int = 1000
) -> MontageSheet:
    """One trial's snapshots in rising iteration, its end last. Raises StoreError, and UsageError without any."""
    trial = results.trial(number)
    if not trial.snapshots:
        raise UsageError(f"{results.path}: trial {number} has no snapshots; SAVE_ITERS in the params file keeps some")
    cells, lost = [], {}
    for step, arrays in sorted(trial.snapshots.items()):
        image = _project_arrays(trial, arrays, array)
        if image is None:
            lost[step] = f"no {array} was kept at iteration {step}"
            continue
        cells.append(_make_cell(trial.record, image, array, crop, pixels, f"iteration {step}"))
    if (last := _trial_image(trial, array)) is not None:
        cells.append(_make_cell(trial.record, last, array, crop, pixels, "end"))
    return MontageSheet(results.meta, array, tuple(cells), lost)


def _trial_image(trial: TrialData, array: ImageSource) -> Image | None:
    """What is shown of a trial, with its axes; None where it was not kept."""
    if array == "phase" and trial.image is not None:
        return trial.image
    return _project_arrays(trial, trial.arrays, array)


def _project_arrays(trial: TrialData, arrays: Mapping[str, StoredArray], array: ImageSource) -> Image | None:
    name = {"phase": "object_phase", "amplitude": "object_amplitude", "probe": "probe"}[array]
    if name not in arrays or not 2 <= len(arrays[name].shape) <= 4:
        return None
    rows, columns = (slice(None), slice(None)) if array == "probe" else _image_region(trial)
    data = np.asarray(arrays[name][(..., rows, columns)])
    if array == "phase" and data.ndim > 2:
        data = data.sum(-3)
    layers = data.reshape(-1, *data.shape[-2:])
    data = np.sqrt((np.abs(layers) ** 2).sum(0)) if array == "probe" else layers.mean(0)
    step = trial.attributes.get("pixel_size")
    pixel = float(step) if isinstance(step, int | float) else math.nan
    unit = str(trial.attributes.get("length_unit", "angstrom"))
    y, x = (pixel * np.arange(size) for size in data.shape)
    return Image(data, y, x, "rad" if array == "phase" else "", unit, "")


def _image_region(trial: TrialData) -> tuple[slice, slice]:
    """The rows and columns of the object that the trial's image shows; all where it has none."""
    pixel = trial.attributes.get("pixel_size")
    if trial.image is None or not isinstance(pixel, int | float) or not pixel > 0:
        return slice(None), slice(None)
    first = [round(float(axis[0]) / pixel) if len(axis) else 0 for axis in (trial.image.y, trial.image.x)]
    rows, columns = trial.image.data.shape
    return slice(first[0], first[0] + rows), slice(first[1], first[1] + columns)


def _make_cell(
    record: TrialRecord, image: Image, array: ImageSource, crop: float, pixels: int, label: str = ""
) -> MontageCell:
    data = np.asarray(image.data, dtype=np.float32)
    axes = zip((image.y, image.x), data.shape, strict=True)
    lengths = [_side_length(axis, size, image.axis_units) for axis, size in axes]
    kept = _crop_middle(data, crop)
    n = greys.binning(kept.shape, pixels)
    small = greys.binned(kept, n)
    height, width = (
        None if length is None else length * n * remaining / size
        for length, remaining, size in zip(lengths, small.shape, data.shape, strict=True)
    )
    finite = small[np.isfinite(small)]
    if array == "phase" and finite.size:
        small = small - np.median(finite)
    return MontageCell(record, small.astype(np.float32), height, width, image.units, label=label)


def _side_length(axis: NDArray[Any], size: int, unit: str) -> float | None:
    """The length of a side in angstrom, half a pixel beyond the centres at its ends included."""
    if len(axis) < 2 or len(axis) != size or unit not in _UNITS:
        return None
    pixel = abs(float(axis[-1]) - float(axis[0])) / (size - 1) * _UNITS[unit]
    return pixel * size if math.isfinite(pixel) and pixel > 0 else None


def _crop_middle(data: NDArray[Any], part: float) -> NDArray[Any]:
    """The middle of an image, ``part`` of each side."""
    sizes = [max(1, round(size * part)) for size in data.shape]
    top, left = ((size - kept) // 2 for size, kept in zip(data.shape, sizes, strict=True))
    return data[top : top + sizes[0], left : left + sizes[1]]
