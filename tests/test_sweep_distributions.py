"""The distributions of W&B's sweeps: their formulas, their probabilities through Optuna, and the way there and back."""

from __future__ import annotations

import json
import math
import random
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import store_cases as cases
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState as State
from scipy import stats
from test_sampling import plan

from ptydask import sampling
from ptydask.analysis.data import StudyData
from ptydask.analysis.rehydrate import to_optuna_study
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange, QuantileDistribution, WeightedChoice
from ptydask.driver import comparability
from ptydask.driver.optuna_study import OptunaStudy
from ptydask.errors import ConfigError, MissingDependency
from ptydask.model import ComponentSpec, Point, Reason, Scalar, StudyPlan, TrialRecord, TrialState
from ptydask.space import quantiles, ranges
from ptydask.storage.mirror import SqliteMirror
from ptydask.worker.trial import mix_seed

LN = math.log
FAMILIES: dict[str, QuantileDistribution] = {
    "q_uniform": QuantileDistribution("uniform", 0.0, 10.0, 2),
    "q_uniform_off": QuantileDistribution("uniform", -1.3, 2.6, 0.25),
    "q_log_uniform": QuantileDistribution("log_uniform", LN(8), LN(512), 8),
    "q_log_uniform_fine": QuantileDistribution("log_uniform", LN(1e-4), LN(1e-1), 1e-3),
    "normal": QuantileDistribution("normal", 1.0, 2.0),
    "q_normal": QuantileDistribution("normal", 0.3, 2.0, 0.5),
    "log_normal": QuantileDistribution("log_normal", -1.0, 0.7),
    "q_log_normal": QuantileDistribution("log_normal", 1.0, 0.7, 1),
    "beta": QuantileDistribution("beta", 2.0, 5.0),
    "q_beta": QuantileDistribution("beta", 0.5, 0.5, 0.1),
}
WEIGHTED = WeightedChoice((32, 64, "auto", None, True), (0.5, 0.25, 0.125, 0.0, 0.125))
MIXED: dict[str, Distribution] = {
    "width": FAMILIES["q_log_uniform"],
    "gain": FAMILIES["normal"],
    "mix": FAMILIES["q_beta"],
    "size": WEIGHTED,
    "lr": FloatRange(1e-5, 1e-1, log=True),
    "layers": IntRange(1, 8),
    "act": Choice(("relu", "gelu")),
}


def unquantised(dist: QuantileDistribution) -> Any:
    """SciPy's distribution before the rounding."""
    a, b = dist.a, dist.b
    return {
        "uniform": lambda: stats.uniform(a, b - a),
        "log_uniform": lambda: stats.loguniform(math.exp(a), math.exp(b)),
        "normal": lambda: stats.norm(a, b),
        "log_normal": lambda: stats.lognorm(s=b, scale=math.exp(a)),
        "beta": lambda: stats.beta(a, b),
    }[dist.family]()


def probabilities(dist: QuantileDistribution) -> dict[int, float]:
    """Of each multiple of ``q``, from SciPy's cumulated probabilities; those below 1e-12 left out."""
    q, base = dist.q or 1, unquantised(dist)
    first, last = (round(end / q) for end in quantiles.ends(dist))
    steps = range(max(first, -10_000), min(last, 10_000) + 1)
    found = {k: float(base.cdf((k + 0.5) * q) - base.cdf((k - 0.5) * q)) for k in steps}
    return {k: p for k, p in found.items() if p > 1e-12}


def random_quantiles(seed: int) -> QuantileDistribution:
    """Settings that a person might write."""
    rng = random.Random(seed)
    family = rng.choice(["uniform", "log_uniform", "normal", "log_normal", "beta"])
    q = rng.choice([None, 1, 2, 5, 0.5, 0.1, 0.025, 1.0])
    match family:
        case "uniform":
            a = rng.uniform(-50, 50)
            b = a + 10 ** rng.uniform(-1, 3)
        case "log_uniform":
            a = rng.uniform(-9, 3)
            b = a + rng.uniform(0.1, 8)
        case "beta":
            a, b = rng.uniform(0.4, 6), rng.uniform(0.4, 6)
        case _:
            a, b = rng.uniform(-3, 3), rng.choice([0.1, 0.5, 1.0, 2.0])
    return QuantileDistribution(family, a, b, q)  # type: ignore[arg-type]


# --- formulas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dist", FAMILIES.values(), ids=FAMILIES)
def test_the_formula(dist: QuantileDistribution) -> None:
    """SciPy's quantile function, rounded as NumPy rounds, is what ``u`` gives."""
    us = np.linspace(0.0005, 0.9995, 999)
    base = unquantised(dist).ppf(us)
    wanted = base if dist.q is None else np.round(base / dist.q) * dist.q
    assert [quantiles.value_at(dist, float(u)) for u in us] == pytest.approx(wanted.tolist(), rel=1e-9, abs=1e-12)


