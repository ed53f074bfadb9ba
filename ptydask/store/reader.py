"""Reading results, finished or still growing: nobody who writes them is ever kept waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from ptydask.errors import NoResults, StoreError, nearest_hint, one_line
from ptydask.lineage import FINAL, StageLineage
from ptydask.model import StudyMeta, TrialRecord
from ptydask.ranking import ranked
from ptydask.ring_correlation import FourierRing
from ptydask.store import (
    artifacts,
    codec,
    confirmation,
    contents,
    embedded,
    files,
    index,
    layout,
    lock,
    names,
    nexus,
    refused,
    relocation,
    shard,
    table,
    trialgroup,
)
from ptydask.store.artifacts import StoredFile
from ptydask.store.embedded import StudyPlace
from ptydask.store.trial_data import StoredArray as StoredArray
from ptydask.store.trial_data import TrialData as TrialData

T = TypeVar("T")
_TRIES = 20
"""The file may be replaced while something is looked for: it is then elsewhere."""
_MORE = "`ptydask verify` says what is damaged and what is whole"


def open(path: Path | str, stage: str = "") -> Results:
    """The results in ``path``: those of its latest stage where it has several, else of ``stage``.

    Raises StoreError, in one line, where there are none to read, or no such stage.
    """
    results = Results(Path(path))
    if not stage:
        return results
    with results:
        return results.stage(stage)


class Results(AbstractContextManager["Results"]):
    """A results file as it was when it was opened; :func:`open` makes it, ``with`` closes it."""

    def __init__(self, path: Path, place: StudyPlace | None = None, folder: Path | None = None) -> None:
        """``place`` is that of another study in ``path``, or in an older packed file of it.

        ``folder`` is where such a study may be going on; an earlier stage is not.
        """
        self.path = path.absolute()
        self._place = place or StudyPlace(self.path)
        self._is_over = place is not None and folder is None
        self._folder = folder or names.folder_of(self.path)
        self._file = self._open_file()

    def _open_file(self) -> h5py.File:
        source, group = self._place.file, self._place.group
        head = index.read_head(source, group)
        try:
            file = files.open_read_only(source)
            # The file may have been replaced between the two.
            head = index.parse_head(file, source, group)
        except files.BROKEN as error:
            raise refused.unreadable_error(source, error) from error
        self.meta: StudyMeta = head.meta
        self.id: str = head.store_id
        self.packed: bool = head.kind == layout.PACKED
        """Whether the file holds everything itself; else the trials are in the folder beside it."""
        if not self.packed:
            self._folder = relocation.find_folder(self.path)
        self._study = index.study_of(file, group)
        self.__dict__.pop("_trials", None)  # of the file that was open before
        return file

    @property
    def file(self) -> Path:
        """The file that holds it: :attr:`path`, or, of an earlier stage, an older packed one while a run is on."""
        return self._place.file

    @property
    def live(self) -> bool:
        """Whether a driver has the study at this moment."""
        return not self._is_over and lock.owner_of(self._folder) is not None

    def records(self) -> list[TrialRecord]:
        """Every recorded trial by number: the table's rows, and trials that ended since it was written.

        Rows of the table come without the traceback; :meth:`trial` has it.
        """
        rows = {record.number: record for record in self._read_table(table.read)}
        rows |= {record.number: record for record in self._records_since(rows.keys())}
        return [rows[number] for number in sorted(rows)]

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """The same trials as columns, one value a trial: ``number``, ``state``, ``params/NAME``, ``metrics/NAME`` ...

        A missing number is NaN, a missing text None; ``retry_of`` is -1 where there is none. Numbers come in their
        own type, texts and what has no common type as objects.
        """
        stored = self._read_table(table.read_columns)
        since = list(self._records_since(set(stored["number"].tolist())))
        return table.join_columns(stored, table.columns_of(since)) if since else stored

    def ranked(self, count: int | None = None) -> list[TrialRecord]:
        """The completed trials, best error first, the earlier one on a tie; the first ``count`` of them."""
        since = list(self._records_since(self._table_numbers()))
        best = self._read_table(
            lambda stored: table.read_rows(stored, table.ranks(stored, self.meta.direction)[:count])
        )
        return ranked([*best, *since], self.meta.direction)[:count]

    def _table_numbers(self) -> set[int]:
        return self._read_table(lambda stored: set(stored["number"][()].tolist()))

    def _read_table(self, read: Callable[[h5py.Group], T]) -> T:
        try:
            return read(self._study[layout.TABLE])
        except files.BROKEN as error:
            if refused.describe_writer(self.path):
                raise refused.unreadable_error(self.path, error) from error
            why = one_line(str(error))
            raise StoreError(f"{self.path}: damaged: its table of trials cannot be read ({why}); {_MORE}") from error

    def _records_since(self, numbers: Any) -> Iterator[TrialRecord]:
        """Trials of a run that is on, or was killed, that are in files of their own only."""
        if not self._has_folder():
            return
        for number, path in contents.shard_files(self._folder).items():
            if number not in numbers:
                try:
                    yield shard.read_record(path)
                except StoreError:
                    continue  # removed meanwhile, or damaged: the driver says which

    def best(self) -> TrialRecord | None:
        """The completed trial with the best error; None when nothing completed."""
        return next(iter(self.ranked(1)), None)

    def thumbnails(self) -> NDArray[np.uint8]:
        """(N, 128, 128): each trial's image, in the order of the table; zeros where there is none, or it is damaged."""
        try:
            stack = self._study[layout.THUMBNAILS]
            images = np.zeros(stack.shape, np.uint8)
        except files.BROKEN as error:
            raise refused.unreadable_error(self.path, error) from error
        try:
            stack.read_direct(images)
        except files.BROKEN:
            images[:] = 0
            for row in range(len(images)):
                with suppress(*files.BROKEN):
                    images[row] = stack[row]
        return images

    def pictures(self) -> dict[int, NDArray[np.uint8]]:
        """Trial number -> its thumbnail, (128, 128); a trial that has no image is left out."""
        try:
            numbers = self._study[layout.TABLE]["number"][()].tolist()
        except files.BROKEN as error:
            raise refused.unreadable_error(self.path, error) from error
        return {number: tile for number, tile in zip(numbers, self.thumbnails(), strict=False) if tile.any()}

    def curve(self, number: int) -> dict[str, NDArray[Any]]:
        """``step`` and one column for each metric; empty for a trial that never reported. Raises StoreError."""
        return self._read_trial(number, trialgroup.read_curve)

    def curves(self, apply: Callable[..., Iterable[Any]] = map) -> dict[int, dict[str, NDArray[Any]]]:
        """The curve of every trial that has one. A trial whose file is damaged is left out.

        ``apply`` reads them: ``map``, or what does the same on several cores.
        """
        stored = self._table_numbers()
        numbers = sorted(stored.union(record.number for record in self._records_since(stored)))
        curves = zip(numbers, apply(self._whole_curve, numbers), strict=True)
        return {number: curve for number, curve in curves if curve}

    def _whole_curve(self, number: int) -> dict[str, NDArray[Any]]:
        """As :meth:`curve`, of a packed file without looking for the trial elsewhere; empty where it is damaged."""
        if self.packed:
            with suppress(*files.BROKEN):
                if curve := trialgroup.read_curve(self._trials[names.trial_name(number)]):
                    return curve
        with suppress(StoreError):
            return self.curve(number)
        return {}

    def trial(self, number: int) -> TrialData:
        """Everything of one trial; arrays are read when used. Raises StoreError for an unknown number."""
        return self._read_trial(number, lambda group: self._trial_data(number, group))

    def _trial_data(self, number: int, group: h5py.Group) -> TrialData:
        attributes = nexus.read_text(group, layout.ATTRIBUTES_JSON)
        return TrialData(
            record=trialgroup.read_record(group),
            curve=trialgroup.read_curve(group),
            arrays=self._stored_arrays(number, group, trialgroup.array_paths(group)),
            image=trialgroup.read_image(group),
            attributes=codec.loads(attributes) if attributes else {},
            log=nexus.read_text(group, layout.LOG),
            snapshots={
                step: self._stored_arrays(number, group, paths)
                for step, paths in trialgroup.snapshot_paths(group).items()
            },
            lost=nexus.read_attribute(group, "lost"),
            dropped=nexus.read_attribute(group, layout.ARRAYS_DROPPED),
            merged=trialgroup.read_origin(group),
            command=artifacts.read_command(group),
            artifacts={path: self._stored_file(number, path, size) for path, size in artifacts.sizes(group).items()},
            left_out=artifacts.read_left_out(group),
        )

    def _stored_file(self, number: int, path: str, size: int) -> StoredFile:
        return StoredFile(
            path, size, lambda part: self._read_trial(number, lambda group: artifacts.read(group, path, part))
        )

    def _stored_arrays(self, number: int, group: h5py.Group, paths: Mapping[str, str]) -> dict[str, StoredArray]:
        def stored(path: str) -> StoredArray:
            data = group[path]
            return StoredArray(
                shape=data.shape,
                dtype=data.dtype,
                units=nexus.read_attribute(data, "units"),
                long_name=nexus.read_attribute(data, "long_name"),
                _fetch=lambda part: np.asarray(self._read_trial(number, lambda trial: trial[path][part])),
            )

        return {name: stored(path) for name, path in paths.items()}

    def _read_trial(self, number: int, read: Callable[[h5py.Group], T]) -> T:
        """What ``read`` makes of the trial's group, wherever it lies by now."""
        for _ in range(_TRIES):
            for path, group in self._trial_places(number):
                result = self._try_read(number, path, group, read)
                if result is not None:
                    return result[0]
            if self.packed and not self._has_folder():
                break
            # It moved from its own file into a packed one, or is about to.
            self.close()
            self._file = self._open_file()
        numbers = [record.number for record in self.records()]
        if number in numbers and not self.packed:
            missing = self._folder if not self._has_folder() else names.shard_path(self._folder, number)
            raise StoreError(
                f"{self.path}: all of trial {number} but its row in the table is in {missing}, which is not there; "
                f"copy {self._folder.name} here, too"
            )
        span = f"its trials are {numbers[0]} to {numbers[-1]}" if numbers else "it has none yet"
        raise StoreError(f"{self.path}: there is no trial {number}; {span}")

    def _try_read(self, number: int, path: Path, group: str, read: Callable[[h5py.Group], T]) -> tuple[T] | None:
        """What ``read`` gives, alone in a tuple; None where the trial is not, or no longer, in this file."""
        try:
            with nullcontext(self._file) if path == self._place.file else files.open_read_only(path) as file:
                return (read(file[group]),) if group in file else None
        except files.BROKEN as error:
            if not path.exists():
                return None
            if refused.describe_writer(path):
                raise refused.unreadable_error(path, error) from error
            why = one_line(str(error))
            raise StoreError(f"{path}: trial {number} is damaged and cannot be read ({why}); {_MORE}") from error

    def _trial_places(self, number: int) -> Iterator[tuple[Path, str]]:
        name = names.trial_name(number)
        if self.packed:
            yield self._place.file, f"{self._study.name}/{layout.TRIALS}/{name}"
        if not self._has_folder():
            return
        yield names.shard_path(self._folder, number), layout.TRIAL
        for pack in contents.pack_files(self._folder):
            try:
                study = names.encode(index.read_head(pack).meta.name)
            except StoreError:  # gone since
                continue
            yield pack, f"{study}/{layout.TRIALS}/{name}"

    def _has_folder(self) -> bool:
        """Whether the folder beside the file is there, and of the same study."""
        try:
            card = contents.read_card(self._folder)
        except (OSError, StoreError):
            return False
        return card is not None and card[0] == self.id

    def confirmation(self) -> Results | None:
        """The study's confirmation, opened: a study whose trials are repeats of this one's; None where it has none.

        A trial of it has the parameters ``trial``, ``seed`` and ``half``. It is in this file or, while repeats are run,
        in ``NAME.confirmation.h5`` beside it; a file of that name that is something else is none.
        """
        beside = self._open_companion()
        place = self._find_confirmation()
        if beside is not None:
            if place is None or len(beside.columns()["number"]) >= embedded.count_trials(place):
                return beside
            beside.close()
        return embedded.read_unmoved(self.path, self._open_confirmation)

    def _find_confirmation(self) -> StudyPlace | None:
        return embedded.find(self.path, relocation.find_folder(self.path)).confirmation_of(self.id)

    def _open_confirmation(self) -> Results | None:
        place = self._find_confirmation()
        if place is None:
            return None
        return Results(place.file, place, names.folder_of(confirmation.companion_of(place.file)))

    def _open_companion(self) -> Results | None:
        """The file beside this one that holds repeats of its trials; None where there is no such file."""
        try:
            beside = Results(confirmation.companion_of(self.path))
        except StoreError:
            return None
        if confirmation.is_of(beside.meta, self.id):
            return beside
        beside.close()
        return None

    @property
    def lineage(self) -> StageLineage | None:
        """Which stage of several it is, and what it has from those before it; None for a study that has none."""
        return self.meta.lineage

    def stage_names(self) -> tuple[str, ...]:
        """The names of the stages in the file, in their order, the latest last; none of a study without stages."""
        return tuple(embedded.stage_places(self.path, relocation.find_folder(self.path)))

    def stage(self, name: str) -> Results:
        """One of :meth:`stage_names`, opened: a study like this one. Raises StoreError where there is none such."""

        def open_stage() -> Results:
            places = embedded.stage_places(self.path, relocation.find_folder(self.path))
            if name not in places:
                there = nearest_hint(name, places) if places else "it is a study without stages"
                raise NoResults(f"{self.path}: has no stage {name!r} that can be read; {there}")
            opened = Results(self.path, places[name] if places[name].group else None)
            if opened.lineage is None or opened.lineage.name != name:
                opened.close()
                raise StoreError(f"{self.path}: the next stage has begun")
            return opened

        return embedded.read_unmoved(self.path, open_stage)

    def tuned_before(self) -> str:
        """Of a final reconstruction the last stage that tuned something; empty for what tunes something itself."""
        if self.lineage is None or self.lineage.name != FINAL:
            return ""
        return next((name for name in reversed(self.stage_names()) if name != FINAL), "")

    def ring_curves(self) -> dict[int, FourierRing]:
        """Of a confirmation: the Fourier ring correlation of each trial that has one, by the trial's number."""
        try:
            return confirmation.curves_of(self._study)
        except files.BROKEN as error:
            raise refused.unreadable_error(self.path, error) from error

    @property
    def begun(self) -> bool:
        """Whether a driver has come to its trials: one may be killed before, as where the data cannot be read."""
        return self.packed or bool(self.records()) or contents.study_begun(self._folder)

    def status(self) -> dict[str, Any] | None:
        """What the driver said last: host, pid, since, updated, run. None where no run is on."""
        return self.last_words() if self.live else None

    def last_words(self) -> dict[str, Any] | None:
        """The same of a driver that may be gone; one that was stopped has no pid in it; None where nothing was left."""
        return None if self._is_over else contents.read_status(self._folder)

    @cached_property
    def _trials(self) -> h5py.Group:
        return self._study[layout.TRIALS]

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()
