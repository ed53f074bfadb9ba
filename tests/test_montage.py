"""The montage: which images, in which order, at which physical and grey scale, with which words."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from figure_cases import meta as ptyrad_meta
from matplotlib.figure import Figure
from store_cases import failed, meta, output, packed, put, record

import ptydask
from ptydask import cli
from ptydask.analysis import greys
from ptydask.analysis.montage import drawing, picture_kinds, sheet_layout, trial_cells, trial_images
from ptydask.analysis.montage.sheet_layout import CellArrows, MontageCell, MontageSheet
from ptydask.cli import pictures
from ptydask.errors import UsageError
from ptydask.model import Image, Quantity, TrialRecord, TrialState
from ptydask.store import Store, reader


def image(size: tuple[int, int], pixel: float, data: Any = None) -> Image:
    """A calibrated image; without ``data`` one period across."""
    rows, columns = size
    made = np.cos(2 * np.pi * np.arange(columns) / columns)[None].repeat(rows, 0) if data is None else data
    return Image(
        np.asarray(made, np.float32), pixel * np.arange(rows), pixel * np.arange(columns), "rad", "angstrom", ""
    )


def picture(data: Any, height: float | None = 10.0, width: float | None = 10.0, **changes: Any) -> MontageCell:
    return MontageCell(changes.pop("record", record(0)), np.asarray(data, np.float32), height, width, "rad", **changes)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def boxes(figure: Figure, count: int) -> list[tuple[float, float]]:
    """Width and height, inches, of the first ``count`` images."""
    extents = [found.get_extent() for found in figure.axes[0].images[:count]]
    return [(right - left, bottom - top) for left, right, bottom, top in extents]


@pytest.fixture
def results(study: Path, tmp_path: Path) -> Path:
    """A file of its own for each test."""
    return Path(shutil.copy(study, tmp_path))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trials whose pixel sizes differ: 0 to 3 completed, 4 pruned, 5 failed, 6 without an image."""
    store = Store.open(tmp_path_factory.mktemp("study") / "demo.h5", meta("demo"))
    for number, (size, pixel) in enumerate([(40, 0.5), (20, 1.0), (30, 0.5), (20, 0.5)]):
        made = record(number, 0.4 - 0.1 * number, params={"dx": pixel, "rotation": -1.5 * number, "C10": 230.0})
        shown = image((size, size), pixel)
        put(store, made, output(number, image=replace(shown, data=shown.data + 100 * number)))
    put(store, record(4, 0.01, state=TrialState.PRUNED, params={"dx": 0.5}), output(4, image=image((20, 20), 0.5)))
    put(store, failed(5))
    put(store, record(6, 0.5, params={"dx": 2.0}), output(6, image=None, arrays={}, snapshots={}))
    return store.finish()


# --- order -------------------------------------------------------------------------------------------


def numbers(records: list[TrialRecord]) -> list[int]:
    return [found.number for found in records]


def test_the_best_come_first() -> None:
    """By error, in the study's direction; what has none comes last, also reversed."""
    made = [record(0, 0.3), record(1, 0.1), record(2, 0.2), record(3, math.nan)]
    assert numbers(trial_images.ordered(made)) == [1, 2, 0, 3]
    assert numbers(trial_images.ordered(made, direction="maximize")) == [0, 2, 1, 3]
    assert numbers(trial_images.ordered(made, reverse=True)) == [0, 2, 1, 3]


def test_order_by_number_and_parameter() -> None:
    """Values rise; a parameter that a trial lacks puts it last; words come after numbers."""
    made = [record(n, params={"x": x} if x is not None else {}) for n, x in enumerate([3, 1.5, None, "a", 2])]
    assert numbers(trial_images.ordered(made, sort="x")) == [1, 4, 0, 3, 2]
    assert numbers(trial_images.ordered(made, sort="number", reverse=True)) == [4, 3, 2, 1, 0]


def test_only_the_state_asked_for() -> None:
    made = [record(0), record(1, state=TrialState.PRUNED), failed(2)]
    assert numbers(trial_images.ordered(made)) == [0]
    assert numbers(trial_images.ordered(made, state=TrialState.PRUNED)) == [1]
    assert numbers(trial_images.ordered(made, state=None, sort="number")) == [0, 1, 2]


