"""Which dataset of an HDF5 file has the patterns, and whether all of its data are there, from headers alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptydask.errors import DataError, nearest_hint

if TYPE_CHECKING:
    from ptydask.store.foreign.measurement_headers import ArrayHeader, FileContents

SUFFIXES = (".h5", ".hdf5", ".mat")
PATH, KEY = "init_params.meas_params.path", "init_params.meas_params.key"
_SHOWN = 6
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StoredPatterns:
    """The patterns as a file has them."""

    shape: Shape | None
    """None where only PtyRAD can tell."""
    key: str | None = None
    """Where in the file, where the params file does not say it and PtyRAD would not find it by itself."""
    notices: tuple[str, ...] = ()


def is_old_matlab(path: Path) -> bool:
    """Whether it is a .mat file from before version 7.3, which is HDF5. Raises OSError."""
    if path.suffix.lower() != ".mat":
        return False
    with path.open("rb") as file:
        head = file.read(1024)
    return b"\x89HDF\r\n\x1a\n" not in (head[:8], head[512:520])


def find_patterns(path: Path, key: str | None, fits: Callable[[Shape], bool]) -> StoredPatterns:
    """The dataset at ``key``; without one the only one of 3 or 4 dimensions, else the only one that ``fits`` the scan.

    Raises DataError where there is none or several, or a part of its data is missing; OSError for what is no HDF5.
    """
    from ptydask.store.foreign import measurement_headers

    if key:
        header = read_dataset(path, key)
        return StoredPatterns(header.shape, notices=header.notices)
    chosen = choose_dataset(path, measurement_headers.list_datasets(path), fits)
    header = read_dataset(path, chosen.name, PATH, str(path))
    if chosen.key is not None and "." in chosen.key:
        rule = f"the patterns are in {chosen.key!r}, which PtyRAD cannot name: a '.' parts groups in its keys"
        raise DataError(rule, key=PATH, value=str(path), hint="give the dataset a second name without one")
    return StoredPatterns(header.shape, chosen.key, (*chosen.notices, *header.notices))


def require_whole(path: Path, key: str | None) -> None:
    """All data of the dataset, or without a key of every one that may be meant, must be there. Raises DataError.

    For the machine that reads them: files that are named in files may be missing there alone. What is no HDF5 is
    PtyRAD's to refuse.
    """
    with suppress(OSError):
        for name in names_meant(path, key):
            read_dataset(path, name, PATH, str(path))


def linked_files(path: Path, key: str | None) -> list[Path]:
    """The other files that the data of the dataset lie in, as virtual datasets and links name them.

    Of every dataset that may be meant where there is no key; none for what is no HDF5.
    """
    from ptydask.store.foreign import links, measurement_headers

    files: list[Path] = []
    with suppress(OSError, links.MissingPart):
        for name in names_meant(path, key):
            files += measurement_headers.linked_files(path, name)
            if "." in name:  # which parts groups in keys of PtyRAD's
                files += measurement_headers.linked_files(path, name.replace(".", "/"))
    return list(dict.fromkeys(files))


def names_meant(path: Path, key: str | None) -> Collection[str]:
    """The datasets that may be the patterns: the one at ``key``, else those of 3 or 4 dimensions; () of no HDF5."""
    from ptydask.store.foreign import measurement_headers

    if path.suffix.lower() not in SUFFIXES or not path.is_file() or is_old_matlab(path):
        return ()
    return [key] if key else _stacks(measurement_headers.list_datasets(path).shapes)


def read_dataset(path: Path, key: str, setting: str = KEY, value: str = "") -> ArrayHeader:
    """The header of the dataset at ``key``, in which a dot parts groups, too.

    Raises DataError, naming ``setting`` and ``value``, where there is no such dataset or a part of its data is missing;
    OSError.
    """
    from ptydask.store.foreign import links, measurement_headers

    try:
        header = measurement_headers.read_header(path, key)
        if header is None and "." in key:
            header = measurement_headers.read_header(path, key.replace(".", "/"))
        if header is not None:
            return header
        contents = measurement_headers.list_datasets(path)
    except links.MissingPart as missing:
        raise DataError(missing.rule, key=setting, value=value or key, hint=missing.hint) from None
    inside = [name for name in contents.shapes if name.startswith(f"{key.strip('/').replace('.', '/')}/")]
    hint = f"it is a group, with {_list_few(inside)}" if inside else ""
    if not contents.shapes and contents.broken:
        hint = contents.broken[0].rule
    raise no_dataset_error(path, key, list(contents.shapes), setting, value, hint)


@dataclass(frozen=True, slots=True)
class ChosenDataset:
    """The dataset that is meant where the params file has no key."""

    name: str
    key: str | None
    """The same, where PtyRAD has to be told; None where it takes that by itself."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What is said of it."""
        return () if self.key is None else (f"{KEY} is not given: the patterns of this scan are in {self.key}",)


def choose_dataset(path: Path, contents: FileContents, fits: Callable[[Shape], bool]) -> ChosenDataset:
    """The only dataset of 3 or 4 dimensions, or the only one of these that ``fits``. Raises DataError, naming them."""
    stacks = _stacks(contents.shapes)
    fitting = [name for name, shape in stacks.items() if fits(shape)]
    if len(stacks) == 1 and (fitting or not contents.broken):
        name = next(iter(stacks))
        return ChosenDataset(name, None if contents.plain else name)
    if len(fitting) == 1:
        return ChosenDataset(fitting[0], fitting[0])
    if not fitting and contents.broken:
        missing = contents.broken[0]
        more = f" (and {len(contents.broken) - 1} more such links)" if len(contents.broken) > 1 else ""
        raise DataError(f"{missing.rule}{more}", key=PATH, value=str(path), hint=missing.hint)
    if not fitting and _fit_together(stacks, fits):
        rule = f"the patterns are in {len(stacks)} datasets of {path}, of which PtyRAD reads one"
        hint = f"join {_list_few(list(stacks))} along their first axis, for example with h5py.VirtualLayout"
        raise DataError(rule, key=KEY, value=None, hint=hint)
    which = f"the {len(fitting)} that fit the scan" if fitting else f"the {len(stacks)} datasets of 3 or 4 dimensions"
    rule = f"must name one of {which} in {path}"
    raise DataError(rule, key=KEY, value=None, hint=_datasets_text(fitting or list(stacks or contents.shapes)))


def _stacks(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    return {name: shape for name, shape in shapes.items() if len(shape) in (3, 4)}


def _fit_together(stacks: Mapping[str, Shape], fits: Callable[[Shape], bool]) -> bool:
    """Whether they are parts of one scan, as detectors write it: equal but for their first axis."""
    if len(stacks) < 2 or len({shape[1:] for shape in stacks.values()}) > 1:
        return False
    return fits((sum(shape[0] for shape in stacks.values()), *next(iter(stacks.values()))[1:]))


def _list_few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def no_dataset_error(
    path: Path, key: str, names: Sequence[str], setting: str = KEY, value: str = "", hint: str = ""
) -> DataError:
    """The error for a key that names none of the datasets of a file; ``hint`` where more is known."""
    hint = hint or nearest_hint(key, names) or _datasets_text(names)
    return DataError(f"no such dataset in {path}", key=setting, value=value or key, hint=hint)


def _datasets_text(names: Sequence[str]) -> str:
    return f"the file has {_list_few(names)}" if names else "the file has no dataset"
