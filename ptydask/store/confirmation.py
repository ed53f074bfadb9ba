"""A study's confirmation: its best trials repeated. A study itself, in the same file, or in one of its own beside it.

While repeats are run they are in ``NAME.confirmation.h5``, a results file like any other; at the end they become a
group in ``NAME.h5``, see ``embedded``. Where both are there, as after a kill, they are one and the same, and the one
with more trials counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from ptydask.model import StudyMeta, TrialRecord, path_beside
from ptydask.ring_correlation import FourierRing
from ptydask.store import files, index, layout, names, nexus


def companion_of(path: Path) -> Path:
    """``NAME.confirmation.h5`` of ``NAME.h5``: where the repeats are while they are run."""
    return path_beside(path, ".confirmation.h5")


def study_of(meta: StudyMeta) -> str:
    """The id of the store whose trials a confirmation repeats; "" of a study that is none."""
    try:
        config = json.loads(meta.config_json or "{}")
    except ValueError:
        return ""
    return str(config.get("study", "")) if isinstance(config, dict) and meta.engine == "repeat" else ""


def is_of(meta: StudyMeta, store_id: str) -> bool:
    """Whether a study is the confirmation of the one that the store ``store_id`` has."""
    return study_of(meta) == store_id


def find_missing(meta: StudyMeta, records: Iterable[TrialRecord]) -> set[tuple[int, int, int]]:
    """The repeats, (trial, seed, half), that a confirmation was to have when it was run last, and does not have."""
    try:
        planned = json.loads(meta.config_json or "{}")["repeats"]
        wanted = {(int(trial), int(seed), int(half)) for trial, seed, half in planned}
    except (KeyError, TypeError, ValueError):  # of a file that was rebuilt, or damaged
        return set()
    return wanted - {tuple(record.params.get(name) for name in ("trial", "seed", "half")) for record in records}


# --- curves -------------------------------------------------------------------------------------------


def write_curves(study: h5py.Group, curves: Mapping[int, FourierRing]) -> None:
    """Write the curves, by the trials' numbers, into a confirmation's group."""
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


def read_curves(path: Path, group: str = "") -> dict[int, FourierRing]:
    """The curves of the study ``group`` in ``path``; none where they cannot be read."""
    with suppress(*files.BROKEN), files.open_read_only(path) as file:
        return curves_of(index.study_of(file, group))
    return {}
