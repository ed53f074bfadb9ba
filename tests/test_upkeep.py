"""Results files kept in order: packed, made smaller, merged, rebuilt, described."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from store_cases import KEEP, failed, meta, output, packed, phase, put, record, stopped

from ptydask.cli import main
from ptydask.errors import StoreError, UsageError
from ptydask.model import TrialRecord, TrialState
from ptydask.store import Store, byte_seal, checkpoints, digest, files, index, isolated, names, reader, shard, thumbnail
from ptydask.store.upkeep import merge, merge_plan, packing, rebuild, retention, sizes, verify

pytestmark = pytest.mark.slow

Output = pytest.CaptureFixture[str]


def run(capsys: Output, *args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    code = main([str(arg) for arg in args])
    said = capsys.readouterr()
    return code, said.out, said.err


def seals(path: Path) -> dict[int, str]:
    """Each trial's digest as it is written in its group, and that it is true."""
    found = {}
    with h5py.File(path) as file:
        for name, group in file[file.attrs["default"]]["trials"].items():
            assert digest.read_digest(group) == digest.group_digest(group), name
            found[int(name)] = digest.read_digest(group)
    return found


def with_arrays(path: Path) -> list[int]:
    """The trials that have their arrays."""
    with reader.open(path) as results:
        return [r.number for r in results.records() if results.trial(r.number).arrays]


def records(path: Path) -> list[TrialRecord]:
    """All rows."""
    with reader.open(path) as results:
        return results.records()


def files_in(folder: Path) -> set[str]:
    """Every file and folder below, by its path."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def flip(path: Path, at: int) -> None:
    """Damage one byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def flip_trial(path: Path, number: int) -> None:
    """Damage the largest array of a trial."""
    with h5py.File(path) as file:
        trials = file["trial"] if "trial" in file else file[file.attrs["default"]][f"trials/{number:06d}"]
        chunk = trials["positions"].id.get_chunk_info(0)
    flip(path, chunk.byte_offset + chunk.size // 2)


# --- which trials keep their arrays ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("all", {0, 1, 2, 3, 4, 5}),
        ("none", set()),
        ("best:2", {4, 1}),
        ("best:99", {0, 1, 3, 4}),
        ("improvements", {0, 1, 4}),
        ("every:2", {0, 2, 4}),
        ("best:1,every:5", {4, 0, 5}),
        (" best:0 , improvements ", {0, 1, 4}),
    ],
)
def test_which_trials_keep_their_arrays(rule: str, kept: set[int]) -> None:
    """Rules add up; pruned and failed trials are no best ones; a tie is no improvement."""
    errors = {0: 0.5, 1: 0.3, 3: 0.3, 4: 0.2}
    rows = [record(n, errors.get(n, 0.1)) for n in range(6)]
    rows[2], rows[5] = replace(rows[2], state=TrialState.PRUNED), failed(5)
    assert retention.kept_trials(retention.parse(rule), rows, "minimize") == kept


def test_improvements_are_by_the_time_of_the_end() -> None:
    """What counts is when a trial ended, not its number: with many workers trial 1 may end before trial 0."""
    slow = record(0, 0.4, seconds=100.0, started="2025-01-01T00:00:00+00:00")
    quick = record(1, 0.3, seconds=10.0, started="2025-01-01T00:00:05+00:00")
    later = record(2, 0.9, seconds=10.0, started="2025-01-01T00:05:00+01:00")  # an hour before, by its zone
    assert retention.improvements([slow, quick, later], "minimize") == {1, 2}
    assert retention.improvements([slow, quick, later], "maximize") == {2}


@pytest.mark.parametrize(
    "rule", ["best", "best:", "best:x", "best:-1", "every:0", "all,best:1", "", "evry:3", "best:1,"]
)
def test_rules_that_are_none(rule: str) -> None:
    """A rule that cannot be meant is refused, and named."""
    with pytest.raises(UsageError, match="--arrays"):
        retention.parse(rule)


# --- pack: a study that stopped ----------------------------------------------------------------------


def test_pack_a_study_that_stopped(tmp_path: Path, capsys: Output) -> None:
    """Index and folder become one file; every trial is as its worker wrote it."""
    path = stopped(tmp_path / "s.h5", range(3))
    before = {n: h5py.File(names.shard_path(tmp_path / "s.trials", n))["trial"].attrs["sha256"] for n in range(3)}
    code, out, err = run(capsys, "pack", path)
    assert (code, err, files_in(tmp_path)) == (0, "", {"s.h5"})
    assert "holds 3 trials" in out
    assert {n: seal.encode() for n, seal in seals(path).items()} == before
    assert run(capsys, "pack", path)[:2] == (0, f"{path}: one file already, with 3 trials; nothing to do\n")


