"""Text as it is found in the wild: broken, compressed, enormous, changing. Real files, and how they are read."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Corpus, Tokenize
from pipeline.errors import DataError, InputError, PipelineError
from pipeline.text.characters import WHITESPACE
from pipeline.text.corpus import plan_corpus
from pipeline.text.cutting import cut_parts
from pipeline.text.lines import LETTERS, SPACES, Breaks, cut_lines, skip_run
from pipeline.text.losses import BAD_RECORDS, LONG_TOKENS, NOT_TEXT, PUT_IN, READ, ReadCounts
from pipeline.text.reading import Reading, read_part
from pipeline.text.tokenizers import load_tokenizer
from tests.pipeline.texts_on_disk import read, write
from tests.sampling import ALL


def zstd(data: bytes) -> bytes:
    sink = io.BytesIO()
    with pa.CompressedOutputStream(pa.PythonFile(sink, "w"), "zstd") as stream:
        stream.write(data)
        stream.flush()
        compressed = sink
        sink.close = lambda: None  # type: ignore[method-assign]
    return compressed.getvalue()


def xz(data: bytes) -> bytes:
    return lzma.compress(data)


COMPRESSORS = {".gz": gzip.compress, ".zst": zstd, ".bz2": bz2.compress, ".xz": xz}
TEXT = "\n".join(f"line {index} of the text {index * 7919 % 1000}" for index in range(3000)).encode()


# ── bytes that are not text ──────────────────────────────────────────────────────────────────────────────────────────


@given(
    data=st.lists(
        st.sampled_from(
            [b"ok ", b"\n", b"\xed\xa0\x80", b"\xc0\x80", b"\xff", b"\xe2\x82", "é€😀\ufffd".encode(), b"\xf4\x90\x80\x80"]
        ),
        max_size=30,
    )
)
@settings(max_examples=100, derandomize=True, deadline=None)
def test_bad_utf8_becomes_what_python_replaces_it_with_and_is_counted(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes]
) -> None:
    raw = b"".join(data)
    text, counts = read(write(tmp_path_factory.mktemp("t") / "x.txt", raw), sniff=False, max_lost=1)
    expected = raw.decode("utf-8", "replace")
    assert text.decode().split() == expected.split()
    assert counts.count(NOT_TEXT) == expected.count("\ufffd") - "".join(
        map(bytes.decode, [d for d in data if d.endswith("\ufffd".encode())])
    ).count("\ufffd")


def test_strict_reading_stops_with_file_and_offset(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", b"a" * 5000 + b"\n" + b"good \xff bad\n")
    with pytest.raises(DataError, match=r"x\.txt: byte 5,006 of its text is not UTF-8 \(0xff"):
        read(path, block_bytes=1024, encoding_errors="strict")


def test_nul_separates_words_and_ends_nothing(tmp_path: Path) -> None:
    text, _ = read(write(tmp_path / "x.txt", b"a\0b\nc\0\0d\n"), write(tmp_path / "y.txt", bytes(5000)))
    assert text.split() == [b"a", b"b", b"c", b"d"]


def test_a_byte_order_mark_is_dropped_at_the_start_only(tmp_path: Path) -> None:
    text, _ = read(
        write(tmp_path / "x.txt", "\ufeffa\n\ufeffb\n"), write(tmp_path / "y.txt.gz", gzip.compress("\ufeffc".encode()))
    )
    assert sorted(text.decode().split()) == ["a", "c", "\ufeffb"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-be"])
def test_utf16_and_utf32_are_refused_by_name(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding in ("utf-16", "utf-32") else "\ufeff"
    with pytest.raises(DataError, match=r"x\.txt: starts with a UTF-16 or UTF-32 .* expected UTF-8; set corpus.encoding: utf-"):
        read(write(tmp_path / "x.txt", (mark + "text\n").encode(encoding)))


def test_a_compressed_file_under_a_plain_name_is_refused(tmp_path: Path) -> None:
    for index, (suffix, compress) in enumerate(COMPRESSORS.items()):
        with pytest.raises(DataError, match=rf"looks like a \{suffix} file .* rename it"):
            read(write(tmp_path / f"{index}.txt", compress(TEXT)))


# ── compressed files ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_files_hold_their_text_and_members_follow_each_other(tmp_path: Path, suffix: str) -> None:
    compress = COMPRESSORS[suffix]
    text, counts = read(write(tmp_path / f"x{suffix}", compress(TEXT) + compress(b"\nlast line")))
    assert text.split() == (TEXT + b"\nlast line").split()
    assert counts.stored_bytes == (tmp_path / f"x{suffix}").stat().st_size


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_truncated_file_is_an_error_wherever_it_is_cut(tmp_path: Path, suffix: str) -> None:
    whole = COMPRESSORS[suffix](TEXT)
    for cut in [*range(2, len(whole) - 8, len(whole) // 12), *range(len(whole) - 8, len(whole))]:
        with pytest.raises(DataError, match=rf"x\{suffix}: damaged .* near byte .* nothing of this file was counted"):
            read(write(tmp_path / f"x{suffix}", whole[:cut]))


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_trailing_garbage_is_an_error(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(DataError, match=r"damaged .* near byte"):
        read(write(tmp_path / f"x{suffix}", COMPRESSORS[suffix](TEXT) + b"garbage behind the end"))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_a_flipped_bit_is_an_error(tmp_path: Path, suffix: str) -> None:
    whole = bytearray(COMPRESSORS[suffix](TEXT))
    for at in range(len(whole) // 3, len(whole), len(whole) // 7):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        with pytest.raises(DataError, match="damaged"):
            read(write(tmp_path / f"x{suffix}", bytes(damaged)))


def test_a_zstd_file_without_checksum_is_read_and_noted(tmp_path: Path) -> None:
    compressed = zstd(TEXT)
    _, counts = read(write(tmp_path / "x.zst", compressed))
    assert any("no checksum" in remark for remark in counts.remarks) == (compressed[4] & 4 == 0)
    assert counts.remarks, "pyarrow writes no checksum"


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_a_decompression_bomb_stops_at_its_limit(tmp_path: Path, suffix: str) -> None:
    bomb = COMPRESSORS[suffix](bytes(24 << 20))
    with pytest.raises(DataError, match=r"grew beyond .*\(corpus\.max_ratio=10\): .* raise corpus\.max_ratio"):
        read(write(tmp_path / f"x{suffix}", bomb), max_ratio=10)


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_both_line_ends_give_the_same_lines(tmp_path: Path, ending: str) -> None:
    text, _ = read(write(tmp_path / "x.txt", ending.join(["one two", "", "three", "four"])))
    assert [line.split() for line in text.split(b"\n") if line.strip()] == [[b"one", b"two"], [b"three"], [b"four"]]


def test_nothing_else_ends_a_line() -> None:
    assert set(WHITESPACE) == {character for character in map(chr, range(0x110000)) if character.isspace()}, (
        "the fixed list is the white space that str.split() knows today"
    )


LINES = st.lists(
    st.text(alphabet=st.sampled_from("ab \t\u3000é\u2028"), max_size=60) | st.just("x" * 90) | st.just("long line " * 30),
    max_size=40,
)


@given(lines=LINES, block=st.integers(1, 400), look=st.integers(64, 200))
@settings(max_examples=150, derandomize=True, deadline=None)
@pytest.mark.turns(3, 4, of="properties")
def test_no_word_is_lost_doubled_or_split_wherever_a_file_is_cut(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], block: int, look: int
) -> None:
    raw = "\n".join(lines)
    path = write(tmp_path_factory.getbasetemp() / "cut.txt", raw)
    text, counts = read(path, block_bytes=block, look_bytes=look)
    longest = 64  # a run at least this long may be dropped as an over-long token, and is one for every tokenizer
    kept = [word for word in text.decode().split() if len(word.encode()) < longest]
    assert kept == [word for word in raw.split() if len(word.encode()) < longest]
    overlong = [word for word in raw.split() if len(word.encode()) >= longest]
    seen = [word for word in text.decode().split() if len(word.encode()) >= longest]
    assert len(seen) + counts.count(LONG_TOKENS) == len(overlong), "each over-long token is met once"


@given(lines=st.lists(st.text(alphabet="ab c", max_size=40), max_size=40), block=st.integers(1, 400))
@settings(max_examples=80, derandomize=True, deadline=None)
def test_lines_stay_whole_wherever_a_file_is_cut(tmp_path_factory: pytest.TempPathFactory, lines: list[str], block: int) -> None:
    path = write(tmp_path_factory.getbasetemp() / "lines.txt", "\n".join(lines))
    text, _ = read(path, block_bytes=block)
    assert [line for line in text.decode().split("\n") if line.strip()] == [line for line in lines if line.strip()]


def test_one_line_of_many_megabytes_keeps_every_word(tmp_path: Path) -> None:
    words = [f"w{index % 977}" for index in range(700_000)]
    path = write(tmp_path / "x.txt", " ".join(words))
    for block_bytes in (100_000, 1 << 20, 1 << 30):
        text, _ = read(path, block_bytes=block_bytes)
        assert text.decode().split() == words
    assert read(write(tmp_path / "x.txt.gz", gzip.compress(path.read_bytes(), 1)))[0].decode().split() == words


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def jsonl(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize("block_bytes", [30, 100, 1 << 20])
def test_json_lines_give_the_lines_of_their_texts(tmp_path: Path, block_bytes: int) -> None:
    path = write(
        tmp_path / "x.jsonl", jsonl(*({"id": index, "text": f"first {index}\nsecond é"} for index in range(40))) + "\n  \n"
    )
    text, _ = read(path, format="jsonl", block_bytes=block_bytes)
    assert text.decode().split() == [word for index in range(40) for word in ("first", str(index), "second", "é")]
    assert read(write(tmp_path / "y.jsonl.gz", gzip.compress(path.read_bytes())), format="jsonl")[0].split() == text.split()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"text": "x", ]', r"line 21: not valid JSON"),
        ('{"body": "x"}', r"line 21: no field 'text'; it has body; set corpus\.text_field"),
        ('{"text": 7}', r"line 21: expected a string in 'text', found int"),
        ('{"text": null}', r"line 21: expected a string in 'text', found null"),
        ("[1]", r"line 21: expected an object, found int"),
        ("{}", r"line 21: no field 'text'; it has no fields;"),
        (
            '{"id": 1, "Text": "x"}',
            r"line 21: no field 'text'; it has id, Text; did you mean 'Text'\? set corpus\.text_field: Text;",
        ),
        ('{"text": {"n": 1, "en": "x"}}', r"line 21: .* 'text', found dict; set corpus\.text_field: text\.en;"),
        ('{"text": {"n": 1}}', r"line 21: .* 'text', found dict; nothing"),
    ],
)
@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
def test_a_bad_record_stops_the_run_with_file_and_line(tmp_path: Path, bad: str, message: str, block_bytes: int) -> None:
    path = write(tmp_path / "x.jsonl", jsonl(*[{"text": "fine"}] * 20) + bad + "\n" + jsonl({"text": "more"}))
    with pytest.raises(DataError, match=r"x\.jsonl: " + message):
        read(path, format="jsonl", block_bytes=block_bytes, bad_records="stop")


def test_a_path_into_a_list_of_records_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", json.dumps({"talk": {"turns": [{"text": "the river"}]}}))
    with pytest.raises(DataError, match=r"'talk\.turns' holds a list, .*jq -c '\.talk\.turns\[\]'"):
        read(path, format="jsonl", text_field="talk.turns.text")


def test_a_lone_surrogate_in_json_is_counted_as_bad_text(tmp_path: Path) -> None:
    text, counts = read(write(tmp_path / "x.jsonl", '{"text": "a \\ud800 b"}\n'), format="jsonl")
    assert text.decode().split()[0] == "a"
    assert counts.count(NOT_TEXT) > 0


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_gives_the_lines_of_its_column_and_counts_nulls(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"body": pa.array(["one two", None, "three\nfour"] * 100).cast(kind), "n": range(300)})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=50)
    text, counts = read(tmp_path / "x.parquet", format="parquet", text_field="body", block_bytes=100, bad_records="skip")
    assert text.split() == [b"one", b"two", b"three", b"four"] * 100
    assert (counts.count(BAD_RECORDS), counts.count("records")) == (100, 300)


def test_a_parquet_column_that_is_missing_or_no_string_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1], "body": ["x"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: no column 'text'; it has n, body; set corpus\.text_field"):
        read(tmp_path / "x.parquet", format="parquet")
    with pytest.raises(DataError, match=r"column 'n' must hold strings, found int64"):
        read(tmp_path / "x.parquet", format="parquet", text_field="n")
    with pytest.raises(DataError, match=r"no column 'BODY'; it has n, body; did you mean 'body'\? set corpus\.text_field: body"):
        read(tmp_path / "x.parquet", format="parquet", text_field="BODY")
    pq.write_table(pa.table({"text": [{"n": 1, "en": "x"}]}), tmp_path / "y.parquet")
    with pytest.raises(DataError, match=r"must hold strings, found struct<.*>; set corpus\.text_field: text\.en"):
        read(tmp_path / "y.parquet", format="parquet")
    assert read(tmp_path / "y.parquet", format="parquet", text_field="text.en")[0].split() == [b"x"]


# ── files that change ────────────────────────────────────────────────────────────────────────────────────────────────


def read_after(path: Path, change: object, block_bytes: int = 1 << 20) -> None:
    parts = cut_parts(plan_corpus(Corpus(inputs=[str(path)], block_bytes=max(block_bytes, 1 << 10))), block_bytes)
    change()  # type: ignore[operator]
    for part in parts:
        list(read_part(part, Reading(), ReadCounts()))


@pytest.mark.parametrize("block_bytes", [1000, 1 << 20])
def test_a_file_that_changed_after_planning_is_named(tmp_path: Path, block_bytes: int) -> None:
    path = write(tmp_path / "x.txt", TEXT)

    def grow() -> None:
        with open(path, "ab") as file:
            file.write(b"more\n")

    def overwrite() -> None:
        before = path.stat()
        path.write_bytes(TEXT.replace(b"line 7 ", b"LINE 7 "))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def exchange() -> None:
        write(tmp_path / "y", TEXT.upper()).rename(path)

    for change in (grow, overwrite, exchange):
        write(path, TEXT)
        with pytest.raises(DataError, match=r"x\.txt: changed since the run was planned .* run again"):
            read_after(path, change, block_bytes)


def test_a_new_link_or_a_copy_with_other_times_is_no_change(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", TEXT)
    read_after(path, lambda: os.link(path, tmp_path / "y.txt"), block_bytes=1000)
    read_after(path, lambda: os.utime(path, ns=(1, 1)), block_bytes=1000)


def test_a_file_that_vanished_or_became_a_pipe_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", TEXT)
    with pytest.raises(InputError, match=r"x\.txt: it was there when the run was planned and is gone"):
        read_after(path, path.unlink)
    path = write(tmp_path / "x.txt", TEXT)
    with pytest.raises(PipelineError, match=r"x\.txt: changed since the run was planned"):
        read_after(path, lambda: (path.unlink(), os.mkfifo(path)))


# ── size ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

_MEASURED = """
import re, sys
from pathlib import Path
from pipeline.cluster.workers import InProcess
from pipeline.config import parse_config
from pipeline.text.corpus import plan_corpus
from pipeline.stages.tokenize import build
from pipeline.stages.work import Work
config = parse_config({"corpus": {"inputs": [sys.argv[1]], "max_ratio": 1000000, "max_lost": 1}})
tokens = build(Work(config, Path(sys.argv[2]), InProcess()), plan_corpus(config.corpus))
totals = tokens.manifest.totals
status = dict(re.findall(r"(\\w+):\\s+(\\d+) kB", Path("/proc/self/status").read_text()))
peak_mb = (int(status["VmHWM"]) - int(status["RssFile"])) // 1024  # libraries in files are shared, and not what is bounded here
print(totals["tokens"], totals["dropped_long_tokens"], totals["text_bytes"], peak_mb)
"""


def measure(path: Path, workdir: Path) -> list[int]:
    """[tokens, dropped, bytes of text, peak MB] from tokenizing a file in a separate process."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak memory of one process is read from /proc, which is not here")
    done = subprocess.run([sys.executable, "-c", _MEASURED, str(path), str(workdir)], capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.turns(10, 15, of="bounded memory")
def test_a_line_of_two_gigabytes_without_a_space_is_one_dropped_token(tmp_path: Path) -> None:
    """`make test` takes 640 MB, which is more than may be held too; W2V_ALL=1 takes more than 32 bits can count."""
    path = tmp_path / "x.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(b"before ")
        for _ in range(128 if ALL else 40):
            stream.write(b"x" * (1 << 24))
        stream.write(b" after\n")
    tokens, dropped, _, peak_mb = measure(path, tmp_path / "work")
    assert (tokens, dropped) == (2, 1)
    assert peak_mb < 420


@pytest.mark.slow
@pytest.mark.turns(5, 4, of="bounded memory")
def test_half_a_sparse_gigabyte_passes_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with open(path, "wb") as file:
        file.write(b"before ")
        file.truncate(1 << 29)
        file.seek(0, os.SEEK_END)
        file.write(b" after\n")
    tokens, dropped, _, peak_mb = measure(path, tmp_path / "work")
    assert (tokens, dropped) == (2, 0)
    assert peak_mb < 420


@pytest.mark.turns(5, 3, of="bounded memory")
def test_a_bomb_within_its_limit_passes_in_bounded_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gz", gzip.compress(b"a b c d\n" * (40 << 17), 9))
    tokens, _, text_bytes, peak_mb = measure(path, tmp_path / "work")
    assert (tokens, text_bytes) == (4 * (40 << 17), 40 << 20)
    assert peak_mb < 420


# ── runs without white space ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_ends_at_white_space_that_two_blocks_share() -> None:
    first, second = "x" * 50 + "\u3000", "after the run"
    raw = (first + second).encode()
    for cut in range(40, 56):
        rest, skipped = skip_run(iter([raw[:cut], raw[cut:]]))
        assert (rest + (raw[cut:] if cut >= 53 else b"")).decode() == "\u3000after the run"
        assert skipped == 50


def test_a_run_at_the_end_is_dropped_like_any_other() -> None:
    counts = ReadCounts()
    assert list(cut_lines(iter([b"a\nb " + b"x" * 61]), 64, counts)) == [(0, b"a\n"), (2, b"b " + b"x" * 61)]
    assert list(cut_lines(iter([b"a\nb ", b"x" * 64]), 64, counts)) == [(0, b"a\n"), (2, b"b ")]
    assert counts.count(LONG_TOKENS) == 1
    assert counts.overlong_samples == [b"x" * 64]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_after_text_in_utf8_is_lost_and_counted(tmp_path: Path, encoding: str) -> None:
    lines = "the river runs to the sea\n" * 100
    text, counts = read(write(tmp_path / "x.txt", b"a first line\n" * 6000 + lines.encode(encoding)))
    assert set(text.split()) <= {b"a", b"first", b"line", b"t"}, "no letter of it is a word, but perhaps the first"
    assert counts.total(NOT_TEXT) == pytest.approx(2 * len(lines), abs=4)
    assert counts.total(READ) + counts.total(PUT_IN) - counts.total(NOT_TEXT) == pytest.approx(len(text), abs=2)


@pytest.mark.parametrize(
    ("text", "breaks"),
    [("ab\u200bcd\u200b", SPACES), ("ภาษา\u200bไทย\u200b", LETTERS), ("يولد،جميع؛", LETTERS), ("मनुष्य।सभी॥", LETTERS),
     ("བོད།སྐད།", LETTERS)],
    ids=["zero-width spaces", "Thai", "Arabic", "Hindi", "Tibetan"],
)  # fmt: skip
def test_a_long_line_without_white_space_is_cut_where_its_words_end(text: str, breaks: Breaks) -> None:
    counts, line = ReadCounts(), text * 40
    tokenizer = load_tokenizer(Tokenize(tokenizer="simple" if breaks is LETTERS else "whitespace"))
    data = line.encode()
    for size in (7, 50, 64):
        blocks = (data[at : at + size] for at in range(0, len(data), size))
        chunks = [chunk.decode() for _, chunk in cut_lines(blocks, 64, counts, breaks=breaks)]
        assert "".join(chunks) == line
        assert len(chunks) > 2
        assert [word for chunk in chunks for row in tokenizer.split(chunk) for word in row] == tokenizer.split(line)[0]
    assert not counts.count(LONG_TOKENS)
