"""What a study, a trial and a result are: frozen dataclasses, standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptydask.distributions import Distribution
    from ptydask.lineage import StageLineage, TrialStart
    from ptydask.ranking import NoGain

Scalar = bool | int | float | str | None
Direction = Literal["minimize", "maximize"]


# --- what a study is -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceFile:
    """The file that a study was asked for with, as it was read."""

    path: Path
    text: str
    format: str


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """An Optuna sampler or pruner by class name, with its keyword arguments."""

    name: str
    configs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Budget:
    """How many trials. ``n_trials`` counts per worker, as PtyRAD documents it, unless ``total``."""

    n_trials: int
    """0 where the file has no end and nobody has said how many."""
    total: bool = False
    timeout: float | None = None

    def trials(self, workers: int) -> int:
        """The number of trials that ``workers`` workers record together."""
        return self.n_trials if self.total else self.n_trials * workers


OWN_VALUES = "start"
"""Origin of a point, and of its trial, that has the file's own values."""
NEAR_VALUES = "near start"
"""Origin of one whose values could not all be the file's: the nearest ones that are allowed, or the sampler's."""
TRIED = "try"
"""Origin of one that a person asked for, with ``--try``."""
BY_SAMPLER = "sampler"
"""Origin of one that the file's sampler chose."""
BY_SLOPES = "slopes"
"""Origin of one that the slopes of the trials before it chose."""
GUESSED = "guess"
"""Origin of one that was guessed from the patterns."""
FROM_EARLIER = "from "
"""How the origin begins of one that is an earlier study's: ``from last.h5, trial 12``."""


@dataclass(frozen=True, slots=True)
class Point:
    """Values to try before the sampler chooses: a person's own guess. ``origin`` says whose."""

    params: Mapping[str, Scalar]
    origin: str


@dataclass(frozen=True, slots=True)
class EarlierTrial:
    """A completed trial of another study, as a sampler learns from it."""

    params: Mapping[str, Scalar]
    error: float


@dataclass(frozen=True, slots=True)
class KeepOptions:
    """What stays in the results file of every trial."""

    arrays: bool = True
    """Object, probe, positions; False keeps numbers and curves only (PtyRAD: ``collate_results``)."""
    snapshot_every: int | None = None
    """Also the arrays at every so many iterations (PtyRAD: ``SAVE_ITERS``)."""
    params_in_names: bool = True
    """Parameters in the names of the ``by_error`` links (PtyRAD: ``append_params``)."""


