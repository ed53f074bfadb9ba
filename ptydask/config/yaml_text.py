"""YAML text with some of its values changed, and everything else as its author wrote it.

A round trip through a parser that keeps comments (ruamel.yaml) still sets the file anew: colons that were aligned,
blanks inside braces and indentation become its own, so that of PtyRAD's template of 160 lines it changes 114. Here the
parser only says where each value stands in the text, and the values that differ are replaced there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"
_WIDTH = 2**20
_FAILURES = (yaml.YAMLError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError)
"""What PyYAML and Python's own int() and float() raise on odd texts."""


def rewrite(text: str, new: Mapping[str, Any]) -> str | None:
    """``text``, a mapping as ``yaml.safe_load`` reads it, with the values of ``new``: equal ones keep their spelling.

    Keys that ``new`` lacks go with their line, those that it has besides come last in their mapping, in its own style.
    An alias or a merge (``<<``) is spelled out where its value is not the anchor's any more. None where the result
    would not read back as ``new``, or ``text`` cannot be read.
    """
    try:
        old, root = yaml.safe_load(text), _Composer(text).get_single_node()
        touched: set[int] = set()
        if not isinstance(root, yaml.MappingNode):
            return None
        while True:
            edits = _Edits(text, touched)
            edits.edit_value(None, root, old, new)
            more = {id(node) for node in edits.anchored if edits.touch(node)} - touched
            if not more:
                break
            touched |= more
        result = edits.apply()
        return result if yaml.safe_load(result) == new else None
    except _FAILURES:
        return None


class _Dumper(yaml.SafeDumper):
    """Spells out what occurs twice: an alias in a params file puzzles its reader."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never an alias."""
        return True


def section_text(name: str, part: Any) -> str:
    """A section: one key a line, what is inside a key in flow style, as PtyRAD's own files are written."""
    return yaml.dump(
        {name: part}, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=_WIDTH, allow_unicode=True
    )


def comment_text(lines: Iterable[str]) -> str:
    """Lines as comments, each with its line break."""
    return "".join(f"# {line}\n" for line in lines)


def _flow_text(value: Any, quote: str | None = None) -> str:
    """``value`` on one line, so that it may stand within brackets, too; a text in quotes of the given kind."""
    if isinstance(value, str) and quote in ("'", '"'):
        return yaml.dump(value, Dumper=_Dumper, default_style=quote, width=_WIDTH, allow_unicode=True).strip()
    dumped = yaml.dump(
        [value], Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=_WIDTH, allow_unicode=True
    )
    return dumped.strip()[1:-1]


@dataclass(frozen=True)
class _Alias:
    """``*name`` where it stands, and the node that it stands for."""

    target: yaml.Node
    start_mark: Any
    end_mark: Any


class _Composer(yaml.SafeLoader):
    """Composes an alias as itself; PyYAML puts its anchor's node there, with the anchor's place."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node, or alias."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        node: Any = super().compose_node(parent, index)
        return _Alias(node, event.start_mark, event.end_mark) if isinstance(event, yaml.AliasEvent) else node


def _content_end(node: Any) -> int:
    """Where the node's text ends; PyYAML's own mark of a block is at what follows, behind blank lines and comments."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _content_end(last[1] if isinstance(node, yaml.MappingNode) else last)
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        buffer = node.end_mark.buffer or ""
        return len(buffer[: node.end_mark.index].rstrip())
    return int(node.end_mark.index)


