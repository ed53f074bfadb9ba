"""A whole study in one file: with everything (packed), or with links to the trials' own files (index)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import h5py

from ptydask import __version__
from ptydask.errors import StoreError
from ptydask.model import StudyMeta, TrialRecord
from ptydask.ranking import ranked
from ptydask.store import (
    codec,
    digest,
    draft,
    files,
    layout,
    links,
    names,
    nexus,
    refused,
    root,
    table,
    thumbnail,
    trialgroup,
)


@dataclass(frozen=True, slots=True)
class ResultsHeader:
    """What a results file says of itself."""

    kind: str
    store_id: str
    pack_id: str
    """A packed file's own name: two packs of one store differ in it. "" for an index."""
    meta: StudyMeta


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A recorded trial, and where it lies."""

    record: TrialRecord
    file: Path
    group: str = layout.OWN_GROUP
    """The path of its group there; as it stands, that in a trial's own file."""
    tile: bytes | None = None
    """Its thumbnail, compressed as in the file."""
    sha256: str = ""
    """The digest of its group; "" where that is not known."""
    json: str = ""
    """The record as JSON, where it is at hand."""

    @property
    def alone(self) -> bool:
        """Whether it lies in a file of its own, not in an older pack with others."""
        return self.group == layout.OWN_GROUP


Place = Callable[[h5py.Group, TrialRow], None]


def sort_rows(rows: Mapping[int, TrialRow]) -> list[TrialRow]:
    """The rows by number."""
    return [rows[number] for number in sorted(rows)]


# --- reading ------------------------------------------------------------------------------------------


def read_head(path: Path, group: str = "") -> ResultsHeader:
    """What the file ``path``, or the study ``group`` in it, is. Raises StoreError where it is no results file."""
    try:
        with files.open_read_only(path) as file:
            return parse_head(file, path, group)
    except FileNotFoundError as error:
        raise refused.missing_error(path) from error
    except files.BROKEN as error:
        raise refused.unreadable_error(path, error) from error


def parse_head(file: h5py.File, path: Path, group: str = "") -> ResultsHeader:
    """The same of an open file. Raises StoreError, KeyError or ValueError."""
    if nexus.read_attribute(file, "format") != layout.FORMAT or "kind" not in file.attrs:
        raise refused.foreign_error(path)
    check_version(file, path)
    study = study_of(file, group)
    meta = codec.meta_from_json(nexus.read_text(study, layout.STUDY_JSON))
    ids = study if group else file
    return ResultsHeader(
        nexus.read_attribute(file, "kind"),
        nexus.read_attribute(ids, layout.STORE_ID),
        nexus.read_attribute(ids, layout.PACK_ID),
        meta,
    )


def check_version(file: h5py.File, path: Path) -> None:
    """Raise StoreError where a later ptydask wrote the file."""
    if file.attrs["format_version"] > layout.FORMAT_VERSION:
        raise StoreError(
            f"{path}: written in format {file.attrs['format_version']} by {nexus.read_attribute(file, 'creator')}, "
            f"this ptydask reads up to {layout.FORMAT_VERSION}"
        )


def study_of(file: h5py.File, group: str = "") -> h5py.Group:
    """The study's group: the one that the file is of, unless ``group`` names another."""
    return file[group or nexus.read_attribute(file, "default")]


def read_rows(path: Path, group: str = "", *, with_tiles: bool = True) -> list[TrialRow]:
    """The rows of a packed file, or of the study ``group`` in it. Raises StoreError where it is damaged.

    Who has no use for thumbnails says so: to read them, and their checksums, takes longer than all the rest.
    """
    with refused.opened(path) as file:
        study = study_of(file, group)
        trials = f"{study.name}/{layout.TRIALS}"
        seals = table.read_column(study[layout.TABLE], layout.SHA256)
        tiles = thumbnail.read_tiles(study[layout.THUMBNAILS]) if with_tiles else [None] * len(seals)
        rows = []
        for tile, seal, text in zip(tiles, seals, table.read_texts(study[layout.TABLE]), strict=True):
            record = codec.record_from_json(text)
            place = f"{trials}/{names.trial_name(record.number)}"
            own = read_own_tile(file, place) if with_tiles and tile is None else None
            rows.append(TrialRow(record, path, place, tile or own, seal, text))
        return rows


def read_numbers(path: Path) -> list[int]:
    """The numbers of the trials in the table of ``path``. Raises StoreError where it is damaged."""
    with refused.opened(path) as file:
        numbers: list[int] = study_of(file)[layout.TABLE]["number"][()].tolist()
        return numbers


def read_own_tile(file: h5py.File, group: str) -> bytes | None:
    """The thumbnail in a trial's own group; None where there is none to be read."""
    try:
        return trialgroup.read_tile(file[group]) if group in file else None
    except files.BROKEN:
        return None


def read_loss(row: TrialRow) -> str | None:
    """What the trial's group says could not be kept of it, "" where all was; None where that cannot be read."""
    try:
        with files.open_read_only(row.file) as file:
            return nexus.read_attribute(file[row.group], "lost")
    except files.BROKEN:
        return None


# --- writing ------------------------------------------------------------------------------------------


def write(path: Path, head: ResultsHeader, rows: Sequence[TrialRow]) -> None:
    """Make ``path`` the index of ``rows`` (sorted by number). Raises OSError; ``path`` is then unchanged.

    The best :data:`layout.LINKED` trials are within reach; where there are fewer, others fill up.
    """
    best = ranked((row.record for row in rows), head.meta.direction)
    # A dict keeps the order in which its keys came first: the best by rank, then the others by number.
    first = dict.fromkeys([*(record.number for record in best), *(row.record.number for row in rows)])
    linked = set(list(first)[: layout.LINKED])
    folder = path.parent

    def place(trials: h5py.Group, row: TrialRow) -> None:
        target = os.path.relpath(row.file, folder)
        trials[names.trial_name(row.record.number)] = h5py.ExternalLink(target, row.group)

    def build(file: h5py.File) -> None:
        build_study(file, head, rows, linked, place)

    if sum(1000 + len(row.json) + len(row.tile or b"") for row in rows) <= _IN_MEMORY:
        files.write_image(path, build)
    else:
        files.write_whole(path, build)


