"""Shape letters: every letter at the end of a name is in the legend, and every letter of the legend is used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import w2v_core

PACKAGE = Path(w2v_core.__file__).parent
LEGEND = (w2v_core.__doc__ or "").partition("contract.py")[0]
LETTERS = set(re.findall(r"(?:^|  )([A-Z]) (?=[a-z])", LEGEND, re.MULTILINE))


def names_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_every_shape_letter_is_in_the_legend_and_every_letter_of_the_legend_is_used() -> None:
    used: dict[str, set[str]] = {}
    for package in (PACKAGE, PACKAGE.parent / "pipeline"):
        for path in package.rglob("*.py"):
            for name in names_in(path):
                if found := re.fullmatch(r"_?[a-z][a-z0-9_]*_([A-Z]{1,3})", name):
                    for letter in found[1]:
                        used.setdefault(letter, set()).add(f"{path.relative_to(PACKAGE.parent)}: {name}")
    assert {letter: names for letter, names in used.items() if letter not in LETTERS} == {}
    assert used.keys() == LETTERS
