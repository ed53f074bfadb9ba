"""What can be said of a study's program before any worker starts: the command of an example trial, and its file."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ptydask.engines.command import arguments, program
from ptydask.engines.command.program import Program
from ptydask.errors import ConfigError
from ptydask.model import (
    Choice,
    Distribution,
    FloatRange,
    IntRange,
    QuantileDistribution,
    Scalar,
    StudyPlan,
    WeightedChoice,
)
from ptydask.space import sweep_values


@dataclass(frozen=True, slots=True)
class CommandPreview:
    """The command of a trial with example values, and what it would run."""

    command: str
    notices: tuple[str, ...]
    program: Program


def complete(plan: StudyPlan) -> StudyPlan:
    """The plan with an example command among its details. Raises ConfigError where the program is not there."""
    try:
        seen = preview_command(plan)
    except ConfigError as error:
        raise error.in_file(plan.source.path) from None
    said = (*seen.notices, *map(_exposed_notice, filter(arguments.is_secret, plan.config["engine"]["environment"])))
    fresh = tuple(notice for notice in said if notice not in plan.notices)
    return replace(plan, details=(*plan.details, ("command", seen.command)), notices=(*plan.notices, *fresh))


def _exposed_notice(variable: str) -> str:
    why = "the results file holds the text of this file, and whoever reads it can read this value"
    return f"engine.environment.{variable}: {why}; set it where the run is started instead, programs inherit it"


def preview_command(plan: StudyPlan) -> CommandPreview:
    """What a trial would run, found on this machine. Raises ConfigError."""
    config = plan.config
    environ = program.build_environment(os.environ, config["engine"]["environment"])
    given = {name: value for point in plan.points[:1] for name, value in point.params.items()}
    values = sweep_values.values(config, {name: given.get(name, example_value(d)) for name, d in plan.space.items()})
    where = working_directory(config, Path(config["directory"]))  # the trial's own is not there yet
    named = program_in(config, where)
    expanded = arguments.expand(config["command"], named, values, environ, None)
    try:
        found = program.find(expanded.argv, where, environ, named)
    except ConfigError as error:
        for macro, advice in arguments.unknown_macros(config["command"], values, environ):
            hint = f"{advice} Without it {error}" if advice.endswith("?") else f"{advice}. Without it {error}"
            raise ConfigError("is no macro and vanishes", key="command", value=macro, hint=hint) from None
        raise
    if named is not None and (where / named).is_file():  # not the launcher that runs it
        found = replace(found, file=where / named)
    shown = arguments.shell_text((program.shell_name(expanded.argv[0], found), *expanded.shown[1:]))
    return CommandPreview(shown, expanded.notices, found)


def example_value(among: Distribution) -> Scalar:
    """A value of a distribution: its lowest or first one, the middle of one without an end."""
    match among:
        case FloatRange(low=low) | IntRange(low=low):
            return low
        case Choice(choices=choices) | WeightedChoice(choices=choices):
            return choices[0]
        case QuantileDistribution(family=family, a=a, q=q):
            value = {"log_uniform": math.exp, "log_normal": math.exp}.get(family, float)(a if family != "beta" else 0.5)
            return value if q is None else round(value / q) * q


def program_in(config: Mapping[str, Any], where: Path) -> str | None:
    """The program as it is to be named in ``where``: what is not there, but where the run was started, by its path."""
    given = config["program"]
    here = Path(config["directory"], given or "")
    elsewhere = config["engine"]["directory"] != "." and (where == here.parent or not (where / (given or "")).exists())
    return str(here) if given is not None and elsewhere and here.is_file() else given


def working_directory(config: Mapping[str, Any], own: Path) -> Path:
    """The working directory of the program: as ``engine.directory`` says, ``own`` for ``trial``."""
    asked = str(config["engine"]["directory"])
    return own if asked == "trial" else Path(config["directory"], Path(asked).expanduser())
