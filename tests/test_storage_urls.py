"""storage_path as users write it: SQLite kept in step, PostgreSQL and Redis used directly."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import servers
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalRedisBackend

Ptydask = Callable[..., subprocess.CompletedProcess[str]]
Params = Callable[..., Path]
PASSWORD = "s3cr3t-Pa55"

pytestmark = [pytest.mark.slow, pytest.mark.second]


def run(ptydask: Ptydask, params: Path, *args: object) -> subprocess.CompletedProcess[str]:
    return ptydask("run", params, "--engine", "toy", "--workers", 2, *args)


def trials_of(ptydask: Ptydask, results: Path) -> dict[int, dict[str, object]]:
    return {t["number"]: t for t in json.loads(ptydask("ls", results, "--format", "json").stdout)}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "out" / "toy.h5"


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[RDBStorage]:
    storage = RDBStorage(f"sqlite:///{tmp_path / 'hypertune.sqlite3'}")
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def sqlite_params(toy_params: Params, **hypertune: object) -> Path:
    return toy_params(n_trials=3, hypertune={"storage_path": "sqlite:///hypertune.sqlite3", **hypertune})


def test_sqlite_has_every_trial(ptydask: Ptydask, toy_params: Params, results: Path, sqlite: RDBStorage) -> None:
    """What the results say is what Optuna Dashboard shows: states, values, parameters, curves."""
    done = run(ptydask, sqlite_params(toy_params))
    assert done.returncode == 0, done.stderr
    ours = trials_of(ptydask, results)
    mirrored = optuna.load_study(study_name="toy", storage=sqlite).trials
    assert len(mirrored) == 6
    for trial in mirrored:
        row = ours[trial.user_attrs["ptydask"][1]]
        assert (trial.value, trial.params, trial.state.name) == (row["error"], row["params"], row["state"])
        assert sorted(trial.intermediate_values) == [1, 2, 3]


def test_an_existing_sqlite_study_is_continued(
    ptydask: Ptydask, toy_params: Params, results: Path, sqlite: RDBStorage
) -> None:
    """Its trials inform the search and keep their place; ours come after them, and none is imported twice."""
    study = optuna.create_study(study_name="toy", storage=sqlite)
    among = {
        "scale": optuna.distributions.FloatDistribution(0.8, 1.2, step=0.02),
        "rotation": optuna.distributions.FloatDistribution(-4, 4),
    }
    for i in range(4):
        trial = study.ask(fixed_distributions=among)
        study.tell(trial, float(i))
    study.ask(fixed_distributions=among)  # left RUNNING by a job that was killed
    params = sqlite_params(toy_params)
    done = run(ptydask, params)
    assert done.returncode == 0, done.stderr
    assert "4 trials of study 'toy'" in done.stderr
    assert sorted(trials_of(ptydask, results)) == list(range(4, 10))
    again = run(ptydask, params, "--trials", 8)
    assert again.returncode == 0, again.stderr
    assert len(trials_of(ptydask, results)) == 8
    assert len(study.trials) == 5 + 8


def test_a_contrast_study_of_ptyrad_keeps_its_sign(
    ptydask: Ptydask, toy_params: Params, results: Path, sqlite: RDBStorage
) -> None:
    """PtyRAD minimises the negated contrast: in its study our values are negated, in the results they are not."""
    optuna.create_study(study_name="toy", storage=sqlite, direction="minimize")
    done = run(ptydask, sqlite_params(toy_params, error_metric="contrast"))
    assert done.returncode == 0, done.stderr
    ours = trials_of(ptydask, results)
    assert all(row["error"] > 0 for row in ours.values())  # type: ignore[operator]
    for trial in optuna.load_study(study_name="toy", storage=sqlite).trials:
        assert trial.value == -ours[trial.user_attrs["ptydask"][1]]["error"]  # type: ignore[operator]
    best = max(ours.values(), key=lambda row: row["error"])  # type: ignore[arg-type, return-value]
    assert json.loads(ptydask("best", results, "--format", "json").stdout)[0]["number"] == best["number"]


def test_an_unusable_sqlite_is_one_line(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """A file that is no database: named, no traceback, and left as it was."""
    (tmp_path / "hypertune.sqlite3").write_text("no database " * 100)
    done = run(ptydask, sqlite_params(toy_params))
    assert done.returncode == 1
    assert "hypertune.sqlite3" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert (tmp_path / "hypertune.sqlite3").read_text() == "no database " * 100


def nowhere(password: str, folder: Path, *outputs: str) -> None:
    """The password is in no output and in no file."""
    for text in outputs:
        assert password not in text
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".yaml":
            assert password.encode() not in path.read_bytes(), path


@pytest.mark.postgres
@pytest.mark.skipif(servers.postgres_programs() is None, reason="PostgreSQL's server programs are not installed")
def test_postgres(ptydask: Ptydask, toy_params: Params, results: Path, tmp_path: Path) -> None:
    """Workers use the server; a second run goes on; the password is nowhere."""
    pytest.importorskip("psycopg", reason="needs the package psycopg")
    with servers.postgres(PASSWORD) as url:
        params = toy_params(n_trials=3, hypertune={"storage_path": url})
        done = run(ptydask, params)
        assert done.returncode == 0, done.stderr
        more = run(ptydask, params, "--trials", 9)
        assert more.returncode == 0, more.stderr
        storage = RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"))
        study = optuna.load_study(study_name="toy", storage=storage)
        ours = trials_of(ptydask, results)
        assert {t.number: t.value for t in study.trials} == {n: row["error"] for n, row in ours.items()}
        assert len(ours) == 9
        storage.remove_session()
        storage.engine.dispose()
        lost = toy_params(name="lossy", n_trials=3, hypertune={"storage_path": url}, lose_once=str(tmp_path / "lost"))
        after_loss = run(ptydask, lost)
        assert after_loss.returncode == 0, after_loss.stderr
        assert len(trials_of(ptydask, tmp_path / "out" / "lossy.h5")) == 6
        wrong = toy_params(name="wrong", hypertune={"storage_path": url.replace(PASSWORD, PASSWORD + "x")})
        refused = run(ptydask, wrong)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    dead = run(ptydask, params, "--trials", 12)
    assert dead.returncode == 1
    assert "Traceback" not in dead.stderr
    nowhere(PASSWORD, tmp_path, *(x for d in (done, more, refused, dead) for x in (d.stdout, d.stderr)))
    shown = ptydask("show", results, 0).stdout + ptydask("best", results, "--format", "yaml").stdout
    assert PASSWORD not in shown


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_redis(ptydask: Ptydask, toy_params: Params, results: Path, tmp_path: Path) -> None:
    """Optuna's own Redis backend, used by the workers directly; the password is nowhere."""
    pytest.importorskip("redis", reason="needs the package redis")
    with servers.redis(PASSWORD) as url:
        done = run(ptydask, toy_params(n_trials=3, hypertune={"storage_path": url}))
        assert done.returncode == 0, done.stderr
        storage = JournalStorage(JournalRedisBackend(url))
        study = optuna.load_study(study_name="toy", storage=storage)
        ours = trials_of(ptydask, results)
        assert {t.number: t.value for t in study.trials} == {n: row["error"] for n, row in ours.items()}
        storage._backend._redis.close()  # type: ignore[attr-defined]
    nowhere(PASSWORD, tmp_path, done.stdout, done.stderr)
