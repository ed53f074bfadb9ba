"""A results file that several have open at once, in one process and in two, in any order: nobody is kept out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from store_cases import failed, meta, output, packed, phase, put, record

import ptydask
from ptydask.errors import StoreError
from ptydask.store import Store, files, index, names, reader, refused

BEST = 2
STUDY = "tBL_WSe2"
Read = Callable[[], Any]
"""Reads the best trial's phase, or what of the file this reader has for that, through what is open."""


@pytest.fixture(params=["finished", "running"])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The results of three trials, the last the best, and of one that failed."""
    if request.param == "finished":
        yield packed(tmp_path / "results.h5", [*(record(n) for n in range(BEST + 1)), failed(3)])
        return
    store = running(tmp_path / "results.h5")
    yield store.path
    store.close()


def running(path: Path) -> Store:
    """The same trials of a study that still runs."""
    store = Store.open(path, meta())
    for number in range(BEST + 1):
        put(store, record(number), output(number))
    put(store, failed(3))
    store.refresh(force=True)
    return store


@contextmanager
def by_h5py(path: Path, **how: Any) -> Iterator[Read]:
    with h5py.File(path, **how) as file:
        yield lambda: file[STUDY]["best/object_phase"][()]


@contextmanager
def by_xarray(path: Path) -> Iterator[Read]:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    with xarray.open_dataset(path, engine="h5netcdf", group=f"{STUDY}/history", phony_dims="sort") as data:
        assert data["error"].dims == data["best_so_far"].dims == ("number",)
        yield lambda: data["best_so_far"].sel(number=BEST).item() and phase(BEST)


@contextmanager
def by_nexusformat(path: Path) -> Iterator[Read]:
    nexus = pytest.importorskip("nexusformat.nexus")
    root = nexus.nxload(str(path))
    with root.nxfile:
        yield lambda: np.asarray(root[STUDY]["best/object_phase"].nxvalue)


@contextmanager
def by_silx(path: Path) -> Iterator[Read]:
    silx = pytest.importorskip("silx.io")
    with silx.open(str(path)) as file:
        yield lambda: file[STUDY]["best/object_phase"][()]


@contextmanager
def by_pandas(path: Path) -> Iterator[Read]:
    pandas = pytest.importorskip("pandas")
    with h5py.File(path) as file:
        table = file[STUDY]["table"]
        yield lambda: len(pandas.DataFrame({name: table[name][()] for name in ("number", "error")})) and phase(BEST)


@contextmanager
def by_ptydask(path: Path) -> Iterator[Read]:
    with ptydask.open(path) as study:

        def read() -> Any:
            assert study[3].message == failed(3).message
            assert set(study.best().curve) == {"step", "loss", "contrast"}
            return study.best().object_phase[...]

        yield read


READERS: dict[str, Callable[[Path], AbstractContextManager[Read]]] = {
    "ptydask": by_ptydask,
    "h5py": by_h5py,
    "h5py without a lock": lambda path: by_h5py(path, locking=False),
    "h5py r+": lambda path: by_h5py(path, mode="r+"),
    "xarray": by_xarray,
    "nexusformat": by_nexusformat,
    "silx": by_silx,
    "pandas": by_pandas,
}


@pytest.mark.parametrize("first", [True, False], ids=["before ptydask", "after ptydask"])
@pytest.mark.parametrize("other", READERS)
def test_in_one_process(results: Path, other: str, first: bool) -> None:
    """ptydask and each other reader have a file open at once, and both read on, whoever came first."""
    order = [READERS[other], by_ptydask] if first else [by_ptydask, READERS[other]]
    with ExitStack() as opened:
        reads = []
        for reader_of in order:
            reads.append(opened.enter_context(reader_of(results)))
            for read in reads:
                np.testing.assert_array_equal(read(), phase(BEST))


def test_all_at_once(results: Path) -> None:
    """ptydask reads while all that open the file as HDF5 does by itself have it open, too."""
    with ExitStack() as opened:
        several = [by_ptydask, by_h5py, by_xarray, by_nexusformat, by_silx, by_pandas, by_ptydask]
        reads = [opened.enter_context(reader_of(results)) for reader_of in several]
        for read in reads:
            np.testing.assert_array_equal(read(), phase(BEST))


# --- another process ---------------------------------------------------------------------------------

_HOLDER = """
import sys, h5py
for line in sys.stdin:
    mode, path = line.rstrip().split(" ", 1)
    file = h5py.File(path, mode)
    study = file[file.attrs["default"]]
    study["best/object_phase"][()]
    print("open", flush=True)
    sys.stdin.readline()
    file.close()
    print("closed", flush=True)
"""


class Holder:
    """Another process that has files open."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    @contextmanager
    def holding(self, path: Path, mode: str) -> Iterator[None]:
        assert self.tell(f"{mode} {path}") == "open"
        yield
        assert self.tell("") == "closed"


