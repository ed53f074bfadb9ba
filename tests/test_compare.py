"""The best of several studies side by side: the table, what is said of it, whether optima agree."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import confirmation_cases
import pytest
from comparison_cases import CONFIG, DATA, compare, compare_settings, study, with_niter, with_optimum

from ptydask.analysis.agreement import compare_optima
from ptydask.analysis.comparison import NOT_TUNED, OF_OPTIMUM, StudyComparison, listed_text
from ptydask.comparing import with_differing_settings
from ptydask.model import HeldOut

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
    ("changes", "words", "column"),
    [
        ({"metric": "contrast", "direction": "maximize"}, "the metric and the direction of the metric", "metric"),
        ({"direction": "maximize"}, "the direction of the metric", "loss"),
        ({"engine": "toy"}, "the engine", "engine"),
        ({"provenance": {**DATA, "data_sha256": "bb"}}, "the data", "data"),
        ({"provenance": {}}, "the data", "data"),
        ({"held_out": HeldOut("positions", 0.1)}, "the data held out", "held out"),
    ],
)
def test_errors_that_do_not_compare_are_said_and_not_ranked(changes: dict[str, Any], words: str, column: str) -> None:
    compared = compare(study(), study("b.h5", 0.4, **changes))
    assert compared.best is None
    assert f"errors cannot be compared: the studies differ in {words}" in compared.notes()
    assert column in compared.columns


def test_what_is_said_does_not_grow_with_the_number_of_files() -> None:
    studies = [with_optimum(f"scan-{n}.h5", scale=(1 + n / 10, 0.01)) for n in range(20)]
    other = [replace(s, meta=replace(s.meta, provenance={"data_sha256": f"{n}"})) for n, s in enumerate(studies)]
    notes = StudyComparison(tuple(other)).notes()
    assert len(notes) <= 4
    assert max(map(len, notes)) < 100


def test_a_file_that_has_moved_is_the_same_data() -> None:
    moved = study("b.h5", 0.4, provenance={**DATA, "data": "/elsewhere/copy.h5"})
    assert compare(study(), moved).best is not None


def test_settings_that_differ_have_columns_those_of_the_microscope_first() -> None:
    init: Any = CONFIG["init_params"]
    angles = [with_niter(n, init_params={**init, "probe_conv_angle": angle}) for n, angle in ((20, 24.9), (5, 24))]
    compared = compare_settings(angles[0], angles[1], angles[0])
    assert compared.settings == ("init_params.probe_conv_angle", "recon_params.NITER")
    assert compared.columns[-3:] == ("conv_angle", "NITER", "data")
    assert [row[-3:-1] for row in compared.rows()] == [("24.9", "20"), ("24", "5"), ("24.9", "20")]
    assert compared.best is None
    assert "errors cannot be compared: the studies differ in conv_angle and NITER" in compared.notes()
    assert compared.studies[1].to_object()["settings"]["recon_params.NITER"] == 5


def test_a_setting_that_is_not_there_and_one_that_is_null() -> None:
    parts: list[Any] = [{"a": 1, "b": [1, 2]}, {"a": None, "b": [1, 3]}, {"b": [4]}]
    compared = compare_settings(*[with_niter(20, model_params=part) for part in parts])
    assert compared.columns[-4:-1] == ("a", "b[1]", "b")
    assert [row[-4:-1] for row in compared.rows()] == [("1", "2", "[1, 2]"), ("null", "3", "-"), ("-", "-", "[4]")]


def test_settings_of_one_name_have_their_whole_keys() -> None:
    compared = compare_settings(with_niter(1, a={"lr": 1}, b={"lr": 1}), with_niter(1, a={"lr": 2}, b={"lr": 2}))
    assert {"a.lr", "b.lr"} <= set(compared.columns)


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
    assert compare_settings(json.dumps(CONFIG), config).settings == ()


def test_many_settings_are_counted() -> None:
    config = with_niter(20, constraint_params={f"key{i}": i for i in range(9)})
    base = with_niter(20, constraint_params=dict.fromkeys((f"key{i}" for i in range(9)), -1))
    compared = compare_settings(base, config)
    assert len(compared.settings) == 9
    assert sum(name.startswith("key") for name in compared.columns) == 5
    assert any(note.endswith("and 4 more") for note in compared.notes())


@pytest.mark.parametrize("broken", ["", "[1]", "{", '{"init_params": [1]}', '{"init_params": {"meas_params": 3}}'])
def test_a_study_without_its_configuration_is_compared_all_the_same(broken: str) -> None:
    odd = study("b.h5", config_json=broken, provenance={})
    compared = StudyComparison(tuple(with_differing_settings([study(), odd])))
    assert compared.rows()[1][-1] == "-"


def test_a_parameter_that_is_not_tuned_has_the_files_own_value() -> None:
    compared = compare(study(), study("b.h5", tuned='{"scale": {}, "dz": {}}'))
    by_file = {row[0]: dict(zip(compared.columns, row, strict=True)) for row in compared.rows()}
    assert by_file["b.h5"]["rotation"] == "(-2)"
    assert by_file["a.h5"]["dz"] == "-"
    assert NOT_TUNED in compared.notes()
    assert "not tuned in all studies: rotation and dz" in compared.notes()


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


# --- where the optima are -----------------------------------------------------------------------------


def test_the_optimum_has_a_column_beside_its_parameter() -> None:
    compared = compare(with_optimum("a.h5", scale=(1.03717, 0.00076)), study("b.h5"))
    assert compared.columns[3:6] == ("scale", "scale optimum", "rotation")
    assert [row[4] for row in compared.rows()] == ["1.03717 +- 0.00076", "-"]
    assert OF_OPTIMUM in compared.notes()
    assert compared.agreements == ()


@pytest.mark.parametrize(
    ("optima", "is_one", "files"),
    [
        ([(1.03717, 0.00076), (1.0276, 0.0014)], False, "a b"),
        ([(1.0300, 0.0010), (1.0310, 0.0010)], True, "a b"),
        ([(1.0, 0.1), (1.1, 0.1), (1.0, 0.01), (2.0, 0.1)], False, "c d"),
        ([(2.6, 1.0), *[(0.0, 1e-6)] * 5], True, "a b"),  # 2.6 of one deviation is chance among fifteen pairs
        ([(2.6, 1.0), (0.0, 1e-6)], False, "a b"),
    ],
)
def test_optima_agree_within_their_deviations(optima: list[tuple[float, float]], is_one: bool, files: str) -> None:
    agreement = compare_optima("scale", dict(zip("abcdef", optima, strict=False)))
    assert agreement is not None
    assert (agreement.is_one, " ".join(agreement.files)) == (is_one, files)
    assert ("agree" if is_one else "differ, by") in str(agreement)


@pytest.mark.parametrize("other", [(1.0, 0.0), (1.0, float("nan")), (float("inf"), 0.1), (1.0, float("inf"))])
def test_an_optimum_of_unknown_deviation_is_not_compared(other: tuple[float, float]) -> None:
    assert compare_optima("scale", {"a": (1.0, 0.1), "b": other}) is None


def test_a_full_turn_is_no_difference() -> None:
    agreement = compare_optima("rotation", {"a": (179.9, 0.2), "b": (-179.9, 0.2)})
    assert agreement is not None
    assert agreement.is_one


def test_an_optimum_at_an_end_of_its_range_is_not_compared() -> None:
    studies = with_optimum("a.h5", scale=(1.03, 0.001)), with_optimum("b.h5", ("scale",), scale=(1.1, 0.001))
    compared = compare(*studies)
    assert compared.agreements == ()
    assert compared.rows()[1][4] == "1.1 or beyond"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("a", "a"),
        ("ab", "a and b"),
        ("abc", "a, b and c"),
        ("abcdef", "a, b, c, d, e and f"),
        ("abcdefgh", "a, b, c, d, e and 3 more"),
    ],
)
def test_lists_in_words(names: str, text: str) -> None:
    assert listed_text(list(names)) == text
