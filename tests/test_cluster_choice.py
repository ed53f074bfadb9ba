"""Where a run goes: what --cluster means, and what makes `auto` choose SLURM."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ptydask import clusters
from ptydask.clusters import ClusterRequest, choose
from ptydask.clusters.jobqueue import JobQueue, Pbs, Slurm, slurm
from ptydask.clusters.settings import import_dask
from ptydask.errors import ClusterError, ConfigError, UsageError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that alone is the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def kind(place: object) -> str:
    """The batch system of one, the name of any other place's class."""
    return place.profile.system if isinstance(place, JobQueue) else type(place).__name__


def test_without_sbatch_it_is_this_machine(programs: Path) -> None:
    chosen = choose("auto")
    assert (kind(chosen.place), chosen.why) == ("ThisMachine", "sbatch is not on the PATH")


@pytest.mark.parametrize(
    "said",
    [
        "Slurmctld(primary) at node1 is UP",
        "Slurmctld(primary) at node0 is DOWN\nSlurmctld(backup) at node1 is UP",
        "Slurmctld(primary/backup) at node0/node1 are DOWN/UP",
    ],
)
def test_a_controller_that_is_up_means_slurm(programs: Path, said: str) -> None:
    """Also where only the backup controller is up, in the words of older SLURMs too."""
    program(programs, "sbatch", "exit 1")
    program(programs, "scontrol", f'[ "$1" = ping ] && echo "{said}"')
    chosen = choose("auto")
    assert (kind(chosen.place), chosen.why) == ("slurm", "SLURM answers: node1 is UP")


def test_a_controller_that_is_down_means_this_machine(programs: Path) -> None:
    program(programs, "sbatch", "exit 1")
    program(programs, "scontrol", 'echo "Slurmctld(primary) at node1 is DOWN"; exit 1')
    chosen = choose("auto")
    assert kind(chosen.place) == "ThisMachine"
    assert chosen.why == "SLURM does not answer"


def refusing(words: str) -> str:
    return f'[ "$1" = --test-only ] && /bin/cat >"$0.script"; echo "{words}" >&2; exit 1'


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("sbatch: error: invalid partition specified: nope", "queue"),
        ("sbatch: error: Invalid account or account/partition combination specified", "account"),
        ("allocation failure: Invalid qos specification", "qos"),
        ("allocation failure: Invalid generic resource (gres) specification", "gpu_type"),
        ("sbatch: error: Invalid node name specified", "node"),
    ],
)
def test_what_slurm_would_not_take(programs: Path, words: str, advice: str) -> None:
    """A dry run ends with its words, and with what to do; the script went to it as it is."""
    program(programs, "sbatch", refusing(words))
    place = Slurm()
    with pytest.raises(ClusterError, match=advice) as caught:
        place.try_job(ClusterRequest(1, 1))
    assert words.rpartition(": ")[2] in str(caught.value)
    assert (programs / "sbatch.script").read_text() == place.script(ClusterRequest(1, 1))


def test_what_slurm_would_take_or_cannot_say(programs: Path) -> None:
    """It tells when the job would start. A controller that is away refuses nothing; another system is not asked."""
    assert Slurm().try_job(ClusterRequest(1, 1)) == ""
    program(programs, "sbatch", '/bin/cat >/dev/null; echo "sbatch: Job 7 to start at 2026-01-01T00:00:00" >&2')
    assert "Job 7 to start" in Slurm().try_job(ClusterRequest(1, 1))
    program(programs, "sbatch", refusing("sbatch: error: Unable to contact slurm controller (connect failure)"))
    assert "could not be asked" in Slurm().try_job(ClusterRequest(1, 1))
    assert Pbs().try_job(ClusterRequest(1, 1)) == ""
    assert choose("local").place.try_job(ClusterRequest(1, 1)) == ""


@pytest.mark.parametrize(
    ("lines", "walltime", "said"),
    [
        (["gpu*|up|1-00:00:00"], 4 * 3600, ""),
        (["gpu*|up|infinite"], 10**9, ""),
        (["gpu|up|1:00"], 4 * 3600, "gpu ends jobs after 00:01:00"),
        (["gpu|up|1:00"], None, ""),
        (["gpu|drain|1:00"], 60, "gpu is drain"),
        (["a|down|1:00", "b|up|1:00"], 3600, "a is down, and the partition b ends"),
        (["a|down|1:00", "b|up|1:00:00"], 3600, ""),
        ([], 3600, ""),
    ],
)
def test_where_a_job_would_wait_for_ever(lines: list[str], walltime: int | None, said: str) -> None:
    """SLURM accepts it; a partition that is right is enough."""
    trouble = slurm.partition_trouble(lines, walltime)
    assert said in trouble
    assert bool(said) == bool(trouble)


