"""The user's command, told when a run ends, stops, fails or gets stuck."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ptydask.clusters.jobqueue import JobQueue, profile_file
from ptydask.driver import execute, notification, stillness
from ptydask.driver.notification import RunFacts, make_environment, make_line, notify
from ptydask.driver.stillness import Stillness, mark_of, stuck_text
from ptydask.errors import ClusterError, explain_error, hide_password
from ptydask.model import TrialRecord, TrialState
from ptydask.run_snapshot import RunningTrial, RunSnapshot
from ptydask.stop_signals import Terminated

BEST = TrialRecord(number=5, state=TrialState.COMPLETE, error=0.25, params={"scale": 1.02}, metrics={"loss": 0.25})
FACTS = RunFacts("finished", "WSe2", Path("/data/a b/WSe2.h5"), 8, 8, 1, "loss", BEST)


def test_one_line_for_a_person() -> None:
    line = make_line(FACTS)
    for part in ("WSe2 finished", "8 of 8", "1 failed", "0.25", "trial 5", "/data/a b/WSe2.h5"):
        assert part in line
    stuck = make_line(replace(FACTS, event="stuck", best=None, failed=0, reason="no worker\nhas come"))
    assert "is stuck (no worker has come)" in stuck
    assert "best" not in stuck
    assert "failed" not in stuck
    assert "8 of 8 repeats" in make_line(replace(FACTS, best=None, noun="repeat"))


def test_facts_for_a_program() -> None:
    """Numbers in full, empty where there is none, no password."""
    hide_password("postgresql://u:s3cret99@h/db")
    environ = make_environment(replace(FACTS, reason="postgresql://u:s3cret99@h/db is gone"))
    assert environ["PTYDASK_EVENT"] == "finished"
    assert (environ["PTYDASK_BEST"], environ["PTYDASK_BEST_TRIAL"], environ["PTYDASK_METRIC"]) == ("0.25", "5", "loss")
    assert "s3cret99" not in "".join(environ.values())
    assert make_environment(replace(FACTS, best=None))["PTYDASK_BEST"] == ""


def test_the_command_is_told(tmp_path: Path) -> None:
    """By its environment and on its stdin; also one that reads neither, or closes its stdin at once."""
    out = tmp_path / "told"
    assert notify(f"(cat; echo $PTYDASK_STUDY $PTYDASK_RECORDED) > '{out}'", FACTS) == ""
    assert out.read_text().splitlines() == [make_line(FACTS), "WSe2 8"]
    assert notify("true", FACTS) == ""
    assert notify("exec <&-; sleep 0.1", FACTS) == ""


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("exit 3", "exit code 3"),
        ("echo the mail server is away >&2; exit 1", "mail server is away"),
        ("no-such-program-here", "127"),
        ("kill -9 $$", "-9"),
        ("printf '\\377'; exit 1", "exit code 1"),
        ("a\0b", "did not start"),
    ],
)
def test_what_goes_wrong_is_one_line(command: str, said: str) -> None:
    trouble = notify(command, FACTS)
    assert said in trouble
    assert "\n" not in trouble


def test_what_it_leaves_behind_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A command that sends in the background has ended, though what it started still holds its output."""
    monkeypatch.setattr(notification, "SECONDS", 0.5)
    assert notify(f"(sleep 0.7; touch '{tmp_path}/sent') & true", FACTS) == ""
    deadline = time.monotonic() + 20
    while not (tmp_path / "sent").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert notify("sleep 0.7 & echo why; exit 4", FACTS).endswith("exit code 4: why")


