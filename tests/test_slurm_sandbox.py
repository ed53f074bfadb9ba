"""The sandbox itself: a real SLURM that schedules, preempts, loses nodes, and goes without a trace."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from slurm_sandbox import NODES, SCRIPTS, Sandbox, environment, require

pytestmark = pytest.mark.slurm

GPUS = "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES; sleep 60"


def script(name: str, *args: object, as_user: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """One of the scripts, found where the user may read it."""
    command = [*as_user, "bash", str(SCRIPTS / f"{name}.sh"), *map(str, args)]
    return subprocess.run(command, env=environment(), cwd="/", capture_output=True, text=True, timeout=90, check=False)


def pids(sandbox: Sandbox) -> dict[str, int | None]:
    return {
        name: process and process.pid for name in ("munged", "slurmctld", *NODES) for process in [sandbox.daemon(name)]
    }


def holders(folder: Path) -> list[psutil.Process]:
    """Processes that live and name the folder in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except (OSError, psutil.Error):
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in words):
            found.append(process)
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path for a sandbox of the test's own, which is taken down whatever the test did."""
    folder = Path(tempfile.mkdtemp(prefix="ptydask-slurm-", dir="/tmp"))
    yield folder / "sandbox"
    script("slurm-down", folder / "sandbox")
    shutil.rmtree(folder)


def test_up_again_changes_nothing(slurm: Sandbox) -> None:
    """A second up prints what the first one did, and every daemon stays the process that it was."""
    before = pids(slurm)
    again = script("slurm-up", slurm.folder)
    assert again.returncode == 0, again.stderr
    assert again.stdout == f"export SLURM_CONF={slurm.folder}/slurm.conf\n"
    assert None not in before.values()
    assert pids(slurm) == before


def test_up_repairs(slurm: Sandbox) -> None:
    """What has died is started again, what lives is left, and a running job notices nothing."""
    job = slurm.submit("sleep 60")
    slurm.wait_for_state(job, "RUNNING")
    runs = time.time()
    state = slurm.folder / "state" / "job_state"
    slurm.wait(lambda: state.exists() and state.stat().st_mtime > runs)
    before = pids(slurm)
    slurm.kill_slurmctld()
    slurm.kill_slurmd("node2")
    assert script("slurm-up", slurm.folder).returncode == 0
    after = pids(slurm)
    assert None not in after.values()
    assert {name for name in after if after[name] != before[name]} == {"slurmctld", "node2"}
    assert slurm.job(job).state == "RUNNING"


def test_gpus(slurm: Sandbox) -> None:
    """Six jobs of one GPU run on three nodes, and those of a node have different GPUs; a seventh waits."""
    jobs = [slurm.submit(GPUS, "--gres=gpu:1", "--job-name=six") for _ in range(6)]
    slurm.wait(lambda: all(slurm.output(job) for job in jobs))
    assert sorted(slurm.output(job).strip() for job in jobs) == [f"{node} {gpu}" for node in NODES for gpu in (0, 1)]
    seventh = slurm.submit(GPUS, "--gres=gpu:1")
    assert slurm.wait_for_state(seventh, "PENDING").node == ""
    slurm.wait(lambda: slurm.job(seventh).reason in ("Resources", "Priority"))
    assert [job.id for job in slurm.jobs("six")] == jobs


def test_refused_and_waiting(slurm: Sandbox) -> None:
    """What sbatch refuses and what waits for ever, with SLURM's reason."""
    for partition, args in (("nowhere", ()), ("gpu", ("--gres=gpu:3",)), ("cpu", ("--gres=gpu:1",))):
        with pytest.raises(AssertionError, match="Batch job submission failed"):
            slurm.submit("true", "-p", partition, *args)
    closed, long = slurm.submit("true", "-p", "closed"), slurm.submit("true", "-p", "short", "-t", "5")
    slurm.wait(lambda: slurm.job(closed).reason == "PartitionDown" and slurm.job(long).reason == "PartitionTimeLimit")
    slurm.partition_state("closed", "UP")
    slurm.wait_for_state(closed, "COMPLETED")