def test_an_unknown_order_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="no trial has a parameter 'rotatoin'; did you mean 'rotation'"):
        trial_images.ordered([record(0)], sort="rotatoin")


# --- decisions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "bar", "text"),
    [
        (20.0, 5.0, "5 Å"),
        (30.0, 10.0, "10 Å"),
        (60.0, 20.0, "2 nm"),
        (2.9, 1.0, "1 Å"),
        (1e5, 2e4, "2 µm"),
        (0.5, 0.1, "0.1 Å"),
    ],
)
def test_a_scale_bar_is_round(width: float, bar: float, text: str) -> None:
    """1, 2 or 5 times a power of ten, about a third of the image at most."""
    assert sheet_layout.scale_bar(width) == pytest.approx(bar)
    assert sheet_layout.length_text(bar) == text


def test_one_grey_scale_that_one_diverged_image_does_not_spoil() -> None:
    """Seven images within 0 and 1 and one within 0 and 1000: white is 1."""
    ramp = np.linspace(0, 1, 1000).reshape(20, 50)
    low, high = sheet_layout.sheet_grey_limits([picture(ramp)] * 7 + [picture(1000 * ramp)])
    assert (low, high) == pytest.approx((0.005, 0.995), abs=1e-6)
    assert sheet_layout.sheet_grey_limits([picture(np.full((4, 4), 2.0))]) == (1.5, 2.5)
    assert sheet_layout.sheet_grey_limits([picture(np.full((4, 4), np.nan))]) == (0, 1)
    assert sheet_layout.sheet_grey_limits([picture(ramp), picture(255 * ramp, thumbnail=True)]) == pytest.approx(
        (0.005, 0.995), abs=1e-6
    )


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (4, 2), (9, 3), (25, 6), (400, 23)])
def test_columns(count: int, columns: int) -> None:
    assert sheet_layout.columns_for(count) == columns


def test_hundreds_of_images_get_fewer_pixels() -> None:
    """40 million in all, at most 2000 a side; what ``dpi`` asks for is heeded."""
    assert sheet_layout.cell_pixels(4) == 2000
    assert sheet_layout.cell_pixels(400) == 316
    assert sheet_layout.cell_pixels(400, dpi=300) == 600


def test_binning_keeps_means() -> None:
    data = np.arange(35, dtype=np.float32).reshape(5, 7)
    assert greys.binning((5, 7), 4) == 2
    assert greys.binned(data, 2).tolist() == [[4, 6, 8], [18, 20, 22]]
    assert greys.binned(data, 1) is data


def test_parameters_that_all_share_are_told_once() -> None:
    made = [record(n, params={"a": 1, "b": n, "c": None}) for n in range(3)]
    assert sheet_layout.varying_parameters(made) == (["b"], {"a": 1, "c": None})


def test_a_caption_has_rank_error_and_parameters() -> None:
    """With units, a real minus, six digits at most, and as many on a line as fit."""
    made = record(12, 0.0541254983, params={"scale": 1.0400000001, "rotation": -1.5, "C10": 230.5, "optimizer": None})
    lines = drawing.caption(picture([[1]], record=made), 3, list(made.params), ptyrad_meta())
    assert lines == [
        "#3  trial 12",
        "loss 0.054125",
        "scale 1.04  rotation \N{MINUS SIGN}1.5°",
        "C10 230.5 Å  optimizer null",
    ]
    pruned = replace(made, state=TrialState.PRUNED, error=None, params={})
    lines = drawing.caption(picture([[1]], record=pruned), None, [], ptyrad_meta())
    assert lines == ["trial 12", "no error  (pruned)"]


# --- reading and painting ------------------------------------------------------------------------------


def test_images_are_shown_at_one_physical_scale(results: Path) -> None:
    """40 pixels of 0.5 and 20 of 1 angstrom are equally large; 30 of 0.5 three quarters of that."""
    with reader.open(results) as found:
        figure = trial_images.draw(found, [r for r in found.records() if r.number < 4])
    widths = boxes(figure, 4)
    assert widths[0] == pytest.approx((sheet_layout.CELL, sheet_layout.CELL))
    assert widths[1] == pytest.approx((sheet_layout.CELL, sheet_layout.CELL))
    assert widths[2] == pytest.approx((0.75 * sheet_layout.CELL, 0.75 * sheet_layout.CELL))
    assert widths[3] == pytest.approx((0.5 * sheet_layout.CELL, 0.5 * sheet_layout.CELL))


