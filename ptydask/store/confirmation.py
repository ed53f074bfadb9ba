"""A study's confirmation: its best trials repeated. A study itself, in the same file, or in one of its own beside it.

While repeats are run they are in ``NAME.confirmation.h5``, a results file like any other; at the end they become a
second group in ``NAME.h5``. Where both are there, as after a kill, they are one and the same, and the one with more
trials counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptydask.errors import StoreError
from ptydask.model import StudyMeta, path_beside
from ptydask.store import contents, digest, files, index, isolated, layout, names, nexus


def companion_of(path: Path) -> Path:
    """``NAME.confirmation.h5`` of ``NAME.h5``: where the repeats are while they are run."""
    return path_beside(path, ".confirmation.h5")


def is_of(meta: StudyMeta, store_id: str) -> bool:
    """Whether a study is the confirmation of the one that the store ``store_id`` has."""
    try:
        config = json.loads(meta.config_json or "{}")
    except ValueError:
        return False
    return isinstance(config, dict) and config.get("study") == store_id


# --- curves -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RingCurve:
    """Fourier ring correlation of two reconstructions of a trial, each from one half of the data."""

    spatial_frequency: NDArray[np.float64]
    """(rings,), in 1/``length_unit``."""
    correlation: NDArray[np.float64]
    """(rings,): 1 where the two are alike."""
    half_bit: NDArray[np.float64]
    """(rings,): what the correlation has to be for half a bit of information in every pixel of the ring."""
    pixels: NDArray[np.int64]
    """(rings,): pixels of the ring."""
    crossing: float | None
    """Where the correlation falls below ``half_bit``, in 1/``length_unit``; None where it never does."""
    resolution: float
    """The inverse of that, or of the highest frequency, in ``length_unit``."""
    area: float
    """Mean of the correlation over the frequencies up to Nyquist's."""
    length_unit: str = "angstrom"


_COLUMNS = ("spatial_frequency", "correlation", "half_bit", "pixels")
_CROSSING = "half_bit_crossing"


def curve_name(trial: int) -> str:
    """``trial_000018``."""
    return f"trial_{names.trial_name(trial)}"


def _write_curves(study: h5py.Group, curves: Mapping[int, RingCurve]) -> None:
    if not curves:
        return
    folder = nexus.create_group(study, layout.FRC, "NXcollection")
    for trial, curve in sorted(curves.items()):
        plot = nexus.create_plot(
            folder,
            curve_name(trial),
            signal="correlation",
            axes=["spatial_frequency"],
            beside=["half_bit"],
            title=f"Fourier ring correlation of the halves of trial {trial}",
        )
        for name in _COLUMNS:
            nexus.write_numbers(plot, name, np.asarray(getattr(curve, name)))
        nexus.write_attribute(plot["spatial_frequency"], "units", f"1/{curve.length_unit}")
        facts = {"trial": trial, "resolution": curve.resolution, "area": curve.area, "units": curve.length_unit}
        nexus.write_attributes(plot, facts)
        if curve.crossing is not None:
            nexus.write_attribute(plot, _CROSSING, curve.crossing)


def curves_of(study: h5py.Group) -> dict[int, RingCurve]:
    """The curves in a confirmation's group, by the trials' numbers. Raises what h5py raises."""
    curves = {}
    for plot in study[layout.FRC].values() if layout.FRC in study else ():
        columns = {name: plot[name][()] for name in _COLUMNS}
        curves[int(plot.attrs["trial"])] = RingCurve(
            **columns,
            crossing=float(plot.attrs[_CROSSING]) if _CROSSING in plot.attrs else None,
            resolution=float(plot.attrs["resolution"]),
            area=float(plot.attrs["area"]),
            length_unit=nexus.read_attribute(plot, "units"),
        )
    return curves


