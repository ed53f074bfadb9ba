"""The layout of a results file: every name in it, once."""

from __future__ import annotations

FORMAT = "ptydask"
FORMAT_VERSION = 1

# Attributes of the root
PACKED = "packed"
"""A file that holds everything."""
INDEX = "index"
"""A file beside a folder of trial files, while a run is on."""

# In the study's group
STUDY_JSON = "study_json"
CONFIG = "config"
CONFIG_JSON = "config_json"
SEARCH_SPACE = "search_space"
PROVENANCE = "provenance"
TABLE = "table"
HISTORY = "history"
THUMBNAILS = "thumbnails"
TRIALS = "trials"
BEST = "best"
BY_ERROR = "by_error"
BY_PARAMS = "by_params"

# In the table
RECORD_JSON = "record_json"
PARAMS = "params"
METRICS = "metrics"

# In a trial's group
TRACEBACK = "traceback"
PARAMS_JSON = "params_json"
ATTRIBUTES_JSON = "attributes_json"
CURVE = "curve"
STEP = "step"
IMAGE = "image"
DATA = "data"
SNAPSHOTS = "snapshots"
THUMBNAIL = "thumbnail"
LOG = "log"

# In a trial's own file
TRIAL = "trial"

LINKED = 100
"""Trials within reach of links while a run is on: viewers open every link that they show."""


def snapshot_name(step: int) -> str:
    """``iter_0000020``."""
    return f"iter_{step:07d}"


def snapshot_step(name: str) -> int:
    """The step of the snapshot ``iter_0000020``."""
    return int(name.removeprefix("iter_"))
