"""The demo data: what is planted in them, that PtyRAD's conventions hold, and that a study finds it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from ptydask import config, demo
from ptydask.config import Overrides
from ptydask.config.ptyrad import paths
from ptydask.demo import geometry, microscope
from ptydask.demo.microscope import Experiment
from ptydask.engines.ptyrad import release
from ptydask.errors import ConfigError, UsageError
from ptydask.space import tunables

ROOT = Path(__file__).parent.parent
TRUTH = Experiment()


@pytest.fixture(scope="module")
def params_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's params file beside its data."""
    return demo.write(tmp_path_factory.mktemp("demo") / "it's here")


@pytest.fixture(scope="module")
def params(params_file: Path) -> dict[str, Any]:
    return yaml.safe_load(params_file.read_text())


def counts(params: dict[str, Any]) -> np.ndarray:
    meas = params["init_params"]["meas_params"]
    with h5py.File(meas["path"], "r") as file:
        return file[meas["key"]][()]


def test_same_seed_same_bytes(params_file: Path, tmp_path: Path) -> None:
    """One seed gives the same bytes wherever and whenever it is written; another seed other data."""
    again, other = demo.write(tmp_path / "again"), demo.write(tmp_path / "other", seed=2)
    first, second, third = (path.with_name(demo.DATA).read_bytes() for path in (params_file, again, other))
    assert first == second
    assert first != third


def test_truth_is_in_the_attributes(params_file: Path) -> None:
    """The planted values stand in the data file, with units, and so does that nothing was measured."""
    with h5py.File(params_file.with_name(demo.DATA), "r") as file:
        facts = dict(file.attrs)
    assert (facts["scan_scale"], facts["scan_rotation"], facts["defocus"]) == (1.04, -1.5, -240.0)
    assert (facts["dose"], facts["voltage"], facts["pixel_size"], facts["seed"]) == (1e6, 80.0, 0.42, demo.SEED)
    assert facts["defocus_units"] == "angstrom"
    assert facts["scan_rotation_units"] == "degree"
    assert "Synthetic" in facts["description"]


def test_patterns_look_like_patterns(params: dict[str, Any]) -> None:
    """Every pattern holds about the dose, and the bright-field disk is centred and as wide as the aperture."""
    patterns = counts(params)
    assert patterns.shape == (TRUTH.scan**2, TRUTH.pixels, TRUTH.pixels)
    assert patterns.sum((1, 2)).mean() == pytest.approx(TRUTH.dose, rel=0.01)
    mean = patterns.mean(0)
    k = np.arange(TRUTH.pixels) - TRUTH.pixels // 2
    assert abs(mean.sum(1) @ k / mean.sum()) < 0.5
    assert abs(mean.sum(0) @ k / mean.sum()) < 0.5
    mrad = TRUTH.wavelength / (TRUTH.pixels * TRUTH.pixel_size) * 1e3
    radius = np.sqrt((mean > mean.max() / 2).sum() / np.pi)
    assert radius * mrad == pytest.approx(TRUTH.convergence, rel=0.05)


def test_noise_is_counting_noise() -> None:
    """With ten thousand times the electrons, the patterns agree but for the noise of the weaker dose."""
    small = replace(TRUTH, scan=3, dose=1e4)
    weak = microscope.simulate_patterns(small).astype(float)
    strong = microscope.simulate_patterns(replace(small, dose=1e6)).astype(float) / 100
    bright = strong > 10
    assert ((weak - strong)[bright] ** 2 / strong[bright]).mean() == pytest.approx(1.0, abs=0.1)


def test_params_file_is_off_and_the_truth_is_on_its_grid(params: dict[str, Any]) -> None:
    """The file states other values than the planted ones, and its ranges hold the planted ones."""
    init, tuned = params["init_params"], params["hypertune_params"]["tune_params"]
    assert init["pos_scan_affine"] is None
    assert init["probe_aberrations"]["C10"] != -TRUTH.defocus
    truth = {"scale": TRUTH.scan_scale, "rotation": TRUTH.scan_rotation, "C10": -TRUTH.defocus}
    for name, value in truth.items():
        grid = tuned[name]["kwargs"]
        steps = (value - grid["low"]) / grid["step"]
        assert grid["low"] < value < grid["high"]
        assert steps == pytest.approx(round(steps))
    assert init["pos_scan_step_size"] == TRUTH.scan_step
    assert init["meas_calibration"]["value"] == TRUTH.pixel_size
    assert (init["probe_kv"], init["probe_conv_angle"]) == (TRUTH.voltage, TRUTH.convergence)


