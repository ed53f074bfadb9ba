"""Rotation, flips, C10 and C12 from how the images of single bright-field pixels lie to each other, by fast-acbf.

A pixel of the bright-field disk at the angle ``a`` sees the specimen shifted by the slope of the aberration function
there: by ``R (C10 1 + C12) a``, where R is how the scan is turned to the detector (Y. Yu et al., Nature Methods 22
(2025), 10.1038/s41592-025-02834-9). fast-acbf moves the images back and adds them up, and looks for what makes the sum
sharpest: tcBF by the shifts alone, acBF with all of the phase. The shifts of a scan turned by 180 degrees are those of
a C10 and C12 of the other sign, and so is the phase but for its own sign, which the dark field tells.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.errors import import_optional
from ptydask.guess.mass import wrap

APERTURES = (0.95, 0.75, 0.6)
"""Shares of the disk that are used: the values are of the first, their deviation is from how the others differ."""
TURN_STEP = 10.0
"""Degrees from one turn to the next that is tried at first."""
MOST_C10, LARGE_C10 = 36.0, 450.0
"""The largest defocus that is tried, in units of ``wavelength / (4 alpha^2)``, and in angstrom: the larger of both."""
C10_STEP = 2.0
"""In the same units, in which the sum is sharp over about 3."""
MOST_POSITIONS = 64
"""Along either side of the scan, in its middle: enough for a turn, and bounded in time."""
MOST_DISK = 9
"""Radius of the disk in detector pixels; a finer detector is binned."""
_ITERATIONS, _ROUNDS = 20, 3
"""Of the fit of C10 and C12, and how often that and the turn follow each other."""


@dataclass(frozen=True, slots=True)
class ParallaxScan:
    """Neighbouring patterns and what is known of them."""

    patterns: NDArray[np.float32]
    """(rows, columns, ky, kx), as PtyRAD's ``meas_flipT`` leaves them."""
    dark: NDArray[np.float64]
    """(rows, columns): the dark field of the same positions, bright where the specimen's phase is large."""
    centre: tuple[float, float]
    """Of the bright-field disk, (y, x) in detector pixels from the middle of pixel (0, 0)."""
    pixel_angle: float
    """Of a detector pixel, mrad."""
    convergence: float
    """Semi-angle, mrad."""
    wavelength: float
    """Angstrom."""
    step: float
    """From one position to the next, angstrom."""


@dataclass(frozen=True, slots=True)
class ParallaxFit:
    """What makes the sum of the shifted images sharpest. Angles in degree and aberrations as PtyRAD has them."""

    rotation: float
    """From -180 to 180, in a scan that is not mirrored; of a mirrored one, with the patterns transposed beforehand."""
    rotation_deviation: float
    mirrored: bool
    """Whether the patterns have to be transposed."""
    C10: float
    C10_deviation: float
    C12a: float
    C12b: float
    C12_deviation: float
    elsewhere: float
    """How sharp the sum is at best at quite another turn, as a share of the sharpest: near 1 nothing is known."""
    mirrored_otherwise: float
    """The same share, were the patterns mirrored the other way."""
    twin: float
    """By how many standard errors the dark field looks like the phase, not its reverse; the signs are chosen by it."""
    contrast: float
    """By which share of its mean the image of a pixel varies: small of a weak phase object, for which acBF is made."""
    image: NDArray[np.float32]
    """(rows, columns): the specimen's phase by acBF, in arbitrary units, for the middle of the scan."""

    def opposite(self) -> ParallaxFit:
        """The fit of the same shifts: turned by 180 degrees, with aberrations and phase of the other sign."""
        turned, image = float(wrap(self.rotation + 180)), -self.image
        return replace(self, rotation=turned, C10=-self.C10, C12a=-self.C12a, C12b=-self.C12b, image=image)


