"""Profile files: what they mean, what they take from Dask's jobqueue.yaml, and what is refused in which words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import pytest

from ptydask.clusters import ClusterRequest
from ptydask.clusters.jobqueue import JobQueue, Slurm, profile_file
from ptydask.clusters.jobqueue.profile import (
    Profile,
    clock_text,
    describe,
    memory_text,
    parse_size,
    parse_time,
    worker_limits,
    worker_threads,
)
from ptydask.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "configs"
PROFILES = sorted(CONFIGS.glob("cluster-*.yaml"))
GIB = 2**30


@pytest.fixture
def jobqueue_yaml(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Writes the jobqueue.yaml that Dask finds; without a call there is none."""
    folder = tmp_path / "dask"
    folder.mkdir()
    before, dask.config.paths[:] = list(dask.config.paths), [str(folder)]
    yield lambda text: (folder / "jobqueue.yaml").write_text(text) and None
    dask.config.paths[:] = before


@pytest.fixture(autouse=True)
def _no_configuration(jobqueue_yaml: Callable[[str], None]) -> None:
    """The machine's own jobqueue.yaml says nothing here."""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Profile]:
    """Reads a profile from text."""

    def call(text: str, name: str = "site.yaml") -> Profile:
        path = tmp_path / name
        path.write_text(text)
        return profile_file.read(path)

    return call


def refused(read: Callable[..., Profile], text: str, name: str = "site.yaml") -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, name)
    said = str(caught.value)
    assert f"/{name}: " in said
    assert "\n" not in said
    return said.split(f"/{name}: ", 1)[1]


# --- what is in the repository -----------------------------------------------------------------------


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.name)
def test_profiles_of_the_repository_run_as_they_are(path: Path) -> None:
    """Each is read, described, and makes a job script with the queue and the time it names."""
    place = JobQueue(profile_file.read(path))
    request = ClusterRequest(place.default_workers(), 1, label="study")
    assert str(place.profile.queue) in place.describe(request)
    assert str(place.profile.queue) in place.script(request)


def test_the_commented_keys_of_the_profiles_are_right(tmp_path: Path) -> None:
    """Every line that a microscopist may switch on by taking the # away is read."""
    for path in PROFILES:
        lines = path.read_text().splitlines()
        keys = tuple(f"# {key}" for key in profile_file.KEYS)
        text = "\n".join(line[2:] if line.startswith(keys) and ":" in line else line for line in lines)
        (tmp_path / path.name).write_text(text)
        assert text != path.read_text() or path.name in ("cluster-slurm-mig.yaml", "cluster-slurm-cpu.yaml")
        profile_file.read(tmp_path / path.name)


def test_every_key_is_documented() -> None:
    """docs/clusters.md has a line in its table for each key, and for no other."""
    page = (CONFIGS.parent / "docs" / "clusters.md").read_text()
    table = page.split("### Profile files", 1)[1].split("\n### ", 1)[0]
    named = [key for line in table.splitlines() if line.startswith("| `") for key in line.split("`")[1:2]]
    assert sorted(named) == sorted(profile_file.KEYS)


# --- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("04:00:00", 4 * 3600),
        ("4:00:00", 4 * 3600),
        ("2-00:00:00", 2 * 86400),
        ("1-12", 36 * 3600),
        ("1-12:30", 36.5 * 3600),
        ("90", 90 * 60),
        ("90:30", 90 * 60 + 30),
        ("100:00:00", 360000),
    ],
)
def test_walltime_is_read_as_slurm_reads_it(text: str, expected: float, read: Callable[..., Profile]) -> None:
    """In quotes or not: YAML alone would make 4:00:00 the number 14400, and 14400 minutes are ten days."""
    assert parse_time(text) == expected
    for form in (text, f"'{text}'"):
        assert read(f"walltime: {form}").walltime == expected
    assert read(json.dumps({"walltime": text}), "site.json").walltime == expected
    assert parse_time(clock_text(int(expected))) == expected


