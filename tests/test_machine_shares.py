"""How a machine's cores and memory are shared out, and what of them there is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_sweep_driver import plan_with

from ptydask import machine
from ptydask.clusters import StudyDemand, local
from ptydask.clusters.local import describe_workers, share_out_cores, worker_environments
from ptydask.clusters.settings import threads_asked_for
from ptydask.config import Overrides
from ptydask.driver.prepare import RunRequest, prepare_plan
from ptydask.engines.ptyrad.footprint import estimate_worker_memory
from ptydask.model import Budget, WorkerMemory

GB = 10**9
SMALL = WorkerMemory(own=0.5 * GB, shared=0.01 * GB)
LARGE = WorkerMemory(own=2 * GB, shared=4 * GB)


def version_2(quota: str) -> dict[str, str]:
    """A group's files."""
    return {"cpu.max": quota, "cpu.cfs_quota_us": "", "cpu.cfs_period_us": ""}


def version_1(quota: str, period: str = "100000\n") -> dict[str, str]:
    """A group's files."""
    return {"cpu.max": "", "cpu.cfs_quota_us": quota, "cpu.cfs_period_us": period}


@pytest.mark.parametrize(
    ("groups", "cores"),
    [
        ([], 16),
        ([version_2("max 100000\n"), version_1("-1\n"), version_2("")], 16),
        ([version_2("400000 100000\n")], 4),
        ([version_2("150000 100000\n")], 2),
        ([version_2("5000 100000\n")], 1),
        ([version_2("800000 100000\n"), version_2("300000 100000\n"), version_2("max 100000\n")], 3),
        ([version_1("200000\n")], 2),
        ([version_1("25000\n", "10000\n")], 3),
        ([version_2("6400000 100000\n")], 16),
        ([version_2("what\n"), version_1("100000\n", "0\n")], 16),
    ],
)
def test_quotas_of_cgroups_limit_the_cores(groups: list[dict[str, str]], cores: int) -> None:
    """The least of all groups, a part of a core counts as one; without a limit the affinity mask's."""
    assert machine.count_cores(16, groups) == cores


MEMINFO = "MemTotal:       32000000 kB\nMemFree:         1000000 kB\nMemAvailable:   20000000 kB\n"


@pytest.mark.parametrize(
    ("meminfo", "groups", "left"),
    [
        (MEMINFO, [], 20_480_000_000),
        ("", [], math.inf),
        (MEMINFO, [{"memory.max": "max\n", "memory.current": "5\n"}], 20_480_000_000),
        (MEMINFO, [{"memory.max": "8000000000\n", "memory.current": "3000000000\n"}], 5 * GB),
        (
            MEMINFO,
            [
                {
                    "memory.max": "8000000000",
                    "memory.current": "3000000000",
                    "memory.stat": "active_file 5\ninactive_file 1000000000\n",
                }
            ],
            6 * GB,
        ),
        (
            MEMINFO,
            [{"memory.limit_in_bytes": "4000000000\n", "memory.usage_in_bytes": "1000000000\n", "memory.max": ""}],
            3 * GB,
        ),
        (MEMINFO, [{"memory.limit_in_bytes": "1000\n", "memory.usage_in_bytes": "2000\n"}], 0),
    ],
)
def test_limits_of_cgroups_limit_the_memory(meminfo: str, groups: list[dict[str, str]], left: float) -> None:
    """What the machine, and each group, has left; files that are cached make room."""
    assert machine.count_memory(meminfo, groups) == left


@pytest.mark.parametrize(
    ("membership", "controller", "folder"),
    [
        ("0::/system.slice/job_7/step\n", "cpu", "system.slice/job_7"),
        ("0::/\n", "memory", "."),
        ("4:memory:/slurm/uid_1\n2:cpu,cpuacct:/slurm\n0::/\n", "memory", "memory/slurm/uid_1"),
        ("4:memory:/slurm/uid_1\n2:cpu,cpuacct:/slurm\n", "cpu", "cpu,cpuacct/slurm"),
        ("4:cpu:/docker/1f0c\n", "cpu", "cpu"),
        ("9:cpuset:/\n0::/job\n", "cpu", "unified/job"),
    ],
)
def test_groups_are_found_in_every_layout(membership: str, controller: str, folder: str) -> None:
    """Both versions, side by side too; the groups above, and the mount itself as a container sees it."""
    assert Path(folder) in map(Path, machine.group_folders(membership, controller))


def test_groups_of_other_controllers_do_not_count() -> None:
    """A limit of something else, cpusets for instance, is no quota."""
    assert not list(machine.group_folders("9:cpuset:/a\n1:name=systemd:/b\n", "cpu"))


def test_files_of_the_groups_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quota and limit of a group above this process's own one hold, too."""
    (tmp_path / "slice" / "job").mkdir(parents=True)
    (tmp_path / "slice" / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "slice" / "memory.max").write_text("3000\n")
    (tmp_path / "slice" / "memory.current").write_text("1000\n")
    (tmp_path / "membership").write_text("0::/slice/job\n")
    monkeypatch.setattr(machine, "_ROOT", tmp_path)
    monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "membership")
    assert machine.usable_cores() == 1
    assert machine.free_memory() == 2000


