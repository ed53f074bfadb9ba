"""The profiles and the driver's job script that come with the package, to begin with."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from ptydask.errors import UsageError, nearest_hint

_FOLDER = "profiles"


def starter_names() -> list[str]:
    """``a100``, ``cpu``, ..., and ``driver.sbatch`` last."""
    files = (resources.files(__package__) / _FOLDER).iterdir()
    names = [file.name.removesuffix(".yaml") for file in files if file.name.endswith((".yaml", ".sbatch"))]
    return sorted(names, key=lambda name: ("." in name, name))


def starter_text(name: str) -> str:
    """The file of that name. Raises UsageError where there is none."""
    if name not in starter_names():
        raise UsageError(
            f"no profile is called {name!r}; {nearest_hint(name, starter_names())} (`ptydask profile` lists)"
        )
    file = name if "." in name else f"{name}.yaml"
    return (resources.files(__package__) / _FOLDER / file).read_text(encoding="utf-8")


def starter_about(name: str) -> str:
    """What it is for: the first sentence of its first comment."""
    lines = [line for line in starter_text(name).splitlines() if line.startswith("# ")]
    return " ".join(line[2:] for line in lines).partition(". ")[0].partition(": ")[0].rstrip(".")


def name_of_file(path: Path) -> str:
    """The starter that a file of this name would be: ``a100`` for ``my/a100.yaml``."""
    return path.name if path.name in starter_names() else path.stem