def test_integers_stay_integers() -> None:
    """An integer ``q`` gives integers, 1.0 gives floats."""
    assert type(quantiles.value_at(QuantileDistribution("uniform", 0, 9, 3), 0.4)) is int
    assert type(quantiles.value_at(QuantileDistribution("uniform", 0, 9, 3.0), 0.4)) is float


def test_halves_go_to_the_even_neighbour() -> None:
    """0.5, 1.5 and 2.5 become 0, 2 and 2, as NumPy has it."""
    dist = QuantileDistribution("uniform", 0.0, 4.0, 1)
    assert [quantiles.value_at(dist, u) for u in (0.125, 0.375, 0.625, 0.875)] == [0, 2, 2, 4]


def test_values_are_not_clipped_and_the_grid_goes_through_0() -> None:
    """min 3 and q 5 give 5, never 3; max 13 gives 15."""
    dist = QuantileDistribution("uniform", 3.0, 13.0, 5)
    assert {quantiles.value_at(dist, u / 100) for u in range(101)} == {5, 10, 15}
    assert ranges.grid(dist) == (5, 10, 15)


@pytest.mark.parametrize(
    "dist", [*FAMILIES.values(), QuantileDistribution("log_normal", 0, 200.0), QuantileDistribution("normal", 0, 1, 1)]
)
@pytest.mark.parametrize("u", [0.0, 1.0, 2.0**-60, 1 - 2.0**-53])
def test_the_ends_are_finite(dist: QuantileDistribution, u: float) -> None:
    """Samplers do choose 0 and 1; no program gets an infinite number."""
    assert math.isfinite(quantiles.value_at(dist, u))


def test_searches_that_walk_along_the_bounds_stay_near() -> None:
    """0 and 1 themselves are the outermost thousandths where values have tails, the ends where they have none."""
    normal, width = QuantileDistribution("normal", 0.0, 1.0), FAMILIES["q_log_uniform"]
    assert [quantiles.value_at(normal, u) for u in (0.0, 1.0)] == pytest.approx([-3.09, 3.09], abs=0.01)
    assert quantiles.value_at(normal, 2.0**-53) < -8.2
    assert 0 < quantiles.value_at(FAMILIES["beta"], 0.0) < quantiles.value_at(FAMILIES["beta"], 1.0) < 0.9
    assert [quantiles.value_at(width, u) for u in (0.0, 1.0)] == [8, 512]


@pytest.mark.parametrize("seed", range(60))
def test_the_inverse(seed: int) -> None:
    """Of a value the middle of the ``u`` that give it; values come back as they are, for any settings."""
    dist, rng = random_quantiles(seed), random.Random(seed)
    for u in [1e-6, 1 - 1e-6, *(rng.random() for _ in range(40))]:
        value = quantiles.value_at(dist, u)
        back = quantiles.value_at(dist, quantiles.unit_of_number(dist, value))
        assert ranges.contains(dist, value)
        if dist.q is None:
            assert back == pytest.approx(value, rel=1e-9, abs=1e-12)
            assert quantiles.unit_of_number(dist, value) == pytest.approx(u, abs=1e-12)
        else:
            assert (back, type(back)) == (value, type(value))


def test_the_inverse_of_all_values_of_a_grid() -> None:
    """The ones at the ends too, that only 0 or 1 gives."""
    for dist in [
        *FAMILIES.values(),
        QuantileDistribution("uniform", 0.5, 1.5, 1),
        QuantileDistribution("beta", 2, 2, 1),
    ]:
        for value in ranges.grid(dist) or ():
            assert quantiles.value_at(dist, quantiles.unit_of_number(dist, value)) == value


def test_the_inverse_is_the_middle() -> None:
    """0..10 by 2: the outer values have half a share."""
    dist = QuantileDistribution("uniform", 0.0, 10.0, 2)
    assert [quantiles.unit_of_number(dist, v) for v in (0, 2, 10)] == pytest.approx([0.05, 0.2, 0.95])
    assert [quantiles.unit_of_choice(WEIGHTED, v) for v in (32, "auto", True)] == pytest.approx([0.25, 0.8125, 0.9375])


def test_weights() -> None:
    """The shares are half open, nothing falls behind the last, and what has no weight is never chosen."""
    assert [quantiles.choice_at(WEIGHTED, u) for u in (0, 0.4999, 0.5, 0.75, 0.875, 1)] == [
        32,
        32,
        64,
        "auto",
        True,
        True,
    ]
    for value in (32, 64, "auto", True):
        assert quantiles.choice_at(WEIGHTED, quantiles.unit_of_choice(WEIGHTED, value)) is value
    assert quantiles.choice_at(WeightedChoice(("a", "b"), (0.1 + 0.2, 0.7 - 1e-12)), 1.0) == "b"
    assert not ranges.contains(WEIGHTED, None)
    assert not ranges.contains(WEIGHTED, 1)


