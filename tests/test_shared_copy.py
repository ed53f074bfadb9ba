"""Processes of one machine have one copy of an array in memory, gone with the last of them."""

from __future__ import annotations

import hashlib
import mmap
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from ptydask.engines import shared_copy

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="files in memory are Linux's"),
    pytest.mark.filterwarnings("ignore:This process"),  # other tests' threads, of which Python 3.12 warns in a fork
]

MIB = 2**20
SIZE = 40 * MIB
FORK = multiprocessing.get_context("fork")

Make = Callable[[], tuple[Mapping[str, NDArray[Any]], Any]]


@pytest.fixture
def identity() -> str:
    return uuid4().hex


@pytest.fixture
def children() -> Iterator[Callable[[Callable[[Any], None]], Any]]:
    """Forks a process that runs a function on its end of a pipe; the other end, with the process, is returned."""
    started = []

    def fork(function: Callable[[Any], None]) -> Any:
        here, there = FORK.Pipe()

        def run() -> None:
            here.close()
            try:
                function(there)
            except BaseException:
                there.send(traceback.format_exc())

        process = FORK.Process(target=run)
        process.start()
        there.close()
        here.process = process
        started.append(process)
        return here

    yield fork
    for process in started:
        process.kill()
        process.join()


def make() -> tuple[dict[str, NDArray[Any]], Any]:
    return {"values": np.arange(SIZE // 4, dtype=np.float32).reshape(-1, 1024)}, {"scale": 2}


def make_other() -> tuple[dict[str, NDArray[Any]], Any]:
    return {"values": np.zeros(3)}, "made anew"


def user(identity: str, make: Make = make, folder: Path | None = None) -> Callable[[Any], None]:
    """Has the copy, says what is beside the arrays, answers how much memory it has, until it hears ``None``."""

    def use(pipe: Any) -> None:
        arrays, rest = shared_copy.one_copy(identity, make, folder)
        total = float(arrays["values"].sum(dtype=np.float64))
        pipe.send((rest, total))
        while (question := pipe.recv()) is not None:
            pipe.send(memory_of(arrays["values"]) if question == "memory" else float(arrays["values"].sum()))

    return use


def memory_of(array: NDArray[Any]) -> dict[str, int]:
    """KiB of the mapping that the array lies in, as /proc says it."""
    address, sizes = array.ctypes.data, dict[str, int]()
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *words = line.split()
        if "-" in name:
            start, end = (int(side, 16) for side in name.split("-"))
            inside = start <= address < end
        elif inside and words[-1:] == ["kB"]:
            sizes[name.rstrip(":")] = int(words[0])
    return sizes


def copies(identity: str) -> bool:
    """Whether any process has the copy."""
    name = f"ptydask-{hashlib.sha256(identity.encode()).hexdigest()[:32]}"
    copy = shared_copy._find(f"/memfd:{name} (deleted)")
    if copy is not None:
        os.close(copy)
    return copy is not None


def test_two_processes_have_one_copy(identity: str, children: Any) -> None:
    """Each counts half of it, and the second one gets what is beside the arrays as well."""
    expected = ({"scale": 2}, float(make()[0]["values"].sum(dtype=np.float64)))
    first = children(user(identity))
    assert first.recv() == expected
    second = children(user(identity, make_other))
    assert second.recv() == expected
    for one in (first, second):
        one.send("memory")
        sizes = one.recv()
        assert sizes["Rss"] * 1024 >= SIZE
        assert abs(sizes["Pss"] * 1024 - SIZE / 2) < MIB
        assert sizes["Anonymous"] == 0


def test_a_copy_on_disk_is_as_one_in_memory(identity: str, children: Any, tmp_path: Path) -> None:
    """One file, which no folder has, even after a process was killed that had just created it."""
    left = tmp_path / f"ptydask-{hashlib.sha256(identity.encode()).hexdigest()[:32]}"
    left.write_bytes(b"stale")
    first, second = (children(user(identity, one, tmp_path)) for one in (make, make))
    expected = first.recv()
    assert second.recv() == expected
    first.process.kill()
    first.process.join()
    third = children(user(identity, make_other, tmp_path))
    assert third.recv() == expected
    third.send("memory")
    assert third.recv()["Anonymous"] == 0
    assert not list(tmp_path.iterdir())
    assert not copies(identity)  # in memory
    for one in (second, third):
        one.process.kill()
        one.process.join()
    arrays, rest = shared_copy.one_copy(identity, make_other, tmp_path)
    assert rest == "made anew"
    assert len(arrays["values"]) == 3


def test_the_last_one_frees_it_however_it_ends(identity: str, children: Any) -> None:
    """The process that made it may be killed: the copy is there for those who have it, and for those to come."""
    maker, second = children(user(identity)), children(user(identity))
    expected = maker.recv()
    assert second.recv() == expected
    maker.process.kill()
    maker.process.join()
    assert copies(identity)
    third = children(user(identity, make_other))
    assert third.recv() == expected
    for one in (second, third):
        one.process.kill()
        one.process.join()
    assert not copies(identity)
    assert children(user(identity, make_other)).recv()[0] == "made anew"


def test_it_is_freed_with_the_last_reference(identity: str) -> None:
    arrays, _ = shared_copy.one_copy(identity, make)
    part = arrays["values"][3:5]
    del arrays
    assert copies(identity)
    del part
    assert not copies(identity)


def test_a_maker_that_is_killed_blocks_nobody(identity: str, children: Any) -> None:
    """Neither while it makes the arrays nor while it copies them, which nobody takes for a whole copy."""

    def begin(pipe: Any) -> None:
        vars(shared_copy).update(_free_pages=stop)
        user(identity)(pipe)

    for stopped in (user(identity, stop), begin):
        maker = children(stopped)
        wait_until(lambda maker=maker: Path(f"/proc/{maker.process.pid}/stat").read_text().split()[2] == "T")
        waiting = children(user(identity, make_other))
        assert not copies(identity)
        assert not waiting.poll(0.2)
        maker.process.kill()
        maker.process.join()
        assert waiting.recv()[0] == "made anew"
        waiting.send(None)
        waiting.process.join()


def stop(*_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGSTOP)


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_those_who_come_together_make_it_once(identity: str, children: Any) -> None:
    def slowly() -> Any:
        time.sleep(0.3)
        return make()[0], os.getpid()

    users = [children(user(identity, slowly)) for _ in range(4)]
    assert len({one.recv() for one in users}) == 1


def test_one_that_fails_leaves_it_to_the_next(identity: str) -> None:
    def fail() -> Any:
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        shared_copy.one_copy(identity, fail)
    assert shared_copy.one_copy(identity, make_other)[1] == "made anew"


def test_nobody_writes_into_it(identity: str, children: Any) -> None:
    """Who writes into its arrays, in place, has a page of its own; and the file in memory takes no write at all."""
    arrays, _ = shared_copy.one_copy(identity, make)
    other = children(user(identity))
    before = other.recv()[1]
    arrays["values"][:] = -1
    other.send("sum")
    assert other.recv() == pytest.approx(before)
    name = own_copies()[0]
    for write in (lambda file: os.write(file, b"x"), lambda file: os.ftruncate(file, 5)):
        file = os.open(name, os.O_RDWR)
        with pytest.raises(PermissionError):
            write(file)
        os.close(file)


def link_of(file: Path) -> Path | None:
    try:
        return file.readlink()
    except OSError:
        return None


SHAPES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "as it is": lambda a: a,
    "upside down": lambda a: np.flip(a, 1),
    "mirrored": lambda a: np.flip(a, 2),
    "transposed": lambda a: np.transpose(a, (0, 2, 1)),
    "from the end": lambda a: a[::-1],
    "cropped": lambda a: a[:, 3:40, 5:60],
    "every other": lambda a: a[::2],
    "a part": lambda a: a[7:900],
    "the scan last": lambda a: np.transpose(a, (2, 0, 1)),
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "empty": lambda a: a[:0],
    "one": lambda a: a[:1],
    "small numbers": lambda a: a.astype(np.int8),
    "big-endian": lambda a: a.astype(">f8"),
    "of one axis": lambda a: a.reshape(-1),
    "Fortran's order": lambda a: np.asfortranarray(a),
}


@pytest.mark.parametrize("arrange", SHAPES.values(), ids=SHAPES)
def test_arrays_of_any_layout(identity: str, arrange: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_copy, "_SLAB", 100_000)
    whole = np.random.default_rng(1).integers(0, 99, (1000, 50, 64)).astype(np.float32)
    expected = np.array(arrange(whole))
    arrays, rest = shared_copy.one_copy(
        identity, lambda: ({"a": arrange(whole.copy()), "b": expected[:1].copy()}, None)
    )
    assert rest is None
    for name, values in (("a", expected), ("b", expected[:1])):
        assert (arrays[name].dtype, arrays[name].shape) == (values.dtype, values.shape)
        np.testing.assert_array_equal(arrays[name], values)
        assert arrays[name].flags.writeable  # PyTorch warns of others


def test_the_array_is_freed_while_it_is_copied(identity: str, children: Any) -> None:
    """At no time there are two."""

    def measure(pipe: Any) -> None:
        base = rss()
        peaks, move = [], shared_copy._write

        def watch(*arguments: Any) -> None:
            move(*arguments)
            peaks.append(rss() - base + written())

        def written() -> int:
            return sum(file.stat().st_blocks * 512 for file in own_copies())

        vars(shared_copy).update(_write=watch, _SLAB=MIB)
        shared_copy.one_copy(identity, make)
        pipe.send(max(peaks))

    assert children(measure).recv() < SIZE + 8 * MIB


def own_copies() -> list[Path]:
    return [file for file in Path("/proc/self/fd").iterdir() if "memfd:ptydask-" in str(link_of(file))]


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_memory_of_others_is_left_alone(identity: str) -> None:
    """What NumPy did not allocate may be read elsewhere: a buffer, a mapped file."""
    block = mmap.mmap(-1, SIZE)
    array = np.frombuffer(block, np.float32).reshape(-1, 1024)
    array[:] = 3
    arrays, _ = shared_copy.one_copy(identity, lambda: ({"values": array}, None))
    assert (arrays["values"] == 3).all()
    assert (array == 3).all()


def test_without_such_files_everyone_has_its_own(identity: str, children: Any) -> None:
    """A limit on the size of files, /proc hidden, no place for the lock."""

    def limited(pipe: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
        user(identity)(pipe)

    def nothing_is_ours(pipe: Any) -> None:
        vars(os)["geteuid"] = lambda: 12345
        user(identity)(pipe)

    expected = make()[0]["values"].sum(dtype=np.float64)
    first = children(limited)
    assert first.recv() == ({"scale": 2}, expected)
    assert not copies(identity)
    second = children(user(identity))
    second.recv()
    third = children(nothing_is_ours)
    assert third.recv() == ({"scale": 2}, expected)
    third.send("memory")
    assert third.recv()["Pss"] * 1024 >= SIZE
    Path("/dev/shm/ptydask-12345.lock").unlink()


def test_a_file_of_another_name_or_user_is_no_copy(identity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, _ = shared_copy.one_copy(identity, make)
    assert shared_copy.one_copy(f"{identity}2", make_other)[1] == "made anew"
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert not copies(identity)
    del arrays


def test_the_lock_is_taken_by_one_process_at_a_time(identity: str, children: Any) -> None:
    """It is an empty file, and copies of other names do not wait for it."""

    maker = children(user(identity, stop))
    wait_until(lambda: Path(f"/proc/{maker.process.pid}/stat").read_text().split()[2] == "T")
    assert shared_copy.one_copy(f"{identity}2", make_other)[1] == "made anew"
    lock = Path(f"/dev/shm/ptydask-{os.geteuid()}.lock")
    assert (lock.stat().st_size, lock.stat().st_mode & 0o777) == (0, 0o600)


def test_a_copy_may_be_larger_than_memory(tmp_path: Path) -> None:
    """The kernel refuses a mapping for which it would have to set more memory aside than there is."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    swap = int(Path("/proc/meminfo").read_text().partition("SwapTotal:")[2].split()[0]) * 1024
    offset = 2 * (total + swap)
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        os.ftruncate(file.fileno(), offset)
        table = pickle.dumps(([("a", np.dtype("f4"), (2**20,), 0)], "rest"))
        os.pwrite(file.fileno(), table + len(table).to_bytes(8, "little"), offset)
        arrays, rest = shared_copy._map(file.fileno())
    assert rest == "rest"
    arrays["a"][0] = 1
    assert arrays["a"].sum() == 1


def test_one_that_cannot_be_mapped_is_a_lack_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(shared_copy.mmap, "mmap", fail)
    with pytest.raises(MemoryError):
        shared_copy._map(0)
