"""Results of a study of several stages: which there are, which one a command means, where each value is from."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import report_cases
import staged_files
import store_cases

import ptydask
from ptydask import cli
from ptydask.analysis import stages
from ptydask.analysis.data import StudyData, load_study
from ptydask.errors import StoreError
from ptydask.lineage import StageLineage
from ptydask.store import Store, reader
from ptydask.store.upkeep.staging import begin_stage

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three stages, the last one the final reconstruction."""
    return staged_files.staged(tmp_path_factory.mktemp("staged") / "demo.h5")


@pytest.fixture(scope="module")
def searching(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same before the final one has begun."""
    return staged_files.staged(tmp_path_factory.mktemp("searching") / "demo.h5", ("dz", "scan"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study without stages."""
    return store_cases.packed(tmp_path_factory.mktemp("plain") / "plain.h5", [store_cases.record(0)])


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """A command's exit code, what it prints, what it says on stderr."""

    def run(*args: object) -> tuple[int, str, str]:
        code = cli.main([*map(str, args)])
        return code, *capsys.readouterr()

    return run


# --- commands -----------------------------------------------------------------------------------------


def test_ls_says_first_which_stages_there_are(staged: Path, call: Call) -> None:
    """A line each: trials, the best, what it found, what it goes on from; then the trials of the latest."""
    code, text, _ = call("ls", staged)
    table, trials = text.split("\n\n")
    heading, *rows = table.splitlines()
    assert (code, heading.split()) == (0, list(stages.COLUMNS))
    assert [row.split()[0] for row in rows] == ["dz", "scan", "final"]
    assert rows[1].index("contrast 0.400000") == heading.index("best")
    assert "scale 1.02, rotation -1.5" in rows[1]
    assert rows[1].endswith("dz, trial 2")
    assert rows[2].endswith("scan, trial 3, with its reconstruction")
    assert trials.splitlines()[0] == "stage 3 of 3: final"
    assert len(trials.splitlines()) == 3


def test_a_stage_is_chosen_by_its_name(staged: Path, plain: Path, call: Call) -> None:
    """In every command that shows trials; the nearest name for one that is not there."""
    _, text, _ = call("ls", staged, "--stage", "dz")
    assert "stage 1 of 3: dz" in text
    assert len(text.split("\n\n")[1].splitlines()) == 2 + len(staged_files.records("dz"))
    for command in (["ls"], ["best"], ["show"], ["plot"], ["montage"], ["report"], ["next"], ["export"]):
        rest = {"show": ["best"], "export": ["csv", "-"]}.get(command[0], [])
        code, out, said = call(*command, staged, *rest, "--stage", "scn")
        assert (code, out, len(said.splitlines())) == (2, "", 1)
        assert "'scan'" in said
    code, _, said = call("ls", plain, "--stage", "dz")
    assert code == 2
    assert "without stages" in said


@pytest.mark.parametrize("stage", staged_files.NAMES)
def test_what_programs_read_has_the_stage(staged: Path, call: Call, stage: str) -> None:
    """A key of each object, the first column of csv, and nothing but data on stdout."""
    count = len(staged_files.records(stage))
    for command in ("ls", "best"):
        rows = json.loads(call(command, staged, "--stage", stage, "--format", "json")[1])
        assert {row["stage"] for row in rows} == {stage}
        assert len(rows) == (count if command == "ls" else 1)
    table = list(csv.reader(io.StringIO(call("ls", staged, "--stage", stage, "--format", "csv")[1])))
    assert [row[0] for row in table] == ["stage", *[stage] * count]
    assert call("export", staged, "csv", "-", "--stage", stage)[1].splitlines()[0].startswith("stage,number,")


def test_a_study_without_stages_is_as_it_was(plain: Path, call: Call) -> None:
    """No word of stages anywhere."""
    for args in (["ls"], ["best"], ["info"], ["status"], ["ls", "--format", "csv"], ["show", "0"]):
        assert "stage" not in call(args[0], plain, *args[1:])[1]
    with ptydask.open(plain) as study:
        assert study.lineage is None
        assert not study.stages
        assert (len(study.stages), "stage" in repr(study), repr(study.stages)) == (0, False, "<no stages>")
        with pytest.raises(StoreError, match="without stages"):
            study.stage("dz")


def test_best_and_show_say_where_values_are_from(staged: Path, call: Call) -> None:
    """The stage, and for each value of an earlier one its stage and trial; the same for programs."""
    for args in (["best", staged], ["show", staged, "best"]):
        text = call(*args)[1]
        assert "stage 3 of 3: final" in text
        assert "dz 15.25 from stage dz, trial 2" in text
        assert "scale 1.02, rotation -1.5 from stage scan, trial 3" in text
        assert "starts from the reconstruction of stage scan, trial 3" in text
    assert "values from: earlier stages" in text
    assert "from stage scan" not in call("best", staged, "--stage", "scan")[1]
    shown = json.loads(call("show", staged, "best", "--stage", "scan", "--format", "json")[1])
    (best,) = json.loads(call("best", staged, "--stage", "scan", "--format", "json")[1])
    for found in (shown, best):
        assert (found["stage"], found["lineage"]["from_stage"], found["lineage"]["from_trial"]) == ("scan", "dz", 2)
        assert found["lineage"]["values"] == {"dz": 15.25}
        assert found["lineage"]["origins"] == {"dz": {"stage": "dz", "trial": 2}}


@pytest.mark.parametrize(
    ("origin", "found", "words", "note"),
    [
        ("start", ("scale", "rotation"), "the best values of earlier stages", "stage dz: 1.02"),
        ("start", ("scale",), "the best values of earlier stages and the file's own", "stage dz: 1.02"),
        ("start", (), "the file's own values", "was 1.02"),
        ("near start", ("scale", "rotation"), "nearest to the best ones of earlier stages", "trial 0: 1.02"),
        ("near start", (), "the allowed values nearest to the file's", "trial 0: 1.02"),
    ],
)
def test_what_a_stage_began_with(
    origin: str, found: tuple[str, ...], words: str, note: str, call: Call, tmp_path: Path
) -> None:
    """The values that its first trial had, and that others are compared with, are those of whoever found them."""
    path = staged_files.staged(tmp_path / "demo.h5", ("dz",))
    values = {"dz": 15.25, **{name: staged_files.FOUND[name] for name in found}}
    origins = dict.fromkeys(values, ("dz", 2))
    scan = staged_files.meta("scan")
    assert scan.lineage is not None
    scan = replace(scan, lineage=replace(scan.lineage, values=values, origins=origins))
    begin_stage(path, scan)
    first = {"scale": 1.02, "rotation": -1.5}
    store = Store.open(path, scan)
    for number, params in enumerate((first, {"scale": 1.04, "rotation": -1.0})):
        record = store_cases.record(
            number, 0.3 + 0.1 * number, params=params, origin=origin if not number else "slopes"
        )
        store_cases.put(store, record, store_cases.output(number))
    store.finish()
    store.close()
    best, shown = call("best", path)[1], call("show", path, 0)[1]
    assert words in best
    assert note in best
    assert "values from: the file itself" in shown if words == "the file's own values" else words in shown


@pytest.mark.parametrize(
    ("config", "metric", "words"),
    [
        ({"recon_params": {"NITER": 60}}, "contrast", "97.50% worse than stage scan, trial 3, whose values it has"),
        ({"recon_params": {"INDICES_MODE": {"mode": "sub"}}}, "contrast", ""),
        ({"init_params": {"meas_crop": [None, None, [8, 24], [8, 24]]}}, "contrast", ""),
        ({}, "loss", ""),
    ],
)
def test_the_picture_is_compared_with_the_trial_it_goes_on_from(
    config: dict[str, Any], metric: str, words: str, call: Call, tmp_path: Path
) -> None:
    """Only where both are of the same data, and by the same metric."""
    own = {"metric": metric, "direction": "maximize" if metric == "contrast" else "minimize"}
    metas = {"final": staged_files.meta("final", config_json=json.dumps(config), **own)}
    text = call("best", staged_files.staged(tmp_path / "demo.h5", metas=metas))[1]
    assert words in text
    assert ("than stage scan" in text) is bool(words)


def test_info_and_status_list_them(staged: Path, searching: Path, call: Call) -> None:
    """Above all else for a person, as a list for programs; what is to come where the study has not ended."""
    for command in ("info", "status"):
        text = call(command, searching)[1]
        assert text.startswith("stage ")
        assert "still to come: final" in text
        assert command == "info" or "stopped with stages to go" in text
        assert "still to come" not in call(command, staged)[1]
        listed = json.loads(call(command, staged, "--format", "json")[1])["stages"]
        assert [stage["name"] for stage in listed] == ["dz", "scan", "final"]
        assert [stage["trials"] for stage in listed] == [4, 5, 1]
        assert [stage["from_trial"] for stage in listed] == [None, 2, 3]
        assert listed[1]["best"] == {"number": 3, "error": 0.4, "params": {"scale": 1.02, "rotation": -1.5}}


def test_questions_about_tuning_are_asked_of_the_last_that_tuned(staged: Path, call: Call, tmp_path: Path) -> None:
    """After the final reconstruction: not of that, unless it is named."""
    assert "stage scan, 5 trials" in call("next", staged)[1]
    assert "stage dz, 4 trials" in call("next", staged, "--stage", "dz")[1]
    given = json.loads(call("next", staged, "--format", "json")[1])
    assert (given["stage"], given["metric"], given["best"]) == ("scan", "contrast", 3)
    with stages.open_tuned(staged) as results:
        assert results.meta.name == "demo scan"
    with stages.open_tuned(staged, "final") as results:
        assert results.meta.name == "demo final"


def test_the_stage_is_in_the_names_of_what_is_written(tmp_path: Path, call: Call) -> None:
    """Where one is named, so that those of two stages lie beside each other; odd characters do not."""
    odd = StageLineage("scan (2), a.b", ("scan (2), a.b",))
    path = tmp_path / "demo.h5"
    store = Store.open(path, store_cases.meta("demo scan (2), a.b", lineage=odd))
    store_cases.put(store, store_cases.record(0), store_cases.output(0))
    store.finish()
    store.close()
    assert call("export", path, "csv")[1].strip() == str(tmp_path / "demo.csv")
    assert call("export", path, "csv", "--stage", odd.name)[1].strip() == str(tmp_path / "demo-scan__2___a.b.csv")
    assert "stage 1 of 1: scan (2), a.b" in call("best", path)[1]


def test_parquet_has_the_stage(staged: Path, call: Call, tmp_path: Path) -> None:
    """As a column, and in what the schema says of the study."""
    parquet = pytest.importorskip("pyarrow.parquet")
    assert call("export", staged, "parquet", tmp_path / "t.parquet", "--stage", "dz")[0] == 0
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table.column("stage").to_pylist() == ["dz"] * 4
    assert table.schema.metadata[b"stage"] == b"dz"


# --- Python -------------------------------------------------------------------------------------------


def test_python_knows_the_stages(staged: Path) -> None:
    """A mapping that prints as a table, each stage as a study of its own."""
    with ptydask.open(staged) as study:
        assert list(study.stages) == ["dz", "scan", "final"]
        scan = study.stages["scan"]
        assert (scan.trials, scan.tuned, scan.metric) == (5, ("scale", "rotation"), "contrast")
        assert scan.best is not None
        assert (scan.best.number, scan.lineage.from_trial) == (3, 2)
        assert len(repr(study.stages).splitlines()) == 4
        assert "<td>scale 1.02, rotation -1.5</td>" in study.stages._repr_html_()
        assert study.lineage is not None
        assert study.lineage.values == staged_files.FOUND
        assert (study.best().params, study.best().values) == ({}, staged_files.FOUND)
        assert "scale=1.02" in repr(study.best())
        with pytest.raises(KeyError, match="'scan'"):
            study.stages["skan"]
        assert study.stages.get("skan") is None
        assert "stage 3 of 3: final" in repr(study)
        assert "stage 3 of 3: final" in study._repr_html_()
        with study.stage("dz") as first:
            assert first.best().params == first.best().values == {"dz": 15.25}
            assert list(first.stages) == ["dz", "scan", "final"]
            assert first.status.state == "finished"
        with pytest.raises(StoreError, match="'scan'"):
            study.stage("skan")
    with ptydask.open(staged, stage="scan") as scan_study, pickle.loads(pickle.dumps(scan_study)) as again:
        assert again.name == scan_study.name == "demo scan"


def test_python_asks_the_last_that_tuned(staged: Path) -> None:
    """Advice, optimum and figures after the final reconstruction; of that one alone where it was asked for."""
    with ptydask.open(staged) as study, ptydask.open(staged, "scan") as scan, ptydask.open(staged, "final") as final:
        assert study.advice() == scan.advice() != ()
        assert final.advice() == ()
        assert study.optimum() is None
        assert study.plot("slice", ["scale"]).axes[0].get_xlabel().startswith("scale")
        assert len(study.plot("history").axes) == 3
        assert len(scan.plot("history").axes) == 1


@pytest.mark.parametrize(("name", "state"), [("dz", "finished"), ("scan", "stopped"), ("", "stopped")])
def test_a_study_with_stages_to_come_is_not_finished(searching: Path, name: str, state: str) -> None:
    """A run that was stopped between two of them; each that is over is."""
    with ptydask.open(searching, name) as study:
        assert study.status.state == state


def test_the_dashboard_shows_the_last_that_tuned(staged: Path) -> None:
    """As all that is about tuning does."""
    dashboard = pytest.importorskip("ptydask.analysis.dashboard")
    for stage, name in (("", "demo scan"), ("dz", "demo dz")):
        (summary,) = dashboard.ResultsFollower(staged, stage).storage.get_all_studies()
        assert summary.study_name == name


def test_a_stage_that_has_just_begun(tmp_path: Path, call: Call) -> None:
    """It is the latest, and there is nothing of it: the history of those before it is drawn."""
    path = staged_files.staged(tmp_path / "demo.h5", ("dz",))
    begin_stage(path, staged_files.meta("scan"))
    code, text, said = call("ls", path)
    assert (code, "stage 2 of 3: scan" in text, "no trials" in said) == (0, True, True)
    for command in (["best"], ["best", "--format", "yaml"], ["show"], ["export"]):
        rest = {"show": ["best"], "export": ["params", "best"]}.get(command[0], [])
        code, _, said = call(command[0], path, *rest, *command[1:])
        assert (code, "--stage dz" in said) == (1, True), command
    code, text, _ = call("plot", path)
    assert (code, text.strip()) == (0, str(tmp_path / "demo-history.png"))
    assert call("report", path)[0] == 0
    assert json.loads(call("status", path, "--format", "json")[1])["state"] == "stopped"


def test_refresh_goes_on_to_the_next_stage(tmp_path: Path) -> None:
    """As the run does; a stage that was asked for stays what it is, and its arrays can be read."""
    path = staged_files.staged(tmp_path / "demo.h5", ("dz",))
    with ptydask.open(path) as study, ptydask.open(path, "dz") as first:
        begin_stage(path, staged_files.meta("scan"))
        assert (study.refresh().name, len(study)) == ("demo scan", 0)
        assert (first.refresh().name, len(first)) == ("demo dz", 4)
        assert first.trial(2).arrays["object_phase"].read().shape == (1, 2, 24, 16)
        assert study.stages["scan"].best is None
        with pytest.raises(StoreError, match="stage dz"):
            study.best()
        assert "scale, rotation" in repr(study.stages)


# --- while it runs ------------------------------------------------------------------------------------


def test_an_earlier_stage_is_read_while_the_next_runs(tmp_path: Path, call: Call) -> None:
    """From the older pack in the folder: it is over, and the place of its trials is where they are."""
    path = staged_files.staged(tmp_path / "demo.h5", ("dz",))
    begin_stage(path, staged_files.meta("scan"))
    store = Store.open(path, staged_files.meta("scan"))
    try:
        store_cases.put(store, staged_files.records("scan")[3], store_cases.output(3))
        store.refresh(force=True)
        code, text, _ = call("ls", path)
        assert (code, "stage 2 of 3: scan" in text) == (0, True)
        text = call("best", path, "--stage", "dz")[1]
        place = next(line for line in text.splitlines() if line.startswith("  image")).split(maxsplit=1)[1]
        assert Path(place.partition(":/")[0]).exists()
        assert "packed" in place
        with ptydask.open(path, "dz") as first, ptydask.open(path) as latest:
            assert (first.status.state, latest.status.state) == ("finished", "running")
    finally:
        store.close()


# --- figures and report -------------------------------------------------------------------------------


def test_history_has_a_panel_a_stage(staged: Path) -> None:
    """Each with its own metric; links lead to trials of the drawn stage alone."""
    from ptydask.analysis import figures

    with reader.open(staged, "scan") as results:
        data = load_study(results)
        whole = replace(data, stages=stages.load_stages(results, curves=False))
    figure = figures.draw("history", whole, link=lambda number: f"#trial-{number}")
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes] == ["dz", "scan", "final"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "contrast (larger is better)", "loss"]
    assert "#trial-3" in figures.svg(figure)
    by_loss = figures.draw("history", whole.by_metric("loss"))
    assert {axes.get_ylabel() for axes in by_loss.axes} == {"loss"}
    assert figures.draw("history", data).axes[0].get_title() == ""
    assert list(figure.axes[2].get_xticks()) == [0]


