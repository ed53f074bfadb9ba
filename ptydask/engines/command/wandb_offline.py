"""W&B without its server: the environment of an offline run, and what its own file holds afterwards.

An offline run's ``run-ID.wandb`` is a log as LevelDB has it: after a header of 7 bytes, blocks of 32 KiB with pieces of
``(crc32, length, type)`` and data, little-endian; pieces join to records, each one protobuf message ``Record`` of W&B's
``wandb_internal.proto``. Only the few fields that are needed are decoded here, without W&B or protobuf.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from ptydask.engines.command.rows import INTERNAL, flatten_numbers
from ptydask.trial.metric_history import LoggedRow

_HEADER = b":W&B\xe1\xbe\x00"
_BLOCK = 32 * 1024
_PIECE = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
# Field numbers of wandb_internal.proto.
_HISTORY, _SUMMARY, _EXIT = 2, 3, 18
_ITEM, _STEP = 1, 2  # of HistoryRecord
_UPDATE, _REMOVE = 1, 2  # of SummaryRecord
_KEY, _NESTED_KEY, _BOOLEAN, _INTEGER, _NUMBER, _JSON, _VALUE_JSON = 1, 2, 4, 5, 6, 8, 16  # of their items

DROPPED = frozenset(
    {
        "WANDB_API_KEY",
        "WANDB_DISABLED",
        "WANDB_FORK_FROM",
        "WANDB_IDENTITY_TOKEN_FILE",
        "WANDB_RESUME",
        "WANDB_RESUME_FROM",
        "WANDB_SERVICE",
        "WANDB_X_SKIP_TRANSACTION_LOG",
    }
)
"""Variables that the program must not inherit: they name a server or another run, or turn off what is read here."""

PARAMETERS = "sweep-parameters.yaml"
"""Name, in the trial's folder, of the file that has the last word on ``wandb.config``."""


def environment(folder: Path, run_id: str, sweep_id: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The variables that make ``wandb`` in a program write an offline run of a sweep into ``folder``/wandb.

    Writes ``values``, nested ones as mappings, to :data:`PARAMETERS` in ``folder``, which must exist: they have the
    last word on the program's ``wandb.config``. Raises OSError.
    """
    parameters = folder / PARAMETERS
    settings = {"wandb_version": 1} | {name: {"value": value} for name, value in values.items()}
    parameters.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_DATA_DIR": str(folder / "wandb-data"),  # W&B stages the artifacts that a program logs there
        "WANDB_CACHE_DIR": str(folder / "wandb-cache"),
        "WANDB_RUN_ID": run_id,
        "WANDB_SWEEP_ID": sweep_id,
        "WANDB_SWEEP_PARAM_PATH": str(parameters),
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
        "WANDB_X_DISABLE_STATS": "true",
    }


@dataclass(frozen=True, slots=True)
class OfflineRun:
    """What the file of an offline run holds; of one that is cut short or damaged, what is whole."""

    name: str
    rows: list[LoggedRow]
    """Each with the run's name. A ``final`` one comes last where the run's summary says more than its rows do: values
    that the program set there itself, or the minimum, maximum ... that it asked for (``loss.min``)."""
    exit_code: int | None
    """What the program told W&B when it finished the run: the file has all that was logged. None if it never did."""


def run_files(folder: Path) -> list[Path]:
    """The files of the offline runs below a trial's ``folder``, in the order in which the runs began."""
    # offline-run-YYYYMMDD_HHMMSS-ID; a run that began in the same second has -1, -2, ... appended.
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: _start_order(path.parent.name))


def _start_order(name: str) -> tuple[str, int, str]:
    return name[:27], len(name), name


def read_history(folder: Path) -> tuple[list[LoggedRow], frozenset[str]]:
    """The rows of all offline runs below a trial's ``folder``, run after run, and the names of the finished runs."""
    runs = [read_run(path) for path in run_files(folder)]
    finished = frozenset(run.name for run in runs if run.exit_code is not None)
    return [row for run in runs for row in run.rows], finished


def read_run(path: Path) -> OfflineRun:
    """The offline run of a ``.wandb`` file."""
    name, code = path.parent.name, None
    rows: list[LoggedRow] = []
    newest: dict[str, float] = {}
    summary: dict[str, float] = {}
    media: _Media = set()
    for record in read_records(path):
        try:
            kinds = dict(_decode_fields(record))
            if _HISTORY in kinds:
                rows.append(_decode_row(kinds[_HISTORY], name, media))
                newest.update(rows[-1].metrics)
            elif _SUMMARY in kinds:
                _update_summary(kinds[_SUMMARY], summary, media)
            elif _EXIT in kinds:
                code = _decode_first_integer(kinds[_EXIT])
        except _MalformedMessage:
            continue
    # W&B copies the newest value of each metric into the summary: only what differs is news.
    more = {metric: value for metric, value in summary.items() if not _same_number(value, newest.get(metric))}
    if more:
        step, time = (rows[-1].step, rows[-1].time) if rows else (0, path.stat().st_mtime)
        rows.append(LoggedRow(step, more, time, name, final=True))
    return OfflineRun(name, rows, code)


def read_records(path: Path) -> Iterator[bytes]:
    """The whole records of a ``.wandb`` file, encoded as they are. None of a file that is none, or gone."""
    try:
        with path.open("rb") as file:
            pieces: list[bytes] = []
            for kind, data in _read_pieces(file):
                if kind in (_FULL, _FIRST):
                    pieces = [data]
                elif pieces:  # without the first piece, which was lost, the others are of no use
                    pieces.append(data)
                if kind == _FULL or (kind == _LAST and pieces):
                    yield b"".join(pieces)
                if kind in (_FULL, _LAST, _LOST):
                    pieces = []
    except OSError:
        return