def test_an_edited_params_file_is_kept(tmp_path: Path) -> None:
    """Writing the demo again does not undo a person's edits."""
    params = demo.write(tmp_path)
    params.write_text(params.read_text().replace("NITER     : 12", "NITER     : 6"))
    assert demo.write(tmp_path) == params
    assert "NITER     : 6" in params.read_text()


def test_somebody_elses_params_file_is_not_touched(tmp_path: Path) -> None:
    """A params.yaml that is not the demo's stops the command before anything is written."""
    (tmp_path / demo.PARAMS).write_text("init_params: {}\n")
    with pytest.raises(UsageError, match=r"params\.yaml: is there already"):
        demo.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [demo.PARAMS]


def test_a_copied_folder_still_names_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a copy's params file names of the folder it was copied from is said, until it is told otherwise."""
    first = demo.write(tmp_path / "first")
    copy = Path(shutil.copytree(first.parent, tmp_path / "copy")) / demo.PARAMS
    assert config.load(first, Overrides()).notices == ()
    assert config.load(copy, Overrides()).notices == (
        f"init_params.meas_params.path is {first.with_name(demo.DATA)}, not the {demo.DATA} beside {demo.PARAMS}",
        f"results go to {first.parent}, beside another {demo.PARAMS}, by recon_params.output_dir",
    )
    (data,) = config.load(copy, Overrides(results=tmp_path / "chosen.h5")).notices
    assert data.startswith("init_params.meas_params.path")
    assert paths.find_copy_notices({"init_params": {"pos_params": "", "probe_params": "/"}}, copy, None) == ()
    copy.write_text(copy.read_text().replace(str(first.parent), str(copy.parent)))
    monkeypatch.chdir(tmp_path)
    assert config.load(Path("copy") / demo.PARAMS, Overrides()).notices == ()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A file where the folder should be is a usage error in one line."""
    (tmp_path / "demo").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        demo.write(tmp_path / "demo")


def test_the_config_in_the_repository_is_the_demo_s() -> None:
    """configs/demo.yaml is what the demo writes for the folder `demo`."""
    assert (ROOT / "configs/demo.yaml").read_text() == demo.params_text(Path("demo") / demo.DATA)


GEOMETRY = "scale=1.03 asymmetry=0.02 rotation=2 shear=1 C10=120 tilt_y=4 tilt_x=-3 dz=15"


def test_a_planted_geometry_is_written_down(tmp_path: Path) -> None:
    """The data have the truth and its units; the file has nominal values, tunes what was planted and says the truth."""
    planted = geometry.parse_geometry(GEOMETRY)
    path = demo.write(tmp_path, planted=planted, slices=2, electrons=20000)
    with h5py.File(tmp_path / demo.DATA, "r") as file:
        facts, total = dict(file.attrs), file["patterns"][()].sum((1, 2)).mean()
    assert total == pytest.approx(20000, rel=0.01)
    truth = {"scan_scale": 1.03, "scan_asymmetry": 0.02, "scan_rotation": 2, "scan_shear": 1, "defocus": -120}
    truth |= {"tilt_y": 4, "tilt_x": -3, "slice_thickness": 15, "slices": 2, "dose": 20000}
    assert {name: facts[name] for name in truth} == truth
    assert (facts["tilt_y_units"], facts["slice_thickness_units"]) == ("mrad", "angstrom")
    text = path.read_text()
    params = yaml.safe_load(text)
    tuned = params["hypertune_params"]["tune_params"]
    assert list(tuned) == list(planted)
    assert all(tuned[name]["kwargs"]["low"] <= planted[name] <= tuned[name]["kwargs"]["high"] for name in planted)
    assert all(tunables.current_value(params, name) == geometry.RANGES[name].nominal for name in planted)
    assert (params["init_params"]["obj_Nlayer"], params["constraint_params"]["obj_zblur"]) == (2, {"start_iter": 1})
    assert "dz = 15 angstrom, 2 slices, 20000 electrons" in geometry.truth_line(text)


def test_slices_or_a_dose_alone_keep_the_demos_scan(tmp_path: Path) -> None:
    """Without a geometry it is the demo's own that is planted."""
    params = yaml.safe_load(demo.write(tmp_path, slices=2).read_text())
    assert list(params["hypertune_params"]["tune_params"]) == ["scale", "rotation"]
    with h5py.File(tmp_path / demo.DATA, "r") as file:
        assert (file.attrs["scan_scale"], file.attrs["scan_rotation"], file.attrs["slices"]) == (1.04, -1.5, 2)


