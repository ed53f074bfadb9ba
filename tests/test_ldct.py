"""ldct-benchmark's sweep files, data and programs, as far as they can be checked without a training."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ldct_cases
import optuna
import pytest
from command_cases import NoCheckpoint

from ptydask import config, engines, sampling
from ptydask.config import Overrides
from ptydask.distributions import FloatRange, IntRange
from ptydask.engines.command import arguments, devices
from ptydask.engines.command.devices import SlotDevice
from ptydask.errors import DataError
from ptydask.model import ComponentSpec, Scalar, Slot, StudyPlan, TrialInput
from ptydask.space import sweep_values

SEED = Path(__file__).parent / "fixtures" / "sweeps" / "seed-flattened.yaml"
CONFIGS = ldct_cases.ROOT / "configs"


# --- files ---------------------------------------------------------------------------------------------------------


def planned(file: Path) -> StudyPlan:
    return config.load(file, Overrides(n_trials=10))


def constants(plan: StudyPlan) -> dict[str, Any]:
    return {entry["name"]: entry["value"] for entry in plan.config["parameters"] if "value" in entry}


def test_own_file_is_the_published_one() -> None:
    """configs/cnn10-hpopt.yaml: every parameter, range, metric, command and program of the published file, no other."""
    published, own = planned(SEED), planned(CONFIGS / "cnn10-hpopt.yaml")
    assert own.space == published.space
    assert constants(own) == constants(published)
    assert len(own.space) + len(constants(own)) == 16
    for plan in (own, published):
        assert (plan.name, plan.engine, plan.metric, plan.direction) == ("cnn10-hpopt", "command", "SSIM", "maximize")
        assert plan.config["program"] == "ldctbench-train"
        assert plan.config["command"] == ["${program}", "${args_no_boolean_flags}"]
    assert own.space["lr"] == FloatRange(1e-5, 0.01, log=True)
    assert own.space["mbs"] == IntRange(2, 128)
    assert any("parameters" in notice for notice in published.notices), "the lost indentation is said"
    assert not any("parameters" in notice for notice in own.notices)


@pytest.mark.ldct
@pytest.mark.parametrize("name", ["cnn10-hpopt", "cnn10-demo"])
def test_own_files_validate(name: str, ptydask: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """``ptydask validate`` accepts both files, and shows the command of a trial."""
    said = ptydask("validate", CONFIGS / f"{name}.yaml", env=ldct_cases.environment())
    assert said.returncode == 0, said.stderr
    assert "ldctbench-train --" in said.stdout + said.stderr


# --- the command ---------------------------------------------------------------------------------------------------


def sampled(plan: StudyPlan, count: int) -> list[dict[str, Scalar]]:
    """The parameters of ``count`` random trials."""
    study = optuna.create_study(
        sampler=sampling.build_sampler(ComponentSpec("RandomSampler"), seed=1, space=plan.space)
    )
    dists = {name: sampling.to_optuna(dist) for name, dist in plan.space.items()}
    return [study.ask(dists).params for _ in range(count)]


def parsed(plan: StudyPlan, values: dict[str, Any]) -> dict[str, Any]:
    """What ldctbench-train makes of the command of a trial."""
    expanded = arguments.expand(plan.config["command"], plan.config["program"], values, {}, None)
    assert expanded.argv[0] == "ldctbench-train"
    return vars(ldct_cases.parser().parse_args(expanded.argv[1:]))


@pytest.mark.ldct
@pytest.mark.parametrize("file", [SEED, CONFIGS / "cnn10-demo.yaml"], ids=["published", "demo"])
def test_commands_parse(file: Path) -> None:
    """ldctbench's own parser reads 1,000 trials' values back as they were sampled, integers as integers."""
    plan = planned(file)
    fixed = constants(plan)
    trials = sampled(plan, 1000)
    assert len({tuple(params.items()) for params in trials}) == 1000
    for params in trials:
        read = parsed(plan, sweep_values.values(plan.config, params))
        assert {name: read[name] for name in params} == params
        for name in ("mbs", "max_iterations", "patchsize"):
            assert type(read[name]) is int
        assert read["cuda"] is not fixed.get("no-cuda", False)
        assert read["devices"] == [fixed["devices"]]
        simple = {name: value for name, value in fixed.items() if name not in ("devices", "no-cuda")}
        assert {name: read[name] for name in simple} == simple


# --- the GPU of a slot -----------------------------------------------------------------------------------------------

TWO_GPUS = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-5fc1a2b3-0000-2b2c-524d-9e3d8d2b8a78)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
"""
ONE_INSTANCE = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5fc1a2b3-0000-2b2c-524d-9e3d8d2b8a78)
  MIG 1g.5gb      Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
