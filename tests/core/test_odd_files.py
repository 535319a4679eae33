"""Vectors and question sets that people have by mistake, or spelt a little differently: read, or refused with what is wrong."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2v_core.vectors import VectorFileNote, WordVectors, evaluation
from w2v_core.vectors.questions import AnalogyQuestions, read_questions

NUMBERS = [("king", "0.5", "-1.5", "2"), ("queen", "0.25", "1", "-.5")]


def rows(separator: str, end: str = "\n") -> str:
    return "".join(separator.join(row) + end for row in NUMBERS)


@pytest.mark.parametrize(
    ("content", "message"),
    [(rows(","), "its fields are separated by ','"), (rows(";"), "its fields are separated by ';'"),
     ("2 3\n" + rows(","), "line 2: .* its fields are separated by ','"),
     (rows(" ").replace(".", ","), "numbers have a point, not a comma"),
     (rows(" ", "\r"), "its lines end with CR alone"), ("2 3\r" + rows(" ", "\r"), "its lines end with CR alone"),
     ("0.5 1.5 2.5\n1.5 2.5 3.5\n", "its lines hold numbers only, as a matrix without its words"),
     ("0.5 1.5 2.5\n" * 5 + "1 2.5 3.5\n1e+10 2.5 3.5\n" + "0.5\t1.5\t2.5\n" * 5, "its lines hold numbers only"),
     ("<html>404</html>\n", "error page of a download"), ('{"king": [0.5]}\n', "it is JSON"),
     ("version https://git-lfs.github.com/spec/v1\noid x\n", "git lfs pull"), ("SQLite format 3\0", "it is a database"),
     ("2 2\n" + rows(" "), "the word may hold a space: 'king 0.5', or the first line is wrong")],
)  # fmt: skip
def test_a_file_that_is_no_vectors_is_refused_with_what_it_is(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "v.txt").write_bytes(content.encode())
    with pytest.raises(ValueError, match=rf"v\.txt: .*{message}"):
        WordVectors.load(tmp_path / "v.txt")


def test_words_that_are_numbers_are_words(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("1999 0.5 1.5\n3.14 0.5 2.5\n")
    with pytest.warns(VectorFileNote):
        assert WordVectors.load(tmp_path / "v.txt").words == ("1999", "3.14")
    (tmp_path / "v.txt").write_text("2 2\n1.5 0.5 1.5\n3.14 0.5 2.5\n")
    assert WordVectors.load(tmp_path / "v.txt").words == ("1.5", "3.14")


@pytest.mark.parametrize("content", [b"2 2\n 0.5 1.5\nb 1.5 2.5\n", b"2 2\n " + bytes(8) + b"\nb " + bytes(8) + b"\n"])
def test_an_empty_word_is_noted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v").write_bytes(content)
    with pytest.warns(VectorFileNote, match="the word of row 1 is empty"):
        assert WordVectors.load(tmp_path / "v").words == ("", "b")


def test_a_space_inside_a_word_of_a_binary_file_without_line_ends_is_suspected(tmp_path: Path) -> None:
    vector = np.array([-0.5, 3e-9, 1.5], "<f4").tobytes()
    content = b"3 3\n" + b"".join(word + b" " + vector for word in (b"king", b"new york", b"queen"))
    (tmp_path / "v.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"the word before it may hold a space.*export the vectors as text"):
        WordVectors.load(tmp_path / "v.bin", binary=True)


def test_numbers_of_another_byte_order_are_an_error_without_warnings(tmp_path: Path) -> None:
    vector = np.array([0x7FA00000, 0x3F800000], "<u4").tobytes()
    (tmp_path / "v.bin").write_bytes(b"1 2\nking " + vector + b"\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vectors = WordVectors.load(tmp_path / "v.bin", binary=True)
        with pytest.raises(ValueError, match="not finite, first that of 'king'"):
            vectors.most_similar("king")


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_binary_vectors_in_the_byte_order_of_another_processor_are_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).uniform(-1, 1, (20, 8))
    for order in ("<f4", ">f4"):
        content = b"".join(b"w%d " % at + row.astype(order).tobytes() for at, row in enumerate(rows))
        (tmp_path / order[0]).write_bytes(b"20 8\n" + content)
    assert len(WordVectors.load(tmp_path / "<")) == 20
    with pytest.raises(ValueError, match=r"in the order of another processor \(big-endian\)"):
        WordVectors.load(tmp_path / ">")
    for datatype in ("float16", "float64"):
        with pytest.raises(ValueError, match=r"in the order of another processor \(big-endian\)"):
            WordVectors.load(tmp_path / ">", datatype=datatype)
    large = np.float32(1.6961251e16)  # a few numbers may be of such a size by chance, and small with their bytes reversed
    (tmp_path / "few").write_bytes(b"1 1\nking " + large.tobytes())
    assert WordVectors.load(tmp_path / "few").vectors[0, 0] == large


@pytest.mark.parametrize("matrix", [[[1, 2, 3], [2, 3, 4], [0, 0, 1], [1, 2, 3]], [[0, 1], [0, 0]],
                                    np.random.default_rng(3).uniform(-1, 1, (4, 3))])  # fmt: skip
def test_a_few_numbers_are_enough_to_know_the_order_of_their_bytes(tmp_path: Path, matrix: object) -> None:
    rows = np.array(matrix, np.float32)
    for order in ("<f4", ">f4"):
        content = b"".join(b"w%d " % at + row.astype(order).tobytes() + b"\n" for at, row in enumerate(rows))
        (tmp_path / order[0]).write_bytes(b"%d %d\n" % rows.shape + content)
    np.testing.assert_array_equal(WordVectors.load(tmp_path / "<").vectors, rows)
    with pytest.raises(ValueError, match=r"big-endian\); .* export the vectors again"):
        WordVectors.load(tmp_path / ">")


@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-30, 1e-20, 1, 1e20, 1e37])
@pytest.mark.parametrize("dtype", ["<f2", "<f4"])
def test_numbers_of_any_size_in_the_right_order_are_read(tmp_path: Path, size: float, dtype: str) -> None:
    rows = np.random.default_rng(4).standard_normal((500, 20)).astype(dtype).astype("<f4") * np.float32(size)
    (tmp_path / "v").write_bytes(b"500 20\n" + b"".join(b"w%d " % at + row.tobytes() for at, row in enumerate(rows)))
    np.testing.assert_array_equal(WordVectors.load(tmp_path / "v").vectors, rows)


def test_a_matrix_whose_header_says_big_endian_is_read_as_that(tmp_path: Path) -> None:
    rows = np.random.default_rng(5).uniform(-1, 1, (3, 4)).astype(np.float32)
    WordVectors(["a", "b", "c"], rows).save(tmp_path / "v")
    np.save(tmp_path / "v" / "vectors.npy", rows.astype(">f4"))
    vectors = WordVectors.load(tmp_path / "v")
    np.testing.assert_array_equal(vectors.vectors, rows)
    assert vectors.vectors.dtype.isnative


def test_words_that_come_twice_in_parquet_are_an_error_of_the_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"word": ["a", "b", "a"], "vector": [[1.0], [2.0], [3.0]]}), tmp_path / "v.parquet")
    with pytest.raises(ValueError, match=r"v\.parquet: words: 1 come twice, first 'a'"):
        WordVectors.load(tmp_path / "v.parquet")


# ── sets ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "it is empty"), ("# a\n# b\n", "it is empty"),
     ("king;queen;8.5\ncat;dog;7\n", "its columns are separated by ';'"), ("king|queen|8.5\n", r"separated by '\|'"),
     ("king\tqueen\t85%\ncat\tdog\t70 %\n", "a plain number, without %"), ("king\tqueen\t3/4\n", "or a fraction"),
     ("8.5\tking\tqueen\n7\tcat\tdog\n", "the score comes third"), ("king\t8.5\tqueen\n", "the score comes third"),
     ("king\tqueen/empress\ncat\tdog\n", "pairs without a score, as in BATS"),
     ("good better rough rougher JJ\nbig bigger old older JJ\n", "analogies have four words: cut -d' ' -f1-4"),
     ("good better rough JJ_JJR rougher\nbig bigger old JJ_JJR older\n", "analogies have four words: cut -d' ' -f1-3,5"),
     ("Athens,Greece,Oslo,Norway\na,b,c,d\n", "its columns are separated by ',': write spaces"),
     ("a;b;c;d\n", "its columns are separated by ';': write spaces"), ("0,king,queen,8.5\n", "cut -d, -f2,3,4"),
     ("king\tqueen\t−0.5\n", "a minus is '-'")],
)  # fmt: skip
def test_a_set_whose_columns_have_a_common_fault_is_refused_with_it(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "s.tsv").write_text(content)
    with pytest.raises(ValueError, match=rf"s\.tsv: expected lines of .*{message}"):
        read_questions(tmp_path / "s.tsv")


@pytest.mark.parametrize(
    ("content", "message"),
    [(": x\na b c d\n".encode("utf-16"), "it is UTF-16"), (": x\na b c d\n".encode("utf-16-le"), "is NUL, as in UTF-16"),
     ("king\tqueen\t8.5\n".encode("utf-16-be"), "is NUL, as in UTF-16"), (b"\x04\x22\x4d\x18abc", "it is compressed"),
     (b"PAR1" + bytes(40), "it is Parquet"), (b"<!DOCTYPE html>\n", "it is a web page"),
     (b"version https://git-lfs.github.com/spec/v1\noid a\nsize 1\n", "git lfs pull")],
)  # fmt: skip
def test_a_file_that_is_no_set_is_refused_with_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "s.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"s\.txt: .*{message}"):
        read_questions(tmp_path / "s.txt")


def test_a_comment_among_analogies_is_no_lost_question(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("# made by four hands\n: x\n# one more comment here\na b c d\n#one #two #three #four\n#\n")
    found = read_questions(tmp_path / "s.txt")
    assert isinstance(found, AnalogyQuestions)
    assert [section.questions for section in found.sections] == [(("a", "b", "c", "d"), ("#one", "#two", "#three", "#four"))]
    assert not found.malformed
    (tmp_path / "s.txt").write_text(": x\nAthens,Greece,Oslo,Norway\n")
    with pytest.raises(ValueError, match="its columns are separated by ',': write spaces"):
        read_questions(tmp_path / "s.txt")


def test_a_folder_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder; give the files in it"):
        read_questions(tmp_path)


def test_words_in_quotation_marks_are_words_between_tabs_too(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text('"king"\t"queen"\t"8.5"\n"\t"\t3\n')
    assert evaluation.read_similarity(tmp_path / "s.tsv").pairs == (("king", "queen", 8.5), ('"', '"', 3.0))


def test_a_section_may_be_glued_to_its_colon(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text(":capital\na b c d\n:gram1-adverb\nc d a b\n:) :( :D :P\n")
    found = read_questions(tmp_path / "s.txt")
    assert isinstance(found, AnalogyQuestions)
    assert [(section.name, section.syntactic, len(section.questions)) for section in found.sections] == [
        ("capital", False, 1),
        ("gram1-adverb", True, 2),
    ]
    (tmp_path / "p.tsv").write_text(":)\t:(\t3\n:D\t:P\t4\n")
    assert len(evaluation.read_similarity(tmp_path / "p.tsv").pairs) == 2
    assert not isinstance(read_questions(tmp_path / "p.tsv"), AnalogyQuestions)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_may_be_marks_of_their_own_in_a_set_or_in_the_vocabulary(tmp_path: Path, form: str) -> None:
    composed, marks = ("p\u00e8re", "m\u00e8re"), ("pe\u0300re", "me\u0300re")
    known, asked = (composed, marks) if form == "NFC" else (marks, composed)
    vectors = WordVectors([*known, "river"], np.eye(3, dtype=np.float32) + np.float32([[0, 0, 0], [0.5, 0, 0], [0, 0.2, 0]]))
    (tmp_path / "s.tsv").write_text(f"{asked[0]}\t{asked[1]}\t9\n{asked[0].upper()}\triver\t1\n")
    assert evaluation.evaluate_similarity(vectors, evaluation.read_similarity(tmp_path / "s.tsv")).coverage == 1
