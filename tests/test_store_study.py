"""The driver's handle: new, gone on with, refused, damaged, discarded; and readers beside it."""

from __future__ import annotations

import errno
import os
import pickle
import socket
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from store_cases import failed, meta, output, packed, phase, put, record

from ptydask.errors import StoreError
from ptydask.model import Quantity
from ptydask.run_snapshot import RunSnapshot
from ptydask.store import Store, checkpoints, contents, files, index, names, packed_study, reader, shard, study

SNAPSHOT = RunSnapshot(
    "tBL_WSe2", Path("results.h5"), 10, {"complete": 1}, record(0), (), 2, 1.5, float("inf"), 20, "loss", "minimize"
)


def numbers(path: Path) -> list[int]:
    with reader.open(path) as results:
        return [found.number for found in results.records()]


def test_one_file_in_the_end(tmp_path: Path) -> None:
    """A study leaves one file, in folders that are made for it, and nothing beside it."""
    path = tmp_path / "new" / "folder" / "results.h5"
    assert packed(path, [record(0), failed(1)]) == path
    assert [p.name for p in path.parent.iterdir()] == ["results.h5"]


def test_index_while_running(tmp_path: Path) -> None:
    """While a run is on, plain h5py reads the trials through the index, and ptydask reads them all."""
    path = tmp_path / "results.h5"
    store = Store.open(path, meta())
    for number in range(3):
        put(store, record(number), output(number))
    store.refresh(force=True)
    with h5py.File(path) as file:
        assert file.attrs["kind"] == b"index"
        assert file["tBL_WSe2/trials"].get("000001", getlink=True).filename == "results.trials/000001.h5"
        assert (file["tBL_WSe2/best/object_phase"][()] == phase(2)).all()
        assert len(file["tBL_WSe2/by_params/scale=0.98"]) == 3
        assert file["tBL_WSe2/thumbnails"][2].any()
    put(store, record(3), output(3))  # not in the index yet
    with reader.open(path) as results:
        assert (results.packed, results.live, results.id) == (False, True, store.id)
        assert results.records() == [record(number) for number in range(4)]
        assert (results.trial(3).arrays["object_phase"].read() == phase(3)).all()
        trial = results.trial(0)
        store.finish()
        assert (trial.arrays["object_phase"].read() == phase(0)).all()  # it is in the packed file by now
        assert not results.live


def test_records_share_their_texts(tmp_path: Path) -> None:
    """Records that came one by one, from workers or from a file, have names and places as the same objects."""
    path = tmp_path / "results.h5"
    store = Store.open(path, meta())
    for number in range(3):
        written = put(store, record(number))
        store.discard(number)
        store.add(pickle.loads(pickle.dumps(record(number))), written)
    with reader.open(store.finish()) as results:
        read = results.records()
    for records in (store.records.values(), read):
        mappings = [mapping for made in records for mapping in (made.params, made.metrics)]
        places = [text for made in records for text in (made.worker, made.host, made.job, made.device, made.origin)]
        texts = [name for mapping in mappings for name in mapping] + places
        assert len({id(text) for text in texts}) == len(set(texts)) == 9


