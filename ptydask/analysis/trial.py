"""One trial of a study, as a person looks at it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis import lazy, microscopy, stages, sweep
from ptydask.analysis.lazy import LazyArray
from ptydask.analysis.microscopy import PhaseSlices
from ptydask.analysis.reciprocal_space import ReciprocalProbe
from ptydask.analysis.registration import ImageDifference
from ptydask.analysis.scan_positions import PositionShifts
from ptydask.errors import StoreError
from ptydask.formatting import params_text
from ptydask.model import Image, Reason, Scalar, StudyMeta, TrialRecord, TrialState
from ptydask.reconstructed_trial import ReconstructedTrial, assemble
from ptydask.store.artifacts import StoredFile
from ptydask.store.reader import StoredArray, TrialData

if TYPE_CHECKING:
    import xarray

    from ptydask.analysis.confirmation import MeanSd

DIMS: Mapping[str, tuple[str, ...]] = {
    "object_phase": ("omode", "z", "y", "x"),
    "object_amplitude": ("omode", "z", "y", "x"),
    "probe": ("pmode", "probe_y", "probe_x"),
    "positions": ("position", "yx"),
    "crop_positions": ("position", "yx"),
    "object_tilts": ("tilt", "yx"),
}
"""Names of the axes of the arrays that PtyRAD's trials have."""


class Artifact:
    """A file that a trial's program wrote; it stays in the results file until it is read."""

    def __init__(self, stored: StoredFile, ready: Callable[[], object]) -> None:
        self._stored, self._ready = stored, ready

    @property
    def path(self) -> str:
        """Its path below the trial's own folder."""
        return self._stored.path

    @property
    def size(self) -> int:
        """Bytes."""
        return self._stored.size

    def read(self) -> bytes:
        """The whole content. Raises StoreError where it is damaged, or the results file was closed."""
        self._ready()
        return self._stored.read()

    def __repr__(self) -> str:
        return f"<Artifact {self.path!r}, {self.size} bytes>"


