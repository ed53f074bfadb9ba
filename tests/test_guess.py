"""Guesses of planted data: the demo's microscope with known geometry, its detector mounted every way."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from ptydask import demo
from ptydask.cli import main
from ptydask.demo.microscope import Experiment, simulate_patterns
from ptydask.errors import ConfigError, DataError
from ptydask.guess import disk, mass, measuring, patterns, table
from ptydask.guess.geometry import Geometry, read_geometry
from ptydask.guess.measuring import guess_params

pytestmark = pytest.mark.usefixtures("without_parallax")

EVERY_FLIP = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]


def unflip(array, flips):
    """What ``patterns.flip`` turns back."""
    array = np.swapaxes(array, -1, -2) if flips[2] else array
    array = np.flip(array, -1) if flips[1] else array
    return np.flip(array, -2) if flips[0] else array


def section(path, experiment, **more):
    return {
        "probe_kv": experiment.voltage,
        "probe_conv_angle": experiment.convergence,
        "meas_params": {"path": str(path), "key": "patterns"},
        "meas_Npix": experiment.pixels,
        "meas_calibration": {"mode": "dx", "value": experiment.pixel_size},
        "pos_N_scan_slow": experiment.scan,
        "pos_N_scan_fast": experiment.scan,
        "pos_scan_step_size": experiment.scan_step,
        **more,
    }


@pytest.fixture(scope="module")
def planted():
    """An experiment turned by 30 degrees, and its patterns."""
    experiment = replace(Experiment(), scan_rotation=30.0, scan_scale=1.0)
    return experiment, simulate_patterns(experiment)


def write(folder, stack, name="data.h5"):
    with h5py.File(folder / name, "w") as file:
        file["patterns"] = stack
    return folder / name


def angle_between(a, b):
    return abs(mass.wrap(a - b))


# --- rotation and flips -------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [0.0, 60.0, 135.0, 180.0, -90.0, -20.0])
def test_rotation_is_found_over_the_whole_circle(tmp_path, turn):
    """A gradient field of a made specimen, turned as PtyRAD's affine turns a scan; the dark field tells the twin."""
    rng = np.random.default_rng(3)
    size = 48
    k = np.fft.fftfreq(size)
    ky, kx = k[:, None], k[None, :]
    atoms = np.fft.fft2((rng.random((size, size)) < 0.02).astype(float)) * np.exp(-((ky**2 + kx**2) / 0.02))
    dark = np.fft.ifft2(atoms).real
    gradient = np.stack([np.fft.ifft2(2j * np.pi * axis * atoms).real for axis in (ky, kx)])
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    # g = A c along the dial's axes, so that c is what the transposed A makes of g.
    field = np.stack([cos * gradient[0] - sin * gradient[1], sin * gradient[0] + cos * gradient[1]])
    found_turn = mass.measure_rotation(field, dark)
    assert angle_between(found_turn.rotation, turn) < 1
    assert not found_turn.mirrored
    assert found_turn.left < 0.1
    assert found_turn.twin > 0.5
    transposed = mass.measure_rotation(field[::-1], dark)
    assert transposed.mirrored
    assert angle_between(transposed.rotation, turn) < 1


@pytest.mark.parametrize("mounted", EVERY_FLIP)
def test_a_mounted_detector_is_brought_back(tmp_path, planted, mounted):
    """Whatever the detector does, the guessed flips and rotation together are the truth's."""
    experiment, stack = planted
    init = section(write(tmp_path, unflip(stack, mounted)), experiment)
    chosen = guess_params(init).report.chosen()
    flips, rotation = chosen["meas_flipT"].value, chosen["rotation"].value
    # The patterns by the guess, measured again: what the file would say then has the rotation guessed.
    again = guess_params(section(tmp_path / "data.h5", experiment, meas_flipT=list(flips))).report.chosen()
    assert again["meas_flipT"].value == flips
    if sum(mounted) % 2:  # of the four flips that undo a mirror only the truth's leave the beam at the middle pixel
        assert flips == mounted
    assert angle_between(again["rotation"].value, rotation) < 0.2
    if mounted == (0, 0, 0):
        assert angle_between(rotation, 30) < 3
    # A turn of the detector by quarters is one of the scan: apart from it the truth is 30 degree.
    assert min(angle_between(rotation, 30 + 90 * quarter) for quarter in range(4)) < 3
    true = guess_params(section(tmp_path / "data.h5", experiment, meas_flipT=list(mounted))).report.chosen()
    assert true["meas_flipT"].value == mounted
    assert angle_between(true["rotation"].value, 30) < 3


