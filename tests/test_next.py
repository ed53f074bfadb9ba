"""``ptydask next``: advice as text and JSON, and a params file that follows it and can be run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import figure_cases
import pytest
import store_cases
import yaml

import ptydask
from ptydask import cli, config, demo
from ptydask.analysis import next_study, next_sweep
from ptydask.analysis.advice import Advice, AdviceKind, StudyFacts
from ptydask.config import Overrides
from ptydask.distributions import Choice, FloatRange, IntRange
from ptydask.driver import provenance
from ptydask.driver.prepare import complete_plan
from ptydask.errors import StoreError
from ptydask.model import Reason, StudyMeta, TrialRecord, TrialState
from ptydask.store import Store

pytestmark = pytest.mark.ptyrad


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's params file beside its data."""
    return demo.write(tmp_path_factory.mktemp("next") / "demo")


@pytest.fixture(scope="module")
def study(params: Path) -> Path:
    """A finished study of the demo, its trials made up: a quadratic with its optimum at scale 1.034, rotation -1.5."""
    return record_study(params, sloped_records())


def sloped_records() -> list[TrialRecord]:
    """Trials with slopes on the demo's grid, the one nearest to the optimum among them."""
    records = [
        replace(record, params={**record.params, "rotation": round(2 * float(str(record.params["rotation"]))) / 2})
        for record in figure_cases.sloped(24).records
    ]
    for number, record in enumerate(records):
        scale, rotation = (1.04, -1.5) if number == 2 else (float(str(record.params[n])) for n in ("scale", "rotation"))
        records[number] = replace(
            record,
            params={"scale": scale, "rotation": rotation},
            error=0.05 + 8 * (scale - 1.034) ** 2 + 0.004 * (rotation + 1.5) ** 2,
            gradient={"scale": 16 * (scale - 1.034), "rotation": 0.008 * (rotation + 1.5)},
            reason=Reason.PRUNED if record.state is TrialState.PRUNED else Reason.NONE,
        )
    return records


def record_study(params: Path, records: list[TrialRecord], settings: dict[str, Any] | None = None) -> Path:
    """The results file that a study of ``params`` would have left with these trials."""
    plan = complete_plan(params, Overrides(settings=tuple((settings or {}).items())))
    store = Store.open(plan.results, provenance.study_meta(plan))
    for record in records:
        store_cases.put(store, record, store_cases.output(record.number))
    return store.finish()


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A command's exit code, what it prints, what it says on stderr."""

    def run(*args: object) -> tuple[int, str, str]:
        code = cli.main([*map(str, args)])
        return code, *capsys.readouterr()

    return run


def test_it_is_said_in_words_and_as_json(study: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    """The kind first; in JSON what to change as well."""
    code, text, _ = call("next", study)
    assert code == 0
    assert "next step: " in text
    assert "shear" in text
    given = json.loads(call("next", study, "--format", "json")[1])
    assert (given["study"], given["best"]) == ("demo", 2)
    (step,) = given["advice"]
    assert step["kind"] == "next step"
    assert step["tune"]["scale"]["step"] == 0.005


def test_the_params_file_follows_it(
    study: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]], params: Path
) -> None:
    """Best values as its own, ranges as advised, another name; comments stay, and it is valid as it is."""
    code, _, said = call("next", study, "-o", tmp_path / "next.yaml")
    assert code == 0
    assert f"ptydask run {tmp_path / 'next.yaml'}" in said
    plan = ptydask.validate(tmp_path / "next.yaml")
    assert (plan.name, plan.results) == ("demo-2", study.with_name("demo-2.h5"))
    assert plan.space == {
        "scale": FloatRange(0.99, 1.075, 0.005),
        "rotation": FloatRange(-2.6, -0.5, 0.1),
        "asymmetry": FloatRange(-0.2, 0.2, 0.05),
        "shear": FloatRange(-4, 4, 0.5),
    }
    assert plan.points[0].params == {"scale": 1.04, "rotation": -1.5, "asymmetry": 0, "shear": 0}
    assert plan.keep == ptydask.validate(params).keep
    text = (tmp_path / "next.yaml").read_text()
    assert "# The microscope, as its operator wrote it down" in text
    assert "# demo-2 follows demo" in text
    assert max(map(len, text.splitlines()[:6])) < 120


