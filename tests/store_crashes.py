"""Child processes for tests/test_store_crash.py: they write results until somebody, or they themselves, end them.

python store_crashes.py write FOLDER        trials for ever: record, refresh, pack, go on
python store_crashes.py hold FILE           take the store and wait
python store_crashes.py kills FOLDER        those that write are killed at random moments, one after the other
python store_crashes.py every FOLDER        die before each single step towards the disk, one after the other
python store_crashes.py limit FOLDER BYTES  write one trial where no file may grow past BYTES
"""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from store_cases import meta, output, phase, put, record

from ptydask.model import KeepOptions, Quantity, TrialOutput
from ptydask.store import Store, checks, files, isolated, names, packed_study, reader, shard

SMALL = {"snapshots": {}, "log": ""}


def write(folder: Path) -> None:
    """Record trial after trial; pack now and then and go on; say each number once it is recorded."""
    path = folder / "results.h5"
    chance = random.Random(os.getpid())
    print("ready", flush=True)
    while True:
        store = Store.open(path, meta())
        for _ in range(chance.randint(1, 4)):
            number = max(store.records, default=-1) + 1
            put(store, record(number), output(number, **SMALL))
            print(number, flush=True)
            store.refresh(force=chance.random() < 0.7)
        if chance.random() < 0.5:
            store.finish()
        else:
            store.close()


def hold(path: Path) -> None:
    """Take the store, say so, and keep it."""
    store = Store.open(path, meta())
    print(store.path, flush=True)
    time.sleep(600)


def check(path: Path, recorded: set[int]) -> None:
    """Every recorded trial is there for a reader at once, and for the next driver, arrays and all."""
    for look in ("reader", "packed"):
        if look != "reader":
            store = Store.open(path, meta())
            assert recorded <= store.records.keys(), (look, recorded, sorted(store.records))
            assert store.damaged == (), store.damaged
            store.finish()
        if not path.exists():
            assert look != "packed"
            assert not recorded
            continue
        with reader.open(path) as results:
            found = {r.number: r for r in results.records()}
            assert recorded <= found.keys(), (look, recorded, sorted(found))
            for number in recorded:
                assert found[number] == record(number)
                np.testing.assert_array_equal(results.trial(number).arrays["object_phase"].read(), phase(number))
    assert [p.name for p in path.parent.iterdir()] == [path.name], list(path.parent.iterdir())


# --- any moment ---------------------------------------------------------------------------------------


def kills(folder: Path) -> None:
    """SIGKILL to ten forked processes that write, every other one after a trial; nothing recorded is missing."""
    chance, recorded = random.Random(20250101), set[int]()
    for turn in range(10):
        inlet, outlet = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(outlet, sys.stdout.fileno())
            isolated.run = asked_here
            write(folder)
        os.close(outlet)
        with open(inlet) as said:  # noqa: PTH123
            assert said.readline() == "ready\n"
            lines = [said.readline()] if turn % 2 else []
            time.sleep(chance.uniform(0.0, 0.6))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            recorded |= {int(line) for line in [*lines, *said] if line.endswith("\n")}
        check(folder / "results.h5", recorded)
    print(f"{len(recorded)} trials", flush=True)


# --- every step ---------------------------------------------------------------------------------------


class Steps:
    """Counts the steps that change the disk, and ends the process before step ``last``."""

    def __init__(self, last: int) -> None:
        self.left = last

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                os._exit(9)
            return function(*args, **kwargs)

        return step

    def install(self) -> None:
        """Stand between the store and the operating system."""
        files.AsideFile.put = self(files.AsideFile.put)  # type: ignore[method-assign]
        for name in ("replace", "rename", "unlink", "mkdir"):
            setattr(Path, name, self(getattr(Path, name)))
        for name in ("link", "unlink", "rmdir", "fsync", "ftruncate"):
            setattr(os, name, self(getattr(os, name)))


def tiny(number: int) -> TrialOutput:
    """A trial in few writes."""
    arrays = {"object_phase": Quantity(phase(number))}
    return output(number, arrays=arrays, image=None, attributes={}, curve={}, **SMALL)


def story(path: Path, outlet: int) -> None:
    """A finished study of two trials gets a third: its file, an index, and all of it packed.

    The number goes into the pipe ``outlet`` once it is recorded.
    """
    store = Store.open(path, meta())
    put(store, record(2), tiny(2))
    os.write(outlet, bytes([2]))
    store.refresh(force=True)
    store.finish()


def asked_here(_child: isolated.ChildReader, **question: Any) -> isolated.Answer:
    """Takes the place of ChildReader.ask where hundreds of packs are made of sound files: a process takes its time."""
    return checks.check(**question)


def every(folder: Path) -> None:
    """Die before step 0, 1, 2 ... of the story, with packs made in memory and on the disk."""
    steps = []
    for packed_study._IN_MEMORY in (1 << 28, -1):
        (folder / str(len(steps))).mkdir()
        steps.append(die_before_every_step(folder / str(len(steps))))
    print(f"{min(steps)} {max(steps)} steps", flush=True)


def die_before_every_step(folder: Path) -> int:
    """Returns how many there are; after each death nothing that was recorded is missing."""
    os.fsync = lambda _: None  # nobody pulls the plug here, and it is slow
    isolated.ChildReader.ask = asked_here  # type: ignore[method-assign]
    base = folder / "base" / "results.h5"
    store = Store.open(base, meta())
    for number in (0, 1):
        put(store, record(number), tiny(number))
    store.finish()
    for last in range(1_000_000):
        path = folder / "run" / "results.h5"
        path.parent.mkdir()
        shutil.copy(base, path)
        inlet, outlet = os.pipe()
        child = os.fork()
        if child == 0:
            Steps(last).install()
            story(path, outlet)
            os._exit(0)
        os.close(outlet)
        said = set(os.read(inlet, 100))
        os.close(inlet)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9), status
        check(path, {0, 1} | said)
        shutil.rmtree(path.parent)
        if status == 0:
            return last
    raise AssertionError


def install_steps(last: int) -> None:
    """End this process before its step ``last``; nobody reads what is written aside, so that is one step."""
    steps = Steps(last)
    files.AsideFile.sync = steps(files.AsideFile.sync)  # type: ignore[method-assign]
    for name in ("replace", "rename", "unlink", "mkdir"):
        setattr(Path, name, steps(getattr(Path, name)))
    for name in ("link", "unlink", "rmdir", "ftruncate"):
        setattr(os, name, steps(getattr(os, name)))


def deaths(path: Path, story: Callable[[], None], look: Callable[[], None]) -> int:
    """End a forked process before its step 0, 1, 2 ... towards the disk; ``look`` after each death."""
    before = path.parent.with_name("before")
    shutil.copytree(path.parent, before)
    for last in range(100_000):
        child = os.fork()
        if child == 0:
            install_steps(last)
            story()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9), status
        look()
        shutil.rmtree(path.parent)
        shutil.copytree(before, path.parent)
        if status == 0:
            return last
    raise AssertionError


def limit(folder: Path, size: int) -> None:
    """Write a trial of a megabyte where no file may be larger than ``size`` bytes."""
    arrays = {"object_phase": Quantity(np.random.default_rng(0).normal(size=(1, 1, 512, 256)))}
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    written = shard.write(
        folder, record(7), output(7, arrays=arrays, **SMALL), KeepOptions(), direction="minimize", metric="loss"
    )
    assert names.shard_path(folder, 7).stat().st_size <= size, errno.EFBIG
    print(written.lost, flush=True)


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    {"write": write, "hold": hold, "kills": kills, "every": every, "limit": limit}[what](Path(where), *map(int, rest))
