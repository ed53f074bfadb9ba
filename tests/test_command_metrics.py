"""What a program logs: rows as they arrive, what they amount to, ``ptydask.report``, and the hook in its Python."""

from __future__ import annotations

import ast
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import ptydask
import ptydask.engines.command
from ptydask.engines.command import rows
from ptydask.engines.command.rows import MetricsTail
from ptydask.trial import metric_history as history_of_trials
from ptydask.trial.metric_history import LoggedRow, MetricHistory

HOOK = Path(ptydask.engines.command.__file__).parent / "hook"


def tail(tmp_path: Path, text: str | bytes = "") -> MetricsTail:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return MetricsTail(path)


def append(of: MetricsTail, text: str) -> None:
    with of.path.open("a") as file:
        file.write(text)


# --- lines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "step", "metrics"),
    [
        ('{"step": 3, "metrics": {"SSIM": 0.5}}', 3, {"SSIM": 0.5}),
        ('{"step": 3, "SSIM": 0.5}', 3, {"SSIM": 0.5}),
        ('{"SSIM": 1}', None, {"SSIM": 1.0}),
        ('{"step": 2.0, "a": true, "b": null, "c": "text", "d": [1]}', 2, {"a": 1.0}),
        ('{"step": "2", "time": 9, "a": {"b": {"c": 1}}}', None, {"time": 9.0, "a.b.c": 1.0}),
        ('{"step": 1e300, "a": 1e400, "b": -Infinity}', None, {"a": math.inf, "b": -math.inf}),
        ('{"metrics": {}, "step": true}', None, {}),
        ('{"a": 1' + "0" * 400 + "}", None, {}),
        ('{"a": "Infinity", "_step": 3, "_runtime": 1.5}', None, {"a": math.inf}),
    ],
)
def test_a_line_is_a_row(tmp_path: Path, line: str, step: int | None, metrics: dict[str, float]) -> None:
    """Both forms; numbers are kept, by dotted names, and nothing else."""
    (row,) = tail(tmp_path, line + "\n").new()
    assert (row.step, row.metrics, row.run) == (step, metrics, "")
    assert abs(row.time - time.time()) < 60


def test_nan_comes_through(tmp_path: Path) -> None:
    """As JSON of Python has it, and as text as W&B has it."""
    found = tail(tmp_path, '{"a": NaN}\n{"a": "NaN"}\n').new()
    assert [math.isnan(row.metrics["a"]) for row in found] == [True, True]


def test_time_and_run_of_the_longer_form(tmp_path: Path) -> None:
    """Those that our own writers add; a time that is none is the time of reading."""
    found = tail(
        tmp_path, '{"metrics": {"a": 1}, "time": 5.5, "run": "r"}\n{"metrics": {}, "time": "x", "run": 3}\n'
    ).new()
    assert (found[0].time, found[0].run, found[1].run) == (5.5, "r", "")
    assert found[1].time > 1e9


def test_rubbish_is_counted_and_passed_over(tmp_path: Path) -> None:
    """Text, broken JSON, other JSON, broken UTF-8, depth and digits without end: the rows around them arrive."""
    deep, digits = "[" * 100_000, '{"a": ' + "1" * 5000 + "}"
    text = '{"a": 1}\nhello\n{"a":\n[1]\n"x"\n\n  \n' + deep + "\n" + digits + '\n{"a": 2}\n'
    of = tail(tmp_path, text.encode() + b'{"\xff": 1}\n{"a": 3}\r\n')
    assert [row.metrics for row in of.new()] == [{"a": 1.0}, {"a": 2.0}, {"a": 3.0}]
    assert of.rubbish == 7


def test_partial_lines_wait_for_the_rest(tmp_path: Path) -> None:
    """Cut at every byte, a line gives its row once and whole."""
    line = '{"step": 1, "metrics": {"α": 0.5}}\n'
    for cut in range(1, len(line.encode())):
        of = tail(tmp_path, line.encode()[:cut])
        assert of.new() == []
        with of.path.open("ab") as file:
            file.write(line.encode()[cut:] + b'{"step": 2}')
        assert [row.step for row in of.new()] == [1]
        assert of.new() == []
        assert [row.step for row in of.rest()] == [2]
        assert of.rest() == []


