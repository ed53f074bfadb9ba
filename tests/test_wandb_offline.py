"""W&B without a server: what an offline run is given, and what its own file says, with the real W&B and without."""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_cases import plan, run

import ptydask.engines.command
from ptydask.engines.command import rows, wandb_offline
from ptydask.engines.command.rows import MetricsTail
from ptydask.trial.metric_history import LoggedRow, MetricHistory

HOOK = Path(ptydask.engines.command.__file__).parent / "hook"

# --- files of our own making ----------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, value: int | bytes | str | float) -> bytes:
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def item(path: str, value: Any) -> bytes:
    keys = b"".join(field(2, part) for part in path.split("/"))
    return field(1, keys + field(16, json.dumps(value)))


def history_record(step: int, **metrics: Any) -> bytes:
    items = b"".join(item(path, value) for path, value in {**metrics, "_timestamp": 100.0 + step}.items())
    return field(1, 7) + field(2, items + field(2, field(1, step)))


def summary_record(**values: Any) -> bytes:
    return field(3, b"".join(item(path, value) for path, value in values.items()))


def framed(*records: bytes) -> bytes:
    """The records in a log as LevelDB has it."""
    out = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        first = True
        while first or record:
            left = 32768 - len(out) % 32768
            if left < 7:
                out += bytes(left)
                left = 32768
            piece, record = record[: left - 7], record[left - 7 :]
            kind = (1 if not record else 2) if first else (4 if not record else 3)
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + piece), len(piece), kind) + piece
            first = False
    return bytes(out)


def run_file(folder: Path, data: bytes, name: str = "offline-run-20260101_000000-r") -> Path:
    path = folder / "wandb" / name / "run-r.wandb"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def test_rows_of_a_file(tmp_path: Path) -> None:
    """Steps, times, nested and dotted names, NaN; what W&B adds of its own accord and text are left out."""
    run_file(
        tmp_path,
        framed(
            field(17, b"run"),
            history_record(0, a=1, **{"n/b": 2.5, "a.dot": 3, "nan": "NaN", "t": "text", "_step": 0, "_runtime": 1.5}),
            history_record(7, a={"b": {"c": True}}, inf=math.inf),
        ),
    )
    first, second = wandb_offline.read_history(tmp_path)[0]
    assert math.isnan(dict(first.metrics).pop("nan"))
    assert set(first.metrics) == {"a", "n.b", "a.dot", "nan"}
    assert (first.step, first.time, first.run) == (0, 100.0, "offline-run-20260101_000000-r")
    assert (second.step, second.metrics) == (7, {"a.b.c": 1.0, "inf": math.inf})


def test_typed_values(tmp_path: Path) -> None:
    """The newer form of values, which has no JSON."""
    forms = [
        field(4, 1),
        field(5, 5),
        field(6, -0.25),
        field(8, "[1]"),
        field(8, '{"x": 2}'),
        field(7, "t"),
        field(3, 0),
    ]
    items = b"".join(field(1, field(1, f"m{i}") + value) for i, value in enumerate(forms))
    run_file(tmp_path, framed(field(2, items)))
    (row,) = wandb_offline.read_history(tmp_path)[0]
    assert row.metrics == {"m0": 1.0, "m1": -3.0, "m2": -0.25, "m4.x": 2.0}
    assert row.step is None


def test_the_summary_adds_what_rows_do_not_say(tmp_path: Path) -> None:
    """What the program set itself, and the maximum that it asked for; not what it logged last anyway."""
    removed = field(3, field(2, field(1, "gone")))
    summary = [summary_record(a=1, n=2, gone=3, nan="NaN"), removed, summary_record(best=9, acc={"max": 0.5})]
    path = run_file(tmp_path, framed(history_record(3, a=1, n=1, nan="NaN"), *summary, field(18, field(1, 3))))
    assert list(wandb_offline.read_history(tmp_path)[0])[1:] == [
        LoggedRow(3, {"n": 2.0, "best": 9.0, "acc.max": 0.5}, 103.0, path.parent.name, final=True)
    ]
    assert wandb_offline.read_run(path).exit_code == 3


def test_no_rows(tmp_path: Path) -> None:
    """No runs, empty files, other files, a header alone."""
    assert list(wandb_offline.read_history(tmp_path)[0]) == []
    for number, data in enumerate([b"", b":W&B", b":W&B\xe1\xbe\x00", b"hello world" * 9, framed()]):
        path = run_file(tmp_path, data, f"offline-run-20260101_00000{number}-r")
        assert wandb_offline.read_run(path).exit_code is None
    assert list(wandb_offline.read_history(tmp_path)[0]) == []
    assert list(wandb_offline.read_records(tmp_path / "nowhere")) == []