UNRANKED_VALUE = 0.0
"""What Optuna is told of a trial that ended well in a study without a metric: it knows no trial without a value."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The part of the data that a trial's reconstruction does not see, and that its result is scored with."""

    kind: Literal["positions", "counts"]
    """``positions``: some scan positions; ``counts``: a share of the electrons of every pattern."""
    share: float
    """Of the scan's positions, or of the electrons; above 0, below 1."""
    gain: float = 1.0
    """``counts``: detector units an electron gives."""


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """About how many bytes of the host's memory workers that compute on its cores need."""

    own: float
    """Each."""
    shared: float
    """All workers of one machine together: the measurements."""


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """Everything that a run needs to know, fixed before the first worker starts."""

    name: str
    source: SourceFile
    engine: str
    config: Mapping[str, Any]
    """What the engine runs, as plain JSON-like values, ``--set`` and translations applied."""
    space: Mapping[str, Distribution]
    metric: str
    """The name in :attr:`TrialOutput.metrics` that is the trial's error; empty where trials are not ranked."""
    direction: Direction
    sampler: ComponentSpec
    pruner: ComponentSpec | None
    budget: Budget
    storage: str | None
    """An Optuna storage URL, password and all; None is the study's own journal file."""
    results: Path
    seed: int
    seed_parameter: str = ""
    """The parameter that is a trial's own seed; empty where all trials have :attr:`seed`."""
    iterations: int | None = None
    """Steps of a full trial, where that is known beforehand."""
    differentiable: frozenset[str] = frozenset()
    """The tuned parameters in which the engine gives the metric's derivative with every trial."""
    search: Literal["auto", "file"] = "auto"
    """Who chooses the points: ``file`` is the sampler as the file has it; ``auto`` may let the slopes lead."""
    until_settled: bool = False
    """End the study once its optimum is known to a grid step in every parameter that has slopes."""
    no_gain: NoGain | None = None
    """When the study ends for want of progress; None where it does not."""
    lineage: StageLineage | None = None
    """Which stage it is; None for a study that has none."""
    start: TrialStart | None = field(default=None, repr=False, compare=False)
    """The reconstruction that its trials start from, where they do not start anew."""
    points: tuple[Point, ...] = ()
    earlier: tuple[EarlierTrial, ...] = field(default=(), repr=False)
    """Trials of other studies that the sampler begins with, where it can."""
    exhaustive: bool = False
    """The points are all there is to try: a grid."""
    target: float | None = None
    """Once a trial completes with an error as good as this, no more are started."""
    held_out: HeldOut | None = None
    """What is kept from the reconstructions and scores them; None where they see all of the data."""
    own_metrics: Mapping[str, str] = field(default_factory=dict)
    """The user's own metrics: name -> ``package.module:function``, called with each finished trial's arrays."""
    function_folders: tuple[str, ...] = ()
    """Where their modules are looked for first."""
    details: tuple[tuple[str, str], ...] = ()
    """Lines for the plan that is printed before the run: label and text (the command that a trial runs)."""
    keep: KeepOptions = KeepOptions()
    trial_bytes: float | None = None
    """About how many bytes of results a whole trial leaves, where its engine can tell beforehand."""
    worker_memory: WorkerMemory | None = None
    """Where its engine can tell; None also where a trial may be meant to have the whole machine, as a program is."""
    imports: tuple[str, ...] = ()
    """Modules that each worker needs and that take long to import, where its engine says."""
    scan_share: float = 1.0
    """The share of the scan's positions that a trial computes, where its engine can tell beforehand."""
    notices: tuple[str, ...] = ()
    """One line each: what was translated or may surprise."""
    own_file: SourceFile | None = None
    """The file of ptydask's own that named the source, where one was given in its place."""
    settings: tuple[str, ...] = ()
    """The dotted keys that were set beside the file, with ``--set``."""
    guessed: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Value and standard deviation of each tuned parameter that the patterns tell well."""

    @property
    def own_params(self) -> Mapping[str, Scalar]:
        """The point of the file's own values, or of the grid's nearest to them; empty where none of both is tried."""
        return next((point.params for point in self.points if point.origin in (OWN_VALUES, NEAR_VALUES)), {})

    def trial_seed(self, params: Mapping[str, Scalar]) -> int:
        """The seed of a trial with these parameters."""
        return int(str(params[self.seed_parameter])) if params.get(self.seed_parameter) is not None else self.seed


@dataclass(frozen=True, slots=True)
class StudyMeta:
    """What a results file says about its study as a whole. Holds no password."""

    name: str
    direction: Direction
    metric: str
    engine: str
    config_text: str
    """The params or sweep file as it was given."""
    config_format: str
    config_json: str
    """The complete configuration that the engine ran, JSON."""
    search_space_json: str
    """JSON object: parameter name -> Optuna's own JSON of its distribution."""
    keep: KeepOptions = KeepOptions()
    held_out: HeldOut | None = None
    """See :attr:`StudyPlan.held_out`."""
    own_metrics: Mapping[str, str] = field(default_factory=dict)
    """See :attr:`StudyPlan.own_metrics`."""
    lineage: StageLineage | None = None
    """See :attr:`StudyPlan.lineage`."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Host, versions, data path and sha256, command line."""
    created: str = ""
    """ISO 8601 with time zone."""

    @property
    def stage(self) -> str:
        """The name of the stage that it is; empty for a study without stages."""
        return "" if self.lineage is None else self.lineage.name


# --- what a trial is -----------------------------------------------------------------------------


class TrialState(StrEnum):
    """How a recorded trial ended; the words are Optuna's."""

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"

    @property
    def word(self) -> str:
        """What a person calls it: ``complete``, ``pruned``, ``failed``."""
        return "failed" if self is TrialState.FAIL else self.value.lower()


class Reason(StrEnum):
    """Why a trial did not complete."""

    NONE = ""
    PRUNED = "pruned"
    FAILED = "failed"
    """It raised; the traceback is in the store."""
    LOST = "lost"
    """Its worker went away (more often than ``--retries`` allows, when recorded)."""
    INTERRUPTED = "interrupted"
    """The user or the cluster stopped the run; the parameters are tried again when it goes on."""