@pytest.mark.parametrize("text", ["four hours", "0", "'00:00'", "-5", "1.5", "true", "[1]", "'4:00:00:00'", "''"])
def test_what_is_no_time_is_refused(text: str, read: Callable[..., Profile]) -> None:
    assert refused(read, f"walltime: {text}").endswith(
        "must be a time such as 04:00:00 (hours), 2-00:00:00 (days first) or 240 (minutes)"
    )


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("16GB", 16 * GIB, "16 GB"),
        ("16G", 16 * GIB, "16 GB"),
        ("16 GiB", 16 * GIB, "16 GB"),
        ("1.5T", 1536 * GIB, "1536 GB"),
        ("900m", 900 * 2**20, "900 MB"),
        ("2TB", 2**41, "2 TB"),
        ("1000K", 1000 * 1024, "1000 KB"),
    ],
)
def test_memory_is_read_with_its_unit(text: str, expected: int, shown: str, read: Callable[..., Profile]) -> None:
    """Powers of 1024, as SLURM has them."""
    assert parse_size(text) == expected == read(f"memory: {text}").memory
    assert memory_text(expected) == shown


@pytest.mark.parametrize("text", ["16", "-16GB", "16XB", "much", "true", "[16GB]", "false"])
def test_what_is_no_memory_is_refused(text: str, read: Callable[..., Profile]) -> None:
    assert refused(read, f"memory: {text}").endswith("must be a number with a unit, such as 16GB or 16G")


@pytest.mark.parametrize("text", ["memory: 0", "memory: '0'", "memory: 0GB", "memory: null\ndirectives: [--mem=0]"])
def test_the_whole_memory_of_a_node(text: str, read: Callable[..., Profile]) -> None:
    """0, as SLURM has it."""
    profile = read(text)
    assert (profile.memory, profile.directives) == (0, ())
    assert "whole memory" in JobQueue(profile).describe(ClusterRequest(1, 1))
    if "directives" not in text:
        assert "memory" in refused(read, f"system: pbs\n{text}")


@pytest.mark.parametrize(
    "text",
    [
        "memory: 8GB\ndirectives: [--mem=0]",
        "memory: 8GB\ndirectives: [--mem-per-gpu=40G]",
        "directives: [--mem-per-gpu=40G, --mem-per-cpu=4G]",
        "directives: ['--mem 4G', --mem-per-cpu=4G]",
    ],
)
def test_memory_is_asked_for_once(text: str, read: Callable[..., Profile]) -> None:
    assert "directives = '--mem" in refused(read, text)


def test_memory_in_a_sites_own_directives(jobqueue_yaml: Callable[[str], None], read: Callable[..., Profile]) -> None:
    jobqueue_yaml("jobqueue:\n  slurm:\n    memory: 8GB\n    job-extra-directives: ['--mem-per-gpu=40G']")
    assert read("queue: gpu").memory is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("python: 'module load x && python'", "environment"),
        ("python: python | tee log", "environment"),
        ('python: "python \'x"', "quotes"),
        ("python: ~nobody-here/bin/python -u", "home folder"),
    ],
)
def test_what_is_no_command(text: str, said: str, read: Callable[..., Profile]) -> None:
    assert said in refused(read, text)


@pytest.mark.parametrize("text", ["jobqueue: [1]", "jobqueue: {slurm: 3}", "jobqueue: gpu"])
def test_a_strange_jobqueue_yaml(text: str, jobqueue_yaml: Callable[[str], None]) -> None:
    jobqueue_yaml(text)
    with pytest.raises(ConfigError, match="must be a mapping"):
        Slurm()


def test_text_is_taken_as_it_is_written(read: Callable[..., Profile]) -> None:
    """An account 0123 is no octal number, a partition 12 no number at all."""
    profile = read("account: 0123\nqueue: 12\ngpu_type: 1g.10gb\nnodelist: node[01-03]\nconstraint: a100&80gb")
    assert (profile.account, profile.queue, profile.gpu_type) == ("0123", "12", "1g.10gb")
    assert (profile.nodelist, profile.constraint) == ("node[01-03]", "a100&80gb")


