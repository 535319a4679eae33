"""The stage: from a corpus to committed sentences of part-local ids."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import store
from pipeline.cluster.state import Task, WorkerState, run_task
from pipeline.cluster.workers import InProcess
from pipeline.config import RunConfig, parse_config
from pipeline.errors import ConfigError, DataError
from pipeline.stages import tokenize
from pipeline.stages.tokenize import PartRecord, plan_tasks, tokenize_part
from pipeline.stages.work import Watch, Work
from pipeline.stream.part_files import TokenFiles, token_parts, word_parts
from pipeline.stream.sampling import KeptStreams
from pipeline.text.corpus import plan_corpus


def configured(*inputs: Path, tokenize: dict[str, Any] | None = None, **corpus: Any) -> RunConfig:
    return parse_config({"corpus": {"inputs": [str(path) for path in inputs], **corpus}, "tokenize": tokenize or {}})


def build(config: RunConfig, workdir: Path, made: list[PartRecord] | None = None) -> store.Artefact:
    watch = Watch() if made is None else Watch(on_part=made.append)
    return tokenize.build(Work(config, workdir, InProcess(), watch), plan_corpus(config.corpus))


def sentences(tokens: store.Artefact) -> list[list[str]]:
    """The sentences as words, read back from the files."""
    found = []
    for part in token_parts(tokens):
        files = TokenFiles.of(tokens.directory / part.name)
        words = store.read_table(files.words)["word"].to_pylist()
        ids, ends = files.read_sentences()
        found += [[words[word_id] for word_id in ids[first:end]] for first, end in zip([0, *ends], ends, strict=False)]
    return found


def counts(tokens: store.Artefact) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in word_parts(tokens):
        table = store.read_table(tokens.directory / part.name)
        total.update(dict(zip(table["word"].to_pylist(), table["count"].to_pylist(), strict=True)))
    return total


def files_below(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def make_corpus(directory: Path, files: int = 5) -> Path:
    directory.mkdir(parents=True)
    for index in range(files):
        lines = [f"The {index} file, line {line}: {'é' * (line % 3)} word{line * index % 97}" for line in range(400)]
        data = "\n".join(lines).encode()
        path = directory / f"{index}.txt"
        path.write_bytes(data)
        if index % 2:
            path.unlink()
            (directory / f"{index}.txt.gz").write_bytes(gzip.compress(data, mtime=0))
    return directory


def test_sentences_counts_and_totals_are_those_of_the_text(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("One two, two!\n\n...\nThree — three\n")
    (folder / "b.txt").write_text("")
    (folder / "c.txt").write_bytes(b"bad \xff\xfe one " + b"x" * 300 + b"\n")
    tokens = build(configured(folder, max_lost=1), tmp_path / "work")
    assert sentences(tokens) == [["one", "two", "two"], ["three", "three"], ["bad", "one"]]
    assert counts(tokens) == Counter({"one": 2, "two": 2, "three": 2, "bad": 1})
    totals = tokens.manifest.totals
    assert totals["tokens"] == 7
    assert totals["sentences"] == 3
    assert (totals["files"], totals["empty_files"]) == (3, 1)
    assert totals["invalid_utf8"] == 2
    assert totals["dropped_long_tokens"] == 1
    assert totals["bytes_read"] == sum(path.stat().st_size for path in folder.iterdir())
    sizes = totals["bytes"]
    assert (sizes["not_text"], sizes["long_tokens"]) == (2, 300)
    assert any("is not utf-8 and became 2 U+FFFD, in 1 file" in note and "c.txt (2)" in note for note in totals["notes"])
    assert any(note.startswith("1 token longer than tokenize.max_token_bytes") for note in totals["notes"])
    assert any(note.startswith("1 of 3 files is empty") for note in totals["notes"])
    assert totals["dropped_samples"] == ["x" * 59 + "…"]
    assert store.find_damage(tokens) == []


WORDS = st.sampled_from(["a", "bb", "Ccc", "é", "word", "한국어", "x" * 70, "don't", "-", "\u3000"])


@given(
    texts=st.lists(st.lists(st.lists(WORDS, max_size=12), max_size=30), min_size=1, max_size=4),
    block=st.sampled_from([1024, 1500, 4096, 1 << 20]),
    compressed=st.booleans(),
)
@settings(max_examples=40, derandomize=True, deadline=None)
@pytest.mark.turns(3, 1.5)
def test_every_word_is_counted_once_however_the_corpus_is_cut(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[list[str]]], block: int, compressed: bool
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    lines = []
    for index, text in enumerate(texts):
        data = "\n".join(" ".join(line) for line in text)
        lines += data.split("\n")
        name, raw = (f"{index}.gz", gzip.compress(data.encode())) if compressed else (f"{index}.txt", data.encode())
        (folder / name).write_bytes(raw)
    expected = [words for line in lines if (words := [word for word in line.lower().split() if len(word.encode()) <= 64])]
    config = configured(folder, tokenize={"tokenizer": "whitespace", "max_token_bytes": 64}, block_bytes=block, max_lost=1)
    if not expected:
        with pytest.raises(DataError, match="not one token"):
            build(config, folder.parent / f"{folder.name}-work")
        return
    tokens = build(config, folder.parent / f"{folder.name}-work")
    assert sorted(sentences(tokens)) == sorted(expected), "small files come in the order of their digests"
    assert counts(tokens) == Counter(word for words in expected for word in words)
    assert tokens.manifest.totals["dropped_long_tokens"] == sum(len(word) == 70 for line in lines for word in line.split())


class Shuffled:
    """Workers that run tasks in threads, last first."""

    def map(self, task: Task[Any, Any], items: Sequence[Any], *, label: str, on_done: Any = None) -> list[Any]:
        state = WorkerState()
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(lambda item: run_task(task, item, state), list(items)[::-1]))[::-1]


def test_the_bytes_written_do_not_depend_on_who_wrote_them_or_when(tmp_path: Path) -> None:
    config = configured(make_corpus(tmp_path / "data"), block_bytes=4096)
    plan = plan_corpus(config.corpus)
    tokenize.build(Work(config, tmp_path / "one", InProcess()), plan)
    tokenize.build(Work(config, tmp_path / "two", Shuffled()), plan)  # type: ignore[arg-type]
    assert files_below(tmp_path / "one") == files_below(tmp_path / "two")


def test_a_moved_corpus_keeps_its_fingerprint_and_a_changed_setting_does_not(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "data")

    def identity(**options: Any) -> str:
        config = configured(folder, **options)
        return tokenize.identity(config, plan_corpus(config.corpus))[0]

    first = identity()
    folder = folder.rename(tmp_path / "elsewhere")
    assert identity() == first
    assert identity(max_ratio=77) == first, "how much damage is tolerated does not change a token"
    others = {
        identity(block_bytes=4096), identity(encoding_errors="strict"), identity(tokenize={"lowercase": False}),
        identity(tokenize={"max_token_bytes": 9}), identity(tokenize={"tokenizer": "whitespace"}),
    }  # fmt: skip
    assert len(others - {first}) == 5


def test_a_grown_corpus_tokenizes_only_the_new_parts(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "data")
    config = configured(folder, block_bytes=4096)
    first = build(config, tmp_path / "work")
    (folder / "6.txt").write_text("entirely new words\n")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work/tokens/parts").iterdir()}
    second = build(config, tmp_path / "work")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work/tokens/parts").iterdir()}
    assert second.fingerprint != first.fingerprint
    assert sentences(second) == [*sentences(first), ["entirely", "new", "words"]]
    assert {name: after[name] for name in before} == before
    assert 0 < len(after) - len(before) <= 6


def test_finished_parts_are_kept_and_damaged_or_missing_ones_are_made_again(tmp_path: Path) -> None:
    config = configured(make_corpus(tmp_path / "data"), block_bytes=4096)
    build(config, tmp_path / "work")
    parts = tmp_path / "work/tokens/parts"
    expected = files_below(parts)
    records = sorted(parts.glob("*.json"))
    assert len(records) > 6
    records[0].unlink()
    records[1].write_text(records[1].read_text().replace('"tokens"', '"tokenz"', 1))
    record = json.loads(records[2].read_text())
    (parts / record["outputs"][0]["words"]["name"]).unlink()
    with open(parts / json.loads(records[3].read_text())["outputs"][0]["tokens"]["name"], "ab") as file:
        file.write(b"x")
    again = {path.name: path.stat().st_ino for path in records[4:]}
    build(config, tmp_path / "work")
    assert files_below(parts) == expected
    assert {path.name: path.stat().st_ino for path in records[4:]} == again, "the intact ones were not written again"


def test_damaged_records_are_reported_each_with_its_reason(tmp_path: Path) -> None:
    tokens = build(configured(make_corpus(tmp_path / "data"), block_bytes=4096), tmp_path / "work")
    records = sorted((tmp_path / "work/tokens/parts").glob("*.json"))
    assert tokenize.record_damage(tokens) == (len(records), [])
    records[0].unlink()
    records[1].write_text(records[1].read_text().replace('"tokens"', '"tokenz"', 1))
    records[2].write_bytes(records[3].read_bytes())
    records[4].write_text(records[4].read_text().replace("\n", "", 1))
    checked, damage = tokenize.record_damage(tokens)
    reasons = ("missing", "checksum does not match", "record of another part", "bytes are not those that were written")
    named = [f"{path}: " for path in (records[0], records[1], records[2], records[4])]
    assert checked == len(records)
    assert len(damage) == len(named)
    assert all(found.startswith(name) and reason in found for found, name, reason in zip(damage, named, reasons, strict=True))


def test_progress_sees_every_part_once_whether_found_or_made(tmp_path: Path) -> None:
    config = configured(make_corpus(tmp_path / "data"), block_bytes=4096)
    made: list[PartRecord] = []
    found: list[PartRecord] = []
    build(config, tmp_path / "work", made)
    build(config, tmp_path / "work", found)
    assert len(made) > 6
    assert sorted(record.key for record in found) == sorted(record.key for record in made)
    assert {record.key: record for record in found} == {record.key: record for record in made}, "a record survives its file"


def test_equal_files_are_tokenized_once_and_counted_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text("same words here\n" * 100)
    made: list[PartRecord] = []
    tokens = build(configured(tmp_path / "a", tmp_path / "b", block_bytes=1024), tmp_path / "work", made)
    assert counts(tokens)["same"] == 200
    assert tokens.manifest.totals["tokens"] == 600
    assert len(made) < len(token_parts(tokens))


def test_nothing_of_a_broken_file_is_committed(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "data", files=1)
    (folder / "z.txt.gz").write_bytes(gzip.compress(b"text " * 100_000)[:-9])
    config = configured(folder)
    with pytest.raises(DataError, match=r"z\.txt\.gz: damaged gzip data"):
        build(config, tmp_path / "work")
    assert not list((tmp_path / "work").rglob("manifest.json"))
    assert not list((tmp_path / "work").rglob("*.json"))
    assert not list((tmp_path / "work").rglob(".*.tmp"))


@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz", "x.jsonl"])
def test_a_corpus_of_empty_files_is_called_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    with pytest.raises(DataError, match=r"There is no text in them: they are empty"):
        build(configured(tmp_path / name, format="jsonl" if name == "x.jsonl" else "lines"), tmp_path / "work")


def test_a_corpus_without_a_token_is_an_error_that_says_what_to_check(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("... --- !!!\n")
    with pytest.raises(DataError, match=r"not one token in 1 file .* Check corpus\.format"):
        build(configured(tmp_path / "x.txt"), tmp_path / "work")


@pytest.mark.turns(3, 1.5)
def test_a_part_with_much_text_becomes_several_pairs_of_files(tmp_path: Path) -> None:
    lines = [f"line {index} word{index % 7}" for index in range(200_000)]
    (tmp_path / "x.gz").write_bytes(gzip.compress("\n".join(lines).encode(), 1))
    config = configured(tmp_path / "x.gz", block_bytes=1 << 18)
    tokens = build(config, tmp_path / "work")
    pairs = token_parts(tokens)
    assert len(pairs) >= 4
    assert sum(part.tokens for part in pairs) == 600_000
    assert tokens.manifest.totals["sentences"] == 200_000
    assert sentences(tokens)[123_456] == lines[123_456].split()


def test_a_tokens_file_holds_plain_int32_with_page_checksums(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a b c\n" * 300_000)
    tokens = build(configured(tmp_path / "x.txt"), tmp_path / "work")
    path = tokens.directory / tokens.manifest.parts[0].name
    with store.open_parquet(path) as file:
        assert str(file.schema_arrow.field("token").type) == "int32"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(store.DamagedError):
        store.read_table(path)


def test_line_ends_can_be_words_that_windows_run_over(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a b\nc\n")
    settings = {"tokenizer": "whitespace", "end_of_line": "<eos>"}
    tokens = build(configured(tmp_path / "x.txt", tokenize=settings), tmp_path / "work")
    assert sentences(tokens) == [["a", "b", "<eos>", "c", "<eos>"]]
    assert counts(tokens)["<eos>"] == 2
    with pytest.raises(ConfigError, match="end_of_line needs tokenizer: whitespace"):
        configured(tmp_path / "x.txt", tokenize={"end_of_line": "<eos>"})


def test_a_task_may_run_twice_and_gives_an_equal_record(tmp_path: Path) -> None:
    config = configured(make_corpus(tmp_path / "data", files=1))
    plan = plan_corpus(config.corpus)
    (task,) = plan_tasks(config, plan, tmp_path / "work", tokenize.identity(config, plan)[1])
    assert tokenize_part(task, KeptStreams()) == tokenize_part(task, KeptStreams())


def test_local_ids_are_in_order_of_first_occurrence(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("b a b c\na c\n")
    tokens = build(configured(tmp_path / "x.txt"), tmp_path / "work")
    ids, _ = TokenFiles.of(tokens.directory / tokens.manifest.parts[0].name).read_sentences()
    np.testing.assert_array_equal(ids, [0, 1, 0, 2, 1, 2])


def test_a_run_of_megabytes_is_one_dropped_token_however_many_parts_it_spans(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"before " + b"x" * 3_500_000 + b" after\n")
    for block_bytes in (1 << 20, 1 << 25):
        config = configured(tmp_path / "x.txt", block_bytes=block_bytes, max_lost=1)
        totals = build(config, tmp_path / f"{block_bytes}").manifest.totals
        assert (totals["tokens"], totals["dropped_long_tokens"]) == (2, 1)
        assert totals["dropped_samples"] == ["x" * 59 + "…"]


def test_what_a_worker_keeps_of_a_part_is_what_its_files_say_and_is_given_away_once(tmp_path: Path) -> None:
    config = configured(make_corpus(tmp_path / "data"), block_bytes=4096)
    state = WorkerState()
    tokens = tokenize.build(Work(config, tmp_path / "work", InProcess(1, state)), plan_corpus(config.corpus))
    kept = state.of(KeptStreams)
    assert kept.bytes
    for part in token_parts(tokens):
        files = TokenFiles.of(tokens.directory / part.name)
        sentences = kept.take_sentences(files.tokens.name)
        assert sentences is not None
        assert [array.tolist() for array in sentences] == [array.tolist() for array in files.read_sentences()]
        assert kept.take_sentences(files.tokens.name) is None
    assert kept.bytes == 0