def page_data(results: reader.Results, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page of these results says, figures left out."""
    from ptydask.analysis.report import page, plots, render

    drawn: list[Any] = []

    def draw_nothing(study: StudyData, **said: Any) -> AbstractContextManager[type[list[Any]]]:
        drawn.append((study.meta.name, said))
        return nullcontext(list)

    monkeypatch.setattr(plots, "drawn_meanwhile", draw_nothing)
    seen: dict[str, Any] = {}
    monkeypatch.setattr(page, "render", lambda data, _plots, **_: seen.update(data) or "")
    render(results)
    return {**seen, "drawn": drawn}


def test_the_report_begins_with_the_stages(staged: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table, the page's own stage, where its values are from; figures of the last that tuned something."""
    with reader.open(staged) as results:
        data = page_data(results, monkeypatch)
    study = data["study"]
    assert [row[0] for row in study["stages"]] == ["stage", "dz", "scan", "final"]
    assert (study["whole"], study["stage"], study["to_come"]) == ("demo", "final", [])
    assert study["inherited"][0] == "dz 15.25 from stage dz, trial 2"
    assert data["drawn"] == [("demo scan", {"of_page": False})]
    assert (study["option"], study["advised_option"]) == (" --stage final", "")
    assert data["advice"]
    assert not any(one["trials"] for one in data["advice"])
    with reader.open(staged, "scan") as results:
        assert page_data(results, monkeypatch)["drawn"] == [("demo scan", {"of_page": True})]
        of_all = replace(load_study(results), stages=stages.load_stages(results))
        monkeypatch.undo()
        titles = [
            one["title"]
            for one in report_cases.draw_plots(of_all, of_page=False)
            if one["kind"] in ("history", "slice")
        ]
        assert (titles[0], titles[1].endswith(", stage scan")) == ("Every trial, stage by stage", True)
    with reader.open(plain) as results:
        assert "stages" not in page_data(results, monkeypatch)["study"]
