"""PtyRAD's own reading of a params file: old keys migrated, checked against its schema, defaults filled in."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import logging
import re
import sys
import tempfile
import typing
from collections.abc import Mapping, Sequence
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

from ptydask.config import reading
from ptydask.config.ptyrad import old_keys
from ptydask.errors import ConfigError, caught_warnings, nearest_hint, one_line

_ABSENT = object()


def load(config: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The complete params as ``ptyrad.params.load_params`` gives them, and what PtyRAD warned of.

    ``config`` is checked as the file has it; nothing of it is kept on disk. Raises ConfigError.
    """
    logged = BufferingHandler(sys.maxsize)
    logged.setLevel(logging.WARNING)
    log = logging.getLogger("ptyrad")
    with caught_warnings() as caught:
        log.addHandler(logged)
        try:
            complete = _load_params(config)
        except Exception as error:
            raise _explain_error(error, config) from None
        finally:
            log.removeHandler(logged)
    texts = [record.getMessage() for record in logged.buffer]
    texts += [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    complete.pop("params_path", None)
    messages = [one_line(re.sub(r"^\s*WARNING:\s*", "", text)).rstrip(". ") for text in texts]
    return complete, tuple(dict.fromkeys(f"PtyRAD: {message}" for message in messages))


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
    with caught_warnings():
        return importlib.import_module("ptyrad.params")


# --- from what PtyRAD raises to one line -------------------------------------------------------------


def _explain_error(error: Exception, config: Mapping[str, Any]) -> ConfigError:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return _from_pydantic(error, config)
    rule = str(error)
    if isinstance(error, KeyError) and error.args:
        rule = str(error.args[0])  # its text would have quotes around it
    elif isinstance(error, AttributeError):
        rule = "must be a mapping"
    key = _find_culprit(error, config)
    value = _look_up(config, key.split(".")) if key else ...
    return ConfigError(_plain_rule(rule), key=key, value=None if value is _ABSENT else value)


def _find_culprit(error: Exception, config: Mapping[str, Any]) -> str:
    """The key without which PtyRAD no longer stumbles this way: its validators lose it on the way out."""
    match = re.search(r"\b((?:obj|probe|pos|tilt|meas)_params)\b", str(error))
    if match and isinstance(error, TypeError):
        return f"init_params.{match[1]}"
    for section, params in config.items():
        for key in params if isinstance(params, Mapping) else ():
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


def _from_pydantic(failure: Any, config: Mapping[str, Any]) -> ConfigError:
    """The first field that is wrong; where its type is a union, the alternative that came closest."""
    problems = [(_clean_path(problem["loc"], problem["type"], config), problem) for problem in failure.errors()]
    # An alternative that the file does not mean complains of keys that the file does not have.
    in_file = [(path, e) for path, e in problems if e["type"] == "missing" or _look_up(config, path) is not _ABSENT]
    problems = in_file or problems
    field = problems[0][0][:2]
    alternatives = [(path, problem) for path, problem in problems if path[:2] == field]
    path, closest = max(alternatives, key=lambda pair: len(pair[0]))
    kind, rule, hint = closest["type"], _plain_rule(closest["msg"]), ""
    if kind == "value_error" and len(path) == 1:
        path = (*path, *_named_field(rule, config.get(str(path[0]), {})))
    value = _look_up(config, path)
    if kind == "extra_forbidden":
        place = ".".join(map(str, path[:-1]))
        error = old_keys.misplaced(str(path[-1]), place, _look_up(config, path), config) if len(path) < 3 else None
        if error is not None:
            return error
        rule, hint = "unknown key", nearest_hint(str(path[-1]), known_fields(*path[:-1]))
    elif kind == "missing":
        rule = "is missing"
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        rule = f"must be a mapping with {', '.join(known_fields(*path)[:4]) or 'keys'}"
        hint = "leave the key out for PtyRAD's default" if value is None else ""
    elif kind == "literal_error" and isinstance(value, str):
        nearest = nearest_hint(value, re.findall(r"'([^']*)'", rule))
        hint = nearest if nearest.startswith("did") else ""
    elif kind.endswith(("_type", "_parsing")):
        hint = reading.spelling_hint(value)
    return ConfigError(rule, key=".".join(map(str, path)), value=... if value is _ABSENT else value, hint=hint)


def _clean_path(loc: Sequence[Any], kind: str, config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Pydantic's path without the names of union members, which are in nobody's file."""
    path: list[Any] = []
    value: Any = config
    for index, key in enumerate(loc):
        inner = _look_up(value, [key])
        missing = kind == "missing" and index == len(loc) - 1
        if inner is not _ABSENT or missing or (not path and isinstance(key, str)):
            value = inner
            path.append(key)
    return tuple(path)


def _look_up(value: Any, path: Sequence[Any]) -> Any:
    for key in path:
        if isinstance(value, Mapping):
            value = value.get(key, _ABSENT)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return _ABSENT
    return value


def _named_field(rule: str, section: Any) -> tuple[str, ...]:
    """The field that a rule for a whole section speaks of."""
    keys = section if isinstance(section, Mapping) else {}
    named = [word for word in re.findall(r"\w+", rule) if word in keys]
    return tuple((named or re.findall(r"'(\w+_\w+)'", rule))[:1])


def _plain_rule(text: str) -> str:
    text = one_line(text).removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    text = text.replace("of type Path, but got NoneType", "the path of a file").replace("of type Path", "a path")
    return re.sub(r"^Input is not", "is not", re.sub(r"^Input should be", "must be", text))


def known_values(section: str, key: str) -> tuple[Any, ...]:
    """The values that the installed PtyRAD allows for a key of which it lists them."""
    model = _ptyrad_params().PtyRADParams.model_fields[section].annotation
    return typing.get_args(model.model_fields[key].annotation)


def known_fields(*path: Any) -> list[str]:
    """The keys that the installed PtyRAD knows at a place of its params; indices of lists do not count."""
    from pydantic import BaseModel

    models: list[Any] = [_ptyrad_params().PtyRADParams]
    for key in path:
        if isinstance(key, int):
            continue
        annotations = [model.model_fields[key].annotation for model in models if key in model.model_fields]
        # A field is a model itself, or a union of some with None or a text.
        types = [kind for annotation in annotations for kind in (annotation, *typing.get_args(annotation))]
        models = [kind for kind in types if inspect.isclass(kind) and issubclass(kind, BaseModel)]
    return [name for model in models for name in model.model_fields]
