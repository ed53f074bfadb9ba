"""One study on a SLURM of its own, and whatever can go wrong on a cluster going wrong at random. Prints a table.

    python benchmarks/chaos.py [--seed 1] [--faults 100] [--trials 60] [--workers 4] [--no-comparison]

The faults come evenly over the study, in random order, at random moments, and they overlap: a driver may be killed
while slurmctld is down. In the end there must be exactly as many records as were asked for, none twice, each with the
arrays and the curve of a trial that nobody disturbed, and nothing that still runs. Every trial takes some seconds in
twelve steps, with a checkpoint after each. The same study is run without any fault first, to compare the time.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import optuna
import psutil
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "plugins")]

from slurm_sandbox import Job, Sandbox, sandbox  # noqa: E402
from slurm_studies import STEPS, Study, study, worker_processes, write_profile  # noqa: E402

PAUSE = 2.0
"""Seconds between two faults that are due, at the most."""
WRITTEN = 6.0
"""Seconds within which slurmctld has written down whatever has changed."""
PATIENCE = 10.0
"""Seconds for a fault that is due to become possible, before others are."""
STUCK = 300.0
"""Seconds without a new record after which something is wrong."""
LAST = 8
"""Trials that are still to be done when the last fault comes: that one may take as long as a few trials."""
NODES_LOST = 2
"""At once, at the most: of three."""
PLAN = ("study", "tuning", "error", "search", "results", "trials", "workers", "")
"""What the lines begin with that a driver prints first."""


@dataclass
class Chaos:
    """A study, what is being done to it, and what is to be put right again."""

    it: Study
    random: random.Random
    kinds: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    repairs: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    """The driver, slurmctld, nodes, where they are gone."""
    began: float = field(default_factory=time.monotonic)
    heard: int = 0
    """Lines of the driver that are in the log."""

    @property
    def slurm(self) -> Sandbox:
        return self.it.slurm

    # --- faults: each returns what it was done to, empty where there is nothing to do it to ---

    def scancel_running(self) -> str:
        return self._of_job(self._running(), lambda job: self.slurm.scancel(job.id))

    def scancel_pending(self) -> str:
        pending = [job for job in self.slurm.jobs() if job.state == "PENDING" and job.name.startswith("ptydask-")]
        return self._of_job(pending, lambda job: self.slurm.scancel(job.id))

    def preemption(self) -> str:
        def take_node(job: Job) -> None:
            self.slurm.submit("sleep 2", "-p", "high", "-w", job.node, "--exclusive")

        return self._of_job(self._running(), take_node)

    def walltime_end(self) -> str:
        return self._of_job(self._running(), lambda job: self.slurm.update(job.id, EndTime="now+1"))

    def node_lost(self) -> str:
        nodes = sorted({job.node for job in self._running()})
        if not nodes or len(self.down & set(self.slurm.node_states())) >= NODES_LOST:
            return ""
        node = self.random.choice(nodes)
        self.slurm.kill_slurmd(node, whole=True)
        self._put_right(node, lambda: self.slurm.start_slurmd(node), 2, 12)
        return node

    def worker_killed(self) -> str:
        return self._of_worker(lambda process: process.send_signal(signal.SIGKILL))

    def worker_terminated(self) -> str:
        return self._of_worker(lambda process: process.send_signal(signal.SIGTERM))

    def worker_stopped(self) -> str:
        def stop(process: psutil.Process) -> None:
            process.send_signal(signal.SIGSTOP)
            self.repairs.append((time.monotonic() + self.random.uniform(1, 6), lambda: _wake(process)))

        return self._of_worker(stop)

    def driver_killed(self) -> str:
        if "driver" in self.down or self.it.process.poll() is not None:
            return ""
        self.it.process.kill()
        self.it.process.wait(timeout=10)
        self._put_right("driver", self.it.begin, 0, 3)
        return f"process {self.it.process.pid}"

    def slurmctld_down(self) -> str:
        # It writes down what has changed every few seconds; killed before, it would run jobs twice that it forgot.
        state, now = self.slurm.folder / "state" / "job_state", time.time()
        while state.stat().st_mtime <= now and time.time() < now + WRITTEN:
            self._rest(0.1)
        self.slurm.kill_slurmctld()
        self._put_right("slurmctld", self.slurm.start_slurmctld, 2, 10)
        return "slurmctld"

    FAULTS = (
        scancel_running,
        scancel_pending,
        preemption,
        walltime_end,
        node_lost,
        worker_killed,
        worker_terminated,
        worker_stopped,
        driver_killed,
        slurmctld_down,
    )
    ASK_SLURM = FAULTS[:5] + FAULTS[-1:]

    # --- to whom ---

    def _running(self) -> list[Job]:
        return [job for job in self.it.running() if job.node not in self.down]

    def _of_job(self, jobs: list[Job], fault: Callable[[Job], None]) -> str:
        if not jobs:
            return ""
        job = self.random.choice(jobs)
        fault(job)
        return f"job {job.id}"

    def _of_worker(self, fault: Callable[[psutil.Process], None]) -> str:
        found = worker_processes(self.slurm, None)
        if not found:
            return ""
        process = self.random.choice(sorted(found, key=lambda one: one.pid))
        fault(process)
        return f"process {process.pid}"

    # --- time ---

    def torment(self, faults: int) -> None:
        """That many faults, evenly over all but the last trials; then all is put right and the study may end."""
        during = max(1, self.it.total - LAST)
        deck: list[Callable[[Chaos], str]] = []
        if faults:
            self.it.until(lambda: self.it.under_way() >= 1)
        for number in range(faults):
            self._wait_for(number * during // faults)
            self._rest(self.random.uniform(0, PAUSE))
            if not deck:
                deck = list(self.FAULTS)
                self.random.shuffle(deck)
            until = time.monotonic() + PATIENCE
            while (fault := self._strike(deck)) is None:
                self._rest(0.5)
                if time.monotonic() > until:
                    deck = list(self.FAULTS)
                    self.random.shuffle(deck)
            deck.remove(fault)
        self.repairs = [(min(due, time.monotonic() + 3), repair) for due, repair in self.repairs]
        while self.repairs:
            self._rest(0.1)

    def _strike(self, deck: list[Callable[[Chaos], str]]) -> Callable[[Chaos], str] | None:
        """The first fault that can be done now, done; None where none can."""
        for fault in deck:
            if "slurmctld" in self.down and fault in self.ASK_SLURM:
                continue
            try:
                target = fault(self)
            except (AssertionError, OSError, psutil.Error) as error:  # what it was meant for has just ended
                self._note(f"{fault.__name__}: not done, {str(error).splitlines()[:1]}")
                continue
            if target:
                self.kinds[fault.__name__] += 1
                self._note(f"{fault.__name__}: {target}")
                return fault
        return None

    def _wait_for(self, records: int) -> None:
        until = time.monotonic() + STUCK
        while self.it.recorded() < records:
            assert time.monotonic() < until, f"{self.it.recorded()} records, and no more come:\n{self.report()}"
            self._rest(0.1)

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while True:
            self._repair()
            self._listen()
            if "driver" not in self.down:
                assert self.it.process.poll() is None, f"the run ended:\n{self.report()}"
            if time.monotonic() >= until:
                return
            time.sleep(0.05)

    def _put_right(self, what: str, how: Callable[[], None], least: float, most: float) -> None:
        def repair() -> None:
            how()
            self.down.discard(what)
            self._note(f"{what} is back")

        self.down.add(what)
        self.repairs.append((time.monotonic() + self.random.uniform(least, most), repair))

    def _repair(self) -> None:
        due = [repair for repair in self.repairs if repair[0] <= time.monotonic()]
        for one in due:
            self.repairs.remove(one)
            one[1]()

    def _listen(self) -> None:
        for line in self.it.said[self.heard :]:
            self.heard += 1
            if line[:10].strip() not in PLAN:
                self._note(f"    {line.rstrip()}")

    def _note(self, text: str) -> None:
        self.log.append(f"{time.monotonic() - self.began:7.1f} s  {self.it.recorded():3} recorded  {text}")

    def report(self) -> str:
        try:
            jobs = self.slurm.squeue()
        except AssertionError as error:
            jobs = str(error)
        return "\n".join([*self.log, *self.it.said[self.heard :], jobs])


def _wake(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        return


# --- a study ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Survived:
    """What a study went through."""

    seconds: float
    faults: Counter[str]
    attempts: Counter[int]
    """Attempts -> trials that took so many."""
    begun: int
    """Attempts in all."""
    resumed: int
    """Trials that went on from a checkpoint in the end."""
    recomputed: int
    """Steps that were done again."""
    log: tuple[str, ...]


def survive(
    slurm: Sandbox, folder: Path, *, seed: int, faults: int, trials: int, workers: int, step: float
) -> Survived:
    """Run the study under that many faults and check what it left. Raises AssertionError."""
    folder.mkdir(exist_ok=True)
    profile = write_profile(folder, cpus=4)  # a job has its node alone, so that one more than the nodes waits
    began = time.monotonic()
    options = ("--workers", workers, "--retries", 1000)
    with study(slurm, _params(folder, step), *options, total=trials, cluster=profile) as it:
        chaos = Chaos(it, random.Random(seed))
        try:
            chaos.torment(faults)
            assert it.finish(STUCK + trials * STEPS * step) == 0, "it failed"
            seconds = time.monotonic() - began
            records = it.expect_all()
            slurm.wait(lambda: not slurm.processes())
        except AssertionError as error:
            raise AssertionError(f"{error}\n{chaos.report()}") from error
    begun, steps = _steps(it.results.with_suffix(".journal"))
    return Survived(
        seconds,
        chaos.kinds,
        Counter(record.attempt for record in records),
        begun,
        len(it.resumed()),
        steps - trials * STEPS,
        tuple(chaos.log),
    )


def _params(folder: Path, step: float) -> Path:
    tuned = {
        "scale": {"state": True, "suggest": "float", "kwargs": {"low": 0.8, "high": 1.2, "step": 0.02}},
        "rotation": {"state": True, "suggest": "float", "kwargs": {"low": -4, "high": 4}},
    }
    params = {
        "init_params": {"walk": True, "iterations": STEPS, "sleep": step},
        "hypertune_params": {
            "if_hypertune": True,
            "n_trials": 1,
            "study_name": "toy",
            "pruner_params": None,
            "sampler_params": {"name": "RandomSampler"},
            "tune_params": tuned,
        },
        "recon_params": {"output_dir": str(folder / "out")},
    }
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return path


def _steps(journal: Path) -> tuple[int, int]:
    """Attempts, and steps that they did, as far as they were told to Optuna."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = optuna.load_study(study_name="toy", storage=JournalStorage(JournalFileBackend(str(journal)))).trials
    return len(found), sum(max(0, (t.last_step or 0) - int(t.user_attrs.get("resumed", 0))) for t in found)


