"""Sweeps that are no sweep files: below a key of another file, in a list, in a Python program. They are pointed at."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

_DEEPEST = 6
_MARKS = frozenset({"method", "metric", "program", "command", "run_cap", "early_terminate"})


def find_in_data(data: Any) -> str:
    """Where in the values of a file a sweep is, as a hint; empty where there is none."""
    places = list(_places(data, "", _DEEPEST))
    if not places:
        return ""
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return f"there is a sweep in {places[0]}{more}: write it as a file of its own, its keys at the left margin"


def find_in_program(text: str) -> str:
    """Where in a Python program a sweep's dictionary is, as a hint; empty where there is none."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    names = {id(node.value): ast.unparse(node.targets[0]) for node in ast.walk(tree) if isinstance(node, ast.Assign)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict | ast.Call) and _is_sweep(_keys(node)):
            name = f"the dictionary {names[id(node)]}" if id(node) in names else "a dictionary"
            return f"{name} in line {node.lineno} is a sweep: write it as a .yaml file"
    return ""


def _places(data: Any, key: str, depth: int) -> Iterator[str]:
    if key and isinstance(data, Mapping) and _is_sweep(data):
        yield key
    elif depth and isinstance(data, Mapping):
        for name, value in data.items():
            yield from _places(value, f"{key}.{name}" if key else str(name), depth - 1)
    elif depth and isinstance(data, list):
        for index, value in enumerate(data[:100]):
            yield from _places(value, f"{key}[{index}]", depth - 1)


def _is_sweep(keys: Any) -> bool:
    return "parameters" in keys and any(mark in keys for mark in _MARKS)


def _keys(node: ast.Dict | ast.Call) -> set[object]:
    """The keys of a dictionary that is written out, ``{...}`` or ``dict(...)``; of another call none."""
    if isinstance(node, ast.Dict):
        return {key.value for key in node.keys if isinstance(key, ast.Constant)}
    if isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {keyword.arg for keyword in node.keywords}
    return set()
