"""The error tree. Whatever reaches a user is one of these, and its text is one line but for FilesRefused.

PtydaskError
├── UsageError          the command line
│   ├── ConfigError     a file that was given: file, key, value, rule, what to do
│   │   └── DataError   the measurements that the file names
│   │       └── UnusablePatterns    the patterns in them, once these are read
│   └── FilesRefused    several files that were given break a rule
├── MissingDependency   an optional package is not installed
├── StoreError          the results file or its folder
│   ├── NoResults       what was given as a results file is none
│   └── UnusableResults the results cannot be written where they were asked for
├── StorageError        the Optuna storage
├── StoppedEarly        a run that ended before its study did; the same command goes on
├── StudiesFailed       some of several studies that were run together
└── ClusterError        workers that do not start or stay
"""

from __future__ import annotations

import importlib.util
import json
import re
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import unquote


class PtydaskError(Exception):
    """Something a user can act on. ``exit_code`` is what the command line returns."""

    exit_code = 1


class UsageError(PtydaskError):
    """The command was called in a way that cannot be meant."""

    exit_code = 2


class ConfigError(UsageError):
    """A file breaks a rule.

    The text is one line: ``file: key = value: rule; hint``. Any part that does not apply is left out.
    """

    def __init__(
        self,
        rule: str,
        *,
        file: Path | str | None = None,
        key: str = "",
        value: object = ...,
        hint: str = "",
        line: int | None = None,
    ) -> None:
        self.rule, self.file, self.key, self.value, self.hint, self.line = rule, file, key, value, hint, line
        place = "" if file is None else str(file)
        if file is not None and line is not None:
            place = f"{file}:{line}"
        setting = key
        if value is not ...:
            setting = f"{key} = {shorten(value)}" if key else shorten(value)
        advice = f"{rule}; {hint}" if hint else rule
        # Exceptions of Dask tasks are pickled: made again of this one line, and then given all attributes, it is whole.
        super().__init__(one_line(": ".join(part for part in (place, setting, advice) if part)))

    def in_file(self, file: Path | str) -> ConfigError:
        """The same error, naming ``file``, where it named none."""
        if self.file is not None:
            return self
        return type(self)(self.rule, file=file, key=self.key, value=self.value, hint=self.hint, line=self.line)


class DataError(ConfigError):
    """The measurements, or another data file that the params file names, cannot be used."""


class UnusablePatterns(DataError):  # noqa: N818
    """The patterns themselves: damaged, not finite, or empty. That shows once they are read, not by their headers."""


