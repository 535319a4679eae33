"""Vectors of other programs are loaded completely or refused by name, and anything that was skipped is reported."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import mmap
import os
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from w2v_core.vectors import VectorFileNote, WordVectors

ROWS = np.array([[1, 2, 3], [4, 5, 6.5]], np.float32)
TEXT = b"2 3\na 1 2 3\nb 4 5 6.5\n"
BINARY = b"2 3\na " + ROWS[0].tobytes() + b"\nb " + ROWS[1].tobytes() + b"\n"


def load(folder: Path, content: bytes, name: str = "foreign", **options: Any) -> tuple[list[str], list[list[float]]]:
    (folder / name).write_bytes(content)
    found = WordVectors.load(folder / name, **options)
    return list(found.words), found.matrix.tolist()


EXPECTED = (["a", "b"], ROWS.tolist())


@pytest.mark.parametrize("name", ["v.parquet", "v.safetensors", "v.txt", "v.txt.gz"])
def test_a_file_of_vectors_is_read_whatever_bytes_its_name_holds(tmp_path: Path, name: str) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9" + name.encode())
    if name == "v.parquet":
        pq.write_table(pa.table({"word": EXPECTED[0], "vector": EXPECTED[1]}), tmp_path / name)
    elif name == "v.safetensors":
        save_file({"vectors": ROWS}, tmp_path / name)
        (tmp_path / "vocab.json").write_text(json.dumps({word: row for row, word in enumerate(EXPECTED[0])}))
    else:
        (tmp_path / name).write_bytes(gzip.compress(TEXT) if name.endswith(".gz") else TEXT)
    (tmp_path / name).rename(path)
    found = WordVectors.load(path)
    assert (list(found.words), found.matrix.tolist()) == EXPECTED


@pytest.mark.parametrize("content", [TEXT, BINARY, BINARY.replace(b"\nb ", b"b "), BINARY[:-1]])
def test_text_and_binary_are_told_apart_and_read(tmp_path: Path, content: bytes) -> None:
    assert load(tmp_path, content) == EXPECTED


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("content", [TEXT, BINARY])
def test_compressed_files_are_read_whatever_their_name(tmp_path: Path, content: bytes, compress: Any) -> None:
    assert load(tmp_path, compress(content)) == EXPECTED


def test_a_vector_whose_bytes_spell_numbers_does_not_make_a_binary_file_text(tmp_path: Path) -> None:
    spelled = np.frombuffer(b"0.10 0.2 0.3", "<f4")
    content = b"3 3\na " + spelled.tobytes() + b"\nb " + ROWS[0].tobytes() + b"\nc " + ROWS[1].tobytes() + b"\n"
    words, rows = load(tmp_path, content)
    assert (words, rows[0], rows[1]) == (["a", "b", "c"], spelled.tolist(), [1, 2, 3])


def test_text_with_decimal_commas_is_not_taken_for_binary(tmp_path: Path) -> None:
    # Twelve bytes follow each word, as three float32 would.
    with pytest.raises(ValueError, match=r"line 2: .* found '0,1' \(a 0,1 0,2 0,3\); numbers have a point, not a comma"):
        load(tmp_path, b"2 3\na 0,1 0,2 0,3\nb 0,2 0,1 0,4\n")


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_characters=" \n\t\r", exclude_categories=("Cs", "Zs", "Cc")), min_size=1, max_size=5),
             min_size=1, max_size=6, unique=True),
    st.integers(1, 4), st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_the_format_is_found_for_any_words_and_numbers(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], size: int, binary: bool, seed: int
) -> None:
    rows = np.random.default_rng(seed).standard_normal((len(words), size)).astype(np.float32)
    lines = [
        word.encode() + b" " + (row.tobytes() if binary else " ".join(map(repr, row.tolist())).encode()) + b"\n"
        for word, row in zip(words, rows, strict=True)
    ]
    folder = tmp_path_factory.mktemp("any")
    assert load(folder, b"%d %d\n" % rows.shape + b"".join(lines)) == (words, rows.tolist())


def test_spaces_at_line_ends_tabs_and_odd_numbers_are_read(tmp_path: Path) -> None:
    found = load(tmp_path, b"2 3 \r\nthe 0.5 -1.25 3 \r\nof +1  1.\t2e-3\r\n\n")
    assert found == (["the", "of"], np.array([[0.5, -1.25, 3], [1, 1, 2e-3]], np.float32).tolist())
    assert load(tmp_path, TEXT.replace(b" ", b"\t").replace(b"2\t3\n", b"2 3\n", 1)) == EXPECTED
    assert load(tmp_path, b"1 2\nNew York\t.5\t-1\n") == (["New York"], [[0.5, -1.0]])
    assert np.isnan(load(tmp_path, b"1 2\na nan 1\n")[1][0][0])
    assert load(tmp_path, b"\xef\xbb\xbf" + TEXT) == EXPECTED
    assert load(tmp_path, b"\xef\xbb\xbf" + TEXT[4:], no_header=True) == EXPECTED


def test_a_missing_header_is_detected_or_declared(tmp_path: Path) -> None:
    with pytest.warns(VectorFileNote, match=r"foreign: no first line of words and vector size .*; 3 numbers a word"):
        assert load(tmp_path, TEXT[4:]) == EXPECTED
    assert load(tmp_path, TEXT[4:], no_header=True) == EXPECTED
    assert load(tmp_path, b"1999 2000 2001\nb 4 5\n", no_header=True) == (["1999", "b"], [[2000, 2001], [4, 5]])
    with pytest.raises(ValueError, match="expected a first line of two numbers, words and vector size, found 'a 1 2 3'"):
        load(tmp_path, TEXT[4:], no_header=False)
    with pytest.raises(ValueError, match="a binary file needs its first line"):
        load(tmp_path, TEXT[4:], no_header=True, binary=True)


@pytest.mark.parametrize("name", ["folder", "v.parquet", "v.safetensors"])
def test_options_of_text_and_binary_files_are_refused_for_others(tmp_path: Path, name: str) -> None:
    vectors = WordVectors(["a", "b"], ROWS)
    if name == "folder":
        vectors.save(tmp_path / name)
    else:
        (tmp_path / name).touch()
    for option, told in (({"binary": True}, "binary=True"), ({"no_header": True}, "no_header=True"),
                         ({"unicode_errors": "replace"}, "unicode_errors='replace'")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name}.* has one format, so {told} cannot apply: only to word2vec's and GloVe's"):
            WordVectors.load(tmp_path / name, **option)  # type: ignore[arg-type]
    if name == "folder":
        assert list(WordVectors.load(tmp_path / name, binary=False, limit=1).words) == ["a"]


def test_a_word_with_a_space_keeps_it_and_is_named(tmp_path: Path) -> None:
    with pytest.warns(VectorFileNote, match="2 words hold white space: 'New York', 'at name@domain.com'"):
        found = load(tmp_path, b"3 2\nNew York 1 2\nb 3 4\nat name@domain.com 5 6\n")
    assert found == (["New York", "b", "at name@domain.com"], [[1, 2], [3, 4], [5, 6]])
    with pytest.raises(ValueError, match=r"line 2: expected 2 numbers after the word, found 3 fields .*may hold a space: 'a 7'"):
        load(tmp_path, b"1 2\na 7 1 2\n")


@pytest.mark.parametrize("first", [True, False])
def test_a_word_with_a_space_in_a_binary_file_is_refused_by_name(tmp_path: Path, first: bool) -> None:
    rows = np.random.default_rng(1).standard_normal((3, 3)).astype(np.float32)
    words = [b"New York", b"a", b"b"] if first else [b"a", b"New York", b"b"]
    content = b"3 3\n" + b"".join(word + b" " + row.tobytes() + b"\n" for word, row in zip(words, rows, strict=True))
    with pytest.raises(ValueError, match=rf"word {1 if first else 2}, 'New', goes on after a space"):
        load(tmp_path, content, unicode_errors="replace")


def test_spaces_before_words_belong_to_no_word(tmp_path: Path) -> None:
    assert load(tmp_path, TEXT.replace(b"\n", b"\n ")[:-1]) == EXPECTED


def test_the_first_of_equal_words_is_kept_and_the_others_are_reported(tmp_path: Path) -> None:
    for content in (b"4 1\na 1\nb 2\na 3\na 4\n", b"4 1\n" + b"".join(
        word + b" " + np.float32(n).tobytes() for word, n in ((b"a", 1), (b"b", 2), (b"a", 3), (b"a", 4))
    )):  # fmt: skip
        with pytest.warns(VectorFileNote, match="2 words come again and were passed over, the first of each is kept: 'a', 'a'"):
            assert load(tmp_path, content) == (["a", "b"], [[1.0], [2.0]])


def test_a_last_line_without_an_end_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line of word 2 has no end, so its last number may be cut; .* with allow_unfinished"):
        load(tmp_path, TEXT[:-1])
    with pytest.warns(VectorFileNote, match="the last line has no end; if the file was cut, the last number of 'b' is wrong"):
        assert load(tmp_path, TEXT[:-1], allow_unfinished=True) == EXPECTED


def test_words_cut_inside_a_character_are_refused_or_kept_visible(tmp_path: Path) -> None:
    content = b"2 1\nok " + np.float32(1).tobytes() + b"\n\xec\x84 " + np.float32(2).tobytes() + b"\n"
    message = r"foreign: word 2 is not UTF-8: 'ì\\x84'; read it with unicode_errors='backslashreplace'"
    with pytest.raises(UnicodeDecodeError, match=message):
        load(tmp_path, content)
    assert load(tmp_path, content, unicode_errors="backslashreplace")[0] == ["ok", "\\xec\\x84"]


@pytest.mark.parametrize("content", [TEXT, BINARY, TEXT[4:]])
def test_a_limit_reads_the_first_words_and_no_more(tmp_path: Path, content: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VectorFileNote)
        assert load(tmp_path, content, limit=1) == (["a"], [[1, 2, 3]])
        assert load(tmp_path, content, limit=2) == EXPECTED
        assert load(tmp_path, content, limit=9) == EXPECTED
        if content.startswith(b"2 3"):
            more = content + content.partition(b"\n")[2]
            assert load(tmp_path, more, limit=2) == EXPECTED
            with pytest.raises(ValueError, match=r"more (lines|bytes) follow"):
                load(tmp_path, more, limit=9)
    with pytest.raises(ValueError, match="limit: expected at least 1, found 0"):
        load(tmp_path, content, limit=0)


def test_numbers_are_kept_in_the_requested_precision(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(TEXT)
    for dtype in ("float16", "float32", "float64"):
        assert WordVectors.load(tmp_path / "v", datatype=dtype).matrix.dtype == dtype
    with pytest.raises(ValueError, match="datatype: expected float32, float16, float64, found int8"):
        WordVectors.load(tmp_path / "v", datatype=np.int8)
    WordVectors.load(tmp_path / "v", datatype=np.float16).save(tmp_path / "folder")
    assert WordVectors.load(tmp_path / "folder").matrix.dtype == np.float16
    assert WordVectors.load(tmp_path / "folder", limit=1, datatype=np.float32).matrix.tolist() == [[1, 2, 3]]


def test_memory_follows_what_is_read_and_not_what_the_header_claims(tmp_path: Path) -> None:
    path = tmp_path / "v.gz"
    path.write_bytes(gzip.compress(b"900000000 300\na " + b"1 " * 300 + b"\n"))
    tracemalloc.start()
    with pytest.raises(ValueError, match="expected 900,000,000 words, ends after 1"):
        WordVectors.load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"expected a first line of two numbers, words and vector size, found ''; is this a word2vec or GloVe file\?"),
        (b"the quick brown fox\n", "found 'the quick brown fox'"),
        (gzip.compress(gzip.compress(TEXT, mtime=0), mtime=0), "it is compressed twice"),
        (TEXT.decode().encode("utf-16"), "it is UTF-16; convert it to UTF-8"),
        (b"0 3\n", r"its first line promises no vectors \(0 3\)"),
        (b"\x28\xb5\x2f\xfd....", r"it is compressed \(zstd\); decompress it first"),
        (b"PK\x03\x04....", "it is a ZIP; unpack it first"),
        (b"\xba\x16\x4f\x2f\x0c\0\0\0", "it is a fastText model; load the .vec file"),
        (b"\x80\x04\x95....", "it is a pickle, as gensim's save.. writes; write it with gensim's save_word2vec_format"),
        (b"\x1f\x8b\x08\x00", "damaged compressed data .*; fetch the file again"),
        (gzip.compress(TEXT * 50, mtime=0)[:-20], "damaged compressed data"),
        (b"\x93NUMPY\x01\x00v", "it is a NumPy matrix without its words; give the folder that holds it"),
        (
            b"1000000000000 300\nthe 0.1 0.2",
            r"promises 1,000,000,000,000 words of 300 numbers, at least .* but 11 follow; the file is cut",
        ),
        (b"3 3\na 1.0000 2.0000 3.0000\nb 4 5 6\n", "expected 3 words, ends after 2; the file is cut"),
        (b"2 3\na 1 2 3\nb 4 5 6\nc 7 8 9\n", "expected 2 words, more lines follow; .* limit=2 loads the words that it promises"),
        (b"2 3\na 1 2 3\nb 4.0000 5.0000\n", "line 3: expected 3 numbers after the word, found 2"),
        (b"2 3\na 1 2 3\n\nb 4.000 5 6\n", "line 3: expected 3 numbers after the word, found 0"),
        (b"2 3\na 1 2 3\nb 4 5 x\x1b\n", r"line 3: expected 3 numbers after the word, found 'x\\x1b' \(b 4 5 x\\x1b\)"),
        (b"2 3\na 1 2 3\nb 4 5 0x1p3\n", "line 3: expected 3 numbers after the word, found '0x1p3'"),
        (b"2 3\na 1 2 3\nb 4 5 1_000\n", "line 3: expected 3 numbers after the word, found '1_000'"),
        (b"1 3\na 1 2 NA\n", "line 2: expected 3 numbers after the word, found 'NA'"),
        (BINARY[:-2], r"expected 2 words, ends inside word 2 \(read as binary\); the file is cut"),
        (BINARY.replace(b"a ", b"long ")[:-4], r"expected 2 words, ends inside word 2 \(read as binary\)"),
        (BINARY + b"c " + ROWS[0].tobytes(), "more bytes follow the last of 2 words"),
    ],
)
def test_an_incomplete_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(tmp_path, content)
    assert str(tmp_path / "foreign") in str(caught.value)


@pytest.mark.parametrize("content", [TEXT, BINARY])
def test_any_changed_byte_is_loaded_or_refused_by_name(tmp_path: Path, content: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VectorFileNote)
        for position in range(len(content)):
            for byte in (b"\0", b" ", b"\n", b"9", b",", b"\xff"):
                try:
                    words, rows = load(tmp_path, content[:position] + byte + content[position + 1 :])
                except ValueError as error:
                    named = str(tmp_path / "foreign") in str(error)
                else:
                    named = len(words) == len(rows) > 0
                assert named


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("nowhere.bin", "nowhere.parquet", "nowhere.safetensors"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            WordVectors.load(tmp_path / name)


# ── safetensors and Parquet ──────────────────────────────────────────────────────────────────────────────────────────


def write_safetensors(folder: Path, tensors: dict[str, Any], words: Any) -> Path:
    save_file(tensors, folder / "model.safetensors")
    (folder / "vocab.json").write_text(json.dumps(words))
    return folder / "model.safetensors"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_safetensors_are_mapped_with_their_words_and_counts(tmp_path: Path, dtype: Any) -> None:
    counts = np.array([7, 5], np.int64)
    found = WordVectors.load(
        write_safetensors(tmp_path, {"embeddings": ROWS.astype(dtype), "counts": counts, "other": ROWS[:1]}, {"b": 1, "a": 0})
    )
    assert (found.words, found.matrix.tolist(), found.matrix.dtype) == (("a", "b"), ROWS.tolist(), dtype)
    assert list(found.counts) == [7, 5]  # type: ignore[arg-type]
    base: Any = found.matrix
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap)


def test_the_only_matrix_of_a_safetensors_file_is_taken_bfloat16_too(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    numbers = (ROWS.view(np.uint32) >> 16).astype(np.uint16)  # these have no more than eight bits
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + numbers.tobytes())
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    assert WordVectors.load(path).matrix.tolist() == ROWS.tolist()


@pytest.mark.parametrize(
    ("tensors", "words", "message"),
    [
        ({"x": ROWS, "y": ROWS}, {}, r"expected a tensor 'embeddings' of two dimensions, found \['x', 'y'\]"),
        ({"x": ROWS.astype(np.int32)}, {}, "tensor 'x': expected one of F32, .* found 'I32'"),
        ({"embeddings": ROWS}, {"a": 0}, r"vocab.json: expected 2 words with the rows 0 to 1, each once"),
        ({"embeddings": ROWS}, {"a": 0, "b": 0}, "expected 2 words with the rows 0 to 1"),
        ({"embeddings": ROWS}, ["a", "b"], "expected 2 words with the rows"),
    ],
)
def test_safetensors_that_do_not_fit_are_refused(tmp_path: Path, tensors: Any, words: Any, message: str) -> None:
    path = write_safetensors(tmp_path, tensors, words)
    with pytest.raises(ValueError, match=message):
        WordVectors.load(path)


def test_a_safetensors_file_cut_or_changed_anywhere_is_refused_or_whole(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path, {"embeddings": ROWS}, {"a": 0, "b": 1})
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            WordVectors.load(path)
    for position in range(len(content) - 24):
        path.write_bytes(content[:position] + b"1" + content[position + 1 :])
        try:
            whole = len(WordVectors.load(path)) == 2
        except ValueError as error:
            whole = str(tmp_path) in str(error)
        assert whole


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 3), pa.large_list(pa.float64())])
def test_parquet_is_read_whatever_kind_of_list_holds_the_numbers(tmp_path: Path, kind: Any) -> None:
    table = pa.table({"word": ["a", "b"], "vector": pa.array(ROWS.tolist(), kind), "count": [7, 5], "more": [1, 2]})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=1)
    found = WordVectors.load(tmp_path / "v.parquet")
    assert (found.words, found.matrix.tolist()) == (("a", "b"), ROWS.tolist())
    assert list(found.counts) == [7, 5]  # type: ignore[arg-type]
    assert WordVectors.load(tmp_path / "v.parquet", limit=1).words == ("a",)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"token": ["a"]}, "expected columns word, vector and perhaps count, found token"),
        ({"word": ["a", None], "vector": [[1.0], [2.0]]}, r"words or vectors are null \(1 of them\)"),
        ({"word": ["a", "b"], "vector": [[1.0], [2.0, 3.0]]}, "all of one length"),
        ({"word": ["a", "b"], "vector": [[1.0], [2.0, 3.0, 4.0]]}, "vectors of one length, found several"),
        ({"word": ["a"], "vector": [[1]]}, "expected vectors of floating-point numbers"),
        ({"word": ["a"], "vector": [{"x": 1.0}]}, "expected vectors as lists of floating-point numbers, found struct"),
        ({"word": ["a"], "vector": [[{"x": 1.0}]]}, "v.parquet: "),
        ({"word": ["a"], "vector": ["1 2"]}, "expected vectors as lists of floating-point numbers, found string"),
        ({"word": [1], "vector": [[1.0]]}, "expected words as text, found int64"),
        ({"word": ["a"], "vector": [[1.0]], "count": ["many"]}, "expected counts as integers, found string"),
        ({"word": ["a", "a"], "vector": [[1.0], [2.0]]}, "words: 1 come twice, first 'a'"),
    ],
)
def test_parquet_that_does_not_fit_is_refused(tmp_path: Path, columns: Any, message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    with pytest.raises(ValueError, match=message):
        WordVectors.load(tmp_path / "v.parquet")


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.parquet").write_bytes(b"PAR1 and not much else PAR1")
    with pytest.raises(ValueError, match=r"v.parquet: cannot be read as Parquet \(.*\); fetch or export it again"):
        WordVectors.load(tmp_path / "v.parquet")


def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["x"]), pa.array([[1.0]])], names=["word", "word", "vector"])
    pq.write_table(table, tmp_path / "w.parquet")
    with pytest.raises(ValueError, match=r"w\.parquet: two columns have one name"):
        WordVectors.load(tmp_path / "w.parquet")


@pytest.mark.parametrize(
    "header",
    [[1], None, {"embeddings": 5}, {"embeddings": {"dtype": ["F32"], "shape": [1, 1], "data_offsets": [0, 4]}},
     {"embeddings": {"dtype": "F32", "shape": [True, 1], "data_offsets": [0, 4]}},
     {"embeddings": {"dtype": "F32", "shape": [1, 1], "data_offsets": ["0", 4]}}],
)  # fmt: skip
def test_a_safetensors_header_of_the_wrong_shape_is_refused_by_name(tmp_path: Path, header: object) -> None:
    data = json.dumps(header).encode()
    (tmp_path / "v.safetensors").write_bytes(len(data).to_bytes(8, "little") + data + bytes(4))
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(ValueError, match=r"v\.safetensors: (its header is no JSON object|tensor 'embeddings')"):
        WordVectors.load(tmp_path / "v.safetensors")
