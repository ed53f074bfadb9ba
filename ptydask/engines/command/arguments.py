"""The command of one trial: what the macros of a sweep's ``command`` become, to the letter of W&B's own agent.

Its rules: ``${envvar:NAME}`` counts anywhere in an item, any other macro only as a whole item; a macro that is none
vanishes; an item that is no text is written as Python writes it.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptydask.errors import nearest_hint

DEFAULT = ("${env}", "${interpreter}", "${program}", "${args}")
"""The command of a sweep that names none."""

MACROS = (
    "env",
    "interpreter",
    "program",
    "args",
    "args_no_equals",
    "args_no_hyphens",
    "args_no_boolean_flags",
    "args_json",
    "args_json_file",
    "args_dict",
    "args_append_hydra",
    "args_override_hydra",
)
"""Every macro but ``envvar:NAME``. W&B documents all of them except ``args_dict``: the parameters' names."""

SET_BY_TRIAL = frozenset(
    {
        "PTYDASK_FOLDER",
        "PTYDASK_METRICS",
        "PTYDASK_SEED",
        "PTYDASK_TRIAL",
        "PYTHONPATH",
        "WANDB_CONSOLE",
        "WANDB_DIR",
        "WANDB_MODE",
        "WANDB_RUN_ID",
        "WANDB_SILENT",
        "WANDB_SWEEP_ID",
        "WANDB_SWEEP_PARAM_PATH",
    }
)
"""Variables that every trial's program has, whether or not they are set where the run is started."""

JSON_FILE = "sweep-arguments.json"
"""Name, in the trial's folder, of the file of ``${args_json_file}``."""