# --- what may be tried -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dist", "words"),
    [
        (QuantileDistribution("normal", 0.0, 1.0), "normal, mu 0, sigma 1"),
        (QuantileDistribution("log_normal", -1, 0.5, 2), "log-normal, mu -1, sigma 0.5, step 2"),
        (QuantileDistribution("log_uniform", LN(1e-4), LN(0.1), 0.001), "log-uniform 0.0001 to 0.1, step 0.001"),
        (QuantileDistribution("uniform", 0, 10, 2), "0 to 10, step 2"),
        (QuantileDistribution("beta", 2, 5), "beta, a 2, b 5"),
        (WeightedChoice((32, 64, "x"), (0.5, 0.375, 0.125)), "32 (50 %), 64 (37.5 %), 'x' (12.5 %)"),
    ],
)
def test_words(dist: Distribution, words: str) -> None:
    """One line for the plan and for messages."""
    assert ranges.describe(dist) == words


def test_what_is_allowed() -> None:
    """Values on the grid within the range; of an endless one, those that a float ``u`` can reach."""
    width = FAMILIES["q_log_uniform"]
    assert [v for v in (0, 8, 12, 16, 16.0, 512, 520, True, "8", math.nan) if ranges.contains(width, v)] == [
        8, 16, 16.0, 512,
    ]  # fmt: skip
    assert type(ranges.nearest_value(width, 16.0)) is int
    assert ranges.nearest_value(width, 13) == 16
    assert ranges.nearest_value(width, 1e9) == 512
    assert ranges.contains(FAMILIES["normal"], 17.3)
    assert not ranges.contains(FAMILIES["normal"], 18.0)
    assert ranges.contains(FAMILIES["q_beta"], 0.3), "0.3 is 3 * 0.1 to a person"
    assert not ranges.contains(FAMILIES["log_normal"], 0.0)
    assert ranges.contains(QuantileDistribution("log_uniform", LN(0.001), LN(0.1)), 0.001), (
        "exp(log(0.001)) is not 0.001"
    )
    assert ranges.grid_size(FAMILIES["q_normal"]) is None
    assert ranges.grid_size(FAMILIES["beta"]) is None
    assert ranges.grid_size(QuantileDistribution("uniform", 0, 1e12, 1e-9)) == 10**21 + 1
    assert ranges.grid(WEIGHTED) == (32, 64, "auto", True)


# --- probabilities, the way that a worker draws -------------------------------------------------------


def drawn(where: dict[str, Distribution], trials: int, seed: int = 7) -> dict[str, list[Any]]:
    """``trials`` draws of each parameter, each trial with a sampler of its own, which may draw a value again."""
    spec, study = ComponentSpec("RandomSampler"), optuna.create_study()
    rows: dict[str, list[Any]] = {name: [] for name in where}
    for index in range(trials):
        study.sampler = sampling.build_sampler(spec, seed=mix_seed(seed, index), space=where).base
        for name, value in sampling.suggest(study.ask(), where, spec).items():
            rows[name].append(value)
    return rows


def agree(dist: QuantileDistribution, values: list[Any]) -> float:
    """The probability of a sample at least as odd: Kolmogorov-Smirnov, or chi-square where the values are counted."""
    if dist.q is None:
        return float(stats.kstest(values, unquantised(dist).cdf).pvalue)
    shares = probabilities(dist)
    counts = Counter(round(value / dist.q) for value in values)
    assert set(counts) <= set(shares), "a value that has no probability"
    assert all(value == round(value / dist.q) * dist.q for value in values)
    expected = {k: p * len(values) for k, p in shares.items()}
    many = [k for k, n in expected.items() if n >= 5]
    seen, awaited = [counts[k] for k in many], [expected[k] for k in many]
    rest = len(values) - sum(awaited)
    if rest > 1e-6:
        seen, awaited = [*seen, len(values) - sum(seen)], [*awaited, rest]
    return float(stats.chisquare(seen, np.array(awaited) * (sum(seen) / sum(awaited))).pvalue)


def test_draws_of_every_family() -> None:
    """A few hundred trials of all families together follow their formulas."""
    rows = drawn({**FAMILIES, "size": WEIGHTED}, 400)
    for name, dist in FAMILIES.items():
        assert agree(dist, rows[name]) > 1e-3, name
    assert Counter(rows["size"]).keys() == {32, 64, "auto", True}


@pytest.fixture(scope="module")
def many() -> NDArray[np.float64]:
    """A hundred thousand ``u``: five parameters of each trial, from a sampler as a worker makes it for that trial."""
    spec, dist = ComponentSpec("RandomSampler"), sampling.to_optuna(FAMILIES["normal"])
    study, us = optuna.create_study(), []
    trial = study.ask()
    frozen = study._storage.get_trial(trial._trial_id)
    for index in range(20_000):
        made = sampling.build_sampler(spec, seed=mix_seed(11, index), space={})
        us += [made.sample_independent(study, frozen, name, dist) for name in "abcde"]
    return np.array(us)


@pytest.mark.slow
@pytest.mark.parametrize("dist", FAMILIES.values(), ids=FAMILIES)
def test_many_draws(dist: QuantileDistribution, many: NDArray[np.float64]) -> None:
    """A hundred thousand trials follow the formula; every value with a share worth counting on is there."""
    values = [quantiles.value_at(dist, float(u)) for u in many]
    assert agree(dist, values) > 1e-3
    if dist.q is not None:
        likely = {k for k, p in probabilities(dist).items() if p > 1e-3}
        assert likely <= {round(value / dist.q) for value in values}


