"""The best of several studies side by side: the table, what is said of it, files that cannot be read, the page."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import confirmation_cases
import h5py
import pytest
import staged_store_cases
import store_cases

import ptydask
from ptydask import cli
from ptydask.analysis.comparison import NOT_TUNED, StudyBest, StudyComparison
from ptydask.analysis.montage.study_images import read_study_images
from ptydask.analysis.report import comparison_page
from ptydask.comparing import compare_studies, differing_settings
from ptydask.errors import StoreError, UsageError
from ptydask.model import HeldOut, TrialState

MADE = datetime(2025, 1, 2, tzinfo=UTC)
DATA = {"data": "/data/one/scan.h5", "data_sha256": "aa" * 32}
CONFIG = {
    "init_params": {"probe_kv": 80, "pos_scan_affine": [1.03, 0.0, -2.0, 0.0], "random_seed": 1},
    "recon_params": {"NITER": 20},
}
SPACE = json.dumps({"scale": {}, "rotation": {}})
Call = Callable[..., tuple[int, str, str]]


def study(name: str = "a.h5", error: float | None = 0.5, tuned: str = SPACE, **changes: Any) -> StudyBest:
    """One study; no trial has completed where there is no ``error``."""
    confirmation = changes.pop("confirmation", None)
    said = {"config_json": json.dumps(CONFIG), "search_space_json": tuned, "provenance": DATA, **changes}
    params = dict.fromkeys(json.loads(tuned), 0.98)
    best = None if error is None else store_cases.record(1, error, params=params)
    problem = "no trial has completed" if error is None else ""
    return StudyBest(Path.cwd() / name, store_cases.meta(**said), 3, best, confirmation, problem=problem)


def compare(*studies: StudyBest) -> StudyComparison:
    return StudyComparison(studies)


def with_niter(count: int, **more: Any) -> str:
    return json.dumps({**CONFIG, "recon_params": {"NITER": count}, **more})


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """A command's exit code, what it prints, what it says on stderr."""

    def run(*args: object) -> tuple[int, str, str]:
        return cli.main(["compare", *map(str, args)]), *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a.h5`` and ``b.h5`` of one study, ``staged.h5`` with a final stage, ``none.h5`` without a complete trial."""
    folder = tmp_path_factory.mktemp("compare")
    store_cases.packed(folder / "a.h5", [store_cases.record(0), store_cases.record(1)], provenance=DATA)
    store_cases.packed(folder / "b.h5", [store_cases.record(n) for n in range(4)], provenance=DATA)
    store_cases.packed(folder / "none.h5", [store_cases.failed(0)], provenance=DATA)
    staged_store_cases.staged(folder / "staged.h5")
    (folder / "broken.h5").write_bytes((folder / "a.h5").read_bytes()[:2000])
    return folder


# --- the table, and what is said of it ----------------------------------------------------------------


def test_a_row_a_study() -> None:
    compared = compare(study(), study("b.h5", 0.4))
    assert compared.columns == ("file", "trial", "loss", "scale", "rotation", "data")
    assert compared.rows()[1] == ("b.h5", "1", "0.400000", "0.98", "0.98", "scan.h5")
    assert compared.numeric == {1, 2, 3, 4}
    assert "b.h5" in repr(compared)
    assert "<td>b.h5</td>" in compared._repr_html_()


@pytest.mark.parametrize(("direction", "best"), [("minimize", "b.h5"), ("maximize", "a.h5")])
def test_the_best_is_named_where_errors_compare(direction: str, best: str) -> None:
    compared = compare(study(direction=direction), study("b.h5", 0.4, direction=direction))
    assert compared.best is not None
    assert compared.best.file == best
    assert any(note.startswith(f"best loss: {best}") for note in compared.notes())


def test_equal_errors_are_both_the_best() -> None:
    [note] = compare(study(), study("b.h5"), study("c.h5", 0.9)).notes()
    assert note == "best loss: a.h5, trial 1, b.h5, trial 1 (equal)"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric": "contrast", "direction": "maximize"}, "other metrics: minimized loss (a.h5), maximized contrast"),
        ({"direction": "maximize"}, "other metrics: minimized loss"),
        ({"engine": "toy"}, "other engines: ptyrad (a.h5), toy (b.h5)"),
        ({"provenance": {**DATA, "data_sha256": "bb"}}, "other data: scan.h5 SHA-256 aaaaaaaa"),
        ({"provenance": {}}, "other data"),
        ({"held_out": HeldOut("positions", 0.1)}, "held-out data: none (a.h5), 0.1 of the positions (b.h5)"),
    ],
)
def test_errors_that_do_not_compare_are_said_and_not_ranked(changes: dict[str, Any], words: str) -> None:
    compared = compare(study(), study("b.h5", 0.4, **changes))
    assert compared.best is None
    assert any(words in note for note in compared.notes())


def test_other_settings_are_named() -> None:
    studies = [study(), study("b.h5", config_json=with_niter(50)), study("c.h5")]
    [text] = differing_settings(studies)
    assert text == "recon_params.NITER 20 (a.h5, c.h5), 50 (b.h5)"
    assert StudyComparison(tuple(studies), differences=(text,)).best is None


@pytest.mark.parametrize(
    "init",
    [
        {"random_seed": 2},  # another seed
        {"meas_params": {"path": "/elsewhere/scan.h5"}},  # data are told by their digest
        {"pos_scan_affine": [1.0, 0.0, 0.0, 0.0]},  # what is tuned begins elsewhere
    ],
)
def test_settings_that_may_differ_are_not_named(init: dict[str, Any]) -> None:
    config = with_niter(20, init_params={**CONFIG["init_params"], **init})  # type: ignore[dict-item]
    assert differing_settings([study(), study("b.h5", config_json=config)]) == []


def test_many_settings_are_counted() -> None:
    config = with_niter(20, constraint_params={f"key{i}": i for i in range(9)})
    base = with_niter(20, constraint_params=dict.fromkeys((f"key{i}" for i in range(9)), -1))
    texts = differing_settings([study(config_json=base), study("b.h5", config_json=config)])
    assert len(texts) == 6
    assert texts[-1] == "and 4 more"


@pytest.mark.parametrize("broken", ["", "[1]", "{", '{"init_params": [1]}', '{"init_params": {"meas_params": 3}}'])
def test_a_study_without_its_configuration_is_compared_all_the_same(broken: str) -> None:
    odd = study("b.h5", config_json=broken, provenance={})
    differing_settings([study(), odd])
    assert compare(study(), odd).rows()[1][-1] == "-"


def test_a_parameter_that_is_not_tuned_has_the_files_own_value() -> None:
    compared = compare(study(), study("b.h5", tuned='{"scale": {}, "dz": {}}'))
    by_file = {row[0]: dict(zip(compared.columns, row, strict=True)) for row in compared.rows()}
    assert by_file["b.h5"]["rotation"] == "(-2)"
    assert by_file["a.h5"]["dz"] == "-"
    assert NOT_TUNED in compared.notes()
    assert any("other parameters are tuned: rotation, scale (a.h5), dz, scale (b.h5)" in n for n in compared.notes())


def test_a_study_without_a_best_trial_has_a_row() -> None:
    compared = compare(study(), study("b.h5", None))
    assert compared.rows()[1][1:5] == ("-", "-", "-", "-")
    assert compared.best is None
    assert any("b.h5: no trial has completed" in note for note in compared.notes())


def test_the_mean_with_other_seeds_has_a_column() -> None:
    confirmed = confirmation_cases.confirm({1: [0.5, 0.6]})
    compared = compare(study(confirmation=confirmed), study("b.h5"))
    assert compared.columns[3] == "confirmed"
    assert "+-" in compared.rows()[0][3]
    assert compared.rows()[1][3] == "-"
    assert compared.studies[0].to_object()["confirmed"]["n"] == 2


@pytest.mark.parametrize(("direction", "best"), [("minimize", "b.h5"), ("maximize", "a.h5")])
def test_the_best_by_means_is_said_where_it_is_another(direction: Any, best: str) -> None:
    errors = {"a.h5": (0.5, [0.7, 0.72]), "b.h5": (0.6, [0.61, 0.62])}
    studies = [
        study(name, error, direction=direction, confirmation=confirmation_cases.confirm({1: values}, (), direction))
        for name, (error, values) in errors.items()
    ]
    compared = compare(*studies)
    assert compared.best is not None
    assert compared.best_by_mean is not None
    assert compared.best_by_mean.file == best
    assert compared.best.file != best
    assert any(f"with other seeds {best} is the best" in note for note in compared.notes())


def test_means_are_not_compared_with_single_errors() -> None:
    compared = compare(study(confirmation=confirmation_cases.confirm({1: [0.7]})), study("b.h5", 0.6))
    assert compared.best_by_mean is None


def test_files_of_one_name_have_their_paths() -> None:
    other = study("b.h5", provenance={"data": "/data/two/scan.h5", "data_sha256": "bb"})
    assert [row[-1] for row in compare(study(), other).rows()] == ["/data/one/scan.h5", "/data/two/scan.h5"]


def test_a_sweep_has_its_constants_and_its_metric() -> None:
    config = json.dumps({"parameters": [{"name": "alpha", "path": ["alpha"]}, {"name": "depth", "value": 3}]})
    facts = {"engine": "command", "metric": "val", "provenance": {}}
    one = study(tuned='{"alpha": {}}', config_json=config, **facts)
    compared = compare(one, study("b.h5", tuned='{"alpha": {}, "depth": {}}', **facts))
    assert compared.columns == ("file", "trial", "val", "alpha", "depth")
    assert compared.rows()[0][-1] == "(3)"


# --- files --------------------------------------------------------------------------------------------


def test_a_staged_study_has_what_all_stages_found(folder: Path) -> None:
    compared = compare_studies([folder / "staged.h5", folder / "a.h5"])
    staged, plain = compared.studies
    assert staged.meta.stage == "final"
    assert {"dz", "scan"} <= staged.values.keys()
    assert {"dz", "scan"} <= set(staged.tuned)
    assert staged.name == plain.name
    assert compared.columns[1] == "stage"


def test_a_stage_without_a_complete_trial_gives_way_to_the_one_before(tmp_path: Path) -> None:
    path, stages = tmp_path / "s.h5", staged_store_cases.STAGES
    for name, count in {"dz": 3, "scan": 2, "final": 0}.items():
        staged_store_cases.run_stage(path, name, stages, count)
    [known] = compare_studies([path]).studies
    assert (known.meta.stage, known.problem) == ("scan", "")


def test_good_files_are_compared_where_one_is_broken(folder: Path, call: Call) -> None:
    code, out, err = call(folder / "a.h5", folder / "broken.h5", folder / "gone.h5", folder / "b.h5")
    assert code == 1
    assert len(err.splitlines()) == 2
    assert "broken.h5" in err
    assert "b.h5" in out
    assert f"best loss: {folder / 'b.h5'}, trial 3" in out


def test_where_none_can_be_read_the_first_is_named(folder: Path, call: Call) -> None:
    code, out, err = call(folder / "broken.h5", folder / "gone.h5")
    assert code != 0
    assert not out
    assert "broken.h5" in err
    with pytest.raises(StoreError, match=r"gone\.h5"):
        ptydask.compare([folder / "gone.h5"])
    with pytest.raises(UsageError, match="results files"):
        ptydask.compare([])


@pytest.mark.parametrize("kind", ["folder", "empty", "data"])
def test_what_is_no_results_file_is_unreadable(folder: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.h5"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    else:
        with h5py.File(path, "w") as file:
            file["patterns"] = [1.0]
    compared = compare_studies([path, folder / "a.h5"])
    assert [study.path.name for study in compared.studies] == ["a.h5"]
    assert list(compared.unreadable) == [str(path)]


def test_a_damaged_image_costs_no_other_its_place(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes((folder / "a.h5").read_bytes())
    with h5py.File(damaged, "r+") as file:
        del file[f"{store_cases.meta().name}/trials/000001"]
    compared = compare_studies([damaged, folder / "b.h5"])
    images = read_study_images(compared.studies)
    assert images.sheet is not None
    assert list(images.lost) == [compared.studies[0].file]


def test_one_file_needs_no_list(folder: Path) -> None:
    assert len(ptydask.compare(folder / "a.h5").studies) == len(ptydask.compare(str(folder / "a.h5")).studies) == 1


def test_a_stopped_study_and_old_formats_are_compared(tmp_path: Path) -> None:
    stopped = store_cases.stopped(tmp_path / "stopped.h5", range(3), provenance=DATA)
    fixtures = Path(__file__).parent / "fixtures"
    old = [fixtures / f"format-{n}-{kind}.h5" for n in (1, 2) for kind in ("index", "packed")]
    compared = compare_studies([stopped, *old])
    assert not compared.unreadable
    assert len(compared.with_best) == 5
    images = read_study_images(compared.studies)
    assert images.sheet is not None
    assert len(images.sheet.pictures) + len(images.lost) == 5


def test_a_file_named_twice_has_one_row(folder: Path) -> None:
    compared = ptydask.compare([folder / "a.h5", str(folder / "a.h5")])
    assert len(compared.studies) == 1


def test_no_complete_trial_is_exit_code_1(folder: Path, call: Call) -> None:
    code, out, _ = call(folder / "a.h5", folder / "none.h5")
    assert code == 1
    assert "no trial has completed" in out


def test_json_and_csv_have_every_digit(folder: Path, call: Call) -> None:
    code, out, _ = call(folder / "a.h5", folder / "staged.h5", "--format", "json")
    first, second = json.loads(out)
    assert code == 0
    assert first["error"] == store_cases.record(1).error
    assert first["values"] == store_cases.record(1).params
    assert second["stage"] == "final"
    _, out, err = call(folder / "a.h5", folder / "staged.h5", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert float(rows[0]["params.rotation"]) == -0.5
    assert rows[0]["params.dz"] == ""
    assert rows[0]["tuned"] == "scale rotation"
    assert "do not compare" in err


def test_pandas_has_a_row_a_study(folder: Path) -> None:
    table = ptydask.compare([folder / "a.h5", folder / "b.h5"]).table()
    assert list(table["number"]) == [1, 3]
    assert table.loc[str(folder / "b.h5"), "params.scale"] == 0.98


# --- the page -----------------------------------------------------------------------------------------


def test_the_page_has_table_notes_and_images_and_fetches_nothing(folder: Path, tmp_path: Path, call: Call) -> None:
    page = tmp_path / "new" / "compare.html"
    code, _, err = call(folder / "a.h5", folder / "b.h5", "-o", page)
    text = page.read_text()
    assert code == 0
    assert "compare.html" in err
    assert text.count('src="data:image/webp;base64,') == 3
    assert not re.search(r"https?://|<script", text)
    assert "script-src" not in text
    assert '<tr class="best">' in text
    assert page.stat().st_size < 500_000


def test_two_pages_of_the_same_files_are_alike(folder: Path) -> None:
    compared = compare_studies([folder / "a.h5", folder / "b.h5"])
    assert comparison_page.render(compared, made=MADE) == comparison_page.render(compared, made=MADE)


def test_studies_without_arrays_are_named_on_the_page(folder: Path, tmp_path: Path) -> None:
    bare = store_cases.packed(tmp_path / "bare.h5", [store_cases.record(0, state=TrialState.PRUNED)], provenance=DATA)
    compared = compare_studies([folder / "a.h5", bare, folder / "none.h5"])
    images = read_study_images(compared.studies)
    assert images.sheet is not None
    assert len(images.sheet.pictures) == 1
    assert list(images.lost) == [study.file for study in compared.studies[1:]]
    alone = comparison_page.render(compare_studies([bare]), made=MADE)
    assert "No study has one." in alone


def test_names_of_files_and_parameters_are_no_markup() -> None:
    text = comparison_page.render(compare(study("<b>.h5", None), study("b.h5", None, tuned='{"<i>": {}}')), made=MADE)
    assert "<b>.h5" not in text
    assert "&lt;b&gt;.h5" in text
    assert "<i>" not in text


@pytest.mark.parametrize("name", ["a.h5", "page", "page.png"])
def test_what_is_no_page_is_not_overwritten(folder: Path, name: str, tmp_path: Path, call: Call) -> None:
    out = tmp_path / name
    out.write_text("mine")
    code, _, err = call(folder / "a.h5", folder / "b.h5", "-o", out)
    assert code == 2
    assert ".html" in err
    assert out.read_text() == "mine"
