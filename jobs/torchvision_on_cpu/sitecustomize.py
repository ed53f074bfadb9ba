"""Lets ``import torchvision`` work beside a CPU-only torch, in programs that are not to be changed.

    PYTHONPATH=jobs/torchvision_on_cpu ldctbench-train ...

PyPI's torchvision is built against CUDA torch. Beside a CPU-only torch its compiled operators do not load, and its
Python registrations of ``nms`` and ``qnms`` fail for want of a schema. Everything that is plain torch (models,
transforms) works once the two schemas are declared. Nothing is imported, and nothing is done, before the program
itself imports torchvision; where that works, it is left alone. A ``sitecustomize`` further down the path still runs.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPERATORS = ("nms", "qnms")

declared: list[object] = []
"""What declared the schemas: they live as long as it does."""


class Mending(Loader):
    """Loads torchvision as its own loader does; a second time, schemas declared, where that fails for want of them."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The module that its own loader makes, None for an ordinary one."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module. Raises what torchvision raises, but for the missing schemas."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        try:
            self.loader.exec_module(module)
        except RuntimeError as error:
            if declared or "torchvision::" not in str(error) or not declare_schemas():
                raise
            for name in [name for name in sys.modules if name.startswith("torchvision.")]:
                del sys.modules[name]
            self.loader.exec_module(module)


class OnImport(MetaPathFinder):
    """Finds torchvision where it is, once, and has it loaded by :class:`Mending`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec with another loader; None for every other module."""
        if fullname != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = Mending(spec.loader)
        return spec


def declare_schemas() -> bool:
    """Declare the operators that torchvision registers, where torch is CPU-only. Returns whether it is."""
    import torch  # torchvision has imported it by now

    if torch.version.cuda is not None or getattr(torch.version, "hip", None) is not None:
        return False
    library = torch.library.Library("torchvision", "DEF")
    for operator in OPERATORS:
        library.define(operator + SCHEMA)
    declared.append(library)
    return True


def run_next() -> None:
    """Run the ``sitecustomize`` that this one hides: the first one behind it on the path."""
    here = Path(__file__).parent.resolve()
    folders = [Path(folder or ".").resolve() for folder in sys.path]
    behind = sys.path[folders.index(here) + 1 :] if here in folders else []
    spec = PathFinder.find_spec("sitecustomize", [folder for folder in behind if Path(folder).resolve() != here])
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


sys.meta_path.insert(0, OnImport())
run_next()
