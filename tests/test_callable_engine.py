"""Engine ``callable``: a function as a trial, what it reports, how it is stopped, and what is wrong with it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_cases import NEVER, SLOT, go_on, plan, trial

import ptydask
from ptydask import engines
from ptydask import open as ptydask_open
from ptydask.engines import TrialFailure
from ptydask.errors import ConfigError
from ptydask.model import StudyPlan, TrialOutput
from ptydask.trial import eviction

Write = Callable[..., StudyPlan]


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """What a test imports is gone after it."""
    before, path = set(sys.modules), sys.path[:]
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("work", "train", "deep") or name.startswith("ptydask_callable_"):
            del sys.modules[name]
    sys.path[:] = path


@pytest.fixture
def written(tmp_path: Path) -> Write:
    """A plan for a function of the given source: ``written("def fit(params): return 1.0")``."""

    def write(source: str, callable_: object = "work.py:fit", direction: str = "minimize", **engine: Any) -> StudyPlan:
        (tmp_path / "work.py").write_text(textwrap.dedent(source))
        config = {
            "program": None,
            "command": [],
            "parameters": [
                {"name": "lr", "path": ["lr"]},
                {"name": "model.depth", "path": ["model", "depth"], "value": 3},
                {"name": "model.sizes", "path": ["model", "sizes"], "labels": {"[8, 8]": [8, 8], "[4]": [4]}},
            ],
            "directory": str(tmp_path),
            "engine": {"callable": callable_, "objective": "last", "directory": ".", **engine},
        }
        return plan(config, engine="callable", metric="loss", direction=direction)

    return write


class Ask:
    """A report that keeps what it is told, and says to stop at a given value."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.told = stop_at, list[tuple[int, dict[str, float]]]()
        self.gradients: list[dict[str, float]] = []

    def __call__(self, step: int, metrics: Mapping[str, float], gradient: Mapping[str, float] | None = None) -> bool:
        self.told.append((step, dict(metrics)))
        self.gradients.append(dict(gradient or {}))
        return step == self.stop_at


VALUES = {"lr": 0.5, "model.sizes": "[8, 8]"}


def run(study: StudyPlan, report: Any = go_on) -> TrialOutput:
    session = engines.get("callable").open(study, SLOT)
    try:
        return session.run(trial(VALUES), report, NEVER)
    finally:
        session.close()


def failure(study: StudyPlan, report: Any = go_on) -> TrialFailure:
    with pytest.raises(TrialFailure) as caught:
        run(study, report)
    return caught.value


def test_parameters_come_nested(written: Write) -> None:
    """Constants, tuned values and labelled ones reach the function as one dict; changing it harms no later trial."""
    study = written("""
        def fit(params):
            assert params == {"lr": 0.5, "model": {"depth": 3, "sizes": [8, 8]}}, params
            params["model"]["sizes"].append(1)
            return 1
    """)
    session = engines.get("callable").open(study, SLOT)
    for _ in range(2):
        assert session.run(trial(VALUES), go_on, NEVER).metrics["loss"] == 1.0


@pytest.mark.parametrize(
    ("returns", "metrics"),
    [
        ("None", {"loss": 2.0, "acc": 0.5, "loss (best)": 1.0}),
        ("7", {"loss": 7.0, "acc": 0.5, "loss (best)": 1.0}),
        ("{'loss': 0.5, 'acc': 0.9, 'seconds': 3}", {"loss": 0.5, "acc": 0.9, "seconds": 3.0, "loss (best)": 0.5}),
        ("{'seconds': 3}", {"loss": 2.0, "acc": 0.5, "seconds": 3.0, "loss (best)": 1.0}),
    ],
)
def test_what_it_returns(written: Write, returns: str, metrics: dict[str, float]) -> None:
    """A number is the metric, a mapping some of the metrics, None leaves what was reported last."""
    source = f"""
        def fit(params, report):
            report(10, loss=1.0, acc=0.25)
            report(20, loss=2.0, acc=0.5)
            return {returns}
    """
    assert run(written(source)).metrics == metrics


