"""Metrics of one's own: functions that are given a finished reconstruction, on the worker."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_cases import DX, NEVER, PIXELS, SCAN, SLOT, STEP, go_on, params, plan, trial, write_patterns

import ptydask
from ptydask import config, engines
from ptydask.analysis import dataframe
from ptydask.cli import formats, where
from ptydask.distributions import FloatRange
from ptydask.driver.confirmation import read_plan
from ptydask.driver.provenance import as_of_a_confirmation, compare_data, study_meta
from ptydask.engines import TrialFailure
from ptydask.engines.ptyrad import own_metrics, release
from ptydask.errors import ConfigError
from ptydask.model import ComponentSpec, Image, KeepOptions, Quantity, SourceFile, StudyPlan, TrialOutput
from ptydask.reconstructed_trial import ReconstructedTrial, assemble
from ptydask.space.metrics import METRICS

Write = Callable[..., StudyPlan]
SHARPNESS = """
    import numpy as np

    def sharpness(trial):
        return np.mean(np.hypot(*np.gradient(trial.image.data, trial.pixel_size)))
"""


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """What a test imports is gone after it."""
    before, path = set(sys.modules), sys.path[:]
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("quality", "lab") or name.startswith("ptydask_callable_"):
            del sys.modules[name]
    sys.path[:] = path


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """A plan whose metrics are functions of ``quality.py`` in the working directory."""

    def write(source: str = SHARPNESS, *, metric: str = "loss", given: Any = None, **metrics: str) -> StudyPlan:
        (tmp_path / "quality.py").write_text(textwrap.dedent(source))
        source_file = SourceFile(tmp_path / "params" / "tiny.yaml", "", "yaml")
        made = plan(given or {}, metric=metric, source=source_file)
        return replace(made, own_metrics=metrics or {"sharpness": "quality:sharpness"})

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").mkdir()
    return write


def finished() -> TrialOutput:
    """What the engine gives of a trial, made up."""
    y, x = DX * np.arange(2, 6), DX * np.arange(1, 6)
    arrays = {
        "object_phase": Quantity(np.ones((1, 2, 9, 9), np.float32)),
        "object_amplitude": Quantity(np.ones((1, 2, 9, 9), np.float32)),
        "probe": Quantity(np.ones((2, 4, 4), np.complex64)),
        "positions": Quantity(np.zeros((6, 2))),
        "crop_positions": Quantity(np.zeros((6, 2), np.int32)),
        "object_tilts": Quantity(np.zeros((1, 2), np.float32)),
        "slice_thickness": Quantity(np.array(5.0, np.float32)),
    }
    facts = {"pixel_size": DX, "wavelength": 0.04, "length_unit": "angstrom", "iterations": 3}
    image = Image(np.arange(20.0).reshape(4, 5), y, x, "rad", "angstrom", "Phase")
    metrics = {"loss": 0.5, "contrast": 0.1}
    return TrialOutput(metrics, {"step": [1.0]}, arrays=arrays, image=image, attributes=facts, log="began\n")


def measure(study: StudyPlan, output: TrialOutput | None = None) -> TrialOutput:
    functions = own_metrics.OwnMetrics(own_metrics.check(study))
    try:
        return functions.add_to(output or finished(), trial({"dz": 5.0}, number=4))
    finally:
        functions.close()


def failure(study: StudyPlan) -> TrialFailure:
    with pytest.raises(TrialFailure) as caught:
        measure(study)
    return caught.value


# --- what a function is given ------------------------------------------------------------------------------


def test_a_function_is_given_the_trial(written: Write) -> None:
    """Numbers, values and arrays by their names; the scanned region is where the image lies on the object."""
    output = measure(
        written(
            """
        import ptydask

        def check(trial):
            assert isinstance(trial, ptydask.ReconstructedTrial)
            assert (trial.number, trial.params) == (4, {"dz": 5.0})
            assert (trial.pixel_size, trial.slice_thickness, trial.wavelength) == (0.25, 5.0, 0.04)
            assert (trial.length_unit, trial.metrics["contrast"]) == ("angstrom", 0.1)
            assert trial.attributes["iterations"] == 3
            assert trial.scan_indices.tolist() == [0, 1, 2, 3, 4, 5]
            assert trial.scanned_region == (slice(2, 6), slice(1, 6))
            assert trial.object_phase[(..., *trial.scanned_region)].shape == (1, 2, 4, 5)
            return trial.image.data.max()
        """,
            peak="quality:check",
        )
    )
    assert output.metrics == {"loss": 0.5, "contrast": 0.1, "peak": 19.0}
    assert output.attributes["own_metrics_seconds"] > 0  # type: ignore[operator]


def test_what_is_stored_cannot_be_changed(written: Write) -> None:
    """Arrays are read-only; a copy is not."""
    study = written("""
        def spoil(trial):
            trial.object_phase -= trial.object_phase.min()

        def image(trial):
            trial.image.data[0] = 0

        def copied(trial):
            phase = trial.object_phase.copy()
            phase -= phase.min()
            return phase.max()
    """)
    for name in ("spoil", "image"):
        assert "read-only" in str(failure(replace(study, own_metrics={name: f"quality:{name}"})))
    output = measure(replace(study, own_metrics={"copied": "quality:copied"}))
    assert output.metrics["copied"] == 0
    assert output.arrays["object_phase"].data.flags.writeable


def test_several_metrics_of_several_kinds_of_number(written: Write) -> None:
    """Functions of one file, of a package, and what NumPy and torch call a number."""
    study = written("""
        import numpy as np
        import torch

        def whole(trial):
            return 3

        def array(trial):
            return np.float32([0.5])

        def tensor(trial, power=2):
            return torch.tensor(3.0) ** power

        def nothing(trial):
            return float("nan")
    """)
    names = {name: f"quality.py:{name}" for name in ("whole", "array", "tensor", "nothing")}
    output = measure(replace(study, own_metrics={**names, "other": "quality:whole"}))
    assert [output.metrics[name] for name in ("whole", "array", "tensor", "other")] == [3.0, 0.5, 9.0, 3.0]
    assert np.isnan(output.metrics["nothing"])


def test_what_it_prints_and_draws(written: Write) -> None:
    """Printed text and warnings end the trial's log; random numbers follow the seed and harm nobody else's."""
    study = written(
        """
        import warnings
        import numpy as np

        def drawn(trial):
            print("looked at", trial.number)
            warnings.warn("thin ice", stacklevel=1)
            return np.random.rand()
    """,
        drawn="quality:drawn",
    )
    np.random.seed(1)
    with pytest.warns(UserWarning, match="thin ice"):
        first = measure(study)
    after = np.random.rand()
    with pytest.warns(UserWarning, match="thin ice"):
        assert measure(study).metrics == first.metrics
    assert after == np.random.RandomState(1).rand()
    assert first.log.startswith("began\nlooked at 4\n")


def test_a_trial_without_own_metrics_is_as_it_was() -> None:
    """Nothing is added, not even seconds."""
    output, study = finished(), plan({})
    assert own_metrics.check(study) is study
    assert measure(study, output) is output


# --- where functions are looked for ------------------------------------------------------------------------


def test_modules_beside_the_params_file_are_importable(written: Write, tmp_path: Path) -> None:
    """The working directory first, then the folder of ptydask's own file, then that of the params file."""
    study = written()
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / "params" / "lab.py").write_text("def value(trial): return 1")
    (tmp_path / "params" / "quality.py").write_text("def sharpness(trial): return 1")
    (own / "lab2.py").write_text("def value(trial): return 2")
    study = replace(study, own_file=SourceFile(own / "tune.yaml", "", "yaml"))
    checked = own_metrics.check(
        replace(study, own_metrics={"a": "lab:value", "b": "lab2.py:value", "c": "quality:sharpness"})
    )
    assert checked.function_folders == (str(tmp_path), str(own), str(tmp_path / "params"))
    assert checked.details == (
        ("metric", f"a: value in {tmp_path / 'params' / 'lab.py'}"),
        ("metric", f"b: value in {own / 'lab2.py'}"),
        ("metric", f"c: sharpness in {tmp_path / 'quality.py'}"),
    )
    os.chdir(own)  # a worker may be anywhere
    path = sys.path[:]
    functions = own_metrics.OwnMetrics(checked)
    metrics = functions.add_to(finished(), trial()).metrics
    assert (metrics["a"], metrics["b"]) == (1, 2)
    functions.close()
    assert sys.path == path


