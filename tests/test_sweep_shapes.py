"""The shapes of sweep files that people have: each runs, its program called as it is meant, or is refused by name.

tests/fixtures/sweeps/public has one file for each shape; its first line says what it is.
"""

from __future__ import annotations

import json
import re
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from engine_cases import NEVER, SLOT, go_on

from ptydask import config, engines, sampling
from ptydask.config import Overrides
from ptydask.errors import ConfigError
from ptydask.model import StudyPlan, TrialInput
from ptydask.space import sweep_values

SHAPES = Path(__file__).parent / "fixtures" / "sweeps" / "public"
TRIALS = 2

REAL = r"-?\d+(\.\d*)?(e[-+]?\d+)?"
WHOLE = r"-?\d+"
BETWEEN = r"0\.\d+(e-?\d+)?"

RUNS: dict[str, tuple[str, list[str]]] = {
    # shape: what is started, and a pattern for each of its arguments
    "plain": (
        "train.py",
        ["--batch_size=(16|32|64)", "--layers=[2-5]", f"--learning_rate={BETWEEN}", "--optimizer=adamw"],
    ),
    "hydra_overrides": (
        "train.py",
        [r"\+experiment=denoise_small", "model.unet.width=(16|24)", rf"trainer\.optim\.lr={REAL}"],
    ),
    "hydra_append": (
        "train.py",
        [r"\+augment=flips", r"\+loss\.edge_weight=0\.[05]", "hydra/launcher=basic"],
    ),
    "hydra_override_all": ("train.py", [r"\+\+seed=\d+", r"hydra\.run\.dir=out/\$\{now:%H-%M\}"]),
    "lightning_cli": (
        "cli.py",
        [
            "fit",
            "--config",
            "configs/base.yaml",
            r"--data\.init_args\.batch_size=[24]",
            rf"--model\.init_args\.lr={REAL}",
            r"--trainer\.max_epochs=3",
        ],
    ),
    "nested": ("train.py", []),
    "nested_arguments": ("train.py", [r"--optim=\{'lr': 0\.5, 'name': 'sgd'\}"]),
    "torchrun": (
        "torchrun",
        ["--standalone", "--nproc_per_node=2", "train_ddp.py", "--bucket_mb=(10|25)", f"--lr={REAL}"],
    ),
    "accelerate": (
        "accelerate",
        ["launch", "--mixed_precision", "bf16", "finetune.py", "--alpha", "16", "--rank", "[48]"],
    ),
    "bash_wrapper": ("run.sh", [f"LR={BETWEEN}", "PATCH=(64|96)"]),
    "docker": (
        "docker",
        [
            "run",
            "--rm",
            "--volume=/data/shapes:/data:ro",
            r"denoiser:2\.1",
            "python",
            "/opt/app/train.py",
            f"--sigma={REAL}",
        ],
    ),
    "uv_run": ("uv", ["run", "train.py", "--amp", "--width=(8|12)"]),
    "poetry_module": (
        "poetry",
        ["run", "python", "-m", "denoise.train", r"--beta1=0\.[89]\d*", r"--patience=\d+"],
    ),
    "environment": (
        "train.py",
        ["--data", "/data/shapes", "--cache=/data/shapes/cache", "--tag=SHAPES_UNSET", "--fold=[01]"],
    ),
    "all_distributions": (
        "train.py",
        [
            "--a_constant=7",
            "--b_categorical=(red|green)",
            "--c_int=[1-6]",
            f"--d_uniform={REAL}",
            f"--e_log={REAL}",
            f"--f_log_values={REAL}",
            f"--g_inv={REAL}",
            f"--h_inv_values={REAL}",
            r"--i_normal=[1-5]\.\d+",
            f"--j_log_normal={REAL}",
            f"--k_beta={BETWEEN}",
        ],
    ),
    "quantised": (
        "train.py",
        [
            "--batch=(8|[1-9]\\d+)",
            "--crop=(32|48|64|80|96|112|128)",
            f"--drop={REAL}",
            r"--grow=\d+",
            r"--jitter=-?\d*[02468]",
            r"--scale=\d+\.[05]",
            f"--share={REAL}",
        ],
    ),
    "probabilities": ("train.py", ["--activation=(relu|gelu|silu)", "--seed=3"]),
    "hyperband_min_iter": ("train.py", [f"--lr={REAL}"]),
    "hyperband_max_iter": ("train.py", [f"--lr={REAL}"]),
    "cap_and_target": ("train.py", ["--depth=[1-4]"]),
    "imputation": ("train.py", [f"--gain={REAL}"]),
    "subfolder": ("train_unet.py", ["--skips=(none|all|last)"]),
    "json_file": ("cli.py", ["fit", "--json-file", r"/.*\.json"]),
    "slashes": ("cli.py", ["--optimizer/init_args/decay=0.01", f"--optimizer/init_args/lr={REAL}"]),
    "hydra_groups": ("train.py", [r"\+experiment=ablation", "model/encoder=(conv|mixer)"]),
    "json_text": (
        "fit.py",
        ["--overrides", r'\{"stats": \{"mean": 0\.5, "std": 0\.25\}, "window": [35]\}'],
    ),
    "launch_job": ("train.py", [f"--lr={REAL}"]),
    "anchors": ("train.py", [f"--lr_decoder={REAL}", f"--lr_encoder={REAL}", "--size=(8|16)", "--size_out=(8|16)"]),
    "untidy": ("train.py", [r"--lr=0\.[1-5]\d*", r"--wd=0\.[01]"]),
    "exponents": (
        "train.py",
        [f"--decay={REAL}", "--limit=10000000", f"--lr={REAL}", r"--warmup=(1000|500|1000\.0|500\.0)"],
    ),
    "booleans": ("train.py", ["--amp=(True|False)", "--bias=True", "--clip=False", "--norm=True"]),
    "quoted": ("train.py", ["--fold=[12]", "--gpus=0,1", r"--version=1\.10"]),
    "lists": (
        "train.py",
        [r"--blocks=\[(2, 2)?\]", r"--schedule=\{'name': 'step', 'gamma': 0\.5\}", r"--widths=\[(16, 32|8)\]"],
    ),
    "nulls": ("train.py", [r"--clip=(None|1\.0)", "--notes=None", "--resume=None"]),
    "dates": ("train.py", ["--at=12:30", "--until=202[12]-06-30"]),
    "mixed_values": ("train.py", [r"--pool=(1|0\.5|auto|True)"]),
    "log_of_values": ("train.py", [r"--lr=1\.0\d+"]),
    "unknown_macro": ("segment.py", ["--levels", r"--level_file=(coarse|fine)\.json"]),
    "unknown_keys": ("train.py", [f"--lr={REAL}"]),
    "grid_of_ranges": ("train.py", ["--act=relu", "--depth=[12]", "--kernel=[357]"]),
}