def test_pack_leaves_checkpoints(tmp_path: Path, capsys: Output) -> None:
    """Trials under way keep their checkpoints, and the study goes on from there; --drop-checkpoints gives them up."""
    path = stopped(tmp_path / "s.h5", range(2))
    folder = tmp_path / "s.trials"
    checkpoints.write(folder, 7, b"half a trial")
    code, out, _ = run(capsys, "pack", path)
    assert code == 0
    assert "1 trial was under way: checkpoints stay in s.trials/" in out
    assert files_in(tmp_path) == {
        "s.h5",
        "s.trials",
        "s.trials/000007.checkpoint",
        "s.trials/store.json",
        "s.trials/driver.lock",
    }
    store = Store.open(path, meta())
    assert sorted(store.records) == [0, 1]
    assert checkpoints.read(folder, 7) == b"half a trial"
    put(store, record(7), output(7))
    store.close()
    code, out, _ = run(capsys, "pack", path, "--drop-checkpoints")
    assert code == 0
    assert "given up" in out
    assert (files_in(tmp_path), [r.number for r in records(path)]) == ({"s.h5"}, [0, 1, 7])


def test_pack_while_a_driver_lives(tmp_path: Path, capsys: Output) -> None:
    """In place it is refused and says who; with -o the trials so far are copied, and nothing is touched."""
    store = Store.open(tmp_path / "s.h5", meta())
    for number in range(2):
        put(store, record(number), output(number))
    store.refresh(force=True)
    put(store, record(2), output(2))  # later than the index
    before = files_in(tmp_path)
    code, _, err = run(capsys, "pack", store.path)
    assert code == 1
    assert f"process {os.getpid()} on" in err
    assert err.count("\n") == 1
    code, out, _ = run(capsys, "pack", store.path, "-o", tmp_path / "copy.h5")
    assert code == 0
    assert "copy.h5: holds 3 trials" in out
    assert files_in(tmp_path) == before | {"copy.h5"}
    assert with_arrays(tmp_path / "copy.h5") == [0, 1, 2]
    store.finish()
    assert seals(tmp_path / "copy.h5") == seals(store.path)


def test_pack_names_a_damaged_trial(tmp_path: Path, capsys: Output) -> None:
    """Of a trial whose own file is damaged the numbers are packed; the file is set aside, the exit code is 1."""
    path = stopped(tmp_path / "s.h5", range(3))
    flip_trial(tmp_path / "s.trials" / "000001.h5", 1)
    code, _, err = run(capsys, "pack", path)
    assert code == 1
    assert "trial 1" in err
    assert files_in(tmp_path) == {"s.h5", "s.trials", "s.trials/damaged", "s.trials/damaged/000001.h5"}
    assert ([r.number for r in records(path)], with_arrays(path)) == ([0, 1, 2], [0, 2])
    assert run(capsys, "verify", path) == (0, f"{path}: intact, 3 trials in 1 file read\n", "")


def test_a_file_that_is_a_symbolic_link(tmp_path: Path) -> None:
    """A study that goes on over a link keeps the trials of the file behind it, which stays as it is."""
    for name in ("data", "work"):
        (tmp_path / name).mkdir()
    behind = packed(tmp_path / "data" / "s.h5", [record(0), record(1)])
    path, before = tmp_path / "work" / "s.h5", behind.read_bytes()
    path.symlink_to("../data/s.h5")
    store = Store.open(path, meta())
    put(store, record(2), output(2))
    store.refresh(force=True)
    store.close()
    assert with_arrays(path) == [0, 1, 2]
    packing.pack(path)
    assert (with_arrays(path), behind.read_bytes() == before) == ([0, 1, 2], True)


def test_nothing_to_pack(tmp_path: Path, capsys: Output) -> None:
    """No file, somebody else's file, a study without a trial: one line each, and nothing is changed."""
    assert run(capsys, "pack", tmp_path / "no.h5")[2] == f"ptydask: {tmp_path}/no.h5: there is no such results file\n"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = 1
    assert "not one with the results of ptydask" in run(capsys, "pack", tmp_path / "other.h5")[2]
    store = Store.open(tmp_path / "new.h5", meta())
    store.begun = True
    store.close()
    assert "no trial has ended so far" in run(capsys, "pack", tmp_path / "new.h5")[2]
    assert files_in(tmp_path) >= {"other.h5", "new.h5", "new.trials/store.json"}
    assert "other.trials" not in files_in(tmp_path)


# --- pack: a file made smaller -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed study of seven trials, the last one failed; the best is 5."""
    return packed(tmp_path_factory.mktemp("seven") / "s.h5", [*(record(n) for n in range(6)), failed(6)])


@pytest.fixture
def finished(seven: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(seven, tmp_path))


