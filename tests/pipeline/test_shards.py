"""Shards of an epoch: what a worker keeps for the next one changes no byte and is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import shards, store
from pipeline.config import RunConfig
from pipeline.errors import DamagedError
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.workers import InProcess
from tests.tiny import tiny_config, write_corpus


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    shards.forget_sentences()
    yield
    shards.forget_sentences()


@pytest.fixture
def tasks(tmp_path: Path) -> list[list[shards.ShardTask]]:
    """Of three epochs, a list a part."""
    config = RunConfig.model_validate(tiny_config(tmp_path / "work", write_corpus(tmp_path / "data", sentences=2000)))
    run(config, until="vocab", workers=InProcess(), progress=Progress(quiet=True))
    tokens, vocab = (
        store.load_artefact(next(path.parent for path in (tmp_path / "work" / stage).glob("*/manifest.json")))
        for stage in ("tokens", "vocab")
    )
    return [shards.plan_shards(config, tokens, vocab, epoch, tmp_path / "work") for epoch in range(3)]


def test_kept_sentences_give_the_shards_that_reading_them_again_gives(tasks: list[list[shards.ShardTask]]) -> None:
    assert len(tasks[0]) > 2
    fresh = [[shards.make_shard(task) for task in epoch] for epoch in tasks]
    for task in tasks[0]:
        shards.make_shard(task, keep=True)
    for task in tasks[0]:
        Path(task.tokens).unlink()
    assert [[shards.make_shard(task) for task in epoch] for epoch in tasks[1:]] == fresh[1:]
    assert len({part.sha256 for epoch in fresh for part in epoch}) == 3 * len(tasks[0]), "every epoch draws its own"


def test_no_more_is_kept_than_there_is_room_for(tasks: list[list[shards.ShardTask]], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [sum(array.nbytes for array in shards.read_sentences(Path(task.tokens))) for task in tasks[0]]
    monkeypatch.setattr(shards, "KEPT_BYTES", sizes[0] + sizes[1])
    for epoch in tasks[:2]:
        for task in epoch:
            shards.make_shard(task, keep=True)
    for task in tasks[0][:2]:
        Path(task.tokens).unlink()
        shards.make_shard(task)
    Path(tasks[0][2].tokens).unlink()
    with pytest.raises(DamagedError, match=f"{Path(tasks[0][2].tokens).name}: missing"):
        shards.make_shard(tasks[0][2])