@pytest.mark.parametrize(("direction", "best"), [("minimize", 1.0), ("maximize", 3.0)])
def test_the_best_value_on_request(written: Write, direction: str, best: float) -> None:
    """``objective: best``: the metric is the best value in its direction, and the last one is stored beside it."""
    source = """
        def fit(params, report):
            for step, loss in enumerate([2.0, 1.0, 3.0, 2.5], 1):
                report(step, loss)
    """
    found = run(written(source, direction=direction, objective="best"))
    assert found.metrics == {"loss": best, "loss (last)": 2.5}


def test_steps_of_its_own(written: Write) -> None:
    """The pruner hears the number of finite values; the curve has the function's steps and what every row has."""
    source = """
        def fit(params, report):
            report(0, train=9.0)
            report(100, loss=3.0, train=5.0)
            report(200, train=4.0)
            report(200, loss=float("nan"))
            report(300, loss=2.0, train=3.0, extra=1.0)
            report(loss=1.5, train=2.5)
    """
    ask = Ask()
    output = run(written(source), ask)
    assert [(step, metrics["loss"]) for step, metrics in ask.told] == [(1, 3.0), (2, 2.0), (3, 1.5)]
    assert list(output.curve) == ["step", "loss", "train"]
    assert list(output.curve["step"]) == [100, 200, 300, 5]
    assert list(output.curve["train"]) == [5.0, 4.0, 3.0, 2.5]
    assert [str(value) for value in output.curve["loss"]] == ["3.0", "nan", "2.0", "1.5"]
    assert all(len(column) == 4 for column in output.curve.values())


def test_values_of_one_step_are_one(written: Write) -> None:
    """As in W&B, and for a program that reports: the later one is the step's, and no further one for the pruner."""
    ask = Ask()
    output = run(written("def fit(params, report): report(1, 3.0); report(1, 2.0); report(2, 1.0)"), ask)
    assert [(step, metrics["loss"]) for step, metrics in ask.told] == [(1, 3.0), (2, 1.0)]
    assert output.curve == {"step": [1, 2], "loss": [2, 1]}


def test_a_function_that_only_returns(written: Write) -> None:
    """The value is the metric, its own best, and all of the curve."""
    output = run(written("def fit(params): return params['lr']"))
    assert (output.metrics, output.curve) == ({"loss": 0.5, "loss (best)": 0.5}, {"step": [1], "loss": [0.5]})


def test_numbers_of_other_packages(written: Write) -> None:
    """NumPy's and torch's scalars are numbers, with a gradient too; what is no number is named and left out."""
    pytest.importorskip("torch")
    source = """
        import numpy as np, torch

        def fit(params, report):
            report(np.int64(5), np.float32(0.5))
            report(torch.tensor(6), loss=torch.tensor([0.25], requires_grad=True), weights=np.zeros(3), name="a")
            return {"loss": np.array(0.125), "ok": True, "model": object()}
    """
    output = run(written(source))
    assert output.metrics == {"loss": 0.125, "loss (best)": 0.125, "ok": 1.0}
    assert list(output.curve["step"]) == [5, 6]
    assert output.left_out == (
        "weights: a ndarray, not a number",
        "name: a str, not a number",
        "model: a object, not a number",
    )


def test_names_without_end(written: Write) -> None:
    """A function that makes up a name at each step fills neither the memory nor the results."""
    source = """
        def fit(params, report):
            for step in range(3000):
                report(step, {f"n{step}": 1.0, f"t{step}": "text", "loss": 1.0})
    """
    output = run(written(source))
    assert len(output.metrics) < 1010
    assert len(output.left_out) == 20


PRUNED = """
    import ptydask

    def fit(params, report):
        try:
            for step in range(1, 10):
                report(step, loss=10.0 - step)
        finally:
            print("tidied up")
        return 0.0
"""


def test_pruning_ends_the_function_where_it_reports(written: Write) -> None:
    """``report`` raises; finally blocks run; the metrics are those of the last report."""
    ask = Ask(stop_at=3)
    output = run(written(PRUNED), ask)
    assert [step for step, _ in ask.told] == [1, 2, 3]
    assert output.metrics == {"loss": 7.0, "loss (best)": 7.0}
    assert output.log == "tidied up\n"


