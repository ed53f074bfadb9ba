"""The demo data set: a small synthetic 4D-STEM scan whose geometry a study can find, and its params file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from ptydask.errors import UsageError

DATA = "patterns.h5"
PARAMS = "params.yaml"
SEED = 1


def write(
    folder: Path,
    seed: int = SEED,
    planted: Mapping[str, float] | None = None,
    slices: int | None = None,
    electrons: int | None = None,
) -> Path:
    """Write the data set and its params file into ``folder``, made if need be; returns the params file.

    ``planted``, ``slices`` and ``electrons`` are those of :func:`ptydask.demo.geometry.plant`; without any of them it
    is the demo's own geometry. The same arguments give the same bytes. A params file that is already there is kept,
    edits and all. Raises ConfigError for a geometry that cannot be, UsageError where ``folder`` cannot be used.
    """
    from ptydask.demo import geometry
    from ptydask.demo.microscope import Experiment, scan_positions, simulate_patterns
    from ptydask.store.files import write_text
    from ptydask.store.foreign import demo_data

    folder = folder.absolute()
    data, params = folder / DATA, folder / PARAMS
    experiment, text = Experiment(seed=seed), params_text(data)
    if planted is not None or slices is not None or electrons is not None:
        planted = planted or geometry.OWN
        experiment = geometry.plant(planted, slices, electrons, seed)
        text = geometry.params_text(text, planted, experiment)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept = params.read_text(encoding="utf-8") if params.exists() else None
        if kept is not None and _quote_path(data) not in kept:
            raise UsageError(f"{params}: is there already and does not name {data}; remove it, or give another folder")
        if kept is not None and geometry.truth_line(kept) != geometry.truth_line(text):
            raise UsageError(f"{params}: is there already, of another geometry; remove it, or give another folder")
        demo_data.write(data, experiment, simulate_patterns(experiment), scan_positions(experiment))
        if kept is None:
            write_text(params, text)
    except OSError as error:
        raise UsageError(f"{folder}: the demo data cannot be written: {error.strerror or error}") from error
    return params


def params_text(data: Path) -> str:
    """The params file of the demo's own geometry for the data file ``data``; results go beside it."""
    template = files(__package__).joinpath(PARAMS).read_text(encoding="utf-8")
    return template.replace("'{data}'", _quote_path(data)).replace("'{folder}'", _quote_path(data.parent))


def _quote_path(path: Path) -> str:
    """A path as YAML's single-quoted text."""
    return "'" + path.as_posix().replace("'", "''") + "'"
