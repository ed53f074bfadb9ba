"""Trials of PtyRAD that start from a reconstruction: their first loss, their slopes, what they refuse."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import store_cases
import torch
from engine_cases import NEVER, SLOT, VARIANTS, assert_same, go_on, params, plan, trial, write_patterns

from ptydask import config, demo, engines
from ptydask.config.ptyrad.stage_config import with_patterns
from ptydask.config.stages import PatternPart
from ptydask.driver import trial_start
from ptydask.engines.ptyrad import PtyradEngine, checkpoint, measurements, reconstruction, release
from ptydask.engines.ptyrad.reconstruction import Reconstruction
from ptydask.engines.ptyrad.session import PtyradSession
from ptydask.engines.ptyrad.start_rules import check_start
from ptydask.errors import ConfigError, StoreError
from ptydask.lineage import StageLineage, TrialStart
from ptydask.model import HeldOut, KeepOptions, StudyPlan, TrialOutput
from ptydask.space import tunables
from ptydask.space.scan_affine import affine_matrix
from ptydask.store import reader
from ptydask.store.study import Store

pytestmark = [pytest.mark.ptyrad, pytest.mark.filterwarnings("ignore")]

LINEAGE = StageLineage("second", ("first", "second"), "first", 0, start_stage="first", start_trial=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release.installed()
    return write_patterns(tmp_path_factory.mktemp("data"))


def start_from(result: TrialOutput, of: StudyPlan, values: Mapping[str, Any] | None = None) -> TrialStart:
    """As it is read from a results file."""
    applied = tunables.apply(of.config, values or {})
    start = TrialStart(
        stage="first",
        trial=0,
        arrays={name: quantity.data for name, quantity in result.arrays.items()},
        attributes=dict(result.attributes),
        sha256="",
        params={name: tunables.current_value(applied, name) for name in tunables.PARAMETERS},
    )
    return replace(start, sha256=trial_start.digest(start))


def with_iterations(of: StudyPlan, number: int) -> StudyPlan:
    changed = deepcopy(dict(of.config))
    changed["recon_params"]["NITER"] = number
    return replace(of, config=changed)


def run(of: StudyPlan, values: Mapping[str, Any] | None = None, seed: int = 7) -> TrialOutput:
    return PtyradSession(of, SLOT).run(trial(values, seed=seed), go_on, NEVER)


@contextmanager
def prepared(of: StudyPlan, values: Mapping[str, Any] | None = None) -> Iterator[Reconstruction]:
    """A trial before its first iteration."""
    session = PtyradSession(of, SLOT)
    assert session._measurements is not None
    with reconstruction.seeded(7):
        settings = tunables.apply(of.config, values or {})
        yield reconstruction.prepare(settings, trial(values), session._measurements, session._worker, of)


def next_loss(of: StudyPlan, iterations: int) -> float:
    """Of the iteration after so many, with a fresh optimizer."""
    history = reconstruction.IterationHistory()
    with prepared(of) as recon:
        model = recon.model
        for number in (iterations, iterations + 1):
            steps = {**of.config["recon_params"], "NITER": number}
            reconstruction.iterate(recon, steps, of.keep, go_on, history, lambda niter, recon: None)
            recon.optimizer = release.solver().create_optimizer(model.optimizer_params, model.optimizable_params)
    return history.metrics["loss"][-1]


STEADY = {f"constraint_params.{name}.start_iter": None for name in ("obj_rblur", "obj_zblur", "kr_filter", "kz_filter")}


@pytest.mark.parametrize(
    "variant",
    [
        *("as PtyRAD's defaults", "three slices", "two object modes", "tilts that are refined", "scan affine"),
        *("padded object", "padded on the fly", "centre of the scan", "sparse groups"),
    ],
)
def test_where_nothing_changes_the_trial_goes_on(variant: str, data: Path) -> None:
    """Its first loss is that of the next iteration of the earlier trial."""
    changes = {**STEADY, **VARIANTS[variant]}
    earlier = plan(params(data, {**changes, "recon_params.NITER": 4}))
    start = start_from(run(earlier), earlier)
    again = run(replace(with_iterations(earlier, 1), start=start))
    assert again.metrics["loss"] == pytest.approx(next_loss(earlier, 4), rel=2e-5)
    assert again.metrics["loss"] < run(with_iterations(earlier, 1)).metrics["loss"]


# --- planted data ------------------------------------------------------------------------------------


PLANTED = {"scale": 1.04, "rotation": 1.0, "dz": 12.0}
CHANGES: dict[str, dict[str, float]] = {
    "scale": {"scale": 1.07},
    "rotation": {"rotation": -1.0},
    "asymmetry": {"asymmetry": 0.03},
    "shear": {"shear": 2.0},
    "larger pixels": {"dx": 0.435},
    "smaller pixels": {"dx": 0.405},
    "more slices": {"Nlayer": 6},
    "fewer slices of the same thickness together": {"Nlayer": 2, "dz": 24.0},
    "a slice": {"Nlayer": 1},
    "thinner slices": {"dz": 9.0},
    "thicker slices": {"dz": 15.0},
    "all": {"scale": 1.02, "rotation": 0.0, "asymmetry": 0.01, "shear": 0.5, "dx": 0.425, "Nlayer": 6, "dz": 9.0},
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyPlan, TrialOutput, TrialStart]:
    """A plan, a trial of 6 iterations at the truth, and the start that it gives."""
    folder = tmp_path_factory.mktemp("planted")
    demo.write(folder, planted=PLANTED, slices=4)
    ready = with_iterations(PtyradEngine().validate(config.load(folder / "params.yaml")), 6)
    result = run(ready, PLANTED)
    return ready, result, start_from(result, ready, PLANTED)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_the_first_loss_is_nearer_to_the_last_one(
    change: str, planted: tuple[StudyPlan, TrialOutput, TrialStart]
) -> None:
    """Than to that of a trial with the same values that starts anew; and the phase is all there."""
    ready, earlier, start = planted
    values, once = {**PLANTED, **CHANGES[change]}, with_iterations(ready, 1)
    fresh, carried = run(once, values), run(replace(once, start=start), values)
    last, first, anew = earlier.metrics["loss"], carried.metrics["loss"], fresh.metrics["loss"]
    assert abs(first - last) < abs(first - anew)
    with prepared(replace(once, start=start), values) as recon:
        total = float(recon.model.opt_objp.detach().double().sum())
    area = (carried.attributes["pixel_size"] / earlier.attributes["pixel_size"]) ** 2  # type: ignore[operator]
    area *= np.linalg.det(_affine(earlier)) / np.linalg.det(_affine(carried))
    assert total * area == pytest.approx(earlier.arrays["object_phase"].data.sum(dtype=np.float64), rel=1e-3)


def _affine(result: TrialOutput) -> Any:
    return affine_matrix(*(float(result.attributes[f"scan_{name}"]) for name in tunables.AFFINE))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_start_is_worth_iterations(planted: tuple[StudyPlan, TrialOutput, TrialStart]) -> None:
    """Two steps of the grid away in two parameters, a fresh trial needs several to be where this one is after one."""
    ready, _, start = planted
    values = {**PLANTED, "scale": 1.06, "dz": 13.0}
    first = run(replace(with_iterations(ready, 1), start=start), values).metrics["loss"]
    assert first < run(ready, values).curve["loss"][2]


@pytest.mark.slow
def test_slopes_are_central_differences(tmp_path: Path) -> None:
    """Of whole trials that start from one reconstruction."""
    demo.write(tmp_path)
    ready = PtyradEngine().validate(config.load(tmp_path / "params.yaml"))
    values = {"scale": 1.0, "rotation": 0.0}
    start = start_from(run(ready, values), ready, values)
    session = PtyradSession(replace(ready, start=start), SLOT)

    def tuned_loss(**at: float) -> float:
        return session.run(trial(at), go_on, NEVER).metrics["loss"]

    gradient = session.run(trial(values), go_on, NEVER).gradient
    by_scale = (tuned_loss(scale=1.02, rotation=0.0) - tuned_loss(scale=0.98, rotation=0.0)) / 0.04
    by_rotation = (tuned_loss(scale=1.0, rotation=0.5) - tuned_loss(scale=1.0, rotation=-0.5)) / 1.0
    assert gradient == pytest.approx({"scale": by_scale, "rotation": by_rotation}, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("part", [PatternPart(crop=36), PatternPart(bin=2)], ids=["cropped", "binned"])
def test_a_cheap_look_is_a_start_for_whole_patterns(part: PatternPart, tmp_path: Path) -> None:
    """With other windows and pixels; a crop the other way round, too. The probe is small enough for half a window."""
    demo.write(tmp_path, planted={"C10": 100.0})
    ready = PtyradEngine().validate(config.load(tmp_path / "params.yaml"))
    ready = with_iterations(replace(ready, config=tunables.apply(ready.config, {"C10": 100.0}), space={}), 12)
    cheap = replace(ready, config=with_patterns(ready.config, part))
    looked, whole = run(cheap), run(ready)
    assert looked.attributes["probe_window"] == (part.crop or 24)
    starts = [(ready, whole, start_from(looked, cheap))]
    if part.crop:
        starts.append((cheap, looked, start_from(whole, ready)))
    for first, last, given in starts:
        carried = run(replace(with_iterations(first, 1), start=given)).metrics["loss"]
        assert abs(carried - last.metrics["loss"]) < abs(carried - last.curve["loss"][0])


# --- what else a trial is made of --------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(data: Path) -> tuple[StudyPlan, TrialStart]:
    ready = plan(params(data))
    return ready, start_from(run(ready), ready)


def test_random_numbers_are_those_of_a_trial_that_starts_anew(tiny: tuple[StudyPlan, TrialStart]) -> None:
    """The batches, in their order; and positions are displaced by none."""
    ready, start = tiny
    with prepared(ready) as anew, prepared(replace(ready, start=start)) as carried:
        for batch, other in zip(anew.batches, carried.batches, strict=True):
            assert torch.equal(batch, other)
        model = carried.model
        positions = (model.crop_pos + model.opt_probe_pos_shifts).detach().double().numpy()
    np.testing.assert_allclose(positions * 0.25, start.arrays["positions"], atol=1e-6)


def test_another_seed_changes_nothing_of_the_start(tiny: tuple[StudyPlan, TrialStart]) -> None:
    """But the canvas, which PtyRAD makes as large as its displaced positions need it."""
    ready, start = tiny
    plans = replace(ready, start=start)
    losses = [run(with_iterations(plans, 1), seed=seed).metrics["data_loss"] for seed in (7, 8, 9)]
    assert losses == pytest.approx([losses[0]] * 3, rel=0.01)


def test_positions_drift_from_where_they_were_carried_to(tiny: tuple[StudyPlan, TrialStart]) -> None:
    ready, start = tiny
    further = {"init_params.pos_scan_rand_std": None}
    moved = replace(start, arrays={**start.arrays, "positions": start.arrays["positions"] + 0.4 * np.eye(64, 2)})
    calm = replace(ready, config=params(Path(ready.config["init_params"]["meas_params"]["path"]), further), start=moved)
    assert 0 < run(calm).metrics["position_drift"] < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["positions", "counts"])
def test_held_out_data_score_a_carried_trial(kind: Any, data: Path) -> None:
    """Held-out positions stand where the scan has them, moved by the mean of the others; the score goes on."""
    unseen = HeldOut(kind, 0.1)
    metric = {"positions": "heldout", "counts": "counts"}[kind]
    ready = plan(params(data, STEADY), held_out=unseen, metric=metric)
    earlier = run(ready)
    carried = run(replace(ready, start=start_from(earlier, ready)))
    assert carried.curve[metric][0] < earlier.curve[metric][0]
    assert carried.curve[metric][-1] < earlier.curve[metric][-1]
    if kind == "positions":
        hidden = carried.arrays["heldout_indices"].data
        np.testing.assert_array_equal(hidden, earlier.arrays["heldout_indices"].data)
        # Without the displacement that PtyRAD begins with, and that nothing would take back.
        offsets = np.asarray(carried.arrays["positions"].data)[hidden] / 0.25
        grid = np.stack(np.divmod(hidden, 8), 1) * 2.0
        np.testing.assert_allclose(np.std(offsets - grid, axis=0), 0, atol=1e-5)


def test_a_part_of_the_scan_is_a_start_for_all_of_it(data: Path) -> None:
    """Positions that it did not see go along; and the object is not known there."""
    ready = plan(params(data, STEADY))
    part = plan(
        params(data, {**STEADY, "recon_params.INDICES_MODE": {"mode": "sub", "subscan_slow": 4, "subscan_fast": 4}})
    )
    start = start_from(run(part), part)
    assert len(start.arrays["scan_indices"]) == 16
    anew, carried = (run(with_iterations(replace(ready, start=given), 1)) for given in (None, start))
    assert carried.metrics["loss"] < anew.metrics["loss"]


def test_a_checkpoint_is_of_one_start(tiny: tuple[StudyPlan, TrialStart]) -> None:
    """And one that was saved without any is of none."""
    ready, start = tiny
    identities = [
        checkpoint.identity(ready.config, trial(), ready.keep, "cpu", None, given)
        for given in (None, start, replace(start, sha256="another"))
    ]
    assert len({str(identity["start"]) for identity in identities}) == 3
    del identities[0]["start"]  # as before there were starts
    content = {"identity": identities[0], "payload": 1}
    assert identities[0] != identities[1]
    assert {name: content["identity"].get(name) for name in identities[1]}["start"] is None


def test_a_plan_with_a_start_travels(tiny: tuple[StudyPlan, TrialStart]) -> None:
    """To workers; it is not printed, and two plans are the same with and without."""
    ready, start = tiny
    with_start = replace(ready, start=start)
    arrived = pickle.loads(pickle.dumps(with_start))
    assert arrived.start.sha256 == trial_start.digest(arrived.start) == start.sha256
    assert "object_phase" not in repr(with_start)
    assert with_start == ready
    assert_same(run(with_start), run(arrived))


# --- what is refused ---------------------------------------------------------------------------------


def validated(data: Path, changes: Mapping[str, Any] | None = None, **fields: Any) -> StudyPlan:
    fields = {"lineage": LINEAGE, "results": data.parent / "tiny.h5"} | fields
    return engines.validate(plan(params(data, changes), **fields))


@pytest.mark.parametrize(
    ("changes", "fields", "key"),
    [
        ({}, {"keep": KeepOptions(arrays=False)}, "hypertune_params.collate_results"),
        ({"init_params.meas_crop": [[0, 6], None, None, None]}, {"start": "tiny"}, "ptydask.stages"),
        ({"init_params.obj_omode_max": 2}, {"start": "tiny"}, "ptydask.stages"),
        ({}, {"start": "in m"}, "ptydask.stages"),
        ({}, {"engine": "callable"}, "ptydask.stages"),
        ({}, {"engine": "command"}, "ptydask.stages"),
    ],
)
def test_what_cannot_start_is_refused(
    changes: dict[str, Any], fields: dict[str, Any], key: str, data: Path, tiny: tuple[StudyPlan, TrialStart]
) -> None:
    """Before the run, by the setting that is in the way."""
    start = tiny[1]
    starts = {"tiny": start, "in m": replace(start, attributes={**start.attributes, "length_unit": "m"})}
    given = {name: starts.get(value, value) if name == "start" else value for name, value in fields.items()}
    with pytest.raises(ConfigError) as caught:
        validated(data, changes, **given)
    assert caught.value.key == key


def test_an_object_that_ptyrad_loads_is_refused(data: Path, tiny: tuple[StudyPlan, TrialStart]) -> None:
    """Two cannot be where one is to come from."""
    ready = replace(tiny[0], lineage=LINEAGE)
    init = {**ready.config["init_params"], "obj_source": "PtyRAD"}
    with pytest.raises(ConfigError) as caught:
        check_start(ready, {**ready.config, "init_params": init}, (), 64)
    assert caught.value.key == "init_params.obj_source"


@pytest.mark.parametrize(
    ("name", "low", "high"), [("C10", -70.0, -50.0), ("conv_angle", 24.0, 26.0), ("scale", 0.9, 1.1), ("dx", 0.2, 0.3)]
)
def test_a_probe_that_is_made_anew_is_said(name: str, low: float, high: float, data: Path) -> None:
    """In the plan, by what is tuned."""
    from ptydask.model import FloatRange

    notices = [text for text in validated(data, space={name: FloatRange(low, high)}).notices if "anew" in text]
    assert len(notices) == (name in tunables.PROBE)
    assert all(name in text for text in notices)


# --- measurements from session to session -------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether patterns were at rest in the process, at each time that a file of patterns is read."""
    calls: list[bool] = []
    load = release.initializer().load_array_from_file

    def count(**where: Any) -> Any:
        calls.append(measurements._resting is not None)
        return load(**where)

    monkeypatch.setattr(release.initializer(), "load_array_from_file", count)
    return calls


