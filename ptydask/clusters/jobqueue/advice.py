"""What to do about it, for a run that cannot have its jobs: a few words by what the batch system, or a log, says."""

from __future__ import annotations

import re

_ADVICE = (
    (r"the python of the profile, .* is not there", "set `python` of the profile to one that the nodes have"),
    (
        r"No module named|ModuleNotFoundError|ImportError|PackageNotFoundError",
        "the Python of the jobs needs ptydask and all that it uses: see `python` and `environment` of the profile",
    ),
    (r"ptydask: module load ", "on a node `module avail` lists what there is: see `modules` of the profile"),
    (
        r"invalid partition|PartitionDown|PartitionInactive",
        "`sinfo -s` lists the partitions: see `queue` of the profile",
    ),
    (
        r"PartitionTimeLimit|invalid time limit|time limit is invalid",
        '`sinfo -o "%P %l"` has the limits: see `walltime` of the profile',
    ),
    (r"account", "`sacctmgr show assoc user=$USER` lists yours: see `account` of the profile"),
    (r"qos|quality of service", "`sacctmgr show assoc user=$USER format=account,qos` lists them: see `qos`"),
    (r"generic resource|\bgres\b", '`sinfo -o "%P %G"` lists the GPUs: see `gpus` and `gpu_type` of the profile'),
    (r"feature specification|BadConstraints", '`sinfo -o "%N %f"` lists the features: see `constraint` of the profile'),
    (
        r"node configuration|memory specification|memory required|more processors",
        'no node has what a job asks for: `sinfo -o "%P %c %m %G"` lists cores, memory [MB] and GPUs of the nodes; '
        "see `cpus`, `memory`, `gpus` and `gpu_type` of the profile (without one a job asks for 16 GB)",
    ),
    (
        r"JobLaunchFailure|signal 53\b|RaisedSignal:53",  # so SLURM says that the job's log cannot be opened
        "the nodes have to see the folder of the results, or else `shared_directory` of the profile",
    ),
    (r"unrecognized option|invalid option", "see `directives` of the profile"),
)


def advice_for(text: str) -> str:
    """What to do about ``text``, which says why there are no workers; empty where there is nothing to advise."""
    return next((what for pattern, what in _ADVICE if re.search(pattern, text, re.IGNORECASE)), "")