def test_the_scale_bar_is_as_long_as_it_says(results: Path) -> None:
    """20 angstrom fill a cell, so that 5 are a quarter of it, in the first image of each row."""
    with reader.open(results) as found:
        figure = trial_images.draw(found, [r for r in found.records() if r.number < 2], columns=1)
    bars = [patch for patch in figure.axes[0].patches if patch.get_gid() == "scale bar"]
    assert [cast(Any, bar).get_width() for bar in bars] == pytest.approx([sheet_layout.CELL / 4] * 2)
    assert texts(figure).count("5 Å") == 2


def test_the_phase_s_constant_does_not_matter(results: Path) -> None:
    """Images that differ by a constant phase are equally grey, at the common scale that the legend tells."""
    with reader.open(results) as found:
        figure = trial_images.draw(found, [r for r in found.records() if r.number < 4])
    images = figure.axes[0].images[:4]
    assert all(abs(float(np.median(i.get_array().compressed()))) < 1e-4 for i in images)
    assert len({i.get_clim() for i in images}) == 1
    assert "\N{MINUS SIGN}1 rad" in texts(figure)
    assert "1 rad" in texts(figure)


def test_each_image_can_have_its_own_grey_scale() -> None:
    ramp = np.linspace(0, 1, 100).reshape(10, 10)
    shown = MontageSheet(meta(), "phase", (picture(ramp), picture(9 * ramp)))
    figure = trial_images.draw_sheet(shown, common=False)
    low, high = zip(*(i.get_clim() for i in figure.axes[0].images), strict=True)
    assert high[1] == pytest.approx(9 * high[0])
    assert low[0] == pytest.approx(0.005)
    assert "each image has its own grey scale" in texts(figure)


def test_a_crop_is_the_middle_at_the_same_scale_for_all(results: Path) -> None:
    """Half of each side: 10 angstrom of a 20 angstrom image, whose middle pixels these are."""
    with reader.open(results) as found:
        (shown,) = trial_images.read(found, found.records()[:1], crop=0.5).pictures
        whole = found.trial(0).image
    assert whole is not None
    assert (shown.height, shown.width) == pytest.approx((10, 10))
    part = whole.data[10:30, 10:30]
    np.testing.assert_allclose(shown.data, part - np.median(part), atol=1e-6)


def test_large_images_are_averaged_to_their_cell(tmp_path: Path) -> None:
    """A row and column that are left over are cut off, and the extent with them."""
    data = np.arange(81, dtype=np.float32).reshape(9, 9)
    store = Store.open(tmp_path / "a.h5", meta())
    put(store, record(0), output(image=image((9, 9), 2.0, data)))
    with reader.open(store.finish()) as found:
        (shown,) = trial_images.read(found, found.records(), pixels=4).pictures
    assert shown.data.shape == (3, 3)
    assert (shown.height, shown.width) == pytest.approx((18, 18))
    assert float(shown.data[1, 1]) == 0


def test_what_has_no_image_is_named(results: Path) -> None:
    """The other trials are shown, and ``most`` counts those."""
    with reader.open(results) as found:
        shown = trial_images.read(found, found.records()[::-1], most=2)
        figure = trial_images.draw_sheet(shown)
    assert [p.record.number for p in shown.pictures] == [4, 3]
    assert dict(shown.lost) == {6: "no phase was kept", 5: "no phase was kept"}
    assert "without an image: 6, 5" in " ".join(texts(figure)).replace("\n", " ")


def test_thumbnails_stand_in_for_dropped_arrays() -> None:
    """Without the zeros around them, named as such, and with no say in the grey scale."""
    tile = np.zeros((128, 128), np.uint8)
    tile[32:96] = 200
    trial = SimpleNamespace(image=None, arrays={}, attributes={}, lost="")
    found = SimpleNamespace(meta=meta(), records=lambda: [record(0)], trial=lambda _: trial, pictures=lambda: {0: tile})
    shown = trial_images.read(cast(Any, found), [record(0)])
    assert shown.pictures[0].data.shape == (64, 128)
    figure = trial_images.draw_sheet(shown)
    assert "#1  trial 0  (thumbnail)" in texts(figure)
    assert not [patch for patch in figure.axes[0].patches if patch.get_gid() == "scale bar"]