def test_fewer_arrays(finished: Path, capsys: Output) -> None:
    """Dropped are arrays, image and snapshots; numbers, curve, log and thumbnail stay, and the trial says so."""
    before, whole, size = records(finished), seals(finished), finished.stat().st_size
    code, out, _ = run(capsys, "pack", finished, "--arrays", "best:1,every:3")
    assert code == 0
    assert "arrays dropped of 3 trials, kept of 3" in out
    assert finished.stat().st_size < size
    assert (records(finished), with_arrays(finished)) == (before, [0, 3, 5])
    now = seals(finished)
    assert {n for n in now if now[n] != whole[n]} == {1, 2, 4}
    with reader.open(finished) as results:
        assert results.thumbnails()[:6].any(axis=(1, 2)).all()
        trial = results.trial(1)
        assert (trial.arrays, trial.image, trial.snapshots, trial.lost) == ({}, None, {}, "")
        assert trial.dropped.startswith("dropped when the file was packed with --arrays best:1,every:3: object_phase")
        assert (trial.log, list(trial.curve["loss"])) == ("one line\nanother\n", [0.9, 0.7, 0.5])
        np.testing.assert_array_equal(results.trial(3).arrays["object_phase"].read(), phase(3))
    assert "dropped when the file was packed" in run(capsys, "show", finished, 1)[1]
    assert json.loads(run(capsys, "show", finished, 1, "--format", "json")[1])["dropped"]
    with h5py.File(finished) as file:
        assert file["tBL_WSe2/trials/000001"].attrs["default"] == b"curve"


def test_a_smaller_file_goes_on(finished: Path) -> None:
    """A study whose arrays were dropped takes more trials; what was dropped stays dropped, and stays sealed."""
    packing.pack(finished, retention.parse("best:1"))
    thin = seals(finished)
    store = Store.open(finished, meta())
    put(store, record(8), output(8))
    store.refresh(force=True)
    store.finish()
    assert with_arrays(finished) == [5, 8]
    assert {n: seal for n, seal in seals(finished).items() if n != 8} == thin
    assert packing.pack(finished, retention.parse("best:1")).dropped == (5,)


def test_dry_run_and_another_file(finished: Path, capsys: Output) -> None:
    """--dry-run changes nothing and is near the truth; -o leaves the file, and never writes over another."""
    bytes_before = finished.read_bytes()
    code, out, _ = run(capsys, "pack", finished, "--arrays", "none", "--dry-run")
    assert code == 0
    assert "arrays would be dropped of 6 trials" in out
    assert files_in(finished.parent) == {"s.h5"}
    small = finished.with_name("small.h5")
    finished.with_name(".small.h5.0123.aside").write_text("what a kill left")
    assert run(capsys, "pack", finished, "--arrays", "none", "-o", small)[0] == 0
    assert (with_arrays(small), finished.read_bytes() == bytes_before) == ([], True)
    assert files_in(finished.parent) == {"s.h5", "small.h5"}
    code, _, err = run(capsys, "pack", finished, "-o", small)
    assert code == 2
    assert "exists already" in err
    code, _, err = run(capsys, "pack", finished, "-o", small.with_name("no") / "small.h5")
    assert code == 2
    assert "no such folder" in err


