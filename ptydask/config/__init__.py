"""Files that describe a study. A format is one module and one entry point in ``ptydask.formats``."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from ptydask import registry
from ptydask.config import own_settings, reading
from ptydask.config.own_settings import OwnSettings
from ptydask.config.stages import Stage, StageInput, key_in_stage, latest_ranges, rehearse_stage, settings_of_stage
from ptydask.config.sweep import buried
from ptydask.distributions import Distribution
from ptydask.errors import ConfigError, UsageError
from ptydask.model import Scalar, SourceFile, StudyPlan


@dataclass(frozen=True)
class Overrides:
    """What the command line says that the file does not have to. None leaves it to the file."""

    settings: tuple[tuple[str, Any], ...] = ()
    """``--set``: dotted key and value, applied in this order before anything else reads the file."""
    n_trials: int | None = None
    """Trials in total, whatever the number of workers."""
    timeout: float | None = None
    """Seconds."""
    results: Path | None = None
    storage: str | None = None
    engine: str | None = None
    sampler: str | None = None
    """Optuna's class by name, with ptydask's settings for it; beats the file's own search."""
    seed: int | None = None
    tries: tuple[Mapping[str, Scalar], ...] = ()
    """Points to try first."""
    search: Literal["auto", "file"] | None = None
    """Who chooses the points; see :attr:`ptydask.model.StudyPlan.search`."""
    until_settled: bool | None = None
    """Whether the study ends once its optimum is settled."""
    metric: str | None = None
    """What is tuned."""
    stages: Literal["recommended", "none"] | None = None
    """``recommended`` takes the place of the file's stages, ``none`` switches them off."""
    guess: Literal["point", "ranges"] | None = None
    """Whether what the patterns tell is tried first, and whether it narrows the ranges, too."""
    own: OwnSettings = field(default_factory=OwnSettings)
    """What the file's section ``ptydask`` says, and the fields above where they do: filled in by :func:`load`."""
    stage: StageInput | None = None
    """The stage that is planned; None for the study as a whole. Filled in by :func:`load`."""


@dataclass(frozen=True)
class StudyFile:
    """A params or sweep file as it was read, and what is ptydask's own beside it."""

    source: SourceFile
    data: dict[str, Any]
    """Its keys, the section ``ptydask`` among them."""
    own_file: SourceFile | None = None
    """The file of ptydask's own that named it."""
    section: Mapping[str, Any] = field(default_factory=dict)
    """What that file says beside it, as the section ``ptydask`` would have it."""


class Format(Protocol):
    """One kind of file, registered in ``ptydask.formats``."""

    def recognises(self, data: dict[str, Any]) -> bool:
        """Whether ``data`` looks like a file of this kind, right or wrong in its details."""

    def straighten(self, data: dict[str, Any]) -> tuple[str, ...]:
        """Puts right, in place, a slip of layout that can mean one thing only, before ``--set``; what was done."""

    def plan(self, source: SourceFile, data: dict[str, Any], overrides: Overrides) -> StudyPlan:
        """The study that ``data`` asks for. Raises ConfigError; may change ``data``."""

    def stages(self, data: dict[str, Any], overrides: Overrides) -> tuple[Stage, ...]:
        """The stages of the study, each checked for itself. Raises ConfigError; may change ``data``."""

    def key_of(self, key: str) -> str:
        """Where in the file that is which the plan calls ``sampler_params...`` or ``pruner_params...``."""


def load(
    path: Path, overrides: Overrides = Overrides(), stage: StageInput | None = None, file: StudyFile | None = None
) -> StudyPlan:
    """The study that a file asks for, or one ``stage`` of it, checked as far as that goes without its engine.

    Without ``stage``, stages that the file has are not heeded. ``file`` is what :func:`read` returned of it earlier: it
    counts, whatever the file is by now. Raises ConfigError, which names the file, for a file
    that cannot be read, is of no known format, or breaks a rule of its format; MissingDependency for a sampler whose
    package is not installed.
    """
    file = file or read(path)
    with _naming_file(file):
        return _plan_study(file, overrides, stage)


def load_stages(path: Path, overrides: Overrides = Overrides(), file: StudyFile | None = None) -> tuple[Stage, ...]:
    """The stages that a file asks for, in their order; () for one study without any.

    Each is checked as far as :func:`load` would, with values in the middle of its ranges for those that earlier stages
    are to find; ``file`` as there. Raises what that raises.
    """
    file = file or read(path)
    with _naming_file(file):
        opened = _open_study(file, overrides)
        stages = opened.format.stages(opened.data, replace(overrides, own=opened.own))
        ranges: dict[str, Distribution] = {}
        for place, stage in enumerate(stages):
            with naming_stage(stage, place, file, overrides):
                plan = _plan_study(file, overrides, rehearse_stage(stages, place, ranges))
            ranges |= latest_ranges(stage, plan.space)
    return stages