def test_it_runs_where_the_run_was_started(written: Write, tmp_path: Path) -> None:
    """A file beside it is opened by its name; the worker's own directory is as it was."""
    study = own_metrics.check(
        written(
            """
        from pathlib import Path

        def reference(trial):
            return float(Path("reference.txt").read_text())
    """,
            off="quality:reference",
        )
    )
    (tmp_path / "reference.txt").write_text("7")
    os.chdir(tmp_path / "params")
    assert own_metrics.OwnMetrics(study).add_to(finished(), trial()).metrics["off"] == 7
    assert Path.cwd() == tmp_path / "params"
    elsewhere = replace(study, function_folders=("/nowhere", *study.function_folders))
    with pytest.raises(TrialFailure, match="FileNotFoundError"):
        own_metrics.OwnMetrics(elsewhere).add_to(finished(), trial())


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("sharpness", "quality:sharpnes", "did you mean 'sharpness'"),
        ("sharpness", "qualty:sharpness", "no module 'qualty'"),
        ("sharpness", "nowhere/quality.py:sharpness", "no such file"),
        ("sharpness", "quality:two", r"takes \(trial, reference\); it must take \(trial\)$"),
        ("sharpness", "quality:report", r"it must take \(trial\)$"),
        ("sharpness", "quality:Kind", "is a class"),
        ("sharpness", "quality", "names no function"),
        ("sharpness", "quality:1", "no name of a function"),
        ("contrast", "quality:sharpness", "taken"),
        ("error", "quality:sharpness", "taken"),
        ("seconds", "quality:sharpness", "taken"),
        ("my sharpness", "quality:sharpness", "no name for a metric"),
        ("a/b", "quality:sharpness", "no name for a metric"),
        ("lambda", "quality:sharpness", "no name for a metric"),
        ("dz", "quality:sharpness", "taken.*tuned.*my_dz"),
    ],
)
def test_mistakes_are_noticed_before_the_run(name: str, text: str, words: str, written: Write) -> None:
    """Key, value and rule; nothing of the module is run."""
    study = written(
        """
        raise SystemExit("imported")
        def sharpness(trial): ...
        def two(trial, reference): ...
        def report(trial, *, report): ...
        class Kind: ...
    """,
        **{name: text},
    )
    with pytest.raises(ConfigError, match=words) as caught:
        own_metrics.check(replace(study, space={"dz": FloatRange(3.0, 9.0)}))
    assert (caught.value.key, caught.value.value) == (f"ptydask.metrics.{name}", text)


