"""A few bytes that would become gigabytes: expansion and memory are bounded before anything is held."""

from __future__ import annotations

import contextlib
import io
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import Corpus
from pipeline.errors import DataError
from pipeline.text.corpus import plan_corpus
from pipeline.text.cutting import cut_parts
from pipeline.text.formats import columns, messages, pages
from pipeline.text.losses import ReadCounts
from pipeline.text.reading import Reading, read_part

ROWS, LONG = 1_000_000, "word " * 1600


def read(path: Path, format: str, max_ratio: int = 2000, **options: Any) -> int:
    """Bytes of text in a file."""
    corpus = Corpus(inputs=[str(path)], format=format, **options)
    reading = Reading(corpus.format, corpus.text_field, stop_at_bad_records=corpus.bad_records == "stop", max_ratio=max_ratio)
    chunks = (
        chunk for part in cut_parts(plan_corpus(corpus), corpus.block_bytes) for chunk in read_part(part, reading, ReadCounts())
    )
    return sum(len(chunk.text) for chunk in chunks)


def repeated(word: str, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()).take(pa.array([0] * rows)), pa.array([word]))


def write(path: Path, column: pa.Array, **options: Any) -> int:
    table = pa.table({"text": column})
    if path.suffix == ".parquet":
        pq.write_table(table, path, **options)
    else:
        with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
            writer.write_table(table)
    return path.stat().st_size


def test_a_word_stored_once_and_repeated_without_end_is_refused_by_what_it_becomes(tmp_path: Path) -> None:
    assert write(tmp_path / "a.parquet", repeated(LONG, ROWS)) < 4000
    with pytest.raises(DataError, match=r"stored bytes grew beyond 16,777,216 \(corpus\.max_ratio=2000\)"):
        read(tmp_path / "a.parquet", "parquet")
    assert write(tmp_path / "a.arrow", repeated(LONG, ROWS), compression="zstd") < 20_000
    with pytest.raises(DataError, match=r"stored bytes grew beyond .* \(corpus\.max_ratio=2000\)"):
        read(tmp_path / "a.arrow", "arrow")


def test_rows_that_take_no_bytes_end(tmp_path: Path) -> None:
    rows = 1 << 24
    write(tmp_path / "a.parquet", pa.nulls(rows + 5000, pa.string()), row_group_size=rows + 5000)
    with pytest.raises(DataError, match=r"stored bytes hold more than [\d,]+ rows"):
        read(tmp_path / "a.parquet", "parquet", max_ratio=2, bad_records="skip")


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_a_list_of_one_word_repeated_is_not_held(tmp_path: Path, format: str) -> None:
    words = repeated(LONG, ROWS)
    write(tmp_path / f"a.{format}", pa.ListArray.from_arrays(pa.array([0, ROWS], pa.int32()), words))
    with pytest.raises(DataError, match=r"row 0: its words are 8,000,000,000 bytes together"):
        read(tmp_path / f"a.{format}", format)


@pytest.mark.turns(3, 3, of="bytes of others")
def test_views_of_the_same_bytes_are_taken_a_few_at_a_time(tmp_path: Path) -> None:
    long = ("word " * 200_000).encode()
    view = struct.pack("<i4sii", len(long), long[:4], 0, 0)
    column = pa.Array.from_buffers(pa.string_view(), 30_000, [None, pa.py_buffer(view * 30_000), pa.py_buffer(long)])
    write(tmp_path / "a.arrow", column)
    with pytest.raises(DataError, match="stored bytes grew beyond"):
        read(tmp_path / "a.arrow", "arrow")


def test_a_page_or_batch_that_is_too_large_to_be_held_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAXIMUM_PAGE_BYTES", 1 << 20)
    monkeypatch.setattr(messages, "MAXIMUM_MESSAGE_BYTES", 1 << 20)
    text = pa.array(["a river " * 100_000, "runs " * 200_000])
    assert write(tmp_path / "a.parquet", text, compression="zstd") < 10_000
    with pytest.raises(DataError, match=r"a page of row group 0 takes 1,800,\d+ bytes of memory.*write_batch_size=16"):
        read(tmp_path / "a.parquet", "parquet")
    write(tmp_path / "a.arrow", text, compression="zstd")
    with pytest.raises(DataError, match=r"a batch takes 1,800,\d+ bytes of memory when it is decompressed.*smaller batches"):
        read(tmp_path / "a.arrow", "arrow")


