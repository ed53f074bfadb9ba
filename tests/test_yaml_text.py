"""Values changed in a YAML text: everything else stays, byte by byte."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from ptydask.config import reading, yaml_text

FILE = """\
# what the microscope was set to
init_params:
    probe_kv               : 80   # [kV]
    pos_scan_affine        : null # [scale, asymmetry, rotation, shear]
    meas_params            : {'path': 'data/a.h5',   'key': null} # relative
    tilt_params:
      init_tilts: # rows
      - [0, 0]
      - - 1   # y
        - 2   # x

# nothing is tuned twice
recon_params: {'NITER': 200, # full
               'BATCH_SIZE': {'size': 32}}
"""


def changed(text: str, *changes: tuple[str, Any]) -> str:
    """The text with dotted keys set (``...`` takes the key out); it has to read back as that."""
    new = copy.deepcopy(yaml.safe_load(text))
    for key, value in changes:
        if value is ...:
            *way, last = key.split(".")
            section = new
            for name in way:
                section = section[name]
            del section[last]
        else:
            reading.set_value(new, key, value)
    result = yaml_text.rewrite(text, new)
    assert result is not None
    assert yaml.safe_load(result) == new
    return result


def test_equal_values_keep_every_byte() -> None:
    """Numbers are compared as numbers, so that 80 stays where 80.0 is meant."""
    assert changed(FILE, ("init_params.probe_kv", 80.0)) == FILE


@pytest.mark.parametrize(
    ("key", "value", "old", "new"),
    [
        ("init_params.probe_kv", 300, ": 80   #", ": 300   #"),
        ("init_params.pos_scan_affine", [1.02, 0, -1, 0], ": null # [sc", ": [1.02, 0, -1, 0] # [sc"),
        ("init_params.meas_params.path", "/it's/b.h5", "'data/a.h5'", "'/it''s/b.h5'"),
        ("init_params.tilt_params.init_tilts.1.0", -3.5, "- - 1   # y", "- - -3.5   # y"),
        ("init_params.tilt_params.init_tilts.0.1", 1e-5, "- [0, 0]", "- [0, 1.0e-05]"),
        ("recon_params.NITER", 20, "'NITER': 200,", "'NITER': 20,"),
        ("recon_params.BATCH_SIZE.grad", 2, "{'size': 32}", "{'size': 32, 'grad': 2}"),
        ("init_params.random_seed", 7, "    tilt_params:\n", "    tilt_params:\n"),
    ],
)
def test_one_value(key: str, value: object, old: str, new: str) -> None:
    """The value alone is replaced, in its quotes; comments and columns stay."""
    result = changed(FILE, (key, value))
    assert old in FILE
    assert new in result
    comments = [line.partition("#")[2] for line in FILE.splitlines() if "#" in line]
    assert [line.partition("#")[2] for line in result.splitlines() if "#" in line] == comments


def test_new_keys_are_written_as_their_neighbours() -> None:
    """Indented, aligned and quoted as the key before; a section as a block."""
    result = changed(FILE, ("recon_params.SAVE_ITERS", 5), ("loss_params.loss_single.weight", 0.5))
    assert "{'size': 32}, 'SAVE_ITERS': 5}" in result
    assert result.endswith("\n\nloss_params:\n  loss_single: {weight: 0.5}\n")
    aligned = "a:\n    b    : 1\n"
    assert changed(aligned, ("a.cc", 2), ("a.long_name", 3)) == f"{aligned}    cc   : 2\n    long_name: 3\n"
    assert changed("a:\n  b: 1", ("a.c", "x: y")) == "a:\n  b: 1\n  c: 'x: y'"


def test_sections_in_braces() -> None:
    """One key a line, as old params files have them: the lines of other keys stay."""
    text = "s : {\n    'a' : 1, # first\n    'b' : {'c': 2}, # second\n    'd' : null # third\n}\n"
    lines = text.splitlines()
    assert changed(text, ("s.b", ...)).splitlines() == [*lines[:2], *lines[3:]]
    assert changed(text, ("s.d", ...)).splitlines() == [*lines[:3], lines[4]]
    assert changed(text, ("s.b.c", 3)).splitlines()[2] == "    'b' : {'c': 3}, # second"
    longer = changed(text, ("s.d", ...), ("s.e", [1, 2]), ("s.f", 5)).splitlines()
    assert longer == [*lines[:3], "    'e' : [1, 2],", "    'f' : 5,", "}"]
    assert changed(text, ("s.e", 5)).splitlines()[3:5] == ["    'd' : null, # third", "    'e' : 5,"]
    last = "s: {\n  a: 1,\n  b: 2}\n"
    assert changed(last, ("s.c", 3)) == "s: {\n  a: 1,\n  b: 2, c: 3}\n"


def test_keys_are_taken_out() -> None:
    """A block's key with its line or lines, one in braces alone."""
    assert "tilt" not in changed(FILE, ("init_params.tilt_params", ...))
    assert "# nothing is tuned twice" in changed(FILE, ("init_params.tilt_params", ...))
    assert "recon_params: {BATCH_SIZE: {size: 32}}" in changed(FILE, ("recon_params.NITER", ...))
    assert changed("a:\n  b: 1 # c\nd: 2\n", ("a.b", ...)) == "a: {} # c\nd: 2\n"


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1, 2]\nb: *x\nc: {d: *x}\n",
        "a: &x\n  k: [1, 2]\n  l: 3\nb:\n  <<: *x\n  l: 4\n",
        "a: &x {k: [1, 2]}\nb:\n  <<: [*x, {m: 1}]\n  l: 4\n",
        "a: &x 1\nb: *x\nc: [*x, *x]\n",
        "%YAML 1.1\n---\na: 1\nb: {c: 2}\n...\n",
        "a: |\n  text\n  of lines\n\nb: 2 # c\n",
        "a: >-\n  text\n\n\n# c\n",
        "a:\nb:\n",
        "a: # c\n- 1\n- 2\nb: 3\n",
        "{a: 1,\n b: [1, 2,],\n}\n",
        "{\n  a: 1, # one\n  b: [1, 2] # two\n}\n",
        "{\n  'a': {'x': 1}, # one\n\n  # b\n  'b': null\n}",
        "a: 'it''s'\r\nb: \"q\\\"\" # c\r\n",
        "? a\n: 1\nb: 2\n",
        "a: [1,\n  2, # two\n  3]\nb: {c: {d: 1}}\n",
        "\u00e4: 1\n\u03b8: [\u212b]\n",
    ],
)
def test_whatever_yaml_has(text: str) -> None:
    """Every value changed alone, for a number, a text, a list and nothing, every key taken out, and one more added."""
    old = yaml.safe_load(text)
    assert yaml_text.rewrite(text, old) == text
    for name in old:
        for value in (5, "x: #y", [1, "a, b"], {}, {"k": [1]}, None):
            changed(text, (name, value))
        changed(text, (name, ...))
    changed(text, ("new", {"k": 1}))


def test_an_anchor_that_changes_keeps_its_aliases() -> None:
    """Those who meant the old value get it spelled out."""
    text = "a: &x [1, 2]\nb: *x\nc: {<<: &y {k: 1}, l: 2}\nd:\n  <<: *y\n  e: 1\n"
    result = changed(text, ("a", [1, 3]), ("c.k", 5))
    assert result.startswith("a: &x [1, 3]\nb: [1, 2]\n")
    assert "<<: *y" in result
    assert "b: *x" in changed(text, ("c.l", 5))


@pytest.mark.parametrize("text", ["", "[1]", "a: *b", "a: [", "- a\n- b", "a: !!python/name:os.system x"])
def test_what_is_no_mapping(text: str) -> None:
    """None, and nothing is raised."""
    assert yaml_text.rewrite(text, {"a": 1}) is None
