"""Numba's cache of the kernels: it is kept between processes, and never older than any source it was made from."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import w2v_core
from tests.core.kernel_cases import random_case, train
from w2v_core.kernels.cpu import copies_kernels, numba_kernels

MERGE = """
import numpy as np
from w2v_core.kernels.cpu import merge_kernels
base = np.zeros((1, 8), np.float32)
lanes = [np.full((1, 8), 2, np.float32), np.full((1, 8), 4, np.float32), np.full((1, 8), 6, np.float32)]
merge_kernels.merge_rows(base, lanes, "mean")
print(float(base[0, 0]), sum(merge_kernels._merge.stats.cache_hits.values()))
"""


def _merge_in_a_new_process(package_parent: Path) -> tuple[float, int]:
    """(the mean of 2, 4, 6 as the package there computes it, whether machine code came from the cache)."""
    environment = os.environ | {"PYTHONPATH": str(package_parent), "NUMBA_CACHE_DIR": str(package_parent / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", MERGE], cwd=package_parent, env=environment, capture_output=True, text=True, check=True
    )
    value, hits = done.stdout.split()
    return float(value), int(hits)


@pytest.mark.turns(5, 5, of="machine code")
def test_machine_code_is_kept_and_recompiled_when_a_file_it_was_built_from_changes(tmp_path: Path) -> None:
    copied = tmp_path / "w2v_core"
    shutil.copytree(Path(w2v_core.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    assert _merge_in_a_new_process(tmp_path) == (4.0, 0)
    assert _merge_in_a_new_process(tmp_path) == (4.0, 1)
    # `add_rows` lies in another file than the function whose machine code is kept.
    operations = copied / "kernels" / "cpu" / "change_operations.py"
    source = operations.read_text()
    changed = source.replace("e.builder.fadd(e.load(a, columns.index), e.load(b, columns.index))", "e.load(a, columns.index)")
    assert changed != source
    operations.write_text(changed)
    value, hits = _merge_in_a_new_process(tmp_path)
    assert (round(value, 3), hits) == (round(2 / 3, 3), 0)


@pytest.mark.turns(5, 3, of="machine code")
def test_code_that_was_kept_is_loaded_without_what_only_compiling_needs(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    code = MERGE + "import sys\nprint('numba.cpython.unicode' in sys.modules)\n"
    told = [subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).split() for _ in range(2)]
    assert told == [["4.0", "0", "True"], ["4.0", "1", "False"]]


APART = """
from numba import njit
from w2v_core.kernels.cpu.machine_code import compiled, compiled_apart

@njit
def halves(n):
    total = 0.0
    for i in range(n):
        total += i * 0.5
    return total

@compiled
def inlined(n):
    return halves(n)

@compiled_apart
def apart(n):
    return halves(n)
"""


@pytest.mark.turns(5, 3, of="machine code")
def test_a_function_that_none_calls_is_kept_without_llvm_code_and_computes_the_same(tmp_path: Path) -> None:
    (tmp_path / "halved.py").write_text(APART)
    code = "import halved\nfor f in (halved.inlined, halved.apart): print(f(5), sum(f.stats.cache_hits.values()))"
    path = os.pathsep.join([str(tmp_path), str(Path(w2v_core.__file__).parents[1])])
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": path}
    told = [subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).split() for _ in range(2)]
    assert told == [["5.0", "0", "5.0", "0"], ["5.0", "1", "5.0", "1"]]
    inlined, apart = (next((tmp_path / "cache").rglob(f"halved.{name}-*.nbc")).read_bytes() for name in ("inlined", "apart"))
    assert len(apart) < 0.8 * len(inlined)


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
def test_writeable_and_read_only_streams_share_one_compiled_kernel(model: str) -> None:
    case = random_case(1, model=model)
    of_writable = train(numba_kernels, case)
    targets, noise = case.targets, case.noise
    for array in (targets.tokens_N, targets.left_N, targets.right_N, noise.table_T, noise.rates_V):
        array.flags.writeable = False
    of_read_only = train(numba_kernels, case)
    for matrix in (0, 1):
        np.testing.assert_array_equal(of_writable[matrix], of_read_only[matrix])
    kernel = copies_kernels.run_thread if model == "cbow" else numba_kernels.train_skipgram
    assert len(kernel.signatures) == 1


def cached_alone(function: ast.FunctionDef) -> bool:
    """Whether Numba keeps the function's machine code and looks at its own file only."""
    return any(
        isinstance(found, ast.Call) and any(key.arg == "cache" for key in found.keywords) for found in function.decorator_list
    )


