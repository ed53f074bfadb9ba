"""Equal texts as one object: names of parameters and metrics, hosts, workers, which every trial of a study repeats.

What is unpickled or read from JSON has texts of its own, trial by trial; of thousands of trials they were a third of
what the driver keeps. For texts of which there are few: Python 3.12 never forgets an interned one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def intern_text(value: Any) -> Any:
    """The one object of all texts that are equal to this one; whatever is no plain text, as it is."""
    return sys.intern(value) if type(value) is str else value


def intern_texts(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """A mapping with its keys and its values interned, each as :func:`intern_text` does."""
    return {intern_text(key): intern_text(value) for key, value in values.items()}