def test_it_writes_over_nothing(study: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    """A file that is there needs --force, a results file is never replaced; - is stdout, and that alone."""
    (tmp_path / "next.yaml").write_text("mine")
    assert call("next", study, "-o", tmp_path / "next.yaml")[0] == 2
    assert call("next", study, "-o", study, "--force")[0] == 2
    assert call("next", study, "-o", tmp_path / "next.yaml", "--force")[0] == 0
    code, text, _ = call("next", study, "-o", "-")
    assert code == 0
    assert text == (tmp_path / "next.yaml").read_text()
    assert call("next", study, "-o", "-", "--format", "json")[0] == 2


def test_no_file_follows_from_more_trials(
    params: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    """The study's own file goes on; nor is one written for a program that is none of PtyRAD's."""
    few = record_study(params, sloped_records()[:1], {"hypertune_params.study_name": "few"})
    code, text, said = call("next", few, "-o", tmp_path / "next.yaml")
    assert (code, (tmp_path / "next.yaml").exists()) == (1, False)
    assert "too few trials" in text
    assert "more trials" in said
    toy = store_cases.packed(tmp_path / "s.h5", [store_cases.record(n) for n in range(3)], engine="toy")
    assert call("next", toy, "-o", tmp_path / "next.yaml")[0] == 2
    assert call("next", toy)[0] == 0


@pytest.mark.slow
def test_the_next_study_runs_as_it_is(study: Path, tmp_path: Path, ptydask: Callable[..., Any]) -> None:
    """Its first trial has the best values of the last one."""
    assert cli.main(["next", str(study), "-o", str(tmp_path / "next.yaml")]) == 0
    text = (tmp_path / "next.yaml").read_text()
    for key, value in (("n_trials       : ", 30), ("NITER     : ", 12)):  # so that it does not take long
        assert f"{key}{value}" in text
        text = text.replace(f"{key}{value}", f"{key}1")
    (tmp_path / "next.yaml").write_text(text)
    done = ptydask("run", "next.yaml", "--workers", 1)
    assert done.returncode == 0, done.stderr
    again = json.loads(ptydask("best", study.with_name("demo-2.h5"), "--format", "json").stdout)[0]
    assert again["params"] == {"scale": 1.04, "rotation": -1.5, "asymmetry": 0, "shear": 0}
    study.with_name("demo-2.h5").unlink()


# --- sweep files -------------------------------------------------------------------------------------

SWEEP = """\
method: bayes  # as ever
program: train.py
metric: {name: loss, goal: minimize}
parameters:
  rate: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}
  net:
    parameters:
      width: {min: 8, max: 64}
      depth: {min: 1.0, max: 5.0}
"""


def next_sweep_of(text: str, tmp_path: Path, **tune: Any) -> str:
    """The next sweep file, where ``rate``, ``width``, ``depth`` are tuned in these ranges; None holds one."""
    (tmp_path / "train.py").touch()
    (tmp_path / "sweep.yaml").write_text(text)
    plan = config.load(tmp_path / "sweep.yaml")
    meta = provenance.study_meta(plan)
    params = {name: dist.low for name, dist in plan.space.items() if isinstance(dist, FloatRange | IntRange)}
    best = TrialRecord(0, TrialState.COMPLETE, 0.1, params)
    facts = StudyFacts((best,), plan.space, "loss", "minimize", engine="command")
    named = {name: tune.get(name.rpartition(".")[2], dist) for name, dist in plan.space.items()}
    following = next_study.NextStudy("sweep-2", best, {name: dist for name, dist in named.items() if dist is not None})
    return next_sweep.render_next_sweep(meta, facts, following, ()).text


def test_a_sweep_file_gets_other_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested ones, too; what is held becomes a value; all else stays as it was written."""
    monkeypatch.chdir(tmp_path)
    text = next_sweep_of(SWEEP, tmp_path, rate=FloatRange(1e-3, 1e-1, log=True), width=IntRange(36, 92), depth=None)
    assert "method: bayes  # as ever" in text
    (tmp_path / "next.yaml").write_text(text)
    plan = config.load(tmp_path / "next.yaml")
    assert (plan.name, plan.space) == (
        "sweep-2",
        {"rate": FloatRange(1e-3, 1e-1, log=True), "net.width": IntRange(36, 92)},
    )
    assert "depth: {value: 1.0}" in text


@pytest.mark.parametrize(
    "entry",
    [
        "{distribution: log_uniform, min: -9.0, max: -4.0}",
        "{distribution: normal, mu: 0.0, sigma: 1.0}",
        "{values: [1, 2]}",
    ],
)
def test_a_range_that_is_spelled_otherwise_is_left_to_its_author(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    """It says so, and names the study."""
    monkeypatch.chdir(tmp_path)
    text = SWEEP.replace("{distribution: log_uniform_values, min: 1e-4, max: 1e-2}", entry)
    with pytest.raises(StoreError, match="sweep file"):
        next_sweep_of(text, tmp_path, rate=FloatRange(0.1, 0.2))


# --- decisions ---------------------------------------------------------------------------------------

BEST = TrialRecord(0, TrialState.COMPLETE, 0.1, {"scale": 1.0, "oplr": 1e-3, "optimizer": "Adam"})
FACTS = StudyFacts(
    (BEST,),
    {"scale": FloatRange(0.9, 1.1), "oplr": FloatRange(1e-4, 1e-2, log=True), "optimizer": Choice(("Adam", "SGD"))},
    "loss",
    "minimize",
)


def test_advice_adds_up() -> None:
    """Ranges replace the study's, what is held goes, settings are the file's keys."""
    given = [
        Advice(AdviceKind.RANGE_TOO_NARROW, "", "scale", {"scale": FloatRange(1.0, 1.2)}),
        Advice(AdviceKind.NO_INFLUENCE, "", "oplr", fix=("oplr",)),
        Advice(AdviceKind.MORE_ITERATIONS, "", settings={"recon_params.NITER": 40}),
        Advice(AdviceKind.PRUNING, "", settings={"hypertune_params.pruner_params": None}),
    ]
    following = next_study.plan_next_study(FACTS, given, "s-2")
    assert following == next_study.NextStudy(
        "s-2", BEST, {"scale": FloatRange(1.0, 1.2), "optimizer": Choice(("Adam", "SGD"))}, 40, {"pruner_params": None}
    )
    assert next_study.plan_next_study(FACTS, [Advice(AdviceKind.MORE_TRIALS, "")], "s-2") is None
    assert next_study.plan_next_study(replace(FACTS, records=()), given, "s-2") is None


@pytest.mark.parametrize(
    ("name", "taken", "following"),
    [
        ("demo", (), "demo-2"),
        ("demo", ("demo-2", "demo-3"), "demo-4"),
        ("demo-2", (), "demo-3"),
        ("tBL-9", (), "tBL-10"),
        ("-2", (), "-2-2"),
    ],
)
def test_names_count_on(name: str, taken: tuple[str, ...], following: str) -> None:
    """The first that is free."""
    assert next_study.name_next_study(name, taken.__contains__) == following


def rendered(tune: dict[str, Any], text: str = "", **hypertune: Any) -> dict[str, Any]:
    """The section hypertune_params of the next study's file, and the section ``ptydask``."""
    params = {"init_params": {"probe_kv": 80}, "hypertune_params": {"study_name": "s", **hypertune}, "recon_params": {}}
    meta = StudyMeta("s", "minimize", "loss", "ptyrad", text, "yaml", json.dumps(params), "{}")
    best = TrialRecord(0, TrialState.COMPLETE, 0.1, {})
    file = next_study.render_next_study(meta, next_study.NextStudy("s-2", best, tune), (), near=Path("s.h5"))
    sections = yaml.safe_load(file.text)
    return {**sections["hypertune_params"], "notes": file.notes, "ptydask": sections.get("ptydask")}


def test_ranges_are_entries_of_tune_params() -> None:
    """Whole, logarithmic, chosen; both parameters of an aberration share theirs; what was on is off."""
    tune = {
        "C12a": FloatRange(-5, 5, 1),
        "C12b": FloatRange(-2, 8, 1),
        "pmode_max": IntRange(2, 6),
        "oplr": FloatRange(1e-4, 1e-2, log=True),
        "optimizer": Choice(("Adam", "SGD")),
    }
    adam = {"state": True, "suggest": "cat", "kwargs": {"choices": ["Adam"], "optim_configs": {"SGD": {}}}}
    old = {"dz": {"state": True, "suggest": "float", "kwargs": {"low": 1, "high": 2}}, "optimizer": adam}
    entries = rendered(tune, tune_params=old)["tune_params"]
    assert entries["dz"] == {**old["dz"], "state": False}
    assert entries["C12"] == {"state": True, "suggest": "float", "kwargs": {"low": -5, "high": 8, "step": 1}}
    assert entries["pmode_max"]["suggest"] == "int"
    assert entries["oplr"]["kwargs"] == {"low": 1e-4, "high": 1e-2, "log": True}
    assert entries["optimizer"]["kwargs"] == {"choices": ["Adam", "SGD"], "optim_configs": {"SGD": {}}}
    assert rendered({})["if_hypertune"] is False


def test_ptydasks_own_keys_stay() -> None:
    """A file for PtyRAD must not have them; this one is for ptydask."""
    text = "init_params: {probe_kv: 80}\nptydask: {stop_when: settled}\n"
    assert rendered({"scale": FloatRange(0.9, 1.1)}, text)["ptydask"] == {"stop_when": "settled"}
    assert rendered({"scale": FloatRange(0.9, 1.1)})["ptydask"] is None


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_ptydasks_own_keys_are_there_once(params: Path, tmp_path: Path, kind: str) -> None:
    """Also where the rest of the file stays as its author wrote it: a key that is there twice is refused."""
    text = params.read_text() + "\nptydask: {stop_when: settled}  # mine\n"
    if kind == "json":
        text = json.dumps(yaml.safe_load(text))
    (tmp_path / f"own.{kind}").write_text(text)
    meta = provenance.study_meta(complete_plan(tmp_path / f"own.{kind}", Overrides()))
    best = TrialRecord(0, TrialState.COMPLETE, 0.1, {"scale": 1.04, "rotation": -1.5})
    following = next_study.NextStudy("own-2", best, {"scale": FloatRange(1.0, 1.1, 0.01)})
    (tmp_path / "next.yaml").write_text(next_study.render_next_study(meta, following, (), near=tmp_path).text)
    plan = ptydask.validate(tmp_path / "next.yaml")
    assert (plan.name, plan.until_settled) == ("own-2", True)
    assert ("# mine" in (tmp_path / "next.yaml").read_text()) is (kind == "yaml")


def test_the_advice_of_before_goes(params: Path, tmp_path: Path) -> None:
    """The file of the study after the next one has its own advice on top, however long the last one was."""
    advice = [Advice(AdviceKind.MORE_ITERATIONS, f"first {n} " + 30 * "word ") for n in range(4)]
    best = TrialRecord(0, TrialState.COMPLETE, 0.1, {"scale": 1.04, "rotation": -1.5})
    path = params
    for name in ("s-2", "s-3"):
        meta = provenance.study_meta(complete_plan(path, Overrides()))
        following = next_study.NextStudy(name, best, {"scale": FloatRange(1.0, 1.1, 0.01)})
        path = tmp_path / f"{name}.yaml"
        path.write_text(next_study.render_next_study(meta, following, advice, near=tmp_path).text)
        advice = [Advice(AdviceKind.MORE_TRIALS, "second")]
    text = path.read_text()
    assert ("second" in text, "first" in text) == (True, False)
    assert text.count("ptydask run THIS_FILE") == 1 + params.read_text().count("ptydask run THIS_FILE")
    assert "# A PtyRAD params file for the demo data set" in text


def test_trials_that_nothing_ranks(tmp_path: Path, call: Callable[..., tuple[int, str, str]]) -> None:
    """No more of them are asked for, and it is said why there is no advice."""
    records = [store_cases.record(n, error=None) for n in range(12)]
    file = store_cases.packed(tmp_path / "s.h5", records, engine="command", metric="")
    code, text, _ = call("next", file)
    assert code == 0
    assert "names no metric" in text
    assert "too few" not in text


def test_what_belongs_to_the_old_ranges_goes() -> None:
    """A grid lists its own points; a password is not in the results."""
    scale = {"scale": FloatRange(0.9, 1.1)}
    grid = {"name": "GridSampler", "configs": {"search_space": {"scale": [0.9, 1.1]}}}
    given = rendered(scale, sampler_params=grid)
    assert given["sampler_params"]["name"] == "TPESampler"
    assert given["notes"]
    secret = rendered(scale, storage_path="postgresql://me:***@host/db")
    assert secret["storage_path"] is None
    assert rendered(scale, sampler_params={"name": "CmaEsSampler", "configs": {"sigma0": 0.1}})["notes"] == ()
