"""Every sampler and pruner of Optuna from a plain description, distributions both ways, grids without duplicates."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import TrialState as State

from ptydask import sampling
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange
from ptydask.driver import comparability
from ptydask.errors import ConfigError, MissingDependency
from ptydask.model import NEAR_VALUES, OWN_VALUES, Budget, ComponentSpec, Point, SourceFile, StudyPlan
from ptydask.sampling.hyperband import UnfilteredHyperband
from ptydask.space import ranges

SPACE: dict[str, Distribution] = {
    "scale": FloatRange(0.8, 1.2, 0.02),
    "oplr": FloatRange(1e-4, 1e-2, log=True),
    "Nlayer": IntRange(1, 8),
    "batch_size": IntRange(16, 512, log=True),
    "optimizer": Choice(("Adam", "SGD")),
    "one": FloatRange(2.0, 2.0),
}
GRID: dict[str, Distribution] = {
    "scale": FloatRange(0.8, 1.2, 0.1),
    "Nlayer": IntRange(1, 3),
    "opt": Choice(("a", "b")),
}


def plan(
    sampler: ComponentSpec = ComponentSpec("RandomSampler"),  # noqa: B008
    pruner: ComponentSpec | None = None,
    where: dict[str, Distribution] | None = None,
    points: tuple[Point, ...] = (),
    iterations: int | None = 20,
) -> StudyPlan:
    return StudyPlan(
        name="s",
        source=SourceFile(Path("p.yaml"), "", "yaml"),
        engine="toy",
        config={},
        space=SPACE if where is None else where,
        metric="loss",
        direction="minimize",
        sampler=sampler,
        pruner=pruner,
        budget=Budget(5),
        storage=None,
        results=Path("r.h5"),
        seed=3,
        iterations=iterations,
        points=points,
    )


def drawn(spec: ComponentSpec, seed: int, trials: int = 1, where: dict[str, Distribution] | None = None) -> list[Any]:
    """The parameters of ``trials`` trials in a row, each from a sampler of its own, as workers make them."""
    where = SPACE if where is None else where
    study = optuna.create_study()
    dists = {name: sampling.to_optuna(dist) for name, dist in where.items()}
    rows = []
    for number in range(trials):
        study.sampler = sampling.build_sampler(spec, seed=seed + number, space=where)
        trial = study.ask(fixed_distributions=dists)
        study.tell(trial, 1.0 + number)
        rows.append(dict(trial.params))
    return rows


# --- distributions ----------------------------------------------------------------------------------


def test_search_space_both_ways() -> None:
    """The JSON is Optuna's own encoding, and reads back as the same distributions."""
    text = sampling.search_space_json(SPACE)
    back = {n: optuna.distributions.json_to_distribution(json.dumps(d)) for n, d in json.loads(text).items()}
    assert back == {name: sampling.to_optuna(dist) for name, dist in SPACE.items()}
    first = optuna.distributions.json_to_distribution(json.dumps(json.loads(text)["scale"]))
    assert first == optuna.distributions.FloatDistribution(0.8, 1.2, step=0.02)


@pytest.mark.parametrize(
    ("dist", "words"),
    [
        (FloatRange(0.8, 1.2, 0.02), "0.8 to 1.2, step 0.02"),
        (FloatRange(1e-5, 0.1, log=True), "1e-05 to 0.1, logarithmic"),
        (IntRange(16, 1234568, 4), "16 to 1234568, step 4"),
        (IntRange(1, 8), "1 to 8"),
    ],
)
def test_a_range_has_one_wording(dist: FloatRange | IntRange, words: str) -> None:
    """Messages, the plan and the notice of a range that moved say it alike."""
    stored = json.loads(sampling.search_space_json({"x": dist, "y": dist}))
    moved = {"x": stored["x"] | {"attributes": stored["x"]["attributes"] | {"low": dist.low * 2}}, "y": stored["y"]}
    assert ranges.describe(dist) == words
    (notice,) = comparability._compare_spaces(moved, stored, "f.h5", "parameters")
    assert notice.startswith(f"x: the range is now {words}, earlier trials were drawn from ")


@pytest.mark.parametrize("dist", [*SPACE.values(), FloatRange(-50.0, 50.0, 0.1), IntRange(1, 9, 4)])
def test_grid_points_are_optunas(dist: Distribution) -> None:
    """Every value that ptydask calls allowed is one that Optuna allows, so no enqueued point is refused."""
    theirs = sampling.to_optuna(dist)
    for value in ranges.grid(dist) or [ranges.nearest_value(dist, 0.1234 if not isinstance(dist, Choice) else "Adam")]:
        assert theirs._contains(theirs.to_internal_repr(value))
        assert ranges.contains(dist, value)
    assert ranges.grid_size(dist) == (None if ranges.grid(dist) is None else len(ranges.grid(dist) or ()))