def test_preemption(slurm: Sandbox) -> None:
    """A job in ``high`` takes the GPUs; the jobs that had them hear SIGTERM, and are requeued or end."""
    hears = "trap 'echo asked to go; exit' TERM; echo runs; while :; do sleep 0.1; done"
    again = slurm.submit(hears, "--requeue", "--gres=gpu:2", "-w", "node1", "--open-mode=append")
    never = slurm.submit(hears, "--no-requeue", "--gres=gpu:2", "-w", "node2")
    slurm.wait(lambda: slurm.output(again) and slurm.output(never))
    high = slurm.submit("sleep 60", "-p", "high", "--gres=gpu:2", "--nodes=2", "-w", "node[1-2]")
    slurm.wait_for_state(high, "RUNNING")
    slurm.wait_for_state(never, "PREEMPTED")
    slurm.wait_for_state(again, "PENDING")
    assert "asked to go" in slurm.output(again)
    assert "asked to go" in slurm.output(never)


@pytest.mark.slow
def test_ends(slurm: Sandbox) -> None:
    """A walltime that is over, ``scontrol requeue`` and a slurmd that was killed, all at once to save time."""
    hears = "echo runs; trap 'echo asked to go; exit' TERM; while :; do sleep 0.1; done"
    walltime = slurm.submit(hears, "-w", "node3")
    requeued = slurm.submit(
        "echo turn $SLURM_RESTART_COUNT; sleep 60", "--requeue", "-w", "node2", "--open-mode=append"
    )
    again = slurm.submit("echo runs; sleep 60", "--requeue", "-w", "node1")
    never = slurm.submit("echo runs; sleep 60", "--no-requeue", "-w", "node1")
    slurm.wait(lambda: all(slurm.output(job) for job in (walltime, requeued, again, never)))

    slurm.update(walltime, EndTime="now+2")
    slurm.requeue(requeued)
    left = slurm.processes(never)
    slurm.kill_slurmd("node1")

    slurm.wait_for_state(never, "NODE_FAIL", timeout=60)  # SLURM looks for lost nodes now and then
    assert slurm.job(again).state == "PENDING"
    assert slurm.node_state("node1").startswith("down")
    assert all(process.is_running() for process in left)
    slurm.wait(lambda: "turn 1" in slurm.output(requeued))
    slurm.wait_for_state(walltime, "TIMEOUT", timeout=60)
    assert "asked to go" in slurm.output(walltime)


def test_node_without_power(slurm: Sandbox) -> None:
    """With ``whole`` the jobs' processes end with their slurmd."""
    job = slurm.submit("sleep 60 & wait", "-w", "node2")
    other = slurm.submit("sleep 60", "-w", "node3")
    for number in (job, other):
        slurm.wait(lambda number=number: slurm.processes(number))  # type: ignore[misc]
    slurm.kill_slurmd("node2", whole=True)
    assert slurm.processes(job) == []
    assert slurm.processes(other)
    assert slurm.daemon("node2") is None


def test_clean(slurm: Sandbox) -> None:
    """After clean nothing is left of what a test did: no job, no process, every node ready for new jobs."""
    job = slurm.submit("sleep 60", "-w", "node1")
    waiting = slurm.submit("sleep 60", "-p", "closed")
    slurm.wait(lambda: slurm.processes(job))
    slurm.partition_state("gpu", "DOWN")
    slurm.kill_slurmd("node1")
    slurm.clean()
    assert [slurm.job(number).state for number in (job, waiting)] == ["CANCELLED", "CANCELLED"]
    assert slurm.processes() == []
    assert slurm.node_states() == dict.fromkeys(NODES, "idle")
    slurm.wait_for_state(slurm.submit("true"), "COMPLETED")