@pytest.fixture(scope="module")
def holder() -> Iterator[Holder]:
    other = Holder()
    yield other
    other.process.communicate()


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_in_two_processes(results: Path, holder: Holder, mode: str) -> None:
    """Another process has the file, for writing even: ptydask reads it; and the other comes while ptydask reads."""
    with holder.holding(results, mode), by_ptydask(results) as read:
        np.testing.assert_array_equal(read(), phase(BEST))
    with by_ptydask(results) as read:
        with holder.holding(results, mode):
            np.testing.assert_array_equal(read(), phase(BEST))
        np.testing.assert_array_equal(read(), phase(BEST))


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_run_goes_on(tmp_path: Path, holder: Holder, mode: str) -> None:
    """A run goes on, ends and keeps all of every trial while another process has its file, and trials behind links."""
    store = running(tmp_path / "results.h5")
    with holder.holding(store.path, mode):
        put(store, record(4), output(4), check=False)
        store.refresh(force=True)
        with by_ptydask(store.path) as read:
            np.testing.assert_array_equal(read(), phase(4))
        store.finish()
    assert store.damaged == ()
    with reader.open(store.path) as opened:
        assert all(opened.trial(number).lost == "" for number in (0, 1, 2, 4))


def test_header_that_a_writer_touched(tmp_path: Path) -> None:
    """Of a trial's file whose header somebody opened for writing, and did not close, everything is packed."""
    store = Store.open(tmp_path / "results.h5", meta())
    for number in range(2):
        written = shard_as_its_worker_tells(store, number)
        if number == 0:
            mark_open_for_writing(written)
    store.finish()
    assert store.damaged == ()
    with reader.open(store.path) as opened:
        assert opened.trial(0).lost == ""


def test_content_that_a_writer_changed(tmp_path: Path) -> None:
    """What somebody wrote into a trial's file makes it another: its numbers are packed, and the file stays."""
    store = Store.open(tmp_path / "results.h5", meta())
    with h5py.File(shard_as_its_worker_tells(store, 0), "r+", libver=files.LIBVER) as file:
        file["trial/curve/loss"][0] = 17.0
    store.finish()
    assert "trial 0" in store.damaged[0]


def shard_as_its_worker_tells(store: Store, number: int) -> Path:
    put_shard = put(store, record(number), output(number))
    store.add(record(number), put_shard)
    return names.shard_path(store.folder, number)


def mark_open_for_writing(path: Path) -> None:
    """What a killed writer leaves: HDF5's own flag, with the header's checksum made anew."""
    file = h5py.File(path, "r+", libver=files.LIBVER)
    data = path.read_bytes()
    file.close()
    assert data[11] == 1
    path.write_bytes(data)


# --- what is said ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["head", "table", "trial"])
def test_half_written_is_not_called_damaged(tmp_path: Path, holder: Holder, place: str) -> None:
    """What cannot be read while somebody writes: who has it is said, and not that it is damaged."""
    path = packed(tmp_path / "results.h5", [record(0)])
    with h5py.File(path) as file:
        address = {
            "head": h5py.h5o.get_info(file[STUDY].id).addr,
            "table": h5py.h5o.get_info(file[STUDY]["table"].id).addr,
            "trial": h5py.h5o.get_info(file[STUDY]["trials/000000"].id).addr,
        }[place]
    with holder.holding(path, "r+"):
        with path.open("r+b") as raw:
            raw.seek(address)
            raw.write(b"half of a change")
        with pytest.raises(StoreError) as caught:
            read_all(path)
    assert str(holder.process.pid) in str(caught.value)
    assert "damaged" not in str(caught.value)


def read_all(path: Path) -> None:
    with reader.open(path) as opened:
        opened.records()
        opened.trial(0)


def test_writer_is_named(tmp_path: Path) -> None:
    """Nobody, this process, or somebody who is not to be found any more."""
    path = packed(tmp_path / "results.h5", [record(0)])
    assert refused.describe_writer(path) == ""
    with h5py.File(path):
        assert refused.describe_writer(path) == ""
    with h5py.File(path, "r+"):
        assert "this process" in refused.describe_writer(path)
    mark_open_for_writing(path)
    assert "killed" in refused.describe_writer(path)
    assert refused.describe_writer(tmp_path / "none.h5") == ""


def test_disk_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk is told in the system's words: the file may be whole."""
    path = packed(tmp_path / "results.h5", [record(0)])

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "preadv", fail)
        with pytest.raises(StoreError, match="Input/output error") as caught:
            index.read_head(path)
    assert "damaged" not in str(caught.value)


def test_interrupt_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C within a read is that, and no damage."""
    path = packed(tmp_path / "results.h5", [record(0)])

    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    with reader.open(path) as opened, monkeypatch.context() as patched:
        patched.setattr(files.os, "preadv", interrupt)
        with pytest.raises(KeyboardInterrupt):
            opened.trial(0)


# --- Python's file beneath HDF5 ----------------------------------------------------------------------


def test_read_file(tmp_path: Path) -> None:
    """Positions count from the start, from here and from the end; beyond the end there are zeros."""
    path = tmp_path / "ten"
    path.write_bytes(b"0123456789")
    file = files.ReadFile(path)
    buffer = bytearray(4)
    assert (file.seek(3), file.readinto(buffer), bytes(buffer), file.tell()) == (3, 4, b"3456", 7)
    assert (file.seek(-2, 1), file.seek(0, 2)) == (5, 10)
    assert (file.seek(8), file.readinto(buffer), bytes(buffer)) == (8, 4, b"89\0\0")


def test_nothing_stays_open(tmp_path: Path) -> None:
    """Closing lets go of the file at once, also where groups of it are still held."""
    path = packed(tmp_path / "results.h5", [record(0)])
    opened = reader.open(path)
    opened.trial(0)
    assert count_descriptors(path) == 1
    opened.close()
    assert count_descriptors(path) == 0


def count_descriptors(path: Path) -> int:
    links = Path("/proc/self/fd").iterdir()
    return sum(link.exists() and link.samefile(path) for link in links)