@dataclass
class _Edits:
    """What is to be changed in ``text``: (start, end, replacement) each."""

    text: str
    touched: set[int]
    """The ids of nodes with an anchor in which something changes: their aliases do not say the same any more."""
    edits: list[tuple[int, int, str]] = field(default_factory=list)
    anchored: list[yaml.Node] = field(default_factory=list)
    """Those that an alias stands for."""

    def apply(self) -> str:
        """The text with all changes made."""
        parts, done = [], 0
        for start, end, replacement in sorted(self.edits, key=lambda edit: edit[:2]):
            parts += [self.text[done:start], replacement]
            done = end
        return "".join([*parts, self.text[done:]])

    def touch(self, node: yaml.Node) -> bool:
        """Whether anything changes within the node, or it goes."""
        return any(start <= _content_end(node) and node.start_mark.index <= end for start, end, _ in self.edits)

    def edit_value(self, key: Any, node: Any, old: Any, new: Any) -> None:
        """Make ``new`` of the value ``node`` of ``key`` (None: of no key of a block), which says ``old``."""
        if isinstance(node, _Alias):
            if self._is_touched(node) or old != new:
                self.edits.append((node.start_mark.index, node.end_mark.index, _flow_text(new)))
        elif isinstance(node, yaml.MappingNode) and isinstance(old, Mapping) and isinstance(new, Mapping):
            if not self._edit_mapping(node, old, new):
                self._replace(key, node, new)
        elif isinstance(node, yaml.SequenceNode) and isinstance(new, list) and len(new) == len(node.value):
            for item, before, now in zip(node.value, old, new, strict=True):
                self.edit_value(None, item, before, now)
        elif old != new:
            self._replace(key, node, new)

    def _edit_mapping(self, node: yaml.MappingNode, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        """False where the text of the whole mapping has to be written anew."""
        merges = [pair for pair in node.value if pair[0].tag == _MERGE]
        pairs = {key.value: (key, value) for key, value in node.value if key.tag != _MERGE}
        touched = [self._is_touched(value) for _, value in merges]
        # What a merge brings cannot be taken out of it, nor does it stay hidden once its key here has gone.
        spell_out = any(touched) or any(name not in new for name in old)
        gone = [pair for name, pair in pairs.items() if name not in new] + (merges if spell_out else [])
        left = [pair for pair in node.value if pair not in gone]
        missing = {
            name: value
            for name, value in new.items()
            if name not in pairs and (spell_out or name not in old or old[name] != value)
        }
        if not left and (missing or gone):
            return False
        if node.flow_style and not all(self._has_own_lines(key, value) for key, value in gone):
            return False
        for name, (key, value) in pairs.items():
            if name in new:
                self.edit_value(key, value, old[name], new[name])
        for key, value in gone:
            self._delete_lines(key.start_mark.index, _content_end(value))
        for name, value in missing.items():
            self._add_entry(node, left[-1], name, value)
        return True

    def _is_touched(self, node: Any) -> bool:
        """Whether an alias (or a list of them, of a merge) stands for what changes."""
        targets = node.value if isinstance(node, yaml.SequenceNode) else [node]
        aliased = [alias.target for alias in targets if isinstance(alias, _Alias)]
        self.anchored += aliased
        return any(id(target) in self.touched for target in aliased)

    def _replace(self, key: Any, node: Any, new: Any) -> None:
        start, end = node.start_mark.index, _content_end(node)
        if isinstance(node, yaml.ScalarNode):
            anchor = re.match(r"&\S+ *", self.text[start:end])
            blank = " " if start == end else ""
            self.edits.append((start, end, f"{blank}{anchor[0] if anchor else ''}{_flow_text(new, node.style)}"))
        elif node.flow_style or key is None:
            self.edits.append((start, end, _flow_text(new)))
        else:  # a block: its lines go, the value comes behind the key, before a comment there
            colon = self.text.index(":", key.end_mark.index) + 1
            self.edits.append((colon, colon, f" {_flow_text(new)}"))
            if self.text[:start].rpartition("\n")[2].strip() == "":
                start = max(self.text.rfind("\n", 0, start), colon)
            self.edits.append((start, end, ""))

    def _delete_lines(self, start: int, end: int) -> None:
        self.edits.append((self.text.rfind("\n", 0, start) + 1, min(self._line_end(end) + 1, len(self.text)), ""))

    def _add_entry(self, node: yaml.MappingNode, last: tuple[Any, Any], name: str, value: Any) -> None:
        """A key behind the ``last`` one, quoted and aligned as that is."""
        key, end = last[0], _content_end(last[1])
        if node.flow_style and not self._has_own_lines(*last):
            self.edits.append((end, end, f", {_flow_text(name, key.style)}: {_flow_text(value)}"))
            return
        place = self._line_end(end)
        indent = key.start_mark.column
        comma = ""
        if node.flow_style:
            comma = ","  # which may follow the last one, too
            if not self.text[end:place].lstrip().startswith(","):
                self.edits.append((end, end, ","))
        if not node.flow_style and not indent and isinstance(value, Mapping):
            self.edits.append((place, place, f"\n\n{section_text(name, value).rstrip()}"))
            return
        gap = re.match(r"\s*", self.text[key.end_mark.index :])
        width = key.end_mark.index - key.start_mark.index + len(gap[0]) if gap and gap[0] else 0
        entry = f"{_flow_text(name, key.style):<{width}}: {_flow_text(value)}{comma}"
        self.edits.append((place, place, f"\n{' ' * indent}{entry}"))

    def _has_own_lines(self, key: Any, value: Any) -> bool:
        """Whether nothing else but a comment stands on the lines of an entry within braces."""
        start, end = key.start_mark.index, _content_end(value)
        before = self.text[self.text.rfind("\n", 0, start) + 1 : start]
        return not before.strip() and bool(re.fullmatch(r"\s*,?\s*(#.*)?", self.text[end : self._line_end(end)]))

    def _line_end(self, place: int) -> int:
        line_end = self.text.find("\n", place)
        return len(self.text) if line_end < 0 else line_end
