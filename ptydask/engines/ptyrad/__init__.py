"""PtyRAD reconstructions, in the worker's own process."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import Any

from ptydask.engines import Session
from ptydask.model import Slot, StudyPlan

_IMPORTED = "ptydask.engines.ptyrad.imported"
_OUTPUT_ONLY = frozenset(
    {
        "output_dir",
        "recon_dir_affixes",
        "prefix_time",
        "prefix",
        "postfix",
        "save_result",
        "result_modes",
        "selected_figs",
        "copy_params",
        "SAVE_ITERS",
        "convergence_monitor",
    }
)


class PtyradEngine:
    """Runs trials with PtyRAD (0.1.0b13.post3 or 1.x), the measurements loaded once per worker."""

    halves = True
    starts_from = True

    def validate(self, plan: StudyPlan) -> StudyPlan:
        """Check the params file with PtyRAD's own schema and the data files' headers; fill in defaults."""
        from ptydask.engines.ptyrad.fast_path_choice import FastPaths
        from ptydask.engines.ptyrad.validation import complete

        FastPaths.chosen()
        return replace(complete(plan), imports=(_IMPORTED,))

    def check_machine(self, plan: StudyPlan) -> None:
        """Add up what the patterns need and this machine has; no pattern is read."""
        from ptydask.engines.ptyrad.scratch_patterns import choose_folder

        counts = plan.held_out is not None and plan.held_out.kind == "counts"
        choose_folder(plan.config, plan.source.path, counts_held_out=counts)

    def essential(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """All sections but the search itself and what only names or draws PtyRAD's own output.

        Of the search, the settings of a tuned optimizer: a trial runs with them, whatever its values are.
        """
        kept = {
            section: value for section, value in config.items() if section not in ("hypertune_params", "params_path")
        }
        recon = config.get("recon_params") or {}
        kept["recon_params"] = {name: value for name, value in recon.items() if name not in _OUTPUT_ONLY}
        entry = ((config.get("hypertune_params") or {}).get("tune_params") or {}).get("optimizer") or {}
        configs = (entry.get("kwargs") or {}).get("optim_configs")
        if configs and entry.get("state"):
            kept["hypertune_params"] = {"tune_params": {"optimizer": {"kwargs": {"optim_configs": configs}}}}
        return kept

    def open(self, plan: StudyPlan, slot: Slot) -> Session:
        """Load the measurements onto the slot's device."""
        with suppress(ImportError):  # the session meets what is wrong with PtyRAD once more, and says so
            import_module(_IMPORTED)
        from ptydask.engines.ptyrad.session import PtyradSession

        return PtyradSession(plan, slot)
