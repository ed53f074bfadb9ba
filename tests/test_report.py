"""The report's data, and the page as text: what it says, and that nothing in a study can become a program."""

from __future__ import annotations

import argparse
import base64
import errno
import gc
import json
import math
import re
import subprocess
import sys
import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_cases as made
import store_cases as cases
from figure_cases import confirmed, ring
from store_cases import KEEP

from ptydask import cli
from ptydask.analysis import greys, report
from ptydask.analysis.attribute_units import attribute_units
from ptydask.analysis.data import StudyData, load_study
from ptydask.analysis.report import page, pictures, plots, trial_pictures
from ptydask.analysis.report.collect import collect_page_data, tuned_parameters
from ptydask.analysis.report.rows import json_value, table_columns
from ptydask.analysis.report.trial_album import PageTrial, TrialAlbum, read, select_image_trials
from ptydask.cli import formats
from ptydask.errors import MissingDependency, UsageError
from ptydask.model import Image, Quantity, Reason, StudyMeta, TrialRecord, TrialState
from ptydask.run_snapshot import RunningTrial, RunSnapshot
from ptydask.store import Store, files, reader

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028'\"&amp;"


def data_of(html: str) -> dict[str, Any]:
    """What the page's script reads."""
    blocks = re.findall(r'<script type="application/json" id="data-(\w+)">(.*?)</script>', html, re.DOTALL)
    return {name: json.loads(text) for name, text in blocks}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without plots, which take most of a page's time."""
    monkeypatch.setattr(plots, "drawn_meanwhile", lambda study, **_: nullcontext(list))


def collected(records: list[TrialRecord], about: StudyMeta | None = None, **more: Any) -> dict[str, Any]:
    """The page's data of these trials alone."""
    beyond = TrialAlbum({record.number: PageTrial(record) for record in records})
    return collect_page_data(made.study(about or made.meta(), beyond), beyond, **more)


def column(data: dict[str, Any], key: str) -> dict[str, Any]:
    return next(one for one in data["columns"] if one["key"] == key)


# --- data ---------------------------------------------------------------------------------------------


def test_the_summary_says_what_was_tuned_and_what_came_of_it() -> None:
    """Counts, ranks, the gain over the file's own values, ranges with units, the search."""
    said = collected([made.trial(n) for n in range(12)])["study"]
    assert said["counts"] == {"complete": 9, "pruned": 2, "failed": 1}
    assert (said["ranks"][0], said["own"]) == (7, 0)
    assert said["gain"]["own"] == 0
    assert said["gain"]["difference"] > 0
    assert said["tuned"][0] == {
        "name": "scale",
        "unit": "",
        "meaning": "scan step over its nominal size",
        "range": "0.9 to 1.1, step 0.02",
        "low": 0.9,
        "high": 1.1,
        "log": False,
    }
    assert [one["unit"] for one in said["tuned"]] == ["", "°", ""]
    assert said["tuned"][2]["range"] == "one of 'Adam', 'SGD'"
    assert ["Budget in the file", "25 trials for each worker"] in said["search"]
    assert ["Sampler", "TPESampler (seed 1)"] in said["search"]
    assert (said["workers"], said["hosts"], said["wall"]) == (2, ["node1"], 35.5)


def test_the_best_of_a_maximised_metric_is_the_largest() -> None:
    """Ranks and gain go by the study's direction."""
    said = collected([made.trial(n) for n in range(5)], made.meta(direction="maximize"))["study"]
    errors = [made.trial(n).error or 0 for n in range(5)]
    assert said["ranks"][0] == int(np.argmax(errors))