@pytest.mark.slow
def test_many_weighted_draws(many: NDArray[np.float64]) -> None:
    """Choices come in the shares that their weights say."""
    counts = Counter(quantiles.choice_at(WEIGHTED, float(u)) for u in many)
    shares = {c: w for c, w in zip(WEIGHTED.choices, WEIGHTED.weights, strict=True) if w}
    assert counts.keys() == shares.keys()
    assert stats.chisquare([counts[c] for c in shares], [w * len(many) for w in shares.values()]).pvalue > 1e-3


@pytest.mark.slow
def test_distributions_that_optuna_has() -> None:
    """uniform, log_uniform_values, int_uniform and categorical of a sweep are Optuna's own, drawn as W&B draws them."""
    where: dict[str, Distribution] = {
        "x": FloatRange(-2.0, 3.0),
        "lr": FloatRange(1e-5, 1e-2, log=True),
        "n": IntRange(2, 128),
        "act": Choice(("a", 1, None)),
    }
    rows = drawn(where, 3000)
    assert stats.kstest(rows["x"], stats.uniform(-2, 5).cdf).pvalue > 1e-3
    assert stats.kstest(rows["lr"], stats.loguniform(1e-5, 1e-2).cdf).pvalue > 1e-3
    assert stats.chisquare([Counter(rows["n"])[k] for k in range(2, 129)]).pvalue > 1e-3
    assert stats.chisquare([Counter(rows["act"])[k] for k in ("a", 1, None)]).pvalue > 1e-3


# --- samplers ---------------------------------------------------------------------------------------

SPECS = [
    ComponentSpec("RandomSampler"),
    ComponentSpec("TPESampler", {"n_startup_trials": 2, "multivariate": True, "group": True, "constant_liar": True}),
    ComponentSpec("CmaEsSampler", {"n_startup_trials": 1, "warn_independent_sampling": False}),
    ComponentSpec("QMCSampler"),
    ComponentSpec("GPSampler", {"n_startup_trials": 2}),
    ComponentSpec("NSGAIISampler", {"population_size": 4}),
]


HEAVY = [pytest.param(s, marks=pytest.mark.slow) if s.name == "GPSampler" else s for s in SPECS]


@pytest.mark.parametrize("spec", HEAVY, ids=lambda s: s.name)
def test_every_sampler_draws_values(spec: ComponentSpec) -> None:
    """Passes the check, and trials get values of the distributions, never ``u``."""
    sampling.rehearse_search(plan(spec, where=MIXED))
    study = optuna.create_study()
    for index in range(5):
        study.sampler = sampling.build_sampler(spec, seed=index, space=MIXED)
        trial = study.ask()
        values = sampling.suggest(trial, MIXED, spec)
        assert all(ranges.contains(MIXED[name], value) for name, value in values.items())
        assert sampling.from_optuna_params(MIXED, trial.params, trial.user_attrs) == values
        assert {k: v for k, v in trial.user_attrs.items() if k.startswith("value of ")} == {
            f"value of {name}": values[name] for name in ("width", "gain", "mix", "size")
        }
        study.tell(trial, float(index))


def test_fixed_values_are_exact() -> None:
    """PartialFixedSampler's values are those of a person, not what their ``u`` comes to."""
    fixed = {"gain": 7.123456789, "width": 64, "mix": 0.3, "size": "auto", "layers": 3}
    spec = ComponentSpec("PartialFixedSampler", {"fixed_params": fixed, "base_sampler": {"name": "RandomSampler"}})
    sampling.rehearse_search(plan(spec, where=MIXED))
    study = optuna.create_study(sampler=sampling.build_sampler(spec, seed=1, space=MIXED))
    values = sampling.suggest(study.ask(), MIXED, spec)
    assert {name: values[name] for name in fixed} == fixed


def test_a_search_may_begin_at_a_value() -> None:
    """CMA-ES begins at the ``u`` of the values that it is told to begin at."""
    spec = ComponentSpec("CmaEsSampler", {"x0": {"gain": 1.0, "mix": 0.5}, "sigma0": 1e-6, "n_startup_trials": 0})
    where = {name: MIXED[name] for name in ("gain", "mix")}
    sampling.rehearse_search(plan(spec, where=where))
    study = optuna.create_study()
    for seed in range(3):
        study.sampler = sampling.build_sampler(spec, seed=seed, space=where)
        trial = study.ask(fixed_distributions={name: sampling.to_optuna(dist) for name, dist in where.items()})
        values = sampling.from_optuna_params(where, trial.params)
        study.tell(trial, 1.0)
    assert values["gain"] == pytest.approx(1.0, abs=1e-3)
    assert values["mix"] == 0.5
    with pytest.raises(ConfigError, match="must be normal"):
        sampling.rehearse_search(plan(replace(spec, configs={"x0": {"gain": 99.0}}), where=where))


