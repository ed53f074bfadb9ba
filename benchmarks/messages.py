"""What a message costs the driver's process, and how many workers one driver carries by that. Prints two tables.

    python benchmarks/messages.py [--repeats 300] [--trials 150] [--write]

Each kind of message is sent many times between a worker of this machine and the driver, over TLS as in a run; what is
counted is the CPU time of the driver's process, scheduler and journal in it, less what it needs while nothing is sent.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scaling
from processes import run_toy_study, use_toy_engine, watch_journal
from sections import Table, add_write_argument, write_section

from ptydask.clusters.settings import heartbeat_interval

SHARE = 0.5
"""Of a core that the driver may need: its Python has one. Beyond it workers wait for each other: at random arrivals
for half a message at a load of 0.5, for four and a half at 0.9 (Pollaczek and Khinchine, constant service)."""
LENGTHS = (1.0, 10.0, 60.0, 600.0)
"""Seconds of a trial, in the table."""
TRIED = 2000
"""The table has no more workers than these: with more, something else is the limit that nobody has measured."""


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds of the driver's process."""

    trial: float
    """A whole trial without judged reports: sent, its entries of the journal, collected, recorded, shown."""
    report: float
    """One report that a pruner judges."""
    heartbeat: float
    second: float = 0.0
    """What it does every second, whatever the workers do."""


TYPICAL = Costs(trial=0.008, report=0.0007, heartbeat=0.0003, second=0.02)
"""Those of docs/scale.md, whose table a test holds to them."""
SECOND = "a second in which nothing happens"


def driver_load(costs: Costs, workers: int, seconds: float, reports: float = 0.0) -> float:
    """The share of one core that the driver needs for workers whose trials take ``seconds`` and are judged
    ``reports`` times each."""
    trials = workers / seconds
    beats = workers / heartbeat_interval(workers)
    return costs.second + trials * (costs.trial + reports * costs.report) + beats * costs.heartbeat


def most_workers(costs: Costs, seconds: float, reports: float = 0.0, share: float = SHARE) -> int:
    """The most workers with which the driver needs no more than ``share`` of a core; 0 where not even one does."""
    low, high = 0, 1
    while driver_load(costs, high, seconds, reports) <= share and high < 1 << 20:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if driver_load(costs, middle, seconds, reports) <= share:
            low = middle
        else:
            high = middle
    return low


def capacity_table(costs: Costs) -> Table:
    """How many workers, and trials an hour, by the length of a trial: without a pruner, and judged every second."""
    rows = []
    for seconds in LENGTHS:
        row = [f"{seconds:g} s"]
        for reports in (0.0, seconds):
            most = most_workers(costs, seconds, reports)
            over, workers = "over " * (most > TRIED), min(most, TRIED)
            row += [f"{over}{_rounded(number):,}" for number in (workers, 3600 * workers / seconds)]
        rows.append(tuple(row))
    columns = ("length of a trial", "workers", "trials an hour", "workers, judged every second", "trials an hour")
    return Table(columns, tuple(rows))


def _rounded(number: float) -> int:
    """Two digits of it: the costs are not known better."""
    return int(float(f"{number:.2g}"))


# --- messages, one by one -------------------------------------------------------------------------------


def measure_messages(folder: Path, repeats: int) -> dict[str, float]:
    """CPU seconds of this process for one message of each kind."""
    from ptydask.clusters import ClusterRequest
    from ptydask.clusters.local import ThisMachine
    from ptydask.storage.transport import JournalService, withdraw

    costs = {}
    with ThisMachine().open(ClusterRequest(1, 1)) as cluster:
        client, journal = cluster.client, folder / "messages.journal"
        client.wait_for_workers(1, timeout=120)
        service = JournalService(journal, client.id)
        client.register_plugin(service)

        def on_worker(function: Callable[..., None], *arguments: object) -> Callable[[], None]:
            return lambda: client.submit(function, *arguments, repeats, pure=False).result()

        kinds: dict[str, Callable[[], None]] = {
            "heartbeat": on_worker(send_heartbeats),
            "call of the journal: read": on_worker(call_journal, str(journal), [], False),
            "call of the journal: a report": on_worker(call_journal, str(journal), [REPORT], False),
            "call of the journal: the end of a trial, on disk": on_worker(call_journal, str(journal), [REPORT], True),
            "task: sent, done, its result fetched": lambda: send_tasks(client, repeats),
            "connection: TLS handshake": on_worker(open_connections, client.scheduler.address),
            "look at the workers": lambda: look_at_workers(client, repeats),
        }
        for send in kinds.values():
            send()  # whatever is done but once
        idle = _cpu_rate(lambda: time.sleep(3.0))[1] / 3.0
        costs[SECOND] = idle
        for kind, send in kinds.items():
            wall, cpu = _cpu_rate(send)
            costs[kind] = max(0.0, cpu - idle * wall) / repeats
        withdraw(client, service.name)
    return costs


