"""An iteration of PtyRAD as it is, as ptydask runs it, and with each of its fast paths alone: operations and seconds.

    python benchmarks/engine.py [--rounds 5] [--write]

Two reconstructions: the demo (24x24 scan of 48x48 patterns, one slice, one mode, batches of 32), and 128 positions of a
64x64 scan of 128x128 patterns (three slices, four modes, batches of 16). What is counted stands for a GPU, see
operations.py; per step means the difference of two iterations of which one has more batches. Seconds are on this
machine's CPU with one thread, all variants in turn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import operations
import torch
import yaml
from queue_memory import DataSet
from sections import Table, add_write_argument, spread, write_section

from ptydask import config, demo
from ptydask.engines.ptyrad import PtyradEngine, measurements, reconstruction, release
from ptydask.engines.ptyrad.fast_path_choice import FastPaths
from ptydask.engines.ptyrad.fast_paths import iteration
from ptydask.engines.ptyrad.reconstruction import Reconstruction, WorkerState
from ptydask.model import TrialInput

SHORT, LONG = 4, 8
"""Batches of the two iterations that are counted."""
SINGLE = "only "


@dataclass(slots=True)
class Variant:
    """One way through an iteration, ready to go on."""

    name: str
    recon: Reconstruction
    iterations: int = 0
    counted: Mapping[str, float] = field(default_factory=dict)
    rest: int = 0
    """Crossings of an iteration outside its steps."""
    peak: int = 0
    """Bytes that a step holds beyond model and optimizer, at its most."""
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def iterate(self, batches: int | None = None) -> None:
        """One iteration, over the first ``batches`` alone where that is said."""
        self.iterations += 1
        iteration.iterate(self.iterations, replace(self.recon, batches=self.recon.batches[:batches]), 1)

    def count(self) -> None:
        """Count the operations of a step."""
        self.iterate(1)  # the optimizer's state is made
        short, long = (operations.count(lambda n=n: self.iterate(n), self.recon.optimizer) for n in (SHORT, LONG))
        self.counted = long.per_step(short, LONG - SHORT)
        self.peak = operations.measure_peak(lambda: self.iterate(1))
        self.rest = round(short.crossings.total() - SHORT * self.counted["crossings"])

    def time(self) -> None:
        """Time one iteration."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.iterate()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)


def write_demo(folder: Path) -> Path:
    """The demo's params file, with its data."""
    return demo.write(folder)


def write_large(folder: Path) -> Path:
    """A params file for 64x64 patterns of 128x128 pixels, of which 8x16 are reconstructed, with its data."""
    file = DataSet("large", 64, 128).write(folder, trials=1)
    params = yaml.safe_load(file.read_text())
    params["init_params"] |= {"probe_pmode_max": 4, "obj_Nlayer": 3, "obj_slice_thickness": 10}
    params["recon_params"]["INDICES_MODE"] = {"mode": "sub", "subscan_slow": 8, "subscan_fast": 16}
    params["model_params"] = {
        "update_params": {name: {"start_iter": 1, "lr": 1e-4} for name in ("obja", "objp", "probe", "probe_pos_shifts")}
    }
    params["loss_params"] = {
        "loss_single": {"state": True, "weight": 1.0, "dp_pow": 0.5},
        "loss_sparse": {"state": False},
    }
    file.write_text(yaml.safe_dump(params))
    return file


def prepare(file: Path) -> list[Variant]:
    """All variants of the params file's reconstruction, at their start."""
    plan = PtyradEngine().validate(config.load(file))
    patterns = measurements.load(plan.config, 7, "cpu", file)

    def start(paths: FastPaths) -> Reconstruction:
        # a deep copy: PtyRAD changes the params
        params: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(plan.config)))
        with reconstruction.seeded(7):
            recon = reconstruction.prepare(
                params, TrialInput(0, {}, 7), patterns, WorkerState("cpu", fast_paths=paths), plan
            )
        release.solver().toggle_grad_requires(recon.model, 1)
        return recon

    none, every = FastPaths.of(), FastPaths()
    own = start(none)
    variants = [
        Variant("PtyRAD", replace(own, batches=[batch.numpy() for batch in own.batches]))
    ]  # as its solver has it
    variants += [Variant("ptydask, without fast paths", start(none))]
    for name in [path.name for path in fields(FastPaths)]:
        # the merged step of Adam is part of the iteration's loop
        variants.append(Variant(SINGLE + name, start(FastPaths.of(name, *["iteration"] * (name == "optimizer")))))
    return [*variants, Variant("ptydask", start(every))]


