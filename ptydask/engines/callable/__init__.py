"""A Python function, in the worker's own process: ``engine: {callable: "package.module:function"}``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptydask.engines import Session, function_target, naming_file
from ptydask.errors import ConfigError
from ptydask.model import Slot, StudyPlan

KEY = "engine.callable"
TAKES = ("params", "report")
"""What a function is called with."""


class CallableEngine:
    """See :class:`ptydask.engines.Engine`."""

    def validate(self, plan: StudyPlan) -> StudyPlan:
        """Find the function and look at its source. Nothing of it is run. Raises ConfigError, which names the file."""
        directory, engine = Path(plan.config["directory"]), plan.config["engine"]
        with naming_file(plan):
            function = function_target.parse(engine.get("callable"), KEY, TAKES, [directory])
            source = function_target.locate(function, beside=plan.source.path.absolute().parent)
            if source is not None:
                function_target.check(function, source)
            folder = engine["directory"]
            if folder != "trial" and not (directory / Path(folder).expanduser()).is_dir():
                raise ConfigError("no such folder", key="engine.directory", value=folder)
        shown = function.function if source is None else f"{function.function} in {source}"
        details = (*plan.details, ("function", shown))
        return replace(plan, details=details, differentiable=frozenset(engine.get("gradient", ())))

    def essential(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The parameters, the function, and which of its values counts."""
        engine = config["engine"]
        kept = {name: engine.get(name) for name in ("callable", "objective")}
        return {"parameters": config["parameters"], "engine": kept}

    def open(self, plan: StudyPlan, slot: Slot) -> Session:
        """Import the function. Raises ConfigError where that fails."""
        from ptydask.engines.callable.session import CallableSession

        return CallableSession(plan)
