"""All that outlives a task has one owner, `WorkerState`. Nothing else in the package is kept in a variable of a module."""

from __future__ import annotations

import ast
import mmap
from pathlib import Path

import pyarrow as pa
import pytest

import pipeline
from pipeline.cluster.room import resident_bytes
from pipeline.cluster.state import WithState, WorkerState, run_task, state_of
from pipeline.cluster.workers import InProcess

PACKAGE = Path(pipeline.__file__).parent
HARMLESS = {"TypeVar", "getLogger", "compile", "frozenset", "tuple", "namedtuple", "Path", "dtype", "float", "int", "str"}
"""Calls whose results cannot change."""
WRITES = {"append", "add", "update", "extend", "insert", "pop", "popitem", "clear", "setdefault", "remove", "discard"}
CACHES = {"cache", "lru_cache"}
ALLOWED = {
    "cluster/messages.py: _channel": "who listens to the task of this thread: set around the task and set back after it",
    "formats/word2vec.py: _float16_texts": "a constant table, computed when it is first needed",
    "report/page.py: _environment": "the templates of this package, compiled when the first page is made",
    "report/page.py: _own_file": "files of this package, which do not change while it runs",
    "storage/copies.py: copy_at": "which place a folder is a copy of, which does not change while it is one",
    "storage/filesystems.py: _connected": "connections of a file system: to open them takes longer than a request",
    "text/tokenizers.py: _load": "the tokenizer of a configuration: loading one takes seconds",
    "text/characters.py: character_classes": "a constant table, computed when it is first needed",
    "training/policy.py: by_number": "a pure function of numbers, asked for at every step",
}
"""Exceptions that last as long as the process, and why they are not state: only results of pure functions are remembered."""


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def written_to(tree: ast.AST) -> set[str]:
    """Names whose content is changed somewhere: by assignment to an item, or by a method that modifies it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            found.add(name_of(node.value))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITES:
            found.add(name_of(node.func.value))
    return found


def kept_by(path: Path) -> set[str]:
    """Names of what a module keeps: top-level variables that can change, names that functions declare global, and caches. An
    upper-case name is a constant unless the module writes to it."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        value = node.value
        mutable = isinstance(value, (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp))
        mutable |= isinstance(value, ast.Call) and name_of(value.func) not in HARMLESS
        mutable |= isinstance(value, ast.Constant) and value.value is None
        names = {name_of(target) for target in (node.targets if isinstance(node, ast.Assign) else [node.target])}
        written = written_to(tree)
        found |= {name for name in names if mutable and not is_special(name) and (not name.isupper() or name in written)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            found |= set(node.names)
        if isinstance(node, ast.FunctionDef):
            decorators = {name_of(item.func if isinstance(item, ast.Call) else item) for item in node.decorator_list}
            found |= {node.name} if decorators & CACHES else set()
    return found


def test_no_module_keeps_state_of_its_own() -> None:
    found = {f"{path.relative_to(PACKAGE)}: {name}" for path in sorted(PACKAGE.rglob("*.py")) for name in kept_by(path)}
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "source",
    ["_held: int | None = None", "_drawn = {}", "kept: dict[int, int] = dict()", "import threading\n_own = threading.local()",
     "class Own: ...\n_own = Own()", "KNOWN = {}\ndef f():\n    KNOWN[1] = 2", "KNOWN = []\ndef f():\n    KNOWN.append(1)",
     "def f():\n    global x\n    x = 1", "from functools import lru_cache\n@lru_cache(maxsize=2)\ndef f(): ..."],
)  # fmt: skip
def test_the_check_for_state_finds_it(source: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(source)
    assert kept_by(tmp_path / "module.py")


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    def release(self) -> None:
        self.calls = 0


def count(step: int, state: WorkerState) -> int:
    state.of(Counted).calls += step
    return state.of(Counted).calls


def double(number: int) -> int:
    return 2 * number


def test_a_task_is_given_its_workers_state_if_it_asks_for_it() -> None:
    workers = InProcess()
    assert workers.map(WithState(count), [1, 2, 3], label="count") == [1, 3, 6]
    assert workers.together(WithState(count), [4], workers.members()) == [10]
    assert workers.map(double, [1, 2], label="double") == [2, 4]
    assert InProcess().map(WithState(count), [1], label="count") == [1], "another worker knows nothing of it"


def test_a_worker_has_one_state_as_long_as_it_lives() -> None:
    class Worker:
        pass

    one, other = Worker(), Worker()
    assert run_task(WithState(count), 2, state_of(one)) == 2  # type: ignore[arg-type]
    assert run_task(WithState(count), 2, state_of(one)) == 4  # type: ignore[arg-type]
    assert run_task(WithState(count), 2, state_of(other)) == 2  # type: ignore[arg-type]


class Small:
    pass


def test_release_frees_what_can_be_released_and_keeps_the_rest() -> None:
    state = WorkerState()
    small, counted = state.of(Small), state.of(Counted)
    counted.calls = 7
    state.release()
    assert state.of(Counted) is counted
    assert counted.calls == 0
    assert state.of(Small) is small


@pytest.mark.skipif(
    pa.default_memory_pool().backend_name == "system", reason="this Arrow keeps nothing: it has no pool of its own"
)
def test_release_gives_back_what_arrow_no_longer_uses() -> None:
    buffers = [pa.allocate_buffer(1 << 20) for _ in range(100)]
    for buffer in buffers:
        memoryview(buffer).cast("B")[:: mmap.PAGESIZE] = bytes((1 << 20) // mmap.PAGESIZE)
    in_use = resident_bytes()
    del buffer, buffers
    WorkerState().release()
    assert resident_bytes() < in_use - (50 << 20)