def measure(variants: list[Variant], rounds: int) -> None:
    """Count all of them, then time them in turn."""
    for variant in variants:
        variant.count()
    for _ in range(rounds):
        for variant in variants:
            variant.time()


def describe(variants: list[Variant], transforms: int) -> Table:
    """A row for each variant."""
    columns = ("", "operations", "share", "views", "transforms", "crossings", "MiB copied", "MiB written", "MiB peak")
    columns += ("crossings an iteration, besides", "CPU s an iteration", "share", "wall s")
    whole, rows = variants[0], []
    for variant in variants:
        counted = variant.counted
        pairs = [own / first for own, first in zip(variant.cpu, whole.cpu, strict=True)]
        rows.append(
            (
                variant.name,
                f"{counted['total']:.0f}",
                f"{counted['total'] / whole.counted['total']:.2f}",
                *(f"{counted[name]:.0f}" for name in ("views", "transforms", "crossings")),
                *(f"{counted[name] / 2**20:.1f}" for name in ("copied", "written")),
                f"{variant.peak / 2**20:.1f}",
                str(variant.rest),
                spread(variant.cpu, 3),
                f"{median(pairs):.2f}",
                spread(variant.wall, 3),
            )
        )
    floor = 2 * transforms + 4
    rows.append(("floor", str(floor), f"{floor / whole.counted['total']:.2f}", "", str(transforms), "0", *[""] * 7))
    return Table(columns, tuple(rows))


NOTES = (
    "An operation is one of PyTorch's that computes or moves data, per step (a batch forward, backward, and the"
    " optimizer's step); it stands for a launch on a GPU. A crossing is a value or an array that goes from the host to"
    " the device or back, where one waits for the other; outside of its steps an iteration has those of PtyRAD's"
    " constraints, which write values for a log whether it is kept or not. The peak is what a step holds beyond what"
    " was there before. `PtyRAD` is its own `recon_step` with the batches that its solver makes; `only NAME` has one"
    " [fast path](from-ptyrad.md#fast-paths) alone (`only optimizer`: with `iteration`, of which it is a part). Losses,"
    " object, probe and positions are the same to the last bit in all rows. Shares are of PtyRAD's row, of seconds as"
    " medians of pairs; one thread.",
    "The floor is the reconstruction itself: the Fourier transforms (two to move the probes, two for each"
    " propagation, one to the detector, and as many backward), one pass between each two, and one operation each"
    " to gather patches, to add up their gradients, to compare with the patterns, and to step. Nothing that"
    " PyTorch offers without compiling kernels goes there: each product of the formulas is an operation of its"
    " own, and the gradient of one has two. `torch.compile` (`compiler_configs`) fuses them, in its own rounding;"
    " with it the paths `measurements`, `iteration` and `optimizer` stay.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="iterations of each variant that are timed")
    add_write_argument(parser)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # PtyRAD's
    release.installed()
    torch.set_num_threads(1)
    parts: list[str | Table] = [*NOTES]
    for title, write, slices in (("Demo", write_demo, 1), ("64x64 patterns of 128x128 pixels", write_large, 3)):
        with tempfile.TemporaryDirectory() as folder:
            variants = prepare(write(Path(folder)))
        measure(variants, arguments.rounds)
        table = describe(variants, transforms=2 * (2 + 2 * (slices - 1) + 1))
        print(f"{title}\n{table}\n", flush=True)
        parts += [f"### {title}", table]
    if arguments.write:
        write_section("engine", "An iteration of the engine", *parts)


if __name__ == "__main__":
    main()
