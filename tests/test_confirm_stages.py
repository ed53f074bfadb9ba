"""``ptydask confirm`` of a study with stages: whose trials are repeated, and where the repeats come to lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import store_crashes
from store_cases import packed, put, record

import ptydask as api
from ptydask.cli import main
from ptydask.config import Overrides
from ptydask.driver.confirmation import ConfirmOptions, PreparedConfirmation, prepare_confirmation
from ptydask.driver.prepare import RunRequest, stored_bytes
from ptydask.driver.provenance import study_meta
from ptydask.engines.fingerprint import sha256
from ptydask.errors import UnusableResults, UsageError
from ptydask.lineage import StageLineage, TrialStart
from ptydask.model import StudyMeta, TrialOutput
from ptydask.store import Store, isolated, reader
from ptydask.store.upkeep import embedding, staging, verify

NAMES = ("coarse", "fine", "final")
FIT = """\
def fit(params, report):
    report(1, loss=(params.get("x", 0.3) - 0.3) ** 2)
"""
SWEEP = """\
name: fits
method: random
metric: {{name: loss, goal: minimize}}
parameters: {{x: {{min: 0.0, max: 1.0}}}}
run_cap: 5
engine: {{callable: '{folder}/fit.py:fit'}}
"""


def describe(folder: Path, stage: str) -> StudyMeta:
    """What the results file says of a stage, the best trial of which is number 1."""
    sweep = folder / "sweep.yaml"
    (folder / "fit.py").write_text(FIT)
    sweep.write_text(SWEEP.format(folder=folder))
    whole = study_meta(api.validate(sweep, results=folder / "fits.h5"))
    place = NAMES.index(stage)
    before = NAMES[place - 1] if place else ""
    lineage = StageLineage(stage, NAMES, before, 1 if place else None, {"x": 0.25} if place else {})
    known = {**whole.provenance, "callable_sha256": sha256(folder / "fit.py")}
    tuned = "{}" if stage == "final" else whole.search_space_json
    return replace(whole, name=f"fits {stage}", search_space_json=tuned, lineage=lineage, provenance=known)


def run_stage(path: Path, described: StudyMeta, values: Sequence[float]) -> Path:
    """What a run leaves once a stage is over: trials that tried these values."""
    if path.exists():
        staging.begin_stage(path, described)
    store = Store.open(path, described)
    for number, x in enumerate(values):
        params = {"x": x} if described.search_space_json != "{}" else {}
        error = (x - 0.3) ** 2
        put(store, record(number, error, params=params, metrics={"loss": error}, seed=0), TrialOutput({}, {}))
    return store.finish()


@pytest.fixture(autouse=True, scope="module")
def _questions_answered_here() -> Iterator[None]:
    """Sound files need no process of their own to be read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolated.ChildReader, "ask", store_crashes.asked_here)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results file once each stage is over, and the function that its trials are by."""
    folder = tmp_path_factory.mktemp("made")
    files: dict[str, bytes] = {}
    for stage, values in {"coarse": (0.9, 0.25, 0.5), "fine": (0.2, 0.31, 0.35, 0.4), "final": (0.31,)}.items():
        files[stage] = run_stage(folder / "fits.h5", describe(folder, stage), values).read_bytes()
    return files | {"folder": str(folder).encode()}


@pytest.fixture
def two_stages(made: dict[str, bytes], tmp_path: Path) -> Path:
    """Three coarse trials, four fine ones."""
    path = tmp_path / "fits.h5"
    path.write_bytes(made["fine"])
    return path


@pytest.fixture
def study(made: dict[str, bytes], tmp_path: Path) -> Path:
    """With the final reconstruction."""
    path = tmp_path / "fits.h5"
    path.write_bytes(made["final"])
    return path


def prepare(path: Path, **options: Any) -> PreparedConfirmation:
    """A confirmation of it, not started."""
    request = RunRequest(path, Overrides(), cluster="local", workers=1)
    return prepare_confirmation(request, ConfirmOptions(**{"top": 2, "seeds": 1} | options))


def run_repeats(prepared: PreparedConfirmation, count: int | None = None) -> Path:
    """What a run of the repeats leaves beside the study; one that was stopped has only the first ``count``."""
    run = prepared.run
    assert run.origin is not None
    facts = {**run.meta.provenance, "callable_sha256": run.origin.provenance["callable_sha256"]}
    store = Store.open(run.plan.results, replace(run.meta, provenance=facts))
    for number, (trial, seed, half) in enumerate(prepared.repeats[:count]):
        params = {"trial": trial, "seed": seed, "half": half}
        if number not in store.records:
            put(store, record(number, 1 + number / 100, params=params), TrialOutput({}, {}))
    return store.finish()


def repeated(path: Path, stage: str) -> list[int]:
    """The trials of a stage that have repeats, each time they have."""
    with reader.open(path, stage) as results:
        confirmation = results.confirmation()
        if confirmation is None:
            return []
        with confirmation:
            return sorted(int(str(r.params["trial"])) for r in confirmation.records())


def test_by_default_the_last_stage_that_tuned_something(study: Path) -> None:
    """Which is the latest one, but for the final reconstruction; any of them where it is named."""
    assert prepare(study).stage == "fine"
    assert prepare(study).trials == (1, 2)
    assert prepare(study, stage="coarse").trials == (1, 2)
    assert prepare(study, stage="coarse", top=1).seeds_by_trial == {1: [1]}
    assert (prepare(study, stage="final").stage, prepare(study, stage="final").trials) == ("final", (0,))


def test_before_the_final_stage_it_is_the_latest(two_stages: Path) -> None:
    """And in the first stage that one."""
    assert prepare(two_stages).stage == "fine"
    first = packed(two_stages.with_name("first.h5"), [record(0)], lineage=StageLineage("coarse", NAMES))
    with reader.open(first) as results:
        assert results.stage_names() == ("coarse",)


def test_repeats_are_no_stage(study: Path) -> None:
    """Their plan has none, and their name that of their stage; what is said of them beforehand, too."""
    prepared = prepare(study, stage="coarse")
    assert prepared.run.plan.lineage is None
    assert prepared.run.meta.lineage is None
    assert prepared.run.plan.name == "fits coarse confirmation"
    with reader.open(study, "coarse") as results:
        assert prepared.store_id == results.id
        assert prepared.run.plan.config["study"] == results.id


def test_the_plan_names_the_stage(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["confirm", str(study), "--cluster", "local", "--dry-run"]
    assert main([*args, "--stage", "coarse"]) == 0
    assert f"of stage coarse of {study}" in capsys.readouterr().err
    assert main(args) == 0
    assert f"of stage fine of {study}" in capsys.readouterr().err


def test_each_stage_has_its_own(study: Path) -> None:
    """One after the other; a stage's repeats grow, and those of the others stay."""
    for stage in ("fine", "coarse", "final"):
        run_repeats(prepare(study, stage=stage))
        embedding.embed(study, {})
    assert (repeated(study, "coarse"), repeated(study, "fine"), repeated(study, "final")) == ([1, 2], [1, 2], [0])
    assert prepare(study).finished
    more = prepare(study, stage="coarse", top=3)
    assert more.missing == ((0, 1, 0),)
    embedding.take_out(study, more.store_id)
    run_repeats(prepare(study, stage="coarse", top=3))
    embedding.embed(study, {})
    assert (repeated(study, "coarse"), repeated(study, "fine"), repeated(study, "final")) == ([0, 1, 2], [1, 2], [0])
    assert verify.verify(study).intact


