"""Other studies in the results file of one: the stages before it, in their order, and the confirmation of each.

Each is a group of the root, of the same layout as the study that the file is of, with ids and a digest of its own as
attributes. Whatever writes the file anew takes them over. While a run is on, the file is an index, and they are in the
older pack in its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import h5py

from ptydask.errors import StoreError
from ptydask.ring_correlation import FourierRing
from ptydask.store import (
    byte_seal,
    confirmation,
    contents,
    digest,
    files,
    index,
    isolated,
    layout,
    names,
    nexus,
    packed_study,
    root,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StudyPlace:
    """Where a study lies."""

    file: Path
    group: str = ""
    """Its group's name; "" for the study that the file is of."""


@dataclass(frozen=True, slots=True)
class EmbeddedStage:
    """An earlier stage."""

    place: StudyPlace
    store_id: str
    confirmation: StudyPlace | None = None
    """Its confirmation, where it has one."""


@dataclass(frozen=True, slots=True)
class EmbeddedStudies:
    """The other studies of a results file."""

    confirmation: StudyPlace | None = None
    """That of the study that the file is of."""
    stages: tuple[EmbeddedStage, ...] = ()
    """The earlier ones, in their order."""

    def __bool__(self) -> bool:
        return self.confirmation is not None or bool(self.stages)

    def confirmation_of(self, store_id: str) -> StudyPlace | None:
        """That of the stage with this id, or, where there is none, of the study that the file is of."""
        earlier = {stage.store_id: stage.confirmation for stage in self.stages}
        return earlier.get(store_id, self.confirmation)


# --- finding ------------------------------------------------------------------------------------------


_TRIES = 10
"""A file may be replaced meanwhile, and what was in it, or in an older one, be elsewhere by now."""


def find(path: Path, folder: Path) -> EmbeddedStudies:
    """Those within ``path``, and within older packed files in its ``folder``. Files that cannot be read have none."""
    for _ in range(_TRIES):
        before = files.stamp(path)
        # An older pack goes away once ``path`` has what was in it, so ``path`` is looked at last.
        found = find_in([*contents.pack_files(folder), path])
        if files.stamp(path) == before:
            break
    return found


def read_unmoved(path: Path, read: Callable[[], T]) -> T:
    """What ``read`` gives, asked again where it raises StoreError because ``path`` was replaced meanwhile."""
    for _ in range(_TRIES):
        before = files.stamp(path)
        try:
            return read()
        except StoreError:
            if files.stamp(path) == before:
                raise
    return read()


def stage_places(path: Path, folder: Path) -> dict[str, StudyPlace]:
    """Where each stage of a study lies, the one that ``path`` is of too, by its name, in their order.

    Those that cannot be read are left out: ``ptydask verify`` says what is wrong with them.
    """
    for _ in range(_TRIES):
        before, named = files.stamp(path), dict[str, StudyPlace]()
        for place in (*(stage.place for stage in find(path, folder).stages), StudyPlace(path)):
            with suppress(StoreError):
                lineage = index.read_head(place.file, place.group).meta.lineage
                if lineage is not None:
                    named[lineage.name] = place
        if files.stamp(path) == before:
            break
    return named


def find_in(paths: Iterable[Path], *, strict: bool = False) -> EmbeddedStudies:
    """Those in packed files of one study, the older first; of what several have the fullest, of equals the last.

    Files that cannot be read have none; with ``strict``, for whoever is about to remove them, they raise StoreError.
    """
    read = []
    for path in paths:
        try:
            read.append(_read(path))
        except FileNotFoundError:
            continue
        except files.BROKEN as error:
            if strict:
                raise StoreError(f"{path}: cannot be read: {files.hdf5_reason(error)}") from error
    read.reverse()
    longest_first = sorted(read, key=lambda studies: -len(studies.stages))
    found: dict[str, list[EmbeddedStage]] = {}
    for studies in longest_first:
        for stage in studies.stages:
            found.setdefault(stage.store_id, []).append(stage)
    stages = [
        EmbeddedStage(
            max((stage.place for stage in same), key=count_trials),
            store_id,
            find_fullest(stage.confirmation for stage in same),
        )
        for store_id, same in found.items()
    ]
    return EmbeddedStudies(find_fullest(studies.confirmation for studies in read), tuple(stages))


def _read(path: Path) -> EmbeddedStudies:
    """What the file ``path`` says that it has. Raises what h5py raises."""
    with files.open_read_only(path) as file:

        def confirmation_of(study: h5py.Group) -> StudyPlace | None:
            group = nexus.read_attribute(study, layout.CONFIRMATION)
            return StudyPlace(path, group) if group and group in file else None

        groups = [file[name] for name in root.stage_groups(file)]
        stages = [
            EmbeddedStage(
                StudyPlace(path, group.name.lstrip("/")),
                nexus.read_attribute(group, layout.STORE_ID),
                confirmation_of(group),
            )
            for group in groups
        ]
        return EmbeddedStudies(confirmation_of(file["/"]), tuple(stages))


def find_fullest(places: Iterable[StudyPlace | None]) -> StudyPlace | None:
    """The one with most trials, of equals the first; None where there is none."""
    return max((place for place in places if place is not None), key=count_trials, default=None)


def count_trials(place: StudyPlace) -> int:
    """How many trials the table of a study has; 0 where it cannot be read."""
    try:
        with files.open_read_only(place.file) as file:
            return len(index.study_of(file, place.group)[layout.TABLE]["number"])
    except files.BROKEN:
        return 0