def test_a_file_that_comes_late_shrinks_or_goes(tmp_path: Path) -> None:
    """No file is no row; a shorter one is read anew."""
    of = MetricsTail(tmp_path / "metrics.jsonl")
    assert of.new() == []
    append(of, '{"a": 1}\n{"a": 2}\n{"a":')
    assert len(of.new()) == 2
    of.path.write_text('{"a": 3}\n')
    assert [row.metrics["a"] for row in of.new()] == [3.0]
    of.path.unlink()
    assert of.new() == of.rest() == []
    assert of.rubbish == 0


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    """Up to the cap a line counts; a longer one is rubbish, once, and what follows arrives."""
    fits = b'{"a": 1, "b": "' + b"x" * (rows.MAX_LINE - 20) + b'"}\n'
    of = tail(tmp_path, fits + b"y" * (3 * rows.READ_AT_ONCE) + b'\n{"a": 2}\n')
    found = []
    while new := of.new():
        found += new
        assert len(of._partial) <= rows.MAX_LINE
    assert [row.metrics["a"] for row in found] == [1.0, 2.0]
    assert of.rubbish == 1


# --- what rows amount to --------------------------------------------------------------------------------------------


def history(*values: float, run: str = "", **options: str) -> MetricHistory:
    found = MetricHistory("m", options.get("objective", "last"), options.get("direction", "maximize"))  # type: ignore[arg-type]
    for step, value in enumerate(values):
        found.add(LoggedRow(step, {"m": value}, 0.0, run))
    return found


def test_count_last_and_best() -> None:
    """Only finite values count and can be the best; the last one is the last, NaN or not."""
    found = history(1.0, 3.0, math.inf, 2.0, math.nan)
    assert (found.count, found.best) == (3, 3.0)
    assert found.last is not None
    assert math.isnan(found.last)
    assert history(1.0, 3.0, 2.0, direction="minimize").best == 1.0
    none = history()
    assert (none.count, none.best, none.last, none.value, none.curve(), none.metrics()) == (0, None, None, None, {}, {})


def test_add_says_whether_a_value_was_counted() -> None:
    """Rows without the metric, NaN and a row that is read again are not."""
    found = MetricHistory("m", "last", "maximize")
    given = [
        LoggedRow(0, {"m": 1}, 0, "r"),
        LoggedRow(1, {"x": 1}, 0, "r"),
        LoggedRow(1, {"m": 2}, 0, "r"),
        LoggedRow(1, {"m": 2}, 0, "r"),
    ]
    assert [found.add(row) for row in given] == [True, False, True, False]
    assert [found.add(LoggedRow(2, {"m": math.nan}, 0, "r")), found.add(LoggedRow(2, {"m": 5.0}, 0, "r"))] == [
        False,
        True,
    ]


def test_objective_and_the_other_one() -> None:
    """Both are among the metrics, the objective under the metric's own name."""
    last, best = history(1.0, 3.0, 2.0), history(1.0, 3.0, 2.0, objective="best")
    last.add(LoggedRow(7, {"x": 1.0}, 0))
    assert last.metrics() == {"m": 2.0, "m (best)": 3.0, "x": 1.0}
    assert best.metrics() == {"m": 3.0, "m (last)": 2.0}
    assert (last.value, best.value) == (2.0, 3.0)


def test_rows_of_one_step_are_one() -> None:
    """What is logged in parts is one row, in W&B and by hand; each other metric that all rows have is in the curve."""
    for run in ("", "r"):
        found = MetricHistory("m", "last", "maximize")
        for step in (0, 1, 4):
            found.add(LoggedRow(step, {"a": step + 0.5}, 0, run))
            found.add(LoggedRow(step, {"m": float(step)}, 0, run))
            found.add(LoggedRow(step, {"b": 1.0} if step else {"c": 1.0}, 0, run))
        assert found.curve() == {"step": [0, 1, 4], "m": [0, 1, 4], "a": [0.5, 1.5, 4.5]}
        assert found.count == 3
        assert set(found.seen) == {"m", "a", "b", "c"}


