"""Names inside the results file, and the exact text of records."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from store_cases import failed, meta, record

from ptydask.model import KeepOptions
from ptydask.store import codec, names


@pytest.mark.parametrize(
    "text", ["", ".", "..", "0.98", "a/b", "100%", "%2F", "%", "ä µ λ 结构", "tab\t\0nul", "\ud800", " "]
)
def test_encoding_is_one_component_and_comes_back(text: str) -> None:
    """Any text is one HDF5 link name, and is found again in it."""
    name = names.encode(text)
    assert name not in ("", ".")
    assert "/" not in name
    assert "\0" not in name
    assert names.decode(name) == text


def test_plain_names_are_left_alone() -> None:
    """A number with a point, blanks and accents are nobody's problem."""
    assert names.encode("scale=0.98 défaut") == "scale=0.98 défaut"


def test_encoding_keeps_different_texts_apart() -> None:
    """Two texts never share a name."""
    texts = ["", "%", "%25", ".", "%2E", "/", "%2F", "a", "A"]
    assert len({names.encode(text) for text in texts}) == len(texts)


def test_by_error_name_has_every_digit() -> None:
    """Nothing is rounded in the name of a rank."""
    made = record(12, error=0.1 + 0.2, params={"scale": 1 / 3, "name": "a/b", "n": None})
    assert names.by_error_name(1, made, params=True) == (
        "000001 error=0.30000000000000004 trial=000012 scale=0.3333333333333333 name=a%2Fb n=None"
    )
    assert names.by_error_name(1, made, params=False) == "000001 error=0.30000000000000004 trial=000012"


def test_by_params_follows_the_search_space() -> None:
    """The order of the levels is the search space's, whatever order the trial has."""
    path = names.by_params_path({"b": 2, "new": True, "a": 0.5}, ["a", "b", "unused"])
    assert path == ["a=0.5", "b=2", "new=True"]


@pytest.mark.parametrize(
    ("results", "folder"),
    [("a.h5", "a.trials"), ("run.1", "run.1.trials"), ("a.b.hdf5", "a.b.trials"), ("x.nxs", "x.trials")],
)
def test_folder_beside_the_file(results: str, folder: str) -> None:
    """Only an ending of HDF5 files gives way; a number after a point is part of the name."""
    assert names.folder_of(Path("/d") / results) == Path("/d") / folder


def test_shard_names() -> None:
    """Only a trial's own file has a trial's number."""
    assert names.shard_number(names.shard_path(Path("/d"), 1234567)) == 1234567
    assert names.shard_number(Path("packed-1.h5")) is None
    assert names.shard_number(Path(".000001.h5.1.aside")) is None


def test_record_text_is_exact() -> None:
    """None, NaN, infinities, integers past 64 bits, booleans, NumPy scalars and any text survive."""
    params = {
        "none": None,
        "nan": math.nan,
        "inf": math.inf,
        "low": -math.inf,
        "huge": 2**80,
        "yes": True,
        "one": 1,
        "float": 1.0,
        "tiny": 5e-324,
        "text": 'a"b\0\ud800ä',
    }
    made = failed(3, params=params, error=math.inf, retry_of=1)
    text = codec.record_to_json(made)
    back = codec.record_from_json(text, made.traceback)
    assert repr(back) == repr(made)
    assert {k: type(v) for k, v in back.params.items()} == {k: type(v) for k, v in params.items()}

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads(text, parse_constant=refuse)  # strict JSON: any language reads it
    assert codec.loads(codec.dumps({"a": np.float32(0.5), "b": np.int64(2)})) == {"a": 0.5, "b": 2}


def test_meta_text_is_exact() -> None:
    """A study's description comes back equal."""
    said = meta("a/b ä", keep=KeepOptions(arrays=False, snapshot_every=5, params_in_names=False))
    assert codec.meta_from_json(codec.meta_to_json(said)) == said
