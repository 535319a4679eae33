"""The rules that a machine can check: which room imports which, what importing costs, how long a file may be, and that the map in
`pipeline/__init__.py` shows every room."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from tests.import_graph import ROOT, circles, graph_of_modules, graph_of_rooms, imported_names, modules

CORE = sorted((ROOT / "w2v_core").rglob("*.py"))
PIPELINE = sorted((ROOT / "pipeline").rglob("*.py"))
COMPILED = {"numba", "llvmlite", "cupy"}
KNOWN = modules("pipeline", "w2v_core")

FLOORS = (
    ("errors", "failpoints", "progress"),
    ("safety",),
    ("options",),
    ("storage",),
    ("sections",),
    ("config",),
    ("store",),
    ("exchange", "formats", "history", "report", "serving"),
    ("text", "cluster"),
    ("stream",),
    ("training",),
    ("stages", "tracking"),
    ("summary", "session"),
    ("run",),
    ("sweep", "planning"),
    ("refresh",),
    ("compare",),
    ("workdir",),
    ("commands",),
    ("cli", "library"),
)
"""The rooms of pipeline/, ground floor first: a room imports only from floors below its own. Add a new room here."""

PURE = re.findall(r"(\w+) \((?:[^()]*, )?pure\)", pipeline.__doc__ or "")
"""The modules that the map calls pure: decisions as plain functions of plain data."""

MAXIMUM_LINES = 400

PROTOCOLS = {
    "_exit": "of os: the way to die without a goodbye",
    "_asdict": "of named tuples",
    "_replace": "of named tuples",
    "_repr_html_": "what notebooks call",
}
"""Names with an underscore that are not private, and where they come from."""


def imports(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def module_level_imports(path: Path) -> set[str]:
    """The packages that are imported together with the file; imports inside functions and under TYPE_CHECKING do not count."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_knows_arrays_and_nothing_of_files_clusters_or_tracking(path: Path) -> None:
    outside = {"pipeline", "dask", "distributed", "pyarrow", "mlflow", "pydantic", "yaml", "click"}
    # One file reads Parquet, which the standard library cannot, and imports pyarrow only when it does (infra/decisions/0016).
    lazily = {"pyarrow"} if path == ROOT / "w2v_core" / "vectors" / "parquet.py" else set()
    assert not imports(path) & outside - lazily
    assert not module_level_imports(path) & outside
    if not {"kernels", "text"} & {folder.name for folder in path.parents}:
        assert not module_level_imports(path) & COMPILED