def test_steps_by_hand() -> None:
    """Without a step the rows are counted from 1; a step that goes back is a new row all the same."""
    found = MetricHistory("m", "last", "maximize")
    for step, value in ((None, 1.0), (None, 2.0), (5, 3.0), (1, 4.0)):
        found.add(LoggedRow(step, {"m": value}, 0))
    assert found.curve() == {"step": [1, 2, 5, 1], "m": [1, 2, 3, 4]}
    assert found.last == 4


def test_a_corrected_row_corrects_the_best() -> None:
    """A value that a later part of the same row takes back is not the best any more."""
    found = history(1.0, 9.0, 2.0, run="r")
    found.add(LoggedRow(1, {"m": 1.5}, 0, "r"))
    assert (found.best, found.last, found.count) == (2.0, 2.0, 3)


def test_two_runs_follow_each_other() -> None:
    """Each has its own steps; the last value is that of the run that began last."""
    found = MetricHistory("m", "last", "maximize")
    for run, step, value in (("a", 0, 1.0), ("a", 1, 2.0), ("b", 0, 3.0), ("b", 1, 4.0)):
        found.add(LoggedRow(step, {"m": value}, 0, run))
    assert found.curve() == {"step": [0, 1, 0, 1], "m": [1, 2, 3, 4]}
    assert (found.last, found.count) == (4, 4)


def test_the_summary_has_the_last_word() -> None:
    """What a program sets in its summary is the last value, not a row; what it sets only there counts as a value."""
    found = history(1.0, 3.0, 2.0, run="r")
    assert not found.add(LoggedRow(2, {"m": 3.0}, 0, "r", final=True))
    assert (found.last, found.best, found.count, found.curve()["m"]) == (3.0, 3.0, 3, [1, 3, 2])
    found.add(LoggedRow(3, {"m": 2.5}, 0, "r"))  # a row that the run's file, cut short, did not have
    assert found.last == 2.5
    only = MetricHistory("m", "best", "maximize")
    only.add(LoggedRow(4, {"x": 1.0}, 0, "r"))
    assert only.add(LoggedRow(4, {"m": 7.0}, 0, "r", final=True))
    assert (only.value, only.count, only.curve()) == (7.0, 1, {"step": [4], "m": [7], "x": [1]})


def test_reading_again_changes_nothing() -> None:
    """Rows read live, in parts, and once more whole from the run's file are the same rows."""
    whole = [LoggedRow(step, {"m": step / 2, "x": 1.0}, 0, "r") for step in range(0, 50, 2)]
    live = [LoggedRow(row.step, {name: row.metrics[name]}, 0, "r") for row in whole for name in ("x", "m")]
    once, twice = MetricHistory("m", "last", "maximize"), MetricHistory("m", "last", "maximize")
    for row in whole:
        once.add(row)
    for row in [*live[:-3], *whole]:
        twice.add(row)
    assert (once.curve(), once.metrics(), once.count) == (twice.curve(), twice.metrics(), twice.count)


def test_reconciled_takes_the_files_word_and_the_rest_from_what_was_live() -> None:
    """Up to the file's last row the file is right; beyond it, and for runs without a file, what was read live is."""
    recorded = [
        LoggedRow(0, {"m": 1}, 0, "r"),
        LoggedRow(2, {"m": 2}, 0, "r"),
        LoggedRow(2, {"s": 9}, 0, "r", final=True),
    ]
    live = [
        LoggedRow(0, {"m": 5}, 0, "r"),
        LoggedRow(1, {"m": 6}, 0, "r"),
        LoggedRow(None, {"m": 6}, 0, "r"),
        LoggedRow(3, {"m": 3}, 0, "r"),
    ]
    other = [LoggedRow(0, {"m": 7}, 0, "q"), LoggedRow(0, {"m": 8}, 0)]
    assert list(rows.reconcile_rows([other[0], *live, other[1]], recorded)) == [other[0], *recorded, live[3], other[1]]