def test_no_metric_has_the_name_of_a_column(written: Write) -> None:
    """Of any table: csv, pandas, groups, conditions; with every metric of PtyRAD's trials."""
    columns = {*where.FACTS, *formats.trial_columns([]), *dataframe.LEADING, *dataframe.FACTS, *dataframe.CONFIRMED}
    columns |= {*dataframe.GROUPED, *METRICS, "confirmed", "step", "trial", "null"}
    study = written()
    for name in columns:
        with pytest.raises(ConfigError, match="taken"):
            own_metrics.check(replace(study, own_metrics={name: "quality:sharpness"}))


def test_a_module_that_cannot_be_imported_ends_the_run(written: Write) -> None:
    """The worker says so before its first trial."""
    study = own_metrics.check(written("import nothing_of_that_name\ndef sharpness(trial): return 1"))
    with pytest.raises(ConfigError, match=r"ptydask\.metrics\.sharpness.*ModuleNotFoundError.*quality\.py:1"):
        own_metrics.OwnMetrics(study)


# --- a metric that is tuned --------------------------------------------------------------------------------


def test_a_tuned_metric_leaves_no_pruner(written: Write) -> None:
    """It is known at a trial's end only; as a metric beside the tuned one it changes nothing."""
    pruner = ComponentSpec("HyperbandPruner")
    tuned = own_metrics.check(replace(written(metric="sharpness"), pruner=pruner))
    assert tuned.pruner is None
    assert ["sharpness" in notice for notice in tuned.notices] == [True]
    beside = own_metrics.check(replace(written(), pruner=pruner))
    assert (beside.pruner, beside.notices) == (pruner, ())