REFUSED: dict[str, tuple[str, str]] = {
    # shape: the key, and a word of the rule; the whole lines are in fixtures/golden/validate.txt
    "bare_list": ("parameters.pool.size", "mapping"),
    "command_as_text": ("command", "list"),
    "custom_method": ("method", "W&B"),
    "duplicate_key": ("", "twice"),
    "early_envelope": ("early_terminate.type", "hyperband"),
    "grid_of_reals": ("parameters.lr", "grid"),
    "nested_by_hand": ("parameters.optimizer.name", "indented"),
    "no_method": ("method", "missing"),
    "no_values": ("parameters.gamma.values", "null"),
    "nothing_left": ("parameters", "comment"),
    "probabilities_wrong": ("parameters.act.probabilities", "sum"),
    "program_with_arguments": ("program", "file"),
    "quoted_range": ("parameters.lr.min", "number"),
    "scheduler": ("scheduler", "Launch"),
    "several_metrics": ("metrics", "several"),
    "tabs": ("", "YAML"),
    "two_words_in_one": ("command", "program"),
    "upside_down": ("parameters.decay_ratio.min", "above"),
    "wrong_goal": ("metric.goal", "minimize"),
    "wrong_method": ("method", "random"),
}

PROGRAMS = (
    "train.py",
    "cli.py",
    "fit.py",
    "segment.py",
    "main.py",
    "src/models/train_unet.py",
    "bin/torchrun",
    "bin/accelerate",
    "bin/docker",
    "bin/uv",
    "bin/poetry",
)
STAND_IN = f"""#!{sys.executable} -S
import json, os, sys

said = {{"argv": sys.argv, "here": os.getcwd()}}
for word in sys.argv[1:]:
    if word.startswith("/") and word.endswith(".json"):
        said["file"] = json.load(open(word))
with open(os.environ["WANDB_SWEEP_PARAM_PATH"]) as file:
    said["sweep"] = file.read()
print(json.dumps(said))
with open(os.environ["PTYDASK_METRICS"], "a") as file:
    for step in (1, 2):
        file.write(json.dumps({{"step": step, **dict.fromkeys({{names}}, 0.5)}}) + "\\n")
"""


