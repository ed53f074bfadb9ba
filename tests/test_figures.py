"""Figures of a study: what is on them, at any size and with whatever trials a study may have."""

from __future__ import annotations

import math
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from figure_cases import BEGIN, ODD_NAMES, confirmed, in_state, meta, of, ring, sloped, study
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from ptydask import cli
from ptydask.analysis import figures
from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import contour, history, importance, progress, slice, style, timeline
from ptydask.analysis.optimum import slope_importances
from ptydask.cli import pictures
from ptydask.errors import MissingDependency, UsageError
from ptydask.model import TrialState

ALL = tuple(figures.KINDS)


def link(number: int) -> str:
    return f"#trial-{number}"


def texts(figure: Figure) -> str:
    """All words of a figure."""
    from matplotlib.text import Text

    return "\n".join(found.get_text() for found in figure.findobj(Text))


def collections(figure: Figure, kind: type) -> list[Any]:
    drawn = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    return [found for axes in drawn for found in axes.collections if type(found) is kind]


def points(figure: Figure) -> int:
    """How many points all scatters have together."""
    return sum(len(found.get_offsets()) for found in collections(figure, PathCollection))


# --- whole figures -------------------------------------------------------------------------------------


def test_history_has_every_trial() -> None:
    """One point a trial and the star; the line is the best so far; the diverged one is told."""
    data = study(40)
    records = tuple(replace(r, error=1e6) if r.number == 2 else r for r in data.records)
    figure = figures.draw("history", StudyData(data.meta, records), link=link)
    assert points(figure) == 41
    line = next(line for line in figure.axes[0].lines if line.get_label() == "best so far")
    best = min(r.error for r in records if r.state is TrialState.COMPLETE and r.error is not None)
    assert line.get_ydata()[-1] == best
    assert figure.axes[0].get_ylim()[1] < 1
    assert "1 trial above the axis drawn at its edge" in texts(figure)


@pytest.mark.parametrize("kind", ["history", "slice", "contour", "parallel", "curves", "timeline"])
def test_points_and_lines_lead_to_their_trials(kind: str) -> None:
    """In the SVG of a study of 12 trials the best one, and others, have a link; ids do not clash in a page."""
    data = study(12)
    markup = figures.svg(figures.draw(kind, data, link=link), prefix=f"{kind}-")
    ElementTree.fromstring(markup)
    found = set(re.findall(r'<a xlink:href="#trial-(\d+)"', markup))
    assert data.best is not None
    assert str(data.best.number) in found
    assert len(found) >= 8
    assert all(name.startswith(f"{kind}-") for name in re.findall(r'\bid="([^"]*)"', markup))
    used = set(re.findall(rf'(?:<use [^>]*href="|url\()#({kind}-[^")]*)', markup))
    assert used <= set(re.findall(r'\bid="([^"]*)"', markup))
    assert "<style" not in markup
    assert "<text" in markup


def test_a_size_is_heeded_and_words_wrapped() -> None:
    """For one column of a paper: nothing that is said is wider than the figure."""
    figure = figures.draw("history", study(40), size=(3.4, 2.6))
    assert figure.get_size_inches().tolist() == [3.4, 2.6]
    assert figures.draw("history", study(40)).get_size_inches().tolist() == [6.8, 3.6]
    with style.style_context():
        figure.draw_without_rendering()
        wide = [text.get_window_extent().x1 for text in (figure._suptitle, figure._supxlabel) if text is not None]
    assert len(wide) == 2
    assert max(wide) <= 340


@pytest.mark.slow
def test_an_svg_is_always_the_same() -> None:
    data = study(12)
    assert figures.svg(figures.draw("slice", data)) == figures.svg(figures.draw("slice", data))


def test_slice_shows_every_completed_trial_of_every_parameter() -> None:
    data = study(40)
    complete = sum(r.state is TrialState.COMPLETE for r in data.records)
    figure = figures.draw("slice", data)
    assert points(figure) == 4 * (complete + 1)
    assert points(figures.draw("slice", data, parameters=["oplr"])) == complete + 1
    assert figures.draw("slice", data, parameters=["oplr"]).axes[0].get_xscale() == "log"
    assert [axes.get_xlabel() for axes in figure.axes[:4]] == ["scale", "rotation (°)", "oplr", "optimizer"]


