"""A folder as the studies that its files describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ptydask import config
from ptydask.config import reading
from ptydask.errors import ConfigError, raise_all
from ptydask.formatting import natural_key


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """What a folder holds, each in the order in which a person counts: ``scan-2`` before ``scan-10``."""

    files: tuple[Path, ...]
    """One for each study."""
    others: Mapping[Path, str]
    """Files of the same endings that are none of their own, and why."""


def read_folder(folder: Path) -> StudyFolder:
    """The params and sweep files in ``folder``, not in folders below it.

    A cluster profile, say, is none; nor is a params file which another file of the folder names (``params: FILE``).
    Raises ConfigError for a file that cannot be read as YAML, JSON or TOML, FilesRefused for several, and ConfigError
    for a folder without any study.
    """
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in reading.SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    ]
    studies, others, errors = dict[Path, config.StudyFile](), dict[Path, str](), list[ConfigError]()
    for path in sorted(files, key=lambda path: natural_key(path.name)):
        try:
            if config.describes_study(path):
                studies[path] = config.read(path)
            else:
                others[path] = "is no params or sweep file"
        except ConfigError as error:
            errors.append(error)
    raise_all(errors)
    namers = {file.source.path.resolve(): path for path, file in studies.items() if file.own_file is not None}
    others |= {
        path: f"is what {namer.name} names" for path in studies if (namer := namers.get(path.resolve(), path)) != path
    }
    own = tuple(path for path in studies if path not in others)
    if not own:
        endings = ", ".join(reading.SUFFIXES)
        raise ConfigError(
            "is a folder without a params or sweep file", file=folder, hint=f"their names end in {endings}"
        )
    return StudyFolder(own, others)
