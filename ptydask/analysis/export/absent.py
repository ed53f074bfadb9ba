"""Why a trial does not have what is to be exported."""

from __future__ import annotations

from collections.abc import Sequence

from ptydask.errors import StoreError
from ptydask.model import TrialState
from ptydask.store.reader import TrialData


def missing_data_error(trial: TrialData, names: Sequence[str], between: str = ", ") -> StoreError:
    """The error for a trial without ``names``, which says what became of them."""
    gone = trial.attributes.get("not_imported")
    why = trial.lost or trial.dropped or (f"not imported: {gone}" if gone else "its arrays were not kept")
    if trial.record.state is TrialState.FAIL:
        why = "it failed"
    return StoreError(f"trial {trial.record.number} has no {between.join(names)}: {why}")