@dataclass(frozen=True)
class _OpenedStudy:
    format: Format
    data: dict[str, Any]
    """Without the section ``ptydask``."""
    own: OwnSettings
    repairs: tuple[str, ...]


def _open_study(file: StudyFile, overrides: Overrides) -> _OpenedStudy:
    """What the file says with everything that is said beside it. Raises ConfigError."""
    data = copy.deepcopy(file.data)
    formats = _known_formats()
    # --set may decide what kind of file this is, so the format is looked for again afterwards.
    form = _find_format(data, formats)
    repairs = () if form is None else form.straighten(data)
    repairs = (*repairs, *_hidden_keys(data, file))
    own_settings.add_to_section(data, file.section)
    for key, new in overrides.settings:
        if file.own_file is not None and key.partition(".")[0] in own_settings.KEYS:  # as that file has it
            key = f"{own_settings.SECTION}.{key}"  # noqa: PLW2901
        reading.set_value(data, key, new)
    form = _find_format(data, formats)
    if form is None:
        hint = "a PtyRAD params file has the section init_params, "
        hint += "a W&B sweep file the keys method and parameters, a file that names one of them the key params"
        hint = buried.find_in_data(data) or hint
        raise ConfigError("is no file that ptydask knows", key=next(iter(data), "(empty mapping)"), hint=hint)
    below = own_settings.pop_section(data)
    own = OwnSettings(overrides.search, overrides.until_settled, error_metric=overrides.metric).over(below)
    return _OpenedStudy(form, data, own, repairs)


def _hidden_keys(data: Mapping[str, Any], file: StudyFile) -> Iterator[str]:
    """What the params file says of ptydask's own and the file that names it says, too."""
    below = data.get(own_settings.SECTION)
    if not isinstance(below, dict):
        return
    for key in file.section:
        if key in below and below[key] != file.section[key]:
            yield f"{own_settings.SECTION}.{key} of {file.source.path} is not used: the file that names it has its own"


def _plan_study(file: StudyFile, overrides: Overrides, given: StageInput | None) -> StudyPlan:
    opened = _open_study(file, overrides)
    form, own = opened.format, opened.own
    if given is not None:
        own = settings_of_stage(own, given.stage)
        overrides = replace(overrides, sampler=overrides.sampler if given.stage.sampler is None else None)
    plan = form.plan(file.source, opened.data, replace(overrides, own=own, stage=given))
    notices = (*opened.repairs, *plan.notices, *_check_plan(plan, form, overrides), *_late_end(plan, own))
    return replace(
        plan,
        notices=notices,
        # Who names a sampler on the command line wants that one; the file's name is mostly its template's.
        search=own.search or ("auto" if overrides.sampler is None else "file"),
        until_settled=bool(own.until_settled),
        no_gain=own.no_gain,
        own_file=file.own_file,
        settings=tuple(key for key, _ in overrides.settings),
    )


def _late_end(plan: StudyPlan, own: OwnSettings) -> Iterator[str]:
    """That ``stop_when`` counts more trials than there are."""
    no_gain, trials = own.no_gain, plan.budget.n_trials
    if no_gain is not None and plan.space and plan.budget.total and no_gain.trials >= trials:
        yield f"stop_when counts {no_gain.trials} trials without a gain, and there are {trials}: all of them are run"


@contextmanager
def _naming_file(file: StudyFile) -> Iterator[None]:
    """Whatever is refused within names the file; where a key of ptydask's own is in its own file, that one."""
    try:
        yield
    except ConfigError as error:
        raise _in_own_file(error, file).in_file(file.source.path) from None
    except RecursionError:
        raise ConfigError("is nested too deeply", file=file.source.path) from None


def _in_own_file(error: ConfigError, file: StudyFile) -> ConfigError:
    """The same error; of a key that a file of ptydask's own has, with that file."""
    section, _, key = error.key.partition(".")
    if file.own_file is None or section != own_settings.SECTION or re.split(r"[.[]", key)[0] not in file.section:
        return error
    place = file.own_file.path if error.file in (None, file.source.path) else error.file
    return type(error)(error.rule, file=place, key=key, value=error.value, hint=error.hint)


@contextmanager
def naming_stage(stage: Stage, place: int, file: StudyFile, overrides: Overrides) -> Iterator[None]:
    """Whatever is refused within names the stage, the one at ``place`` of the list: by its own key, where it has one
    for what is refused, in the file that it stands in."""
    try:
        yield
    except ConfigError as error:
        raise _at_stage(error, stage, place, file, overrides) from None