def test_values_that_are_not_allowed() -> None:
    """Outside, off the grid, of another type."""
    assert not ranges.contains(SPACE["scale"], 0.81)
    assert not ranges.contains(SPACE["scale"], 1.22)
    assert not ranges.contains(SPACE["Nlayer"], 2.5)
    assert not ranges.contains(SPACE["optimizer"], "adam")
    assert not ranges.contains(SPACE["scale"], True)
    assert not ranges.contains(SPACE["scale"], float("nan"))


# --- samplers ---------------------------------------------------------------------------------------

SAMPLERS: list[ComponentSpec] = [
    ComponentSpec("RandomSampler"),
    ComponentSpec("TPESampler", {"multivariate": True, "group": True, "constant_liar": True}),
    ComponentSpec("TPESampler", {"n_startup_trials": 2, "seed": 5}),
    ComponentSpec("CmaEsSampler", {"restart_strategy": None, "independent_sampler": {"name": "RandomSampler"}}),
    ComponentSpec("GPSampler", {"n_startup_trials": 5}),
    ComponentSpec("QMCSampler", {"scramble": True, "qmc_type": "halton"}),
    ComponentSpec("NSGAIISampler", {"population_size": 4, "crossover": "UniformCrossover"}),
    ComponentSpec("NSGAIISampler", {"crossover": {"name": "SBXCrossover", "configs": {"eta": 2.0}}}),
    ComponentSpec("NSGAIIISampler", {"population_size": 4}),
    ComponentSpec(
        "PartialFixedSampler",
        {"fixed_params": {"scale": 1.0}, "base_sampler": {"name": "TPESampler", "configs": {"multivariate": True}}},
    ),
]


def test_every_sampler_of_optuna_is_tried_here() -> None:
    """A sampler that Optuna adds must be added to this test; the two exhaustive ones have tests of their own."""
    there = {
        name
        for name in optuna.samplers.__all__
        if isinstance(thing := getattr(optuna.samplers, name), type)
        and issubclass(thing, BaseSampler)
        and not name.startswith("Base")
    }
    assert there == {spec.name for spec in SAMPLERS} | {"GridSampler", "BruteForceSampler"}


@pytest.mark.parametrize("spec", SAMPLERS, ids=lambda s: f"{s.name}-{len(s.configs)}")
def test_sampler_works(spec: ComponentSpec) -> None:
    """Passes the check, and draws trials inside the space."""
    sampling.rehearse_search(plan(spec))
    for row in drawn(spec, seed=1, trials=4):
        assert set(row) == set(SPACE)
        assert all(ranges.contains(SPACE[name], value) for name, value in row.items())


@pytest.mark.parametrize("name", ["RandomSampler", "TPESampler", "NSGAIISampler", "CmaEsSampler", "GPSampler"])
def test_seeds(name: str) -> None:
    """One seed, one trial; another seed, another trial: workers that start together must not start alike."""
    spec = ComponentSpec(name)
    assert drawn(spec, 1) == drawn(spec, 1)
    assert drawn(spec, 1) != drawn(spec, 2)


def test_a_seed_in_the_file_is_a_base() -> None:
    """It changes the draws, and the trials still differ from each other."""
    one, two = ComponentSpec("TPESampler", {"seed": 1}), ComponentSpec("TPESampler", {"seed": 2})
    assert drawn(one, 5) == drawn(one, 5)
    assert drawn(one, 5) != drawn(two, 5)
    assert drawn(one, 5) != drawn(one, 6)


def test_fixed_parameters_stay_fixed() -> None:
    """PartialFixedSampler holds what it was told to hold."""
    assert {row["scale"] for row in drawn(SAMPLERS[-1], 1, trials=5)} == {1.0}


def test_qmc_goes_by_the_trials_number() -> None:
    """Workers that draw at the same time take different points of one sequence, from the first trial on."""
    where: dict[str, Distribution] = {"x": FloatRange(0.0, 1.0), "y": FloatRange(0.0, 1.0)}
    spec = ComponentSpec("QMCSampler")
    study = optuna.create_study()
    dists = {name: sampling.to_optuna(dist) for name, dist in where.items()}
    together = []
    for seed in range(8):  # none has told its result when the next one asks
        study.sampler = sampling.build_sampler(spec, seed=seed, space=where)
        together.append(dict(study.ask(fixed_distributions=dists).params))
    assert len({tuple(row.values()) for row in together}) == 8
    assert together == drawn(spec, 0, 8, where)
    assert sorted(int(row["x"] * 8) for row in together) == list(range(8)), "one point in each eighth, as Sobol has it"


