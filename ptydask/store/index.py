"""A whole study in one file: with everything (packed), or with links to the trials' own files (index)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import h5py

from ptydask import __version__
from ptydask.errors import StoreError
from ptydask.model import StudyMeta, TrialRecord, ranked
from ptydask.store import codec, files, layout, names, nexus, table, thumbnail, trialgroup


@dataclass(frozen=True, slots=True)
class Head:
    """What a results file says of itself."""

    kind: str
    store_id: str
    pack_id: str
    """A packed file's own name: two packs of one store differ in it. "" for an index."""
    meta: StudyMeta


@dataclass(frozen=True, slots=True)
class Row:
    """A recorded trial, and where it lies."""

    record: TrialRecord
    file: Path
    group: str
    tile: bytes | None
    """Its thumbnail, compressed as in the file."""

    @property
    def alone(self) -> bool:
        """Whether it lies in a file of its own, not in an older pack with others."""
        return self.group == f"/{layout.TRIAL}"


Place = Callable[[h5py.Group, Row], None]


# --- reading ------------------------------------------------------------------------------------------


def read_head(path: Path) -> Head:
    """What the results file ``path`` is. Raises StoreError, in one line, for everything that is not one."""
    try:
        with files.read(path) as file:
            return head_of(file, path)
    except FileNotFoundError as error:
        raise StoreError(f"{path}: there is no such results file") from error
    except files.BROKEN as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: BaseException) -> StoreError:
    """The error for a file that HDF5 cannot read, or that lacks what a results file has."""
    if isinstance(error, PermissionError):
        return StoreError(f"{path}: no permission to read it")
    try:
        what = "a damaged HDF5 file" if h5py.is_hdf5(path) else "not an HDF5 file"
    except OSError:
        what = "not readable"
    return StoreError(f"{path}: {what}; it is left as it is")


def head_of(file: h5py.File, path: Path) -> Head:
    """The same of an open file. Raises StoreError, KeyError or ValueError."""
    if file.attrs.get("format") != layout.FORMAT or "kind" not in file.attrs:
        raise StoreError(f"{path}: an HDF5 file, but not one with the results of ptydask; it is left as it is")
    if file.attrs["format_version"] > layout.FORMAT_VERSION:
        raise StoreError(
            f"{path}: written in format {file.attrs['format_version']} by {file.attrs['creator']}, "
            f"this ptydask reads up to {layout.FORMAT_VERSION}"
        )
    said = nexus.read_text(study_of(file), layout.STUDY_JSON)
    return Head(file.attrs["kind"], file.attrs["store_id"], file.attrs["pack_id"], codec.meta_from_json(said))


def study_of(file: h5py.File) -> h5py.Group:
    """The study's group."""
    return file[file.attrs["default"]]


def read_rows(path: Path) -> list[Row]:
    """The rows of a packed file. Raises StoreError where it is damaged."""
    try:
        with files.read(path) as file:
            study = study_of(file)
            tiles, trials = study[layout.THUMBNAILS], study[layout.TRIALS]
            return [
                Row(
                    record,
                    path,
                    f"{trials.name}/{names.trial_name(record.number)}",
                    thumbnail.read_tile(tiles, row),
                )
                for row, record in enumerate(table.read(study[layout.TABLE]))
            ]
    except files.BROKEN as error:
        raise unreadable(path, error) from error


def lost_of(row: Row) -> str | None:
    """What the trial's group says could not be kept of it, "" where all was; None where that cannot be read."""
    try:
        with files.read(row.file) as file:
            return str(file[row.group].attrs.get("lost", ""))
    except files.BROKEN:
        return None


# --- writing ------------------------------------------------------------------------------------------


def write(path: Path, head: Head, rows: Sequence[Row]) -> None:
    """Make ``path`` the index of ``rows`` (sorted by number). Raises OSError; ``path`` is then unchanged.

    The best :data:`layout.LINKED` trials are within reach; where there are fewer, others fill up.
    """
    best = ranked((row.record for row in rows), head.meta.direction)
    first = dict.fromkeys([*(r.number for r in best), *(row.record.number for row in rows)])
    linked = set(list(first)[: layout.LINKED])
    folder = path.parent

    def place(trials: h5py.Group, row: Row) -> None:
        target = os.path.relpath(row.file, folder)
        trials[names.trial_name(row.record.number)] = h5py.ExternalLink(target, row.group)

    files.write_whole(path, lambda file: _build(file, head, rows, linked, place))


def pack(path: Path, head: Head, rows: Sequence[Row], damaged: Mapping[int, str]) -> dict[int, str]:
    """Make ``path`` the one file that holds all of ``rows`` (sorted by number), read back before it counts.

    Returns why, for each trial whose own file is ``damaged`` or turned out to be: it has its numbers only.
    An older pack that cannot be read is no such case: it holds many trials, and goes away after this one.
    Raises OSError or StoreError; ``path`` is then unchanged.
    """
    failed = dict(damaged)
    with ExitStack() as opened:
        packs: dict[Path, h5py.File] = {}

        def place(trials: h5py.Group, row: Row) -> None:
            number, name = row.record.number, names.trial_name(row.record.number)
            if number not in failed:
                try:
                    _copy(trials, name, row, packs, opened)
                    return
                except files.BROKEN as error:
                    if not row.alone:
                        raise StoreError(f"{row.file}: trial {number} cannot be read from it: {error}") from error
                    failed[number] = f"{row.file.name}: {error}"
                    if name in trials:
                        del trials[name]
            _numbers_only(trials, name, row.record, head.meta)

        everything = {row.record.number for row in rows}
        files.write_whole(
            path,
            lambda file: _build(file, head, rows, everything, place),
            check=lambda aside: _check_whole(aside, everything),
        )
    return failed