@pytest.mark.parametrize(
    "records",
    [
        [],
        [cases.failed(0), cases.failed(1)],
        [cases.record(0, math.nan), cases.record(1, math.inf)],
        [replace(cases.record(0), state=TrialState.PRUNED, reason=Reason.PRUNED, params={}, started="")],
        [replace(cases.record(3), params={"a": "x"}), replace(cases.record(4), params={"a": 1, "b": None, "c": True})],
    ],
    ids=["none", "failed", "nan", "pruned", "mixed"],
)
def test_any_study_makes_a_page(records: list[TrialRecord]) -> None:
    """No trial, no completed one, no usable error, no start, no common type: still a page that JSON can hold."""
    beyond = TrialAlbum({record.number: PageTrial(record) for record in records})
    data = made.study(made.meta(), beyond)
    html = page.render(collect_page_data(data, beyond), [], source="x.h5", made=made.MADE)
    assert column(data_of(html), "number")["values"] == [record.number for record in records]


def test_numbers_that_json_lacks_travel_as_texts() -> None:
    """NaN, infinities, and integers that a browser would round."""
    assert [json_value(v) for v in (math.nan, math.inf, -math.inf, 2**60, 2.5, True, None, "a")] == [
        *("NaN", "Infinity", "-Infinity", "1152921504606846976", 2.5, True, None, "a"),
    ]
    error = column(collected([cases.record(0, math.nan), cases.record(1, 0.25)]), "error")
    assert (error["kind"], error["values"]) == ("number", ["NaN", 0.25])


def test_columns_have_every_field_and_hide_what_says_nothing() -> None:
    """All parameters, metrics and facts; at first without those that are the same everywhere."""
    records = [made.trial(n) for n in range(12)]
    made_columns = {one["key"]: one for one in table_columns(made.study(made.meta(), made.album(records)), {}, {})}
    assert {"params.scale", "metrics.contrast", "seconds", "worker", "host", "seed", "message"} <= made_columns.keys()
    assert made_columns["rank"]["values"][5] is None
    assert made_columns["message"]["values"][11] == "RuntimeError: out of memory"
    shown = {key for key, one in made_columns.items() if one["shown"]}
    assert {"rank", "number", "state", "error", "params.optimizer", "message"} <= shown
    assert not shown & {"host", "device", "attempt", "seed"}


def test_confirmed_trials_have_a_column_that_sorts_by_the_mean() -> None:
    """Shown with deviation and number of repeats, sorted and filtered by the mean; other metrics are there, hidden."""
    beyond = made.album([made.trial(n) for n in range(4)])
    study = confirmed(made.study(made.meta(), beyond), {2: [0.2, 0.3], 1: [0.5, math.nan], 3: [math.nan]})
    assert study.confirmation is not None
    repeats = tuple(replace(r, record=replace(r.record, metrics={"contrast": 2.0})) for r in study.confirmation.repeats)
    study = replace(study, confirmation=replace(study.confirmation, repeats=repeats))
    columns = {one["key"]: one for one in collect_page_data(study, beyond)["columns"]}
    error, other = columns["confirmed.mean"], columns["confirmed.metrics.contrast"]
    assert error["values"] == [None, 0.5, 0.25, None]
    assert error["texts"] == [None, "0.500000 (1)", "0.250 ± 0.071 (2)", None]
    assert (error["kind"], error["shown"], other["shown"]) == ("number", True, False)


def test_a_resolution_sorts_and_says_where_the_pixels_are_its_limit() -> None:
    beyond = made.album([made.trial(n) for n in range(3)])
    study = confirmed(made.study(made.meta(), beyond), {1: [0.5, 0.6], 2: [0.3, 0.4]}, {1: ring(0.5), 2: ring(2.0)})
    columns = {one["key"]: one for one in collect_page_data(study, beyond)["columns"]}
    resolution, area = columns["confirmed.resolution"], columns["confirmed.area"]
    assert resolution["values"] == [None, pytest.approx(ring(0.5).resolution), pytest.approx(0.4)]
    assert resolution["texts"][2] == "≤ 0.4"
    assert (resolution["unit"], resolution["shown"], area["shown"]) == ("angstrom", True, False)
    assert area["values"][1] == pytest.approx(ring(0.5).area)


