"""Ctrl-C and SIGTERM at any moment: one exit code, no traceback, nothing half done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import forked
import killed_runs
import psutil
import pytest

from ptydask import cli, stop_signals
from ptydask.stop_signals import StopSignals, Terminated, held_back
from ptydask.store import reader

INT, TERM = signal.SIGINT, signal.SIGTERM
EXCEPTIONS = {INT: KeyboardInterrupt, TERM: Terminated}


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Whatever a test leaves, the next one begins as a program does."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (INT, TERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved on by a test."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("number", EXCEPTIONS)
def test_a_signal_raises_once(number: signal.Signals) -> None:
    """Where the process is; from then on, and after it, it is ignored: what is under way has to be closed."""
    with pytest.raises(EXCEPTIONS[number]), StopSignals():  # noqa: PT012
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            signal.raise_signal(INT)
    signal.raise_signal(number)


def test_nothing_came() -> None:
    """The handlers are again who they were."""
    with StopSignals():
        pass
    assert signal.getsignal(INT) is signal.default_int_handler


@pytest.mark.parametrize("number", EXCEPTIONS)
def test_deferred(number: signal.Signals) -> None:
    """It is raised where it does no harm: where it is asked for, and not before."""
    done = []
    with pytest.raises(EXCEPTIONS[number]), StopSignals() as stop, stop.deferred():  # noqa: PT012
        stop.raise_if_asked()
        signal.raise_signal(number)
        done.append("what was under way")
        stop.raise_if_asked()
        done.append("the next")
    assert done == ["what was under way"]


def test_a_second_wish_does_not_wait(clock: list[float]) -> None:
    """Pressed twice at once it is one wish; pressed again where nothing came of it, it holds at once."""
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop, stop.deferred():  # noqa: PT012
        signal.raise_signal(INT)
        signal.raise_signal(INT)
        clock[0] += 1.5
        signal.raise_signal(INT)
        pytest.fail("it was not raised")


def test_what_was_swallowed_can_be_wished_again(clock: list[float]) -> None:
    """Some program catches everything: the next Ctrl-C is heard as well. Not while a run is being closed."""
    with pytest.raises(KeyboardInterrupt), StopSignals(INT) as stop:  # noqa: PT012
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(INT)
            clock[0] += 5
        with stop.deferred():
            pytest.fail("it was begun")


def test_closing_is_not_disturbed(clock: list[float]) -> None:
    """However often, and however late: a run that is being closed is closed."""
    closed = []
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop, stop.deferred():  # noqa: PT012
        try:
            signal.raise_signal(INT)
            stop.raise_if_asked()
        finally:
            for _ in range(3):
                clock[0] += 5
                signal.raise_signal(INT)
                stop.raise_if_asked()
            closed.append("all")
    assert closed


def test_too_late_to_matter() -> None:
    """Work that ends before it is asked for ends as it does; whoever was there before may still be told."""
    with StopSignals() as stop, stop.deferred():
        signal.raise_signal(INT)
    with pytest.raises(KeyboardInterrupt):
        stop.pass_on()


def test_a_wait_is_answered_where_a_signal_comes() -> None:
    """Once, and raised at its end; what came before is raised at its beginning."""
    answers, done = [], []
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop, stop.deferred():  # noqa: PT012
        with stop.answered_by(lambda: answers.append("heard")):
            with held_back():
                signal.raise_signal(INT)
                signal.raise_signal(INT)
            done.append(list(answers))
            signal.raise_signal(INT)
        pytest.fail("it was not raised")
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop, stop.deferred():  # noqa: PT012
        signal.raise_signal(INT)
        with stop.answered_by(lambda: answers.append("too late")):
            pytest.fail("it was not raised")
    assert (done, answers) == ([["heard"]], ["heard"])


def test_a_wish_to_stop_does_not_depend_on_its_answer() -> None:
    def answer() -> None:
        raise RuntimeError("reentrant call")

    with pytest.raises(KeyboardInterrupt), StopSignals() as stop, stop.deferred(), stop.answered_by(answer):
        signal.raise_signal(INT)


def test_at_once_within_deferred() -> None:
    """What came before is raised at its beginning, what comes in it where it is."""
    for before in (True, False):
        reached = []
        with pytest.raises(KeyboardInterrupt), StopSignals() as stop, stop.deferred():  # noqa: PT012
            if before:
                signal.raise_signal(INT)
            with stop.at_once():
                reached.append("the stretch")
                signal.raise_signal(INT)
                reached.append("its end")
        assert reached == ([] if before else ["the stretch"])


@pytest.mark.parametrize("error", [UnboundLocalError("result"), AttributeError("flush"), ImportError("half")])
def test_what_an_interrupted_callback_makes_of_it(error: Exception) -> None:
    """HDF5 and Dask raise errors of their own where a signal breaks off a callback."""
    with pytest.raises(Terminated), StopSignals():  # noqa: PT012
        try:
            signal.raise_signal(TERM)
        except Terminated:
            raise error from None


def test_it_is_itself_again_at_once() -> None:
    """So that whoever closes the run knows why."""
    with StopSignals() as stop, pytest.raises(KeyboardInterrupt), stop.deferred():  # noqa: PT012
        with pytest.raises(KeyboardInterrupt), stop.at_once():  # noqa: PT012
            try:
                signal.raise_signal(INT)
            except KeyboardInterrupt:
                raise OSError("of HDF5") from None
        raise OSError("of Dask")


def test_an_error_of_its_own_stays() -> None:
    with pytest.raises(OSError, match="disk"), StopSignals() as stop, stop.deferred(), stop.at_once():
        raise OSError("disk")


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("deferred", [True, False])
def test_lost_in_a_destructor(deferred: bool, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised again, and nobody reads of an ignored exception."""
    monkeypatch.setattr(stop_signals, "_RESEND", 0.0)

    class Trap:
        def __del__(self) -> None:
            signal.raise_signal(INT)
            clock[0] += 2
            signal.raise_signal(INT)

    with pytest.raises(KeyboardInterrupt), StopSignals() as stop:  # noqa: PT012
        if deferred:
            with stop.deferred():
                Trap()
                stop.raise_if_asked()
        Trap()
        for _ in range(1000):
            time.sleep(0.01)


