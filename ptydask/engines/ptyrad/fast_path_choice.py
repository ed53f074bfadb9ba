"""Which fast paths are taken, by the environment. Light to import, so that a run is refused before it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

from ptydask.errors import ConfigError, nearest_hint

SWITCH = "PTYDASK_FAST_PATHS"
"""``none``, ``all`` (as without it), or names of :class:`FastPaths` with commas between them."""


@dataclass(frozen=True, slots=True)
class FastPaths:
    """Which are taken."""

    measurements: bool = True
    """A batch of patterns is selected where they are, not by indices that go over the host."""
    losses: bool = True
    """See :mod:`ptydask.engines.ptyrad.fast_paths.loss_terms`."""
    propagators: bool = True
    """Propagators that nothing changes are looked up without computing what only others need."""
    patches: bool = True
    """See :mod:`ptydask.engines.ptyrad.fast_paths.patches`."""
    probes: bool = True
    """See :mod:`ptydask.engines.ptyrad.fast_paths.probe_shift`."""
    multislice: bool = True
    """See :mod:`ptydask.engines.ptyrad.fast_paths.multislice`."""
    iteration: bool = True
    """See :mod:`ptydask.engines.ptyrad.fast_paths.iteration`."""
    optimizer: bool = True
    """See :mod:`ptydask.engines.ptyrad.fast_paths.adam`; within ``iteration`` only."""

    @classmethod
    def of(cls, *names: str) -> FastPaths:
        """These and no others."""
        return cls(**{field.name: field.name in names for field in fields(cls)})

    @classmethod
    def chosen(cls) -> FastPaths:
        """By the environment. Raises ConfigError for a name that there is not."""
        text = os.environ.get(SWITCH, "all").strip()
        if text in ("all", ""):
            return cls()
        names = [] if text == "none" else [name.strip() for name in text.split(",")]
        valid = [field.name for field in fields(cls)]
        for name in names:
            if name not in valid:
                rule = f"must be all, none, or some of {', '.join(valid)}"
                raise ConfigError(rule, key=SWITCH, value=name, hint=nearest_hint(name, valid))
        return cls.of(*names)
