"""The program that a command runs: which file it is, and whether it can be run from here."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from ptydask.engines.command import arguments
from ptydask.engines.command.arguments import ExpandedCommand
from ptydask.errors import ConfigError, shorten

_OF_EXTRAS = {"ldctbench-train": "ldct", "ldctbench-test": "ldct"}
"""Programs that come with an extra of this package."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a command runs, as found here."""

    name: str
    """For messages: ``train.py``, ``ldctbench-train``."""
    executable: str
    """What the system is asked to run."""
    file: Path | None
    """The script, or the executable where there is none; None where a module or an option is run."""


def build_environment(inherited: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """An environment with ``more`` in it, in whose PATH the folder of this interpreter's programs comes last."""
    environ = {**inherited, **more}
    own = str(Path(sys.executable).parent)
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    if own not in folders:
        folders.append(own)
    return {**environ, "PATH": os.pathsep.join(folders)}


def shell_command(expanded: ExpandedCommand, program: Program) -> str:
    """A command as a shell takes it, its first item by its path where no shell would find it."""
    first = expanded.argv[0]
    if os.sep not in first and shutil.which(first) != program.executable:
        first = program.executable
    return arguments.shell_text((first, *expanded.shown[1:]))


def find(argv: Sequence[str], directory: Path, environ: Mapping[str, str], program: str | None) -> Program:
    """The program of a command that is run in ``directory``. Raises ConfigError where it is not there.

    What has no ``/`` is looked for in the PATH of ``environ`` and then in the directory.
    """
    if not argv:
        raise ConfigError("is empty once its macros are expanded", key="command")
    if not directory.is_dir():
        raise ConfigError("is no folder", key="engine.directory", value=str(directory))
    start = _after_env(argv) if PurePath(argv[0]).name == "env" else 0
    if start >= len(argv):
        raise ConfigError("names no program after env", key="command", value=list(argv))
    launched = argv[start]
    path = _find_executable(launched, directory, environ, _sweep_key(launched, program), by_env=start > 0)
    executable = argv[0] if start else path
    if start and os.sep in argv[0]:
        executable = _find_executable(argv[0], directory, environ, _sweep_key(argv[0], program))
    if not _is_python(launched):
        return Program(PurePath(launched).name, executable, Path(path))
    script = _find_script(argv[start + 1 :])
    if script is None:
        return Program(PurePath(program or launched).name, executable, None)
    return Program(PurePath(script).name, executable, _check_readable(script, directory, _sweep_key(script, program)))


def _sweep_key(item: str, program: str | None) -> str:
    """Where in the sweep file an item comes from."""
    return "program" if item == program else "command"


def _after_env(items: Sequence[str]) -> int:
    """The index of the program among the items of ``env NAME=value program``; beyond the end where there is none."""
    for index, item in enumerate(items[1:], start=1):
        if item.startswith("-"):
            return 0  # options of env's own: its business
        if "=" not in item:
            return index
    return len(items)


def _find_executable(item: str, directory: Path, environ: Mapping[str, str], key: str, *, by_env: bool = False) -> str:
    file = directory / item
    if os.sep not in item:
        in_path = shutil.which(item, path=environ.get("PATH"))
        if in_path is not None:
            return str(directory / in_path)
        if by_env or not file.exists():  # env looks in PATH alone
            hint = f"./{item} is in {directory}" if file.exists() else "it is neither in PATH nor in the directory"
            if item in _OF_EXTRAS:
                hint = f"pip install 'ptydask[{_OF_EXTRAS[item]}]'"
            raise ConfigError("there is no such program", key=key, value=item, hint=hint)
    _check_exists(file, item, directory, key)
    if not file.is_file():
        raise ConfigError("is a folder, no program" if file.is_dir() else "is no file", key=key, value=item)
    if not os.access(file, os.X_OK):
        hint = "put ${interpreter} before ${program} in command" if file.suffix == ".py" else f"chmod +x {item}"
        raise ConfigError("cannot be executed", key=key, value=item, hint=hint)
    return str(file)


def _check_exists(file: Path, item: str, directory: Path, key: str) -> None:
    if not file.exists():
        raise ConfigError("there is no such file", key=key, value=item, hint=f"looked for it in {directory}")


def _is_python(item: str) -> bool:
    name = PurePath(item).name
    return item == sys.executable or name.rstrip("0123456789.") in ("python", "pypy")


def _find_script(arguments: Sequence[str]) -> str | None:
    """The script among an interpreter's arguments; None for ``-m``, ``-c`` and whatever else is no script."""
    for item in arguments:
        if not item.startswith("-"):
            return item
        if item.startswith(("-m", "-c")) or item in ("-", "-W", "-X"):
            return None
    return None


def _check_readable(script: str, directory: Path, key: str) -> Path:
    file = directory / script
    _check_exists(file, script, directory, key)
    if file.is_dir() and not (file / "__main__.py").is_file():
        raise ConfigError("is a folder, no program", key=key, value=script)
    if not os.access(file, os.R_OK):
        raise ConfigError("cannot be read", key=key, value=shorten(script))
    return file
