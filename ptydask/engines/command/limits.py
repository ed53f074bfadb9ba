"""When a program has been silent, or has run, for too long. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds; None where there is no limit. Named as in the section ``engine`` of a sweep file."""

    start_timeout: float | None = None
    """To the first logged value, the first output, or the start of a W&B run."""
    idle_timeout: float | None = None
    """Without a logged value or output."""
    trial_timeout: float | None = None
    """For the whole trial."""


@dataclass(frozen=True, slots=True)
class ExceededLimit:
    """A limit that a program did not keep."""

    setting: str
    seconds: float


def find_exceeded(limits: TimeLimits, seconds: float, last_sign: float | None) -> ExceededLimit | None:
    """The limit that a program has exceeded ``seconds`` after its start; it last said something at ``last_sign``."""
    if limits.trial_timeout is not None and seconds > limits.trial_timeout:
        return ExceededLimit("trial_timeout", limits.trial_timeout)
    if last_sign is None:
        if limits.start_timeout is not None and seconds > limits.start_timeout:
            return ExceededLimit("start_timeout", limits.start_timeout)
    elif limits.idle_timeout is not None and seconds - last_sign > limits.idle_timeout:
        return ExceededLimit("idle_timeout", limits.idle_timeout)
    return None
