"""What the results file says of where it comes from."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ptydask import __version__, engines, sampling
from ptydask.driver import comparability
from ptydask.engines import fingerprint, function_target
from ptydask.errors import ConfigError, redact
from ptydask.model import StudyMeta, StudyPlan

_PACKAGES = ("distributed", "optuna", "h5py", "numpy")
_DIGEST = "sha256 "
"""A fact of this beginning is the SHA-256 of the file that the key after it names ..."""
_DIGESTS = {"init_params.meas_params.path": "data_sha256", "program": "program_sha256"}
"""... but for these keys."""
DATA_PATH = "init_params.meas_params.path"
"""The setting that names PtyRAD's measurements."""


def study_meta(plan: StudyPlan, *, command: str = "") -> StudyMeta:
    """The study as its results file describes it, as far as this process knows; the workers' facts come later.

    ``command`` says how the run was asked for, where it was not by this process's command line.
    """
    files = {"config_path": str(plan.source.path.absolute())}
    if plan.own_file is not None:
        files |= {"own_file": str(plan.own_file.path.absolute()), "own_file_text": redact(plan.own_file.text)}
    return StudyMeta(
        name=plan.name,
        direction=plan.direction,
        metric=plan.metric,
        engine=plan.engine,
        config_text=redact(plan.source.text),
        config_format=plan.source.format,
        config_json=json.dumps(plan.config, default=str),
        search_space_json=sampling.search_space_json(plan.space),
        keep=plan.keep,
        held_out=plan.held_out,
        own_metrics=plan.own_metrics,
        lineage=plan.lineage,
        provenance={**process_provenance(command), **files, "settings": " ".join(plan.settings)},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def compare(old: StudyMeta, new: StudyMeta, *, file: Path) -> list[str]:
    """Notices for what changed since the trials in ``file``. Raises ConfigError where they are not comparable.

    Files that moved are known by their SHA-256.
    """
    engine = engines.get(new.engine)
    before = engine.essential(config_of(old)) if old.engine == new.engine else {}
    return comparability.compare(
        old,
        new,
        before,
        engine.essential(config_of(new)),
        file=str(file),
        moved=lambda key, earlier, now: (
            _describe_move(old.provenance, key, earlier, now, file)
            or _describe_moved_function(old.provenance, key, earlier, now, _function_folders(new))
        ),
    )


def is_same_file(a: StudyMeta, b: StudyMeta, key: str) -> bool:
    """Whether the file that the setting ``key`` names had the same bytes in both studies, at whatever path."""
    name = _DIGESTS.get(key, f"{_DIGEST}{key}")
    return a.provenance.get(name, "") == b.provenance.get(name) != ""


def _describe_move(recorded: Mapping[str, str], key: str, before: object, now: object, file: Path) -> str:
    """A notice where two values of a setting name the same data, by what is ``recorded`` of them; else "".

    Raises ConfigError where they are known to be others.
    """
    if not (isinstance(before, str) and isinstance(now, str)):
        return ""
    try:
        known = recorded.get(_DIGESTS.get(key, f"{_DIGEST}{key}"), "")
        if not known and Path(before).suffix and Path(before).is_file():  # of earlier studies, and of sweeps
            known = fingerprint.sha256(Path(before))
        if not known or not Path(now).exists():
            return ""
        if known == fingerprint.sha256(Path(now)):
            return f"{key}: {now} has the data that were at {before}"
    except (OSError, ValueError):  # not readable here, or no path at all
        return ""
    if key == "program":
        return ""
    raise _other_data_error(key, known, now, file)


def _describe_moved_function(
    recorded: Mapping[str, str], key: str, before: object, now: object, folders: Sequence[Path]
) -> str:
    """A notice where two targets name one function of one source, by its SHA-256 in what is ``recorded``; else ""."""
    digests = {"engine.callable": "callable_sha256"}
    known = recorded.get(digests.get(key, f"metric {key.removeprefix('ptydask.metrics.')} sha256"), "")
    if not (known and isinstance(before, str) and isinstance(now, str)):
        return ""
    try:
        source = function_target.locate(function_target.parse(now, key, ("",), folders))
        same = source is not None and fingerprint.sha256(source) == known
    except (ConfigError, OSError):
        return ""
    return f"{key}: {now} has the function that was {before}" if same and _name_of(before) == _name_of(now) else ""


def _name_of(target: str) -> str:
    """The function's name in ``package.module:function``."""
    return target.rpartition(":")[2].strip()


def _function_folders(meta: StudyMeta) -> list[Path]:
    """Where functions are looked for: from where the run is started, and beside its files."""
    started = config_of(meta).get("directory")
    files = [meta.provenance[name] for name in ("own_file", "config_path") if name in meta.provenance]
    return [*([Path(started)] if isinstance(started, str) else []), Path.cwd(), *(Path(file).parent for file in files)]


def _other_data_error(key: str, known: str, value: str | None, file: Path) -> ConfigError:
    hint = "give the new data their own results with --results NEW.h5"
    if value is not None and Path(value).is_dir():
        hint += "; a folder counts by its files' sizes and times, which cp -a and rsync -a keep"
    rule = f"the trials in this file are of other data (SHA-256 {known[:12]}...)"
    return ConfigError(rule, file=file, key=key, value=... if value is None else value, hint=hint)


def compare_data(old: StudyMeta, facts: Mapping[str, str], *, file: Path) -> list[str]:
    """Notices for versions and programs that changed. Raises ConfigError where the data are not those in ``file``."""
    before = old.provenance
    sums = {"data_sha256": "data"} | {name: name.removeprefix(_DIGEST) for name in facts if name.startswith(_DIGEST)}
    for name, key in sums.items():
        if before.get(name, facts.get(name)) != facts.get(name):
            raise _other_data_error(key, before[name], facts.get(key), file)
    now = {**process_provenance(), **facts}
    notices = []
    for name, digest in {"program": "program_sha256", "callable_file": "callable_sha256"}.items():
        if name in facts and before.get(digest, now.get(digest)) != now.get(digest):
            notices.append(f"{facts[name]} has changed since the earlier trials")
    notices += _compare_own_metrics(old, facts, file)
    for name in ("ptyrad", "torch", "version_ptydask"):
        if name in before and name in now and before[name] != now[name]:
            package = name.removeprefix("version_")
            notices.append(f"{package} is {now[name]} now, earlier trials ran with {before[name]}")
    return notices


def _compare_own_metrics(old: StudyMeta, facts: Mapping[str, str], file: Path) -> list[str]:
    """A notice for each metric whose source changed. Raises ConfigError where it is the one that is tuned."""
    notices = []
    for key, digest in facts.items():
        name = key.removeprefix("metric ").removesuffix(" sha256")
        if key != f"metric {name} sha256" or old.provenance.get(key, digest) == digest:
            continue
        source = facts.get(f"metric {name} file", "its source")
        if name != old.metric:
            changed = f"{source} has changed since the earlier trials, whose values are of the old one"
            notices.append(f"metric {name}: {changed}; under another name it has a column of its own")
            continue
        rule = f"{source} is not what the trials in this file were scored by (SHA-256 {old.provenance[key][:12]}...)"
        hint = "put the old source back, or give the new study its own file with --results NEW.h5"
        value = facts.get(f"metric {name}", ...)
        raise ConfigError(rule, file=file, key=f"ptydask.metrics.{name}", value=value, hint=hint)
    return notices


def as_of_a_confirmation(error: ConfigError) -> ConfigError:
    """The error, where trials were to be run again as they were: another results file is no way out of it."""
    hint = "a confirmation repeats trials as they were run: put back what it was, or leave it out of --set"
    return type(error)(error.rule, file=error.file, key=error.key, value=error.value, hint=hint)


def config_of(meta: StudyMeta) -> dict[str, Any]:
    """The configuration that a results file holds."""
    config: dict[str, Any] = json.loads(meta.config_json)
    return config


def process_provenance(command: str = "") -> dict[str, str]:
    """This process: host, versions, and ``command``, or its command line, without passwords."""
    versions = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[f"version_{name}"] = version(name)
    return {
        "driver_host": platform.node(),
        "driver_pid": str(os.getpid()),
        "platform": platform.platform(),
        "version_ptydask": __version__,
        "version_python": platform.python_version(),
        **versions,
        "command": redact(command or shlex.join(sys.argv)),
        "working_directory": os.getcwd(),  # noqa: PTH109 - a string is wanted
    }
