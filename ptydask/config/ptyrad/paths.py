"""``~`` and ``$NAME`` in the paths of a params file, as a shell would read them; PtyRAD takes them to the letter."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    for section, name, key in named(config, (*FILES, *_FOLDERS)):
        section[name] = expand_path(section[name], key)


def find_copy_notices(config: Mapping[str, Any], file: Path, results: Path | None) -> tuple[str, ...]:
    """What the params file ``file``, copied with its folder, still names of the folder that it was copied from.

    Absolute paths lead back there. So does a relative one: it starts at the working directory, not at the file.
    ``results`` is where results go by ``config``; None where something else says that.
    """
    found = [
        f"{key} is {section[name]}, not the {Path(section[name]).name} beside {file.name}"
        for section, name, key in named(config)
        if _are_two(file.parent / Path(section[name]).name, Path(section[name]))
    ]
    if results is not None and _are_two(results.parent / file.name, file):
        found.append(f"results go to {results.parent}, beside another {file.name}, by recon_params.output_dir")
    return tuple(found)


def _are_two(path: Path, other: Path) -> bool:
    """Whether both are files, and not one."""
    try:
        return path.is_file() and other.is_file() and not path.samefile(other)
    except (OSError, ValueError):  # no file's name: who reads it says so
        return False


def named(
    config: Mapping[str, Any], ways: Iterable[tuple[str, ...]] = FILES
) -> Iterator[tuple[dict[str, Any], str, str]]:
    """For each path that ``config`` names: the section that holds it, its name there, and its dotted key."""
    for way in ways:
        section = find_section(config, way[:-1])
        if isinstance(section.get(way[-1]), str):
            yield section, way[-1], ".".join(way)


def find_section(config: Mapping[str, Any], way: Sequence[str]) -> dict[str, Any]:
    """The section of ``config`` that the names ``way`` lead to; an empty one where there is none."""
    section: Any = config
    for name in way:
        section = section.get(name) if isinstance(section, Mapping) else None
    return section if isinstance(section, dict) else {}


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