@pytest.mark.parametrize("path", sorted(Path(w2v_core.__file__).parent.rglob("*.py")), ids=lambda path: path.stem)
def test_functions_that_use_numbas_own_cache_depend_on_one_file(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("w2v_core")]
    foreign = {alias.asname or alias.name for node in imports for alias in node.names}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and cached_alone(node)]
    used = {function.name: foreign & {n for statement in function.body for n in names_in(statement)} for function in functions}
    assert {name: names for name, names in used.items() if names} == {}, "use machine_code.compiled"


# ── arrays live as long as their addresses are used ──────────────────────────────────────────────────────────────────

ALLOCATIONS = {"empty", "zeros", "ones", "copy", "scratch_of"}
KERNELS = sorted((Path(w2v_core.__file__).parent / "kernels" / "cpu").glob("*.py"))


def called(node: ast.AST) -> str:
    function = node.func if isinstance(node, ast.Call) else None
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def names_in(node: ast.AST) -> set[str]:
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}


def addressed_in(node: ast.AST) -> set[str]:
    """Arrays whose addresses are taken: `address_of(array)` and `array.ctypes`."""
    calls = [found for found in ast.walk(node) if isinstance(found, ast.Call) and called(found) in ("address_of", "_address")]
    members = [found for found in ast.walk(node) if isinstance(found, ast.Attribute) and found.attr == "ctypes"]
    return {name for call in calls for name in names_in(call.args[0])} | {name for found in members for name in names_in(found)}


def let_go_early(function: ast.FunctionDef) -> set[str]:
    """Arrays that the function creates, whose addresses it keeps, and which it does not mention after the last use of these.

    Numba frees an array after the last statement that mentions it, and an integer address does not. Inside a loop, the next
    iteration mentions the array again.
    """
    made = {
        target.id
        for node in ast.walk(function) if isinstance(node, ast.Assign) and called(node.value) in ALLOCATIONS
        for target in node.targets if isinstance(target, ast.Name)
    }  # fmt: skip
    kept = {
        name for statement in function.body if not isinstance(statement, (ast.For, ast.While)) for name in addressed_in(statement)
    }
    named = names_in(function.body[-1])
    views = [node for node in ast.walk(function) if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript)]
    # A view keeps the array that it shows.
    named |= {name for view in views if names_in(view.targets[0]) & named for name in names_in(view.value.value)}
    return (made & kept) - named


def is_compiled(function: ast.FunctionDef) -> bool:
    return any("compiled" in names_in(found) or "njit" in names_in(found) for found in function.decorator_list)


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_compiled_code_names_every_array_after_the_last_use_of_its_address(path: Path) -> None:
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    assert {found.name: let_go_early(found) for found in functions if is_compiled(found) and let_go_early(found)} == {}


def test_the_check_for_arrays_freed_too_early_finds_one() -> None:
    text = "def f():\n    a = np.empty(3)\n    at = address_of(a)\n    use(at)\n    return 1"
    (function,) = ast.parse(text).body
    assert isinstance(function, ast.FunctionDef)
    assert let_go_early(function) == {"a"}
    (function,) = ast.parse(text.replace("return 1", "return a[0]")).body
    assert isinstance(function, ast.FunctionDef)
    assert let_go_early(function) == set()


def test_the_first_call_of_a_kernel_gives_numba_no_new_types_that_another_thread_could_be_looking_through() -> None:
    before = "import w2v_core.kernels.cpu.machine_code\nfrom numba.core.typing.typeof import typeof_impl\n"
    before += "known = set(typeof_impl.registry)\n"
    after = "assert set(typeof_impl.registry) == known, set(typeof_impl.registry) - known\n"
    done = subprocess.run([sys.executable, "-c", before + MERGE + after], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
