"""What the page shows of each trial beyond its row of the table: one pass through the results file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis import greys
from ptydask.analysis.data import Curve, StudyData
from ptydask.analysis.gain import baseline_trial
from ptydask.analysis.report import pictures, trial_pictures
from ptydask.errors import StoreError
from ptydask.model import Direction, Scalar, TrialRecord, TrialState
from ptydask.ranking import ranked
from ptydask.store.reader import Results, TrialData

SIDE = 560
"""Pixels along a side of a trial's image on the page; that of the best trial has twice as many."""
BEST_SIDE_BY_SIDE = 24
"""So many of the best trials are shown side by side."""
_WITH_MORE_PICTURES, _PICTURE_CHARACTERS = 5, 1_500_000
"""So many of the best trials have more pictures than one, and so many characters of the page all of them take."""
_LOG_LINES, _LOG_CHARACTERS = 40, 6000
_FILES = 40
"""Files of a trial's program that the page names."""
_LOGS = 500
"""Failed trials whose log the page holds."""
_LARGE = 600
"""From so many trials on thumbnails are smaller, and a trial without a large image has no attributes on the page."""


@dataclass(frozen=True)
class PageTrial:
    """One trial as the page shows it; what is not shown, or was not kept, is empty."""

    record: TrialRecord
    curve: Curve = field(default_factory=dict)
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    log: str = ""
    lost: str = ""
    """What could not be kept or read, and why."""
    command: str = ""
    artifacts: Mapping[str, int] = field(default_factory=dict)
    """The first files of its program, and their sizes in bytes."""
    files: int = 0
    """How many there are altogether."""
    left_out: tuple[str, ...] = ()
    picture: Mapping[str, Any] | None = None
    probe: Mapping[str, Any] | None = None
    thumbnail: str = ""
    more_pictures: Mapping[str, Any] = field(default_factory=dict)
    """Of :func:`trial_pictures.encode_trial_pictures`."""


@dataclass(frozen=True)
class TrialAlbum:
    """Every trial of a study, by number, and the grey scale that the best ones share."""

    trials: Mapping[int, PageTrial]
    grey: tuple[float, float] | None = None
    """The values of black and white; None where there is no image."""


def select_image_trials(records: Sequence[TrialRecord], direction: Direction, count: int) -> list[int]:
    """The trials that are shown with a large image: the best ones, the file's own values, then pruned ones."""
    own = baseline_trial(records)
    best = [record.number for record in ranked(records, direction)]
    pruned = [record.number for record in records if record.state is TrialState.PRUNED]
    first = best[: max(1, count - 1)] + ([own.number] if own is not None else [])
    return list(dict.fromkeys([*first, *best, *pruned]))[:count]


def read(results: Results, study: StudyData, *, images: int) -> TrialAlbum:
    """All trials of ``study``, read of ``results``, ``images`` of them with a large image."""
    records = study.records
    with_image = select_image_trials(records, results.meta.direction, images)
    logs = {*with_image, *[record.number for record in records if record.state is TrialState.FAIL][:_LOGS]}
    seen: dict[int, PageTrial] = {}
    spans: dict[int, tuple[float, float] | None] = {}
    for record in records:
        number = record.number
        try:
            if len(records) >= _LARGE and number not in logs:
                seen[number] = PageTrial(record, study.curves.get(number) or results.curve(number))
                continue
            trial = results.trial(number)
            seen[number] = _read_page_trial(trial, log=number in logs)
            if number in with_image:
                seen[number] = _add_images(seen[number], trial, best=number == with_image[0])
                # The image itself is let go of: a hundred of 4096 x 4096 would be 7 GB.
                spans[number] = pictures.relative_limits(seen[number].picture)
        except StoreError as error:
            seen[number] = PageTrial(record, lost=str(error))
    side = 64 if len(records) >= _LARGE else 128
    tiles = {number: tile for number, tile in results.pictures().items() if number in seen}
    with ThreadPoolExecutor(4) as pool:  # Pillow lets others have the interpreter while it works
        thumbnails = pool.map(partial(pictures.encode_thumbnail, side=side), tiles.values())
        for number, thumbnail in zip(tiles, thumbnails, strict=True):
            seen[number] = replace(seen[number], thumbnail=thumbnail)
    for number, encoded in _read_more_pictures(results, with_image[:_WITH_MORE_PICTURES]).items():
        seen[number] = replace(seen[number], more_pictures=encoded)
    return TrialAlbum(seen, greys.shared_grey_limits(spans.get(number) for number in with_image[:BEST_SIDE_BY_SIDE]))


def _read_more_pictures(results: Results, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Of these trials, best first, as many as the page has room for, and of the first one in any case."""
    encoded: dict[int, dict[str, Any]] = {}
    room = _PICTURE_CHARACTERS
    for number in numbers:
        try:
            more = trial_pictures.encode_trial_pictures(results.trial(number), results.meta)
        except StoreError:
            continue  # its page says so already
        size = len(json.dumps(more))
        room -= size
        if encoded and room < 0:
            break
        encoded[number] = more
        if room < size:  # the next one will hardly be smaller: it is not read in vain
            break
    return encoded


def _read_page_trial(trial: TrialData, *, log: bool) -> PageTrial:
    tail = "\n".join(trial.log.rstrip().splitlines()[-_LOG_LINES:])[-_LOG_CHARACTERS:] if log else ""
    files = {path: trial.artifacts[path].size for path in list(trial.artifacts)[:_FILES]}
    return PageTrial(
        trial.record,
        trial.curve,
        trial.attributes,
        log=tail,
        lost=trial.lost,
        command=trial.command,
        artifacts=files,
        files=len(trial.artifacts),
        left_out=trial.left_out,
    )


def _add_images(seen: PageTrial, trial: TrialData, *, best: bool) -> PageTrial:
    image = trial.image
    picture = None if image is None else pictures.encode_image(image, SIDE * (2 if best else 1), exact=best)
    size = seen.attributes.get("pixel_size")
    pixel = float(size) if isinstance(size, int | float) and size > 0 else None
    modes: NDArray[Any] | None = trial.arrays["probe"].read() if "probe" in trial.arrays else None
    beam = None if modes is None else pictures.encode_probe(np.asarray(modes), pixel)
    return replace(seen, picture=picture, probe=beam)