def test_null_leaves_it_to_the_site(read: Callable[..., Profile]) -> None:
    profile = read("memory: null\nwalltime: null\nqueue: null")
    assert (profile.memory, profile.walltime, profile.queue) == (None, None, None)


def test_lists_may_be_written_shorter(read: Callable[..., Profile]) -> None:
    """Modules with blanks between them; shell lines as a block."""
    profile = read("modules: cuda/12.4 fftw\nenvironment: |\n  source a\n\n  export B=1\ndirectives: --mail-type=FAIL")
    assert profile.modules == ("cuda/12.4", "fftw")
    assert profile.environment == ("source a", "export B=1")
    assert profile.directives == ("--mail-type=FAIL",)


def test_the_home_folder_is_filled_in(read: Callable[..., Profile], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/mona")
    assert read("python: ~/env/bin/python").python == "/home/mona/env/bin/python"


def test_json_and_toml(read: Callable[..., Profile]) -> None:
    expected = read("queue: gpu\ngpus: 2\nwalltime: 02:00:00")
    assert read('{"queue": "gpu", "gpus": 2, "walltime": "02:00:00"}', "site.json") == expected
    assert read('queue = "gpu"\ngpus = 2\nwalltime = "02:00:00"', "site.toml") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("partition: gpu", "partition = 'gpu': unknown key; did you mean 'queue'?"),
        ("queu: gpu", "queu = 'gpu': unknown key; did you mean 'queue'?"),
        ("wall_time: 1:00", "wall_time = 60: unknown key; did you mean 'walltime'?"),
        ("from_dask: [queue]", "from_dask = ['queue']: unknown key"),
        ("system: slrum", "system = 'slrum': no batch system has this name; did you mean 'slurm'?"),
        ("gpus: -1", "gpus = -1: must be a whole number, at least 0"),
        ("gpus: two", "gpus = 'two': must be a whole number, at least 0"),
        ("gpus: true", "gpus = True: must be a whole number, at least 0"),
        ("gpus: 1.5", "gpus = 1.5: must be a whole number, at least 0"),
        ("cpus: 0", "cpus = 0: must be a whole number, at least 1"),
        ("max_jobs: 0", "max_jobs = 0: must be a whole number, at least 1"),
        ("poll: 0.1", "poll = 0.1: must be a number of seconds, 1 or more"),
        ("poll: .inf", "poll = inf: must be a number of seconds, 1 or more"),
        ("queue: on", "queue = True: must be text, not true or false"),
        ("queue: a b", "queue = 'a b': must be one word, without blanks or quotes"),
        ("account: 'x; rm -rf'", "account = 'x; rm -rf': must be one word"),
        ("queue: ''", "queue = '': must be one word"),
        ('environment: ["a\\nb"]', "must be one line of text"),
        ("environment: {A: 1}", "must be a list, not a mapping"),
        ("gpus: 0\ngpu_type: a100", "gpu_type = 'a100': a job without GPUs has none of a type"),
        ("walltime: 00:30:00\ngrace: 1000", "grace = 1000: must be less than half of the walltime, 00:30:00"),
        ("resource_spec: x=1", "SLURM cannot be asked for this by its key; use cpus, gpus, memory and directives"),
        ("[1, 2]", "must be a mapping"),
    ],
)
def test_what_is_refused(text: str, said: str, read: Callable[..., Profile]) -> None:
    """One line with the file, the key, its value, the rule, and the nearest name."""
    assert said in refused(read, text)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("--partition=gpu", "use the key queue"),
        ("-p gpu", "use the key queue"),
        ("-pgpu", "use the key queue"),
        ("--gres=gpu:2", "use the key gpus"),
        ("-G 2", "use the key gpus"),
        ("--time=1:00", "use the key walltime"),
        ("--signal=USR1@60", "use the key grace"),
        ("--requeue", "ptydask starts a new job itself where one is lost"),
        ("--array=1-4", "ptydask sets this itself"),
        ("--output=x", "ptydask sets this itself"),
    ],
)
def test_directives_may_not_say_what_ptydask_counts_on(line: str, key: str, read: Callable[..., Profile]) -> None:
    assert refused(read, json.dumps({"directives": [line]}), "site.json").endswith(f"is ptydask's own; {key}")


