"""No byte of input is unaccounted for, in any format, and losses are reported or stop the run."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cluster.workers import InProcess
from pipeline.config import parse_config
from pipeline.errors import DataError
from pipeline.stages.tokenize import build
from pipeline.stages.work import Work
from pipeline.text.corpus import plan_corpus
from pipeline.text.losses import KEPT_OR_DROPPED, PUT_IN, READ


def totals_of(path: Path, workdir: Path, tokenize: dict[str, Any] | None = None, **corpus: Any) -> dict[str, Any]:
    """The totals of tokenizing the file or folder."""
    config = parse_config({"corpus": {"inputs": [str(path)], **corpus}, "tokenize": tokenize or {}})
    return dict(build(Work(config, workdir, InProcess()), plan_corpus(config.corpus)).manifest.totals)


PIECES = st.lists(
    st.sampled_from(
        [b"word ", b"Two ", b"\n", b"\n\n", b"... --- \n", b"\xff\xfe", b"\xed\xa0\x80", "é 한국어 中文。".encode(),
         b"x" * 300 + b" ",
         b"\0", b"\r\n", "\ufeff".encode(), b"\xe2\x82", b'"', b",", b"\t", b"{", "ﷺ".encode() * 40]
    ) | st.binary(max_size=6),
    max_size=25,
)  # fmt: skip
SIZE = st.sampled_from([1024, 1 << 20])


@given(pieces=PIECES, block=SIZE, compressed=st.booleans(), tokenizer=st.sampled_from(["simple", "whitespace", "regex"]))
@settings(max_examples=60, derandomize=True, deadline=None)
@pytest.mark.turns(3, 2, of="properties")
def test_every_byte_of_any_lines_is_in_a_sentence_or_counted_as_dropped(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], block: int, compressed: bool, tokenizer: str
) -> None:
    raw = b"".join([b"one word\n", *pieces * (40 if block == 1024 else 1)])
    folder = tmp_path_factory.mktemp("lines")
    path = folder / ("x.txt.gz" if compressed else "x.txt")
    path.write_bytes(gzip.compress(raw) if compressed else raw)
    chosen = {"tokenizer": tokenizer, "max_token_bytes": 64}
    totals = totals_of(path, folder / "work", chosen, block_bytes=block, max_lost=1, sniff=False)
    sizes = totals["bytes"]
    assert sizes[READ] == len(raw)
    assert sizes[READ] + sizes[PUT_IN] == sum(sizes[name] for name in KEPT_OR_DROPPED)
    assert all(sizes[name] >= 0 for name in sizes)
    good = raw.decode("utf-8", "ignore").encode()
    assert sizes["not_text"] == len(raw) - len(good), "what Python ignores is what is not text"


TEXTS = st.lists(st.none() | st.text(alphabet="aé \n\"\\,\t中😀'", max_size=30) | st.integers(), min_size=1, max_size=12)


def in_format(format: str, values: list[Any], path: Path) -> list[bytes]:
    """Writes records with these values in `text`; returns the number of bytes of all texts."""
    texts = [value for value in values if isinstance(value, str)]
    if format == "jsonl":
        path.write_text("\n".join(json.dumps({"id": 1, "text": value}) for value in values))
    elif format == "parquet":
        texts = [value if isinstance(value, str) or value is None else str(value) for value in values]
        pq.write_table(pa.table({"n": range(len(texts)), "text": pa.array(texts, pa.string())}), path, row_group_size=3)
    elif format == "arrow":
        texts = [value if isinstance(value, str) or value is None else str(value) for value in values]
        table = pa.table({"text": pa.array(texts, pa.large_string())})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    else:
        texts = [str(value) if value is not None else "" for value in values]
        if format == "tsv":
            texts = [text.translate(str.maketrans("\t\n\r", "   ")) for text in texts]
        with open(path, "w", newline="") as file:
            quoting = csv.QUOTE_ALL if format == "csv" else csv.QUOTE_NONE
            rows = csv.writer(
                file, delimiter="," if format == "csv" else "\t", quoting=quoting, quotechar=None if format == "tsv" else '"',
                lineterminator="\n",
            )  # fmt: skip
            rows.writerow(["id", "text"])
            rows.writerows(["1", text] for text in texts)
    return [text.encode() for text in texts if text is not None]


@given(values=TEXTS)
@settings(max_examples=25, derandomize=True, deadline=None)
@pytest.mark.parametrize("format", ["jsonl", "csv", "tsv", "parquet", "arrow"])
def test_every_byte_of_any_records_is_in_a_sentence_or_counted_as_dropped(
    tmp_path_factory: pytest.TempPathFactory, format: str, values: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("records")
    path = folder / f"x.{format}"
    texts = in_format(format, ["one word", *values], path)
    totals = totals_of(path, folder / "work", format=format, max_lost=1, block_bytes=1024, bad_records="skip")
    sizes = totals["bytes"]
    if format in ("jsonl", "csv", "tsv"):
        assert sizes[READ] == path.stat().st_size
    assert sizes[READ] - sizes["outside"] - sizes["bad_records"] == sum(map(len, texts)), "the texts, and nothing else, are text"
    assert sizes[READ] + sizes[PUT_IN] == sum(sizes[name] for name in KEPT_OR_DROPPED)
    assert totals["records"] == len(values) + 1
    assert totals["bad_records"] == len(values) + 1 - len(texts)


def test_too_much_loss_stops_the_run_and_names_the_worst_files_with_the_encoding_that_fits(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "good.txt").write_text("the river runs to the sea\n" * 300)
    (folder / "french.txt").write_bytes("l'été à la forêt, où l'élève répète un café\n".encode("latin-1") * 90)
    with pytest.raises(
        DataError, match=r"(?s)is not UTF-8 .*max_lost allows 1 %.*french\.txt: 23 % .* set corpus\.encoding: cp1252"
    ):
        totals_of(folder, tmp_path / "work")
    totals = totals_of(folder / "french.txt", tmp_path / "work", encoding="cp1252")
    assert totals["bytes"]["not_text"] == 0
    assert totals["tokens"] == 90 * 11
    assert any("is not utf-8 and became" in note for note in totals_of(folder, tmp_path / "work", max_lost=0.2)["notes"])


def test_a_loss_after_the_first_bytes_stops_the_run_once_it_is_known(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"the river runs\n" * 10_000 + b"caf\xe9 " * 10_000 + b"x" * 20_000 + b"\n")
    with pytest.raises(DataError, match=r"(?s)would be lost.*x\.txt: 4\.5 % is not utf-8 .*, 9\.1 % is tokens longer than"):
        totals_of(path, tmp_path / "work")
    assert not list((tmp_path / "work").rglob("manifest.json"))


def test_the_loss_of_a_byte_or_two_of_a_tiny_corpus_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"caf\xe9 the sea\n")
    assert totals_of(tmp_path / "x.txt", tmp_path / "work")["tokens"] == 3


def test_empty_files_wordless_files_and_equal_texts_are_reported(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("the river\n")
    (folder / "a.txt.gz").write_bytes(gzip.compress(b"the river\n"))
    (folder / "b.txt.gz").write_bytes(b"")
    (folder / "c.txt").write_text("... --- ...\n")
    notes = "\n".join(totals_of(folder, tmp_path / "work")["notes"])
    assert "1 text is there twice, plain or compressed" in notes
    assert f"1 of 4 files is empty, for example {folder}/b.txt.gz" in notes
    assert f"1 of 4 files (12 bytes) gave no word, for example {folder}/c.txt" in notes


def test_scripts_without_spaces_are_reported_with_a_tokenizer_that_splits_them(tmp_path: Path) -> None:
    clause = "今天天气不错，我们去公园散步。"
    (tmp_path / "x.txt").write_text(clause * 60_000 + "\nthe river runs\n")
    totals = totals_of(tmp_path / "x.txt", tmp_path / "work", block_bytes=1 << 20)
    assert totals["tokens"] == 60_000 * 13 + 3, "a line of two megabytes is text, word by word as in short lines"
    assert totals["dropped_long_tokens"] == 0
    assert any("single letters of Chinese or Japanese text" in note and "the extra icu" in note for note in totals["notes"])


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_null_missing_and_wrong_types_follow_one_key_in_every_format(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"x.{format}"
    if format == "jsonl":
        path.write_text('{"text": "a b"}\n{"text": null}\n{"id": 3}\n{"text": 5}\n')
    else:
        pq.write_table(pa.table({"text": pa.array(["a b", None, None, None])}), path)
    with pytest.raises(DataError, match=r"expected a string in 'text', found null; .*corpus\.bad_records: skip"):
        totals_of(path, tmp_path / "work", format=format)
    totals = totals_of(path, tmp_path / "work", format=format, bad_records="skip")
    assert (totals["tokens"], totals["records"], totals["bad_records"]) == (2, 4, 3)
    assert any(note.startswith("3 of 4 records (75 %) had no text and were skipped") for note in totals["notes"])
    with pytest.raises(DataError, match=r"found null; correct the file, or set corpus\.bad_records: skip"):
        totals_of(path, tmp_path / "work", format=format)


def test_bad_utf8_in_parquet_is_repaired_and_counted_as_in_every_format(tmp_path: Path) -> None:
    array = pa.array([b"caf\xe9 noir", b"the sea"] * 300).view(pa.string())
    pq.write_table(pa.table({"text": array}), tmp_path / "x.parquet")
    totals = totals_of(tmp_path / "x.parquet", tmp_path / "work", format="parquet", max_lost=0.1)
    assert (totals["tokens"], totals["invalid_utf8"], totals["bytes"]["not_text"]) == (1200, 300, 300)


def test_halves_of_characters_that_json_spells_are_told_as_that_and_not_as_an_encoding(tmp_path: Path) -> None:
    halves, few, both = tmp_path / "halves.jsonl", tmp_path / "few.jsonl", tmp_path / "both.jsonl"
    halves.write_text('{"text": "bad \\ud800 word \\udc00x"}\n' * 9)
    with pytest.raises(
        DataError, match=r"halves\.jsonl: 35 % is halves of characters, which JSON can spell \(\\ud800\) \("
    ) as told:
        totals_of(halves, tmp_path / "work", format="jsonl")
    assert "Mend what wrote the JSON" in str(told.value)
    assert "corpus.encoding" not in str(told.value)
    assert "utf-8" not in str(told.value)
    with pytest.raises(DataError, match=r"begins half of a character, .*; corpus\.encoding_errors is strict: mend the file"):
        totals_of(halves, tmp_path / "work", format="jsonl", encoding_errors="strict")
    few.write_text('{"text": "cut \\ud83d"}\n' + '{"text": "whole \\ud83d\\ude00 words"}\n' * 999)
    totals = totals_of(few, tmp_path / "work", format="jsonl")
    assert any(r"is halves of characters, which JSON can spell (\ud800) and became 3 U+FFFD" in note for note in totals["notes"])
    halves.write_text('{"text": "' + "bad \\ud800 word \\udc00x " * 200_000 + '"}')  # too long to be held
    with pytest.raises(DataError, match=r"halves\.jsonl: 33 % is halves of characters"):
        totals_of(halves, tmp_path / "work", format="jsonl")
    both.write_bytes(b'{"text": "cut \\ud83d"}\n{"text": "\xff\xff\xff\xff"}\n')
    notes = totals_of(both, tmp_path / "work", format="jsonl", max_lost=1)["notes"]
    assert any("is not utf-8, or halves of characters, which JSON can spell" in note for note in notes)


def test_a_member_of_an_archive_counts_as_text_of_its_archive(tmp_path: Path) -> None:
    import tarfile
    import zipfile

    text = b"the river runs\n" * 5
    with zipfile.ZipFile(tmp_path / "x.ZIP", "w") as archive:
        archive.writestr("a/one.txt", text)
        archive.writestr("a/.hidden", b"secret")
        archive.writestr("README.md", b"about")
    with tarfile.open(tmp_path / "y.tgz", "w:gz") as tar:
        member = tarfile.TarInfo("two.txt")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    for name in ("x.ZIP", "y.tgz"):
        totals = totals_of(tmp_path / name, tmp_path / "work")
        assert (totals["tokens"], totals["bytes"][READ]) == (15, len(text))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("page.html", b"<!DOCTYPE html><p>the river</p>\n" * 9)
    with pytest.raises(DataError, match=r"z\.zip/page\.html: looks like HTML"):
        totals_of(tmp_path / "z.zip", tmp_path / "work")