def _copy(trials: h5py.Group, name: str, row: Row, packs: dict[Path, h5py.File], opened: ExitStack) -> None:
    """Copy a trial's group as it lies, without unpacking its arrays; a pack is opened once for all trials."""
    if row.alone:
        with files.read(row.file) as file:
            trials.copy(file[row.group], name)
        return
    if row.file not in packs:
        packs[row.file] = opened.enter_context(files.read(row.file))
    trials.copy(packs[row.file][row.group], name)


def _check_whole(path: Path, numbers: set[int]) -> None:
    """Read a pack that is about to replace its parts. Raises StoreError where a trial is not in it."""
    rows = read_rows(path)
    with files.read(path) as file:
        missing = {names.trial_name(number) for number in numbers} - set(study_of(file)[layout.TRIALS])
    if missing or {row.record.number for row in rows} != numbers:
        raise StoreError(f"{path}: the packed file lacks {', '.join(sorted(missing)) or 'rows of its table'}")


def _numbers_only(trials: h5py.Group, name: str, record: TrialRecord, meta: StudyMeta) -> None:
    trialgroup.write(
        trials,
        name,
        record,
        None,
        meta.keep,
        direction=meta.direction,
        metric=meta.metric,
        lost=f"of trial {record.number} only the numbers were kept: its own file was damaged",
    )


def _build(file: h5py.File, head: Head, rows: Sequence[Row], reach: set[int], place: Place) -> None:
    meta, records = head.meta, [row.record for row in rows]
    best = ranked(records, meta.direction)
    name = names.encode(meta.name)
    nexus.attributes(
        file,
        {
            "NX_class": "NXroot",
            "default": name,
            "format": layout.FORMAT,
            "format_version": layout.FORMAT_VERSION,
            "creator": f"ptydask {__version__}",
            "kind": head.kind,
            "store_id": head.store_id,
            "pack_id": head.pack_id,
        },
    )
    study = nexus.group(file, name, "NXentry", default=layout.BEST if best else layout.HISTORY)
    _write_meta(study, meta)
    table.write(study, records, meta.metric)
    table.write_history(study, records, meta.direction, meta.metric)
    _write_thumbnails(study, rows)
    trials = nexus.group(study, layout.TRIALS, "NXcollection")
    for row in rows:
        if row.record.number in reach:
            place(trials, row)
    _write_links(study, [r for r in records if r.number in reach], best, meta)


def _write_meta(study: h5py.Group, meta: StudyMeta) -> None:
    nexus.attributes(
        study,
        {
            "title": meta.name,
            "direction": meta.direction,
            "error_metric": meta.metric,
            "engine": meta.engine,
            "config_format": meta.config_format,
            "created": meta.created,
        },
    )
    nexus.text(study, layout.STUDY_JSON, codec.meta_to_json(meta))
    nexus.text(study, layout.CONFIG, meta.config_text)
    nexus.text(study, layout.CONFIG_JSON, meta.config_json)
    nexus.text(study, layout.SEARCH_SPACE, meta.search_space_json)
    provenance = nexus.group(study, layout.PROVENANCE, "NXcollection")
    for name, value in meta.provenance.items():
        nexus.text(provenance, names.encode(name), value)


def _write_thumbnails(study: h5py.Group, rows: Sequence[Row]) -> None:
    stack = thumbnail.write(study, layout.THUMBNAILS, (len(rows), thumbnail.SIDE, thumbnail.SIDE))
    stack.attrs["interpretation"] = "image"
    stack.attrs["long_name"] = "image of each trial, in the order of the table"
    for place, row in enumerate(rows):
        if row.tile is not None:
            stack.id.write_direct_chunk((place, 0, 0), row.tile)


def _write_links(
    study: h5py.Group, reached: Sequence[TrialRecord], best: Sequence[TrialRecord], meta: StudyMeta
) -> None:
    target = {record.number: f"{study.name}/{layout.TRIALS}/{names.trial_name(record.number)}" for record in reached}
    if best:
        study[layout.BEST] = h5py.SoftLink(target[best[0].number])
    by_error = nexus.group(study, layout.BY_ERROR, "NXcollection")
    for rank, record in enumerate(best, start=1):
        if record.number in target:
            name = names.by_error_name(rank, record, params=meta.keep.params_in_names)
            by_error[name] = h5py.SoftLink(target[record.number])
    by_params = nexus.group(study, layout.BY_PARAMS, "NXcollection")
    made: dict[tuple[str, ...], h5py.Group] = {(): by_params}
    order = _parameter_order(meta)
    for record in reached:
        below = _nested(made, tuple(names.by_params_path(record.params, order)))
        below[f"trial={names.trial_name(record.number)}"] = h5py.SoftLink(target[record.number])


def _nested(made: dict[tuple[str, ...], h5py.Group], path: tuple[str, ...]) -> h5py.Group:
    if path not in made:
        made[path] = nexus.group(_nested(made, path[:-1]), path[-1], "NXcollection")
    return made[path]


def _parameter_order(meta: StudyMeta) -> list[str]:
    try:
        space = codec.loads(meta.search_space_json or "{}")
    except ValueError:
        return []
    return list(space) if isinstance(space, Mapping) else []
