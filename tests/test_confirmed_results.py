"""What a confirmation adds to ``ls``, ``best``, ``show``, ``status``, the report and the Python API."""

from __future__ import annotations

import csv
import io
import json
import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from confirm_cases import GRID, run_repeats
from confirmation_cases import PLAN_SEED, make_repeat
from store_cases import meta, packed, record

import ptydask
from ptydask import cli
from ptydask.analysis import report
from ptydask.analysis.confirmation import Confirmation
from ptydask.analysis.data import load_study
from ptydask.analysis.figures import frc
from ptydask.analysis.report import plots, rows
from ptydask.errors import StoreError
from ptydask.ring_correlation import FourierRing
from ptydask.store import Store, reader, shard
from ptydask.store.confirmation import companion_of, find_missing
from ptydask.store.upkeep import embedding

pytest.importorskip("scipy")

ERRORS = (0.5, 0.4, 0.3, 0.31, 0.9)
REPEATS = {2: [0.36, 0.38, 0.37], 3: [0.32, 0.33, None]}
"""Trial 2 was lucky in the study, trial 3 is better."""
RING = FourierRing(np.linspace(0.1, 1, 10), np.linspace(1, 0.1, 10), np.full(10, 50))


def write_study(path: Path, *, repeats=REPEATS, embed: bool = True, direction: str = "minimize") -> Path:
    """A study of five trials, some of them confirmed."""
    sign = 1 if direction == "minimize" else -1
    study = packed(path, [record(n, sign * error) for n, error in enumerate(ERRORS)], direction=direction)
    with reader.open(study) as results:
        store_id = results.id
    about = {"name": "tBL_WSe2 confirmation", "engine": "repeat", "direction": direction}
    store = Store.open(companion_of(study), meta(**about, config_json=json.dumps({"study": store_id})))
    every = [(t, PLAN_SEED + i, e) for t, errors in repeats.items() for i, e in enumerate(errors, 1)]
    for number, (trial, seed, error) in enumerate(every):
        made = make_repeat(
            number, trial, seed, None if error is None else sign * error, message="out of\nmemory"
        ).record
        store.add(made, shard.write(store.folder, made, None, store.meta.keep, direction=direction, metric="loss"))
    store.finish()
    if embed:
        embedding.embed(study, {3: RING})
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("confirmed") / "tBL_WSe2.h5")


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[str, str]:
    assert cli.main([str(word) for word in words]) == 0
    return capsys.readouterr()


# --- commands ----------------------------------------------------------------------------------------


def test_ls_shows_the_means_beside_the_errors(study, capsys):
    head, *lines = run(capsys, "ls", study)[0].splitlines()
    assert head.split()[:4] == ["trial", "state", "error", "confirmed"]
    assert "0.3700 +- 0.0100 (3)" in lines[2]
    assert "(2)" in lines[3]
    assert lines[0].split()[3] == "-"


def test_ls_sorts_by_the_means(study, capsys):
    lines = run(capsys, "ls", study, "--sort", "confirmed")[0].splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["3", "2", "0", "1", "4"]


def test_ls_sorts_by_the_means_where_more_is_better(tmp_path, capsys):
    study = write_study(tmp_path / "most.h5", direction="maximize", embed=False)
    lines = run(capsys, "ls", study, "--sort", "confirmed")[0].splitlines()[1:]
    assert [line.split()[0] for line in lines][:2] == ["3", "2"]


@pytest.mark.parametrize(
    ("condition", "numbers"),
    [
        ("confirmed < 0.35", ["3"]),
        ("confirmed == null", ["0", "1", "4"]),
        ("confirmed > error", ["2", "3"]),
        ("confirmed.n == 2", ["3"]),
        ("confirmed.mean > 0.35 and confirmed.sd < 0.02", ["2"]),
        ("`confirmed.sd` != null", ["2", "3"]),
    ],
)
def test_where_knows_the_means(study, capsys, condition, numbers):
    lines = run(capsys, "ls", study, "--where", condition)[0].splitlines()[1:]
    assert [line.split()[0] for line in lines] == numbers


@pytest.mark.parametrize(("column", "first"), [("confirmed.mean", "3"), ("confirmed.sd", "3"), ("confirmed.n", "3")])
def test_ls_sorts_by_what_csv_has(study, capsys, column, first):
    """The best mean, the smallest deviation, the fewest repeats first; trials without one last."""
    lines = run(capsys, "ls", study, "--sort", column)[0].splitlines()[1:]
    assert [line.split()[0] for line in lines] == [first, "2", "0", "1", "4"]


def test_ls_sorts_by_the_largest_mean_first_where_that_is_better(tmp_path, capsys):
    study = write_study(tmp_path / "most.h5", direction="maximize", embed=False)
    lines = run(capsys, "ls", study, "--sort", "confirmed.mean")[0].splitlines()[1:]
    assert [line.split()[0] for line in lines][:2] == ["3", "2"]