"""
PCI = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(
    ("cuda", "listed", "found"),
    [
        (None, TWO_GPUS, SlotDevice(None)),
        ("3", "", SlotDevice(3)),
        ("3,5", "", SlotDevice(3)),
        ("GPU-5fc1a2b3-0000-2b2c-524d-9e3d8d2b8a78", TWO_GPUS, SlotDevice(1, PCI)),
        ("GPU-5d", TWO_GPUS, SlotDevice(0, PCI)),
        ("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", ONE_INSTANCE, SlotDevice(0)),
    ],
)
def test_index_of_the_slots_gpu(cuda: str | None, listed: str, found: SlotDevice) -> None:
    """An index stays what it is; a UUID becomes the index that nvidia-smi counts, counted so by CUDA too."""
    assert devices.slot_device(Slot(1, cuda), lambda: listed) == found


@pytest.mark.parametrize("cuda", ["GPU-5", "GPU-none", "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"])
def test_gpu_without_an_index(cuda: str) -> None:
    """One MIG instance of several GPUs, an unknown or ambiguous UUID: refused by name, not tried on another GPU."""
    with pytest.raises(DataError, match=f"{cuda}.*takes the index of a GPU.*CUDA_VISIBLE_DEVICES"):
        devices.slot_device(Slot(1, cuda), lambda: TWO_GPUS)


@pytest.mark.ldct
@pytest.mark.parametrize(("cuda", "expected"), [("3", [3]), (None, [0])])
def test_devices_is_the_slots_gpu(cuda: str | None, expected: list[int]) -> None:
    """ldctbench-train, which sets CUDA_VISIBLE_DEVICES by --devices, is told the slot's GPU; the file's 0 on a CPU."""
    plan = planned(SEED)
    assert plan.config["engine"]["devices"] == "devices"
    assert any("devices" in notice for notice in plan.notices)
    params = sampled(plan, 1)[0]
    values = sweep_values.values(plan.config, params)
    devices.set_device(plan.config, values, devices.slot_device(Slot(1, cuda)))
    assert parsed(plan, values)["devices"] == expected


TRAIN = """#!{python}
import os, sys
print(sys.argv[1:], os.environ["CUDA_VISIBLE_DEVICES"])
with open(os.environ["PTYDASK_METRICS"], "a") as file:
    file.write('{{"step": 1, "SSIM": 0.5}}\\n')