def test_the_pruner_of_sweeps() -> None:
    """Found by its name beside those of Optuna, checked like them."""
    spec = ComponentSpec("SweepHyperbandPruner", {"bands": [1, 3, 9], "eta": 3, "strict": True})
    assert sampling.rehearse_search(plan(pruner=spec)) == ()
    assert type(sampling.build_pruner(spec, iterations=None)).__name__ == spec.name
    with pytest.raises(ConfigError, match="bands must be whole numbers"):
        sampling.rehearse_search(plan(pruner=replace(spec, configs={"bands": []})))
    with pytest.raises(ConfigError, match="must be list"):
        sampling.rehearse_search(plan(pruner=replace(spec, configs={"bands": 3})))


@pytest.mark.parametrize(("name", "value"), [("gain", 40.0), ("width", 12), ("size", None), ("mix", "a")])
def test_a_value_that_cannot_be_fixed(name: str, value: Scalar) -> None:
    """One line, with the rule."""
    spec = ComponentSpec("PartialFixedSampler", {"fixed_params": {name: value}, "base_sampler": "RandomSampler"})
    with pytest.raises(ConfigError) as caught:
        sampling.rehearse_search(plan(spec, where=MIXED))
    assert caught.value.key == f"sampler_params.configs.fixed_params.{name}"
    assert ranges.describe(MIXED[name]) in str(caught.value)


def test_a_beta_distribution_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to install."""
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingDependency, match=r"pip install 'ptydask\[gp\]'"):
        sampling.rehearse_search(plan(where={"x": FAMILIES["beta"]}))
    sampling.rehearse_search(plan(where={"x": FAMILIES["normal"]}))


def best_found(spec: ComponentSpec, trials: int, seed: int) -> float:
    where: dict[str, Distribution] = {"width": FAMILIES["q_log_uniform"], "gain": FAMILIES["normal"]}
    study = optuna.create_study()
    for index in range(trials):
        study.sampler = sampling.build_sampler(spec, seed=mix_seed(seed, index), space=where)
        trial = study.ask()
        values: dict[str, Any] = sampling.suggest(trial, where, spec)
        study.tell(trial, math.log2(values["width"] / 128) ** 2 + (values["gain"] - 3.0) ** 2)
    return study.best_value


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2, 3])
def test_searches_find_the_optimum(seed: int) -> None:
    """Working on ``u``, TPE and GP come near the best width and gain, GP nearer in 30 trials than chance in 60."""
    joint = {"multivariate": True, "group": True, "constant_liar": True}
    tpe = best_found(ComponentSpec("TPESampler", joint), 60, seed)
    gp = best_found(ComponentSpec("GPSampler", {"n_startup_trials": 8}), 30, seed)
    assert tpe < 0.1
    assert gp < 0.05
    assert gp < best_found(ComponentSpec("RandomSampler"), 60, seed)


# --- grids ------------------------------------------------------------------------------------------


def test_a_grid_over_steps() -> None:
    """Bounded and quantised: its values; the order is the alphabet's, the last name changing fastest."""
    where: dict[str, Distribution] = {
        "b": Choice(("x", "y")),
        "a": QuantileDistribution("uniform", 0.0, 1.0, 0.5),
        "c": WeightedChoice((3, 1), (0.9, 0.1)),
    }
    made = sampling.grid_points(plan(ComponentSpec("GridSampler"), where=where))
    assert made is not None
    assert [tuple(p.params[n] for n in "abc") for p in made] == [*product((0.0, 0.5, 1.0), ("x", "y"), (3, 1))]


@pytest.mark.parametrize("name", ["normal", "q_normal", "beta", "log_normal"])
def test_a_grid_without_end(name: str) -> None:
    """Refused by the parameter's name."""
    with pytest.raises(ConfigError, match="cannot count off x"):
        sampling.grid_points(plan(ComponentSpec("GridSampler"), where={"x": FAMILIES[name]}))


def test_a_grid_of_given_values() -> None:
    """GridSampler's own search_space has values, of an endless distribution too."""
    spec = ComponentSpec("GridSampler", {"search_space": {"x": [0.5, -1, 0.5]}})
    made = sampling.grid_points(plan(spec, where={"x": FAMILIES["normal"]}))
    assert made is not None
    assert [p.params["x"] for p in made] == [0.5, -1]
    bad = ComponentSpec("GridSampler", {"search_space": {"x": [99.0]}})
    with pytest.raises(ConfigError, match="must be normal"):
        sampling.grid_points(plan(bad, where={"x": FAMILIES["normal"]}))


def test_equal_values_are_one_point() -> None:
    """1 and 1.0 merge, and have the second's type as with W&B; True and 1 do not."""
    where: dict[str, Distribution] = {"x": Choice((1, 2, 1.0, True, "1"))}
    made = sampling.grid_points(plan(ComponentSpec("GridSampler"), where=where))
    assert made is not None
    assert [(p.params["x"], type(p.params["x"])) for p in made] == [(1.0, float), (2, int), (True, bool), ("1", str)]