def test_a_summary_alone_is_no_row_of_the_file() -> None:
    """A program that was killed left nothing in W&B's file but a value that it set in its summary: rows stay."""
    recorded, live = [LoggedRow(0, {"s": 9}, 0, "r", final=True)], [LoggedRow(0, {"m": 5}, 0, "r")]
    assert sorted(map(str, rows.reconcile_rows(live, recorded))) == sorted(map(str, [*live, *recorded]))


def test_a_long_history_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count, last and best stay exact, the curve keeps first and last and an even spacing, also when read again."""
    monkeypatch.setattr(history_of_trials, "MAX_ROWS", 100)
    for run in ("", "r"):
        found = MetricHistory("m", "last", "maximize")
        values = [math.sin(step) for step in range(1001)]
        for _ in range(2 if run else 1):
            for step, value in enumerate(values):
                found.add(LoggedRow(step, {"m": value, "x": 1.0}, 0, run))
        curve = found.curve()
        assert (found.count, found.last, found.best) == (1001, values[-1], max(values))
        assert 50 <= len(curve["step"]) <= 101
        assert curve["step"][0] == 0
        assert curve["step"][-1] == 1000
        assert len({b - a for a, b in zip(curve["step"][:-1], curve["step"][1:-1], strict=False)}) == 1
        assert curve["m"] == [values[int(step)] for step in curve["step"]]


def test_wide_rows_are_thinned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many metrics at each row count like many rows, and names without end are not all followed."""
    monkeypatch.setattr(history_of_trials, "MAX_CELLS", 5000)
    found = MetricHistory("m", "last", "maximize")
    for step in range(2000):
        found.add(LoggedRow(step, {f"x{i}": 1.0 for i in range(100)} | {f"name {step}": 1.0, "m": 0.0}, 0, "r"))
    assert sum(map(len, found.curve().values())) <= 5000 + 200
    assert found.count == 2000
    assert len(found.seen) <= history_of_trials.MAX_NAMES + 1
    assert "m" in found.seen


def test_optuna_hears_few_of_many_values() -> None:
    """Each of the first thousand; of a million fewer than 2000, and each at which the pruner decides."""
    told, last = [], 0
    for count in range(1, 1_000_001):
        if history_of_trials.should_report(count, last, {123_457}):
            told.append(count)
            last = count
    assert told[:1000] == list(range(1, 1001))
    assert len(told) < 2000
    assert 123_457 in told


