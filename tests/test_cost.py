"""What a run will cost: hours by earlier trials, bytes by the params file; and what is said of it."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptydask import demo, formatting, running
from ptydask.config import Overrides
from ptydask.driver import prepare
from ptydask.driver.cost import RunCost, estimate_cost, find_shortage
from ptydask.driver.prepare import RunRequest
from ptydask.engines.ptyrad.footprint import estimate_trial_bytes
from ptydask.model import KeepOptions, TrialRecord, TrialState
from ptydask.progress import frame, plan_text
from ptydask.run_snapshot import RunSnapshot

HOUR = 3600.0
KEEP = KeepOptions()


def trial(number: int, seconds: float = 600.0, steps: int = 20, **changes: Any) -> TrialRecord:
    """One that ran to its end."""
    given: dict[str, Any] = {"state": TrialState.COMPLETE, "error": 0.1, "params": {}, "last_step": steps} | changes
    return TrialRecord(number, seconds=seconds, **given)


def cost(left: int, records: list[TrialRecord], **changes: Any) -> RunCost:
    """By trials of 20 iterations."""
    return estimate_cost(left, records, **{"iterations": 20, "trial_bytes": 1e6, "stored": 0} | changes)


# --- hours -------------------------------------------------------------------------------------------


def test_hours_are_by_completed_trials() -> None:
    """Their median; nothing is said before there is one."""
    assert cost(12, [trial(0), trial(1, 300.0), trial(2, 9000.0)]).seconds == 12 * 600
    assert cost(12, []).seconds is None
    assert cost(12, [trial(0, state=TrialState.FAIL), trial(1, state=TrialState.PRUNED)]).seconds is None
    assert cost(0, [trial(0)]).seconds == 0


def test_hours_are_scaled_by_iterations() -> None:
    """Trials of another length count by the iteration, pruned ones as what they save; without steps as they are."""
    assert cost(10, [trial(0, 600.0, 10)]).seconds == pytest.approx(10 * 1200)
    pruned = [trial(n, 150.0, 5, state=TrialState.PRUNED) for n in range(1, 4)]
    assert cost(10, [trial(0), *pruned]).seconds == pytest.approx(10 * 600 * 35 / 80)
    assert cost(10, [trial(0, last_step=None)], iterations=None).seconds == 6000
    assert cost(10, [trial(0, last_step=None)]).seconds == 6000


def test_trials_that_share_a_gpu_share_its_hours() -> None:
    """On a CPU each worker counts."""
    on_gpu = [trial(n, device="cuda:0") for n in range(3)]
    shared = cost(12, on_gpu, workers_per_gpu=3)
    assert (shared.seconds, shared.on_gpus) == (12 * 600 / 3, True)
    assert cost(12, [trial(0)], workers_per_gpu=3).seconds == 12 * 600


# --- bytes -------------------------------------------------------------------------------------------


def test_earlier_trials_say_how_large_they_are() -> None:
    """Better than any estimate."""
    assert cost(10, [trial(0), trial(1)], stored=4000).size == 20_000
    assert cost(10, []).size == 10e6
    assert cost(10, [], trial_bytes=None).size is None


def test_results_are_there_twice_while_they_are_packed() -> None:
    """So much has to be free."""
    assert find_shortage(RunCost(None, 0, False, 10e9), 19e9) == 20e9
    assert find_shortage(RunCost(None, 0, False, 10e9), 21e9) is None
    assert find_shortage(RunCost(None, 0, False, None), 0) is None


CONFIG: dict[str, Any] = {
    "init_params": {
        "probe_kv": 80,
        "meas_Npix": 48,
        "meas_calibration": {"mode": "dx", "value": 0.42},
        "pos_scan_step_size": 0.9,
        "pos_scan_affine": [1.04, 0.0, -1.5, 0.0],
        "obj_Nlayer": 1,
        "probe_pmode_max": 1,
        "obj_omode_max": 1,
    }
}


def size(keep: KeepOptions = KEEP, iterations: int = 12, **init: Any) -> float | None:
    """Of the demo's trials, with other keys of ``init_params``."""
    config = {"init_params": {**CONFIG["init_params"], **init}, "recon_params": {"NITER": iterations}}
    return estimate_trial_bytes(config, keep, (24, 24))


THICK = {"obj_Nlayer": 12, "probe_pmode_max": 4}


@pytest.mark.parametrize(
    ("init", "keep", "iterations", "measured"),
    [
        ({}, KEEP, 12, 150_258),
        ({}, KeepOptions(snapshot_every=2), 6, 474_542),
        (THICK, KEEP, 3, 1_032_108),
        (THICK, KeepOptions(snapshot_every=1), 2, 2_906_345),
    ],
)
def test_sizes_are_those_of_real_files(
    init: dict[str, Any], keep: KeepOptions, iterations: int, measured: float
) -> None:
    """Bytes a trial of files that PtyRAD's trials left: the demo, 12 slices with 4 probe modes, both with snapshots."""
    assert size(keep, iterations, **init) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    "init",
    [
        {"meas_calibration": {"mode": "fitRBF"}},
        {"pos_source": "PtyRAD"},
        {"obj_source": "PtyRAD"},
        {"obj_z_pad": {"pad_layers": 2}},
        {"pos_scan_step_size": None},
    ],
)
def test_what_the_file_does_not_say_is_not_said(init: dict[str, Any]) -> None:
    """Numbers and curves alone have a size all the same."""
    assert size(**init) is None
    assert size(KeepOptions(arrays=False), **init) == pytest.approx(45e3, rel=0.1)