def test_a_batch_that_claims_to_be_larger_than_it_is_is_refused_before_memory_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    write(path, pa.array(["a river runs " * 10_000]), compression="zstd")
    size = 130_000
    false = path.read_bytes().replace(struct.pack("<q", size), struct.pack("<q", 1 << 50))
    assert false != path.read_bytes()
    path.write_bytes(false)
    with pytest.raises(DataError, match=r"a batch takes 1,125,899,906,[\d,]+ bytes of memory"):
        read(path, "arrow")


@pytest.mark.parametrize("options", [
    {}, {"compression": "zstd"}, {"compression": "none", "use_dictionary": False}, {"data_page_version": "2.0"},
    {"column_encoding": {"text": "DELTA_BYTE_ARRAY"}, "use_dictionary": False},
    {"write_page_checksum": True, "write_page_index": True},
], ids=str)  # fmt: skip
def test_headers_of_pages_say_what_the_footer_says(tmp_path: Path, options: dict[str, Any]) -> None:
    texts = [f"{'word ' * (row % 40)}{row % 900}" for row in range(9000)]
    layout = {"data_page_size": 300, "write_batch_size": 200, "row_group_size": 4000, "write_statistics": False}
    pq.write_table(pa.table({"text": texts}), tmp_path / "a", **layout, **options)
    metadata = pq.read_metadata(tmp_path / "a")
    with open(tmp_path / "a", "rb") as stored:
        groups = pages.row_groups(stored)
        assert [group.rows for group in groups] == [4000, 4000, 1000]
        for number, group in enumerate(groups):
            said, (chunk,) = metadata.row_group(number).column(0), group.chunks
            assert (chunk.path, chunk.values) == (said.path_in_schema, said.num_values)
            assert (chunk.uncompressed_bytes, chunk.compressed_bytes) == (
                said.total_uncompressed_size,
                said.total_compressed_size,
            )
            found = list(pages.page_sizes(stored, chunk))
            size = sum(size for _, size in found)
            assert len(found) > 4
            assert 0 < chunk.uncompressed_bytes - size < 60 * len(found)
            assert (pages.chunk_pages(stored, chunk).dictionary_bytes > 0) == said.has_dictionary_page


def test_statistics_that_do_not_fit_end_no_process(tmp_path: Path) -> None:
    """pyarrow ends the process that asks for this column's metadata: an exception of C++ that nobody takes."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a river runs", None] * 10}), path)
    # Two lists, of no repetition levels and of two definition levels, in each other's place.
    whole, lists = path.read_bytes(), b"\x19\x06\x19\x26\x14\x14"
    assert whole.count(lists) == 1
    path.write_bytes(whole.replace(lists, b"\x19\x26\x14\x14\x19\x06"))
    ask = "import sys, pyarrow.parquet as pq; pq.read_metadata(sys.argv[1]).row_group(0).column(0)"
    asked = subprocess.run([sys.executable, "-c", ask, path], capture_output=True, check=False)
    assert asked.returncode == -signal.SIGABRT, "pyarrow raises now: its metadata can be asked again"
    with contextlib.suppress(DataError):
        assert read(path, "parquet") > 10 * len("a river runs")


@pytest.mark.parametrize("body", [
    b"", b"\x19" + b"\xff" * 9 + b"\x01", b"\x49\xfc\xff\xff\xff\xff\x0f", b"\x1c" * 100, b"\x49\x1c\x15\x02\0",
    b"\x49\xf9" + b"\xf9" * 4000, b"\xff" * 200,
], ids=range(7))  # fmt: skip
def test_a_footer_that_somebody_made_up_is_refused_in_words(body: bytes) -> None:
    with pytest.raises(pages.BadPage):
        pages.row_groups(io.BytesIO(b"PAR1" + body + struct.pack("<I", len(body)) + b"PAR1"))


def test_a_value_of_a_large_dictionary_fits_in_each_row_that_is_taken_at_once() -> None:
    chunk = pages.ColumnChunk("text", 1_000_000, 6 << 20, 6 << 20, 4)
    rows = columns.rows_at_a_time(1_000_000, [chunk], [pages.ChunkPages(5 << 20, 5 << 20)])
    assert rows * (5 << 20) <= 32 << 20