@pytest.mark.parametrize("line", ["--mem-bind=local", "--gres=lscratch:10", "--mail-type=END", "--time-min=10"])
def test_other_directives_pass(line: str, read: Callable[..., Profile]) -> None:
    assert read(json.dumps({"directives": [line]}), "site.json").directives == (line,)


def test_the_grace_fits_the_walltime(read: Callable[..., Profile]) -> None:
    """SLURM may send the signal a minute early: with a short walltime it would come at the start."""
    assert read("walltime: 04:00:00").grace == 60
    assert read("walltime: 00:02:00").grace == 0
    assert read("walltime: null\ngrace: 300").grace == 300


# --- other systems -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("system: pbs\nqos: high", "PBS cannot be asked for this by its key; write it into directives"),
        ("system: pbs\ngpu_type: a100", "give the whole resource_spec"),
        ("system: lsf\ngrace: 60", "ask for SIGTERM in directives"),
        ("system: htcondor\nqueue: gpu", "HTCondor cannot be asked for this by its key; write a requirement"),
        ("system: htcondor\nwalltime: 60", "+MaxRuntime"),
        ("system: oar\nwalltime: null", "walltime = None: an OAR job has a walltime"),
        ("system: oar\nmemory: 16GB", "OAR has no common way to ask for this; ask for it in directives"),
        ("system: sge\ngpus: 1", "SGE has no common way to ask for this; ask for it in directives or resource_spec"),
    ],
)
def test_what_a_system_cannot_be_asked_for_is_refused(text: str, said: str, read: Callable[..., Profile]) -> None:
    """With what to do: nothing that a profile says is dropped without a word."""
    assert said in refused(read, text)


def test_what_directives_ask_for_may_be_counted(read: Callable[..., Profile]) -> None:
    profile = read("system: sge\ngpus: 2\ncpus: 8\nresource_spec: gpu=2\ndirectives: [-pe smp 8]")
    assert worker_limits(profile, ClusterRequest(4, 4)).per_job == 2
    assert worker_threads(profile, ClusterRequest(4, 4)) == 4


def test_gpus_are_counted_in_a_resource_spec(read: Callable[..., Profile]) -> None:
    assert read("system: pbs\nresource_spec: 'select=1:ncpus=8:ngpus=4:mem=64gb'").gpus == 4
    assert read("system: pbs\nresource_spec: 'select=1:ncpus=8'").gpus == 0


# --- Dask's own configuration --------------------------------------------------------------------------


def test_jobqueue_yaml_says_what_the_profile_does_not(
    jobqueue_yaml: Callable[[str], None], read: Callable[..., Profile]
) -> None:
    """The profile first, then jobqueue.yaml, then ptydask's defaults; the plan's line says what came from there."""
    jobqueue_yaml(
        "jobqueue:\n  slurm:\n    queue: site\n    account: lab\n    cores: 24\n    memory: 100GB\n"
        "    walltime: '00:30:00'\n    interface: ib0\n    job-script-prologue: [source env]\n    processes: 6\n"
    )
    profile = read("queue: gpu\n")
    assert (profile.queue, profile.account, profile.cpus, profile.memory) == ("gpu", "lab", 24, 100 * GIB)
    assert (profile.walltime, profile.interface, profile.environment) == (1800, "ib0", ("source env",))
    assert profile.gpus == 1
    assert describe(profile, ClusterRequest(1, 1)).endswith(
        "(from Dask's jobqueue.yaml: account, cpus, environment, interface, memory, walltime)"
    )


