"""The names of things: files beside the results file, groups and links inside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from ptydask.model import Scalar, TrialRecord, path_beside

_DEEPEST = 32
"""Groups within groups that parameters make."""


def encode(text: str) -> str:
    """``text`` as one HDF5 link name: ``/``, ``%``, control characters and a lone ``.`` percent-encoded.

    :func:`decode` is its inverse. An empty text is ``%``.
    """
    if text in ("", "."):
        return {"": "%", ".": "%2E"}[text]
    return re.sub(r"[/%\x00-\x1f\x7f\ud800-\udfff]", lambda m: quote(m[0], safe="", errors="surrogatepass"), text)


def decode(name: str) -> str:
    """The text that :func:`encode` made ``name`` of."""
    return "" if name == "%" else unquote(name, errors="surrogatepass")


def format_value(value: Scalar) -> str:
    """A value in a link's name: every digit of a number, a text as it is."""
    return value if isinstance(value, str) else repr(value)


def trial_name(number: int) -> str:
    """``000012``: the name of a trial's group, and of its file without the ending."""
    return f"{number:06d}"


def shard_path(folder: Path, number: int) -> Path:
    """A trial's own file in the folder ``NAME.trials``."""
    return folder / f"{trial_name(number)}.h5"


def checkpoint_path(folder: Path, number: int) -> Path:
    """The checkpoint of a trial, and of the attempts that take its place, by the number of the first of them."""
    return folder / f"{trial_name(number)}.checkpoint"


def shard_number(path: Path) -> int | None:
    """The number of the trial whose file this is; None for any other file."""
    return int(path.stem) if re.fullmatch(r"\d{6,}\.h5", path.name) else None


def folder_of(results: Path) -> Path:
    """``NAME.trials`` beside ``NAME.h5``."""
    return path_beside(results, ".trials")


def by_error_name(rank: int, record: TrialRecord, *, params: bool) -> str:
    """``000001 error=0.01234 trial=000012``, and the parameters after it where asked for."""
    parts = [f"{rank:06d}", f"error={record.error!r}", f"trial={trial_name(record.number)}"]
    if params:
        parts += [f"{name}={format_value(value)}" for name, value in record.params.items()]
    return encode(" ".join(parts))


def by_params_path(params: Mapping[str, Scalar], order: Sequence[str]) -> list[str]:
    """``["scale=0.98", "rotation=-1.5"]``: one group a parameter, those in ``order`` first, the 32nd and on in one."""
    ordered = [name for name in order if name in params]
    ordered += [name for name in params if name not in order]
    levels = [f"{name}={format_value(params[name])}" for name in ordered]
    if len(levels) > _DEEPEST:
        levels = [*levels[: _DEEPEST - 1], " ".join(levels[_DEEPEST - 1 :])]
    return [encode(level) for level in levels]