@pytest.mark.slow
def test_more_rows_than_are_kept(tmp_path: Path) -> None:
    """They are read in bounded time and kept in bounded memory: what is true of 250,000 is true of millions."""
    import tracemalloc

    path = tmp_path / "metrics.jsonl"
    with path.open("w") as file:
        for step in range(250_000):
            file.write(f'{{"step":{step},"metrics":{{"m":{step / 7}}},"time":1.5,"run":"r"}}\n')
    of, found = MetricsTail(path), MetricHistory("m", "last", "maximize")
    begun = time.process_time()
    while new := of.new():
        for row in new:
            found.add(row)
    took = time.process_time() - begun
    tracemalloc.start()
    fresh = MetricHistory("m", "last", "maximize")
    for step in range(history_of_trials.MAX_ROWS):
        fresh.add(LoggedRow(step, {"m": float(step)}, 0, "r"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.count == 250_000
    assert found.last == 249_999 / 7
    assert len(found.curve()["step"]) <= history_of_trials.MAX_ROWS + 1
    assert took < 30
    assert peak < 150e6


# --- ptydask.report ---------------------------------------------------------------------------------------------------


def test_report_writes_what_the_worker_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keywords, a mapping for names with blanks, NumPy's numbers, and no step."""
    monkeypatch.setenv("PTYDASK_METRICS", str(tmp_path / "metrics.jsonl"))
    ptydask.report(1, loss=0.5)
    ptydask.report(2, {"loss (val)": np.float32(0.5), "step": 3}, SSIM=np.array([2]), bad=math.nan)
    ptydask.report(loss=True)
    first, second, third = MetricsTail(tmp_path / "metrics.jsonl").new()
    assert (first.step, first.metrics) == (1, {"loss": 0.5})
    assert math.isnan(dict(second.metrics).pop("bad"))
    assert [second.step, *(second.metrics[name] for name in ("loss (val)", "step", "SSIM"))] == [2, 0.5, 3, 2]
    assert (third.step, third.metrics, third.run) == (None, {"loss": 1.0}, "")


def test_report_refuses_what_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a trial or not, so that it is found before the sweep."""
    monkeypatch.delenv("PTYDASK_METRICS", raising=False)
    with pytest.raises(TypeError, match="loss is a number, got 'x'"):
        ptydask.report(1, loss="x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="loss is a number"):
        ptydask.report(1, loss=np.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a metric has a name"):
        ptydask.report(1, 0.0)  # type: ignore[arg-type]
    for step in (1.5, math.nan, math.inf):
        with pytest.raises(TypeError, match="step is a whole number"):
            ptydask.report(step, loss=1.0)  # type: ignore[arg-type]


def test_report_outside_a_trial_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program runs as well without a sweep."""
    monkeypatch.delenv("PTYDASK_METRICS", raising=False)
    monkeypatch.chdir(tmp_path)
    ptydask.report(1, loss=0.5)
    assert list(tmp_path.iterdir()) == []


def test_importing_ptydask_is_light() -> None:
    """A program that imports it to report loads neither typing nor anything outside the standard library."""
    code = "import sys; before = set(sys.modules); import ptydask; print(*sorted(set(sys.modules) - before))"
    env = {name: value for name, value in os.environ.items() if name != "PTYDASK_METRICS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    light = "__future__ importlib importlib._bootstrap importlib._bootstrap_external warnings ptydask"
    assert set(done.stdout.split()) <= set(light.split())


def test_a_shell_reports_with_echo(tmp_path: Path) -> None:
    """No Python is needed to report."""
    file = tmp_path / "metrics.jsonl"
    script = """for i in 1 2 3; do echo "{\\"step\\":$i,\\"loss\\":0.5}" >> "$PTYDASK_METRICS"; done"""
    subprocess.run(["sh", "-c", script], env={**os.environ, "PTYDASK_METRICS": str(file)}, check=True)
    assert [(row.step, row.metrics) for row in MetricsTail(file).new()] == [(i, {"loss": 0.5}) for i in (1, 2, 3)]


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    """Each report is one line, whoever else reports at the time."""
    code = "import ptydask, sys\nfor i in range(300): ptydask.report(i, {'x' * 3000: i, 'who': int(sys.argv[1])})"
    env = {**os.environ, "PTYDASK_METRICS": str(tmp_path / "metrics.jsonl")}
    running = [subprocess.Popen([sys.executable, "-c", code, str(who)], env=env) for who in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    of = MetricsTail(tmp_path / "metrics.jsonl")
    found: list[LoggedRow] = []
    while new := of.new():
        found += new
    assert of.rubbish == 0
    assert sorted((row.metrics["who"], row.step) for row in found) == [(w, i) for w in range(4) for i in range(300)]


# --- the hook ------------------------------------------------------

FAKE = '''
class Settings: sync_dir = "/somewhere/offline-run-1-x"
class Run:
    def __init__(self): self._local_step, self._settings, self.logged = 0, Settings(), []
    def log(self, data, step=None, commit=None): self._log(data, step, commit)
    def _log(self, data, step=None, commit=None):
        """Its own words."""
        if not isinstance(data, dict): raise TypeError("a dictionary, please")
        self.logged.append((dict(data), step, commit))
        if step is not None and step > self._local_step: self._local_step = step
        if (step is None and commit is None) or commit: self._local_step += 1
'''


@pytest.fixture
def program(tmp_path: Path) -> Program:
    package = tmp_path / "site" / "wandb" / "sdk"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("from wandb.sdk.wandb_run import Run\nrun = Run()\nlog = run.log\n")
    (package / "__init__.py").touch()
    (package / "wandb_run.py").write_text(FAKE)
    return Program(tmp_path)


class Program:
    """A program that runs with the hook, as a trial's, and with a stand-in for W&B."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.metrics = folder, folder / "metrics.jsonl"
        self.path = [HOOK, folder / "site"]

    def run(self, code: str, *options: str, python: str = sys.executable, **environ: str | None) -> str:
        (self.folder / "program.py").write_text(code)
        command = [python, *options, *([] if "-c" in options else [str(self.folder / "program.py")])]
        env = {**os.environ, "PTYDASK_METRICS": str(self.metrics), "PYTHONPATH": os.pathsep.join(map(str, self.path))}
        env.update({name: value for name, value in environ.items() if value is not None})
        env = {name: value for name, value in env.items() if environ.get(name, "") is not None}
        done = subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def rows(self) -> list[tuple[int | None, dict[str, float]]]:
        found = MetricsTail(self.metrics).new()
        assert all(row.run == "offline-run-1-x" for row in found)
        return [(row.step, dict(row.metrics)) for row in found]


LOG_ONE = "import wandb; wandb.log({'a': 0.5})"


def test_what_is_logged_is_a_row(program: Program) -> None:
    """Steps as W&B counts them, parts of a row, numbers of other libraries, nested names, nothing else."""
    program.run(
        """
import numpy as np, wandb, math
wandb.log({"a": 1, "n": {"b": 2.5, "c": {"d": True}}, "text": "x", "list": [1], "none": None, 3: 4})
wandb.log({"a": 2}, commit=False)
wandb.log({"x": np.float32(0.1), "y": np.array([2]), "z": np.arange(3), "i": np.int64(7)})
wandb.log({"a": 3}, step=7)
wandb.run.log({"a": 4}, 5)
wandb.run.log(data={"a": 5}, step=9, commit=True)
wandb.log({"a": math.nan, "b": -math.inf})
wandb.log({"only": "text"})
"""
    )
    found = program.rows()
    assert [step for step, _ in found] == [0, 1, 1, 7, 9, 10]
    assert found[0][1] == {"a": 1, "n.b": 2.5, "n.c.d": 1.0, "3": 4}
    assert found[2][1] == {"x": float(np.float32(0.1)), "y": 2.0, "i": 7.0}
    assert math.isnan(found[5][1]["a"])
    assert found[5][1]["b"] == -math.inf


def test_torch_numbers(program: Program) -> None:
    """A loss that still has its graph, half precision, one element; not a whole tensor."""

    class Tensor:  # what the hook needs of a tensor, without the seconds that importing PyTorch takes
        def __init__(self, *values: float) -> None:
            self.values = values

        def numel(self) -> int:
            return len(self.values)

        def size(self) -> tuple[int, ...]:
            return (len(self.values),)

        def item(self) -> float:
            return self.values[0]

    scope: dict[str, object] = {}
    exec(compile((HOOK / "sitecustomize.py").read_text().rpartition("quietly(begin)")[0], "hook", "exec"), scope)
    number = scope["number"]
    assert callable(number)
    assert [number(Tensor(0.5)), number(Tensor(0.5, 1.0)), number(object()), number(1j)] == [0.5, None, None, None]


@pytest.mark.parametrize("way", ["script", "-c", "-m", "console script", "spawn", "thread", "fork"])
def test_however_the_program_starts(program: Program, way: str) -> None:
    """A script, code, a module, a console script, and its children and threads."""
    (program.folder / "site" / "mine.py").write_text(f"def main():\n    {LOG_ONE}\nif __name__ == '__main__': main()\n")
    many = "import multiprocessing, mine\nif __name__ == '__main__':\n p = {}(target=mine.main); p.start(); p.join()"
    if way == "-c":
        program.run("", "-c", LOG_ONE)
    elif way == "-m":
        program.run("raise SystemExit", "-c", "import runpy; runpy.run_module('mine', run_name='__main__')")
    elif way == "console script":
        program.run(f"#!{sys.executable}\nimport sys\nfrom mine import main\nsys.exit(main())\n")
    elif way == "thread":
        program.run(many.format("__import__('threading').Thread"))
    else:
        program.run(many.format(f"multiprocessing.get_context('{way}').Process") if way != "script" else LOG_ONE)
    assert program.rows() == [(0, {"a": 0.5})]


@pytest.mark.parametrize("option", ["-I", "-S", "-E"])
def test_a_python_without_hook_still_runs(program: Program, option: str) -> None:
    """Isolated interpreters lose what is live, nothing else."""
    program.run(f"import sys; sys.path.insert(0, {str(program.folder / 'site')!r}); {LOG_ONE}", option)
    assert program.rows() == []


def test_only_in_a_trial(program: Program) -> None:
    """Without the variable the hook changes nothing; other sitecustomize modules run all the same."""
    other = program.folder / "other"
    other.mkdir()
    (other / "sitecustomize.py").write_text("print('other')")
    program.path.append(other)
    code = "import sys, wandb; print(type(sys.meta_path[0]).__name__, wandb.run._log.__doc__); wandb.log({'a': 1})"
    assert "Finder Its own words." in program.run(code)
    program.metrics.unlink()
    assert program.run(code, PTYDASK_METRICS=None).splitlines()[0] == "other"
    assert "sitecustomize.Finder" not in program.run("import sys; print(sys.meta_path)", PTYDASK_METRICS=None)
    assert program.rows() == []


def test_other_sitecustomize_modules_run(program: Program) -> None:
    """The next one on the path runs as it would have, under its name; one that chains likewise ends the chain."""
    chaining = """
import sys, os, importlib.machinery, importlib.util
print("first", __name__, os.path.basename(os.path.dirname(__file__)))
MINE = True
rest = [p for p in sys.path if os.path.realpath(p) != os.path.dirname(os.path.realpath(__file__))]
spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""
    for name, text in (("one", chaining), ("two", "print('second')")):
        (program.folder / name).mkdir()
        (program.folder / name / "sitecustomize.py").write_text(text)
        program.path.append(program.folder / name)
    said = program.run(f"import sitecustomize; print(sitecustomize.MINE); {LOG_ONE}")
    assert said.splitlines() == ["first sitecustomize one", "second", "True"]
    assert program.rows() == [(0, {"a": 0.5})]


def test_a_broken_sitecustomize_is_pythons_to_report(program: Program) -> None:
    """It is said as without the hook, and the program and its metrics are there."""
    (program.folder / "other").mkdir()
    (program.folder / "other" / "sitecustomize.py").write_text("raise ValueError('broken')")
    program.path.append(program.folder / "other")
    with pytest.raises(AssertionError, match=r"Error in sitecustomize.*\n*.*ValueError: broken"):
        program.run(LOG_ONE)
    assert program.rows() == [(0, {"a": 0.5})]


def test_nothing_of_the_hook_reaches_the_program(program: Program) -> None:
    """A file that cannot be written, values that cannot be read, other signatures: the program logs as before."""
    code = """
import wandb
class Bad:
    size = 1
    def item(self): raise RuntimeError("no")
wandb.log({"a": Bad(), "b": 1})
wandb.log({"c": 10 ** 5000})
try: wandb.log([1])
except TypeError as error: print(error)
print(len(wandb.run.logged))
"""
    assert program.run(code).splitlines() == ["a dictionary, please", "2"]
    assert program.rows() == []
    assert program.run(code, PTYDASK_METRICS="/nowhere/at/all").splitlines()[-1] == "2"
    fake = program.folder / "site" / "wandb" / "sdk" / "wandb_run.py"
    fake.write_text("class Run:\n    def log(self, *a): self._log(*a)\n    def _log(self, *a): print(a)\n")
    assert program.run("import wandb; wandb.log(1, 2, 3, 4)") == "(1, 2, 3, 4)\n"
    fake.write_text("class Run:\n    def log(self, *a): print(a)\n")  # no _log at all
    assert program.run("import wandb; wandb.log(1)") == "(1,)\n"


def test_an_older_wandb(program: Program) -> None:
    """Up to 0.19 the step has another name: rows and their parts are found all the same."""
    fake = program.folder / "site" / "wandb" / "sdk" / "wandb_run.py"
    fake.write_text(FAKE.replace("_local_step", "_step"))
    program.run("import wandb\nwandb.log({'a': 1}, commit=False)\nwandb.log({'b': 2})\nwandb.log({'a': 3}, step=7)")
    assert program.rows() == [(0, {"a": 1.0}), (0, {"b": 2.0}), (7, {"a": 3.0})]


def test_the_programs_path_and_modules_stay(program: Program) -> None:
    """sys.path is what PYTHONPATH makes it, W&B's module has its own loader, and no module more is loaded."""
    code = """
import sys; print(sorted(set(sys.modules) - {"sitecustomize", "__future__"})); print(sys.path[1:])
import wandb.sdk.wandb_run as module
print(type(module.__loader__).__name__, "exec_module" in vars(module.__loader__), module.__spec__.origin[-12:])
"""
    with_hook = program.run(code)
    program.path[0] = program.folder
    without = program.run(code)
    assert with_hook.replace(str(HOOK), str(program.folder)) == without


def test_a_run_stays_offline_and_in_its_folder(program: Program) -> None:
    """Whatever else the program asks W&B for is passed on; a run that it disables stays disabled."""
    (program.folder / "site" / "wandb" / "sdk" / "wandb_init.py").write_text(
        "def init(entity=None, project=None, dir=None, mode=None): return project, dir, mode\n"
    )
    code = """
import inspect
from wandb.sdk.wandb_init import init
print(*init(project="p", dir="x", mode="online"), *init(None, "q", mode="disabled"), init.__name__)
print(*inspect.signature(init).parameters)
"""
    assert program.run(code).splitlines() == ["p None offline q None disabled init", "entity project dir mode"]
    assert program.run(code, PTYDASK_METRICS=None).splitlines()[0] == "p x online q None disabled init"


def test_a_program_with_an_import_hook_of_its_own(program: Program) -> None:
    """One that wraps loaders, as tracers do, leaves one line for each call."""
    code = """
import importlib.util, sys
class Loader:
    def __init__(self, loader): self.loader = loader
    def create_module(self, spec): return self.loader.create_module(spec)
    def exec_module(self, module): self.loader.exec_module(module)
class Tracer:
    busy = False
    def find_spec(self, name, path=None, target=None):
        if Tracer.busy: return None
        Tracer.busy = True
        spec = importlib.util.find_spec(name)
        Tracer.busy = False
        if spec is not None and spec.loader is not None: spec.loader = Loader(spec.loader)
        return spec
sys.meta_path.insert(0, Tracer())
import wandb
wandb.log({"a": 0.5})
"""
    program.run(code)
    sys_path_order = code.replace("insert(0, Tracer())", "insert(1, Tracer())")
    program.run(sys_path_order)
    assert program.rows() == [(0, {"a": 0.5})] * 2


def test_the_hook_is_python_3_8() -> None:
    """Its syntax is known to every Python that a program may have, and it imports the standard library only."""
    tree = ast.parse((HOOK / "sitecustomize.py").read_text(), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"os", "sys", "json", "time"}


def test_another_python(program: Program) -> None:
    """A program with an interpreter of its own is heard as well."""
    own = os.path.realpath(sys.executable)
    found = [shutil.which(f"python3.{minor}", path="/usr/bin:/usr/local/bin") for minor in range(8, 16)]
    others = [python for python in found if python and os.path.realpath(python) != own]
    if not others:
        pytest.skip("no other Python on this machine")
    for python in others:
        program.metrics.unlink(missing_ok=True)
        program.run(LOG_ONE, python=python)
        assert program.rows() == [(0, {"a": 0.5})]


def test_the_wheel_ships_the_hook(tmp_path: Path) -> None:
    """The hook is no module of the package, but a file that the wheel has."""
    project = Path(__file__).parent.parent
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, check=True)
    import zipfile

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert "ptydask/engines/command/hook/sitecustomize.py" in packed.namelist()


def test_the_lines_are_json(program: Program) -> None:
    """Each line of the hook is what the protocol says, for readers other than ours."""
    program.run(LOG_ONE)
    line = json.loads(program.metrics.read_text())
    assert set(line) == {"step", "metrics", "run", "time"}
    assert abs(line["time"] - time.time()) < 60
