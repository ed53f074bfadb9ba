"""Where a result comes from: versions, device, and the data file's checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

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
    """The file's SHA-256, computed again only when its size or its time of change did change."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
