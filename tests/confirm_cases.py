"""Confirmations for the tests of the store and of what reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from store_cases import meta, output, put, record

from ptydask.model import TrialOutput, TrialRecord
from ptydask.ring_correlation import FourierRing
from ptydask.store import Store, confirmation, reader
from ptydask.store.upkeep import embedding

Repeat = tuple[int, int, int]
GRID: tuple[Repeat, ...] = ((2, 5, 0), (1, 5, 0), (2, 6, 0), (1, 6, 0), (2, 5, 1), (2, 5, 2))
"""Trials 2 and 1 with two seeds each, and both halves of trial 2."""


def repeat_record(number: int, repeat: Repeat, **changes: Any) -> TrialRecord:
    """One repeat, with an error of its own."""
    params = dict(zip(("trial", "seed", "half"), repeat, strict=True))
    return record(number, 0.25 + number / 1000, params=params, **changes)


def repeats_meta(store_id: str, grid: Iterable[Repeat] = GRID, **changes: Any) -> Any:
    """What the confirmation of the study in ``store_id`` says of itself."""
    config = {"study": store_id, "engine": "ptyrad", "config": {}, "space": "{}", "trials": {}}
    text = json.dumps({**config, "repeats": [list(item) for item in grid]})
    return meta("tBL_WSe2 confirmation", engine="repeat", config_json=text, **changes)


def curve(trial: int = 2) -> FourierRing:
    """A curve that tells its trial; that of trial 1 stays above the half-bit line."""
    rings = np.arange(1, 8)
    return FourierRing(rings / 10, np.cos(rings / 10 * trial), 100 * rings, "nm")


def run_repeats(
    path: Path, grid: Iterable[Repeat] = GRID, given: TrialOutput | None = None, stop: int | None = None
) -> Path:
    """What a run leaves beside ``path``: a companion with all of ``grid``; those that it has already stay.

    One that was stopped has only the first ``stop`` of them.
    """
    grid = list(grid)
    with reader.open(path) as results:
        store_id = results.id
    store = Store.open(confirmation.companion_of(path), repeats_meta(store_id, grid))
    for number, repeat in enumerate(grid[:stop]):
        if number not in store.records:
            put(store, repeat_record(number, repeat), given or output(number))
    return store.finish()


def confirmed(path: Path, grid: Iterable[Repeat] = GRID) -> Path:
    """``path``, a packed study, with a confirmation in it, and a curve of trial 2."""
    path.write_bytes(_with_repeats(path.read_bytes(), tuple(grid)))
    return path


@cache
def _with_repeats(study: bytes, grid: tuple[Repeat, ...]) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "results.h5")
        path.write_bytes(study)
        run_repeats(path, grid)
        embedding.embed(path, {2: curve(2)})
        return path.read_bytes()


def read_repeats(path: Path) -> dict[int, tuple[Repeat, Path]]:
    """Each repeat that a reader of ``path`` finds, and the file that it is in; its arrays are read."""
    found = {}
    with reader.open(path) as results:
        confirmed = results.confirmation()
        if confirmed is None:
            return {}
        with confirmed:
            for made in confirmed.records():
                trial = confirmed.trial(made.number)
                assert trial.record == made
                for array in trial.arrays.values():
                    array.read()
                trial_of, seed, half = (int(str(made.params[name])) for name in ("trial", "seed", "half"))
                found[made.number] = ((trial_of, seed, half), confirmed.path)
    return found