def test_slice_tells_of_trials_without_a_value() -> None:
    data = of([1.0, 2.0, 3.0], params=[{"x": 1.0}, {"x": 2.0}, {}])
    assert "x: 1 trial without a value" in texts(figures.draw("slice", data))


def test_contour_is_a_map_of_cells_where_values_are_stepped() -> None:
    """A grid of choices is a heat map; scattered values are dots and what lies between near ones."""
    params: list[dict[str, Any]] = [{"a": i % 4, "b": "uvw"[i % 3]} for i in range(24)]
    space = {"a": {"name": "IntDistribution", "attributes": {"low": 0, "high": 3, "step": 1, "log": False}}}
    gridded = figures.draw("contour", of([float(i) for i in range(24)], params=params, space=space))
    (mesh,) = collections(gridded, QuadMesh)
    assert sorted(mesh.get_array().compressed()) == [float(i) for i in range(12)]
    scattered = figures.draw("contour", study(30), parameters=["rotation", "oplr"])
    assert not collections(scattered, QuadMesh)
    assert scattered.axes[0].get_yscale() == "log"


def test_contour_of_several_parameters_is_a_matrix() -> None:
    figure = figures.draw("contour", study(60), parameters=["scale", "rotation", "oplr", "optimizer"])
    assert sum(bool(axes.collections) and axes.axison for axes in figure.axes[:9]) == 6


def test_parallel_has_a_line_a_trial_and_gaps() -> None:
    params: list[dict[str, Any]] = [{"x": float(i), "y": i % 2} if i != 3 else {"x": 3.0} for i in range(8)]
    figure = figures.draw("parallel", of([float(i) for i in range(8)], params=params))
    lines = collections(figure, LineCollection)
    assert [len(found.get_segments()) for found in lines] == [8, 1]
    assert "gaps: 1 trial without a value of some parameter" in texts(figure)


def test_curves_mark_where_trials_were_pruned() -> None:
    """A mark at the last iteration of each pruned and each failed trial; the best line is the thick one."""
    data = study(22)
    figure = figures.draw("curves", data)
    ends = {len(found.get_offsets()): set(found.get_offsets()[:, 0]) for found in collections(figure, PathCollection)}
    assert ends == {4: {4.0}, 2: {2.0}}
    best = collections(figure, LineCollection)[-1]
    assert data.best is not None
    assert best.get_segments()[-1][:, 1].tolist() == data.curves[data.best.number]["loss"].tolist()
    assert best.get_linewidths()[-1] == max(best.get_linewidths())


def test_curves_of_a_metric_that_comes_at_the_end_only() -> None:
    """The loss is drawn then, and the figure says so."""
    figure = figures.draw("curves", study(12, metric="contrast", direction="maximize"))
    assert figure.axes[0].get_ylabel() == "loss"
    assert "contrast is not known at every iteration" in texts(figure)


def test_timeline_has_a_bar_a_trial() -> None:
    """In minutes where it took minutes, in a row of its worker, coloured by state."""
    data = study(24)
    figure = figures.draw("timeline", data)
    (bars,) = collections(figure, PolyCollection)[-1:]
    assert len(bars.get_paths()) == 24
    assert bars.get_paths()[4].vertices[0].tolist() == pytest.approx([100 / 60, -0.4])
    assert figure.axes[1].get_xlabel() == f"minutes since {BEGIN:%Y-%m-%d %H:%M} UTC"
    assert [t.get_text() for t in figure.axes[1].get_yticklabels()] == ["0", "1", "2", "3"]


