"""The state of a trial between two iterations as bytes, from which it goes on as if it had never stopped.

A resumed trial is prepared like a new one, from its params and seed; then everything that an iteration changes is
put back: object, probe, positions, tilts and thickness, the optimizer and the schedule of its learning rates, the
random generators, and what the trial has to tell (curve, snapshots, log, times). The measurements are not in it.

Of gradients nothing is left between iterations: PtyRAD's last batch always ends in an optimizer step. What PtyRAD
keeps of its course on the model (losses, times, learning rates) is read by nothing in an iteration.

The bytes hold tensors and plain containers alone, and are read as such: no pickle among them is ever executed.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from ptydask.engines.ptyrad import reconstruction, release
from ptydask.engines.ptyrad.reconstruction import COLUMNS, IterationHistory, Reconstruction
from ptydask.lineage import TrialStart
from ptydask.model import HeldOut, KeepOptions, Quantity, TrialInput

FORMAT = 3
"""Raised with every change of what is in the bytes: a trial does not go on from those of another number."""

_CHECKSUM = hashlib.sha256


class UnusableCheckpoint(Exception):  # noqa: N818 - the trial starts from the beginning, and its log says why
    """A checkpoint from which this trial cannot go on."""


@dataclass(slots=True)
class TrialProgress:
    """How far a trial has come, in all its attempts; times in seconds."""

    course: IterationHistory = field(default_factory=IterationHistory)
    initialisation: float = 0.0
    wall: float = 0.0
    peak_gpu_memory: int = 0
    """Bytes."""
    log: str = ""


def identity(
    params: Mapping[str, Any],
    trial: TrialInput,
    keep: KeepOptions,
    device: str,
    held_out: HeldOut | None = None,
    start: TrialStart | None = None,
) -> dict[str, Any]:
    """What must be the same in the attempt that saves and the one that goes on; ``params`` as the trial starts."""
    unseen = [trial.half, None if held_out is None else asdict(held_out)]
    decides = json.dumps([params, trial.seed, keep.arrays, keep.snapshot_every, unseen], sort_keys=True, default=repr)
    return {
        "engine": "ptyrad",
        "format": FORMAT,
        "PtyRAD": release.installed().version,
        "torch": str(torch.__version__),
        "device": device,
        "trial": dict(trial.params),
        "params": hashlib.sha256(decides.encode()).hexdigest(),
        "start": None if start is None else start.sha256,
    }


def pack(trial_identity: Mapping[str, Any], recon: Reconstruction, progress: TrialProgress) -> bytes:
    """The state after the last iteration of ``progress``. Raises TypeError where a part of it is not plain data."""
    content = {
        "identity": trial_identity,
        "batches": _batches_digest(recon.batches),
        "model": dict(recon.model.state_dict()),
        "optimizer": _optimizer_state(recon.optimizer),
        "scheduler": release.scheduler_state(recon.scheduler),
        "random": reconstruction.random_state(recon.model.device),
        "course": {name: getattr(progress.course, name) for name in COLUMNS},
        "snapshots": {n: _as_tensors(arrays) for n, arrays in progress.course.snapshots.items()},
        "initialisation": progress.initialisation,
        "wall": progress.wall,
        "peak_gpu_memory": progress.peak_gpu_memory,
        "log": progress.log,
    }
    file = io.BytesIO()
    torch.save(to_plain(content), file)
    file.write(_CHECKSUM(file.getbuffer()).digest())
    return file.getvalue()


def unpack(state: bytes, trial_identity: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`pack` was given. Raises UnusableCheckpoint where the bytes are damaged or of something else."""
    size = _CHECKSUM().digest_size
    body = memoryview(state)[:-size]
    if len(state) <= size or _CHECKSUM(body).digest() != state[-size:]:
        raise UnusableCheckpoint("it is damaged")
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(body), weights_only=True)
        saved = content["identity"]
        different = [name for name in {**trial_identity, **saved} if trial_identity.get(name) != saved.get(name)]
    except Exception as error:
        raise UnusableCheckpoint(f"it cannot be read: {type(error).__name__}") from error
    if different:
        raise UnusableCheckpoint(f"it is of another {' and '.join(different)}")
    return content


def restore(content: Mapping[str, Any], recon: Reconstruction) -> TrialProgress:
    """Put a saved state into a reconstruction that was prepared for the same trial. Returns how far it had come.

    Raises UnusableCheckpoint where its batches are others; it is unchanged then. Whatever else is raised leaves it in
    pieces.
    """
    if content["batches"] != _batches_digest(recon.batches):
        raise UnusableCheckpoint("its scan positions were grouped in another way")
    recon.model.load_state_dict(content["model"])
    _set_optimizer_state(recon.optimizer, content["optimizer"])
    if recon.scheduler is not None:
        recon.scheduler.load_state_dict(content["scheduler"])
    progress = TrialProgress(
        IterationHistory(
            **{name: content["course"][name] for name in COLUMNS},
            snapshots={n: _as_quantities(arrays) for n, arrays in content["snapshots"].items()},
        ),
        initialisation=content["initialisation"],
        wall=content["wall"],
        peak_gpu_memory=content["peak_gpu_memory"],
        log=content["log"],
    )
    reconstruction.set_random_state(content["random"], recon.model.device)
    return progress


def to_plain(value: Any) -> Any:
    """The same value in tensors, numbers, text, None, dicts, lists and tuples. Raises TypeError for anything else."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.generic):  # before float, which np.float64 is as well
        return value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (dict, OrderedDict, defaultdict):
        return {to_plain(key): to_plain(entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(to_plain(entry) for entry in value)
    raise TypeError(f"a {type(value).__name__} cannot be kept in a checkpoint")


def _batches_digest(batches: Sequence[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(f"{tuple(batch.shape)} {batch.dtype}".encode())
        digest.update(batch.cpu().numpy().tobytes())
    return digest.hexdigest()


def _optimizer_state(optimizer: Any) -> dict[str, Any]:
    state = optimizer.state_dict()
    groups = [{name: value for name, value in group.items() if name != "params"} for group in state["param_groups"]]
    return {"state": state["state"], "groups": groups}


def _set_optimizer_state(optimizer: Any, saved: Mapping[str, Any]) -> None:
    """As its ``load_state_dict``, which however moves what an optimizer keeps on the CPU to the GPU."""
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    for group, settings in zip(optimizer.param_groups, saved["groups"], strict=True):
        group.update(settings)
    optimizer.state.clear()
    for index, state in saved["state"].items():
        optimizer.state[tensors[index]] = state


def _as_tensors(arrays: Mapping[str, Quantity]) -> dict[str, Any]:
    return {name: (torch.from_numpy(q.data), q.units, q.long_name) for name, q in arrays.items()}


def _as_quantities(arrays: Mapping[str, Any]) -> dict[str, Quantity]:
    return {name: Quantity(data.numpy(), units, title) for name, (data, units, title) in arrays.items()}