def test_index_links_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the best trials are linked while a run is on (viewers open every link); the table has all."""
    monkeypatch.setattr(index.layout, "LINKED", 3)
    path = tmp_path / "results.h5"
    store = Store.open(path, meta())
    for number in range(6):
        put(store, record(number))
    put(store, failed(6))
    store.refresh(force=True)
    with h5py.File(path) as file:
        assert list(file["tBL_WSe2/trials"]) == ["000003", "000004", "000005"]
        assert len(file["tBL_WSe2/by_error"]) == 3
        assert len(file["tBL_WSe2/table/number"]) == 7
    with h5py.File(store.finish()) as file:
        assert len(file["tBL_WSe2/trials"]) == 7


def test_going_on_with_a_packed_file(tmp_path: Path) -> None:
    """More trials join a finished study: the old ones stay as they were, ids and creation time too."""
    path = packed(tmp_path / "results.h5", [record(0), record(1), failed(2)])
    store = Store.open(path, meta(created="2026-01-01T00:00:00+00:00", provenance={"host": "node2"}))
    assert store.previous == meta()
    assert store.meta.created == meta().created
    assert store.records == {0: record(0), 1: record(1), 2: replace(failed(2), traceback="")}
    first = store.id
    put(store, record(7), output(7))
    store.refresh(force=True)
    with h5py.File(path) as file:
        assert (file["tBL_WSe2/trials/000000/object_phase"][()] == phase(0)).all()
        assert file["tBL_WSe2/thumbnails"][0].any()
    store.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["results.h5"]
    with reader.open(path) as results:
        assert results.id == first
        assert results.meta.provenance == {"host": "node2", "data sha256": "ab/cd"}
        assert [found.number for found in results.records()] == [0, 1, 2, 7]
        assert results.trial(2).record == failed(2)
        assert (results.trial(1).image.data == phase(1).sum((0, 1))).all()
        assert (results.thumbnails().any((1, 2)) == [True, True, False, True]).all()


def test_nothing_to_add_changes_nothing(tmp_path: Path) -> None:
    """Opening a finished study and ending without a trial leaves the file as it was, byte for byte."""
    path = packed(tmp_path / "results.h5", [record(0)])
    before = path.read_bytes()
    for end in (Store.finish, Store.close):
        store = Store.open(path, meta())
        store.refresh()
        store.refresh(force=True)
        end(store)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["results.h5"]


def test_left_open_and_gone_on_with(tmp_path: Path) -> None:
    """A closed store keeps its folder; the next run finds every trial, files nobody had added included."""
    path = tmp_path / "results.h5"
    store = Store.open(path, meta())
    put(store, record(0), output(0))
    store.close()
    shard.write(store.folder, record(1), output(1), store.meta.keep, direction="minimize", metric="loss")
    assert numbers(path) == [0, 1]
    again = Store.open(path, meta())
    assert again.id == store.id
    assert again.records == {0: record(0), 1: record(1)}
    again.close()


def test_a_late_file_survives_the_close_of_a_packed_study(tmp_path: Path) -> None:
    """A trial written but not yet recorded when a resumed run ends is found by the next one."""
    path = packed(tmp_path / "results.h5", [record(0)])
    store = Store.open(path, meta())
    shard.write(store.folder, record(1), output(1), store.meta.keep, direction="minimize", metric="loss")
    store.close()
    store = Store.open(path, meta())
    assert sorted(store.records) == [0, 1]
    store.finish()
    assert numbers(path) == [0, 1]


def test_nothing_recorded_leaves_nothing(tmp_path: Path) -> None:
    """A new study that ends before its first trial leaves neither file nor folder."""
    store = Store.open(tmp_path / "results.h5", meta())
    assert (tmp_path / "results.h5").exists()
    store.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", ["", "status.json", "checkpoint", "000000.h5", "NAME.h5"])
def test_killed_before_the_first_trial(tmp_path: Path, left: str) -> None:
    """Nothing of it holds for the next run, which leaves nothing either; what had begun stays, and is gone on with."""
    path = tmp_path / "results.h5"
    killed = Store.open(path, meta())
    if left == "status.json":
        killed.write_status(SNAPSHOT)
    elif left == "checkpoint":
        checkpoints.write(killed.folder, 0, b"state")
    elif left == "000000.h5":
        put(killed, record(0))
    elif left == "NAME.h5":
        killed.finish()
    killed._lock.release()
    with reader.open(path) as results:
        assert results.begun == bool(left)
    again = Store.open(path, meta(metric="contrast"))
    assert (again.previous is None) != bool(left)
    again.close()
    assert path.exists() == bool(left)
    assert any(tmp_path.iterdir()) == bool(left)


def test_killed_between_pack_and_removal(tmp_path: Path) -> None:
    """A packed file beside the folder it was made of: the next run tidies up, and every trial is there once."""
    path = tmp_path / "results.h5"
    store = Store.open(path, meta())
    for number in range(3):
        put(store, record(number), output(number))
    rows = [store._rows[number] for number in range(3)]
    packed_study.pack(path, index.ResultsHeader("packed", store.id, "cd", store.meta), rows, {})
    store._lock.release()
    (tmp_path / ".results.trials.0.gone").mkdir()
    (tmp_path / ".results.h5.0.aside").touch()
    (store.folder / ".000009.h5.0.aside").touch()
    again = Store.open(path, meta())
    assert sorted(again.records) == [0, 1, 2]
    assert sorted(p.name for p in again.folder.iterdir()) == ["driver.lock", "store.json"]
    again.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["results.h5"]
    assert numbers(path) == [0, 1, 2]


def test_discard(tmp_path: Path) -> None:
    """A late result goes with its file, before or after it was recorded; a packed trial stays."""
    path = packed(tmp_path / "results.h5", [record(0)])
    store = Store.open(path, meta())
    put(store, record(1), output(1))
    shard.write(store.folder, record(2), None, store.meta.keep, direction="minimize", metric="loss")
    assert store.find(2) == record(2)
    for number in (0, 1, 2, 3):
        store.discard(number)
    assert store.find(2) is None
    assert sorted(store.records) == [0]
    store.finish()
    assert numbers(path) == [0]


# --- damage -------------------------------------------------------------------------------------------


def test_damaged_trial_files_are_moved_aside(tmp_path: Path) -> None:
    """Cut, empty, overwritten, or under another's name: named, kept in ``damaged``, the rest goes on.

    Of trial 3, whose file is not there, the numbers stay.
    """
    path = tmp_path / "results.h5"
    store = Store.open(path, meta())
    for number in range(5):
        put(store, record(number), output(number))
    store.close()
    files = [names.shard_path(store.folder, number) for number in range(5)]
    files[0].write_bytes(files[0].read_bytes()[:5000])
    files[1].write_bytes(b"")
    files[2].write_bytes(b"x" * 5000)
    files[3].rename(names.shard_path(store.folder, 8))
    again = Store.open(path, meta())
    assert sorted(again.records) == [3, 4]
    assert [line.split(":")[0].rpartition("/")[2] for line in again.damaged] == [
        "000000.h5",
        "000001.h5",
        "000002.h5",
        "000008.h5",
        "000003.h5",
    ]
    again.finish()
    left = sorted(p.name for p in (tmp_path / "results.trials" / "damaged").iterdir())
    assert left == ["000000.h5", "000001.h5", "000002.h5", "000008.h5"]
    assert numbers(path) == [3, 4]
    store = Store.open(path, meta())  # the folder of damaged files is in nobody's way
    store.finish()
    assert sorted(p.name for p in (tmp_path / "results.trials" / "damaged").iterdir()) == left


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_damage_found_while_packing(tmp_path: Path, damage: str) -> None:
    """A trial file that changed or vanished since it was recorded: its numbers are packed, and it is named."""
    path = tmp_path / "results.h5"
    store = Store.open(path, meta())
    for number in range(2):
        put(store, record(number), output(number))
    first = names.shard_path(store.folder, 0)
    if damage == "missing":
        first.unlink()
    else:
        data = bytearray(first.read_bytes())
        data[data.index(b"one line")] ^= 1
        first.write_bytes(data)
    store.finish()
    assert len(store.damaged) == 1
    assert store.damaged[0].startswith("trial 0: ")
    with reader.open(path) as results:
        assert results.records() == [record(0), record(1)]
        assert results.trial(0).record == record(0)
        assert "only the numbers" in results.trial(0).lost
        assert (results.trial(1).arrays["object_phase"].read() == phase(1)).all()
    assert (tmp_path / "results.trials" / "damaged" / "000000.h5").exists() == (damage == "altered")


def test_an_older_pack_that_cannot_be_read_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read error on the trials of a finished study ends the packing of it with more; nothing is removed."""
    path = packed(tmp_path / "results.h5", [record(0), record(1)])
    store = Store.open(path, meta())
    put(store, record(2), output(2))
    store.refresh(force=True)
    [older] = store.folder.glob("packed-*.h5")
    before, read = older.read_bytes(), files.open_read_only

    def fail(file: Path) -> h5py.File:
        if file == older:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(file)

    with monkeypatch.context() as patched:
        patched.setattr(files, "open_read_only", fail)
        with pytest.raises(StoreError, match=r"cannot be packed .*Input/output error; nothing is lost, they are in"):
            store.finish()
    assert older.read_bytes() == before
    store.finish()
    with reader.open(path) as results:
        for number in range(3):
            assert (results.trial(number).arrays["object_phase"].read() == phase(number)).all()


