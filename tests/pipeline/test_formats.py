"""Records in every format: what is read, where the text is found, and that memory is bounded in bytes."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Corpus
from pipeline.errors import DataError
from pipeline.text.corpus import plan_corpus
from pipeline.text.cutting import cut_parts
from pipeline.text.encodings import has_line_ends
from pipeline.text.formats import json_values
from pipeline.text.formats.json_stream import text_pieces
from pipeline.text.formats.json_values import LONG, ByteSource, read_values
from pipeline.text.losses import ReadCounts
from pipeline.text.reading import Reading, read_part


def words(path: Path, block_bytes: int = 1 << 20, **options: object) -> list[list[str]]:
    """The words of each line of the texts."""
    corpus = Corpus(inputs=[str(path)], **options).model_copy(update={"block_bytes": block_bytes})  # type: ignore[arg-type]
    reading = Reading(corpus.format, corpus.text_field, encoding=corpus.encoding, stop_at_bad_records=True)
    parts = cut_parts(plan_corpus(corpus), block_bytes)
    text = b"".join(chunk.text for part in parts for chunk in read_part(part, reading, ReadCounts()))
    return [line.split() for line in text.decode().split("\n") if line.strip()]


RUNS, SEA = ["the", "river", "runs"], ["to", "the", "sea"]
RECORDS = [{"id": 1, "text": "the river runs", "meta": {"body": "x"}}, {"text": "to the sea", "meta": {"body": "y"}}]


@pytest.mark.parametrize("data", [
    "\n".join(map(json.dumps, RECORDS)), "".join(map(json.dumps, RECORDS)), json.dumps(RECORDS), json.dumps(RECORDS, indent=2),
    "\ufeff" + json.dumps(RECORDS[0], indent=1) + "\n\n" + json.dumps(RECORDS[1]) + "\r\n",
    "".join(f"\ufeff{json.dumps(record)}\n" for record in RECORDS),
], ids=["lines", "one after the other", "array", "pretty array", "pretty", "a mark before each"])  # fmt: skip
def test_any_sequence_of_json_values_is_read(tmp_path: Path, data: str) -> None:
    (tmp_path / "x.json").write_text(data)
    assert words(tmp_path / "x.json", format="jsonl") == [RUNS, SEA]
    assert words(tmp_path / "x.json", format="jsonl", text_field="meta.body") == [["x"], ["y"]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    records=st.lists(st.tuples(JSON, st.text(max_size=40), JSON), max_size=5), block=st.integers(1, 40),
    indent=st.sampled_from([None, 1]), ascii_only=st.booleans(),
)  # fmt: skip
@settings(max_examples=150, derandomize=True, deadline=None)
@pytest.mark.turns(3, 3, of="properties")
def test_a_value_too_long_to_be_held_gives_the_text_that_json_gives(
    records: list[tuple[Any, str, Any]], block: int, indent: int | None, ascii_only: bool
) -> None:
    values = [{"before": before, "text": text, "behind": {"text": behind}} for before, text, behind in records]
    data = "\n".join(json.dumps(value, indent=indent, ensure_ascii=ascii_only) for value in values).encode()
    held = json_values.HELD_BYTES
    json_values.HELD_BYTES = 24
    try:
        source = ByteSource(iter([data[at : at + block] for at in range(0, len(data), block)]))
        found = []
        for value, line, _ in read_values(source):
            text = b"".join(text_pieces(source, line, "text")).decode() if value is LONG else value["text"]
            found.append(text)
    finally:
        json_values.HELD_BYTES = held
    assert found == [text for _, text, _ in records]


@given(
    words=st.lists(st.text(max_size=6), min_size=1, max_size=12), others=st.lists(JSON, max_size=5), block=st.integers(1, 60),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", ": ")]), ascii_only=st.booleans(),
)  # fmt: skip
@settings(max_examples=150, derandomize=True, deadline=None)
@pytest.mark.turns(3, 3, of="properties")
def test_a_list_too_long_to_be_held_gives_its_words_and_no_others(
    words: list[str], others: list[Any], block: int, separators: tuple[str, str], ascii_only: bool
) -> None:
    value = {"a": others, "text": words, "b": {"text": others}, "c": ["x", *words, "x"]}
    data = json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    source = ByteSource(iter([data[at : at + block] for at in range(0, len(data), block)]))
    source.more()
    pieces = text_pieces(source, 1, "text")
    found = []
    while True:
        try:
            found.append(next(pieces))
        except StopIteration as end:
            walk = end.value
            break
    assert b"".join(found) == " ".join(words).encode()
    assert (walk.texts, walk.text_bytes, walk.raw_bytes) == (len(words), sum(len(word.encode()) for word in words), len(data))


@pytest.mark.parametrize("block", [1, 2, 3, 5, 1000])
def test_byte_order_marks_between_records_are_no_part_of_them_wherever_blocks_end(block: int) -> None:
    data = '\ufeff{"n": 1}\n\ufeff{"n":\n2}\ufeff{"n": 3}\r\n \ufeff \ufeff[{"n": 4}\n\ufeff,{"n": "\ufeff"}]\n\ufeff'.encode()
    found = read_values(ByteSource(iter([data[at : at + block] for at in range(0, len(data), block)])))
    assert [(value["n"], line) for value, line, _ in found] == [(1, 1), (2, 2), (3, 3), (4, 4), ("\ufeff", 5)]


def test_lists_of_words_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": ["the", "river", "runs"]}\n{"text": [["to", "the"], ["sea"]]}\n')
    expected = [RUNS, ["to", "the"], ["sea"]]
    assert words(tmp_path / "x.jsonl", format="jsonl") == expected
    pq.write_table(pa.table({"text": [RUNS, SEA]}), tmp_path / "x.parquet")
    assert words(tmp_path / "x.parquet", format="parquet") == [RUNS, SEA]
    pq.write_table(pa.table({"text": [[RUNS], [["to", "the"], ["sea"]]]}), tmp_path / "y.parquet")
    assert words(tmp_path / "y.parquet", format="parquet") == expected


TEXTS = ["the river runs", "to the sea"]
KINDS = [
    pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(),
    pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.large_string()),
]  # fmt: skip


def column_of(kind: pa.DataType) -> pa.Array:
    plain = pa.array(TEXTS * 40)
    return plain.cast(pa.binary()).cast(kind) if "binary" in str(kind) else plain.cast(kind)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_type_of_text_that_arrow_has_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"n": range(80), "text": column_of(kind)})
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    assert words(tmp_path / "x.arrow", format="arrow") == [RUNS, SEA] * 40
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=11)
    assert words(tmp_path / "x.parquet", block_bytes=300, format="parquet") == [RUNS, SEA] * 40


def test_fields_of_structs_are_found_by_a_dotted_path(tmp_path: Path) -> None:
    pq.write_table(pa.table({"meta": [{"body": {"text": text}, "n": 1} for text in TEXTS]}), tmp_path / "x.parquet")
    assert words(tmp_path / "x.parquet", format="parquet", text_field="meta.body.text") == [RUNS, SEA]
    with pytest.raises(DataError, match=r"column 'meta\.body' has no field 'txt', it is struct|column 'meta' has no field"):
        words(tmp_path / "x.parquet", format="parquet", text_field="meta.body.txt")


def test_a_folder_saved_by_datasets_and_one_of_spark_are_read(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    table = pa.table({"text": TEXTS})
    with pa.OSFile(str(saved / "data-00000-of-00001.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    (saved / "dataset_info.json").write_text("{}")
    (saved / "state.json").write_text("{}")
    assert words(saved, format="arrow") == [RUNS, SEA]
    spark = tmp_path / "spark" / "day=1"
    spark.mkdir(parents=True)
    pq.write_table(table, spark / "part-0000.snappy.parquet")
    for marker in ("_SUCCESS", "_metadata", "._SUCCESS.crc"):
        (spark.parent / marker).write_bytes(b"")
    assert words(tmp_path / "spark", format="parquet") == [RUNS, SEA]


@pytest.mark.parametrize(
    ("rows", "message"),
    [('1,the river, runs\n', r"line 2: 3 cells, expected 2 as in the first line: a delimiter in a cell must be quoted"),
     ('1,"the river\n2,to the sea\n', r"not CSV \(unexpected end of data\); a quotation mark inside .* must be doubled"),
     ('1,"the \\"river\\" runs"\n', r"line 2: not CSV .*must be doubled \(not \\\"\)")],
)  # fmt: skip
def test_a_row_of_which_a_part_would_be_lost_is_an_error(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "x.csv").write_text("id,text\n" + rows)
    with pytest.raises(DataError, match=message):
        words(tmp_path / "x.csv", format="csv")


def test_a_tab_in_the_text_of_a_tsv_is_an_error_and_empty_cells_after_it_are_not(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("id\ttext\n1\tto the sea\t\t\n")
    assert words(tmp_path / "x.tsv", format="tsv") == [SEA]
    (tmp_path / "x.tsv").write_text("id\ttext\n1\tto the sea\t\t\n2\tthe river\truns\n")
    with pytest.raises(DataError, match="line 3: 3 cells, expected 2"):
        words(tmp_path / "x.tsv", format="tsv")


def test_a_column_whose_name_another_has_too_is_an_error(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), table.schema) as file:
        file.write_table(table)
    (tmp_path / "x.csv").write_text("text,text\na,b\n")
    for format in ("parquet", "arrow", "csv"):
        with pytest.raises(DataError, match="2 columns have the name 'text'"):
            words(tmp_path / f"x.{format}", format=format)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_header_of_a_table_is_its_first_line_with_text_whatever_ends_it(tmp_path: Path, end: str) -> None:
    lines = ['\ufeff"text","id"', '"the river, runs",1', "to the sea,2", ""]
    (tmp_path / "x.csv").write_bytes(end.join(lines).encode())
    (tmp_path / "y.csv").write_bytes(end.join(["", "", *lines]).replace("\ufeff", "").encode())
    for name in ("x.csv", "y.csv"):
        assert words(tmp_path / name, format="csv") == [["the", "river,", "runs"], SEA]


def test_cells_of_tables_may_be_quoted_in_csv_and_never_are_in_tsv(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('\ufeffid;text\n1;"the river\nruns; ""fast"""\n\n2;to the sea\n')
    assert words(tmp_path / "x.csv", format="csv") == [["the", "river"], ["runs;", '"fast"'], SEA]
    (tmp_path / "x.tsv").write_text('id\ttext\n1\t"the river runs\n2\tto the sea\n')
    assert words(tmp_path / "x.tsv", format="tsv") == [['"the', "river", "runs"], SEA]
    assert words(tmp_path / "x.tsv", format="tsv", text_field="1") == [["id"], ["1"], ["2"]]
    with pytest.raises(DataError, match=r"no column 'body'; it has id, text; set corpus\.text_field"):
        words(tmp_path / "x.tsv", format="tsv", text_field="body")
    with pytest.raises(DataError, match=r"no column 'TEXT'; it has id, text; did you mean 'text'\? set corpus\.text_field: text"):
        words(tmp_path / "x.tsv", format="tsv", text_field="TEXT")