@pytest.mark.parametrize(
    "spec", [ComponentSpec("CmaEsSampler"), ComponentSpec("QMCSampler"), ComponentSpec("GPSampler")]
)
def test_package_is_missing(spec: ComponentSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'ptydask\["):
        sampling.rehearse_search(plan(spec))


def test_nothing_to_tune() -> None:
    """A study of one reconstruction has an empty space, which every sampler must bear."""
    assert sampling.rehearse_search(plan(where={})) == ()
    assert sampling.grid_points(plan(ComponentSpec("GridSampler"), where={})) is None


# --- pruners ----------------------------------------------------------------------------------------

PRUNERS: list[ComponentSpec] = [
    ComponentSpec("HyperbandPruner", {"min_resource": 5, "reduction_factor": 2}),
    ComponentSpec("HyperbandPruner", {"max_resource": 40, "bootstrap_count": 1}),
    ComponentSpec("MedianPruner"),
    ComponentSpec("NopPruner"),
    ComponentSpec("PatientPruner", {"patience": 1, "wrapped_pruner_configs": {"name": "MedianPruner", "configs": {}}}),
    ComponentSpec("PatientPruner", {"patience": 1, "wrapped_pruner": {"name": "HyperbandPruner"}}),
    ComponentSpec("PatientPruner", {"patience": 1, "wrapped_pruner": None}),
    ComponentSpec("PercentilePruner", {"percentile": 25}),
    ComponentSpec("SuccessiveHalvingPruner", {"min_resource": "auto"}),
    ComponentSpec("ThresholdPruner", {"upper": 1.5}),
]


def test_every_pruner_of_optuna_is_tried_here() -> None:
    """A pruner that Optuna adds must be added to this test; Wilcoxon's is refused with its reason."""
    there = {name for name in optuna.pruners.__all__ if not name.startswith("Base")}
    assert there == {spec.name for spec in PRUNERS} | {"WilcoxonPruner"}


@pytest.mark.parametrize("spec", PRUNERS, ids=lambda s: f"{s.name}-{len(s.configs)}")
def test_pruner_works(spec: ComponentSpec) -> None:
    """Passes the check and is the pruner that was asked for."""
    sampling.rehearse_search(plan(pruner=spec))
    made = sampling.build_pruner(spec, iterations=20)
    assert type(made.hyperband if isinstance(made, UnfilteredHyperband) else made).__name__ == spec.name


def test_no_pruner() -> None:
    """None never prunes."""
    assert isinstance(sampling.build_pruner(None, iterations=20), optuna.pruners.NopPruner)


def brackets(pruner: BasePruner) -> int:
    study = optuna.create_study(pruner=pruner)
    trial = study.ask()
    trial.report(1.0, 1)
    trial.should_prune()
    hyperband = pruner.hyperband if isinstance(pruner, UnfilteredHyperband) else pruner
    return len(hyperband._pruners)  # type: ignore[attr-defined]


def test_hyperband_knows_the_length_of_a_trial() -> None:
    """Left to itself it is blind until the first trial completes; told NITER it has its brackets at once."""
    spec = ComponentSpec("HyperbandPruner", {"min_resource": 5, "reduction_factor": 2})
    assert brackets(optuna.pruners.HyperbandPruner(**spec.configs)) == 0
    assert brackets(sampling.build_pruner(spec, iterations=20)) == 3
    assert brackets(sampling.build_pruner(ComponentSpec(spec.name, {"max_resource": "auto"}), iterations=9)) == 3
    assert brackets(sampling.build_pruner(ComponentSpec(spec.name, {"max_resource": 3}), iterations=90)) == 2


def pruned_steps(pruner: BasePruner, sampler: BaseSampler, seed: int) -> list[int]:
    """The step at which each of 60 trials with known curves was pruned; 0 where it went on to its end."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(study_name="s", pruner=pruner, sampler=sampler)
    pruned = []
    for _ in range(60):
        trial, curve = study.ask(), rng.random() + np.cumsum(rng.normal(scale=0.1, size=48))
        trial.suggest_float("x", 0.0, 1.0)
        end = 0
        for step, value in enumerate(curve, 1):
            trial.report(float(value), step)
            if trial.should_prune():
                end = step
                break
        study.tell(trial, None if end else float(curve[-1]), state=State.PRUNED if end else State.COMPLETE)
        pruned.append(end)
    return pruned


class Looking(optuna.samplers.RandomSampler):
    """Counts the trials that it is shown."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.shown: list[int] = []

    def sample_independent(self, study: optuna.Study, *args: Any) -> Any:
        self.shown.append(len(study.get_trials(deepcopy=False, states=(State.COMPLETE, State.PRUNED))))
        return super().sample_independent(study, *args)


@pytest.mark.parametrize("wrapped", [False, True])
def test_hyperband_decides_as_optunas_and_hides_nothing(wrapped: bool) -> None:
    """To the trial and the step, with four brackets, also inside a PatientPruner; the sampler sees them all."""
    spec = ComponentSpec("HyperbandPruner", {"min_resource": 5, "reduction_factor": 2})
    theirs: BasePruner = optuna.pruners.HyperbandPruner(max_resource=48, **spec.configs)
    if wrapped:
        theirs = optuna.pruners.PatientPruner(theirs, patience=1)
        inner = {"name": spec.name, "configs": dict(spec.configs)}
        spec = ComponentSpec("PatientPruner", {"patience": 1, "wrapped_pruner": inner})
    own, optunas = Looking(), Looking()
    expected = pruned_steps(theirs, optunas, 1)
    assert pruned_steps(sampling.build_pruner(spec, iterations=48), own, 1) == expected
    assert len(set(expected)) > 3
    assert own.shown == list(range(60))
    assert (optunas.shown == own.shown) == wrapped


def test_hyperband_in_a_wrapper() -> None:
    """The length reaches a wrapped Hyperband too."""
    spec = ComponentSpec("PatientPruner", {"patience": 0, "wrapped_pruner_configs": {"name": "HyperbandPruner"}})
    made = sampling.build_pruner(spec, iterations=9)
    assert made._wrapped_pruner._max_resource == 9  # type: ignore[attr-defined]


def test_short_trials() -> None:
    """A min_resource longer than a trial prunes nothing and says so, rather than raise in every trial."""
    spec = ComponentSpec("HyperbandPruner", {"min_resource": 5, "reduction_factor": 2})
    notices = sampling.rehearse_search(plan(pruner=spec, iterations=3))
    assert len(notices) == 1
    assert "none is pruned" in notices[0]


# --- grids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GridSampler", "BruteForceSampler"])
def test_every_grid_point_once(name: str) -> None:
    """The whole product, each point once, in one order whatever the dictionary's."""
    made = sampling.grid_points(plan(ComponentSpec(name), where=GRID))
    assert made is not None
    rows = [tuple(sorted(point.params.items())) for point in made]
    assert len(rows) == len(set(rows)) == 5 * 3 * 2
    again = sampling.grid_points(plan(ComponentSpec(name), where=dict(reversed(GRID.items()))))
    assert again == made
    assert {point.origin for point in made} == {"grid"}
    assert all(ranges.contains(GRID[n], v) for point in made for n, v in point.params.items())


def test_grid_of_given_values() -> None:
    """GridSampler's own search_space counts; what it leaves out is taken from the ranges."""
    spec = ComponentSpec("GridSampler", {"search_space": {"scale": [0.9, 1.0, 0.9]}})
    made = sampling.grid_points(plan(spec, where=GRID))
    assert made is not None
    assert len(made) == 2 * 3 * 2
    assert {point.params["scale"] for point in made} == {0.9, 1.0}


def test_own_points_come_first_and_once() -> None:
    """A try keeps its place in front; the start only where it is on the grid; neither is run twice."""
    start = Point({"scale": 1.0, "Nlayer": 2, "opt": "b"}, "start")
    tried = Point({"scale": 0.8, "Nlayer": 1, "opt": "a"}, "try")
    made = sampling.grid_points(plan(ComponentSpec("GridSampler"), where=GRID, points=(start, tried)))
    assert made is not None
    assert made[:2] == (start, tried)
    assert len(made) == 30
    for origin in (OWN_VALUES, NEAR_VALUES):
        off = Point({"scale": 1.05, "Nlayer": 2, "opt": "b"}, origin)
        assert off not in (sampling.grid_points(plan(ComponentSpec("GridSampler"), where=GRID, points=(off,))) or ())


def test_grid_with_fixed_parameters() -> None:
    """A grid inside a PartialFixedSampler runs over the other parameters."""
    spec = ComponentSpec("PartialFixedSampler", {"fixed_params": {"opt": "a"}, "base_sampler": {"name": "GridSampler"}})
    made = sampling.grid_points(plan(spec, where=GRID))
    assert made is not None
    assert len(made) == 15
    sampling.rehearse_search(plan(spec, where=GRID))


def test_other_samplers_have_no_grid() -> None:
    """Nothing to enqueue."""
    assert sampling.grid_points(plan(ComponentSpec("TPESampler"))) is None


@pytest.mark.parametrize("where", [{"x": FloatRange(0.0, 1.0)}, {"x": FloatRange(0.0, 1.0, 1e-9)}])
def test_grid_without_end(where: dict[str, Distribution]) -> None:
    """A continuous range, or one of a billion steps, is refused with the parameter's name."""
    with pytest.raises(ConfigError, match="x"):
        sampling.grid_points(plan(ComponentSpec("GridSampler"), where=where))