@pytest.mark.parametrize(
    "options", [("--sort", "confirmed"), ("--sort", "confirmed.sd"), ("--where", "confirmed.n > 1")], ids=str
)
def test_how_to_confirm_is_said_where_nobody_has(tmp_path, capsys, options):
    path = packed(tmp_path / "a b.h5", [record(0)])
    assert cli.main(["ls", str(path), *options]) == 2
    assert "ptydask confirm '" in capsys.readouterr().err


def test_a_column_that_is_nearly_it_is_named(study, capsys):
    assert cli.main(["ls", str(study), "--sort", "confirmd"]) != 0
    assert "confirmed" in capsys.readouterr().err


def test_csv_and_json_have_mean_deviation_and_count(study, capsys):
    table = list(csv.DictReader(io.StringIO(run(capsys, "ls", study, "--format", "csv")[0])))
    assert [row["confirmed.n"] for row in table] == ["", "", "3", "2", ""]
    assert float(table[2]["confirmed.mean"]) == pytest.approx(0.37)
    trials = json.loads(run(capsys, "ls", study, "--format", "json")[0])
    assert trials[2]["confirmed"]["sd"] == pytest.approx(0.01)
    assert trials[2]["confirmed"]["metrics"]["loss"]["n"] == 3
    assert trials[0]["confirmed"] is None


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_best_says_both_where_another_trial_has_the_better_mean(study, capsys, form):
    out, err = run(capsys, "best", study, "--format", form)
    said = out if form == "table" else err
    assert "trial 3 is the best" in said
    assert "trial 2 has 0.3700" in said
    assert "more than luck" in said
    assert f"{study.name} 3" in said


def test_best_says_nothing_more_where_it_is_the_best_by_its_mean_too(tmp_path, capsys):
    study = write_study(tmp_path / "same.h5", repeats={2: [0.30, 0.32, 0.31], 3: [0.36, 0.37, 0.38]}, embed=False)
    out, err = run(capsys, "best", study)
    assert "with other seeds: 0.310" in out
    assert "is the best" not in out + err


def test_best_says_that_it_was_not_repeated(tmp_path, capsys):
    study = write_study(tmp_path / "grown.h5", repeats={3: [0.36, 0.37, 0.38]}, embed=False)
    assert "trial 2 was not repeated" in run(capsys, "best", study)[0]


def test_show_has_the_repeats_that_failed_and_the_ring_correlation(study, capsys):
    text = run(capsys, "show", study, 3)[0]
    assert f"seed {PLAN_SEED + 3} failed: out of memory" in text
    assert "FRC" in text
    assert "area 0.550" in text
    assert json.loads(run(capsys, "show", study, 3, "--format", "json")[0])["confirmed"]["n"] == 2


def test_status_says_it(study, capsys):
    assert "with other seeds trial 3 is the best" in " ".join(run(capsys, "status", study)[0].split())
    assert json.loads(run(capsys, "status", study, "--format", "json")[0])["best"]["confirmed"]["n"] == 3


@pytest.mark.parametrize("grid", [GRID, ((2, 5, 0), (1, 5, 0))])
def test_status_and_info_say_what_a_confirmation_that_was_stopped_lacks(tmp_path, capsys, grid):
    """While it is beside the study, also where an earlier part of it is in the file already."""
    study = packed(tmp_path / "a.h5", [record(n, 0.25 + n / 10) for n in range(3)])
    recorded = run_repeats(study, grid[:2])
    if grid == GRID:
        embedding.embed(study, {})
        embedding.take_out(study)
        recorded = run_repeats(study, GRID, stop=4)
    assert recorded.exists()
    missing = len(grid) - (4 if grid == GRID else 2)
    said = " ".join(run(capsys, "status", study)[0].split())
    about = json.loads(run(capsys, "status", study, "--format", "json")[0])
    assert about["state"] == "finished"
    assert about["repeats_missing"] == missing
    assert ("4 of 6 repeats" in said) == ("ptydask confirm" in said) == bool(missing)
    info = run(capsys, "info", study)[0]
    assert f"{len(grid) - missing} repeats" in info
    assert ("2 more to go" in info) == bool(missing)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"repeats": 3}', '{"repeats": [[1, 2]]}', '{"repeats": [["x", 1, 0]]}']
)
def test_what_does_not_say_what_was_planned_lacks_nothing(text):
    assert find_missing(meta("confirmation", config_json=text), []) == set()


def test_a_study_without_a_confirmation_has_none_of_it(tmp_path, capsys):
    study = packed(tmp_path / "plain.h5", [record(n) for n in range(3)])
    for command in (["ls"], ["best"], ["show", "0"], ["status"]):
        assert "seeds" not in "".join(run(capsys, command[0], study, *command[1:]))
    assert "confirmed" not in run(capsys, "ls", study, "--format", "json")[0]
    assert "confirmed" not in run(capsys, "ls", study, "--format", "csv")[0]


def test_export_writes_it(study, capsys, tmp_path):
    run(capsys, "export", study, "csv", tmp_path / "table.csv")
    assert "confirmed.mean" in (tmp_path / "table.csv").read_text()


# --- a confirmation that is not whole ----------------------------------------------------------------


def test_repeats_count_while_they_are_still_beside_the_study(tmp_path, capsys):
    study = write_study(tmp_path / "beside.h5", embed=False)
    assert "0.3700 +- 0.0100 (3)" in run(capsys, "ls", study)[0]