def test_a_pack_is_opened_anew_after_some_trials(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 remembers what it copied from a file, for as long as it is open; the copy is none the worse."""
    opened: list[Path] = []
    read = files.open_read_only

    def count(path: Path) -> h5py.File:
        opened.append(path)
        return read(path)

    monkeypatch.setattr(files, "open_read_only", count)
    monkeypatch.setattr(files, "_SMALL", 0)
    packing.pack(finished, out=finished.with_name("once.h5"))
    first = opened.count(finished)
    monkeypatch.setattr(files.RecentFile, "_MOST", 2)
    packing.pack(finished, out=finished.with_name("copy.h5"))
    # Once for every second trial, where it was once for all of them.
    assert opened.count(finished) - 2 * first == (len(seals(finished)) + 1) // 2 - 1
    assert seals(finished.with_name("copy.h5")) == seals(finished)


def test_the_best_is_not_dropped_by_accident(finished: Path, capsys: Output) -> None:
    """A rule that forgets the best trial is refused, unless it says best:0 or none."""
    code, _, err = run(capsys, "pack", finished, "--arrays", "every:2")
    assert code == 2
    assert "add best:1" in err
    assert with_arrays(finished) == [0, 1, 2, 3, 4, 5]
    assert run(capsys, "pack", finished, "--arrays", "best:0,every:2")[0] == 0
    assert with_arrays(finished) == [0, 2, 4]


@pytest.mark.parametrize("number", [1, 5])
def test_a_damaged_file_is_not_made_smaller(finished: Path, capsys: Output, number: int) -> None:
    """Neither a kept nor a dropped trial may be damaged: nothing could tell afterwards. The file stays."""
    flip_trial(finished, number)
    before = finished.read_bytes()
    code, _, err = run(capsys, "pack", finished, "--arrays", "best:1")
    assert code == 1
    assert f"trial {number}" in err
    assert err.count("\n") == 1
    assert (finished.read_bytes() == before, files_in(finished.parent)) == (True, {"s.h5"})


def test_a_kill_while_packing_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the new file's name and the removal of the old files every trial is there, once."""
    path = stopped(tmp_path / "s.h5", range(3))
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        packing.pack(path, retention.parse("best:1"))
    monkeypatch.undo()
    assert len(files_in(tmp_path)) > 4
    assert [r.number for r in records(path)] == [0, 1, 2]
    packing.pack(path, retention.parse("best:1"))
    assert (files_in(tmp_path), with_arrays(path)) == ({"s.h5"}, [2])


# --- merge -------------------------------------------------------------------------------------------


def two_copies(tmp_path: Path) -> tuple[Path, Path]:
    """One study copied after three trials; each copy went on: both have another trial 3, and b a retry 5 of 4."""
    a = packed(tmp_path / "a.h5", [record(n) for n in range(3)])
    b = tmp_path / "b.h5"
    shutil.copy(a, b)
    for path, more in ((a, [record(3)]), (b, [record(3, 0.01), record(5, 0.02, retry_of=4, attempt=2)])):
        store = Store.open(path, meta())
        for made in more:
            put(store, made, output(made.number))
        store.finish()
    return a, b


def test_merge_two_clusters(tmp_path: Path, capsys: Output) -> None:
    """Files of different stores: all trials, the later file's moved up together, and each says where it is from."""
    a = packed(tmp_path / "a.h5", [record(n) for n in range(3)])
    b = packed(tmp_path / "b.h5", [record(0, 0.05), record(2, 0.04, retry_of=1, attempt=2), failed(3)])
    ids = [reader.open(path).id for path in (a, b)]
    code, out, err = run(capsys, "merge", tmp_path / "m.h5", a, b)
    assert (code, err) == (0, "")
    assert "merged: it was trial 2 of store" in run(capsys, "show", tmp_path / "m.h5", 5)[1]
    assert "b.h5: 3 trials, 0, 2, 3 became 3, 5, 6" in out.replace("2 to 3", "2, 3").replace("5 to 6", "5, 6")
    rows = {r.number: r for r in records(tmp_path / "m.h5")}
    assert list(rows) == [0, 1, 2, 3, 5, 6]
    assert replace(rows[5], number=2, retry_of=1) == record(2, 0.04, retry_of=1, attempt=2)
    assert {n: s for n, s in seals(tmp_path / "m.h5").items() if n < 3} == seals(a)
    with reader.open(tmp_path / "m.h5") as results:
        assert results.id == ids[0]
        assert results.best() == rows[5]
        np.testing.assert_array_equal(results.trial(5).arrays["object_phase"].read(), phase(2))
        assert results.trial(6).record.traceback == failed(3).traceback
        assert results.meta.provenance["merged b.h5"] == f"3 trials of store {ids[1]}, moved up by 3"
    with h5py.File(tmp_path / "m.h5") as file:
        said = file["tBL_WSe2/trials/000005"].attrs
        assert (said["merged_store"], said["merged_number"], said["number"]) == (ids[1].encode(), 2, 5)
        assert file["tBL_WSe2/trials/000005/curve/title"][()] == b"trial 5"
        assert file["tBL_WSe2/trials/000005/image/title"][()].startswith(b"trial 5: ")


def test_merge_copies_that_went_on(tmp_path: Path, capsys: Output) -> None:
    """Common trials come once; different ones of one number are refused, or kept as --conflicts says."""
    a, b = two_copies(tmp_path)
    code, _, err = run(capsys, "merge", tmp_path / "m.h5", a, b)
    assert code == 1
    assert "b.h5: a copy of a.h5 that went on by itself" in err
    assert "--conflicts both" in err
    assert not (tmp_path / "m.h5").exists()
    assert run(capsys, "merge", tmp_path / "m.h5", a, b, "--conflicts", "both")[0] == 0
    rows = {r.number: r for r in records(tmp_path / "m.h5")}
    assert {n: r.error for n, r in rows.items()} == {0: 1 / 3, 1: 1 / 4, 2: 1 / 5, 3: 1 / 6, 5: 0.02, 6: 0.01}
    assert rows[5].retry_of == 4
    assert run(capsys, "verify", tmp_path / "m.h5")[:2] == (0, f"{tmp_path}/m.h5: intact, 6 trials in 1 file read\n")
    code, out, _ = run(capsys, "merge", tmp_path / "f.h5", a, b, "--conflicts", "first")
    assert code == 0
    assert "left out, because another of that number came first: 3" in out
    assert {r.number: r.error for r in records(tmp_path / "f.h5")}[3] == 1 / 6


@pytest.mark.parametrize("command", ["verify", "rebuild", "pack", "merge"])
def test_one_process_reads_for_a_whole_command(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """However many files, trials and questions there are, one interpreter is started."""
    started: list[str] = []
    start = isolated._start_child
    monkeypatch.setattr(isolated, "_start_child", lambda module: (started.append(module), start(module))[1])
    a, b = (packed(tmp_path / name, [record(0), record(1)]) for name in ("a.h5", "b.h5"))
    started.clear()
    for file in (a, b):  # else some of the commands need not look into them
        os.truncate(file, file.stat().st_size - byte_seal.SIZE)
    arguments = {"pack": [a, "--arrays", "best:1"], "merge": [tmp_path / "m.h5", a, b]}.get(command, [a])
    assert run(capsys, command, *arguments)[0] == 0
    assert started == ["ptydask.store.checks"]


def test_merge_again(tmp_path: Path) -> None:
    """A merged file knows its trials again, under whatever number: merging once more adds what is new alone."""
    a, b = two_copies(tmp_path)
    c = packed(tmp_path / "c.h5", [record(0, 0.5)])
    first = merge_plan.plan_merge(merge.read([a, b, c]), "both")
    merge.write(tmp_path / "m.h5", first)
    store = Store.open(c, meta())
    put(store, record(1, 0.4), output(1))
    store.finish()
    again = merge_plan.plan_merge(merge.read([tmp_path / "m.h5", b, c, a]))
    assert [(part.new, part.known) for part in again.parts] == [(7, 0), (0, 5), (1, 1), (0, 4)]
    merge.write(tmp_path / "n.h5", again)
    assert len(records(tmp_path / "n.h5")) == 8
    assert seals(tmp_path / "m.h5").items() <= seals(tmp_path / "n.h5").items()


def test_merge_takes_the_fuller_copy(tmp_path: Path, capsys: Output) -> None:
    """Of a trial whose arrays one file dropped, the copy that still has them is taken."""
    a = packed(tmp_path / "a.h5", [record(n) for n in range(3)])
    packing.pack(a, out=tmp_path / "b.h5")
    packing.pack(a, retention.parse("best:1"))
    code, out, _ = run(capsys, "merge", tmp_path / "m.h5", a, tmp_path / "b.h5")
    assert code == 0
    assert "the arrays of 2 of those are from this file" in out
    assert seals(tmp_path / "m.h5") == seals(tmp_path / "b.h5")


def test_merge_takes_the_whole_copy(tmp_path: Path, capsys: Output) -> None:
    """Of a trial that is damaged in one file, the copy that is whole is taken, whichever file comes first."""
    a = packed(tmp_path / "a.h5", [record(n) for n in range(3)])
    packing.pack(a, out=tmp_path / "b.h5")
    whole = seals(a)
    flip_trial(a, 1)
    for number, order in enumerate([(a, tmp_path / "b.h5"), (tmp_path / "b.h5", a)]):
        out = tmp_path / f"m{number}.h5"
        assert run(capsys, "merge", out, *order)[0] == 0
        assert seals(out) == whole
        assert verify.verify(out).intact


def test_merge_a_running_study(tmp_path: Path, capsys: Output) -> None:
    """A file of a study that runs gives its trials so far, and it is said; its checkpoints stay where they are."""
    a = packed(tmp_path / "a.h5", [record(0)])
    store = Store.open(tmp_path / "b.h5", meta())
    put(store, record(0, 0.5), output(0))
    checkpoints.write(store.folder, 4, b"half")
    code, _, err = run(capsys, "merge", tmp_path / "m.h5", a, store.path)
    store.close()
    assert code == 0
    assert "b.h5: being run by process" in err
    assert "1 trial under way" in err
    assert len(records(tmp_path / "m.h5")) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "other"}, "study tBL_WSe2 and other"),
        ({"metric": "contrast"}, "error metric loss and contrast"),
        ({"direction": "maximize"}, "direction minimize and maximize"),
        ({"search_space_json": '{"scale": {}}'}, "tuned parameters"),
        ({"provenance": {"data_sha256": "ff"}}, "data_sha256 aa and ff"),
        ({"config_json": '{"init_params": {"probe_kv": 200}}'}, "init_params.probe_kv"),
    ],
)
def test_merge_refuses_another_study(tmp_path: Path, capsys: Output, changes: dict[str, Any], says: str) -> None:
    """Trials that are not comparable are not mixed; the line says where the two differ."""
    a = packed(
        tmp_path / "a.h5",
        [record(0)],
        provenance={"data_sha256": "aa"},
        config_json='{"init_params": {"probe_kv": 80}}',
    )
    given = {"provenance": {"data_sha256": "aa"}, "config_json": '{"init_params": {"probe_kv": 80}}'}
    b = packed(tmp_path / "b.h5", [record(0)], **(given | changes))
    code, _, err = run(capsys, "merge", tmp_path / "m.h5", a, b)
    assert code == 1
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "m.h5").exists()


