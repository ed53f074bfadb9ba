"""What comes after a run, of a sweep: its program is not PtyRAD, its metric no error, its choices no numbers."""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
from pathlib import Path

import pyarrow.parquet
import pytest
import store_cases
import sweep_cases as cases
import yaml
from sweep_cases import said

import ptydask
from ptydask.analysis import report, sweep
from ptydask.config import reading
from ptydask.errors import StoreError
from ptydask.formatting import shell_path
from ptydask.store import Store, files, reader, shard

VALUES = {
    "trainer": "cnn10",
    "lr": 1.584e-4 * 4,
    "net": {"layers": [64, 128], "depth": 3},
    "norm": None,
    "flip": True,
    "note": "1e-5",
}
"""What the best of four trials was given."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four complete trials and a failed one; tests read it only."""
    return cases.packed(tmp_path_factory.mktemp("sweep") / "s.h5")


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    """The same in a folder of its own."""
    copy = tmp_path / "s.h5"
    copy.write_bytes(made.read_bytes())
    return copy


# --- Python -------------------------------------------------------------------------------------------


def test_python_gives_files_command_and_all_parameters(made: Path) -> None:
    """A trial's files are read when asked for; config is complete, labels are the values that they stand for."""
    with ptydask.open(made) as study:
        trial = study.best()
        assert trial.number == 3
        assert {name: file.read() for name, file in trial.artifacts.items()} == cases.artifacts()
        weights = trial.artifacts[f"{cases.RUN}/best_SSIM.pt"]
        assert (weights.size, weights.path) == (len(cases.WEIGHTS), f"{cases.RUN}/best_SSIM.pt")
        assert (trial.command, trial.left_out) == (cases.COMMAND, cases.output(3).left_out)
        assert trial.config == VALUES
        assert study.trial(4).artifacts == {}
        again = pickle.loads(pickle.dumps(trial))
        assert again.command == cases.COMMAND
    with pytest.raises(StoreError, match="was closed"):
        weights.read()


def test_python_says_that_a_sweep_has_no_arrays_and_no_images(made: Path) -> None:
    """Not that they were lost, nor a figure without pictures."""
    with ptydask.open(made) as study:
        for number in (3, 4):
            with pytest.raises(StoreError, match="numbers and files, no arrays"):
                _ = study.trial(number).object_phase
            with pytest.raises(StoreError, match="numbers and files, no arrays"):
                _ = study.trial(number).pixel_size
        with pytest.raises(StoreError, match="ldctbench-train made numbers and files, no images"):
            study.montage()


def test_tables_have_the_metrics_under_their_names(made: Path) -> None:
    """Names with slashes, blanks and parentheses are columns, and can be asked for in a condition."""
    with ptydask.open(made) as study:
        table = study.table()
        assert {cases.METRIC, f"{cases.METRIC} (best)", "loss (train)", "net.layers"} <= set(table.columns)
        assert list(study.query(f"`{cases.METRIC}` > 0.57 and state == 'COMPLETE'").index) == [2, 3]
        assert list(study.by("net.layers").index) == ["[32]", "[64, 128]"]
        assert study.curves()[3].tolist() == [0.3, 0.4, 0.65]


def test_links_by_error_have_the_program_s_names(made: Path) -> None:
    """The best first, which has the largest metric; labels and null are spelt out."""
    with files.open_read_only(made) as file:
        study = file[file.attrs["default"]]
        assert next(iter(study["by_error"])) == (
            "000001 error=0.65 trial=000003 lr=0.0006336 net.layers=[64, 128] norm=None flip=True"
        )
        assert study["table/metrics"]["val%2FSSIM (mean)"][0] == 0.5
        assert study["best"].attrs["number"] == 3


# --- the command line -----------------------------------------------------------------------------------


