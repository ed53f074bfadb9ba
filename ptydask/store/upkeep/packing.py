"""``ptydask pack``: a study that stopped into one file, and a packed file made smaller."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import h5py

from ptydask.errors import StoreError, UnusableResults, UsageError, one_line
from ptydask.model import StudyMeta, TrialOutput, TrialRecord
from ptydask.store import (
    artifacts,
    byte_seal,
    checkpoints,
    confirmation,
    contents,
    digest,
    draft,
    embedded,
    files,
    index,
    isolated,
    layout,
    lock,
    names,
    packed_study,
    refused,
    relocation,
    trialgroup,
)
from ptydask.store.embedded import EmbeddedStudies
from ptydask.store.study import refuse_unwritable
from ptydask.store.upkeep import retention, sizes


@dataclass(frozen=True, slots=True)
class PackReport:
    """What packing did, or would do."""

    path: Path
    trials: int
    changed: bool
    """False where the file was already as asked for: it was left as it is."""
    with_arrays: int
    dropped: tuple[int, ...]
    """The trials whose arrays went away this time."""
    before: int
    """Bytes, of the file and of the trials' own files."""
    after: int
    """Bytes of the one file; an estimate where nothing was written."""
    unfinished: int
    """Trials under way when the study stopped: their checkpoints are in the folder."""
    checkpoints_kept: bool
    damaged: tuple[str, ...]
    """One line for each trial of which only the numbers could be packed."""
    bulk: str = "arrays"
    """What goes away: ``arrays``, ``artifacts``, ``arrays and artifacts``."""
    earlier_trials: int = 0
    """Trials of earlier stages."""
    earlier_dropped: int = 0
    """How many of these lose their arrays this time."""
    earlier_with_arrays: int = 0