@pytest.mark.parametrize(("sums", "code"), [(("aa", "aa"), 0), (("aa", "ab"), 1), (("", ""), 1)])
def test_merge_of_data_at_two_places(tmp_path: Path, capsys: Output, sums: tuple[str, str], code: int) -> None:
    """Two clusters have the same file at other paths: its bytes count, where both studies know them."""
    key = "init_params.probe_params"
    files = [
        packed(
            tmp_path / f"{number}.h5",
            [record(number)],
            provenance={f"sha256 {key}": known} if known else {},
            config_json=json.dumps({"init_params": {"probe_params": f"/cluster{number}/probe.h5"}}),
        )
        for number, known in enumerate(sums)
    ]
    given, _, err = run(capsys, "merge", tmp_path / "m.h5", *files)
    assert given == code
    assert (key in err) is bool(code)


def test_merge_is_called_right(tmp_path: Path, capsys: Output) -> None:
    """One file, a file twice, an output that exists: refused before anything is read."""
    a = packed(tmp_path / "a.h5", [record(0)])
    assert run(capsys, "merge", tmp_path / "m.h5", a)[0] == 2
    assert "named twice" in run(capsys, "merge", tmp_path / "m.h5", a, a)[2]
    assert "exists already" in run(capsys, "merge", a, a, tmp_path / "b.h5")[2]
    assert files_in(tmp_path) == {"a.h5"}


