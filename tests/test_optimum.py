"""Where a study's optimum lies by its slopes, as a person sees it: best, Python, notebook, report, live view."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import figure_cases
import pytest
import store_cases as cases

import ptydask
from ptydask import cli
from ptydask.analysis import optimum
from ptydask.analysis.report.collect import collect_page_data
from ptydask.analysis.report.trial_album import TrialAlbum
from ptydask.model import BY_SAMPLER, BY_SLOPES, Reason, TrialState
from ptydask.progress import frame
from ptydask.run_snapshot import RunSnapshot

DATA = figure_cases.sloped()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed study whose error is a quadratic with its optimum at scale 1.034, rotation -1.5."""
    records = [
        replace(
            record,
            reason=Reason.PRUNED if record.state is TrialState.PRUNED else Reason.NONE,
            metrics={"loss": record.error or 0.0},
        )
        for record in DATA.records
    ]
    about = {"name": "s", "search_space_json": DATA.meta.search_space_json}
    return cases.packed(tmp_path_factory.mktemp("optimum") / "s.h5", records, **about)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command prints."""

    def run(*args: object) -> str:
        assert cli.main([*map(str, args)]) == 0
        return capsys.readouterr().out

    return run


def test_best_says_where_the_optimum_is(path: Path, call: Callable[..., str]) -> None:
    """Beside the best trial's values, with the file's own, and in one line what it means; beside no other trial's."""
    said = call("best", path, "-k", 2)
    first, second = said.split("\n\n")
    located = ptydask.open(path).optimum()
    assert located is not None
    lines = first.splitlines()
    for name, center in (("scale", 1.034), ("rotation", -1.5)):
        assert located.center[name] == pytest.approx(center, abs=0.03)
        text = optimum.optimum_texts(located, DATA.meta)[name]
        line = next(line for line in lines if line.startswith(f"  {name} "))
        own = frame.value_text(DATA.records[0].params[name])
        assert line.endswith(f"(optimum {text} by the slopes; was {own})")
        assert " +- " in text
    assert optimum.explain_optimum(located, DATA.meta) in " ".join(line.strip() for line in lines)
    assert max(map(len, lines[1:-1])) < 80
    assert "by the slopes" not in second


def test_json_has_it_in_full(path: Path, call: Callable[..., str]) -> None:
    """``optimum`` and ``deviation`` of the best trial, empty for the others."""
    first, second = json.loads(call("best", path, "-k", 2, "--format", "json"))
    located = ptydask.open(path).optimum()
    assert located is not None
    assert (first["optimum"], first["deviation"]) == (located.center, located.deviation)
    assert first["number"] == located.trial
    assert (second["optimum"], second["deviation"]) == ({}, {})


def test_at_the_end_of_a_range_it_may_be_beyond() -> None:
    """Then there is no deviation to tell: the model ends there, too."""
    space = {name: dict(entry) for name, entry in figure_cases.SPACE.items() if name in ("scale", "rotation")}
    space["scale"]["attributes"] = {"low": 0.9, "high": 1.0, "step": None, "log": False}
    meta = figure_cases.meta(space=space)
    located = optimum.locate_study_optimum([r for r in DATA.records if float(str(r.params["scale"])) <= 1.0], meta)
    assert located is not None
    texts = optimum.optimum_texts(located, meta)
    assert texts["scale"] == "1 or beyond, the end of the range"
    assert " +- " in texts["rotation"]
    assert "highest" in optimum.explain_optimum(located, replace(meta, direction="maximize"))


def test_nothing_is_said_without_slopes(tmp_path: Path, call: Callable[..., str]) -> None:
    """Nor of too few trials."""
    plain = cases.packed(tmp_path / "p.h5", [cases.record(number) for number in range(4)])
    assert ptydask.open(plain).optimum() is None
    assert "optimum" not in call("best", plain)
    assert json.loads(call("best", plain, "--format", "json"))[0]["optimum"] == {}
    assert optimum.locate_study_optimum(figure_cases.sloped(2).records, DATA.meta) is None
    assert optimum.model_slopes(figure_cases.sloped(2).records, DATA.meta) is None


def test_a_notebook_shows_it(path: Path) -> None:
    """Beside the parameters of the best trial."""
    with ptydask.open(path) as study:
        located = study.optimum()
        assert located is not None
        for text in optimum.optimum_texts(located, study.meta).values():
            assert f"optimum {text} by the slopes" in study._repr_html_()
        assert "by the slopes" not in study.best()._repr_html_()


def test_the_report_has_it_beside_the_best_trial() -> None:
    """In words, with what it means; and what the study cost in iterations."""
    said = collect_page_data(DATA, TrialAlbum({}))["study"]
    located = optimum.locate_study_optimum(DATA.records, DATA.meta)
    assert located is not None
    assert said["optimum"] == {
        "trial": located.trial,
        "values": optimum.optimum_texts(located, DATA.meta),
        "about": optimum.explain_optimum(located, DATA.meta),
    }
    assert said["computed"] == 12.0 * len(DATA.records)
    columns = {column["key"]: column for column in collect_page_data(DATA, TrialAlbum({}))["columns"]}
    assert columns["origin"]["shown"]
    assert columns["iterations"]["values"] == [12.0] * len(DATA.records)
    assert collect_page_data(figure_cases.study(12), TrialAlbum({}))["study"]["optimum"] is None


def test_the_live_view_says_whose_points_they_are() -> None:
    """One word, where the slopes chose them."""
    by_slopes = cases.record(6, 0.053, params={"scale": 1.04}, origin=BY_SLOPES, seconds=2.1)
    counts = {"complete": 7}
    snapshot = RunSnapshot("s", Path("s.h5"), 14, counts, by_slopes, (), 2, 30.0, None, 12, "loss", "minimize")
    line = frame.finished_line(by_slopes, True, snapshot)
    assert line == "trial 6 complete  loss 0.0530000 (best)  scale=1.04  slopes  2.1 s  7/14"
    assert "slopes" not in frame.finished_line(replace(by_slopes, origin=BY_SAMPLER), True, snapshot)
    drawn = [frame.text_of(row) for row in frame.render_frame(snapshot, 80, 24, frame.ASCII)]
    assert "best  trial 6  0.0530000  scale=1.04  slopes" in drawn
