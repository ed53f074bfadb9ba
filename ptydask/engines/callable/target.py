"""``package.module:function`` or ``path/file.py:function``: looked at in the driver, imported in a worker."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ptydask.errors import ConfigError, nearest_hint

KEY = "engine.callable"
FORMS = "write package.module:function or path/file.py:function"
TAKES = "it must take (params) or (params, report)"


@dataclass(frozen=True, slots=True)
class CallableTarget:
    """Where a function is. Modules are looked for in ``directory`` first."""

    text: str
    directory: Path
    module: str
    function: str
    file: Path | None
    """Of a target that names a file; else the module is found as ``import`` finds it."""

    @property
    def folders(self) -> tuple[str, ...]:
        """What comes first on ``sys.path``: the file's own folder, as for a program, then the directory."""
        own = [str(self.file.parent)] if self.file is not None else []
        return tuple(dict.fromkeys([*own, str(self.directory)]))


def parse(text: object, directory: Path) -> CallableTarget:
    """Both halves of a target, a file's path made absolute from ``directory``. Raises ConfigError."""
    if not isinstance(text, str) or not text.strip():
        raise ConfigError("must name a function", key=KEY, value=text, hint=FORMS)
    where, colon, function = text.strip().rpartition(":")
    if not colon or not where:
        raise ConfigError("names no function", key=KEY, value=text, hint=FORMS)
    if not function.isidentifier():
        raise ConfigError(f"{function!r} is no name of a function at the top of a module", key=KEY, value=text)
    if where.endswith(".py") or "/" in where or os.sep in where:
        file = Path(os.path.normpath(directory / Path(where).expanduser()))
        return CallableTarget(text.strip(), directory, file.stem, function, file)
    if not all(part.isidentifier() for part in where.split(".")):
        raise ConfigError(f"{where!r} is no module's name", key=KEY, value=text, hint=FORMS)
    return CallableTarget(text.strip(), directory, where, function, None)


def locate(target: CallableTarget, beside: Path | None = None) -> Path | None:
    """The source file, found without running any of it; None where the module has none (it is compiled).

    ``beside`` is the folder of the sweep file, for the hint. Raises ConfigError where there is no such module.
    """
    if target.file is not None:
        if target.file.is_file():
            return target.file
        raise ConfigError(
            f"no such file: {target.file}", key=KEY, value=target.text, hint=_elsewhere_hint(target, beside)
        )
    found = _find_spec(target)
    if found is None:
        rule = f"no module {target.module!r} in {target.directory}, nor installed for {sys.executable}"
        raise ConfigError(rule, key=KEY, value=target.text, hint=_elsewhere_hint(target, beside))
    origin = Path(found.origin) if found.has_location and found.origin else None
    return origin if origin is not None and origin.suffix == ".py" else None


def _find_spec(target: CallableTarget) -> importlib.machinery.ModuleSpec | None:
    """As ``import`` finds a module, but no package's ``__init__`` is run on the way."""
    path: Sequence[str] | None = [*target.folders, *sys.path]
    spec, name = None, ""
    for part in target.module.split("."):
        name = f"{name}.{part}" if name else part
        if path is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations) if spec.submodule_search_locations is not None else None
    return spec


def _elsewhere_hint(target: CallableTarget, beside: Path | None) -> str:
    """The same file or module in the folder of the sweep file, as it would have to be written."""
    named = target.text.rpartition(":")[0]
    relative = Path(named) if target.file is not None else Path(*target.module.split(".")).with_suffix(".py")
    if beside is None or not (beside / relative).is_file():
        return f"it is looked for from {target.directory}, where the run was started"
    path = os.path.relpath(beside / relative, target.directory)
    return f"did you mean {f'{path}:{target.function}'!r}? Paths start where the run was started"


def check(target: CallableTarget, source: Path) -> None:
    """That the function is there and takes what it is given, as far as its source shows it. Runs nothing.

    Raises ConfigError, with the line where there is one.
    """
    try:
        tree = ast.parse(source.read_bytes(), filename=str(source))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        what = getattr(error, "msg", None) or str(error)
        raise ConfigError(
            f"{_source_line(source, line)} is no valid Python: {what}", key=KEY, value=target.text
        ) from None
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror}", key=KEY, value=target.text) from None
    names: set[str] = set()
    for node in _statements(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name == target.function:
                return _check_definition(target, source, node)
            names.add(node.name)
        elif _binds_name(node, target.function):
            return None
    if "__getattr__" in names:
        return None
    known = [name for name in names if not name.startswith("_")]
    raise ConfigError(
        f"{source} has no {target.function!r}",
        key=KEY,
        value=target.text,
        hint=nearest_hint(target.function, known) if known else "",
    )


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module, also inside ``if``, ``try`` and ``with``; the last of several definitions comes first."""
    for node in reversed(body):
        for inner in ("finalbody", "orelse", "body"):
            if isinstance(node, ast.If | ast.Try | ast.With):
                yield from _statements(getattr(node, inner, []))
        yield from (part for handler in getattr(node, "handlers", []) for part in _statements(handler.body))
        yield node


def _binds_name(node: ast.stmt, name: str) -> bool:
    """Whether a statement other than a definition may give ``name`` a value."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any((alias.asname or alias.name.partition(".")[0]) in (name, "*") for alias in node.names)
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.For):
        return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))
    return False


