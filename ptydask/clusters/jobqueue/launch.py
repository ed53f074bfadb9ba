"""From a profile to dask-jobqueue: the keywords of its classes, the job script, the scheduler and its keys."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptydask.clusters import ClusterRequest
from ptydask.clusters.jobqueue import systems
from ptydask.clusters.jobqueue.profile import SYSTEMS, Profile, worker_limits, worker_threads
from ptydask.clusters.settings import SETTINGS, THREADS, UNLESS_SET, dask_variable, many_open_files, space_heartbeats
from ptydask.errors import ClusterError, one_line
from ptydask.stop_signals import close_undisturbed, for_this_process_only, held_back

if TYPE_CHECKING:
    from dask_jobqueue.core import Job, JobQueueCluster

_PRELOAD = "ptydask.clusters.jobqueue.preload"
_ADDRESS = "tls://<address-of-the-scheduler>"
_CERTIFICATE, _KEY = "certificate.pem", "key.pem"
_JOIN = 300
"""Seconds that a worker looks for the scheduler. Python alone can take a minute to start from a busy network disk."""


# --- names and folders ----------------------------------------------------------------------------


def job_name(request: ClusterRequest) -> str:
    """The name of all jobs of this results file: by it, those of a driver that died are found."""
    return "ptydask-" + re.sub(r"[^\w.-]", "_", request.label, flags=re.ASCII)


def worker_name(number: int) -> str:
    """Dask's name for the worker of job ``number``, counted from 1 and never used again in a run."""
    return f"job{number}"


def log_folder(profile: Profile, request: ClusterRequest) -> Path:
    """Where the batch system puts the jobs' output, both streams in one file with the job's id in its name.

    SLURM: ``JOBNAME-JOBID.out``.
    """
    return _shared_folder(profile, request) / "jobs"


def keys_folder(profile: Profile, request: ClusterRequest) -> Path:
    """Where the keys of a run are while it lasts: nothing else may be in there."""
    return _shared_folder(profile, request) / "keys"


def _shared_folder(profile: Profile, request: ClusterRequest) -> Path:
    if profile.shared_directory is None:
        return request.folder.absolute()
    return Path(os.path.expandvars(profile.shared_directory)).absolute() / job_name(request)


# --- the job ----------------------------------------------------------------------------------------


