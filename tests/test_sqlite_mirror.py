"""The SQLite study beside a run, and others who hold its file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import forked
import optuna
import pytest
from optuna.storages import RDBStorage

from ptydask.errors import StorageError
from ptydask.storage import mirror
from ptydask.storage.mirror import SqliteMirror, mirrored_trials

STORE = "a" * 32


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "study of mine.sqlite3"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_BUSY", 0.01)
    monkeypatch.setattr(mirror, "PATIENCE", 0.05)


@contextmanager
def opened(file: Path, waiting: Callable[[str], None] = lambda _: None, more: str = "") -> Iterator[SqliteMirror]:
    copy = SqliteMirror(f"sqlite:///{more or file}", "s", "minimize", STORE, waiting)
    try:
        yield copy
    finally:
        copy.close()


@contextmanager
def held(file: Path, how: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
    """Somebody has a transaction open; ``rollback`` lets go."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute(f"BEGIN {how}")
        yield other


def trials(count: int = 3) -> list[optuna.trial.FrozenTrial]:
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=count)
    return study.get_trials()


def copied(file: Path) -> list[int]:
    storage = RDBStorage(f"sqlite:///{file}")
    marks = [trial.user_attrs["ptydask"][1] for trial in optuna.load_study(study_name="s", storage=storage).trials]
    storage.remove_session()
    storage.engine.dispose()
    return marks


def test_in_the_middle_it_falls_behind_and_catches_up(file: Path) -> None:
    """Whoever holds it is named by what they do: the word is "locked", whatever Optuna puts over it."""
    with opened(file) as copy:
        with held(file), pytest.raises(StorageError, match=r"behind.*locked") as caught:
            copy.update(trials())
        assert "\n" not in str(caught.value)
        copy.update(trials())
    assert copied(file) == [0, 1, 2]


@pytest.mark.parametrize("how", ["IMMEDIATE", "EXCLUSIVE"])
def test_at_the_end_it_is_waited_for(file: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "PATIENCE", 60.0)
    with opened(file) as copy, held(file, how) as other:
        reasons: list[str] = []

        def let_go(why: str) -> None:
            reasons.append(why)
            if len(reasons) == 2:
                other.rollback()

        copy.complete(trials(), let_go)
    assert len(reasons) == 2
    assert all("locked" in why for why in reasons)
    assert copied(file) == [0, 1, 2]


def test_not_for_ever(file: Path) -> None:
    with opened(file) as copy, held(file), pytest.raises(StorageError, match=r"behind.*locked"):
        copy.complete(trials())