@pytest.mark.parametrize(
    ("cores", "free", "trials", "learns", "memory", "workers"),
    [
        (2, 20 * GB, 30, True, SMALL, 2),
        (8, 20 * GB, 30, True, SMALL, 7),
        (64, 500 * GB, 30, True, SMALL, 7),
        (64, 500 * GB, 30, False, SMALL, 30),
        (64, 500 * GB, 1000, True, SMALL, 64),
        (64, math.inf, 1000, True, SMALL, 64),
        (64, 20 * GB, 1000, True, LARGE, 6),
        (64, 4 * GB, 1000, True, LARGE, 1),
        (4, 20 * GB, 1, True, SMALL, 1),
        (4, 20 * GB, 3, False, SMALL, 3),
        (1, 20 * GB, 100, True, SMALL, 1),
        (64, 500 * GB, 1000, False, None, 1),
    ],
)
def test_workers_that_nobody_counted(
    cores: int, free: float, trials: int, learns: bool, memory: WorkerMemory | None, workers: int
) -> None:
    """One for each core, as far as trials and memory go round; one for a program, which may want the machine."""
    chosen = share_out_cores(cores, None, free, StudyDemand(trials, learns, memory))
    assert chosen.workers == workers
    assert bool(chosen.why) == (memory is not None)


def test_the_reason_is_what_limits() -> None:
    """Said in the plan."""
    demand = StudyDemand(100, True, SMALL)
    assert share_out_cores(8, None, 100 * GB, demand).why == "one for each core"
    assert "2 cores" in share_out_cores(8, 2, 100 * GB, demand).why
    assert "trials" in share_out_cores(64, None, 100 * GB, demand).why
    assert "memory" in share_out_cores(8, None, 2 * GB, demand).why


@pytest.mark.parametrize(
    ("cores", "asked", "trials", "workers"), [(2, 1, 3, 1), (2, 2, 3, 1), (8, 2, 9, 2), (64, 1, 30, 7), (8, 16, 9, 1)]
)
def test_trials_learn_of_each_other_also_where_threads_are_given(
    cores: int, asked: int, trials: int, workers: int
) -> None:
    """Cores may idle: trials that begin together learn nothing."""
    assert share_out_cores(cores, asked, 100 * GB, StudyDemand(trials, True, SMALL)).workers == workers


@pytest.mark.parametrize(("cores", "workers", "threads"), [(8, 2, "4"), (2, 2, "1"), (2, 5, "1"), (16, 3, "5")])
def test_cores_are_shared(cores: int, workers: int, threads: str) -> None:
    """Equal parts, rounded down, at least one; but as many threads as were asked for."""
    assert {env["OMP_NUM_THREADS"] for env in worker_environments(workers, [], cores)} == {threads}
    assert {env["MKL_NUM_THREADS"] for env in worker_environments(workers, [], cores, threads=3)} == {"3"}


@pytest.mark.parametrize(
    ("value", "threads"), [("4", 4), (" 2 ", 2), ("4,2", 4), ("", None), ("0", None), ("-1", None), ("all", None)]
)
def test_threads_are_those_that_were_asked_for(value: str, threads: int | None) -> None:
    """OpenMP's own spelling; what OpenMP would ignore is ignored."""
    assert threads_asked_for({"OMP_NUM_THREADS": value}) == threads
    assert threads_asked_for({}) is None


@pytest.mark.parametrize(
    ("workers", "gpus", "cores", "asked", "share"),
    [
        (2, [], 2, None, "2 workers on this machine, 1 core each"),
        (1, [], 4, None, "1 worker on this machine, 4 cores"),
        (1, [], 1, None, "1 worker on this machine, 1 core"),
        (2, ["0", "1"], 8, None, "2 workers on this machine, GPU 0, 1"),
        (2, [], 8, 1, "2 workers on this machine, 1 thread each by OMP_NUM_THREADS"),
        (1, [], 2, 2, "1 worker on this machine, 2 threads by OMP_NUM_THREADS"),
        (2, ["0"], 8, 1, "2 workers on this machine, GPU 0, 1 thread each by OMP_NUM_THREADS"),
    ],
)
def test_description_says_what_workers_have(
    workers: int, gpus: list[str], cores: int, asked: int | None, share: str
) -> None:
    """One line for the plan; a number of threads that the user set is named as his, whatever the cores."""
    assert describe_workers(worker_environments(workers, gpus, cores, asked), asked) == share


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, and with memory."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(local, "visible_gpus", lambda: ())
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    monkeypatch.setattr(machine, "free_memory", lambda: 100.0 * GB)


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("asked", "memory", "workers", "trials"),
    [
        ({}, SMALL, 8, 40),
        ({}, None, 1, 40),
        ({"workers": 2}, SMALL, 2, 80),
        ({"workers": 1}, SMALL, 1, 40),
        ({"adapt": (0, 3)}, SMALL, 3, 120),
    ],
)
def test_workers_that_nobody_asked_for_share_the_trials(
    asked: dict[str, Any], memory: WorkerMemory | None, workers: int, trials: int
) -> None:
    """``n_trials`` counts for each worker that somebody asked for: a machine with more cores runs no more trials."""
    plan = replace(plan_with(Budget(40)), worker_memory=memory)
    prepared = prepare_plan(plan, RunRequest(Path("sweep.yaml"), Overrides(), cluster="local", **asked))
    assert (prepared.cluster_request.workers, prepared.options.total) == (workers, trials)
    assert ("one for each core" in prepared.why_there) == (workers == 8)