_IN_MEMORY = 1 << 24
"""Bytes of all records and thumbnails, at most, of an index that is made in memory, where it is there twice."""


def build_study(
    file: h5py.File,
    head: ResultsHeader,
    rows: Sequence[TrialRow],
    reach: set[int],
    place: Place,
    add: Callable[[h5py.File], None] = lambda file: None,
) -> None:
    """Fill a file with the study of ``rows``: ``place`` makes each trial in ``reach``, ``add`` all else there is."""
    study, trials = begin_study(file, head)
    for row in rows:
        if row.record.number in reach:
            place(trials, row)
    add(file)
    complete_study(study, head.meta, rows, reach)


def begin_study(file: h5py.File, head: ResultsHeader) -> tuple[h5py.Group, h5py.Group]:
    """The group of the study that the file is of and, in it, the still empty one of its trials."""
    name = names.encode(head.meta.name)
    nexus.write_attributes(
        file,
        {
            "NX_class": "NXroot",
            "default": name,
            "format": layout.FORMAT,
            "format_version": layout.FORMAT_VERSION,
            "creator": f"ptydask {__version__}",
            "file_time": datetime.now().astimezone().isoformat(timespec="seconds"),
            "kind": head.kind,
            layout.STORE_ID: head.store_id,
            layout.PACK_ID: head.pack_id,
        },
    )
    return begin_group(file, head.meta)


def begin_group(file: h5py.File, meta: StudyMeta) -> tuple[h5py.Group, h5py.Group]:
    """A study's group and, in it, the still empty one of its trials."""
    study = nexus.create_group(file, names.encode(meta.name), "NXentry", default=layout.HISTORY)
    _write_meta(study, meta)
    return study, nexus.create_group(study, layout.TRIALS, "NXcollection")


def complete_study(study: h5py.Group, meta: StudyMeta, rows: Sequence[TrialRow], reach: set[int]) -> None:
    """Write what is about all trials together: table, history, thumbnails, links to those in ``reach``; and seal it."""
    linked = complete_group(study, meta, rows, reach)
    groups = {name: part for name, part in linked.members.items() if isinstance(part, draft.Group)}
    written = {f"{study.name}/{name}".lstrip("/"): part for name, part in groups.items()}
    # Last of all: the seal covers everything above.
    digest.seal(study.file["/"], root.unsealed_paths(study.file), written)


def complete_group(study: h5py.Group, meta: StudyMeta, rows: Sequence[TrialRow], reach: set[int]) -> draft.Group:
    """The same of any study in a file, without the seal. Returns the links as they were written."""
    records = [row.record for row in rows]
    best = ranked(records, meta.direction)
    if best:
        nexus.write_attribute(study, "default", layout.BEST)
    # Where a row's text is at hand as it was read, it is not made again: a table may have thousands of rows.
    texts = (row.json or codec.record_to_json(row.record) for row in rows)
    table.write(study, meta, records, texts, _trial_digests(study[layout.TRIALS], rows))
    table.write_history(study, records, meta.direction, meta.metric)
    _write_thumbnails(study, rows)
    if best:
        by_number = {row.record.number: row for row in rows}
        row = by_number[best[0].number]
        links.write_best(study, row.record, row.file, row.group, meta)
    return links.write_links(study, [record for record in records if record.number in reach], best, meta)


def _trial_digests(trials: h5py.Group, rows: Sequence[TrialRow]) -> list[str]:
    """The digest of each trial as it lies in this file, or elsewhere."""
    kinds = {name: trials.id.links.get_info(name).type for name in trials.id}
    seals = []
    for row in rows:
        name = names.trial_name(row.record.number).encode()
        # A copy in this file may have been sealed anew (without its arrays, or under another number), so it is asked;
        # of a link the row knows it, and following links would open every trial's file.
        own = kinds.get(name) == h5py.h5l.TYPE_HARD
        seals.append(digest.read_digest(h5py.Group(h5py.h5g.open(trials.id, name))) if own else row.sha256)
    return seals


def _write_meta(study: h5py.Group, meta: StudyMeta) -> None:
    nexus.write_facts(
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
    nexus.write_facts(study, codec.stage_facts(meta))
    nexus.write_text(study, layout.STUDY_JSON, codec.meta_to_json(meta))
    nexus.write_text(study, layout.CONFIG, meta.config_text)
    nexus.write_text(study, layout.CONFIG_JSON, meta.config_json)
    nexus.write_text(study, layout.SEARCH_SPACE, meta.search_space_json)
    provenance = nexus.create_group(study, layout.PROVENANCE, "NXcollection")
    for name, value in meta.provenance.items():
        nexus.write_text(provenance, names.encode(name), value)


def _write_thumbnails(study: h5py.Group, rows: Sequence[TrialRow]) -> None:
    stack = thumbnail.create_stack(study, layout.THUMBNAILS, (len(rows), thumbnail.SIDE, thumbnail.SIDE))
    nexus.write_attribute(stack, "interpretation", "image")
    nexus.write_attribute(stack, "long_name", "image of each trial, in the order of the table")
    for place, row in enumerate(rows):
        if row.tile is not None:  # a chunk is one image: it is taken over compressed as it is
            stack.id.write_direct_chunk((place, 0, 0), row.tile)
