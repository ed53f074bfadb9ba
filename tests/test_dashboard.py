"""``ptydask dashboard``: optuna-dashboard on a results file, finished or growing."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import store_cases as cases
from optuna.distributions import FloatDistribution

from ptydask import sampling
from ptydask.analysis.dashboard import DashboardServer, ResultsFollower
from ptydask.cli import main
from ptydask.distributions import FloatRange
from ptydask.errors import StoreError, UsageError
from ptydask.store import Store

pytestmark = pytest.mark.slow


def get(url: str, path: str) -> Any:
    """What the server answers; JSON decoded."""
    where = urlsplit(url)
    connection = HTTPConnection(str(where.hostname), where.port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, (path, answer.status)
        return json.loads(text) if "json" in str(answer.getheader("Content-Type")) else text
    finally:
        connection.close()


def states(follower: ResultsFollower) -> list[str]:
    return [trial.state.name for trial in follower.storage.get_all_trials(0)]


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    """Prints its address, serves page and study on this machine alone, and ends cleanly by Ctrl-C."""
    file = cases.packed(tmp_path / "s.h5", [cases.record(0), cases.failed(1), cases.record(2)])
    command = [sys.executable, "-m", "ptydask", "dashboard", str(file), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            assert b"<html" in get(url, "/dashboard").lower()
            (study,) = get(url, "/api/studies")["study_summaries"]
            assert study["study_name"] == "tBL_WSe2"
            found = get(url, f"/api/studies/{study['study_id']}")
            assert [(t["number"], t["state"]) for t in found["trials"]] == [
                (0, "Complete"),
                (1, "Fail"),
                (2, "Complete"),
            ]
            assert found["trials"][0]["intermediate_values"] == [{"step": n, "value": v} for n, v in _CURVE]
        finally:
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert out == ""


_CURVE = [(1, 0.9), (2, 0.7), (3, 0.5)]


def test_new_trials_appear(tmp_path: Path) -> None:
    """Of a running study: a number that was under way becomes its trial, with its own times, and no other changes."""
    space = sampling.search_space_json({"scale": FloatRange(0.9, 1.1), "rotation": FloatRange(-5.0, 2.5)})
    store = Store.open(tmp_path / "s.h5", cases.meta(search_space_json=space))
    cases.put(store, cases.record(0), cases.output(0))
    cases.put(store, cases.record(2, error=0.3), cases.output(2))
    store.refresh(force=True)
    follower = ResultsFollower(tmp_path / "s.h5")
    assert follower.live
    assert states(follower) == ["COMPLETE", "RUNNING", "COMPLETE"]
    first = follower.storage.get_all_trials(0)[0]

    cases.put(store, cases.record(1, error=0.1, started="2025-01-01T10:00:00+00:00"), cases.output(1))
    cases.put(store, cases.failed(4))
    assert follower.update() == 4
    assert states(follower) == ["COMPLETE", "COMPLETE", "COMPLETE", "RUNNING", "FAIL"]
    new = follower.storage.get_trial(1)
    assert new.intermediate_values == dict(_CURVE)
    assert new.params == {"rotation": -0.5, "scale": 0.98}
    assert new.duration is not None
    assert new.duration.total_seconds() == pytest.approx(0.3)
    assert follower.storage.get_best_trial(0).number == 1
    assert follower.storage.get_all_trials(0)[0] == first

    cases.put(store, cases.record(5), cases.output(5))  # its rotation is 3.5: a person's own guess
    follower.update()
    ranges = [trial.distributions for trial in follower.storage.get_all_trials(0) if trial.params]
    assert ranges[0]["rotation"] == FloatDistribution(-5.0, 3.5)
    assert all(found == ranges[0] for found in ranges)

    store.finish()
    follower.update()
    assert not follower.live
    assert states(follower)[3] == "FAIL"


def test_another_study_under_the_same_name(tmp_path: Path) -> None:
    """Its trials take the place of the first one's."""
    follower = ResultsFollower(cases.packed(tmp_path / "s.h5", [cases.record(0), cases.failed(1)]))
    (tmp_path / "s.h5").unlink()
    cases.packed(tmp_path / "s.h5", [cases.failed(0)], name="other")
    assert follower.update() == 1
    (study,) = follower.storage.get_all_studies()
    assert study.study_name == "other"
    assert [t.state.name for t in follower.storage.get_all_trials(study._study_id)] == ["FAIL"]


def test_the_page_follows(tmp_path: Path) -> None:
    """The server looks at the file by itself."""
    store = Store.open(tmp_path / "s.h5", cases.meta())
    cases.put(store, cases.record(0), cases.output(0))
    store.refresh(force=True)
    server = DashboardServer(tmp_path / "s.h5", "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=(0.05,))
    thread.start()
    try:
        assert len(get(server.url, "/api/studies/0")["trials"]) == 1
        cases.put(store, cases.record(1), cases.output(1))
        deadline = time.monotonic() + 30
        while len(get(server.url, "/api/studies/0")["trials"]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        server.stop()
        thread.join(30)
        store.finish()
    assert not thread.is_alive()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """Asked for, it is an error of one line; not asked for, another one is found."""
    file = cases.packed(tmp_path / "s.h5", [cases.record(0)])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port}: .*--port 0 takes a free one"):
            DashboardServer(file, "127.0.0.1", port)
    with pytest.raises(UsageError, match="--host"):
        DashboardServer(file, "192.0.2.1", None)


@pytest.mark.parametrize("port", ["x", "-1", "65536", "1" * 5000])
def test_bad_port(port: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2."""
    assert main(["dashboard", str(tmp_path / "s.h5"), "--port", port]) == 2
    assert "must be a whole number, from 0 to 65535" in capsys.readouterr().err


def test_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there, before any port is taken."""
    with pytest.raises(StoreError):
        DashboardServer(tmp_path / "none.h5", "127.0.0.1", 0)
    assert main(["dashboard", str(tmp_path / "none.h5")]) == 2
    assert "none.h5" in capsys.readouterr().err