@pytest.mark.parametrize(
    "caught",
    ["except ptydask.Pruned: return 0.0", "except BaseException: return 0.0", "except BaseException: continue"],
)
def test_a_function_that_swallows_it_is_pruned_all_the_same(written: Write, caught: str) -> None:
    """Nothing is reported after that, and what it returns does not count."""
    source = f"""
        import ptydask

        def fit(params, report):
            for step in range(1, 10):
                try:
                    report(step, loss=10.0 - step)
                {caught}
            return 0.0
    """
    ask = Ask(stop_at=3)
    assert run(written(source), ask).metrics["loss"] == 7.0
    assert len(ask.told) == 3


def test_an_exception_handler_does_not_take_it_for_an_error(written: Write) -> None:
    """``except Exception`` lets it pass; what a finally block raises then stands in the log alone."""
    source = """
        def fit(params, report):
            try:
                report(1, 1.0)
            except Exception:
                return 0.0
            finally:
                raise OSError("disk")
    """
    output = run(written(source), Ask(stop_at=1))
    assert output.metrics["loss"] == 1.0
    assert "raised after it was pruned: OSError: disk" in output.log


def test_a_worker_that_has_to_go(written: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next report raises Evicted, and so does the trial, also where the function swallows it."""
    source = """
        def fit(params, report):
            try:
                report(1, 1.0)
            except BaseException:
                return 5.0
    """
    monkeypatch.setattr(eviction.asked, "is_set", lambda: True)
    ask = Ask()
    with pytest.raises(eviction.Evicted):
        run(written(source), ask)
    assert ask.told == []


def test_what_the_worker_raises_in_a_report_gets_through(written: Write) -> None:
    """A lost storage is no fault of the function, whatever it catches."""

    class LostError(BaseException):
        pass

    def lose(step: int, metrics: Mapping[str, float], gradient: Mapping[str, float] | None = None) -> bool:
        raise LostError

    source = """
        def fit(params, report):
            try:
                report(1, 1.0)
            except BaseException:
                return 5.0
    """
    with pytest.raises(LostError):
        run(written(source), lose)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('bad\\nvalue')", "ValueError: bad value"),
        ("import sys; sys.exit(3)", "fit called sys.exit(3)"),
        ("return float('nan')", "fit returned but the last value of 'loss' is NaN"),
        ("report(1, float('inf'))", "fit returned but the last value of 'loss' is inf"),
        ("pass", "fit returned but never logged 'loss'; it logged nothing at all"),
        ("report(1, acc=1, val=2)", "fit returned but never logged 'loss'; it logged: acc, val"),
        ("return {'los': 1}", "fit returned but never logged 'loss'; it logged: los; did you mean 'los'?"),
        ("return 'good'", "TypeError: fit returned a str; it must be a number, a mapping of metrics, or None"),
        ("return [1, 2]", "TypeError: fit returned a list; it must be a number, a mapping of metrics, or None"),
        ("report(1)", "TypeError: report: no metric; write report(step, loss=0.5) or report(step, 0.5)"),
        ("report(1, 'low')", "TypeError: report: loss is a str, not a number"),
        ("report(float('nan'), 1)", "ValueError: report: the step is nan"),
    ],
)
def test_how_it_fails(written: Write, body: str, message: str) -> None:
    """One line; the log and the curve up to there are kept."""
    found = failure(written(f"def fit(params, report):\n    print('hello')\n    {body}\n"))
    assert str(found) == message
    assert found.output is not None
    assert found.output.log == "hello\n"


def test_a_failure_shows_the_function_not_the_engine(written: Write) -> None:
    """The traceback begins in the function's file; what was reported before is kept."""
    found = failure(written("def fit(params, report):\n    report(1, 2.0)\n    return 1 / 0\n"))
    assert "work.py" in found.detail
    assert "session.py" not in found.detail
    assert found.output is not None
    assert list(found.output.curve["loss"]) == [2.0]


def test_the_log_is_bounded(written: Write) -> None:
    """Megabytes of output leave the beginning, the end, and how much is missing; standard error belongs to it."""
    source = """
        import sys

        def fit(params):
            print("first")
            for n in range(200_000):
                print("line", n)
            print("x" * 1_000_000, file=sys.stderr)
            print("last", file=sys.stderr)
            return 1
    """
    log = run(written(source)).log
    assert log.startswith("first\nline 0\n")
    assert log.endswith("xxx\nlast\n")
    assert len(log) < 200_000
    assert "characters left out" in log


def test_logging_is_part_of_the_log(written: Write) -> None:
    """Handlers for the screen, from before the trial or set up in it, write to each trial's own log, and back after."""
    import logging

    source = """
        import logging, sys

        early = logging.getLogger("early")
        early.addHandler(logging.StreamHandler(sys.stderr))

        def fit(params):
            late = logging.getLogger("late")
            if not late.handlers:
                late.addHandler(logging.StreamHandler())
            early.warning("early says")
            late.warning("late says")
            return 1
    """
    session = engines.get("callable").open(written(source), SLOT)
    try:
        for _ in range(2):
            log = session.run(trial(VALUES), go_on, NEVER).log
            assert log == "early says\nlate says\n"
        handlers = [logging.getLogger(name).handlers[0] for name in ("early", "late")]
        assert [getattr(handler, "stream", None) for handler in handlers] == [sys.stderr] * 2
    finally:
        for name in ("early", "late"):
            logging.getLogger(name).handlers.clear()


@pytest.mark.parametrize(
    "signature",
    ["params", "params, report", "params, *, report", "*args", "p, r, /", "params, report=None", "p, seed=3"],
)
def test_signatures_that_fit(written: Write, signature: str) -> None:
    """``report`` is handed over wherever there is a place for it, and to no other argument that has a default."""
    first, *_ = signature.split(", ")
    source = f"def fit({signature}):\n    seen = locals()\n    assert seen.get('seed', 3) == 3\n    return 1\n"
    study = written(source)
    engines.get("callable").validate(study)
    assert run(study).metrics["loss"] == 1.0, first


@pytest.mark.parametrize(
    ("source", "callable_", "says"),
    [
        (
            "def fit(): return 1",
            "work.py:fit",
            "fit ({folder}/work.py:1) takes (); it must take (params) or (params, report)",
        ),
        ("def fit(a, b, c): return 1", "work.py:fit", "takes (a, b, c); it must take (params) or (params, report)"),
        ("async def fit(params): return 1", "work.py:fit", "is an async function"),
        ("class fit: pass", "work:fit", "fit ({folder}/work.py:1) is a class, not a function"),
        ("def fiit(params): return 1", "work.py:fit", "{folder}/work.py has no 'fit'; did you mean 'fiit'?"),
        ("def fit(params) return 1", "work.py:fit", "{folder}/work.py:1 is no valid Python"),
        ("", "other.py:fit", "no such file: {folder}/other.py"),
        ("", "sub/work.py:fit", "no such file: {folder}/sub/work.py"),
        ("", "nowhere.at.all:fit", "no module 'nowhere.at.all' in {folder}, nor installed for"),
        ("", "work.py", "names no function; write package.module:function or path/file.py:function"),
        ("", "work.py:fit()", "'fit()' is no name of a function"),
        ("", "my-work:fit", "'my-work' is no module's name"),
        ("", None, "must name a function"),
        ("", ["work.py:fit"], "must name a function"),
    ],
)
def test_what_is_refused_before_the_run(written: Write, tmp_path: Path, source: str, callable_: Any, says: str) -> None:
    """One line with the key, without running anything of the file."""
    with pytest.raises(ConfigError) as caught:
        engines.get("callable").validate(written(source, callable_))
    assert says.format(folder=tmp_path) in str(caught.value)
    assert str(caught.value).startswith("tiny.yaml: engine.callable")
    assert "\n" not in str(caught.value)


def test_the_driver_runs_nothing_of_the_file(written: Write, tmp_path: Path) -> None:
    """A module with side effects is looked at only; names it gets by import or assignment are left to the workers."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "__init__.py").write_text("raise RuntimeError('was run')")
    (tmp_path / "deep" / "objective.py").write_text("raise RuntimeError('was run')\nfrom x import fit\ngo = fit\n")
    for name in ("fit", "go"):
        engines.get("callable").validate(written("", f"deep.objective:{name}"))
    with pytest.raises(ConfigError, match="RuntimeError: was run"):
        engines.get("callable").open(written("", "deep.objective:fit"), SLOT)


def test_an_import_that_fails_on_a_worker(written: Write, tmp_path: Path) -> None:
    """One line: which Python, what was raised, and where."""
    study = written("import numpy\nimport not_there\ndef fit(params): return 1\n")
    engines.get("callable").validate(study)
    with pytest.raises(ConfigError) as caught:
        engines.get("callable").open(study, SLOT)
    says = f"cannot be imported by {sys.executable}: ModuleNotFoundError: No module named 'not_there'"
    assert f"{says} ({tmp_path / 'work.py'}:2)" in str(caught.value)


def test_a_file_beside_the_sweep_file_is_pointed_at(written: Write, tmp_path: Path) -> None:
    """A path starts where the run was started; one in the sweep file's folder is named as it must be written."""
    study = written("")
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.py").write_text("def fit(params): return 1")
    source = replace(study.source, path=tmp_path / "sweeps" / "sweep.yaml")
    config = {**study.config, "engine": {**study.config["engine"], "callable": "mine.py:fit"}}
    with pytest.raises(ConfigError, match=r"did you mean 'sweeps/mine\.py:fit'\?"):
        engines.get("callable").validate(replace(study, source=source, config=config))


def test_modules_beside_it_are_found(written: Write, tmp_path: Path) -> None:
    """A file's own folder and the study's directory are on sys.path while the session is open, and not afterwards."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "deep.py").write_text("VALUE = 4\n")
    (tmp_path / "sub" / "train.py").write_text("import deep, work\ndef fit(params): return deep.VALUE + work.MORE\n")
    before = sys.path[:]
    assert run(written("MORE = 1", "sub/train.py:fit")).metrics["loss"] == 5.0
    assert sys.path == before


def test_a_file_with_the_name_of_another_module(written: Write, tmp_path: Path) -> None:
    """``json.py:fit`` is that file, and json stays what it is."""
    import json

    (tmp_path / "json.py").write_text("def fit(params): return 3\n")
    assert run(written("", "json.py:fit")).metrics["loss"] == 3.0
    assert sys.modules["json"] is json


@pytest.mark.parametrize("callable_", ["train:fit", "train.py:fit", "sub.train:fit", "lazy.py:fit"])
def test_the_next_study_of_a_process_has_its_own_modules(written: Write, tmp_path: Path, callable_: str) -> None:
    """Of the same names in another folder: a module, one that it imports, a package's, one imported in a trial."""
    import json

    values = []
    for value in (1.0, 2.0):
        folder = tmp_path / str(value)
        (folder / "sub").mkdir(parents=True)
        (folder / "deep.py").write_text(f"VALUE = {value}\n")
        (folder / "sub" / "__init__.py").write_text("")
        for file in ("train.py", "sub/train.py"):
            (folder / file).write_text("import json, deep\ndef fit(params): return deep.VALUE\n")
        (folder / "lazy.py").write_text("def fit(params):\n    from sub import train\n    return train.fit(params)\n")
        study = written("", callable_)
        values.append(run(replace(study, config={**study.config, "directory": str(folder)})).metrics["loss"])
    assert values == [1.0, 2.0]
    assert sys.modules["json"] is json
    assert not {"deep", "train", "sub", "sub.train"} & sys.modules.keys()


def test_a_module_that_cannot_be_imported_leaves_nothing(written: Write, tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_text("")
    before = sys.path[:]
    with pytest.raises(ConfigError):
        run(written("import deep, no_such_module_anywhere"))
    assert sys.path == before
    assert "deep" not in sys.modules


def test_a_changed_file_is_read_again(written: Write) -> None:
    """A worker process that outlives a run takes the file as it is at the next one."""
    assert run(written("def fit(params): return 1")).metrics["loss"] == 1.0
    assert run(written("def fit(params): return 1 + 1  # now")).metrics["loss"] == 2.0


@pytest.mark.parametrize("directory", [".", "sub", "trial"])
def test_the_working_directory(written: Write, tmp_path: Path, directory: str) -> None:
    """Where the run was started, another folder, or one of the trial's own, which is gone afterwards."""
    (tmp_path / "sub").mkdir()
    source = """
        import pathlib

        def fit(params):
            pathlib.Path("x").write_text("")
            print(pathlib.Path.cwd())
            return 1
    """
    before = Path.cwd()
    study = engines.get("callable").validate(written(source, directory=directory))
    there = Path(run(study).log.strip())
    assert Path.cwd() == before
    if directory == "trial":
        assert there.name.startswith("ptydask-trial-")
        assert not there.exists()
    else:
        assert there == (tmp_path / directory).resolve()
        assert (there / "x").exists()


def test_a_missing_directory_is_refused(written: Write) -> None:
    """Before the run, by its key."""
    with pytest.raises(ConfigError, match=r"^tiny\.yaml: engine\.directory = 'nowhere': no such folder"):
        engines.get("callable").validate(written("def fit(params): return 1", directory="nowhere"))


def test_facts_for_the_results(written: Write, tmp_path: Path) -> None:
    """The source's path and digest are provenance; what makes trials comparable are parameters, function, objective."""
    study = written("def fit(params): return 1", directory="trial")
    facts = engines.get("callable").open(study, SLOT).provenance()
    assert facts["callable"] == "work.py:fit"
    assert facts["callable_file"] == str(tmp_path / "work.py")
    assert len(facts["callable_sha256"]) == 64
    assert engines.get("callable").essential(study.config) == {
        "parameters": study.config["parameters"],
        "engine": {"callable": "work.py:fit", "objective": "last"},
    }
    assert engines.get("callable").validate(study).details == (("function", f"fit in {tmp_path / 'work.py'}"),)


def test_an_installed_module(written: Write) -> None:
    """A function of a package, without a file in the study's directory; a compiled one is left to the workers."""
    study = engines.get("callable").validate(written("", "statistics:fmean"))
    assert study.details[0][1].endswith("/statistics.py")
    engines.get("callable").validate(written("", "math:sqrt"))
    assert "TypeError" in str(failure(written("", "math:sqrt")))


def test_the_word_for_pruning_is_no_exception() -> None:
    """``ptydask.Pruned`` passes every ``except Exception``."""
    assert not issubclass(ptydask.Pruned, Exception)


def test_a_function_that_changed_is_noticed(tmp_path: Path) -> None:
    """Going on with another source is allowed, and said; with the same one, or without a digest, it is not."""
    from ptydask.driver.provenance import compare_data
    from ptydask.model import StudyMeta

    def compared(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
        meta = StudyMeta("s", "minimize", "loss", "callable", "", "sweep", "{}", "{}", provenance=before)
        return compare_data(meta, now, file=tmp_path)

    facts = {"callable_file": "/a/work.py", "callable_sha256": "1234"}
    assert compared(facts, facts) == []
    assert compared({}, facts) == []
    assert compared({**facts, "callable_sha256": "5678"}, facts) == ["/a/work.py has changed since the earlier trials"]
    program = {"program": "/a/train.py", "program_sha256": "1"}
    assert compared({**program, "program_sha256": "2"}, program) == ["/a/train.py has changed since the earlier trials"]


@pytest.mark.slow
def test_a_run_of_a_function(ptydask: Callable[..., Any], tmp_path: Path) -> None:
    """Through the command line: an import that fails on the worker, then trials that end in each of the three ways."""
    sweep = """
        engine: {callable: "work.py:fit"}
        method: grid
        metric: {name: loss}
        early_terminate: {type: hyperband, min_iter: 2}
        parameters:
          start: {values: [1, 2, 3, 4, 9, -1]}
    """
    (tmp_path / "sweep.yaml").write_text(textwrap.dedent(sweep))
    source = """
        def fit(params, report):
            print("begins at", params["start"])
            for step in range(4):
                report(step * 10, loss=params["start"] / (step + 1), twice=2 * params["start"])
            assert params["start"] > 0, "below zero"
    """
    (tmp_path / "work.py").write_text("import not_there\n" + textwrap.dedent(source))
    done = ptydask("run", "sweep.yaml", "--workers", "1", "--cluster", "local")
    assert done.returncode == 2
    assert "No module named 'not_there'" in done.stderr.splitlines()[-1]

    (tmp_path / "work.py").write_text(textwrap.dedent(source))
    done = ptydask("run", "sweep.yaml", "--workers", "1", "--cluster", "local")
    assert done.returncode == 3, done.stderr
    with ptydask_open(tmp_path / "sweep.h5") as study:
        assert [trial.state.value for trial in study] == ["COMPLETE"] * 1 + ["PRUNED"] * 4 + ["FAIL"]
        assert study.best().metrics == {"loss": 0.25, "twice": 2.0, "loss (best)": 0.25}
        assert list(study.best().curve["step"]) == [0, 10, 20, 30]
        assert list(study[4].curve["loss"]) == [9.0, 4.5]
        assert study[4].log == "begins at 9\n"
        assert study[5].message == "AssertionError: below zero"
        assert "work.py" in study[5].traceback
        assert study[5].log == "begins at -1\n"


# --- slopes ------------------------------------------------------------------------------------------


def test_slopes_go_with_the_metrics(written: Write) -> None:
    """Reported beside them, at each step; they are columns of the curve and no metrics."""
    study = written("""
        def fit(params, report):
            report(1, loss=2.0, gradient={"lr": -1})
            report(2, {"loss": 1.0, "gradient": {"lr": -0.5}})
            report(3, 0.5, gradient={"lr": -0.25})
    """)
    ask = Ask()
    output = run(study, ask)
    assert ask.gradients == [{"lr": -1.0}, {"lr": -0.5}, {"lr": -0.25}]
    assert output.gradient == {"lr": -0.25}
    assert output.curve["gradient/lr"] == [-1.0, -0.5, -0.25]
    assert output.metrics == {"loss": 0.5, "loss (best)": 0.5}


@pytest.mark.parametrize(
    ("returned", "gradient"),
    [
        ("{'loss': 0.5}", {"lr": -0.5}),
        ("{'loss': 0.25}", {}),
        ("{'loss': 0.25, 'gradient': {'lr': 3}}", {"lr": 3.0}),
        ("{'gradient': 7.0}", {"lr": -0.5}),
    ],
    ids=["the same value", "another value", "its own", "a metric of that name"],
)
def test_slopes_belong_to_the_value_that_counts(written: Write, returned: str, gradient: dict[str, float]) -> None:
    """What a function returns has the last word; slopes of another value are not its slopes."""
    study = written(f"""
        def fit(params, report):
            report(1, loss=0.5, gradient={{"lr": -0.5}})
            return {returned}
    """)
    output = run(study)
    assert output.gradient == gradient
    assert ("gradient" in output.metrics) == (returned == "{'gradient': 7.0}")


def test_slopes_of_the_best_value(written: Write) -> None:
    """Where the best one counts, so do its slopes."""
    study = written(
        """
        def fit(params, report):
            report(1, loss=0.5, gradient={"lr": 1})
            report(2, loss=0.7, gradient={"lr": 2})
        """,
        objective="best",
    )
    assert run(study).gradient == {"lr": 1.0}


def test_a_function_of_the_parameters_alone_returns_slopes(written: Write) -> None:
    """Beside the metric, in one mapping."""
    study = written("""
        def fit(params):
            return {"loss": params["lr"] ** 2, "gradient": {"lr": 2 * params["lr"]}}
    """)
    output = run(study)
    assert (output.metrics["loss"], output.gradient) == (0.25, {"lr": 1.0})
    assert output.curve["gradient/lr"] == [1.0]


@pytest.mark.parametrize("how", ["report(1, loss=1, gradient=bad)", "return {'loss': 1, 'gradient': bad}"])
def test_slopes_that_are_no_numbers(written: Write, how: str) -> None:
    """The trial fails, in one line."""
    study = written(f"""
        def fit(params, report):
            bad = {{"lr": "steep"}}
            {how}
    """)
    assert str(failure(study)).endswith("the gradient in lr is a str, not a number")
