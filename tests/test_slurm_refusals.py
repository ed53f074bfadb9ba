"""Studies that a SLURM cannot run end soon, with one line; strangers get nothing from one that runs."""

from __future__ import annotations

import asyncio
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
import pytest
import yaml
from distributed import Security
from distributed.comm import connect
from slurm_sandbox import Job, Sandbox
from slurm_studies import STEPS, Study, study, worker_processes, write_profile

Params = Callable[..., Path]

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


# --- refused ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    profile: Mapping[str, object]
    """What makes it impossible."""
    says: str
    """In the line that ends it."""
    advice: str
    """In it, too."""
    deaths: int = 0
    """Jobs that die for it."""


ODD = """\
import importlib.metadata

true = importlib.metadata.version
importlib.metadata.version = lambda name: "4.99" if name == "optuna" else true(name)
"""
"""A sitecustomize.py of an environment with another Optuna."""
CASES = {
    "python": Case(
        {"python": "/nonexistent/python"},
        "the python of the profile, /nonexistent/python, is not there on node",
        "set `python` of the profile",
        deaths=5,
    ),
    "module": Case(
        {"modules": ["nonexistent/1.0"]}, "module load nonexistent/1.0 failed on node", "`module avail`", deaths=5
    ),
    "packages": Case(
        {"python": "{folder}/bare/bin/python"},
        "No module named 'distributed'",
        "the Python of the jobs needs ptydask and all that it uses: see `python` and `environment` of the profile",
        deaths=5,
    ),
    "engine": Case(
        {"environment": ["unset PYTHONPATH"]},
        f"the Python of the workers, {sys.executable} on ",
        "no engine is called 'toy'; known: callable, command, ptyrad, repeat; give the workers the environment that "
        "this command runs in",
    ),
    "versions": Case(
        {"environment": ["export PYTHONPATH={folder}:$PYTHONPATH"]},
        "has optuna 4.99 (here: ",
        "give the workers the environment that this command runs in",
    ),
    "partition": Case({"queue": "nope"}, "the job was not accepted: invalid partition specified: nope", "`sinfo -s`"),
    "option": Case(
        {"directives": ["--nope=1"]}, "not accepted: unrecognized option '--nope=1'", "`directives` of the profile"
    ),
    "memory": Case(
        {"memory": "64GB"}, "not accepted: Memory specification can not be satisfied", '`sinfo -o "%P %c %m %G"`'
    ),
    "closed": Case({"queue": "closed"}, "will not start: PartitionDown: the partition is down", "`queue` of the"),
    "walltime": Case(
        {"queue": "short", "walltime": "9-00:00:00"},
        "will not start: PartitionTimeLimit: its walltime is longer than the partition allows",
        "`walltime` of the profile",
    ),
}


@dataclass(frozen=True)
class Refused:
    """How such a run ended."""

    folder: Path
    code: int
    stdout: str
    stderr: str
    left: list[Job]


@pytest.fixture(scope="module")
def refused(slurm_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Refused]]:
    """All of them, a few at a time: most of it is waiting."""
    top = tmp_path_factory.mktemp("refused")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", top / "bare"], check=True)
    (top / "sitecustomize.py").write_text(ODD)
    with ThreadPoolExecutor(3) as pool:
        ends = {name: pool.submit(end_of, name, case, slurm_sandbox, top) for name, case in CASES.items()}
        yield {name: end.result() for name, end in ends.items()}
    slurm_sandbox.clean()