def pack(
    path: Path,
    rule: retention.RetentionRule = retention.ALL,
    *,
    out: Path | None = None,
    dry_run: bool = False,
    drop_checkpoints: bool = False,
) -> PackReport:
    """Make ``path``, or ``out``, one file with every trial, and with the arrays of those that ``rule`` keeps.

    In place, a driver that has the study is a StoreError that names it, and so is a damaged trial in a packed
    file. With ``out`` nothing else is touched, and a study may be running meanwhile: ``out`` has its trials so
    far. Raises UsageError where ``rule`` would drop the arrays of the best trial without saying so.
    """
    path = path.absolute()
    if out is not None:
        out = out.absolute()
        refuse_existing(out)
    if dry_run:
        return _plan_copy(path, rule)[1].report
    if out is not None:
        return _pack_copy(path, rule, out)
    contents.refuse_foreign(path, names.folder_of(path))
    if not path.exists() and not (names.folder_of(path) / contents.CARD).exists():
        raise refused.missing_error(path)
    with refuse_unwritable(path):
        relocation.adopt_folder(path)
    with hold_lock(path):
        return _pack_in_place(path, rule, drop_checkpoints)


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Keep drivers from the study ``path`` meanwhile. Raises StoreError where one has it."""
    folder = names.folder_of(path)
    with refuse_unwritable(path):
        held = lock.acquire(folder)
    try:
        yield
    finally:
        contents.remove_if_empty(folder)
        held.release()


@dataclass(frozen=True, slots=True)
class Refusals:
    """How a command refuses to write the file ``{out}``."""

    file: str = "{out}: exists already, and results are never overwritten; give another name"
    folder: str = "{folder}: exists already, and belongs to other results of that name"
    parent: str = "{out.parent}: there is no such folder"
    sign: str = "."
    """What in the folder beside ``out`` makes it a reason."""


WRITTEN = Refusals()
IMPORTED = Refusals(
    file="{out}: is there already, and is left as it is; give another name with --results",
    folder="{folder}: holds trials of a study called so; give another name with --results",
    parent="{out}: there is no folder {out.parent}",
    sign=contents.CARD,
)


def refuse_existing(out: Path, say: Refusals = WRITTEN) -> None:
    """Raise UnusableResults where ``out`` is there already: results are never written over others.

    What a killed process left of an ``out`` half-written goes away.
    """
    folder = names.folder_of(out)
    if out.exists():
        raise UnusableResults(say.file.format(out=out))
    if (folder / say.sign).exists():
        raise UnusableResults(say.folder.format(folder=folder))
    if not out.parent.is_dir():
        raise UnusableResults(say.parent.format(out=out))
    files.remove_leftovers(out.parent, out.name)


def write_new(path: Path, meta: StudyMeta, trials: Iterable[tuple[TrialRecord, TrialOutput | None]]) -> None:
    """Make ``path``, which must not be there, the packed file of ``trials`` that ended elsewhere, by rising number.

    One trial is held in memory at a time. Raises UnusableResults where it cannot be written, StoreError where it does
    not read back, and what ``trials`` raises; nothing is then left behind.
    """
    refuse_existing(path, IMPORTED)
    head = index.ResultsHeader(layout.PACKED, secrets.token_hex(8), secrets.token_hex(8), meta)
    numbers: set[int] = set()

    def build(file: h5py.File) -> None:
        study, group = index.begin_study(file, head)
        rows = []
        for record, output in trials:
            name = names.trial_name(record.number)
            trial = trialgroup.compose(name, record, output, meta.keep, direction=meta.direction, metric=meta.metric)
            digest.save_sealed(group, trial, name)
            place = group[name].name
            rows.append(index.TrialRow(record, path, place, index.read_own_tile(file, place)))
            numbers.add(record.number)
        index.complete_study(study, meta, rows, numbers)

    with refuse_unwritable(path):
        files.write_whole(path, build, check=lambda aside: packed_study.check_whole(aside, numbers))


def _pack_in_place(path: Path, rule: retention.RetentionRule, drop_checkpoints: bool) -> PackReport:
    folder = names.folder_of(path)
    study = contents.load_and_tidy(path, folder)
    packs = contents.whole_files(path, folder, study.pack)
    plan = _make_plan(path, study, rule, embedded.find_in(packs, strict=True))
    apart = packs != [path] or any(row.file != path for row in study.rows.values())
    report = plan.report
    if apart or plan.drops:
        try:
            failed, report = plan.write(path, study)
        except (OSError, StoreError) as error:
            raise StoreError(f"{path}: cannot be packed: {one_line(str(error))}; everything is as it was") from error
        for number in failed:
            if study.rows[number].file.exists():
                contents.set_aside(study.rows[number].file)
    # The packed file holds all of them by now, and has its name.
    for file in {*packs, *(row.file for row in study.rows.values())} - {path}:
        file.unlink(missing_ok=True)
    kept = contents.trials_begun(folder) and not drop_checkpoints
    if not kept:
        contents.remove(folder)
    return replace(report, checkpoints_kept=kept)


def _pack_copy(path: Path, rule: retention.RetentionRule, out: Path, tries: int = 3) -> PackReport:
    """Pack into ``out``, reading only. Where trials moved meanwhile, into a packed file, they are looked up again."""
    study, plan = _plan_copy(path, rule)
    try:
        failed, report = plan.write(out, study)
    except (OSError, StoreError) as error:
        if tries > 1 and any(not row.file.exists() for row in study.rows.values()):
            return _pack_copy(path, rule, out, tries - 1)
        raise StoreError(f"{out}: cannot be written: {one_line(str(error))}") from error
    if tries > 1 and any(not study.rows[number].file.exists() for number in failed):
        out.unlink()
        return _pack_copy(path, rule, out, tries - 1)
    return report


# --- what to do -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Thinning:
    """Which trials of one study keep their arrays."""

    held: Mapping[int, sizes.TrialSizes]
    """What each trial holds now."""
    stay: frozenset[int]
    """The trials that keep their arrays, where they have any."""

    @cached_property
    def with_bulk(self) -> dict[int, int]:
        """Bytes of each trial that has arrays."""
        return {number: holding.bulk for number, holding in self.held.items() if holding.bulk}

    @cached_property
    def drop(self) -> frozenset[int]:
        """Those that have some and lose them."""
        return frozenset(self.with_bulk.keys() - self.stay)

    @property
    def saved(self) -> int:
        """Bytes that go away."""
        return sum(self.with_bulk[number] for number in self.drop)


@dataclass(frozen=True, slots=True)
class _PackPlan:
    rule: retention.RetentionRule
    own: _Thinning
    earlier: Mapping[str, _Thinning]
    """Of each earlier stage, by its store's id."""
    studies: EmbeddedStudies
    report: PackReport

    @property
    def drops(self) -> bool:
        """Whether any trial loses arrays."""
        return any(thinning.drop for thinning in (self.own, *self.earlier.values()))

    def write(self, path: Path, study: contents.StoreContents) -> tuple[dict[int, str], PackReport]:
        """Make ``path`` the packed file; returns why, for trials with numbers only, and the report."""
        assert study.previous is not None
        head = index.ResultsHeader(layout.PACKED, study.store_id, secrets.token_hex(8), study.previous)
        rows = index.sort_rows(study.rows)
        intact = byte_seal.IntactFiles()
        add = embedded.keep(self.studies, partial(self._copy_embedded, intact))
        deadly = isolated.find_deadly(rows, intact)
        failed = packed_study.pack(path, head, rows, deadly, copy=self._copy_thinned(self.own, intact), add=add)
        lines = [one_line(f"trial {number}: {why}") for number, why in failed.items()]
        after, damaged = path.stat().st_size, (*study.damaged, *lines)
        return failed, replace(self.report, path=path, changed=True, after=after, damaged=damaged)

    def _copy_thinned(self, thinning: _Thinning, intact: byte_seal.IntactFiles) -> packed_study.Copy:
        copy_checked = packed_study.copy_checked(intact)

        def copy(trials: h5py.Group, row: index.TrialRow, group: h5py.Group) -> None:
            if row.record.number in thinning.drop:
                self._copy_without_arrays(trials, row, group, intact)
            else:
                copy_checked(trials, row, group)

        return copy

    def _copy_without_arrays(
        self, trials: h5py.Group, row: index.TrialRow, group: h5py.Group, intact: byte_seal.IntactFiles
    ) -> None:
        name = names.trial_name(row.record.number)
        copy_without_arrays(trials, name, group, str(self.rule), intact=row.file in intact)

    def _copy_embedded(self, intact: byte_seal.IntactFiles, head: index.ResultsHeader) -> packed_study.Copy:
        """How trials of an earlier stage are taken over, or repeats of a confirmation."""
        of = confirmation.study_of(head.meta)
        if not of and head.store_id in self.earlier:
            return self._copy_thinned(self.earlier[head.store_id], intact)
        stay = self.earlier.get(of, self.own).stay

        def copy_repeat(trials: h5py.Group, row: index.TrialRow, group: h5py.Group) -> None:
            # With its arrays where the trial that it repeats keeps them.
            if row.record.params.get("trial") in stay or not sizes.measure_trial(group, bulk_only=True).bulk:
                packed_study.copy_trial(trials, row, group)
            else:
                self._copy_without_arrays(trials, row, group, intact)

        return copy_repeat