@pytest.mark.parametrize("said", ["sep=;", '\ufeff"sep=;"', "SEP=;\r"])
def test_a_first_line_that_names_the_delimiter_as_excel_writes_it_is_obeyed(tmp_path: Path, said: str) -> None:
    (tmp_path / "x.csv").write_text(f"{said}\nid;text;a,b,c,d\n1;the river runs;x\n2;to the sea;y\n")
    assert words(tmp_path / "x.csv", format="csv") == [RUNS, SEA]
    with pytest.raises(DataError, match=r"no column 'body'; it has id, text, a,b,c,d; set corpus\.text_field"):
        words(tmp_path / "x.csv", format="csv", text_field="body")


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "utf-16", "utf-16-le", "utf-32", "shift_jis"])
def test_text_in_another_encoding_is_read_wherever_blocks_end(tmp_path: Path, encoding: str) -> None:
    line = "l'été à la forêt" if encoding == "cp1252" else "天気 大学 river"
    text = "\n".join(f"{line} {index}" for index in range(30_000))
    (tmp_path / "x.txt").write_bytes(text.encode(encoding))
    assert words(tmp_path / "x.txt", block_bytes=4096, encoding=encoding) == [row.split() for row in text.split("\n")]
    corpus = Corpus(inputs=[str(tmp_path / "x.txt")], encoding=encoding, block_bytes=4096)
    assert (len(cut_parts(plan_corpus(corpus), 4096)) > 50) == (not encoding.startswith("utf-"))


