"""Where the data of an HDF5 dataset lie: in its own file, in others, behind filters; and whether all of it is there.

HDF5 reads what is missing as the fill value, 0, and says nothing: a source of a virtual dataset that is not there, an
external file that is cut off, a chunk that was never written.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import h5py

from ptydask.errors import one_line
from ptydask.store.foreign import links
from ptydask.store.foreign.links import MissingPart

with suppress(ImportError, OSError):
    import hdf5plugin  # noqa: F401 - its import tells HDF5 of its filters

_VIRTUAL_PREFIX = "HDF5_VDS_PREFIX"
_RAW_PREFIX = "HDF5_EXTFILE_PREFIX"
Places = frozenset[tuple[str, str]]


def require_whole(dataset: h5py.Dataset) -> tuple[str, ...]:
    """One line for each part of ``dataset`` that nobody has written and that reads as the fill value.

    Raises MissingPart where a part of it is in a file that is not there, cut off or of another shape, or where a filter
    is missing.
    """
    return tuple(dict.fromkeys(_unwritten_parts(dataset, frozenset())))


def _unwritten_parts(dataset: h5py.Dataset, above: Places) -> Iterator[str]:
    """See :func:`require_whole`; ``above`` are the virtual datasets that this one is a source of."""
    if not dataset.size:
        return
    if dataset.is_virtual:
        place = (dataset.file.filename, dataset.name)
        if place in above:
            raise MissingPart(f"{_words(dataset)} is a virtual dataset that has itself as a source")
        yield from _check_sources(dataset, above | {place})
        return
    _require_filters(dataset)
    if dataset.external:
        _check_raw_files(dataset)
        return
    count, written = 1, dataset.id.get_storage_size()
    if dataset.chunks is not None:
        count = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        written = dataset.id.get_num_chunks()
    if not written:
        yield f"{_words(dataset)}: nothing was ever written to it, all of it reads as {_fill(dataset)}"
    elif written < count:
        yield f"{_words(dataset)}: of {count} chunks {count - written} were never written and read as {_fill(dataset)}"


def _words(dataset: h5py.Dataset) -> str:
    return f"{dataset.name} in {dataset.file.filename}"


def _fill(dataset: h5py.Dataset) -> str:
    return f"{dataset.fillvalue:g}" if dataset.dtype.kind in "iuf" else str(dataset.fillvalue)


def _require_filters(dataset: h5py.Dataset) -> None:
    properties = dataset.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(index)
        if h5py.h5z.filter_avail(code):
            continue
        title = one_line(name.decode(errors="replace")).partition(";")[0]
        rule = f"{_words(dataset)} is compressed by a filter that is not installed here: {title or 'no name'} ({code})"
        if importlib.util.find_spec("hdf5plugin") is None:
            raise MissingPart(rule, "pip install hdf5plugin")
        raise MissingPart(rule, "hdf5plugin does not have it; HDF5_PLUGIN_PATH must name the folder of its library")


def referenced_files(dataset: h5py.Dataset, above: Places = frozenset()) -> Iterator[Path]:
    """The files that the data of ``dataset`` lie in, in the order in which they are named; some several times.

    For a dataset that :func:`require_whole` has accepted. ``above`` as there.
    """
    holder = Path(dataset.file.filename)
    if dataset.external:
        folder = _raw_folder(holder)
        yield from (folder / name for name, _, _ in dataset.external)
        return
    place = (dataset.file.filename, dataset.name)
    if not dataset.is_virtual or place in above:
        yield holder
        return
    maps = dict.fromkeys((source.file_name, source.dset_name) for source in dataset.virtual_sources())  # one a frame
    for file, key in itertools.chain.from_iterable(_places_of(*names, holder) for names in maps):
        with links.opened(file) as source:
            item = links.walk(source, key)
            if isinstance(item, h5py.Dataset):
                yield from referenced_files(item, above | {place})


def _places_of(name: str, key: str, holder: Path) -> Iterator[tuple[Path, str]]:
    """File and dataset of a source; of a numbered one all that there are."""
    for number in itertools.count() if "%b" in name else (0,):
        file = _find_source(name.replace("%b", str(number)), holder)
        if file is None:
            return
        yield file, key.replace("%b", str(number))


# --- virtual datasets -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Mapping:
    """A part of a virtual dataset. It holds none of HDF5's objects: closing a file looks at every one there is."""

    file: str
    dataset: str
    points: float
    """How many points are taken; infinite where it is as many as there are."""
    last: tuple[int, ...] | None
    """The last of them along each axis of the source; empty for all of it, None where it has no end."""

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a dataset of this shape has the points that are taken from it."""
        if self.last == ():
            return math.prod(shape) == self.points
        if self.last is None:
            return True
        return len(self.last) == len(shape) and all(n < size for n, size in zip(self.last, shape, strict=True))


def _read_mapping(source: h5py.VDSmap) -> _Mapping:
    try:
        points: float = int(source.vspace.get_select_npoints())
    except RuntimeError:
        points = math.inf
    last: tuple[int, ...] | None = ()
    if source.src_space.get_select_type() != h5py.h5s.SEL_ALL:
        try:
            last = tuple(int(n) for n in source.src_space.get_select_bounds()[1])
        except (ValueError, RuntimeError):
            last = None
    return _Mapping(source.file_name, source.dset_name, points, last)


def _check_sources(dataset: h5py.Dataset, above: Places) -> Iterator[str]:
    holder = Path(dataset.file.filename)
    maps: dict[str, list[_Mapping]] = {}
    for mapping in map(_read_mapping, dataset.virtual_sources()):
        maps.setdefault(mapping.file, []).append(mapping)
    files = {name: _find_source(name, holder) for name in maps if "%b" not in name}
    missing = [name for name, file in files.items() if file is None]
    if missing:
        first = (
            f"{missing[0]}, which is not there" if len(missing) == 1 else f"{missing[0]}, the first of {len(missing)}"
        )
        rule = f"{_words(dataset)} takes its data from {len(maps)} files; missing is {first}"
        raise MissingPart(f"{rule}: it would be read as {_fill(dataset)}", links.where_to_put(missing[0], holder))
    for name, file in files.items():
        assert file is not None
        yield from _check_source(dataset, file, maps[name], above)
    for mapping in (mapping for name in maps if "%b" in name for mapping in maps[name]):
        yield from _check_numbered(dataset, mapping, holder, above)
    mapped = sum(mapping.points for mappings in maps.values() for mapping in mappings)
    if mapped < dataset.size:
        share = 100 * (1 - mapped / dataset.size)
        yield f"{_words(dataset)}: {share:.3g} % of it is in no file and reads as {_fill(dataset)}"


def _find_source(name: str, holder: Path) -> Path | None:
    return holder if name == "." else links.find_referenced(name, holder, _VIRTUAL_PREFIX)


def _check_numbered(dataset: h5py.Dataset, mapping: _Mapping, holder: Path, above: Places) -> Iterator[str]:
    """``part_%b.h5``: part_0.h5, part_1.h5, as many as there are; the dataset ends before the first that is not."""
    for number in itertools.count():
        name, key = (text.replace("%b", str(number)) for text in (mapping.file, mapping.dataset))
        file = _find_source(name, holder)
        if file is None:
            yield f"{_words(dataset)} ends before {name}, which is not there"
            return
        yield from _check_source(dataset, file, [replace(mapping, dataset=key, last=None)], above)


def _check_source(dataset: h5py.Dataset, path: Path, maps: Sequence[_Mapping], above: Places) -> Iterator[str]:
    """The datasets of one file that a virtual one takes data from."""
    takes = f"{_words(dataset)} takes a part of its data from"
    try:
        with links.opened(path) as file:
            for key in dict.fromkeys(mapping.dataset for mapping in maps):
                item = links.walk(file, key)
                if not isinstance(item, h5py.Dataset):
                    rule = f"{takes} {key} in {path}, where there is no such dataset: it would be read as"
                    raise MissingPart(f"{rule} {_fill(dataset)}")
                if not all(mapping.fits(item.shape) for mapping in maps if mapping.dataset == key):
                    rule = f"{takes} {key} in {path}, which has the shape {item.shape}"
                    raise MissingPart(f"{rule}: other points are taken from it than it has")
                yield from _unwritten_parts(item, above)
    except OSError as error:
        raise MissingPart(f"{takes} {path}, which cannot be read: {one_line(str(error))}") from None


# --- external files of plain bytes ------------------------------------------------------------------


def _check_raw_files(dataset: h5py.Dataset) -> None:
    """The files must be there and long enough: HDF5 reads what is beyond their ends as 0."""
    holder, left = Path(dataset.file.filename), dataset.size * dataset.dtype.itemsize
    folder = _raw_folder(holder)
    for name, offset, size in dataset.external:
        path, needed = folder / name, min(size, left)
        if not path.exists():
            hint = links.where_to_put(name, (folder / "_").absolute())
            if (holder.parent / name).exists():
                hint = f"it is beside {holder.name}: set {_RAW_PREFIX}='${{ORIGIN}}', or start from that folder"
            rule = f"{_words(dataset)} has its data in {name}, which is not there"
            raise MissingPart(f"{rule}: HDF5 looks for it in {folder.absolute()}", hint)
        length = path.stat().st_size
        if length < offset + needed:
            rule = f"{_words(dataset)} has its data in {path}, which is cut off"
            raise MissingPart(f"{rule}: of {offset + needed} bytes {length} are there")
        left -= needed


def _raw_folder(holder: Path) -> Path:
    """Where HDF5 looks for the external files that ``holder`` names."""
    return Path(os.environ.get(_RAW_PREFIX, "").replace("${ORIGIN}", str(holder.resolve().parent)))