def test_probe_and_amplitude(tmp_path: Path) -> None:
    """The probe's modes add up in intensity; the amplitude is the mean of the region that the image shows."""
    amplitude = np.zeros((1, 2, 8, 8), np.float32)
    amplitude[:, :, 2:6, 3:5] = [[[[1.0]], [[3.0]]]]
    arrays = {
        "probe": Quantity(np.stack([np.full((4, 4), 3.0), np.full((4, 4), 4j)])),
        "object_amplitude": Quantity(amplitude),
    }
    shown = Image(np.zeros((4, 2), np.float32), 0.5 * np.arange(2, 6), 0.5 * np.arange(3, 5), "rad", "angstrom", "")
    store = Store.open(tmp_path / "a.h5", meta())
    put(store, record(0), output(arrays=arrays, image=shown, attributes={"pixel_size": 0.5, "length_unit": "angstrom"}))
    with reader.open(store.finish()) as found:
        (probe,) = trial_images.read(found, found.records(), what="probe").pictures
        (mean,) = trial_images.read(found, found.records(), what="amplitude").pictures
    assert probe.data.tolist() == [[5.0] * 4] * 4
    assert (probe.height, probe.width) == pytest.approx((2, 2))
    assert mean.data.tolist() == [[2.0] * 2] * 4


def test_x_ray_lengths_are_metres(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "a.h5", meta())
    shown = image((10, 10), 1e-8)
    put(store, record(0), output(image=replace(shown, axis_units="m")))
    with reader.open(store.finish()) as found:
        figure = trial_images.draw(found, found.records())
    assert "20 nm" in texts(figure)


def test_snapshots_of_a_trial(tmp_path: Path) -> None:
    """In the order of the iterations, the end last; a trial without any says how to get some."""
    steps = {n: {"object_phase": Quantity(np.zeros((1, 2, 24, 16), np.float32), "rad")} for n in (20, 5)}
    store = Store.open(tmp_path / "a.h5", meta())
    put(store, record(0), output(snapshots=steps))
    put(store, record(1), output(snapshots={}))
    with reader.open(store.finish()) as found:
        shown = trial_images.read_snapshots(found, 0)
        assert [p.label for p in shown.pictures] == ["iteration 5", "iteration 20", "end"]
        assert "iteration 5" in texts(trial_images.draw_sheet(shown))
        with pytest.raises(UsageError, match="trial 1 has no snapshots; SAVE_ITERS"):
            trial_images.read_snapshots(found, 1)


def test_a_sheet_without_pictures_is_words() -> None:
    assert "No trial with an image to show." in texts(trial_images.draw_sheet(MontageSheet(meta(), "phase", ())))


def test_too_large_a_picture_is_refused() -> None:
    """Rather than a crash deep inside of Matplotlib."""
    shown = MontageSheet(meta(), "phase", tuple(picture(np.ones((2, 2))) for _ in range(100)))
    with pytest.raises(UsageError, match="too large to draw; choose fewer"):
        trial_images.draw_sheet(shown, columns=1, dpi=600)


def test_odd_images_are_drawn(tmp_path: Path) -> None:
    """One pixel, NaN, a single row, a name with a formula in it: nothing raises or warns."""
    odd = [np.ones((1, 1)), np.full((5, 5), np.nan), np.ones((1, 50)), np.full((3, 3), np.inf)]
    made = [
        picture(data, *([None] * 2 if i == 0 else [1.0, 1.0]), record=record(i, params={"a$_b$": i}))
        for i, data in enumerate(odd)
    ]
    figure = trial_images.draw_sheet(
        MontageSheet(meta("$x_1$ study"), "phase", tuple(made), {9: "gone"}), title="a $ b"
    )
    figure.savefig(tmp_path / "a.png", dpi=50)
    assert (tmp_path / "a.png").stat().st_size > 1000


# --- the command line ----------------------------------------------------------------------------------