def test_the_file_names_it(tmp_path: Path) -> None:
    """In the section ``ptydask``: a text, or with the direction; only with that it can be tuned."""
    tune = {"scale": {"state": True, "suggest": "float", "kwargs": {"low": 0.8, "high": 1.2}}}
    path = tmp_path / "params.json"

    def load(**section: Any) -> StudyPlan:
        hyper = {"if_hypertune": True, "tune_params": tune}
        path.write_text(json.dumps({"init_params": {}, "hypertune_params": hyper, "ptydask": section}))
        return config.load(path)

    both = {"function": "lab:sharpness", "direction": "maximize"}
    study = load(metrics={"a": "lab:a", "sharpness": both}, error_metric="sharpness")
    assert (study.metric, study.direction) == ("sharpness", "maximize")
    assert study.own_metrics == study_meta(study).own_metrics == {"a": "lab:a", "sharpness": "lab:sharpness"}
    for section, key in (
        ({"metrics": {"a": "lab:a"}, "error_metric": "a"}, r"ptydask\.metrics\.a\.direction"),
        ({"metrics": {"a": "lab:a"}, "error_metric": "b"}, r"ptydask\.error_metric"),
        ({"metrics": {"a": "lab"}}, r"ptydask\.metrics\.a"),
        ({"metrics": {"a": {"function": "lab:a", "direction": "up"}}}, r"direction"),
        ({"metrics": ["lab:a"]}, r"ptydask\.metrics"),
    ):
        with pytest.raises(ConfigError, match=key):
            load(**section)


# --- what goes wrong in a trial ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('no lattice\\nhere')", r"raised ValueError: no lattice here \(.*quality\.py:3\)$"),
        ("return trial.no_such_array", r"raised AttributeError: .*no_such_array"),
        ("return None", r"returned a NoneType; it must be a number$"),
        ("return 'sharp'", r"returned a str; it must be a number$"),
        ("return trial.image.data", r"returned a ndarray; it must be a number$"),
        ("return {'sharpness': 1.0}", r"returned a dict"),
        ("return 1 + 2j", r"returned a complex"),
        ("import sys; sys.exit(3)", r"called sys\.exit\(3\)$"),
        ("return float('nan')", r"returned nan; a metric that is tuned must be finite$"),
        ("return float('-inf')", r"returned -inf; a metric that is tuned must be finite$"),
    ],
)
def test_a_function_that_fails_fails_its_trial(body: str, words: str, written: Write) -> None:
    """In one line that names it; what the trial has come to is kept, also the metrics before it."""
    source = f"""
        def sharpness(trial):
            {body}

        def fine(trial):
            print("fine")
            return 1
    """
    study = written(source, metric="sharpness", fine="quality:fine", sharpness="quality:sharpness")
    failed = failure(study)
    assert str(failed).startswith("metric sharpness: quality:sharpness ")
    assert len(str(failed).splitlines()) == 1
    assert re.search(words, str(failed))
    assert ("Traceback" in failed.detail) is ("returned" not in words)
    assert failed.output is not None
    assert failed.output.metrics == {**finished().metrics, "fine": 1.0}
    assert failed.output.arrays.keys() == finished().arrays.keys()
    assert failed.output.log == "began\nfine\n"


def test_a_trial_that_kept_too_little() -> None:
    """What is missing, by its name."""
    output = finished()
    arrays = {name: quantity.data for name, quantity in output.arrays.items()}

    def build(without: str = "", image: Image | None = output.image) -> ReconstructedTrial:
        kept = {name: data for name, data in arrays.items() if name != without}
        facts = {name: value for name, value in output.attributes.items() if name != without}
        return assemble(4, {}, kept, image, output.metrics, facts)

    assert build().probe.shape == (2, 4, 4)
    for name in ("probe", "slice_thickness", "pixel_size"):
        with pytest.raises(LookupError, match=name):
            build(without=name)
    with pytest.raises(LookupError, match="image"):
        build(image=None)


# --- with PtyRAD -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release.installed()
    return write_patterns(tmp_path_factory.mktemp("data"))


