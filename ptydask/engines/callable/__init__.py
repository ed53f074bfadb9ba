"""A Python function, in the worker's own process: ``engine: {callable: "package.module:function"}``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptydask.engines import Session
from ptydask.engines.callable import target
from ptydask.errors import ConfigError
from ptydask.model import Slot, StudyPlan


class CallableEngine:
    """See :class:`ptydask.engines.Engine`."""

    def validate(self, plan: StudyPlan) -> StudyPlan:
        """Find the function and look at its source. Nothing of it is run. Raises ConfigError, which names the file."""
        try:
            return self._complete_plan(plan)
        except ConfigError as error:
            raise error.in_file(plan.source.path) from None

    def _complete_plan(self, plan: StudyPlan) -> StudyPlan:
        directory = Path(plan.config["directory"])
        function = target.parse(plan.config["engine"].get("callable"), directory)
        source = target.locate(function, beside=plan.source.path.absolute().parent)
        shown = function.function
        if source is not None:
            target.check(function, source)
            shown = f"{shown} in {source}"
        folder = plan.config["engine"]["directory"]
        if folder != "trial" and not (directory / Path(folder).expanduser()).is_dir():
            raise ConfigError("no such folder", key="engine.directory", value=folder)
        return replace(plan, details=(*plan.details, ("function", shown)))

    def essential(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The parameters, the function, and which of its values counts."""
        engine = config["engine"]
        kept = {name: engine.get(name) for name in ("callable", "objective")}
        return {"parameters": config["parameters"], "engine": kept}

    def open(self, plan: StudyPlan, slot: Slot) -> Session:
        """Import the function. Raises ConfigError where that fails."""
        from ptydask.engines.callable.session import CallableSession

        return CallableSession(plan)