def test_down_leaves_nothing(slurm: Sandbox, place: Path) -> None:
    """A second sandbox goes with its jobs, orphans of killed daemons and folder; the first one stays."""
    before = pids(slurm)
    assert script("slurm-up", place).returncode == 0
    other = Sandbox(place, {**environment(), "SLURM_CONF": str(place / "slurm.conf")})
    job = other.submit("sleep 61 & wait", "-w", "node1")
    orphan = other.submit("sleep 62", "-w", "node2")
    other.wait(lambda: other.processes(job) and other.processes(orphan))
    other.kill_slurmd("node2")
    down = script("slurm-down", place)
    assert (down.returncode, down.stderr) == (0, "")
    assert not place.exists()
    assert holders(place) == []
    assert pids(slurm) == before
    assert script("slurm-down", place).returncode == 0


def test_down_takes_only_sandboxes(tmp_path: Path) -> None:
    """A folder that is not a sandbox is neither filled nor removed."""
    (tmp_path / "results.h5").touch()
    for name, words in (("slurm-up", "holds something else"), ("slurm-down", "left as it is")):
        done = script(name, tmp_path)
        assert done.returncode == 1
        assert words in done.stderr
    assert (tmp_path / "results.h5").exists()


def test_down_ends_only_its_own(place: Path) -> None:
    """A process that was given the number of a daemon that is gone lives on."""
    assert script("slurm-up", place).returncode == 0
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        note = place / "run" / "node3"
        number, command = note.read_text().splitlines()
        os.kill(int(number), signal.SIGKILL)
        note.write_text(f"{stranger.pid}\n{command}\n")
        assert script("slurm-down", place).returncode == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_as_a_plain_user(slurm: Sandbox) -> None:
    """Somebody who is not root brings up, uses and takes down one of their own."""
    if os.getuid() != 0:
        pytest.skip("every other test here has run as a plain user")
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is needed to become a plain user")
    as_user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    folder = Path(tempfile.mkdtemp(prefix="ptydask-slurm-", dir="/tmp"))
    try:
        shutil.copytree(SCRIPTS, folder / "jobs")
        os.chown(folder, 65534, 65534)
        folder.chmod(0o755)
        call = f"""
            set -e
            eval "$(bash {folder}/jobs/slurm-up.sh {folder}/sandbox)"
            sbatch --output={folder}/out --gres=gpu:2 --wrap 'echo $(id -u) $CUDA_VISIBLE_DEVICES' >/dev/null
            until [ -s {folder}/out ]; do sleep 0.1; done
            cat {folder}/out
            bash {folder}/jobs/slurm-down.sh {folder}/sandbox
        """
        done = subprocess.run(
            [*as_user, "bash", "-c", call],
            env={**environment(), "HOME": "/"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["65534", "0,1"]
        assert holders(folder) == []
    finally:
        script("slurm-down", folder / "sandbox")
        shutil.rmtree(folder)


def test_killed_session_leaves_nothing(tmp_path: Path) -> None:
    """Where the tests are killed outright, their SLURM goes all the same."""
    test = tmp_path / "hold.py"
    test.write_text(
        "import slurm_sandbox, time\n"
        "with slurm_sandbox.sandbox() as up:\n"
        "    up.submit('sleep 63')\n"
        "    print(up.folder, flush=True)\n"
        "    time.sleep(60)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([sys.executable, str(test)], env=env, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        folder = Path(holder.stdout.readline().strip())
        assert (folder / "sandbox").exists()
        holder.kill()
    until = time.monotonic() + 30
    while holders(folder) or folder.exists():
        assert time.monotonic() < until, f"{holders(folder)} or {folder} are left"
        time.sleep(0.1)


def test_without_slurm() -> None:
    """Where SLURM is missing its tests are skipped, naming what is missing; in CI they fail."""
    require([], ci=True)
    with pytest.raises(pytest.skip.Exception, match="slurmctld, munged"):
        require(["slurmctld", "munged"], ci=False)
    with pytest.raises(pytest.fail.Exception, match="slurmctld"):
        require(["slurmctld"], ci=True)
