"""Killed, out of space, read while it is written: nothing that was recorded is ever lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import store_crashes
from store_cases import meta, output, packed, phase, put, record

from ptydask.errors import StoreError
from ptydask.model import KeepOptions, Quantity
from ptydask.store import Store, files, packed_study, reader, shard

SCRIPT = Path(store_crashes.__file__)


@contextmanager
def child(*args: object) -> Iterator[subprocess.Popen[str]]:
    """A process of tests/store_crashes.py, killed in the end, whatever happens."""
    path = [str(SCRIPT.parent), str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL at 10 moments of recording, refreshing, packing: each reported trial is there each time."""
    with child("kills", tmp_path) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait() == 0
    assert int(said.split()[0]) >= 5


@pytest.mark.slow
@pytest.mark.second
@pytest.mark.timeout(600)
def test_killed_before_every_step(tmp_path: Path) -> None:
    """A process that ends before its k-th step towards the disk, for every k, costs no recorded trial."""
    with child("every", tmp_path) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait() == 0
    made_in_memory, made_on_the_disk, _ = said.split()
    assert int(made_on_the_disk) > 100 > int(made_in_memory) > 20


class Full:
    """A disk that is full from its ``k``-th write on, for ``times`` writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, k: int, times: int = 1 << 30) -> None:
        self.count, put = 0, files.AsideFile.put

        def write(aside: files.AsideFile, data: memoryview, offset: int) -> None:
            self.count += 1
            if k < self.count <= k + times:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            put(aside, data, offset)

        monkeypatch.setattr(files.AsideFile, "put", write)


def refused(store: Store) -> str:
    """The error of packing, "" where it was packed."""
    try:
        store.finish()
    except StoreError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("before", [0, 2], ids=["new", "packed before"])
@pytest.mark.parametrize("times", [1, 1 << 30], ids=["one write fails", "full from there on"])
@pytest.mark.parametrize("in_memory", [1 << 28, -1], ids=["made in memory", "made on the disk"])
def test_disk_full_at_every_write_of_a_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, times: int, in_memory: int
) -> None:
    """A pack that cannot be written, from any write on, says so and leaves every trial as it was."""
    monkeypatch.setattr(packed_study, "_IN_MEMORY", in_memory)
    monkeypatch.setattr("ptydask.store.isolated.ChildReader.ask", store_crashes.asked_here)
    path = tmp_path / "results.h5"
    if before:
        packed(path, [record(number) for number in range(before)])
    store = Store.open(path, meta())
    for number in range(before, before + 2):
        put(store, record(number), output(number))
    store.refresh(force=True)
    old = path.read_bytes()
    for k in range(100_000):
        with monkeypatch.context() as patched:
            full = Full(patched, k, times)
            said = refused(store)
        if not said:
            break
        assert "No space left on device" in said
        assert str(store.folder) in said
        assert path.read_bytes() == old
        assert not list(tmp_path.glob(".*"))
    assert full.count == k > (50 if in_memory < 0 else 1)
    store_crashes.check(path, set(range(before + 2)))


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [1 << 30, -1], ids=["made in memory", "made on the disk"])
def test_disk_full_at_every_write_of_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    """Whichever write fails, the trial's numbers and curve are kept, and what was lost is named."""
    monkeypatch.setattr(shard, "_IN_MEMORY", in_memory)
    keep, kinds = KeepOptions(), set()
    for k in range(100_000):
        with monkeypatch.context() as patched:
            full = Full(patched, k, times=1)
            written = shard.write(tmp_path, record(3), output(3), keep, direction="minimize", metric="loss")
        kinds.add(written.lost)
        assert shard.read_record(written.path) == record(3)
        assert [p.name for p in tmp_path.iterdir()] == ["000003.h5"]
        with files.open_read_only(written.path) as file:
            assert list(file["trial/curve/loss"]) == [0.9, 0.7, 0.5]
            assert file["trial"].attrs.get("lost", b"").decode() == written.lost
            assert ("object_phase" in file["trial"]) == (not written.lost)
        if full.count == k:
            break
    assert kinds == {
        "",
        "of trial 3 only numbers and curves were kept, not object_phase, probe, positions, slice_thickness, "
        "the image, 1 snapshots: No space left on device",
    }


def test_no_room_even_for_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that cannot be written at all is an error in one line, and leaves nothing behind."""
    Full(monkeypatch, 0)
    with pytest.raises(StoreError, match=r"000003\.h5: trial 3 cannot be written: No space left on device$"):
        shard.write(tmp_path, record(3), output(3), KeepOptions(), direction="minimize", metric="loss")
    assert list(tmp_path.iterdir()) == []


def test_index_does_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk does not end a run at a refresh: the old index stays, the trouble is told, and it recovers."""
    path = tmp_path / "results.h5"
    store = Store.open(path, meta())
    put(store, record(0), output(0))
    old = path.read_bytes()
    with monkeypatch.context() as patched:
        Full(patched, 0)
        store.refresh()
        assert "No space left on device" in store.trouble
        with pytest.raises(StoreError, match="No space left on device"):
            store.refresh(force=True)
    assert path.read_bytes() == old
    store.refresh(force=True)
    assert store.trouble == ""
    store.finish()
    store_crashes.check(path, {0})


def test_file_size_limit_of_the_system(tmp_path: Path) -> None:
    """The operating system's own refusal (here a limit on the size of files): numbers are kept."""
    with child("limit", tmp_path, 200_000) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait() == 0
    assert said == "of trial 7 only numbers and curves were kept, not object_phase, the image: File too large\n"
    assert shard.read_record(tmp_path / "000007.h5") == record(7)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("no program `mount` for a small disk")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    """On a real full disk: numbers kept, the pack refused, nothing lost, and it goes on once there is room."""
    path = small_disk / "results.h5"
    store = Store.open(path, meta())
    noise = {"object_phase": Quantity(np.random.default_rng(0).normal(size=(1, 1, 256, 256)))}
    first = put(store, record(0), output(0))
    second = put(store, record(1), output(1, arrays=noise, snapshots={}))
    third = put(store, record(2), output(2, arrays=noise, snapshots={}))
    assert (first.lost, second.lost) == ("", "")
    assert (
        third.lost
        == "of trial 2 only numbers and curves were kept, not object_phase, the image: No space left on device"
    )
    with pytest.raises(
        StoreError, match=r"No space left on device; nothing is lost, they are in .*results\.trials; .* -o OUT"
    ):
        store.finish()
    store.close()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    store = Store.open(path, meta())
    assert store.records == {n: record(n) for n in range(3)}
    with reader.open(store.finish()) as results:
        np.testing.assert_array_equal(results.trial(0).arrays["object_phase"].read(), phase(0))
        assert results.trial(2).lost == third.lost


@pytest.mark.slow
def test_readers_see_a_good_file_at_every_moment(tmp_path: Path) -> None:
    """Reading over and over while another process records, refreshes and packs never meets an error.

    Until twenty trials have come; it takes as long as it takes.
    """
    path, seen, reads = tmp_path / "results.h5", 0, 0
    with child("write", tmp_path) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "1\n":
            pass
        while seen < 20:
            with reader.open(path) as results:
                found = results.records()
                assert len(found) >= 1
                best = results.best()
                assert best is not None
                for number in {found[0].number, best.number, found[-1].number}:
                    data = results.trial(number).arrays["object_phase"].read()
                    np.testing.assert_array_equal(data, phase(number))
                results.status()
                results.thumbnails()
            seen, reads = max(seen, len(found)), reads + 1
    assert reads > 5
