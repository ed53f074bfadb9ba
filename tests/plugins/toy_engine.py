"""An engine for tests: a quick, known function instead of a reconstruction, with ways to go wrong on request.

Keys in ``init_params``, all optional: ``sleep`` seconds a step; ``iterations``; ``fail`` and ``lose``: raise, or end
the process, where the smallest parameter is below (``fail_after``: only after so many steps); ``lose_once``: a path;
``bad_data``: refuse at opening; ``walk``: also a random walk, (steps, 8), which depends on parameters and seed and
differs where a trial was resumed wrongly; ``array``: so many random float32 numbers in one more; ``ignore_eviction``:
no checkpoint once the worker has to go; ``blind``: do not see the folder of the results; ``target``: the plan's;
``endless``: how many steps a trial has is not known beforehand; ``needs``: a path without which every trial fails,
those whose smallest parameter is above ``despite`` excepted; ``company``: a folder, in which each worker leaves a file;
no trial ends before there are two; ``gradient``: report the exact derivative of the error (study metric ``loss``) in
every tuned number, or, where it is a mapping, report that; ``facts``: more attributes of each trial;
``bare``: nothing but numbers, no array and no picture.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptydask.distributions import FloatRange, IntRange, QuantileDistribution
from ptydask.engines import Checkpoint, Report, TrialFailure
from ptydask.errors import DataError
from ptydask.model import Image, Quantity, Slot, StudyPlan, TrialInput, TrialOutput
from ptydask.trial import eviction


class ToyEngine:
    def validate(self, plan: StudyPlan) -> StudyPlan:
        toy = plan.config["init_params"]
        steps = None if toy.get("endless") else int(toy.get("iterations", 3))
        plan = replace(plan, iterations=steps, target=toy.get("target"))
        if not toy.get("gradient") or plan.metric != "loss":
            return plan
        numbers = FloatRange | IntRange | QuantileDistribution
        return replace(plan, differentiable=frozenset(n for n, d in plan.space.items() if isinstance(d, numbers)))

    def essential(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        return {k: v for k, v in config["init_params"].items() if k not in ("sleep", "target")}

    def open(self, plan: StudyPlan, slot: Slot) -> ToySession:
        toy = dict(plan.config["init_params"])
        if toy.get("bad_data"):
            raise DataError("holds NaN", file="data.h5", key="init_params.meas_params", hint="mask bad pixels")
        return ToySession(toy, plan, slot)


@dataclass
class Course:
    """The steps so far: the error of each, and a random walk."""

    random: np.random.Generator
    errors: list[float] = field(default_factory=list)
    walk: list[list[float]] = field(default_factory=list)

    @classmethod
    def resumed(cls, trial: TrialInput, state: bytes | None) -> Course:
        values = repr(sorted(trial.params.items())).encode()  # a retried trial has another number
        course = cls(np.random.default_rng([trial.seed, zlib.crc32(values)]))
        if state is not None:
            saved = json.loads(state)
            course.random.bit_generator.state = saved["random"]
            course.errors, course.walk = saved["errors"], saved["walk"]
        return course

    def saved(self) -> bytes:
        state = {"random": self.random.bit_generator.state, "errors": self.errors, "walk": self.walk}
        return json.dumps(state).encode()

    def go(self, error: float) -> None:
        before = self.walk[-1] if self.walk else [0.0] * 8
        self.walk.append([float(x) for x in self.random.normal(before)])
        self.errors.append(error)


@dataclass
class ToyData:
    """What a process keeps from one session to the next, and how often it has loaded it."""

    resting: bool = False
    loads: int = 0


_data = ToyData()


class ToySession:
    def __init__(self, toy: dict[str, Any], plan: StudyPlan, slot: Slot) -> None:
        self.toy, self.plan, self.slot = toy, plan, slot
        _data.loads += not _data.resting
        _data.resting = False
        if toy.get("blind"):
            from ptydask.worker import transfer  # Dask comes in with it

            transfer.folder_visible = lambda *_: False  # in this worker's process; the driver's sees it

    def run(self, trial: TrialInput, report: Report, checkpoint: Checkpoint) -> TrialOutput:
        values = [float(v) for v in trial.params.values() if isinstance(v, int | float)]
        target = sum(v * v for v in values)
        gradient = self._gradient(trial)
        steps, course = int(self.toy.get("iterations", 3)), Course.resumed(trial, checkpoint.load())
        self._needs(trial, min(values, default=0.0))
        for step in range(len(course.errors) + 1, steps + 1):
            time.sleep(float(self.toy.get("sleep", 0.0)))
            course.go(target + 1.0 / step)
            self._misbehave(min(values, default=0.0), step)
            error = course.errors[-1]
            if report(step, {"loss": error, "contrast": 1.0 / (1.0 + error)}, gradient):
                break
            if step < steps and not self._deaf() and checkpoint.due():
                checkpoint.save(step, course.saved())
        self._wait_for_company()
        errors, axis, bare = course.errors, np.arange(16, dtype=float), self.toy.get("bare")
        return TrialOutput(
            metrics={"loss": errors[-1], "contrast": 1.0 / (1.0 + errors[-1])},
            curve={"step": range(1, len(errors) + 1), "loss": errors}
            | {f"gradient/{name}": [slope] * len(errors) for name, slope in gradient.items()},
            gradient=gradient,
            arrays=(
                {} if bare else {"object_phase": Quantity(np.full((1, 1, 16, 16), target, dtype=np.float32), "rad")}
            )
            | self._more_arrays(trial, course),
            image=None if bare else Image(np.outer(axis, axis) + target, axis, axis, "rad", "angstrom", "phase"),
            attributes={"threads": self.slot.threads, "cuda": self.slot.cuda or "", "pid": os.getpid()}
            | {"loads": _data.loads}
            | self.toy.get("facts", {}),
        )

    def _gradient(self, trial: TrialInput) -> dict[str, Any]:
        asked = self.toy.get("gradient")
        if isinstance(asked, Mapping):
            return dict(asked)
        return {name: 2.0 * float(trial.params[name]) for name in self.plan.differentiable} if asked else {}

    def _deaf(self) -> bool:
        return bool(self.toy.get("ignore_eviction")) and eviction.asked.is_set()

    def _more_arrays(self, trial: TrialInput, course: Course) -> dict[str, Quantity]:
        arrays = {"walk": Quantity(np.array(course.walk), "angstrom")} if self.toy.get("walk") else {}
        if size := int(self.toy.get("array", 0)):
            arrays["noise"] = Quantity(np.random.default_rng(trial.seed).random(size, np.float32))
        return arrays

    def _needs(self, trial: TrialInput, x: float) -> None:
        needed = self.toy.get("needs")
        if needed and x < float(self.toy.get("despite", np.inf)) and not Path(needed).exists():
            raise TrialFailure(f"the toy exited {trial.number} after {time.time():.1f} s: there is no battery")

    def _wait_for_company(self) -> None:
        if folder := self.toy.get("company"):
            Path(folder, str(os.getpid())).touch()
            while len(list(Path(folder).iterdir())) < 2:
                time.sleep(0.01)

    def _misbehave(self, x: float, step: int) -> None:
        if x < float(self.toy.get("fail", -np.inf)) and step > int(self.toy.get("fail_after", 0)):
            raise MemoryError("CUDA out of memory, says the toy")
        if x < float(self.toy.get("lose", -np.inf)):
            os._exit(3)
        once = self.toy.get("lose_once")
        if once and step == 2:
            with contextlib.suppress(FileExistsError):
                Path(once).touch(exist_ok=False)
                os._exit(3)

    def provenance(self) -> Mapping[str, str]:
        return {"device": "toy", "threads": str(self.slot.threads)}

    def close_for(self, successor: StudyPlan) -> None:
        _data.resting = successor.engine == self.plan.engine

    def close(self) -> None:
        _data.resting = False