def test_timeline_without_begins_says_so() -> None:
    data = study(5)
    figure = figures.draw("timeline", replace(data, records=tuple(replace(r, started="") for r in data.records)))
    assert "No trial says when it began." in texts(figure)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_slopes_are_arrows_to_the_optimum(direction: str) -> None:
    """Every trial has a mark and an arrow that ends nearer to the optimum; the cross is where that is."""
    data = sloped(direction=direction)
    figure = figures.draw("slopes", data, link=link)
    axes = figure.axes[0]
    assert points(figure) == len(data.records) + 1
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == len(data.records)
    names = ["rotation", "scale"] if "rotation" in axes.get_xlabel() else ["scale", "rotation"]
    to_axes = axes.transScale + axes.transLimits
    aim = to_axes.transform([{"scale": 1.034, "rotation": -1.5}[name] for name in names])
    feet = {tuple(to_axes.transform([r.params[name] for name in names]).round(9)) for r in data.records}
    ends = [np.array(arrow._posA_posB) for arrow in arrows]
    assert {tuple(foot.round(9)) for foot, _ in ends} == feet
    assert all(np.linalg.norm(tip - aim) < np.linalg.norm(foot - aim) for foot, tip in ends)
    cross = next(line for line in axes.lines if line.get_marker() == "+")
    assert to_axes.transform([cross.get_xdata()[0], cross.get_ydata()[0]]) == pytest.approx(aim, abs=0.01)
    said = texts(figure).replace("\n", " ")
    assert all(word in said for word in ("by the slopes", "by the sampler", "hollow: pruned", "others", "optimum"))


def test_slopes_over_one_parameter_are_lines_on_a_curve() -> None:
    """A tangent a trial, and the model's curve, which is lowest at the optimum; other parameters are told."""
    data = sloped(more=("oplr", "optimizer"))
    figure = figures.draw("slopes", data, parameters=["scale", "optimizer"], link=link)
    axes = figure.axes[0]
    assert len(collections(figure, LineCollection)[0].get_segments()) == len(data.records)
    curve = next(line for line in axes.lines if line.get_label() == "model")
    assert curve.get_xdata()[np.argmin(curve.get_ydata())] == pytest.approx(1.034, abs=0.003)
    assert "with 3 other parameters as at the optimum" in texts(figure).replace("\n", " ")