REPORT = b'{"op_code":7,"worker_id":"0123456789abcdef","trial_id":17,"step":3,"intermediate_value":0.123456789}'


def _cpu_rate(act: Callable[[], object]) -> tuple[float, float]:
    began, cpu = time.monotonic(), time.process_time()
    act()
    return time.monotonic() - began, time.process_time() - cpu


def send_heartbeats(repeats: int) -> None:
    """On a worker: as many heartbeats, one after the other."""
    from distributed import get_worker
    from distributed.utils import sync

    worker = get_worker()
    for _ in range(repeats):
        sync(worker.loop, worker.heartbeat)


def call_journal(journal: str, lines: list[bytes], durable: bool, repeats: int) -> None:
    """On a worker: as many calls of the journal, each of which brings its own lines back."""
    from ptydask.storage.transport import call_scheduler

    known = len(call_scheduler("ptydask_journal", journal=journal))
    for _ in range(repeats):
        known += len(call_scheduler("ptydask_journal", journal=journal, lines=lines, known=known, durable=durable))


def open_connections(address: str, repeats: int) -> None:
    """On a worker: as many new connections, each for one question."""
    from distributed import get_worker, rpc
    from distributed.utils import sync

    worker = get_worker()

    async def connect() -> None:
        async with rpc(address, connection_args=worker.connection_args) as scheduler:
            await scheduler.ncores()

    for _ in range(repeats):
        sync(worker.loop, connect)


def look_at_workers(client: Any, repeats: int) -> None:
    """What the driver asks every second."""
    from ptydask.clusters import workers_of

    for _ in range(repeats):
        workers_of(client)


def send_tasks(client: Any, repeats: int) -> None:
    """Tasks that do nothing, one after the other."""
    for _ in range(repeats):
        client.submit(int, pure=False).result()


# --- a whole trial --------------------------------------------------------------------------------------


def measure_trial(trials: int, steps: int, second: float) -> float:
    """CPU seconds of the driver's process for one trial that does nothing, with ``steps`` judged reports.

    ``second`` is what it needs every second in which nothing happens.
    """
    with tempfile.TemporaryDirectory(prefix="messages.") as folder:
        command = [sys.executable, __file__, "--one", folder, str(trials), str(steps)]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    wall, cpu = map(float, told.split())
    return max(0.0, cpu - second * wall)


def run_trials(folder: Path, trials: int, steps: int) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process, a trial, between a tenth and the last of the trials."""
    from ptydask.storage.transport import FRESH

    marks: list[tuple[int, float, float]] = []

    def mark_end(ends: bool) -> None:
        if ends:
            marks.append((len(marks) + 1, time.monotonic(), time.process_time()))

    watch_journal(mark_end)
    params = scaling.write_params(folder, seconds=2 * FRESH if steps else 0.0, each=trials, steps=steps)
    run_toy_study(params, 2, trials=trials)
    (first, began, before), (last, over, after) = marks[trials // 10], marks[-1]
    return (over - began) / (last - first), (after - before) / (last - first)


STEPS = 20
"""Reports of the trials that tell what one costs."""


def measure(repeats: int, trials: int) -> tuple[dict[str, float], Costs]:
    """What messages of each kind cost, and what the model needs of it."""
    with tempfile.TemporaryDirectory(prefix="messages.") as folder:
        kinds = measure_messages(Path(folder), repeats)
    second = kinds[SECOND] + kinds["look at the workers"]
    trial = kinds["trial that does nothing, all in all"] = measure_trial(trials, 0, second)
    judged = measure_trial(trials, STEPS, second)
    report = kinds["report that a pruner judges"] = max(0.0, judged - trial) / STEPS
    costs = Costs(trial, report, kinds["heartbeat"], second)
    return kinds, costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    add_write_argument(parser)
    args = parser.parse_args()
    use_toy_engine()
    if args.one:
        folder, trials, steps = args.one
        print(*run_trials(Path(folder), int(trials), int(steps)))
        return
    kinds, costs = measure(args.repeats, args.trials)
    messages = Table(("message", "CPU of the driver, ms"), tuple((k, f"{1000 * v:.2f}") for k, v in kinds.items()))
    print(f"{messages}\n\n{capacity_table(costs)}")
    if args.write:
        write_section(
            "messages",
            "What a message costs, and how many workers one driver carries",
            *PARAGRAPHS[:1],
            messages,
            *PARAGRAPHS[1:],
            capacity_table(costs),
        )


PARAGRAPHS = (
    "CPU time of the driver's process for one message of each kind between it and a worker, over TLS; scheduler "
    "and journal are in it. The trials do nothing, draw at random, and are recorded, shown and written as any "
    "other.",
    f"One driver is one Python, which has one core. By these costs it needs {SHARE:.0%} of it with so many "
    "workers; with more, they begin to wait for each other. What else its machine does comes on top: workers on "
    "the same machine have their own cores, or take the driver's. What to change beyond it: [how many workers "
    "one driver carries](scale.md).",
)


if __name__ == "__main__":
    main()
