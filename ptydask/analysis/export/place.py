"""Where an export may go: nothing of anybody else's is destroyed."""

from __future__ import annotations

import os
from pathlib import Path

from ptydask.errors import StoreError, UsageError
from ptydask.store import contents, index


def check_output_path(path: Path, *, replace: bool) -> Path:
    """``path``, which may be written: it is not there yet, or may be replaced.

    Raises UsageError where it may not: what is there stays without ``replace``; a folder, and a results file of
    ptydask, stay in any case, and nothing goes into the folder of a study's trials.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        rule = f"{path}: no permission to write into {path.parent.absolute()}, or its disk is read-only"
        raise UsageError(f"{rule}; give another place")
    if (path.parent / contents.CARD).exists():
        raise UsageError(f"{path.parent}: holds the trials of a study, and nothing else; give another folder")
    if path.exists():
        if is_results(path):
            raise UsageError(f"{path}: is a results file, which nothing is written over; give another name")
        if not replace:
            raise UsageError(f"{path}: is there already; give another name, or --force to replace it")
    return path


def ensure_folder(path: Path) -> Path:
    """``path`` as a folder, made where it is not there. Raises UsageError where it is a file."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file; give the name of a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path.absolute()}: the folder cannot be made: {error.strerror or error}") from error
    return path


def is_results(path: Path) -> bool:
    """Whether a file is a results file of ptydask."""
    try:
        index.read_head(path)
    except StoreError:
        return False
    return True
