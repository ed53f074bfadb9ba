"""Patterns that do not fit the memory of a worker's machine are refused with the sum, or kept in a file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from ptydask import machine
from ptydask.engines.ptyrad.loading_place import DoesNotFit, ScratchSpace, choose_place, estimate_loading
from ptydask.engines.ptyrad.scratch_patterns import scratch_space
from ptydask.machine import MemoryLimit, memory_limit

pytestmark = pytest.mark.ptyrad

GIB = 2**30
INIT = {"pos_N_scan_slow": 256, "pos_N_scan_fast": 256, "meas_Npix": 256}
"""16 GiB in single precision."""
DISK = ScratchSpace(Path("/scratch"), 100 * GIB, in_memory=False)
MEMINFO = "MemTotal: 8388608 kB\nMemFree: 1 kB\nSwapTotal: {} kB\nHugePages_Total: 0\n"


def limited(size: int) -> MemoryLimit:
    return MemoryLimit(size, "this machine has")


@pytest.mark.parametrize(
    ("itemsize", "counts_held_out", "total", "mask"),
    [(4, False, 20, 4), (0, False, 20, 4), (2, False, 24, 4), (8, False, 48, 4), (1, True, 24, 8), (4, True, 24, 8)],
)
def test_the_sum(itemsize: int, counts_held_out: bool, total: int, mask: int) -> None:
    """GiB of what is there at a time: in single precision, and as stored or a mask."""
    need = estimate_loading(INIT, itemsize, counts_held_out=counts_held_out)
    assert (need.total, need.mask) == (total * GIB, mask * GIB)
    assert need.shape == (65536, 256)


@pytest.mark.parametrize("preload", [True, False])
def test_what_fits_is_in_memory(preload: bool) -> None:
    """And what nobody knows the limit of."""
    need = estimate_loading(INIT, 4, counts_held_out=False)
    assert choose_place(need, limited(20 * GIB), preload, True, DISK) is None
    assert choose_place(need, None, preload, True, DISK) is None


def test_on_a_machine_with_less_it_is_in_a_file() -> None:
    need = estimate_loading(INIT, 2, counts_held_out=False)
    assert choose_place(need, limited(8 * GIB), False, True, DISK) == DISK.folder


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "preloaded": ({"preload": True}, ("preload_data: false",)),
    "a format that is read whole": ({"in_part": False}, (".h5 or .npy",)),
    "no room for a mask": ({"limit": limited(3 * GIB)}, ("4.29 GB", "crop")),
    "no room on the disk": ({"scratch": ScratchSpace(Path("/s"), 31 * GIB, False)}, ("34.4 GB in /s", "33.3 GB")),
    "a folder in memory": ({"scratch": ScratchSpace(Path("/s"), 99 * GIB, True)}, ("in memory", "TMPDIR")),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_with_the_sum(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    case = {"limit": limited(8 * GIB), "preload": False, "in_part": True, "scratch": DISK} | changes
    with pytest.raises(DoesNotFit) as caught:
        choose_place(estimate_loading(INIT, 2, counts_held_out=False), **case)
    text = f"{caught.value.rule}; {caught.value.hint}"
    for word in ("25.8 GB", "65536 patterns of 256 x 256", "17.2 GB", "this machine has", *words):
        assert word in text


def test_without_a_temporary_folder_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    assert scratch_space().free == 0


GROUPS: dict[str, tuple[str, dict[str, str], int]] = {
    "none": ("", {}, 8),
    "version 2, no limit": ("0::/user/job", {"user/job/memory.max": "max"}, 8),
    "version 2": ("0::/user/job", {"user/job/memory.max": str(2 * GIB)}, 2),
    "version 2, a group above it": ("0::/a/b/c", {"a/memory.max": str(3 * GIB), "a/b/c/memory.max": str(5 * GIB)}, 3),
    "version 2, in a container": ("0::/", {"memory.max": str(GIB)}, 1),
    "version 1": ("4:memory:/slurm/job_1/step_0", {"memory/slurm/job_1/memory.limit_in_bytes": str(4 * GIB)}, 4),
    "version 1, no limit": ("4:cpu,memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712"}, 8),
    "version 1, seen from within": ("4:memory:/docker/1", {"memory/memory.limit_in_bytes": str(GIB)}, 1),
    "both": ("4:cpu,memory:/a\n0::/b", {"memory/a/memory.limit_in_bytes": str(4 * GIB), "b/memory.max": str(GIB)}, 1),
    "not of memory": ("3:cpuset:/a", {"memory/a/memory.limit_in_bytes": str(GIB)}, 8),
    "unreadable": ("0::/a", {"a/memory.max": "?"}, 8),
}


@pytest.mark.parametrize(("lines", "files", "gib"), GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("swap", [0, 1])
def test_a_job_may_have_less_than_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, files: dict[str, str], gib: int, swap: int
) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO.format(swap * 2**20))
    (tmp_path / "membership").write_text(f"{lines}\n" if lines else "")
    for name, text in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    for name, file in (("_ROOT", "cgroup"), ("_MEMBERSHIP", "membership"), ("_MEMORY", "meminfo")):
        monkeypatch.setattr(machine, name, tmp_path / file)
    limit = memory_limit()
    assert limit is not None
    assert limit.size == (gib + swap) * GIB
    assert ("job" in limit.reason) == (gib < 8)


def test_nobody_knows_the_limit_elsewhere() -> None:
    assert machine.least_limit("", [{"memory.max": "1"}]) is None