def test_slopes_of_a_parameter_beside_one_without() -> None:
    """Arrows then go along the one that has them; without any there are words."""
    data = sloped(more=("oplr", "optimizer"))
    axes = figures.draw("slopes", data, parameters=["scale", "oplr"]).axes[0]
    assert axes.get_yscale() == "log"
    ends = [np.array(patch._posA_posB) for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert ends
    assert all(foot[1] == pytest.approx(tip[1]) for foot, tip in ends)
    assert "None of these parameters" in texts(figures.draw("slopes", data, parameters=["optimizer"]))
    assert "tune scan affine, tilts or slice thickness" in texts(figures.draw("slopes", study(12))).replace("\n", " ")
    assert "at least 3 completed trials" in texts(figures.draw("slopes", sloped(2))).replace("\n", " ")


def test_importances_by_slopes_stand_beside_the_others() -> None:
    """Shares of the mean squared slope over the range, over a logarithmic one that of the logarithm."""
    data = sloped(16, more=("oplr",))
    squares = {
        name: np.mean([(r.gradient[name] * width) ** 2 for r in data.records if r.state is TrialState.COMPLETE])
        for name, width in (("scale", 0.2), ("rotation", 8.0))
    }
    shares = slope_importances(data.records, data.meta)
    assert shares == pytest.approx({name: value / sum(squares.values()) for name, value in squares.items()})
    bars = figures.draw("importance", data).axes[0].containers
    assert [len(container) for container in bars] == [3, 2]
    assert sum(bar.get_width() for bar in bars[1]) == pytest.approx(1)
    assert [len(container) for container in figures.draw("importance", sloped(8)).axes[0].containers] == [2]
    rates = [replace(r, gradient={"oplr": 0.5, "scale": 0.0}) for r in data.records]
    assert slope_importances(rates, data.meta) == {"oplr": 1.0, "scale": 0.0}
    assert slope_importances(study(12).records, data.meta) == {}


def test_importances_of_few_trials_are_words() -> None:
    assert "at least 10 completed trials" in texts(figures.draw("importance", study(8)))


def test_a_dense_figure_is_a_picture() -> None:
    """Thousands of points do not make a page of megabytes."""
    data = study(3000, steps=4)
    markup = figures.svg(figures.draw("history", data, link=link))
    assert len(markup) < 300_000
    assert "<image" in markup


# --- whatever a study may hold -------------------------------------------------------------------------

COMPLETE = TrialState.COMPLETE
EDGES: dict[str, Callable[[], StudyData]] = {
    "no trials": lambda: StudyData(meta(), ()),
    "one trial": lambda: of([0.1]),
    "failed only": lambda: in_state(study(6), TrialState.FAIL),
    "pruned only": lambda: in_state(study(6), TrialState.PRUNED),
    "NaN only": lambda: of([math.nan] * 12),
    "infinite": lambda: of([math.inf, -math.inf, 0.2, 0.3, math.nan] * 4),
    "all alike": lambda: of([0.5] * 12),
    "negative": lambda: of([-float(i) for i in range(20)]),
    "300 decades": lambda: of([10.0 ** (20 * i - 300) for i in range(30)]),
    "one value": lambda: of([float(i) for i in range(12)], params=[{"x": 1.0, "y": None}] * 12),
    "odd names": lambda: of([0.1 + i % 7 for i in range(30)], params=ODD_NAMES, name="my $t_1$ " * 9, metric="l_o$s"),
    "holes": lambda: of([float(i) for i in range(30)], params=[{"abc"[i % 3]: i, "d": i % 5} for i in range(30)]),
    "no parameters": lambda: of([float(i) for i in range(12)], params=[{}] * 12),
    "maximize": lambda: study(20, direction="maximize", metric="contrast"),
    "no search space": lambda: study(20, search_space_json="no json"),
    "40 parameters": lambda: of(
        [i * 7 % 13 for i in range(20)], params=[{f"p{j}": i * j % 11 for j in range(40)} for i in range(20)]
    ),
    "off a log range": lambda: of(
        [float(i) for i in range(12)],
        params=[{"oplr": 1e-3 * (i - 2), "scale": 1.0 + i} for i in range(12)],
        space=None,
    ),
    "slopes": lambda: sloped(),
    "slopes of other parameters": lambda: StudyData(meta(), sloped().records),
    "slopes in one place": lambda: StudyData(sloped().meta, (sloped().records[0],) * 6),
    "slopes of 0": lambda: StudyData(
        sloped().meta, tuple(replace(r, gradient=dict.fromkeys(r.gradient, 0.0)) for r in sloped().records)
    ),
    "slopes and infinite errors": lambda: StudyData(
        sloped().meta, tuple(replace(r, error=math.inf) if r.number < 4 else r for r in sloped().records)
    ),
    "slopes of values that are none": lambda: StudyData(
        sloped().meta, tuple(replace(r, params={**r.params, "scale": "1"}) for r in sloped().records)
    ),
    "slopes of a metric all alike": lambda: StudyData(
        sloped().meta, tuple(replace(r, error=0.5) for r in sloped().records)
    ),
    "confirmed": lambda: confirmed(study(20), {0: [0.1, 0.2], 1: [0.1, 0.3]}, {0: ring(0.5), 1: ring(2.0)}),
    "confirmed, maximized": lambda: confirmed(
        study(20, direction="maximize", metric="contrast"), {0: [0.1, 0.2], 2: [0.1]}, {2: ring(0.0)}
    ),
    "confirmed, no value": lambda: confirmed(study(20), {0: [math.nan, math.inf], 4: [math.nan]}),
    "confirmed, pruned and failed trials": lambda: confirmed(study(20), {4: [0.1, 0.2], 10: [0.3, 0.4]}),
    "confirmed, all alike": lambda: confirmed(of([0.5] * 12), {0: [0.5, 0.5, 0.5], 1: [0.5, 0.5, 0.5]}),
    "confirmed, diverged": lambda: confirmed(study(20), {0: [0.1, 1e300], 1: [-1e300, 0.3], 2: [1e-300, 2e-300]}),
    "confirmed, odd names": lambda: confirmed(
        of([0.1 + i % 7 for i in range(30)], params=ODD_NAMES, metric="l_o$s"), {0: [0.1, 0.2], 7: [0.2, 0.1]}
    ),
    "confirmed, huge values": lambda: confirmed(
        of(
            [float(i) for i in range(12)], params=[{"a": 1.7e308 * (-1) ** i, "b": 5e-324 * (i + 1)} for i in range(12)]
        ),
        {0: [0.1, 0.2], 1: [0.2, 0.1]},
    ),
    "confirmed trials alone": lambda: confirmed(of([0.3]), {0: [0.1, 0.2]}, {0: ring(0.5)}),
    "huge values": lambda: of(
        [float(i) for i in range(12)], params=[{"a": 1.7e308 * (-1) ** i, "b": 5e-324 * (i + 1)} for i in range(12)]
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EDGES)
def test_every_figure_of_an_odd_study(name: str) -> None:
    """Nothing raises or warns; a figure that ``suitable`` leaves out says in words why."""
    data = EDGES[name]()
    suitable = figures.drawable_kinds(data)
    for kind in ALL:
        figure = figures.draw(kind, data, link=link)
        with style.style_context():
            figure.draw_without_rendering()
        drawn = any(axes.axison for axes in figure.axes)
        assert drawn == (kind in suitable) or (kind == "importance" and name in ("odd names", "off a log range"))
        assert drawn or len(texts(figure).split()) > 4


def test_figures_in_words_say_what_there_is() -> None:
    assert "No trial has completed with a finite error so far (6 trials: 6 failed)." in texts(
        figures.draw("slice", in_state(study(6), TrialState.FAIL))
    ).replace("\n", " ")
    assert "No trial has ended so far." in texts(figures.draw("history", StudyData(meta(), ())))


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="there is no figure 'histry'; did you mean 'history'"):
        figures.draw("histry", study(3))
    with pytest.raises(UsageError, match="no trial has a parameter 'scal'; did you mean 'scale'"):
        figures.draw("slice", study(3), parameters=["scal"])


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'ptydask\[analysis\]'"):
        figures.draw("history", study(3))


def test_drawing_leaves_matplotlib_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own settings neither change nor come through; pyplot is not touched."""
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "font.size", 33.0)
    before = dict(mpl.rcParams)
    figure = figures.draw("history", study(5))
    assert dict(mpl.rcParams) == before
    assert figure.axes[0].xaxis.label.get_fontsize() == 9
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


@pytest.mark.slow
def test_5000_trials_are_drawn_in_time(tmp_path: Path) -> None:
    """Each figure within 3 s, written as PNG."""
    data = study(5000, workers=200, steps=30)
    for kind in ALL:
        begun = time.process_time()
        figures.save(figures.draw(kind, data), tmp_path / f"{kind}.png", dpi=150)
        assert time.process_time() - begun < 3, kind


# --- files and the command line --------------------------------------------------------------------------


def test_a_figure_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old picture, and nothing beside it."""
    figure, path = figures.draw("history", study(5)), tmp_path / "new" / "a.png"
    figures.save(figure, path)
    old = path.read_bytes()
    assert old.startswith(b"\x89PNG")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        figures.save(figure, path)
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no picture is written as"):
        figures.save(figures.draw("history", study(5)), tmp_path / "a.docx")


def test_the_command_knows_all_kinds() -> None:
    """The command line lists them without importing NumPy: the lists are the same."""
    assert dict(figures.KINDS) == pictures.KINDS
    assert all(hasattr(module, "lacks") for module in (history, slice, contour, importance, timeline))


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results file of twelve trials, with images."""
    from store_cases import packed, record

    return packed(tmp_path_factory.mktemp("twelve") / "demo.h5", [record(n, 0.1 + (n - 5) ** 2) for n in range(12)])


@pytest.fixture
def results(twelve: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(twelve, tmp_path))


@pytest.mark.slow
def test_plot_writes_beside_the_results(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All figures that can be drawn, their paths on stdout."""
    assert cli.main(["plot", str(results), "--dpi", "40"]) == 0
    written = capsys.readouterr().out.splitlines()
    assert written == [
        str(results.with_name(f"demo-{kind}.png")) for kind in ALL if kind not in ("contour", "slopes", "frc")
    ]  # scale is the same in all, and has no slopes; nothing was confirmed
    assert all(Path(path).stat().st_size > 1000 for path in written)


@pytest.mark.slow
def test_plot_into_a_folder_or_a_file(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = results.with_name("figures"), results.with_name("paper.pdf")
    assert cli.main(["plot", str(results), "history", "slice", "-o", str(folder), "--format", "svg"]) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["demo-history.svg", "demo-slice.svg"]
    assert cli.main(["plot", str(results), "history", "-o", str(file), "--size", "3.4x2.6"]) == 0
    assert file.read_bytes().startswith(b"%PDF")
    assert b"/MediaBox [ 0 0 244.8 187.2 ]" in file.read_bytes()
    assert capsys.readouterr().out.splitlines()[-1] == str(file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["histori"], "did you mean 'history'?"),
        (["slice", "--params", "scal"], "did you mean 'scale'?"),
        (["slice", "history", "-o", "x.png"], "a file holds one figure"),
        (["slice", "-o", "{file}"], "'.h5' is no kind of picture"),
        (["slice", "-o", "x.svg", "--format", "png"], "--format png says otherwise"),
        (["slice", "--size", "3"], "not a width and a height in inches"),
        (["slice", "--dpi", "1"], "dots per inch, 20 to 2400"),
    ],
)
def test_plot_refuses_in_one_line(
    results: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results.read_bytes()
    assert cli.main(["plot", str(results), *(a.format(file=results) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert results.read_bytes() == before


# --- progress ----------------------------------------------------------------------------------------


def timed(*spans: tuple[float, float, float], **changes: Any) -> StudyData:
    """Trials of (begin in s, end in s, error), each on its own worker; without a begin where that is NaN."""
    start = datetime(2025, 1, 1, tzinfo=UTC)
    data = of([error for _, _, error in spans], **changes)
    records = tuple(
        replace(
            record,
            started="" if math.isnan(begin) else (start + timedelta(seconds=begin)).isoformat(),
            seconds=0.0 if math.isnan(begin) else end - begin,
            worker=f"w{record.number}",
        )
        for record, (begin, end, _) in zip(data.records, spans, strict=True)
    )
    return StudyData(data.meta, records)


def test_the_best_so_far_is_told_by_the_ends_of_trials() -> None:
    """Trial 1 ends before trial 0, and trial 3 is no better; work counts what is under way at that moment."""
    data = timed((0, 100, 0.5), (0, 60, 0.7), (60, 160, 0.4), (100, 180, 0.45))
    found = progress.study_progress(timeline.trial_bars(data.records), "minimize")
    assert [record.number for record in found.records] == [1, 0, 2]
    assert found.ends.tolist() == [60, 100, 160]
    assert found.work.tolist() == [120, 200, 320]
    assert (found.end, found.total_work) == (180, 340)


def test_progress_of_what_is_maximized_rises() -> None:
    found = progress.study_progress(
        timeline.trial_bars(timed((0, 1, 0.5), (1, 2, 0.7), (2, 3, 0.7)).records), "maximize"
    )
    assert found.errors.tolist() == [0.5, 0.7]


def test_progress_is_drawn_over_both_times() -> None:
    """A long pause is cut out; a first trial that diverged flattens nothing; the note says when the best came."""
    spans = [(600.0 * n + (80000 if n > 3 else 0), 600.0 * (n + 1) + (80000 if n > 3 else 0)) for n in range(8)]
    errors = [1e6, 0.5, 0.4, 0.41, 0.35, 0.36, 0.3, 0.31]
    data = timed(*((begin, end, error) for (begin, end), error in zip(spans, errors, strict=True)))
    figure = figures.draw("progress", data, link=link)
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels == ["minutes since the start, pauses cut out", "worker minutes"]
    assert figure.axes[0].get_ylim()[1] < 1e5
    said = texts(figure).replace("\n", " ")
    assert "best: trial 6, 0.3, after 70 min of 80 min of worker time" in said
    assert "1 trial above the axis" in said


@pytest.mark.parametrize("data", [StudyData(meta(), ()), timed((math.nan, 0, 0.5)), timed((0, 1, math.nan))])
def test_no_progress_says_why(data: StudyData) -> None:
    assert progress.lacks(data)
    assert str(progress.lacks(data)) in texts(figures.draw("progress", data)).replace("\n", " ")