def test_montage_of_the_best(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The path on stdout; what is left out on stderr."""
    assert cli.main(["montage", str(results), "--dpi", "50"]) == 0
    told = capsys.readouterr()
    path = results.with_name("demo-montage.png")
    assert told.out == f"{path}\n"
    assert told.err == "trial 6 left out: no phase was kept\n"
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("suffix", "magic"), [("tif", b"II*\0"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_montage_in_other_formats(results: Path, suffix: str, magic: bytes) -> None:
    out = results.with_name(f"m.{suffix}")
    assert cli.main(["montage", str(results), "-k", "2", "-o", str(out)]) == 0
    assert out.read_bytes().startswith(magic)


def chosen(results: Path, *arguments: str) -> tuple[list[int], str]:
    """The numbers that the command would show, in their order, and the title."""
    args = cli.build_parser().parse_args(["montage", str(results), *arguments])
    args.what = picture_kinds.parse_kind(args.what)
    with reader.open(results) as found:
        shown, title = pictures._read_sheet(found, args)
    return [p.record.number for p in shown.pictures], title


def test_which_trials_are_shown(results: Path) -> None:
    assert chosen(results, "-k", "2") == ([3, 2], "the best 2 of 5 complete trials")
    assert chosen(results, "--sort", "rotation", "--reverse") == ([0, 1, 2, 3], "5 complete trials by rotation")
    assert chosen(results, "--state", "all")[0] == [4, 3, 2, 1, 0]
    assert chosen(results, "--trials", "2,0") == ([2, 0], "")
    assert chosen(results, "--where", "dx == 0.5 and error < 0.35") == (
        [3, 2],
        "2 complete trials, dx == 0.5 and error < 0.35",
    )
    assert chosen(results, "--where", "state == 'PRUNED'")[0] == [4]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trials", "99"], "there is no trial 99; its trials are 0 to 6"),
        (["--trials", "a"], "not a list of trials' numbers"),
        (["--trials", "1", "--sort", "dx"], "do not go with it"),
        (["--snapshots", "1", "--where", "dx > 1"], "do not go with it"),
        (["--sort", "dxx"], "did you mean 'dx'?"),
        (["--where", "dxx > 1"], "did you mean 'dx'?"),
        (["--where", "confirmed.n > 1"], "ptydask confirm"),
        (["--where", "dx > 99"], "--where 'dx > 99' holds for no complete trial"),
        (["--crop", "2"], "a part of the image"),
        (["-o", "{file}"], "'.h5' is no kind of picture"),
        (["-o", "noname"], "the name of a picture ends in its kind"),
    ],
)
def test_montage_refuses_in_one_line(
    results: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results.read_bytes()
    assert cli.main(["montage", str(results), *(a.format(file=results) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert results.read_bytes() == before


def test_nothing_to_show_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = packed(tmp_path / "a.h5", [failed(0)])
    assert cli.main(["montage", str(path)]) == 1
    assert re.search("no trial has an image to show", capsys.readouterr().err)
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".png"] == []


# --- other pictures than phase, amplitude and probe ------------------------------------------------------


@pytest.fixture(scope="module")
def thick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trials 0 to 2 of five slices and three probe modes, with refined positions; 3 kept nothing."""
    pixel, store = 0.25, Store.open(tmp_path_factory.mktemp("thick") / "thick.h5", meta("thick"))
    crop = np.stack(np.meshgrid(5 * np.arange(4), 5 * np.arange(4), indexing="ij"), -1).reshape(-1, 2)
    middle = np.arange(16) - 7.5
    beam = np.exp(-(np.add.outer(middle**2, middle**2)) / 9)
    lattice = np.cos(2 * np.pi * 0.5 * pixel * np.arange(32))[None] * np.ones((32, 1))
    for number in range(3):
        slices = np.stack([(0.1 + 0.01 * number) * (depth + 1) * lattice for depth in range(5)])[None]
        shifts = 0.1 * number * np.random.default_rng(number).normal(size=crop.shape)
        arrays = {
            "object_phase": Quantity(slices.astype(np.float32), "rad"),
            "probe": Quantity(np.stack([beam, 0.5 * beam, 0.1 * beam]).astype(np.complex64)),
            "positions": Quantity(pixel * crop + shifts, "angstrom"),
            "crop_positions": Quantity(crop.astype(np.int32), "pixel"),
            "slice_thickness": Quantity(np.float32(8.0), "angstrom"),
        }
        facts = {"pixel_size": pixel, "length_unit": "angstrom", "wavelength": 0.04}
        seen = slices.sum((0, 1))[8:24, 8:24]
        axis = pixel * np.arange(8, 24)
        shown = Image(seen.astype(np.float32), axis, axis, "rad", "angstrom", "")
        put(store, record(number), output(arrays=arrays, attributes=facts, image=shown, snapshots={}))
    put(store, record(3, 9.0), output(arrays={}, image=None, attributes={}, snapshots={}))
    return store.finish()


def shown(path: Path, what: Any, *numbers: int, **options: Any) -> MontageSheet:
    with reader.open(path) as found:
        return trial_images.read(found, [r for r in found.records() if r.number in numbers], what=what, **options)


@pytest.mark.parametrize("what", [kind for kind in picture_kinds.LOOKS if kind != "amplitude"])
def test_every_kind_is_drawn_and_says_what_it_lacks(thick: Path, tmp_path: Path, what: Any) -> None:
    """Of a trial without arrays the reason is told, and the others are shown with a colour scale and its ends."""
    sheet = shown(thick, what, 0, 1, 2, 3)
    assert set(sheet.lost) == {3}
    assert {cell.record.number for cell in sheet.pictures} == ({1, 2} if what == "difference" else {0, 1, 2})
    figure = trial_images.draw_sheet(sheet)
    figure.savefig(tmp_path / "a.png", dpi=60)
    low, high = sheet_layout.colour_limits(sheet.pictures, sheet.look)
    assert low < high
    assert sheet.look.words.split(",")[0] in " ".join(texts(figure)).replace("\n", " ")


def test_slices_are_a_row_a_trial(thick: Path) -> None:
    """The first has the trial's caption, each its depth, and the next trial begins a new row."""
    sheet = shown(thick, "slices", 0, 2)
    assert [cell.label for cell in sheet.pictures[1:5]] == [
        f"slice {n} of 5, depth {8 * (n - 1)} Å" for n in range(2, 6)
    ]
    assert sheet.pictures[0].lines == ("slice 1 of 5, depth 0 Å",)
    assert sheet_layout.place_strips(sheet.pictures, None) == (5, [*range(5), *range(5, 10)])
    assert sheet_layout.place_strips(sheet.pictures, 3) == (3, [*range(5), *range(6, 11)])
    span = [float(np.ptp(cell.data)) for cell in sheet.pictures[:5]]
    assert span == pytest.approx([span[0] * n for n in range(1, 6)], rel=1e-4)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (8, 8), (9, 5), (12, 6), (13, 7), (16, 8), (20, 5), (21, 7)])