def test_at_the_start_it_is_waited_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there and held: waited for, then refused; what raises while it waits ends the waiting."""
    with opened(file):
        pass
    with held(file):
        with pytest.raises(StorageError, match=r"study of mine.*cannot be used.*locked"), opened(file):
            pass
        monkeypatch.setattr(mirror, "PATIENCE", 60.0)

        def stop(_why: str) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), opened(file, stop):
            pass
    with held(file) as other, opened(file, lambda _why: other.rollback()):
        pass


def test_held_between_two_steps_of_opening(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may take the file after it was found to be free."""
    real, held_once, reasons = optuna.create_study, [sqlite3.OperationalError("database is locked")], []

    def create_study(**arguments: object) -> optuna.Study:
        if held_once:
            raise held_once.pop()
        return real(**arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(optuna, "create_study", create_study)
    monkeypatch.setattr(mirror, "PATIENCE", 60.0)
    with opened(file, reasons.append):
        assert len(reasons) == 1


def test_what_cannot_be_written(file: Path, tmp_path: Path) -> None:
    """Read-only, no database, no folder: each in plain words, when it is opened."""
    with opened(file):
        pass
    text = tmp_path / "text"
    text.write_text("no database " * 100)
    for url, word in [
        (f"file:{file}?mode=ro&uri=true", "read-only"),
        (str(text), "no SQLite database"),
        (str(tmp_path / "missing" / "s.db"), "folder"),
    ]:
        with pytest.raises(StorageError, match=word), opened(file, more=url):
            pass


@pytest.mark.parametrize("said", ["database or disk is full", "disk I/O error"])
def test_a_full_disk_is_not_waited_for(file: Path, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_more: object) -> int:
        raise optuna.exceptions.StorageInternalError("An exception is raised") from sqlite3.OperationalError(said)

    with opened(file) as copy:
        monkeypatch.setattr(copy._storage, "create_new_trial", refuse)
        with pytest.raises(StorageError, match="behind: its disk"):
            copy.complete(trials(), lambda _why: pytest.fail("it waits"))


def test_what_the_file_has(file: Path, tmp_path: Path) -> None:
    """By the store's own trials: enough to know, without writing, whether a study that is finished is also there."""
    url = f"sqlite:///{file}"
    assert mirrored_trials(url, STORE) == set()
    assert not file.exists()
    with opened(file) as copy:
        copy.update(trials())
        with held(file):
            assert mirrored_trials(url, STORE) == {0, 1, 2}  # a reader need not wait for a writer
    assert mirrored_trials(url, "another") == set()
    with held(file, "EXCLUSIVE"):
        assert mirrored_trials(url, STORE) == set()  # not known: the run finds out, and waits
    (tmp_path / "text").write_text("no database " * 100)
    for strange in (f"sqlite:///{tmp_path / 'text'}", f"sqlite:///file:{file}?uri=true", "sqlite:///:memory:"):
        assert mirrored_trials(strange, STORE) is None


RUN = """
import runpy, sys
from ptydask.storage import mirror
mirror.PATIENCE = 0.0
sys.argv = ["ptydask", "run", "toy.yaml", "--engine", "toy", "--workers", "1", "--cluster", "local", *{more}]
runpy.run_module("ptydask", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_the_same_command_brings_it_up_to_date(
    toy_params: Callable[..., Path], commands: forked.Commands, tmp_path: Path
) -> None:
    """Held when a run begins: nothing is started. When it ends: 75, all in the results, and the next command copies."""
    file = tmp_path / "h.sqlite3"
    toy_params(n_trials=2, name="s", hypertune={"storage_path": f"sqlite:///{file}"}).rename(tmp_path / "toy.yaml")

    def run(*more: str) -> tuple[int, str]:
        done = commands.run([], tmp_path, code=RUN.format(more=more))
        return done.returncode, done.stderr

    assert run()[0] == 0
    with held(file):
        code, said = run("--trials", "3")
        assert (code, "locked" in said, "trial 2" in said) == (1, True, False)
    file.rename(tmp_path / "elsewhere")
    with closing(sqlite3.connect(file)):
        pass
    with held(file):
        code, said = run()
        assert (code, "up to date" in said, "locked" in said) == (75, True, True), said
    code, said = run()
    assert (code, "2 trials in the SQLite study" in said) == (0, True), said
    assert copied(file) == [0, 1]
    code, said = run()
    assert (code, "nothing left to do" in said) == (0, True)


HELD_LATER = """
import sqlite3
from ptydask.driver import loop

check = loop.check_mirror

def check_and_hold(*args):
    check(*args)
    global other
    other = sqlite3.connect("h.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

loop.check_mirror = check_and_hold
"""


@pytest.mark.slow
def test_held_while_the_workers_come_up(
    toy_params: Callable[..., Path], commands: forked.Commands, tmp_path: Path
) -> None:
    """It is said that it is waited for: whoever is told may stop the run meanwhile."""
    storage = {"storage_path": f"sqlite:///{tmp_path / 'h.sqlite3'}"}
    toy_params(n_trials=1, name="s", hypertune=storage).rename(tmp_path / "toy.yaml")
    done = commands.run([], tmp_path, code=HELD_LATER + RUN.format(more=()).replace("= 0.0", "= 3.0"))
    assert "waiting for it" in done.stderr
    assert done.returncode == 1
    assert "trial 0" not in done.stderr