def test_nested_parameters_are_in_order_level_by_level() -> None:
    """``a.b`` comes before ``a-c``, as W&B sorts each level by itself."""
    where: dict[str, Distribution] = {"a-c": Choice((1, 2)), "a.b": Choice((3, 4))}
    described = [{"name": "a-c", "path": ["a-c"]}, {"name": "a.b", "path": ["a", "b"]}]
    asked = plan(ComponentSpec("GridSampler"), where=where)
    flat = sampling.grid_points(asked)
    nested = sampling.grid_points(replace(asked, config={"parameters": described}))
    assert [tuple(p.params[n] for n in ("a-c", "a.b")) for p in flat or ()] == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert [tuple(p.params[n] for n in ("a-c", "a.b")) for p in nested or ()] == [(1, 3), (2, 3), (1, 4), (2, 4)]


def test_too_many_points() -> None:
    """A hundred thousand at most."""
    where: dict[str, Distribution] = {n: QuantileDistribution("uniform", 0, 99, 1) for n in "abc"}
    with pytest.raises(ConfigError, match="1000000 points"):
        sampling.grid_points(plan(ComponentSpec("GridSampler"), where=where))


# --- between the store and Optuna ---------------------------------------------------------------------


def book(
    where: dict[str, Distribution],
    study: optuna.Study | None = None,
    sampler: ComponentSpec = ComponentSpec("RandomSampler"),  # noqa: B008
    store: str = "store",
) -> OptunaStudy:
    asked: StudyPlan = plan(sampler, where=where)
    return OptunaStudy(study or optuna.create_study(study_name="s", storage=InMemoryStorage()), store, asked)


def begin(one: OptunaStudy, lease: str = "") -> tuple[optuna.Trial, dict[str, Scalar]]:
    """The next trial, as a worker begins it."""
    trial = one.study.ask()
    params = sampling.suggest(trial, one.plan.space, one.plan.sampler)
    trial.set_user_attr("lease", {"store": one.store, "task": lease, "worker": "", "host": "", "job": ""})
    return trial, params


def row(number: int, params: dict[str, Any], **more: Any) -> TrialRecord:
    return cases.record(number, params=params, **more)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return [(n, v, type(v)) for n, v in sorted(a.items())] == [(n, v, type(v)) for n, v in sorted(b.items())]


def test_records_go_to_optuna_and_back() -> None:
    """A study that is restored from its records has the same values, bit for bit, and ``u`` that sample alike."""
    first = book(MIXED)
    records = []
    for number in range(30):
        trial, params = begin(first)
        first.study.tell(trial, float(number))
        records.append(row(number, params, error=float(number)))
    again = book(MIXED)
    assert again.restore(records) == 30
    again.check_space()
    for before, now, record in zip(first.trials(), again.trials(), records, strict=True):
        assert same(again._values(now), dict(record.params))
        assert set(now.params) == set(MIXED)
        assert abs(now.params["gain"] - before.params["gain"]) < 1e-12
        assert now.distributions == before.distributions


def test_a_record_that_the_distribution_does_not_have() -> None:
    """Its parameter is left out: no value is taken for a ``u``."""
    one = book({"size": WeightedChoice((8, 16), (0.5, 0.5)), "gain": QuantileDistribution("normal", 50.0, 1.0)})
    one.restore([row(0, {"size": 0.5, "gain": 0.5}), row(1, {"size": 16, "gain": 50.0})])
    assert one.trials()[0].params == {}
    assert one.trials()[1].params == {"size": 0.75, "gain": 0.5}


def test_a_point_of_a_grid_runs_once_whoever_chose_it() -> None:
    """A person asked for it when the run began, and not again when it went on."""
    one = book({"n": IntRange(1, 3)}, sampler=ComponentSpec("GridSampler"))
    one.enqueue([Point({"n": 2}, "try")])
    begin(one)
    points = tuple(Point({"n": n}, "grid") for n in (1, 2, 3))
    again = OptunaStudy(one.study, one.store, replace(one.plan, points=points, exhaustive=True))
    again.enqueue(points)
    assert [begin(again)[1]["n"] for _ in range(len(one.trials()) - 1)] == [1, 3]


def test_points_are_run_as_they_are() -> None:
    """What a person asks to try, far out in a tail too, is what the trial gets; it is not enqueued twice."""
    one = book(MIXED)
    asked = {"gain": 14.2, "width": 16, "mix": 0.3, "size": 64, "lr": 1e-3, "layers": 2, "act": "gelu"}
    for _ in range(2):
        one.enqueue([Point(asked, "try"), Point({"gain": 0.1}, "start")])
    assert len(one.trials()) == 2
    _, params = begin(one)
    assert same(params, asked)
    trial, params = begin(one)
    assert params["gain"] == 0.1
    assert trial.user_attrs["origin"] == "start"
    one.enqueue([Point({"gain": 0.1}, "start")])
    assert len(one.trials()) == 2, "one that runs is there already"
    (shown, _) = one.running(datetime.now(UTC).replace(tzinfo=None))
    assert same(dict(shown.params), asked)


