"""Where a run goes: what --cluster means, and what makes `auto` choose SLURM."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ptydask import clusters
from ptydask.clusters import ClusterRequest, choose
from ptydask.clusters.jobqueue import JobQueue
from ptydask.errors import ConfigError, UsageError


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
    assert chosen.why.endswith("no controller of SLURM is UP: Slurmctld(primary) at node1 is DOWN")


def test_the_reason_of_a_scontrol_that_fails_is_told(programs: Path) -> None:
    program(programs, "sbatch", "exit 1")
    program(programs, "scontrol", 'echo "scontrol: fatal: Could not establish a configuration source" >&2; exit 1')
    assert "Could not establish a configuration source" in choose("auto").why


def test_a_controller_that_hangs_is_not_waited_for(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_ANSWER", 0.2)
    program(programs, "sbatch", "exit 1")
    program(programs, "scontrol", "exec /bin/sleep 60")
    chosen = choose("auto")
    assert (kind(chosen.place), chosen.why) == ("ThisMachine", "scontrol ping did not answer within 0.2 s")


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
