"""Several results files from their names to a comparison: ``ptydask.compare`` and the command ``compare``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from ptydask import engines
from ptydask.analysis.comparison import StudyBest, StudyComparison, grouped_text
from ptydask.analysis.data import json_object, read_confirmation
from ptydask.config.ptyrad import own_params
from ptydask.driver import comparability
from ptydask.errors import MissingDependency, StoreError, UsageError, shorten
from ptydask.model import Optimum
from ptydask.ranking import best_of, why_none_is_best
from ptydask.space import tunables
from ptydask.store import reader
from ptydask.store.reader import Results

_MOST = 5
"""So many settings that differ are named."""
_EXPECTED = ("init_params.meas_params", "init_params.random_seed")
"""Settings that may differ: the data, of which more is said elsewhere, and the seed."""


def compare_studies(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> StudyComparison:
    """The best trials of the studies in these results files, finished or running, each file once.

    Files that cannot be read are in ``unreadable``. Raises StoreError where none can, that of the first, and UsageError
    where none is named.
    """
    studies: list[StudyBest] = []
    errors: dict[Path, StoreError] = {}
    named = [paths] if isinstance(paths, str | os.PathLike) else paths
    for path in dict.fromkeys(Path(path).expanduser().absolute() for path in named):
        try:
            studies.append(read_study_best(path))
        except StoreError as error:
            errors[path] = error
    if not studies:
        raise next(iter(errors.values()), UsageError("compare: name the results files, two or more"))
    unreadable = {str(path): str(error) for path, error in errors.items()}
    return StudyComparison(tuple(studies), unreadable, tuple(differing_settings(studies)))


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
        optimum, texts = _locate_optimum(searched)
    return StudyBest(path, meta, len(records), best, read_confirmation(results), optimum, texts)


def _locate_optimum(results: Results) -> tuple[Optimum | None, Mapping[str, str]]:
    """Where the optimum is by the slopes, and in words; nothing is imported where no trial has any."""
    records = results.records()
    if not any(record.gradient for record in records):
        return None, {}
    from ptydask.analysis.optimum import locate_study_optimum, optimum_texts

    optimum = locate_study_optimum(records, results.meta)
    return optimum, {} if optimum is None else optimum_texts(optimum, results.meta)


def differing_settings(studies: Sequence[StudyBest]) -> list[str]:
    """Settings that decide a trial's result and are not alike in all studies: ``KEY 20 (a.h5), 50 (b.h5)``.

    Of those with a best trial, by engine. What one of them tunes, its data and its seed are not among them.
    """
    by_engine: dict[str, list[StudyBest]] = {}
    for study in studies:
        if study.best is not None and json_object(study.meta.config_json):
            by_engine.setdefault(study.meta.engine, []).append(study)
    texts = [text for group in by_engine.values() for text in _differing_in_group(group)]
    return texts if len(texts) <= _MOST else [*texts[:_MOST], f"and {len(texts) - _MOST} more"]


def _differing_in_group(studies: Sequence[StudyBest]) -> list[str]:
    tuned = {name for study in studies for name in study.tuned}
    first, *others = [_essential_settings(study, tuned) for study in studies]
    changes: dict[str, dict[int, object]] = {}
    for place, config in enumerate(others, 1):
        for key, before, now in comparability.changed_settings(first, config):
            if not key.startswith(_EXPECTED):
                changes.setdefault(key, {0: before})[place] = now
    return [_setting_text(key, values, studies) for key, values in changes.items()]


def _essential_settings(study: StudyBest, tuned: Iterable[str]) -> Mapping[str, Any]:
    """The part of a study's configuration that decides a trial's result: the engine knows which does."""
    config: Mapping[str, Any] = json_object(study.meta.config_json)
    if study.meta.engine == "ptyrad":
        config = own_params.without_values(config, [name for name in tuned if name in tunables.PARAMETERS])
    with suppress(UsageError, MissingDependency, LookupError, AttributeError, TypeError):
        config = engines.get(study.meta.engine).essential(config)
    return config


def _setting_text(key: str, values: Mapping[int, object], studies: Sequence[StudyBest]) -> str:
    """``values`` by the place of the study; one that has none has that of the first."""
    files: dict[str, list[str]] = {}
    for place, study in enumerate(studies):
        value = values.get(place, values[0])
        text = "nothing" if type(value) is object else shorten(value, 40)  # what stands for a key that is not there
        files.setdefault(text, []).append(study.file)
    return f"{key} {grouped_text(files)}"
