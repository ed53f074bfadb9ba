"""Params files of earlier PtyRADs, keys in the wrong place, values in the wrong spelling, paths, and passwords."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ptydask import config, engines
from ptydask.config import Overrides, reading
from ptydask.config.ptyrad import old_keys
from ptydask.errors import ConfigError, redact
from ptydask.model import StudyPlan

FILE: dict[str, Any] = {
    "init_params": {
        "probe_kv": 80,
        "probe_conv_angle": 24.9,
        "probe_pmode_max": 1,
        "probe_aberrations": {"C10": 0},
        "obj_Nlayer": 1,
        "obj_slice_thickness": 2,
        "meas_Npix": 16,
        "pos_N_scan_slow": 4,
        "pos_N_scan_fast": 4,
        "pos_scan_step_size": 0.4,
        "meas_calibration": {"mode": "dx", "value": 0.15},
        "meas_params": {"path": "patterns.npy"},
    },
    "hypertune_params": {
        "if_hypertune": True,
        "tune_params": {"scale": {"state": True, "suggest": "float", "kwargs": {"low": 0.9, "high": 1.1}}},
    },
    "recon_params": {"NITER": 20, "BATCH_SIZE": {"size": 8}},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    np.save(tmp_path / "patterns.npy", np.ones((16, 16, 16), "f4"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan_of(*changes: tuple[str, Any], complete: bool = False) -> StudyPlan:
    """The plan of the file with dotted keys changed; ``...`` takes one out."""
    data = copy.deepcopy(FILE)
    for key, value in changes:
        if value is ...:
            section, _, name = key.partition(".")
            del data[section][name]
        else:
            reading.set_value(data, key, value)
    Path("params.yaml").write_text(yaml.safe_dump(data))
    plan = config.load(Path("params.yaml"))
    return engines.get("ptyrad").validate(plan) if complete else plan


def refused(*changes: tuple[str, Any], complete: bool = False) -> ConfigError:
    with pytest.raises(ConfigError) as refusal:
        plan_of(*changes, complete=complete)
    assert "\n" not in str(refusal.value)
    return refusal.value


# --- 0.1.0b5 to b12 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "key", "value", "word"),
    [
        ([("init_params.meas_calibration", ...), ("init_params.probe_dx", 0.2)], "probe_dx", None, "meas_calibration"),
        ([("init_params.probe_dx", 0.2)], "probe_dx", None, "not used"),
        ([("init_params.probe_dx", None)], "probe_dx", None, ""),
        ([("init_params.probe_add_df", 10)], "probe_z_shift", 10, "probe_z_shift"),
        ([("init_params.probe_add_df", None)], "probe_add_df", None, ""),
        ([("recon_params.prefix_date", True)], "prefix_time", "date", "prefix_time"),
        ([("recon_params.prefix_date", False)], "prefix_time", False, "prefix_time"),
        ([("recon_params.prefix_date", ""), ("recon_params.prefix_time", "time")], "prefix_time", "time", "not used"),
        ([("model_params.optimizer_params", {"name": "Adam", "configs": None})], "optimizer_params", {}, ""),
        (
            [("recon_params.recon_dir_affixes", ["lr", "illumination", "init"])],
            "recon_dir_affixes",
            ["lr", "conv_angle", "aberrations"],
            "illumination",
        ),
        ([("recon_params.save_result", ["model", "obj", "objp"])], "save_result", ["model", "objp"], "save_result"),
    ],
)
@pytest.mark.ptyrad
def test_old_keys_are_translated(changes: list[tuple[str, Any]], key: str, value: Any, word: str, folder: Path) -> None:
    """PtyRAD takes what comes of it, with one notice a kind, and none where the old key meant nothing."""
    plan = plan_of(*changes, complete=True)
    sections = {name: value for section in plan.config.values() for name, value in section.items()}
    if key == "optimizer_params":
        assert sections[key]["configs"] == value
    else:
        assert sections.get(key) == value
    notices = [notice for notice in plan_of(*changes).notices if not notice.startswith("Hyperband")]
    assert len(notices) == bool(word)
    assert word in "".join(notices)


def test_the_pixel_size_of_old_files(folder: Path) -> None:
    """probe_dx is the calibration where there is no other, and beside one it is not."""
    changes = [("init_params.meas_calibration", ...), ("init_params.probe_dx", 0.2)]
    assert plan_of(*changes).config["init_params"]["meas_calibration"] == {"mode": "dx", "value": 0.2}
    assert plan_of(changes[1]).config["init_params"]["meas_calibration"] == FILE["init_params"]["meas_calibration"]


@pytest.mark.ptyrad
@pytest.mark.parametrize("source", ["npy", "raw", "hdf5"])
def test_a_format_as_the_source_of_the_data(source: str, folder: Path) -> None:
    """Releases between 0.1.0b8 and b13 take 'file' alone; those before and after them the format, too."""
    plan = plan_of(("init_params.meas_source", source), complete=True)
    taken = plan.config["init_params"]["meas_source"]
    assert taken in ("file", source)
    assert any("meas_source" in notice for notice in plan.notices) == (taken == "file")


@pytest.mark.ptyrad
def test_add_df(folder: Path) -> None:
    """The tunable of 0.1.0b11 goes where it is off, and is z_shift, with the same sign, where it is on."""
    entry = {"state": False, "suggest": "float", "kwargs": {"low": -50, "high": 40, "step": 10}}
    where = "hypertune_params.tune_params.add_df"
    plan = plan_of((where, entry), complete=True)
    assert list(plan.space) == ["scale"]
    assert not any("add_df" in notice for notice in plan.notices)
    plan = plan_of((where, {**entry, "state": True}), complete=True)
    assert (plan.space["z_shift"].low, plan.space["z_shift"].high) == (-50, 40)  # type: ignore[union-attr]
    assert any("z_shift" in notice for notice in plan.notices)


@pytest.mark.parametrize(
    "data",
    [
        {"exp_params": {"kv": 80}, "source_params": {}, "hypertune_params": {"if_hypertune": True}},
        {"exp_params": {"kv": 80}},
        {"source_params": {"measurements_source": "raw"}, "recon_params": {"NITER": 2}},
        {"init_params": {"probe_kv": 80}, "exp_params": {"kv": 80}},
    ],
)
def test_files_before_0_1_0b4(data: dict[str, Any], tmp_path: Path) -> None:
    """One true line: it is older, and what to do."""
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=r"before 0\.1\.0b4") as refusal:
        config.load(path)
    assert "get-templates" in refusal.value.hint


def test_ranges_that_are_not_used_are_said(folder: Path) -> None:
    """With if_hypertune false, those that are switched on."""
    off = ("hypertune_params.if_hypertune", False)
    assert any("scale are not used" in notice for notice in plan_of(off).notices)
    quiet = plan_of(off, ("hypertune_params.tune_params.scale.state", False))
    assert not any("not used" in notice for notice in quiet.notices)


# --- keys in the wrong place ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "home"),
    [
        ("hypertune_params.NITER", 2, "recon_params"),
        ("hypertune_params.scale", {"state": True}, "hypertune_params.tune_params"),
        ("tune_params", {}, "hypertune_params"),
        ("NITER", 2, "recon_params"),
        ("probe_kv", 80, "init_params"),
        ("loss_single", {"state": True}, "loss_params"),
    ],
)
def test_keys_of_another_section(key: str, value: Any, home: str, folder: Path) -> None:
    """The section is named; whether it is missing, too."""
    refusal = refused((key, value))
    assert (refusal.key, refusal.rule) == (key, f"belongs to {home}")
    assert ("missing" in refusal.hint) == (home == "loss_params")


@pytest.mark.ptyrad
@pytest.mark.parametrize(
    ("key", "value", "home"),
    [
        ("constraint_params.NITER", 2, "recon_params"),
        ("constraint_params.probe_kv", 80, "init_params"),
        ("constraint_params.loss_single", {"state": True}, "loss_params"),
        ("init_params.BATCH_SIZE", {"size": 2}, "recon_params"),
        ("model_params.obj_rblur", {"std": 1}, "constraint_params"),
        ("recon_params.update_params", {}, "model_params"),
    ],
)
def test_keys_of_another_section_that_ptyrad_refuses(key: str, value: Any, home: str, folder: Path) -> None:
    """The same for sections of which PtyRAD alone knows all keys."""
    assert refused((key, value), complete=True).rule == f"belongs to {home}"


@pytest.mark.ptyrad
def test_every_key_of_ptyrad_has_its_home() -> None:
    """What the installed PtyRAD has in a section is not said to belong to another."""
    from ptydask.engines.ptyrad import schema

    for section in (
        "init_params",
        "hypertune_params",
        "model_params",
        "loss_params",
        "constraint_params",
        "recon_params",
    ):
        for key in schema.known_fields(section):
            assert old_keys.misplaced(key, section, None, ()) is None


# --- values in the wrong spelling ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("2", "without quotes"),
        (" 1e-5 ", "without quotes"),
        ("24,9", "24.9"),
        ("-0,5e3", "-0.5e3"),
        ("None", "null"),
        ("null", "null"),
        ("True", "without quotes"),
        ("24,900,1", ""),
        ("Adam", ""),
        (None, ""),
        (5, ""),
    ],
)
def test_what_was_meant(value: object, word: str) -> None:
    """A number, nothing, or true, written as text."""
    hint = reading.spelling_hint(value)
    assert word in hint
    assert bool(hint) == bool(word)


@pytest.mark.ptyrad
@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("recon_params.NITER", "2", "without quotes"),
        ("recon_params.SAVE_ITERS", "None", "null"),
        ("init_params.probe_conv_angle", "24,9", "24.9"),
        ("init_params.meas_Npix", "16", "without quotes"),
        ("init_params.pos_scan_affine", "None", "null"),
        ("init_params.meas_calibration.value", "0,15", "0.15"),
        ("init_params.probe_aberrations", {"C10": "1,5"}, "1.5"),
        ("hypertune_params.timeout", "None", "null"),
        ("hypertune_params.if_hypertune", "True", "without quotes"),
        ("hypertune_params.tune_params.scale.kwargs.low", "0,9", "0.9"),
        ("model_params.optimizer_params", {"load_state": None, "name": None}, ""),
        ("model_params.update_params.probe.lr", "1,5", "1.5"),
    ],
)
def test_hints_come_with_the_refusal(key: str, value: object, word: str, folder: Path) -> None:
    """Wherever such a text stands."""
    refusal = refused((key, value), complete=True)
    assert refusal.key.startswith(key)
    assert word in refusal.hint


def test_a_decimal_comma_within_braces(tmp_path: Path) -> None:
    """``{low: 0,9, high: 1}`` has a key 9."""
    path = tmp_path / "params.yaml"
    path.write_text("init_params: {probe_conv_angle: 24,9, probe_kv: 80}\n")
    with pytest.raises(ConfigError, match="decimal point"):
        config.load(path)


# --- paths --------------------------------------------------------------------------------------------


@pytest.mark.ptyrad
def test_paths_as_a_shell_reads_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~``, ``$NAME`` and ``${NAME}`` in paths of data and results; a name that is taken to the letter stays."""
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("DATA", str(folder))
    key = "init_params.meas_params.path"
    for path in ("~/patterns.npy", "$DATA/patterns.npy", "${DATA}/patterns.npy"):
        assert (
            plan_of((key, path), complete=True).config["init_params"]["meas_params"]["path"] == f"{folder}/patterns.npy"
        )
    assert plan_of(("recon_params.output_dir", "~/out")).results == folder / "out" / "study.h5"
    (folder / "$DATA.npy").write_bytes((folder / "patterns.npy").read_bytes())
    assert plan_of((key, "$DATA.npy")).config["init_params"]["meas_params"]["path"] == "$DATA.npy"
    refusal = refused((key, "$NOWHERE/patterns.npy"))
    assert (refusal.key, refusal.value) == (key, "$NOWHERE/patterns.npy")
    assert "NOWHERE is not set" in refusal.rule


