"""Text files to plain values: YAML, JSON and TOML, with errors that name the line. Runs nothing, imports nothing."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ptydask.config.sweep import buried
from ptydask.errors import ConfigError, nearest_files, nearest_hint, one_line
from ptydask.model import SourceFile

SUFFIXES = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml"}
_MOST_BYTES = 4_000_000
_MOST_NODES = 200_000
"""Values after every YAML alias is spelled out: what a few nested aliases can blow up to fills any memory."""


class _YamlLoader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but ``1e-5`` is a number, dates stay text and a key may not come twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that comes twice; PyYAML keeps the last one without a word."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
            key = self.construct_object(key_node)
            if key in seen:
                problem = f"the key {key!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
         |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
         |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
         |[-+]?\.(?:inf|Inf|INF)
         |\.(?:nan|NaN|NAN))$""",
    re.X,
)
_KEPT = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
_YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in _KEPT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_YamlLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read(path: Path) -> tuple[SourceFile, dict[str, Any]]:
    """The file as it is and the mapping in it. Raises ConfigError with the file, and the line where there is one."""
    try:
        form = _file_format(path)
        text = _read_text(path)
        data = _PARSERS[form](text)
        if data is None:
            raise ConfigError("holds no settings")
        if not isinstance(data, dict):
            hint = buried.find_in_data(data)
            raise ConfigError(f"must be a mapping of sections, not {type_name(data)}", value=data, hint=hint)
    except ConfigError as error:
        raise error.in_file(path) from None
    return SourceFile(path, text, form), data


def parse_value(text: str) -> Any:
    """One value as YAML spells it, for the command line. Raises ConfigError."""
    return _parse_yaml(text)


def parse_text(text: str, form: str) -> Any:
    """The values in the text of a file whose format is ``yaml``, ``json`` or ``toml``. Raises ConfigError."""
    if form not in _PARSERS:
        raise ConfigError(f"must be {', '.join(_PARSERS)}", key="format", value=form)
    return _PARSERS[form](text)


def spells_number(text: str) -> bool:
    """Whether Python reads ``text`` as a number: somebody else's YAML may as well."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def spelling_hint(value: object) -> str:
    """What to write instead of a text that was meant as something else: a number in quotes, say; empty for others."""
    if not isinstance(value, str):
        return ""
    text = value.strip()
    if spells_number(text) or text.lower() in ("true", "false"):
        return "write it without quotes"
    if re.fullmatch(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?", text):
        return f"write it with a decimal point: {text.replace(',', '.')}"
    if text.lower() in ("none", "null", "nil", "~"):
        return "nothing is written null, without quotes"
    return ""


def type_name(thing: object) -> str:
    """What a person calls the type of a value."""
    for types, name in (
        (bool, "true or false"),
        (int | float, "a number"),
        (str, "text"),
        (list | tuple, "a list"),
        (Mapping, "a mapping"),
        (type(None), "null"),
    ):
        if isinstance(thing, types):
            return name
    return f"a {type(thing).__name__}"


def _file_format(path: Path) -> str:
    try:
        if path.is_dir():
            raise ConfigError("is a folder; a params file is needed")
        if not path.exists():
            raise ConfigError("no such file", hint=near_file(path))
        if not path.is_file():
            raise ConfigError("is not an ordinary file")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read: {_error_reason(error)}") from None
    suffix = path.suffix.lower()
    if suffix == ".py":
        hint = "a .py params file would be run as a program; write it as .yaml, .json or .toml; "
        hint += f"for a program write a sweep file with program: {path.name}"
        hint = buried.find_in_program(path.read_text(errors="replace")) or hint
        raise ConfigError("Python files are not read", hint=hint)
    if suffix not in SUFFIXES:
        raise ConfigError("the name must end in .yaml, .yml, .json or .toml", key="suffix", value=suffix)
    return SUFFIXES[suffix]


def near_file(path: Path) -> str:
    """Where to look instead of a ``path`` that is not there: the nearest name in its folder, or the folder."""
    try:
        if not path.parent.is_dir():
            return f"the folder {str(path.parent)!r} does not exist either (working directory {Path.cwd()})"
        close = nearest_files(path.name, (p.name for p in path.parent.iterdir()))
    except OSError:
        return ""
    return f"did you mean {str(path.parent / close[0])!r}?" if close else f"the working directory is {Path.cwd()}"


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise ConfigError(f"has {size} bytes; a params file is text of a few pages")
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {_error_reason(error)}") from None
    if not raw.strip():
        raise ConfigError("the file is empty")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start
        line, byte = raw.count(b"\n", 0, start) + 1, raw[start : start + 1]
        raise ConfigError("is not UTF-8 text", line=line, key=f"byte {start}", value=byte) from None
    if "\0" in text:
        raise ConfigError("is binary, not text", line=text.count("\n", 0, text.index("\0")) + 1)
    return text


def _error_reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


# Hostile scalars make PyYAML's constructors raise whatever Python's own int() and float() raise.
_FAILURES = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)


def _parse_yaml(text: str) -> Any:
    try:
        loader = _YamlLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count_nodes(node, {}, set())
            return plain_values(loader.construct_document(node))
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _yaml_error(error) from None
    except RecursionError:
        raise ConfigError("is nested too deeply") from None
    except _FAILURES as error:
        raise ConfigError(f"cannot be read as YAML: {one_line(str(error))}") from None


def _yaml_error(error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = one_line(str(getattr(error, "problem", None) or getattr(error, "reason", None) or error))
    context = getattr(error, "context", None)
    hint = ""
    if "'\\t'" in problem:
        hint = "YAML is indented with blanks, never with tabs"
    elif "constructor for the tag" in problem:
        hint = "write plain values; nothing in a params file is run"
    rule = f"cannot be read as YAML: {problem}"
    if context:
        rule += f" ({one_line(context)})"
    return ConfigError(rule, line=None if mark is None else mark.line + 1, hint=hint)


def _count_nodes(node: yaml.Node, counts: dict[int, int], above: set[int]) -> int:
    """How many values ``node`` is with its aliases spelled out; refuses too many, and an alias of itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in counts:
        return counts[id(node)]
    line = node.start_mark.line + 1
    if id(node) in above:
        raise ConfigError("an alias stands for a part that holds it", line=line)
    above.add(id(node))
    # A mapping node holds pairs of nodes, a sequence node holds nodes.
    children = node.value
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    total = 1 + sum(_count_nodes(child, counts, above) for child in children)
    above.discard(id(node))
    if total > _MOST_NODES:
        raise ConfigError(f"holds more than {_MOST_NODES} values once its aliases are spelled out", line=line)
    counts[id(node)] = total
    return total


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, item in pairs:
        if key in mapping:
            raise ConfigError(f"the key {key!r} is there twice")
        mapping[key] = item
    return mapping


