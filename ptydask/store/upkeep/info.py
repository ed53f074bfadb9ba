"""What a results file is and holds, as plain values: ``ptydask info``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ptydask.errors import StoreError
from ptydask.model import TrialRecord
from ptydask.ranking import best_of, count_states, parameter_names
from ptydask.store import (
    checkpoints,
    codec,
    confirmation,
    contents,
    embedded,
    files,
    index,
    layout,
    lock,
    nexus,
    reader,
    relocation,
    trialgroup,
)
from ptydask.store.embedded import StudyPlace
from ptydask.store.upkeep import sizes


def collect_info(path: Path) -> dict[str, Any]:
    """The facts of ``path``, of a running study too. Raises StoreError."""
    path = path.absolute()
    folder = relocation.find_folder(path)
    with reader.open(path) as results:
        meta, packed = results.meta, results.packed
        records = results.records()
        root = _root_info(path)
        rows = _trial_rows(path, folder)
        studies = embedded.find(path, folder)
        repeated = _count_repeats(results)
        repeats = _measure_studies([studies.confirmation, *(stage.confirmation for stage in studies.stages)])
        earlier = _measure_studies([stage.place for stage in studies.stages])
        stages = _stage_infos(results)
    holdings = sizes.measure_trials(rows)
    best = best_of(records, meta.direction)
    owner = lock.owner_of(folder)
    return {
        "file": str(path),
        "kind": layout.PACKED if packed else layout.INDEX,
        "folder": folder.name,
        "study": meta.name,
        "engine": meta.engine,
        "metric": meta.metric,
        "direction": meta.direction,
        "created": meta.created,
        **root,
        "store_id": results.id,
        "trials": _trial_counts(records, holdings),
        "best": None if best is None else {"number": best.number, "error": best.error, "params": dict(best.params)},
        "parameters": list(codec.search_space(meta)) or parameter_names(records),
        **repeated,
        **({"stages": stages} if stages else {}),
        "bytes": _byte_counts(
            [path, *(row.file for row in rows), *(stage.place.file for stage in studies.stages)],
            holdings.values(),
            {"earlier stages": earlier, "confirmation": repeats},
        ),
        "ratio": _compression_ratio(holdings.values()),
        "compression": _describe_compression(rows, holdings),
        "unfinished": checkpoints.count(folder),
        "driver": "" if owner is None else str(owner),
        "provenance": dict(meta.provenance),
    }


def _count_repeats(results: reader.Results) -> dict[str, int]:
    """The repeats of the study's confirmation, in this file or beside it, and those that are missing of it."""
    with suppress(StoreError):  # damaged, as the study is not
        confirmed = results.confirmation()
        if confirmed is not None:
            with confirmed:
                records = confirmed.records()
                missing = confirmation.find_missing(confirmed.meta, records)
            return {"confirmation": len(records), **({"confirmation_missing": len(missing)} if missing else {})}
    return {}


def _root_info(path: Path) -> dict[str, Any]:
    with files.open_read_only(path) as file:
        written = nexus.read_attribute(file, "file_time")
        if not written:  # files of earlier versions do not say
            written = datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(timespec="seconds")
        return {
            "written": written,
            "creator": nexus.read_attribute(file, "creator"),
            "format_version": int(file.attrs["format_version"]),
        }


def _trial_rows(path: Path, folder: Path) -> Sequence[index.TrialRow]:
    """Where each trial lies; none where a file of them cannot be read."""
    try:
        rows = contents.read_contents(path, folder, with_tiles=False).rows
    except StoreError:
        return []
    return index.sort_rows(rows)


def _trial_counts(records: Sequence[TrialRecord], holdings: Mapping[int, sizes.TrialSizes]) -> dict[str, Any]:
    return {
        "total": len(records),
        "states": count_states(record.state for record in records),
        "retried": sum(record.attempt > 1 for record in records),
        "with_arrays": sum(holding.bulk > holding.stored.get(sizes.ARTIFACTS, 0) for holding in holdings.values()),
        "with_artifacts": sum(sizes.ARTIFACTS in holding.stored for holding in holdings.values()),
        "dropped": sum(holding.dropped for holding in holdings.values()),
        "lost": sum(holding.lost for holding in holdings.values()),
        "unreadable": len(records) - sum(record.number in holdings for record in records),
    }


def _measure_studies(places: Iterable[StudyPlace | None]) -> int:
    """Bytes of all trials of other studies in the file; those of a damaged one do not count."""
    total = 0
    for place in places:
        with suppress(StoreError):
            rows = [] if place is None else index.read_rows(place.file, place.group, with_tiles=False)
            total += sum(sum(holding.stored.values()) for holding in sizes.measure_trials(rows).values())
    return total


def _stage_infos(results: reader.Results) -> list[dict[str, Any]]:
    """Of each stage in the file, in their order, the latest last: its name, trials, best one, and where it began."""
    infos = []
    for name in results.stage_names():
        with results.stage(name) as stage:
            best, lineage = stage.best(), stage.lineage
            assert lineage is not None
            before = {"stage": lineage.from_stage, "trial": lineage.from_trial} if lineage.from_stage else None
            infos.append(
                {
                    "name": name,
                    "store_id": stage.id,
                    "trials": len(stage.columns()["number"]),
                    "best": None if best is None else {"number": best.number, "error": best.error},
                    "from": before,
                }
            )
    return infos


def _byte_counts(
    paths: Sequence[Path], holdings: Iterable[sizes.TrialSizes], others: Mapping[str, int]
) -> dict[str, Any]:
    """Bytes on the disk, in all and by kind; what is not data of a trial is table, links and headers."""
    total = sizes.measure_files(paths)
    kinds: Counter[str] = Counter()
    for holding in holdings:
        kinds.update(holding.stored)
    kinds.update({kind: stored for kind, stored in others.items() if stored})
    kinds["table, links and headers"] = max(0, total - sum(kinds.values()))
    return {"total": total, "kinds": dict(kinds.most_common())}


def _compression_ratio(holdings: Collection[sizes.TrialSizes]) -> float | None:
    """How many times smaller arrays and artifacts are in the file than in memory."""
    stored = sum(holding.bulk for holding in holdings)
    return sum(holding.unpacked for holding in holdings) / stored if stored else None


def _describe_compression(rows: Sequence[index.TrialRow], holdings: Mapping[int, sizes.TrialSizes]) -> str:
    """How the largest array or file of a trial that has any is kept: ``gzip 1, shuffled, with checksums``."""
    with_bulk = [row for row in rows if row.record.number in holdings and holdings[row.record.number].bulk]
    if not with_bulk:
        return ""
    row = with_bulk[0]
    try:
        with files.open_read_only(row.file) as file:
            group = file[row.group]
            candidates = [group[path] for path in trialgroup.array_paths(group).values()]
            candidates += [group[layout.ARTIFACTS][name] for name in group.get(layout.ARTIFACTS, ())]
            if not candidates:
                return ""
            largest = max(candidates, key=lambda dataset: dataset.nbytes)
            words = [f"{largest.compression} {largest.compression_opts}" if largest.compression else "none"]
            words += ["shuffled"] if largest.shuffle else []
            words += ["with checksums"] if largest.fletcher32 else []
            return ", ".join(words)
    except files.BROKEN:
        return ""
