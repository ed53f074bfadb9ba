"""The job script of every batch system, what it does in a shell, and the scheduler that its worker reaches."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import dask
import pytest

from ptydask.clusters import ClusterRequest
from ptydask.clusters.jobqueue import JobQueue, dask_config, launch, profile_file, profile_keys, systems
from ptydask.clusters.jobqueue.profile import SYSTEMS, Profile
from ptydask.clusters.settings import SETTINGS, THREADS
from ptydask.errors import UsageError

HEADER = {
    "slurm": """\
#SBATCH -J ptydask-study
#SBATCH -p gpu
#SBATCH -A lab
#SBATCH -n 1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH -t 2-00:00:00
#SBATCH --nodes=1
#SBATCH --no-requeue
#SBATCH --gres=gpu:2
#SBATCH --signal=B:TERM@60
#SBATCH --output=/data/out/study.trials/jobs/%x-%j.out
#SBATCH --error=/data/out/study.trials/jobs/%x-%j.out
#SBATCH more""",
    "pbs": """\
#PBS -N ptydask-study
#PBS -q gpu
#PBS -A lab
#PBS -l select=1:ncpus=8:mem=32768mb:ngpus=2
#PBS -l walltime=48:00:00
#PBS -r n
#PBS -j oe
#PBS -o /data/out/study.trials/jobs/
#PBS more""",
    "moab": """\
#PBS -N ptydask-study
#PBS -q gpu
#PBS -A lab
#PBS -l nodes=1:ppn=8:gpus=2,mem=32768mb
#PBS -l walltime=48:00:00
#PBS -r n
#PBS -j oe
#PBS -o /data/out/study.trials/jobs/
#PBS more""",
    "lsf": """\
#BSUB -J ptydask-study
#BSUB -q gpu
#BSUB -P "lab"
#BSUB -n 8
#BSUB -R "span[hosts=1]"
#BSUB -M 34359739
#BSUB -W 48:00
#BSUB -rn
#BSUB -gpu "num=2"
#BSUB -o /data/out/study.trials/jobs/%J.out
#BSUB more""",
    "sge": """\
#$ -N ptydask-study
#$ -q gpu
#$ -P lab
#$ -l gpu=2
#$ -l h_rt=48:00:00
#$ -cwd
#$ -j y
#$ -r n
#$ -o /data/out/study.trials/jobs/
#$ more""",
    "oar": """\
#OAR -n ptydask-study
#OAR -q gpu
#OAR --project lab
#OAR -l /nodes=1/gpu=2,walltime=48:00:00
#OAR -O /data/out/study.trials/jobs/%jobid%.out
#OAR -E /data/out/study.trials/jobs/%jobid%.out
#OAR more""",
    "htcondor": """\
RequestCpus = 8
RequestMemory = floor(MY.DaskWorkerMemory / 1048576)
RequestDisk = floor(MY.DaskWorkerDisk / 1024)
MY.JobId = "$(ClusterId).$(ProcId)"
MY.DaskWorkerCores = 2
MY.DaskWorkerMemory = 34359738368
MY.DaskWorkerDisk = 1073741824
RequestGPUs = 2
accounting_group = lab
Output = /data/out/study.trials/jobs/$(ClusterId).$(ProcId).out
Error = /data/out/study.trials/jobs/$(ClusterId).$(ProcId).out
Stream_Output = True
Stream_Error = True
more = 1""",
}
REQUEST = ClusterRequest(4, 4, folder=Path("/data/out/study.trials"), label="study")