def test_it_has_only_so_much_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it left behind ends with it."""
    monkeypatch.setattr(notification, "SECONDS", 0.3)
    began = time.monotonic()
    assert "within" in notify(f"(sleep 2; touch '{tmp_path}/late') & sleep 60", FACTS)
    assert time.monotonic() - began < 10
    time.sleep(2)
    assert not (tmp_path / "late").exists()


# --- stuck --------------------------------------------------------------------------------------------


def snapshot(recorded: int = 0, workers: int = 1, step: int | None = None, waiting: str = "") -> RunSnapshot:
    running = () if step is None else (RunningTrial(recorded, {}, step, None, "", 0.0),)
    counts = {"complete": recorded}
    return RunSnapshot(
        "s", Path("s.h5"), 9, counts, None, running, workers, 0.0, None, None, "loss", "minimize", waiting=waiting
    )


HALF_AN_HOUR = stillness.PATIENCE


@pytest.mark.parametrize("step", [snapshot(1), snapshot(0, step=1), snapshot(0, workers=0), snapshot(0, step=2)])
def test_any_step_is_progress(step: RunSnapshot) -> None:
    """A trial that ended, an iteration, a worker that came or went."""
    before = Stillness(mark_of(snapshot()), 0.0)
    assert not before.then(mark_of(step), 1000.0).is_stuck(HALF_AN_HOUR + 1)
    assert before.then(mark_of(snapshot()), 1000.0).is_stuck(HALF_AN_HOUR + 1)
    assert not before.is_stuck(HALF_AN_HOUR - 1)


def test_it_is_told_once_and_again_after_a_step() -> None:
    still = Stillness(mark_of(snapshot()), 0.0).after_telling()
    assert not still.is_stuck(10 * HALF_AN_HOUR)
    still = still.then(mark_of(snapshot(1)), 10 * HALF_AN_HOUR)
    assert still.is_stuck(10 * HALF_AN_HOUR + 40 * HALF_AN_HOUR)


def test_what_takes_hours_is_not_stuck() -> None:
    """Steps of two hours: six hours of silence are no news. A queue of two hours is no step."""
    hours = 3600.0
    slow = Stillness(mark_of(snapshot(0, step=1)), 0.0).then(mark_of(snapshot(0, step=2)), 2 * hours)
    assert not slow.is_stuck(7 * hours)
    assert slow.is_stuck(8.1 * hours)
    queued = Stillness(None, 0.0).then(mark_of(snapshot()), 2 * hours)
    assert queued.is_stuck(2 * hours + HALF_AN_HOUR + 1)


def test_what_is_said_of_it() -> None:
    assert "no worker has come for 31 min" in stuck_text(None, 1860)
    assert "2 jobs pending" in stuck_text(snapshot(workers=0, waiting="2 jobs pending (Priority)"), 1860)
    assert "no trial has progressed" in stuck_text(snapshot(workers=2), 1860)
    assert "no repeat has" in stuck_text(replace(snapshot(workers=2), repeats=True), 1860)


# --- runs ---------------------------------------------------------------------------------------------


def test_a_profile_says_whom_to_tell(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text('queue: gpu\nnotify: mail -s "$PTYDASK_LINE" me@example.org\n')
    assert JobQueue(profile_file.read(path)).notify.startswith("mail -s")
    assert JobQueue(profile_file.complete_profile({})).notify == ""


@pytest.mark.slow
def test_a_run_tells_how_it_ended(ptydask: Callable[..., Any], toy_params: Callable[..., Path], tmp_path: Path) -> None:
    """Finished; its time over; failed; and nothing where nothing was left to do. Its failure is not the run's."""
    params, told = toy_params(n_trials=2), tmp_path / "told"

    def run(*more: object) -> subprocess.CompletedProcess[str]:
        command = f"echo $PTYDASK_EVENT $PTYDASK_RECORDED/$PTYDASK_TOTAL $PTYDASK_BEST_TRIAL >> {told}; cat >&2; exit 7"
        done: subprocess.CompletedProcess[str] = ptydask(
            "run", params, "--engine", "toy", "--workers", 1, "--cluster", "local", "--notify", command, *more
        )
        return done

    done = run()
    assert done.returncode == 0, done.stderr
    assert "exit code 7" in done.stderr
    best = json.loads(ptydask("best", tmp_path / "out" / "toy.h5", "--format", "json").stdout)[0]["number"]
    assert told.read_text() == f"finished 2/2 {best}\n"
    run()
    assert run("--trials", 4, "--timeout", 0.001).returncode == 75
    assert run("--results", tmp_path / "bad.h5", "--set", "init_params.bad_data=true").returncode == 2
    assert told.read_text().splitlines()[1:] == [f"stopped 2/4 {best}", "failed 0/2"]


class Telling:
    """A prepared run, as far as who is told of it goes."""

    notify, recorded, origin = "true", 0, None

    class options:
        total = 4

    class plan:
        name, results, metric = "s", Path("s.h5"), "loss"


def test_a_stuck_run_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the screen and to the command, once; while the first worker is awaited as well."""
    told, notices, now = [], [], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(notification, "notify", lambda _command, facts: told.append(facts.event) or "")

    class View:
        def update(self, _snapshot: object) -> None: ...
        def notice(self, text: str) -> None:
            notices.append(text)

    class Stop:
        def raise_if_asked(self) -> None: ...

    watcher = execute.Watcher(Telling(), View(), Stop())  # type: ignore[arg-type]
    for moment in (1.0, HALF_AN_HOUR + 1, HALF_AN_HOUR + 2):
        now[0] = moment
        watcher.wait_for_workers()
    assert (told, len(notices)) == (["stuck"], 1)
    for moment in (HALF_AN_HOUR + 3, 2 * HALF_AN_HOUR + 4, 2 * HALF_AN_HOUR + 5):
        now[0] = moment
        watcher.update(snapshot(workers=2))
    assert (told, len(notices)) == (["stuck", "stuck"], 2)


@pytest.mark.parametrize("signal", [KeyboardInterrupt, Terminated])
def test_a_stop_is_told_while_workers_start(signal: type[BaseException]) -> None:
    """At once: what is starting takes a while to close."""
    notices: list[str] = []

    def stop() -> None:
        raise signal

    parts = (SimpleNamespace(), SimpleNamespace(notice=notices.append), SimpleNamespace(raise_if_asked=stop))
    watcher = execute.Watcher(*parts)  # type: ignore[arg-type]
    with pytest.raises(signal):
        watcher.wait_for_workers()
    assert [notice.split(":")[0] for notice in notices] == ["stopping"]


def test_reasons() -> None:
    assert explain_error(ClusterError("no jobs")) == "no jobs"
    assert explain_error(KeyError("x")) == "KeyError: 'x'"