@dataclass(frozen=True, slots=True)
class TrialInput:
    """What an engine is given to run one trial."""

    number: int
    params: Mapping[str, Scalar]
    seed: int
    half: Literal[0, 1, 2] = 0
    """1 or 2: reconstruct from this half of the data alone, which has nothing in common with the other; 0: from all."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """An array with its units; axes are documented where it is made."""

    data: NDArray[Any]
    units: str = ""
    long_name: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture with calibrated axes: ``data`` is (y, x), ``y`` and ``x`` hold the pixel centres."""

    data: NDArray[Any]
    y: NDArray[Any]
    x: NDArray[Any]
    units: str
    axis_units: str
    title: str


@dataclass(frozen=True, slots=True)
class TrialOutput:
    """What an engine gives back, for a trial that ran to its end or was stopped by its report."""

    metrics: Mapping[str, float]
    """Final values, for ptychography ``loss``, ``contrast`` and whatever else is computed of every trial."""
    curve: Mapping[str, Sequence[float]]
    """Columns of equal length; ``step`` and one for each metric that was known at every step."""
    gradient: Mapping[str, float] = field(default_factory=dict)
    """Derivative of the tuned metric in each tuned parameter that has one, after the last step, in the metric's units
    per unit of the parameter; the curve has it step by step, in columns ``gradient/NAME``."""
    arrays: Mapping[str, Quantity] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    """Of the columns of ``curve`` that have one."""
    image: Image | None = None
    snapshots: Mapping[int, Mapping[str, Quantity]] = field(default_factory=dict)
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    """Facts for the trial's group, for example ``pixel_size`` (angstrom)."""
    log: str = ""
    command: str = ""
    """What ran, quoted for a POSIX shell; empty where no program was run."""
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    """Files that the trial wrote: relative path with ``/`` -> content."""
    left_out: tuple[str, ...] = ()
    """One sentence for each thing that was not kept, and why."""
    ended_itself: bool = False
    """The trial ran to its end before it could be stopped: it is complete, whatever its last report said."""


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One row of the results: a trial that ended, without its arrays."""

    number: int
    state: TrialState
    error: float | None
    """The tuned metric; None for a trial that failed before it had one."""
    params: Mapping[str, Scalar]
    metrics: Mapping[str, float] = field(default_factory=dict)
    gradient: Mapping[str, float] = field(default_factory=dict)
    """Derivative of :attr:`error` in each parameter that has one, per unit of the parameter."""
    relative_decrease: float | None = None
    """By which share of itself the tuned metric still fell in the last step: how far the trial was from rest."""
    iterations: float | None = None
    """What the trial computed, in iterations over the whole scan: one over a part of it counts as that part."""
    last_step: int | None = None
    """The last step that was reported: a pruned trial ended there."""
    reason: Reason = Reason.NONE
    message: str = ""
    """For a failed trial: the exception, in one line."""
    traceback: str = ""
    attempt: int = 1
    retry_of: int | None = None
    origin: str = BY_SAMPLER
    started: str = ""
    """ISO 8601 with time zone."""
    seconds: float = 0.0
    worker: str = ""
    host: str = ""
    job: str = ""
    device: str = ""
    seed: int = 0

    @property
    def began(self) -> datetime | None:
        """When it was started; None where nobody knows."""
        try:
            return datetime.fromisoformat(self.started)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Optimum:
    """Where the model of values and slopes has its optimum, in the parameters that have slopes."""

    center: Mapping[str, float]
    deviation: Mapping[str, float]
    """One standard deviation, in the parameter's units: what the model does not know, not what the metric does not."""
    trial: int
    """The best completed trial, at whose other parameters this holds."""
    is_settled: bool
    """Whether it is inside of the ranges, known to half a grid step, and a completed trial is that near."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a worker's trials compute."""

    threads: int
    cuda: str | None = None
    """``CUDA_VISIBLE_DEVICES`` of the worker; None on a CPU."""


RESULT_SUFFIXES = frozenset({".h5", ".hdf5", ".hdf", ".nxs", ".nx5"})


def path_beside(results: Path, suffix: str) -> Path:
    """The file or folder that belongs to a results file: its name, without an HDF5 suffix, and ``suffix``."""
    stem = results.stem if results.suffix.lower() in RESULT_SUFFIXES else results.name
    return results.with_name(stem + suffix)