def test_runs_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    """W&B numbers those that begin in the same second."""
    names = [f"offline-run-20260101_000000-r{tail}" for tail in ("", "-1", "-2", "-10")] + [
        "offline-run-20260102_000000-r"
    ]
    for value, name in enumerate(names):
        run_file(tmp_path, framed(history_record(0, a=value)), name)
    assert [(row.run, row.metrics["a"]) for row in wandb_offline.read_history(tmp_path)[0]] == [
        (n, i) for i, n in enumerate(names)
    ]


def test_a_file_cut_anywhere_gives_what_is_whole(tmp_path: Path) -> None:
    """At every byte: the rows before the cut, never a wrong one."""
    records = [history_record(step, a=step, text="x" * 20) for step in range(4)]
    data = framed(*records)
    ends = [len(framed(*records[:count])) for count in range(5)]
    path = run_file(tmp_path, data)
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends[1:])
        assert [row.step for row in wandb_offline.read_history(tmp_path)[0]] == list(range(whole)), cut


def test_damage_costs_a_block_at_most(tmp_path: Path) -> None:
    """Records over several blocks arrive whole; with a byte changed anywhere, only what it is in may be missing."""
    records = [history_record(step, a=step, text="x" * (40_000 if step % 3 == 1 else 900)) for step in range(60)]
    data = framed(*records)
    path = run_file(tmp_path, data)
    whole = list(wandb_offline.read_history(tmp_path)[0])
    assert [(row.step, row.metrics) for row in whole] == [(step, {"a": float(step)}) for step in range(60)]
    for at in range(7, len(data), 15_013):
        path.write_bytes(data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :])
        found = list(wandb_offline.read_history(tmp_path)[0])
        assert all(row in whole for row in found)
        assert 60 - 35 <= len(found) < 60


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "killed"])
def test_the_files_word_is_the_trials(tmp_path: Path, finished: bool) -> None:
    """Steps that a program and its forked child both thought theirs: the trial has W&B's rows, and no value more.

    Beyond the last row of a file that is cut short what was heard live stays.
    """
    name = "offline-run-20260101_000000-r"
    records = [history_record(step, loss=1.0 + step) for step in range(3)] + [field(18, b"")] * finished
    written = run_file(tmp_path, framed(*records), name)
    live = [(0, 1.0), (0, 2.0), (1, 2.0), (4, 3.0)]
    recorded = [{"step": step, "metrics": {"loss": loss}, "run": name} for step, loss in live]
    (tmp_path / "program.py").write_text(
        "import os, shutil, sys\n"
        f"folder = os.environ['PTYDASK_FOLDER'] + '/wandb/{name}'\nos.makedirs(folder)\n"
        f"shutil.copy({str(written)!r}, folder)\n"
        f"open(os.environ['PTYDASK_METRICS'], 'w').write({''.join(json.dumps(row) + chr(10) for row in recorded)!r})\n"
    )
    output = run(plan("program.py", tmp_path))
    steps = [0, 1, 2] if finished else [0, 1, 2, 4]
    assert output.curve == {"step": steps, "loss": [1, 2, 3, 3][: len(steps)]}
    kept = [json.loads(line) for line in output.artifacts["history.jsonl"].splitlines()]
    assert [(row["step"], row["metrics"]["loss"]) for row in kept] == list(zip(*output.curve.values(), strict=True))


def test_the_environment(tmp_path: Path) -> None:
    """All in the trial's folder, nothing that names a server; parameters as W&B's agent writes them."""
    values = {"lr": 1e-05, "n": 5, "none": None, "opt": {"beta": 0.5, "list": [1, None]}, "text": "on", "no": False}
    found = wandb_offline.environment(tmp_path, "study-7", "study", values)
    assert found["WANDB_MODE"] == "offline"
    assert (found["WANDB_RUN_ID"], found["WANDB_SWEEP_ID"]) == ("study-7", "study")
    folders = [value for name, value in found.items() if name.endswith(("_DIR", "_PATH"))]
    assert len(folders) == 4
    assert all(Path(value).is_relative_to(tmp_path) for value in folders)
    assert {"WANDB_SERVICE", "WANDB_API_KEY", "WANDB_DISABLED", "WANDB_RESUME"} <= wandb_offline.DROPPED
    assert not wandb_offline.DROPPED & found.keys()
    written = yaml.safe_load(Path(found["WANDB_SWEEP_PARAM_PATH"]).read_text())
    assert written == {"wandb_version": 1} | {name: {"value": value} for name, value in values.items()}
    assert isinstance(written["lr"]["value"], float)


