"""The driver's handle on a study's results: one index and a folder of trial files, packed at the end.

At every moment the folder and ``NAME.h5`` together hold every recorded trial: trial files are removed only
after a packed file that holds them has taken its name, and a packed file loses its name to an index only
after it has a second one, ``packed-....h5``, in the folder.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ptydask import machine
from ptydask.errors import StoreError, UnusableResults, one_line
from ptydask.formatting import shell_path
from ptydask.model import StudyMeta, TrialRecord
from ptydask.run_snapshot import RunSnapshot
from ptydask.store import (
    byte_seal,
    codec,
    contents,
    embedded,
    files,
    index,
    isolated,
    kept_rows,
    layout,
    lock,
    names,
    packed_study,
    relocation,
    root,
    shard,
)

SHARE = 0.015
"""Of the driver's time, about this share goes into refreshing the index: never 2 %, also where one takes longer."""
OFTEN = 1.0
"""Seconds between two refreshes, at least."""


def refresh_due(elapsed: float, cost: float) -> bool:
    """Whether to refresh again, ``elapsed`` seconds after a refresh that took ``cost`` seconds."""
    return elapsed >= max(OFTEN, cost / SHARE)


class Store:
    """The results of one study, held by one driver. Make it with :meth:`open`."""

    def __init__(self, path: Path, meta: StudyMeta, held: lock.Lock, loaded: contents.StoreContents) -> None:
        self.path = path
        self.folder = names.folder_of(path)
        self.id = loaded.store_id
        self.meta = meta if loaded.previous is None else _continue_meta(loaded.previous, meta)
        self.previous = loaded.previous if loaded.previous is not None and loaded.previous.config_json else None
        """What the results said of their study; None for new ones, and for rebuilt ones that no longer know."""
        self.damaged = loaded.damaged
        """Files that could not be read, one line each; they are in ``NAME.trials/damaged``."""
        self.notices: tuple[str, ...] = ()
        """One line each: what was put right when the store was opened."""
        self.begun = False
        """Set once a trial is on its way: from then on the store is kept, whatever becomes of it."""
        self.trouble = ""
        """Why the last refresh failed; "" while all is well. The trials' own files do not depend on it."""
        self._lock = held
        self._pack = loaded.pack
        self._rows = kept_rows.KeptRows(self.folder, loaded.rows)
        self._sha256: dict[int, bytes] = {}
        """Of the bytes of each file whose worker told of it."""
        self._unread: set[int] = set()
        self._new = loaded.previous is None
        self._changed = False
        self._finished = False
        self._snapshot: RunSnapshot | None = None
        self._refreshed, self._cost = -float("inf"), 0.0

    @classmethod
    def open(cls, path: Path, meta: StudyMeta) -> Store:
        """Take the results file ``path``: a new one, one left unfinished, or a packed one to go on with.

        Raises StoreError where another driver has it, where it is damaged or not a results file of ptydask
        (it is then left as it is); UnusableResults where it cannot be written.
        """
        path = Path(path).absolute()
        folder = names.folder_of(path)
        with refuse_unwritable(path):
            contents.refuse_foreign(path, folder)
            notice = relocation.adopt_folder(path)
            held = lock.acquire(folder)
            try:
                loaded = contents.load_and_tidy(path, folder)
                if not (loaded.pack or loaded.rows or loaded.damaged or contents.study_begun(folder)):
                    loaded = replace(loaded, previous=None)  # a driver was killed before it came to any trial
                _refuse_embedded_name(contents.whole_files(path, folder, loaded.pack), meta)
                store = cls(path, meta, held, loaded)
                store.notices = (notice,) if notice else ()
                store._write_first_index()
            except BaseException:
                contents.remove_if_empty(folder)
                held.release()
                raise
        return store

    def _write_first_index(self) -> None:
        contents.write_card(self.folder, self.id, self.meta)
        # An older pack that is still there has something that the packed file has not.
        if (
            self._pack is None
            or self._rows.keys() != self._rows.numbers_in(self.path)
            or contents.pack_files(self.folder)
        ):
            self._write_index()

    @property
    def packed(self) -> bool:
        """Whether the last run came to its end: everything was in one file."""
        return self._pack is not None

    def describe(self, meta: StudyMeta) -> None:
        """Say more of the study than was known when the store was opened."""
        self.meta = _continue_meta(self.meta, meta)
        if self._pack is None:
            contents.write_card(self.folder, self.id, self.meta)

    @property
    def records(self) -> Mapping[int, TrialRecord]:
        """Every recorded trial by its number."""
        return MappingProxyType(self._rows.records)

    def add(self, record: TrialRecord, written: shard.Shard | None = None) -> None:
        """Record a trial whose file is in the folder. ``written`` is its worker's word; without it the file is opened.

        The bytes of a file that its worker told of are checked when it is packed.
        """
        number = record.number
        if self._rows.records.get(number) == record:
            return
        record = codec.share_texts(record)
        row = index.TrialRow(record, names.shard_path(self.folder, number))
        if written is None:
            self._unread.add(number)
        else:
            row = replace(row, tile=written.tile, sha256=written.seal, json=written.json)
            self._unread.discard(number)
            self._sha256[number] = bytes.fromhex(written.sha256)
        self._rows[number] = row
        self._changed = True

    def find(self, number: int) -> TrialRecord | None:
        """The record in a trial's file that nobody has added yet; None where there is no readable file."""
        path = names.shard_path(self.folder, number)
        try:
            return shard.read_record(path) if path.exists() else None
        except StoreError:
            return None

    def discard(self, number: int) -> None:
        """Remove a late result of a trial that was given up: its file, and its record where it has one already."""
        row = self._rows.get(number)
        path = names.shard_path(self.folder, number)
        if row is not None and row.file == path:
            del self._rows[number]
            self._sha256.pop(number, None)
            self._unread.discard(number)
            self._changed = True
        path.unlink(missing_ok=True)

    def refresh(self, *, force: bool = False) -> None:
        """Bring ``NAME.h5`` up to date, if something changed and the last time is long enough ago.

        What goes wrong is kept in :attr:`trouble`; with ``force`` it is raised as StoreError.
        """
        if not force and not (self._changed and refresh_due(time.monotonic() - self._refreshed, self._cost)):
            return
        if not self._changed and self._pack is not None:
            return
        started = time.monotonic()
        try:
            self._write_index()
            self.trouble = ""
        except OSError as error:
            failure = unwritable_error(self.path, error)
            self.trouble = str(failure)
            if force:
                raise failure from error
        finally:
            self._refreshed = time.monotonic()
            self._cost = self._refreshed - started

    def _write_index(self) -> None:
        self._move_pack_aside()
        self._read_tiles()
        head = index.ResultsHeader(layout.INDEX, self.id, "", self.meta)
        index.write(self.path, head, index.sort_rows(self._rows))
        # What an index of thousands of rows is made of, several kB a row, the allocator would keep for the next one.
        machine.return_freed_memory()
        self._changed = False

    def _move_pack_aside(self) -> None:
        """Give the packed ``NAME.h5`` a second name, so that an index may take the first."""
        if self._pack is None:
            return
        second = contents.pack_path(self.folder, self._pack)
        files.add_second_name(self.path, second)
        self._rows.rename_file(self.path, second)
        self._pack = None

    def _read_tiles(self) -> None:
        for number in sorted(self._unread):
            self._rows[number] = contents.with_tile(self._rows[number])
        self._unread.clear()

    def finish(self, *, keep: Sequence[str] = (contents.DAMAGED,)) -> Path:
        """Pack everything into ``NAME.h5``, remove the folder, give the store back; returns the file.

        Subfolders to ``keep`` stay, unless empty: ``contents.JOBS``, too, where jobs go on, for the next stage.

        Raises StoreError where there is no room for the packed file, or an older pack cannot be read: all is
        then kept as it was. A trial whose own file is damaged is packed with its numbers, and the file stays in
        ``NAME.trials/damaged``.
        """
        if self._pack is None or self._changed:
            self._read_tiles()
            head = index.ResultsHeader(layout.PACKED, self.id, secrets.token_hex(8), self.meta)
            try:
                altered = self._altered_trials()
                add = embedded.keep(
                    embedded.find_in(contents.whole_files(self.path, self.folder, self._pack), strict=True)
                )
                failed = packed_study.pack(self.path, head, index.sort_rows(self._rows), altered, add=add)
            except (OSError, StoreError) as error:
                raise StoreError(
                    f"{self.path}: the trials cannot be packed into one file: {error_reason(error)}; "
                    f"nothing is lost, they are in {self.folder}; run the same command again when that is put right, "
                    f"or pack them elsewhere: ptydask pack {shell_path(self.path)} -o OUT.h5"
                ) from error
            for number, why in failed.items():
                path = self._rows[number].file
                if path.exists() and path == names.shard_path(self.folder, number):
                    contents.set_aside(path)
                self.damaged = (*self.damaged, one_line(f"trial {number}: {why}"))
        contents.remove(self.folder, keep)
        self._lock.release()
        self._finished = True
        return self.path

    def _altered_trials(self) -> dict[int, str]:
        """The trials whose file no longer holds what its worker wrote, and why that is known.

        Those of earlier drivers may be damaged, as long as HDF5 does not crash or hang on them. Raises StoreError
        where it does, on an older pack.
        """
        earlier = [row for number, row in self._rows.items() if number not in self._sha256]
        altered = isolated.find_deadly(earlier, byte_seal.IntactFiles())
        changed = []
        for number, expected in self._sha256.items():
            with contextlib.suppress(OSError):  # a missing file shows when it is packed
                if files.sha256(self._rows[number].file) != expected.hex():
                    changed.append(self._rows[number])
        return altered | isolated.find_altered(changed)

    def close(self) -> None:
        """Give the store back as it is, to go on with later. One in which nothing was begun is removed.

        Harmless after :meth:`finish`.
        """
        if self._finished:
            return
        try:
            if self._new and not (self._rows or self.begun or contents.trials_begun(self.folder)):
                self.path.unlink(missing_ok=True)
                contents.remove(self.folder, keep=(contents.DAMAGED, contents.JOBS))
            elif self._pack is None or self._changed or contents.trials_begun(self.folder):
                self.refresh(force=self._changed)
                self._write_last_words()
            elif not self._write_last_words():
                contents.remove(self.folder)
        finally:
            self._lock.release()

    def write_status(self, snapshot: RunSnapshot) -> None:
        """Tell other processes where the run is: :meth:`Results.status` reads it."""
        owner = self._lock.owner
        self._snapshot = snapshot
        self._lock.beat()
        self._write_status({"host": owner.host, "pid": owner.pid, "since": owner.since}, snapshot)

    def _write_last_words(self) -> bool:
        """Leave word of how many trials were asked for, where some of them are missing; whether any is left."""
        missing = self._snapshot is not None and self._snapshot.total > len(self._rows)
        if self._snapshot is not None and missing:
            self._write_status({}, self._snapshot)
        else:
            (self.folder / contents.STATUS).unlink(missing_ok=True)
        return missing

    def _write_status(self, driver: Mapping[str, Any], snapshot: RunSnapshot) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        with contextlib.suppress(OSError):  # nothing depends on it
            status = {**driver, "updated": now, "run": snapshot}
            files.write_text(self.folder / contents.STATUS, codec.dumps(status), durable=False)