@pytest.mark.parametrize("path", PIPELINE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_driver_never_imports_mlflow_and_heavy_packages_only_inside_functions(path: Path) -> None:
    if path.stem not in ("delivery", "door", "empty_database", "shipper", "registry", "served_model"):
        assert "mlflow" not in imports(path)
    # Two files are about what they import: the model that MLflow loads, and the links between Dask's workers.
    if path.stem not in ("served_model", "network"):
        assert not module_level_imports(path) & {"mlflow", "dask", "distributed", "cupy"}


def test_no_rooms_and_no_files_import_each_other_in_a_circle() -> None:
    assert circles(graph_of_rooms(KNOWN)) == []
    assert circles(graph_of_modules(KNOWN)) == []


def test_every_room_imports_only_from_floors_below_its_own() -> None:
    floor = {f"pipeline.{room}": number for number, rooms in enumerate(FLOORS) for room in rooms}
    graph = graph_of_rooms(modules("pipeline"))
    # The package itself may import any room, but does so only on first use.
    graph.pop("pipeline", None)
    assert sorted(graph) == sorted(floor), "every room has its floor"
    upwards = [(room, other) for room, imported in graph.items() for other in imported if floor.get(other, 0) >= floor[room]]
    assert upwards == []


def test_the_map_shows_every_room_and_every_file() -> None:
    told, room = {}, ""
    for line in (pipeline.__doc__ or "").splitlines():
        if found := re.match(r"    (\w+)/ ", line):
            room = found[1]
        if room:
            told[room] = told.get(room, "") + line + "\n"
    missing = []
    for path in PIPELINE:
        folder, stem = path.parent.relative_to(ROOT / "pipeline").parts[:1], path.stem
        text = told.get(folder[0], "") if folder else pipeline.__doc__ or ""
        if stem != "__init__" and not re.search(rf"\b{stem}\b", text):
            missing.append(str(path.relative_to(ROOT)))
    assert missing == []


def test_pipeline_lists_at_most_twelve_files_and_its_rooms() -> None:
    assert len(list((ROOT / "pipeline").glob("*.py"))) <= 12


def test_modules_that_the_map_calls_pure_do_no_input_or_output() -> None:
    assert {"plan", "placement", "capacity"} <= set(PURE)
    outside = {"os", "io", "sys", "time", "datetime", "socket", "shutil", "pathlib", "tempfile", "subprocess", "threading",
               "random", "psutil", "dask", "distributed", "pyarrow", "mlflow", "numpy"}  # fmt: skip
    for module, path in KNOWN.items():
        if module.rpartition(".")[2] not in PURE:
            continue
        assert not imports(path) & outside, module
        # From rooms that do input and output, a pure module takes only records, errors and constants.
        taken = {name for origin, name in imported_names(path, KNOWN) if origin.rpartition(".")[2] not in {*PURE, "errors"}}
        assert all(re.fullmatch(r"[A-Z]\w*", name) for name in taken), (module, taken)
        called = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not called & {"open", "print", "input"}, module


def test_everything_that_commands_print_goes_through_the_one_function_that_makes_it_harmless() -> None:
    for path in (ROOT / "pipeline" / "commands").glob("*.py"):
        printing = re.findall(r"click\.(?:echo|secho)\(|\bprint\(", path.read_text())
        assert printing == (["click.echo("] if path.stem == "arguments" else []), f"{path.name}: use arguments.say"


def test_importing_the_core_imports_nothing_but_numpy() -> None:
    code = "import sys, w2v_core, w2v_core.vectors, w2v_core.vectors.evaluation, w2v_core.textbook.layers; print(*sys.modules)"
    loaded = {name.split(".")[0] for name in subprocess.check_output([sys.executable, "-c", code], text=True).split()}
    assert not loaded & {"dask", "distributed", "pyarrow", "mlflow", "numba", "cupy", "pandas", "scipy"}


@pytest.mark.parametrize("path", [*CORE, *PIPELINE], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_story(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAXIMUM_LINES
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}
    assert ast.get_docstring(ast.parse(path.read_text())), "a file begins with what it gives and why it is this way"


def private_names(source: str) -> set[str]:
    """Names with an underscore that a file uses of others: attributes, imports, and strings given to setattr and the like."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and "attr" in ast.unparse(node.func).rpartition(".")[2]:
            texts = (part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str))
            found |= {text.rpartition(".")[2] for text in texts}
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def test_tests_and_benchmarks_use_what_is_public() -> None:
    paths = [path for folder in ("tests", "infra", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]
    found = {str(path.relative_to(ROOT)): private_names(path.read_text()) - PROTOCOLS.keys() for path in paths}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "source", ["x._held", "f()._held = 1", "from pipeline.store import _held", 'monkeypatch.setattr(store, "_held", 1)',
               'getattr(x, "_held")', 'monkeypatch.delattr("pipeline.store._held")'],
)  # fmt: skip
def test_the_check_for_private_names_finds_them(source: str) -> None:
    assert private_names(source) == {"_held"}
    assert private_names("self._held; x.held; from a import held; setattr(x, 'held', 1); x.__dict__") == set()


def test_the_two_paths_of_the_architecture_exist_and_pass_every_room_once() -> None:
    paths = (ROOT / "infra" / "architecture.md").read_text().split("\n## ")[1:]
    assert len(paths) == 2
    for path in paths:
        files = re.findall(r"^\|[ \d]*\| `([\w/.]+)`", path, flags=re.MULTILINE)
        assert len(files) > 8
        assert [file for file in files if not (ROOT / file).is_file()] == []
        rooms = [tuple(Path(file).parts[:2]) for file in files]
        entered = [room for number, room in enumerate(rooms) if number == 0 or rooms[number - 1] != room]
        assert len(entered) == len(set(entered)), "a room is passed once"
