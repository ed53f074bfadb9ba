"""Time and memory of ``ptydask guess`` on 256 x 256 patterns of 256 x 256 float32: 16 GiB, but not on the disk.

    python benchmarks/guess_large.py [--pixels 128] [--only npy] [FOLDER]

Needs the extra ``guess``. The files are sparse: a planted set of 32 x 32 positions (``over`` of ``guess_sets.py``) lies
four times in the middle of a scan of nothing. Linux only.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from guess_sets import TUNED, write
from numpy.typing import NDArray

SCAN = 256
PLANTED = next(one for one in TUNED if one.name == "over")
HEAD = ("file", "GiB", "MiB on the disk", "s", "s of CPU, summed", "peak GiB", "of the middle", "warnings")


def write_hdf5(path: Path, middle: NDArray[np.float32], pixels: int) -> dict[str, Any]:
    """A chunk a pattern, of which those of the middle alone are there."""
    at = (SCAN - len(middle)) // 2
    with h5py.File(path, "w") as file:
        whole = file.create_dataset("patterns", (SCAN, SCAN, pixels, pixels), "f4", chunks=(1, 1, pixels, pixels))
        whole[at : at + len(middle), at : at + len(middle)] = middle
    return {"path": str(path), "key": "patterns"}


def write_npy(path: Path, middle: NDArray[np.float32], pixels: int) -> dict[str, Any]:
    """What NumPy saves, with holes."""
    at = (SCAN - len(middle)) // 2
    whole = np.lib.format.open_memmap(path, "w+", np.float32, (SCAN, SCAN, pixels, pixels))
    whole[at : at + len(middle), at : at + len(middle)] = middle
    whole.flush()
    return {"path": str(path)}


def write_raw(path: Path, middle: NDArray[np.float32], pixels: int) -> dict[str, Any]:
    """Of EMPAD's kind: 1024 bytes behind each pattern."""
    at = (SCAN - len(middle)) // 2
    kind = np.dtype([("values", np.float32, (pixels, pixels)), ("gap", np.void, 1024)])
    whole = np.memmap(path, kind, "w+", shape=(SCAN, SCAN))
    whole["values"][at : at + len(middle), at : at + len(middle)] = middle
    whole.flush()
    return {"path": str(path), "offset": 0, "gap": 1024}


WRITERS: dict[str, Callable[[Path, NDArray[np.float32], int], dict[str, Any]]] = {
    "h5": write_hdf5,
    "npy": write_npy,
    "raw": write_raw,
}


def measure(suffix: str, folder: Path, pixels: int, options: Sequence[str]) -> tuple[str, ...]:
    """A line of the table: the command in a process of its own."""
    planted = write(PLANTED)
    init = yaml.safe_load(planted.read_text())["init_params"]
    with h5py.File(init["meas_params"]["path"]) as file:
        small = file["patterns"][:].astype(np.float32).reshape(32, 32, 64, 64)
    edge = (pixels - 64) // 2
    middle = np.pad(np.tile(small, (2, 2, 1, 1)), ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    data, params = folder / f"large.{suffix}", folder / f"large_{suffix}.yaml"
    meas = WRITERS[suffix](data, middle, pixels)
    # The same angles: a wider detector of the same pixels is a finer reconstruction.
    dx = init["meas_calibration"]["value"] * 64 / pixels
    init |= {"meas_params": meas, "meas_Npix": pixels, "pos_N_scan_slow": SCAN, "pos_N_scan_fast": SCAN}
    init["meas_calibration"] = {"mode": "dx", "value": dx}
    text = yaml.safe_load(planted.read_text()) | {"init_params": init}
    params.write_text(yaml.safe_dump(text, sort_keys=False))
    start = time.perf_counter()
    command = [sys.executable, "-m", "ptydask", "guess", str(params), "--format", "json", *options]
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out)
        # Not ru_maxrss: that of a new process begins with what its parent has, which has the files mapped.
        peak = 0
        while process.poll() is None:
            peak = max(peak, _peak_of(process.pid))
            time.sleep(0.2)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"{suffix}: the command failed")
        out.seek(0)
        report, size = json.load(out), data.stat()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = [
        f"{one['parameter']} {one['value']:.1f} ({one['method']}, {one['trust']})"
        for one in report["guesses"]
        if isinstance(one["value"], float)
    ]
    data.unlink()
    return (
        *(suffix, f"{size.st_size / 2**30:.1f}", f"{size.st_blocks * 512 / 2**20:.0f}", f"{seconds:.0f}"),
        *(f"{usage.ru_utime + usage.ru_stime:.0f}", f"{peak / 2**20:.2f}"),
        *("; ".join(told), "; ".join(report["warnings"])),
    )


def _peak_of(pid: int) -> int:
    """KiB that the process had at most; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--only", choices=WRITERS, help="of the three kinds of file")
    parser.add_argument("--no-parallax", action="store_true")
    parser.add_argument("folder", type=Path, nargs="?")
    args = parser.parse_args()
    options = ["--no-parallax"] if args.no_parallax else []
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        for suffix in [args.only] if args.only else WRITERS:
            print("| " + " | ".join(measure(suffix, Path(place), args.pixels, options)) + " |", flush=True)
