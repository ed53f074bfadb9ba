"""The files that a trial's program wrote, as files again: never outside the folder that was asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ptydask.errors import StoreError, UsageError, shorten
from ptydask.model import StudyMeta, TrialState
from ptydask.store import files
from ptydask.store.artifacts import StoredFile
from ptydask.store.reader import TrialData

FILES = "files"
"""Where the files of a W&B run lie within its folder."""
COMMAND, LOG = "command.txt", "log.txt"


@dataclass(frozen=True)
class ExportedFiles:
    """What was written below a folder."""

    files: int
    """Files of the trial."""
    nbytes: int
    refused: tuple[str, ...] = ()
    """Paths that would lead out of the folder, or are no names here: they were left out."""


@dataclass(frozen=True)
class WandbRun:
    """The files of a trial's W&B run, as its own folder has them."""

    files: Mapping[str, StoredFile]
    """``files/args.yaml`` and the like -> the file."""
    others: int
    """Further runs that the program began in this trial; the last one counts."""


# --- which files: pure --------------------------------------------------------------------------------


def run_of(artifacts: Mapping[str, StoredFile]) -> WandbRun:
    """The files below ``wandb/offline-run-*/files/``, of the last run there is."""
    runs: dict[str, dict[str, StoredFile]] = {}
    for path, file in artifacts.items():
        parts = PurePosixPath(path).parts
        if len(parts) > 3 and parts[0] == "wandb" and parts[1].startswith("offline-run-") and parts[2] == FILES:
            runs.setdefault(parts[1], {})["/".join(parts[2:])] = file
    last = max(runs, default="")  # the name begins with the time
    return WandbRun(runs.get(last, {}), max(0, len(runs) - 1))


def select_files(artifacts: Mapping[str, StoredFile], patterns: Sequence[str]) -> dict[str, StoredFile]:
    """Those whose path, or last name, fits one of ``patterns``; all where there is none."""

    def fits(path: str) -> bool:
        return any(fnmatchcase(name, p) for name in (path, path.rsplit("/", 1)[-1]) for p in patterns)

    return {path: file for path, file in artifacts.items() if not patterns or fits(path)}


def is_safe_path(path: str) -> bool:
    """Whether ``path`` stays below the folder that it is put in, and can be a name on this system."""
    parts = path.split("/")
    if not path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        return False  # an empty first part: an absolute path
    try:
        return all(len(os.fsencode(part)) <= 255 for part in parts)
    except UnicodeEncodeError:
        return False


def no_files_error(meta: StudyMeta, trial: TrialData) -> StoreError:
    """The error for a trial that has no such files, which says why."""
    number = trial.record.number
    if meta.engine == "ptyrad":
        return StoreError(f"trial {number} has no files of a program: PtyRAD ran it; see 'export tiff' and 'model'")
    if meta.engine == "callable":
        return StoreError(
            f"trial {number} has no files: of a Python function none are kept, the engine command keeps them"
        )
    if trial.artifacts:
        return StoreError(
            f"trial {number} has no files of a W&B run; 'export artifacts' writes the others, {len(trial.artifacts)}"
        )
    why = trial.dropped or trial.lost or next(iter(trial.left_out), "")
    if not why and not meta.keep.arrays:
        why = "the study keeps numbers and curves only"
    if not why:
        failed = "it failed, and " if trial.record.state is TrialState.FAIL else ""
        why = f"{failed}its program wrote none that engine.outputs of the sweep file names"
    return StoreError(f"trial {number} has no files: {why}")


def ldctbench_usage(folder: Path, names: Sequence[str]) -> str:
    """How ``ldctbench-test`` uses a run with its arguments and weights; "" for any other."""
    own = [name.removeprefix(f"{FILES}/") for name in names]
    if not {"args.yaml", "best_SSIM.pt"} <= set(own):
        return ""
    absolute, name = folder.absolute(), folder.absolute().name
    if absolute.parent.name == "wandb":
        return f"ldctbench-test --methods {name}, in the folder {absolute.parent.parent}"
    return f"ldctbench-test --methods {name}, in a folder where this one is wandb/{name}"


# --- writing -----------------------------------------------------------------------------------------


def write_files(
    folder: Path, wanted: Mapping[str, StoredFile], texts: Mapping[str, str], *, force: bool
) -> ExportedFiles:
    """Write the files ``wanted``, by their paths below ``folder``, and ``texts`` beside them, each whole.

    Raises UsageError where the folder holds anything already (unless ``force``, which replaces files of the same
    names alone), StoreError for damaged content and what the disk refuses.
    """
    _refuse_occupied(folder, force)
    good = {path: file for path, file in wanted.items() if is_safe_path(path)}
    for path, file in good.items():
        _write_file(folder, path, file.blocks())
    for name, text in texts.items():
        if text:
            _write_file(folder, name, iter([text.encode("utf-8", "surrogateescape")]))
    return ExportedFiles(
        len(good), sum(file.size for file in good.values()), tuple(path for path in wanted if path not in good)
    )


def _refuse_occupied(folder: Path, force: bool) -> None:
    occupant = next(iter(sorted(folder.iterdir())), None) if folder.is_dir() else None
    if occupant is not None and not force:
        raise UsageError(f"{folder}: holds {occupant.name!r} already; give another folder, or --force to write into it")


def _write_file(folder: Path, path: str, blocks: Iterator[bytes]) -> None:
    """Write one file; no link that lies in the folder is followed."""
    *folders, name = path.split("/")
    parent = folder
    try:
        for part in folders:
            parent = parent / part
            if parent.is_symlink():
                raise StoreError(f"{parent}: is a link that leads elsewhere; {shorten(path)} is not written through it")
            parent.mkdir(exist_ok=True)
        files.write_blocks(parent / name, blocks, durable=False)
    except OSError as error:
        raise StoreError(f"{folder / path}: cannot be written: {error.strerror or error}") from error