def test_merge_refuses_a_damaged_trial(tmp_path: Path, capsys: Output) -> None:
    """A damaged trial in a packed file is no part of a new one: it is named, and nothing is written."""
    a, b = packed(tmp_path / "a.h5", [record(0)]), packed(tmp_path / "b.h5", [record(0, 0.5), record(1)])
    flip_trial(b, 1)
    code, _, err = run(capsys, "merge", tmp_path / "m.h5", a, b)
    assert code == 1
    assert "b.h5" in err
    assert err.count("\n") == 1
    assert files_in(tmp_path) == {"a.h5", "b.h5"}


# --- rebuild -----------------------------------------------------------------------------------------


def lose_index(path: Path) -> None:
    """The index is gone."""
    path.unlink()


def cut_index(path: Path) -> None:
    """The index is cut off."""
    path.write_bytes(path.read_bytes()[:3000])


def empty_index(path: Path) -> None:
    """The index has no byte."""
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [lose_index, cut_index, empty_index])
def test_rebuild_the_index(tmp_path: Path, capsys: Output, damage: Callable[[Path], None]) -> None:
    """The trials' own files are all it takes; the study then goes on as the one it was."""
    path = stopped(tmp_path / "s.h5", range(3))
    store_id, before = reader.open(path).id, records(path)
    damage(path)
    code, out, _ = run(capsys, "rebuild", path)
    assert code == 0
    assert "s.h5: is the index of 3 trials" in out
    assert (reader.open(path).id, records(path), with_arrays(path)) == (store_id, before, [0, 1, 2])
    store = Store.open(path, meta())
    assert store.previous == meta()
    put(store, record(3), output(3))
    store.finish()
    assert len(seals(path)) == 4


def test_rebuild_without_the_description(tmp_path: Path, capsys: Output) -> None:
    """Where index and store.json are gone, the trials say what they know; the next run fills in the rest."""
    path = stopped(tmp_path / "s.h5", range(2))
    path.unlink()
    (tmp_path / "s.trials" / "store.json").unlink()
    code, out, _ = run(capsys, "rebuild", path)
    assert code == 0
    assert "settings are not known any more" in out
    with reader.open(path) as results:
        assert (results.meta.metric, results.meta.direction) == ("loss", "minimize")
        assert results.best() == record(1)
    assert run(capsys, "best", path)[0] == run(capsys, "info", path)[0] == 0
    store = Store.open(path, meta())
    assert store.previous is None
    assert store.meta.name == "tBL_WSe2"
    assert len(store.records) == 2
    store.close()


def test_rebuild_sets_damaged_trials_aside(tmp_path: Path, capsys: Output) -> None:
    """Of a damaged trial the index still knows the numbers; its file is moved and named, the exit code is 1."""
    path = stopped(tmp_path / "s.h5", range(3))
    flip_trial(tmp_path / "s.trials" / "000001.h5", 1)
    code, out, err = run(capsys, "rebuild", path)
    assert code == 1
    assert "000001.h5: trial 1: " in err
    assert "only the numbers of 1 trial: 1" in out
    assert (tmp_path / "s.trials" / "damaged" / "000001.h5").exists()
    assert ([r.number for r in records(path)], with_arrays(path)) == ([0, 1, 2], [0, 2])
    assert run(capsys, "verify", path) == (0, f"{path}: intact, 3 trials in 4 files read\n", "")
    assert run(capsys, "rebuild", path)[:2] == (0, f"{path}: nothing is damaged, 3 trials; nothing to do\n")
    assert run(capsys, "pack", path)[0] == 0
    assert "only the numbers were kept" in run(capsys, "show", path, 1)[1]


def test_rebuild_a_damaged_packed_file(finished: Path, capsys: Output) -> None:
    """Whole trials go into a new file as they are, of a damaged one the numbers; the damaged file stays as it is."""
    whole = seals(finished)
    flip_trial(finished, 2)
    before = finished.read_bytes()
    code, out, err = run(capsys, "rebuild", finished)
    new = finished.with_name("s-rebuilt.h5")
    assert code == 1
    assert "trial 2" in err
    assert "s-rebuilt.h5: holds 6 trials" in out
    assert finished.read_bytes() == before
    assert ([r.number for r in records(new)], with_arrays(new)) == (list(range(7)), [0, 1, 3, 4, 5])
    assert {n: s for n, s in seals(new).items() if n != 2} == {n: s for n, s in whole.items() if n != 2}
    code, _, err = run(capsys, "rebuild", finished)
    assert code == 2
    assert "exists already" in err
    assert run(capsys, "rebuild", finished, "-o", finished.with_name("other.h5"))[0] == 1
    store = Store.open(new, meta())
    assert store.previous == meta()
    assert len(store.records) == 7
    store.finish()


