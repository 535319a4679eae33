"""What a run leaves for others to read holds no secret that its settings held."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.tracking.run_events import command_line
from tests.exposure import files_with
from tests.pipeline.changing_corpus import ChangingCorpus

CANARY = "s3cret-canary"


@pytest.mark.filterwarnings("default")
def test_the_options_of_a_cluster_and_the_command_after_a_refresh_are_in_no_file_that_a_run_leaves(tmp_path: Path) -> None:
    corpus = ChangingCorpus(tmp_path, seed=3)
    cluster = {"options": {"env": {"TOKEN": CANARY}}}
    hook = {"on_finish": ["true", f"https://hooks.example.com/{CANARY}"]}
    told = corpus.refresh(cluster=cluster, refresh=hook, tracking={"enabled": True})
    assert (told["status"], told["on_finish"]) == ("promoted", {"exit": 0})
    assert files_with("hooks.example.com", tmp_path) == files_with(CANARY, tmp_path) == [tmp_path / "config.yaml"]


def test_the_command_that_a_summary_names_has_no_value_of_a_setting_that_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["run", "c.yaml", f"cluster.options.env.TOKEN={CANARY}", f"refresh.on_finish=[curl, {CANARY}]", "train.epochs=3"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/w2v", *given, f"tracking.uri=http://ann:{CANARY}@host"])
    assert (
        command_line()
        == "w2v run c.yaml 'cluster.options.env.TOKEN=…' 'refresh.on_finish=…' train.epochs=3 tracking.uri=http://host"
    )
    monkeypatch.setattr(sys, "argv", ["/home/me/train.py", "--token", CANARY])
    assert command_line() == "train.py", "what the arguments of another program mean is not known"