def job_options(profile: Profile, request: ClusterRequest) -> dict[str, Any]:
    """Keyword arguments for the class of ``profile.system``, the same for every job of a run. Touches nothing."""
    import dask

    processes = worker_limits(profile, request).per_job
    section = f"jobqueue.{profile.system}."
    system_options = systems.class_options(profile, log_folder(profile, request))
    system_options["job_directives_skip"] += dask.config.get(section + "job-directives-skip", None) or ()
    return {
        "job_name": job_name(request),
        # Threads of a worker are Dask's, and a worker has one trial; its cores are in the environment.
        "cores": processes,
        "processes": processes,
        "memory": f"{profile.memory or 2**40}B",
        # SIGTERM then reaches the nanny, and not a shell around it.
        "python": " ".join(["exec", *map(_shell_word, shlex.split(profile.python))]),
        "nanny": True,
        "interface": profile.interface,
        "local_directory": profile.local_directory and _shell_word(profile.local_directory),
        "death_timeout": _JOIN,
        "worker_extra_args": [
            *("--preload", _PRELOAD),
            *("--preload-nanny", _PRELOAD),
            # Without a dashboard there still is a web server: on loopback, and serving nothing.
            *("--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
            *(dask.config.get(section + "worker-extra-args", None) or ()),
        ],
        "job_script_prologue": _prologue(profile, request),
        **system_options,
    }


def _prologue(profile: Profile, request: ClusterRequest) -> list[str]:
    def or_give_up(command: str, message: str) -> str:
        return f'{command} || {{ echo "ptydask: {message} on ${{HOSTNAME:-this node}}" >&2; exit 127; }}'

    program = shlex.split(profile.python)[0]
    plain_program = re.sub(r'["`\\$]', "", program)  # within the quotes of echo
    return [
        *(or_give_up(f"module load {name}", f"module load {name} failed") for name in profile.modules),
        *(f"export {name}={shlex.quote(value)}" for name, value in _worker_environment(profile, request).items()),
        *(f"export {name}=${{{name}:-{value}}}" for name, value in UNLESS_SET.items()),
        *profile.environment,
        or_give_up(
            f"command -v {_shell_word(program)} >/dev/null", f"the python of the profile, {plain_program}, is not there"
        ),
    ]


def _worker_environment(profile: Profile, request: ClusterRequest) -> dict[str, str]:
    """What each worker of a job has; explicit variables also beat the nanny's OMP_NUM_THREADS=1."""
    environment = dict.fromkeys(THREADS, str(worker_threads(profile, request)))
    if not profile.gpus:  # a batch system may hand on the environment of the driver, and with it the driver's GPUs
        environment["CUDA_VISIBLE_DEVICES"] = ""
    environment |= {dask_variable(name): str(value) for name, value in SETTINGS.items() if ".scheduler." not in name}
    environment[dask_variable("distributed.comm.require-encryption")] = "True"
    return environment


def _shell_word(text: str) -> str:
    """One word of a shell command; variables in it are left for the shell of the job."""
    if "$" not in text:
        return shlex.quote(text)
    return '"' + re.sub(r'(["`\\])', r"\\\1", text) + '"'


def job_script(profile: Profile, request: ClusterRequest) -> str:
    """What is submitted for the first job; only the scheduler's address is not known before. Touches nothing.

    Raises ClusterError where dask-jobqueue refuses the job.
    """
    with jobqueue_config(profile):
        keys = keys_folder(profile, request)
        options = {
            **job_options(profile, request),
            "protocol": "tls://",
            "security": _tls_security({}, keys / _CERTIFICATE, keys / _KEY),
        }
        try:
            job: Job = _cluster_class(profile).job_cls(_ADDRESS, name=worker_name(1), **options)
        except (ValueError, TypeError) as error:
            raise ClusterError(f"dask-jobqueue refuses this job: {one_line(str(error))}") from error
        return str(job.job_script())


# --- dask-jobqueue ------------------------------------------------------------------------------------


def _cluster_class(profile: Profile) -> type[JobQueueCluster]:
    import dask_jobqueue

    return getattr(dask_jobqueue, f"{SYSTEMS[profile.system]}Cluster")


_OURS = ("log-directory", "project", "account", "queue", "extra", "env-extra", "job-extra", "header-skip", "interface")
"""What dask-jobqueue would look up for itself: it is in the profile already, or ptydask's own."""


@contextmanager
def jobqueue_config(profile: Profile) -> Iterator[None]:
    """Dask's configuration while jobs of this profile are made and a scheduler for them runs."""
    import dask

    with held_back():  # it sets a handler of its own for Ctrl-C, which would end the run with exit code 0
        import dask_jobqueue  # noqa: F401 - it puts its own defaults into the configuration

    unset = {f"jobqueue.{profile.system}.{name}": None for name in _OURS}
    with dask.config.set({**SETTINGS, **unset}):
        yield


@contextmanager
def open_scheduler(profile: Profile, request: ClusterRequest) -> Iterator[JobQueueCluster]:
    """A scheduler without jobs, while it is needed. Its keys are removed in the end, whatever happens.

    Raises ClusterError where it does not come up.
    """
    keys = keys_folder(profile, request)
    with jobqueue_config(profile), many_open_files(), ExitStack() as stack:
        stack.callback(shutil.rmtree, keys, ignore_errors=True)
        with held_back():  # what it held back is raised at its end: the stack must know by then what to close
            cluster = make_scheduler(profile, request, keys)
            stack.callback(close_undisturbed, cluster)
        yield cluster


def make_scheduler(profile: Profile, request: ClusterRequest, keys: Path) -> JobQueueCluster:
    """A scheduler with TLS, and no job yet: its ``new_spec`` is what starts one. Close it, then remove ``keys``.

    The certificate is made for this run. Its key is written into the folder ``keys`` for the jobs to read, and into
    no other place. Call it within :func:`jobqueue_config`. Raises ClusterError where the scheduler does not come up.
    """
    import dask
    from distributed import Security

    logs = str(log_folder(profile, request))
    if "\\" in logs or not logs.isprintable():  # SLURM would read another path, or another line
        raise ClusterError(f"{logs!r}: no backslash and no line break may be in the path of the results of jobs")
    try:
        temporary = Security.temporary()
        names = [f"tls_{role}_{part}" for role in ("client", "scheduler") for part in ("cert", "key")]
        in_memory = {name: getattr(temporary, name) for name in names}  # the driver's own halves are on no disk
        security = _tls_security(in_memory, *_write_keys(temporary, keys))
        log_folder(profile, request).mkdir(parents=True, exist_ok=True)
        site_options = dask.config.get(f"jobqueue.{profile.system}.scheduler-options", None) or {}
        # Whatever the configuration says: no other door than the one with TLS.
        tls_only = {"security": security, "protocol": "tls://", "dashboard_address": "127.0.0.1:0"}
        with warnings.catch_warnings(), for_this_process_only():
            warnings.filterwarnings("ignore", category=RuntimeWarning, message="Couldn't detect a suitable IP address")
            cluster: JobQueueCluster = _cluster_class(profile)(
                n_workers=0,
                protocol="tls://",
                security=security,
                scheduler_options={**site_options, **tls_only},
                silence_logs="critical",
                **job_options(profile, request),
            )
    except ClusterError:
        raise
    except Exception as error:
        raise ClusterError(f"the scheduler did not start: {one_line(str(error))}") from error
    space_heartbeats(cluster.scheduler)
    return cluster


# --- keys ---------------------------------------------------------------------------------------------


def _write_keys(temporary: Any, keys: Path) -> tuple[Path, Path]:
    """Write what the workers need, for this user's eyes only."""
    try:
        if keys.is_symlink():
            raise ClusterError(f"{keys} is a link; keys are not written through it")
        shutil.rmtree(keys, ignore_errors=True)  # of a driver that died
        keys.mkdir(mode=0o700, parents=True)
        certificate, key = keys / _CERTIFICATE, keys / _KEY
        for path, text in ((certificate, temporary.tls_worker_cert), (key, temporary.tls_worker_key)):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
        if (keys.stat().st_mode | key.stat().st_mode) & 0o077:
            raise ClusterError(f"{keys} would be readable by others: the file system does not keep permissions")
    except OSError as error:
        raise ClusterError(f"the keys of the run cannot be written: {one_line(str(error))}") from error
    return certificate, key


def _tls_security(in_memory: Mapping[str, str], certificate: Path, key: Path) -> Any:
    from distributed import Security

    class WorkerFiles(Security):
        """The worker's files as a shell has to see them: dask-jobqueue puts them into the script as they are."""

        def get_tls_config_for_role(self, role: str) -> dict[str, str | None]:
            """As Dask has it, the worker's files quoted."""
            files = super().get_tls_config_for_role(role)
            if role != "worker":
                return files
            return {name: value and shlex.quote(value) for name, value in files.items()}

    return WorkerFiles(
        require_encryption=True,
        tls_ca_file=str(certificate),
        tls_worker_cert=str(certificate),
        tls_worker_key=str(key),
        **in_memory,
    )