def test_the_page_has_the_verdict_and_the_trial_that_other_seeds_prefer() -> None:
    """Trial 2 is better than trial 1 with every seed; a study that nobody confirmed says nothing of it."""
    beyond = made.album([made.trial(n) for n in range(4)])
    study = made.study(made.meta(), beyond)
    said = collect_page_data(confirmed(study, {1: [0.5, 0.51, 0.52], 2: [0.2, 0.21, 0.22]}), beyond)["study"]
    assert said["best_confirmed"] == 2
    assert any("by more than luck" in line for line in said["verdict"])
    assert "±" in " ".join(said["verdict"])
    nothing = collect_page_data(study, beyond)
    assert (nothing["study"]["verdict"], nothing["study"]["best_confirmed"]) == ([], None)
    assert not [one["key"] for one in nothing["columns"] if one["key"].startswith("confirmed")]


def test_attributes_have_units() -> None:
    """Those of PtyRAD's trials; of X-rays in m, of other engines nobody knows."""
    facts = {
        "pixel_size": 0.2,
        "reciprocal_pixel_size": 0.03,
        "scan_rotation": 1.5,
        "wall_seconds": 2.0,
        "iterations": 9,
    }
    assert attribute_units(facts) == {
        "pixel_size": "angstrom",
        "reciprocal_pixel_size": "1/angstrom",
        "scan_rotation": "degree",
        "wall_seconds": "s",
    }
    assert attribute_units({"length_unit": "m", "wavelength": 1e-10}) == {"wavelength": "m"}
    assert attribute_units({"scan_scale": 1.0, "affine": None}) == {}
    beyond = TrialAlbum({0: PageTrial(made.trial(0), attributes=facts)})
    for engine, unit in (("ptyrad", "angstrom"), ("toy", None)):
        said = collect_page_data(made.study(made.meta(engine=engine), beyond), beyond)["study"]
        assert said["attribute_units"].get("pixel_size") == unit


def test_attempts_are_shown_where_a_trial_was_tried_again() -> None:
    """The column appears of itself."""
    again = replace(made.trial(1), attempt=2, retry_of=0)
    assert column(collected([made.trial(0), again]), "attempt")["shown"]
    assert not column(collected([made.trial(0), made.trial(1)]), "attempt")["shown"]


def test_curves_keep_both_ends_and_say_what_was_thinned() -> None:
    """At most 100 points of 500, the metric first; the values are the engine's as float32."""
    beyond = made.album([made.trial(0)], points=500)
    curves = collect_page_data(made.study(made.meta(), beyond), beyond)["curves"]
    assert curves["names"] == ["step", "loss", "contrast"]
    points = np.frombuffer(base64.b64decode(curves["data"]["0"]), "<f4").reshape(3, -1)
    assert points.shape == (3, 100)
    assert (points[0, 0], points[0, -1], curves["whole"]) == (1, 500, {"0": 500})
    whole = beyond.trials[0].curve
    assert np.array_equal(points[1], np.float32(whole["loss"])[points[0].astype(int) - 1])


def test_a_search_space_in_other_words_costs_its_ranges_only() -> None:
    """Parameters of trials are listed all the same."""
    for text in ("", "[]", '{"scale": {}}', '{"scale": {"name": "FloatDistribution", "attributes": {"low": "x"}}}'):
        study = StudyData(made.meta(), (made.trial(0),))
        odd = replace(study, meta=replace(study.meta, search_space_json=text))
        assert next((one["name"], one["range"]) for one in tuned_parameters(odd)) == ("scale", "")


# --- images -------------------------------------------------------------------------------------------


def test_the_best_the_files_own_and_then_pruned_trials_get_a_large_image() -> None:
    """In that order, never more than asked."""
    records = [made.trial(n) for n in range(30)]
    ranks = collected(records)["study"]["ranks"]
    assert select_image_trials(records, "minimize", 4) == [*ranks[:3], 0]
    assert select_image_trials(records, "minimize", 0) == []
    everything = select_image_trials(records, "minimize", 1000)
    assert everything[-1] == 25
    assert 11 not in everything