@pytest.mark.parametrize("enqueued", [True, False])
def test_a_lost_trial_is_tried_with_the_same_value(enqueued: bool) -> None:
    """Bit for bit, whether a person or the sampler chose it, and as often as it is lost."""
    one = book(MIXED)
    if enqueued:
        one.enqueue([Point({"gain": 14.2, "mix": 0.3}, "try")])
    trial, first = begin(one, "a")
    for attempt in (2, 3, 4):
        lost = one.begun()[trial.number]
        one.close(lost, Reason.LOST)
        one.retry(lost)
        trial, params = begin(one, "b")
        assert same(params, first)
        assert trial.user_attrs["attempt"] == attempt
    found = one.record_of(one.begun()[-1], state=TrialState.FAIL, reason=Reason.LOST, message="")
    assert same(dict(found.params), first)


def test_a_trial_that_was_lost_before_it_had_its_value() -> None:
    """The value is that of its ``u``."""
    one = book({"gain": FAMILIES["normal"]})
    trial = one.study.ask()
    u = trial.suggest_float("gain", 0.0, 1.0)
    lost = one.begun()[0]
    one.close(lost, Reason.LOST)
    one.retry(lost)
    _, params = begin(one)
    assert params == {"gain": quantiles.value_at(FAMILIES["normal"], u)}


def test_grid_points_run_in_order(tmp_path: Path) -> None:
    """Whoever asks gets the next point: four workers on one journal number the trials as the grid has them."""
    where: dict[str, Distribution] = {"b": Choice((True, 1, "x")), "a": QuantileDistribution("uniform", 0.0, 4.0, 1)}
    spec = ComponentSpec("GridSampler")
    points = sampling.grid_points(plan(spec, where=where)) or ()
    path = str(tmp_path / "j.log")
    one = book(where, optuna.create_study(study_name="s", storage=JournalStorage(JournalFileBackend(path))), spec)
    one.enqueue(points)
    one.enqueue(points)
    workers = [optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(path))) for _ in range(4)]
    rows = []
    for index in range(15):
        trial = workers[index * 7 % 4].ask()
        rows.append((trial.number, sampling.suggest(trial, where, spec)))
    assert [number for number, _ in rows] == [*range(15)]
    assert all(same(params, dict(point.params)) for (_, params), point in zip(rows, points, strict=True))
    assert len(one.trials()) == 15


def test_another_distribution_in_the_same_study() -> None:
    """``u`` of another sigma is another value: the study is refused, with the parameter's name."""
    one = book({"gain": QuantileDistribution("normal", 0.0, 1.0)})
    begin(one)
    book({"gain": QuantileDistribution("normal", 0.0, 1.0)}, one.study).check_space()
    for other in (
        QuantileDistribution("normal", 0.0, 2.0),
        QuantileDistribution("normal", 0.0, 1.0, 1),
        FloatRange(0.0, 1.0),
    ):
        with pytest.raises(ConfigError, match="trial 0 of study 's' was drawn from another distribution") as caught:
            book({"gain": other}, one.study).check_space()
        assert caught.value.key == "gain"


def test_trials_of_another_study(tmp_path: Path) -> None:
    """Their values count, not their ``u``, which may mean another value here; those without a place here stay out."""
    url = f"sqlite:///{tmp_path / 's.db'}"
    theirs = book({"gain": QuantileDistribution("normal", 5.0, 3.0)}, store="other")
    mirror = SqliteMirror(url, "s", "minimize", "other")
    for number in range(3):
        trial, _ = begin(theirs)
        trial.report(1.0, 1)
        theirs.study.tell(trial, float(number))
    mirror.update(theirs.trials())
    mirror.close()
    ours = book({"gain": QuantileDistribution("normal", 0.0, 2.0)})
    mirror = SqliteMirror(url, "s", "minimize", "store")
    assert ours.adopt_foreign(mirror.foreign()) == 3
    mirror.close()
    for here, there in zip(ours.trials(), theirs.trials(), strict=True):
        assert ours._values(here) == theirs._values(there)
        assert here.params != there.params
    own = optuna.trial.create_trial(
        value=1.0, params={"gain": 99.0}, distributions={"gain": FloatDistribution(-100, 100)}
    )
    own.number = 99
    assert ours.adopt_foreign([own]) == 0
    own.params["gain"] = 1.5
    assert ours.adopt_foreign([own]) == 1
    assert ours._values(ours.trials()[-1]) == {"gain": 1.5}
    ours.check_space()


def test_choices_that_python_holds_equal() -> None:
    """True and 1 stay apart in Optuna too, in a retried trial as well."""
    one = book({"x": Choice((True, 1))})
    seen = set()
    for _ in range(12):
        trial, params = begin(one, "a")
        seen.add(type(params["x"]))
        lost = one.begun()[trial.number]
        one.close(lost, Reason.LOST)
        one.retry(lost)
        _, again = begin(one, "b")
        assert same(params, again)
    assert seen == {bool, int}


# --- in the results file ------------------------------------------------------------------------------


def stored(where: dict[str, Distribution]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sampling.search_space_json(where))
    return found