def test_noise_is_refused():
    rng = np.random.default_rng(0)
    for size in (8, 24, 64):
        turn = mass.measure_rotation(rng.normal(size=(2, size, size)), rng.normal(size=(size, size)))
        geometry = Geometry((size, size), 48, 0.04, 0.9, 0.4, 25.0, False, (1, 0, 0, 0), (0, 0, 0), (0, 0, 0))
        assert not any(guess.counts for guess in table.guess_by_mass(turn, geometry))


@pytest.mark.parametrize("field", [np.zeros((2, 8, 8)), np.ones((2, 8, 8)), np.zeros((2, 3, 9))])
def test_a_field_without_structure_has_no_turn(field):
    assert mass.measure_rotation(field) is None


@pytest.mark.parametrize("flips", EVERY_FLIP)
@pytest.mark.parametrize("more", EVERY_FLIP)
def test_flips_are_combined_as_they_are_done(flips, more):
    image = np.arange(16).reshape(4, 4)
    for quarters in range(4):
        combined = table.combine(flips, more, quarters)
        expected = np.rot90(patterns.flip(patterns.flip(image, flips), more), quarters)
        assert np.array_equal(patterns.flip(image, combined), expected)


@pytest.mark.parametrize("pixels", [8, 9])
@pytest.mark.parametrize("own", EVERY_FLIP)
def test_flips_move_the_beam(own, pixels):
    """How far it is from PtyRAD's middle pixel, told of the patterns as the file's own flips leave them."""
    stored = np.zeros((pixels, pixels))
    stored[3, 5] = 1
    geometry = Geometry((8, 8), pixels, 0.04, 0.9, 0.4, 25.0, False, (1, 0, 0, 0), own, (0, 0, 0))
    y, x = np.argwhere(patterns.flip(stored, own))[0]
    beam = disk.Disk((float(y), float(x)), 2.0, 0.1, 0.0, 0.1, 1.0, 1.0)
    for new in EVERY_FLIP:
        moved = np.argwhere(patterns.flip(stored, new))[0]
        assert table.off_middle(beam, geometry, new) == pytest.approx(np.hypot(*(moved - pixels // 2)))


# --- the disk -----------------------------------------------------------------------------------------


def soft_disk(pixels=96, centre=(47.3, 49.1), radius=20.4, ratio=1.0, soft=0.7):
    y, x = np.mgrid[:pixels, :pixels]
    distance = np.hypot((y - centre[0]) / np.sqrt(ratio), (x - centre[1]) * np.sqrt(ratio))
    return 100 / (1 + np.exp((distance - radius) / soft)) + 1


@pytest.mark.parametrize("radius", [6.3, 12.5, 20.4, 33.0])
def test_disk_is_measured_to_a_tenth_of_a_pixel(radius):
    measured = disk.measure_disk(soft_disk(radius=radius))
    assert measured.radius == pytest.approx(radius, abs=0.1)
    assert measured.centre == pytest.approx((47.3, 49.1), abs=0.1)
    assert measured.ellipticity < 0.02


@pytest.mark.parametrize("radius", [9.66, 10.77, 12.02, 16.03, 20.3])
def test_a_sharp_disk_is_as_large_as_its_pixels(radius):
    """An aperture is what the pixels make of it, which the deviation covers."""
    y, x = np.mgrid[:64, :64] - 32
    bright = np.hypot(y, x) <= radius
    measured = disk.measure_disk(100.0 * bright + 1)
    assert measured.radius == pytest.approx(np.sqrt(bright.sum() / np.pi), abs=0.05)
    assert abs(measured.radius - radius) < 2 * measured.radius_deviation


@pytest.mark.parametrize("ratio", [1.05, 1.2])
def test_ellipticity_is_measured(ratio):
    assert disk.measure_disk(soft_disk(ratio=ratio)).ellipticity == pytest.approx(ratio - 1, abs=0.01)


@pytest.mark.parametrize("mean", [np.zeros((32, 32)), np.ones((32, 32)), np.eye(32), soft_disk(32, (0, 0), 9)])
def test_what_is_no_disk_is_refused(mean):
    assert disk.measure_disk(mean) is None


def test_convergence_or_pixel_size_by_what_the_file_knows(tmp_path, planted):
    experiment, stack = planted
    path = write(tmp_path, stack)
    by_size = guess_params(section(path, experiment)).report.chosen()
    assert by_size["conv_angle"].value == pytest.approx(24.9, rel=0.02)
    assert "dx" not in by_size
    for calibration in ({"mode": "fitRBF"}, {"mode": "RBF", "value": 12.0}, {"mode": "n_alpha", "value": 2.0}):
        by_disk = guess_params(section(path, experiment, meas_calibration=calibration)).report.chosen()
        assert by_disk["dx"].value == pytest.approx(experiment.pixel_size, rel=0.02)
        assert "conv_angle" not in by_disk


# --- reading ------------------------------------------------------------------------------------------


def arrangements(stack, scan, pixels):
    cube = stack.reshape(scan, scan, pixels, pixels)
    yield "flat", stack, {}
    yield "cube", cube, {"meas_reshape": [-1, pixels, pixels]}
    yield (
        "detector first",
        cube.transpose(2, 3, 0, 1),
        {"meas_permute": [2, 3, 0, 1], "meas_reshape": [-1, pixels, pixels]},
    )
    yield "detector in front of positions", stack.transpose(1, 2, 0), {"meas_permute": [2, 0, 1]}


def write_as(suffix, path, stored):
    """The array in a file of that kind."""
    if suffix == "npy":
        np.save(path, stored)
    elif suffix == "raw":
        gapped = np.zeros(len(stored), np.dtype([("values", np.float32, (48, 48)), ("gap", np.void, 1024)]))
        gapped["values"] = stored
        gapped.tofile(path)
    elif suffix in ("tif", "packed.tif"):
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite(path, stored, photometric="minisblack", compression="zlib" if "packed" in suffix else None)
    elif suffix == "old.mat":
        pytest.importorskip("scipy.io").savemat(path, {"patterns": stored, "dx": 0.5})
    elif suffix == "zarr":
        pytest.importorskip("zarr").open_group(path, mode="w").create_array("entry/patterns", data=stored)
    else:
        write(path.parent, stored, path.name)


@pytest.mark.parametrize("suffix", ["h5", "mat", "npy", "raw", "tif", "packed.tif", "old.mat", "zarr"])
def test_every_file_and_order_reads_alike(tmp_path, planted, suffix, monkeypatch):
    """In slabs of one row and in one slab."""
    experiment, stack = planted
    geometry = read_geometry(section("", experiment))
    middle = stack.reshape(24, 24, 48, 48)
    for name, stored, more in arrangements(stack, 24, 48):
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "raw" and name != "flat":
            continue
        write_as(suffix, path, stored)
        init = section(path, experiment, **more)
        del init["meas_params"]["key"]
        for slab in (1, 2**26):
            monkeypatch.setattr(patterns, "_SLAB", slab)
            sample = patterns.read_patterns(init, geometry)
            assert np.array_equal(sample.patterns, middle), name
            assert sample.mean == pytest.approx(stack.mean(0), rel=1e-6)
            assert sample.counted


def test_large_data_are_read_in_part(tmp_path, planted):
    experiment, stack = planted
    init = section(write(tmp_path, stack), experiment)
    geometry = read_geometry(init)
    row = 24 * 48 * 48 * 2
    sample = patterns.read_patterns(init, geometry, most_read=6 * row, most_kept=4 * 4 * 48 * 48 * 4)
    cube = stack.reshape(24, 24, 48, 48)
    assert sample.rows == (9, 15)
    assert sample.mass.shape == (2, 6, 24)
    assert sample.mean == pytest.approx(cube[9:15].mean((0, 1)), rel=1e-6)
    assert np.array_equal(sample.patterns, cube[10:14, 10:14])
    assert sample.total[sample.kept] == pytest.approx(sample.patterns.sum((2, 3)), rel=1e-6)


def test_a_crop_of_the_scan_is_heeded(tmp_path, planted):
    experiment, stack = planted
    init = section(write(tmp_path, stack), experiment, meas_crop=[[2, 20], [3, None], None, [4, 44]])
    sample = patterns.read_patterns(init, read_geometry(init))
    assert np.array_equal(sample.patterns, stack.reshape(24, 24, 48, 48)[2:20, 3:])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"pos_N_scan_slow": 23}, "init_params.meas_params.path"),
        ({"meas_Npix": 47}, "init_params.meas_params.path"),
        ({"meas_params": {"path": "gone.h5"}}, "init_params.meas_params.path"),
        ({"meas_permute": [1, 0, 2]}, "init_params.meas_params.path"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, planted, change, key):
    experiment, stack = planted
    init = section(write(tmp_path, stack), experiment, **change)
    with pytest.raises(DataError) as refused:
        guess_params(init)
    assert refused.value.key == key


def test_the_beam_is_to_be_in_the_middle_of_what_a_crop_leaves(planted):
    """A crop is how patterns are centred: PtyRAD flips before it crops."""
    crop = [None, None, [3, 43], [None, 44]]
    geometry = read_geometry(section("", planted[0], meas_crop=crop, meas_flipT=[1, 0, 0]))
    assert geometry.middle == (23, 22)
    beam = disk.Disk((23.0, 22.0), 12.0, 0.1, 0.0, 0.1, 1.0, 1.0)
    assert table.off_middle(beam, geometry, (1, 0, 0)) == 0
    assert table.off_middle(beam, geometry, (0, 0, 0)) == 1
    assert table.off_middle(beam, geometry, (1, 0, 1)) == pytest.approx(np.hypot(1, 1))
    assert read_geometry(section("", planted[0])).middle == (24, 24)


def test_the_scan_step_has_the_scale_of_the_file(planted):
    scaled = read_geometry(section("", planted[0], pos_scan_affine=[1.1, 0, 0, 0]))
    assert scaled.step == pytest.approx(1.1 * planted[0].scan_step)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"probe_kv": None}, "probe_kv"),
        ({"pos_scan_step_size": 0}, "pos_scan_step_size"),
        ({"meas_Npix": "a"}, "meas_Npix"),
    ],
)
def test_a_geometry_that_is_not_stated_is_refused(planted, change, key):
    with pytest.raises(ConfigError) as refused:
        read_geometry(section("", planted[0], **change))
    assert refused.value.key == f"init_params.{key}"