def measure_parallax(scan: ParallaxScan) -> ParallaxFit | None:
    """Fit the shifts. Returns None for a scan of fewer than 12 x 12 positions, or a disk of less than 3 pixels' radius.

    Takes seconds to half a minute of one core. Raises MissingDependency without fast-acbf.
    """
    if min(scan.patterns.shape[:2]) < 12 or scan.convergence < 3 * scan.pixel_angle:
        return None
    scan = _middle(scan)
    contrast, scan = _contrast(scan), _binned(scan)
    with _quiet(), _one_thread():
        open_solver = _load()
        solver = open_solver(scan, APERTURES[0])
        coarse = _Search(solver, scan)
        fits = [_refine(solver, start, coarse.defoci) for start in coarse.best_starts()]
        best = max(fits, key=lambda fit: fit.score)
        others = [_refine(open_solver(scan, share), best) for share in APERTURES[1:]]
        image = _add_up(best.apply(solver), "acBF").numpy()
    sign = _compare_phase(image, best, scan)
    if sign < 0:
        best, image = best.twin(), -image
    spread = max(abs(wrap(other.rotation - best.rotation, 180)) for other in others)
    return ParallaxFit(
        rotation=wrap(best.rotation),
        rotation_deviation=max(spread, 0.3),
        mirrored=best.mirrored,
        C10=best.C10,
        C10_deviation=max(*(abs(abs(other.C10) - abs(best.C10)) for other in others), 0.05 * abs(best.C10)),
        C12a=best.C12a,
        C12b=best.C12b,
        C12_deviation=max(
            math.hypot(abs(other.C12a) - abs(best.C12a), abs(other.C12b) - abs(best.C12b)) for other in others
        ),
        elsewhere=coarse.elsewhere(best),
        mirrored_otherwise=min(fit.score for fit in fits) / best.score,
        twin=abs(sign),
        contrast=contrast,
        image=image,
    )


@dataclass(frozen=True, slots=True)
class _State:
    """What a solver is set to, and how sharp its sum is."""

    mirrored: bool
    rotation: float
    C10: float
    C12a: float = 0.0
    C12b: float = 0.0
    score: float = 0.0

    def twin(self) -> _State:
        """The state of the same shifts."""
        return _State(self.mirrored, self.rotation + 180, -self.C10, -self.C12a, -self.C12b, self.score)

    def apply(self, solver: Any) -> Any:
        """Set the solver to it; returns the solver."""
        solver.set_flips(False, False, self.mirrored)
        solver.set_rotation_deg(self.rotation, clear_basis=True)
        for key, value in (("C_1_0", self.C10), ("C_1_2_a", self.C12a), ("C_1_2_b", self.C12b)):
            solver.ab_state.set_physical(key, value)
        return solver

    @classmethod
    def of(cls, solver: Any, score: float) -> _State:
        defocus, along, across = (float(solver.ab_state.get_physical(key)) for key in ("C_1_0", "C_1_2_a", "C_1_2_b"))
        mirrored, rotation = bool(solver.coord_transform["transpose"]), float(solver.rotation_deg)
        return cls(mirrored, rotation, defocus, along, across, score)


class _Search:
    """How sharp the sum is over a grid of turns and positive C10, mirrored or not."""

    def __init__(self, solver: Any, scan: ParallaxScan) -> None:
        unit = scan.wavelength / (4 * (scan.convergence * 1e-3) ** 2)
        # An image must not be moved by more than half of the scan.
        widest = 0.5 * min(scan.patterns.shape[:2]) * scan.step / (scan.convergence * 1e-3)
        self.defoci = unit * np.arange(C10_STEP, max(MOST_C10, LARGE_C10 / unit) + 0.1, C10_STEP)
        self.defoci = self.defoci[self.defoci <= max(widest, 4 * unit)]
        self.turns = np.arange(0, 360, TURN_STEP)
        self.scores = np.array(
            [
                [[_sharpness(_State(m, t, c).apply(solver)) for c in self.defoci] for t in self.turns]
                for m in (False, True)
            ]
        )

    def best_starts(self) -> list[_State]:
        """The sharpest of either handedness."""
        starts = []
        for mirrored in (False, True):
            turn, defocus = np.unravel_index(self.scores[int(mirrored)].argmax(), self.scores.shape[1:])
            starts.append(_State(mirrored, float(self.turns[turn]), float(self.defoci[defocus])))
        return starts

    def elsewhere(self, best: _State) -> float:
        """The sharpest at turns that are 25 degrees or more from the best, over the sharpest."""
        scores = self.scores[int(best.mirrored)]
        rotation = best.rotation if best.C10 > 0 else best.rotation + 180
        far = [abs(wrap(float(turn) - rotation)) > 25 for turn in self.turns]
        return float(scores[far].max() / scores.max())