def _parse_data(form: str, loads: Callable[[str], Any], text: str) -> Any:
    """The values in a JSON or TOML text; both parsers raise a ValueError that knows the line."""
    try:
        return plain_values(loads(text))
    except RecursionError:
        raise ConfigError("is nested too deeply") from None
    except ValueError as error:
        message, line = str(error), None
        place = re.search(r"\s*\(at line (\d+), column \d+\)|: line (\d+) column \d+ \(char \d+\)", message)
        if place is not None:
            message, line = message.replace(place[0], ""), int(place[1] or place[2])
        raise ConfigError(f"cannot be read as {form}: {message}", line=line) from None


_PARSERS: dict[str, Callable[[str], Any]] = {
    "yaml": _parse_yaml,
    "json": partial(_parse_data, "JSON", partial(json.loads, object_pairs_hook=_unique_keys)),
    "toml": partial(_parse_data, "TOML", tomllib.loads),
}


def plain_values(thing: Any, key: str = "") -> Any:
    """The same values, every one of them one that JSON has. Raises ConfigError with the key of one that is not."""
    if thing is None or isinstance(thing, bool | str):
        return thing
    if isinstance(thing, int):
        if not -(2**63) <= thing < 2**64:
            raise ConfigError("must be a number of at most 64 bits", key=key)
        return thing
    if isinstance(thing, float):
        if math.isnan(thing):
            raise ConfigError("must be a number", key=key, value=thing)
        return thing
    if isinstance(thing, list | tuple):
        return [plain_values(item, f"{key}[{index}]") for index, item in enumerate(thing)]
    if isinstance(thing, dict):
        for name in thing:
            if not isinstance(name, str):
                hint = f"write {str(name)!r} in quotes"
                if thing[name] is None and isinstance(name, int):  # {low: 0,9, high: 1}
                    hint = f"a number has a decimal point, no comma: .{name}"
                raise ConfigError("a key must be text", key=key, value=name, hint=hint)
        return {name: plain_values(item, f"{key}.{name}" if key else name) for name, item in thing.items()}
    raise ConfigError(
        f"must be text, a number, a list or a mapping, not {type_name(thing)}", key=key, value=thing, hint="quote it"
    )


def set_value(data: dict[str, Any], key: str, new: Any) -> None:
    """Set ``a.b.c`` in nested mappings and lists (``a.0``), in place; missing mappings are made.

    Raises ConfigError where the key leads through a value that holds nothing.
    """
    *parents, last = key.split(".")
    container: Any = data
    for depth, name in enumerate(parents):
        if isinstance(container, dict) and container.get(name) is None:
            container[name] = {}
        container = _get_item(container, name, ".".join(parents[: depth + 1]))
    if isinstance(container, dict):
        container[last] = new
    elif isinstance(container, list):
        _get_item(container, last, key)  # refuses a place that the list does not have
        container[int(last)] = new
    else:
        raise ConfigError(f"{'.'.join(parents)} is {type_name(container)} and holds no {last!r}", key=key, value=new)


def _get_item(container: Any, name: str, key: str) -> Any:
    if isinstance(container, dict):
        return container[name]
    if isinstance(container, list):
        if not (name.isascii() and name.isdecimal() and len(name) < 10) or int(name) >= len(container):
            raise ConfigError(f"the list has places 0 to {len(container) - 1}", key=key, value=name)
        return container[int(name)]
    raise ConfigError(f"{type_name(container)} holds nothing", key=key, value=container)


def expect(thing: Any, what: str, key: str, hint: str = "") -> Any:
    """``thing`` where it is ``what`` (``a mapping``, ``text``, ``true or false``, ``a list``); else ConfigError."""
    actual = type_name(thing)
    if actual != what:
        if what == "text" and actual in ("a number", "true or false"):
            hint = "put it in quotes"
        rule = f"must be {what}, not {actual}"
        raise ConfigError(rule, key=key, value=thing, hint=hint or spelling_hint(thing))
    return thing


def known_keys(section: Mapping[str, Any], known: tuple[str, ...], key: str) -> None:
    """Raises ConfigError for the first key of ``section`` that is not ``known``, with the nearest one."""
    for name in section:
        if name not in known:
            full = f"{key}.{name}" if key else name
            raise ConfigError("unknown key", key=full, value=section[name], hint=nearest_hint(name, known))
