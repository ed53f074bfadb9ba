"""The tuners that orchestration.py sets beside ptydask: the same trials, each as its own users run it on one machine.

Each keeps its study on disk. Packages that ptydask does without (gRPC, optuna-distributed, Ray) are installed, when
they are asked for, into ``benchmarks/cache/contenders``: an environment that sees this one's packages and adds its own.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "benchmarks" / "cache" / "contenders"
NAMES = ("scale", "asymmetry", "rotation", "shear", "tilt_y", "tilt_x")
LOW, HIGH = 0.5, 2.0
STEPS, WORKERS = 3, 2
STUDY = "orchestration"


@dataclass(frozen=True, slots=True)
class Work:
    """One study: where it is kept, what samples, how many trials."""

    folder: Path
    sampler: str
    """A class of ``optuna.samplers``."""
    trials: int

    @property
    def ended(self) -> Path:
        """A file with one byte for each trial whose end the study's storage has."""
        return self.folder / "ended"

    def note_end(self) -> None:
        with self.ended.open("ab", buffering=0) as file:
            file.write(b".")

    def count(self) -> int:
        """Trials that ended."""
        return self.ended.stat().st_size if self.ended.exists() else 0


@dataclass(frozen=True, slots=True)
class Contender:
    title: str
    run: Callable[[Work], None]
    requirements: tuple[str, ...] = ()
    """To be installed for it alone; the first is what its figures are of."""


def objective(trial: optuna.Trial) -> float:
    """Nothing but what a tuner is told: 6 floats, 3 reports, and whether to go on after each but the last."""
    import optuna

    total = sum(float(trial.suggest_float(name, LOW, HIGH)) ** 2 for name in NAMES)
    for step in range(1, STEPS + 1):
        trial.report(total + 1 / step, step)
        if step < STEPS and trial.should_prune():
            raise optuna.TrialPruned
    return total + 1 / STEPS


# --- Optuna ---------------------------------------------------------------------------------------------


def open_storage(address: str) -> optuna.storages.BaseStorage:
    """Of ``journal:FILE``, ``sqlite:///FILE`` or ``grpc:PORT``."""
    import optuna

    kind, _, rest = address.partition(":")
    if kind == "journal":
        return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(rest))
    if kind == "grpc":
        return optuna.storages.GrpcStorageProxy(host="localhost", port=int(rest))
    return optuna.storages.RDBStorage(address)


def load_study(address: str, sampler: str, seed: int) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name=STUDY,
        storage=open_storage(address),
        sampler=getattr(optuna.samplers, sampler)(seed=seed),
        pruner=optuna.pruners.MedianPruner(),
        load_if_exists=True,
    )


def run_optuna(work: Work, address: str) -> None:
    """As many processes as there are workers, on one storage."""
    load_study(address, work.sampler, 0)
    command = [sys.executable, __file__, "optimize", address, str(work.folder), work.sampler, str(work.trials)]
    workers = [subprocess.Popen([*command, str(seed)]) for seed in range(WORKERS)]
    codes = [worker.wait() for worker in workers]
    if any(codes):
        raise RuntimeError(f"a process of Optuna's exited with {max(codes, key=abs)}")


def optimize(address: str, work: Work, seed: int) -> None:
    """One of those processes: trials until all are there."""
    study = load_study(address, work.sampler, seed)

    def after(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        work.note_end()
        if work.count() >= work.trials:
            study.stop()

    study.optimize(objective, callbacks=[after])


def run_grpc(work: Work, address: str) -> None:
    """Over Optuna's proxy, whose server has the study at ``address``."""
    import optuna

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, __file__, "serve", address, str(port)])
    try:
        optuna.storages.GrpcStorageProxy(host="localhost", port=port).wait_server_ready(timeout=60)
        run_optuna(work, f"grpc:{port}")
    finally:
        server.terminate()
        server.wait()


def journal_of(work: Work) -> str:
    return f"journal:{work.folder / 'optuna.journal'}"


def sqlite_of(work: Work) -> str:
    return f"sqlite:///{work.folder / 'optuna.sqlite3'}"


def serve(address: str, port: int) -> None:
    import optuna

    optuna.storages.run_grpc_proxy_server(open_storage(address), host="localhost", port=port)


# --- Others ---------------------------------------------------------------------------------------------


