"""An engine for tests: a quick, known function instead of a reconstruction, with ways to go wrong on request.

Keys in ``init_params``, all optional: ``sleep`` seconds a step; ``iterations``; ``fail`` and ``lose``: raise, or end
the process, where the smallest parameter is below; ``lose_once``: a path; ``bad_data``: refuse at opening.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ptydask.engines import Report
from ptydask.errors import DataError
from ptydask.model import Image, Quantity, Slot, StudyPlan, TrialInput, TrialOutput


class ToyEngine:
    def validate(self, plan: StudyPlan) -> StudyPlan:
        return replace(plan, iterations=int(plan.config["init_params"].get("iterations", 3)))

    def essential(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        return {k: v for k, v in config["init_params"].items() if k != "sleep"}

    def open(self, plan: StudyPlan, slot: Slot) -> ToySession:
        toy = dict(plan.config["init_params"])
        if toy.get("bad_data"):
            raise DataError("holds NaN", file="data.h5", key="init_params.meas_params", hint="mask bad pixels")
        return ToySession(toy, plan, slot)


class ToySession:
    def __init__(self, toy: dict[str, Any], plan: StudyPlan, slot: Slot) -> None:
        self.toy, self.plan, self.slot = toy, plan, slot

    def run(self, trial: TrialInput, report: Report) -> TrialOutput:
        values = [float(v) for v in trial.params.values() if isinstance(v, int | float)]
        target = sum(v * v for v in values)
        steps, errors = int(self.toy.get("iterations", 3)), []
        for step in range(1, steps + 1):
            time.sleep(float(self.toy.get("sleep", 0.0)))
            errors.append(target + 1.0 / step)
            self._misbehave(min(values, default=0.0), step)
            if report(step, {"loss": errors[-1], "contrast": 1.0 / (1.0 + errors[-1])}):
                break
        axis = np.arange(16, dtype=float)
        return TrialOutput(
            metrics={"loss": errors[-1], "contrast": 1.0 / (1.0 + errors[-1])},
            curve={"step": range(1, len(errors) + 1), "loss": errors},
            arrays={"object_phase": Quantity(np.full((1, 1, 16, 16), target, dtype=np.float32), "rad")},
            image=Image(np.outer(axis, axis) + target, axis, axis, "rad", "angstrom", "phase"),
            attributes={"threads": self.slot.threads, "cuda": self.slot.cuda or "", "pid": os.getpid()},
        )

    def _misbehave(self, x: float, step: int) -> None:
        if x < float(self.toy.get("fail", -np.inf)):
            raise MemoryError("CUDA out of memory, says the toy")
        if x < float(self.toy.get("lose", -np.inf)):
            os._exit(3)
        once = self.toy.get("lose_once")
        if once and step == 2 and not Path(once).exists():
            Path(once).touch()
            os._exit(3)

    def provenance(self) -> Mapping[str, str]:
        return {"device": "toy", "threads": str(self.slot.threads)}

    def close(self) -> None:
        return None
