"""A PtyRAD params file, in the old spelling and the new one, to a study plan; and back to a params file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptydask import cli, config, errors
from ptydask.config import Overrides, reading
from ptydask.config.ptyrad import params_file
from ptydask.distributions import Choice, FloatRange, IntRange
from ptydask.model import Budget, KeepOptions, Point, SourceFile, StudyPlan


def tune(name: str, suggest: str = "float", **kwargs: Any) -> dict[str, Any]:
    return {name: {"state": True, "suggest": suggest, "kwargs": kwargs}}


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    """``plan(tune_params, overrides, **hypertune)``: the plan of a params file with these settings."""

    def made(entries: dict[str, Any] | None = None, overrides: Overrides | None = None, **hypertune: Any) -> StudyPlan:
        given = {"if_hypertune": True, "tune_params": entries or tune("scale", low=0.8, high=1.2), **hypertune}
        params = {"init_params": {"probe_kv": 80}, "hypertune_params": given, "recon_params": {"NITER": 10}}
        path = tmp_path / "params.json"
        path.write_text(json.dumps(params))
        return config.load(path, overrides or Overrides())

    return made


# --- the file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.yaml", "init_params:\n  probe_kv: 8e1\n  note: 2024-01-01\nrecon_params: {NITER: 1_0}\n"),
        ("p.yml", "init_params: {probe_kv: 80.0, note: 2024-01-01}\nrecon_params: {NITER: 10}\n"),
        ("p.json", '{"init_params": {"probe_kv": 8e1, "note": "2024-01-01"}, "recon_params": {"NITER": 10}}'),
        ("p.toml", '[init_params]\nprobe_kv = 8e1\nnote = "2024-01-01"\n[recon_params]\nNITER = 10\n'),
    ],
)
def test_every_format_says_the_same(name: str, text: str, tmp_path: Path) -> None:
    """yaml, yml, json and toml give one plan; dates stay text; the source is kept as it is."""
    path = tmp_path / name
    path.write_text(text)
    made = config.load(path)
    assert made.config["init_params"] == {"probe_kv": 80.0, "note": "2024-01-01", "random_seed": 0}
    assert made.iterations == 10
    assert made.source.text == text
    assert made.source.format == {"yml": "yaml"}.get(path.suffix[1:], path.suffix[1:])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-2e-3", -2e-3),
        ("1.0e5", 1e5),
        (".5", 0.5),
        ("5", 5),
        ("1e", "1e"),
        ("0.1.2", "0.1.2"),
    ],
)
def test_floats_without_a_dot(text: str, value: object) -> None:
    """``1e-5`` is a number, as everybody means it, though YAML 1.1 calls it text."""
    key, got = config.parse_setting(f"a.b={text}")
    assert (key, got, type(got)) == ("a.b", value, type(value))


def test_a_section_of_comments_is_absent(tmp_path: Path) -> None:
    """A section whose every line is a comment gets its defaults, as if it were not there."""
    path = tmp_path / "p.yaml"
    path.write_text("init_params: {probe_kv: 80}\nmodel_params:\n  # nothing\n")
    assert "model_params" not in config.load(path).config


# --- hypertune_params -------------------------------------------------------------------------------


def test_defaults_are_ptyrads(plan: Any) -> None:
    """What the file leaves out is what PtyRAD 1.0 documents."""
    made = plan()
    assert made.budget == Budget(5)
    assert made.budget.trials(workers=8) == 40
    assert made.sampler.name == "TPESampler"
    assert dict(made.sampler.configs) == {"multivariate": True, "group": True, "constant_liar": True}
    assert (made.pruner.name, dict(made.pruner.configs)) == (
        "HyperbandPruner",
        {"min_resource": 5, "reduction_factor": 2},
    )
    assert (made.name, made.metric, made.direction, made.storage) == ("study", "loss", "minimize", None)
    assert made.keep == KeepOptions(arrays=True, snapshot_every=10, params_in_names=True)
    assert (made.seed, made.engine, made.iterations) == (0, "ptyrad", 10)


def test_every_field_acts(plan: Any) -> None:
    """Each field of hypertune_params ends where it acts."""
    made = plan(
        n_trials=7,
        timeout=60,
        collate_results=False,
        append_params=False,
        sampler_params={"name": "RandomSampler"},
        pruner_params={"name": "MedianPruner", "configs": {"n_warmup_steps": 2}},
        storage_path="sqlite:///here.db",
        study_name="WSe2",
        error_metric="contrast",
    )
    assert made.budget == Budget(7, timeout=60.0)
    assert made.keep == KeepOptions(arrays=False, snapshot_every=None, params_in_names=False)
    assert (made.sampler.name, dict(made.sampler.configs)) == ("RandomSampler", {})
    assert (made.pruner.name, dict(made.pruner.configs)) == ("MedianPruner", {"n_warmup_steps": 2})
    assert (made.storage, made.name) == ("sqlite:///here.db", "WSe2")
    assert (made.metric, made.direction) == ("contrast", "maximize")


@pytest.mark.parametrize("off", [None, False])
def test_no_pruning(off: object, plan: Any) -> None:
    """``pruner_params: null`` of PtyRAD 1.0 and ``false`` of the versions before it."""
    made = plan(pruner_params=off)
    assert made.pruner is None
    assert made.config["hypertune_params"]["pruner_params"] is None


def test_hypertune_off_is_one_reconstruction(plan: Any) -> None:
    """With ``if_hypertune: false`` nothing of the section acts: one trial, nothing tuned, nothing pruned."""
    made = plan(if_hypertune=False, n_trials=50, collate_results=False, storage_path="sqlite:///x.db")
    assert made.budget == Budget(1, total=True)
    assert made.space == {}
    assert (made.pruner, made.storage, made.keep.arrays) == (None, None, True)
    assert any("one reconstruction" in notice for notice in made.notices)


@pytest.mark.parametrize(
    ("name", "file"),
    [("a/b", "a%2Fb.h5"), (".hidden", "%2Ehidden.h5"), ("tBL WSe2", "tBL WSe2.h5"), ("50%", "50%25.h5"), ("α", "α.h5")],
)
def test_results_file(name: str, file: str, plan: Any) -> None:
    """The results file is named after the study, safely."""
    assert plan(study_name=name).results == Path("output") / file


def test_a_password_stays_out_of_the_configuration() -> None:
    """The configuration is stored in the results file; the storage's password is not."""
    hypertune = {
        "if_hypertune": True,
        "storage_path": "postgresql://me:secret@host/db",
        "tune_params": tune("scale", low=0.8, high=1.2),
    }
    data = {"init_params": {}, "hypertune_params": hypertune}
    made = params_file.PtyradFormat().plan(SourceFile(Path("p.yaml"), "", "yaml"), data, Overrides())
    assert made.storage == "postgresql://me:secret@host/db"
    assert "secret" not in json.dumps(made.config)


