"""How values, states, counts and spans of time are written for a person; what a terminal or a log can show. Pure."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from ptydask.model import TrialRecord

NOTHING = "-"
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")


def duration_text(seconds: float) -> str:
    """A time span as a person says it: ``34.1 s``, ``12 min 05 s``, ``1 h 04 min``, ``2 d 03 h``."""
    if not math.isfinite(seconds):
        return NOTHING
    seconds = max(0.0, seconds)
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    if round(seconds) < 3600:
        return "{} min {:02d} s".format(*divmod(round(seconds), 60))
    if round(seconds / 60) < 24 * 60:
        return "{} h {:02d} min".format(*divmod(round(seconds / 60), 60))
    return "{} d {:02d} h".format(*divmod(round(seconds / 3600), 24))


def work_text(seconds: float, on_gpus: bool) -> str:
    """What workers did, two digits of it: ``14 GPU hours``, ``35 worker minutes``; no less than a minute."""
    seconds = max(seconds, 60.0)
    number, unit = (seconds / 3600, "hour") if seconds >= 3600 else (seconds / 60, "minute")
    digits = f"{float(f'{number:.2g}'):g}" if number < 100 else f"{number:.0f}"
    return f"{digits} {'GPU' if on_gpus else 'worker'} {unit}{'' if digits == '1' else 's'}"


def error_text(value: float | None) -> str:
    """An error with six significant digits, trailing zeros kept so that columns line up."""
    if value is None:
        return NOTHING
    return f"{value:#.6g}".removesuffix(".").replace(".e", "e")


def value_text(value: object) -> str:
    """A parameter's value in its shortest form of at most six significant digits."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable_text(str(value))


def uncertain_text(value: float, deviation: float, finest: float = math.inf) -> str:
    """``1.0387 +- 0.0012``: two digits of the standard deviation, and the value to the same place.

    As many more as give two digits of what is the ``finest`` difference that counts.
    """
    if not math.isfinite(deviation) or deviation <= 0:
        return value_text(float(value))
    finest = min(deviation, finest) if finest > 0 else deviation
    decimals = max(0, 1 - math.floor(math.log10(finest)))
    if decimals > 8:
        return f"{value:.6g} +- {deviation:.2g}"
    return f"{value:.{decimals}f} +- {deviation:.{decimals}f}"


def size_text(count: float) -> str:
    """``1.2 GB``: three digits, powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def counted(count: int, what: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def from_here(path: Path) -> str:
    """The path as seen from the working directory, where it lies below that."""
    folder = Path.cwd()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def shell_word(text: str) -> str:
    """``text`` as one word that a POSIX shell takes as it is, on one line.

    Single quotes keep blanks, ``$`` and ``!``; line breaks and control characters go through ``printf``, in octal; at
    its very end a line break is written as POSIX has it since 2024.
    """
    if text.isprintable():
        return shlex.quote(text)
    body = text.rstrip("\n")  # the shell takes these from what a command prints
    # A '!' is an order to an interactive shell, in double quotes too.
    plain = (c if c.isprintable() and c not in "'!" else _octal(c) for c in body.replace("\\", "\\\\"))
    printed = f"\"$(printf %b '{''.join(plain)}')\"" if body else ""
    return printed + "$'\\n'" * (len(text) - len(body))


def shell_line(command: str) -> str:
    """A command that :func:`shlex.quote` has quoted, on one line of printable text, for a shell to take as it is."""
    parts = re.finditer(r"""'([^']*)'|"[^"]*"|[^'"]+""", command)
    return "".join(shell_word(part[1]) if part[1] and not part[1].isprintable() else part[0] for part in parts)


def _octal(char: str) -> str:
    return "".join(f"\\0{byte:03o}" for byte in os.fsencode(char))


def shell_path(path: Path | str) -> str:
    """The path as seen from here, as one word of a command; one that begins with a hyphen is no option."""
    text = from_here(Path(path))
    return shell_word(f"./{text}" if text.startswith("-") else text)


def params_text(params: Mapping[str, object]) -> str:
    """``scale=0.98 rotation=-1.5``."""
    return " ".join(f"{printable_text(name)}={value_text(value)}" for name, value in params.items())


def state_text(record: TrialRecord) -> str:
    """``complete``, ``pruned``, ``failed``; with the reason where it was not the trial's own doing."""
    word, reason = record.state.word, str(record.reason)
    return word if reason in ("", word) else f"{word} ({reason})"