"""


def test_a_gpu_worker_tells_the_program_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial in the slot of GPU 3: --devices=3, and CUDA_VISIBLE_DEVICES as long as the program does not set it."""
    program = tmp_path / "ldctbench-train"
    program.write_text(TRAIN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    engine = engines.get("command")
    plan = engine.validate(planned(SEED))
    session = engine.open(plan, Slot(1, "3"))
    output = session.run(TrialInput(0, sampled(plan, 1)[0], 1), lambda step, metrics: False, NoCheckpoint())
    assert output.metrics["SSIM"] == 0.5
    assert "'--devices=3'" in output.log
    assert output.log.split()[-1] == "3"
    assert "--devices=3" in output.command


# --- the data ------------------------------------------------------------------------------------------------------

CHECK = """
import runpy, sys
from argparse import Namespace
from pathlib import Path
import pydicom
script, *folders = sys.argv[1:]
for folder in folders:
    sys.argv[1:] = [folder]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code, end
from ldctbench.data import LDCTMayo
args = Namespace(seed=1332, datafolder=folders[0], data_norm="meanstd", data_subset=0.005, patchsize=128)
sets = [LDCTMayo(mode, args) for mode in ("train", "val")]
assert [len(each) for each in sets] == [95, 26], sets
for each in sets:
    for index in range(len(each)):
        item = each[index]
        assert item["x"].shape == item["y"].shape == (1, 128, 128)
        assert item["x"].std() > 0.1
        assert 0.02 < (item["x"] - item["y"]).std() < 1
for file in Path(folders[0]).rglob("*.dcm"):
    header = pydicom.dcmread(file, stop_before_pixels=True)
    assert header.PatientName == "SYNTHETIC^PHANTOM" and header.PatientID.startswith("SYNTHETIC-"), file
    assert "SYNTHETIC" in header.ImageComments and "SYNTHETIC" in header.ImageType, file
    assert "SYNTHETIC" in header.StudyDescription and "SYNTHETIC" in header.SeriesDescription, file
"""


@pytest.mark.ldct
@pytest.mark.slow
def test_data(tmp_path: Path) -> None:
    """Every slice that the loader asks for is there; small, the same each time, and synthetic in every header."""
    ldct_cases.python(CHECK, ldct_cases.SCRIPT, tmp_path / "one", tmp_path / "two", cwd=tmp_path)
    one, two = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.*") if p.is_file()}
        for n in ("one", "two")
    )
    assert one == two
    assert len(one) == 2 * (95 + 26) + 1
    assert sum(map(len, one.values())) < 15e6
    assert b"SYNTHETIC DATA - no patients" in one[Path("README.txt")]


@pytest.mark.parametrize("wrong", [("--subset", "0"), ("--subset", "2"), ("--size", "128")])
def test_data_that_cannot_be(wrong: tuple[str, str], tmp_path: Path) -> None:
    """An impossible subset, or a picture that validation cannot crop, is refused before anything is written."""
    command = [sys.executable, str(ldct_cases.SCRIPT), str(tmp_path / "data"), *wrong]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert "must be" in said.stderr
    assert not (tmp_path / "data").exists()


