"""Importances by ranks: Optuna's, and Optuna as it was before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import sys
import optuna
from figure_cases import study
from ptydask.analysis.rank_importances import compute_ped_anova
from ptydask.analysis.rehydrate import to_optuna_study

data = study(30)
shares = compute_ped_anova(data)
assert "sklearn" not in sys.modules
whole = to_optuna_study(data)
theirs = optuna.importance.get_param_importances(whole, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
assert "sklearn" in sys.modules
optuna.importance.FanovaImportanceEvaluator(n_trees=2, seed=0).evaluate(whole)
assert shares == theirs == compute_ped_anova(data)
assert sum(shares.values()) > 0.99
"""


def test_importances_are_optunas_and_import_no_scikit_learn() -> None:
    """Whoever wants evaluators that need it has them afterwards."""
    command = [sys.executable, "-W", "ignore", "-c", _PROGRAM]
    subprocess.run(command, cwd=Path(__file__).parent, check=True, timeout=60)
