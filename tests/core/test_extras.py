"""What a message says about installing works in the shell it is pasted into."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

from pipeline.cluster.vendors import EXTRAS
from w2v_core.extras import install_command

ROOT = Path(__file__).parents[2]


def test_every_extra_that_a_message_names_is_in_the_package_description() -> None:
    sources = [path for folder in ("pipeline", "w2v_core") for path in (ROOT / folder).rglob("*.py")]
    named = {found for path in sources for found in re.findall(r"install_command\(['\"](\w+)", path.read_text())}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert named
    assert named | set(EXTRAS.values()) <= set(declared)


def test_the_command_names_this_python_and_this_checkout() -> None:
    assert shlex.split(install_command("ko")) == [sys.executable, "-m", "pip", "install", "-e", f"{ROOT}[ko]"]