# --- the table ----------------------------------------------------------------------------------------


def table(survived: Survived, undisturbed: Survived | None, trials: int) -> str:
    lines = [f"{kind.replace('_', ' '):<20}{count:>5}" for kind, count in sorted(survived.faults.items())]
    lines += [f"{'faults':<20}{survived.faults.total():>5}", ""]
    for attempts, count in sorted(survived.attempts.items()):
        lines.append(f"{count:>4} trials in {attempts} attempt{'s' * (attempts != 1)}")
    done = trials * STEPS
    lines += [
        f"{survived.begun} attempts in all; {survived.resumed} of {trials} trials went on from a checkpoint",
        f"{survived.recomputed} steps were done again, {100 * survived.recomputed / done:.1f} % of {done}",
        f"{survived.seconds:.0f} s",
    ]
    if undisturbed is not None:
        lines[-1] += f"; undisturbed {undisturbed.seconds:.0f} s"
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--workers", type=int, default=4, help="of which three run at a time")
    parser.add_argument("--step", type=float, default=0.4, help="seconds of each of a trial's twelve steps")
    parser.add_argument("--no-comparison", action="store_true", help="without the undisturbed study")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))  # all is taken down then, too
    asked = {"seed": args.seed, "trials": args.trials, "workers": args.workers, "step": args.step}
    with tempfile.TemporaryDirectory(prefix="ptydask-chaos-") as folder, sandbox() as bare:
        paths = [str(TESTS / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])]
        slurm = replace(bare, env=MappingProxyType({**bare.env, "PYTHONPATH": os.pathsep.join(paths)}))
        undisturbed = None
        if not args.no_comparison:
            undisturbed = survive(slurm, Path(folder) / "undisturbed", faults=0, **asked)
            print(f"undisturbed: {undisturbed.seconds:.0f} s", file=sys.stderr, flush=True)
        survived = survive(slurm, Path(folder) / "disturbed", faults=args.faults, **asked)
    print("\n".join(survived.log), file=sys.stderr)
    print(table(survived, undisturbed, args.trials))


if __name__ == "__main__":
    main()