def test_many_slices_take_several_rows(count: int, columns: int) -> None:
    """With as few gaps as can be, and then as few rows."""
    cells = [picture(np.ones((2, 2)), label="" if n == 0 else "x") for n in range(count)]
    assert sheet_layout.place_strips(cells, None) == (columns, list(range(count)))


def test_modes_tell_their_shares(thick: Path) -> None:
    """1 : 1/4 : 1/100 of intensity, each mode over its own maximum."""
    sheet = shown(thick, "modes", 0)
    told = [*sheet.pictures[0].lines, *(cell.label for cell in sheet.pictures[1:])]
    assert told == ["mode 1: 79.4 %", "mode 2: 19.8 %", "mode 3: 0.794 %"]
    assert [float(cell.data.max()) for cell in sheet.pictures] == pytest.approx([1, 1, 1])
    assert shown(thick, "probe", 0).pictures[0].lines == ("modes 79.4 %, 19.8 %, 0.794 %",)


@pytest.mark.parametrize("crop", [1.0, 0.5])
def test_rings_lie_around_the_middle_of_the_spectrum(thick: Path, crop: float) -> None:
    """The lattice of 2 angstrom lies on the ring of that name, also of a part of the spectrum."""
    (cell,) = shown(thick, "spectrum", 0, crop=crop).pictures
    assert cell.axis_unit == "1/angstrom"
    assert cell.centre is not None
    assert cell.height is not None
    step = cell.height / cell.data.shape[0]
    row, column = np.unravel_index(int(cell.data.argmax()), cell.data.shape)
    apart = np.hypot((row + 0.5) * step - cell.centre[0], (column + 0.5) * step - cell.centre[1])
    ring = next(circle for circle in cell.circles if "(2 Å)" in circle.text)
    assert ring.radius == 0.5
    assert apart == pytest.approx(0.5)
    assert all(circle.radius <= crop * 2 for circle in cell.circles)