def _refuse_embedded_name(packs: Iterable[Path], meta: StudyMeta) -> None:
    """Raise StoreError where another study in the file has the name, as an earlier stage: both could not be packed."""
    for pack in packs:
        if names.encode(meta.name) in root.further_groups(pack):
            raise StoreError(f"{pack}: has a study {meta.name!r} that is not the latest, and no trials are added to it")


def _continue_meta(before: StudyMeta, meta: StudyMeta) -> StudyMeta:
    """``meta`` with the time at which the study began, and with what was known of its origin."""
    provenance = {**before.provenance, **meta.provenance}
    return replace(meta, created=before.created or meta.created, provenance=provenance)


def unwritable_error(path: Path, error: OSError) -> StoreError:
    """The error for a results file that cannot be written, in one line."""
    return StoreError(f"{path}: the results cannot be written there: {error_reason(error)}")


@contextlib.contextmanager
def refuse_unwritable(path: Path) -> Iterator[None]:
    """Raise UnusableResults for an OSError inside: the results ``path`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise UnusableResults(str(unwritable_error(path, error))) from error


def error_reason(error: OSError | StoreError) -> str:
    """Why, in one line: the system's own words where it has some."""
    strerror = error.strerror if isinstance(error, OSError) else None
    return one_line(strerror or str(error))
