"""A file is read as what it is: its content decides, even inside compressed data, whatever its name."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import Corpus
from pipeline.errors import ConfigError, DataError, InputError
from pipeline.text.corpus import CorpusPlan, plan_corpus

LINES = b"the river runs to the sea\n" * 40


def plan(path: Path, **corpus: object) -> CorpusPlan:
    return plan_corpus(Corpus(inputs=[str(path)], **corpus))  # type: ignore[arg-type]


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("doc.txt", LINES)
    return sink.getvalue()


def tarred() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        member = tarfile.TarInfo("doc.txt")
        member.size = len(LINES)
        archive.addfile(member, io.BytesIO(LINES))
    return sink.getvalue()


def array() -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.random.default_rng(1).normal(size=100))
    return sink.getvalue()


def zeros() -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.zeros(1000))
    return sink.getvalue()


def old_tar() -> bytes:
    """An archive as tar wrote them before 1988, without a magic number."""
    data = bytearray(tarred())
    data[148:156], data[257:265] = b" " * 8, bytes(8)
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def database(folder: Path) -> bytes:
    connection = sqlite3.connect(folder / "x.db")
    connection.execute("create table t (a text)")
    connection.commit()
    connection.close()
    return (folder / "x.db").read_bytes()


FOREIGN: dict[str, tuple[Callable[[], bytes], str]] = {
    "zip": (zipped, r"looks like a \.zip file .*rename it to end in \.zip"),
    "old tar": (old_tar, r"looks like a \.tar file .*rename it to end in \.tar"),
    "tar": (tarred, r"looks like a \.tar file .*rename it to end in \.tar"),
    "gzip": (lambda: gzip.compress(LINES), r"looks like a \.gz file .*rename it"),
    "bz2": (lambda: bz2.compress(LINES), r"looks like a \.bz2 file .*rename it"),
    "pdf": (lambda: b"%PDF-1.4\n1 0 obj <</Type /Catalog>>\n" * 9, r"looks like a \.pdf file .*extract its text"),
    "png": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(50), r"looks like a \.png file"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c\0\4" + bytes(range(200)), r"looks like a \.7z file"),
    "elf": (lambda: b"\x7fELF\x02\x01\x01" + bytes(200), r"looks like a .* file \(ELF"),
    "pickle": (lambda: pickle.dumps(["the river"] * 9 + [1.5, 2.5], 4), r"looks like a \.pickle file"),
    "numpy": (array, "looks like an array of numbers"),
    "zeros": (zeros, "looks like an array of numbers"),
    "safetensors": (lambda: b"<" + bytes(7) + b'{"a":{"dtype":"F32"}}'.ljust(60) + bytes(800), "looks like an array of numbers"),
    "indented pdf": (lambda: b"\n\n%PDF-1.4\n1 0 obj <</Type /Catalog>>\n" * 9, r"looks like a \.pdf file .*extract its text"),
    "annex": (lambda: b"/annex/objects/SHA256E-s1234--abc.txt\n", "git-annex pointer.*git annex get"),
    "lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer.*git lfs pull"),
    "comment": (lambda: b"<!-- of --> <!-- a page -->\n<html><p>the river</p>\n", "looks like HTML or XML"),
    "fragment": (lambda: b"<div>the river<br/>\n<p>and the sea</p></div>\n" * 9, "looks like HTML or XML"),
    "dump": (lambda: b'<mediawiki xmlns="x">\n<page><title>River</title></page>\n' + LINES, "looks like HTML or XML"),
    "articles": (lambda: b'<doc id="1" title="River">\n' + LINES + b"</doc>\n", "looks like HTML or XML"),
    "html": (lambda: b"\n<!doctype HTML><p>the river</p>\n", "looks like HTML or XML"),
    "json": (lambda: b'{"text": "the river"}\n{"text": "the sea"}\n', r"looks like JSON.*set corpus\.format: jsonl"),
    "array": (lambda: json.dumps([{"text": "a"}] * 3, indent=1).encode(), r"looks like JSON.*set corpus\.format: jsonl"),
    "excel": (lambda: b"sep=;\r\nid;text\r\n1;a river, a sea\r\n2;x\r\n3;y\r\n", r"looks like a table \(CSV\).*: csv"),
    "csv": (lambda: b'id,text\n1,"a river, a sea"\n2,"x"\n3,y\n', r"looks like a table \(CSV\).*set corpus\.format: csv"),
    "spaces": (lambda: b"user id,review text\n1,good river\n2,bad sea\n3,x\n", r"looks like a table \(CSV\)"),
    "tsv": (lambda: b"id\ttext\n1\ta river\n2\tx y\n3\ty\n", r"looks like a table \(TSV\).*set corpus\.format: tsv"),
    "utf-16": (lambda: LINES.decode().encode("utf-16-le"), r"looks like UTF-16-LE .*set corpus\.encoding: utf-16-le"),
    "utf-32": (lambda: LINES.decode().encode("utf-32-be"), r"looks like UTF-32-BE .*set corpus\.encoding: utf-32-be"),
}  # fmt: skip


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", FOREIGN)
def test_data_that_is_not_text_is_refused_even_inside_compressed_files(tmp_path: Path, kind: str, compressed: bool) -> None:
    make, message = FOREIGN[kind]
    path = tmp_path / ("x.txt.gz" if compressed else "x.txt")
    path.write_bytes(gzip.compress(make()) if compressed else make())
    if compressed and kind in ("zip", "gzip", "bz2"):
        message = "is compressed twice: inside is a"
    if compressed and kind in ("tar", "old tar"):
        message = r"holds a tar archive; rename it to end in \.tar\.gz"
    with pytest.raises(DataError, match=rf"(?s)x\.txt.*{message}"):
        plan(path)
    assert plan(path, sniff=False, max_lost=1).files, "the way out: read it all the same"


RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю.\n" * 300
CHINESE = "今天天气很好，我们一起去公园散步吧。人工智能正在改变世界。\n" * 300
JAPANESE = "今日は良い天気ですね。散歩に行きましょう。\n" * 300
HEBREW = "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.\n" * 300
ARABIC = "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.\n" * 300
GREEK = "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.\n" * 300
KOREAN = "오늘은 날씨가 좋아서 공원에 산책하러 갑니다.\n" * 300


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(RUSSIAN, "cp1251"), (RUSSIAN, "koi8_r"), (RUSSIAN, "cp866"), (RUSSIAN, "iso8859_5"), (RUSSIAN, "mac_cyrillic"),
     (RUSSIAN.upper(), "cp1251"), (RUSSIAN.upper(), "koi8_r"), (GREEK, "cp1253"), (GREEK, "iso8859_7"), (HEBREW, "cp1255"),
     (HEBREW, "iso8859_8"), (ARABIC, "cp1256"), (ARABIC, "iso8859_6"), (CHINESE, "gb18030"), (CHINESE, "gbk"),
     (JAPANESE, "cp932"), (JAPANESE, "euc_jp"), (KOREAN, "cp949")],
    ids=lambda value: value[:8].strip(),
)  # fmt: skip
def test_text_in_another_encoding_is_refused_with_the_one_that_reads_it(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "x.txt").write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=r"x\.txt: is not UTF-8; its bytes read well as") as caught:
        plan(tmp_path / "x.txt")
    found = re.search(r"set corpus\.encoding: (\S+)", str(caught.value))
    assert found is not None
    assert text.encode(encoding).decode(found[1]) == text
    assert len(plan(tmp_path / "x.txt", encoding=found[1]).files) == 1


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [RUSSIAN, CHINESE, JAPANESE, GREEK, KOREAN], ids=lambda text: text[:5])
def test_utf16_and_utf32_of_scripts_whose_letters_hold_no_nul_are_refused_by_name(
    tmp_path: Path, text: str, encoding: str
) -> None:
    (tmp_path / "x.txt").write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=rf"x\.txt: .*expected UTF-8; set corpus\.encoding: {encoding}"):
        plan(tmp_path / "x.txt")
    assert len(plan(tmp_path / "x.txt", encoding=encoding).files) == 1


UNSPACED = {
    "Chinese": "今天天气很好，我们一起去公园散步吧。", "without signs": "今天天气很好我们一起去公园散步吧因为花都开了",
    "Japanese": "吾輩は猫である。名前はまだ無い。",
    "kana": "わがはいはねこであるなまえはまだない", "katakana": "ワガハイハネコデアル",
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("script", UNSPACED)
def test_utf16_and_utf32_of_one_line_without_a_space_are_refused_by_name(tmp_path: Path, script: str, encoding: str) -> None:
    for times in (1, 500):
        (tmp_path / "x.txt").write_bytes((UNSPACED[script] * times).encode(encoding))
        with pytest.raises(DataError, match=rf"x\.txt: .*expected UTF-8; set corpus\.encoding: {encoding}"):
            plan(tmp_path / "x.txt")


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp", "gb18030", "big5"])
def test_text_of_two_bytes_a_character_without_a_space_is_not_taken_for_utf16(tmp_path: Path, encoding: str) -> None:
    text = "今天天気一起去公園散歩花都開了大家都人工世界"
    (tmp_path / "x.txt").write_bytes((text * 100).encode(encoding, "ignore"))
    with pytest.raises(DataError) as caught:
        plan(tmp_path / "x.txt")
    assert "UTF-16" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(JAPANESE, "iso2022_jp"), (KOREAN, "iso2022_kr"), (CHINESE, "hz"), (RUSSIAN, "utf-7"), ("Größe für Öl\n" * 99, "utf-7")],
)
def test_encodings_of_seven_bits_are_refused_by_name(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "x.txt").write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=rf"reads well as {encoding.upper()}, .*set corpus\.encoding: {encoding}"):
        plan(tmp_path / "x.txt")
    assert len(plan(tmp_path / "x.txt", encoding=encoding).files) == 1


@pytest.mark.parametrize("line", ["int a = b+ccc-d;", "call +49301234567-8 or +4930-99", "~{abc~} is near ~{de~}", "I <3 a+b"])
def test_a_plus_or_a_tilde_in_ordinary_text_makes_no_encoding_of_seven_bits(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.txt").write_text((line + "\n") * 500)
    assert len(plan(tmp_path / "x.txt").files) == 1


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [("Größe für Öl, käuflich über Händler\n".encode(), "cp1252", "is UTF-8, expected cp1252; leave corpus.encoding out"),
     ("\ufeffplain\n".encode(), "cp1252", "is UTF-8, expected cp1252"),
     (RUSSIAN.encode(), "gbk", "is UTF-8, expected gbk"),
     (LINES, "utf-16", "is UTF-8, expected utf-16"),
     (LINES.decode().encode("utf-16"), "cp1252", "byte order mark, expected cp1252; set corpus.encoding: utf-16"),
     (LINES.decode().encode("utf-16-be"), "cp1252", "looks like UTF-16-BE .*expected cp1252; set corpus.encoding: utf-16-be"),
     (LINES.decode().encode("utf-16-be"), "utf-16", "looks like UTF-16-BE, expected utf-16; set corpus.encoding: utf-16-be"),
     (b"%PDF-1.4\n1 0 obj <</Type /Catalog>>\n" * 9, "cp1252", r"looks like a \.pdf file"),
     (bytes(range(256)) * 9, "latin-1", "holds binary data"),
     (LINES, "idna", "cannot be decoded as idna"),
     ('{"text": "für"}\n'.encode("cp1252") * 9, "cp1252", "looks like JSON"),
     ("<html><p>Größe</p>".encode("utf-16"), "utf-16", "looks like HTML or XML")],
)  # fmt: skip
def test_bytes_that_are_not_in_the_encoding_that_is_set_are_refused(
    tmp_path: Path, data: bytes, encoding: str, message: str
) -> None:
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(DataError, match=rf"x\.txt: .*{message}"):
        plan(tmp_path / "x.txt", encoding=encoding)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(RUSSIAN, "cp1251"), (CHINESE, "gbk"), ("Größe für Öl\n", "latin-1"), (RUSSIAN, "utf-16"), (LINES.decode(), "utf-16-be"),
     (JAPANESE, "euc_jp"), (JAPANESE, "utf-32"), (CHINESE, "utf-8-sig"), (LINES.decode(), "ascii"), ("a\n", "cp1252")],
)  # fmt: skip
def test_text_in_the_encoding_that_is_set_is_read(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "x.txt").write_bytes(text.encode(encoding))
    assert len(plan(tmp_path / "x.txt", encoding=encoding).files) == 1


def test_lines_that_end_with_cr_alone_are_lines_in_the_encoding_of_macs_too(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes("Größe für Öl\rund für Löwen\r".encode("mac_roman") * 99)
    found = plan(tmp_path / "x.txt", encoding="mac_roman")
    assert found.files[0].carriage_returns
    assert any("ends every line with CR alone" in note for note in found.notes)


def test_ascii_with_single_nuls_is_not_taken_for_utf16(tmp_path: Path) -> None:
    for shift in (0, 1):
        (tmp_path / f"{shift}.txt").write_bytes(b"x" * shift + b"ab c\0de " * 400)
        assert len(plan(tmp_path / f"{shift}.txt").files) == 1


@pytest.mark.parametrize(
    ("line", "encoding"),
    [("L'hôtel où l'élève a dîné était fermé à Noël, ça brûle\n", "cp1252"),
     ("Le garçon naïf déjà âgé préfère la forêt où l'été est très chaud\n", "latin-1"),
     ("Høj bly gom vandt fræk sexquiz på wc å æ ø\n", "latin-1"),
     ("Falsches Üben von Xylophonmusik quält jeden größeren Zwerg\n", "cp1252"),
     ("Zażółć gęślą jaźń, pchnąć w tę łódź jeża lub ośm skrzyń fig.\n", "cp1250"),
     ("Zażółć gęślą jaźń, pchnąć w tę łódź jeża lub ośm skrzyń fig.\n", "iso8859_2"),
     ("Příliš žluťoučký kůň úpěl ďábelské ódy na louce u řeky\n", "cp1250"),
     ("Árvíztűrő tükörfúrógép, és a folyó a tengerbe ömlik\n", "cp1250"),
     ("Fiinţele umane se nasc libere şi egale în demnitate\n", "iso8859_2"),
     ("El pingüino Wenceslao hizo kilómetros bajo la lluvia, ¿y mañana qué?\n", "cp1252"),
     ("Pijamalı hasta yağız şoföre çabucak güvendi\n", "cp1254"),
     ("Įlinkdama fechtuotojo špaga sublykčiojusi pragręžė\n", "cp1257"),
     ("Falsches Üben von Xylophonmusik quält jeden größeren Zwerg\n", "cp850"),
     ("Falsches Üben von Xylophonmusik quält jeden größeren Zwerg\n", "mac_roman"),
     ("The ticket was £5 and not the £3 that he had paid\n", "cp1252")],
    ids=["French", "French again", "Danish", "German", "Polish", "Polish again", "Czech", "Hungarian", "Romanian", "Spanish",
         "Turkish", "Lithuanian", "German of DOS", "German of Macs", "pounds"],
)  # fmt: skip
@pytest.mark.parametrize("lines", [20, 400])
def test_text_that_is_mostly_ascii_is_refused_with_the_encoding_that_reads_the_rest(
    tmp_path: Path, line: str, encoding: str, lines: int
) -> None:
    (tmp_path / "x.txt").write_bytes((line * lines).encode(encoding))
    with pytest.raises(DataError, match=r"they read well as") as caught:
        plan(tmp_path / "x.txt")
    found = re.search(r"set corpus\.encoding: (\S+)", str(caught.value))
    assert found is not None
    assert line.encode(encoding).decode(found[1]) == line


def test_bytes_that_no_encoding_fits_are_binary_data(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(np.random.default_rng(4).bytes(60_000))
    with pytest.raises(DataError, match=r"x\.txt: holds binary data"):
        plan(tmp_path / "x.txt")


@pytest.mark.parametrize(
    "value", [["the river"], {"text": "runs"}, ("a", 1), [{"a": [1, "b"]}], ["long text\n" * 20_000] * 3, {1, 2}]
)
def test_a_pickle_in_ascii_is_refused_and_not_run(tmp_path: Path, value: object) -> None:
    (tmp_path / "x.txt").write_bytes(pickle.dumps(value, protocol=0))
    with pytest.raises(DataError, match=r"x\.txt: looks like a Python pickle"):
        plan_corpus(Corpus(inputs=[str(tmp_path / "x.txt")]))


@pytest.mark.parametrize(
    "text",
    [
        "(I am here)\n",
        "a.\n",
        "(lp that\n",
        "computer science\nis fun\n",
        "line 1 word\nline 2 word\n" * 50,
        "}.",
        "]p0 of it\n.",
    ],
)
def test_text_that_begins_as_a_pickle_does_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.txt").write_text(text)
    assert len(plan_corpus(Corpus(inputs=[str(tmp_path / "x.txt")])).files) == 1


def test_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(database(tmp_path))
    with pytest.raises(DataError, match=r"looks like a \.db file \(SQLite"):
        plan(tmp_path / "x.txt")


@pytest.mark.parametrize("text", [
    "the river, the sea\nthe sea, the river\na, b\n", "{curly} words\n", "a\tb\nc\n", "x < y and <b>bold</b>\n",
    "<s> the river </s>\n<s> the <unk> </s>\n" * 50, "<unk> is a word\n" * 50, "see~{a} or ~{ab}\n1 +1000 a +bcd-e C++\n" * 50,
    "<b>bold</b> at the start\n" + "and a long plain text after it\n" * 99, "\x1b[31mred\x1b[0m words for $ 5\n" * 50,
    "BM is a thing\nMZ too\n", "한국어, 문장\n" * 5, "“quotes” — and ‘more’\n", "[1] a footnote\n", "a,b\n1,2\n",
])  # fmt: skip
def test_text_that_only_resembles_something_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.txt").write_text(text)
    assert plan(tmp_path / "x.txt").files


@pytest.mark.parametrize(("name", "data", "kind"), [
    ("X.TXT.GZ", gzip.compress(LINES, mtime=0), "gzip"), ("x.Zip", zipped(), "zip"), ("x.tar", tarred(), "tar"),
    ("x.tbz2", bz2.compress(tarred()), "tar+bz2"), ("x.tar.xz", lzma.compress(tarred()), "tar+xz"),
    ("x.lzma", lzma.compress(LINES, lzma.FORMAT_ALONE), "lzma"),
], ids=["gz", "zip", "tar", "tbz2", "tar.xz", "lzma"])  # fmt: skip
def test_names_are_read_in_any_case_and_archives_are_known(tmp_path: Path, name: str, data: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert [file.kind for file in plan(tmp_path / name).files] == [kind]


@pytest.mark.parametrize(("name", "data", "message"), [
    ("x.txt.gz", LINES, "holds text, although its name says gzip"),
    ("x.gz", bz2.compress(LINES), r"looks like a \.bz2 file, although its name says gzip"),
    ("x.tbz2", bz2.compress(LINES), r"holds no tar archive, .*rename it to end in \.bz2"),
    ("x.tar", LINES, "holds no tar archive"),
    ("x.zip", LINES, "holds text, although its name says zip"),
], ids=["text as gz", "bz2 as gz", "text as tbz2", "text as tar", "text as zip"])  # fmt: skip
def test_a_name_that_contradicts_the_content_is_an_error(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}: {message}"):
        plan(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "format"), [("x.jsonl", "jsonl"), ("x.CSV", "csv"), ("x.tsv.gz", "tsv"), ("x.parquet", "parquet")]
)
def test_a_format_that_the_name_contradicts_is_a_configuration_error(tmp_path: Path, name: str, format: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(LINES) if name.endswith("gz") else LINES)
    with pytest.raises(ConfigError, match=rf"set corpus\.format: {format}"):
        plan(tmp_path / name)


@pytest.mark.parametrize(("format", "data", "message"), [
    ("jsonl", LINES, r"holds no JSON; set corpus\.format: lines"),
    ("jsonl", b"id,text\n1,a\n2,b\n3,c\n", r"holds no JSON; set corpus\.format: csv"),
    ("csv", b'{"text": "a"}\n', r"looks like JSON.*set corpus\.format: jsonl"),
    ("parquet", LINES, "expected a Parquet file, but it is none"),
    ("parquet", b'{"text": "a"}\n', r"expected a Parquet file, .*set corpus\.format: jsonl"),
    ("arrow", LINES, "expected an Arrow file, but it is none"),
])  # fmt: skip
def test_a_wrong_format_is_found_for_every_format(tmp_path: Path, format: str, data: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataError, match=message):
        plan(tmp_path / "x", format=format)


def test_compressed_tables_are_refused_because_they_are_compressed_inside(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "x.parquet")
    (tmp_path / "x.gz").write_bytes(gzip.compress((tmp_path / "x.parquet").read_bytes()))
    with pytest.raises(InputError, match="compressed inside"):
        plan(tmp_path / "x.gz", format="parquet")


def test_settings_that_the_format_does_not_read_are_refused() -> None:
    for wrong in ({"text_field": "content"}, {"bad_records": "skip"}, {"format": "parquet", "encoding": "cp1252"}):
        with pytest.raises(ValueError, match=r"is not read: corpus\.format is"):
            Corpus(inputs=["x"], **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected the name of an encoding"):
        Corpus(inputs=["x"], encoding="utf-9")
    assert Corpus(inputs=["x"], encoding="UTF8").encoding == "utf-8"


def test_files_about_a_corpus_are_left_out_and_reported(tmp_path: Path) -> None:
    for name in (
        "a.txt",
        "README.md",
        "LICENSE",
        "SHA256SUMS",
        "x.txt.part",
        "_SUCCESS",
        ".hidden",
        "Thumbs.db",
        "sub/b.txt",
        "c.log",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}\n")
    found = plan(tmp_path, exclude=["*.log"])
    assert [Path(file.path).name for file in found.files] == ["a.txt", "b.txt"]
    notes = "\n".join(found.notes)
    assert "4 files about the corpus (README, LICENSE, checksums …) were left out" in notes
    assert "3 hidden, marker, backup or unfinished files" in notes
    assert "1 file was left out by corpus.include and corpus.exclude" in notes
    assert [Path(file.path).name for file in plan(tmp_path, include=["README*", "sub/*.txt"]).files] == ["README.md", "b.txt"]


def test_lines_that_end_with_cr_alone_are_lines_and_are_reported(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"the river\rthe sea\r" * 3000)
    found = plan(tmp_path / "x.txt", block_bytes=1024)
    assert found.files[0].carriage_returns
    assert any("ends every line with CR alone" in note for note in found.notes)


def test_html_entities_are_reported(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("Tom &amp; Jerry&nbsp;say &#8217;hi&#8217;\n" * 5)
    assert any("1 file holds HTML entities" in note for note in plan(tmp_path / "x.txt").notes)


def test_tags_in_text_are_reported(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("A fine film.<br /><br />I liked it.\n" * 50)
    assert any("holds HTML or XML tags" in note for note in plan(tmp_path / "x.txt").notes)
    (tmp_path / "x.txt").write_text("<s> the river </s>\n" * 50)
    assert not plan(tmp_path / "x.txt").notes
