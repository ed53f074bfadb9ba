"""The reconstruction that a stage's trials start from, read out of the results of an earlier stage."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.driver import provenance
from ptydask.errors import StoreError
from ptydask.lineage import StageLineage, TrialStart
from ptydask.model import Scalar, StudyMeta, TrialRecord
from ptydask.space import tunables
from ptydask.store import codec, reader

_NEEDED = ("object_phase", "object_amplitude", "probe", "positions", "crop_positions")
_WHERE_KEPT = (*_NEEDED, "slice_thickness", "object_tilts", "scan_indices")


def read_start(results: reader.Results, trial: int) -> TrialStart:
    """What a later trial needs of a ``trial`` in ``results``, which are those of its stage; all in memory.

    Raises StoreError, in one line, where there is no such trial or its arrays were not kept.
    """
    stored = results.trial(trial)
    missing = [name for name in _NEEDED if name not in stored.arrays]
    if missing:
        why = stored.dropped or stored.lost or "collate_results was false"
        raise StoreError(
            f"{results.path}: nothing can start from trial {trial}: its {', '.join(missing)} are not there ({why})"
        )
    start = TrialStart(
        stage=results.meta.stage,
        trial=trial,
        arrays={name: stored.arrays[name].read() for name in _WHERE_KEPT if name in stored.arrays},
        attributes=dict(stored.attributes),
        sha256="",
        params=_values(results.meta, stored.record),
    )
    return replace(start, sha256=digest(start))


def read_stage_start(results: reader.Results, lineage: StageLineage | None) -> TrialStart | None:
    """What the trials of the stage ``lineage`` start from; None where they start anew. Raises StoreError."""
    if lineage is None or lineage.start_trial is None:
        return None
    with results.stage(lineage.start_stage) as earlier:
        return read_start(earlier, lineage.start_trial)


def digest(start: TrialStart) -> str:
    """The SHA-256 of all that is in ``start``, hexadecimal: arrays, facts, values, and which trial it is."""
    told = codec.dumps([start.stage, start.trial, _sorted(start.attributes), _sorted(start.params)])
    whole = hashlib.sha256(told.encode())
    for name, array in sorted(start.arrays.items()):
        whole.update(f"{name} {array.dtype.str} {array.shape}".encode())
        whole.update(_bytes(array))
    return whole.hexdigest()


def _sorted(facts: Mapping[str, Scalar]) -> list[list[Scalar]]:
    return [[name, facts[name]] for name in sorted(facts)]


def _bytes(array: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def _values(meta: StudyMeta, record: TrialRecord) -> dict[str, Scalar]:
    """Of everything that PtyRAD can tune; another engine's trial has its own parameters."""
    if meta.engine != "ptyrad":
        return dict(record.params)
    params = tunables.apply(provenance.config_of(meta), record.params)
    return {name: tunables.current_value(params, name) for name in tunables.PARAMETERS}
