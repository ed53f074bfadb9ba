"""How many workers there should be: what holds in every situation, tried by chance with fixed seeds."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import pytest

from ptydask.clusters.scaling import (
    AT_ONCE,
    JobLoad,
    ScalingDecision,
    WorkerLimits,
    decide_scaling,
    jobs_at_once,
    processes_at_once,
    retry_delay,
    target_workers,
    workers_to_keep,
)


def crew(name: str, asked: float = 0.0, workers: int = 1, joined: int = 1, busy: int = 0) -> JobLoad:
    return JobLoad(name, asked, workers, joined, busy)


def situations(seed: int, count: int = 3000) -> list[tuple[list[JobLoad], int, WorkerLimits]]:
    """Crews, unfinished trials and limits, by chance; no more busy workers than unfinished trials."""
    chance = random.Random(seed)
    out = []
    for _ in range(count):
        most = chance.randint(1, 40)
        limits = WorkerLimits(chance.randint(0, most), most, chance.choice([1, 1, 2, 4]))
        crews = []
        for number in range(chance.randint(0, max(1, most // limits.per_job))):
            workers = chance.randint(1, limits.per_job)
            joined = chance.randint(0, workers)
            crews.append(JobLoad(f"j{number}", chance.random(), workers, joined, chance.randint(0, joined)))
        out.append((crews, sum(c.busy for c in crews) + chance.choice([0, 0, 1, 3, 50]), limits))
    return out


def apply(crews: list[JobLoad], decided: ScalingDecision, limits: WorkerLimits, clock: float) -> list[JobLoad]:
    kept = [c for c in crews if c.name not in decided.close]
    return kept + [JobLoad(f"n{clock}-{i}", clock, limits.per_job) for i in range(decided.start)]


@pytest.mark.parametrize("seed", range(5))
def test_never_closes_a_job_with_a_busy_worker(seed: int) -> None:
    for crews, unfinished, limits in situations(seed):
        busy = {c.name for c in crews if c.busy}
        assert not busy & set(decide_scaling(crews, unfinished=unfinished, limits=limits).close)


@pytest.mark.parametrize("seed", range(5))
def test_starting_never_exceeds_the_most_nor_what_is_left_to_do(seed: int) -> None:
    for crews, unfinished, limits in situations(seed):
        there = sum(c.workers for c in crews)
        for leaving in (0, 3):
            start = decide_scaling(crews, unfinished=unfinished, limits=limits, leaving=leaving).start
            after = there + start * limits.per_job
            assert start <= AT_ONCE
            if start:
                assert after + leaving <= max(limits.most, limits.per_job)
                assert after - limits.per_job < unfinished


@pytest.mark.parametrize("seed", range(5))
def test_shrinking_leaves_as_many_as_are_kept(seed: int) -> None:
    for crews, unfinished, limits in situations(seed):
        decided = decide_scaling(crews, unfinished=unfinished, limits=limits)
        left = sum(c.workers for c in apply(crews, decided, limits, 1.0))
        if decided.close:
            assert left >= workers_to_keep(unfinished, limits)
            assert decided.start == 0


@pytest.mark.parametrize("seed", range(5))
def test_comes_to_rest_and_stays_there(seed: int) -> None:
    """Nothing happening outside, a few ticks later nothing is changed any more."""
    for crews, unfinished, limits in situations(seed, 500):
        now = crews
        for tick in range(60):
            decided = decide_scaling(now, unfinished=unfinished, limits=limits)
            if decided == ScalingDecision():
                break
            now = apply(now, decided, limits, 1.0 + tick)
        assert decide_scaling(now, unfinished=unfinished, limits=limits) == ScalingDecision()


def test_aim_and_keep_grow_with_the_work_and_end_at_zero() -> None:
    for least, most in ((0, 8), (3, 8), (8, 8)):
        limits = WorkerLimits(least, most)
        aims = [target_workers(n, limits) for n in range(30)]
        kept = [workers_to_keep(n, limits) for n in range(30)]
        assert aims == sorted(aims)
        assert kept == sorted(kept)
        assert (aims[0], kept[0]) == (0, 0)
        assert all(least <= k <= most and a <= n for n, (a, k) in enumerate(zip(aims, kept, strict=True)) if n)


def test_zero_workers_when_nothing_is_to_do() -> None:
    crews = [crew("idle"), crew("waiting", joined=0), crew("many", workers=4, joined=4)]
    assert set(decide_scaling(crews, unfinished=0, limits=WorkerLimits(8, 8, 4)).close) == {"idle", "waiting", "many"}


@pytest.mark.parametrize(("per_job", "adaptive", "seed"), list(product((1, 3), (True, False), range(10))))
def test_a_whole_study(per_job: int, adaptive: bool, seed: int) -> None:
    """Jobs wait, join, take trials and die by chance: every trial is done, workers only go as the study runs out."""
    chance = random.Random(seed)
    limits = WorkerLimits(0 if adaptive else 9, 9, per_job)
    crews: list[JobLoad] = []
    todo, closed_busy, peak = 60, 0, 0
    for tick in range(3000):
        running = sum(c.busy for c in crews)
        crews = [replace(c, joined=c.workers) if not c.joined and chance.random() < 0.3 else c for c in crews]
        crews = [c for c in crews if chance.random() > 0.01]
        done = [min(c.busy, chance.randint(0, 1)) for c in crews]
        todo -= sum(done)
        crews = [replace(c, busy=c.busy - d) for c, d in zip(crews, done, strict=True)]
        free = todo - sum(c.busy for c in crews)
        for at, one in enumerate(crews):
            takes = min(free, one.joined - one.busy)
            crews[at] = replace(one, busy=one.busy + takes)
            free -= takes
        decided = decide_scaling(crews, unfinished=todo, limits=limits)
        closed_busy += sum(c.busy for c in crews if c.name in decided.close)
        crews = apply(crews, decided, limits, float(tick))
        peak = max(peak, sum(c.workers for c in crews))
        if todo == 0 and not crews:
            break
    assert (todo, crews, closed_busy, running) == (0, [], 0, running)
    assert 6 <= peak <= 9


def test_workers_leave_one_by_one_as_the_study_runs_out() -> None:
    crews = [crew(f"j{i}", asked=i, busy=1) for i in range(4)]
    limits = WorkerLimits(0, 4)
    for unfinished in (3, 2, 1, 0):
        crews[0] = replace(crews[0], busy=0)
        decided = decide_scaling(crews, unfinished=unfinished, limits=limits)
        assert decided.close == (crews[0].name,)
        crews = crews[1:]


def test_the_least_stays_until_the_end_but_is_not_started_for_nothing() -> None:
    limits = WorkerLimits(8, 8)
    assert decide_scaling([], unfinished=3, limits=limits).start == 3
    assert decide_scaling([crew(f"j{i}") for i in range(8)], unfinished=1, limits=limits) == ScalingDecision()


def test_waiting_jobs_go_first_the_youngest_before_the_others() -> None:
    crews = [crew("idle", 0.0), crew("old", 1.0, joined=0), crew("young", 2.0, joined=0)]
    assert decide_scaling(crews, unfinished=2, limits=WorkerLimits(0, 9)).close == ("young",)
    assert decide_scaling(crews, unfinished=1, limits=WorkerLimits(0, 9)).close == ("young", "old")


def test_jobs_of_several_workers_stay_below_the_most() -> None:
    assert decide_scaling([], unfinished=100, limits=WorkerLimits(0, 7, 4)).start == 1
    assert decide_scaling([], unfinished=100, limits=WorkerLimits(0, 8, 4)).start == 2
    assert decide_scaling([], unfinished=5, limits=WorkerLimits(0, 100, 4)).start == 2
    assert decide_scaling([], unfinished=5, limits=WorkerLimits(0, 2, 4)).start == 1, "one job there may always be"


def test_a_job_goes_only_when_all_its_workers_are_idle() -> None:
    crews = [crew("half", workers=2, joined=2, busy=1), crew("idle", workers=2, joined=2)]
    assert decide_scaling(crews, unfinished=1, limits=WorkerLimits(0, 4, 2)).close == ("idle",)


def test_a_job_that_brings_nobody_any_more_is_left_to_end_by_itself() -> None:
    """Its last worker may be saving a checkpoint."""
    crews = [crew("evicted", workers=0, joined=0), crew("busy", busy=1)]
    assert decide_scaling(crews, unfinished=1, limits=WorkerLimits(0, 4)) == ScalingDecision()
    assert decide_scaling(crews, unfinished=2, limits=WorkerLimits(0, 4)) == ScalingDecision(start=1)
    assert decide_scaling(crews[:1], unfinished=0, limits=WorkerLimits(0, 4)) == ScalingDecision()


def test_workers_that_are_leaving_take_room() -> None:
    assert decide_scaling([crew("a")], unfinished=9, limits=WorkerLimits(0, 3), leaving=1).start == 1


def test_submitting_slows_down_after_failures() -> None:
    assert [jobs_at_once(n) for n in range(6)] == [10, 5, 2, 1, 1, 1]
    assert [retry_delay(n) for n in range(5)] == [0, 1, 2, 4, 8]
    assert retry_delay(50) == 60


@pytest.mark.parametrize("cores", [1, 2, 64])
@pytest.mark.parametrize("wanted", [1, 3, 200])
def test_processes_of_this_machine_start_in_waves(cores: int, wanted: int) -> None:
    """Some a core at a time, all of them in the end; none beside those that have not come up."""
    limits, waves, there = WorkerLimits(wanted, wanted), 0, 0
    while there < wanted:
        room = processes_at_once(cores, 0)
        assert processes_at_once(cores, room) == processes_at_once(cores, room + 5) == 0
        crews = [crew(f"w{i}", busy=1) for i in range(there)]
        start = decide_scaling(crews, unfinished=wanted, limits=limits, at_once=room).start
        assert 0 < start <= room
        there, waves = there + start, waves + 1
    assert waves == -(-wanted // room)