def _at_stage(error: ConfigError, stage: Stage, place: int, file: StudyFile, overrides: Overrides) -> ConfigError:
    section = {**(file.data.get(own_settings.SECTION) or {}), **file.section}
    is_written = isinstance(section.get("stages"), list) and overrides.stages is None
    if stage.is_final:
        is_written = isinstance(section.get("final"), Mapping)
    key, rule, value, hint = key_in_stage(error.key, stage), error.rule, error.value, error.hint
    if not is_written or not key:
        return type(error)(f"{rule} (stage {stage.name})", file=error.file, key=error.key, value=value, hint=hint)
    if key == "scan" and "BATCH_SIZE" in error.key:  # the file's, and too large for what the stage leaves of the scan
        rule, value, hint = f"{error.key} = {value}: {rule}", ..., "give the stage a batch_size, or more of the scan"
    if error.file not in (None, file.source.path):
        where = file.source if file.own_file is None else file.own_file
        rule += f" (stage {stage.name} of {where.path})"
    key = f"{own_settings.SECTION}.{'final' if stage.is_final else f'stages[{place}]'}.{key}"
    return _in_own_file(type(error)(rule, file=error.file, key=key, value=value, hint=hint), file)


def describes_study(path: Path) -> bool:
    """Whether the file at ``path`` looks like one of a study, right or wrong in its details; a cluster profile is none.

    Raises ConfigError, which names the file, where it cannot be read.
    """
    _, data = reading.read(path)
    return _find_format(data, _known_formats()) is not None or own_settings.is_own_file(data)


def read(path: Path) -> StudyFile:
    """The params or sweep file at ``path``, or the one that a file of ptydask's own there names.

    Raises ConfigError, which names the file that cannot be read or that breaks a rule.
    """
    source, data = reading.read(path)
    if _find_format(data, _known_formats()) is not None or not own_settings.is_own_file(data):
        return StudyFile(source, data)
    params, section = own_settings.read_own_file(path, data)
    named, named_data = reading.read(params)
    if _find_format(named_data, _known_formats()) is None and own_settings.is_own_file(named_data):
        rule, hint = "names a params file itself", "name that one here"
        raise ConfigError(rule, file=path, key=own_settings.PARAMS, value=str(params), hint=hint)
    return StudyFile(named, named_data, source, section)


_EXAMPLES = "parameters.lr.max=0.1 or recon_params.NITER=20"


def parse_setting(text: str) -> tuple[str, Any]:
    """``recon_params.NITER=20`` as key and value, the value read as YAML. Raises UsageError."""
    key, sign, raw = text.partition("=")
    key = key.strip()
    if not sign or not all(part.strip() for part in key.split(".")):
        raise UsageError(f"--set {text!r}: must be key=value, for example {_EXAMPLES}")
    try:
        return key, reading.parse_value(raw)
    except ConfigError as error:
        raise UsageError(f"--set {text!r}: {error.rule}") from None


def parse_point(text: str) -> dict[str, Scalar]:
    """``scale=1.02 rotation=-1.5`` as a mapping. Raises UsageError."""
    point: dict[str, Scalar] = {}
    for word in _split_words(text):
        name, sign, raw = word.partition("=")
        if not sign or not name or not raw:
            raise UsageError(f"--try {text!r}: must be name=value, one or more, with blanks between them")
        if name in point:
            raise UsageError(f"--try {text!r}: {name} is there twice")
        try:
            new = reading.parse_value(raw)
        except ConfigError as error:
            raise UsageError(f"--try {text!r}: {error.rule}") from None
        if isinstance(new, list | dict):
            raise UsageError(f"--try {text!r}: {name} must be one number or word; quote a list: {name}='[1, 2]'")
        point[name] = new
    if not point:
        raise UsageError("--try: names no parameter")
    return point


def _split_words(text: str) -> list[str]:
    """``text`` cut at blanks and commas, but not within a value in quotes or brackets."""
    return re.findall(r"""(?:[^\s,=]*=(?:'[^']*'|"[^"]*"|\[[^\]]*\]|\{[^}]*\})|[^\s,])[^\s,]*""", text)


def _known_formats() -> list[Format]:
    return [cast(Format, registry.load("formats", name)()) for name in registry.names("formats")]


def _find_format(data: dict[str, Any], formats: Sequence[Format]) -> Format | None:
    return next((candidate for candidate in formats if candidate.recognises(data)), None)


def _check_plan(plan: StudyPlan, form: Format, overrides: Overrides) -> tuple[str, ...]:
    """What the sampler factory and the storage refuse, and what they say; imported here, as both load Optuna."""
    from ptydask import sampling
    from ptydask.storage import urls

    if not plan.results.name:
        raise ConfigError("must name a file, not a folder", key="--results", value=str(plan.results))
    urls.parse(plan.storage, plan.results)
    try:
        return sampling.rehearse_search(plan)
    except ConfigError as error:
        by_option = overrides.sampler is not None and error.key.startswith("sampler_params")
        key = "--sampler" if by_option else form.key_of(error.key)
        raise ConfigError(error.rule, file=error.file, key=key, value=error.value, hint=error.hint) from None
