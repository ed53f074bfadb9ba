"""``~`` and ``$NAME`` in the paths of a params file, as a shell would read them; PtyRAD takes them to the letter."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ptydask.errors import ConfigError

FILES = (
    ("init_params", "meas_params", "path"),
    ("init_params", "tilt_params", "path"),
    ("init_params", "probe_params"),
    ("init_params", "pos_params"),
    ("init_params", "obj_params"),
    ("init_params", "tilt_params"),
    ("model_params", "optimizer_params", "load_state"),
    ("model_params", "scheduler_params", "load_state"),
)
"""Where a params file names files to read."""
_FOLDERS = (("recon_params", "output_dir"), ("init_params", "meas_export", "file_dir"))


def expand(config: dict[str, Any]) -> None:
    """Spell out ``~`` and ``$NAME`` in every path of ``config``, in place.

    A path that is there as it is written is left alone. Raises ConfigError for a variable that is not set.
    """
    for way in (*FILES, *_FOLDERS):
        section: Any = config
        for name in way[:-1]:
            section = section.get(name) if isinstance(section, dict) else None
        if isinstance(section, dict) and isinstance(section.get(way[-1]), str):
            section[way[-1]] = expand_path(section[way[-1]], ".".join(way))


def expand_path(path: str, key: str) -> str:
    """``path`` with ``~`` and ``$NAME`` spelled out, see :func:`expand`; ``key`` is where it stands."""
    if not path.startswith("~") and "$" not in path:
        return path
    try:
        if Path(path).exists():
            return path
    except (OSError, ValueError):
        return path  # no file's name: who reads it says so
    expanded = os.path.expanduser(os.path.expandvars(path))  # noqa: PTH111 - not to be normalised
    unset = re.search(r"\$(\w+|\{\w+\})", expanded)
    if unset is not None:
        name = unset[1].strip("{}")
        raise ConfigError(f"the environment variable {name} is not set here", key=key, value=path)
    return expanded