def test_the_next_session_takes_the_same_patterns(data: Path, reads: list[bool]) -> None:
    """It reads no file, and its trials are those of any session."""
    ready = plan(params(data))
    first = PtyradSession(ready, SLOT)
    patterns = first._measurements
    first.close_for(with_iterations(ready, 2))
    second = PtyradSession(with_iterations(ready, 2), SLOT)
    assert len(reads) == 1
    assert second._measurements is patterns
    assert measurements._resting is None
    assert_same(second.run(trial(), go_on, NEVER), run(with_iterations(ready, 2)))


@pytest.mark.parametrize(
    "changes",
    [
        {"init_params.meas_resample": {"mode": "precompute", "scale_factors": [0.5, 0.5]}},
        {"init_params.meas_crop": [None, None, [4, 28], [4, 28]]},
        {"init_params.meas_add_poisson_noise": {"unit": "total_e_per_pattern", "value": 500}},
    ],
)
def test_other_patterns_take_their_place(changes: dict[str, Any], data: Path, reads: list[bool]) -> None:
    """And there is no moment at which both are in memory."""
    successor = plan(params(data, changes))
    first = PtyradSession(plan(params(data)), SLOT)
    first.close_for(successor)
    second = PtyradSession(successor, SLOT)
    assert reads == [False, False]
    second.close_for(plan(params(data)))
    assert measurements._resting is None