def test_what_is_done_to_patterns_counts() -> None:
    """Cropped patterns have larger pixels and fewer of them, padded ones smaller; an object may be cropped in depth."""
    whole, crop = size(), [None, None, [12, 36], [12, 36]]
    assert whole is not None
    cropped = size(meas_crop=crop)
    assert cropped is not None
    assert cropped < 0.6 * whole
    padded = size(meas_pad={"mode": "on_the_fly", "target_Npix": 96})
    assert padded is not None
    assert padded > 3 * whole * 0.7
    assert size(obj_Nlayer=4, obj_z_crop=[0, 1]) == whole


# --- words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "gpus", "text"),
    [
        (14.4 * HOUR, True, "14 GPU hours"),
        (1.04 * HOUR, False, "1 worker hour"),
        (2.46 * HOUR, False, "2.5 worker hours"),
        (1234 * HOUR, True, "1234 GPU hours"),
        (1800, False, "30 worker minutes"),
        (42, False, "1 worker minute"),
    ],
)
def test_work_is_said_in_two_digits(seconds: float, gpus: bool, text: str) -> None:
    """Nobody knows more."""
    assert formatting.work_text(seconds, gpus) == text


def test_the_plan_has_a_line_for_it() -> None:
    """What is known, and when the rest will be; none where nothing is."""
    assert plan_text.cost_line(RunCost(50_400, 30, True, 3.1e9)) == (
        "cost      about 14 GPU hours by 30 completed trials, about 3.1 GB of results"
    )
    line = plan_text.cost_line(RunCost(None, 0, False, 3.1e9))
    assert line is not None
    assert "3.1 GB" in line
    assert "first trials" in line
    assert plan_text.cost_line(RunCost(None, 0, False, None)) is None


def test_the_live_view_says_what_it_comes_to() -> None:
    """From half an hour on, "GPU" on GPUs; in the log's lines as well."""
    counts = {"complete": 3, "running": 0}
    shown = RunSnapshot("s", Path("s.h5"), 40, counts, None, (), 8, 700.0, 6000.0, 20, "loss", "minimize")
    for work, gpus, said in ((50_000, True, "about 14 GPU hours"), (2400, False, "about 40 worker minutes")):
        now = replace(shown, work=work, on_gpus=gpus)
        assert f"{said} at this pace" in frame.heartbeat_line(now)
        lines = " ".join(frame.text_of(line) for line in frame.render_frame(now, 80, 20, frame.ASCII))
        assert said in lines
    assert "pace" not in frame.heartbeat_line(replace(shown, work=60.0)) + frame.heartbeat_line(shown)


class Said:
    """A view that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def plan(self, lines: list[str]) -> None:
        self.lines += lines

    def notice(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.ptyrad
def test_a_run_says_it_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size by the file; a disk that is too small is noticed."""
    params = demo.write(tmp_path / "d")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    said = Said()
    prepared = running.announce(RunRequest(params, Overrides(n_trials=60), cluster="local", workers=1), said)  # type: ignore[arg-type]
    assert prepared.cost.size == pytest.approx(60 * 150e3, rel=0.2)
    assert any(line.startswith("cost ") and "MB of results" in line for line in said.lines)
    assert any("1 MB free" in line for line in said.lines)


def test_a_run_that_goes_on_knows_its_hours(toy_params: Callable[..., Path], ptydask: Callable[..., Any]) -> None:
    """By what its own file has; nothing where nothing is left."""
    path = toy_params(n_trials=3)
    assert ptydask("run", path, "--engine", "toy", "--workers", 1).returncode == 0
    said = ptydask("run", path, "--engine", "toy", "--trials", 5, "--dry-run").stderr
    assert "by 3 completed trials" in said
    assert "cost" not in ptydask("run", path, "--engine", "toy", "--dry-run").stderr


def test_a_folder_that_is_not_there_yet_has_a_disk(tmp_path: Path) -> None:
    """That of the folder above; and trials in files of their own count."""
    assert 0 < prepare._free_bytes(tmp_path / "a" / "b" / "s.h5") < float("inf")
    (tmp_path / "s.trials").mkdir()
    for name in ("s.h5", "s.trials/000000.h5", "s.trials/000001.h5"):
        (tmp_path / name).write_bytes(b"x" * 100)
    assert prepare.stored_bytes(tmp_path / "s.h5") == 300


@pytest.mark.ptyrad
@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({}, 1.0),
        ({"mode": "sub"}, 0.25),
        ({"mode": "center", "subscan_slow": 8, "subscan_fast": 12}, 8 * 12 / 24**2),
    ],
)
def test_the_plan_knows_which_share_of_the_scan_a_trial_computes(
    tmp_path: Path, settings: dict[str, Any], share: float
) -> None:
    """By ``INDICES_MODE``, before anything runs."""
    chosen = tuple((f"recon_params.INDICES_MODE.{key}", value) for key, value in settings.items())
    plan = prepare.complete_plan(demo.write(tmp_path / "d"), Overrides(settings=chosen))
    assert plan.scan_share == pytest.approx(share)
