"""What is in the repository: its folders and files at the top, and nothing that a trial left behind."""

from __future__ import annotations

import subprocess
from pathlib import PurePosixPath

import pytest

from tests.import_graph import ROOT

TOP = {
    ".ci", ".dockerignore", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md",
    "configs", "examples", "infra", "pipeline", "pyproject.toml", "requirements.lock", "tests", "w2v_core",
}  # fmt: skip
LARGEST_BYTES = 400_000
"""The locks are the largest files, with all hashes for all platforms."""


@pytest.fixture(scope="module")
def names() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout: git does not list the repository's files")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_nothing_stands_at_the_top_but_what_the_house_has(names: list[str]) -> None:
    assert {PurePosixPath(name).parts[0] for name in names} <= TOP


def test_every_file_is_text_that_a_person_can_read(names: list[str]) -> None:
    contents = {name: (ROOT / name).read_bytes() for name in names}
    assert [name for name, content in contents.items() if b"\0" in content] == []
    assert [name for name, content in contents.items() if len(content) > LARGEST_BYTES] == []
    for content in contents.values():
        content.decode()