def _plan_copy(path: Path, rule: retention.RetentionRule) -> tuple[contents.StoreContents, _PackPlan]:
    """The study as it is, which may be running, and what would be done with it."""
    folder = relocation.find_folder(path)
    study = contents.read_contents(path, folder)
    return study, _make_plan(path, study, rule, embedded.find(path, folder))


def _make_plan(
    path: Path, study: contents.StoreContents, rule: retention.RetentionRule, studies: EmbeddedStudies
) -> _PackPlan:
    if not (study.rows or studies.stages) or study.previous is None:
        raise StoreError(f"{path}: no trial has ended so far, there is nothing to pack")
    own = _plan_thinning(index.sort_rows(study.rows), study.previous, rule)
    earlier = {
        stage.store_id: _plan_thinning(
            index.read_rows(stage.place.file, stage.place.group, with_tiles=False),
            index.read_head(stage.place.file, stage.place.group).meta,
            rule,
        )
        for stage in studies.stages
    }
    before = sizes.measure_files(
        [path, *(row.file for row in study.rows.values()), *(stage.place.file for stage in studies.stages)]
    )
    held = [holding for thinning in (own, *earlier.values()) for holding in thinning.held.values()]
    report = PackReport(
        path=path,
        trials=len(study.rows),
        changed=False,
        with_arrays=len(own.with_bulk) - len(own.drop),
        dropped=tuple(sorted(own.drop)),
        before=before,
        after=before - own.saved - sum(thinning.saved for thinning in earlier.values()),
        unfinished=checkpoints.count(names.folder_of(path)),
        checkpoints_kept=True,
        damaged=study.damaged,
        bulk=sizes.describe_bulk(held),
        earlier_trials=sum(len(thinning.held) for thinning in earlier.values()),
        earlier_dropped=sum(len(thinning.drop) for thinning in earlier.values()),
        earlier_with_arrays=sum(len(thinning.with_bulk) - len(thinning.drop) for thinning in earlier.values()),
    )
    return _PackPlan(rule, own, earlier, studies, report)


def _plan_thinning(rows: Sequence[index.TrialRow], meta: StudyMeta, rule: retention.RetentionRule) -> _Thinning:
    records = [row.record for row in rows]
    if retention.forgets_the_best(rule, records, meta.direction):
        of = "" if meta.lineage is None else f" of stage {meta.lineage.name}"
        raise UsageError(
            f"--arrays {rule}: the best trial{of} would lose its arrays; add best:1 to keep them, or best:0 to say so"
        )
    return _Thinning(sizes.measure_trials(rows, bulk_only=True), retention.kept_trials(rule, records, meta.direction))


# --- one trial --------------------------------------------------------------------------------------


def copy_without_arrays(trials: h5py.Group, name: str, group: h5py.Group, why: str, *, intact: bool = False) -> None:
    """Copy a trial's group without its arrays, image, snapshots and artifacts, say so in it, and seal it again.

    Raises ValueError where the group is not what was sealed, unless it is known to be ``intact``.
    """
    arrays = trialgroup.array_paths(group)
    gone = {*arrays.values(), layout.IMAGE, layout.SNAPSHOTS, layout.ARTIFACTS}
    members = set(group)
    copied = h5py.Group(draft.create_group(trials.id, name))
    for member in sorted(members - gone):
        name = member.encode()
        if group.id.links.get_info(name).type == h5py.h5l.TYPE_HARD:
            h5py.h5o.copy(group.id, name, copied.id, name)
        else:
            copied[member] = group.get(member, getlink=True)
    parts = list(arrays)
    if layout.IMAGE in members:
        parts.append("the image")
    if layout.SNAPSHOTS in members:
        parts.append(f"{len(group[layout.SNAPSHOTS])} snapshots")
    if layout.ARTIFACTS in members:
        parts.append(artifacts.describe_files(group))
    changed = {
        "default": layout.CURVE if layout.CURVE in members else None,
        layout.ARRAYS_DROPPED: f"dropped when the file was packed with --arrays {why}: {', '.join(parts)}",
    }
    digest.seal_copy(copied, group, gone, changed, intact=intact)
