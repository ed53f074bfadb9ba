"""The memory of workers that go from study to study, beside that of each study alone. Prints a table; Linux only.

    python benchmarks/queue_memory.py [--scan 64] [--pixels 128 96 128] [--workers 1 2] [--trials 2] [--again]

Each study of the queue has data of its own, ``--scan`` squared patterns of so many pixels a side as float32, and runs
short trials of PtyRAD on the CPU. What counts is a worker's unique set size (USS, the private pages of smaps_rollup):
what the machine gets back when the process ends. ``settled`` is its median from the end of a worker's first trial of a
study to the end of its last, ``peak`` the most from the moment when the worker begins to leave the study before until
then: reading the data is in it, so that data of two studies at a time would show. With ``--again`` the first study is
there once more at the end, under another name.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
import psutil
import yaml

from ptydask.store import reader

MIB = 2**20


@dataclass(frozen=True, slots=True)
class DataSet:
    """A made-up scan: a disk whose brightness and place change from position to position."""

    name: str
    scan: int
    pixels: int

    @property
    def bytes(self) -> int:
        return 4 * self.scan**2 * self.pixels**2

    def write(self, folder: Path, trials: int) -> Path:
        """The data and a params file for them, which is returned."""
        data = folder / f"{self.name}.h5"
        axis = np.arange(self.pixels, dtype=np.float32) - self.pixels / 2
        ky, kx = np.meshgrid(axis, axis, indexing="ij")
        with h5py.File(data, "w") as file:
            shape = (self.scan**2, self.pixels, self.pixels)
            patterns = file.create_dataset("patterns", shape, "float32", chunks=(1, *shape[1:]))
            for index in range(len(patterns)):
                phase = 2 * np.pi * index / self.scan
                disk = np.hypot(ky - np.sin(phase), kx - np.cos(phase)) < self.pixels / 5
                patterns[index] = (100 + 20 * np.cos(phase + ky / 5)) * disk
        return self.write_params(folder, self.name, trials)

    def write_params(self, folder: Path, study: str, trials: int) -> Path:
        """Another study of these data."""
        params = folder / f"{study}.yaml"
        params.write_text(yaml.safe_dump(self._params(folder / f"{self.name}.h5", study, trials)))
        return params

    def _params(self, data: Path, study: str, trials: int) -> dict[str, object]:
        tuned = {"state": True, "suggest": "float", "kwargs": {"low": -2.0, "high": 2.0}}
        return {
            "init_params": {
                "probe_kv": 80,
                "probe_conv_angle": 25.0,
                "probe_aberrations": {"C10": 100.0},
                "meas_params": {"path": str(data), "key": "patterns"},
                "meas_Npix": self.pixels,
                "meas_calibration": {"mode": "dx", "value": 0.2},
                "pos_N_scan_slow": self.scan,
                "pos_N_scan_fast": self.scan,
                "pos_scan_step_size": 0.4,
                "pos_scan_rand_std": None,
                "probe_pmode_max": 1,
                "obj_Nlayer": 1,
                "obj_slice_thickness": 1,
            },
            "hypertune_params": {
                "if_hypertune": True,
                "n_trials": trials,
                "study_name": study,
                "pruner_params": None,
                "sampler_params": {"name": "RandomSampler"},
                "tune_params": {"rotation": tuned},
            },
            "recon_params": {
                "NITER": 2,
                "INDICES_MODE": {"mode": "sub", "subscan_slow": 8, "subscan_fast": 8},
                "BATCH_SIZE": {"size": 16, "grad_accumulation": 1},
                "output_dir": str(data.parent / "out"),
            },
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """One worker process at one moment, in bytes."""

    at: float
    uss: int
    pss: int
    rss: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one worker in one study, in bytes."""

    study: str
    peak: int
    settled: Sample


@dataclass(slots=True)
class Watch:
    """Samples of all worker processes of a run, for as long as it lives."""

    process: subprocess.Popen[str]
    samples: dict[int, list[Sample]] = field(default_factory=dict)

    def run(self) -> None:
        main = psutil.Process(self.process.pid)
        while self.process.poll() is None:
            try:
                servers = [child for child in main.children() if "multiprocessing.forkserver" in str(child.cmdline())]
                for pid in [worker.pid for server in servers for worker in server.children()]:
                    self.samples.setdefault(pid, []).append(read_memory(pid))
            except (psutil.Error, OSError):
                pass
            time.sleep(0.05)


