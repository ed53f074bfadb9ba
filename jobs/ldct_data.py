"""Writes a small SYNTHETIC low-dose CT data set, in the folders and files that ldct-benchmark's loader asks for.

    .venv/bin/python jobs/ldct_data.py DIR
    export LDCTBENCH_DATAFOLDER=DIR

The real one (LDCT-and-Projection-data of The Cancer Imaging Archive) is a download of many gigabytes. This one shows
that a sweep runs, and which learning rate is better than another; it says nothing about denoising of patients. Every
file's header says that it is synthetic. Equal arguments write equal files.

A slice is a body of random ellipses. The noise of its two doses is that of a filtered back projection of counted
photons: Gaussian for so many photons, stronger the more attenuating tissue lies around, grainy rather than white.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

HERE = Path(__file__).parent
OFFSET = 1024
"""Stored value of water; that of air is 24."""
LARGEST = 4095
NOISE = {"input": 90.0, "target": 45.0}
"""Standard deviation in HU at the middle of a body: a quarter of the dose has twice the noise."""
NOTE = "SYNTHETIC phantom with simulated noise: not a patient, not for any diagnostic use"
TITLE = "SYNTHETIC DATA - no patients"
README = """\
Made by jobs/ldct_data.py of ptydask: {pairs} pairs of made-up CT slices ({size} x {size} pixels), phantoms of random
ellipses with simulated noise of two doses. Folders and file names are those that ldct-benchmark looks for with
seed {seed} and data_subset {subset}; the names of folders are those of the real data set, the contents are not.
They serve to try out programs. No conclusion about patients, scanners or doses can be drawn from them.
"""


class Slice(NamedTuple):
    """One slice of the list: where its two files belong, and what makes it different from every other one."""

    patient: str
    index: int
    files: dict[str, Path]
    """``input`` (low dose) and ``target`` (full dose), relative to the data folder."""


def wanted(seed: int, subset: float) -> list[Slice]:
    """The slices that ldct-benchmark's own loader asks for in training and validation."""
    runpy.run_path(str(HERE / "torchvision_on_cpu" / "sitecustomize.py"))
    try:
        from ldctbench.data import LDCTMayo  # takes seconds, and torchvision has to be mended first
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error}; pip install 'ptydask[ldct]'") from None
    asked = argparse.Namespace(seed=seed, datafolder="", data_norm="meanstd", data_subset=subset, patchsize=64)
    found = []
    for mode in ("train", "val"):
        for sample in LDCTMayo(mode, asked).samples:
            name = LDCTMayo._idx2filename(sample["slice"], sample["n_slices"])
            files = {dose: Path(sample[dose]) / name for dose in NOISE}
            found.append(Slice(sample["id"], sample["slice"], files))
    return found


# --- pictures ------------------------------------------------------------------------------------------------------