def test_the_aperture_is_drawn_where_the_params_tell_it(thick: Path) -> None:
    """In mrad; a tuned semi-angle is the trial's own."""
    with reader.open(thick) as found:
        trial, study = found.trial(0), replace(found.meta, config_json='{"init_params": {"probe_conv_angle": 21.4}}')
    request = trial_cells.CellRequest(study, "probe-reciprocal")
    with reader.open(thick) as found:
        trial = found.trial(0)
        (cell,) = trial_cells.read_cells(trial, request)
        tuned = replace(trial, record=replace(trial.record, params={"conv_angle": 30.0}))
        (other,) = trial_cells.read_cells(tuned, request)
    assert [c.radius for c in cell.circles if c.dashed] == [21.4]
    assert [c.radius for c in other.circles if c.dashed] == [30.0]
    assert cell.axis_unit == "mrad"
    assert [c.text for c in cell.circles if c.text] == ["20 mrad", "40 mrad", "60 mrad", "80 mrad"]


def test_arrows_are_true_shifts_at_the_nominal_positions(thick: Path) -> None:
    """In angstrom from the corner of the image, below the probe's middle; drawn so many times as long as is told."""
    (cell,) = shown(thick, "positions", 2).pictures
    assert cell.arrows is not None
    with ptydask.open(thick) as study:
        moved = study.trial(2).position_shifts()
        image = study.trial(2).image
    assert image is not None
    at = moved.nominal + 8 * 0.25 - (image.y[0] - 0.125)
    inside = (at >= 0).all(1) & (at <= 4).all(1)
    np.testing.assert_allclose(cell.arrows.starts, at[inside])
    np.testing.assert_allclose(cell.arrows.shifts, moved.shifts[inside])
    assert sheet_layout.arrow_factor([cell]) in (1, 2, 5, 10)


@pytest.mark.parametrize(("length", "factor"), [(10.0, 1), (0.5, 2), (0.011, 100), (1e-30, 1_000_000)])
def test_short_arrows_are_drawn_longer(length: float, factor: int) -> None:
    """By 1, 2, 5, ...: of a hundred arrows in 10 x 10 angstrom few reach 1.6."""
    arrows = CellArrows(np.zeros((100, 2)), np.full((100, 2), length / math.sqrt(2)))
    assert sheet_layout.arrow_factor([picture(np.ones((2, 2)), arrows=arrows)]) == factor
    assert sheet_layout.arrow_factor([]) == 1


def test_positions_that_stayed_have_no_arrows(thick: Path) -> None:
    """Rounding is no refinement: no arrows a million times as long, no colour scale, and words that say so."""
    sheet = shown(thick, "positions", 0)
    assert sheet.pictures[0].lines == ("positions were not refined",)
    assert sheet.pictures[0].arrows is None
    assert sheet_layout.arrow_factor(sheet.pictures) == 1
    assert not any("shift of a position" in text for text in texts(trial_images.draw_sheet(sheet)))
    assert "known to a pixel" in " ".join(shown(thick, "positions", 2).pictures[0].lines)


def test_a_difference_is_to_the_first_trial(thick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The colours have 0 in their middle; one trial alone has none, and says so."""
    sheet = shown(thick, "difference", 0, 1)
    assert sheet.reference == 0
    low, high = sheet_layout.colour_limits(sheet.pictures, sheet.look)
    assert low == -high
    assert "each trial less trial 0" in " ".join(texts(trial_images.draw_sheet(sheet)))
    assert cli.main(["montage", str(thick), "--what", "difference", "--trials", "1"]) == 1
    assert "a difference to another" in capsys.readouterr().err


def test_what_is_shown_on_the_command_line(thick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One trial's slices by default, also under the option's other name; a wrong name has the nearest."""
    assert chosen(thick, "--what", "slices") == ([2] * 5, "the best of 4 complete trials")
    assert chosen(thick, "--array", "modes", "-k", "2")[0] == [2, 2, 2, 1, 1, 1]
    assert chosen(thick, "--what", "object")[0] == [2, 1, 0]
    assert cli.main(["montage", str(thick), "--what", "spectrm"]) == 2
    assert "did you mean 'spectrum'" in capsys.readouterr().err
    assert cli.main(["montage", str(thick), "--what", "slices", "--snapshots", "1"]) == 2
    assert "snapshots are shown as phase, amplitude, probe" in capsys.readouterr().err