def read_memory(pid: int) -> Sample:
    """What /proc says of a process. Raises OSError where it is gone."""
    sizes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size, *_ = line.split()
        sizes[name.rstrip(":")] = int(size) * 1024
    return Sample(time.time(), sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["Pss"], sizes["Rss"])


def run_queue(files: Sequence[Path], workers: int) -> dict[int, list[Sample]]:
    """The samples of each worker process of ``ptydask run`` on these params files."""
    command = [sys.executable, "-m", "ptydask", "run", *map(str, files), "--cluster", "local"]
    process = subprocess.Popen(
        [*command, "--workers", str(workers)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = Watch(process)
    watching = threading.Thread(target=watch.run)
    watching.start()
    _, said = process.communicate()
    watching.join()
    if process.returncode != 0:
        raise SystemExit(f"the run failed:\n{said}")
    return watch.samples


def trial_spans(results: Sequence[Path]) -> dict[str, list[tuple[float, float, str]]]:
    """Begin, end and study of the trials of each worker, in order."""
    spans: dict[str, list[tuple[float, float, str]]] = {}
    for path in results:
        with reader.open(path) as study:
            for record in study.records():
                began = datetime.fromisoformat(record.started).timestamp()
                spans.setdefault(record.worker, []).append((began, began + record.seconds, path.stem))
    return {worker: sorted(trials) for worker, trials in sorted(spans.items())}


def usage_of(samples: Sequence[Sample], trials: Sequence[tuple[float, float, str]]) -> list[Usage]:
    """What one worker used in each study that it was in, in order."""
    usage, before = [], 0.0
    for study in dict.fromkeys(trial[2] for trial in trials):
        own = [(begin, end) for begin, end, name in trials if name == study]
        inside = [sample for sample in samples if before <= sample.at <= own[-1][1]]
        settled = [sample for sample in inside if sample.at >= own[0][1]] or inside[-1:]
        middle = sorted(settled, key=lambda sample: sample.uss)[len(settled) // 2]
        usage.append(Usage(study, max(sample.uss for sample in inside), middle))
        before = own[-1][1]
    return usage


def measure(files: Sequence[Path], workers: int) -> list[list[Usage]]:
    """By worker. Workers and processes are paired by their ages: both are numbered as they are started."""
    results = [file.parent / "out" / f"{file.stem}.h5" for file in files]
    samples = run_queue(files, workers)
    spans = trial_spans(results)
    for file in results:
        file.unlink()
        file.with_suffix(".journal").unlink()
    return [usage_of(samples[pid], trials) for pid, trials in zip(sorted(samples), spans.values(), strict=False)]


def print_rows(workers: int, usage: Sequence[Sequence[Usage]], alone: Mapping[str, Usage]) -> None:
    for worker, studies in enumerate(usage):
        for one in studies:
            of_it = alone[one.study.removesuffix("-again")]
            sizes = [one.peak, one.settled.uss, one.settled.pss, one.settled.rss, of_it.peak, of_it.settled.uss]
            more = one.settled.uss / of_it.settled.uss - 1
            cells = "  ".join(f"{size / MIB:>8.0f}" for size in sizes)
            print(f"{workers:>7}  {worker:>6}  {one.study:<12}  {cells}  {100 * more:>+6.1f} %", flush=True)


HEAD = "workers  worker  study             peak   settled (pss)    (rss)     alone: peak settled    more"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=int, default=64, help="positions along a side")
    parser.add_argument("--pixels", type=int, nargs="+", default=[128, 96, 128], help="of each data set")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--trials", type=int, default=2, help="of each worker in each study")
    parser.add_argument("--again", action="store_true", help="go back to the first data set at the end")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = [DataSet(f"set{place}", args.scan, pixels) for place, pixels in enumerate(args.pixels)]
        print(*(f"{one.name}: {one.bytes / MIB:.0f} MiB" for one in sets), sep=", ")
        files = [one.write(folder, args.trials) for one in sets]
        alone = {file.stem: measure([file], 1)[0][0] for file in files}
        if args.again:
            files.append(sets[0].write_params(folder, f"{sets[0].name}-again", args.trials))
        print(HEAD)
        for workers in args.workers:
            print_rows(workers, measure(files, workers), alone)


if __name__ == "__main__":
    main()