def test_best_says_all_metrics_and_how_to_get_the_files(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every metric of the best trial, null and bool as the sweep file has them."""
    code, out, _ = said(capsys, "best", made)
    assert code == 0
    lines = [line.split("  ") for line in out.splitlines()]
    assert lines[0] == ["trial 3", "complete", f"{cases.METRIC} 0.650000"]
    words = {line.strip() for line in out.splitlines()}
    assert {"norm        null", "flip        true", "PSNR                    28.0000"} <= words
    assert out.splitlines()[-1] == f"  5 files, 102 kB: ptydask export {shell_path(made)} run --trial 3 DIR"


def test_best_as_json_and_yaml_is_complete(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has metrics and all parameters; YAML is the parameters, nested, texts and numbers as they were."""
    (best,) = json.loads(said(capsys, "best", made, "--format", "json")[1])
    assert best["config"] == VALUES
    assert (best["error"], best["metrics"]["PSNR"], best["params"]["net.layers"]) == (0.65, 28.0, "[64, 128]")
    text = said(capsys, "best", made, "--format", "yaml")[1]
    assert yaml.safe_load(text) == VALUES
    assert "note: '1e-5'" in text


def test_exported_params_are_yaml_with_the_command(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One file: what ran as a comment, each line of it, and the parameters."""
    store = Store.open(path.with_name("lines.h5"), cases.meta())
    store_cases.put(store, cases.record(3), cases.output(3, command="train --text 'two\nlines: [1'"))
    assert said(capsys, "export", store.finish(), "params", path.with_name("p.yaml"))[0] == 0
    text = path.with_name("p.yaml").read_text()
    assert yaml.safe_load(text) == VALUES
    assert text.splitlines()[1:3] == ["# train --text 'two", "# lines: [1'"]


def test_ls_heads_the_metric_with_its_name(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The column is not called error; sorting by it puts the largest first."""
    head, first, *_ = said(capsys, "ls", made, "--sort", cases.METRIC)[1].splitlines()
    assert re.split("  +", head.strip())[2] == cases.METRIC
    assert first.split()[0] == "3"
    by_error = said(capsys, "ls", made, "--sort", "error")[1].splitlines()[1]
    assert by_error == first


def test_show_lists_files_command_and_what_was_left_out(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For a person, and as JSON."""
    text = said(capsys, "show", made, 3)[1]
    assert f"\ncommand\n  {cases.COMMAND}\n" in text
    assert [f"{cases.RUN}/best_SSIM.pt", "102", "kB"] in [line.split() for line in text.splitlines()]
    assert "  core.dump: larger than what is left of engine.outputs_limit\n" in text
    assert "\nlog\n  ... 18 lines before, see --log\n  line 18\n" in text
    assert "net.depth  3\n" in text
    given = json.loads(said(capsys, "show", made, 3, "--format", "json")[1])
    assert given["artifacts"] == [{"path": p, "size": len(c)} for p, c in sorted(cases.artifacts().items())]
    assert (given["command"], given["left_out"]) == (cases.COMMAND, list(cases.output(3).left_out))
    assert (given["config"], given["arrays"]) == (VALUES, [])
    failed = said(capsys, "show", made, 4)[1]
    assert "what went wrong\n  the end of its log\n" in failed


def test_show_says_once_what_a_failed_program_wrote(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The account of what went wrong has command and log's end; a traceback of another kind stands beside them."""
    account = f"The last lines that it wrote:\nline 29\n\nThe command, in /home/me:\n{cases.COMMAND}\n"
    store = Store.open(path.with_name("failed.h5"), cases.meta())
    for number, told in ((0, account), (1, "Traceback (most recent call last):\nOSError: full\n")):
        store_cases.put(store, store_cases.failed(number, traceback=told), cases.output(number))
    made = store.finish()
    text = said(capsys, "show", made, 0)[1]
    assert (text.count("line 29"), text.count(cases.COMMAND)) == (1, 1)
    assert "\nwhat went wrong\n  The last lines that it wrote:\n  line 29\n\n  The command, in /home/me:\n" in text
    other = said(capsys, "show", made, 1)[1]
    assert (other.count("line 29"), other.count(cases.COMMAND), other.count("OSError: full")) == (1, 1, 1)


def test_show_log(made: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it as it was written; 1 where there is none; refused together with a format."""
    assert said(capsys, "show", made, 3, "--log")[:2] == (0, cases.output(3).log)
    store = Store.open(path.with_name("silent.h5"), cases.meta())
    store_cases.put(store, cases.record(3), cases.output(3, log=""))
    assert said(capsys, "show", store.finish(), 3, "--log") == (1, "", "trial 3 has no log\n")
    code, _, err = said(capsys, "show", made, 3, "--log", "--format", "json")
    assert (code, "leave out --format json" in err) == (2, True)


def test_info_says_program_and_constants(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What ran, what was not tuned, and files of the program in place of arrays."""
    text = said(capsys, "info", made)[1]
    assert "program      ldctbench-train\n" in text
    assert "constants    trainer=cnn10 net.depth=3 note=1e-5\n" in text
    assert "4 with files of the program\n" in text
    assert "with arrays" not in text


def test_pack_says_what_it_drops(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a sweep, artifacts."""
    code, out, _ = said(capsys, "pack", path, "--arrays", "best:1")
    assert (code, out.splitlines()[1]) == (0, "artifacts dropped of 3 trials, kept of 1")


@pytest.mark.parametrize("kind", ["model", "resume", "tiff"])
def test_what_is_ptyrad_s_is_refused_in_one_line(made: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """No model file, no pictures: the message names the program and what there is instead."""
    code, out, err = said(capsys, "export", made, kind)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert f"'export {kind}' is of PtyRAD's reconstructions, and this study ran ldctbench-train" in err


def test_montage_of_no_images_is_one_line(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not a line for each trial."""
    code, out, err = said(capsys, "montage", made)
    assert (code, out) == (1, "")
    assert err == f"{made}: no trial has an image: ldctbench-train made numbers and files, no images\n"


def test_csv_and_parquet_have_every_name(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are named after the program's metrics; labels stay texts, null is empty."""
    rows = list(csv.DictReader(io.StringIO(said(capsys, "export", path, "csv", "-")[1])))
    assert rows[3][f"metrics.{cases.METRIC}"] == "0.65"
    assert (rows[3]["params.net.layers"], rows[3]["params.norm"], rows[3]["params.flip"]) == ("[64, 128]", "", "True")
    assert said(capsys, "export", path, "parquet", path.with_name("t.parquet"))[0] == 0
    table = pyarrow.parquet.read_table(path.with_name("t.parquet")).to_pydict()
    assert table[f"metrics.{cases.METRIC}"][:4] == pytest.approx([0.5, 0.55, 0.6, 0.65], abs=1e-15)
    assert table["params.net.layers"][3] == "[64, 128]"
    curves = list(csv.DictReader(io.StringIO(said(capsys, "export", path, "csv", "-", "--curves")[1])))
    assert [float(row["step"]) for row in curves[:3]] == [0, 1000, 2000]


# --- the report --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_report_is_of_a_sweep(made: Path) -> None:
    """No images, steps instead of iterations, constants, command and files; ranges in the sweep's words."""
    with reader.open(made) as results:
        page = report.render(results)
    data = {}
    for name in ("study", "columns", "trials"):
        text = page.partition(f'id="data-{name}">')[2].partition("</script>")[0]
        data[name] = json.loads(text)
    study = data["study"]
    assert (study["images"], study["step"], study["ranks"]) == (False, "step", [3, 2, 1, 0])
    assert ["Program", "ldctbench-train"] in study["search"]
    assert study["constants"] == [["trainer", "cnn10"], ["net.depth", "3"], ["note", "1e-5"]]
    assert [one["range"] for one in study["tuned"]] == [
        "1e-05 to 0.01, logarithmic",
        "one of [64, 128], [32]",
        "one of null, batch",
        "one of true, false",
    ]
    columns = {column["key"]: column for column in data["columns"]}
    assert columns["error"]["label"] == cases.METRIC
    assert columns["steps"]["label"] == "last step"
    assert [columns[f"params.{name}"]["null"] for name in ("norm", "flip")] == [True, False]
    trial = data["trials"]["3"]
    assert (trial["command"], dict(trial["artifacts"])[f"{cases.RUN}/best_SSIM.pt"]) == (cases.COMMAND, 102400)


def test_ranges_that_optuna_does_not_know(tmp_path: Path) -> None:
    """Weighted choices and quantile distributions are told as they are drawn."""
    space = {
        "a": {
            "name": "CategoricalDistribution",
            "attributes": {"choices": [None, "x"]},
            "drawn": {"weights": [0.25, 0.75]},
        },
        "b": {
            "name": "FloatDistribution",
            "attributes": {"step": None, "low": -3.0, "high": 3.0, "log": False},
            "drawn": {"family": "normal", "a": 0.0, "b": 1.0, "q": None},
        },
        "c": {"name": "Unknown", "attributes": {}},
    }
    from ptydask.analysis.data import StudyData
    from ptydask.analysis.report.collect import tuned_parameters

    found = {
        one["name"]: one for one in tuned_parameters(StudyData(cases.meta(search_space_json=json.dumps(space)), ()))
    }
    assert found["a"]["range"] == "one of null (25 %), x (75 %)"
    assert found["b"]["range"].startswith("normal, mu 0, sigma 1")
    assert (found["b"]["low"], found["b"]["high"]) == (-3.0, 3.0)
    assert "c" not in found or found["c"]["range"] == ""


# --- pieces -------------------------------------------------------------------------------------------------


def test_values_need_every_tuned_parameter() -> None:
    """A trial that lacks one is an error in one line, and a study without a configuration has the tuned ones alone."""
    with pytest.raises(StoreError, match="trial 0 has no value of flip"):
        sweep.program_values(cases.meta(), cases.record(0, params={}))
    assert sweep.program_values(cases.meta(config_json="{}"), cases.record(0, params={"x": 1})) == {"x": 1}


@pytest.mark.parametrize("text", ["1e-5", "1e5", "nan", "inf", "0x1F", "1_000", "yes", "null", "~", "- a", "", " x"])
def test_yaml_keeps_texts_texts(tmp_path: Path, text: str) -> None:
    """YAML 1.1, and ptydask's own reading of it, give back a text for a text."""
    written = sweep.yaml_text({"a": text, "b": 1e-05, "c": [1, 2.5, None, True]})
    assert yaml.safe_load(written) == {"a": text, "b": 1e-05, "c": [1, 2.5, None, True]}
    (tmp_path / "a.yaml").write_text(written, encoding="utf-8")
    assert reading.read(tmp_path / "a.yaml")[1]["a"] == text


def test_a_trial_s_own_file_is_read_the_same(tmp_path: Path) -> None:
    """Before the study is packed, too: show finds command and files in the trial's own file."""
    store = Store.open(tmp_path / "s.h5", cases.meta())
    store.refresh(force=True)
    written = shard.write(
        store.folder, cases.record(0), cases.output(0), store.meta.keep, direction="maximize", metric=cases.METRIC
    )
    with reader.open(tmp_path / "s.h5") as results:
        assert results.trial(0).artifacts["history.jsonl"].read() == cases.artifacts()["history.jsonl"]
    assert written.lost == ""
    store.close()
