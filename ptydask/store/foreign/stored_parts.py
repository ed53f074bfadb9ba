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

    Raises MissingPart where a part of it is in a file that is not there, cut off or of another shape, where a filter is
    missing, or where nothing of it was ever written.
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
        raise MissingPart(f"{_words(dataset)} is empty: nothing was ever written to it")
    if written < count:
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


# --- virtual datasets -------------------------------------------------------------------------------


def _check_sources(dataset: h5py.Dataset, above: Places) -> Iterator[str]:
    holder = Path(dataset.file.filename)
    maps: dict[str, list[h5py.VDSmap]] = {}
    for source in dataset.virtual_sources():
        maps.setdefault(source.file_name, []).append(source)
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
    numbered = [source for name in maps if "%b" in name for source in maps[name]]
    for source in numbered:
        yield from _check_numbered(dataset, source, holder, above)
    mapped = sum(_count_points(source.vspace) for sources in maps.values() for source in sources)
    if mapped < dataset.size:
        share = 100 * (1 - mapped / dataset.size)
        yield f"{_words(dataset)}: {share:.3g} % of it is in no file and reads as {_fill(dataset)}"


def _find_source(name: str, holder: Path) -> Path | None:
    return holder if name == "." else links.find_referenced(name, holder, _VIRTUAL_PREFIX)


def _check_numbered(dataset: h5py.Dataset, source: h5py.VDSmap, holder: Path, above: Places) -> Iterator[str]:
    """``part_%b.h5``: part_0.h5, part_1.h5, as many as there are; the dataset ends before the first that is not."""
    for number in itertools.count():
        name = source.file_name.replace("%b", str(number))
        file = _find_source(name, holder)
        if file is None:
            yield f"{_words(dataset)} ends before {name}, which is not there"
            return
        yield from _check_source(dataset, file, [], above, source.dset_name.replace("%b", str(number)))


def _check_source(
    dataset: h5py.Dataset, path: Path, maps: Sequence[h5py.VDSmap], above: Places, name: str = ""
) -> Iterator[str]:
    """The datasets of one file that a virtual one takes data from."""
    takes = f"{_words(dataset)} takes a part of its data from"
    try:
        with links.opened(path) as file:
            for key in dict.fromkeys([source.dset_name for source in maps] or [name]):
                item = links.walk(file, key)
                if not isinstance(item, h5py.Dataset):
                    rule = f"{takes} {key} in {path}, where there is no such dataset: it would be read as"
                    raise MissingPart(f"{rule} {_fill(dataset)}")
                if not all(_fits(source, item.shape) for source in maps if source.dset_name == key):
                    rule = f"{takes} {key} in {path}, which has the shape {item.shape}"
                    raise MissingPart(f"{rule}: other points are taken from it than it has")
                yield from _unwritten_parts(item, above)
    except OSError as error:
        raise MissingPart(f"{takes} {path}, which cannot be read: {one_line(str(error))}") from None


def _fits(source: h5py.VDSmap, shape: Sequence[int]) -> bool:
    """Whether a dataset of this shape has the points that are taken from it."""
    if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        return math.prod(shape) == _count_points(source.vspace)
    try:
        _, last = source.src_space.get_select_bounds()
    except (ValueError, RuntimeError):  # one without end takes what there is
        return True
    return len(last) == len(shape) and all(n < size for n, size in zip(last, shape, strict=True))


def _count_points(space: h5py.h5s.SpaceID) -> float:
    try:
        return int(space.get_select_npoints())
    except RuntimeError:  # as many as there are
        return math.inf


# --- external files of plain bytes ------------------------------------------------------------------


def _check_raw_files(dataset: h5py.Dataset) -> None:
    """The files must be there and long enough: HDF5 reads what is beyond their ends as 0."""
    holder, left = Path(dataset.file.filename), dataset.size * dataset.dtype.itemsize
    origin = str(holder.resolve().parent)
    folder = Path(os.environ.get(_RAW_PREFIX, "").replace("${ORIGIN}", origin))
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
