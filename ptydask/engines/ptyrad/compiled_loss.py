"""PtyRAD's loss function through ``torch.compile``: compiled once per worker and shape, not once per trial.

PtyRAD empties the compiler's cache in every trial. Here the cache stays. Sizes are compiled as constants
unless the params say otherwise, so the code that a trial runs does not depend on the sizes that came before
it. The optimizer's step stays uncompiled: it would be compiled again for the tensors of each new trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from ptydask.engines.ptyrad import release

_SHAPES = 16
"""After so many different shapes the compiler starts over, so that its cache does not grow without end."""

_VARIANTS = 256
"""Compiled variants of one function before the compiler falls back to uncompiled code (its default: 8)."""


class CompiledLoss:
    """Hands out ``compute_loss``, compiled where the params ask for it."""

    def __init__(self) -> None:
        self._shapes: set[tuple[object, ...]] = set()
        self._compiled: dict[str, Callable[..., Any]] = {}

    def function(self, configs: Mapping[str, Any], model: Any, batches: Iterable[torch.Tensor]) -> Callable[..., Any]:
        """``compute_loss`` for this model's shapes."""
        plain: Callable[..., Any] = release.solver().compute_loss
        settings = dict(configs)
        if not settings.pop("enable", False):
            return plain
        if settings.get("dynamic") is None:
            settings["dynamic"] = False
        self._note_shapes(model, batches)
        name = repr(sorted(settings.items()))
        if name not in self._compiled:
            torch._dynamo.config.recompile_limit = max(_VARIANTS, torch._dynamo.config.recompile_limit)
            self._compiled[name] = torch.compile(plain, **settings)
        return self._compiled[name]

    def _note_shapes(self, model: Any, batches: Iterable[torch.Tensor]) -> None:
        tensors = tuple(tuple(t.shape) for t in model.optimizable_tensors.values())
        self._shapes.add((*tensors, *sorted({len(batch) for batch in batches})))
        if len(self._shapes) > _SHAPES:
            torch.compiler.reset()
            self._shapes.clear()
            self._compiled.clear()