@pytest.fixture(autouse=True)
def _no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own jobqueue.yaml says nothing here."""
    monkeypatch.setattr(dask_config, "read_job_settings", lambda _system: {})


def profile(system: str = "slurm", **values: object) -> Profile:
    return profile_file.complete_profile({"system": system, **values})


def full(system: str) -> Profile:
    """As much of a profile as the system can be asked for."""
    given = {"queue": "gpu", "account": "lab", "gpus": 2, "cpus": 8, "memory": 32 * 2**30, "walltime": 2 * 86400}
    given["directives"] = ("more = 1" if system == "htcondor" else "more",)
    if system == "htcondor":
        del given["queue"], given["walltime"]
    if system == "sge":
        given["resource_spec"] = "gpu=2"
    return profile(system, **given)


# --- what is asked for -------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_header_asks_for_what_the_profile_says(system: str) -> None:
    """Line by line, for each batch system."""
    assert HEADER[system] in launch.job_script(full(system), REQUEST)


@pytest.mark.parametrize("system", [system for system in SYSTEMS if system != "oar"])
def test_what_is_left_to_the_site_is_not_asked_for(system: str) -> None:
    """Neither by ptydask nor by dask-jobqueue's own defaults."""
    empty = replace(profile(system), walltime=None, memory=None)
    header = launch.job_script(empty, REQUEST)
    assert not re.search(r"walltime|h_rt|BSUB -W|SBATCH -t|--mem=|:mem=|BSUB -M|RequestMemory", header)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_starts_the_same_worker(system: str) -> None:
    """Two workers a job, in place of the shell, with TLS, ptydask's preload, and no web pages for others."""
    command = launch.job_script(full(system), REQUEST)
    for part in (
        f"exec {sys.executable} -m distributed.cli.dask_worker tls://<address-of-the-scheduler> --name job1 ",
        " --nthreads 1 ",
        "--nworkers 2 --nanny",
        "--preload ptydask.clusters.jobqueue.preload --preload-nanny ptydask.clusters.jobqueue.preload",
        "--no-dashboard --dashboard-address 127.0.0.1:0",
        "--protocol tls://",
        "--tls-ca-file /data/out/study.trials/keys/certificate.pem",
        "--tls-key /data/out/study.trials/keys/key.pem",
        "export OMP_NUM_THREADS=4",
        "export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}",
        "export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True",
    ):
        assert part in command


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"gpu_type": "1g.10gb"}, "--gres=gpu:1g.10gb:1"),
        ({"gpu_type": "a100", "gpus": 4}, "--gres=gpu:a100:4"),
        ({"directives": ("--gres=lscratch:10",)}, "--gres=gpu:1,lscratch:10"),
        ({"gpus": 0, "directives": ("--gres=lscratch:10",)}, "--gres=lscratch:10"),
        ({"qos": "high"}, "--qos=high"),
        ({"constraint": "a100&80gb"}, "--constraint=a100&80gb"),
        ({"nodelist": "node[1-3]"}, "--nodelist=node[1-3]"),
        ({"exclude": "node2"}, "--exclude=node2"),
        ({"disk": 10 * 2**30}, "--tmp=10240M"),
        ({"grace": 300}, "--signal=B:TERM@300"),
        ({"memory": 1536 * 2**20}, "--mem=1536M"),
        ({"memory": 0}, "--mem=0"),
        ({"directives": ("--mem=0",)}, "--mem=0"),
        ({"memory": None, "directives": ("--mem 4000",)}, "--mem=4000M"),
        ({"directives": ("--mem-per-gpu=40G",)}, "--mem-per-gpu=40G"),
        ({"memory": None, "directives": ("--mem-per-cpu 4G",)}, "--mem-per-cpu 4G"),
    ],
)
def test_slurm_options(values: dict[str, object], line: str) -> None:
    """One --gres line holds all: of two, SLURM heeds the last."""
    script = launch.job_script(profile(**values), REQUEST)
    assert f"#SBATCH {line}\n" in script
    assert script.count("#SBATCH --mem") == 1
    assert script.count("--gres=") == (0 if values.get("gpus") == 0 and "directives" not in values else 1)


def test_a_cpu_job_asks_for_no_gpu_and_sees_none() -> None:
    script = launch.job_script(profile(gpus=0), REQUEST)
    assert "gres" not in script
    assert "export CUDA_VISIBLE_DEVICES=''\n" in script


def test_no_second_memory_by_the_environment() -> None:
    """sbatch refuses a job that is given memory in two ways."""
    given = {"SBATCH_MEM_PER_NODE": "4G"}
    assert systems.submit_environment(profile(memory=None), given) == given
    for values in ({"directives": ("--mem-per-gpu=40G",)}, {"memory": 0}, {}):
        assert systems.submit_environment(profile(**values), given) == {}