def test_an_older_pack_that_is_damaged_stays(tmp_path: Path) -> None:
    """A trial's group that is broken within a packed file does not cost the others either."""
    path = packed(tmp_path / "results.h5", [record(0), record(1)])
    with h5py.File(path, "a") as file:
        del file["tBL_WSe2/trials/000001"]
    store = Store.open(path, meta())
    put(store, record(2), output(2))
    with pytest.raises(StoreError, match="trial 1 cannot be read from it"):
        store.finish()
    store.close()
    with reader.open(path) as results:
        assert (results.trial(0).arrays["object_phase"].read() == phase(0)).all()
        assert (results.trial(2).arrays["object_phase"].read() == phase(2)).all()


def test_killed_before_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    """A file of which only the numbers were packed is kept when the next driver tidies up; whole ones go."""
    path = tmp_path / "results.h5"
    store = Store.open(path, meta())
    for number in range(2):
        put(store, record(number), output(number))
    unwritable = {"when": Quantity(np.zeros(3, "M8[s]"))}  # its own file lacks the arrays too
    assert put(store, record(2), output(2, arrays=unwritable)).lost
    rows = [store._rows[number] for number in range(3)]
    packed_study.pack(path, index.ResultsHeader("packed", store.id, "cd", store.meta), rows, {0: "its bytes changed"})
    store._lock.release()
    again = Store.open(path, meta())
    assert sorted(again.records) == [0, 1, 2]
    assert len(again.damaged) == 1
    assert "only the numbers were packed" in again.damaged[0]
    again.finish()
    assert [p.name for p in (tmp_path / "results.trials" / "damaged").iterdir()] == ["000000.h5"]
    assert numbers(path) == [0, 1, 2]