# --- passwords ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["user:S3CRET@host:6379", ":S3CRET@host", "S3CRET@host:6379", "user:S3@CRET@host"])
def test_a_storage_that_is_no_url(value: str, folder: Path) -> None:
    """Whatever stands before the host is not printed."""
    text = str(refused(("hypertune_params.storage_path", value)))
    assert "must be a URL" in text
    assert "CRET" not in text
    assert "S3" not in text


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:S3CRET@h/db",
        "postgresql://u:S3C/RET@h/db",
        "redis://:S3CRET@h:6379/0",
        "rediss://default:S3CRET@h",
        "user:S3CRET@host:6379",
        "storage_path = ':S3CRET@host:6379'",
        "postgresql://h/db?user=u&password=S3CRET&x=1",
        "redis://h:6379?password=S3CRET",
        "host=h user=u password=S3CRET dbname=d",
        "Server=h;Uid=u;Pwd=S3CRET;",
        "{'password': 'S3CRET', 'x': 1}",
        '{"token": "S3 CRET"}',
        "password: S3CRET\nx: 1",
        "hf_token: S3CRET",
        "WANDB_API_KEY=S3CRET python train.py",
        "train.py --token S3CRET --lr 1",
        "--api-key=S3CRET",
        "https://S3CRET@github.com/x",
        "aws_secret_access_key: S3CRET",
    ],
)
def test_passwords_in_every_spelling(text: str) -> None:
    """None is left, and what stands around it is."""
    masked = redact(text)
    assert "S3" not in masked
    assert "RET" not in masked
    assert "***" in masked
    assert redact(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "tls://10.0.0.1:8786",
        "git@github.com:a/b.git",
        "10:20:30 trial 3 @ node1",
        "password: null",
        "token: {values: [1, 2]}",
        "token: 5, max_tokens: 512, tokenizer: bert",
        "/data/a:b@c/x.h5",
        "https://host:8080/path@x",
        "user@host:/path",
        "init_params: {probe_kv: 80, meas_params: {path: a.h5, key: dp}}",
        "wandb: run u/p@v3:latest",
    ],
)
def test_what_is_no_password(text: str) -> None:
    """Ports, tags, addresses, counts of tokens."""
    assert redact(text) == text


def test_settings_in_old_keys_are_exported(folder: Path) -> None:
    """--set may say an old key as well; the results know which present one that is."""
    Path("params.yaml").write_text(yaml.safe_dump(FILE))
    plan = config.load(Path("params.yaml"), Overrides(settings=(("recon_params.prefix_date", True),)))
    assert plan.config["recon_params"]["prefix_time"] == "date"
    assert old_keys.PRESENT[plan.settings[0]] == "recon_params.prefix_time"