@pytest.mark.parametrize(
    ("python", "command"),
    [
        ("apptainer exec --nv /sw/ptyrad.sif python", "exec apptainer exec --nv /sw/ptyrad.sif python -m distributed"),
        ("apptainer exec docker://org//image python3", "exec apptainer exec docker://org//image python3 -m"),
        ("srun --mpi=none 'my env/bin/python'", "exec srun --mpi=none 'my env/bin/python' -m"),
        ("podman run -v $HOME:/home image python", 'exec podman run -v "$HOME:/home" image python -m'),
        ("'/opt/my env/bin/python'", "exec '/opt/my env/bin/python' -m"),
        ("$CONDA_PREFIX/bin/python", 'exec "$CONDA_PREFIX/bin/python" -m'),
    ],
)
def test_several_words_are_a_command(python: str, command: str) -> None:
    """As dask-jobqueue has it: a container, a launcher. The program itself is looked for on the node."""
    script = launch.job_script(profile(**profile_keys.parse_values({"python": python}, {})), REQUEST)
    assert f"\n{command}" in script
    program = command.removeprefix("exec ").split(" -m")[0]
    looked_for = re.search(r"command -v (.+) >/dev/null", script)
    assert looked_for is not None
    assert program.startswith(looked_for[1])


def test_a_path_with_blanks_is_one_word(tmp_path: Path) -> None:
    """Where it is there to be seen, without quotes."""
    (tmp_path / "my env").mkdir()
    path = tmp_path / "my env" / "python"
    path.touch()
    job = profile(**profile_keys.parse_values({"python": str(path)}, {}))
    assert f"\nexec '{path}' -m distributed" in launch.job_script(job, REQUEST)


def test_the_script_touches_nothing(tmp_path: Path) -> None:
    """A dry run makes no folder for logs or keys."""
    folder = tmp_path / "out" / "study.trials"
    place = JobQueue(profile())
    assert str(folder) in place.script(replace(REQUEST, folder=folder))
    assert not (tmp_path / "out").exists()


def test_more_workers_than_cores_are_refused() -> None:
    with pytest.raises(UsageError, match="4 cores for 6 workers"):
        JobQueue(profile(gpus=2, cpus=4)).describe(replace(REQUEST, workers_per_gpu=3))


def test_no_warning_of_dask_jobqueue_reaches_anybody() -> None:
    """Not even for the deprecated keys of an old jobqueue.yaml."""
    with warnings.catch_warnings(), dask.config.set({"jobqueue.slurm.env-extra": ["a"], "jobqueue.oar.project": "x"}):
        warnings.simplefilter("error")
        for system in SYSTEMS:
            launch.job_script(full(system), REQUEST)


def test_what_only_jobqueue_yaml_has_is_honoured() -> None:
    """Arguments of the worker, the first line, lines to leave out."""
    more = {
        "jobqueue.slurm.worker-extra-args": ["--resources", "BIG=1"],
        "jobqueue.slurm.shebang": "#!/bin/bash -l",
        "jobqueue.slurm.log-directory": "/nowhere",
        "jobqueue.slurm.job-directives-skip": ["--cpus-per-task"],
    }
    with dask.config.set(more):
        script = launch.job_script(profile(), REQUEST)
    assert script.startswith("#!/bin/bash -l\n")
    assert "--dashboard-address 127.0.0.1:0 --resources BIG=1" in script
    assert "/nowhere" not in script
    assert "--cpus-per-task" not in script


