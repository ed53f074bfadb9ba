"""Make ``import torchvision`` work beside a CPU-only torch.

PyPI's torchvision is built against CUDA torch. Beside a CPU-only torch its compiled operators do not load,
and two of its Python registrations (``nms``, ``qnms``) then fail for want of a schema. PtyRAD needs
``gaussian_blur`` alone, which is plain torch, so declaring the two schemas is enough.
"""

from __future__ import annotations

import importlib
import sys

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")

_declared: torch.library.Library | None = None
"""Schemas live as long as the object that declared them."""


def make_importable() -> bool:
    """Import torchvision, declaring the schemas only where the import fails for want of them.

    Returns whether they had to be declared. Any other failure to import is raised as it is.
    """
    global _declared
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if _declared is not None or "torchvision::" not in str(error):
            raise
        for name in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declared = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in _OPERATORS:
            _declared.define(operator + _SCHEMA)  # type: ignore[no-untyped-call]
        importlib.import_module("torchvision")
    return _declared is not None