def test_an_image_is_calibrated_and_keeps_its_grey_values() -> None:
    """Edges half a pixel before the first centre; small images are exact to a grey level."""
    image = made.image(3)
    shown = pictures.encode_image(image, 560)
    assert shown is not None
    assert (shown["left"], shown["dx"], shown["unit"]) == (pytest.approx(9.9), pytest.approx(0.2), "angstrom")
    grey = np.asarray(opened(shown["src"]).convert("L"), float)
    values = shown["low"] + grey / 255 * (shown["high"] - shown["low"])
    inside = (image.data > shown["low"]) & (image.data < shown["high"])
    step = (shown["high"] - shown["low"]) / 255
    assert np.abs(values - image.data)[inside].max() <= 0.51 * step


def opened(source: str) -> Any:
    import io

    return pictures.import_pillow().open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def test_images_that_hold_nothing_are_left_out() -> None:
    """All NaN, or empty; without axes, pixels are counted."""
    nothing, axis = np.full((4, 4), np.nan, np.float32), np.arange(4.0)
    assert pictures.encode_image(Image(nothing, axis, axis, "rad", "angstrom", ""), 100) is None
    assert pictures.encode_probe(np.zeros((1, 4, 4), np.complex64), 0.2) is None
    assert pictures.encode_probe(np.zeros((4, 4)), 0.2) is None
    flat = pictures.encode_image(Image(np.zeros((4, 6), np.float32), np.empty(0), np.empty(0), "", "", ""), 100)
    assert flat is not None
    assert (flat["unit"], flat["dx"], flat["width"]) == ("px", 1.0, 6)
    large = pictures.encode_image(
        Image(np.eye(900, 450, dtype=np.float32), np.arange(900.0), np.arange(450.0), "", "", ""), 300
    )
    assert large is not None
    assert opened(large["src"]).size == (150, 300)


def common_grey(images: list[Image]) -> tuple[float, float] | None:
    return greys.shared_grey_limits(pictures.relative_limits(pictures.encode_image(image, 64)) for image in images)


def test_the_common_grey_scale_heeds_neither_offset_nor_outlier() -> None:
    """A phase has no zero, and one diverged image does not make the others grey; other units keep their zero."""
    images = [made.image(number) for number in range(1, 9)]
    shifted = [replace(image, data=image.data + 5 * k) for k, image in enumerate(images)]
    grey, moved = common_grey(images), common_grey(shifted)
    assert grey is not None
    assert grey == pytest.approx(moved, abs=1e-5)
    diverged = common_grey([*images, replace(images[0], data=images[0].data * 1e4)])
    assert diverged == pytest.approx(grey, rel=0.3)
    assert greys.phase_median(replace(shifted[3], units="1")) == 0
    assert common_grey([]) is None


def test_the_hue_of_a_probe_is_its_phase() -> None:
    """0 is red, a third of a turn green, two thirds blue; the strongest mode is shown."""
    phases = np.exp(2j * np.pi * np.array([[0, 1 / 3, 2 / 3]]))
    shown = pictures.encode_probe(np.stack([0.1 * phases, phases]), 0.2)
    assert shown is not None
    assert np.asarray(opened(shown["src"]).convert("RGB")).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    assert (shown["modes"], round(shown["share"], 3)) == (2, 0.99)


# --- what the best few have besides --------------------------------------------------------------------


