"""A small neural network for a noisy curve, written for Weights & Biases: wandb.config in, wandb.log out.

Knows nothing of ptydask. Needs numpy and wandb; fits 400 synthetic points in about a second.
"""

import numpy as np
import wandb


def points(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Samples of a damped oscillation with noise of 0.05: x (count, 1) and y (count, 1)."""
    x = rng.uniform(-2, 2, (count, 1))
    return x, np.exp(-(x**2) / 2) * np.sin(4 * x) + rng.normal(0, 0.05, x.shape)


def main() -> None:
    """Full-batch gradient descent with momentum; the validation loss after every epoch."""
    run = wandb.init(project="sweep-examples", config={"width": 16, "lr": 0.1, "momentum": 0.9, "epochs": 30})
    config = run.config
    rng = np.random.default_rng(config.get("seed", 0))
    x, y = points(400, rng)
    x_val, y_val = points(200, rng)

    weights = [
        rng.normal(0, 2, (1, config.width)),
        rng.normal(0, 1, (1, config.width)),
        rng.normal(0, config.width**-0.5, (config.width, 1)),
        np.zeros((1, 1)),
    ]
    speed = [np.zeros_like(w) for w in weights]
    for epoch in range(1, config.epochs + 1):
        for _ in range(20):
            hidden = np.tanh(x @ weights[0] + weights[1])
            miss = 2 * (hidden @ weights[2] + weights[3] - y) / len(x)
            back = (miss @ weights[2].T) * (1 - hidden**2)
            slopes = [x.T @ back, back.sum(0, keepdims=True), hidden.T @ miss, miss.sum(0, keepdims=True)]
            speed = [config.momentum * v - config.lr * g for v, g in zip(speed, slopes, strict=True)]
            weights = [w + v for w, v in zip(weights, speed, strict=True)]
        losses = [
            float(np.mean((np.tanh(a @ weights[0] + weights[1]) @ weights[2] + weights[3] - b) ** 2))
            for a, b in ((x, y), (x_val, y_val))
        ]
        run.log({"train_loss": losses[0], "val_loss": losses[1]}, step=epoch)
    run.finish()


if __name__ == "__main__":
    main()