# --- the real W&B ---------------------------------------------------------------------------------------------------


class Trial:
    """A program that runs as a trial's does."""

    def __init__(self, folder: Path, code: str, *options: str, values: dict[str, Any] | None = None) -> None:
        self.folder, self.metrics, self.log = folder, folder / "metrics.jsonl", folder / "log"
        folder.mkdir(parents=True)
        (folder / "program.py").write_text(code)
        environ = {name: value for name, value in os.environ.items() if name not in wandb_offline.DROPPED}
        environ |= wandb_offline.environment(folder, "r1", "s1", values or {})
        environ |= {"PTYDASK_METRICS": str(self.metrics), "PYTHONPATH": str(HOOK), "OMP_NUM_THREADS": "1"}
        with self.log.open("wb") as log:
            command = [sys.executable, *options, "program.py"]
            self.process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)
        self.tail = MetricsTail(self.metrics)

    def until(self, name: str) -> list[LoggedRow]:
        """The rows up to one with the metric ``name``."""
        found: list[LoggedRow] = []
        end = time.monotonic() + 60
        while not any(name in row.metrics for row in found):
            assert time.monotonic() < end, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            found += self.tail.new()
            time.sleep(0.01)
        return found

    def end(self) -> int:
        return self.process.wait(timeout=120)

    def live(self) -> list[LoggedRow]:
        return MetricsTail(self.metrics).new()

    def recorded(self) -> list[LoggedRow]:
        return list(wandb_offline.read_history(self.folder)[0])


EVERYTHING = """
import json, math, os, pathlib, threading, time
import numpy as np
import wandb

run = wandb.init(project="p", config={"lr": 1.0, "own": 2, "opt": {"beta": 0.0, "gamma": 1}})
pathlib.Path("config.json").write_text(json.dumps(dict(run.config)))
run.define_metric("epoch")
run.define_metric("val", step_metric="epoch")
run.define_metric("acc", summary="max")
wandb.log({"m": 0.0, "sent": time.time()})
while not os.path.exists("go"):
    time.sleep(0.01)
for i in range(300):
    wandb.log({"m": i / 7, "n": {"a": i, "b": {"c": -i}}, "text": "x" * 50})
wandb.log({"m": 1.0, "long": "y" * 100_000, "np": np.float32(0.1), "one": np.array([2.5]), "yes": True, "big": 2**70})
wandb.log({"nan": math.nan, "inf": -math.inf, "npnan": np.float64("nan"), "a.dot": 3, "list": [1], "none": None})
wandb.log({"m": 2.0}, commit=False)
run.log({"other": 2.0})
run.log({"m": 3.0}, step=1000)
run.log({"m": 3.5}, step=1000)
run.log({"m": 99.0}, step=500)
run.log({"m": 4.0}, step=1001, commit=True)
run.log({})
run.log({"val": 0.5, "epoch": 10})
run.log({"acc": 0.9}); run.log({"acc": 0.8})
thread = threading.Thread(target=lambda: [run.log({"thread": i}) for i in range(5)])
thread.start(); thread.join()
if not (pid := os.fork()):
    for i in range(3):
        run.log({"forked": i})
    time.sleep(0.3)  # what W&B sends is on its way; it does not wait for it here
    os._exit(0)
os.waitpid(pid, 0)
run.summary["best"] = 42.0
run.finish()
wandb.login(key="0" * 40)
second = wandb.init(project="p", mode="online", dir="elsewhere", id="other", resume="allow")
second.log({"m": 7.0}); wandb.log({"m": 8.0})
"""

VALUES = {"lr": 1e-05, "opt": {"beta": 0.5}, "flag": False, "none": None}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trial, float]:
    pytest.importorskip("wandb")
    trial = Trial(tmp_path_factory.mktemp("everything") / "t", EVERYTHING, values=VALUES)
    (row,) = trial.until("sent")
    delay = time.time() - row.metrics["sent"]
    (trial.folder / "go").touch()
    assert trial.end() == 0, trial.log.read_text()
    return trial, delay