def read_curves(place: StudyPlace) -> dict[int, RingCurve]:
    """The curves of the study at ``place``; none where they cannot be read."""
    with suppress(*files.BROKEN), files.open_read_only(place.file) as file:
        return curves_of(index.study_of(file, place.group))
    return {}


# --- in the file --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StudyPlace:
    """Where a study lies."""

    file: Path
    group: str = ""
    """Its group's name; "" for the study that the file is of."""


def group_in(file: h5py.File) -> str:
    """The name of the confirmation's group in an open results file; "" where it has none."""
    name = nexus.read_attribute(file, layout.CONFIRMATION)
    return name if name and name in file else ""


def find_embedded(path: Path, folder: Path) -> StudyPlace | None:
    """The confirmation within ``path``, or within an older packed file in its ``folder``; the one with most trials.

    Files that cannot be read have none.
    """
    return _most_trials(_embedded([path, *contents.pack_files(folder)]))


def _embedded(paths: Iterable[Path]) -> list[StudyPlace]:
    places = []
    for path in paths:
        with suppress(*files.BROKEN), files.open_read_only(path) as file:
            if group := group_in(file):
                places.append(StudyPlace(path, group))
    return places


def _most_trials(places: Iterable[StudyPlace]) -> StudyPlace | None:
    return max(places, key=count_trials, default=None)


def count_trials(place: StudyPlace) -> int:
    """How many trials the table of a study has; 0 where it cannot be read."""
    try:
        with files.open_read_only(place.file) as file:
            return len(index.study_of(file, place.group)[layout.TABLE]["number"])
    except files.BROKEN:
        return 0


def keep(path: Path, folder: Path, copy: index.Copy = index.copy_trial) -> index.Addition:
    """What takes over into a new file of the study ``path`` its confirmation, where one of its files has it.

    ``folder`` is that of its trials; ``copy`` takes one repeat over.
    """
    return keep_one_of([path, *contents.pack_files(folder)], copy)


def keep_one_of(paths: Iterable[Path], copy: index.Copy = index.copy_trial) -> index.Addition:
    """The same of the one with most trials that the files ``paths`` hold."""
    place = _most_trials(_embedded(paths))

    def add(study: h5py.Group) -> None:
        if place is not None:
            embed_study(study.file, place, read_curves(place), copy)

    return add


def embed_study(
    file: h5py.File, place: StudyPlace, curves: Mapping[int, RingCurve], copy: index.Copy = index.copy_trial
) -> None:
    """Write the study at ``place``, with the curves, into ``file``, as the confirmation of the study that this is of.

    A trial that cannot be read has its numbers only. Raises StoreError where the study's own group cannot be read, or
    HDF5 crashes on a trial.
    """
    head, rows = index.read_head(place.file, place.group), index.read_rows(place.file, place.group)
    isolated.find_deadly(rows)
    study, trials = index.begin_group(file, head.meta)
    for row in rows:
        name = names.trial_name(row.record.number)
        try:
            with files.open_read_only(row.file) as source:
                copy(trials, row, source[row.group])
            digest.check(trials[name])
        except files.BROKEN:
            if name in trials:
                del trials[name]
            index.write_numbers_only(trials, name, row.record, head.meta)
    _write_curves(study, curves)
    index.complete_group(study, head.meta, rows, {row.record.number for row in rows})
    nexus.write_attributes(study, {layout.STORE_ID: head.store_id, layout.PACK_ID: head.pack_id})
    digest.seal(study)
    nexus.write_attribute(file, layout.CONFIRMATION, study.name.lstrip("/"))


def check_embedded(path: Path, numbers: set[int]) -> None:
    """Raise StoreError where ``path``, just written, has no confirmation with these trials, as it was sealed."""
    place = _most_trials(_embedded([path]))
    if place is None or {row.record.number for row in index.read_rows(path, place.group)} != numbers:
        raise StoreError(f"{path}: the file that was written lacks the confirmation")
    with files.open_read_only(path) as file:
        digest.check(file[place.group])
