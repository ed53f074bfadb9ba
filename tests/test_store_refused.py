"""What the store refuses: a second driver, files and folders that are not its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from store_cases import meta, packed, put, record
from test_store_crash import child

from ptydask.errors import NoResults, StoreError
from ptydask.store import Store, byte_seal, lock, names, reader


def test_second_driver_is_refused(tmp_path: Path) -> None:
    """Who has the store is named: host, process, since when. Killed, it lets go."""
    path = tmp_path / "results.h5"
    with child("hold", path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{path}\n"
        who = rf"process {process.pid} on {socket.gethostname()}, since \d{{4}}-\d\d-\d\dT"
        with pytest.raises(StoreError, match=who):
            Store.open(path, meta())
        with reader.open(path) as results:
            assert results.live
        process.kill()
        process.wait()
        with reader.open(path) as results:
            assert not results.live
    Store.open(path, meta()).close()


def test_second_driver_in_this_process(tmp_path: Path) -> None:
    """The lock holds within one process too, until the store is closed or finished."""
    path = tmp_path / "results.h5"
    store = Store.open(path, meta())
    with pytest.raises(StoreError, match=f"process {os.getpid()}"):
        Store.open(path, meta())
    put(store, record(0))
    store.finish()
    Store.open(path, meta()).close()
    with reader.open(path) as results:
        assert results.records() == [record(0)]


@pytest.mark.parametrize("lives", [True, False])
def test_driver_on_another_host(tmp_path: Path, lives: bool) -> None:
    """Where locks do not travel between hosts, signs of life decide."""
    said = {"host": "elsewhere", "pid": 1, "since": "2025-01-01T00:00:00+00:00", "born": ""}
    (tmp_path / lock.NAME).write_text(json.dumps(said))
    now = time.time_ns()

    def sleep(_: float) -> None:
        if lives:
            os.utime(tmp_path / lock.NAME, ns=(now, now + 10**9))

    if lives:
        with pytest.raises(StoreError, match="process 1 on elsewhere, since 2025"):
            lock.acquire(tmp_path, sleep=sleep)
    else:
        held = lock.acquire(tmp_path, sleep=sleep)
        assert lock.owner_of(tmp_path) == held.owner
        held.release()
    assert lock.is_alive(lock.LockOwner(**said), silent=1.0)
    assert not lock.is_alive(lock.LockOwner(**said), silent=3600.0)


def test_a_process_number_used_again_is_no_driver() -> None:
    """Another process with the dead driver's number does not keep the study."""
    me = lock.current_owner()
    assert lock.is_alive(me, 0)
    assert not lock.is_alive(replace(me, born="1"), 0)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_driver_that_nobody_has_waited_for_is_gone() -> None:
    """Its number is taken until its parent takes notice of its end."""
    process = subprocess.Popen(["sleep", "60"])
    owner = replace(lock.current_owner(), pid=process.pid, born=lock._process_start(process.pid))
    assert lock.is_alive(owner, 0)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not lock.is_alive(owner, 0)
    process.wait()


def foreign_files(folder: Path) -> list[Path]:
    """Files that are not ptydask's."""
    other, text, empty, cut = (folder / name for name in ("other.h5", "text.h5", "empty.h5", "cut.h5"))
    with h5py.File(other, "w") as file:
        file["data"] = 1
    text.write_text("not HDF5")
    empty.touch()
    packed(folder / "whole.h5", [record(0)])
    cut.write_bytes((folder / "whole.h5").read_bytes()[:3000])
    return [other, text, empty, cut]


def test_foreign_files_are_never_touched(tmp_path: Path) -> None:
    """A file that is no results file, or a damaged one, is refused in one line and left as it is."""
    for path in foreign_files(tmp_path):
        before = path.read_bytes()
        for call in (lambda path=path: Store.open(path, meta()), lambda path=path: reader.open(path)):
            with pytest.raises(StoreError, match=f"{path.name}: .*left as it is") as caught:
                call()
            assert "\n" not in str(caught.value)
        assert path.read_bytes() == before
        assert not names.folder_of(path).exists()


def test_the_nearest_name_is_offered(tmp_path: Path) -> None:
    """For a name that is not there, the results file beside it that is called nearly so."""
    packed(tmp_path / "demo.h5", [record(0)])
    with pytest.raises(NoResults, match=r"demmo\.h5: there is no such results file; did you mean 'demo.h5'\?$"):
        reader.open(tmp_path / "demmo.h5")


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    """How much of it is there, and what to do: nothing in it can be saved."""
    path = packed(tmp_path / "results.h5", [record(0)])
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    data = len(whole) - byte_seal.SIZE  # what HDF5 knows of
    with pytest.raises(StoreError, match=f"cut off: of {data} bytes 3000 are there; .* copy it again"):
        reader.open(path)


@pytest.mark.parametrize("text", ["tBL_WSe2/study_json", "tBL_WSe2/table/record_json"])
def test_a_group_where_a_text_should_be(tmp_path: Path, text: str) -> None:
    """A file in which a group has the name of a text is refused in one line, by readers and by drivers."""
    path = packed(tmp_path / "results.h5", [record(0)])
    with h5py.File(path, "a") as file:
        del file[text]
        file.create_group(text)
    with pytest.raises(StoreError, match="damaged HDF5 file; it is left as it is"):
        Store.open(path, meta())
    with pytest.raises(StoreError, match="damaged"), reader.open(path) as results:
        results.records()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A file of a later ptydask says so."""
    path = packed(tmp_path / "results.h5", [])
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(StoreError, match="format 99 by ptydask"):
        reader.open(path)


def test_places_that_cannot_be(tmp_path: Path) -> None:
    """A folder in place of the file, somebody's folder of that name, no such file: one line each."""
    with pytest.raises(StoreError, match="a folder"):
        Store.open(tmp_path, meta())
    (tmp_path / "mine.trials").mkdir()
    (tmp_path / "mine.trials" / "thesis.txt").touch()
    with pytest.raises(StoreError, match=r"thesis\.txt"):
        Store.open(tmp_path / "mine.h5", meta())
    assert (tmp_path / "mine.trials" / "thesis.txt").exists()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be written there: Not a directory"):
        Store.open(tmp_path / "file" / "results.h5", meta())
    with pytest.raises(StoreError, match="there is no such results file"):
        reader.open(tmp_path / "none.h5")


def test_folder_of_another_study(tmp_path: Path) -> None:
    """A folder and a file that do not belong together are not mixed."""
    store = Store.open(tmp_path / "a.h5", meta())
    put(store, record(0))
    store.close()
    other = packed(tmp_path / "b.h5", [record(1)])
    other.replace(tmp_path / "a.h5")
    with pytest.raises(StoreError, match="another study"):
        Store.open(tmp_path / "a.h5", meta())
    assert names.shard_path(store.folder, 0).exists()


def test_folder_taken_away_while_its_lock_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that finishes at that moment removes the folder: the lock is then taken in the new folder."""
    folder, take = tmp_path / "results.trials", lock._flock
    gone = iter([tmp_path / "gone"])

    def flock(fd: int, where: Path) -> None:
        take(fd, where)
        for target in gone:
            folder.rename(target)

    monkeypatch.setattr(lock, "_flock", flock)
    held = lock.acquire(folder)
    assert lock.owner_of(folder) == held.owner
    with pytest.raises(StoreError):
        lock.acquire(folder)
    held.release()