@pytest.mark.ptyrad
def test_a_reconstruction_is_measured(data: Path, written: Write, tmp_path: Path) -> None:
    """With shapes, units and axes as documented; also where no arrays are kept, and the same in each attempt."""
    source = f"""
        import numpy as np

        def shapes(trial):
            side = trial.object_phase.shape[-1]
            assert trial.object_phase.shape == trial.object_amplitude.shape == (1, 2, side, side)
            assert trial.object_phase.dtype == np.float32
            assert trial.probe.shape == (2, {PIXELS}, {PIXELS}) and trial.probe.dtype == np.complex64
            assert trial.positions.shape == trial.crop_positions.shape == ({SCAN**2}, 2)
            assert trial.object_tilts.shape == (1, 2)
            assert len(trial.scan_indices) == {SCAN**2}
            assert abs(trial.slice_thickness - trial.params["dz"]) < 1e-6
            assert trial.pixel_size == {DX} and trial.length_unit == "angstrom"
            assert abs(trial.wavelength - 0.04176) < 1e-4
            summed = trial.object_phase[0].sum(0)[trial.scanned_region]
            np.testing.assert_array_equal(summed, trial.image.data)
            span = np.ptp(trial.positions[:, 0])
            assert abs(span - {(SCAN - 1) * STEP}) < 0.5
            np.testing.assert_allclose(trial.image.y[-1] - trial.image.y[0], span, atol=0.5)
            return np.random.rand()
    """
    given = params(data, {"init_params.obj_Nlayer": 2, "recon_params.output_dir": str(tmp_path)})
    study = written(source, given=given, shapes="quality.py:shapes")
    session = engines.get("ptyrad").open(own_metrics.check(study), SLOT)
    plain = engines.get("ptyrad").open(replace(study, own_metrics={}), SLOT)
    outcome = session.run(trial({"dz": 4.0}), go_on, NEVER)
    without = plain.run(trial({"dz": 4.0}), go_on, NEVER)
    assert outcome.metrics == {**without.metrics, "shapes": outcome.metrics["shapes"]}
    for name, quantity in without.arrays.items():
        np.testing.assert_array_equal(outcome.arrays[name].data, quantity.data)
    facts = session.provenance()
    assert facts["metric shapes file"] == str(tmp_path / "quality.py")
    assert "shapes" not in outcome.curve
    numbers_only = engines.get("ptyrad").open(replace(own_metrics.check(study), keep=KeepOptions(arrays=False)), SLOT)
    assert numbers_only.run(trial({"dz": 4.0}), go_on, NEVER).metrics == outcome.metrics
    for opened in (session, plain, numbers_only):
        opened.close()


def test_a_function_that_changed_is_noticed(written: Write, tmp_path: Path) -> None:
    """The metric is named, and whose values the earlier trials have; a moved source is no other one."""
    functions = own_metrics.OwnMetrics(own_metrics.check(written()))
    facts = dict(functions.provenance())
    meta = replace(study_meta(written()), provenance=facts)
    assert compare_data(meta, facts, file=tmp_path) == []
    assert compare_data(meta, {**facts, "metric sharpness file": "/b/q.py"}, file=tmp_path) == []
    assert compare_data(replace(meta, provenance={}), facts, file=tmp_path) == []
    (notice,) = compare_data(meta, {**facts, "metric sharpness sha256": "other"}, file=tmp_path)
    for words in ("metric sharpness", str(tmp_path / "quality.py"), "earlier trials", "another name"):
        assert words in notice


def test_trials_tuned_by_a_function_that_changed_are_not_comparable(written: Write, tmp_path: Path) -> None:
    """As those of another metric are not, and it is said what to do; a function beside it is a notice."""
    study = written(metric="sharpness", sharpness="quality:sharpness", flat="quality:sharpness")
    facts = dict(own_metrics.OwnMetrics(own_metrics.check(study)).provenance())
    meta = replace(study_meta(study), provenance=facts)
    assert compare_data(meta, facts, file=tmp_path) == []
    assert len(compare_data(meta, {**facts, "metric flat sha256": "other"}, file=tmp_path)) == 1
    with pytest.raises(ConfigError, match=r"quality\.py") as caught:
        compare_data(meta, {**facts, "metric sharpness sha256": "other"}, file=tmp_path)
    assert (caught.value.key, caught.value.value) == ("ptydask.metrics.sharpness", "quality:sharpness")
    assert "--results NEW.h5" in caught.value.hint
    assert "--results" not in str(as_of_a_confirmation(caught.value))


@pytest.mark.ptyrad
def test_a_confirmation_finds_the_functions(data: Path, written: Write, tmp_path: Path) -> None:
    """Repeats of a trial are measured by the same functions, wherever workers are, which import what its own did."""
    given = params(data, {"recon_params.output_dir": str(tmp_path)})
    repeated = {"study": "s", "engine": "ptyrad", "config": given, "space": "{}", "trials": {"0": {}}}
    checked = engines.get("repeat").validate(replace(written(given=repeated), engine="repeat"))
    assert checked.function_folders == (str(tmp_path), str(tmp_path / "params"))
    assert checked.imports
    meta = study_meta(replace(written(given=given), own_file=SourceFile(tmp_path / "own" / "tune.yaml", "", "yaml")))
    inner = read_plan(meta, (), tmp_path / "results.h5", ())
    assert own_metrics.check(inner).function_folders[1:] == (str(tmp_path / "own"), str(tmp_path / "params"))