def _add_up(solver: Any, mode: str) -> Any:
    """The sum of the shifted images (tcBF), or what they say of the specimen's phase (acBF), as a tensor."""
    return solver.reconstruct(mode=mode, requires_grad=False).detach()


def _sharpness(solver: Any, mode: str = "tcBF") -> float:
    from fast_acbf.optimization.metrics import QualityMetrics

    return float(QualityMetrics.evaluate(_add_up(solver, mode), metric="sobel"))


def _refine(solver: Any, start: _State, defoci: NDArray[np.float64] | None = None) -> _State:
    """By acBF: tcBF shows a crystal sharpest where its contrast is largest, at another defocus (compare the two)."""
    if defoci is not None:
        states = [replace(start, C10=float(defocus)) for defocus in defoci]
        start = max(states, key=lambda state: _sharpness(state.apply(solver), "acBF"))
    start.apply(solver)
    # Turn and defocus in turns, before the astigmatism may make up for what either is off.
    for halfwidth in (8.0, 3.0):
        solver.refine_scan_rotation(
            search_halfwidth=halfwidth, method="brent", xatol=0.1, mode="acBF", plot_search=False
        )
        around = solver.tolerance_factors[1] * C10_STEP * halfwidth / 8
        solver.refine_defocus(
            search_halfwidth=around, num_points=7, method="max", mode="acBF", blur=False, plot_search=False
        )
    best = replace(start, score=0.0)
    # Adam passes the sharpest and comes back, and turn and astigmatism wait for each other: the best of a few rounds.
    for _ in range(_ROUNDS):
        for rate in (0.3, 0.1):  # in units of the depth of focus
            solver.refine_aberrations(lr=rate, iters=_ITERATIONS // 2, mode="acBF")
        solver.refine_scan_rotation(search_halfwidth=2.0, method="brent", xatol=0.1, mode="acBF", plot_search=False)
        best = max(best, _State.of(solver, _sharpness(solver, "acBF")), key=lambda state: state.score)
    best.apply(solver)
    return best


def _compare_phase(phase: NDArray[np.float32], state: _State, scan: ParallaxScan) -> float:
    """How much the phase, blurred by the probe's intensity, looks like the dark field, which it blurs as well.

    Their covariance in standard errors, by how its sixteen parts differ: negative where the signs are the other ones.
    """
    k = scan.convergence * 1e-3 / scan.wavelength
    axis = np.linspace(-1, 1, 41) * k
    ky, kx = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))

    def wave(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.complex128]:
        chi = state.C10 * (x**2 + y**2) + state.C12a * (x**2 - y**2) + 2 * state.C12b * x * y
        return np.asarray((np.hypot(y, x) <= k) * np.exp(-1j * np.pi * scan.wavelength * chi))

    turn = math.radians(state.rotation)
    qy, qx = np.meshgrid(*(np.fft.fftfreq(size, scan.step) for size in phase.shape), indexing="ij")
    # A row (y, x) of the scan times PtyRAD's affine is along the detector's axes.
    y, x = qy * math.cos(turn) - qx * math.sin(turn), qy * math.sin(turn) + qx * math.cos(turn)
    here = wave(ky, kx)
    there = np.stack([wave(ky - a, kx - b) for a, b in zip(y.ravel(), x.ravel(), strict=True)])
    transfer = (there.conj() @ here).real.reshape(phase.shape)
    blurred = np.fft.ifft2(np.fft.fft2(phase - phase.mean()) * transfer).real
    rows, columns = (slice(size // 8, size - size // 8) for size in phase.shape)
    blurred, dark = blurred[rows, columns], scan.dark[rows, columns]
    product = (blurred - blurred.mean()) * (dark - dark.mean())
    parts = [part.mean() for band in np.array_split(product, 4) for part in np.array_split(band, 4, axis=1)]
    error = np.std(parts, ddof=1) / math.sqrt(len(parts))
    return float(np.mean(parts) / error) if error > 0 else 0.0


def _middle(scan: ParallaxScan) -> ParallaxScan:
    """The middle of the scan, and of the detector what holds the disk, its centre at pixel n // 2."""
    rows, columns = scan.patterns.shape[:2]
    high, wide = min(rows, MOST_POSITIONS), min(columns, MOST_POSITIONS)
    top, left = (rows - high) // 2, (columns - wide) // 2
    half = math.ceil(scan.convergence / scan.pixel_angle) + 2
    y, x = (round(value) for value in scan.centre)
    cut = scan.patterns[top : top + high, left : left + wide]
    pad = [max(half - y, half - x, y + half - cut.shape[2], x + half - cut.shape[3], 0)] * 2
    if pad[0]:
        cut = np.pad(cut, ((0, 0), (0, 0), tuple(pad), tuple(pad)))
    y, x = y + pad[0], x + pad[0]
    return replace(
        scan,
        patterns=cut[:, :, y - half : y + half, x - half : x + half],
        dark=scan.dark[top : top + high, left : left + wide],
        centre=(half, half),
    )


def _contrast(scan: ParallaxScan) -> float:
    """From how the images of neighbouring pixels vary together, which their noise does not."""
    mean = scan.patterns.mean((0, 1), dtype=np.float64)
    y, x = np.indices(mean.shape)
    inside = np.hypot(y - scan.centre[0], x - scan.centre[1]) < 0.9 * scan.convergence / scan.pixel_angle
    pairs = inside[:, 1:] & inside[:, :-1]
    products = np.einsum("abcd,abcd->cd", scan.patterns[..., 1:], scan.patterns[..., :-1], dtype=np.float64)
    together = products[pairs].sum() / scan.patterns[..., 0, 0].size
    squares = (mean[:, 1:] * mean[:, :-1])[pairs].sum()
    return math.sqrt(max(0.0, together / squares - 1)) if squares > 0 else 0.0


def _binned(scan: ParallaxScan) -> ParallaxScan:
    """Detector pixels joined until the disk is small; its centre stays at pixel n // 2, to within half of a pixel."""
    factor = max(1, round(scan.convergence / scan.pixel_angle / MOST_DISK))
    half = scan.patterns.shape[-1] // 2
    kept = half // factor * factor
    cut = scan.patterns[:, :, half - kept : half + kept, half - kept : half + kept]
    count = 2 * kept // factor
    joined = cut.reshape(*cut.shape[:2], count, factor, count, factor).sum((3, 5))
    return replace(scan, patterns=joined, pixel_angle=scan.pixel_angle * factor, centre=(count // 2, count // 2))


def _load() -> Callable[[ParallaxScan, float], Any]:
    """What makes a solver of a scan and the share of the disk that it uses."""
    import_optional("torch", "guesses by parallax need", "guess")
    from ptydask.engines.ptyrad.torchvision_schema import make_importable

    make_importable()
    fast_acbf = import_optional("fast_acbf", "guesses by parallax need", "guess", "fast-acbf")

    def open_solver(scan: ParallaxScan, share: float) -> Any:
        return fast_acbf.BFSolver(
            fast_acbf.Dataset4D(np.ascontiguousarray(scan.patterns), normalize=True),
            max_alpha=share * scan.convergence,
            scan_step_size=scan.step,
            dk=scan.pixel_angle * 1e-3 / scan.wavelength,
            wavelength=scan.wavelength,
            max_order=1,
            device="cpu",
        )

    return open_solver


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Images as small as a scan gain nothing of more, and threads that wait for each other keep a core busy."""
    torch = import_optional("torch", "guesses by parallax need", "guess")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """fast-acbf prints what it does."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
