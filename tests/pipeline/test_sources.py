"""The digest of the program covers every file that belongs to it, so that workers with a different program are recognised."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.cluster.sources import source_digest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "w2v_core")


@pytest.fixture
def copy(tmp_path: Path) -> dict[str, str]:
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "_configs")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    return {package: str(tmp_path / package) for package in PACKAGES}


def files_of_the_program() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a checkout: git does not list the program's files")
    # An empty file has a meaning by its name.
    return [name for name in listed.stdout.split() if (ROOT / name).is_file() and (ROOT / name).stat().st_size]


def test_a_copy_has_the_digest_of_the_program_and_compiled_files_do_not_matter(copy: dict[str, str]) -> None:
    digest = source_digest()
    assert digest() == digest(copy)
    made = Path(copy["pipeline"]) / "__pycache__"
    made.mkdir()
    (made / "cli.cpython-311.pyc").write_bytes(b"compiled")
    (made / "kernel.nbi").write_bytes(b"compiled")
    assert digest() == digest(copy)


def test_every_file_of_the_program_changes_the_digest(copy: dict[str, str]) -> None:
    digest, names = source_digest(), files_of_the_program()
    before = digest(copy)
    # One of every kind: hashing all copies of all files would take a minute.
    for name in {Path(name).suffix: name for name in names}.values():
        package, _, inside = name.partition("/")
        path = Path(copy[package]) / inside
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        assert digest(copy) != before, f"{name} is not in the digest"
        path.write_bytes(content)
    assert {Path(name).suffix for name in names} >= {".py", ".cu", ".css", ".j2"}
    assert digest(copy) == before


def test_a_file_under_another_name_is_another_program(copy: dict[str, str]) -> None:
    digest = source_digest()
    folder = Path(copy["w2v_core"]) / "kernels" / "cuda"
    (folder / "merge.cu").rename(folder / "merged.cu")
    assert digest(copy) != digest()
