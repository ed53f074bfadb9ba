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

from ptydask.errors import StoreError
from ptydask.model import StudyMeta, TrialRecord, path_beside
from ptydask.ring_correlation import FourierRing
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


def find_missing(meta: StudyMeta, records: Iterable[TrialRecord]) -> set[tuple[int, int, int]]:
    """The repeats, (trial, seed, half), that a confirmation was to have when it was run last, and does not have."""
    try:
        planned = json.loads(meta.config_json or "{}")["repeats"]
        wanted = {(int(trial), int(seed), int(half)) for trial, seed, half in planned}
    except (KeyError, TypeError, ValueError):  # of a file that was rebuilt, or damaged
        return set()
    return wanted - {tuple(record.params.get(name) for name in ("trial", "seed", "half")) for record in records}


# --- curves -------------------------------------------------------------------------------------------


def _write_curves(study: h5py.Group, curves: Mapping[int, FourierRing]) -> None:
    if not curves:
        return
    folder = nexus.create_group(study, layout.FRC, "NXcollection")
    for trial, curve in sorted(curves.items()):
        plot = nexus.create_plot(
            folder,
            f"trial_{names.trial_name(trial)}",
            signal="correlation",
            axes=["spatial_frequency"],
            beside=["half_bit"],
            title=f"Fourier ring correlation of the halves of trial {trial}",
        )
        for name in ("spatial_frequency", "correlation", "half_bit", "pixels"):
            nexus.write_numbers(plot, name, np.asarray(getattr(curve, name)))
        nexus.write_attribute(plot["spatial_frequency"], "units", f"1/{curve.length_unit}")
        facts = {"trial": trial, "resolution": curve.resolution, "area": curve.area, "units": curve.length_unit}
        nexus.write_attributes(plot, facts)
        if curve.crossing is not None:
            nexus.write_attribute(plot, "half_bit_crossing", curve.crossing)


def curves_of(study: h5py.Group) -> dict[int, FourierRing]:
    """The curves in a confirmation's group, by the trials' numbers. Raises what h5py raises."""
    curves = {}
    for plot in study[layout.FRC].values() if layout.FRC in study else ():
        curves[int(plot.attrs["trial"])] = FourierRing(
            plot["spatial_frequency"].astype(np.float64)[()],
            plot["correlation"].astype(np.float64)[()],
            plot["pixels"].astype(np.int64)[()],
            nexus.read_attribute(plot, "units"),
        )
    return curves


def read_curves(place: StudyPlace) -> dict[int, FourierRing]:
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


def find_embedded(path: Path, folder: Path) -> StudyPlace | None:
    """The confirmation within ``path``, or within an older packed file in its ``folder``; the one with most trials."""
    return find_in([path, *contents.pack_files(folder)])


def find_in(paths: Iterable[Path]) -> StudyPlace | None:
    """Of the confirmations in packed files that with most trials. Files that cannot be read have none."""
    places = []
    for path in paths:
        with suppress(*files.BROKEN), files.open_read_only(path) as file:
            group = nexus.read_attribute(file, layout.CONFIRMATION)
            if group and group in file:
                places.append(StudyPlace(path, group))
    return max(places, key=count_trials, default=None)


def count_trials(place: StudyPlace) -> int:
    """How many trials the table of a study has; 0 where it cannot be read."""
    try:
        with files.open_read_only(place.file) as file:
            return len(index.study_of(file, place.group)[layout.TABLE]["number"])
    except files.BROKEN:
        return 0


def keep(
    place: StudyPlace | None, copy: index.Copy = index.copy_trial, curves: Mapping[int, FourierRing] | None = None
) -> index.Addition | None:
    """What takes the confirmation at ``place``, where there is one, over into a new file of its study.

    ``copy`` takes one repeat over; ``curves`` stand in place of those that it has.
    """
    if place is None:
        return None
    return lambda file: _embed(file, place, copy, read_curves(place) if curves is None else curves)


def _embed(file: h5py.File, place: StudyPlace, copy: index.Copy, curves: Mapping[int, FourierRing]) -> None:
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
    place = find_in([path])
    if place is None or {row.record.number for row in index.read_rows(path, place.group)} != numbers:
        raise StoreError(f"{path}: the file that was written lacks the confirmation")
    with files.open_read_only(path) as file:
        digest.check(file[place.group])