@pytest.mark.parametrize(
    "encoding", ["cp1252", "koi8_r", "mac_roman", "cp437", "gb18030", "big5hkscs", "cp932", "euc_kr", "johab"]
)
def test_a_newline_ends_a_line_in_encodings_that_are_cut_and_is_no_part_of_a_character(encoding: str) -> None:
    assert has_line_ends(codecs.lookup(encoding).name)
    for first in range(0x80, 0x100):
        for second in range(0x30, 0x100, 7):
            with contextlib.suppress(UnicodeDecodeError):
                assert len(bytes([first, second]).decode(encoding)) == len((bytes([first, second]) + b"\n").decode(encoding)) - 1
            assert bytes([first, 0x0A]).decode(encoding, "replace").endswith("\n")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-7", "iso2022_jp", "hz", "cp037", "cp500"])
def test_an_encoding_in_which_a_newline_may_be_something_else_is_not_cut(encoding: str) -> None:
    assert not has_line_ends(codecs.lookup(encoding).name)


_MEASURED = """
import re, sys
from pathlib import Path
from pipeline.cluster.workers import InProcess
from pipeline.config import parse_config
from pipeline.stages.tokenize import build
from pipeline.stages.work import Work
from pipeline.text.corpus import plan_corpus
config = parse_config({"corpus": {"inputs": [sys.argv[1]], "format": sys.argv[3], "max_ratio": 100000}})
totals = build(Work(config, Path(sys.argv[2]), InProcess()), plan_corpus(config.corpus)).manifest.totals
status = dict(re.findall(r"(\\w+):\\s+(\\d+) kB", Path("/proc/self/status").read_text()))
peak_mb = (int(status["VmHWM"]) - int(status["RssFile"])) // 1024  # libraries in files are shared, and not what is bounded here
print(totals["tokens"], peak_mb)
"""


@pytest.mark.slow
@pytest.mark.parametrize("format", ["parquet", "jsonl"])
@pytest.mark.turns(5, 5, of="bounded memory")
def test_memory_is_bounded_by_bytes_and_not_by_rows_or_lines(tmp_path: Path, format: str) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak memory of one process is read from /proc, which is not here")
    path = tmp_path / f"x.{format}"
    row = " ".join(f"w{index % 5000}" for index in range(170_000))
    if format == "parquet":
        pq.write_table(pa.table({"text": [f"{index} {row}" for index in range(100)]}), path)
        tokens = 100 * 170_001
    else:
        with open(path, "w") as file:
            file.write('{"id": 1, "text": "')
            for _ in range(100):
                file.write(row + " \\n")
            file.write('"}\n')
        tokens = 100 * 170_000
    assert path.stat().st_size > 5_000_000
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(path), str(tmp_path / "work"), format], capture_output=True, text=True, check=True
    )
    found = [int(number) for number in re.findall(r"\d+", done.stdout)]
    assert found[0] == tokens
    # Text of 100 MB in rows of a megabyte, which pyarrow writes as one page, the least that can be read; or in one line.
    assert found[1] < (520 if format == "parquet" else 420)
