"""What lies in a hypertune folder, by the names alone: a folder of 100,000 files is read in a second."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ptydask.config.reading import SUFFIXES, near_file
from ptydask.errors import UsageError
from ptydask.importers.ptyrad import names
from ptydask.importers.ptyrad.names import TrialName

MODELS = (".hdf5", ".h5")
PICTURES = (".tif", ".tiff")
_UNREADABLE = {".pt": "a .pt file can run any program that it holds; PtyRAD's load_ptyrad and save make a .hdf5 of it"}


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model file that was saved on the way, in a trial's own folder."""

    number: int
    iteration: int
    path: Path


@dataclass
class FolderListing:
    """The files of one or several hypertune folders of one study."""

    folders: tuple[Path, ...] = ()
    models: list[tuple[TrialName, Path]] = field(default_factory=list)
    pictures: list[tuple[TrialName, Path]] = field(default_factory=list)
    saved: list[SavedModel] = field(default_factory=list)
    params: list[Path] = field(default_factory=list)
    """Copies of the params file, the newest first."""
    logs: list[Path] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)
    """Files that may hold results but cannot be used, and why."""

    @property
    def metric(self) -> str:
        """``loss`` or ``contrast``, by the folder's name; else by the sign of the errors: only contrast is negated."""
        match = re.search(r"hypertune_.*_(loss|contrast)(?:_|$)", self.folders[0].name)
        if match is not None:
            return match[1]
        errors = [name.error for name, _ in [*self.models, *self.pictures]]
        return "contrast" if any(error.startswith("-") for error in errors) else "loss"


def list_folders(folders: Sequence[Path]) -> FolderListing:
    """List the folders; one that only holds a hypertune folder stands for it.

    Raises UsageError where a folder is not there, is none of PtyRAD's hypertune, or holds several of them.
    """
    listing = FolderListing(tuple(dict.fromkeys(_hypertune_folder(folder) for folder in folders)))
    for folder in listing.folders:
        try:
            _list_files(folder, listing)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be read: {error.strerror or error}") from None
    listing.params.sort(key=modified_time, reverse=True)
    listing.logs.sort()
    return listing


def modified_time(path: Path) -> float:
    """When a file was written last; 0 for a link to nowhere, or a file that is gone by now."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _hypertune_folder(folder: Path) -> Path:
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - a link keeps its name, ".." does not
    try:
        if not folder.is_dir():
            what = "is a file; give the folder it is in" if folder.exists() else f"no such folder; {near_file(folder)}"
            raise UsageError(f"{folder}: {what}")
        if _is_hypertune(folder):
            return folder
        below = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and "hypertune_" in entry.name]
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read: {error.strerror or error}") from None
    if len(below) == 1:
        return below[0]
    if below:
        listed = ", ".join(sorted(path.name for path in below))
        raise UsageError(f"{folder}: holds several hypertune folders; give those of one study: {listed}")
    raise UsageError(f"{folder}: not a folder of PtyRAD's hypertune: it holds no model_error_..._t0000_... files")


def _is_hypertune(folder: Path) -> bool:
    return "hypertune_" in folder.name or any(
        names.trial_name(entry.name) is not None if entry.is_file() else names.folder_number(entry.name) is not None
        for entry in os.scandir(folder)
    )


def _list_files(folder: Path, listing: FolderListing) -> None:
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        path, suffix = Path(entry.path), os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - many thousands
        if entry.is_dir():
            number = names.folder_number(entry.name)
            if number is not None:
                listing.saved += _list_saved_models(path, number, listing)
        elif suffix in MODELS or suffix in PICTURES:
            name = names.trial_name(entry.name)
            if name is None:
                listing.skipped[path] = "its name is not one that hypertune gives"
            elif suffix in PICTURES:
                listing.pictures.append((name, path))
            else:
                listing.models.append((name, path))
        elif suffix in _UNREADABLE:
            listing.skipped[path] = _UNREADABLE[suffix]
        elif suffix in SUFFIXES or suffix == ".py":
            listing.params.append(path)
        elif suffix in (".txt", ".log"):
            listing.logs.append(path)


def _list_saved_models(folder: Path, number: int, listing: FolderListing) -> Iterator[SavedModel]:
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError as error:
        listing.skipped[folder] = f"the folder cannot be read: {error.strerror or error}"
        return
    for entry in entries:
        path = Path(entry.path)
        suffix = path.suffix.lower()
        iteration = names.saved_iteration(entry.name)
        if suffix in _UNREADABLE:
            listing.skipped[path] = _UNREADABLE[suffix]
        elif suffix in MODELS and iteration is not None:
            yield SavedModel(number, iteration, path)
        elif suffix in MODELS:
            listing.skipped[path] = "its name is not one that PtyRAD gives"
