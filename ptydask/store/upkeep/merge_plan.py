"""Which trials of several files of one study belong together, and under which numbers: pure.

A trial is known by the store that recorded it and by its number there. Copies of one results file share the
store's id, and the trials of before they were copied; what each recorded afterwards has numbers in common only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ptydask.errors import StoreError
from ptydask.model import StudyMeta
from ptydask.store import codec, index

Conflicts = Literal["refuse", "both", "first"]
Identity = tuple[str, int]
"""A store's id and the trial's number there."""
DAMAGED = 3
"""A trial that cannot be copied: any other file's counts."""


@dataclass(frozen=True, slots=True)
class MergeTrial:
    """A trial of one of the files."""

    row: index.TrialRow
    identity: Identity
    content: str
    """Its record as JSON: equal for the same trial, whatever was dropped of its arrays since."""
    missing: int
    """0 where all is there that was ever kept; 1 without the arrays, 2 with its numbers only; :data:`DAMAGED`."""
    damage: str = ""
    """Why it is DAMAGED."""


@dataclass(frozen=True, slots=True)
class MergeSource:
    """One of the files, as it was when it was read."""

    path: Path
    store_id: str
    meta: StudyMeta
    trials: tuple[MergeTrial, ...]
    unfinished: int
    live: str
    """Who has it, where a driver does."""


# --- what belongs together: pure ----------------------------------------------------------------------


def differences(a: StudyMeta, b: StudyMeta) -> list[str]:
    """Why trials of the two are not of one study, one clause each; the engine's settings apart."""
    spaces = [codec.search_space(meta) for meta in (a, b)]
    pairs: list[tuple[str, object, object]] = [
        ("study", a.name, b.name),
        ("engine", a.engine, b.engine),
        ("error metric", a.metric, b.metric),
        ("direction", a.direction, b.direction),
        ("tuned parameters", sorted(spaces[0]), sorted(spaces[1])),
        ("data_sha256", a.provenance.get("data_sha256", ""), b.provenance.get("data_sha256", "")),
    ]
    if a.config_json and b.config_json:
        pairs += [("held-out data", a.held_out or "none", b.held_out or "none")]
        own = a.own_metrics.keys() & b.own_metrics.keys()  # one that the trials of one file have alone harms none
        pairs += [(f"the metric {name}", a.own_metrics[name], b.own_metrics[name]) for name in sorted(own)]
    sums = [name for name in a.provenance if name.startswith("sha256 ")]
    pairs += [(name, a.provenance[name], b.provenance.get(name, "")) for name in sums]
    clauses = []
    for label, old, new in pairs:
        if "" in (old, new):  # one of them does not say: a rebuilt or an imported file
            continue
        if old != new:
            clauses.append(f"{label} {_shorten_text(old)} and {_shorten_text(new)}")
    for name in spaces[0].keys() & spaces[1].keys():
        kinds = [_distribution_kind(space[name]) for space in spaces]
        if kinds[0] != kinds[1]:
            clauses.append(f"{name} among {_shorten_text(kinds[0])} and {_shorten_text(kinds[1])}")
    return clauses


def changed_ranges(a: StudyMeta, b: StudyMeta) -> list[str]:
    """The parameters that were drawn from other ranges; that is no obstacle."""
    spaces = [codec.search_space(meta) for meta in (a, b)]
    return [name for name in spaces[0] if name in spaces[1] and spaces[0][name] != spaces[1][name]]


def _distribution_kind(distribution: Mapping[str, Any]) -> object:
    """What of a distribution may not differ: its sort, the choices, the logarithm."""
    attributes = distribution.get("attributes", {})
    return [
        distribution.get("name", ""),
        *([attributes["choices"]] if "choices" in attributes else []),
        attributes.get("log", False),
    ]


def _shorten_text(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-12:]}"


@dataclass(frozen=True, slots=True)
class PlacedTrial:
    """A trial of the merged file."""

    number: int
    trial: MergeTrial

    @property
    def moved(self) -> int:
        """By how much its number grew."""
        return self.number - self.trial.row.record.number