@pytest.mark.slow
def test_rebuild_knows_a_study_whose_titles_hang(
    finished: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 never returns from damaged texts of varying length: the study's own, for people, cost no id."""
    monkeypatch.setattr(isolated.ChildReader, "__init__", partialmethod(isolated.ChildReader.__init__, patience=2.0))
    with reader.open(finished) as study:
        before = study.id
    data, hangs = bytearray(finished.read_bytes()), []
    at = data.find(b"GCOL")
    while at >= 0:
        spoilt = bytearray(data)
        spoilt[at + 16 : at + 32] = bytes(16)
        finished.write_bytes(spoilt)
        with isolated.ChildReader(patience=2.0) as child:
            titles = child.ask(what="titles", path=str(finished))
        if "kind" not in titles and titles.get("trouble"):
            hangs.append(at)
            break
        at = data.find(b"GCOL", at + 1)
    assert hangs, "no heap holds the study's titles"
    assert run(capsys, "rebuild", finished)[0] in (0, 1)
    new = finished.with_name("s-rebuilt.h5")
    with reader.open(new) as study:
        assert study.id == before
    assert [r.number for r in records(new)] == list(range(7))


def test_rebuild_a_file_that_is_cut_off(finished: Path, capsys: Output) -> None:
    """HDF5 opens no such file: one line says how much of it is there, and nothing is touched or left behind."""
    data = finished.read_bytes()
    finished.write_bytes(data[: len(data) // 2])
    code, _, err = run(capsys, "rebuild", finished)
    assert code == 1
    assert f"cut off: of {len(data) - byte_seal.SIZE} bytes {len(data) // 2} are there" in err
    assert files_in(finished.parent) == {"s.h5"}


def test_rebuild_a_file_that_no_longer_says_what_it_is(finished: Path, capsys: Output) -> None:
    """Damage in the file's own attributes costs no trial, nor the study's description."""
    whole, before, data = seals(finished), records(finished), finished.read_bytes()
    flip(finished, data.find(reader.open(finished).id.encode()))
    code, _out, err = run(capsys, "rebuild", finished)
    assert code == 0, err
    new = finished.with_name("s-rebuilt.h5")
    assert (seals(new), records(new)) == (whole, before)
    assert reader.open(new).meta == meta()


def test_rebuild_a_study_that_went_on_over_a_damaged_file(finished: Path, capsys: Output) -> None:
    """New trials beside a packed file that turns out damaged: both are saved, the damaged file is set aside."""
    store = Store.open(finished, meta())
    shard.write(store.folder, record(9), output(9), KEEP, direction="minimize", metric="loss")
    store.close()
    flip_trial(finished, 2)
    code, out, _ = run(capsys, "rebuild", finished)
    assert code == 1
    assert "moved to" in out
    assert ([r.number for r in records(finished)], with_arrays(finished)) == ([*range(7), 9], [0, 1, 3, 4, 5, 9])
    assert (names.folder_of(finished) / "damaged" / "s.h5").exists()
    assert run(capsys, "pack", finished)[0] == 0
    assert set(seals(finished)) == {*range(7), 9}


def test_rebuild_leaves_what_is_whole(finished: Path, tmp_path: Path, capsys: Output) -> None:
    """Nothing is damaged: nothing is done. Nothing can be read, or is somebody else's: nothing is touched."""
    assert run(capsys, "rebuild", finished)[:2] == (0, f"{finished}: nothing is damaged, 7 trials; nothing to do\n")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = 1
    (tmp_path / "text.h5").write_text("no HDF5")
    for name in ("other.h5", "text.h5", "none.h5"):
        code, _, err = run(capsys, "rebuild", tmp_path / name)
        assert (code, "not an HDF5 file" in err or "not one with" in err or "there is no" in err) == (2, True)
    assert files_in(tmp_path) == {"s.h5", "other.h5", "text.h5"}
    stopped(tmp_path / "live.h5", [0])
    store = Store.open(tmp_path / "live.h5", meta())
    assert "is being run by" in run(capsys, "rebuild", tmp_path / "live.h5")[2]
    store.close()


@pytest.mark.slow
def test_rebuild_survives_any_damage(finished: Path) -> None:
    """Whatever bytes are flipped, no process crashes, and every trial that the new file has whole is the old one."""
    whole, good = seals(finished), finished.read_bytes()
    chance = np.random.default_rng(1)
    for attempt in range(12):
        bad = finished.with_name(f"bad{attempt}.h5")
        bad.write_bytes(good if attempt else good[: len(good) // 2])
        for at in chance.integers(96, bad.stat().st_size, 40 if attempt % 2 else 3):
            flip(bad, int(at))
        try:
            done = rebuild.rebuild(bad)
        except StoreError:
            continue
        if done.written:
            now = seals(done.path)
            assert all(now[n] == whole[n] for n in now if n not in done.numbers_only)
            assert {r.number for r in records(done.path)} | set(done.lost) == set(whole) or done.trouble


# --- info --------------------------------------------------------------------------------------------


def test_info_of_a_packed_file(finished: Path, capsys: Output) -> None:
    """Counts, best, sizes by kind that add up to the file, and where it came from, in all three formats."""
    packing.pack(finished, retention.parse("best:2"))
    code, out, _ = run(capsys, "info", finished, "--format", "json")
    said = json.loads(out)
    assert (code, said["kind"], said["study"], said["metric"]) == (0, "packed", "tBL_WSe2", "loss")
    assert said["trials"] == {
        "total": 7,
        "states": {"complete": 6, "pruned": 0, "failed": 1},
        "retried": 0,
        "with_arrays": 2,
        "with_artifacts": 0,
        "dropped": 4,
        "lost": 0,
        "unreadable": 0,
    }
    assert said["best"]["number"] == 5
    assert said["parameters"] == ["scale", "rotation"]
    assert said["bytes"]["total"] == finished.stat().st_size == sum(said["bytes"]["kinds"].values())
    assert said["compression"].startswith("gzip 1")
    assert said["ratio"] > 1
    assert said["provenance"]["host"] == "node1"
    assert said["driver"] == ""
    assert said["written"] > "2025"
    text = run(capsys, "info", finished)[1]
    for word in (
        "one file that holds everything",
        "2 with arrays, 4 had theirs dropped",
        "trial 5: 0.125000",
        "gzip 1",
    ):
        assert word in text, word
    assert run(capsys, "info", finished, "--format", "yaml")[1].startswith("file: ")


def test_sizes_are_those_of_every_dataset(finished: Path, tmp_path: Path) -> None:
    """Of trials in a packed file and in files of their own; what a link leads to is not the trial's."""
    apart = stopped(tmp_path / "apart.h5", range(3))
    own = [index.TrialRow(row, names.shard_path(names.folder_of(apart), row.number)) for row in records(apart)]
    with h5py.File(finished, "r+") as file:
        trial = file[index.read_rows(finished)[0].group]
        trial["elsewhere"] = h5py.SoftLink("/nowhere")
        trial.create_group("metrics/empty")
    for rows in (index.read_rows(finished), own):
        measured = sizes.measure_trials(rows)
        assert set(measured) == {row.record.number for row in rows}
        for row in rows:
            stored: list[int] = []
            with h5py.File(row.file) as file:
                file[row.group].visititems(
                    lambda _, item, stored=stored: (
                        stored.append(item.id.get_storage_size()) if isinstance(item, h5py.Dataset) else None
                    )
                )
            assert sum(measured[row.record.number].stored.values()) == sum(stored) > 0


def test_info_reads_no_thumbnail(
    finished: Path, tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows none, and of thousands of trials they and their checksums take seconds."""
    apart = stopped(tmp_path / "apart.h5", range(3))

    def refuse(*_: object) -> None:
        raise AssertionError("a thumbnail was read")

    monkeypatch.setattr(thumbnail, "read_tile", refuse)
    monkeypatch.setattr(thumbnail, "read_tiles", refuse)
    for path, trials in ((finished, 7), (apart, 3)):
        code, out, _ = run(capsys, "info", path, "--format", "json")
        assert (code, json.loads(out)["trials"]["total"], json.loads(out)["trials"]["unreadable"]) == (0, trials, 0)


def test_info_of_a_running_study(tmp_path: Path, capsys: Output) -> None:
    """Who has it, how many trials are under way, and that the trials are in the folder."""
    store = Store.open(tmp_path / "s.h5", meta())
    put(store, record(0), output(0))
    checkpoints.write(store.folder, 3, b"half")
    text = run(capsys, "info", store.path)[1]
    store.close()
    for word in ("the trials are in s.trials/", "1: 1 complete", "1 trial under way", f"process {os.getpid()}"):
        assert word in text, word


@pytest.mark.parametrize("command", ["pack", "merge", "rebuild", "info", "verify"])
def test_commands_say_what_they_do(command: str, capsys: Output) -> None:
    """--help fits a terminal and names every choice."""
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert out.count("\n") > 6
    assert max(map(len, out.splitlines())) <= 110


# --- verify ------------------------------------------------------------------------------------------


def test_verify(finished: Path, capsys: Output) -> None:
    """Exit code 0 and one line where all is whole; 1, each trouble and what to do where it is not."""
    assert run(capsys, "verify", finished) == (0, f"{finished}: intact, 7 trials in 1 file read\n", "")
    packing.pack(finished, retention.parse("best:2"))
    assert run(capsys, "verify", finished)[0] == 0
    flip_trial(finished, 5)
    code, out, err = run(capsys, "verify", finished)
    assert code == 1
    assert "trial 5" in err
    assert f"ptydask rebuild {finished}" in err
    assert "1 trial damaged" in out
    said = json.loads(run(capsys, "verify", finished, "--format", "json")[1])
    assert (said["intact"], said["damaged"], said["trials"]) == (False, [5], 7)
