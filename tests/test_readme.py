"""Every command of the README runs exactly as written there, on a corpus such as a reader might have."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import write_corpus

ROOT = Path(__file__).parents[1]
SERVERS = {"w2v ui mine.yaml": "w2v ui --help"}
"""Commands that run until they are stopped, and what is run instead."""


def blocks() -> list[list[str]]:
    """The indented blocks of the README, each as a list of lines without comments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"(?:^    .*\n)+", text, flags=re.MULTILINE)
    return [[line.strip().partition("  #")[0].rstrip() for line in block.splitlines()] for block in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with texts/, in which one word is `river`."""
    for path in map(Path, write_corpus(tmp_path / "texts", 300)):
        if path.suffix == ".txt":
            path.write_text(path.read_text().replace("topic1word1 ", "river "))
    return tmp_path


@pytest.mark.turns(10, 19, of="readers")
def test_every_command_runs(folder: Path) -> None:
    commands = [line for block in blocks() for line in block if line.startswith(("w2v ", "echo "))]
    assert len(commands) > 10
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for command in commands:
        # With tracking, MLflow would take most of the time; `w2v ui` and tracking have tests of their own.
        quick = SERVERS.get(command, command)
        quick += " tracking.enabled=false" if re.match(r"w2v (run|sweep|refresh)", quick) else ""
        done = subprocess.run(["bash", "-c", quick], cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, (command, done.stdout, done.stderr)


def test_the_line_for_completion_makes_the_tab_key_complete_commands(tmp_path: Path) -> None:
    (line,) = re.findall(r"`(eval .*?)` in", (ROOT / "README.md").read_text(encoding="utf-8"))
    press = 'COMP_WORDS=(w2v query si) COMP_CWORD=2; _w2v_completion w2v; echo "${COMPREPLY[@]}"'
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", f"{line}\n{press}"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("similar\n", "")


@pytest.mark.turns(3, 2, of="readers")
def test_the_lines_of_python_run(folder: Path) -> None:
    (program,) = [block for block in blocks() if block[0].startswith("from pipeline")]
    assert len(program) == 3
    done = subprocess.run([sys.executable, "-c", "\n".join(program)], cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert re.match(r"\[\('\w+', 0\.\d+\), ", done.stdout)


@pytest.mark.parametrize("page", ["README.md", "infra/promises.md"])
def test_targets_and_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:`|^    )make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets
    links = re.findall(r"\]\(([\w/.-]+)\)", text)
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def is_proved(promise: str) -> bool:
    """Whether a row of the page names tests, and all of them exist. A file without a folder lies beside the one before it."""
    named = re.findall(r"`(?:(tests/[\w/]+)(\.py)?|(test_\w+\.py))(?:::(\w+))?`", promise)
    folder, found = ROOT, []
    for path, suffix, sibling, name in named:
        place = folder / sibling if sibling else ROOT / (path + suffix)
        found.append(place.exists() and (not name or f"def {name}(" in place.read_text(encoding="utf-8")))
        folder = place.parent
    return bool(found) and all(found)


def test_every_promise_names_tests_that_exist() -> None:
    page = (ROOT / "infra" / "promises.md").read_text(encoding="utf-8")
    promises = re.findall(r"^\| (?!promise|---).*", page, re.MULTILINE)
    assert promises
    assert [promise for promise in promises if not is_proved(promise)] == []


def test_every_key_is_explained_on_the_page_of_settings() -> None:
    page = (ROOT / "infra" / "configuration.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")] == []


def test_the_page_of_settings_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from infra.configuration import page; print(page(), end='')"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "infra" / "configuration.md").read_text(encoding="utf-8"), "run: make configuration"
