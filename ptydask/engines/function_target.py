"""``package.module:function`` or ``path/file.py:function``: looked at in the driver, imported in a worker."""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from ptydask.errors import ConfigError, nearest_hint

FORMS = "write package.module:function or path/file.py:function"


@dataclass(frozen=True, slots=True)
class FunctionTarget:
    """Where a function is, and how it is called."""

    text: str
    key: str
    """Of the file, where it is named."""
    takes: tuple[str, ...]
    """What it is called with: the first argument always, a second one where it asks for that."""
    directories: tuple[Path, ...]
    """Where modules are looked for before anywhere else; the first is where the run was started."""
    module: str
    function: str
    file: Path | None
    """Of a target that names a file; else the module is found as ``import`` finds it."""

    @property
    def folders(self) -> tuple[str, ...]:
        """What comes first on ``sys.path``: the file's own folder, as for a program, then the directories."""
        own = [str(self.file.parent)] if self.file is not None else []
        return tuple(dict.fromkeys([*own, *map(str, self.directories)]))

    @property
    def rule(self) -> str:
        """How it must be defined, in words."""
        forms = ("(" + ", ".join(self.takes[:count]) + ")" for count in range(1, len(self.takes) + 1))
        return f"it must take {' or '.join(forms)}"


def _error(target: FunctionTarget, rule: str, hint: str = "") -> ConfigError:
    return ConfigError(rule, key=target.key, value=target.text, hint=hint)


def parse(text: object, key: str, takes: tuple[str, ...], directories: Sequence[Path]) -> FunctionTarget:
    """Both halves of a target, a file's path made absolute from that directory where it is. Raises ConfigError."""
    if not isinstance(text, str) or not text.strip():
        raise ConfigError("must name a function", key=key, value=text, hint=FORMS)
    where, colon, function = text.strip().rpartition(":")
    if not colon or not where:
        raise ConfigError("names no function", key=key, value=text, hint=FORMS)
    if not function.isidentifier():
        raise ConfigError(f"{function!r} is no name of a function at the top of a module", key=key, value=text)
    target = FunctionTarget(text.strip(), key, takes, tuple(directories), where, function, None)
    if where.endswith(".py") or "/" in where or os.sep in where:
        files = [Path(os.path.normpath(folder / Path(where).expanduser())) for folder in directories]
        file = next((file for file in files if file.is_file()), files[0])
        return replace(target, module=file.stem, file=file)
    if not all(part.isidentifier() for part in where.split(".")):
        raise ConfigError(f"{where!r} is no module's name", key=key, value=text, hint=FORMS)
    return target


def locate(target: FunctionTarget, beside: Path | None = None) -> Path | None:
    """The source file, found without running any of it; None where the module has none (it is compiled).

    ``beside`` is the folder of the sweep file, for the hint. Raises ConfigError where there is no such module.
    """
    if target.file is not None:
        if target.file.is_file():
            return target.file
        raise _error(target, f"no such file: {target.file}", _elsewhere_hint(target, beside))
    spec = _find_spec(target)
    if spec is None:
        places = " or ".join(map(str, target.directories))
        rule = f"no module {target.module!r} in {places}, nor installed for {sys.executable}"
        raise _error(target, rule, _elsewhere_hint(target, beside))
    origin = Path(spec.origin) if spec.has_location and spec.origin else None
    return origin if origin is not None and origin.suffix == ".py" else None


def _find_spec(target: FunctionTarget) -> importlib.machinery.ModuleSpec | None:
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


def _elsewhere_hint(target: FunctionTarget, beside: Path | None) -> str:
    """The same file or module in the folder of the sweep file, as it would have to be written."""
    if target.file is not None:
        relative = Path(target.text.rpartition(":")[0])
    else:
        relative = Path(*target.module.split(".")).with_suffix(".py")
    started = target.directories[0]
    if beside is None or not (beside / relative).is_file():
        others = "".join(f", then in {folder}" for folder in target.directories[1:])
        return f"it is looked for from {started}, where the run was started{others}"
    path = os.path.relpath(beside / relative, started)
    meant = f"{path}:{target.function}"
    return f"did you mean {meant!r}? Paths start where the run was started"


def check(target: FunctionTarget, source: Path) -> None:
    """That the function is there and takes what it is given, as far as its source shows it. Runs nothing.

    Raises ConfigError, with the line where there is one.
    """
    try:
        tree = ast.parse(source.read_bytes(), filename=str(source))
    except (SyntaxError, ValueError) as error:
        line, reason = getattr(error, "lineno", None), getattr(error, "msg", None)
        place = f"{source}:{line}" if line else source
        raise _error(target, f"{place} is no valid Python: {reason or error}") from None
    except OSError as error:
        raise _error(target, f"{source} cannot be read: {error.strerror}") from None
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
    public = [name for name in names if not name.startswith("_")]
    hint = nearest_hint(target.function, public) if public else ""
    raise _error(target, f"{source} has no {target.function!r}", hint)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module, also inside ``if``, ``try`` and ``with``; the last of several definitions comes first."""
    for node in reversed(body):
        if isinstance(node, ast.If | ast.Try | ast.With):
            for block in ("finalbody", "orelse", "body"):
                yield from _statements(getattr(node, block, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)
        yield node


def _binds_name(node: ast.stmt, name: str) -> bool:
    """Whether a statement other than a definition may give ``name`` a value."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any((alias.asname or alias.name.partition(".")[0]) in (name, "*") for alias in node.names)
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.For):
        return any(isinstance(child, ast.Name) and child.id == name for child in ast.walk(node))
    return False