def test_the_best_few_have_all_pictures(tmp_path: Path) -> None:
    """Spectrum with rings, every slice with its depth, every mode with its share in both spaces, moved positions."""
    with reader.open(made.thick_study(tmp_path / "s.h5", 4)) as results:
        album = read(results, load_study(results), images=3)
    assert [bool(album.trials[n].more_pictures) for n in range(4)] == [bool(album.trials[n].picture) for n in range(4)]
    shown = next(trial.more_pictures for trial in album.trials.values() if trial.more_pictures)
    assert shown["spectrum"]["unit"] == "1/angstrom"
    assert shown["spectrum"]["rings"] == [[1.0, "1 Å⁻¹ (1 Å)"], [2.0, "2 Å⁻¹ (0.5 Å)"]]
    slices = shown["slices"]
    assert (slices["count"], slices["numbers"], slices["depths"][:3]) == (12, list(range(1, 13)), [0, 5, 10])
    modes = shown["modes"]
    assert [mode["number"] for mode in modes["shown"]] == [1, 2, 3, 4]
    assert sum(mode["share"] for mode in modes["shown"]) == pytest.approx(1)
    assert {mode["reciprocal"]["unit"] for mode in modes["shown"]} == {"mrad"}
    positions = shown["positions"]
    assert positions["count"] == 36
    assert 0.05 < positions["rms"] < 0.3
    assert len(base64.b64decode(positions["shifts"])) == 36 * 2 * 4


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"slices": 1}, {"spectrum", "modes", "positions"}),
        ({"modes": 1}, {"spectrum", "slices", "modes", "positions"}),
        ({"slices": 60, "side": 8, "modes": 20}, {"spectrum", "slices", "modes", "positions"}),
    ],
)
def test_more_slices_and_modes_than_the_page_has_room_for(
    changes: dict[str, int], kept: set[str], tmp_path: Path
) -> None:
    """A single slice is the image itself; of many those at even distances, of many modes the strongest."""
    with reader.open(made.thick_study(tmp_path / "s.h5", 1, **changes)) as results:
        shown = trial_pictures.encode_trial_pictures(results.trial(0), results.meta)
    assert shown.keys() == kept
    assert len(shown["modes"]["shown"]) == min(8, shown["modes"]["count"])
    if "slices" in shown:
        assert len(shown["slices"]["pictures"]) == min(24, shown["slices"]["count"])
        assert shown["slices"]["numbers"][-1] == shown["slices"]["count"]


@pytest.mark.parametrize(
    "lacking",
    [{"arrays": {}}, {"arrays": {}, "image": None}, {"attributes": {}, "image": None}],
    ids=["no arrays", "nothing", "no pixel size"],
)
def test_pictures_of_what_was_not_kept_are_left_out(lacking: dict[str, Any], tmp_path: Path) -> None:
    """Without an error, whatever is missing."""
    store = Store.open(tmp_path / "s.h5", made.meta())
    cases.put(store, made.trial(0), cases.output(0, **(made.thick(0) | lacking)))
    with reader.open(store.finish()) as results:
        shown = trial_pictures.encode_trial_pictures(results.trial(0), results.meta)
    assert shown.keys() == ({"spectrum"} if lacking == {"arrays": {}} else set())


def test_arrays_that_hold_no_numbers_are_left_out(tmp_path: Path) -> None:
    """A diverged trial has NaN in everything."""
    broken = made.thick(0)
    for name in ("object_phase", "probe", "positions"):
        broken["arrays"][name] = replace(broken["arrays"][name], data=broken["arrays"][name].data * np.nan)
    store = Store.open(tmp_path / "s.h5", made.meta())
    cases.put(store, made.trial(0), cases.output(0, **broken))
    with reader.open(store.finish()) as results:
        shown = trial_pictures.encode_trial_pictures(results.trial(0), results.meta)
    assert shown.keys() == {"spectrum"}


