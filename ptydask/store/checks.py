"""What is in one HDF5 file of a study, and what is wrong there, one question after the other.

Run by the other process of ``isolated``, which says what all answers have in common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ptydask.errors import StoreError
from ptydask.store import codec, digest, files, index, isolated, layout, names, nexus, root, stored, table, trialgroup

Findings = dict[str, Any]
_CHANGED = "is not what was written: its SHA-256 differs"


def check(what: str, path: str, **more: Any) -> Findings:
    """One of the questions below; what cannot be read at all is a problem of its own."""
    with closing(files.RecentFile()) as recent:
        return _check_in(recent, what, path, **more)


def _check_in(recent: files.RecentFile, what: str, path: str, **more: Any) -> Findings:
    try:
        file = recent.open(Path(path))
        findings = _CHECKS[what](file, **({"path": Path(path)} if what in _NAMING else {}), **more)
    except StoreError as error:
        findings = {"problems": [["", str(error)]], "trouble": files.hdf5_reason(error), "refused": str(error)}
    except files.BROKEN as error:
        findings = {"problems": [["", _describe_error(error)]], "trouble": files.hdf5_reason(error), "unread": True}
    if findings["problems"]:
        recent.close()  # whatever HDF5 keeps of it in memory, the next question is to have none of that
    return findings


def _describe_error(error: BaseException) -> str:
    text = files.hdf5_reason(error)
    return f"is {text}" if text.startswith("cut off") else f"cannot be read ({text})"


def _check_head(file: h5py.File, *, path: Path) -> Findings:
    """What the file is; no text of varying length is read for that, on which HDF5 may hang where it is damaged."""
    if layout.TRIAL in file and "kind" not in file.attrs and "format" in list(file.attrs):
        index.check_version(file, path)
        return {"kind": layout.TRIAL, "id": "", "problems": []}
    if "format" not in list(file.attrs) or nexus.read_attribute(file, "format") != layout.FORMAT:
        return {"foreign": True, "problems": [], "trouble": "not a results file of ptydask"}
    head = index.parse_head(file, path)
    meta = codec.meta_to_json(head.meta)
    return {"kind": head.kind, "id": head.store_id, "study": index.study_of(file).name, "meta": meta, "problems": []}


def _check_titles(file: h5py.File, *, path: Path, study: str = "") -> Findings:
    """The study's attributes for people, which are texts of varying length, say what its JSON says."""
    meta = index.parse_head(file, path, study).meta
    titles = codec.stage_facts(meta) | {"title": meta.name, "direction": meta.direction, "error_metric": meta.metric}
    titles["engine"] = meta.engine
    group = index.study_of(file, study)
    differing = [name for name, value in titles.items() if not nexus.attribute_equals(group, name, value)]
    return {"problems": [[name, f"is not what {layout.STUDY_JSON} says"] for name in differing]}


def _check_seal(file: h5py.File, *, study: str = "") -> Findings:
    """The digest of all that is no trial's, of the file or of an earlier stage in it."""
    if study:
        return _check_digest(file[study], set(root.STAGE_UNSEALED), study)
    return _check_digest(file["/"], root.unsealed_paths(file), "all but the trials")


def _check_confirmation(file: h5py.File, *, study: str = "") -> Findings:
    """The whole of the confirmation of a study in the file, and where it is; "" where there is none."""
    name = nexus.read_attribute(file[study] if study else file, layout.CONFIRMATION)
    if not name:
        return {"group": "", "problems": []}
    return {"group": name, **_check_digest(file[name], set(), name)}


def _find_stages(file: h5py.File) -> Findings:
    """The groups of the earlier stages, in their order, also where the file's own attributes are damaged."""
    with suppress(*files.BROKEN):
        index.study_of(file)  # else there is no telling whether it has any
        return {"groups": root.stage_groups(file), "problems": []}
    found = []
    for name in file:
        with suppress(*files.BROKEN):
            lineage = codec.meta_from_json(nexus.read_text(file[name], layout.STUDY_JSON)).lineage
            if lineage is not None and layout.STORE_ID in file[name].attrs:
                found.append((lineage.number, name))
    return {"groups": [name for _, name in sorted(found)], "problems": []}


def _check_digest(group: h5py.Group, apart: set[str], label: str) -> Findings:
    """Whether ``group`` is as it was sealed; ``label`` names it where it is readable and is not."""
    broken: list[tuple[str, BaseException]] = []
    computed = digest.group_digest(
        group, apart, lambda path, error: broken.append((path, error)), isolated.HeartbeatSha256
    )
    if broken:
        problems = [[path, _describe_error(error)] for path, error in broken]
        return {"problems": problems, "trouble": files.hdf5_reason(broken[0][1])}
    sealed = digest.read_digest(group)
    if computed == sealed:
        return {"problems": []}
    what = _CHANGED if sealed else "has no SHA-256 to compare with"
    return {"problems": [[label, what]], "trouble": digest.CHANGED}


