"""PtyRAD reconstructions, in the worker's own process."""

from __future__ import annotations

from ptydask.engines import Session
from ptydask.model import Slot, StudyPlan


class PtyradEngine:
    """Runs trials with PtyRAD (0.1.0b13.post3 or 1.x), the measurements loaded once per worker."""

    def validate(self, plan: StudyPlan) -> StudyPlan:
        """Check the params file with PtyRAD's own schema and the data files' headers; fill in defaults."""
        from ptydask.engines.ptyrad.validation import complete

        return complete(plan)

    def open(self, plan: StudyPlan, slot: Slot) -> Session:
        """Load the measurements onto the slot's device."""
        from ptydask.engines.ptyrad.session import PtyradSession

        return PtyradSession(plan, slot)
