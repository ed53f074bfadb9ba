"""Several results files from their names to a comparison: ``ptydask.compare`` and the command ``compare``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptydask import engines
from ptydask.analysis.comparison import StudyComparison
from ptydask.analysis.data import json_object, read_confirmation
from ptydask.analysis.study_best import StudyBest
from ptydask.config.ptyrad import own_params
from ptydask.driver import comparability
from ptydask.errors import MissingDependency, NoResults, StoreError, UsageError
from ptydask.formatting import natural_key
from ptydask.model import RESULT_SUFFIXES, Optimum
from ptydask.ranking import best_of, why_none_is_best
from ptydask.space import tunables
from ptydask.store import reader
from ptydask.store.confirmation import companion_of
from ptydask.store.reader import Results

_EXPECTED = ("init_params.meas_params", "init_params.random_seed")
"""Settings that may differ: the data, of which more is said elsewhere, and the seed."""


def compare_studies(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> StudyComparison:
    """The best trials of the studies in these results files, finished or running, each file once.

    A folder stands for the results files in it, ``scan-2`` before ``scan-10``; other HDF5 files there, such as the
    data, are passed over, and folders below it are not entered. Files that cannot be read are in ``unreadable``. Raises
    StoreError where none can, that of the first, and UsageError where none is named.
    """
    studies: dict[Path, StudyBest] = {}
    errors: dict[Path, StoreError] = {}
    named = [paths] if isinstance(paths, str | os.PathLike) else paths
    for path in dict.fromkeys(Path(path).expanduser().absolute() for path in named):
        try:
            for file in _files_of(path) if path.is_dir() else [path]:
                try:
                    studies[file] = studies.get(file) or read_study_best(file)
                except StoreError as error:
                    if file == path or not isinstance(error, NoResults):
                        errors[file] = error
        except OSError as error:
            errors[path] = StoreError(f"{path}: not readable: {error.strerror}")
        if path.is_dir() and not any(path in (file, file.parent) for file in (*studies, *errors)):
            errors[path] = NoResults(f"{path}: is a folder without a results file; name the files, or another folder")
    if not studies:
        raise next(iter(errors.values()), UsageError("compare: name the results files, two or more"))
    unreadable = {str(path): str(error) for path, error in errors.items()}
    return StudyComparison(tuple(with_differing_settings(list(studies.values()))), unreadable)


def _files_of(folder: Path) -> list[Path]:
    """The HDF5 files in a folder, in the order in which a person counts."""
    paths = [path for path in folder.iterdir() if path.suffix.lower() in RESULT_SUFFIXES and path.is_file()]
    repeats = {companion_of(path) for path in paths}  # of a confirmation: they are read with their study
    own = [path for path in paths if path not in repeats and not path.name.startswith(".")]
    return sorted(own, key=lambda path: natural_key(path.name))


def read_study_best(path: Path) -> StudyBest:
    """The best trial in a results file. Raises StoreError where it cannot be read."""
    with reader.open(path) as results:
        latest = _best_of_results(path, results)
        if latest.best is not None:
            return latest
        for name in reversed(results.stage_names()[:-1]):
            with results.stage(name) as stage:
                earlier = _best_of_results(path, stage)
            if earlier.best is not None:
                return earlier
        return latest


def _best_of_results(path: Path, results: Results) -> StudyBest:
    records, meta = results.records(), results.meta
    best = best_of(records, meta.direction)
    if best is None:
        return StudyBest(path, meta, len(records), None, problem=why_none_is_best(meta.metric, len(records)))
    tuned = results.tuned_before()
    with results.stage(tuned) if tuned else nullcontext(results) as searched:
        optimum, at_edge = _locate_optimum(searched)
    return StudyBest(path, meta, len(records), best, read_confirmation(results), optimum, at_edge)


def _locate_optimum(results: Results) -> tuple[Optimum | None, frozenset[str]]:
    """Where the optimum is by the slopes, and at which edges; nothing is imported where no trial has any."""
    records = results.records()
    if not any(record.gradient for record in records):
        return None, frozenset()
    from ptydask.analysis.optimum import is_at_edge, locate_study_optimum, read_space

    optimum, space = locate_study_optimum(records, results.meta), read_space(results.meta)
    names = () if optimum is None else tuple(optimum.center)
    return optimum, frozenset(name for name in names if optimum is not None and is_at_edge(name, optimum, space))


def with_differing_settings(studies: Sequence[StudyBest]) -> list[StudyBest]:
    """The studies with :attr:`StudyBest.settings`: what decides a trial's result and is not alike in all of them.

    Of those with a best trial, by engine. What one of them tunes, its data and its seed are not among them.
    """
    by_engine: dict[str, list[StudyBest]] = {}
    for study in studies:
        if study.best is not None and json_object(study.meta.config_json):
            by_engine.setdefault(study.meta.engine, []).append(study)
    settings = {study.path: own for group in by_engine.values() for study, own in _differing_in_group(group)}
    return [replace(study, settings=settings.get(study.path, {})) for study in studies]


def _differing_in_group(studies: Sequence[StudyBest]) -> Iterator[tuple[StudyBest, dict[str, object]]]:
    tuned = {name for study in studies for name in study.tuned}
    first, *others = [_essential_settings(study, tuned) for study in studies]
    changes = [list(comparability.changed_settings(first, config)) for config in others]
    earlier = {key: then for change in changes for key, then, _ in change if not key.startswith(_EXPECTED)}
    for study, change in zip(studies, [[], *changes], strict=True):  # one that has no change is as the first
        own = {key: now for key, _, now in change if key in earlier}
        kept = {key: then for key, then in earlier.items() if not any(_is_nested(key, other) for other in own)}
        # What stands for a key that is not there is an object without a type of its own.
        yield study, {key: value for key, value in (kept | own).items() if type(value) is not object}


def _is_nested(key: str, other: str) -> bool:
    """Whether one is within the other: ``recon_params.BATCH_SIZE`` and ``recon_params``."""
    inner, outer = sorted((key, other), key=len, reverse=True)
    return inner.startswith((f"{outer}.", f"{outer}["))


def _essential_settings(study: StudyBest, tuned: Iterable[str]) -> Mapping[str, Any]:
    """The part of a study's configuration that decides a trial's result: the engine knows which does."""
    config: Mapping[str, Any] = json_object(study.meta.config_json)
    if study.meta.engine == "ptyrad":
        config = own_params.without_values(config, [name for name in tuned if name in tunables.PARAMETERS])
    with suppress(UsageError, MissingDependency, LookupError, AttributeError, TypeError):
        config = engines.get(study.meta.engine).essential(config)
    return config
