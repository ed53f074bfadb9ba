"""Studies for the tests of the report: as plain data, of any size, and as results files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import store_cases as cases

from ptydask.analysis import greys
from ptydask.analysis.data import StudyData
from ptydask.analysis.report import page, pictures, plots
from ptydask.analysis.report.collect import collect_page_data
from ptydask.analysis.report.trial_album import PageTrial, TrialAlbum, select_image_trials
from ptydask.model import Image, Quantity, Reason, StudyMeta, TrialRecord, TrialState
from ptydask.store import Store

MADE = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
START = datetime(2025, 1, 1, tzinfo=UTC)
SPACE = {
    "scale": {"name": "FloatDistribution", "attributes": {"low": 0.9, "high": 1.1, "step": 0.02, "log": False}},
    "rotation": {"name": "FloatDistribution", "attributes": {"low": -4.0, "high": 4.0, "step": None, "log": False}},
    "optimizer": {"name": "CategoricalDistribution", "attributes": {"choices": ["Adam", "SGD"]}},
}


def meta(**changes: Any) -> StudyMeta:
    """A study of three parameters."""
    config = {"hypertune_params": {"n_trials": 25, "sampler_params": {"name": "TPESampler", "configs": {"seed": 1}}}}
    return cases.meta(search_space_json=json.dumps(SPACE), config_json=json.dumps(config), **changes)


def trial(number: int, **changes: Any) -> TrialRecord:
    """Trial 0 has the file's own values; every 5th is pruned, every 11th failed, the rest complete."""
    scale, rotation = round(0.9 + 0.02 * (number % 11), 10), (number * 0.37) % 8 - 4
    error = 0.02 + abs(scale - 1.04) + 0.01 * abs(rotation + 1.5)
    said: dict[str, Any] = {
        "params": {"scale": scale, "rotation": rotation, "optimizer": ("Adam", "SGD")[number % 2]},
        "metrics": {"loss": error, "contrast": 1 - error},
        "started": (START + timedelta(seconds=3 * number)).isoformat(),
        "seconds": 2.5,
        "worker": f"worker-{number % 2}",
        "origin": "sampler" if number else "start",
    }
    if number and number % 11 == 0:
        return cases.failed(number, **(said | {"metrics": {}} | changes))
    if number and number % 5 == 0:
        said |= {"state": TrialState.PRUNED, "reason": Reason.PRUNED}
    return replace(cases.record(number, error), **(said | changes))


def image(number: int, side: int = 40) -> Image:
    """Atoms on a lattice that turns with the trial's number."""
    y, x = np.mgrid[:side, :side]
    turn = 0.05 * (number % 17)
    a, b = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    data = np.cos(a / 1.5) * np.cos(b / 1.5) / (1 + 0.1 * (number % 7))
    axis = 10 + 0.2 * np.arange(side)
    return Image(data.astype(np.float32), axis, axis, "rad", "angstrom", "phase, summed over depth")


def seen(record: TrialRecord, *, pictured: bool, points: int = 12) -> PageTrial:
    """What the page shows of a trial: a large image where ``pictured``, else a thumbnail."""
    if record.state is TrialState.FAIL:
        return PageTrial(record, log="loading the data\nout of memory\n")
    step = np.arange(1, points + 1)
    curve = {"step": step, "loss": (record.error or 0.0) + 1 / step, "contrast": 1 - 1 / step}
    if not pictured:
        return PageTrial(record, curve, thumbnail=small(record.number % 119))
    modes = np.exp(1j * np.arange(64).reshape(1, 8, 8) / 9)
    shown = pictures.encode_image(image(record.number), 560)
    beam = pictures.encode_probe(modes, 0.2)
    attributes = {"pixel_size": 0.2, "affine": None}
    log = "one line\nanother\n"
    return PageTrial(record, curve, attributes, log, picture=shown, probe=beam, thumbnail=small(record.number % 119))


@cache
def small(number: int) -> str:
    """A trial's thumbnail; those of trials 119 apart are alike."""
    return pictures.encode_thumbnail(tile(number), 64)


def tile(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A stored thumbnail: a picture that fills it but for a margin."""
    made = np.zeros((128, 128), np.uint8)
    grey = image(number, 60).data
    made[4:124, 4:124] = np.kron(np.clip(grey * 100 + 128, 1, 255), np.ones((2, 2))).astype(np.uint8)
    return made


def album(
    records: list[TrialRecord], *, images: int = 100, points: int = 12, direction: Any = "minimize"
) -> TrialAlbum:
    """Everything beyond the rows of these trials."""
    large = set(select_image_trials(records, direction, images))
    trials = {r.number: seen(r, pictured=r.number in large, points=points) for r in records}
    shown = (pictures.encode_image(image(number), 64) for number in sorted(large)[:24])
    return TrialAlbum(trials, greys.shared_grey_limits(map(pictures.relative_limits, shown)))


def thick(number: int, slices: int = 12, modes: int = 4, side: int = 48) -> dict[str, Any]:
    """Arrays of a trial of several slices and modes, its positions moved by a tenth of an angstrom."""
    axis = np.arange(side) - side // 2
    spread = np.exp(-(axis[:, None] ** 2 + axis**2) / 40)
    probe = np.stack([spread * (1 + axis / side) ** k / 2**k for k in range(modes)]).astype(np.complex64)
    crop = np.stack(np.mgrid[0:6, 0:6], -1).reshape(-1, 2) * 3
    moved = 0.2 * crop + 0.1 * np.random.default_rng(number).normal(size=crop.shape)
    phase = np.stack([np.roll(image(number, side).data, k, 1) for k in range(slices)])[None]
    arrays = {
        "object_phase": Quantity(phase.astype(np.float32), "rad"),
        "object_amplitude": Quantity(np.ones_like(phase), "1"),
        "probe": Quantity(probe, "1"),
        "positions": Quantity(moved, "angstrom"),
        "crop_positions": Quantity(crop.astype(np.int32), "pixel"),
        "slice_thickness": Quantity(np.float32(5), "angstrom"),
    }
    attributes = {"pixel_size": 0.2, "length_unit": "angstrom", "wavelength": 0.02}
    shown = replace(image(number, side), y=0.2 * np.arange(side), x=0.2 * np.arange(side))
    return {"arrays": arrays, "attributes": attributes, "image": shown}


def thick_study(path: Path, count: int, **changes: Any) -> Path:
    """A finished study of such trials."""
    store = Store.open(path, meta())
    for number in range(count):
        cases.put(store, trial(number), cases.output(number, **thick(number, **changes)))
    return store.finish()


def study(made: StudyMeta, beyond: TrialAlbum) -> StudyData:
    """The same trials for the figures."""
    records = tuple(one.record for one in beyond.trials.values())
    return StudyData(made, records, {n: one.curve for n, one in beyond.trials.items() if one.curve})


def draw_plots(data: StudyData, *, of_page: bool = True) -> list[dict[str, str]]:
    """Every figure that a page of these trials has."""
    with plots.drawn_meanwhile(data, of_page=of_page) as drawn:
        return drawn()


def html(count: int = 30, *, points: int = 12, drawn: bool = True, **changes: Any) -> str:
    """A whole page of ``count`` trials, without a results file."""
    about = meta(**changes)
    beyond = album([trial(n) for n in range(count)], points=points)
    data = study(about, beyond)
    return page.render(collect_page_data(data, beyond), draw_plots(data) if drawn else [], source="study.h5", made=MADE)
