"""One step of Adam for the tensors of all its groups together: PtyRAD has a group for each tensor, with its own rate.

Of PyTorch's Adam the state and the settings are used as they are, and its formula is its own ``foreach`` variant's:
each operation goes over all tensors at once, with a list of step sizes where PyTorch has one rate for a call.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.optim import Adam


def step(optimizer: Any) -> None:
    """``optimizer.step()`` of one that :func:`is_plain`."""
    sizes: list[float] = []
    corrections: list[float] = []
    lists: tuple[list[torch.Tensor], ...] = ([], [], [], [])  # tensors, gradients, first and second moments
    steps: list[torch.Tensor] = []
    optimizer._opt_called = True  # a scheduler warns otherwise that no step has been taken
    with torch.no_grad():
        for group in optimizer.param_groups:
            before = len(steps)
            optimizer._init_group(group, *lists, [], steps)
            beta1, beta2 = group["betas"]
            for count in steps[before:]:
                number = count.add_(1).item()
                sizes.append(-(group["lr"] / (1 - beta1**number)))
                corrections.append((1 - beta2**number) ** 0.5)
        tensors, gradients, means, squares = lists
        if not tensors:
            return
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, corrections)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_addcdiv_(tensors, means, roots, sizes)


def is_plain(optimizer: Any) -> bool:
    """Whether it is Adam without variants, rates are numbers, and the groups differ in nothing else."""
    if type(optimizer) is not Adam or optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return False
    variants = ("amsgrad", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay")
    common = {(group["betas"], group["eps"], group["weight_decay"]) for group in optimizer.param_groups}
    return (
        len(common) == 1
        and all(type(group["lr"]) is float for group in optimizer.param_groups)
        and all(type(beta) is float for betas, _, _ in common for beta in betas)
        and all(decay == 0 for _, _, decay in common)
        and not any(group.get(name) for group in optimizer.param_groups for name in variants)
        and _is_known()
    )


@cache
def _is_known() -> bool:
    """Whether the installed PyTorch's Adam comes to the same values, to the last bit."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(n, generator=generator) for n in (37, 5)]
    ends = []
    for move in (Adam.step, step):
        draws = torch.Generator().manual_seed(1)
        tensors = [tensor.clone().requires_grad_() for tensor in start]
        optimizer = Adam([{"params": [t], "lr": lr} for t, lr in zip(tensors, (1e-3, 2e-2), strict=True)])
        for _ in range(3):
            for tensor in tensors:
                tensor.grad = torch.randn(tensor.shape, generator=draws)
            move(optimizer)
        ends.append([t.detach() for t in tensors] + [s[name] for s in optimizer.state.values() for name in sorted(s)])
    return all(map(torch.equal, *ends))
