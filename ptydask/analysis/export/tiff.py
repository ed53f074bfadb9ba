"""Pictures of a trial as TIFF files that ImageJ and Fiji open calibrated, in 8 bits and with their own values."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask import __version__
from ptydask.analysis.export import ptyrad_names
from ptydask.analysis.export.model import kept_iteration, missing_data_error
from ptydask.analysis.export.ptyrad_names import TiffImage
from ptydask.errors import MissingDependency, StoreError, import_optional
from ptydask.model import StudyMeta
from ptydask.store import files
from ptydask.store.reader import TrialData

PARTS = ("image", "phase", "amplitude", "probe")
"""``image``: the phase of the scanned region, summed over depth; ``phase`` and ``amplitude``: every slice of the whole
object; ``probe``: its amplitude, mode by mode."""

_CLIPPED = 0.1
"""Percent of the pixels beyond either end of an 8-bit picture's greys."""


@dataclass(frozen=True)
class CalibratedTiff:
    """A picture with the size of its pixels."""

    picture: TiffImage
    value_unit: str
    pixel_size: float
    spacing: float
    """Between slices."""
    unit: str
    origin: tuple[int, int]
    """(row, column) of its first pixel on the object."""


def of_trial(
    meta: StudyMeta, trial: TrialData, parts: Sequence[str] = PARTS, bits: Sequence[str] = ("8", "raw")
) -> list[CalibratedTiff]:
    """The ``parts`` that the trial has, each with every depth in ``bits`` (``8``, ``raw``).

    8-bit greys reach from the 0.1 % darkest to the 0.1 % brightest pixels of all slices. Raises StoreError where the
    trial has none of the parts.
    """
    pictures = []
    for part in parts:
        for stem, data, axes, origin in _read_part(trial, part):
            unit = _value_unit(trial, part)
            for bit in bits:
                pixels, low, high = clip_to_depth(data, bit)
                name = f"trial_{trial.record.number:06d}_{stem}{'_8bit' if bit == '8' else ''}.tif"
                picture = TiffImage(name, pixels, axes, part == "image", low, high, bit == "8")
                pictures.append(_add_calibration(trial, picture, unit, origin))
    if not pictures:
        raise missing_data_error(trial, parts, " or ")
    return pictures


def as_ptyrad(meta: StudyMeta, trial: TrialData, bits: Sequence[str] | None = None) -> list[CalibratedTiff]:
    """The TIFF files that PtyRAD's hypertune would have left of the trial: its names and pixels, and calibration.

    Which they are is for the params file to say (``save_result``, ``result_modes``); those of ``probe_prop`` are not
    made. The region that ``crop`` stands for is that of the version that the study ran with. Raises StoreError where
    the trial has no arrays, or the study is of another engine.
    """
    if meta.engine != "ptyrad":
        raise StoreError(f"--ptyrad-names: this study is of the engine {meta.engine!r}")
    names = {"objp": "object_phase", "obja": "object_amplitude", "probe": "probe"}
    if not all(name in trial.arrays for name in names.values()):
        raise missing_data_error(trial, tuple(names.values()), " or ")
    settings = json.loads(meta.config_json).get("recon_params") or {}
    stem = ptyrad_names.trial_text(trial.record, meta.direction, with_params=meta.keep.params_in_names)
    ending = stem + ptyrad_names.iteration_text(kept_iteration(trial))
    rows, columns = scanned_region(trial)
    if meta.provenance.get("ptyrad", "").startswith("0."):  # which cut one pixel further up and left
        rows, columns = (slice(part.start - 1, part.stop - 1) for part in (rows, columns))
    arrays = {theirs: trial.arrays[ours].read() for theirs, ours in names.items()}
    tiffs = []
    for picture in ptyrad_names.render_tiffs(arrays, (rows, columns), settings, ending, bits):
        unit = "rad" if picture.name.startswith("objp") else ""
        origin = (rows.start, columns.start) if picture.cropped else (0, 0)
        tiffs.append(_add_calibration(trial, picture, unit, origin))
    return tiffs


def clip_to_depth(data: NDArray[Any], bit: str) -> tuple[NDArray[Any], float, float]:
    """``data`` on 8 bits, a few extreme pixels clipped, or as float32; and the values of black and of white."""
    low, high = (float(value) for value in np.percentile(data, (_CLIPPED, 100 - _CLIPPED)))
    if bit == "raw":
        return data.astype(np.float32), low, high
    if not low < high:
        return np.zeros(data.shape, np.uint8), low, high
    return np.round(255 * np.clip((data - low) / (high - low), 0, 1)).astype(np.uint8), low, high


def scanned_region(trial: TrialData) -> tuple[slice, slice]:
    """Rows and columns of the object under the probe's centres."""
    if trial.image is not None:
        size = object_pixel_size(trial)[0] or 1.0
        y, x = trial.image.y, trial.image.x
        row, column = round(y[0] / size), round(x[0] / size)
        return slice(row, row + len(y)), slice(column, column + len(x))
    if "crop_positions" not in trial.arrays:
        height, width = trial.arrays["object_phase"].shape[-2:]
        return slice(0, height), slice(0, width)
    centres = trial.arrays["crop_positions"].read() + np.array(trial.arrays["probe"].shape[-2:]) // 2
    top, left, bottom, right = (int(value) for value in (*centres.min(0), *centres.max(0)))
    return slice(top, bottom + 1), slice(left, right + 1)


