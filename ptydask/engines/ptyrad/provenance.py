"""Where a result comes from: versions, device, and the data file's checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ptydask.engines import hash_file
from ptydask.engines.ptyrad import release

_PACKAGES = ("torch", "numpy", "scipy")


def describe(config: Mapping[str, Any], device: str, threads: int) -> dict[str, str]:
    """Engine, device and package versions; ``data`` and ``data_sha256`` where the measurements are a file."""
    facts = {
        "engine": "ptyrad",
        "ptyrad": release.installed().version,
        **{name: version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": str(threads),
    }
    path = (config["init_params"].get("meas_params") or {}).get("path")
    if path is not None:
        facts |= {"data": str(Path(path).resolve()), "data_sha256": sha256(Path(path))}
    return facts


def sha256(path: Path) -> str:
    """The file's SHA-256, computed again only when its size or its time of change did change.

    Of a folder (``.zarr``), which may hold millions of chunks: that of its files' names, sizes and times of change.
    """
    if path.is_dir():
        return _sha256_of_folder(path)
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


def _sha256_of_folder(path: Path) -> str:
    digest = hashlib.sha256()
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    for name in names:
        stat = (path / name).stat()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return hash_file(path)
