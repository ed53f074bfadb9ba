"""The files that a program wrote, its command, and what was left out: in every file of a study, byte for byte."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import store_cases
import sweep_cases as cases

from ptydask.errors import StoreError
from ptydask.model import KeepOptions, Quantity, TrialOutput
from ptydask.store import Store, files, layout, names, reader, shard
from ptydask.store.upkeep import info, merge, merge_plan, packing, rebuild, retention, sizes, verify

ODD = {
    "empty": b"",
    "wörter/日本.txt": "ü".encode() * 3000,
    "/etc/passwd": b"1",
    "../above": b"2",
    "..": b"3",
    ".": b"4",
    "%": b"5",
    "%25": b"6",
    "%2E": b"7",
    "a/b": b"8",
    "a%2Fb": b"9",
    "not utf-8 \udcff": b"10",
    "line\nbreak": b"11",
    "n" * 255: b"12",
    "d/" * 1000 + "deep": b"13",
}
"""Paths that collide, lead elsewhere, or are no names at all in some place."""


def one(folder: Path, output: TrialOutput, keep: KeepOptions = store_cases.KEEP) -> shard.Shard:
    """A trial's own file."""
    return shard.write(folder, cases.record(3), output, keep, direction="maximize", metric=cases.METRIC)


def contents(path: Path, number: int) -> dict[str, bytes]:
    """Path -> content, as read back."""
    with reader.open(path) as results:
        return {name: file.read() for name, file in results.trial(number).artifacts.items()}


@pytest.mark.parametrize("whole", [False, True], ids=["index", "packed"])
def test_everything_comes_back(tmp_path: Path, whole: bool) -> None:
    """Command, files and what was left out are the same from the trial's own file and from the packed one."""
    store = Store.open(tmp_path / "s.h5", cases.meta())
    given = cases.output(0, artifacts={**cases.artifacts(), **ODD})
    store_cases.put(store, cases.record(0), given)
    if whole:
        store.finish()
    else:
        store.refresh(force=True)
    with reader.open(tmp_path / "s.h5") as results:
        trial = results.trial(0)
        assert (trial.command, trial.left_out, trial.log) == (given.command, given.left_out, given.log)
        assert {name: file.read() for name, file in trial.artifacts.items()} == given.artifacts
        assert {name: file.size for name, file in trial.artifacts.items()} == {
            name: len(content) for name, content in given.artifacts.items()
        }
        assert trial.arrays == {}
    assert verify.verify(tmp_path / "s.h5").problems == ()


def test_large_files_are_read_in_blocks(tmp_path: Path) -> None:
    """Weights are kept as they are, text is compressed; both come back whole, and no block is larger than 8 MiB."""
    weights = np.random.default_rng(0).normal(size=3_000_000).astype(np.float32).tobytes()
    text = b"epoch 1 loss 0.25\n" * 200_000
    written = one(tmp_path, cases.output(3, artifacts={"w.pt": weights, "log.csv": text}))
    assert len(weights) < written.path.stat().st_size < len(weights) + len(text) // 10
    with files.open_read_only(written.path) as file:
        assert file["trial/artifacts/w.pt"].compression is None
        assert file["trial/artifacts/log.csv"].compression == "gzip"
        assert file["trial/artifacts/w.pt"].fletcher32
    store = Store.open(tmp_path / "s.h5", cases.meta())
    store_cases.put(store, cases.record(3), cases.output(3, artifacts={"w.pt": weights, "log.csv": text}))
    with reader.open(store.finish()) as results:
        stored = results.trial(3).artifacts
        blocks = list(stored["w.pt"].blocks())
        assert (b"".join(blocks), stored["log.csv"].read()) == (weights, text)
        assert max(map(len, blocks)) == 8 << 20


def test_an_older_ptydask_takes_none_of_it_for_an_array(tmp_path: Path) -> None:
    """It took every dataset of a trial's group that it did not know for an array: there is no new one."""
    known = {"record_json", "params", "metrics", "traceback", "attributes_json", "curve", "image", "snapshots"}
    known |= {"thumbnail", "log"}
    written = one(tmp_path, cases.output(3))
    with files.open_read_only(written.path) as file:
        trial = file["trial"]
        hard = [n for n in trial if isinstance(trial.get(n, getlink=True), h5py.HardLink)]
        assert {n for n in hard if isinstance(trial[n], h5py.Dataset)} <= known
        assert trial["command"].asstr()[()] == cases.COMMAND
        assert {trial["artifacts"][n].attrs["path"].decode() for n in trial["artifacts"]} == set(cases.artifacts())


