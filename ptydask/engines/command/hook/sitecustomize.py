"""Runs first in the Python of a trial's program: whatever the program logs to W&B also goes to a file of JSON lines.

Its folder is first on ``PYTHONPATH``, the file is named by ``PTYDASK_METRICS``. It runs in the program's
interpreter, not in ptydask's: standard library only, any Python from 3.8, and no fault of it may reach the program. W&B
is touched only where the program imports it. Other modules named ``sitecustomize`` run as they would without this one.
"""

# contextlib and pathlib would cost every start of a Python some milliseconds:
# ruff: noqa: PTH119, PTH120

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

MAX_LINE = 1 << 20
MARK = "_ptydask_watched"
RAN = "_ptydask_sitecustomize"
"""The attribute of ``sys`` that lists the files of this name that have run in the process."""


def begin() -> None:
    """Have W&B changed as soon as it is imported. Does nothing outside a trial, or when done already."""
    if not os.environ.get("PTYDASK_METRICS") or hasattr(sys, RAN):
        return
    changes = {"wandb.sdk.wandb_run": watch, "wandb.sdk.wandb_init": keep_offline}
    sys.meta_path.insert(0, Finder(changes))
    for name in changes.keys() & sys.modules.keys():
        changes[name](sys.modules[name])


class Finder:
    """Finds the few modules to change as the others on ``sys.meta_path`` do, and changes each once it is loaded."""

    def __init__(self, changes: Mapping[str, Callable[[Any], None]]) -> None:
        self.changes = changes

    def find_spec(self, name: str, path: Any = None, module: Any = None) -> Any:
        """The module's spec, as the others find it; None for all other modules."""
        if name not in self.changes:
            return None
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, module) if find is not None and finder is not self else None
            if spec is not None:
                quietly(change_after_load, spec.loader, name, self.changes[name])
                return spec
        return None


def quietly(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """What a function returns; None where it fails, as no fault of this file may reach the program."""
    try:
        return function(*args, **kwargs)
    except Exception:
        return None


def change_after_load(loader: Any, target: str, change: Callable[[Any], None]) -> None:
    """Have ``loader`` call ``change`` with the module ``target`` as soon as that has run."""
    load = loader.exec_module

    def exec_module(module: Any) -> None:
        load(module)
        if module.__name__ == target:
            loader.__dict__.pop("exec_module", None)
            quietly(change, module)

    loader.exec_module = exec_module


def watch(module: Any) -> None:
    """Wrap ``Run._log``, through which everything goes that a program logs, from whatever thread or process."""
    original = module.Run._log
    if hasattr(original, MARK):
        return

    def _log(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = quietly(current_step, self)
        result = original(self, *args, **kwargs)
        quietly(write, self, before, *args, **kwargs)
        return result

    _log.__doc__ = original.__doc__
    setattr(_log, MARK, True)
    module.Run._log = _log


def keep_offline(module: Any) -> None:
    """Wrap ``wandb.init``: a run stays offline and in the trial's folder, whatever the program asks for.

    Arguments of a program count for more than the environment; a run elsewhere would be neither read nor kept.
    """
    original = module.init
    if hasattr(original, MARK):
        return

    def init(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("dir", None)
        settings = kwargs.get("settings")
        mode = kwargs.get("mode")
        if not mode:
            mode = settings.get("mode") if isinstance(settings, dict) else getattr(settings, "mode", None)
        if mode in ("online", "shared"):
            kwargs["mode"] = "offline"
        return original(*args, **kwargs)

    init.__doc__ = original.__doc__
    init.__wrapped__ = original  # type: ignore[attr-defined]
    setattr(init, MARK, True)
    module.init = init


def current_step(run: Any) -> int | None:
    """The step of what is logged next. W&B keeps it in a process of its own; the run's program counts along.

    A process that was forked off does not: there W&B is asked, which takes about a millisecond.
    """
    if getattr(run, "_is_attached", False):
        step: int = run.step
        return step
    local = getattr(run, "_local_step", None)
    return getattr(run, "_step", None) if local is None else local  # its name up to wandb 0.19


def write(run: Any, before: int | None, data: Any, step: int | None = None, *_: Any, **__: Any) -> None:
    """Append one line for what was just logged.

    As in W&B, what is logged at a step below ``before``, the current one, is dropped, and no step is the current one.
    """
    path = os.environ.get("PTYDASK_METRICS")
    if not path or (step is not None and before is not None and step < before):
        return
    metrics: dict[str, Any] = {}
    flatten(data, "", metrics)
    if metrics:
        current = before if step is None else step
        append(path, {"step": None if current is None else int(current), "metrics": metrics, "run": folder_of(run)})


def append(path: str, row: dict[str, Any]) -> None:
    """Write a row as one line, in one call: lines of several processes do not mix."""
    import json
    import time

    line = json.dumps(dict(row, time=time.time())).encode() + b"\n"
    if len(line) > MAX_LINE:
        return
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def folder_of(run: Any) -> str:
    """The name of the folder that W&B keeps the run in."""
    folder = getattr(getattr(run, "_settings", None), "sync_dir", None) or os.path.dirname(run.dir)
    return os.path.basename(os.path.normpath(str(folder)))


def flatten(data: Any, prefix: str, metrics: dict[str, Any]) -> None:
    """Put the numbers in ``data`` into ``metrics``, names of nested ones joined with dots."""
    for key, value in list(data.items()):
        if isinstance(value, dict):
            flatten(value, f"{prefix}{key}.", metrics)
            continue
        plain = number(value)
        if plain is not None:
            metrics[f"{prefix}{key}"] = plain


def number(value: Any) -> Any:
    """The number that W&B makes of a value: of Python, NumPy, PyTorch and others with one element. Else None."""
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return float(value)
    if not hasattr(value, "item"):
        if not hasattr(value, "numpy"):
            return None
        value = value.numpy()  # TensorFlow
    size = value.numel() if hasattr(value, "numel") else getattr(value, "size", None)
    plain = value.item() if size == 1 else None
    return plain if isinstance(plain, (bool, int, float)) else None


def run_next() -> None:
    """Run the next ``sitecustomize`` on the path, in the place of this one.

    It may do the same and so come upon this one again: each file runs once, and the first keeps the name.
    """
    first, ran = not hasattr(sys, RAN), sys.__dict__.setdefault(RAN, [])
    ran.append(os.path.realpath(__file__))
    # What importlib gives out under the same names, without the milliseconds that it takes to import.
    finder, machinery = sys.modules["_frozen_importlib_external"].PathFinder, sys.modules["_frozen_importlib"]
    for folder in list(sys.path):
        spec = finder.find_spec("sitecustomize", [folder])
        if spec is None or spec.loader is None or not spec.has_location or os.path.realpath(spec.origin) in ran:
            continue
        ran.append(os.path.realpath(spec.origin))
        module = machinery.module_from_spec(spec)
        if first:
            sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)
        return


quietly(begin)
run_next()
