"""What the root of a results file says of the studies in it."""

from __future__ import annotations

from pathlib import Path

import h5py

from ptydask.store import layout, nexus, refused

STAGE_UNSEALED = (layout.TRIALS, layout.THUMBNAILS)
"""What the digest of a stage leaves out: trials, and their images, have digests and checksums of their own."""


def stage_groups(file: h5py.File) -> list[str]:
    """The names of the groups that earlier stages are, in their order."""
    return [name.decode() for name in file.attrs.get(layout.STAGES, ())]


def unsealed_paths(file: h5py.File) -> set[str]:
    """What the file's own digest leaves out of its study, and of earlier stages. (A confirmation counts as a whole.)"""
    studies = [nexus.read_attribute(file, "default"), *stage_groups(file)]
    return {f"{study}/{name}" for study in studies for name in STAGE_UNSEALED}


def further_groups(path: Path) -> set[str]:
    """The studies in ``path`` besides the one that it is of, by their groups. Raises StoreError on damage."""
    with refused.opened(path) as file:
        return set(file) - {nexus.read_attribute(file, "default")}


def stage_ids(path: Path) -> list[str]:
    """The ids of the stages in ``path`` before the study that it is of. Raises StoreError on damage."""
    with refused.opened(path) as file:
        return [nexus.read_attribute(file[name], layout.STORE_ID) for name in stage_groups(file)]
