"""A journal that is replayed in batches gives the trials, and the errors, that Optuna's own replay gives."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.storages.journal._storage import JournalStorageReplayResult
from optuna.trial import TrialState as State

from ptydask.storage.replay import BatchReplay

TIME = "2026-01-01T00:00:00.000000+00:00"
STUDIES = [{"op_code": 0, "worker_id": "a-1", "study_name": name, "directions": [1]} for name in "ab"]
RANGES: list[BaseDistribution] = [
    FloatDistribution(0, 1),
    FloatDistribution(0, 2),  # goes with the first
    FloatDistribution(0.1, 1, log=True),  # these two do not
    CategoricalDistribution([0.25, 0.5]),
]


def _random_entry(chance: random.Random, trials: int) -> dict[str, Any]:
    """One of any kind, also of a trial that has ended, or that there never was."""
    entry: dict[str, Any] = {"op_code": chance.choice([4, 5, 5, 6, 7, 8, 9]), "worker_id": "b-1"}
    match entry["op_code"]:
        case 4:
            template = {"state": State.WAITING.value, "user_attrs": {"lease": 1}, "system_attrs": {"fixed_params": {}}}
            plain = chance.random() < 0.7
            return (
                entry
                | {"study_id": chance.randrange(2), "datetime_start": TIME if plain else None}
                | ({} if plain else template)
            )
        case 5:
            chosen = chance.choice(RANGES if chance.random() < 0.2 else RANGES[:1])
            value = chosen.to_internal_repr(0.5)
            entry |= {"param_name": chance.choice("xy"), "param_value_internal": value}
            entry["distribution"] = distribution_to_json(chosen)
        case 6:
            state = chance.choice(list(State))
            entry |= {"state": state.value, "values": [1.0], "datetime_start": TIME, "datetime_complete": TIME}
        case 7:
            entry |= {"step": chance.randrange(3), "intermediate_value": chance.random()}
        case op_code:
            key = "user_attr" if op_code == 8 else "system_attr"
            entry[key] = {chance.choice("pq"): chance.random()}
    return entry | {"trial_id": max(0, trials - chance.randrange(-1, 5))}


@pytest.mark.parametrize("seed", range(20))
def test_batches_give_what_optuna_gives(seed: int) -> None:
    chance = random.Random(seed)
    stock, ours = JournalStorageReplayResult("reader-"), BatchReplay("reader-")
    entries = [copy.deepcopy(entry) for entry in STUDIES]
    given: dict[int, Any] = {}
    for _ in range(60):
        created = sum(entry["op_code"] == 4 for entry in entries) + len(ours._trials)
        for _ in range(chance.randrange(1, 12)):
            entries.append(_random_entry(chance, created))
            created += entries[-1]["op_code"] == 4
        before = copy.deepcopy(given)
        stock.apply_logs(copy.deepcopy(entries))
        kept = copy.deepcopy(entries)
        ours.apply_logs(entries)
        assert entries == kept
        assert given == before, "a trial changed that somebody had been given"
        assert ours._trials == stock._trials
        assert ours._study_id_to_trial_ids == stock._study_id_to_trial_ids
        assert ours.log_number_read == stock.log_number_read
        given, entries = dict(ours._trials), []


def test_own_entries_that_cannot_be_are_refused_as_by_optuna() -> None:
    """Of a trial that has ended, or with another distribution; what came before them in the batch counts."""
    for refused in (
        {"op_code": 8, "trial_id": 0, "user_attr": {"p": 2}},
        {"op_code": 5, "trial_id": 1, "param_name": "x", "param_value_internal": 0}
        | {"distribution": distribution_to_json(RANGES[3])},
    ):
        told = []
        for replay in (JournalStorageReplayResult("own-"), BatchReplay("own-")):
            own = replay.worker_id
            param = {"param_name": "x", "param_value_internal": 0.5, "distribution": distribution_to_json(RANGES[0])}
            entries: list[dict[str, Any]] = [
                STUDIES[0],
                {"op_code": 4, "study_id": 0, "datetime_start": TIME},
                {"op_code": 4, "study_id": 0, "datetime_start": TIME},
                {"op_code": 5, "trial_id": 0, **param},
                {"op_code": 6, "trial_id": 0, "state": 1, "values": [1.0], "datetime_complete": TIME},
                {"op_code": 8, "trial_id": 1, "user_attr": {"q": 1}},
                refused,
            ]
            with pytest.raises((ValueError, RuntimeError)) as caught:
                replay.apply_logs([{"worker_id": own, **entry} for entry in entries])
            told.append((type(caught.value), str(caught.value), replay._trials, replay.log_number_read))
        assert told[0] == told[1]