class Trial:
    """A trial: its numbers at once, its arrays when they are used.

    Of a study that is running it stays as it was recorded; it is found wherever it lies meanwhile.
    """

    def __init__(
        self,
        number: int,
        meta: StudyMeta,
        fetch: Callable[[int], TrialData],
        ready: Callable[[], object],
        confirmed: Callable[[int], MeanSd | None],
    ) -> None:
        """``ready`` raises StoreError where the file of ``fetch`` was closed; ``confirmed`` is :attr:`confirmed`."""
        self.number = number
        self._meta, self._fetch, self._ready, self._confirmed = meta, fetch, ready, confirmed

    @cached_property
    def _data(self) -> TrialData:
        return self._fetch(self.number)

    # --- how it went -----------------------------------------------------------------------------

    @property
    def record(self) -> TrialRecord:
        """All single values at once, as a frozen dataclass."""
        return self._data.record

    @property
    def params(self) -> dict[str, Scalar]:
        """Parameter -> the value that was tried."""
        return dict(self.record.params)

    @property
    def values(self) -> dict[str, Scalar]:
        """:attr:`params`, and of a study with stages before them what earlier stages found: all that was ever tuned."""
        return stages.all_values(self._meta, self.record)

    @property
    def error(self) -> float | None:
        """The tuned metric; None for a trial that failed before it had one."""
        return self.record.error

    @property
    def confirmed(self) -> MeanSd | None:
        """``mean``, ``sd`` (NaN of one) and number ``n`` of the errors that other seeds gave; None without repeats.

        Raises StoreError where they cannot be read.
        """
        return self._confirmed(self.number)

    @property
    def state(self) -> TrialState:
        """``COMPLETE``, ``PRUNED`` or ``FAIL``; compares equal to these words."""
        return self.record.state

    @property
    def reason(self) -> Reason:
        """Why it did not complete: ``pruned``, ``failed``, ``lost``, ``interrupted``; empty where it did."""
        return self.record.reason

    @property
    def message(self) -> str:
        """The exception of a failed trial, in one line."""
        return self.record.message

    @property
    def traceback(self) -> str:
        """The traceback of a failed trial."""
        return self.record.traceback

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of every metric."""
        return dict(self.record.metrics)

    @property
    def gradient(self) -> dict[str, float]:
        """Derivative of the error in each parameter that has one, per unit of the parameter; empty without slopes."""
        return dict(self.record.gradient)

    @property
    def curve(self) -> dict[str, NDArray[Any]]:
        """``step``, one column for each metric, and slopes as ``gradient/NAME``, all (iterations,).

        Empty for a trial that kept none.
        """
        return dict(self._data.curve)

    @property
    def log(self) -> str:
        """What the engine wrote while the trial ran."""
        return self._data.log

    @property
    def command(self) -> str:
        """The program's command, quoted for a shell; empty where no program ran."""
        return self._data.command

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """The files that the program wrote, by their paths: ``.size`` in bytes, ``.read()`` gives the content."""
        return {path: Artifact(file, self._ready) for path, file in self._data.artifacts.items()}

    @property
    def left_out(self) -> tuple[str, ...]:
        """One sentence for each thing of the program's that was not kept, and why."""
        return self._data.left_out

    @property
    def seconds(self) -> float:
        """How long it took, all attempts together, in s."""
        return self.record.seconds

    @property
    def started(self) -> datetime | None:
        """When the last attempt began, with time zone; None where nobody knows."""
        return self.record.began

    @property
    def lost(self) -> str:
        """What could not be kept of the trial, or was taken out later, and why; empty where everything is there."""
        return "; ".join(reason for reason in (self._data.lost, self._data.dropped) if reason)

    # --- what it made ----------------------------------------------------------------------------

    @property
    def object(self) -> LazyArray:
        """The object's transmission, amplitude * exp(i phase): (omode, z, y, x) complex."""
        return lazy.from_polar(self.object_amplitude, self.object_phase)

    @property
    def object_phase(self) -> LazyArray:
        """The object's phase in rad: (omode, z, y, x)."""
        return self._require_array("object_phase")

    @property
    def object_amplitude(self) -> LazyArray:
        """The object's amplitude: (omode, z, y, x)."""
        return self._require_array("object_amplitude")

    @property
    def probe(self) -> LazyArray:
        """The probe in real space: (pmode, y, x) complex."""
        return self._require_array("probe")

    @property
    def positions(self) -> LazyArray:
        """(N, 2) as (y, x), angstrom: where the top-left pixel of the probe window lies on the object."""
        return self._require_array("positions")

    @property
    def probe_centres(self) -> NDArray[np.float64]:
        """(N, 2) as (y, x), angstrom: where the probe's centre lies on the object; fits the axes of ``image``."""
        half = np.array(self.probe.shape[-2:]) // 2
        return np.asarray(self.positions, dtype=np.float64) + half * self.pixel_size

    @property
    def object_tilts(self) -> LazyArray:
        """(1, 2) or (N, 2) as (y, x), mrad."""
        return self._require_array("object_tilts")

    @property
    def slice_thickness(self) -> float:
        """The thickness of one slice, angstrom."""
        return float(self._require_array("slice_thickness"))

    @property
    def pixel_size(self) -> float:
        """The width of an object pixel in angstrom (m where ``attributes`` has that as ``length_unit``)."""
        size = self._data.attributes.get("pixel_size")
        if isinstance(size, int | float):
            return float(size)
        image = self._data.image
        if image is not None and len(image.x) > 1:
            return float(image.x[1] - image.x[0])
        raise StoreError(f"trial {self.number}: its pixel size is not known{self._missing_reason()}")

    @property
    def image(self) -> Image | None:
        """The phase summed over depth, with the calibrated axes ``y`` and ``x``; None where none was kept."""
        return self._data.image

    @property
    def arrays(self) -> dict[str, LazyArray]:
        """Every array by its name, also of other engines."""
        return self._lazy_arrays(self._data.arrays)

    @property
    def snapshots(self) -> dict[int, dict[str, LazyArray]]:
        """Iteration -> the arrays as they were then."""
        return {step: self._lazy_arrays(arrays) for step, arrays in sorted(self._data.snapshots.items())}

    @property
    def attributes(self) -> dict[str, Scalar]:
        """Facts that the engine states, for PtyRAD among them wavelength, probe window and scan affine."""
        return dict(self._data.attributes)

    # --- what a microscopist looks at first ------------------------------------------------------

    def power_spectrum(self, of: Literal["phase", "object"] = "phase") -> Image:
        """log10 of the power spectrum of the scanned region: (ky, kx), the axes ``y`` and ``x`` in 1/angstrom.

        ``phase`` is that of the phase summed over depth, ``object`` of the complex transmission of all slices. The mean
        is taken off and a Hann window put over it. Raises StoreError without an image or object.
        """
        return microscopy.power_spectrum(self._data, of)

    def phase_slices(self) -> PhaseSlices:
        """The phase of every slice in the scanned region, ``data`` (z, y, x) in rad; its axes are in angstrom."""
        self._require_array("object_phase")
        return microscopy.phase_slices(self._data)

    def probe_shares(self) -> NDArray[np.float64]:
        """(pmode,): the part of each probe mode in the total intensity; their sum is 1."""
        self._require_array("probe")
        return microscopy.probe_shares(self._data)

    def reciprocal_probe(self) -> ReciprocalProbe:
        """The probe in the plane of the aperture: ``modes`` (pmode, ky, kx) complex, ``ky`` and ``kx`` in 1/angstrom.

        ``angles`` are the same axes in mrad, None where the file does not know the wavelength.
        """
        self._require_array("probe")
        return microscopy.reciprocal_probe(self._data)

    def position_shifts(self) -> PositionShifts:
        """``nominal`` and ``refined`` positions, (N, 2) as (y, x), angstrom, and how far apart they are.

        ``shifts``, ``distances``, ``rms``, ``median`` and ``largest`` are without the ``mean`` shift of all. The
        nominal ones are where the trial began: raster, scan affine and PtyRAD's random displacement.
        """
        self._require_array("positions")
        return microscopy.position_shifts(self._data, self._meta)

    def difference(self, other: Trial) -> ImageDifference:
        """The phase ``image`` of this trial less that of the ``other``, in rad, on the axes of this one.

        ``shift`` (y, x; angstrom) and ``constant`` (rad) were taken out first, ``rms`` and ``correlation`` say what is
        left. Raises StoreError where one has no image; MissingDependency without SciPy.
        """
        return microscopy.phase_difference(self._data, other._data)

    # --- to go on with ---------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """The complete params of this trial: the study's, with the trial's values in place and tuning switched off.

        ``ptyrad run`` repeats the trial with them. Of a sweep: every parameter that its program was given, tuned or
        not, nested as in the file. For another engine the study's configuration as it is: its engine alone knows
        where ``params`` go. Raises StoreError where the study does not hold its params.
        """
        if sweep.is_sweep(self._meta):
            return sweep.program_values(self._meta, self.record)
        if self._meta.engine != "ptyrad":
            return dict(json.loads(self._meta.config_json))
        from ptydask.analysis.export import params

        config = params.with_values(self._meta, self.record)
        config["init_params"]["random_seed"] = self.record.seed
        return {**config, "hypertune_params": {"if_hypertune": False}}

    def reconstructed(self) -> ReconstructedTrial:
        """The whole trial in memory, as a metric of one's own is given it: to try one out on.

        Raises StoreError where the trial did not keep all of that.
        """
        arrays = {name: array.read() for name, array in self.arrays.items()}
        try:
            return assemble(self.number, self.params, arrays, self.image, self.metrics, self.attributes)
        except LookupError as error:
            name = str(error.args[0])
            raise StoreError(f"trial {self.number} has no {name}{self._missing_reason(name)}") from None

    def to_xarray(self) -> xarray.Dataset:
        """Arrays, image and curve with calibrated coordinates and units, read into memory.

        Dimensions are omode, z, y, x of the object; pmode, probe_y, probe_x of the probe (its centre at 0);
        image_y, image_x of the image; position, yx; step. Lengths are in angstrom. Raises MissingDependency.
        """
        from ptydask.analysis import calibrated

        return calibrated.build_dataset(self)

    # --- pieces ----------------------------------------------------------------------------------

    def _require_array(self, name: str) -> LazyArray:
        if name not in self._data.arrays:
            raise StoreError(f"trial {self.number} has no {name}{self._missing_reason(name)}")
        return lazy.from_stored(self._data.arrays[name], DIMS.get(name, ()), self._ready)

    def _lazy_arrays(self, arrays: Mapping[str, StoredArray]) -> dict[str, LazyArray]:
        return {name: lazy.from_stored(array, DIMS.get(name, ()), self._ready) for name, array in arrays.items()}

    def _missing_reason(self, name: str = "") -> str:
        """Why something is missing, as the end of a sentence."""
        if sweep.is_sweep(self._meta) and not self._data.arrays:
            return ": what ran it makes numbers and files, no arrays"
        if reason := self._data.lost or self._data.dropped:
            return f": {reason}"
        if self.state is TrialState.FAIL:
            return f": it {self.reason or 'failed'}" + (f" ({self.message})" if self.message else "")
        if self._data.arrays and name:
            return f"; it has {', '.join(self._data.arrays)}"
        return ": its arrays were not kept"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Trial) and (self.number, self._fetch) == (other.number, other._fetch)

    def __hash__(self) -> int:
        return hash(self.number)

    def __getstate__(self) -> dict[str, Any]:
        """Another process reads the trial itself: what was read here belongs to the open file."""
        return {name: value for name, value in self.__dict__.items() if name != "_data"}

    def __repr__(self) -> str:
        try:
            self.record  # noqa: B018
        except StoreError as damaged:
            return f"<Trial {self.number}: {damaged}>"
        error = "" if self.error is None else f" {self._meta.metric}={self.error:.6g}"
        return f"<Trial {self.number} {self.state}{error} {params_text(self.values)}".rstrip() + ">"

    def _repr_html_(self) -> str:
        from ptydask.analysis import notebook

        return notebook.trial_html(self, self._meta.metric)
