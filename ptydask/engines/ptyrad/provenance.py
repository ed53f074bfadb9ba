"""Where a result comes from: versions, device, and the checksums of the data files."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ptydask.config.ptyrad import paths
from ptydask.engines.fingerprint import sha256
from ptydask.engines.ptyrad import release

_PACKAGES = ("torch", "numpy", "scipy")
_PATTERNS = "init_params.meas_params.path"


def describe(config: Mapping[str, Any], device: str, threads: int) -> dict[str, str]:
    """Engine, device and package versions; ``data`` and ``data_sha256`` where the measurements are a file.

    ``sha256 KEY`` is that of each other file that the params name (probe, positions, object, tilts, states), by the key
    that names it.
    """
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
    named = ((key, Path(section[name])) for section, name, key in paths.named(config) if key != _PATTERNS)
    return facts | {f"sha256 {key}": sha256(file) for key, file in named if file.is_file()}