@pytest.mark.usefixtures("eight_cores")
def test_threads_that_were_asked_for_leave_fewer_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as go round; the number is each worker's own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    plan = replace(plan_with(Budget(40, total=True)), worker_memory=SMALL)
    prepared = prepare_plan(plan, RunRequest(Path("sweep.yaml"), Overrides(), cluster="local"))
    assert (
        prepared.place.describe(prepared.cluster_request)
        == "2 workers on this machine, 4 threads each by OMP_NUM_THREADS"
    )


@pytest.mark.usefixtures("eight_cores")
def test_a_gpu_has_one_worker_with_trials_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before: its cores do not count."""
    monkeypatch.setattr(local, "visible_gpus", lambda: ("0", "1"))
    plan = replace(plan_with(Budget(40)), worker_memory=SMALL)
    prepared = prepare_plan(plan, RunRequest(Path("sweep.yaml"), Overrides(), cluster="local"))
    assert (prepared.cluster_request.workers, prepared.options.total) == (2, 80)


def worker_memory(init: Mapping[str, Any], scan: int, batch: int, scanned: int | None = None) -> WorkerMemory:
    """What is counted for a scan of so many points a side, cropped from ``scanned``."""
    points = dict.fromkeys(("pos_N_scan_slow", "pos_N_scan_fast"), scanned or scan)
    config = {"init_params": {**points, **init}, "recon_params": {"BATCH_SIZE": {"size": batch}}}
    return estimate_worker_memory(config, (scan, scan))


@pytest.mark.parametrize(
    ("pixels", "scan", "init", "measured"),
    [(48, 24, {}, 0.46e9), (128, 64, {}, 0.96e9)],
)
def test_the_memory_of_a_worker_is_that_of_real_ones(
    pixels: int, scan: int, init: dict[str, Any], measured: float
) -> None:
    """Never less than what a worker that was alone took, and not several times as much."""
    size = {"meas_Npix": pixels, "meas_calibration": {"mode": "dx", "value": 20.16 / pixels}, "pos_scan_step_size": 0.9}
    needed = worker_memory({**size, **init}, scan, 32)
    assert measured < needed.own + needed.shared < 1.5 * measured


@pytest.mark.parametrize(("scan", "size"), [(60, 56.25), (72, 81.0)])
def test_patterns_of_one_copy_are_counted_once(scan: int, size: float) -> None:
    """From 64 MiB on; a worker beside one that has read them took 0.50e9 then, one with its own 0.56e9."""
    init = {"meas_Npix": 64, "meas_calibration": {"mode": "dx", "value": 0.2}, "pos_scan_step_size": 0.4}
    needed = worker_memory(init, scan, 16)
    assert (needed.shared == 0) == (size < 64)
    assert needed.shared in (0, 2.5 * size * 2**20)
    own = 0.56e9 if size < 64 else 0.50e9
    assert own < needed.own < 1.5 * own


def test_patterns_cropped_from_a_large_scan_are_one_copy() -> None:
    """As a worker that loads them decides: what it takes to read them is not in the scan that is left."""
    init = {"meas_Npix": 64, "meas_calibration": {"mode": "dx", "value": 0.2}, "pos_scan_step_size": 0.4}
    whole, cropped = worker_memory(init, 40, 16), worker_memory(init, 40, 16, scanned=72)
    assert (whole.shared, cropped.shared) == (0, 2.5 * 4 * 40**2 * 64**2)
    assert whole.own == cropped.own + cropped.shared


def test_what_a_batch_takes_is_each_workers_own() -> None:
    """A worker beside one that had read 256 MiB of patterns took 0.70e9, and not a copy of them."""
    size = {"meas_Npix": 128, "meas_calibration": {"mode": "dx", "value": 0.1575}, "pos_scan_step_size": 0.9}
    assert 0.70e9 < worker_memory(size, 64, 32).own < 0.9e9


def test_a_file_that_tells_little_has_an_estimate() -> None:
    """An object of unknown size or slices is no reason for one slow worker."""
    init = {"meas_Npix": 64, "meas_calibration": {"mode": "fitRBF"}, "obj_Nlayer": 3, "obj_z_pad": {"pad_layers": [1]}}
    assert 0.5e9 < worker_memory(init, 16, 32).own < 2e9
