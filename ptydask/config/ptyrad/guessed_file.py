"""A params file with values that were guessed from its patterns in place of its own; the rest stays as written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ptydask.config import reading, yaml_text
from ptydask.config.ptyrad.params_file import SECTIONS, copy_sections
from ptydask.model import Scalar, SourceFile
from ptydask.space import tunables

FLIPS = "meas_flipT"


def guessed_text(
    source: SourceFile, values: Mapping[str, Scalar], flips: Sequence[int] | None, header: Sequence[str]
) -> str:
    """The text of ``source`` with ``values`` by PtyRAD's names of tunables, ``meas_flipT``, and a header as comments.

    YAML keeps its comments, order and spelling; a file of another format, or one that cannot be edited so, is written
    anew as YAML. Paths stay as they are written. Raises ConfigError for a text that cannot be read.
    """
    data = reading.parse_text(source.text, source.format)
    new = {**data, **tunables.apply(copy_sections(data) or {}, values)}
    if flips is not None:
        new["init_params"] = {**new["init_params"], FLIPS: list(flips)}
    body = yaml_text.rewrite(source.text, new) if source.format == "yaml" else None
    if body is None:
        ordered = sorted(new, key=lambda name: SECTIONS.index(name) if name in SECTIONS else len(SECTIONS))
        body = "\n".join(yaml_text.section_text(name, new[name]) for name in ordered)
    return yaml_text.comment_text(header) + body