def test_patterns_that_changed_on_disk_are_read_again(tmp_path: Path, reads: list[bool]) -> None:
    ready = plan(params(write_patterns(tmp_path)))
    PtyradSession(ready, SLOT).close_for(ready)
    stored = np.load(tmp_path / "patterns.npy")
    np.save(tmp_path / "patterns.npy", 2 * stored)
    PtyradSession(ready, SLOT)
    assert reads == [False, False]


def test_memory_is_given_back_where_no_session_of_ptyrad_follows(data: Path) -> None:
    """Nor one after which nothing does."""
    ready = plan(params(data))
    for close in (PtyradSession.close, lambda session: session.close_for(replace(ready, engine="command"))):
        session = PtyradSession(ready, SLOT)
        close(session)
        assert session._measurements is None
        assert measurements._resting is None


def test_a_worker_closes_for_the_run_that_follows(
    data: Path, reads: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage after the other reads the patterns once, on each worker."""
    from ptydask.storage import urls
    from ptydask.worker import process

    monkeypatch.setattr(process, "_open", None)
    setups = [
        process.RunSetup(plan(params(data), name=name), urls.StorageSpec(""), name, data.parent, name, 120.0, 1)
        for name in ("tiny first", "tiny second")
    ]
    for setup in setups:
        assert process._open_for(setup).facts["data"] == str(data)
    assert len(reads) == 1


# --- from the store -----------------------------------------------------------------------------------


def test_a_start_is_read_from_the_results(tiny: tuple[StudyPlan, TrialStart], data: Path, tmp_path: Path) -> None:
    """All that it was in memory, to the last bit; the same again has the same checksum."""
    ready, start = tiny
    result = run(ready, {"C10": -62.0})
    said = {"config_json": json.dumps(ready.config), "lineage": replace(LINEAGE, name="first")}
    with study(tmp_path, said, result, {"C10": -62.0}) as results:
        stored, again = trial_start.read_start(results, 3), trial_start.read_start(results, 3)
    assert (stored.stage, stored.trial) == ("first", 3)
    assert stored.sha256 == again.sha256 != start.sha256
    assert (stored.params["C10"], stored.params["tilt_y"]) == (-62.0, 0)
    assert "snapshots" not in stored.arrays
    for name, array in stored.arrays.items():
        np.testing.assert_array_equal(array, result.arrays[name].data)
    in_memory = start_from(result, ready, {"C10": -62.0})
    assert stored.attributes.items() >= in_memory.attributes.items()
    once = with_iterations(ready, 1)
    assert_same(run(replace(once, start=stored)), run(replace(once, start=in_memory)))


@pytest.mark.parametrize(
    ("number", "drop", "words"),
    [
        (3, ("probe",), "probe"),
        (3, ("positions", "crop_positions"), "positions, crop_positions"),
        (4, (), "no trial 4"),
    ],
)
def test_what_was_not_kept_is_said(
    number: int, drop: tuple[str, ...], words: str, tiny: tuple[StudyPlan, TrialStart], tmp_path: Path
) -> None:
    """In one line, with what is missing."""
    ready = tiny[0]
    result = run(with_iterations(ready, 1))
    result = replace(result, arrays={name: array for name, array in result.arrays.items() if name not in drop})
    with (
        study(tmp_path, {"config_json": json.dumps(ready.config)}, result) as results,
        pytest.raises(StoreError, match=words) as caught,
    ):
        trial_start.read_start(results, number)
    assert "\n" not in str(caught.value)


def test_a_stage_that_starts_anew_has_no_start(tmp_path: Path, tiny: tuple[StudyPlan, TrialStart]) -> None:
    result = run(with_iterations(tiny[0], 1))
    for lineage in (None, replace(LINEAGE, start_stage="", start_trial=None)):
        with study(tmp_path / str(lineage is None), {"lineage": lineage}, result) as results:
            assert trial_start.read_own_start(results) is None


@contextmanager
def study(
    folder: Path, said: Mapping[str, Any], result: TrialOutput, values: Mapping[str, Any] | None = None
) -> Iterator[reader.Results]:
    """Results with one trial, number 3."""
    store = Store.open(folder / "study.h5", store_cases.meta(**said))
    store_cases.put(store, store_cases.record(3, params=dict(values or {})), result)
    with reader.open(store.finish()) as results:
        yield results


STAGED = """
ptydask:
  stages:
    - {name: rough, tune: {scale: {low: 1.04, high: 1.06, step: 0.02}}, trials: 2, iterations: 4,
       sampler: GridSampler, pruner: null}
    - {name: fine, tune: {rotation: {low: -1, high: 0, step: 1}}, trials: 2, iterations: 2, start_from: best,
       sampler: GridSampler, pruner: null}
"""


@pytest.mark.slow
def test_stages_start_from_one_another(tmp_path: Path, ptydask: Any) -> None:
    """In one command; their trials can be repeated, as what they started from is in the file."""
    demo.write(tmp_path)
    with (tmp_path / "params.yaml").open("a") as file:
        file.write(STAGED)
    done = ptydask("run", tmp_path / "params.yaml", "--workers", 1)
    assert done.returncode == 0, done.stderr
    with reader.open(tmp_path / "demo.h5") as fine, fine.stage("rough") as rough:
        own = trial_start.read_own_start(fine)
        assert own is not None
        assert own.stage == "rough"
        lineage = fine.lineage
        assert lineage is not None
        assert (lineage.start_stage, lineage.start_trial) == ("rough", rough.ranked(1)[0].number)
        best = rough.curve(lineage.start_trial)["loss"]
        assert len(fine.records()) == 2
        for record in fine.records():
            first = fine.curve(record.number)["loss"][0]
            assert first - best[-1] < best[0] - first
