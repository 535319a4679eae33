"""Which module of this project imports which, read from the source, for the tests of the architecture."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


def modules(*packages: str) -> dict[str, Path]:
    """The files of the packages by module name."""
    found = {}
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def import_statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))]


def imported_names(path: Path, known: Mapping[str, Path]) -> set[tuple[str, str]]:
    """(module, imported name) for every import of the project's own modules anywhere in the file; the name is empty if the
    module itself is imported."""
    found = set()
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add((whole, "") if whole in known else (node.module, alias.name))
    return {(module, name) for module, name in found if module in known}


def room_of(module: str) -> str:
    """`pipeline.text` for pipeline.text.corpus, `pipeline.run` for pipeline.run: a file at the top level is a room by itself."""
    return ".".join(module.split(".")[:2])


def graph_of_modules(known: Mapping[str, Path]) -> dict[str, set[str]]:
    return {module: {found for found, _ in imported_names(path, known)} - {module} for module, path in known.items()}


def graph_of_rooms(known: Mapping[str, Path]) -> dict[str, set[str]]:
    rooms: dict[str, set[str]] = {}
    for module, imported in graph_of_modules(known).items():
        rooms.setdefault(room_of(module), set()).update(map(room_of, imported))
    return {room: imported - {room} for room, imported in rooms.items()}


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """One cycle, as a path, for each node that a depth-first search meets again."""
    found, done, path = [], set(), []

    def visit(node: str) -> None:
        if node in path:
            found.append([*path[path.index(node) :], node])
        elif node not in done:
            path.append(node)
            for following in sorted(graph.get(node, ())):
                visit(following)
            done.add(path.pop())

    for node in sorted(graph):
        visit(node)
    return found
