"""The engine ``command`` with programs that use W&B, and in whole runs from a sweep file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_cases import Reports, own_folders, plan, processes, run

from ptydask.model import TrialState
from ptydask.store import reader


@pytest.fixture(autouse=True)
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where trials have their own folders; in the end no folder and no process of theirs is left."""
    yield from own_folders(tmp_path, monkeypatch)


def test_the_engine_is_light() -> None:
    """A worker that runs programs loads neither torch nor wandb."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\nfrom command_cases import misbehaving, session\n"
        "session(misbehaving('well', Path('.'))).provenance()\n"
        "print(sorted({'torch', 'wandb', 'optuna', 'h5py'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


# --- with W&B -------------------------------------------------------------------------------------

LOGS = """
import sys, wandb
with open("saved.pt", "wb") as file:
    file.write(bytes(1000))
with wandb.init(project="p") as run:
    run.save("saved.pt")
    for step in (0, 10, 20):
        run.log({"loss": run.config["lr"] / (step + 1), "other": step}, step=step)
    while "wait" in sys.argv:
        import time
        time.sleep(0.05)
"""


@pytest.mark.wandb
@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["-I"]], ids=["heard live", "read afterwards"])
def test_values_logged_to_wandb(tmp_path: Path, flags: list[str]) -> None:
    """Heard live and read from W&B's own file they are one history; with ``-I`` there is no import hook."""
    (tmp_path / "logs.py").write_text(LOGS)
    reports = Reports()
    output = run(plan("logs.py", tmp_path, ["${interpreter}", *flags, "${program}"]), reports)
    assert output.curve == {"step": [0, 10, 20], "loss": [0.5, 0.5 / 11, 0.5 / 21], "other": [0, 10, 20]}
    assert reports.values == {1: 0.5, 2: 0.5 / 11, 3: 0.5 / 21}
    assert output.metrics["loss"] == 0.5 / 21
    rows = [json.loads(line) for line in output.artifacts["history.jsonl"].splitlines()]
    assert [row["step"] for row in rows] == [0, 10, 20]
    (saved,) = (data for name, data in output.artifacts.items() if name.endswith("/files/saved.pt"))
    assert saved == bytes(1000), "a file that W&B would only link to"


@pytest.mark.wandb
@pytest.mark.slow
def test_a_pruned_program_with_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is stopped in time for W&B to write what it has, and W&B's own process ends as well."""
    (tmp_path / "logs.py").write_text(LOGS)
    output = run(plan("logs.py", tmp_path, ["${interpreter}", "${program}", "wait"]), Reports(stop_at=3))
    assert output.curve["step"] == [0, 10, 20]
    assert not output.ended_itself
    assert output.left_out == ()


# --- a whole run ----------------------------------------------------------------------------------

TRAINS = """
import argparse, sys, time, ptydask
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
lr = parser.parse_args().lr
if lr == 4:
    sys.exit("too fast")
for step in range(1, 11):
    ptydask.report(step, loss=lr + 1 / step)
    time.sleep(0.1)
"""
SWEEP = """
program: trains.py
method: grid
metric: {name: loss, goal: minimize}
early_terminate: {type: hyperband, min_iter: 3, eta: 2}
parameters: {lr: {values: [1, 2, 3, 4]}}
"""


@pytest.mark.slow
def test_a_sweep_from_its_file(tmp_path: Path, ptydask: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Two workers, four trials: the best completes, the worst is pruned or has ended, one fails with its message."""
    (tmp_path / "trains.py").write_text(TRAINS)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    done = ptydask("run", "sweep.yaml", "--workers", 2, "--cluster", "local")
    assert done.returncode == 3, done.stderr
    with reader.open(tmp_path / "sweep.h5") as results:
        records = {record.params["lr"]: record for record in results.records()}
        failed = results.trial(records[4].number)
    assert records[1].state is TrialState.COMPLETE
    assert records[1].error == 1.1
    assert records[3].state is TrialState.PRUNED
    assert records[4].message.startswith("trains.py exited 1 after ")
    assert records[4].message.endswith(": too fast")
    assert "The command, in " in failed.record.traceback
    assert failed.command.endswith("trains.py --lr=4")
    assert failed.log == "too fast\n"


@pytest.mark.slow
def test_a_run_that_is_stopped_leaves_nothing(tmp_path: Path, trials: Path) -> None:
    """Ctrl-C: no program goes on, no folder stays."""
    (tmp_path / "trains.py").write_text(TRAINS.replace("range(1, 11)", "range(1, 10000)"))
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    run = [sys.executable, "-m", "ptydask", "run", "sweep.yaml", "--workers", "2", "--cluster", "local"]
    with subprocess.Popen(run, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        deadline = time.monotonic() + 60
        while len(processes(trials)) < 4:  # two programs and their guards
            assert time.monotonic() < deadline
            time.sleep(0.05)
        driver.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 10
    while processes(trials) or list(trials.glob("ptydask-trial-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
