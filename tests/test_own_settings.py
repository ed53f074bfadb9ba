"""What is ptydask's own in a file: the section ``ptydask``, a file that names the params file, and their options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sweep_plans

import ptydask
from ptydask import cli, config, errors
from ptydask.cli import build_parser
from ptydask.cli.run import _make_overrides
from ptydask.config import Overrides, own_settings
from ptydask.config.ptyrad.params_file import render_params
from ptydask.driver import provenance
from ptydask.importers.ptyrad.description import describe
from ptydask.model import StudyPlan

TUNE = {"scale": {"state": True, "suggest": "float", "kwargs": {"low": 0.8, "high": 1.2}}}
FREE = Overrides()


def write_params(folder: Path, name: str = "params.json", **top: Any) -> Path:
    params = {"init_params": {"probe_kv": 80}, "hypertune_params": {"if_hypertune": True, "tune_params": TUNE}, **top}
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(params))
    return path


def write_own(folder: Path, text: str, name: str = "tune.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def said(plan: StudyPlan) -> tuple[str, bool]:
    return plan.search, plan.until_settled


# --- who wins ----------------------------------------------------------------------------------------------


def test_without_a_word(tmp_path: Path) -> None:
    """The slopes may lead; but who names a sampler on the command line gets that one."""
    path = write_params(tmp_path)
    assert said(config.load(path)) == ("auto", False)
    assert said(config.load(path, Overrides(sampler="RandomSampler"))) == ("file", False)
    assert said(config.load(path, Overrides(sampler="RandomSampler", search="auto"))) == ("auto", False)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (FREE, ("file", True)),
        (Overrides(search="auto"), ("auto", True)),
        (Overrides(until_settled=False), ("file", False)),
        (Overrides(settings=(("ptydask.search", "auto"), ("ptydask.stop_when", None))), ("auto", False)),
    ],
)
def test_the_command_line_beats_the_file(overrides: Overrides, expected: tuple[str, bool], tmp_path: Path) -> None:
    """The section, and a file of ptydask's own over another section; ``--set`` and the options over both."""
    keys = {"search": "file", "stop_when": "settled"}
    section = write_params(tmp_path, "section.json", ptydask=keys)
    assert said(config.load(section, overrides)) == expected
    write_params(tmp_path, ptydask={"search": "auto"})
    own = write_own(tmp_path, "params: params.json\nsearch: file\nstop_when: settled\n")
    assert said(config.load(own, overrides)) == expected


def test_options_are_arguments(tmp_path: Path) -> None:
    """The command line and Python say the same."""
    words = ["validate", str(write_params(tmp_path)), "--search", "file", "--until-settled"]
    overrides = _make_overrides(build_parser().parse_args(words))
    assert (overrides.search, overrides.until_settled) == ("file", True)
    assert _make_overrides(build_parser().parse_args([*words[:2], "--no-until-settled"])).until_settled is False
    for arguments in ({"search": "fast"}, {"until_settled": "yes"}):
        with pytest.raises(errors.ConfigError, match=f"^{next(iter(arguments))} = '(fast|yes)': must be"):
            ptydask.validate(words[1], **arguments)  # type: ignore[arg-type]


def test_a_sweep_has_the_section_too(tmp_path: Path) -> None:
    """Also where its parameters have lost their indentation; W&B's own keys stay as they are."""
    plan = sweep_plans.made(tmp_path, ptydask={"search": "file"})
    assert (plan.search, plan.notices) == ("file", sweep_plans.made(tmp_path).notices)
    untidy = sweep_plans.made(tmp_path, None, lr={"min": 0.0, "max": 1.0}, ptydask={"search": "file"})
    assert (list(untidy.space), untidy.search) == (["lr"], "file")


# --- a file of its own -------------------------------------------------------------------------------------