def _read_records(file: h5py.File, *, study: str = "") -> Findings:
    """The table's rows as JSON, also where its columns and the history cannot be read."""
    return {"records": table.read_texts(_find_study(file, study)[layout.TABLE]), "problems": []}


def _check_table(file: h5py.File, *, study: str = "", intact: bool = False) -> Findings:
    """The table: number, digest and JSON of each trial; its columns and the history are held against it.

    Of a file that is known to be ``intact`` nothing is.
    """
    group = index.study_of(file, study)
    stored = group[layout.TABLE]
    texts, seals = table.read_texts(stored), table.read_column(stored, layout.SHA256).tolist()
    if intact:
        numbers = stored["number"][()].tolist()
        return {"rows": list(zip(numbers, seals, texts, strict=True)), "problems": []}
    records = [codec.record_from_json(text) for text in texts]
    meta = codec.meta_from_json(nexus.read_text(group, layout.STUDY_JSON))
    columns, expected = table.read_columns(stored), table.columns_of(records)
    differing = [name for name in {**columns, **expected} if not _columns_equal(columns.get(name), expected.get(name))]
    problems = [[f"{layout.TABLE}/{name}", f"does not say what {layout.RECORD_JSON} says"] for name in differing]
    history = group[layout.HISTORY]
    for name, column in table.history_of(records, meta.direction).items():
        if not _columns_equal(history[name][()], column):
            problems.append([f"{layout.HISTORY}/{name}", "does not say what the table says"])
    rows = [[record.number, seal, text] for record, seal, text in zip(records, seals, texts, strict=True)]
    return {"rows": rows, "problems": problems}


def _columns_equal(a: Any, b: Any) -> bool:
    if a is None or b is None or len(a) != len(b):
        return False
    if a.dtype.kind == b.dtype.kind == "f":
        return bool(np.array_equal(a, b, equal_nan=True))
    return all(_comparable_text(x) == _comparable_text(y) for x, y in zip(a.tolist(), b.tolist(), strict=True))


def _comparable_text(value: Any) -> str:
    return nexus.clean(value) if isinstance(value, str) else repr(value)


def _check_links(file: h5py.File, *, numbers: list[int], study: str = "") -> Findings:
    """Links lead to the trial that their name says; no trial is there besides ``numbers``."""
    group = index.study_of(file, study)
    above, inside = f"{group.name}/{layout.TRIALS}/", set(group[layout.TRIALS])
    problems = []
    for folder in (layout.BY_ERROR, layout.BY_PARAMS):
        for path, target in _walk_soft_links(h5py.h5g.open(group.id, folder.encode()), folder):
            name = target.removeprefix(above)
            if name not in inside or f"trial={name}" not in path:
                problems.append([path, f"leads to {target}, where no such trial is"])
    strange = inside - {names.trial_name(number) for number in numbers}
    problems += [[f"{layout.TRIALS}/{name}", "is not in the table"] for name in sorted(strange)]
    return {"problems": problems}


def _walk_soft_links(group: h5py.h5g.GroupID, path: str) -> Iterator[tuple[str, str]]:
    for name in group:
        below, kind = f"{path}/{_decode(name)}", group.links.get_info(name).type
        if kind == h5py.h5l.TYPE_SOFT:
            yield below, _decode(group.links.get_val(name))
        elif kind == h5py.h5l.TYPE_HARD:
            item = h5py.h5o.open(group, name)
            if isinstance(item, h5py.h5g.GroupID):
                yield from _walk_soft_links(item, below)


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _read_images(file: h5py.File, *, study: str = "") -> Findings:
    """A short digest of each small picture of the overview; "" where there is none."""
    stack = index.study_of(file, study)[layout.THUMBNAILS]
    digests: list[str | None] = []
    problems = []
    for row in range(len(stack)):
        try:
            digests.append(_short_digest(stack[row]))
        except files.BROKEN as error:
            digests.append(None)
            problems.append([f"{layout.THUMBNAILS}[{row}]", _describe_error(error)])
    return {"images": digests, "problems": problems}


def _short_digest(tile: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(tile).data).hexdigest()[:16] if tile.any() else ""