def printable_text(text: str) -> str:
    """Text on one line, every run of white space one blank, control characters as ``?``."""
    return inert_text(" ".join(text.split()))


def inert_text(text: str) -> str:
    """Text without colours that cannot move the cursor: a blank for other white space, ``?`` for control characters."""
    plain = _COLOURS.sub("", text)
    blanks = "".join(" " if char.isspace() else char for char in plain)
    return "".join(char if char.isprintable() else "?" for char in blanks)


def shorten_text(text: str, width: int) -> str:
    """Text of at most ``width`` characters, ending in ``...`` where it was cut."""
    return text if len(text) <= width else f"{text[: max(0, width - 3)]}..."[: max(0, width)]


def unicode_ready(stream: IO[str], environ: Mapping[str, str] | None = None) -> bool:
    """Whether block characters can be shown: the stream and the locale both say UTF-8.

    Python itself turns the C locale into UTF-8 (and sets ``LC_CTYPE=C.UTF-8``, PEP 538), so that the
    stream's encoding alone says nothing about the terminal.
    """
    env = os.environ if environ is None else environ
    category = env.get("LC_CTYPE", "")
    coerced = category in ("C.UTF-8", "C.utf8", "UTF-8")
    locale = env.get("LC_ALL") or ("" if coerced else category) or env.get("LANG", "")
    encoding = (getattr(stream, "encoding", None) or "").lower()
    return encoding.startswith("utf") and "utf" in locale.lower()


def sparkline(values: Sequence[float], width: int, *, blocks: bool) -> str:
    """A curve as one line of at most ``width`` characters: low values low, a gap where not finite.

    With more values than ``width`` each character stands for the last value of its share.
    """
    ramp = "▁▂▃▄▅▆▇█" if blocks else "_.-~=+*#"
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    samples = [values[(i + 1) * len(values) // count - 1] for i in range(count)]
    finite = [value for value in samples if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    line = ""
    for value in samples:
        if not math.isfinite(value):
            line += " "
        elif high > low:
            line += ramp[round((value - low) / (high - low) * (len(ramp) - 1))]
        else:
            line += ramp[0]
    return line


def encodable_text(text: str, stream: IO[str]) -> str:
    """Text with ``?`` for every character that the stream's encoding lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


# --- lines wider than a terminal ---------------------------------------------------------------------

_LABEL = re.compile(r"\s*(?:\S+(?: \S+){0,3} {2,})?")
_COMMAND = re.compile(r"(?:\$ |now: |to go on: )?(?:ptydask|ptyrad|python -m|pip|sbatch|\./jobs/\S+) \S")
"""What is to be pasted: a terminal's own break does not break that."""


def wrap_line(line: str, width: int) -> list[str]:
    """``line`` as lines of at most ``width`` characters, broken at blanks; longer words stay whole.

    They go on below the text behind a label that ends in two blanks, elsewhere indented by two. A command stays whole.
    """
    label = _LABEL.match(line)
    start = label.end() if label is not None else 0
    if _COMMAND.match(line, start):
        return [line]
    hang = start if 0 < start <= width // 2 else 2
    lines, rest = [], line.rstrip()
    while len(rest) > width:
        cut = rest.rfind(" ", start + 1, width + 1)
        if cut < 0:
            cut = rest.find(" ", max(width, start + 1))
        if cut < 0:
            break
        lines.append(rest[:cut].rstrip())
        rest, start = " " * hang + rest[cut:].lstrip(), hang
    return [*lines, rest]


def fit_text(text: str, stream: IO[str]) -> str:
    """``text`` with no line wider than the terminal behind ``stream``; as it is where that is none."""
    if stream.closed or not stream.isatty():
        return text
    width = window_size(stream)[0] - 1  # in the last column some terminals begin a new line
    return "\n".join("\n".join(wrap_line(line, width)) for line in text.split("\n"))


def window_size(stream: IO[str]) -> tuple[int, int]:
    """Columns and lines of the terminal behind ``stream``; 80 by 24 where it does not say."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return 80, 24
    return size.columns or 80, size.lines or 24


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """To sort by: node2 before node10."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(p), "") if p.isdecimal() and len(p) < 30 else (1, 0, p) for p in parts)