def test_arrays_of_the_same_names_stand_beside(tmp_path: Path) -> None:
    """An engine's own arrays called command, program or artifacts keep their names."""
    arrays = {name: Quantity(np.arange(3.0) + i) for i, name in enumerate(("command", "program", "artifacts", "x"))}
    store = Store.open(tmp_path / "s.h5", cases.meta())
    store_cases.put(store, cases.record(0), cases.output(0, arrays=arrays))
    with reader.open(store.finish()) as results:
        trial = results.trial(0)
        assert {n: a.read().tolist() for n, a in trial.arrays.items()} == {
            n: q.data.tolist() for n, q in arrays.items()
        }
        assert trial.command == cases.COMMAND
        assert len(trial.artifacts) == len(cases.artifacts())


def test_a_study_without_arrays_keeps_no_files(tmp_path: Path) -> None:
    """keep.arrays False: numbers, curve, log and command."""
    written = one(tmp_path, cases.output(3), KeepOptions(arrays=False))
    with files.open_read_only(written.path) as file:
        assert layout.ARTIFACTS not in file["trial"]
        assert file["trial/command"].asstr()[()] == cases.COMMAND
    assert written.lost == ""


def test_a_metric_called_title_has_its_curve(tmp_path: Path) -> None:
    """The plot's own title is no column, a metric of that name is."""
    store = Store.open(tmp_path / "s.h5", cases.meta(metric="title"))
    curve = {"step": [1, 2], "title": [0.5, 0.25], "a/b (c)": [1.0, 2.0], "": [3.0, 4.0]}
    assert store_cases.put(store, cases.record(0), cases.output(0, curve=curve)).lost == ""
    with reader.open(store.finish()) as results:
        assert {name: column.tolist() for name, column in results.curve(0).items()} == curve
    with files.open_read_only(tmp_path / "s.h5") as file:
        assert file[file.attrs["default"]]["best/curve/error"][()].tolist() == [0.5, 0.25]


# --- a full disk ----------------------------------------------------------------------------------------


class Small:
    """A disk that takes files of so many bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        put = files.AsideFile.put

        def write(aside: files.AsideFile, data: memoryview, offset: int) -> None:
            if offset + len(data) > size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            put(aside, data, offset)

        monkeypatch.setattr(files.AsideFile, "put", write)


FULL = {"big.bin": os.urandom(300_000)}
ARRAYS = {"weights": Quantity(np.random.default_rng(1).normal(size=(100, 100)))}


@pytest.mark.parametrize(
    ("size", "artifacts", "arrays", "lost"),
    [
        (400_000, FULL, {}, ""),
        (100_000, FULL, {}, "only numbers and curves were kept, not 1 artifact (0.3 MB)"),
        (130_000, FULL, ARRAYS, "all was kept but 1 artifact (0.3 MB)"),
        (60_000, FULL, ARRAYS, "only numbers and curves were kept, not weights, 1 artifact (0.3 MB)"),
    ],
    ids=["room for all", "no room for files", "room for arrays", "room for neither"],
)
def test_a_full_disk_costs_files_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    artifacts: dict[str, bytes],
    arrays: dict[str, Quantity],
    lost: str,
) -> None:
    """Files go before arrays, these before numbers; what is missing is said, and the command stays."""
    Small(monkeypatch, size)
    written = one(tmp_path, cases.output(3, artifacts=artifacts, arrays=arrays))
    assert written.lost == (f"of trial 3 {lost}: No space left on device" if lost else "")
    with files.open_read_only(written.path) as file:
        assert (layout.ARTIFACTS in file["trial"]) == (not lost)
        assert ("weights" in file["trial"]) == (size == 130_000)
        assert file["trial/command"].asstr()[()] == cases.COMMAND
    assert shard.read_record(written.path) == cases.record(3)


# --- what is done to files afterwards ---------------------------------------------------------------------


@pytest.mark.slow
def test_thinning_takes_files_with_the_arrays(tmp_path: Path) -> None:
    """--arrays best:1: the others lose their files, say which, and keep command, log and what was left out."""
    path = cases.packed(tmp_path / "s.h5")
    before = path.stat().st_size
    done = packing.pack(path, retention.parse("best:1"))
    assert (done.bulk, done.with_arrays, done.dropped) == ("artifacts", 1, (0, 1, 2))
    assert path.stat().st_size < before
    with reader.open(path) as results:
        thin, best = results.trial(0), results.trial(3)
        assert thin.dropped == (
            "dropped when the file was packed with --arrays best:1: 5 files (history.jsonl, "
            f"{cases.RUN}/args.yaml, {cases.RUN}/best_SSIM.pt, {cases.RUN}/empty.csv, {cases.RUN}/media/images/a b.png)"
        )
        assert (thin.artifacts, thin.command, thin.left_out) == ({}, cases.COMMAND, cases.output(0).left_out)
        assert {n: f.read() for n, f in best.artifacts.items()} == cases.artifacts()
    assert verify.verify(path).intact
    assert not packing.pack(path, retention.parse("best:1")).changed


@pytest.mark.slow
def test_verify_names_a_damaged_file(tmp_path: Path) -> None:
    """One byte of a program's file is another one: the trial and the file are named, nothing else is concerned."""
    path = cases.packed(tmp_path / "s.h5", 2)
    with h5py.File(path, "r") as file:
        stored = file[f"{names.encode('cnn10/hpopt')}/trials/000001/artifacts"]
        name = next(n for n in stored if n.endswith(".pt"))
        at = stored[name].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[at + 40] ^= 0xFF
    path.write_bytes(data)
    (problem,) = verify.verify(path).problems
    assert problem.trial == 1
    assert problem.where == f"artifacts/{name}"
    assert contents(path, 0) == cases.artifacts()
    with reader.open(path) as results, pytest.raises(StoreError, match="trial 1 is damaged"):
        results.trial(1).artifacts[f"{cases.RUN}/best_SSIM.pt"].read()
    saved = rebuild.rebuild(path)
    assert saved.numbers_only == (1,)
    assert contents(saved.path, 0) == cases.artifacts()


