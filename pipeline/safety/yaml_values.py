"""YAML as plain values, by the rules of YAML 1.2 and within bounds.

PyYAML reads YAML 1.1, where `2e-2` is text, `1:30` is 90, `017` is 15, `no` is false and 2026-02-30 is an error. In the core
schema of 1.2 numbers are numbers, `true` and `false` are the only booleans, and everything else is text. A number with a leading
0 is ambiguous, so it stays text here, which a numeric key refuses.

Bounds keep aliases from expanding a few hundred bytes to gigabytes, and nested brackets from overflowing the stack.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

MAX_BYTES = 512 << 10
MAX_DEPTH = 64
MAX_NODES = 100_000
"""In a document with its aliases expanded."""
MAX_DIGITS = 40
"""Numbers with more digits stay text: no key accepts them."""

_TAG = "tag:yaml.org,2002:"
INTEGER = re.compile(rf"[-+]?(?:0|[1-9][0-9_]{{0,{MAX_DIGITS}}}|0o[0-7]{{1,{MAX_DIGITS}}}|0x[0-9a-fA-F]{{1,{MAX_DIGITS}}})")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,40}|(?:0|[1-9][0-9_]{0,40})(?:\.[0-9]{0,40})?)(?:[eE][-+]?[0-9]{1,6})?")
_RESOLVERS = {
    "null": (re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    "int": (re.compile(rf"(?:{INTEGER.pattern})\Z"), list("-+0123456789")),
    "float": (re.compile(rf"(?:{FLOAT.pattern}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"), list("-+.0123456789")),
}


class BadYamlError(Exception):
    """Invalid YAML; the message says where and why, but does not name the file."""


def parse_yaml(text: str) -> Any:
    """The value of a YAML document (null for an empty one); raises BadYamlError."""
    if len(text) > MAX_BYTES:
        raise BadYamlError(f"larger than the limit of {MAX_BYTES:,} characters for a configuration")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Measure().of(node, 0)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise BadYamlError(_in_words(error)) from None
    except RecursionError:
        raise BadYamlError(f"nested more than {MAX_DEPTH} deep") from None


def _in_words(error: yaml.YAMLError) -> str:
    """Where the error is and what it is, without PyYAML's placeholder for the file name."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return f"not valid YAML: {' '.join(str(error).split())[:300]}"
    story = " ".join(f"{getattr(error, 'context', None) or ''} {problem}".split())
    return f"not valid YAML: line {mark.line + 1}, column {mark.column + 1}: {story[:300]}"


def number(text: str) -> int | float | None:
    """The number that a text spells by the rules of YAML 1.2, None if it spells none or has a leading 0."""
    if INTEGER.fullmatch(text):
        return _integer(text)
    return float(text.replace("_", "")) if FLOAT.fullmatch(text) else None


def _integer(text: str) -> int:
    sign, digits = (-1 if text.startswith("-") else 1), text.lstrip("-+").replace("_", "")
    return sign * int(digits, {"0o": 8, "0x": 16}.get(digits[:2], 10))


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2, unique text keys, and no other tags."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[Any, Any]] = {}
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadYamlError(f"line {self.line + 1}: nested more than {MAX_DEPTH} deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Measure:
    """The size and depth of a document with its aliases expanded; aliased nodes are measured only once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int] | None] = {}

    def of(self, node: yaml.Node, depth: int) -> tuple[int, int]:
        """(nodes, height) of the tree at a node; raises BadYamlError beyond the bounds."""
        if id(node) not in self._known:
            self._known[id(node)] = None  # in progress: meeting it again means an alias that contains itself
            inner = [self.of(child, depth + 1) for child in _children(node)]
            self._known[id(node)] = 1 + sum(size for size, _ in inner), 1 + max((height for _, height in inner), default=0)
        found = self._known[id(node)]
        where = f"line {node.start_mark.line + 1}: "
        if found is None:
            raise BadYamlError(f"{where}an alias that contains itself")
        if found[0] > MAX_NODES:
            raise BadYamlError(f"{where}more than {MAX_NODES:,} values with its aliases expanded")
        if depth + found[1] > MAX_DEPTH:
            raise BadYamlError(f"{where}nested more than {MAX_DEPTH} deep")
        return found


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _scalar(loader: _Loader, node: yaml.Node) -> Any:
    """A null, boolean, integer or float, whether recognised or claimed by a tag such as `!!int`."""
    kind = node.tag.removeprefix(_TAG)
    text = node.value if isinstance(node, yaml.ScalarNode) else None
    if text is None or not _RESOLVERS[kind][0].fullmatch(text):
        raise BadYamlError(f"line {node.start_mark.line + 1}: expected a value that is !!{kind}")
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    return _integer(text) if kind == "int" else float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))


def _mapping(loader: _Loader, node: yaml.Node) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise BadYamlError(f"line {node.start_mark.line + 1}: expected keys with values")
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        where = f"line {key_node.start_mark.line + 1}: "
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if key is None or not isinstance(loader.construct_object(key_node), str):
            raise BadYamlError(f"{where}a key must be text, such as `train:`; quote it if it is intended")
        if key in found:
            raise BadYamlError(f"{where}key {key[:60]!r} is given twice; remove one of them")
        found[key] = loader.construct_object(value_node, deep=True)
    return found


def _sequence(loader: _Loader, node: yaml.Node) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise BadYamlError(f"line {node.start_mark.line + 1}: expected a list")
    return [loader.construct_object(child, deep=True) for child in node.value]


for _kind, (_pattern, _first) in _RESOLVERS.items():
    _Loader.add_implicit_resolver(_TAG + _kind, _pattern, _first)
    _Loader.add_constructor(_TAG + _kind, _scalar)
_Loader.add_constructor(_TAG + "str", _Loader.construct_scalar)  # type: ignore[type-var]
_Loader.add_constructor(_TAG + "map", _mapping)
_Loader.add_constructor(_TAG + "seq", _sequence)
_Loader.add_constructor(None, _Loader.construct_undefined)  # type: ignore[type-var]