@pytest.mark.parametrize("content", [b"", b"no HDF5 at all"])
def test_trials_are_shown_where_the_confirmation_is_damaged(tmp_path, capsys, content):
    study = write_study(tmp_path / "torn.h5", embed=False)
    companion_of(study).write_bytes(content)
    assert len(run(capsys, "ls", study)[0].splitlines()) == 6
    run(capsys, "best", study)
    run(capsys, "status", study)
    with ptydask.open(study) as results:
        pytest.importorskip("pandas")
        assert len(results.table()) == 5
    with reader.open(study) as results:
        assert load_study(results, curves=False).confirmation is None


# --- Python ------------------------------------------------------------------------------------------


def test_python_has_the_confirmation(study):
    with ptydask.open(study) as results:
        confirmation = results.confirmation
        assert confirmation.trials == (3, 2)
        assert confirmation.frc[3].area == pytest.approx(0.55)
        assert results.trial(2).confirmed == pytest.approx((0.37, 0.01, 3))
        assert results.trial(0).confirmed is None
        assert "trial 3" in confirmation.verdict()
        assert results.data(curves=False).confirmation.trials == (3, 2)


def test_python_shows_a_confirmation_in_one_line(study):
    with ptydask.open(study) as results:
        shown = repr(results.confirmation)
        assert repr(results.confirmation) == str(results.confirmation)
    assert "best trial 3: loss 0.3" in shown
    assert "2 trials, 6 repeats" in shown
    assert len(shown) < 120
    assert "\n" not in shown
    none = Confirmation("lo\nss", "minimize", ())
    assert repr(none) == "<Confirmation 0 trials, 0 repeats>"


@pytest.mark.parametrize("number", [99, -1, 5])
def test_python_refuses_trials_that_there_are_not(study, number):
    """As the study does; of one that was not repeated nothing is known."""
    with ptydask.open(study) as results:
        confirmation = results.confirmation
        for ask in (results.trial, confirmation.values, confirmation.mean_sd, confirmation.summary):
            with pytest.raises(StoreError, match=f"no trial {number}; the nearest is"):
                ask(number)
        assert confirmation.values(0) == confirmation.summary(0) == {}
        assert confirmation.mean_sd(0) is None


def test_python_has_none_before(tmp_path):
    path = packed(tmp_path / "plain.h5", [record(n) for n in range(3)])
    with ptydask.open(path) as results:
        assert results.confirmation is None
        assert results.trial(0).confirmed is None


def test_refresh_takes_the_confirmation_in(tmp_path):
    path = packed(tmp_path / "later.h5", [record(n) for n in range(3)])
    with ptydask.open(path) as results:
        assert results.confirmation is None
        path.unlink()
        write_study(path)
        assert results.refresh().confirmation.trials == (3, 2)


def test_the_table_has_columns_of_it(study):
    pytest.importorskip("pandas")
    with ptydask.open(study) as results:
        table = results.table()
        assert table["confirmed_n"].tolist() == [0, 0, 3, 2, 0]
        assert table.loc[2, "confirmed_mean"] == pytest.approx(0.37)
        assert math.isnan(table.loc[0, "confirmed_sd"])
        assert list(results.query("confirmed_mean < 0.35").index) == [3]


def test_a_notebook_shows_the_mean(study):
    with ptydask.open(study) as results:
        assert "0.370 +- 0.010 with 3 other seeds" in results.trial(2)._repr_html_()
        assert "other seed" not in results.trial(0)._repr_html_()


def test_parquet_has_columns_of_it(study, tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    run(capsys, "export", study, "parquet", tmp_path / "table.parquet")
    assert parquet.read_table(tmp_path / "table.parquet")["confirmed.n"].to_pylist() == [None, None, 3, 2, None]


def test_the_reports_table_has_columns_of_it(study):
    with reader.open(study) as results:
        data = load_study(results, curves=False)
        columns = {c["key"]: c for c in rows.table_columns(data, {}, {}) if c["key"].startswith("confirmed.")}
        assert Confirmation.of(results).trials == (3, 2)
    mean = columns["confirmed.mean"]
    assert (mean["kind"], mean["values"][2]) == ("number", pytest.approx(0.37))
    assert mean["texts"][2].endswith("(3)")
    assert all(column["values"][0] is None for column in columns.values())


def test_figures_and_the_page_have_it_from_the_file(study, tmp_path, monkeypatch, capsys):
    """`plot frc` draws the ring that the file has; the page says the verdict, the mean and the resolution."""
    assert run(capsys, "plot", study, "frc", "profile", "-o", tmp_path, "--dpi", "30")[0].count("\n") == 2
    with reader.open(study) as results:
        assert frc.lacks(load_study(results, curves=False)) is None
    monkeypatch.setattr(plots, "drawn_meanwhile", lambda data, **_: nullcontext(list))
    with reader.open(study) as results:
        page = report.render(results, images=0)
    assert "0.3700 ± 0.0100 (3)" in page
    assert '"best_confirmed":3' in page
    assert '"confirmed.resolution"' in page
