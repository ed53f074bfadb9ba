"""Ridge regression by gradient descent: parameters by argparse, the validation error through ptydask.report.

Runs by itself, too: outside a trial ptydask.report does nothing.
"""

import argparse

import numpy as np

import ptydask


def data(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """60 correlated features of which 8 matter: training and validation rows, and the true weights."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(60, 60)) * 0.15 + np.eye(60)
    truth = np.zeros(60)
    truth[:8] = rng.normal(0, 1, 8)
    return rng.normal(size=(80, 60)) @ mixing, rng.normal(size=(200, 60)) @ mixing, truth


def main() -> None:
    """Minimise the mean squared error plus alpha |w|^2; report after every tenth step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alpha", type=float, default=0.1, help="weight of |w|^2")
    parser.add_argument("--rate", type=float, default=0.05, help="step size of the descent")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nesterov", action="store_true", help="look ahead along the last step")
    args = parser.parse_args()

    x, x_val, truth = data(args.seed)
    rng = np.random.default_rng(args.seed + 1)
    y = x @ truth + rng.normal(0, 2, len(x))
    w = last = np.zeros_like(truth)
    for step in range(1, args.steps + 1):
        ahead = w + 0.9 * (w - last) if args.nesterov else w
        last, w = w, ahead - args.rate * (x.T @ (x @ ahead - y) / len(x) + args.alpha * ahead)
        if step % 10 == 0:
            ptydask.report(
                step,
                val_rmse=float(np.sqrt(np.mean((x_val @ (w - truth)) ** 2))),
                train_rmse=float(np.sqrt(np.mean((x @ w - y) ** 2))),
            )
    print(f"|w| = {np.linalg.norm(w):.4f}")


if __name__ == "__main__":
    main()
