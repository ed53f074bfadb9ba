"""Trials of a program on one worker."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ptydask.engines import Checkpoint, Report, TrialFailure, hash_file
from ptydask.engines.command import arguments, devices, messages, program, removal, wandb_offline
from ptydask.engines.command.attempt import PreparedProgram, ProgramRun
from ptydask.engines.command.validation import preview_command, program_in, working_directory
from ptydask.errors import ConfigError
from ptydask.model import Slot, StudyPlan, TrialInput, TrialOutput
from ptydask.space import sweep_values

HOOK = Path(__file__).parent / "hook"
"""What every Python program of a trial imports first."""
METRICS = "metrics.jsonl"
"""Name, in the trial's folder, of the file that the program's values come by."""


class CommandSession:
    """Runs a study's program once for each trial; see :class:`ptydask.engines.Session`."""

    def __init__(self, plan: StudyPlan, slot: Slot) -> None:
        self._plan, self._slot = plan, slot
        mapped = plan.config["engine"]["devices"] is not None
        self._device = devices.slot_device(slot) if mapped else devices.SlotDevice(None)

    def run(self, trial: TrialInput, report: Report, checkpoint: Checkpoint) -> TrialOutput:
        """Run the program with the trial's values. Raises TrialFailure; Evicted where the worker has to go."""
        try:
            own = Path(tempfile.mkdtemp(prefix="ptydask-trial-")).resolve()
        except OSError as error:
            raise TrialFailure(f"{socket.gethostname()} has no room for the trial's own folder: {error}") from None
        try:
            return ProgramRun(self._plan, self._prepare_program(trial, own), report).run()
        finally:
            removal.remove(own)

    def _prepare_program(self, trial: TrialInput, own: Path) -> PreparedProgram:
        config = self._plan.config
        values = sweep_values.values(config, trial.params)
        devices.set_device(config, values, self._device)
        directory = working_directory(config, own)
        program_name = program_in(config, directory)
        try:
            environ = self._trial_environment(trial, own, values)
            expanded = arguments.expand(config["command"], program_name, values, environ, own)
        except OSError as error:
            raise TrialFailure(f"{socket.gethostname()}: the trial's own folder cannot be written: {error}") from None
        try:
            started = program.find(expanded.argv, directory, environ, program_name)
        except ConfigError as error:
            name = Path(config["program"] or expanded.argv[0]).name
            message = messages.not_started(name, str(error), socket.gethostname())
            detail = messages.failure_detail("", arguments.shell_text(expanded.shown), str(directory))
            raise TrialFailure(message, detail) from None
        return PreparedProgram(
            name=started.name,
            argv=(started.executable, *expanded.argv[1:]),
            command=program.shell_command(expanded, started),
            directory=directory,
            environ=environ,
            folder=own,
            metrics=own / METRICS,
        )

    def _trial_environment(self, trial: TrialInput, own: Path, values: Mapping[str, Any]) -> dict[str, str]:
        plan = self._plan
        inherited = {name: value for name, value in os.environ.items() if name not in wandb_offline.DROPPED}
        # What Python prints is seen at once: as a sign of life, in order, and all of it should the program be killed.
        environ = {"PYTHONUNBUFFERED": "1", **inherited, **plan.config["engine"]["environment"]}
        study = hashlib.sha256(os.fsencode(f"{plan.name}\0{plan.results}")).hexdigest()[:8]
        paths = [str(HOOK)]
        if environ.get("PYTHONPATH"):
            paths.append(environ["PYTHONPATH"])
        own_values = {
            **wandb_offline.environment(own, f"{study}-{trial.number}", study, values),
            "WANDB_SYMLINK": "false",  # files that a program saves are copied into its run's folder, and so kept
            "PTYDASK_TRIAL": str(trial.number),
            "PTYDASK_SEED": str(trial.seed),
            "PTYDASK_FOLDER": str(own),
            "PTYDASK_METRICS": str(own / METRICS),
            "PYTHONPATH": os.pathsep.join(paths),
            **self._device.environ,
        }
        if self._slot.cuda is not None:
            own_values["CUDA_VISIBLE_DEVICES"] = self._slot.cuda
        return program.build_environment(environ, own_values)

    def provenance(self) -> Mapping[str, str]:
        """The program's file and its SHA-256, versions of Python and of W&B, the device."""
        config, file = self._plan.config, None
        facts = {
            "engine": "command",
            "program": str(config["program"] or config["command"][0]),
            "python": platform.python_version(),
            "device": "cpu" if self._slot.cuda is None else f"GPU {self._slot.cuda}",
            "threads": str(self._slot.threads),
        }
        with suppress(PackageNotFoundError):
            facts["wandb"] = version("wandb")
        with suppress(ConfigError):  # each trial will say it
            file = preview_command(self._plan).program.file
        with suppress(OSError):
            if file is not None and file.is_file():
                facts |= {"program": str(file), "program_sha256": hash_file(file)}
        return facts

    def close(self) -> None:
        """Nothing is kept between trials."""
