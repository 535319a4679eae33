"""The units in infra/systemd: systemd accepts them, and they run the commands that `w2v cluster certs` prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cluster.certificates import instructions
from tests.debian import program

FOLDER = Path(__file__).parents[2] / "infra" / "systemd"
UNITS = ("w2v-scheduler.service", "w2v-worker.service")


def verified(unit: str, text: str, folder: Path) -> str:
    """What systemd says of a unit with this text."""
    # It wants to find the program, which is installed elsewhere here.
    (folder / unit).write_text(text.replace("/opt/w2v/.venv/bin/dask", str(Path(sys.executable).with_name("dask"))))
    analyze = program("systemd-analyze", "systemd")
    said = subprocess.run([analyze, "verify", "--man=no", str(folder / unit)], capture_output=True, text=True).stderr
    return "\n".join(line for line in said.splitlines() if unit in line)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_a_unit_and_sees_a_misspelt_key(unit: str, tmp_path: Path) -> None:
    text = (FOLDER / unit).read_text()
    assert verified(unit, text, tmp_path) == ""
    assert "Restrat" in verified(unit, text.replace("Restart=", "Restrat="), tmp_path)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_runs_the_command_that_w2v_cluster_certs_prints(unit: str) -> None:
    said = instructions(Path("/etc/w2v/certs"), "scheduler.example", 8786)
    scheduler, worker = re.findall(r"^    dask (.*)$", said, re.MULTILINE)
    (command,) = re.findall(r"^ExecStart=/opt/w2v/.venv/bin/dask (.*)$", (FOLDER / unit).read_text(), re.MULTILINE)
    for name, value in re.findall(r"^(\w+)=(.*)$", (FOLDER / "worker.env").read_text(), re.MULTILINE):
        command = command.replace(f"${{{name}}}", value)
    if command.startswith("scheduler"):
        assert command == scheduler.replace("--host scheduler.example ", ""), "on all interfaces, and so without a name to change"
    else:
        assert command == f"{worker} --local-directory /tmp"


def test_units_give_nothing_that_they_do_not_need() -> None:
    for unit in UNITS:
        lines = (FOLDER / unit).read_text().splitlines()
        for line in ("User=w2v", "ProtectSystem=strict", "NoNewPrivileges=yes", "PrivateTmp=yes"):
            assert line in lines