def test_an_ignored_sigint_stays_ignored() -> None:
    """A shell has a program behind & ignore it."""
    signal.signal(INT, signal.SIG_IGN)
    with StopSignals() as stop, stop.deferred():
        signal.raise_signal(INT)
        stop.raise_if_asked()


def test_nested() -> None:
    """A run within the command line: the inner one hears it, and the outer one its exception."""
    with pytest.raises(KeyboardInterrupt), StopSignals(INT):  # noqa: PT012
        with pytest.raises(KeyboardInterrupt), StopSignals() as stop, stop.deferred():  # noqa: PT012
            signal.raise_signal(INT)
            stop.raise_if_asked()
        signal.raise_signal(INT)
        raise KeyboardInterrupt


def test_held_back_within_deferred() -> None:
    """Dask is closed undisturbed, and the run then stopped."""
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop, stop.deferred():  # noqa: PT012
        with held_back():
            signal.raise_signal(INT)
        stop.raise_if_asked()


@pytest.mark.parametrize("outcome", [1, KeyboardInterrupt(), RuntimeError("of an interrupted import")])
def test_the_command_line_ends_with_130(outcome: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the signal has made of the command."""

    def main() -> int:
        try:
            signal.raise_signal(INT)
        except KeyboardInterrupt:
            if isinstance(outcome, BaseException):
                raise outcome from None
        return 1

    monkeypatch.setattr(cli, "main", main)
    assert cli.program() == 130


def test_a_code_that_is_known_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "main", lambda: 3)
    assert cli.program() == 3
    signal.raise_signal(INT)


# --- whole runs ---------------------------------------------------------------------------------------

MOMENTS = {
    "while Dask ends its workers": "distributed.deploy.spec:SpecCluster._correct_state_internal",
    "while the study is put right": "ptydask.driver.reconciler:Reconciler.reconcile_trials",
    "while the workers are told to go": "ptydask.clusters.local_workers:LocalWorkers.stop_workers",
    "while the cluster is closed": "distributed.deploy.cluster:Cluster.close",
    "while HDF5 writes": "ptydask.store.files:AsideFile.write",
    "while a file is written that was made in memory": "ptydask.store.files:AsideFile.put",
    "while it is packed": "ptydask.store.packed_study:pack",
    "when the file is there": "ptydask.store.contents:remove",
    "while the best is printed": "ptydask.cli.run:_print_best",
}
HOOK = """
import importlib, os, runpy, signal, sys, threading
module, _, path = {where!r}.partition(":")
*owners, name = path.split(".")
holder = importlib.import_module(module)
for owner in owners:
    holder = getattr(holder, owner)
kept, here = getattr(holder, name), os.getpid()
def hooked(*arguments, **more):
    setattr(holder, name, kept)
    for number in {numbers}:
        signal.pthread_kill(threading.main_thread().ident, number)
    return kept(*arguments, **more)
sys.argv[:] = ["ptydask", "run", "toy.yaml", "--engine", "toy", "--workers", "1", "--cluster", "local"]
import ptydask.driver.execute, ptydask.driver.loop, ptydask.store.packed_study
if path == "AsideFile.write":
    ptydask.store.packed_study._IN_MEMORY = -1
original = ptydask.driver.loop._StudyRun.run_trials
def run_trials(self):
    original(self)
    setattr(holder, name, hooked)
ptydask.driver.loop._StudyRun.run_trials = run_trials
runpy.run_module("ptydask", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.second
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_stopped_at_its_end(
    moment: str, toy_params: Callable[..., Path], commands: forked.Commands, tmp_path: Path
) -> None:
    """Ctrl-C, twice, in the closing: 130 (or 0, where all was done), not a line of a traceback, every trial there."""
    toy_params(n_trials=2)
    done = commands.run([], tmp_path, code=HOOK.format(where=MOMENTS[moment], numbers="(2, 2)"), timeout=60)
    assert done.returncode in ((130, -2) if moment != "when the file is there" else (0, 130, -2)), done.stderr
    assert not {"Traceback", "ignored"} & {word.strip(":") for word in done.stderr.split()}, done.stderr
    with reader.open(tmp_path / "out" / "toy.h5") as results:
        assert len(results.records()) == 2


@pytest.mark.slow
def test_while_it_is_imported(tmp_path: Path) -> None:
    """Before there is anything that could catch it: from the first line of the program on, 130 and not a word."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.abc, os, signal, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'ptydask.cli.merge':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-m", "ptydask", "--version"], env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.slow
@pytest.mark.second
@pytest.mark.parametrize(
    ("number", "group", "code"),
    [(INT, True, 130), (TERM, False, 75), (TERM, True, 75), (signal.SIGKILL, False, -signal.SIGKILL)],
)
def test_while_the_process_imports_that_workers_are_forks_of(
    number: signal.Signals,
    group: bool,
    code: int,
    toy_params: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No process stays, and of its socket neither file nor folder, even where the driver was killed."""
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    run = killed_runs.start(toy_params(), tmp_path / "log", "--cluster", "local")
    driver = psutil.Process(run.pid)
    while not (servers := killed_runs.fork_servers(driver)):
        time.sleep(0.01)
    assert [*temporary.glob("pymp-*/*")]
    below = driver.children(recursive=True)
    if group:
        os.killpg(run.pid, number)
    else:
        run.send_signal(number)
    assert run.wait(60) == code, (tmp_path / "log").read_text()
    assert not psutil.wait_procs([*servers, *below], timeout=30)[1]
    assert not [*temporary.glob("pymp-*")]