def _check_definition(
    target: CallableTarget, source: Path, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
) -> None:
    where = f"{target.function} ({_source_line(source, node.lineno)})"
    if isinstance(node, ast.ClassDef):
        raise ConfigError(f"{where} is a class, not a function", key=KEY, value=target.text)
    if isinstance(node, ast.AsyncFunctionDef):
        raise ConfigError(f"{where} is an async function; {TAKES} and return", key=KEY, value=target.text)
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    needed = len(positional) - len(given.defaults)
    alone = [arg.arg for arg, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
    takes = (len(positional) >= 1 or given.vararg is not None) and needed <= 2 and not set(alone) - {"report"}
    if not node.decorator_list and not takes:
        raise ConfigError(f"{where} takes ({ast.unparse(given)}); {TAKES}", key=KEY, value=target.text)


def _source_line(source: Path, line: int | None) -> str:
    return f"{source}:{line}" if line else str(source)


def load(target: CallableTarget) -> tuple[Callable[..., Any], Path | None]:
    """The function, imported in this process, and its source file. Raises ConfigError in one line."""
    for folder in reversed(target.folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        module = _import(target)
    except (Exception, SystemExit) as error:
        rule = f"cannot be imported by {sys.executable}: {type(error).__name__}: {error}{_raised_at(error)}"
        raise ConfigError(rule, key=KEY, value=target.text) from error
    function = getattr(module, target.function, None)
    if function is None:
        names = [name for name in vars(module) if not name.startswith("_")]
        hint = nearest_hint(target.function, names)
        raise ConfigError(f"{target.module} has no {target.function!r}", key=KEY, value=target.text, hint=hint)
    if not callable(function) or isinstance(function, type):
        what = "is a class" if isinstance(function, type) else f"is a {type(function).__name__}"
        raise ConfigError(f"{target.function} {what}, not a function", key=KEY, value=target.text)
    call_style(function, target)
    file = getattr(module, "__file__", None)
    return function, Path(file) if file else None


def _import(target: CallableTarget) -> ModuleType:
    """A file is imported as a module of its name, so that its functions reach processes that it starts itself.

    Where another module has that name already (``test.py``, ``train.py``), it gets one of its own.
    """
    if target.file is None:
        return importlib.import_module(target.module)
    taken = sys.modules.get(target.module)
    found = importlib.machinery.PathFinder.find_spec(target.module, [*target.folders, *sys.path])
    ours = found is not None and found.origin is not None and Path(found.origin) == target.file
    other = taken is not None and getattr(taken, "__file__", None) != str(target.file)
    name = target.module if ours and not other else f"ptydask_callable_{target.module}"
    spec = importlib.util.spec_from_file_location(name, target.file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{target.file} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _raised_at(error: BaseException) -> str:
    """`` (file:line)`` of what raised, where it is somebody's file."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    own = [frame for frame in frames if not frame.filename.startswith("<") and "importlib" not in frame.filename]
    last = own[-1] if own else None
    return f" ({last.filename}:{last.lineno})" if last is not None and last.filename != __file__ else ""


def call_style(function: Callable[..., Any], target: CallableTarget) -> str:
    """How to hand over ``report``: ``"second"``, ``"keyword"`` or ``"none"``. Raises ConfigError where nothing fits."""
    if inspect.iscoroutinefunction(function):
        raise ConfigError(f"{target.function} is an async function; {TAKES} and return", key=KEY, value=target.text)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "second"  # compiled, and without a signature
    ways: list[tuple[str, Callable[[], object]]] = []
    if "report" in signature.parameters:
        ways.append(("keyword", lambda: signature.bind(0, report=0)))
    if _wants_second(signature):
        ways.append(("second", lambda: signature.bind(0, 0)))
    for way, fits in [*ways, ("none", lambda: signature.bind(0))]:
        try:
            fits()
        except TypeError:
            continue
        return way
    raise ConfigError(f"{target.function} takes {signature}; {TAKES}", key=KEY, value=target.text)


def _wants_second(signature: inspect.Signature) -> bool:
    """Whether a second argument is asked for; one of another name with a default is something else."""
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    star = any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    needed = len(positional) >= 2 and positional[1].default is inspect.Parameter.empty
    return needed or (star and len(positional) < 2)


def digest(source: Path | None) -> str:
    """SHA-256 of a source file, in hex; empty where there is none."""
    return hashlib.sha256(source.read_bytes()).hexdigest() if source is not None and source.is_file() else ""
