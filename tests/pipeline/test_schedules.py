"""The files in infra/refresh that start a refresh: their readers accept them, and they keep their promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.errors import EXIT_CODES
from tests.debian import program

FOLDER = Path(__file__).parents[2] / "infra" / "refresh"


def test_systemd_accepts_the_service_and_the_timer(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    # It wants to find the program, which is installed elsewhere here.
    w2v = Path(sys.executable).with_name("w2v")
    for name in ("w2v-refresh@.service", "w2v-refresh@.timer"):
        text = (FOLDER / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/w2v/.venv/bin/w2v", str(w2v)).replace("@.", "@news."))
    units = [str(tmp_path / f"w2v-refresh@news.{kind}") for kind in ("service", "timer")]
    for kind in ("service", "timer"):
        (tmp_path / f"w2v-refresh@.{kind}").rename(tmp_path / f"w2v-refresh@news.{kind}")
    done = subprocess.run([analyze, "verify", "--man=no", *units], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = [line for line in done.stderr.splitlines() if "w2v-refresh" in line]
    assert ours == []


def test_a_missed_night_is_made_up_for_and_starts_are_spread() -> None:
    timer = (FOLDER / "w2v-refresh@.timer").read_text()
    assert "Persistent=true" in timer
    assert "RandomizedDelaySec=" in timer


def test_the_cron_job_fits_the_published_schema() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate brings the schemas")
    job = yaml.safe_load((FOLDER / "cronjob.yaml").read_text())
    validate.validate(job, "1.34", strict=True)
    job["spec"]["concurencyPolicy"] = "Forbid"
    with pytest.raises(validate.ValidationError):
        validate.validate(job, "1.34", strict=True)


def test_two_cron_jobs_never_work_at_once() -> None:
    spec = yaml.safe_load((FOLDER / "cronjob.yaml").read_text())["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_schedulers_are_told_only_exit_codes_that_there_are() -> None:
    service = (FOLDER / "w2v-refresh@.service").read_text()
    named = re.findall(r"^(?:SuccessExitStatus|RestartPreventExitStatus)=(.*)$", service, re.M)
    rules = yaml.safe_load((FOLDER / "cronjob.yaml").read_text())["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    codes = {int(code) for line in named for code in line.split()} | set(rules[0]["onExitCodes"]["values"])
    assert codes <= set(EXIT_CODES)
    assert not codes & {69, 74, 75}, "what is temporary is tried again"
    assert codes == set(rules[0]["onExitCodes"]["values"]), "systemd and Kubernetes try the same again"


def test_the_table_says_what_to_do_about_every_exit_code_of_a_refresh() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", (FOLDER / "README.md").read_text(), re.M)
    codes = [int(code) for row in rows for code in row.split(",")]
    assert sorted(codes) == sorted({*EXIT_CODES, 137} - {141}), "137 is the kernel's, and nobody closes a scheduler's pipe"


def test_refreshes_of_several_corpora_on_one_machine_share_a_user_with_a_folder_for_compiled_kernels() -> None:
    service = (FOLDER / "w2v-refresh@.service").read_text()
    lines = service.splitlines()
    for line in ("User=w2v", "StateDirectory=w2v", "CacheDirectory=w2v", "Environment=NUMBA_CACHE_DIR=%C/w2v"):
        assert line in lines
    assert "DynamicUser=" not in service, "each instance would take the folders from the others, and readers would not get in"


def test_the_crontab_line_is_one_that_cron_reads() -> None:
    lines = [line for line in (FOLDER / "crontab").read_text().splitlines() if line and not line.startswith(("#", "MAILTO="))]
    (line,) = lines
    assert re.fullmatch(r"(\S+\s+){5}/\S+/w2v refresh \S+ --quiet >> \S+", line)
    assert "%" not in line, "cron takes a percent sign for the end of the line"