# --- keeping ------------------------------------------------------------------------------------------

CopyOf = Callable[[index.ResultsHeader], packed_study.Copy]
"""How the trials of a study are taken over."""


def copy_whole(head: index.ResultsHeader) -> packed_study.Copy:
    """Every trial as it is."""
    return packed_study.copy_trial


@dataclass(frozen=True, slots=True)
class StudyContents:
    """A study as it is to be embedded."""

    head: index.ResultsHeader
    rows: Sequence[index.TrialRow]
    """By number."""
    damaged: Mapping[int, str] = field(default_factory=dict)
    """Why, for each trial that is whole nowhere: it is embedded with its numbers only."""
    curves: Mapping[int, FourierRing] = field(default_factory=dict)
    """Of a confirmation."""
    confirmation: StudyContents | None = None


def load(place: StudyPlace, confirmed: StudyPlace | None = None) -> StudyContents:
    """The study at ``place``, with its confirmation. Raises StoreError where either cannot be read."""
    return StudyContents(
        index.read_head(place.file, place.group),
        index.read_rows(place.file, place.group),
        curves=confirmation.read_curves(place.file, place.group),
        confirmation=None if confirmed is None else load(confirmed),
    )


def keep(studies: EmbeddedStudies, copy_of: CopyOf = copy_whole) -> Embedding:
    """What takes them over into a new file of their study. Raises StoreError where one cannot be read."""
    return Embedding(
        None if studies.confirmation is None else load(studies.confirmation),
        tuple(load(stage.place, stage.confirmation) for stage in studies.stages),
        copy_of,
    )


@dataclass(frozen=True, slots=True)
class Embedding:
    """Studies on their way into a new results file."""

    confirmation: StudyContents | None = None
    stages: tuple[StudyContents, ...] = ()
    copy_of: CopyOf = copy_whole

    def _confirmations(self) -> list[StudyContents]:
        confirmed = [self.confirmation, *(stage.confirmation for stage in self.stages)]
        return [study for study in confirmed if study is not None]

    @property
    def sources(self) -> set[Path]:
        """The files that they are read from."""
        return {row.file for study in (*self.stages, *self._confirmations()) for row in study.rows}

    def write(self, file: h5py.File) -> None:
        """Write them beside the study that is in ``file`` already.

        A repeat that cannot be read has its numbers only, for it can be run again. Raises StoreError where a study is
        called as another one, and for a trial of a stage that cannot be read.
        """
        studies, intact = [*self.stages, *self._confirmations()], byte_seal.IntactFiles()
        rows = [row for study in studies for row in study.rows if row.record.number not in study.damaged]
        isolated.find_deadly(rows, intact)
        if self.confirmation is not None:
            nexus.write_attribute(file, layout.CONFIRMATION, self._write_study(file, self.confirmation, intact))
        groups = [self._write_stage(file, stage, intact) for stage in self.stages]
        if groups:
            file.attrs[layout.STAGES] = nexus.encode_texts(groups)

    def _write_stage(self, file: h5py.File, stage: StudyContents, intact: byte_seal.IntactFiles) -> str:
        confirmed = "" if stage.confirmation is None else self._write_study(file, stage.confirmation, intact)
        return self._write_study(file, stage, intact, confirmed, is_stage=True)

    def _write_study(
        self,
        file: h5py.File,
        study: StudyContents,
        intact: byte_seal.IntactFiles,
        confirmed: str = "",
        *,
        is_stage: bool = False,
    ) -> str:
        """Returns the group's name."""
        head, copy = study.head, self.copy_of(study.head)
        if names.encode(head.meta.name) in file:
            raise StoreError(f"the file would have two studies that are called {head.meta.name!r}")
        group, trials = index.begin_group(file, head.meta)
        with closing(files.RecentFile()) as source:
            for row in study.rows:
                name = names.trial_name(row.record.number)
                if row.record.number not in study.damaged:
                    try:
                        copy(trials, row, source.open(row.file)[row.group])
                        if not (is_stage or row.file in intact):
                            digest.check(trials[name])
                        continue
                    except files.BROKEN as error:
                        source.close()
                        if is_stage:
                            raise StoreError(f"{row.file}: {row.group} cannot be read from it: {error}") from error
                        if name in trials:
                            del trials[name]
                packed_study.write_numbers_only(trials, name, row.record, head.meta)
        confirmation.write_curves(group, study.curves)
        index.complete_group(group, head.meta, study.rows, {row.record.number for row in study.rows})
        nexus.write_attributes(group, {layout.STORE_ID: head.store_id, layout.PACK_ID: head.pack_id})
        if confirmed:
            nexus.write_attribute(group, layout.CONFIRMATION, confirmed)
        digest.seal(group, root.STAGE_UNSEALED if is_stage else ())
        return str(group.name.lstrip("/"))

    def check(self, path: Path) -> None:
        """Raise StoreError where ``path``, just written, lacks one of them, a trial, or a row; nothing is hashed."""
        for study in (*self.stages, *self._confirmations()):
            group = names.encode(study.head.meta.name)
            packed_study.check_whole(path, {row.record.number for row in study.rows}, group)
        with files.open_read_only(path) as file:
            if root.stage_groups(file) != [names.encode(stage.head.meta.name) for stage in self.stages]:
                raise StoreError(f"{path}: the packed file lacks stages")