def _check_definition(
    target: FunctionTarget, source: Path, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
) -> None:
    where = f"{target.function} ({source}:{node.lineno})"
    if isinstance(node, ast.ClassDef):
        raise _error(target, f"{where} is a class, not a function")
    if isinstance(node, ast.AsyncFunctionDef):
        raise _error(target, f"{where} is an async function; {target.rule} and return")
    if node.decorator_list:  # what it takes is the decorator's business
        return
    parameters = node.args
    positional = [*parameters.posonlyargs, *parameters.args]
    required = len(positional) - len(parameters.defaults)
    keywords = zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True)
    required_keywords = {keyword.arg for keyword, default in keywords if default is None}
    takes_params = bool(positional) or parameters.vararg is not None
    if not takes_params or required > len(target.takes) or not required_keywords <= set(target.takes[1:]):
        raise _error(target, f"{where} takes ({ast.unparse(parameters)}); {target.rule}")


def load(target: FunctionTarget) -> tuple[Callable[..., Any], str, Path | None]:
    """The function, imported in this process, how it is called, and its source file. Raises ConfigError in one line.

    It is called with its second argument as the ``"second"``, as a ``"keyword"``, or without it: ``"none"``.
    """
    for folder in reversed(target.folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        module = _import(target)
    except (Exception, SystemExit) as error:
        rule = f"cannot be imported by {sys.executable}: {type(error).__name__}: {error}{raised_at(error)}"
        raise _error(target, rule) from error
    function = getattr(module, target.function, None)
    if function is None:
        names = [name for name in vars(module) if not name.startswith("_")]
        raise _error(target, f"{target.module} has no {target.function!r}", nearest_hint(target.function, names))
    if not callable(function) or isinstance(function, type):
        what = "class" if isinstance(function, type) else type(function).__name__
        raise _error(target, f"{target.function} is a {what}, not a function")
    file = getattr(module, "__file__", None)
    return function, _call_style(function, target), Path(file) if file else None


def forget_modules(folders: Collection[str], before: Collection[str]) -> None:
    """Take a study's folders from where modules are looked for, and forget those imported from there.

    The next study of this process may have others of the same names. ``before`` names what was imported before the
    study's functions were, and stays.
    """
    for folder in folders:
        with suppress(ValueError):
            sys.path.remove(folder)
    own = {name for name in list(sys.modules) if name not in before and _folder_of(name) in folders}
    for name in list(sys.modules):
        if name.partition(".")[0] in own:
            del sys.modules[name]


def _folder_of(name: str) -> str:
    """Where a module or package that is imported lies; empty for one within a package, and one that is no file."""
    module = sys.modules.get(name)
    path = next(iter(getattr(module, "__path__", [])), None) or getattr(module, "__file__", None)
    return str(Path(path).parent) if path and "." not in name else ""


def _import(target: FunctionTarget) -> ModuleType:
    """A file is imported as a module of its name, so that its functions reach processes that it starts itself.

    Where another module has that name already (``test.py``, ``train.py``), it gets one of its own.
    """
    if target.file is None:
        return importlib.import_module(target.module)
    loaded = sys.modules.get(target.module)
    importable = _find_spec(target)
    ours = importable is not None and importable.origin is not None and Path(importable.origin) == target.file
    taken = loaded is not None and getattr(loaded, "__file__", None) != str(target.file)
    name = target.module if ours and not taken else f"ptydask_callable_{target.module}"
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


def raised_at(error: BaseException) -> str:
    """`` (file:line)`` of what raised, where it is somebody's file; else empty."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    own = [frame for frame in frames if not frame.filename.startswith("<") and "importlib" not in frame.filename]
    last = own[-1] if own else None
    return f" ({last.filename}:{last.lineno})" if last is not None and last.filename != __file__ else ""


def _call_style(function: Callable[..., Any], target: FunctionTarget) -> str:
    if inspect.iscoroutinefunction(function):
        raise _error(target, f"{target.function} is an async function; {target.rule} and return")
    second = target.takes[1:]
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "second" if second else "none"  # compiled, and without a signature
    if second and second[0] in signature.parameters and _can_bind(signature, 0, **{second[0]: 0}):
        return "keyword"
    if second and _wants_second(signature) and _can_bind(signature, 0, 0):
        return "second"
    if _can_bind(signature, 0):
        return "none"
    raise _error(target, f"{target.function} takes {signature}; {target.rule}")


def _can_bind(signature: inspect.Signature, *args: int, **kwargs: int) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _wants_second(signature: inspect.Signature) -> bool:
    """Whether a second argument is asked for; one of another name with a default is something else."""
    positional = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    star = any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    if len(positional) < 2:
        return star
    return positional[1].default is inspect.Parameter.empty