# --- decisions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "value", "own", "agrees"),
    [
        ("conv_angle", 24.5, 24.9, True),
        ("conv_angle", 22.0, 24.9, False),
        ("rotation", 179.5, -179.5, True),
        ("rotation", 90.0, -90.0, False),
        ("meas_flipT", (0, 0, 1), (0, 0, 1), True),
        ("meas_flipT", (0, 0, 1), (0, 0, 0), False),
        ("dx", 0.4, None, False),
    ],
)
def test_a_guess_agrees_with_the_file_within_two_deviations(parameter, value, own, agrees):
    assert table.Guess(parameter, value, 0.5, "a", "good", "", own).agrees is agrees


def test_the_command_prints_a_table_and_plain_values(tmp_path, capsys):
    params = demo.write(tmp_path)
    capsys.readouterr()
    assert main(["guess", str(params)]) == 0
    text = capsys.readouterr().out
    assert "conv_angle" in text
    assert "centre of mass" in text
    assert main(["guess", str(params), "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    rotation = next(guess for guess in report["guesses"] if guess["parameter"] == "rotation")
    assert rotation["value"] == pytest.approx(-1.5, abs=3)
    assert main(["guess", str(params), "--format", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == report


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_the_guesses_are_written_into_the_file(tmp_path, capsys, form):
    params = demo.write(tmp_path)
    text = params.read_text()
    if form == "json":
        params = tmp_path / "params.json"
        params.write_text(json.dumps(yaml.safe_load(text)))
    tuned = tmp_path / "tuned.yaml"
    assert main(["guess", str(params), "--write", str(tuned), "--format", "json"]) == 0
    chosen = {guess["parameter"]: guess["value"] for guess in json.loads(capsys.readouterr().out)["guesses"]}
    before, after = yaml.safe_load(text), yaml.safe_load(tuned.read_text())
    init = after["init_params"]
    assert init["pos_scan_affine"] == [1, 0, round(2 * chosen["rotation"]) / 2, 0]  # on the grid of the file's range
    # The convergence angle is as the file has it, within two deviations.
    assert {key for key in init if init[key] != before["init_params"].get(key)} == {"pos_scan_affine"}
    assert after["hypertune_params"] == before["hypertune_params"]
    if form == "yaml":
        assert "# The microscope, as its operator wrote it down" in tuned.read_text()
    assert main(["guess", str(params), "--write", str(tuned)]) == 2
    assert "already" in capsys.readouterr().err


def test_what_was_found_before_stays_where_it_is(tmp_path, capsys):
    """The written file describes a study of the same name, whose results may be there."""
    params = demo.write(tmp_path)
    assert main(["guess", str(params), "--write", str(tmp_path / "tuned.yaml")]) == 0
    assert f"python -m ptydask run {tmp_path / 'tuned.yaml'} -o {tmp_path / 'tuned.h5'}" in capsys.readouterr().err
    assert "demo.h5" in (tmp_path / "tuned.yaml").read_text().partition("A PtyRAD params file")[0]


def test_the_table_marks_what_is_used(tmp_path, capsys):
    params = demo.write(tmp_path)
    capsys.readouterr()
    assert main(["guess", str(params)]) == 0
    out = capsys.readouterr().out
    assert {line.split()[0] for line in out.splitlines() if " * " in line} == {"conv_angle", "rotation", "meas_flipT"}
    assert "e+" not in out


@pytest.mark.parametrize("form", ["text", "json"])
def test_several_files_have_a_row_each_and_a_broken_one_is_told(tmp_path, capsys, form):
    given = demo.write(tmp_path / "demo").read_text()
    for name, key, value in (("a", "probe_conv_angle", 20.0), ("b", "meas_params", {"path": "nope.h5"}), ("c", "", 0)):
        data = yaml.safe_load(given)
        data["init_params"] |= {key: value} if key else {}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data))
    (tmp_path / "d.yaml").write_text("program: train.py\nmethod: random\nparameters: {a: {values: [1, 2]}}\n")
    capsys.readouterr()
    assert main(["guess", str(tmp_path), "--format", form]) == 1
    out, err = capsys.readouterr()
    assert all(word in err for word in ("b.yaml", "nope.h5", "d.yaml"))
    if form == "json":
        reports = {Path(name).name: report for name, report in json.loads(out).items()}
        assert [name for name, report in reports.items() if "error" in report] == ["b.yaml", "d.yaml"]
        assert reports["a.yaml"]["guesses"][0]["parameter"] == "conv_angle"
    else:
        first, second = (line for line in out.splitlines() if "24.53 +- 0.34" in line)
        assert "conv_angle 20" in first
        assert "conv_angle" not in second


def test_one_file_is_written_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measuring, "guess_params", None)
    for options in (["--write", str(tmp_path / "t.yaml")], ["-o", str(tmp_path / "g.png")]):
        assert main(["guess", "a.yaml", "b.yaml", *options]) == 2
        assert "one file" in capsys.readouterr().err


def test_the_picture_is_written(tmp_path, capsys):
    params = demo.write(tmp_path)
    picture = tmp_path / "guess.png"
    assert main(["guess", str(params), "-o", str(picture)]) == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["-o", "guess.txt"], "picture"),
        (["-o", "guess"], "picture"),
        (["--write", "tuned.h5"], "YAML"),
        (["--write", "tuned.json"], "YAML"),
        (["--write", "same.png", "-o", "same.png"], "YAML"),
        (["--write", "nowhere/tuned.yaml"], "nowhere"),
    ],
)
def test_a_name_that_cannot_be_written_is_refused_first(tmp_path, capsys, monkeypatch, options, word):
    """Before the patterns are looked at, which takes a while."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "guess_params", None)
    assert main(["guess", "params.yaml", *options]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert word in err


MISSPELT = {
    "probe_conv_angl": "probe_conv_angle",
    "probe_abberations": "probe_aberrations",
    "meas_flipt": "meas_flipT",
    "pos_scan_afine": "pos_scan_affine",
    "meas_calibratoin": "meas_calibration",
}


@pytest.mark.parametrize("key", MISSPELT)
def test_a_misspelt_key_is_refused(tmp_path, capsys, key):
    """What it says would count for nothing."""
    params = demo.write(tmp_path)
    capsys.readouterr()
    data = yaml.safe_load(params.read_text())
    data["init_params"][key] = data["init_params"].pop(MISSPELT[key], None)
    params.write_text(yaml.safe_dump(data))
    assert main(["guess", str(params)]) == 2
    assert f"did you mean '{MISSPELT[key]}'" in capsys.readouterr().err


@pytest.mark.ptyrad
def test_no_key_of_ptyrad_is_taken_for_a_misspelt_one(tmp_path):
    from ptydask.engines.ptyrad import schema

    init = yaml.safe_load(demo.write(tmp_path).read_text())["init_params"]
    for key in schema.known_fields("init_params"):
        assert read_geometry({key: None, **init}).pixels == 48


def test_other_files_are_refused(tmp_path, capsys):
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("program: train.py\nmethod: random\nparameters: {a: {values: [1, 2]}}\n")
    assert main(["guess", str(sweep)]) == 2
    assert "params file" in capsys.readouterr().err
