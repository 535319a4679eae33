"""Which text an epoch of a refresh reads: all new text, and a sample of the known text that moves from epoch to epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cluster.workers import InProcess
from pipeline.config import parse_config
from pipeline.errors import ConfigError
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.stream import sampling
from pipeline.stream.rehearsal import choose_pieces, lengths
from tests.tiny import tiny_config, write_corpus

corpora = st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(parts=corpora, share=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7]), epoch=st.integers(1, 9))
def test_all_that_is_new_is_read_in_every_epoch_and_a_share_of_the_rest(
    parts: list[tuple[int, bool]], share: float, epoch: int
) -> None:
    pieces, known = [count for count, _ in parts], {number for number, (_, is_known) in enumerate(parts) if is_known}
    chosen = choose_pieces(pieces, known, share, epoch)
    assert all(chosen[number] is None for number in range(len(parts)) if number not in known)
    there = sum(pieces[number] for number in known)
    taken = sum(len(chosen[number] or ()) for number in known)
    assert share * there - 1 <= taken <= share * there + 1
    assert taken or len(known) < len(parts), "an epoch is never empty"
    assert all(set(chosen[number] or ()) <= set(range(pieces[number])) for number in known)


@pytest.mark.parametrize("known_parts", [1, 3, 8])
def test_known_text_goes_round_so_that_all_of_it_is_seen_again(known_parts: int) -> None:
    pieces, known = [4] * 8, set(range(known_parts))
    seen = [choose_pieces(pieces, known, 0.25, epoch)[number] for epoch in range(1, 5) for number in known]
    assert sum(len(found or ()) for found in seen) == 4 * known_parts, "four quarters, none of it twice"
    for number in known:
        assert {piece for epoch in range(1, 5) for piece in choose_pieces(pieces, known, 0.25, epoch)[number] or ()} == {
            0,
            1,
            2,
            3,
        }


def test_the_first_epoch_and_a_training_from_nothing_read_everything() -> None:
    assert choose_pieces([3, 2], {0}, 0.1, 0) == [None, None]
    assert choose_pieces([3, 2], set(), 0.1, 4) == [None, None]
    assert lengths([900, 100], [3, 1], set(), 0.1, 3) == ()
    assert lengths([900, 100], [9, 1], {0}, 1 / 3, 3) == pytest.approx((1, 0.4, 0.4))


def test_a_refresh_counts_the_tokens_that_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "PIECE_TOKENS", 500)
    inputs = write_corpus(tmp_path / "corpus", sentences=500)
    new = write_corpus(tmp_path / "new", sentences=120)

    def train(name: str, files: list[str], **changed: object) -> dict[str, Any]:
        settings = {"lanes": 2, "vector_size": 8, "epochs": 3} | changed
        tree = tiny_config(tmp_path / name, files, tracking={"enabled": False}, train=settings)
        tree["corpus"]["block_bytes"] = 4096
        return run(parse_config(tree), until="train", workers=InProcess(), progress=Progress(quiet=True))

    champion = train("old", inputs)["vectors"]["path"]
    whole, some = (train(f"by {share}", inputs + new, start_from=champion, rehearse=share)["train"] for share in (1.0, 0.25))

    def by_epoch(found: Any, key: str) -> list[float]:
        return [sum(record[key] for record in found["rounds"] if record["epoch"] == epoch) for epoch in range(3)]

    first, *later = by_epoch(some, "raw_tokens")
    assert first == pytest.approx(by_epoch(whole, "raw_tokens")[0])
    assert all(0.2 < tokens / first < 0.6 for tokens in later)
    assert some["raw_tokens"] == round(first + sum(later)) < 0.7 * whole["raw_tokens"]
    kept = by_epoch(some, "kept_tokens")
    assert kept[1] / kept[0] == pytest.approx(later[0] / first, rel=0.15)
    alphas = [record["alpha"] for record in some["rounds"]]
    assert alphas == sorted(alphas, reverse=True), "α falls with the tokens that are read"
    assert alphas[-1] == pytest.approx(whole["rounds"][-1]["alpha"])


def test_without_vectors_to_continue_from_there_is_nothing_to_rehearse(tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus", sentences=10)
    with pytest.raises(ConfigError, match=r"rehearse is not read: train\.start_from is not set"):
        parse_config(tiny_config(tmp_path, inputs, train={"rehearse": 0.5}))
