"""Metrics beside the tuned one, where they are shown: columns, units, and figures by another metric."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import figure_cases
import h5py
import pyarrow.parquet
import pytest
from figure_cases import study
from store_cases import meta, output, packed, put, record

from ptydask import cli
from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import curves, scales
from ptydask.analysis.report import rows
from ptydask.errors import UsageError
from ptydask.space import metrics as ptyrad_metrics
from ptydask.space.metrics import metric_unit, to_angstrom
from ptydask.store import Store

METRICS = {"loss": 0.5, "contrast": 0.7, "entropy": 3.0, "position_drift": 0.25, "sharpness": 2.0}
UNITS = {"entropy": "bit", "position_drift": "angstrom"}


def results(path: Path, **changes: Any) -> Path:
    """Two trials with more metrics than a table for people shows."""
    rivals = {**METRICS, "entropy": 2.0, "position_drift": 0.5}
    return packed(path, [record(1, metrics=METRICS), record(2, metrics=rivals)], **changes)


@pytest.mark.parametrize(
    ("options", "columns", "first"),
    [
        ([], {"contrast", "sharpness"}, 1),
        (["--sort", "entropy"], {"contrast", "sharpness", "entropy"}, 2),
        (["--sort", "metrics.position_drift"], {"contrast", "sharpness", "position_drift"}, 1),
        (["--where", "entropy > 2.5"], {"contrast", "sharpness", "entropy"}, 1),
        (["--where", "not metrics.entropy > 2.5 and position_drift > 0"], METRICS.keys() - {"loss"}, 2),
        (["--where", "1 < entropy < 9", "--sort", "position_drift"], METRICS.keys() - {"loss"}, 1),
    ],
)
def test_ls_has_the_metrics_that_are_asked_for(
    options: list[str], columns: set[str], first: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loss, contrast and one's own at first; any other by --sort or --where, and all in JSON."""
    path = results(tmp_path / "r.h5")
    assert cli.main(["ls", str(path), *options]) == 0
    head, row, *_ = capsys.readouterr().out.splitlines()
    assert METRICS.keys() & set(head.split()) == columns
    assert int(row.split()[0]) == first
    assert cli.main(["ls", str(path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["metrics"] == METRICS


@pytest.mark.parametrize(
    ("options", "column"),
    [(["--sort", "seed"], "seed"), (["--where", "host != null"], "host"), (["--sort", "gradient.dz"], "gradient.dz")],
)
def test_ls_has_the_facts_that_are_asked_for(
    options: list[str], column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What no column was made of is shown where trials are chosen or ordered by it."""
    path = packed(tmp_path / "r.h5", [record(1, gradient={"dz": 0.5}, host="node7")])
    assert cli.main(["ls", str(path)]) == 0
    assert column not in capsys.readouterr().out.split()
    assert cli.main(["ls", str(path), *options]) == 0
    assert column in capsys.readouterr().out.split()


@pytest.mark.parametrize("options", [["--sort", "{}"], ["--where", "{} < 1"], ["--sort", "metrics.{}"]])
@pytest.mark.parametrize("name", ["heldout", "heldout_amplitude", "counts"])
def test_a_held_out_metric_that_no_trial_has(
    name: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How to get it is said; of a program, whose metrics are its own, it is not."""
    words = [option.format(name) for option in options]
    assert cli.main(["ls", str(results(tmp_path / "r.h5")), *words]) == 2
    assert f"--metric {name.partition('_')[0]}" in capsys.readouterr().err
    assert cli.main(["ls", str(results(tmp_path / "s.h5", engine="command")), *words]) == 2
    assert "--metric" not in capsys.readouterr().err


def test_a_sweep_shows_all_that_its_program_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that means something here means nothing of the kind there: no column is left out, none has a unit."""
    assert cli.main(["ls", str(results(tmp_path / "r.h5", engine="command", metric="entropy"))]) == 0
    assert {"loss", "contrast", "position_drift", "sharpness"} <= set(capsys.readouterr().out.split())
    assert metric_unit("entropy", "command") == ""


def test_show_has_every_metric_with_its_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the number; a mere number has none."""
    assert cli.main(["show", str(results(tmp_path / "r.h5")), "1"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["entropy", "3.00000", "bit"] in lines
    assert ["contrast", "0.700000"] in lines


def test_units_are_in_the_file(tmp_path: Path) -> None:
    """In the table, on the error where the metric has one, and in a curve as the engine says it."""
    store = Store.open(tmp_path / "r.h5", meta(metric="entropy"))
    curve = {"step": [1, 2], "entropy": [3.0, 2.0], "loss": [0.2, 0.1]}
    put(store, record(1, metrics=METRICS), output(1, curve=curve, units={"entropy": "bit"}))
    with h5py.File(store.finish()) as file:
        table, course = file["tBL_WSe2/table"], file["tBL_WSe2/trials/000001/curve"]
        for name in METRICS:
            assert table[f"metrics/{name}"].attrs.get("units", b"").decode() == UNITS.get(name, "")
        assert table["error"].attrs["units"] == b"bit"
        assert (course["entropy"].attrs["units"], "units" in course["loss"].attrs) == (b"bit", False)


def test_parquet_and_the_report_have_them_too(tmp_path: Path) -> None:
    """A column's unit, and whether the report shows it at first."""
    path = results(tmp_path / "r.h5")
    assert cli.main(["export", str(path), "parquet", str(tmp_path / "t.parquet")]) == 0
    schema = pyarrow.parquet.read_schema(tmp_path / "t.parquet")
    data = StudyData(meta(), (record(1, metrics=METRICS),))
    columns = {column["label"]: column for column in rows.table_columns(data, {}, {})}
    for name in METRICS.keys() - {"loss"}:
        unit = UNITS.get(name, "")
        assert (schema.field(f"metrics.{name}").metadata or {}).get(b"unit", b"").decode() == unit
        assert (columns[name]["unit"], columns[name]["shown"]) == (unit, name in ("contrast", "sharpness"))


def test_an_axis_has_the_unit_of_its_metric() -> None:
    """And says which way is better where that is not usual."""
    labels = [scales.error_label(figure_cases.meta(metric=name)) for name in ("loss", "entropy", "total_variation")]
    assert labels == ["loss", "entropy (bit)", "total_variation (Å⁻¹)"]
    assert scales.error_label(figure_cases.meta(metric="contrast", direction="maximize")).endswith("larger is better)")


@pytest.mark.parametrize(("unit", "angstrom"), [("angstrom", 0.2), ("m", 2e9)])
def test_metrics_of_x_rays_are_in_angstrom_too(unit: str, angstrom: float) -> None:
    """So that a metric has one unit."""
    assert to_angstrom(0.2, unit) == pytest.approx(angstrom)


@pytest.mark.parametrize("name", ptyrad_metrics.METRICS)
def test_every_metric_is_on_its_page(name: str) -> None:
    """docs/metrics.md has it with its unit and which way is better, as the code has them."""
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    better = {"minimize": "smaller", "maximize": "larger"}[ptyrad_metrics.METRICS[name].direction]
    assert f"| `{name}` | {metric_unit(name, 'ptyrad') or 1} | {better} |" in page


# --- a study by another metric -------------------------------------------------------------------------------


def with_metrics(count: int) -> StudyData:
    """A study whose contrast is best where its loss is worst; every curve has both."""
    made = study(count)
    records = [replace(record, metrics=_both(record.error)) for record in made.records]
    lines = {n: {**curve, "contrast": 1 + curve["loss"]} for n, curve in made.curves.items()}
    return StudyData(made.meta, tuple(records), lines)


def _both(error: float | None) -> dict[str, float]:
    return {} if error is None else {"loss": error, "contrast": 1 + error, "sharpness": -error}


def test_by_another_metric_other_trials_are_the_best() -> None:
    """Direction, errors and curves are that metric's; slopes, which it has none of, are gone."""
    made = with_metrics(40)
    other, own = made.by_metric("contrast"), made.by_metric("sharpness")
    assert (other.meta.metric, other.meta.direction, own.meta.direction) == ("contrast", "maximize", "minimize")
    assert other.best is not None
    assert own.best is not None
    completed = [r.error for r in made.records if r.state.word == "complete" and r.error is not None]
    assert other.best.error == 1 + max(completed)
    assert own.best.error == -max(completed)
    assert curves.curve_lines(other)[0] == "contrast"
    assert not any(r.gradient or r.relative_decrease for r in other.records)
    assert made.by_metric("loss") is made


def test_a_metric_that_no_trial_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is refused with the nearest that there is, in Python and on the command line."""
    with pytest.raises(UsageError, match="did you mean 'contrast'"):
        with_metrics(5).by_metric("contrats")
    assert cli.main(["plot", str(results(tmp_path / "r.h5")), "history", "--metric", "entropi"]) == 2
    assert "'entropy'" in capsys.readouterr().err


def test_plot_by_another_metric(tmp_path: Path) -> None:
    """The figure is written as any other."""
    picture = tmp_path / "drift.svg"
    words = ["plot", str(results(tmp_path / "r.h5")), "history", "--metric", "position_drift", "-o", str(picture)]
    assert cli.main(words) == 0
    assert "position_drift" in picture.read_text(encoding="utf-8")