class FilesRefused(UsageError):  # noqa: N818
    """Several of the files that were given break a rule: ``errors`` has each. Its text alone has a line for each."""

    def __init__(self, errors: Sequence[PtydaskError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join([f"{len(self.errors)} files are refused:", *map(str, self.errors)]))


def raise_all(errors: Iterable[PtydaskError]) -> None:
    """Raise the error, or FilesRefused for several that differ; do nothing where there is none."""
    different = list({str(error): error for error in errors}.values())
    if len(different) == 1:
        raise different[0]
    if different:
        raise FilesRefused(different)


class MissingDependency(PtydaskError):  # noqa: N818 - the name says it
    """An optional package is needed and not installed."""

    exit_code = 2


class StoreError(PtydaskError):
    """The results file or its folder cannot be used as it is."""


class NoResults(StoreError):  # noqa: N818
    """What was given as a results file is not there, or something else, or has no such stage."""

    exit_code = 2


class UnusableResults(StoreError):  # noqa: N818
    """The results cannot be where they were asked for: nothing was started."""

    exit_code = 2


class StorageError(PtydaskError):
    """The Optuna storage cannot be used."""


class StoppedEarly(PtydaskError):  # noqa: N818
    """A run ended before its study did, through no fault of the study; the same command goes on."""

    exit_code = 75


class ClusterError(PtydaskError):
    """The workers cannot do their work."""


class StudiesFailed(PtydaskError):  # noqa: N818
    """Of several studies that were run together some failed; the others are over, and the same call goes on.

    ``errors`` has what ended each, by its file.
    """

    def __init__(self, errors: Mapping[Path, BaseException], count: int) -> None:
        self.errors = dict(errors)
        texts = {file: explain_error(error) for file, error in self.errors.items()}
        reasons = (text if text.startswith(f"{file}:") else f"{file}: {text}" for file, text in texts.items())
        super().__init__(one_line(f"{len(self.errors)} of {count} studies failed: {'; '.join(reasons)}"))


def require(module: str, needed: str, extra: str, package: str = "") -> None:
    """Raises MissingDependency where ``module`` is not installed; imports nothing.

    ``needed`` says for what (``figures need``), ``extra`` which of ptydask's extras brings it, ``package`` what it is
    called where that is not the module's name.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingDependency(f"{needed} the package {package or module}: pip install 'ptydask[{extra}]'")


def import_optional(module: str, needed: str, extra: str, package: str = "") -> Any:
    """``module`` of an optional package, imported. Raises MissingDependency where that cannot be done.

    The other arguments are those of :func:`require`.
    """
    name = package or module.partition(".")[0]
    require(module.partition(".")[0], needed, extra, name)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(
            f"{needed} the package {name}, which cannot be imported: {one_line(str(error))}"
        ) from error


def nearest_number(number: int, numbers: Sequence[int]) -> str:
    """Which trials there are, where ``number`` is none of them, for an error's text."""
    if not numbers:
        return "no trial has ended so far"
    nearest = min(numbers, key=lambda other: (abs(other - number), other))
    return f"the nearest is {nearest}, of {len(numbers)} trials from {min(numbers)} to {max(numbers)}"


def nearest_hint(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the nearest known word, else the list of them, for an error's hint."""
    names = list(known)
    matches = get_close_matches(str(word), names, n=1, cutoff=0.6)
    if matches:
        return f"did you mean {matches[0]!r}?"
    return f"known: {', '.join(sorted(names))}" if len(names) <= 12 else ""


def nearest_files(name: str, others: Iterable[str]) -> list[str]:
    """The file name of ``others`` that ``name`` is a slip for, if any.

    By what comes before the ending; one of a series (``scan-b``, ``scan-12``) is no slip for another.
    """
    stems = {other: other.rpartition(".")[0] or other for other in sorted(others)}
    stem = name.rpartition(".")[0] or name
    near = [other for other, its in stems.items() if its == stem or not _is_of_series(its, stem)]
    close = get_close_matches(stem, [stems[other] for other in near], n=1, cutoff=0.75)
    same = [other for other in near if stems[other] in close]
    return sorted(same, key=lambda other: other.rpartition(".")[2] != name.rpartition(".")[2])[:1]


def _is_of_series(one: str, other: str) -> bool:
    """Whether the two differ in numbers or single letters alone."""
    return re.sub(_NUMBERING, "#", one) == re.sub(_NUMBERING, "#", other)


_NUMBERING = r"\d+|(?<![^\W_])[^\W\d_](?![^\W_])"


def shorten(value: object, limit: int = 80) -> str:
    """``repr`` of a value, cut in the middle where it is long."""
    try:
        text = redact(repr(value))
    except ValueError:  # Python writes no integer of more than 4300 digits
        return f"({type(value).__name__}, too long to write)"
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 4 :]}"


def one_line(text: str) -> str:
    """Text with every run of white space made one blank."""
    return " ".join(text.split())


def describe_error(error: BaseException | None) -> str:
    """What some program's exception says, in one line without passwords: ``ValueError: math domain error``."""
    return redact(one_line(f"{type(error).__name__}: {error}"))


def explain_error(error: BaseException) -> str:
    """Why something ended, in one line: a PtydaskError's own words; of any other exception :func:`describe_error`."""
    return str(error) if isinstance(error, PtydaskError) else describe_error(error)


_SECRETS: set[str] = set()


def hide_password(url: str) -> None:
    """From now on :func:`redact` blanks out this URL's password, however it is written, in whatever text it appears."""
    rest = url.partition("://")[2]
    userinfo, _, _ = rest.partition("?")[0].rpartition("@")
    secrets = [userinfo.partition(":")[2], *re.findall(r"[?&](?:password|passwd|sslpassword)=([^&]*)", rest)]
    for secret in secrets:
        for plain in (secret, unquote(secret)):
            _SECRETS.update(text for text in _spellings(plain) if len(text) >= 4)


def _spellings(text: str) -> set[str]:
    """How JSON, YAML and Python write ``text`` between quotes."""
    quoted = (json.dumps(text), json.dumps(text, ensure_ascii=False), repr(text))
    return {text, text.replace("'", "''"), *(spelling[1:-1] for spelling in quoted)}