def test_a_params_file_of_another_geometry_is_refused(tmp_path: Path) -> None:
    """Data that its file does not look for are not written; the same geometry again is."""
    planted = {"scale": 1.02}
    path = demo.write(tmp_path, planted=planted)
    assert demo.write(tmp_path, planted=planted) == path
    for other in (None, {"scale": 1.04}):
        with pytest.raises(UsageError, match="of another geometry"):
            demo.write(tmp_path, planted=other)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("scale=2", "--geometry scale = '2': must be a number from 0.9 to 1.1"),
        ("tilt_y=x", "--geometry tilt_y = 'x': must be a number from -10 to 10 mrad"),
        ("shear=nan", "--geometry shear = 'nan': must be a number from -3 to 3 degree"),
        ("scal=1", "--geometry scal = '1': is nothing that the demo can plant; did you mean 'scale'?"),
        ("scale", "--geometry = 'scale': must be name=value, one or more, with blanks between them"),
        ("", "--geometry = '': must be name=value, one or more, with blanks between them"),
        ("scale=1 scale=1", "--geometry scale = '1': is there twice"),
    ],
)
def test_a_geometry_that_cannot_be_read(text: str, says: str) -> None:
    """One line: key, value, rule."""
    with pytest.raises(ConfigError) as raised:
        geometry.parse_geometry(text)
    assert str(raised.value) == says


def test_numbers_that_no_data_can_have() -> None:
    """What is planted in the propagation needs slices; slices and electrons have limits."""
    with pytest.raises(ConfigError, match="--slices = 1: a single layer is never propagated through: dz needs"):
        geometry.plant({"dz": 9}, 1, None, 1)
    with pytest.raises(ConfigError, match="--slices = 41: must be a whole number from 1 to 40"):
        geometry.plant({}, 41, None, 1)
    with pytest.raises(ConfigError, match="--electrons = 20000000: must be a whole number from 1 to 10000000"):
        geometry.plant({}, None, 20_000_000, 1)


@pytest.fixture
def ptyrad() -> None:
    pytest.importorskip("ptyrad", reason="needs the extra ptyrad")
    from ptydask.engines.ptyrad.torchvision_schema import make_importable

    make_importable()


@pytest.mark.ptyrad
@pytest.mark.usefixtures("ptyrad")
def test_conventions_are_ptyrads() -> None:
    """Wavelength, probe (sign of the defocus) and positions (sign of the affine) equal PtyRAD's."""
    from ptyrad.optics.constants import get_wavelength_ang
    from ptyrad.optics.probe import make_stem_probe
    from ptyrad.utils.affine import compose_affine_matrix

    assert pytest.approx(get_wavelength_ang(TRUTH.voltage), rel=1e-9) == TRUTH.wavelength
    fine = microscope.FINER * TRUTH.pixels, TRUTH.pixel_size / microscope.FINER
    theirs = make_stem_probe(TRUTH.voltage, TRUTH.convergence, *fine, {"C10": -TRUTH.defocus})
    np.testing.assert_allclose(microscope.simulate_probe(TRUTH), theirs, atol=1e-12)
    raster = np.array([(y, x) for y in range(TRUTH.scan) for x in range(TRUTH.scan)], dtype=float)
    raster = (raster - raster.mean(0)) * TRUTH.scan_step
    turned = raster @ compose_affine_matrix(TRUTH.scan_scale, 0, TRUTH.scan_rotation, 0)
    np.testing.assert_allclose(microscope.scan_positions(TRUTH), turned, atol=1e-12)
    distorted = replace(TRUTH, scan_scale=1.03, scan_asymmetry=0.02, scan_rotation=2.0, scan_shear=1.0)
    affine = compose_affine_matrix(1.03, 0.02, 2.0, 1.0)
    np.testing.assert_allclose(microscope.scan_affine(distorted), affine, atol=1e-12)


