"""What a results file holds, counted: bytes by kind, trials with arrays. Headers are read, no data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import h5py

from ptydask.store import files, index, layout

ARRAYS, IMAGES, SNAPSHOTS, ARTIFACTS = "arrays", "images", "snapshots", "artifacts"
BULK = (ARRAYS, IMAGES, SNAPSHOTS, ARTIFACTS)
"""What a trial that keeps no arrays lacks: the files that its program wrote go with them."""
THUMBNAILS, CURVES, LOGS = "thumbnails", "curves", "logs"
NUMBERS = "numbers and parameters"
_KINDS = {
    layout.IMAGE: IMAGES,
    layout.SNAPSHOTS: SNAPSHOTS,
    layout.CURVE: CURVES,
    layout.THUMBNAIL: THUMBNAILS,
    layout.LOG: LOGS,
    layout.TRACEBACK: LOGS,
    layout.PROGRAM: LOGS,
    layout.ARTIFACTS: ARTIFACTS,
    layout.PARAMS: NUMBERS,
    layout.METRICS: NUMBERS,
    layout.GRADIENT: NUMBERS,
    layout.RECORD_JSON: NUMBERS,
    layout.ATTRIBUTES_JSON: NUMBERS,
}


@dataclass(frozen=True, slots=True)
class TrialSizes:
    """What the file holds of one trial."""

    stored: Mapping[str, int]
    """Bytes in the file by kind, headers apart."""
    unpacked: int
    """Bytes of its arrays, images, snapshots and artifacts in memory."""
    dropped: bool
    lost: bool

    @property
    def bulk(self) -> int:
        """Bytes that it would lose without arrays; 0 where it has none."""
        return sum(self.stored.get(kind, 0) for kind in BULK)


def describe_bulk(holdings: Iterable[TrialSizes]) -> str:
    """What the trials would lose together: ``arrays``, ``artifacts``, ``arrays and artifacts``."""
    kinds = {kind for holding in holdings for kind in BULK if holding.stored.get(kind)}
    words = [] if kinds == {ARTIFACTS} else [ARRAYS]
    words += [ARTIFACTS] if ARTIFACTS in kinds else []
    return " and ".join(words)


def measure_trial(group: h5py.Group, *, bulk_only: bool = False) -> TrialSizes:
    """What a trial's group holds; with ``bulk_only``, what it would lose without arrays."""
    stored: Counter[str] = Counter()
    unpacked = 0
    for name, data in _datasets_below(group.id, bulk_only=bulk_only):
        kind = _kind_of(name)
        stored[kind] += data.get_storage_size()
        if kind in BULK:
            unpacked += data.get_space().get_simple_extent_npoints() * data.get_type().get_size()
    dropped, lost = (h5py.h5a.exists(group.id, name) for name in (layout.ARRAYS_DROPPED.encode(), b"lost"))
    return TrialSizes(stored, unpacked, dropped, lost)


def _kind_of(path: bytes) -> str:
    return _KINDS.get(path.partition(b"/")[0].decode(errors="surrogateescape"), ARRAYS)


def _datasets_below(group: h5py.h5g.GroupID, *, bulk_only: bool) -> Iterator[tuple[bytes, h5py.h5d.DatasetID]]:
    """The datasets below ``group`` with their paths, those that links of other kinds lead to apart.

    HDF5 lists all links in one call; to open what each leads to is all that is left to do, and the most of it.
    (h5py's own objects cost ten times as much.)
    """
    paths: list[bytes] = []

    def add(path: bytes, link: h5py.h5l.LinkInfo) -> None:
        if link.type == h5py.h5l.TYPE_HARD:
            paths.append(path)

    group.links.visit(add, info=True)
    groups = {path.rpartition(b"/")[0] for path in paths}
    for path in paths:
        if path not in groups and not (bulk_only and _kind_of(path) not in BULK):
            item = h5py.h5o.open(group, path)
            if isinstance(item, h5py.h5d.DatasetID):
                yield path, item


def measure_trials(rows: Sequence[index.TrialRow], *, bulk_only: bool = False) -> dict[int, TrialSizes]:
    """The same for each trial that can be read, wherever it lies; by number."""
    by_file = sorted(rows, key=lambda row: row.file)
    measured = {}
    for path, rows_there in groupby(by_file, key=lambda row: row.file):
        with suppress(*files.BROKEN), files.open_at_once(path) as file:
            for row in rows_there:
                with suppress(*files.BROKEN):
                    measured[row.record.number] = measure_trial(file[row.group], bulk_only=bulk_only)
    return dict(sorted(measured.items()))


def measure_files(paths: Sequence[Path]) -> int:
    """Bytes of the files, each once whatever its names; what is not there has none."""
    sizes = {}
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
