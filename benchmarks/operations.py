"""What one of PtyRAD's iterations asks of a device, counted on a CPU by PyTorch's own modes.

An operation stands for one launch on a GPU; a view (``select``, ``permute``, ``detach``) for none. The host waits for
the device, or the device for the host, where a value or an array crosses between them: those calls are counted where
they are made, and a value that PyTorch keeps on the host anyway (the optimizer's count of steps) is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from ptydask.engines.ptyrad.fast_paths import patches

TRANSFORMS = ("_fft_c2c", "_fft_r2c", "_fft_c2r")
COPIES = ("clone", "copy_", "_to_copy", "_conj_physical", "stack", "cat", "roll")
"""What moves data, and computes nothing but a sign."""
_VALUES = ("_local_scalar_dense", "lift_fresh", "nonzero", "equal", "is_nonzero", "allclose", "masked_select")
"""Operations whose result the host needs, or that bring the host's data to the device."""
_CROSSINGS = {torch.Tensor.cpu, torch.Tensor.tolist, torch.as_tensor, torch.from_numpy}
_FREE = ("lift_fresh", "_local_scalar_dense", "_record_function_enter_new", "_record_function_exit")
"""No launches: counted as crossings, or the profiler's own."""


@dataclass(slots=True)
class Operations:
    """Of some steps together."""

    calls: Counter[str] = field(default_factory=Counter)
    """By the name of the operation, without views."""
    views: int = 0
    crossings: Counter[str] = field(default_factory=Counter)
    copied: int = 0
    """Bytes that :data:`COPIES` wrote."""
    written: int = 0
    """Bytes that all operations wrote."""

    @property
    def total(self) -> int:
        """Operations, without views."""
        return sum(self.calls.values())

    @property
    def transforms(self) -> int:
        """Fourier transforms."""
        return sum(self.calls[name] for name in TRANSFORMS)

    def per_step(self, shorter: Operations, steps: int) -> Mapping[str, float]:
        """Of one step, by an iteration that has ``steps`` fewer and is otherwise the same."""
        names = ("total", "transforms", "views", "copied", "written")
        each = {name: (getattr(self, name) - getattr(shorter, name)) / steps for name in names}
        return each | {"crossings": (self.crossings.total() - shorter.crossings.total()) / steps}


class _Dispatched(TorchDispatchMode):
    def __init__(self, into: Operations, on_host: set[int]) -> None:
        super().__init__()
        self._into, self._on_host = into, on_host

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func).split(".")[1]
        if any(id(argument) in self._on_host for argument in args if isinstance(argument, torch.Tensor)):
            return result
        if name in _VALUES:
            self._into.crossings[name] += 1
        if name in _FREE:
            return result
        if func.is_view or name == "detach":
            self._into.views += 1
            return result
        self._into.calls[name] += 1
        tensors = [tensor for tensor in tree_flatten(result)[0] if isinstance(tensor, torch.Tensor)]
        written = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self._into.written += written
        if name in COPIES:
            self._into.copied += written
        return result


class _Called(TorchFunctionMode):
    def __init__(self, into: Operations) -> None:
        super().__init__()
        self._into = into

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _CROSSINGS:
            self._into.crossings[func.__name__] += 1
        if func is torch.Tensor.__getitem__:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            self._into.crossings["indices"] += sum(isinstance(part, np.ndarray) for part in index)
        return func(*args, **(kwargs or {}))


def count(iterate: Callable[[], object], optimizer: Any) -> Operations:
    """What ``iterate`` does, as on a GPU; ``optimizer`` has made a step before."""
    counted = Operations()
    steps = {id(state["step"]) for state in optimizer.state.values() if "step" in state}
    with _as_on_a_gpu(), _Called(counted), _Dispatched(counted, steps):
        iterate()
    return counted


def measure_peak(iterate: Callable[[], object]) -> int:
    """The most bytes of tensors that ``iterate`` holds beyond those that were there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        iterate()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    own = patches.add_windows
    patches.add_windows = patches.add_indexed
    try:
        yield
    finally:
        patches.add_windows = own
