"""The files that a trial's program wrote, byte for byte, and the command that ran: two groups within the trial's.

``artifacts/`` has one array of bytes a file, its name percent-encoded, its path in the attribute ``path``. ``program/``
has the texts ``command`` and ``left_out``. They are groups because an older ptydask takes every array that it does not
know for one that a reconstruction left.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptydask.store import codec, layout, names, nexus

_CHUNK = 1 << 20
"""Bytes of a file that have one checksum, at most."""
_BLOCK = 1 << 23
"""Bytes that are read at a time."""
_SAMPLE = 1 << 15
_WORTH = 0.8
"""What compression has to leave of a sample to be worth its time: network weights keep 93 %, text 30 %."""


@dataclass(frozen=True)
class StoredFile:
    """A file that a trial wrote, read when it is asked for."""

    path: str
    size: int
    """Bytes."""
    _fetch: Callable[[Any], NDArray[np.uint8]] = field(repr=False)

    def read(self) -> bytes:
        """The whole content. Raises StoreError where it is damaged."""
        return self._fetch(()).tobytes()

    def blocks(self) -> Iterator[bytes]:
        """The content in pieces of at most 8 MiB; an empty file has none. Raises StoreError where it is damaged."""
        for start in range(0, self.size, _BLOCK):
            yield self._fetch(slice(start, start + _BLOCK)).tobytes()


def write(group: h5py.Group, artifacts: Mapping[str, bytes]) -> None:
    """Write the files of a trial, by their paths, into its group."""
    if not artifacts:
        return
    stored = nexus.create_group(group, layout.ARTIFACTS, "NXcollection")
    for path, content in artifacts.items():
        data = np.frombuffer(content, np.uint8)
        nexus.write_attribute(_write_file(stored, names.encode(path), data), layout.PATH, path)


def _write_file(parent: h5py.Group, name: str, data: NDArray[np.uint8]) -> h5py.Dataset:
    if data.nbytes <= nexus.COMPACT:
        return nexus.write_numbers(parent, name, data)
    how: dict[str, Any] = {"compression": "gzip", "compression_opts": 1} if _compresses_well(data) else {}
    pieces = -(-data.nbytes // _CHUNK)
    chunk = -(-data.nbytes // pieces)  # all alike: HDF5 stores the last one whole
    return parent.create_dataset(name, data=data, chunks=(chunk,), fletcher32=True, **how)


def _compresses_well(data: NDArray[np.uint8]) -> bool:
    """Whether compression helps, by three samples of the content."""
    starts = {0, max(0, data.nbytes // 2 - _SAMPLE // 2), max(0, data.nbytes - _SAMPLE)}
    samples = [data[start : start + _SAMPLE].tobytes() for start in sorted(starts)]
    return sum(len(zlib.compress(sample, 1)) for sample in samples) < _WORTH * sum(map(len, samples))


def write_program(group: h5py.Group, command: str, left_out: tuple[str, ...]) -> None:
    """Write what ran, and what was not kept of it, into a trial's group."""
    if not (command or left_out):
        return
    program = nexus.create_group(group, layout.PROGRAM, "NXcollection")
    if left_out:
        nexus.write_text(program, layout.LEFT_OUT, codec.dumps(list(left_out)))
    if command:
        nexus.write_text(program, layout.COMMAND, command)
        group[layout.COMMAND] = h5py.SoftLink(f"{layout.PROGRAM}/{layout.COMMAND}")


# --- reading ----------------------------------------------------------------------------------------


def sizes(group: h5py.Group) -> dict[str, int]:
    """The path of each file of a trial, and how many bytes it has."""
    if layout.ARTIFACTS not in group:
        return {}
    stored = h5py.h5g.open(group.id, layout.ARTIFACTS.encode())  # there may be thousands
    return {names.decode(name.decode()): h5py.h5d.open(stored, name).shape[0] for name in stored}


def read(group: h5py.Group, path: str, part: Any) -> NDArray[np.uint8]:
    """The bytes of a trial's file, those of ``part``."""
    return np.asarray(group[layout.ARTIFACTS][names.encode(path)][part])


def read_command(group: h5py.Group) -> str:
    """What ran, quoted for a shell; "" where no program did."""
    return nexus.read_text(group[layout.PROGRAM], layout.COMMAND) if layout.PROGRAM in group else ""


def read_left_out(group: h5py.Group) -> tuple[str, ...]:
    """One sentence for each thing that the engine did not keep."""
    sentences = nexus.read_text(group[layout.PROGRAM], layout.LEFT_OUT) if layout.PROGRAM in group else ""
    return tuple(codec.loads(sentences)) if sentences else ()


def describe_files(group: h5py.Group) -> str:
    """``3 files (args.yaml, best_SSIM.pt, Losses.csv)``; "" where there is none."""
    paths = list(sizes(group))
    if not paths:
        return ""
    named = ", ".join(paths[:_NAMED])
    if len(paths) > _NAMED:
        named += f" and {len(paths) - _NAMED} more"
    return f"{len(paths)} file{'' if len(paths) == 1 else 's'} ({named})"


_NAMED = 5
"""Files that a sentence names."""
