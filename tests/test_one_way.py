"""Things that are done in one place only, or in several for the reasons given here; a new place needs a reason."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.import_graph import ROOT

PUT_IN_PLACE = {
    "pipeline/tracking/registry.py": "hard links in place of the copies in MLflow's store",
    "pipeline/safety/second_names.py": "writes nothing: gives a file that is there another name",
    "pipeline/store.py": "the way that files of this package appear: written under another name, flushed, renamed",
    "w2v_core/vectors/files.py": "the same for the core, which knows nothing of `pipeline` and its errors and failpoints",
    "pipeline/exchange/shared_memory.py": "a folder in memory that is locked before anyone can find it",
    "pipeline/formats/placing.py": "several exports put beside a person's files, each written by its format's own writer",
    "pipeline/storage/copies.py": "what is fetched from a bucket, in rooms below the store's",
    "pipeline/storage/lease.py": "a note of a process to its own threads, in rooms below the store's; useless after a crash",
    "pipeline/history/latest.py": "a link, not a file",
    "pipeline/history/snapshot.py": "a folder of links and files that appears as a whole",
    "pipeline/tracking/empty_database.py": "a database that MLflow writes",
    "pipeline/tracking/textfile.py": "replaced every two seconds: watching neither waits for a disk nor stops a run",
}
"""Files of the program that rename something into place, and why they do not leave that to `store.write_file`."""

SPLITMIX64 = {
    "w2v_core/sampler.py": "the definition, for one counter and for arrays",
    "w2v_core/kernels/cpu/random_numbers.py": "takes the constants from the definition, compiled",
    "w2v_core/kernels/cuda/device.cu": "CUDA C++ imports nothing; test_cuda_source compares the constants and the draws",
    "w2v_core/text/hashing.py": "no draw: the golden ratio in the hash of a long word",
}
"""The files that contain or use the constants of SplitMix64."""


def program() -> list[Path]:
    folders = (ROOT / "pipeline", ROOT / "w2v_core")
    return sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".cu"))


def renames(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if (owner == "os" and node.func.attr in ("replace", "rename", "link")) or (
                node.func.attr == "rename" and not node.keywords
            ):
                return True
            if owner == "shutil" and node.func.attr == "move":
                return True
    return False


def test_files_appear_complete_or_not_at_all_in_one_way() -> None:
    found = {str(path.relative_to(ROOT)) for path in program() if path.suffix == ".py" and renames(path)}
    assert found == set(PUT_IN_PLACE)


def test_workers_are_listed_in_one_way_because_distributeds_own_sometimes_lists_none() -> None:
    calls = re.compile(r"\.scheduler_info\(")
    assert [str(path.relative_to(ROOT)) for path in program() if path.suffix == ".py" and calls.search(path.read_text())] == []


def test_random_numbers_have_one_formula_per_language() -> None:
    constants = re.compile(r"9E3779B97F4A7C15|BF58476D1CE4E5B9|94D049BB133111EB|\bMIX_[12]\b", re.IGNORECASE)
    assert {str(path.relative_to(ROOT)) for path in program() if constants.search(path.read_text())} == set(SPLITMIX64)


def test_the_noise_distribution_and_printable_text_are_defined_once() -> None:
    definitions: dict[str, list[str]] = {"noise_distribution": [], "printable": [], "printable_lines": []}
    for path in program():
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef) and node.name in definitions:
                    definitions[node.name].append(str(path.relative_to(ROOT)))
    assert definitions == {
        "noise_distribution": ["w2v_core/sampler.py"],
        "printable": ["w2v_core/text/printable.py"],
        "printable_lines": ["w2v_core/text/printable.py"],
    }


SHARED_NAMES = {
    "Array": "an array of any kind, where the shape letters say the rest",
    "Floats": "the same, of floats",
    "Ids": "the same, of word ids",
}
"""Names of types that several files define because they mean the same everywhere."""


def names_of_types(path: Path) -> set[str]:
    """Public classes and type aliases that a file defines at its top level, without type variables."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value and "TypeVar(" not in ast.unparse(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name) and not target.id.isupper()}
    return {name for name in found if name[0].isupper()}


def test_a_name_of_a_type_means_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for path in program():
        if path.suffix == ".py":
            for name in names_of_types(path):
                homes.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in homes.items() if len(files) > 1 and name not in SHARED_NAMES} == {}
