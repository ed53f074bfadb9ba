"""Some trials of a study in an order: what ``study.trials()`` and ``study.best(k)`` give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, overload

from ptydask.analysis.trial import Trial

if TYPE_CHECKING:
    import pandas

    from ptydask.analysis.results import StudyResults


class Trials(Sequence[Trial]):
    """Some trials in an order, shown in a notebook as a table with their images."""

    def __init__(self, trials: Iterable[Trial], study: StudyResults) -> None:
        self._trials, self._study = tuple(trials), study

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> Trials: ...
    def __getitem__(self, index: int | slice) -> Trial | Trials:
        if isinstance(index, slice):
            return Trials(self._trials[index], self._study)
        return self._trials[index]

    def __len__(self) -> int:
        return len(self._trials)

    @property
    def numbers(self) -> list[int]:
        """Their numbers, in this order."""
        return [trial.number for trial in self._trials]

    def table(self) -> pandas.DataFrame:
        """Their rows of the study's table, in this order."""
        return self._study.table().loc[self.numbers]

    def __repr__(self) -> str:
        return "[" + ",\n ".join(map(repr, self._trials)) + "]"

    def _repr_html_(self) -> str:
        from ptydask.analysis import notebook

        return notebook.trials_html(self, self._study.meta)
