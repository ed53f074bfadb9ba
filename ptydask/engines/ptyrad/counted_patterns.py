"""Whether measurements are counted electrons, before a run: by a few patterns, as reading all takes long."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ptydask.engines.ptyrad import counts, hdf5_patterns
from ptydask.errors import DataError
from ptydask.store.foreign import links, measurement_sample
from ptydask.store.foreign.measurement_sample import MeasurementSample

_FEW = 1000
"""Of fewer values that are not 0 nothing is said: they may all be multiples of a number by chance."""


def check_counted(init: Mapping[str, Any], gain: float) -> None:
    """A sample of the patterns must be electrons times ``gain``. Raises DataError.

    ``init`` has its defaults and the patterns' key. Files of which no part is cheap to read (.tif, .zarr, old .mat) are
    left to the workers, who look at every value.
    """
    params = init["meas_params"]
    if params.get("selection") is not None:
        return
    sample = None
    with suppress(OSError, ValueError, links.MissingPart):  # what cannot be read is said by who reads all of it
        sample = _read_sample(Path(params["path"]), params, init)
    if sample is None or np.count_nonzero(sample.values) < _FEW or not np.isfinite(sample.values).all():
        return
    uncounted = counts.explain_uncounted(sample.values, gain, sample.indices)
    if uncounted is not None:
        rule, hint = uncounted
        raise DataError(rule, key=hdf5_patterns.PATH, value=params["path"], hint=hint)


def _read_sample(path: Path, params: Mapping[str, Any], init: Mapping[str, Any]) -> MeasurementSample | None:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return measurement_sample.sample_array(np.load(path, mmap_mode="r", allow_pickle=False))
    if suffix == ".raw":
        pixels = init["meas_Npix"]
        count, *shape = params.get("shape") or (init["pos_N_scan_slow"] * init["pos_N_scan_fast"], pixels, pixels)
        gap = 1024 if params.get("gap") is None else params["gap"]
        pattern = np.dtype([("values", np.float32, tuple(shape)), ("gap", np.void, gap)])
        patterns = np.memmap(path, pattern, "r", params.get("offset") or 0, (count,))
        return measurement_sample.sample_array(patterns["values"])
    names = hdf5_patterns.names_meant(path, params.get("key"))
    return measurement_sample.read_sample(path, next(iter(names))) if len(names) == 1 else None
