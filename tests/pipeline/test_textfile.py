"""The state of a run for Prometheus: valid text whatever names contain, replaced as a whole, and a dashboard for its names."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.workers import InProcess
from pipeline.config import parse_config
from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.tracking.textfile import FAMILIES, TextFile, note_summary, open_textfile
from tests.pipeline.test_report import HOSTILE, sample_summary
from tests.tiny import tiny_config, write_corpus

DASHBOARD = Path(__file__).parents[2] / "infra" / "grafana" / "w2v.json"
LINE = re.compile(r'(w2v_\w+)\{run="((?:[^"\\\n]|\\["\\n])*)"((?:,[a-z]+="(?:[^"\\\n]|\\["\\n])*")*)\} (\S+)')


def samples(text: str) -> dict[str, list[tuple[str, float]]]:
    """{name: [(other labels, value)]} of a file, every line of which must be one that Prometheus reads."""
    found: dict[str, list[tuple[str, float]]] = {}
    for line in text.rstrip("\n").split("\n"):
        if line.startswith("#"):
            assert re.fullmatch(
                r"# (HELP w2v_\w+ .+|TYPE w2v_\w+ (gauge|counter)|sha256 of the lines above: [0-9a-f]{64})", line
            ), line
            continue
        match = LINE.fullmatch(line)
        assert match, line
        found.setdefault(match[1], []).append((match[3], float(match[4])))
    return found


def test_a_run_leaves_what_it_did_and_a_failed_one_says_so_and_keeps_the_last_success(tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus", 1500)
    path = tmp_path / "node" / "w2v.prom"
    path.parent.mkdir()
    tree = tiny_config(tmp_path / "work", inputs, tracking={"enabled": False, "textfile": str(path)})
    run(parse_config(tree), workers=InProcess(), progress=Progress(quiet=True))
    found = samples(path.read_text())
    assert found["w2v_run_state"] == [(',state="complete"', 1.0)]
    assert found["w2v_corpus_tokens"] == [("", 18_000.0)]
    assert found["w2v_epoch"] == [("", 2.0)]
    assert 0 < found["w2v_loss"][0][1] < 10
    assert found["w2v_worker_memory_bytes"][0][1] > 1e7
    assert {labels for labels, _ in found["w2v_stage_seconds"]} >= {',stage="train"', ',stage="tokenize"'}
    # No name is dead: what this run did not write takes a GPU, or sets of questions (below).
    assert FAMILIES.keys() - found.keys() <= {"w2v_worker_gpu_memory_bytes", "w2v_score", "w2v_score_coverage"}
    success = found["w2v_last_success_seconds"]
    broken = tiny_config(tmp_path / "work", [str(tmp_path / "absent.txt")], tracking={"enabled": False, "textfile": str(path)})
    with pytest.raises(InputError):
        run(parse_config(broken), workers=InProcess(), progress=Progress(quiet=True))
    found = samples(path.read_text())
    assert found["w2v_run_state"] == [(',state="failed"', 1.0)]
    assert found["w2v_last_success_seconds"] == success
    assert [file.name for file in path.parent.iterdir()] == ["w2v.prom"]


def test_prometheus_own_checker_has_no_complaints(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here; apt-get install prometheus brings it")
    summary: dict[str, Any] = sample_summary() | {"stages": {word: {"seconds": 1.0} for word in HOSTILE}}
    note_summary(file := TextFile(tmp_path / "w2v.prom", HOSTILE[0]), summary)
    done = subprocess.run([promtool, "check", "metrics"], input=file.path.read_bytes(), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("word", HOSTILE)
def test_names_from_data_stay_inside_their_label(tmp_path: Path, word: str) -> None:
    summary: dict[str, Any] = sample_summary() | {"stages": {word: {"seconds": 1.0}}}
    summary["evaluation"] = {"similarity": {word: 0.5}}
    file = TextFile(tmp_path / "w2v.prom", word)
    note_summary(file, summary)
    found = samples(file.path.read_text(encoding="utf-8"))
    assert [value for _, value in found["w2v_stage_seconds"]] == [1.0]
    assert 0.5 in [value for _, value in found["w2v_score"]]


def test_scores_are_written_with_their_coverage(tmp_path: Path) -> None:
    file = TextFile(tmp_path / "w2v.prom", "run")
    note_summary(file, sample_summary())
    assert samples(file.path.read_text(encoding="utf-8")).keys() >= {"w2v_score", "w2v_score_coverage"}


def test_a_place_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    file = TextFile(tmp_path / "absent" / "w2v.prom", "run")
    file.state("running")
    assert "w2v.prom: cannot be written (No such file or directory); what watches the run" in (file.problem or "")
    with pytest.raises(ValueError, match=r"expected a name of textfile\.FAMILIES, found 'w2v_new'"):
        file.set("w2v_new", 1)


def test_a_link_at_the_place_that_was_named_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "w2v.prom").write_text("before\n")
    (link := tmp_path / "w2v.prom").symlink_to("node/w2v.prom")
    file = TextFile(link, "run", named=True)
    file.state("running")
    assert file.problem is None
    assert link.is_symlink()
    assert samples((tmp_path / "node" / "w2v.prom").read_text())["w2v_run_state"] == [(',state="running"', 1.0)]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["node", "w2v.prom", "w2v.prom"], "nothing is left beside either"


def test_a_run_takes_the_file_that_is_named_as_the_persons_and_the_one_in_its_workdir_as_its_own(tmp_path: Path) -> None:
    config = parse_config(tiny_config(tmp_path, ["x"], tracking={"textfile": str(tmp_path / "w2v.prom")}))
    assert open_textfile(config).named
    assert not open_textfile(parse_config(tiny_config(tmp_path, ["x"]))).named


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to(os.devnull)
    file = TextFile(tmp_path / "null", "run", named=True)
    file.state("running")
    assert "null: cannot be written (not a regular file but a device)" in (file.problem or "")
    assert Path(os.devnull).is_char_device()


def test_the_dashboard_asks_for_names_that_are_written_and_for_all_that_matter() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = {
        name for panel in dashboard["panels"] for target in panel["targets"] for name in re.findall(r"w2v_\w+", target["expr"])
    }
    assert asked <= FAMILIES.keys()
    assert FAMILIES.keys() - asked <= {"w2v_updated_seconds", "w2v_run_started_seconds"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_a_full_disk_gets_no_file_more_with_every_attempt(small_disk: Path) -> None:
    with open(small_disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    file = TextFile(small_disk / "w2v.prom", "run")
    for _ in range(3):
        file.state("running")
    assert "No space left on device" in (file.problem or "")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
    (small_disk / "filler").unlink()
    file.state("running")
    assert file.problem is None
