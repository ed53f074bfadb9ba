"""Total-variation denoising of a synthetic slice, as a function of its parameters: no program, no command line."""

import numpy as np


def phantom(size: int = 48) -> np.ndarray:
    """Discs of four densities, (size, size), between 0 and 1."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = np.zeros((size, size))
    for cy, cx, radius, density in (
        (0, 0, 0.85, 0.5),
        (-0.3, 0.2, 0.25, 0.9),
        (0.35, -0.3, 0.2, 0.1),
        (0.4, 0.4, 0.1, 1),
    ):
        image[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = density
    return image


def objective(params, report):
    """Gradient descent on |u - f|^2 / 2 + weight TV(u); reports PSNR (dB) after every tenth iteration.

    ``params`` is a plain dict, nested where the sweep file nests. ``report`` raises ``ptydask.Pruned`` once the trial
    is to end; files would be closed in ``finally`` or ``with`` as ever.
    """
    truth = phantom()
    noisy = truth + np.random.default_rng(params["seed"]).normal(0, params["noise"], truth.shape)
    u = noisy.copy()
    for iteration in range(1, params["descent"]["iterations"] + 1):
        dy, dx = np.diff(u, axis=0, append=u[-1:]), np.diff(u, axis=1, append=u[:, -1:])
        length = np.sqrt(dy**2 + dx**2 + params["descent"]["epsilon"] ** 2)
        py, px = dy / length, dx / length
        divergence = np.diff(py, axis=0, prepend=0 * py[:1]) + np.diff(px, axis=1, prepend=0 * px[:, :1])
        u -= params["descent"]["step"] * (u - noisy - params["weight"] * divergence)
        if iteration % 10 == 0:
            mse = float(np.mean((u - truth) ** 2))
            report(iteration, psnr=-10 * np.log10(mse), mse=mse)
    print(f"weight {params['weight']:.4g}: mean {u.mean():.4f}, of the truth {truth.mean():.4f}")