def test_a_file_of_its_own_stands_for_the_params_file(tmp_path: Path) -> None:
    """The path counts from its own folder; study, results and everything else are the params file's."""
    params = write_params(tmp_path / "data", "params.json")
    plan = config.load(write_own(tmp_path, "params: data/params.json\nsearch: file\n"))
    plain = config.load(params)
    assert (plan.name, plan.results, plan.config, plan.source) == (
        plain.name,
        plain.results,
        plain.config,
        plain.source,
    )
    meta = provenance.study_meta(plan)
    assert meta.config_text == params.read_text()
    assert meta.provenance["config_path"] == str(params)
    assert meta.provenance["own_file"] == str(tmp_path / "tune.yaml")
    assert meta.provenance["own_file_text"] == "params: data/params.json\nsearch: file\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("params: params.json\nsearsh: auto", "tune.yaml: searsh = 'auto': unknown key; did you mean 'search'?"),
        (
            "params: params.json\nsearch: files",
            "tune.yaml: search = 'files': must be auto or file; did you mean 'file'?",
        ),
        (
            "params: params.json\nstop_when: setled",
            "tune.yaml: stop_when = 'setled': must be settled, {gain: 1 %, trials: 20}, or null; "
            "did you mean 'settled'?",
        ),
        ("params: parms.json", "tune.yaml: params = 'parms.json': no such file; did you mean 'params.json'?"),
        ("params: [params.json]", "tune.yaml: params = ['params.json']: must be text, not a list"),
        ("search: auto", "tune.yaml: params: is missing; it names the params file; for example params: params.yaml"),
        (
            "params: tune.yaml",
            "tune.yaml: params = 'tune.yaml': names a params file itself; name that one here",
        ),
        ("params: broken.json", "broken.json: recon_parms = {}: unknown key; did you mean 'recon_params'?"),
        ("params: section.json", "section.json: ptydask = 'auto': must be a mapping, not text"),
        (
            "params: key.json",
            "key.json: ptydask.sampler = 'TPE': unknown key; "
            "known: error_metric, final, held_out, metrics, search, stages, stop_when",
        ),
    ],
)
def test_errors_name_the_right_file(text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, key, value, rule and what to do."""
    monkeypatch.chdir(tmp_path)
    write_params(Path(), "params.json")
    write_params(Path(), "broken.json", recon_parms={})
    write_params(Path(), "section.json", ptydask="auto")
    write_params(Path(), "key.json", ptydask={"sampler": "TPE"})
    with pytest.raises(errors.ConfigError) as caught:
        config.load(write_own(Path(), text))
    assert str(caught.value) == says


@pytest.mark.parametrize("share", [0, 0.001, 0.0049, 0.51, 0.9, 1, 3, -0.1, float("nan"), "3 %", True, None])
def test_one_rule_for_the_share_that_is_held_out(share: Any) -> None:
    """From half a percent to half of the data, whatever is wrong with it."""
    with pytest.raises(errors.ConfigError, match=r"0\.005.*0\.5") as caught:
        own_settings.read_settings({"held_out": {"share": share}}, "ptydask")
    assert caught.value.key == "ptydask.held_out.share"
    for allowed in (0.005, 0.03, 0.5):
        settings = own_settings.read_settings({"held_out": {"share": allowed}})
        assert settings.held_out == {"share": allowed}


def test_the_plan_names_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], toy_params: Any) -> None:
    """``validate`` of a file of ptydask's own."""
    own = write_own(tmp_path, f"params: {toy_params().name}\nstop_when: settled\n")
    assert cli.main(["validate", str(own), "--engine", "toy", "--set", "hypertune_params.error_metric=contrast"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{own}: valid\n"
    assert printed.err.splitlines()[0] == f"study     toy, from {own} (params: {tmp_path / 'toy.yaml'})"
    assert "search    RandomSampler, no pruning, seed 0 (contrast has no slopes in scale, rotation)" in printed.err
    assert (
        "note: contrast has no slopes in any tuned parameter, so nothing can settle: all trials are run" in printed.err
    )


# --- nothing of it is PtyRAD's -----------------------------------------------------------------------------


def test_ptyrad_sees_nothing_of_it(tmp_path: Path) -> None:
    """Neither in what the engine runs, nor in an exported file; the text in the results is the file's."""
    path = write_params(tmp_path, ptydask={"search": "file"})
    plan = config.load(path)
    assert "ptydask" not in plan.config
    assert "ptydask" not in render_params(plan.config, {"scale": 1.0})
    meta = provenance.study_meta(plan)
    assert "ptydask" not in meta.config_json
    assert meta.config_text == path.read_text()


def test_a_study_may_switch(tmp_path: Path) -> None:
    """Trials of either search are comparable."""
    plans = [config.load(write_params(tmp_path, ptydask={"search": search})) for search in ("auto", "file")]
    before, after = map(provenance.study_meta, plans)
    assert provenance.compare(before, after, file=tmp_path / "s.h5") == []


@pytest.mark.parametrize("hypertune", [{}, {"if_hypertune": True, "n_trials": "many"}])
def test_an_import_leaves_it_out(hypertune: dict[str, Any], tmp_path: Path) -> None:
    """Also from a params file that ptydask would not run, and by a file that names it."""
    write_params(tmp_path, hypertune_params=hypertune, ptydask={"search": "file"})
    own = write_own(tmp_path, "params: params.json\n")
    described = describe([own], None, tmp_path, metric="loss", asked=True)
    assert described.source.path.name == "params.json"
    assert set(described.config) >= {"init_params", "hypertune_params"}
    assert "ptydask" not in described.config