_PASSWORD = r"(?:password|passwd|passphrase)"
_TOKEN = r"(?:secret|token|api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key)"
_WORD = r"(?<![\w-])[\w-]{0,60}?"
_KEY = rf"{_WORD}(?:{_PASSWORD}|{_TOKEN})"
_PLAIN = r"(?!(?:null|none|true|false)\b|~|\*\*\*)[^\s,;&'\"{}\[\]()]+"
"""A value without quotes that is neither nothing nor a mapping or a list."""
_HOST = r"@(?=[\w.\[-])"
_PATTERNS = (
    # scheme://user:PASSWORD@host, whatever stands before the last @; but no port
    (rf"((?<![\w+.-])\w[\w+.-]{{0,40}}://[^\s:/@'\"]{{0,200}}):(?!\d+/)[^\s'\"]{{0,500}}{_HOST}", r"\1:***@"),
    # postgresql//user:PASSWORD@host, and other slips after the name of a database
    (
        rf"\b((?:postgres|mysql|mariadb|redis)[\w+]{{0,20}}[:/]{{1,3}}[^\s:/@'\"]{{0,200}}):"
        rf"(?!\d+/)[^\s'\"]{{0,500}}{_HOST}",
        r"\1:***@",
    ),
    # https://TOKEN@host
    (rf"\b((?:https?|rediss?)://)[^\s:/@'\"*]{{1,500}}{_HOST}", r"\1***@"),
    # user:PASSWORD@host and :PASSWORD@host, without a scheme
    (rf"(?<![\w/.*+-])([\w.+-]{{0,200}}):(?!//)[^\s:/@'\"*]{{1,500}}{_HOST}", r"\1:***@"),
    # ?password=PASSWORD
    (r"([?&;](?:sslpassword|pwd|pass|auth)=)[^&;\s'\"]*", r"\1***"),
    # password: "PASSWORD", 'token': 'TOKEN', --api-key='KEY'
    (rf"({_KEY}['\"]?[ \t]*[:=][ \t]*)(['\"])(?!\2)(?:\\.|(?!\2).){{0,500}}\2", r"\1\2***\2"),
    # 'password': PASSWORD, which may be JSON: it stays a value there
    (rf"({_WORD}{_PASSWORD}['\"][ \t]*:[ \t]*){_PLAIN}", r'\1"***"'),
    # password: PASSWORD, password=PASSWORD
    (rf"({_WORD}{_PASSWORD}[ \t]*[:=][ \t]*){_PLAIN}", r"\1***"),
    # hf_token: TOKEN, WANDB_API_KEY=KEY; a number is none, but may be somebody's parameter
    (rf"({_WORD}{_TOKEN}[ \t]*[:=][ \t]*)(?![-+.\de]+\b){_PLAIN}", r"\1***"),
    # --password PASSWORD
    (rf"(--[\w-]{{0,60}}?(?:{_PASSWORD}|{_TOKEN}) +)(?!-)[^\s'\"]+", r"\1***"),
)
"""What secrets look like in URLs, connection strings, files, commands and messages, and what is left of them."""
_REPLACEMENTS = [(re.compile(pattern, re.IGNORECASE), left) for pattern, left in _PATTERNS]


def mask_userinfo(url: str) -> str:
    """A storage URL, right or wrong, without all that stands before its host: for messages about it."""
    return re.sub(r"^(\w[\w+.-]*://)?.*@", r"\1***@", url, flags=re.DOTALL)


def redact(text: str) -> str:
    """Text with every hidden password, and whatever looks like one in it, replaced by ``***``."""
    for secret in sorted(_SECRETS, key=len, reverse=True):
        text = text.replace(secret, "***")
    for pattern, left in _REPLACEMENTS:
        text = pattern.sub(left, text)
    return text


def clear_frames(error: BaseException | None) -> None:
    """Empty the frames that an exception still refers to: they would hold data, model and gradients in memory."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


_WARNINGS = threading.RLock()


@contextmanager
def caught_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """All warnings within, in a list instead of on the terminal.

    One thread at a time: Python's filters are those of the process, and two threads that change them, and put them back
    in another order, leave them changed.
    """
    with _WARNINGS, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