@pytest.mark.slow
def test_ctrl_c_stays_what_it_was() -> None:
    """dask-jobqueue replaces its handler with one that ends the process with exit code 0."""
    program = """
import signal
before = signal.getsignal(signal.SIGINT)
from ptydask.clusters import ClusterRequest
from ptydask.clusters.jobqueue import Slurm, fleet, gateway
assert Slurm().script(ClusterRequest(1, 1))
assert signal.getsignal(signal.SIGINT) is before is signal.default_int_handler
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, restore_signals=True)


def test_variables_of_sbatch_do_not_beat_the_profile() -> None:
    """They hold where the profile says nothing; never for what ptydask needs to be as it is."""
    mine = {f"SBATCH_{name}": "x" for name in ("PARTITION", "ACCOUNT", "JOB_NAME", "WAIT", "OUTPUT", "RESERVATION")}
    given = systems.submit_environment(profile(queue="gpu"), {**mine, "HOME": "/h", "SLURM_CONF": "/c"})
    assert set(given) == {"SBATCH_ACCOUNT", "SBATCH_RESERVATION", "HOME", "SLURM_CONF"}


# --- what it does in a shell ---------------------------------------------------------------------------


def bash(job: Profile, tmp_path: Path, before: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs the script, or what of it comes before the worker, with ``before`` in front of it."""
    script = launch.job_script(job, replace(REQUEST, folder=tmp_path / "a b"))
    return subprocess.run(
        ["bash", "-c", f"{before}\n{script.replace('tls://<address-of-the-scheduler>', 'ADDRESS')}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], **environ},
    )


def fake_python(folder: Path) -> str:
    """A program that prints its arguments, one a line, and its environment."""
    path = folder / "my python"
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nenv\n')
    path.chmod(0o755)
    return shlex.quote(str(path))


def test_a_python_that_does_not_exist_ends_the_job_at_once(tmp_path: Path) -> None:
    done = bash(profile(python="/no/such/python"), tmp_path)
    assert done.returncode == 127
    assert re.fullmatch(r"ptydask: the python of the profile, /no/such/python, is not there on \S+\n", done.stderr)


def test_a_module_that_cannot_be_loaded_ends_the_job_at_once(tmp_path: Path) -> None:
    """And what is loaded before it, is loaded."""
    before = 'module() { echo "$2"; [ "$2" = fftw ]; }'
    done = bash(profile(modules=("fftw", "cuda/99")), tmp_path, before)
    assert (done.returncode, done.stdout.split()) == (127, ["fftw", "cuda/99"])
    assert re.fullmatch(r"ptydask: module load cuda/99 failed on \S+\n", done.stderr)


def test_the_worker_has_what_the_script_says(tmp_path: Path) -> None:
    """Names with blanks, variables of the node, the user's lines and PYTHONPATH, threads, Dask's settings."""
    job = profile(
        python=fake_python(tmp_path),
        cpus=8,
        gpus=2,
        local_directory="$SCRATCH/dask",
        environment=("export MINE='1 2'", "export SCRATCH=/scr"),
    )
    done = bash(job, tmp_path, OMP_NUM_THREADS="1", PYTHONPATH="/mine", MALLOC_TRIM_THRESHOLD_="7")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[:3] == ["-m", "distributed.cli.dask_worker", "ADDRESS"]
    assert said[said.index("--local-directory") + 1] == "/scr/dask"
    assert said[said.index("--tls-key") + 1] == f"{tmp_path}/a b/keys/key.pem"
    assert {f"{name}=4" for name in THREADS} <= set(said)
    assert {"MINE=1 2", "PYTHONPATH=/mine", "MALLOC_TRIM_THRESHOLD_=7", "MALLOC_MMAP_THRESHOLD_=33554432"} <= set(said)


def test_dask_reads_the_settings_back(tmp_path: Path) -> None:
    """From the variables of the script, each with the value that local workers have."""
    done = bash(profile(python=fake_python(tmp_path)), tmp_path)
    environ = dict(line.split("=", 1) for line in done.stdout.splitlines() if line.startswith("DASK_"))
    read = dask.config.collect_env(environ)
    for name, value in SETTINGS.items():
        if ".scheduler." not in name:
            assert dask.config.get(name, config=read) == value, name


@pytest.mark.slurm
def test_sbatch_reads_the_header(slurm: object, tmp_path: Path) -> None:
    """Also with a blank and a % in the folder's name; the log is where ptydask looks for it."""
    folder = tmp_path / "50 % done"
    request = replace(REQUEST, folder=folder)
    job = profile(queue="gpu", cpus=1, memory=100 * 2**20, walltime=120, grace=0, python="/no/such/python")
    logs = launch.log_folder(job, request)
    logs.mkdir(parents=True)
    script = tmp_path / "job.sh"
    script.write_text(launch.job_script(job, request))
    number = slurm.call("sbatch", "--parsable", script).strip()  # type: ignore[attr-defined]
    log = logs / f"ptydask-study-{number}.out"
    deadline = time.monotonic() + 60
    while not (log.exists() and "is not there" in log.read_text()):
        assert time.monotonic() < deadline, slurm.squeue()  # type: ignore[attr-defined]
        time.sleep(0.2)


def test_keys_and_logs_go_where_both_can_see_them(tmp_path: Path) -> None:
    """Where the results are on a disk of the driver's own, a shared folder is named; each results file has its part."""
    job = profile(shared_directory=str(tmp_path / "shared"))
    assert launch.keys_folder(job, REQUEST) == tmp_path / "shared" / "ptydask-study" / "keys"
    assert launch.log_folder(job, REQUEST) == tmp_path / "shared" / "ptydask-study" / "jobs"
    assert f"{tmp_path}/shared/ptydask-study/jobs/%x-%j.out" in launch.job_script(job, REQUEST)


def test_job_names_have_no_blanks() -> None:
    assert launch.job_name(replace(REQUEST, label="tBL WSe₂/a;b")) == "ptydask-tBL_WSe__a_b"
