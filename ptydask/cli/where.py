"""``--where``: which trials are meant, by a condition on their columns. Nothing of it is run as Python."""

from __future__ import annotations

import ast
import math
import operator
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ptydask.errors import UsageError, nearest_hint, one_line, shorten
from ptydask.model import TrialRecord, TrialState
from ptydask.ranking import gradient_names, metric_names, parameter_names

FACTS = (
    *("number", "state", "error", "seconds", "iterations", "attempt", "origin", "started", "worker", "host"),
    *("relative_decrease", "reason", "message", "retry_of", "job", "device", "seed", "last_step"),
)
"""The columns that every trial has."""
_LONGEST = 2000
_NULL = object()
"""What is written as null; a value that a trial lacks is None."""
_CONSTANTS = {"true": True, "false": False, "null": _NULL, "none": _NULL}
_STATES = {state.word: state for state in TrialState} | {state.value.lower(): state for state in TrialState}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_RULE = "must be comparisons joined by and, or, not"
_EXAMPLE = "for example 'scale > 1.02 and state == \"complete\"'"
_NAMES = "a name with other characters stands between backticks: `loss (val)`"
Value = Callable[[TrialRecord], Any]


def select_where(
    records: Sequence[TrialRecord],
    condition: str,
    more: Mapping[str, Value] | None = None,
    hints: Mapping[str, str] | None = None,
) -> list[TrialRecord]:
    """The trials that fulfil a condition such as ``scale > 1.02 and state == "complete"``.

    ``more`` are columns beside those that the records have, ``hints`` say of some others how to get them.
    A value that a trial lacks fulfils no comparison but ``== null``; numbers that differ by rounding alone are equal.
    Raises UsageError, in one line, for a condition that is none, and a column that no trial has.
    """
    reader = _Condition(records, condition, more or {}, hints or {})
    test = reader.read()
    chosen = [record for record in records if test(record)]
    if not chosen and reader.mismatch:
        raise reader.error(reader.mismatch)
    return chosen


def named_columns(
    records: Sequence[TrialRecord], condition: str, more: Mapping[str, Value] | None = None
) -> tuple[str, ...]:
    """The columns that a condition compares, as it names them. Raises UsageError as :func:`select_where` does."""
    reader = _Condition(records, condition, more or {}, {})
    reader.read()
    return tuple(dict.fromkeys(reader.names))


def find_column(records: Sequence[TrialRecord], name: str, more: Mapping[str, Value] | None = None) -> Value | None:
    """The function from a trial to its value of a column: a fact, a parameter, a metric, ``gradient.NAME``, or more."""
    if name in FACTS:
        return lambda record: getattr(record, name)
    parameter, metric, slope = (name.removeprefix(f"{kind}.") for kind in ("params", "metrics", "gradient"))
    if parameter in parameter_names(records) and not name.startswith("metrics."):
        return lambda record: record.params.get(parameter)
    if metric in metric_names(records):
        return lambda record: record.metrics.get(metric)
    if name.startswith("gradient.") and slope in gradient_names(records):
        return lambda record: record.gradient.get(slope)
    return (more or {}).get(name)


def column_hint(
    records: Sequence[TrialRecord], name: str, more: Iterable[str] = (), hints: Mapping[str, str] | None = None
) -> str:
    """How to get the column, or the nearest one that there is, for an error's text."""
    if hint := (hints or {}).get(name.removeprefix("metrics.")):
        return hint
    slopes = [f"gradient.{slope}" for slope in gradient_names(records)]
    columns = [*FACTS, *more, *parameter_names(records), *metric_names(records), *slopes]
    return nearest_hint(name, columns) or "see ptydask ls --format csv"


