"""Reads a YAML file into plain data while remembering where each field stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from .problem import ConfigError, Problem

Loc = tuple[str | int, ...]

_MERGE = "tag:yaml.org,2002:merge"
_NULL = "tag:yaml.org,2002:null"


@dataclass
class YamlSource:
    """A file that is valid YAML and has a mapping at its top."""

    file: Path
    data: dict[str, Any] = field(default_factory=dict)
    nodes: dict[Loc, Node] = field(default_factory=dict)
    """The YAML node of each field's value."""
    problems: list[Problem] = field(default_factory=list)
    """What YAML forbids and PyYAML lets pass: keys that stand twice, aliases inside what they name. And
    scalars that look like a date and are none."""

    def problem(self, loc: Loc, expected: str) -> Problem:
        """A problem at the field `loc`, or, for what is not in the file, at the nearest part around it."""
        known = loc
        while known not in self.nodes:
            known = known[:-1]
        if isinstance(self.nodes[known], ScalarNode):
            loc = known  # a short form of what would have that field: the scalar is what stands there
        value = _as_written(self.nodes[known]) if known == loc else "nothing"
        return _at(self.file, self.nodes[known], loc, value, expected)


def field_path(loc: Loc) -> str:
    """`("nodes", 1, "capacity")` as `nodes[1].capacity`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def read_yaml(file: Path) -> YamlSource:
    """Raises ConfigError for a file that cannot be read, is not YAML, is empty or is not a mapping."""
    text = _read_text(file)
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise ConfigError([Problem(file, None, None, "", "an empty file", "a YAML mapping")])
        if not isinstance(root, MappingNode):
            raise ConfigError(
                [_at(file, root, (), _as_written(root), "a YAML mapping (`field: value` lines)")]
            )
        source = YamlSource(file)
        source.data = _Reading(source, loader).value(root, (), ())
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_broken(file, text, error)]) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        found = f"the character U+{ord(text[error.position]):04X}"
        raise ConfigError([Problem(file, line, column, "", found, "printable characters")]) from error
    return source


@dataclass
class _Reading:
    """One pass over the YAML nodes that builds the data, the positions and the problems together.

    PyYAML's own construction is used for scalars only: it would let a repeated key pass, and would turn keys
    such as `on` into something else than what the file says.
    """

    source: YamlSource
    loader: yaml.SafeLoader

    def value(self, node: Node, loc: Loc, inside: tuple[Node, ...]) -> Any:
        if node in inside:
            self._complain(node, loc, "an alias inside what it names", "a value")
            return None
        self.source.nodes[loc] = node
        if isinstance(node, MappingNode):
            return self._mapping(node, loc, (*inside, node))
        if isinstance(node, SequenceNode):
            return [self.value(item, (*loc, i), (*inside, node)) for i, item in enumerate(node.value)]
        try:
            return self.loader.construct_object(node)
        except (ValueError, KeyError) as error:  # what looks like a date, and is none that the calendar has
            self._complain(node, loc, _as_written(node), f"a value that there is ({error})")
            return None

    def _mapping(self, node: MappingNode, loc: Loc, inside: tuple[Node, ...]) -> dict[str, Any]:
        data = self._merged(node, loc, inside)
        lines: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                continue
            name = key.value if isinstance(key, ScalarNode) else _as_written(key)
            if name in lines:
                self._complain(
                    key, (*loc, name), "it a second time", f"it once; line {lines[name]} has it already"
                )
                continue
            lines[name] = key.start_mark.line + 1
            data[name] = self.value(value, (*loc, name), inside)
        return data

    def _merged(self, node: MappingNode, loc: Loc, inside: tuple[Node, ...]) -> dict[str, Any]:
        """What `<<: *other` brings in; the mapping's own fields are laid over it afterwards."""
        data: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag != _MERGE:
                continue
            others = value.value if isinstance(value, SequenceNode) else [value]
            for other in reversed(others):  # the first of several wins
                if isinstance(other, MappingNode) and other not in inside:
                    data |= self._mapping(other, loc, (*inside, other))
                else:
                    self._complain(other, (*loc, "<<"), _as_written(other), "another mapping to merge")
        return data

    def _complain(self, node: Node, loc: Loc, value: str, expected: str) -> None:
        self.source.problems.append(_at(self.source.file, node, loc, value, expected))


def _read_text(file: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        found = f"no readable file ({error.strerror})"
        raise ConfigError([Problem(file, None, None, "", found, "a YAML file")]) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{content[error.start]:02x}"
        raise ConfigError([Problem(file, line, None, "", found, "UTF-8 text")]) from error


def _at(file: Path, node: Node, loc: Loc, value: str, expected: str) -> Problem:
    mark = node.start_mark
    return Problem(file, mark.line + 1, mark.column + 1, field_path(loc), value, expected)


def _as_written(node: Node) -> str:
    """The value in the words of the file, short enough for one line."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    if node.tag == _NULL:
        return "nothing"
    quoted = isinstance(node, ScalarNode) and node.style
    text = f'"{node.value}"' if quoted else str(node.value)
    text = text.replace("\n", "\\n")
    return text if len(text) <= 60 else text[:57] + "..."


def _broken(file: Path, text: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    expected = f"valid YAML ({error.problem})"
    if mark is None:
        return Problem(file, None, None, "", "broken YAML", expected)
    lines = text.splitlines()
    found = f"`{lines[mark.line].strip()}`" if mark.line < len(lines) else "the end of the file"
    return Problem(file, mark.line + 1, mark.column + 1, "", found, expected)
