"""A worker that goes from study to study has the memory of the one it is in; see also benchmarks/queue_memory.py."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import forked
import numpy as np
import psutil
import pytest
from engine_cases import NEVER, go_on, params, plan, trial, write_patterns

from ptydask.engines.ptyrad import loading_place, release
from ptydask.errors import DataError
from ptydask.model import HeldOut, StudyPlan
from ptydask.storage import urls
from ptydask.worker import process

pytestmark = [pytest.mark.ptyrad, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

SCAN = 128
"""Positions along a side of the large scan: 64 MiB of patterns, of which a trial reads 64."""
BYTES = SCAN**2 * 32**2 * 4
LARGE: Mapping[str, Any] = {
    "init_params.pos_N_scans": SCAN**2,
    "init_params.pos_N_scan_slow": SCAN,
    "init_params.pos_N_scan_fast": SCAN,
    "recon_params.INDICES_MODE": {"mode": "sub", "subscan_slow": 8, "subscan_fast": 8},
    "recon_params.NITER": 1,
}

Open = Callable[[StudyPlan], process.OpenSession]


def uss() -> int:
    """Bytes that the machine would get back if this process ended."""
    gc.collect()
    return int(psutil.Process().memory_full_info().uss)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> StudyPlan:
    release.installed()
    return plan(params(write_patterns(tmp_path_factory.mktemp("small"))), name="small")


@pytest.fixture(scope="module")
def large_data(small: StudyPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    patterns = np.load(small.config["init_params"]["meas_params"]["path"])
    path = tmp_path_factory.mktemp("large") / "large.npy"
    np.save(path, np.tile(patterns, (SCAN**2 // len(patterns), 1, 1)))
    return path


@pytest.fixture
def open_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Open]:
    """What a worker does when it comes to a study. Its patterns are its own: see test_shared_patterns.py.

    What tests before this one have freed is given back first: it would be by the first study that gives way to another.
    """
    process._return_freed_memory()
    monkeypatch.setattr(process, "_open", None)
    monkeypatch.setattr(loading_place, "SHARED_FROM", 2**62)

    def come_to(study: StudyPlan) -> process.OpenSession:
        setup = process.RunSetup(study, urls.StorageSpec(""), study.name, tmp_path, study.name, 120.0, 1)
        return process._open_for(setup)

    yield come_to
    if process._open is not None:
        process._open.session.close()


def fail(*_: object) -> bool:
    raise MemoryError("out of memory, says the test")


def test_the_former_patterns_are_given_back(small: StudyPlan, large_data: Path, open_for: Open) -> None:
    """However its last trial ended; and again, where the worker goes back to an earlier study."""
    large = plan(params(large_data, LARGE), name="large")
    open_for(small).session.run(trial(), go_on, NEVER)
    before = uss()
    for report in (go_on, fail):
        session: Any = open_for(large).session
        patterns = weakref.ref(session._measurements.resident)
        with pytest.raises(MemoryError) if report is fail else nullcontext():
            session.run(trial(), report, NEVER)
        assert uss() - before > 0.9 * BYTES
        del session
        open_for(small)
        assert patterns() is None
        assert uss() - before < 0.3 * BYTES


def test_what_is_held_out_is_given_back(small: StudyPlan, large_data: Path, open_for: Open) -> None:
    """Electrons that are held out are as many numbers again."""
    held_out = HeldOut("counts", 0.1)
    large = plan(params(large_data, LARGE), name="large", held_out=held_out)
    open_for(small)
    before = uss()
    open_for(large)
    assert uss() - before > 1.5 * BYTES
    open_for(small)
    assert uss() - before < 0.3 * BYTES


def test_patterns_that_cannot_be_used_do_not_stay(small: StudyPlan, large_data: Path, open_for: Open) -> None:
    """Although the error, which Dask keeps for the driver, knows where it was raised."""
    broken = large_data.with_name("broken.npy")
    patterns = np.load(large_data)
    patterns[-1, 3, 3] = np.nan
    np.save(broken, patterns)
    del patterns
    open_for(small)
    before = uss()
    with pytest.raises(DataError, match="finite") as caught:
        open_for(plan(params(broken, LARGE), name="broken"))
    assert uss() - before < 0.3 * BYTES
    assert caught.value.key == "init_params.meas_params.path"


def test_many_trials_need_no_more_than_a_few(small: StudyPlan, open_for: Open) -> None:
    """Nothing is added up from trial to trial, ended well or badly."""
    session = open_for(small).session
    after = list[int]()
    for number in range(50):
        if number % 5 == 4:
            with pytest.raises(MemoryError):
                session.run(trial({"rotation": number / 10}, number), fail, NEVER)
        else:
            session.run(trial({"rotation": number / 10}, number), go_on, NEVER)
        after.append(uss())
    assert after[-1] - after[9] < 8 * 2**20


HEAP = """
import ctypes
import numpy, psutil
from ptydask.worker import process
for option, value in ((-1, 2**30), (-3, 2**25)):  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, as workers have them
    ctypes.CDLL(None).mallopt(option, value)
uss = lambda: psutil.Process().memory_full_info().uss
arrays = [numpy.ones(2**17) for _ in range(200)]
del arrays
kept = uss()
process._return_freed_memory()
print((kept - uss()) // 2**20)
"""


def test_what_the_allocator_keeps_is_given_back(commands: forked.Commands, tmp_path: Path) -> None:
    """Workers keep what trials free, for the next trial: not for the next study."""
    done = commands.run([], tmp_path, code=HEAP)
    assert done.returncode == 0, done.stderr
    assert (
        int(done.stdout) > 40
    )  # MiB: how much lies in one piece differs from process to process, and none goes by itself