def test_the_environment_is_dasks_configuration_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_JOBQUEUE__SLURM__QUEUE", "fromenv")
    assert profile_file.complete_profile({"system": "slurm"}).queue == "fromenv"
    assert profile_file.complete_profile({"system": "pbs"}).queue is None


def test_without_jobqueue_yaml_the_defaults_are_ptydasks() -> None:
    """Not those that dask-jobqueue brings with it (a walltime of half an hour)."""
    import dask_jobqueue

    assert dask.config.get("jobqueue.slurm.walltime") == "00:30:00", dask_jobqueue
    profile = profile_file.complete_profile({"system": "slurm"})
    assert profile.walltime == 4 * 3600
    assert profile.from_dask == ()


def test_gpus_in_the_directives_of_jobqueue_yaml_are_counted(jobqueue_yaml: Callable[[str], None]) -> None:
    for line, gpus, kind in (
        ("--gres=gpu:2", 2, None),
        ("--gres=gpu:a100:4", 4, "a100"),
        ("--gres=gpu:1g.10gb:1", 1, "1g.10gb"),
        ("--gres=gpu", 1, None),
        ("-G 3", 3, None),
        ("--gpus=v100:2", 2, "v100"),
    ):
        jobqueue_yaml(f"jobqueue:\n  slurm:\n    job-extra-directives: ['{line}', '--exclusive']\n")
        profile = profile_file.complete_profile({"system": "slurm"})
        assert (profile.gpus, profile.gpu_type, profile.directives) == (gpus, kind, ("--exclusive",)), line


def test_a_wrong_value_in_jobqueue_yaml_says_where_it_is(jobqueue_yaml: Callable[[str], None]) -> None:
    jobqueue_yaml("jobqueue:\n  slurm:\n    memory: lots\n")
    with pytest.raises(ConfigError, match=r"^Dask's configuration, jobqueue.slurm: memory = 'lots': must be a number"):
        profile_file.complete_profile({"system": "slurm"})


# --- jobs and workers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "per_gpu", "workers", "least", "cap", "expected"),
    [
        (1, 1, 8, 8, None, (1, 8, 8)),
        (1, 1, 32, 0, None, (1, 32, 0)),
        (4, 1, 8, 8, None, (4, 2, 2)),
        (4, 1, 9, 1, None, (4, 3, 1)),
        (2, 3, 7, 0, None, (6, 2, 0)),
        (0, 1, 4, 4, None, (1, 4, 4)),
        (0, 2, 4, 4, None, (2, 2, 2)),
        (1, 1, 32, 16, 8, (1, 8, 8)),
    ],
)
def test_workers_are_shared_out_over_whole_jobs(
    gpus: int, per_gpu: int, workers: int, least: int, cap: int | None, expected: tuple[int, int, int]
) -> None:
    profile = Profile(gpus=gpus, max_jobs=cap)
    limits = worker_limits(profile, ClusterRequest(workers, least, per_gpu))
    assert (limits.per_job, limits.most // limits.per_job, limits.least // limits.per_job) == expected


def test_the_line_of_the_plan() -> None:
    profile = Profile(queue="gpu")
    assert describe(profile, ClusterRequest(8, 8)) == (
        "8 workers in 8 SLURM jobs, partition gpu, 1 GPU, 4 cores, 16 GB, 04:00:00 each"
    )
    assert describe(Profile(gpus=4, gpu_type="a100", cpus=8), ClusterRequest(10, 10)) == (
        "10 workers in 3 SLURM jobs of 4 workers (2 more than asked for: jobs are whole), "
        "4 GPUs (a100), 8 cores, 16 GB, 04:00:00 each"
    )
    assert describe(Profile(gpus=0, cpus=1, memory=None, walltime=None), ClusterRequest(3, 0)) == (
        "0 to 3 workers in up to 3 SLURM jobs, no GPU, 1 core each"
    )
    assert "8 SLURM jobs (max_jobs 8: 8 workers at once)" in describe(Profile(max_jobs=8), ClusterRequest(9, 9))
