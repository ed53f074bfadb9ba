"""What guesses do to a study: first points, ranges, stages, and what is gone on with."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from killed_runs import kill, start
from stage_cases import grid
from store_cases import meta, put, record
from test_queue_view import Told

from ptydask import demo, running
from ptydask.cli import main
from ptydask.config import Overrides
from ptydask.distributions import FloatRange, IntRange
from ptydask.driver.conduct import looks_at_patterns, prepare, run_of
from ptydask.driver.earlier import EarlierStudy
from ptydask.driver.earlier_points import start_from
from ptydask.driver.prepare import RunRequest, complete_plan
from ptydask.driver.stages import plan_stages
from ptydask.driver.succession import prepare_after
from ptydask.errors import ConfigError
from ptydask.guess import measuring, points, report, table
from ptydask.model import Point
from ptydask.store import Store, reader

pytestmark = pytest.mark.usefixtures("without_parallax")

GUESSED = {"rotation": (-1.6, 0.2), "conv_angle": (24.6, 0.2), "C10": (243.0, 10.0)}


@pytest.fixture
def measured(monkeypatch):
    """Stands in for looking at the patterns: the paths that were looked at, in their order."""
    looked = []

    def guess_params(init, *, parallax=False):
        looked.append(init["meas_params"]["path"])
        guesses = [one(name, value, deviation) for name, (value, deviation) in GUESSED.items()]
        return measuring.Measured(None, None, None, report.Report((*guesses, one("meas_flipT", (0, 0, 0))), ()))

    monkeypatch.setattr(measuring, "guess_params", guess_params)
    monkeypatch.setattr(measuring, "_KNOWN", {})
    return looked


@pytest.fixture
def params(tmp_path):
    return demo.write(tmp_path / "demo")


def change(path, **changes):
    """The params file with other sections or keys of its sections."""
    data = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        data[name] = {**data.get(name, {}), **value}
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def tuned(**ranges):
    """``hypertune_params`` with these ranges: low, high, step."""
    return {
        "tune_params": {
            name: {"state": True, "suggest": "float", "kwargs": dict(zip(("low", "high", "step"), of, strict=True))}
            for name, of in ranges.items()
        }
    }


def plan(path, guess="point", **more):
    return complete_plan(path, Overrides(guess=guess, **more))


def one(parameter, value, deviation=1.0, trust="good", own=None):
    own = (0, 0, 0) if parameter == "meas_flipT" and own is None else own
    return table.Guess(parameter, value, deviation, "a", trust, "", own)


@pytest.mark.parametrize(
    ("dist", "value", "deviation", "narrowed"),
    [
        (FloatRange(-4, 4, 0.5), 1.1, 0.3, FloatRange(0, 2.5, 0.5)),
        (FloatRange(-4, 4, 0.5), 3.9, 0.01, FloatRange(3, 4, 0.5)),
        (FloatRange(-4, 4), 1.0, 0.25, FloatRange(0, 2)),
        (FloatRange(-4, 4), 0.0, 9.0, FloatRange(-4, 4)),
        (IntRange(0, 100, 10), 42.0, 1.0, IntRange(20, 60, 10)),
    ],
)
def test_ranges_are_narrowed_on_their_grid(dist, value, deviation, narrowed):
    assert points.narrow_range(dist, value, deviation) == narrowed


def test_guesses_are_tried_and_what_is_not_tuned_is_said():
    space = {"rotation": FloatRange(-4, 4, 0.5), "scale": FloatRange(0.9, 1.1, 0.02)}
    chosen = {"rotation": one("rotation", -2.4, 0.2), "conv_angle": one("conv_angle", 20.0, 0.1)}
    start = {"rotation": 0.0, "scale": 1.0}
    used = points.use_guesses(chosen, space, start)
    assert used.point.params == {"rotation": -2.5, "scale": 1.0}
    assert used.point.origin == "guess"
    assert used.space == space
    assert any("conv_angle" in notice and "not tune" in notice for notice in used.untuned)
    assert points.use_guesses(chosen, space, start, narrow=space).space["rotation"] == FloatRange(-3.5, -1.5, 0.5)
    beyond = points.use_guesses({"rotation": one("rotation", 90.0)}, space, start, narrow=space)
    assert beyond.point is None
    assert beyond.space == space
    assert any("beyond" in notice for notice in beyond.notices)


@pytest.mark.parametrize(
    ("guess", "own", "written"),
    [
        (("rotation", -1.282181, 0.61), 0.0, {"rotation": -1.5}),
        (("rotation", 357.6, 0.1), 0.0, {"rotation": -2.5}),
        (("rotation", 47.37, 0.61), 0.0, {"rotation": 47.37}),
        (("rotation", -0.24, 0.1), 0.0, {}),
        (("C10", 243.37, 28.0), -230.0, {"C10": 240.0}),
        (("C12a", 43.7321, 2.8), None, {"C12a": 43.7}),
        (("C12a", 1.0, 2.8), None, {}),
        (("dx", 0.123456, 0.0012), 0.2, {"dx": 0.1235}),
    ],
)
def test_what_is_written_has_no_more_digits_than_are_known(guess, own, written):
    name, value, deviation = guess
    assert points.values_to_write({name: one(name, value, deviation, own=own)}, SPACE) == written


@pytest.mark.ptyrad
def test_a_run_tries_the_guess(tmp_path):
    """By the patterns themselves."""
    from ptydask.cli import build_parser, run

    args = build_parser().parse_args(["run", str(demo.write(tmp_path)), "--guess"])
    plan = complete_plan(args.configs[0], run._make_overrides(args))
    guessed = next(point for point in plan.points if point.origin == "guess")
    assert guessed.params["rotation"] == pytest.approx(-1.5, abs=3)
    assert set(guessed.params) == set(plan.space)
    assert any(notice.startswith("guess: rotation") for notice in plan.notices)


# --- kept together -----------------------------------------------------------------------------------


SPACE = {"rotation": FloatRange(-4, 4, 0.5), "C10": FloatRange(-300, 300, 10.0), "conv_angle": FloatRange(20, 30, 0.5)}


def test_a_turn_that_no_trial_has_takes_its_aberrations_with_it():
    turn = one("rotation", 178.0, own=0.0)
    chosen = {"rotation": turn, "C10": one("C10", 200.0), "conv_angle": one("conv_angle", 24.0)}
    used = points.use_guesses(chosen, SPACE, {}, narrow=SPACE)
    assert used.point.params == {"conv_angle": 24.0}
    assert used.space["C10"] == SPACE["C10"]
    assert any("C10" in notice and "178" in notice for notice in used.notices)


def test_flips_that_the_file_has_not_take_the_turn_with_them():
    chosen = {"rotation": one("rotation", 2.0), "C10": one("C10", 200.0), "meas_flipT": one("meas_flipT", (0, 0, 1))}
    used = points.use_guesses(chosen, SPACE, {}, narrow=SPACE)
    assert used.point is None
    assert used.space == SPACE
    assert any("C10" in notice and "meas_flipT" in notice for notice in used.notices)


def test_a_slight_turn_beyond_its_range_leaves_the_aberrations():
    chosen = {"rotation": one("rotation", 5.0, own=0.0), "C10": one("C10", 200.0)}
    assert points.use_guesses(chosen, SPACE, {}).point.params == {"C10": 200.0}


@pytest.mark.parametrize(
    ("ends", "guessed", "tried", "narrowed"),
    [
        ((0, 360), -30.0, 330.0, (326, 334)),
        ((170, 190), -176.0, 184.0, (180, 188)),
        ((-270, -90), 100.0, -260.0, (-264, -256)),
        ((-180, 180), 179.0, 179.0, (-180, 180)),  # the other end is as near
        ((0, 360), -1.0, 359.0, (0, 360)),
        ((-90, 90), 88.0, 88.0, (84, 90)),
    ],
)
def test_a_turn_is_the_same_by_360_degree_more(ends, guessed, tried, narrowed):
    space = {"rotation": FloatRange(*ends, 1.0), "C10": FloatRange(-300, 300, 10.0)}
    chosen = {"rotation": one("rotation", guessed, 1.0, own=0.0), "C10": one("C10", 200.0)}
    used = points.use_guesses(chosen, space, {}, narrow=["rotation"])
    assert used.point.params == {"rotation": tried, "C10": 200.0}
    assert used.space["rotation"] == FloatRange(*narrowed, 1.0)


def test_a_narrowed_range_keeps_what_a_person_asks_for():
    chosen = {"rotation": one("rotation", -2.0, 0.2)}
    kept = [Point({"rotation": 3.0}, "try"), Point({"C10": 0.0}, "try")]
    used = points.use_guesses(chosen, SPACE, {"rotation": 0.0}, narrow=SPACE, kept=kept)
    assert used.space["rotation"] == FloatRange(-3, 3, 0.5)


# --- in the plan -------------------------------------------------------------------------------------


@pytest.mark.ptyrad
def test_the_guess_comes_before_the_files_own_values(params, measured):
    first, second = plan(params).points
    assert (first.origin, first.params) == ("guess", {"scale": 1.0, "rotation": -1.5})
    assert (second.origin, second.params) == ("start", {"scale": 1.0, "rotation": 0.0})


@pytest.mark.ptyrad
def test_a_guess_of_the_files_own_values_is_tried_once(params, measured):
    change(params, init_params={"pos_scan_affine": [1, 0, -1.5, 0]})
    (only,) = plan(params).points
    assert only.params == {"scale": 1.0, "rotation": -1.5}


@pytest.mark.ptyrad
def test_narrowed_ranges_hold_every_first_point_but_those_asked_for(params, measured):
    narrow = plan(params, "ranges", tries=({"rotation": 2.0},))
    assert narrow.space["rotation"] == FloatRange(-2.5, 2.0, 0.5)
    assert [point.origin for point in narrow.points] == ["guess", "start", "try"]
    narrow = plan(params, "ranges")
    assert narrow.space["rotation"] == FloatRange(-2.5, -0.5, 0.5)
    assert [point.origin for point in narrow.points] == ["guess"]


@pytest.mark.ptyrad
@pytest.mark.parametrize(
    ("best", "others"),
    [(-2.0, ["guess", "start"]), (-1.5, ["start"])],
)
def test_earlier_studies_come_first_and_nothing_is_tried_twice(params, measured, best, others):
    trials = (record(0, 0.1, params={"scale": 1.0, "rotation": best}),)
    about = meta(engine="toy", config_json='{"init_params": {}}')
    after = start_from(plan(params), [EarlierStudy(Path("last.h5"), "last.h5", about, trials, {})])
    assert [point.origin for point in after.points] == ["from last.h5, trial 0", *others]


@pytest.mark.ptyrad
@pytest.mark.parametrize(("best", "lines"), [(-2.0, ["from", "guess"]), (-1.5, ["from", "guess"]), (None, ["guess"])])
def test_the_point_that_is_tried_is_among_the_plans_details(params, measured, best, lines):
    """On the grid, with what was not guessed; in the order in which points are tried."""
    trials = () if best is None else (record(0, 0.1, params={"scale": 1.0, "rotation": best}),)
    about = meta(engine="toy", config_json='{"init_params": {}}')
    earlier = [EarlierStudy(Path("last.h5"), "last.h5", about, trials, {})] if trials else []
    after = start_from(plan(params), earlier)
    details = [(label, text) for label, text in after.details if label in ("from", "guess")]
    assert [label for label, _ in details] == lines
    assert details[-1][1] == "scale=1 rotation=-1.5"
    assert not any("tried first" in notice for notice in after.notices)
    assert any(notice.startswith("guess: rotation = -1.60 +- 0.20") for notice in after.notices)


@pytest.mark.ptyrad
@pytest.mark.parametrize(
    ("best", "told"), [(-1.5, False), (-2.2, False), (-2.5, True), (358.5, False), (3.5, True), (0.0, True)]
)
def test_patterns_that_contradict_an_earlier_study_are_told(params, measured, best, told):
    about = meta(engine="toy", config_json='{"init_params": {}}')
    trials = (record(0, 0.1, params={"scale": 1.0, "rotation": best}),)
    after = start_from(plan(params), [EarlierStudy(Path("last.h5"), "last.h5", about, trials, {})])
    says = [notice for notice in after.notices if notice.startswith("the patterns say")]
    assert bool(says) is told
    assert all("rotation -1.60 +- 0.20" in notice and f"last.h5 found {best:g}" in notice for notice in says)


@pytest.mark.ptyrad
def test_a_guess_that_a_grid_has_not_is_not_said_to_be_tried(params, measured):
    change(params, hypertune_params={"sampler_params": grid(scale=[1.0, 1.1], rotation=[-4.0, 4.0])})
    listed = plan(params)
    assert "guess" not in [point.origin for point in listed.points]
    assert "guess" not in [label for label, _ in listed.details]
    assert any("rotation=-1.5 is not tried" in notice for notice in listed.notices)


@pytest.mark.ptyrad
def test_a_convergence_angle_that_is_off_is_told_once(params, measured, monkeypatch):
    warnings = (f"{report.RADIUS} 11.8 pixels", "C10 is not determined")
    off = report.Report((one("conv_angle", 24.5, 0.1, own=20.0),), warnings)
    monkeypatch.setattr(measuring, "report_once", lambda *_, **__: off)
    notices = [notice for notice in plan(params).notices if notice.startswith("guess")]
    assert len([notice for notice in notices if "conv_angle" in notice or "radius" in notice]) == 1
    assert any("C10" in notice for notice in notices)


@pytest.mark.ptyrad
def test_a_listed_grid_stays_whole(params, measured):
    change(params, hypertune_params={"sampler_params": grid(scale=[1.0, 1.1], rotation=[-4.0, -1.5, 4.0])})
    listed = plan(params, "ranges")
    assert listed.space["rotation"] == FloatRange(-4, 4, 0.5)
    assert len(listed.points) == 6
    assert listed.points[0].params == {"scale": 1.0, "rotation": -1.5}


@pytest.mark.ptyrad
def test_what_the_sampler_holds_is_not_guessed(params, measured):
    held = {"name": "PartialFixedSampler", "configs": {"fixed_params": {"rotation": 0.0}, "base_sampler": "TPESampler"}}
    change(params, hypertune_params={"sampler_params": held})
    assert all(point.params["rotation"] == 0.0 for point in plan(params, "ranges").points)


@pytest.mark.ptyrad
def test_patterns_are_looked_at_once_unless_they_change(params, measured):
    plan(params)
    plan(params, "ranges", seed=3)
    change(params, recon_params={"NITER": 3})
    plan(params)
    assert len(measured) == 1
    change(params, init_params={"meas_flipT": [1, 0, 0]})
    plan(params)
    assert len(measured) == 2
    data = Path(measured[0])
    data.write_bytes(data.read_bytes() + b" ")
    plan(params)
    assert len(measured) == 3


STAGES = [
    {"name": "rough", "tune": ["scale"], "trials": 2, "scan": {"every": 2}, "pixels": {"crop": 32}},
    {"name": "turn", "tune": ["rotation", "conv_angle"], "trials": 3},
    {"name": "again", "tune": {"rotation": {"around": "best", "within": "4 steps"}, "C10": None}, "trials": 3},
]


@pytest.fixture
def staged(params):
    change(params, hypertune_params=tuned(scale=(0.9, 1.1, 0.02), rotation=(-4, 4, 0.5), conv_angle=(20, 30, 0.5)))
    data = yaml.safe_load(params.read_text())
    data["hypertune_params"]["tune_params"] |= tuned(C10=(200, 280, 10))["tune_params"]
    data["hypertune_params"] |= {"sampler_params": {"name": "RandomSampler"}, "pruner_params": None}
    data["ptydask"] = {"stages": STAGES, "final": None}
    params.write_text(yaml.safe_dump(data, sort_keys=False))
    return params


def test_the_first_stage_that_tunes_a_parameter_tries_its_guess(staged, measured):
    planned = plan_stages(staged, Overrides(engine="toy", guess="ranges"))
    rough, turn, again = (stage.plan for stage in planned)
    assert len(measured) == 1
    assert "guess" not in [point.origin for point in rough.points]
    assert turn.points[0].params == {"rotation": -1.5, "conv_angle": 24.5}
    assert turn.space["rotation"] == FloatRange(-2.5, -0.5, 0.5)
    assert [(point.origin, point.params) for point in again.points] == [("guess", {"C10": 240.0})]
    assert again.space["C10"] == FloatRange(200, 280, 10)
    assert not any("does not tune" in notice for stage in planned for notice in stage.plan.notices)


def run(path, *options):
    return main(["run", str(path), "--engine", "toy", "--cluster", "local", "--workers", "1", *options])


@pytest.mark.slow
def test_stages_run_with_guesses_keep_what_was_found(staged, measured):
    """Real trials of the quick engine, whose best is where the parameters are least."""
    assert run(staged, "--guess", "ranges") == 0
    assert len(measured) == 1
    with reader.open(staged.parent / "demo.h5") as file:
        origins = {}
        for name in file.stage_names():
            with file.stage(name) as stage:
                origins[name] = [sorted(one.params) for one in stage.records() if one.origin == "guess"]
    assert origins == {"rough": [], "turn": [["conv_angle", "rotation"]], "again": [["C10", "rotation"]]}


# --- gone on with ------------------------------------------------------------------------------------


@pytest.fixture
def quick(params):
    """A study of the convergence angle, whose guess needs neither a long look nor parallax."""
    few = {"meas_crop": [[0, 10], [0, 10], None, None], "sleep": 0.1}
    change(params, init_params=few, hypertune_params=tuned(conv_angle=(20, 30, 0.5)))
    sampler = {"sampler_params": {"name": "RandomSampler"}, "pruner_params": None, "n_trials": 3}
    return change(params, hypertune_params=sampler)


def origins(path):
    with reader.open(path.parent / "demo.h5") as file:
        return [record.origin for record in file.records()]


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False])
def test_a_killed_run_goes_on_with_narrowed_ranges(quick, tmp_path, whole_group):
    """The guess is one trial of the budget, however often the run is killed."""
    log, folder = tmp_path / "log", quick.parent / "demo.trials"
    for wanted in (1, 3):
        process = start(quick, log, "--guess", "ranges")
        while len(list(folder.glob("*.h5"))) < wanted and process.poll() is None:
            time.sleep(0.02)
        kill(process, whole_group)
    assert start(quick, log, "--guess", "ranges").wait(timeout=120) == 0, log.read_text()
    assert len(origins(quick)) == 6
    assert origins(quick).count("guess") == 1
    with reader.open(quick.parent / "demo.h5") as file:
        assert all(22 < record.params["conv_angle"] < 27 for record in file.records())
    assert start(quick, log, "--guess", "ranges").wait(timeout=120) == 0
    assert "nothing left to do" in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("then", [("--guess",), (), ("--guess", "ranges")])
def test_more_trials_with_another_range(quick, then, capsys):
    assert run(quick, "--guess", "ranges", "--trials", "2") == 0
    assert run(quick, *then, "--trials", "4") == 0
    assert origins(quick).count("guess") == 1
    assert len(origins(quick)) == 4
    assert ("the range is now" in capsys.readouterr().err) is (then != ("--guess", "ranges"))


@pytest.mark.slow
def test_a_guess_asked_for_later_is_tried_then(quick):
    assert run(quick, "--trials", "2") == 0
    assert run(quick, "--guess", "ranges", "--trials", "4") == 0
    assert origins(quick).count("guess") == 1


def recorded(request):
    """The study of a request, all of its trials recorded."""
    plan = prepare(replace(request, overrides=replace(request.overrides, guess=None))).plan
    store = Store.open(plan.results, run_of(prepare(request)).meta)
    for number in range(plan.budget.trials(1)):
        put(store, record(number, params={name: values.low + number for name, values in plan.space.items()}))
    store.finish()


@pytest.mark.parametrize("guess", ["point", "ranges"])
def test_the_patterns_of_a_finished_study_are_not_looked_at(quick, measured, guess):
    request = RunRequest(quick, Overrides(engine="toy", guess=guess), "local", workers=1)
    recorded(request)
    measured.clear()
    measuring._KNOWN.clear()
    assert not looks_at_patterns(request)
    view = Told()
    assert running.announce(request, view).finished
    assert not measured
    log = view.stream.getvalue()
    assert "nothing left to do" in log
    assert "looking" not in log
    assert "range is now" not in log
    more = replace(request, overrides=replace(request.overrides, n_trials=9))
    assert looks_at_patterns(more)
    assert not run_of(prepare(more)).finished
    assert measured


@pytest.mark.parametrize("command", [["validate"], ["run", "--dry-run", "--workers", "1", "--cluster", "local"]])
def test_what_is_guessed_is_said_beforehand(quick, command, capsys):
    assert main([*command, str(quick), "--engine", "toy", "--guess", "ranges"]) == 0
    assert "guess: conv_angle = 24.5" in capsys.readouterr().err
    assert not (quick.parent / "demo.h5").exists()


@pytest.mark.parametrize("command", [["validate"], ["run", "--dry-run", "--workers", "1", "--cluster", "local"]])
def test_what_takes_time_is_said_before_it_is_done(quick, command, capsys, monkeypatch):
    def guess_params(*_, **__):
        assert "looking at the patterns" in capsys.readouterr().err
        raise ConfigError("seen")

    monkeypatch.setattr(measuring, "has_parallax", lambda: True)
    monkeypatch.setattr(measuring, "guess_params", guess_params)
    assert main([*command, str(quick), "--engine", "toy", "--guess"]) == 2
    assert "seen" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_file_after_the_option_is_not_its_own(command, capsys):
    assert main([command, "--guess", "params.yaml"]) == 2
    assert "before --guess" in capsys.readouterr().err


def test_a_sweep_has_no_patterns(tmp_path, capsys, monkeypatch):
    sweep = tmp_path / "sweep.yaml"
    monkeypatch.chdir(tmp_path)
    sweep.write_text("program: sweep.yaml\nmethod: random\nmetric: {name: loss}\nparameters: {a: {values: [1, 2]}}\n")
    assert main(["validate", str(sweep), "--guess"]) == 2
    assert "--guess" in capsys.readouterr().err


def test_a_queue_looks_at_the_patterns_of_each_study_once(tmp_path, measured):
    """Also where a later study is prepared again, to start from those before it; its guess is tried all the same."""
    files = [demo.write(tmp_path / name) for name in "abc"]
    requests = [RunRequest(file, Overrides(engine="toy", guess="ranges"), "local", workers=1) for file in files]
    queue = running.announce_queue(requests, Told())
    assert len(measured) == 3
    results = []
    for study in queue:
        plan = prepare_after(study, results, Told()).plan
        origins = [point.origin for point in plan.points]
        assert origins.count("guess") == 1
        assert any(origin.startswith("from ") for origin in origins) == bool(results)
        assert plan.space == study.prepared.plan.space
        store = Store.open(plan.results, run_of(study.prepared).meta)
        put(store, record(0, params={name: values.low for name, values in plan.space.items()}))
        store.finish()
        results.append(plan.results)
    assert len(measured) == 3
