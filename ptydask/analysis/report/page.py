"""One HTML file out of a page's data: everything is in it, nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from string import Template
from typing import Any

from ptydask import __version__
from ptydask.formatting import shell_path

_SCRIPTS = (
    "words.js",
    "drawing.js",
    "filters.js",
    "table.js",
    "microscopy.js",
    "difference.js",
    "overview.js",
    "pages.js",
)
"""One script, in this order."""


def render(data: Mapping[str, Any], plots: Sequence[Mapping[str, str]], *, source: str, made: datetime) -> str:
    """The page. ``source`` is the results file's name; ``made`` is the only part that changes from time to time.

    The data lie in elements of their own, one for each key of ``data``, so that a browser reads what is needed
    first. They cannot end their element: every ``<`` is written ``\\u003c``. Only the page's own script runs: the
    policy names it by its hash.
    """
    script = "\n".join(map(read_asset, _SCRIPTS))
    about = {
        "source": source,
        "paste": shell_path(source),
        "made": made.isoformat(timespec="seconds"),
        "version": __version__,
    }
    blocks = {**data, "about": about}
    return Template(read_asset("page.html")).substitute(
        title=html.escape(f"{data['study']['name']} - ptydask"),
        policy=content_security_policy(script),
        css=read_asset("page.css"),
        js=script,
        plots="\n".join(map(_figure_html, plots)) or '<p class="empty">There is nothing to draw so far.</p>',
        data="\n".join(_json_block(name, value) for name, value in blocks.items()),
    )


def read_asset(name: str) -> str:
    """One of the files that pages are made of."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def content_security_policy(script: str = "") -> str:
    """Nothing from anywhere: pictures within the page, styles, and this one script, where there is one."""
    rules = ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"]
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        rules.append(f"script-src 'sha256-{digest}'")
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _json_block(name: str, value: Any) -> str:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    # What HTML or a browser's JSON might take for something else; none of them is left as it is.
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    # A lone surrogate, from a file name that is no UTF-8, cannot be written.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return f'<script type="application/json" id="data-{name}">{text}</script>'


def _figure_html(plot: Mapping[str, str]) -> str:
    title, about = html.escape(plot["title"]), html.escape(plot["about"])
    caption = f"<figcaption><b>{title}</b> <span>{about}</span></figcaption>"
    drawing = f'<div class="drawing" role="group" aria-label="{title}">{plot["markup"]}</div>'
    return f'<figure class="plot {plot["size"]}" id="plot-{plot["kind"]}">{caption}{drawing}</figure>'