_ENVVAR = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")  # W&B knows names of capitals, digits and underscores only
_SECRET = re.compile(r"PASSW|PASSPHRASE|SECRET|CREDENTIAL|TOKEN(?!IZ)|(?:^|_|API|ACCESS)KEY(?:$|_)", re.IGNORECASE)
_MARK = re.compile(r"\0(\w+)\0")
_MACRO = re.compile(r"\$\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class ExpandedCommand:
    """A command ready to be started, and one line each for what may surprise."""

    argv: tuple[str, ...]
    shown: tuple[str, ...]
    """The same for people; a secret that the command takes from a variable is a mark for :func:`shell_text`."""
    notices: tuple[str, ...]


def expand(
    command: Sequence[Any],
    program: str | None,
    values: Mapping[str, Any],
    environ: Mapping[str, str],
    folder: Path | None,
) -> ExpandedCommand:
    """The command of a trial with these ``values`` (as :func:`ptydask.space.sweep_values.values` has them: nested).

    ``${args_json_file}`` writes its file into ``folder``; without one the command shows the file's name alone and
    nothing is written. An empty ``command`` is W&B's :data:`DEFAULT`. Raises OSError where the file cannot be written.
    """
    marks = {name: f"\0{name}\0" if is_secret(name) else value for name, value in environ.items()}
    items = [_with_variables(item, environ) for item in command or DEFAULT]
    marked_items = [_with_variables(item, marks) for item in command or DEFAULT]
    flags = _macro_values(values)
    if "${args_json_file}" in items:
        flags["args_json_file"] = [_json_file(flags["args_json"][0], folder)]
    flags["program"] = [] if program is None else [program]
    return ExpandedCommand(
        argv=_replace_macros(items, flags),
        shown=_replace_macros(marked_items, flags),
        notices=notices(command, program, values, environ),
    )


def _replace_macros(items: Sequence[str], flags: Mapping[str, list[str]]) -> tuple[str, ...]:
    argv: list[str] = []
    for item in items:
        argv += flags.get(item[2:-1], []) if _is_macro(item) else [item]
    return tuple(argv)


def is_secret(variable: str) -> bool:
    """Whether a variable, by its name, has a value that nobody is to read in a results file."""
    return _SECRET.search(variable) is not None


def notices(
    command: Sequence[Any], program: str | None, values: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[str, ...]:
    """What of a command may surprise, one line each: variables that are not set, macros that are none.

    Touches no file. Variables that every trial sets (:data:`SET_BY_TRIAL`) may be missing in ``environ``.
    """
    messages: list[str] = []
    before = ""
    for item in map(str, command or DEFAULT):
        messages += _unset_notices(item, environ)
        expanded = _with_variables(item, environ)
        if _is_macro(expanded):
            messages += _vanishing_notices(expanded, program, values, before)
        else:
            messages += _inside_notices(expanded)
        before = expanded
    return tuple(dict.fromkeys(messages))


def unknown_macros(
    command: Sequence[Any], values: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    """The items of a command that are no macro and vanish, each with what may have been meant."""
    macros = [item for item in (_with_variables(item, environ) for item in command) if _is_macro(item)]
    return tuple((macro, _macro_advice(macro[2:-1], values)) for macro in macros if macro[2:-1] not in MACROS)


def shell_text(shown: Sequence[str]) -> str:
    """The command as a POSIX shell takes it; a secret is the variable that has it: ``--token="$TOKEN"``."""
    return _MARK.sub(r"""'"$\1"'""", shlex.join(shown))


def _is_macro(item: str) -> bool:
    return item.startswith("${") and item.endswith("}")


def _with_variables(item: Any, environ: Mapping[str, str]) -> str:
    return _ENVVAR.sub(lambda match: environ.get(match[1], match[1]), str(item))


def _macro_values(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """The parameters in every form that W&B knows."""
    pairs = [f"{name}={value}" for name, value in values.items()]
    return {
        "env": ["/usr/bin/env"],
        "interpreter": [sys.executable],
        "args": [f"--{pair}" for pair in pairs],
        "args_no_equals": [text for name, value in values.items() for text in (f"--{name}", str(value))],
        "args_no_hyphens": pairs,
        "args_no_boolean_flags": [flag for name, value in values.items() for flag in _boolean_flag(name, value)],
        "args_json": [json.dumps(dict(values))],
        "args_dict": list(values),
        "args_append_hydra": [f"+{pair}" for pair in pairs],
        "args_override_hydra": [f"++{pair}" for pair in pairs],
    }


def _boolean_flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}"] if value else []
    return [f"--{name}={value}"]


def _json_file(text: str, folder: Path | None) -> str:
    if folder is None:
        return JSON_FILE
    path = folder / JSON_FILE
    path.write_text(text, encoding="utf-8")
    return str(path)


def _unset_notices(item: str, environ: Mapping[str, str]) -> list[str]:
    return [
        f"command: the variable of ${{envvar:{name}}} is not set: the program gets the bare name {name}, as from W&B"
        for name in _ENVVAR.findall(item)
        if name and name not in environ and name not in SET_BY_TRIAL
    ]


def _vanishing_notices(item: str, program: str | None, values: Mapping[str, Any], before: str) -> list[str]:
    name = item[2:-1]
    if name == "program" and program is None:
        return ["command: ${program} vanishes, the file has no program"]
    if name in MACROS:
        return []
    why = f"command: {item} is no macro and vanishes, as with W&B"
    if before.startswith("-") and "=" not in before:
        why += f", which leaves {before} without a value"
    return [f"{why}; {_macro_advice(name, values)}"]


def _macro_advice(name: str, values: Mapping[str, Any]) -> str:
    if len(_MACRO.findall(f"${{{name}}}")) > 1:
        return "write each macro as an item of its own"
    if name.startswith("envvar:"):
        return "names of variables may hold capitals, digits and underscores only"
    if name in values:
        return "a parameter reaches the program through ${args} and its like only"
    hint = nearest_hint(name, MACROS)
    return hint if hint.startswith("did you mean") else "${args} and its like pass the parameters"


def _inside_notices(item: str) -> list[str]:
    messages = []
    for name in _MACRO.findall(item):
        if name.startswith("envvar:"):
            messages.append(f"command: {item!r} is passed as it is: {_macro_advice(name, {})}")
        elif name in MACROS:
            messages.append(f"command: {item!r} is passed as it is: ${{{name}}} counts only as an item of its own")
    return messages
