"""PtyRAD's own reading of a params file: old keys migrated, checked against its schema, defaults filled in."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import logging
import re
import tempfile
import typing
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptydask.errors import ConfigError, nearest_hint, one_line

_ABSENT = object()


def load(config: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The complete params as ``ptyrad.params.load_params`` gives them, and what PtyRAD warned of.

    ``config`` is checked as the file has it; nothing of it is kept on disk. Raises ConfigError.
    """
    heard: list[str] = []
    handler = _WarningCollector(heard)
    log = logging.getLogger("ptyrad")
    log.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                complete = _load_params(config)
            except Exception as error:
                raise _explain_error(error, config) from None
    finally:
        log.removeHandler(handler)
    heard += [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    complete.pop("params_path", None)
    said = (one_line(re.sub(r"^\s*WARNING:\s*", "", text)).rstrip(". ") for text in heard)
    return complete, tuple(dict.fromkeys(f"PtyRAD: {text}" for text in said))


class _WarningCollector(logging.Handler):
    """Collects PtyRAD's warnings."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text."""
        self._heard.append(record.getMessage())


def _load_params(config: Mapping[str, Any]) -> dict[str, Any]:
    """Through a file: PtyRAD migrates the old keys in its file reader, and only there."""
    load_params = _ptyrad_params().load_params
    with tempfile.TemporaryDirectory(prefix="ptydask-") as folder:
        path = Path(folder) / "params.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        complete: dict[str, Any] = json.loads(json.dumps(load_params(str(path))))
    return complete


def _ptyrad_params() -> Any:
    """The module ``ptyrad.params``, which needs neither PyTorch nor a device. 0.1.0b13 is deprecated by pydantic."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("ptyrad.params")


# --- from what PtyRAD raises to one line -------------------------------------------------------------


def _explain_error(error: Exception, config: Mapping[str, Any]) -> ConfigError:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return _from_pydantic(error, config)
    said = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    key = _find_culprit(error, config)
    value = _look_up(config, key.split(".")) if key else ...
    if isinstance(error, AttributeError):
        said = "must be a mapping"
    return ConfigError(_plain_rule(said), key=key, value=None if value is _ABSENT else value)


def _find_culprit(error: Exception, config: Mapping[str, Any]) -> str:
    """The key without which PtyRAD no longer stumbles this way: its validators lose it on the way out."""
    named = re.search(r"\b((?:obj|probe|pos|tilt|meas)_params)\b", str(error))
    if named and isinstance(error, TypeError):
        return f"init_params.{named.group(1)}"
    for section, part in config.items():
        for key in part if isinstance(part, Mapping) else ():
            without = copy.deepcopy(dict(config))
            del without[section][key]
            if _load_outcome(without) != (type(error), str(error)):
                return f"{section}.{key}"
    return ""


def _load_outcome(config: Mapping[str, Any]) -> tuple[type, str]:
    try:
        _load_params(config)
    except Exception as error:
        return type(error), str(error)
    return type(None), ""


def _from_pydantic(error: Any, config: Mapping[str, Any]) -> ConfigError:
    """The first field that is wrong; where its type is a union, the alternative that came closest."""
    found = [(_clean_path(e["loc"], e["type"], config), e) for e in error.errors()]
    known = [(way, e) for way, e in found if e["type"] == "missing" or _look_up(config, way) is not _ABSENT]
    first = (known or found)[0][0][:2]
    way, worst = max((pair for pair in known or found if pair[0][:2] == first), key=lambda pair: len(pair[0]))
    rule = _plain_rule(worst["msg"])
    if worst["type"] == "value_error" and len(way) == 1:
        way = (*way, *_named_field(rule, config.get(str(way[0]), {})))
    value = _look_up(config, way)
    hint = ""
    if worst["type"] == "extra_forbidden":
        rule, hint = "unknown key", nearest_hint(str(way[-1]), _schema_fields(way[:-1]))
    elif worst["type"] == "missing":
        rule = "is missing"
    elif worst["type"] in ("model_type", "model_attributes_type", "dict_type"):
        rule = f"must be a mapping with {', '.join(_schema_fields(way)[:4]) or 'keys'}"
    elif worst["type"] == "literal_error" and isinstance(value, str):
        close = nearest_hint(value, re.findall(r"'([^']*)'", rule))
        hint = close if close.startswith("did") else ""
    return ConfigError(rule, key=".".join(map(str, way)), value=... if value is _ABSENT else value, hint=hint)


def _clean_path(loc: Sequence[Any], kind: str, config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Pydantic's path without the names of union members, which are in nobody's file."""
    way: list[Any] = []
    here: Any = config
    for index, part in enumerate(loc):
        inner = _step_into(here, part)
        missing = kind == "missing" and index == len(loc) - 1
        if inner is not _ABSENT or missing or (not way and isinstance(part, str)):
            here = inner
            way.append(part)
    return tuple(way)


def _step_into(here: Any, part: Any) -> Any:
    if isinstance(here, Mapping):
        return here.get(part, _ABSENT)
    if isinstance(here, list) and isinstance(part, int) and part < len(here):
        return here[part]
    return _ABSENT


def _look_up(config: Any, way: Sequence[Any]) -> Any:
    for part in way:
        config = _step_into(config, part)
    return config


def _named_field(rule: str, section: Any) -> tuple[str, ...]:
    """The field that a rule for a whole section speaks of."""
    words = re.findall(r"\w+", rule)
    inside = [word for word in words if isinstance(section, Mapping) and word in section]
    quoted = re.findall(r"'(\w+_\w+)'", rule)
    return tuple((inside or quoted)[:1])


def _plain_rule(text: str) -> str:
    text = one_line(text).removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    text = text.replace("of type Path, but got NoneType", "the path of a file").replace("of type Path", "a path")
    return re.sub(r"^Input (should be|is not)", lambda m: "must be" if m[1] == "should be" else "is not", text)


def _schema_fields(way: Sequence[Any]) -> list[str]:
    """The keys that PtyRAD knows at a place of its params."""
    from pydantic import BaseModel

    models: list[Any] = [_ptyrad_params().PtyRADParams]
    for part in way:
        if isinstance(part, int):
            continue
        inner = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        models = [
            arm
            for note in inner
            for arm in (note, *typing.get_args(note))
            if inspect.isclass(arm) and issubclass(arm, BaseModel)
        ]
    return [name for model in models for name in model.model_fields]


def known_fields(*way: str) -> list[str]:
    """The keys that the installed PtyRAD knows at ``way``, for what its schema itself lets pass."""
    return _schema_fields(way)
