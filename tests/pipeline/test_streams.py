"""The stream of an epoch: from files for the first, drawn in pieces for later ones; the rows are the same, memory is bounded."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import store
from pipeline.cluster.state import WorkerState
from pipeline.cluster.workers import InProcess, Member
from pipeline.config import RunConfig
from pipeline.errors import DamagedError
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.stages import shards
from pipeline.stages import vocab as vocabulary
from pipeline.stream import epoch_stream, sampling
from pipeline.stream.part_files import ShardFiles, TokenFiles
from pipeline.training.meanwhile import spread_over
from pipeline.training.placement import place_copies
from tests.tiny import tiny_config, write_corpus
from w2v_core.windows import Stream

PIECE_TOKENS = 700


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "PIECE_TOKENS", PIECE_TOKENS)


@pytest.fixture
def state() -> WorkerState:
    return WorkerState()


def kept(state: WorkerState) -> sampling.KeptStreams:
    return state.of(sampling.KeptStreams)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, dict[str, store.Artefact]]:
    """A configuration and its tokens, vocabulary and shards."""
    root = tmp_path_factory.mktemp("shards")
    config = RunConfig.model_validate(tiny_config(root / "work", write_corpus(root / "data", sentences=2000)))
    run(config, until="shards", workers=InProcess(), progress=Progress(quiet=True))
    stages = ("tokens", "vocab", "shards")
    return config, {
        stage: store.load_artefact(next(path.parent for path in (root / "work" / stage).glob("*/manifest.json")))
        for stage in stages
    }


Made = tuple[RunConfig, dict[str, store.Artefact]]


def tasks_of(made: Made, epoch: int) -> tuple[sampling.DrawTask, ...]:
    config, artefacts = made
    return tuple(shards.plan_draws(config, artefacts["tokens"], artefacts["shards"], epoch))


def drawn(made: Made, epoch: int) -> epoch_stream.DrawnStream:
    tasks, state = tasks_of(made, epoch), WorkerState()
    return epoch_stream.DrawnStream(tasks, tuple(sampling.count_rows(task, state) for task in tasks), keep=False)


def wholes(tasks: Sequence[sampling.DrawTask]) -> list[sampling.Share]:
    return [sampling.Share(task, 0, None) for task in tasks]


def drawn_ahead(made: Made, epoch: int, state: WorkerState, *, keep: bool) -> epoch_stream.DrawnStream:
    tasks = tasks_of(made, epoch)
    ahead = sampling.Ahead(wholes(tasks), kept(state), keep=keep)
    return epoch_stream.DrawnStream(tasks, tuple(map(ahead.finish, range(len(tasks)))), keep)


def columns_of(stream: Stream) -> np.ndarray:
    return np.stack([stream.tokens_N, stream.left_N, stream.right_N])


def all_rows(source: epoch_stream.Source, state: WorkerState | None = None) -> np.ndarray:
    stream, _, _ = epoch_stream.Rows(source, 0, state or WorkerState()).between(0, sum(source.rows()))
    return columns_of(stream)


def test_drawing_the_first_epoch_in_pieces_gives_the_rows_of_its_files(made: Made) -> None:
    source = drawn(made, 0)
    assert max(map(len, source.rows_of_pieces)) > 2
    np.testing.assert_array_equal(all_rows(source), all_rows(epoch_stream.MappedShards(made[1]["shards"])))


def test_every_epoch_draws_its_own(made: Made) -> None:
    first, second = (all_rows(drawn(made, epoch)) for epoch in (1, 2))
    assert first.shape != second.shape or (first != second).any()


def test_any_range_with_its_halo_is_that_range_of_the_whole(made: Made) -> None:
    source, rng = drawn(made, 1), np.random.default_rng(5)
    whole = all_rows(source)
    for _ in range(50):
        start, stop = sorted(rng.integers(0, whole.shape[1] + 1, 2).tolist())
        halo = int(rng.integers(0, 6))
        rows = epoch_stream.Rows(source, halo, WorkerState())
        rows.hold([(start, stop)])
        stream, first, last = rows.between(start, stop)
        low, high = max(0, start - halo), min(whole.shape[1], stop + halo)
        assert (first, last) == (start - low, stop - low)
        np.testing.assert_array_equal(columns_of(stream), whole[:, low:high])


def test_only_the_pieces_that_the_ranges_reach_into_are_held(made: Made) -> None:
    source = drawn(made, 1)
    rows = epoch_stream.Rows(source, 3, WorkerState())
    ends = np.cumsum(source.rows())
    assert len(ends) > 8
    rows.hold([(ends[0], ends[0] + 1), (ends[4] + 3, ends[5] - 3)])
    assert rows.units_held == [0, 1, 5]
    rows.hold([(ends[4] + 2, ends[5] - 2)])
    assert rows.units_held == [4, 5, 6]


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_stream_that_several_threads_load_has_the_rows_of_one_that_one_thread_loads(made: Made, epoch: int) -> None:
    source = drawn(made, epoch) if epoch else epoch_stream.MappedShards(made[1]["shards"])
    total, threads, together = sum(source.rows()), set(), threading.Barrier(2)
    rows = epoch_stream.Rows(source, 0, WorkerState())

    with ThreadPoolExecutor(1) as pool:

        def spread(work: Callable[[list[int]], list[list[Stream]]], shares: Sequence[list[int]]) -> list[list[list[Stream]]]:
            def load(share: list[int]) -> list[list[Stream]]:
                if threading.current_thread() not in threads:
                    threads.add(threading.current_thread())
                    together.wait(30)
                return work(share)

            return spread_over(pool.submit, 2, load, shares)

        rows.hold([(0, total)], spread)
    assert len(threads) == 2
    assert rows.units_held == list(range(len(source.rows())))
    np.testing.assert_array_equal(columns_of(rows.between(0, total)[0]), all_rows(source))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(0, 3000), max_size=30))
def test_pieces_cover_all_sentences_and_end_at_the_first_end_behind_a_multiple_of_their_size(lengths: list[int]) -> None:
    ends = np.cumsum(lengths, dtype=np.int64)
    cuts = sampling.cut_sentences(ends)
    assert [cut.start for cut in cuts] == [0, *(cut.stop for cut in cuts[:-1])]
    assert cuts[-1].stop == len(lengths)
    for cut in cuts[:-1]:
        end, before = int(ends[cut.stop - 1]), int(ends[cut.stop - 2]) if cut.stop > 1 else 0
        assert before < end // PIECE_TOKENS * PIECE_TOKENS


def test_what_was_drawn_ahead_is_used_and_is_what_would_be_drawn(
    made: Made, state: WorkerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = all_rows(drawn(made, 1))
    source = drawn_ahead(made, 1, state, keep=False)
    monkeypatch.setattr(TokenFiles, "read_sentences", None)  # nothing is read any more
    np.testing.assert_array_equal(all_rows(source, state), expected)


def test_kept_tokens_are_not_read_again(made: Made, state: WorkerState, monkeypatch: pytest.MonkeyPatch) -> None:
    source = drawn(made, 2)
    expected = all_rows(source)
    drawn_ahead(made, 1, state, keep=True)
    kept(state).forget_drawn()
    monkeypatch.setattr(TokenFiles, "read_sentences", None)
    np.testing.assert_array_equal(all_rows(source, state), expected)
    assert sampling.count_rows(source.tasks[0], state) == source.rows_of_pieces[0]


def test_what_is_drawn_a_little_at_a_time_is_what_would_be_drawn_at_once(
    made: Made, state: WorkerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, tasks = drawn(made, 2), tasks_of(made, 2)
    whole = all_rows(expected)
    drawn_ahead(made, 1, state, keep=True)
    kept(state).forget_drawn()
    monkeypatch.setattr(sampling, "STEP_TOKENS", 1000)
    ahead = sampling.Ahead(wholes(tasks), kept(state), keep=False)
    assert all(ahead.draw_some() for _ in range(5))
    assert ahead.finish(1) == expected.rows_of_pieces[1]
    while ahead.draw_some():
        pass
    assert ahead.seconds > 0
    # Nothing is drawn any more.
    monkeypatch.setattr(sampling, "begin_piece", None)
    source = epoch_stream.DrawnStream(tasks, tuple(map(ahead.finish, range(len(tasks)))), keep=False)
    assert source.rows_of_pieces == expected.rows_of_pieces
    np.testing.assert_array_equal(all_rows(source, state), whole)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    tokens=st.lists(st.integers(0, 5000), min_size=1, max_size=6), lanes=st.integers(1, 9), workers=st.integers(1, 9),
    kept=st.floats(0.05, 1),
)  # fmt: skip
def test_every_piece_is_drawn_by_the_worker_whose_lanes_train_its_middle(
    tokens: list[int], lanes: int, workers: int, kept: float
) -> None:
    tasks = [part_of(index, size) for index, size in enumerate(tokens)]
    rows = [int(kept * size) for size in tokens]
    places = place_copies([Member(f"tcp://{worker}", "host", 1) for worker in range(min(lanes, workers))], lanes)
    shares = sampling.share_out(tasks, rows, [place.copies for place in places])
    drawn = []
    for place, found in zip(places, shares, strict=True):
        for share in found:
            stop = share.task.pieces if share.stop is None else share.stop
            for piece in range(share.first, stop):
                drawn.append((share.task.part.index, piece))
                before, size = sum(rows[: share.task.part.index]), rows[share.task.part.index]
                middle = (before + size * (piece + 0.5) / share.task.pieces) / max(1, sum(rows))
                assert place.first_copy - 1e-6 <= middle * lanes <= place.last_copy + 1e-6
    assert drawn == [(task.part.index, piece) for task in tasks for piece in range(task.pieces)]
    # With long sentences there are fewer pieces, never more; whoever has the last draws to the end.
    ends = {share.task.part.index: share.stop for found in shares for share in found}
    assert set(ends.values()) == {None}


def part_of(index: int, tokens: int) -> sampling.DrawTask:
    part = sampling.PartDraw(index, f"{index}.tokens.parquet", 5, True, index, 1)
    return sampling.DrawTask(part, "shards", store.Part(name="words", bytes=0, sha256=""), sampling.most_pieces(tokens))


def test_the_shares_of_several_workers_are_the_stream_and_only_what_others_drew_is_drawn_again(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, tasks = drawn(made, 1), tasks_of(made, 1)
    places = place_copies([Member(f"tcp://{worker}", "host", 1) for worker in range(5)], 5)
    shares = sampling.share_out(tasks, drawn(made, 0).rows_of_parts(), [place.copies for place in places])
    assert any(share.first > 0 for found in shares for share in found), "a part that two workers share"
    rows: dict[int, tuple[int, ...]] = {task.part.index: () for task in tasks}
    states = [WorkerState() for _ in shares]
    for found, state in zip(shares, states, strict=True):
        ahead = sampling.Ahead(found, kept(state), keep=True)
        for index, share in enumerate(found):
            rows[share.task.part.index] += ahead.finish(index)
    assert tuple(rows.values()) == expected.rows_of_pieces
    whole, begun, begin = all_rows(expected), [], sampling.begin_piece
    monkeypatch.setattr(sampling, "begin_piece", lambda part, *rest: (begun.append(part.index), begin(part, *rest))[1])
    np.testing.assert_array_equal(all_rows(expected, states[1]), whole)
    assert len(begun) == sum(map(len, expected.rows_of_pieces)) - len(kept(states[1]).drawn)


def test_nothing_is_read_while_others_wait(made: Made, state: WorkerState) -> None:
    tasks = tasks_of(made, 1)
    ahead = sampling.Ahead(wholes(tasks), kept(state), keep=True)
    assert not ahead.draw_some()
    ahead.finish(0)
    assert not ahead.draw_some()


def test_while_others_wait_only_the_first_call_looks_through_all_shares(
    made: Made, state: WorkerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "STEP_TOKENS", 50)
    looked: list[str] = []

    class Kept(dict[str, sampling.PartTokens]):
        def __contains__(self, part: object) -> bool:
            looked.append(str(part))
            return super().__contains__(part)

    tasks = tasks_of(made, 1)
    kept(state).tokens = Kept({task.part.tokens: sampling.read_part(task) for task in tasks[-1:]})
    ahead = sampling.Ahead(wholes(tasks), kept(state), keep=True)
    steps = []
    while ahead.draw_some():
        steps.append(len(looked))
        looked.clear()
    assert len(tasks) > 2
    assert steps[0] >= len(tasks)
    assert max(steps[1:]) <= 2


def test_no_more_is_kept_than_there_is_room_for_and_the_rest_is_drawn_again(
    made: Made, state: WorkerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = all_rows(drawn(made, 1))
    monkeypatch.setattr(sampling, "KEPT_BYTES", 20_000)
    source = drawn_ahead(made, 1, state, keep=True)
    columns = [array for stream in kept(state).drawn.values() for array in (stream.tokens_N, stream.left_N, stream.right_N)]
    assert all(array.base is None for array in columns), "a view would hold more than it shows"
    held = [array.nbytes for array in columns]
    held += [tokens.bytes for tokens in kept(state).tokens.values()]
    assert 10_000 < sum(held) == kept(state).bytes <= 20_000
    np.testing.assert_array_equal(all_rows(source, state), expected)


def test_a_part_that_changed_after_it_was_counted_is_found(made: Made) -> None:
    source = drawn(made, 1)
    pieces = (source.rows_of_pieces[0][0] + 1, *source.rows_of_pieces[0][1:])
    changed = replace(source, rows_of_pieces=(pieces, *source.rows_of_pieces[1:]))
    with pytest.raises(
        DamagedError, match=rf"{Path(source.tasks[0].part.tokens).name}: {pieces[0]:,} tokens of piece 0 were kept"
    ):
        all_rows(changed)
    longer = replace(source, rows_of_pieces=((*source.rows_of_pieces[0], 1), *source.rows_of_pieces[1:]))
    with pytest.raises(DamagedError, match="now 0; the file has changed since"):
        all_rows(longer)


def test_a_flipped_bit_in_what_is_known_of_the_words_is_found_before_anything_is_drawn(made: Made, tmp_path: Path) -> None:
    task = tasks_of(made, 1)[0]
    content = bytearray((Path(task.directory) / task.words.name).read_bytes())
    content[200] ^= 1
    (tmp_path / task.words.name).write_bytes(content)
    with pytest.raises(DamagedError, match=r"part-00000\.words\.npy: its content changed"):
        sampling.count_rows(replace(task, directory=str(tmp_path)), WorkerState())


def test_every_part_is_drawn_with_its_own_words(made: Made) -> None:
    tasks = tasks_of(made, 1)
    assert len(tasks) > 1
    assert [task.words.name for task in tasks] == [ShardFiles(Path(), task.part.index).words.name for task in tasks]


def test_threads_of_an_abandoned_and_of_the_next_attempt_may_keep_and_release_at_once() -> None:
    stream = Stream(np.zeros(4, np.int32), np.zeros(4, np.uint8), np.zeros(4, np.uint8))
    tokens = sampling.PartTokens(np.zeros(4, np.int32), np.zeros(1, np.int64), np.zeros(2, np.uint64))
    part, kept = sampling.PartDraw(0, "part", 5, True, 1, 1), sampling.KeptStreams()
    works: list[Callable[[int], None]] = [
        lambda turn: kept.keep_drawn(part, turn % 50, stream),
        lambda turn: kept.keep_tokens(str(turn % 50), tokens),
        lambda turn: kept.forget_drawn(),
        lambda turn: kept.keep_only({"1", "2"}),
    ]

    def go_on(work: Callable[[int], None]) -> None:
        for turn in range(40_000):
            work(turn)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(works)) as pool:
            for ended in [pool.submit(go_on, work) for work in works]:
                ended.result()
    finally:
        sys.setswitchinterval(before)
    assert kept.bytes == 24 * len(kept.drawn) + tokens.bytes * len(kept.tokens)
    kept.release()
    assert kept.bytes == 0


def test_threads_that_begin_to_make_shards_together_share_one_vocabulary(made: Made) -> None:
    _, artefacts = made
    vocab, kept, together = artefacts["vocab"], shards.KeptVocabulary(), threading.Barrier(8)

    def read(_thread: int) -> int:
        together.wait(30)
        return id(kept.of(str(vocab.path(vocabulary.WORDS)), vocab.fingerprint))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(read, range(8)))) == 1