def run_optuna_distributed(work: Work) -> None:
    """On Dask workers of this machine; its driver alone has the study, in Optuna's journal file."""
    import optuna_distributed
    from dask.distributed import Client, LocalCluster

    study = load_study(journal_of(work), work.sampler, 0)
    tell = study.tell

    def telling(*args: Any, **options: Any) -> Any:
        told = tell(*args, **options)
        work.note_end()
        return told

    study.tell = telling  # type: ignore[method-assign]  # it has no callbacks
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(
            cluster.scheduler_address
        ) as client,  # with the cluster itself it would fork processes, and not use Dask
    ):
        optuna_distributed.from_study(study, client=client).optimize(objective, n_trials=work.trials)


def run_ray(work: Work) -> None:
    """Ray Tune with its own median rule; its own random search, or Optuna's sampler."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    import optuna
    import ray
    from ray import tune
    from ray.tune.schedulers import MedianStoppingRule
    from ray.tune.search.optuna import OptunaSearch

    class NoteEnds(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            work.note_end()

    def trainable(config: Mapping[str, float]) -> None:
        total = sum(config[name] ** 2 for name in NAMES)
        for step in range(1, STEPS + 1):
            tune.report({"value": total + 1 / step})

    search = None
    if work.sampler != "RandomSampler":
        search = OptunaSearch(sampler=getattr(optuna.samplers, work.sampler)(seed=0))
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, _temp_dir=str(work.folder / "ray"))
    results = tune.Tuner(
        trainable,
        param_space={name: tune.uniform(LOW, HIGH) for name in NAMES},
        tune_config=tune.TuneConfig(
            metric="value",
            mode="min",
            num_samples=work.trials,
            search_alg=search,
            scheduler=MedianStoppingRule(time_attr="training_iteration", grace_period=1, min_samples_required=5),
            max_concurrent_trials=WORKERS,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(work.folder / "results"), verbose=0, callbacks=[NoteEnds()]),
    ).fit()
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} trials of Ray Tune failed: {results.errors[0]}")
    ray.shutdown()


GRPC = ("grpcio", "protobuf")
CONTENDERS = {
    "optuna": Contender("Optuna, journal file", lambda work: run_optuna(work, journal_of(work))),
    "sqlite": Contender("Optuna, SQLite", lambda work: run_optuna(work, sqlite_of(work))),
    "grpc": Contender("Optuna, gRPC, journal file", lambda work: run_grpc(work, journal_of(work)), GRPC),
    "grpc-sqlite": Contender("Optuna, gRPC, SQLite", lambda work: run_grpc(work, sqlite_of(work)), GRPC),
    "optuna-distributed": Contender("optuna-distributed", run_optuna_distributed, ("optuna-distributed",)),
    "ray": Contender("Ray Tune", run_ray, ("ray[tune]",)),
}


# --- Their environment ----------------------------------------------------------------------------------


def prepare(requirements: Sequence[str]) -> Path:
    """The Python to run a contender with, its packages installed: this one where it needs none.

    Raises subprocess.CalledProcessError with pip's words where they cannot be installed.
    """
    if not requirements:
        return Path(sys.executable)
    folder = CACHE / requirements[0].partition("[")[0]
    python, ready = folder / "bin" / "python", folder / "ready"
    constraints = ROOT / "constraints.txt"
    stamp = "\n".join([*requirements, sys.prefix, constraints.read_text(encoding="utf-8")])
    if ready.exists() and ready.read_text(encoding="utf-8") == stamp:
        return python
    venv.create(folder, clear=True, with_pip=True)
    seen = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (own_packages(folder) / "parent.pth").write_text(seen, encoding="utf-8")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", constraints]
    subprocess.run([*install, *requirements], check=True, capture_output=True, text=True)
    ready.write_text(stamp, encoding="utf-8")
    return python


def own_packages(folder: Path) -> Path:
    """Where an environment has its packages."""
    return Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(folder)}))


def main() -> None:
    """One process of a contender: ``optimize ADDRESS FOLDER SAMPLER TRIALS SEED`` or ``serve ADDRESS PORT``."""
    what, address, *rest = sys.argv[1:]
    if what == "serve":
        serve(address, int(rest[0]))
    else:
        folder, sampler, trials, seed = rest
        optimize(address, Work(Path(folder), sampler, int(trials)), int(seed))


if __name__ == "__main__":
    main()
