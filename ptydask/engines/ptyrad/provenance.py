"""Where a result comes from: versions, device, and the checksums of the data files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ptydask.engines.fingerprint import sha256, sha256_of_all
from ptydask.engines.ptyrad import hdf5_patterns, release

_PACKAGES = ("torch", "numpy", "scipy")
LINKED = "sha256 init_params.meas_params.path, linked files"
_PARTS = ("probe", "pos", "obj", "tilt")
_STATES = ("optimizer_params", "scheduler_params")


def describe(config: Mapping[str, Any], device: str, threads: int) -> dict[str, str]:
    """Engine, device and package versions; ``data`` and ``data_sha256`` where the measurements are a file.

    ``sha256 KEY`` is that of each other file that the params name, by the key that names it; that of all files in which
    a file of patterns has its data has the key :data:`LINKED`.
    """
    facts = {
        "engine": "ptyrad",
        "ptyrad": release.installed().version,
        **{name: version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": str(threads),
    }
    measured = config["init_params"].get("meas_params") or {}
    path = measured.get("path")
    if path is not None:
        facts |= {"data": str(Path(path).resolve()), "data_sha256": sha256(Path(path))}
        linked = hdf5_patterns.linked_files(Path(path), measured.get("key"))
        facts |= {LINKED: sha256_of_all(linked)} if linked else {}
    return facts | {f"sha256 {key}": sha256(file) for key, file in _further_files(config)}


def _further_files(config: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """The files that the params name besides the patterns: probe, positions, object, tilts, states; by their keys."""
    init, model = config["init_params"], config.get("model_params") or {}
    named = [(f"init_params.{part}_params", init.get(f"{part}_params"), "path") for part in _PARTS]
    named += [(f"model_params.{section}", model.get(section), "load_state") for section in _STATES]
    for key, params, name in named:
        nested = isinstance(params, Mapping)
        file = params.get(name) if nested else params
        if isinstance(file, str) and Path(file).is_file():
            yield f"{key}.{name}" if nested else key, Path(file)