@pytest.mark.ptyrad
@pytest.mark.usefixtures("ptyrad")
def test_the_propagator_is_ptyrads() -> None:
    """Slice thickness, and order, sign and unit of the tilts, on PtyRAD's grid half a pixel beside the frequencies."""
    if release.installed().schedules:
        pytest.skip("PtyRAD 1.x has its propagator on the frequencies")
    import torch
    from ptyrad.core.models import PtychoModel
    from ptyrad.optics.propagator import near_field_evolution

    fine = microscope.FINER * TRUTH.pixels
    tilted = replace(TRUTH, slices=2, slice_thickness=15.0, tilt_y=4.0, tilt_x=-3.0)
    k = 2 * np.pi * np.fft.ifftshift((np.arange(fine) - fine // 2 + 0.5) / fine) * microscope.FINER / TRUTH.pixel_size
    model = SimpleNamespace(
        tilt_obj=True,
        change_thickness=False,
        lr_params={"obj_tilts": 1.0},
        opt_obj_tilts=torch.tensor([[4.0, -3.0]], dtype=torch.float64),
        opt_slice_thickness=torch.tensor(15.0, dtype=torch.float64),
        propagator_grid=torch.from_numpy(np.stack(np.meshgrid(k, k, indexing="ij"))),
        H=torch.from_numpy(near_field_evolution((fine, fine), 0.42 / microscope.FINER, 15.0, TRUTH.wavelength)),
        Kz=None,
    )
    theirs = PtychoModel.get_propagators(model, None)[0].numpy()
    np.testing.assert_allclose(microscope.slice_propagator(tilted), theirs, atol=1e-9)


@pytest.mark.ptyrad
@pytest.mark.usefixtures("ptyrad")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PtyRAD's own schema, of pydantic's older spelling
def test_ptyrad_reads_the_params_file(params_file: Path) -> None:
    """PtyRAD's own loader accepts the file as it is."""
    from ptyrad.params import load_params

    loaded = load_params(str(params_file))
    assert loaded["init_params"]["meas_params"]["path"] == str(params_file.with_name(demo.DATA))
    assert loaded["hypertune_params"]["tune_params"]["scale"]["state"]


@pytest.mark.ptyrad
@pytest.mark.slow
def test_study_finds_the_planted_scan(
    params_file: Path, tmp_path: Path, ptydask: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """As jobs/demo.sh runs it: the planted scan to a grid step within ten trials, and settled long before the 60."""
    results = tmp_path / "results.h5"
    words = ("--cluster", "local", "--workers", "2", "--until-settled")
    done = ptydask("run", params_file, *words, "--results", results, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "settled by" in done.stderr
    trials = json.loads(ptydask("ls", results, "--format", "json").stdout)
    assert len(trials) <= 20
    complete = [trial for trial in trials if trial["state"] == "COMPLETE"]
    for first in (10, len(trials)):
        best = min((trial for trial in complete if trial["number"] < first), key=lambda trial: trial["error"])
        assert best["params"]["scale"] == pytest.approx(TRUTH.scan_scale, abs=0.0201)
        assert best["params"]["rotation"] == pytest.approx(TRUTH.scan_rotation, abs=0.501)
    assert trials[0]["params"] == {"scale": 1.0, "rotation": 0.0}
    assert best["error"] < trials[0]["error"]