@pytest.mark.slow
def test_rebuild_and_merge_take_files_along(tmp_path: Path) -> None:
    """A rebuilt and a merged file have every byte; a trial that was moved has, too."""
    one_, other = cases.packed(tmp_path / "a.h5", 2), cases.packed(tmp_path / "b.h5", 2)
    saved = rebuild.rebuild(one_, tmp_path / "saved.h5")
    assert contents(saved.path, 1) == cases.artifacts()
    plan = merge_plan.plan_merge(merge.read([one_, other]), "both")
    assert merge.write(tmp_path / "m.h5", plan) == {}
    assert verify.verify(tmp_path / "m.h5").intact
    with reader.open(tmp_path / "m.h5") as results:
        assert [record.number for record in results.records()] == [0, 1, 2, 3, 4, 5]
        moved = results.trial(4)
        assert (moved.command, moved.merged != "") == (cases.COMMAND, True)
        assert {n: f.read() for n, f in moved.artifacts.items()} == cases.artifacts()


@pytest.mark.slow
def test_merging_prefers_the_copy_with_files(tmp_path: Path) -> None:
    """Of a trial that was thinned in one file and is whole in the other, the whole one is taken."""
    path = cases.packed(tmp_path / "a.h5", 2)
    packing.pack(path, retention.parse("none"), out=tmp_path / "thin.h5")
    plan = merge_plan.plan_merge(merge.read([tmp_path / "thin.h5", path]), "refuse")
    merge.write(tmp_path / "m.h5", plan)
    assert contents(tmp_path / "m.h5", 0) == cases.artifacts()


def test_what_takes_the_room(tmp_path: Path) -> None:
    """Files are a kind of their own, apart from arrays; command and left-outs count as logs."""
    path = cases.packed(tmp_path / "s.h5")
    found = info.collect_info(path)
    assert (found["trials"]["with_arrays"], found["trials"]["with_artifacts"]) == (0, 4)
    with files.open_read_only(path) as file:
        stored = file[f"{names.encode('cnn10/hpopt')}/trials/000000/artifacts"]
        assert found["bytes"]["kinds"][sizes.ARTIFACTS] == 4 * sum(d.id.get_storage_size() for d in stored.values())
    assert found["compression"] == "gzip 1, with checksums"


def test_a_hundred_parameters_are_recorded(tmp_path: Path) -> None:
    """Groups of parameters do not nest deeper than a digest goes; each trial is still found by its values."""
    params = {f"p{i:03d}": i for i in range(100)}
    store = Store.open(tmp_path / "s.h5", cases.meta(search_space_json="{}"))
    store_cases.put(store, cases.record(0, params=params), cases.output(0))
    path = store.finish()
    assert verify.verify(path).intact
    with files.open_read_only(path) as file:
        at = file[f"{names.encode('cnn10/hpopt')}/by_params"]
        for level in range(31):
            at = at[f"p{level:03d}={level}"]
        assert list(at) == [" ".join(f"p{i:03d}={i}" for i in range(31, 100))]
        assert at[next(iter(at))]["trial=000000"].attrs["number"] == 0