def test_a_confirmation_from_another_directory_finds_the_functions(
    written: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the study was started comes first, also for a repeat."""
    meta = study_meta(written(given={}))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    checked = own_metrics.check(read_plan(meta, (), elsewhere / "results.h5", ()))
    assert checked.function_folders[:2] == (str(tmp_path), str(elsewhere))


def test_a_confirmation_is_told_where_a_function_is_by_now(written: Write, tmp_path: Path) -> None:
    """It does not become a setting of PtyRAD's; what the study does not have, or is no function, is refused."""
    meta = study_meta(written())
    moved = read_plan(meta, (), tmp_path / "r.h5", [("ptydask.metrics.sharpness", "gone.py:sharpness")])
    assert moved.own_metrics == {"sharpness": "gone.py:sharpness"}
    assert moved.config == read_plan(meta, (), tmp_path / "r.h5", ()).config
    for value in ({"function": "gone.py:sharpness"},):
        assert read_plan(meta, (), tmp_path, [("ptydask.metrics.sharpness", value)]).own_metrics == moved.own_metrics
    for key, value in (
        ("ptydask.metrics.sharpnes", "gone.py:sharpness"),
        ("ptydask.metrics.sharpness", 3),
        ("ptydask.held_out.gain", 2),
        ("ptydask.metrics", {}),
        ("ptydask", {}),
    ):
        with pytest.raises(ConfigError) as caught:
            read_plan(meta, (), tmp_path / "r.h5", [(key, value)])
        assert caught.value.key == key


@pytest.mark.ptyrad
@pytest.mark.slow
def test_a_study_is_tuned_by_it(data: Path, written: Write, tmp_path: Path) -> None:
    """From the params file to the best trial: values, ranking, table, and a trial as its function is given it."""
    written("""
        import numpy as np

        def sharpness(trial):
            return np.mean(np.hypot(*np.gradient(trial.image.data, trial.pixel_size)))

        def picky(trial):
            return 1 / 0 if trial.params["dz"] > 7 else float("inf")
    """)
    given = params(data, {"recon_params.output_dir": str(tmp_path / "out"), "init_params.obj_Nlayer": 2})
    given["hypertune_params"] |= {
        "tune_params": {"dz": {"state": True, "suggest": "cat", "kwargs": {"choices": [3.0, 6.0, 9.0]}}},
        "pruner_params": {"name": "MedianPruner", "configs": {}},
        "sampler_params": {"name": "GridSampler", "configs": {}},
    }
    functions = {"sharpness": {"function": "quality:sharpness", "direction": "maximize"}, "picky": "quality.py:picky"}
    given["ptydask"] = {"error_metric": "sharpness", "metrics": functions}
    path = tmp_path / "params" / "tiny.json"
    path.write_text(json.dumps(given))
    study = ptydask.run(path, workers=1, trials=3, progress=False)
    assert (study.meta.metric, study.meta.direction) == ("sharpness", "maximize")
    states = {t.params["dz"]: str(t.state) for t in study.trials()}
    assert states == {3.0: "COMPLETE", 6.0: "COMPLETE", 9.0: "FAIL"}
    table = study.table()
    assert table["sharpness"].notna().all()
    best = study.best()
    assert best.error == best.metrics["sharpness"] == table.loc[table.state == "COMPLETE", "sharpness"].max()
    assert np.isinf(best.metrics["picky"])
    phase = best.reconstructed().image
    again = np.mean(np.hypot(*np.gradient(phase.data, best.pixel_size)))
    assert best.error == pytest.approx(float(again), rel=1e-6)
    failed = next(t for t in study.trials() if t.params["dz"] == 9.0)
    assert failed.message.startswith("metric picky: quality.py:picky raised ZeroDivisionError")
    assert failed.metrics["loss"] > 0
    assert study.meta.own_metrics == {"sharpness": "quality:sharpness", "picky": "quality.py:picky"}
