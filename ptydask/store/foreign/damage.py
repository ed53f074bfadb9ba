"""Why a data file cannot be read, and what to do: what HDF5 and NumPy raise, in a person's words."""

from __future__ import annotations

import os
import re
from pathlib import Path

import h5py

from ptydask.errors import one_line
from ptydask.formatting import size_text
from ptydask.store import files

_HDF5_SUFFIXES = (".h5", ".hdf5", ".mat", ".nxs", ".emd")
_COPY = "copy it again from where it is whole"


def explain_unreadable(path: Path, error: BaseException) -> tuple[str, str]:
    """What is wrong with a file whose opening or reading raised ``error``, as a rule; and what to do, where that helps.

    The rule is in one line, without the file's name.
    """
    text = files.hdf5_reason(error)
    cut = files.find_cut(error)
    if cut is not None:
        return f"is cut short: {size_text(cut[0])} of {size_text(cut[1])} are there", _COPY
    if isinstance(error, EOFError) or "mmap length is greater than file size" in text:
        return f"is cut short: {size_text(_size_of(path))} are there, less than its header says", _COPY
    if isinstance(error, FileNotFoundError):
        return "no such file", ""
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read: {os.strerror(error.errno)}", ""
    if path.suffix.lower() not in _HDF5_SUFFIXES:
        return f"cannot be read as {path.suffix.lower()}: {one_line(text)}", ""
    if not _is_hdf5(path):
        return f"cannot be read as {path.suffix.lower()}: is no HDF5 file", ""
    reading = re.match(r"(?:Can't|Unable to) .*?\((.*)\)$", text)
    if reading is None:
        return f"cannot be read: {text}", ""
    return f"is damaged: what it holds cannot be read ({reading[1]})", _COPY


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_hdf5(path: Path) -> bool:
    try:
        return bool(h5py.is_hdf5(path))
    except OSError:
        return False
