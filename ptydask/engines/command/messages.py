"""What is said of a trial whose program did not do what it should: one line each. Pure."""

from __future__ import annotations

import keyword
import math
import re
import signal
from collections.abc import Iterable

from ptydask.engines.command import log
from ptydask.engines.command.limits import ExceededLimit
from ptydask.engines.command.process import ProgramExit
from ptydask.errors import one_line
from ptydask.trial.metric_history import never_logged

_LONGEST = 400
"""Characters of what a program said that a message repeats."""


def ended_badly(program: str, ended: ProgramExit, text: str) -> str:
    """A program that exited with another code than 0, or died of a signal; ``text`` is its log.

    ``ldctbench-train exited 1 after 12 s: ZeroDivisionError: float division by zero``
    """
    if ended.lost:
        return f"{program} was killed with the process that watches over it, after {duration(ended.seconds)}"
    exception = log.find_exception(text)
    last_line = one_line(exception or next(reversed(log.lines(text)), ""))
    if len(last_line) > _LONGEST:
        last_line = f"{last_line[:_LONGEST]}..."
    quoted = f": {last_line}" if last_line else ""
    if ended.signal is not None:
        why = "; perhaps the machine ran out of memory" if ended.signal == signal.SIGKILL else ""
        return f"{program} was ended by {signal_name(ended.signal)} after {duration(ended.seconds)}{why}{quoted}"
    exited = f"{program} exited {ended.code} after {duration(ended.seconds)}"
    if ended.code == 2 and not exception:
        return f"{exited}: the program rejected its arguments{quoted}{_flag_hint(last_line)}"
    return f"{exited}{quoted or ': it wrote nothing'}{_server_hint(program, text)}"


def _flag_hint(last_line: str) -> str:
    """What to do about argparse's flags, which take no value: ``argument --amp/--no-amp: ignored explicit ...``."""
    flag = re.search(r"argument (\S[^:]*): ignored explicit argument '(?:True|False)'", last_line)
    flags = [word for word in re.split(r"[/,\s]+", flag[1]) if word.startswith("--")] if flag else []
    if not flags:
        return ""
    name = flags[0].removeprefix("--")
    hint = f"; write ${{args_no_boolean_flags}} for ${{args}} in command: true is passed as --{name}, false not at all"
    if f"--no-{name}" not in flags:
        return hint
    return f"{hint}; where it is true by default, tune no-{name} in its place, whose true is --no-{name}"


_AGENT = re.compile(r"^[^#\n]*?\bwandb\.(agent|sweep)\(", re.MULTILINE)
_AGENT_ADVICE = (
    "W&B's server gives it its values then, where ptydask is to: let command call the function that is tuned, "
    '["${interpreter}", -c, "from MODULE import FUNCTION; FUNCTION()"], or name it in engine.callable (docs/sweeps.md)'
)


def agent_notice(program: str, source: str) -> str:
    """What to know of a program whose text, or log, has a call of W&B's own agent; else empty."""
    call = _AGENT.search(source)
    return f"{program} calls wandb.{call[1]} itself: {_AGENT_ADVICE}" if call else ""


def _server_hint(program: str, text: str) -> str:
    """What to do about a program that asks W&B's server, by its log."""
    if "No API key configured" not in text and "wandb.errors" not in text:
        return ""
    notice = agent_notice(program, text)
    if notice:
        return f"; {notice}"
    return "; it asks W&B's server: leave out wandb.login() and mode='online', trials run offline"


def too_long(program: str, limit: ExceededLimit) -> str:
    """A program that was stopped for its silence, or at the end of its time."""
    if limit.setting == "trial_timeout":
        what = f"ran for more than {duration(limit.seconds)}"
    elif limit.setting == "start_timeout":
        what = f"hung at its start: no output and no logged value for {duration(limit.seconds)}"
    else:
        what = f"hung: no more output and no logged value for {duration(limit.seconds)}"
    return f"{program} {what}, and was stopped (engine.{limit.setting})"


def no_metric(program: str, metric: str, seen: Iterable[str]) -> str:
    """A program that ended well and never logged the metric; ``seen`` are the names of what it logged."""
    names = list(seen)
    message = f"{program} exited 0 but {never_logged(metric, names)}"
    if names:
        return message
    plain = metric.isidentifier() and not keyword.iskeyword(metric) and metric != "step"
    arguments = f"step, {metric}=..." if plain else "..."
    return f"{message}; log it with wandb, or with ptydask.report({arguments})"


def not_finite(program: str, metric: str, value: float, objective: str) -> str:
    """A program that ended well with NaN or infinity."""
    shown = "NaN" if math.isnan(value) else value
    return f"{program} exited 0 but the {objective} value that it logged of {metric!r} is {shown}"


def not_started(program: str, why: str, host: str) -> str:
    """A program that this worker could not start."""
    return f"{program} could not be started on {host}: {one_line(why)}"


def failure_detail(text: str, command: str, directory: str) -> str:
    """What stands in place of a traceback: the last 20 lines of the log, the command, and how to read the whole log."""
    last_lines = log.tail(text)
    written = f"The last lines that it wrote:\n{last_lines}\n" if last_lines else "It wrote nothing.\n"
    return f"{written}\nThe command, in {directory}:\n{command}\n\nThe whole log: ptydask show FILE.h5 NUMBER --log\n"


def duration(seconds: float) -> str:
    """``0.3 s``, ``12 s``, ``2 h 5 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def signal_name(number: int) -> str:
    """``SIGSEGV``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