def optunas(one: dict[str, Any]) -> optuna.distributions.BaseDistribution:
    return optuna.distributions.json_to_distribution(json.dumps(one))


@pytest.mark.parametrize("dist", [*FAMILIES.values(), *MIXED.values()])
def test_the_file_says_it_all(dist: Distribution) -> None:
    """The JSON gives the distribution back, exactly."""
    assert sampling.from_json(stored({"x": dist})["x"]) == dist


def test_the_ranges_in_the_file() -> None:
    """Optuna reads values' ranges out of the file: figures have natural axes."""
    found = {name: optunas(one) for name, one in stored({**FAMILIES, "size": WEIGHTED}).items()}
    assert found["q_uniform"] == IntDistribution(0, 10, step=2)
    assert found["q_uniform_off"] == FloatDistribution(-1.25, 2.5, step=0.25)
    assert found["q_log_uniform"] == IntDistribution(8, 512, step=8)
    assert found["q_beta"] == FloatDistribution(0.0, 1.0, step=0.1)
    assert found["q_normal"] == FloatDistribution(-6.0, 6.5, step=0.5)
    assert found["size"] == CategoricalDistribution(WEIGHTED.choices)
    assert isinstance(found["log_normal"], FloatDistribution)
    assert found["log_normal"].log
    assert found["log_normal"].low == pytest.approx(stats.lognorm(s=0.7, scale=math.exp(-1)).ppf(1e-3))
    assert optunas(stored({"n": QuantileDistribution("log_uniform", LN(1), LN(64), 1)})["n"]) == IntDistribution(
        1, 64, log=True
    )
    assert optunas(stored({"x": QuantileDistribution("uniform", -0.3, 0.3, 0.1)})["x"]) == FloatDistribution(
        -0.30000000000000004, 0.30000000000000004
    ), "no decimal grid has these ends"


@pytest.mark.parametrize("seed", range(40))
def test_any_range_is_one_of_optunas(seed: int) -> None:
    """For any settings: Optuna reads it without a warning, and it holds what is drawn from a bounded one."""
    dist = random_quantiles(seed)
    range_ = optunas(stored({"x": dist})["x"])
    if quantiles.bounded(dist):
        rng = random.Random(seed)
        assert all(range_._contains(quantiles.value_at(dist, rng.random())) for _ in range(50))


def test_rehydrated_studies_have_values() -> None:
    """Not ``u``: importances and figures of Optuna are drawn over real numbers; outliers widen a range."""
    rows = drawn(MIXED, 25)
    records = [row(number, {name: rows[name][number] for name in MIXED}, error=float(number)) for number in range(25)]
    records.append(row(25, {**records[0].params, "gain": 12.0}, error=0.5))
    meta = cases.meta("s", search_space_json=sampling.search_space_json(MIXED))
    study = to_optuna_study(StudyData(meta, tuple(records), {}))
    for trial, record in zip(study.trials, records, strict=True):
        assert trial.state is State.COMPLETE
        assert same(trial.params, dict(record.params))
    assert study.trials[0].distributions["width"] == IntDistribution(8, 512, step=8)
    gain = study.trials[0].distributions["gain"]
    assert isinstance(gain, FloatDistribution)
    assert gain.high == 12.0


def test_a_changed_distribution_is_told() -> None:
    """Another sigma, family, q or weight on a results file that has trials: refused in words."""
    old = stored({"gain": QuantileDistribution("normal", 0.0, 1.0), "size": WEIGHTED})
    assert [
        *comparability._compare_spaces(
            old, stored({"gain": QuantileDistribution("normal", 0, 1.0), "size": WEIGHTED}), "f.h5", ""
        )
    ] == []
    for now in (QuantileDistribution("normal", 0.0, 2.0), FloatRange(-3.0902323061678132, 3.0902323061678132)):
        with pytest.raises(ConfigError, match="normal, mu 0, sigma 1") as caught:
            [*comparability._compare_spaces(old, stored({"gain": now, "size": WEIGHTED}), "f.h5", "parameters")]
        assert caught.value.key == "parameters.gain"
        assert ranges.describe(now) in str(caught.value)
    even = WeightedChoice(WEIGHTED.choices, (0.25, 0.25, 0.25, 0.0, 0.25))
    with pytest.raises(ConfigError, match="50 %"):
        [
            *comparability._compare_spaces(
                old, stored({"gain": QuantileDistribution("normal", 0, 1), "size": even}), "f.h5", ""
            )
        ]


def test_shares_are_exact() -> None:
    """Of q_uniform on whole numbers, by fractions: the outer values have half a share each."""
    dist = QuantileDistribution("uniform", 0.0, 10.0, 2)
    shares = probabilities(dist)
    assert [Fraction(p).limit_denominator(100) for p in shares.values()] == [
        Fraction(1, 10), *[Fraction(1, 5)] * 4, Fraction(1, 10),
    ]  # fmt: skip
    n = 1000
    counts = Counter(quantiles.value_at(dist, (i + 0.5) / n) for i in range(n))
    assert [counts[v] for v in (0, 2, 4, 6, 8, 10)] == [100, 200, 200, 200, 200, 100]