@pytest.mark.parametrize(
    ("error", "file", "said"),
    [
        (
            ValueError("A dask config file at '/d/a.yaml' is malformed, original error message:\n\nkeys=\n  ^"),
            "/d/a",
            "^",
        ),
        (ValueError("A dask config file at '/d/b' is malformed - config files must have a dict"), "/d/b", "dict"),
        (ValueError("Unable to configure handler 'x'"), "/c.yaml", "handler"),
        (TypeError("argument of type 'int' is not iterable"), "/c.yaml", "TypeError"),
    ],
)
def test_a_configuration_that_dask_cannot_use(
    error: Exception, file: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line with the file, or with all that there are; what is not installed is another matter."""
    (tmp_path / "c.yaml").write_text("logging: 3\n")
    monkeypatch.setattr("dask.config.paths", [str(tmp_path)])

    def refuse(_name: str) -> None:
        raise error

    monkeypatch.setattr("ptydask.clusters.settings.importlib.import_module", refuse)
    with pytest.raises(ConfigError) as caught:
        import_dask()
    assert file in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_malformed_file_of_dask(toy_params: Callable[..., Path], tmp_path: Path) -> None:
    """A logging.yaml that is none, as people have it: exit code 2 and one line, nothing made."""
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "logging.yaml").write_text("[loggers]\nkeys=root\n")
    command = [sys.executable, "-m", "ptydask", "run", toy_params(), "--engine", "toy", "--cluster", "local"]
    environ = {**os.environ, "DASK_CONFIG": str(tmp_path / "dask")}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 2
    assert "logging.yaml: Dask cannot read it" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_scontrol_that_fails_is_told_shortly(programs: Path) -> None:
    program(programs, "sbatch", "exit 1")
    program(programs, "scontrol", 'echo "scontrol: fatal: Could not establish a configuration source" >&2; exit 1')
    assert choose("auto").why == "SLURM does not answer"


def test_a_controller_that_hangs_is_not_waited_for(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_ANSWER", 0.2)
    program(programs, "sbatch", "exit 1")
    program(programs, "scontrol", "exec /bin/sleep 60")
    chosen = choose("auto")
    assert (kind(chosen.place), chosen.why) == ("ThisMachine", "SLURM does not answer")


def test_sbatch_without_scontrol_is_no_slurm(programs: Path) -> None:
    program(programs, "sbatch", "exit 1")
    assert kind(choose("auto").place) == "ThisMachine"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("local", "ThisMachine"),
        ("slurm", "slurm"),
        ("pbs", "pbs"),
        ("lsf", "lsf"),
        ("sge", "sge"),
        ("oar", "oar"),
        ("moab", "moab"),
        ("htcondor", "htcondor"),
        ("tcp://10.0.0.1:8786", "RunningScheduler"),
        ("tls://head.example.org:8786", "RunningScheduler"),
    ],
)
def test_places_by_name(name: str, place: str) -> None:
    """Nothing has to be installed for a place to be named; whether it answers is asked later."""
    assert kind(choose(name).place) == place


def test_a_misspelt_place_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no cluster is called 'slrum'; did you mean 'slurm'\?"):
        choose("slrum")


@pytest.mark.parametrize("address", ["http://head:8786", "tcp://head", "tls://"])
def test_an_address_that_cannot_be_one_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="tls://HOST:PORT or tcp://HOST:PORT"):
        choose(address)


@pytest.mark.parametrize("name", ["site.yaml", "site.YML", "site.json", "site.toml", "./site"])
def test_names_that_mean_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not there is said to be missing, not taken for a place."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        choose(name)


def test_a_profile_is_a_place(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("queue: gpu\ngpus: 4\nmax_jobs: 3\ncpus: 8\n")
    chosen = choose(str(path))
    assert chosen.why == f"profile {path}"
    assert chosen.place.default_workers() == 12
    assert chosen.place.describe(ClusterRequest(12, 12)).startswith("12 workers in 3 SLURM jobs of 4 workers")


def test_choosing_needs_no_dask() -> None:
    """`--help` and errors of usage come at once."""
    code = (
        "import sys, ptydask.clusters as c; request = c.ClusterRequest(2, 2)\n"
        "for name in ('slurm', 'local'): c.choose(name).place.describe(request)\n"
        "heavy = {'distributed', 'torch', 'optuna', 'dask_jobqueue'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import ptydask.driver.execute; assert 'distributed' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
