"""The parameter by which a program is told its GPU, where it sets CUDA_VISIBLE_DEVICES itself, as ldctbench-train does.

Such a program overwrites the variable that it was given, so an index means what it means there: the very one that the
slot's CUDA_VISIBLE_DEVICES has. A GPU that is named by its UUID has an index too, in the order of the PCI bus, which
``nvidia-smi -L`` counts in.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ptydask.errors import DataError
from ptydask.model import Slot

_GPU = re.compile(r"^GPU (\d+): .*\(UUID: (GPU-[^)]+)\)", re.MULTILINE)
_INSTANCE = re.compile(r"\(UUID: (MIG-[^)]+)\)")


@dataclass(frozen=True, slots=True)
class SlotDevice:
    """A slot's GPU as a program is told it."""

    index: int | None
    """None on a CPU: the file's own value stays."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """What the program's environment needs for the index to mean that GPU."""


def list_gpus() -> str:
    """What ``nvidia-smi -L`` says: each GPU with its index and UUID, its MIG instances below it; "" without it."""
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def slot_device(slot: Slot, listed: Callable[[], str] = list_gpus) -> SlotDevice:
    """The slot's GPU, the first of several. Raises DataError for one that is named, and has no index here."""
    if slot.cuda is None:
        return SlotDevice(None)
    name = slot.cuda.split(",")[0].strip()
    if name.isdecimal():
        return SlotDevice(int(name))
    text = listed()
    gpus = _GPU.findall(text)
    # As in CUDA_VISIBLE_DEVICES, the beginning of a UUID will do where one GPU alone has it.
    indices = [index for index, uuid in gpus if uuid.startswith(name)]
    if len(indices) == 1:
        return SlotDevice(int(indices[0]), {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    if name.startswith("MIG-") and len(gpus) == 1 and len(_INSTANCE.findall(text)) == 1:
        return SlotDevice(0)  # the only instance that this process may use is the first that CUDA finds
    rule = "the program takes the index of a GPU, and this one has none"
    hint = "name the GPU by its index in CUDA_VISIBLE_DEVICES"
    raise DataError(rule, key="engine.devices", value=name, hint=hint)


def set_device(config: Mapping[str, Any], values: dict[str, Any], device: SlotDevice) -> None:
    """Set the parameter that names the device, where the sweep has one and the slot a GPU, to the GPU's index."""
    name = config["engine"]["devices"]
    if name is None or device.index is None:
        return
    *parents, last = next(entry["path"] for entry in config["parameters"] if entry["name"] == name)
    section = values
    for parent in parents:
        section = section[parent]
    section[last] = device.index