@dataclass(frozen=True, slots=True)
class MergePart:
    """What one of the files gave."""

    source: MergeSource
    new: int
    """Trials that no file before it has."""
    known: int
    fuller: int
    """Of those known, the trials whose arrays only this file still has."""
    conflicts: tuple[int, ...]
    """Numbers under which a copy of the same store has another trial."""
    moved: tuple[tuple[int, int], ...]
    """Old and new number of each trial that got another one."""


@dataclass(frozen=True, slots=True)
class MergePlan:
    """The trials of the merged file by number, and what each file gave."""

    trials: tuple[PlacedTrial, ...]
    parts: tuple[MergePart, ...]


def plan_merge(sources: Sequence[MergeSource], conflicts: Conflicts = "refuse") -> MergePlan:
    """Which file gives which trials, and under which numbers.

    Trials of the first file keep their numbers. Those of another keep theirs where none of them is taken, and
    else move up together, so that their order and distances stay. Raises StoreError where copies of one store
    went on apart and ``conflicts`` is "refuse".
    """
    # A trial is the same one where identity and record agree: copies of one store that went on apart gave the same
    # identity to different trials.
    placed: dict[tuple[Identity, str], PlacedTrial] = {}
    parts: list[MergePart] = []
    for source in sources:
        identities = {identity for identity, _ in placed}
        known, new, clash = [], [], []
        for trial in source.trials:
            if (trial.identity, trial.content) in placed:
                known.append(trial)
            elif trial.identity in identities:
                clash.append(trial)
            else:
                new.append(trial)
        if clash and conflicts == "refuse":
            raise _conflict_error(source, clash, parts)
        # Of a trial that several files have, the one counts from which least was dropped, under the number it has.
        fuller = 0
        for trial in known:
            key = (trial.identity, trial.content)
            if trial.missing < placed[key].trial.missing:
                placed[key] = replace(placed[key], trial=trial)
                fuller += 1
        # The trials of a group move by the same. New ones are a group of their own and come first: conflicting ones,
        # whose numbers are taken in any case, must not push them from theirs.
        moved: list[tuple[int, int]] = []
        for group in (new, clash if conflicts == "both" else []):
            by = _number_shift(group, {p.number for p in placed.values()})
            for trial in group:
                number = trial.row.record.number
                placed[trial.identity, trial.content] = PlacedTrial(number + by, trial)
                if by:
                    moved.append((number, number + by))
        parts.append(
            MergePart(
                source,
                new=len(new) + (len(clash) if conflicts == "both" else 0),
                known=len(known),
                fuller=fuller,
                conflicts=tuple(trial.row.record.number for trial in clash),
                moved=tuple(moved),
            )
        )
    return MergePlan(tuple(sorted(placed.values(), key=lambda p: p.number)), tuple(parts))


def _number_shift(trials: Sequence[MergeTrial], used: set[int]) -> int:
    """By how much the numbers of all of ``trials`` grow, so that none is used twice; 0 where none is.

    The numbers of attempts that were tried again are theirs too, though these have no trial of their own.
    """
    mine = {t.row.record.number for t in trials}
    if not mine & used:
        return 0
    lost = {t.row.record.retry_of for t in trials if t.row.record.retry_of is not None}
    # The lowest number of all comes right after the highest that is taken, so that no number can meet one.
    return max(used) + 1 - min(mine | lost)


def _conflict_error(source: MergeSource, clash: Sequence[MergeTrial], parts: Sequence[MergePart]) -> StoreError:
    sources = [part.source for part in parts]
    holders = [s.path.name for s in sources if clash[0].identity in {trial.identity for trial in s.trials}]
    other = holders[0]
    which = format_spans([t.row.record.number for t in clash])
    verb = "is another trial" if len(clash) == 1 else "are other trials"
    return StoreError(
        f"{source.path}: a copy of {other} that went on by itself: {which} there {verb}; "
        f"--conflicts both keeps them all, under new numbers, --conflicts first those of {other}"
    )


def format_spans(numbers: Sequence[int]) -> str:
    """``3, 5 to 9``."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    return ", ".join(" to ".join(map(str, span)) for span in spans)