_LOST = 0
"""Kind of a piece that stands for a part of the file that cannot be read."""


def _read_pieces(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    if file.read(len(_HEADER))[:4] != _HEADER[:4]:
        return
    block = file.read(_BLOCK - len(_HEADER))  # the header is part of the first block
    while block:
        start = 0
        # No piece begins in the last bytes of a block that are too few for its three numbers.
        while start + _PIECE.size <= len(block):
            crc, length, kind = _PIECE.unpack_from(block, start)
            end = start + _PIECE.size + length
            data = block[start + _PIECE.size : end]
            if len(data) < length or zlib.crc32(data, zlib.crc32(bytes([kind]))) != crc:
                yield _LOST, b""  # where the next piece begins is not known; the next block is
                break
            yield kind, data
            start = end
        block = file.read(_BLOCK)


class _MalformedMessage(Exception):  # noqa: N818
    """A message that does not have the form of one."""


_Value = int | bytes


def _decode_fields(message: bytes) -> Iterator[tuple[int, _Value]]:
    """Number and content of each field of a protobuf message: an int, or the bytes of all else.

    Raises _MalformedMessage.
    """
    offset = 0
    while offset < len(message):
        key, offset = _decode_varint(message, offset)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, offset = _decode_varint(message, offset)
            yield number, value
            continue
        if wire_type == 2:
            length, offset = _decode_varint(message, offset)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise _MalformedMessage
        end = offset + length
        if end > len(message):
            raise _MalformedMessage
        yield number, message[offset:end]
        offset = end


def _decode_varint(message: bytes, offset: int) -> tuple[int, int]:
    """An integer, and where it ends: 7 bits in each byte, the lowest first; the last byte has no highest bit."""
    value = shift = 0
    while offset < len(message) and shift < 70:
        byte = message[offset]
        value |= (byte & 127) << shift
        offset += 1
        if byte < 128:
            return value, offset
        shift += 7
    raise _MalformedMessage


def _expect_bytes(value: _Value) -> bytes:
    if isinstance(value, bytes):
        return value
    raise _MalformedMessage


def _decode_integer(value: _Value) -> int:
    if isinstance(value, int):
        return value - (1 << 64) if value >= 1 << 63 else value
    raise _MalformedMessage


def _decode_first_integer(message: _Value) -> int:
    """The integer in field 1 of a message; 0, which protobuf leaves out, where there is none."""
    return _decode_integer(dict(_decode_fields(_expect_bytes(message))).get(1, 0))


_Media = set[tuple[str, ...]]
"""Where a run has pictures, tables, histograms: mappings with a ``_type``, whose numbers are no values of the run."""


def _decode_items(message: _Value, kinds: tuple[int, ...], media: _Media) -> Iterator[tuple[int, list[str], Any]]:
    """Field number, key and value of the items of a history or summary, but for those of ``media``; adds to these."""
    items = [
        (number, *_decode_item(_expect_bytes(content)))
        for number, content in _decode_fields(_expect_bytes(message))
        if number in kinds
    ]
    media |= {tuple(path[:-1]) for _, path, _ in items if len(path) > 1 and path[-1] == "_type"}
    for number, path, value in items:
        parents = (tuple(path[:depth]) for depth in range(1, len(path)))
        if media.isdisjoint(parents):
            yield number, path, value


def _decode_row(message: _Value, run: str, media: _Media) -> LoggedRow:
    metrics: dict[str, float] = {}
    step, time = None, 0.0
    for _, path, value in _decode_items(message, (_ITEM,), media):
        if path[0] not in INTERNAL:
            metrics.update(flatten_numbers({".".join(path): value}))
        elif path[0] == "_timestamp" and isinstance(value, (int, float)):
            time = float(value)
    for number, content in _decode_fields(_expect_bytes(message)):
        if number == _STEP:
            step = _decode_first_integer(content)
    return LoggedRow(step, metrics, time, run)


def _decode_item(message: bytes) -> tuple[list[str], Any]:
    """The key, part by part, and the value of an item of a history or summary. Raises _MalformedMessage."""
    path: list[str] = []
    value: Any = None
    for number, content in _decode_fields(message):
        if number in (_KEY, _NESTED_KEY):
            path.append(_decode_text(content))
        elif number == _BOOLEAN:
            value = bool(content)
        elif number == _INTEGER:
            coded = _decode_integer(content) & (1 << 64) - 1
            value = (coded >> 1) ^ -(coded & 1)  # protobuf's zigzag: 0, -1, 1, -2, ...
        elif number == _NUMBER:
            value = struct.unpack("<d", _expect_bytes(content).ljust(8, b"\0"))[0]
        elif number in (_JSON, _VALUE_JSON):
            value = _load_json(_decode_text(content))
    if not path:
        raise _MalformedMessage
    return path, value


def _decode_text(value: _Value) -> str:
    return _expect_bytes(value).decode(errors="replace")


def _load_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _update_summary(message: _Value, summary: dict[str, float], media: _Media) -> None:
    for number, path, value in _decode_items(message, (_UPDATE, _REMOVE), media):
        if path[0] in INTERNAL:
            continue
        name = ".".join(path)
        if number == _REMOVE or not isinstance(value, (int, float)):
            for metric in [metric for metric in summary if f"{metric}.".startswith(f"{name}.")]:
                del summary[metric]
        if number == _UPDATE:
            summary.update(flatten_numbers({name: value}))


def _same_number(a: float, b: float | None) -> bool:
    return a == b or (b is not None and math.isnan(a) and math.isnan(b))
