"""``ptydask pack``: a study that stopped into one file, and a packed file made smaller."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import h5py

from ptydask.errors import StoreError, UnusableResults, UsageError, one_line
from ptydask.model import StudyMeta, TrialOutput, TrialRecord
from ptydask.store import (
    artifacts,
    checkpoints,
    confirmation,
    contents,
    digest,
    files,
    index,
    isolated,
    layout,
    lock,
    names,
    nexus,
    refused,
    relocation,
    trialgroup,
)
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
        return _make_plan(path, contents.read_contents(path, relocation.find_folder(path)), rule).report
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
            written = trialgroup.write(
                group, name, record, output, meta.keep, direction=meta.direction, metric=meta.metric
            )
            rows.append(index.TrialRow(record, path, written.name, index.read_own_tile(file, written.name)))
            numbers.add(record.number)
        index.complete_study(study, meta, rows, numbers)

    with refuse_unwritable(path):
        files.write_whole(path, build, check=lambda aside: index.check_whole(aside, numbers))


def _pack_in_place(path: Path, rule: retention.RetentionRule, drop_checkpoints: bool) -> PackReport:
    folder = names.folder_of(path)
    study = contents.load_and_tidy(path, folder)
    plan = _make_plan(path, study, rule)
    apart = any(row.file != path for row in study.rows.values())
    report = plan.report
    if apart or plan.drop:
        try:
            failed, report = plan.write(path, path, study)
        except (OSError, StoreError) as error:
            raise StoreError(f"{path}: cannot be packed: {one_line(str(error))}; everything is as it was") from error
        for number in failed:
            if study.rows[number].file.exists():
                contents.set_aside(study.rows[number].file)
    # The packed file holds all of them by now, and has its name.
    for row in study.rows.values():
        if row.file != path:
            row.file.unlink(missing_ok=True)
    kept = contents.trials_begun(folder) and not drop_checkpoints
    if not kept:
        contents.remove(folder)
    return replace(report, checkpoints_kept=kept)


def _pack_copy(path: Path, rule: retention.RetentionRule, out: Path, tries: int = 3) -> PackReport:
    """Pack into ``out``, reading only. Where trials moved meanwhile, into a packed file, they are looked up again."""
    study = contents.read_contents(path, relocation.find_folder(path))
    plan = _make_plan(path, study, rule)
    try:
        failed, report = plan.write(out, path, study)
    except (OSError, StoreError) as error:
        if tries > 1 and any(not row.file.exists() for row in study.rows.values()):
            return _pack_copy(path, rule, out, tries - 1)
        raise StoreError(f"{out}: cannot be written: {one_line(str(error))}") from error
    if tries > 1 and any(not study.rows[number].file.exists() for number in failed):
        out.unlink()
        return _pack_copy(path, rule, out, tries - 1)
    return report


# --- what to do -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _PackPlan:
    rule: retention.RetentionRule
    stay: frozenset[int]
    """The trials that keep their arrays, where they have any."""
    drop: frozenset[int]
    """Those that have some and lose them."""
    report: PackReport

    def write(self, path: Path, source: Path, study: contents.StoreContents) -> tuple[dict[int, str], PackReport]:
        """Make ``path`` the packed file of ``source``; returns why, for trials with numbers only, and the report."""
        assert study.previous is not None
        head = index.ResultsHeader(layout.PACKED, study.store_id, secrets.token_hex(8), study.previous)

        def copy(trials: h5py.Group, row: index.TrialRow, group: h5py.Group) -> None:
            if row.record.number in self.drop:
                digest.check(group)
                copy_without_arrays(trials, names.trial_name(row.record.number), group, str(self.rule))
            else:
                index.copy_trial(trials, row, group)
                digest.check(trials[names.trial_name(row.record.number)])

        rows = index.sort_rows(study.rows)
        add = confirmation.keep(source, relocation.find_folder(source), self._copy_repeat)
        deadly = isolated.find_deadly(rows)
        failed = index.pack(path, head, rows, deadly, copy=copy, add=add)
        lines = [one_line(f"trial {number}: {why}") for number, why in failed.items()]
        after, damaged = path.stat().st_size, (*study.damaged, *lines)
        return failed, replace(self.report, path=path, changed=True, after=after, damaged=damaged)

    def _copy_repeat(self, trials: h5py.Group, row: index.TrialRow, group: h5py.Group) -> None:
        """Copy a repeat of the confirmation: with its arrays where the trial that it repeats keeps them."""
        if row.record.params.get("trial") in self.stay or not sizes.measure_trial(group).bulk:
            index.copy_trial(trials, row, group)
        else:
            digest.check(group)
            copy_without_arrays(trials, names.trial_name(row.record.number), group, str(self.rule))


def _make_plan(path: Path, study: contents.StoreContents, rule: retention.RetentionRule) -> _PackPlan:
    if not study.rows or study.previous is None:
        raise StoreError(f"{path}: no trial has ended so far, there is nothing to pack")
    records = [row.record for row in index.sort_rows(study.rows)]
    direction = study.previous.direction
    if retention.forgets_the_best(rule, records, direction):
        raise UsageError(
            f"--arrays {rule}: the best trial would lose its arrays; add best:1 to keep them, or best:0 to say so"
        )
    stay = retention.kept_trials(rule, records, direction)
    held_now = sizes.measure_trials(index.sort_rows(study.rows))
    bulk = {number: holding.bulk for number, holding in held_now.items() if holding.bulk}
    drop = frozenset(bulk.keys() - stay)
    before = sizes.measure_files([path, *(row.file for row in study.rows.values())])
    report = PackReport(
        path=path,
        trials=len(records),
        changed=False,
        with_arrays=len(bulk) - len(drop),
        dropped=tuple(sorted(drop)),
        before=before,
        after=before - sum(bulk[number] for number in drop),
        unfinished=checkpoints.count(names.folder_of(path)),
        checkpoints_kept=True,
        damaged=study.damaged,
        bulk=sizes.describe_bulk(held_now.values()),
    )
    return _PackPlan(rule, stay, drop, report)


# --- one trial --------------------------------------------------------------------------------------


def copy_without_arrays(trials: h5py.Group, name: str, group: h5py.Group, why: str) -> None:
    """Copy a trial's group without its arrays, image, snapshots and artifacts, say so in it, and seal it again."""
    arrays = trialgroup.array_paths(group)
    gone = {*arrays.values(), layout.IMAGE, layout.SNAPSHOTS, layout.ARTIFACTS}
    copied = trials.create_group(name)
    nexus.copy_attributes(group, copied)
    for member in group:
        link = group.get(member, getlink=True)
        if member in gone:
            continue
        if isinstance(link, h5py.HardLink):
            group.copy(member, copied)
        else:
            copied[member] = link
    if layout.CURVE in copied:
        nexus.write_attribute(copied, "default", layout.CURVE)
    elif "default" in copied.attrs:
        del copied.attrs["default"]
    parts = list(arrays)
    if layout.IMAGE in group:
        parts.append("the image")
    if layout.SNAPSHOTS in group:
        parts.append(f"{len(group[layout.SNAPSHOTS])} snapshots")
    if layout.ARTIFACTS in group:
        parts.append(artifacts.describe_files(group))
    reason = f"dropped when the file was packed with --arrays {why}: {', '.join(parts)}"
    nexus.write_attribute(copied, layout.ARRAYS_DROPPED, reason)
    digest.seal(copied)
