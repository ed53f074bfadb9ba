"""Where a result comes from: versions, device, and the checksums of the data files."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ptydask.config.ptyrad import paths
from ptydask.engines.fingerprint import sha256, sha256_of_all
from ptydask.engines.ptyrad import hdf5_patterns, release

_PACKAGES = ("torch", "numpy", "scipy")
_PATTERNS = "init_params.meas_params.path"
LINKED = f"sha256 {_PATTERNS}, linked files"


def describe(config: Mapping[str, Any], device: str, threads: int) -> dict[str, str]:
    """Engine, device and package versions; ``data`` and ``data_sha256`` where the measurements are a file.

    ``sha256 KEY`` is that of each other file that the params name (probe, positions, object, tilts, states), by the key
    that names it; that of all files in which a file of patterns has its data has the key :data:`LINKED`.
    """
    facts = {
        "engine": "ptyrad",
        "ptyrad": release.installed().version,
        **{name: version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": str(threads),
    }
    return facts | checksums(config)


def checksums(config: Mapping[str, Any]) -> dict[str, str]:
    """Of those, the path of the measurements and the checksums of all files. Raises OSError where one is not there."""
    facts: dict[str, str] = {}
    measured = config["init_params"].get("meas_params") or {}
    path = measured.get("path")
    if path is not None:
        facts |= {"data": str(Path(path).resolve()), "data_sha256": sha256(Path(path))}
        linked = hdf5_patterns.linked_files(Path(path), measured.get("key"))
        facts |= {LINKED: sha256_of_all(linked)} if linked else {}
    named = ((key, Path(section[name])) for section, name, key in paths.named(config) if key != _PATTERNS)
    return facts | {f"sha256 {key}": sha256(file) for key, file in named if file.is_file()}
