"""PtyRAD's loss without what is switched off in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

TERMS = ("loss_single", "loss_poissn", "loss_pacbed", "loss_sparse", "loss_simlar")
"""In the order in which PtyRAD computes them."""


class LossTerms:
    """``CombinedLoss.forward`` of the loss ``combined``.

    A term that is off is one zero for all steps; PtyRAD makes one on the host for each term and step, and adds it. The
    measured patterns are raised to their power once.
    """

    def __init__(self, combined: Any) -> None:
        self._combined = combined
        self._zero = torch.zeros((), device=combined.device)

    def __call__(
        self,
        modelled: torch.Tensor,
        measured: torch.Tensor,
        amplitude: torch.Tensor,
        phase: torch.Tensor,
        occupancy: torch.Tensor,
    ) -> tuple[Any, list[torch.Tensor]]:
        """The sum of the terms, and each of them."""
        combined = self._combined
        compute: dict[str, Callable[[], torch.Tensor]] = {
            "loss_single": lambda: self._single(modelled, measured),
            "loss_poissn": lambda: combined.get_loss_poissn(modelled, measured),
            "loss_pacbed": lambda: combined.get_loss_pacbed(modelled, measured),
            "loss_sparse": lambda: combined.get_loss_sparse(phase, occupancy),
            "loss_simlar": lambda: combined.get_loss_simlar(amplitude, phase, occupancy),
        }
        on = {name: compute[name]() for name in TERMS if combined.loss_params[name]["state"]}
        first, *others = on.values()
        return sum(others, start=first), [on.get(name, self._zero) for name in TERMS]

    def _single(self, modelled: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
        settings = self._combined.loss_params["loss_single"]
        power, weight = settings.get("dp_pow", 0.5), settings["weight"]
        amplitudes = measured.pow(power)
        loss: torch.Tensor = self._combined.mse(modelled.pow(power), amplitudes) ** 0.5 / amplitudes.mean()
        return loss if weight == 1 else loss * weight
