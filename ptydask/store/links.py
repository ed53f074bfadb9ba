"""The ways to a study's trials that viewers follow: the best one, by rank, by parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py

from ptydask.model import StudyMeta, TrialRecord
from ptydask.store import codec, draft, files, layout, names, nexus, trialgroup


def write_best(study: h5py.Group, best: TrialRecord, file: Path, group: str, meta: StudyMeta) -> None:
    """Link the best trial, whose ``group`` is in ``file``.

    Of one in another file, link what is in it: nexusformat does not look further there.
    """
    path = f"{study.name}/{layout.TRIALS}/{names.trial_name(best.number)}"
    link = study.get(path, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        try:
            with files.open_read_only(file) as opened:
                copy = nexus.create_group(study, layout.BEST, "NXprocess")
                trialgroup.copy_description(copy, opened[group], best, direction=meta.direction, metric=meta.metric)
                for member in opened[group]:
                    copy[member] = h5py.ExternalLink(link.filename, f"{link.path}/{member}")
            return
        except files.BROKEN:  # its file has gone, or is damaged: the link alone then
            if layout.BEST in study:
                del study[layout.BEST]
    study[layout.BEST] = h5py.SoftLink(path)


def write_links(
    study: h5py.Group, reached: Sequence[TrialRecord], best: Sequence[TrialRecord], meta: StudyMeta
) -> draft.Group:
    """Link the trials that are within reach by their rank, and by their parameters.

    Returns what was written into ``study``.
    """
    target = {record.number: f"{study.name}/{layout.TRIALS}/{names.trial_name(record.number)}" for record in reached}
    content = draft.Group()  # thousands of links, in thousands of groups
    by_error = nexus.create_group(content, layout.BY_ERROR, "NXcollection")
    for rank, record in enumerate(best, start=1):
        if record.number in target:
            name = names.by_error_name(rank, record, params=meta.keep.params_in_names)
            by_error[name] = h5py.SoftLink(target[record.number])
    by_params = nexus.create_group(content, layout.BY_PARAMS, "NXcollection")
    # Groups that are made already, by their path below ``by_params``: trials share the first levels.
    groups: dict[tuple[str, ...], draft.Group] = {(): by_params}
    order = list(codec.search_space(meta))
    for record in reached:
        below = _nested_group(groups, tuple(names.by_params_path(record.params, order)))
        below[f"trial={names.trial_name(record.number)}"] = h5py.SoftLink(target[record.number])
    draft.save(study, content)
    return content


def _nested_group(groups: dict[tuple[str, ...], draft.Group], path: tuple[str, ...]) -> draft.Group:
    if path not in groups:
        groups[path] = nexus.create_group(_nested_group(groups, path[:-1]), path[-1], "NXcollection")
    return groups[path]