class _Condition:
    """A condition's text, read for the columns of some trials."""

    def __init__(
        self, records: Sequence[TrialRecord], text: str, more: Mapping[str, Value], hints: Mapping[str, str]
    ) -> None:
        self._records, self._text, self._more, self._hints = records, text, more, hints
        self.names: list[str] = []
        """The columns that were read."""
        self._quoted: list[str] = []
        """The names between backticks."""
        self.mismatch = ""
        """What could not be put in order, where some values could not."""

    def error(self, rule: str, hint: str = "") -> UsageError:
        return UsageError(one_line(f"--where {shorten(self._text)}: {rule}{f'; {hint}' if hint else ''}"))

    def read(self) -> Callable[[TrialRecord], bool]:
        """The condition as a function. Raises UsageError."""
        if not self._text.strip() or len(self._text) > _LONGEST:
            raise self.error(_RULE, _EXAMPLE)
        # A name between backticks becomes a Python name; a backtick in a text in quotes stays what it is.
        text = re.sub(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|`([^`]*)`""", self._keep_name, self._text.strip())
        try:
            return self._test(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            hint = "equal is ==" if re.search(r"[^=!<>]=[^=]", text) else f"{_EXAMPLE}; {_NAMES}"
            raise self.error(_RULE, hint) from None

    def _keep_name(self, match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[1]
        self._quoted.append(match[2])
        return f" _quoted_{len(self._quoted) - 1} "

    def _test(self, node: ast.expr) -> Callable[[TrialRecord], bool]:
        match node:
            case ast.BoolOp(op=op, values=parts):
                return self._join(op, parts)
            case ast.BinOp(left, ast.BitAnd() | ast.BitOr() as op, right):  # as pandas has it, comparisons in brackets
                return self._join(op, [left, right])
            case ast.UnaryOp(op=ast.Not() | ast.Invert()):
                inner = self._test(node.operand)
                return lambda record: not inner(record)
            case ast.Compare():
                return self._comparison(node)
            case ast.Constant(value=bool()):
                return lambda record: bool(node.value)
            case ast.Name() | ast.Attribute() | ast.Subscript():
                value = self._value(node)
                return lambda record: value(record) is True
        raise self.error(_RULE, self._advice(node))

    def _join(self, op: ast.AST, parts: Sequence[ast.expr]) -> Callable[[TrialRecord], bool]:
        tests, join = [self._test(part) for part in parts], any if isinstance(op, ast.Or | ast.BitOr) else all
        return lambda record: join(test(record) for test in tests)

    def _advice(self, node: ast.expr) -> str:
        if isinstance(node, ast.BinOp):
            return "write and and or for & and |" if isinstance(node.op, ast.BitAnd | ast.BitOr) else _NAMES
        return _EXAMPLE

    def _comparison(self, node: ast.Compare) -> Callable[[TrialRecord], bool]:
        sides = [node.left, *node.comparators]
        if any(self._is_state(side) for side in sides):
            self._check_states(sides)
        values = [self._value(side) for side in sides]
        steps = list(zip(values, node.ops, values[1:], strict=False))
        return lambda record: all(self._holds(left(record), op, right(record)) for left, op, right in steps)

    def _is_state(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == "state"

    def _check_states(self, sides: Iterable[ast.expr]) -> None:
        for side in sides:
            for part in ast.walk(side):
                if isinstance(part, ast.Constant) and str(part.value).lower() not in _STATES:
                    words = [state.word for state in TrialState]
                    raise self.error(f"no trial ends as {part.value!r}", nearest_hint(str(part.value), words))

    def _value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=str() | int() | float() | None as value):
                return lambda record: _NULL if value is None else value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return lambda record: -number
            case ast.List() | ast.Tuple():
                parts = [self._value(part) for part in node.elts]
                return lambda record: [part(record) for part in parts]
            case ast.Name() | ast.Attribute() | ast.Subscript():
                name = self._column_name(node)
                if name.lower() in _CONSTANTS and find_column(self._records, name, self._more) is None:
                    return lambda record: _CONSTANTS[name.lower()]
                return self._column(name)
        raise self.error(_RULE, self._advice(node))

    def _column_name(self, node: ast.expr) -> str:
        """``a``, ``a.b``, ``params["a b"]``, a name between backticks."""
        match node:
            case ast.Name():
                quoted = re.fullmatch(r"_quoted_(\d+)", node.id)
                return self._quoted[int(quoted[1])] if quoted and int(quoted[1]) < len(self._quoted) else node.id
            case ast.Attribute():
                return f"{self._column_name(node.value)}.{node.attr}"
            case ast.Subscript(slice=ast.Constant(value=str() as key)):
                return f"{self._column_name(node.value)}.{key}"
        raise self.error(_RULE, self._advice(node))

    def _column(self, name: str) -> Value:
        column = find_column(self._records, name, self._more) or self._spelled_otherwise(name)
        if column is None and self._records:
            is_text = name.lower() in _STATES or any(record.origin == name for record in self._records)
            known = column_hint(self._records, name, self._more, self._hints)
            hint = f'a text stands in quotes: "{name}"' if is_text else known
            raise self.error(f"no trial has a column {name!r}", hint)
        self.names.append(name)
        return column or (lambda record: None)

    def _spelled_otherwise(self, name: str) -> Value | None:
        """The column that Python's reading of a name has made another of: of µ it makes the Greek letter."""
        names = [*parameter_names(self._records), *metric_names(self._records)]
        same = [other for other in names if unicodedata.normalize("NFKC", other) == name]
        return find_column(self._records, same[0]) if same else None

    def _holds(self, left: Any, op: ast.cmpop, right: Any) -> bool:
        if isinstance(op, ast.In | ast.NotIn):
            if _is_missing(left) or _is_missing(right):
                return False
            if isinstance(right, list):
                return any(_are_equal(left, part) for part in right) is isinstance(op, ast.In)
            if isinstance(left, str) and isinstance(right, str):
                return (left in right) is isinstance(op, ast.In)
            self.mismatch = "on the right of in stands a list or a text"
            return False
        if left is _NULL or right is _NULL:
            both = all(value is _NULL or _is_missing(value) for value in (left, right))
            return both if isinstance(op, ast.Eq | ast.Is) else isinstance(op, ast.NotEq | ast.IsNot) and not both
        if _is_missing(left) or _is_missing(right):
            return False
        if isinstance(op, ast.Eq | ast.Is):
            return _are_equal(left, right)
        if isinstance(op, ast.NotEq | ast.IsNot):
            return not _are_equal(left, right)
        try:
            return _ORDER[type(op)](left, right)
        except TypeError:
            self.mismatch = f"{shorten(left)} and {shorten(right)} have no order"
            return False


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def _are_equal(left: Any, right: Any) -> bool:
    if isinstance(left, TrialState) or isinstance(right, TrialState):
        return _STATES.get(str(left).lower()) is _STATES.get(str(right).lower())
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right or math.isclose(left, right, rel_tol=1e-9)
    return bool(left == right)