@pytest.mark.wandb
@pytest.mark.slow
class TestRealRuns:
    def test_the_sweeps_parameters_win(self, everything: tuple[Trial, float]) -> None:
        """Over the program's own defaults; what the sweep does not have stays the program's."""
        config = json.loads((everything[0].folder / "config.json").read_text())
        assert config == {"lr": 1e-05, "own": 2, "opt": {"beta": 0.5, "gamma": 1}, "flag": False, "none": None}

    def test_values_arrive_live(self, everything: tuple[Trial, float]) -> None:
        """In less than half a second, while the program goes on."""
        assert everything[1] < 0.5

    def test_live_is_what_the_file_has(self, everything: tuple[Trial, float]) -> None:
        """Row for row and number for number: steps, parts of rows, dropped ones, threads, a forked child, two runs."""
        trial, _ = everything
        recorded = [row for row in trial.recorded() if not row.final and row.metrics]
        live: dict[tuple[str, int | None], dict[str, float]] = {}
        for row in trial.live():
            live.setdefault((row.run, row.step), {}).update(row.metrics)
        assert repr([(key, sorted(value.items())) for key, value in live.items()]) == repr(
            [((row.run, row.step), sorted(row.metrics.items())) for row in recorded]
        )
        assert len(recorded) > 310
        assert len({row.run for row in recorded}) == 2

    def test_the_summary(self, everything: tuple[Trial, float]) -> None:
        """The maximum that the program asked for, and what it set itself."""
        final = [row for row in everything[0].recorded() if row.final]
        assert [row.metrics for row in final] == [{"acc.max": 0.9, "best": 42.0}]

    def test_the_history_is_the_same_both_ways(self, everything: tuple[Trial, float]) -> None:
        """Reconciled afterwards or added on top of what was live."""
        trial, _ = everything
        on_top, fresh = MetricHistory("m", "last", "maximize"), MetricHistory("m", "last", "maximize")
        for row in [*trial.live(), *trial.recorded()]:
            on_top.add(row)
        for row in rows.reconcile_rows(trial.live(), trial.recorded()):
            fresh.add(row)
        assert repr(on_top.curve()) == repr(fresh.curve())
        assert (on_top.count, on_top.last, on_top.best) == (fresh.count, fresh.last, fresh.best) == (307, 8.0, 299 / 7)
        assert fresh.metrics()["best"] == 42.0

    def test_the_decoder_agrees_with_wandbs_own(self, everything: tuple[Trial, float]) -> None:
        """Every record of every file, and every item of its rows."""
        pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
        for path in wandb_offline.run_files(everything[0].folder):
            parsed = []
            for data in wandb_offline.read_records(path):
                record = pb.Record()
                record.ParseFromString(data)
                assert record.SerializeToString(deterministic=True)
                parsed.append(record)
            assert parsed[0].WhichOneof("record_type") == "header"
            assert parsed[-1].WhichOneof("record_type") == "exit"
            assert wandb_offline.read_run(path).exit_code == parsed[-1].exit.exit_code == 0
            theirs = [
                (
                    record.history.step.num,
                    rows.flatten_numbers(
                        {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                    ),
                )
                for record in parsed
                if record.WhichOneof("record_type") == "history"
            ]
            ours = [(row.step, dict(row.metrics)) for row in wandb_offline.read_run(path).rows if not row.final]
            assert repr(ours) == repr(theirs)

    def test_isolated_interpreters_are_reconciled(self, tmp_path: Path) -> None:
        """Without the hook there is nothing live, and everything afterwards."""
        trial = Trial(tmp_path / "t", "import wandb\nwandb.init()\nfor i in range(3): wandb.log({'m': i})\n", "-I")
        assert trial.end() == 0, trial.log.read_text()
        assert trial.live() == []
        assert [(row.step, row.metrics) for row in trial.recorded()] == [(i, {"m": float(i)}) for i in range(3)]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
    def test_a_run_that_is_stopped(self, tmp_path: Path, number: int) -> None:
        """With SIGINT W&B's own file is complete; whatever it lacks after SIGKILL was live."""
        code = """
import time, wandb
wandb.init()
for i in range(200):
    wandb.log({"m": i / 3})
wandb.log({"m": -1.0}, step=500)
wandb.log({"end": 1}, step=500)
time.sleep(60)
"""
        trial = Trial(tmp_path / "t", code)
        trial.until("end")
        trial.process.send_signal(number)
        assert trial.end() == -number
        history = MetricHistory("m", "last", "minimize")
        for row in rows.reconcile_rows(trial.live(), trial.recorded()):
            history.add(row)
        assert (history.count, history.last) == (201, -1.0)
        assert history.curve() == {"step": [*range(200), 500], "m": [*(i / 3 for i in range(200)), -1.0]}
        if number == signal.SIGINT:
            assert len(trial.recorded()) == 201