def end_of(name: str, case: Case, slurm: Sandbox, top: Path) -> Refused:
    folder = top / name
    folder.mkdir()
    params = {
        "init_params": {},
        "hypertune_params": {
            "if_hypertune": True,
            "n_trials": 2,
            "study_name": name,
            "tune_params": {"scale": {"state": True, "suggest": "float", "kwargs": {"low": 0.8, "high": 1.2}}},
        },
        "recon_params": {"output_dir": str(folder / "out")},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    profile = write_profile(folder, **yaml.safe_load(yaml.safe_dump(dict(case.profile)).replace("{folder}", str(top))))
    command = [sys.executable, "-m", "ptydask", "run", "params.yaml", "--engine", "toy", "--cluster", str(profile)]
    done = subprocess.run(
        command, env=dict(slurm.env), cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    left = [job for job in slurm.jobs() if job.name.startswith(f"ptydask-{name}-") and not job.over]
    return Refused(folder, done.returncode, done.stdout, done.stderr, left)


@pytest.mark.parametrize("name", CASES)
def test_refused(name: str, refused: dict[str, Refused]) -> None:
    """One line says what is wrong and what to do; no job is left, no key, and logs only of jobs that died."""
    case, ended = CASES[name], refused[name]
    assert ended.code == 1, ended.stderr
    lines = ended.stderr.splitlines()
    assert [line for line in lines if line.startswith("ptydask: ")] == lines[-1:]
    assert case.says in lines[-1]
    assert case.advice in lines[-1]
    assert "Traceback" not in ended.stderr
    assert not ended.stdout
    assert not [job for job in ended.left if job.state != "COMPLETING"]
    assert not list(ended.folder.rglob("*.pem"))
    logs = sorted(path for path in ended.folder.rglob("*.out") if path.is_file())
    assert len(logs) == case.deaths
    if case.deaths:
        (named,) = re.findall(r"\((/\S+\.out)\)", lines[-1])
        assert Path(named) in logs
        assert case.says.partition(" on node")[0] in Path(named).read_text()
    else:
        assert sorted(path.name for path in ended.folder.iterdir()) == ["cluster-test.yaml", "params.yaml"]


# --- strangers ----------------------------------------------------------------------------------------


def listening(processes: list[psutil.Process]) -> dict[str, str]:
    """``host:port`` -> the process's command line, of all TCP sockets that listen."""
    found = {}
    for process in processes:
        for at in process.net_connections("tcp"):
            if at.status == psutil.CONN_LISTEN:
                found[f"{at.laddr.ip}:{at.laddr.port}"] = " ".join(process.cmdline())
    return found


async def answer(address: str, **connection: object) -> str:
    """Who a Dask server says it is; empty where it does not talk to us."""
    try:
        comm = await connect(address, timeout=4, **connection)
        try:
            await asyncio.wait_for(comm.write({"op": "identity", "reply": True}), 4)
            return str((await asyncio.wait_for(comm.read(), 4))["type"])
        finally:
            comm.abort()
    except (OSError, TimeoutError):
        return ""


async def answers(places: list[str], protocol: str, **connection: object) -> dict[str, str]:
    got = await asyncio.gather(*(answer(f"{protocol}://{place}", **connection) for place in places))
    return dict(zip(places, got, strict=True))


def speaks_http(place: str) -> bool:
    there = HTTPConnection(place, timeout=4)
    try:
        there.request("GET", "/")
        return there.getresponse().status > 0
    except (OSError, HTTPException):
        return False
    finally:
        there.close()


def with_keys(keys: Path) -> dict[str, object]:
    """What the run's own workers connect with."""
    own = Security(
        require_encryption=True,
        tls_ca_file=str(keys / "certificate.pem"),
        tls_client_cert=str(keys / "certificate.pem"),
        tls_client_key=str(keys / "key.pem"),
    )
    return own.get_connection_args("client")


def test_strangers_get_nothing(slurm: Sandbox, toy_params: Params) -> None:
    """Scheduler, workers and nannies talk TLS, and with nobody who lacks the run's certificate; keys are the user's."""
    params = toy_params(walk=True, iterations=STEPS, sleep=1.2)
    with study(slurm, params, "--workers", 2, total=2) as it:
        it.until(lambda: it.under_way() >= 2)
        keys = it.results.with_name("toy.trials") / "keys"
        assert stat.S_IMODE(keys.stat().st_mode) == 0o700
        assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()} == {
            "certificate.pem": 0o600,
            "key.pem": 0o600,
        }
        check_doors(it, with_keys(keys))
        assert it.finish() == 0, it.text
    assert not keys.exists()
    assert all(record.attempt == 1 for record in it.expect_all())


def check_doors(it: Study, own: dict[str, object]) -> None:
    jobs = [job.id for job in it.running()]
    doors = listening([psutil.Process(it.process.pid), *(one for job in jobs for one in it.slurm.processes(job))])
    places = sorted(doors)
    known = asyncio.run(answers(places, "tls", **own))
    assert sorted(filter(None, known.values())) == ["Nanny", "Nanny", "Scheduler", "Worker", "Worker"]
    assert sum(len(worker_processes(it.slurm, job)) for job in jobs) == 2

    for place in (place for place, who in known.items() if not who):  # the dashboard, and Dask's servers without pages
        assert place.startswith("127.0.0.1:"), doors[place]
        assert speaks_http(place), doors[place]
    closed = [place for place, who in known.items() if who]
    other = Security.temporary().get_connection_args("client")
    assert asyncio.run(answers(closed, "tls", **other)) == dict.fromkeys(closed, "")
    assert asyncio.run(answers(closed, "tcp")) == dict.fromkeys(closed, "")
    assert not any(speaks_http(place) for place in closed)
