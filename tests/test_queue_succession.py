"""What a later study of a queue takes from those before it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from queue_cases import Told, before, queued
from stage_cases import write_staged
from store_cases import failed, packed, put, record

from ptydask import config
from ptydask.config import Overrides
from ptydask.driver import succession
from ptydask.driver.conduct import prepare, run_of
from ptydask.driver.prepare import RunRequest
from ptydask.driver.stages import PreparedStages
from ptydask.driver.succession import (
    MOST,
    QueuedStudy,
    foresee_sources,
    prepare_after,
    prepare_queued,
    read_usable,
)
from ptydask.errors import UnusablePatterns
from ptydask.progress.queue_text import sources_lines
from ptydask.store import Store, reader

Ptydask = Callable[..., subprocess.CompletedProcess[str]]
Params = Callable[..., Path]


def origins(study: QueuedStudy, *results: Path) -> list[str]:
    points = prepare_after(study, results, Told()).plan.points
    return [point.origin.removeprefix("from ") for point in points if point.origin.startswith("from ")]


@pytest.fixture
def study(toy_engine: None, toy_params: Params) -> QueuedStudy:
    return queued(toy_params())


def test_the_best_points_of_the_one_before(study: QueuedStudy, tmp_path: Path) -> None:
    """They are tried first, and told."""
    view = Told()
    prepared = prepare_after(study, [before(tmp_path / "a.h5", 1.5, 2.5)], view)
    assert [point.params["rotation"] for point in prepared.plan.points[:2]] == [1.5, 2.5]
    assert "from a.h5, trial 0: scale=1 rotation=1.5" in view.stream.getvalue()
    assert run_of(prepared).options == run_of(study.prepared).options


def test_those_of_other_settings_are_left_out_and_told(study: QueuedStudy, tmp_path: Path) -> None:
    view, other = Told(), before(tmp_path / "a.h5", 1.5, probe_kv=80)
    assert prepare_after(study, [other], view) == study.prepared
    assert "probe_kv 80" in view.stream.getvalue()


@pytest.mark.parametrize("kind", ["missing", "failed", "damaged", "none"])
def test_one_of_which_nothing_can_be_taken(kind: str, study: QueuedStudy, tmp_path: Path) -> None:
    """It failed, was not begun, has no completed trial, or cannot be read: the others count."""
    path = tmp_path / "a.h5"
    if kind == "failed":
        packed(path, [failed(0)], engine="toy", config_json='{"init_params": {}}')
    elif kind == "damaged":
        path.write_bytes(b"x" * 3000)
    good = [] if kind == "none" else [before(tmp_path / "b.h5", 0.5)]
    assert origins(study, path, *good) == ["b.h5, trial 0"] * len(good)


def test_the_latest_of_many(study: QueuedStudy, tmp_path: Path) -> None:
    """One point of each, the latest first: they are near each other, and each costs a trial."""
    results = [before(tmp_path / f"{place}.h5", 0.1 * place) for place in range(MOST + 2)]
    assert origins(study, *results) == [f"{place}.h5, trial 0" for place in (4, 3, 2)]


def test_names_that_two_have(study: QueuedStudy, tmp_path: Path) -> None:
    """Then their folders tell them apart, also from those that the command names, and from the study itself."""
    one, two = before(tmp_path / "one" / "demo.h5", 0.5), before(tmp_path / "two" / "demo.h5", 1.5)
    three = before(tmp_path / "three.h5", 2.5)
    names = [earlier.name for earlier in read_usable([one, two, three])]
    assert names == ["one/demo.h5", "two/demo.h5", "three.h5"]
    given = replace(study, request=replace(study.request, earlier=tuple(read_usable([one]))))
    assert origins(given, two) == ["one/demo.h5, trial 0", "two/demo.h5, trial 0"]
    own = study.prepared.plan.results.name
    assert origins(study, before(tmp_path / "one" / own, 0.5)) == [f"one/{own}, trial 0"]


def test_one_that_has_trials_keeps_its_points(study: QueuedStudy, tmp_path: Path) -> None:
    store = Store.open(study.prepared.plan.results, run_of(study.prepared).meta)
    put(store, record(0, params={"scale": 1.0, "rotation": 0.5}))
    store.finish()
    store.close()
    assert origins(queued(study.request.config), before(tmp_path / "a.h5", 1.5)) == []


def test_the_file_counts_as_it_was_read_at_first(study: QueuedStudy, tmp_path: Path) -> None:
    study.request.config.write_text("init_params: {")
    assert origins(study, before(tmp_path / "a.h5", 1.5)) == ["a.h5, trial 0"]


def test_of_stages_the_first_that_tunes_a_parameter(toy_engine: None, toy_params: Params, tmp_path: Path) -> None:
    """The next stages have the request that names the earlier studies."""
    prepared = prepare_after(queued(write_staged(toy_params)), [before(tmp_path / "a.h5", 1.0)], Told())
    assert isinstance(prepared, PreparedStages)
    assert [study.name for study in prepared.request.earlier] == ["a.h5"]
    assert prepared.plan.points[0].origin == "from a.h5, trial 0"


def test_what_each_will_start_from_is_known_before(toy_engine: None, toy_params: Params) -> None:
    """By the files: those before it of its engine, and the first setting of the microscope that differs."""
    files = [toy_params(name="a"), toy_params(name="b", probe_kv=80), toy_params(name="c")]
    first, second, third = foresee_sources([queued(file).prepared for file in files])
    assert first == []
    assert [name for name, _ in second] == ["a.h5"]
    assert "probe_kv" in second[0][1]
    assert [(name, bool(setting)) for name, setting in third] == [("a.h5", False), ("b.h5", True)]
    lines = sources_lines(third)
    assert any("same: a.h5" in line for line in lines)
    assert any("other: b.h5: init_params.probe_kv 80" in line for line in lines)


def test_patterns_that_cannot_be_guessed_from(
    toy_engine: None, toy_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their study is in the queue without a guess, which is told."""

    def refuse(request: RunRequest, file: object, site: object = None) -> object:
        if request.overrides.guess:
            raise UnusablePatterns("is damaged")
        return prepare(request, file)  # type: ignore[arg-type]

    monkeypatch.setattr(succession, "prepare", refuse)
    path = toy_params()
    request = RunRequest(path, Overrides(engine="toy", guess="point"), cluster="local", workers=1)
    study, notice = prepare_queued(request, config.read(path))
    assert study.request.overrides.guess is None
    assert "is damaged" in notice
    assert "without a guess" in notice


@pytest.mark.slow
@pytest.mark.parametrize("independent", [False, True])
def test_in_a_queue(ptydask: Ptydask, toy_params: Params, tmp_path: Path, independent: bool) -> None:
    """The best point of the first is the first of the second; the same command again lines up none twice."""
    files = [toy_params(name="first"), toy_params(name="second", sleep=0.05)]
    option = ["--independent"] if independent else []
    command = ("run", *files, "--engine", "toy", "--workers", 1, "--cluster", "local", *option)
    for trials in (3, 5):
        done = ptydask(*command, "--trials", trials)
        assert done.returncode == 0, done.stderr
    with reader.open(tmp_path / "out" / "first.h5") as one, reader.open(tmp_path / "out" / "second.h5") as two:
        best = min(one.records()[:3], key=lambda record: record.error or 0.0)
        start, *rest = two.records()
    assert (start.origin == f"from first.h5, trial {best.number}") != independent
    assert len({tuple(record.params.items()) for record in (start, *rest)}) == 5
    said = ptydask(*command, "--trials", 6, "--dry-run").stderr
    assert ("of those before it" in said) != independent
