"""The page of benchmarks, docs/benchmarks.md: each program writes its own section, the page is made of all of them."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from textwrap import fill

from ptydask.machine import usable_cores

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "tables"
PAGE = ROOT / "docs" / "benchmarks.md"

ORDER = ("vs_ptyrad", "orchestration", "scaling", "messages", "engine", "threads", "memory", "start", "upkeep")
"""The sections of the page, by the names of their programs."""

PACKAGES = ("ptydask", "ptyrad", "torch", "numpy", "optuna", "distributed", "dask-jobqueue", "h5py")


@dataclass(frozen=True, slots=True)
class Table:
    """One table: words in its first column, numbers as they are to be shown in the others."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        lines = [self.columns, tuple("---" if i == 0 else "---:" for i in range(len(self.columns))), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """``4.1 (3.9-4.6)``: the median, and the least and the largest where there are several."""
    middle = f"{median(values):.{digits}f}"
    if len(values) < 2:
        return middle
    return f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def add_write_argument(parser: argparse.ArgumentParser) -> None:
    """The option that every program of the page has."""
    parser.add_argument("--write", action="store_true", help="also write this program's section of docs/benchmarks.md")


def write_section(name: str, title: str, *parts: str | Table) -> None:
    """Write a program's section (paragraphs and tables in turn), and the page anew."""
    FOLDER.mkdir(exist_ok=True)
    text = "\n\n".join([f"## {title}", *map(_lay_out, parts), _lay_out(f"`./jobs/bench.sh {name}`; {_measured_on()}.")])
    (FOLDER / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    write_page()


def _lay_out(part: str | Table) -> str:
    return str(part) if isinstance(part, Table) else fill(part, 120, break_long_words=False, break_on_hyphens=False)


def write_page() -> None:
    """Write docs/benchmarks.md from the sections that there are."""
    sections = [(FOLDER / f"{name}.md") for name in ORDER]
    text = (FOLDER / "introduction.md").read_text(encoding="utf-8")
    PAGE.write_text(
        "\n".join([text, *(s.read_text(encoding="utf-8") for s in sections if s.exists())]), encoding="utf-8"
    )


def _measured_on() -> str:
    load = os.getloadavg()[0]
    cores = usable_cores()
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES if _version(name))
    day = time.strftime("%Y-%m-%d")
    return f"{day}, {cores} cores, load {load:.1f} at its end, Python {platform.python_version()}, {versions}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