def test_damaged_files_of_one_name_are_all_kept(tmp_path: Path) -> None:
    """A second and third damaged file of the same number do not take the place of the first."""
    for text in ("one", "two", "three"):
        (tmp_path / "000000.h5").write_text(text)
        contents.set_aside(tmp_path / "000000.h5")
    kept = {p.name: p.read_text() for p in (tmp_path / "damaged").iterdir()}
    assert kept == {"000000.h5": "one", "000000-2.h5": "two", "000000-3.h5": "three"}


def test_what_is_said_later_adds_to_the_origin(tmp_path: Path) -> None:
    """The provenance of the stored study stays where a later driver knows less, and yields where it knows more."""
    path = packed(tmp_path / "results.h5", [record(0)])
    store = Store.open(path, meta(provenance={}))
    assert store.meta.provenance == meta().provenance
    store.describe(meta(provenance={"host": "node3"}))
    assert store.meta.provenance == {"host": "node3", "data sha256": "ab/cd"}
    store.close()


def test_unknown_trial(tmp_path: Path) -> None:
    """Asking for a trial that is not there says which are."""
    path = packed(tmp_path / "results.h5", [record(3), record(5)])
    with reader.open(path) as results, pytest.raises(StoreError, match="no trial 4; its trials are 3 to 5"):
        results.trial(4)


# --- pace and status ----------------------------------------------------------------------------------


def test_refreshes_take_a_small_share(tmp_path: Path) -> None:
    """At most one refresh a second, and after one that took a second none before 66."""
    assert not study.refresh_due(0.9, 0.0)
    assert study.refresh_due(1.0, 0.0)
    assert not study.refresh_due(66.0, 1.0)
    assert study.refresh_due(67.0, 1.0)
    path = tmp_path / "results.h5"
    store = Store.open(path, meta())
    put(store, record(0))
    store.refresh()
    put(store, record(1))
    store.refresh()  # too soon
    with h5py.File(path) as file:
        assert len(file["tBL_WSe2/table/number"]) == 1
    assert numbers(path) == [0, 1]  # ptydask's reader does not wait for it
    store.close()
    with h5py.File(path) as file:
        assert len(file["tBL_WSe2/table/number"]) == 2


def test_status(tmp_path: Path) -> None:
    """Another process sees where the run is, as long as there is one."""
    path = tmp_path / "results.h5"
    store = Store.open(path, meta())
    store.write_status(SNAPSHOT)
    put(store, record(0))
    with reader.open(path) as results:
        said = results.status()
        assert said is not None
        assert (said["pid"], said["host"]) == (os.getpid(), socket.gethostname())
        assert said["run"]["counts"] == {"complete": 1}
        assert said["run"]["remaining"] == float("inf")
        assert said["run"]["best"]["params"] == record(0).params
        assert said["since"] <= said["updated"]
    store.close()
    with reader.open(path) as results:
        assert results.status() is None
