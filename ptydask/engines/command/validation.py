"""What can be said of a study's program before any worker starts: the command of an example trial, and its file."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ptydask.distributions import Choice, Distribution, FloatRange, IntRange, QuantileDistribution, WeightedChoice
from ptydask.engines import naming_file
from ptydask.engines.command import arguments, messages, program
from ptydask.engines.command.program import Program
from ptydask.errors import ConfigError
from ptydask.model import Scalar, StudyPlan
from ptydask.space import sweep_values


@dataclass(frozen=True, slots=True)
class CommandPreview:
    """The command of a trial with example values, and what it would run."""

    command: str
    notices: tuple[str, ...]
    program: Program


def complete(plan: StudyPlan) -> StudyPlan:
    """The plan with an example command among its details. Raises ConfigError where the program is not there."""
    with naming_file(plan):
        preview = preview_command(plan)
    exposed = [_exposed_notice(name) for name in plan.config["engine"]["environment"] if arguments.is_secret(name)]
    new = [
        notice
        for notice in (*preview.notices, *exposed, *_agent_notices(preview.program))
        if notice not in plan.notices
    ]
    return replace(plan, details=(*plan.details, ("command", preview.command)), notices=(*plan.notices, *new))


def _agent_notices(program: Program) -> list[str]:
    if program.file is None or program.file.suffix != ".py" or not program.file.is_file():
        return []
    notice = messages.agent_notice(program.name, program.file.read_text(errors="replace"))
    return [notice] if notice else []


def _exposed_notice(variable: str) -> str:
    why = "the results file holds the text of this file, and whoever reads it can read this value"
    return f"engine.environment.{variable}: {why}; set it where the run is started instead, programs inherit it"


def preview_command(plan: StudyPlan) -> CommandPreview:
    """What a trial would run, found on this machine. Raises ConfigError."""
    config = plan.config
    environ = program.build_environment(os.environ, config["engine"]["environment"])
    params = {name: example_value(distribution) for name, distribution in plan.space.items()}
    if plan.points:
        params |= {name: value for name, value in plan.points[0].params.items() if name in params}
    values = sweep_values.values(config, params)
    directory = working_directory(config, Path(config["directory"]))  # the trial's own is not there yet
    program_name = program_in(config, directory)
    expanded = arguments.expand(config["command"], program_name, values, environ, None)
    try:
        started = program.find(expanded.argv, directory, environ, program_name)
    except ConfigError as error:
        vanishing = arguments.unknown_macros(config["command"], values, environ)
        if not vanishing:
            raise
        macro, advice = vanishing[0]
        sentence = advice if advice.endswith("?") else f"{advice}."
        hint = f"{sentence} Without it {error}"
        raise ConfigError("is no macro and vanishes", key="command", value=macro, hint=hint) from None
    if program_name is not None and (directory / program_name).is_file():  # not the launcher that runs it
        started = replace(started, file=directory / program_name)
    return CommandPreview(program.shell_command(expanded, started), expanded.notices, started)


def example_value(distribution: Distribution) -> Scalar:
    """A value of a distribution: its lowest or first one, the middle of one without an end."""
    match distribution:
        case FloatRange(low=low) | IntRange(low=low):
            return low
        case Choice(choices=choices) | WeightedChoice(choices=choices):
            return choices[0]
        case QuantileDistribution(family=family, a=a, q=q):
            value = 0.5 if family == "beta" else float(a)
            if family in ("log_uniform", "log_normal"):
                value = math.exp(a)
            return value if q is None else round(value / q) * q


def program_in(config: Mapping[str, Any], directory: Path) -> str | None:
    """The program as it is to be named in ``directory``: what is where the run was started instead, by its path."""
    name: str | None = config["program"]
    if name is None or config["engine"]["directory"] == ".":
        return name
    file = Path(config["directory"], name)
    elsewhere = directory == file.parent or not (directory / name).exists()
    return str(file) if elsewhere and file.is_file() else name


def working_directory(config: Mapping[str, Any], own: Path) -> Path:
    """The working directory of the program: as ``engine.directory`` says, ``own`` for ``trial``."""
    directory = str(config["engine"]["directory"])
    return own if directory == "trial" else Path(config["directory"], Path(directory).expanduser())
