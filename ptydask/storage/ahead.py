"""Optuna's journal at some distance: what a process writes of its own trial, it need not wait for.

A trial that is RUNNING belongs to one process, and nobody else writes its parameters, reports and attributes. So the
process replays such entries at once and sends them with the next call that has to wait: for a number, for what others
did, for the end of a trial to be on disk. Until then it is *ahead* of the journal by them. Where others' entries
arrive meanwhile, it has replayed the same entries in another order; they are of different trials, so the state is the
same, and the count of entries is the journal's again as soon as its own have come back. (Optuna refuses a parameter
whose distribution is another than in the trials before; all trials of a study draw from one space.)
"""

from __future__ import annotations

import sys
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from ptydask.errors import StorageError
from ptydask.storage.journal import decode, encode, must_last

_SET_STATE = 6  # optuna.storages.journal.JournalOperation
_OF_ITS_OWNER = {5, 7, 8, 9}
"""SET_TRIAL_PARAM, SET_TRIAL_INTERMEDIATE_VALUE, SET_TRIAL_USER_ATTR, SET_TRIAL_SYSTEM_ATTR."""
PATIENCE = 300.0
"""Seconds for lines that are on their way already."""
NOTHING = sys.maxsize
"""Asks for the entries from here on: for none."""


def need_not_wait(logs: Iterable[dict[str, Any]]) -> bool:
    """Whether only the process that runs their trial writes such entries."""
    return all(log.get("op_code") in _OF_ITS_OWNER for log in logs)


class AheadBackend(BaseJournalBackend):
    """The end of a process that is asked for by one StudyJournal; how it calls is for those who inherit.

    Where ``waits`` is true, it waits for every entry: it may write of trials that others own.
    """

    def __init__(self, *, waits: bool) -> None:
        self._waits = waits
        self.known = 0
        """How many lines of the journal have come here."""
        self.content = False
        """Whether that is taken for all there are, until the next call that waits."""
        self._ahead: deque[tuple[bytes, int]] = deque()
        """Own lines that were replayed and have not come back, and their trials."""
        self._unsent: list[bytes] = []
        """Those of them that are not sent either."""
        self._entries: list[bytes] = []
        """The lines that the replay is given, in its order: the last batch, until it asks for what comes after it."""
        self._first = 0
        """The number of the first of them in the replay."""
        self._appended = False
        self._overtaken = False
        """Whether somebody closed an own trial before entries of it were sent: the journal's has less than this one."""
        self._calling = threading.Lock()
        """Held while unsent lines are on their way: a second call would send them again, or overtake them."""

    @abstractmethod
    def _call_journal(self, **message: Any) -> Any:
        """Call :meth:`ptydask.storage.transport.JournalService.answer`."""

    @abstractmethod
    def _is_fresh(self) -> bool:
        """Whether what is known may be taken for what there is."""

    @abstractmethod
    def _note_answer(self) -> None:
        """Everything that there is, is known now."""

    @abstractmethod
    def _send_soon(self) -> None:
        """See that what is unsent is not kept for long."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append: on return on its way where it is of an own trial, with the journal's owner otherwise.

        On the owner's disk where a trial ended.
        """
        lines = encode(logs)
        if self._waits or not need_not_wait(logs):
            self._ask(lines, durable=must_last(logs))
        else:
            self._ahead.extend(zip(lines, [log["trial_id"] for log in logs], strict=True))
            self._unsent.extend(lines)
            self._entries.extend(lines)
            self._send_soon()
        self._appended = True

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Entries from a number on; right after an append, those that it brought."""
        if not self._first <= log_number_from <= self._first + len(self._entries):
            # A replay that begins at a snapshot, or begins again: numbers are the journal's.
            self.known = log_number_from
            self._entries, self._ahead, self._appended = [], deque(), False
        else:
            del self._entries[: log_number_from - self._first]
        appended, self._appended, self._first = self._appended, False, log_number_from
        if not (appended or self.content or self._is_fresh()):
            self._ask()
        return decode(self._entries.copy())

    def flush(self) -> None:
        """Return when everything that was appended is with the journal's owner."""
        if self._unsent:
            self._ask()

    def _ask(self, lines: Sequence[bytes] = (), *, durable: bool = False) -> None:
        if not self._calling.acquire(timeout=PATIENCE):
            raise StorageError("the study's journal did not answer")
        try:
            unsent = len(self._unsent)
            answer = self._call_journal(lines=[*self._unsent, *lines], known=self.known, durable=durable)
            del self._unsent[:unsent]
        finally:
            self._calling.release()
        self.known += len(answer)
        self.content = False
        for line in answer:
            # The owner keeps the order of what one process sends: own lines come back in it.
            if self._ahead and line == self._ahead[0][0]:
                self._ahead.popleft()
                continue
            if self._ahead and line not in lines:
                self._overtaken |= self._closes_own(line)
            self._entries.append(line)
        self._note_answer()

    def _closes_own(self, line: bytes) -> bool:
        """Whether it ends, or begins anew, a trial of which own lines have not come back."""
        if b'"state"' not in line:  # most entries: they need not be read here
            return False
        (entry,) = decode([line])
        return entry["op_code"] == _SET_STATE and any(entry["trial_id"] == trial for _, trial in self._ahead)

    @property
    def is_level(self) -> bool:
        """Whether what was replayed here is what the journal says."""
        return not self._ahead and not self._overtaken

    def save_snapshot(self, snapshot: bytes) -> None:
        """Keep the replayed state for workers that join later. Only where :attr:`is_level`."""
        self._call_journal(snapshot=snapshot)

    def load_snapshot(self) -> bytes | None:
        """The latest replayed state; JournalStorage reads on from there."""
        answer: bytes | None = self._call_journal(want_snapshot=True)
        return answer
