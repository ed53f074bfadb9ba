"""A folder that PtyRAD's own hypertune left, turned into a results file. The folder and its database are only read.

``listing``      what lies in the folder, by the names alone
``names``        what a file's name says
``database``     the study in its Optuna storage
``log``          what Optuna wrote into PtyRAD's log
``description``  the params file: metric, ranges, configuration
``matching``     which trials there are, and which file belongs to which
``output``       a trial's arrays, image and curve from a model file
``trials``       one trial after the other, ready to be written
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ptydask import __version__, sampling
from ptydask.errors import StoreError, UsageError, redact
from ptydask.importers.ptyrad import database, description, listing, log, matching, trials
from ptydask.importers.ptyrad.description import StudyDescription
from ptydask.importers.ptyrad.listing import FolderListing
from ptydask.importers.ptyrad.log import LoggedTrial
from ptydask.importers.ptyrad.matching import ImportedTrial
from ptydask.importers.ptyrad.trials import ImportSummary
from ptydask.model import StudyMeta
from ptydask.store import codec
from ptydask.store.foreign import ptyrad_model
from ptydask.store.foreign.ptyrad_model import PtyradModel
from ptydask.store.upkeep import packing

NONE = "none"
"""As ``storage``: use no database, even if the params file names one."""


@dataclass(frozen=True)
class ImportedStudy:
    """What was made of a folder."""

    results: Path
    study: str
    folders: tuple[Path, ...]
    database: str
    """Where the exact values come from; "" where there was no database."""
    metric: str
    tally: ImportSummary
    waiting: int
    """Trials that the database had not begun; they are left out."""
    params: Path | None
    """The params file that the study goes on with; None where there was none."""
    storage: str
    """What that file names as its storage; "" where it names none."""
    notices: tuple[str, ...]

    @property
    def trials(self) -> int:
        """How many there are in the results file."""
        return sum(self.tally.states.values())


def import_study(
    folders: Sequence[Path],
    *,
    results: Path | None = None,
    storage: str | None = None,
    study: str | None = None,
    params: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImportedStudy:
    """Write the results file of a study that PtyRAD's hypertune made.

    ``folders`` are all of one study. ``storage`` is its database (a URL, or the path of an SQLite file; ``none`` for no
    database), else the one that the params file names; ``study`` its name there; ``params`` its params file, else the
    copy in the folder. ``results`` is ``STUDY.h5`` in the working directory, unless given, and must not be there yet.

    Raises UsageError for what was asked wrongly, ConfigError for ``params``, StorageError for a database that cannot
    be read, UnusableResults where the results cannot be written. Nothing is left behind in these cases.
    """
    listed = listing.list_folders(folders)
    model = _read_any_model(listed)
    about = description.describe(
        [params] if params is not None else listed.params,
        model,
        listed.folders[0],
        metric=listed.metric,
        asked=params is not None,
    )
    stored, notices = _read_stored_study(storage, study, about, listed)
    name = stored.name if stored is not None else study or about.name or listed.folders[0].name
    if stored is not None and stored.direction != "minimize":
        raise UsageError(f"{stored.place}: study {name!r} is to {stored.direction} its value; PtyRAD's never are")
    path = (results if results is not None else Path(f"{name.replace('/', '%2F')}.h5")).absolute()
    packing.refuse_existing(path, packing.IMPORTED)
    tally = ImportSummary(skipped=dict(listed.skipped))
    imported = _match_trials(listed, stored, about, tally)
    if not imported:
        raise UsageError(f"{listed.folders[0]}: no trial was found, neither among the files nor in a database")
    space = description.fit_search_space(
        about.space,
        [trial.params for trial in imported],
        [trial.distributions for trial in stored.trials] if stored is not None else [],
    )
    about = replace(about, space=space, name=name)
    meta = _study_meta(about, listed, model, stored, imported)
    packing.write_new(path, meta, trials.convert_trials(imported, about, tally, progress))
    copy = about.source.path
    return ImportedStudy(
        results=path,
        study=name,
        folders=listed.folders,
        database=stored.place if stored is not None else "",
        metric=about.metric,
        tally=tally,
        waiting=sum(trial.state == "WAITING" for trial in stored.trials) if stored is not None else 0,
        params=copy if about.source.text and copy.exists() else None,
        storage=redact(about.storage or ""),
        notices=(*about.notices, *notices),
    )


def _read_any_model(listed: FolderListing) -> PtyradModel | None:
    """Any readable model file, for what it says about the study."""
    paths = [path for _, path in listed.models[:3]] + [saved.path for saved in listed.saved[:3]]
    for path in paths:
        try:
            return ptyrad_model.read(path, without=("optim_state_dict",))
        except StoreError:
            continue
    return None


def _read_stored_study(
    storage: str | None, study: str | None, about: StudyDescription, listed: FolderListing
) -> tuple[database.StoredStudy | None, list[str]]:
    """The study in its database, and what there is to say where there is none."""
    url = storage if storage is not None else about.storage
    if url is None or url == NONE:
        return None, ["no database: no params file names one; --storage does"] if url is None else []
    near = [parent for folder in listed.folders for parent in (folder, *list(folder.parents)[:4])]
    if storage is None and url.startswith("sqlite") and database.find_sqlite_file(url, near) is None:
        return None, [f"no database: {redact(url)} is not there any more; give it with --storage if it is elsewhere"]
    stored = database.read(url, study, about.name, near=near)
    notices = []
    if about.name is not None and stored.name != about.name:
        notices.append(f"study {stored.name!r} was taken from the database; the params file calls it {about.name!r}")
    ours = sum(trial.mirrored for trial in stored.trials)
    if ours:
        notices.append(f"{ours} of the database's trials were run by ptydask; that run's results file has their arrays")
    return stored, notices


def _match_trials(
    listed: FolderListing, stored: database.StoredStudy | None, about: StudyDescription, tally: ImportSummary
) -> list[ImportedTrial]:
    lines = [line for path in listed.logs for line in _read_log(path, tally)]
    if stored is None:
        imported = [matching.translate_names(trial) for trial in matching.match_by_names(listed, lines)]
        return trials.recover_from_models(imported, about, tally)
    imported, unused = matching.match_by_database(stored, listed, lines)
    tally.skipped |= unused
    return [matching.translate_names(trial) for trial in imported]


def _read_log(path: Path, tally: ImportSummary) -> list[LoggedTrial]:
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return list(log.parse_log(lines))
    except OSError as error:
        tally.skipped[path] = f"the log cannot be read: {error.strerror or error}"
        return []


def _study_meta(
    about: StudyDescription,
    listed: FolderListing,
    model: PtyradModel | None,
    stored: database.StoredStudy | None,
    imported: Sequence[ImportedTrial],
) -> StudyMeta:
    began = min((trial.started for trial in imported if trial.started is not None), default=None)
    data = ((about.config.get("init_params") or {}).get("meas_params") or {}).get("path")
    return StudyMeta(
        name=about.name or "",
        direction=about.direction,
        metric=about.metric,
        engine="ptyrad",
        config_text=redact(about.source.text),
        config_format=about.source.format,
        config_json=redact(codec.dumps(about.config)),
        search_space_json=sampling.search_space_json(about.space),
        keep=replace(about.keep, arrays=True),
        provenance={
            "origin": "imported from a folder of PtyRAD's hypertune",
            "imported_from": ", ".join(map(str, listed.folders)),
            "imported_database": stored.place if stored is not None else "",
            "imported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "imported_on": platform.node(),
            "version_ptydask": __version__,
            "config_path": str(about.source.path),
            "engine": "ptyrad",
            "settings": "",
            **({"ptyrad": model.version} if model is not None and model.version else {}),
            **({"data": str(data)} if data else {}),
        },
        created=(began or datetime.now(UTC)).isoformat(timespec="seconds"),
    )
