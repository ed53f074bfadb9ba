"""The rows of a study under way, each in a third of the memory of a :class:`ptydask.store.index.TrialRow`.

A driver keeps those of all trials, from the first to the last, and needs them whole only while it writes the index.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import TypeVar

from ptydask.model import TrialRecord
from ptydask.store import codec, index, layout, names

T = TypeVar("T")

_LEVEL, _WINDOW, _MEMORY = 1, -12, 5
"""zlib's, for a text of a kB or two: a larger window takes longer to set up than the text to compress."""
_TEXT = ("utf-8", "surrogatepass")
"""Whatever a damaged file gave for a digest."""


class KeptRows(MutableMapping[int, index.TrialRow]):
    """Rows by their numbers; what was put in comes out equal, with the record's JSON in any case.

    That text and the digest are kept compressed, with the first row's as the model of all: names and places, which are
    most of it, are the same in all of them. The path of a trial's own file follows from its number.
    """

    def __init__(self, folder: Path, rows: Mapping[int, index.TrialRow]) -> None:
        self.folder = folder
        """Of the trials' own files."""
        self.records: dict[int, TrialRecord] = {}
        self._packed: dict[int, bytes] = {}
        self._model = b""
        self._tiles: dict[int, bytes] = {}
        self._places: dict[int, tuple[Path, str]] = {}
        """File and group of those that are not where a trial's own file is."""
        self.update(rows)

    def __setitem__(self, number: int, row: index.TrialRow) -> None:
        text = f"{row.json or codec.record_to_json(row.record)}\0{row.sha256}".encode(*_TEXT)  # JSON has no NUL
        self._model = self._model or text
        deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY, zdict=self._model)
        self.records[number] = row.record
        self._packed[number] = deflate.compress(text) + deflate.flush()
        _keep(self._tiles, number, row.tile)
        own = row.alone and row.file == names.shard_path(self.folder, number)
        _keep(self._places, number, None if own else (row.file, row.group))

    def __getitem__(self, number: int) -> index.TrialRow:
        packed = self._packed[number]
        text = zlib.decompressobj(_WINDOW, zdict=self._model).decompress(packed).decode(*_TEXT)
        json, _, sha256 = text.partition("\0")
        file, group = self._places.get(number) or (names.shard_path(self.folder, number), layout.OWN_GROUP)
        return index.TrialRow(self.records[number], file, group, self._tiles.get(number), sha256, json)

    def __delitem__(self, number: int) -> None:
        del self._packed[number], self.records[number]
        _keep(self._tiles, number, None)
        _keep(self._places, number, None)

    def __iter__(self) -> Iterator[int]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def numbers_in(self, file: Path) -> set[int]:
        """The trials that lie in ``file``, which is no trial's own."""
        return {number for number, (place, _) in self._places.items() if place == file}

    def rename_file(self, before: Path, after: Path) -> None:
        """Have what lies in ``before`` lie in ``after``."""
        for number in self.numbers_in(before):
            self._places[number] = after, self._places[number][1]


def _keep(values: dict[int, T], number: int, value: T | None) -> None:
    """Keep what there is: for most trials there is nothing."""
    if value is None:
        values.pop(number, None)
    else:
        values[number] = value