def _value_unit(trial: TrialData, part: str) -> str:
    """What the values are in; "" for mere numbers, as of an imported picture that had been scaled to 8 bits."""
    if part == "image" and trial.image is not None:
        return trial.image.units.removeprefix("1")
    return "rad" if part == "phase" else ""


def object_pixel_size(trial: TrialData) -> tuple[float, str]:
    """Size of a pixel of the object, and its unit; (0, "pixel") where nobody knows it.

    Of an imported trial that has a picture alone, it is in that picture's axes.
    """
    size = float(trial.attributes.get("pixel_size") or 0)
    if size:
        return size, str(trial.attributes.get("length_unit") or "angstrom")
    image = trial.image
    if image is None or image.axis_units == "pixel" or len(image.x) < 2:
        return 0.0, "pixel"
    return float(image.x[1] - image.x[0]), image.axis_units


def _read_part(trial: TrialData, part: str) -> Iterator[tuple[str, NDArray[Any], str, tuple[int, int]]]:
    """Name, data, axes and origin of what a part stands for."""
    if part == "image" and trial.image is not None:
        rows, columns = scanned_region(trial)
        yield "image", trial.image.data, "YX", (rows.start, columns.start)
    elif part == "probe" and "probe" in trial.arrays:
        yield "probe", np.abs(trial.arrays["probe"].read()), "TYX", (0, 0)
    elif (stored := trial.arrays.get(f"object_{part}")) is not None:
        data = stored.read()
        yield (part, data[0], "ZYX", (0, 0)) if data.shape[0] == 1 else (part, data, "TZYX", (0, 0))


# --- the file ----------------------------------------------------------------------------------------


def _add_calibration(trial: TrialData, picture: TiffImage, value_unit: str, origin: tuple[int, int]) -> CalibratedTiff:
    (size, unit), factor = object_pixel_size(trial), 1.0
    if unit == "m":  # X-rays: pixels of some 1e-8 m, which the resolution of a TIFF cannot say
        unit, factor = "nm", 1e9
    thickness = float(trial.arrays["slice_thickness"].read()) if "slice_thickness" in trial.arrays else 0.0
    return CalibratedTiff(picture, value_unit, size * factor, thickness * factor, unit, origin)


def write(path: Path, tiff: CalibratedTiff, meta: StudyMeta, trial: TrialData) -> None:
    """Write one picture, whole or not at all.

    Fiji shows lengths on the object in angstrom, greys in the picture's own unit, and the trial with Image > Show
    Info. Raises MissingDependency, OSError.
    """
    picture, size = tiff.picture, tiff.pixel_size or 1.0
    facts = _tiff_metadata(tiff, meta, trial)
    metadata = {
        "axes": picture.axes,
        "unit": tiff.unit,
        "xorigin": -tiff.origin[1],
        "yorigin": -tiff.origin[0],
        **({"spacing": tiff.spacing} if "Z" in picture.axes and tiff.spacing else {}),
        **_imagej_display(tiff),
        "ptydask": json.dumps(facts),
        "Info": json.dumps(facts, indent=2),
    }
    out = io.BytesIO()
    _import_tifffile().imwrite(out, picture.data, imagej=True, resolution=(1 / size, 1 / size), metadata=metadata)
    files.write_bytes(path, out.getvalue(), durable=False)


def is_ours(path: Path) -> bool:
    """Whether a file is a picture that :func:`write` made."""
    try:
        with _import_tifffile().TiffFile(path) as file:
            return "\nptydask={" in str(file.pages[0].description)
    except MissingDependency:
        raise
    except Exception:  # of a damaged TIFF, tifffile raises what comes up: struct.error, ZeroDivisionError ...
        return False


def _imagej_display(tiff: CalibratedTiff) -> dict[str, Any]:
    """How ImageJ shows the values: what 8 or 16 bits stand for (a straight line), or where black and white are."""
    picture = tiff.picture
    if picture.data.dtype == np.float32:
        low, high = (0.0, 1.0) if picture.scaled else (picture.low, picture.high)
        return {"min": low, "max": high} if high > low else {}
    step = (picture.high - picture.low) / np.iinfo(picture.data.dtype).max
    return {"cf": 0, "c0": picture.low, "c1": step, "vunit": tiff.value_unit or "gray"} if step > 0 else {}


def _tiff_metadata(tiff: CalibratedTiff, meta: StudyMeta, trial: TrialData) -> dict[str, Any]:
    record = trial.record
    return {
        "study": meta.name,
        "trial": record.number,
        "state": record.state.value,
        "error_metric": meta.metric,
        "error": record.error,
        "params": dict(record.params),
        "pixel_size": tiff.pixel_size,
        "length_unit": tiff.unit,
        "slice_thickness": tiff.spacing,
        "black": tiff.picture.low,
        "white": tiff.picture.high,
        "value_unit": tiff.value_unit,
        "ptydask": __version__,
    }


@cache
def _import_tifffile() -> Any:
    return import_optional("tifffile", "TIFF files need", "analysis")