def test_real_data_are_not_mixed_with_synthetic_ones(tmp_path: Path) -> None:
    """A folder with other files in it is refused, and left as it is."""
    (tmp_path / "LDCT-and-Projection-data").mkdir()
    (tmp_path / "README.txt").write_text("the real ones")
    command = [sys.executable, str(ldct_cases.SCRIPT), str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert f"{tmp_path} must be a new or an empty folder" in said.stderr
    assert {path.name for path in tmp_path.rglob("*")} == {"LDCT-and-Projection-data", "README.txt"}


# --- torchvision beside a CPU-only torch -----------------------------------------------------------------------------

NEEDY = """
import torch
from torchvision import half
if not torch.library.declared:
    raise RuntimeError("operator torchvision::nms does not exist")
"""
TORCH = """
import types
version = types.SimpleNamespace(cuda={cuda}, hip=None)
class Library:
    def __init__(self, name, kind): assert (name, kind) == ("torchvision", "DEF")
    def define(self, schema): library.declared.append(schema)
library = types.SimpleNamespace(Library=Library, declared=[])
"""


def imported(tmp_path: Path, torchvision: str, cuda: str | None = None, code: str = "import torchvision") -> str:
    """What a program that imports made-up packages of those names says, with the hook on its path."""
    for name, text in {"torch": TORCH.format(cuda=repr(cuda)), "torchvision": torchvision}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    (tmp_path / "torchvision" / "half.py").write_text("")
    env = {"PATH": "", "PYTHONPATH": f"{ldct_cases.MENDED}:{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_missing_schemas_are_declared(tmp_path: Path) -> None:
    """torchvision whose operators have no schema is imported, whole, once both are declared."""
    code = "import torchvision, torch; print(torchvision.half.__name__, len(torch.library.declared))"
    assert imported(tmp_path, NEEDY, code=code) == "torchvision.half 2\n"


def test_nothing_wrong_nothing_done(tmp_path: Path) -> None:
    """Nothing is imported before the program does it; a torchvision that works keeps its loader and its operators."""
    code = (
        "import sys; assert not {'torch', 'torchvision'} & set(sys.modules)\n"
        "import torchvision, torch; print(type(torchvision.__loader__).__name__, torch.library.declared)"
    )
    assert imported(tmp_path, "import torch", code=code) == "SourceFileLoader []\n"


def test_other_failures_are_torchvisions_own(tmp_path: Path) -> None:
    """Another error of torchvision's is raised as it is."""
    assert "RuntimeError: other" in imported(tmp_path, "raise RuntimeError('other')")


def test_cuda_torch_is_left_alone(tmp_path: Path) -> None:
    """Beside a CUDA torch a missing operator is a broken installation, not mended."""
    assert "RuntimeError: operator torchvision::nms" in imported(tmp_path, NEEDY, cuda="13.0")


def test_no_torchvision_at_all() -> None:
    """Where there is none, the program hears so as always."""
    env = {"PATH": "", "PYTHONPATH": str(ldct_cases.MENDED)}
    code = "import sitecustomize, torchvision"
    done = subprocess.run([sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'torchvision'"


def test_a_hidden_sitecustomize_still_runs(tmp_path: Path) -> None:
    """The next sitecustomize on the path runs too, whichever of two is first."""
    (tmp_path / "sitecustomize.py").write_text("print('mine')")
    env = {"PATH": "", "PYTHONPATH": f"{ldct_cases.MENDED}:{ldct_cases.MENDED}:{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", "print('end')"], env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("mine\nend\n", "")


@pytest.mark.ldct
@pytest.mark.slow
def test_real_torchvision(tmp_path: Path) -> None:
    """ldctbench's trainer, which needs torchvision's models, is imported with the torch that is here."""
    code = "import ldctbench.methods.cnn10.Trainer, torchvision; print(torchvision.models.vgg16.__name__)"
    assert ldct_cases.python(code, cwd=tmp_path) == "vgg16\n"


# --- the demo's script -----------------------------------------------------------------------------------------------

FAKE = """#!/bin/sh
case "$*" in
    *version_info*|*"-m pip --version"*) ;;
    *ldct_data.py*) mkdir -p "$2"; echo "data $2" ;;
    *"pip install"*) echo "install $*" ;;
    *" export "*) shift 2; echo "ptydask $*"; echo "$LDCTBENCH_DATAFOLDER $PYTHONPATH"; echo "to test it: no" >&2 ;;
    *"-m ptydask "*) shift 2; echo "ptydask $*"; echo "$LDCTBENCH_DATAFOLDER $PYTHONPATH" ;;
esac
"""


def test_demo_script(tmp_path: Path) -> None:
    """From any folder: installs the extra, writes the data, runs, prints the best, exports it, torchvision mended."""
    tree = tmp_path / "a checkout"
    shutil.copytree(ldct_cases.ROOT / "jobs", tree / "jobs")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ldct_cases.ROOT / name, tree)
    (tree / ".venv/bin").mkdir(parents=True)
    (tree / ".venv/bin/python").write_text(FAKE)
    (tree / ".venv/bin/python").chmod(0o755)
    env = {"PATH": "/usr/bin:/bin"}
    command = [str(tree / "jobs/ldct-demo.sh"), "my demo"]
    said = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "to test it" not in said.stderr
    assert "ldctbench-test itself needs the real data set" in said.stderr
    install, data, *rest = said.stdout.splitlines()
    assert "-c constraints.txt -e .[ldct]" in install
    assert data == "data my demo/data"
    run = f"{tree}/configs/cnn10-demo.yaml --trials 4 --cluster local --workers 2 --results my demo/cnn10-demo.h5"
    assert rest[::2] == [
        f"ptydask run {run}",
        "ptydask best my demo/cnn10-demo.h5",
        "ptydask export my demo/cnn10-demo.h5 run --trial best my demo/wandb/best --force",
    ]
    assert set(rest[1::2]) == {f"{tmp_path}/my demo/data {tree}/jobs/torchvision_on_cpu"}