def test_repeats_go_on_being_those_of_their_stage(two_stages: Path, made: dict[str, bytes]) -> None:
    """Also once another stage has begun."""
    run_repeats(prepare(two_stages))
    embedding.embed(two_stages, {})
    study = run_stage(two_stages, describe(Path(made["folder"].decode()), "final"), (0.31,))
    assert (repeated(study, "fine"), repeated(study, "final")) == ([1, 2], [])
    assert prepare(study).finished


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_repeats_of_another_stage_that_are_not_over_come_first(
    dry: list[str], study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They lie where these would: one line names the command that goes on with them; they are left alone."""
    beside = run_repeats(prepare(study, stage="coarse"), 1)
    before = beside.read_bytes()
    assert main(["confirm", str(study), "--cluster", "local", *dry]) == 2
    said = capsys.readouterr().err
    assert "stage coarse" in said
    assert f"ptydask confirm {study} --stage coarse" in said
    assert beside.read_bytes() == before
    assert prepare(study, stage="coarse").missing == ((2, 1, 0),)


@pytest.mark.parametrize(("name", "words"), [("finl", "final"), ("dz", "has no stage 'dz'"), ("Fine", "fine")])
def test_a_stage_that_there_is_not(name: str, words: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, with the nearest."""
    assert main(["confirm", str(study), "--cluster", "local", "--stage", name]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_a_study_without_stages_has_none(tmp_path: Path) -> None:
    with pytest.raises(UnusableResults, match="without stages"):
        api.confirm(packed(tmp_path / "s.h5", [record(0)]), stage="fine", progress=False)


def test_halves_of_the_data_do_not_start_from_a_reconstruction_of_both(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would not be independent: refused, whichever stage it is; whole repeats start as their trials did."""
    start = TrialStart("fine", 1, {}, {}, "")
    monkeypatch.setattr("ptydask.driver.confirmation.read_stage_start", lambda results, lineage: start)
    monkeypatch.setattr("ptydask.driver.confirmation._validate", lambda plan, path: plan)
    for stage in ("fine", "final"):
        with pytest.raises(UsageError, match=r"--frc.* stage fine, trial 1"):
            prepare(study, stage=stage, frc=True)
        assert prepare(study, stage=stage).trials


def test_the_repeats_of_a_stage_take_its_share_of_the_file(study: Path) -> None:
    """Bytes are by the trials of all stages that are in it."""
    from ptydask.driver.confirmation import _stored_bytes

    whole = stored_bytes(study)
    with reader.open(study, "fine") as results:
        assert _stored_bytes(results) == pytest.approx(whole * 4 / 8, abs=1)


@pytest.mark.slow
def test_a_stage_is_confirmed(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command and from Python; the verdict is that of the stage."""
    args = ["confirm", str(study), "--cluster", "local", "--workers", "1", "--top", "2", "--seeds", "1"]
    assert main([*args, "--stage", "coarse"]) == 0
    assert "trial 1" in capsys.readouterr().out
    assert (repeated(study, "coarse"), repeated(study, "fine")) == ([1, 2], [])
    with api.confirm(study, top=1, seeds=1, cluster="local", progress=False) as fine:
        assert fine.confirmation is not None
        assert fine.confirmation.trials == (1,)
    assert (repeated(study, "coarse"), repeated(study, "fine")) == ([1, 2], [1])
    assert sorted(path.name for path in study.parent.glob("fits*")) == ["fits.h5"]
