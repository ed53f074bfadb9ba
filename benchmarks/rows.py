"""A figure that a benchmark measured, beside what it may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

HEADER = f"{'':<60}{'measured':>10}    {'at most':>10}"


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    value: float
    unit: str
    most: float = math.inf
    """What it may be."""

    def __str__(self) -> str:
        limit = "" if math.isinf(self.most) else f"{self.most:>10.4g} {self.unit:<3} {'' if self.kept else ' exceeded'}"
        return f"{self.what:<60}{self.value:>10.4g} {self.unit:<3}{limit}".rstrip()

    @property
    def kept(self) -> bool:
        return self.value <= self.most
