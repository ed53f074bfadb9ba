"""The layout of a results file: every name in it, once."""

from __future__ import annotations

FORMAT = "ptydask"
FORMAT_VERSION = 2
"""2 added what a trial knows of its slopes and its cost; files of 1 are read as they are."""

# Attributes of the root
PACKED = "packed"
"""A file that holds everything."""
INDEX = "index"
"""A file beside a folder of trial files, while a run is on."""
CONFIRMATION = "confirmation"
"""Which group of the root is the study's confirmation, where it has one: a study of its own, of the same layout ..."""
STAGES = "stages"
"""Which groups of the root are the stages before the study that the file is of, in their order: studies like it ..."""
STORE_ID = "store_id"
PACK_ID = "pack_id"
"""... and the group of each has these two as attributes, and ``confirmation``, where it has one. (The study that the
file is of has them at the root.)"""

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

FRC = "frc"
"""In a confirmation's: the Fourier ring correlation of trials that were reconstructed from two halves of the data."""

# In the table
RECORD_JSON = "record_json"
RECORD_JSON_END = "record_json_end"
"""In the table, ``record_json`` is all rows' texts in one piece; this is where each ends."""
PARAMS = "params"
METRICS = "metrics"
GRADIENT = "gradient"
"""Also in a trial's group, and in its curve's."""
SHA256 = "sha256"
"""As an attribute: the digest of a trial's group, and of the whole file. As a column: of each trial."""
ENCODING = "encoding"
JSON = "json"
SHORTENED = "shortened"
LONGEST = 256
"""Bytes of a text in a column; longer ones are cut there, and whole in the trials' groups."""

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
PROGRAM = "program"
COMMAND = "command"
"""In ``program``, and as a link to it in the trial's group."""
LEFT_OUT = "left_out"
ARTIFACTS = "artifacts"
PATH = "path"
"""The attribute of an artifact that says its path."""

# Attributes of a trial's group
ARRAYS_DROPPED = "arrays_dropped"
"""What a file that was packed without the arrays of every trial no longer has."""
MERGED_STORE = "merged_store"
"""The id of the store that recorded a trial, where that is another than the file's own ..."""
MERGED_NUMBER = "merged_number"
"""... and the trial's number there."""

# In a trial's own file
TRIAL = "trial"
OWN_GROUP = f"/{TRIAL}"
"""The path of a trial's group in its own file."""

LINKED = 100
"""Trials within reach of links while a run is on: viewers open every link that they show."""


def snapshot_name(step: int) -> str:
    """``iter_0000020``."""
    return f"iter_{step:07d}"


def snapshot_step(name: str) -> int:
    """The step of the snapshot ``iter_0000020``."""
    return int(name.removeprefix("iter_"))