@pytest.mark.parametrize("shape", [(3,), (2, 0, 8, 8), (5, 1, 2, 8, 8), (1, 4, 3, 3)])
def test_arrays_of_any_shape_make_a_page(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Another engine may call anything object, probe and positions."""
    names = ("object_phase", "object_amplitude", "probe", "positions", "crop_positions")
    odd = {name: Quantity(np.ones(shape, np.float32), "rad") for name in names}
    store = Store.open(tmp_path / "s.h5", made.meta(engine="toy"))
    cases.put(store, made.trial(0), cases.output(0, arrays=odd))
    with reader.open(store.finish()) as results:
        assert isinstance(read(results, load_study(results), images=1).trials[0].more_pictures, dict)


def test_all_of_them_take_so_much_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best one has them in any case; others as long as there is room."""
    path = made.thick_study(tmp_path / "s.h5", 5)
    with reader.open(path) as results:
        best = results.best().number
        study = load_study(results)
        everyone = [n for n, trial in read(results, study, images=9).trials.items() if trial.more_pictures]
        monkeypatch.setattr("ptydask.analysis.report.trial_album._PICTURE_CHARACTERS", 10)
        alone = [n for n, trial in read(results, study, images=9).trials.items() if trial.more_pictures]
    assert len(everyone) == 5
    assert alone == [best]


@pytest.mark.usefixtures("undrawn")
def test_the_page_says_what_next() -> None:
    """In the words of ``ptydask next``."""
    data = collected([made.trial(n) for n in range(4)])
    assert data["advice"][0]["kind"] == "too few trials"
    assert "too few to say anything" in data["advice"][0]["text"]


# --- the page as text ---------------------------------------------------------------------------------


def hostile() -> tuple[StudyMeta, TrialAlbum]:
    """A study whose every text tries to be a program."""
    about = made.meta(name=EVIL, metric=EVIL, config_text=EVIL, provenance={EVIL: EVIL})
    good = replace(made.trial(0), params={EVIL: 1.0, "b": EVIL}, worker=EVIL, host=EVIL, metrics={EVIL: 0.5})
    bad = cases.failed(1, message=EVIL, traceback=EVIL, params={EVIL: 2.0, "b": EVIL})
    odd = replace(made.seen(good, pictured=True), log=EVIL, attributes={EVIL: EVIL})
    return about, TrialAlbum({0: odd, 1: PageTrial(bad, log=EVIL, lost=EVIL)})


def test_no_text_of_a_study_becomes_markup() -> None:
    """Two kinds of script elements, ours; everything else is data, unchanged."""
    about, beyond = hostile()
    drawn = [{"kind": "history", "title": EVIL, "about": EVIL, "markup": "", "size": ""}]
    html = page.render(collect_page_data(made.study(about, beyond), beyond), drawn, source=EVIL, made=made.MADE)
    assert len(re.findall("<script", html)) == len(re.findall("</script>", html)) == len(data_of(html)) + 1
    assert "<img src=x" not in html
    assert data_of(html)["trials"]["1"]["traceback"] == EVIL
    assert data_of(html)["study"]["name"] == EVIL


def test_figures_escape_names_too() -> None:
    """A parameter's name in a plot stays a name."""
    about, beyond = hostile()
    drawn = made.draw_plots(made.study(about, beyond))
    html = made.page.render({"study": {"name": ""}}, drawn, source="", made=made.MADE)
    assert "<script>alert" not in html
    assert "<img src=x" not in html


def test_the_page_asks_nobody_for_anything() -> None:
    """No address of the web where a browser would fetch it, and a policy that forbids it; one script may run."""
    html = made.html(12)
    fetching = r"""(?:\bsrc|\bhref|\baction|\bdata|@import|url)\s*[=(]\s*["']?\s*(?:https?:)?//"""
    assert not re.findall(fetching, html)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")


@pytest.mark.slow
def test_the_same_study_gives_the_same_page(tmp_path: Path) -> None:
    """But for the moment of its making."""
    path = cases.packed(tmp_path / "s.h5", [made.trial(n) for n in range(6)])
    with reader.open(path) as results:
        now = report.render(results, made=made.MADE)
        later = report.render(results, made=made.MADE.replace(year=2026))
    assert later != now
    assert later.replace("2026-01-02T", "2025-01-02T") == now


# --- results files -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("undrawn")
def test_a_finished_study_is_read_whole(tmp_path: Path) -> None:
    """Image, probe, curve, attributes, log, traceback and thumbnails, each of its own trial."""
    path = cases.packed(tmp_path / "s.h5", [made.trial(0), made.trial(1), cases.failed(2)])
    with reader.open(path) as results:
        data = data_of(report.render(results, images=1, made=made.MADE))
    assert list(data["pictures"]) == list(data["probes"]) == ["1"]
    assert list(data["thumbnails"]) == ["0", "1"]
    assert data["trials"]["1"]["attributes"]["pixel_size"] == 0.15
    assert data["trials"]["1"]["log"] == "one line\nanother"
    assert "out of memory" in data["trials"]["2"]["traceback"]
    assert list(data["curves"]["data"]) == ["0", "1"]
    assert data["study"]["running"] is None


@pytest.mark.usefixtures("undrawn")
def test_a_running_study_says_so(tmp_path: Path) -> None:
    """With how many trials have ended, as far as the driver has said; trials in files of their own are there too."""
    store = Store.open(tmp_path / "s.h5", made.meta())
    with reader.open(store.path) as results:
        silent = data_of(report.render(results, made=made.MADE))["study"]
    assert silent["running"] is not None
    cases.put(store, made.trial(0), cases.output(0))
    store.refresh(force=True)
    under_way = RunningTrial(1, {}, step=3, error=0.5, worker="0", seconds=1.0)
    counts = {"complete": 1, "running": 1}
    store.write_status(
        RunSnapshot("s", store.path, 9, counts, None, (under_way,), 2, 1.0, 5.0, None, "loss", "minimize")
    )
    with reader.open(store.path) as results:
        data = data_of(report.render(results, made=made.MADE))
    store.close()
    said = data["study"]["running"]
    assert (said["total"], said["under_way"], said["remaining"]) == (9, 1, 5.0)
    assert said["updated"]
    assert column(data, "number")["values"] == [0]
    assert "0" in data["pictures"]


@pytest.mark.usefixtures("undrawn")
def test_numbers_only_is_a_report_without_images(tmp_path: Path) -> None:
    """As of engines that have none, and with collate_results false."""
    store = Store.open(tmp_path / "s.h5", cases.meta(engine="toy"))
    cases.put(store, made.trial(0), cases.output(0, image=None, arrays={}, snapshots={}, log=""), KEEP)
    with reader.open(store.finish()) as results:
        data = data_of(report.render(results, made=made.MADE))
    assert data["pictures"] == data["probes"] == data["thumbnails"] == {}
    assert data["study"]["grey"] is None
    assert data["study"]["tuned"][0]["meaning"] == ""


def test_many_trials_have_logs_only_where_it_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attributes and logs of those with a large image, and of failed ones; the curves of all."""
    monkeypatch.setattr("ptydask.analysis.report.trial_album._LARGE", 3)
    path = cases.packed(tmp_path / "s.h5", [made.trial(0), made.trial(1), made.trial(2), cases.failed(3)])
    with reader.open(path) as results:
        seen = read(results, load_study(results), images=2).trials
    assert [bool(seen[n].log) for n in range(3)] == [True, False, True]
    assert seen[3].record.traceback
    assert all(len(seen[n].curve["step"]) == 3 for n in range(3))
    assert all(seen[n].thumbnail for n in range(3))


# --- the command ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("undrawn")
def test_report_writes_beside_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NAME.html for NAME.h5, its path on stdout; nothing else is left."""
    path = cases.packed(tmp_path / "s.h5", [made.trial(n) for n in range(3)])
    assert cli.main(["report", str(path)]) == 0
    out = capsys.readouterr()
    assert out.out == f"{tmp_path / 's.html'}\n"
    assert "MB" in out.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5", "s.html"]
    assert data_of((tmp_path / "s.html").read_text("utf-8"))["about"]["source"] == "s.h5"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "s.h5"], "ends in .html"),
        (["--images", "-1"], "whole number"),
        (["--images", "many"], "whole number"),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_bad_usage_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and no page over the results."""
    path = cases.packed(tmp_path / "s.h5", [made.trial(0)])
    before = path.read_bytes()
    assert cli.main(["report", str(path), *arguments]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["s.h5", "notes.txt", "folder.html"])
def test_nothing_but_a_page_is_ever_overwritten(name: str, tmp_path: Path) -> None:
    """Neither results nor anything else, from Python either."""
    (tmp_path / "folder.html").mkdir()
    path = cases.packed(tmp_path / "s.h5", [made.trial(0)])
    before = path.read_bytes()
    with reader.open(path) as results, pytest.raises(UsageError, match=r"ends in \.html"):
        report.write(results, tmp_path / name)
    assert path.read_bytes() == before
    assert not (tmp_path / "notes.txt").exists()


def test_large_images_are_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image at a time is in memory, however many are shown."""
    alive: list[weakref.ref[Any]] = []
    picture = pictures.encode_image

    def counted(image: Image, *arguments: Any, **more: Any) -> Any:
        gc.collect()
        alive.append(weakref.ref(image.data))
        assert sum(one() is not None for one in alive) <= 2
        return picture(image, *arguments, **more)

    monkeypatch.setattr(pictures, "encode_image", counted)
    with reader.open(cases.packed(tmp_path / "s.h5", [made.trial(n) for n in (0, 1, 2, 3, 4)])) as results:
        assert read(results, load_study(results), images=5).grey is not None
    assert len(alive) == 5 * (1 + 1 + 2)  # the image, its spectrum, two slices