def _read_numbers(file: h5py.File, *, study: str = "") -> Findings:
    """The numbers of the trials that the file itself holds, where the table does not tell them."""
    group = _find_study(file, study)
    trials = group[layout.TRIALS]
    # In an index the trials are links to their own files.
    held = [name for name in trials if isinstance(trials.get(name, getlink=True), h5py.HardLink)]
    numbers = [int(name) for name in held if name.isdecimal()]
    return {"study": group.name, "numbers": numbers, "problems": []}


def _read_description(file: h5py.File, *, study: str = "") -> Findings:
    """The study's description, also where the file cannot say what it is; the ids of one that the file is not of."""
    group = _find_study(file, study)
    meta = codec.meta_to_json(codec.meta_from_json(nexus.read_text(group, layout.STUDY_JSON)))
    ids = {"id": layout.STORE_ID, "pack": layout.PACK_ID} if study else {}
    return {"meta": meta, **{key: nexus.read_attribute(group, name) for key, name in ids.items()}, "problems": []}


def _find_study(file: h5py.File, study: str = "") -> h5py.Group:
    """The study's group, by what is in it where the file's own attributes are damaged. Raises KeyError."""
    if study:
        return file[study]
    with suppress(*files.BROKEN):
        return index.study_of(file)
    for name in file:
        # A study that the file is not of has its ids in its group.
        if layout.TRIALS in file[name] and layout.STORE_ID not in file[name].attrs:
            return file[name]
    return file[layout.TRIALS]  # nothing has trials: HDF5 says so in its own words


def _check_trial(file: h5py.File, *, group: str) -> Findings:
    """One trial: every array and its digest; where that is right, what it is and where it came from."""
    trial = file[group]
    answer = _check_digest(trial, set(), "")
    if answer["problems"]:
        return answer
    store = nexus.read_attribute(trial, layout.MERGED_STORE)
    return {
        "record": codec.record_to_json(trialgroup.read_record(trial)),
        "sha256": digest.read_digest(trial),
        "origin": [store, int(trial.attrs[layout.MERGED_NUMBER])] if store else None,
        "lost": "lost" in trial.attrs,
        "dropped": layout.ARRAYS_DROPPED in trial.attrs,
        "problems": [],
    }


def _compare_trial(
    file: h5py.File, *, group: str, number: int | None, seal: str = "", text: str = "", image: str | None = None
) -> Findings:
    """One trial, and whether it says the same as the table does."""
    trial = file[group]
    problems = _check_digest(trial, set(), "")["problems"]
    if group == layout.OWN_GROUP:
        problems += _check_digest(file["/"], {layout.TRIAL}, "all but the trial")["problems"]
    if problems:
        return {"problems": problems}
    record = trialgroup.read_record(trial)
    if number not in (None, record.number):
        problems.append(["", f"says that it is trial {record.number}"])
    if text and codec.record_to_json(record) != text:
        problems.append([layout.RECORD_JSON, "does not say what the table says"])
    elif seal and digest.read_digest(trial) != seal:
        problems.append(["", "is another one than the table knows: its SHA-256 differs"])
    problems += [
        [name, f"is not what {layout.RECORD_JSON} says"] for name in trialgroup.disagreeing_attributes(trial, record)
    ]
    own_image = _short_digest(trial[layout.THUMBNAIL][()]) if layout.THUMBNAIL in trial else ""
    if image not in (None, own_image) and (own_image or "lost" not in trial.attrs):
        problems.append([layout.THUMBNAIL, f"is not the one in {layout.THUMBNAILS}"])
    return {"problems": problems}


def _read_facts(file: h5py.File, *, group: str) -> Findings:
    """Whether reading what is said of a trial comes to an end."""
    for path in (group, *(f"{group}/{name}" for name in (layout.PARAMS, layout.METRICS, layout.GRADIENT))):
        with suppress(*files.BROKEN):
            item = h5py.h5o.open(file.id, path.encode())
            for name in stored.attribute_names(item):
                stored.read_attribute(item, name.decode())
    return {"problems": []}


_CHECKS: Mapping[str, Callable[..., Findings]] = {
    "head": _check_head,
    "titles": _check_titles,
    "seal": _check_seal,
    "confirmation": _check_confirmation,
    "stages": _find_stages,
    "records": _read_records,
    "rows": _check_table,
    "links": _check_links,
    "images": _read_images,
    "names": _read_numbers,
    "described": _read_description,
    "trial": _check_trial,
    "compared": _compare_trial,
    "facts": _read_facts,
}
_NAMING = ("head", "titles")
"""Questions whose answer may name the file."""


if __name__ == "__main__":
    isolated.serve(partial(_check_in, files.RecentFile()))