@pytest.mark.parametrize("password", ["pa/ss", "it's", 'se"cret'])
@pytest.mark.parametrize("override", [None, "sqlite:///other.sqlite3"])
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_an_odd_password_stays_out_too(
    password: str, override: str | None, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither in the stored configuration nor in the stored text, however the file quotes it."""
    monkeypatch.setattr(errors, "_SECRETS", set())
    url = f"postgresql+psycopg://user:{password}@host/db"
    hypertune = {"if_hypertune": True, "storage_path": url, "tune_params": tune("scale", low=0.8, high=1.2)}
    text = {"json": json.dumps, "yaml": lambda data: yaml.safe_dump(data, default_style="'")}[form](
        {"init_params": {}, "hypertune_params": hypertune}
    )
    path = tmp_path / f"p.{form}"
    path.write_text(text)
    source, data = reading.read(path)
    data = {"init_params": {}, "hypertune_params": hypertune}
    made = params_file.PtyradFormat().plan(source, data, Overrides(storage=override))
    for spelling in (password, json.dumps(password)[1:-1], password.replace("'", "''")):
        assert spelling not in json.dumps(made.config)
        assert spelling not in errors.redact(source.text)


def test_a_number_too_long_to_write(tmp_path: Path) -> None:
    """A number of 5000 hexadecimal digits, which Python refuses to print, is refused with its key."""
    path = tmp_path / "p.yaml"
    path.write_text(f"init_params: {{}}\nhypertune_params: {{n_trials: -0x{'f' * 5000}}}\n")
    with pytest.raises(errors.ConfigError, match=r"hypertune_params\.n_trials: .*64 bits"):
        config.load(path)
    assert errors.shorten(16**5000) == "(int, too long to write)"


def test_a_digit_that_is_no_place_in_a_list(plan: Any) -> None:
    """A superscript two is a digit to Python, and no number."""
    settings = (("init_params.a", [1]), ("init_params.a.\u00b2", 1))
    with pytest.raises(errors.ConfigError, match="places 0 to 0"):
        plan(overrides=Overrides(settings=settings))


# --- tune_params ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "name", "dist"),
    [
        (tune("scale", low=0.8, high=1.2, step=0.02), "scale", FloatRange(0.8, 1.2, 0.02)),
        (tune("oalr", low=1e-4, high=1e-2, step=None, log=True), "oalr", FloatRange(1e-4, 1e-2, log=True)),
        (tune("conv_angle", low=24, high=26), "conv_angle", FloatRange(24.0, 26.0)),
        (tune("Nlayer", "int", low=1, high=8, step=1, log=False), "Nlayer", IntRange(1, 8)),
        (tune("batch_size", "int", low=16, high=512, log=True), "batch_size", IntRange(16, 512, log=True)),
        (tune("pmode_max", "int", low=2.0, high=8.0, step=3), "pmode_max", IntRange(2, 8, 3)),
        (tune("optimizer", "cat", choices=["Adam", "SGD"]), "optimizer", Choice(("Adam", "SGD"))),
        (tune("defocus", low=-20, high=50, step=0.1), "C10", FloatRange(-50.0, 20.0, 0.1)),
        (tune("defocus", "int", low=-20, high=50, step=10), "C10", IntRange(-50, 20, 10)),
        (tune("defocus", "cat", choices=[0, 10]), "C10", Choice((0, -10))),
        (tune("c3", low=4000, high=10000), "C30", FloatRange(4000.0, 10000.0)),
        (tune("c5", low=5e4, high=1e5, step=5000), "C50", FloatRange(5e4, 1e5, 5000.0)),
    ],
)
def test_distribution(entry: dict[str, Any], name: str, dist: object, plan: Any) -> None:
    """Each kind of range, under the tunable's present name, with the sign of defocus turned."""
    assert dict(plan(entry).space) == {name: dist}


def test_defocus_grid_is_turned_whole(plan: Any) -> None:
    """A range that is no multiple of its step keeps its grid points when its sign is turned."""
    assert plan(tune("defocus", low=0, high=10, step=4)).space["C10"] == FloatRange(-8.0, 0.0, 4.0)


def test_an_aberration_with_a_direction_is_two_parameters(plan: Any) -> None:
    """C12 becomes C12a and C12b with one range, as in PtyRAD."""
    assert list(plan(tune("C12", low=-5, high=5)).space) == ["C12a", "C12b"]


def test_duplicate_choices(plan: Any) -> None:
    """PtyRAD's own default for plr holds 1e-4 twice: it is tried once, and said."""
    made = plan(tune("plr", "cat", choices=[1e-2, 1e-4, 1e-4]))
    assert made.space["plr"] == Choice((1e-2, 1e-4))
    assert made.config["hypertune_params"]["tune_params"]["plr"]["kwargs"]["choices"] == [1e-2, 1e-4]
    assert any("twice" in notice for notice in made.notices)


def test_step_that_does_not_divide(plan: Any) -> None:
    """The range ends at its last grid point, as Optuna has it, and says so."""
    made = plan(tune("scale", low=0.8, high=1.25, step=0.1))
    assert made.space["scale"] == FloatRange(0.8, 1.2, 0.1)
    assert any("1.25 is not a multiple" in notice for notice in made.notices)


def test_one_value(plan: Any) -> None:
    """``low = high`` is one value, as it occurs in the wild."""
    made = plan(tune("C10", low=-5, high=-5, step=1))
    assert made.space["C10"] == FloatRange(-5.0, -5.0, 1.0)
    assert any("one value" in notice for notice in made.notices)


@pytest.mark.parametrize("beside", [True, False])
def test_optim_configs_in_either_place(beside: bool, plan: Any) -> None:
    """Beside kwargs (before 1.0) or inside (1.0), they end inside and are no keyword of the distribution."""
    entry = tune("optimizer", "cat", choices=["Adam", "SGD"])
    configs = {"SGD": {"momentum": 0.9}}
    (entry["optimizer"] if beside else entry["optimizer"]["kwargs"])["optim_configs"] = configs
    made = plan(entry)
    assert made.space["optimizer"] == Choice(("Adam", "SGD"))
    kept = made.config["hypertune_params"]["tune_params"]["optimizer"]
    assert kept["kwargs"]["optim_configs"] == configs
    assert "optim_configs" not in kept


def test_inactive_old_names_are_dropped(plan: Any) -> None:
    """PtyRAD 1.0 warns of them; they do nothing, so they go without a word."""
    entries = {**tune("scale", low=1, high=2), "c3": {"state": False, "suggest": "float", "kwargs": {}}}
    made = plan(entries)
    assert list(made.config["hypertune_params"]["tune_params"]) == ["scale"]
    assert not any("c3" in notice for notice in made.notices)


def test_grid_values_beat_the_range(plan: Any) -> None:
    """PtyRAD's GridSampler heeds its search_space alone: the range makes room, and says so."""
    sampler = {"name": "GridSampler", "configs": {"search_space": {"defocus": [100, 200]}}}
    made = plan(tune("defocus", low=0, high=10, step=1), sampler_params=sampler)
    assert made.space["C10"] == FloatRange(-200.0, -100.0)
    assert made.sampler.configs["search_space"] == {"C10": [-100, -200]}


# --- the command line's say -------------------------------------------------------------------------


def test_overrides(plan: Any, tmp_path: Path) -> None:
    """Each override wins over the file."""
    made = plan(
        overrides=Overrides(
            settings=(("recon_params.NITER", 3), ("hypertune_params.tune_params.scale.kwargs.low", 0.9)),
            n_trials=11,
            timeout=5,
            results=tmp_path / "r.h5",
            storage="journal:///j.log",
            engine="toy",
            seed=4,
            tries=({"scale": 1.1},),
        ),
        n_trials=7,
        storage_path="sqlite:///here.db",
    )
    assert made.iterations == 3
    assert made.space["scale"] == FloatRange(0.9, 1.2)
    assert made.budget == Budget(11, total=True, timeout=5.0)
    assert made.budget.trials(workers=8) == 11
    assert (made.results, made.storage, made.engine, made.seed) == (tmp_path / "r.h5", "journal:///j.log", "toy", 4)
    assert made.config["init_params"]["random_seed"] == 4
    assert made.points == (Point({"scale": 1.1}, "try"),)


def test_a_try_in_old_names_and_off_the_grid(plan: Any) -> None:
    """A guess in the old names is translated, one off the grid moved to the nearest grid point, and said."""
    made = plan(tune("defocus", low=-10, high=10, step=5), Overrides(tries=({"defocus": 6},)))
    assert made.points[0].params == {"C10": -5.0}
    assert any("--try C10: -6" in notice for notice in made.notices)


@pytest.mark.parametrize(
    ("point", "words"),
    [({"scal": 1}, "did you mean 'scale'?"), ({"scale": 9}, "must be 0.8 to 1.2"), ({"scale": "x"}, "must be")],
)
def test_a_try_that_cannot_be(point: dict[str, Any], words: str, plan: Any) -> None:
    """An unknown name or a value outside the range is refused, not guessed at."""
    with pytest.raises(errors.ConfigError, match="--try") as caught:
        plan(overrides=Overrides(tries=(point,)))
    assert words in str(caught.value)


def test_settings_reach_into_lists_and_make_sections(plan: Any) -> None:
    """``--set`` sets list items by place and makes the mappings that are missing."""
    made = plan(
        overrides=Overrides(
            settings=(
                ("init_params.pos_scan_affine", [1, 0, 0, 0]),
                ("init_params.pos_scan_affine.2", -1.5),
                ("model_params.update_params.obj_tilts.start_iter", 1),
            )
        )
    )
    assert made.config["init_params"]["pos_scan_affine"] == [1, 0, -1.5, 0]
    assert made.config["model_params"] == {"update_params": {"obj_tilts": {"start_iter": 1}}}


@pytest.mark.parametrize("key", ["init_params.probe_kv.x", "init_params.probe_kv.x.y"])
def test_settings_cannot_reach_into_a_number(key: str, plan: Any) -> None:
    """A key that leads through a number is refused with the key."""
    with pytest.raises(errors.ConfigError, match="probe_kv"):
        plan(overrides=Overrides(settings=((key, 1),)))


@pytest.mark.parametrize("text", ["recon_params.NITER", "=3", "a..b=3", "a={", "a=!!python/name:os.system x"])
def test_a_setting_that_cannot_be_read(text: str) -> None:
    """One line, for the user."""
    with pytest.raises(errors.UsageError) as caught:
        config.parse_setting(text)
    assert "--set" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_program_or_half_a_setting_is_told(tmp_path: Path) -> None:
    """What to write instead, for a sweep file too."""
    (tmp_path / "train.py").write_text("")
    with pytest.raises(errors.ConfigError, match=r"for a program write a sweep file with program: train.py$"):
        config.load(tmp_path / "train.py")
    with pytest.raises(errors.UsageError, match=r"parameters.lr.max=0.1 or recon_params.NITER=20"):
        config.parse_setting("run_cap")


@pytest.mark.parametrize(("word", "said"), [("rn", "unknown command: 'rn'; did you mean 'run'? ("), ("zzz", "'zzz' (")])
def test_a_misspelt_command(capsys: pytest.CaptureFixture[str], word: str, said: str) -> None:
    """One line with the nearest, without the list of all."""
    assert cli.main([word]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert "choose from" not in line


def test_a_point_on_the_command_line() -> None:
    """Blanks or commas between, numbers as YAML reads them, words as words."""
    assert config.parse_point("scale=1.02 rotation=-1.5,optimizer=Adam plr=1e-4") == {
        "scale": 1.02,
        "rotation": -1.5,
        "optimizer": "Adam",
        "plr": 1e-4,
    }


@pytest.mark.parametrize("text", ["", "scale", "scale=", "=1", "scale=[1]", "scale=1 scale=2"])
def test_a_point_that_cannot_be_read(text: str) -> None:
    """One line, for the user."""
    with pytest.raises(errors.UsageError, match="--try"):
        config.parse_point(text)


# --- back to a file ---------------------------------------------------------------------------------


def test_render(plan: Any) -> None:
    """The file says the values, switches hypertune off, keeps PtyRAD's order, and reads back as the same values."""
    made = plan(tune("C12", low=-5, high=5))
    before = copy.deepcopy(dict(made.config))
    text = params_file.render_params(made.config, {"C12a": 1e-5, "C12b": -2.5}, header="trial 3\nloss 0.1")
    assert text.startswith("# trial 3\n# loss 0.1\ninit_params:\n")
    again = yaml.safe_load(text)
    assert list(again) == ["init_params", "hypertune_params", "recon_params"]
    assert again["init_params"]["probe_aberrations"] == {"C12a": 1e-5, "C12b": -2.5}
    assert again["init_params"]["random_seed"] == 0
    assert again["hypertune_params"] == {"if_hypertune": False}
    assert made.config == before


def test_render_spells_out_what_is_shared() -> None:
    """A list that two keys share is written twice: a reader of a params file does not expect an alias."""
    shared = [1.0, 0.0]
    text = params_file.render_params({"init_params": {"a": shared, "b": shared}}, {})
    assert "&" not in text