@pytest.mark.usefixtures("undrawn")
def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing half-written is left."""
    path = cases.packed(tmp_path / "s.h5", [made.trial(0)])
    page_path = tmp_path / "s.html"
    page_path.write_text("old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with reader.open(path) as results, pytest.raises(OSError, match="No space"):
        report.write(results, page_path)
    assert page_path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5", "s.html"]


def test_the_wheel_ships_the_pages_parts() -> None:
    """The files that the page is made of lie in the package, where hatchling takes them from."""
    from importlib import resources

    names = {entry.name for entry in resources.files("ptydask.analysis.report").iterdir()}
    assert {
        "page.html",
        "page.css",
        "words.js",
        "drawing.js",
        "filters.js",
        "table.js",
        "overview.js",
        "pages.js",
    } <= names


def test_without_matplotlib_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, before anything is read or written."""
    path = cases.packed(tmp_path / "r.h5", [cases.record(0)])
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with (
        reader.open(path) as results,
        pytest.raises(MissingDependency, match=r"pip install 'ptydask\[analysis\]'"),
    ):
        report.write(results, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("command", ["report", "plot", "montage"])
def test_commands_without_matplotlib(tmp_path: Path, command: str) -> None:
    """Where it truly cannot be imported, each command says so in one line, and ``open`` raises the same."""
    path = cases.packed(tmp_path / "r.h5", [cases.record(0)])
    hide = "import sys; sys.modules['matplotlib'] = None\n"
    does = f"from ptydask import cli; sys.exit(cli.main([{command!r}, {str(path)!r}]))"
    done = subprocess.run([sys.executable, "-c", hide + does], capture_output=True, text=True, timeout=60, check=False)
    line = "figures need the package matplotlib: pip install 'ptydask[analysis]'"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"ptydask: {line}\n")
    called = f"import ptydask; ptydask.open({str(path)!r}).{command}()"
    done = subprocess.run(
        [sys.executable, "-c", hide + called], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.endswith(f"ptydask.errors.MissingDependency: {line}\n")
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["d.html", f"{'d' * 240}.html"])
def test_a_file_that_cannot_be_written_is_named_as_it_was_asked_for(name: str, tmp_path: Path) -> None:
    """Not by the hidden name under which it is written first."""
    (tmp_path / "file").touch()
    for folder in ("gone", "file"):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - whichever it is, the name is what counts
            files.write_text(tmp_path / folder / name, "")
        assert caught.value.filename == str(tmp_path / folder / name)


def test_a_failure_without_a_name_is_of_the_output(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A full disk does not say which file it was."""

    def full(_args: argparse.Namespace) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    made = argparse.ArgumentParser()
    made.set_defaults(handler=full)
    monkeypatch.setattr(cli, "build_parser", lambda: made)
    monkeypatch.setattr(formats, "abandon", lambda _stream: None)
    assert cli.main([]) == 1
    assert capfd.readouterr().err == "ptydask: the output: No space left on device\n"