@pytest.fixture(scope="module")
def metrics() -> list[str]:
    """The names of the metrics of all shapes."""
    return sorted({yaml.safe_load((SHAPES / f"{shape}.yaml").read_text())["metric"]["name"] for shape in RUNS})


@pytest.fixture
def workshop(tmp_path: Path, metrics: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stand-in for every program that the shapes start."""
    for place in PROGRAMS:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STAND_IN.replace("{names}", repr(metrics)))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "run.sh").write_text('exec -a run.sh ./train.py "$@"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("SHAPES_DATA", "/data/shapes")
    monkeypatch.delenv("SHAPES_UNSET", raising=False)
    return tmp_path


def first_trials(plan: StudyPlan) -> list[Mapping[str, Any]]:
    """The values of the first trials, as the driver would have Optuna choose them."""
    study = optuna.create_study(sampler=sampling.build_sampler(plan.sampler, seed=plan.seed, space=plan.space))
    found = []
    for _ in range(TRIALS):
        trial = study.ask()
        found.append(sampling.suggest(trial, plan.space, plan.sampler))
        study.tell(trial, 0.5)
    return found


@pytest.mark.parametrize("shape", sorted(path.stem for path in SHAPES.glob("*.yaml")))
def test_every_shape_has_its_place(shape: str) -> None:
    """Each fixture says what it is, and is in one of the two tables."""
    assert (SHAPES / f"{shape}.yaml").read_text().startswith("# ")
    assert (shape in RUNS) != (shape in REFUSED)


@pytest.mark.parametrize("shape", sorted(RUNS))
def test_it_runs(shape: str, workshop: Path) -> None:
    """Its first trials, through the engine: what is started, every argument, and the same values for wandb.config."""
    engine = engines.get("command")
    plan = engine.validate(config.load(SHAPES / f"{shape}.yaml", Overrides(n_trials=TRIALS)))
    session = engine.open(plan, SLOT)
    program, patterns = RUNS[shape]
    for number, params in enumerate(first_trials(plan)):
        output = session.run(TrialInput(number, params, 0), go_on, NEVER)
        said = json.loads(output.log)
        assert Path(said["argv"][0]).name == (program if program != "run.sh" else "train.py")
        arguments = said["argv"][1:]
        assert len(arguments) == len(patterns), arguments
        for argument, pattern in zip(arguments, patterns, strict=True):
            assert re.fullmatch(pattern, argument), f"{argument!r} is not {pattern}"
        told = {
            name: entry["value"] for name, entry in yaml.safe_load(said["sweep"]).items() if name != "wandb_version"
        }
        assert told == sweep_values.values(plan.config, params)
        assert said.get("file", told) == told
        assert said["here"] == str(workshop)
        assert output.metrics[plan.metric] == 0.5
    session.close()


def refused(shape: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        engines.get("command").validate(config.load(SHAPES / f"{shape}.yaml", Overrides(n_trials=TRIALS)))
    return caught.value


@pytest.mark.parametrize("shape", sorted(REFUSED))
def test_it_is_refused(shape: str, workshop: Path) -> None:
    """For its key, by the rule that it breaks."""
    error, (key, word) = refused(shape), REFUSED[shape]
    assert (error.file, error.key) == (SHAPES / f"{shape}.yaml", key)
    assert word in error.rule


def test_what_is_said_of_it(workshop: Path, golden: Callable[..., None]) -> None:
    """One line: file, key, value, rule, what to do."""
    said = {f"validate {shape}.yaml": str(refused(shape)).replace(f"{SHAPES}/", "") for shape in sorted(REFUSED)}
    assert not [line for line in said.values() if "\n" in line]
    golden("validate", said)