def ellipse(size: int, centre: NDArray[np.float64], axes: NDArray[np.float64], angle: float) -> NDArray[np.bool_]:
    """The pixels inside, with ``centre`` (y, x) and half ``axes`` in units of half the picture."""
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, size)], indexing="ij")
    y, x = y - centre[0], x - centre[1]
    across, along = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    inside: NDArray[np.bool_] = (along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1
    return inside


def phantom(size: int, random: np.random.Generator) -> NDArray[np.float64]:
    """A body in air with organs, air pockets, vessels and bones, in HU."""
    picture = np.full((size, size), -1000.0)
    body = random.uniform([0.65, 0.75], [0.85, 0.95])
    picture[ellipse(size, np.zeros(2), body, 0.0)] = -100.0  # fat
    picture[ellipse(size, np.zeros(2), body - 0.07, 0.0)] = 40.0  # muscle
    kinds = [(5, (-60, 120), 0.25), (2, (-900, -700), 0.22), (9, (80, 300), 0.06), (4, (500, 1200), 0.08)]
    for count, levels, largest in kinds:
        for _ in range(count):
            away, turn = random.uniform(0, 0.75), random.uniform(0, 2 * np.pi)
            centre = away * (body - 0.1) * [np.sin(turn), np.cos(turn)]
            inside = ellipse(size, centre, random.uniform(0.3, 1, 2) * largest, random.uniform(0, np.pi))
            picture[inside & (picture > -500)] = random.uniform(*levels)
    return picture


def noise(picture: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Noise of standard deviation about 1 in the middle of a body: grainy, less towards the edge of the body."""
    size = len(picture)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    ramp = np.sqrt(frequency) * np.cos(np.pi * np.minimum(frequency, 0.5)) ** 0.5
    grain = np.fft.irfft2(np.fft.rfft2(random.standard_normal(picture.shape)) * ramp, picture.shape)
    nearby = np.fft.rfft2(picture / 1000 + 1) * np.exp(-((frequency * size / 3) ** 2))
    attenuation = np.fft.irfft2(nearby, picture.shape)
    return grain / grain.std() * np.exp(attenuation - 1)


def doses(size: int, entropy: list[int]) -> dict[str, NDArray[np.uint16]]:
    """The low and the full dose of one slice, as stored."""
    random = np.random.default_rng(entropy)
    picture = phantom(size, random)
    noisy = {dose: picture + level * noise(picture, random) for dose, level in NOISE.items()}
    return {dose: np.clip(np.rint(hu + OFFSET), 0, LARGEST).astype(np.uint16) for dose, hu in noisy.items()}


# --- files ---------------------------------------------------------------------------------------------------------


def header(patient: str, index: int, dose: str) -> FileDataset:
    """A CT slice without its pixels, synthetic in name, type and comments."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["ptydask", patient, dose, str(index)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = generate_uid(entropy_srcs=["ptydask", patient])
    data.SeriesInstanceUID = generate_uid(entropy_srcs=["ptydask", patient, dose])
    data.Modality, data.ImageType = "CT", ["DERIVED", "SECONDARY", "AXIAL", "SYNTHETIC"]
    data.PatientName, data.PatientID = "SYNTHETIC^PHANTOM", f"SYNTHETIC-{patient}"
    data.StudyDescription = "SYNTHETIC"
    data.SeriesDescription = f"SYNTHETIC {'low' if dose == 'input' else 'full'} dose"
    data.Manufacturer, data.ImageComments, data.QualityControlImage = "ptydask (simulation)", NOTE, "YES"
    data.InstanceNumber = index
    return data


def write(path: Path, pixels: NDArray[np.uint16], data: FileDataset) -> None:
    """Write one DICOM file, folders and all."""
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = -OFFSET, 1, "HU"
    data.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def may_write(folder: Path) -> bool:
    """Whether a folder is empty, new, or holds synthetic data already: real data are never mixed with these."""
    told = folder / "README.txt"
    synthetic = told.is_file() and told.read_text(encoding="utf-8", errors="replace").startswith(TITLE)
    return synthetic or not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def main() -> None:
    """Write the data set and say what was written."""
    parser = argparse.ArgumentParser(description="Write a small synthetic data set for ldct-benchmark.")
    parser.add_argument("folder", type=Path, help="where to (for LDCTBENCH_DATAFOLDER)")
    parser.add_argument("--subset", type=float, default=0.005, help="data_subset of the sweep (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1332, help="seed of the sweep (default: %(default)s)")
    parser.add_argument("--size", type=int, default=160, help="pixels along a side, more than 128 (default: 160)")
    args = parser.parse_args()
    if not 0 < args.subset <= 1 or args.size <= 128:
        parser.error("--subset must be above 0 and at most 1, --size above 128 (validation crops 128 pixels)")
    if not may_write(args.folder):
        parser.error(f"{args.folder} must be a new or an empty folder, or one of synthetic data: nothing was written")
    started = time.monotonic()
    slices = wanted(args.seed, args.subset)
    args.folder.mkdir(parents=True, exist_ok=True)
    told = README.format(pairs=len(slices), size=args.size, seed=args.seed, subset=args.subset)
    (args.folder / "README.txt").write_text(f"{TITLE}\n\n{told}", encoding="utf-8")
    for patient, index, files in slices:
        for dose, pixels in doses(args.size, [zlib.crc32(patient.encode()), index]).items():
            write(args.folder / files[dose], pixels, header(patient, index, dose))
    written = sum(path.stat().st_size for path in args.folder.rglob("*.dcm"))
    print(
        f"{args.folder}: {len(slices)} pairs of SYNTHETIC slices for data_subset {args.subset}, seed {args.seed}:",
        f"{written / 1e6:.1f} MB in {time.monotonic() - started:.1f} s",
    )


if __name__ == "__main__":
    sys.exit(main())
