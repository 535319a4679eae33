"""Text that is not sentences although every byte of it is text is refused with a way out, or read with a note."""

from __future__ import annotations

import base64
import binascii
import io
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.config import Corpus, parse_config
from pipeline.errors import DataError
from pipeline.text.corpus import CorpusPlan, plan_corpus
from pipeline.text.losses import FileLosses
from pipeline.text.whole import fitting_encodings
from tests.pipeline.texts_on_disk import read, write

DIGITS = bytes(range(256)) * 8
TIMES = "{0}\n00:00:{0:02},000 --> 00:00:{0:02},900\nwhat did the river say\n\n"


def plan(folder: Path, data: bytes | str, name: str = "x.txt", **corpus: object) -> CorpusPlan:
    path = write(folder / name, data)
    return plan_corpus(Corpus(inputs=[str(path)], **corpus))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{'text': 'the river runs', 'id': 1}\n" * 3, r"Python's notation of dictionaries.*json\.dumps"),
        ("[{'text': None}]\n", "Python's notation of dictionaries"),
        ("WARC/1.0\r\nWARC-Type: response\r\n\r\nhello", "WARC archive of web pages"),
        ("".join(TIMES.format(second) for second in range(1, 9)), "looks like subtitles"),
        ("WEBVTT\n\n" + "".join(TIMES.format(second).replace(",", ".") for second in range(1, 9)), "looks like subtitles"),
        (base64.encodebytes(DIGITS), "base64, hexadecimal or uuencode"),
        (base64.b64encode(DIGITS), "base64, hexadecimal or uuencode"),
        (base64.urlsafe_b64encode(DIGITS) + b"\n", "base64, hexadecimal or uuencode"),
        (b"-----BEGIN MESSAGE-----\n\n" + base64.encodebytes(DIGITS) + b"-----END MESSAGE-----\n", "base64"),
        ("\n".join(DIGITS[at : at + 16].hex() for at in range(0, 2048, 16)), "base64, hexadecimal or uuencode"),
        (
            b"begin 644 a.bin\n" + b"".join(binascii.b2a_uu(DIGITS[at : at + 45]) for at in range(0, 900, 45)),
            "base64, hexadecimal or uuencode",
        ),
        ("version https://hawser.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("../../.git/annex/objects/a/b/SHA256E-s1--0.txt/SHA256E-s1--0.txt", "git annex get"),
        ("outs:\n- md5: 0\n  size: 1\n  path: a.txt\n", "dvc pull"),
        ("// made by hand\n" + '{"text": "the river"}\n' * 9, r"looks like JSON.*corpus\.format: jsonl"),
        ("!<arch>\na.txt/          0           0     0     100644  6         `\nriver\n", r"looks like a \.lib file"),
        (b"Obj\x01\x04\x14avro.codec\x08null" + bytes(40), "looks like an Avro file"),
        (b"\xff\x06\0\0sNaPpY\x01" + bytes(range(80)), "looks like a Snappy file"),
        (b"FEA1\0\0\0\0\x0b\0\0\0\x14\0\0\0" + b"\x1f\0\0\0" * 40, "looks like a Feather file of version 1"),
    ],
)
def test_what_is_not_sentences_is_refused_by_name(tmp_path: Path, data: bytes | str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        plan(tmp_path, data)


@pytest.mark.parametrize(
    "text",
    ["{'tis the season', said the river: and it ran\n" * 3,
     "at 00:00:01,000 --> 00:00:02,000 the film begins\n" + "a line\n" * 90,
     "ACGT" * 15 + "\n" + ("ACGTTGCA" * 10)[:60] + "\n" + "GATTACA" * 8 + "GATT\n", "begin 644 a.bin is how\nit ends\n",
     "WARCRAFT is a game\n" * 3,
     "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen1\n" * 9,
     "ORC is a creature of tales\n" * 3, "outs:\n- a list of them\n",
     "ÉCOLE « CAFÉ »\u00a0: déjà\u00a0»\n" * 9],
)  # fmt: skip
def test_sentences_that_only_resemble_it_are_read_without_a_note(tmp_path: Path, text: str) -> None:
    assert not plan(tmp_path, text).notes


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("caf\\u00e9 and \\u00e9t\\u00e9\n" * 9, "written as escapes"),
        ("caf%C3%A9 and gr%C3%B6%C3%9Fe\n" * 9, "written as escapes"),
        ("caf=C3=A9 and gr=C3=B6=C3=9Fe\n" * 9, "written as escapes"),
        ("\x1b[31mthe river\x1b[0m runs\n" * 9, "written as escapes"),
        ("it ran.\\nThen it stood.\\n\\nAnd ran\n" * 9, "written as escapes"),
        ("für größere Bäume\n".encode().decode("cp1252") * 9, "read as another encoding and written again"),
        ("река течёт в море\n".encode().decode("latin-1") * 9, "read as another encoding and written again"),
        ("1\tthe river runs\ten\n2\tthe sea\ten\n" * 4, "the same columns in every line and no header"),
        ('1,"the river, runs",en\n2,the sea,en\n' * 4, "the same columns in every line and no header"),
    ],
)
def test_odd_text_is_read_with_a_note(tmp_path: Path, text: str, note: str) -> None:
    assert any(note in found for found in plan(tmp_path, text).notes)


def test_a_compressed_archive_that_is_named_as_a_plain_one_is_told_its_name(tmp_path: Path) -> None:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    with pytest.raises(DataError, match=r"is a \.gz file, although its name ends in \.tar; rename it to end in \.tar\.gz"):
        plan(tmp_path, memory.getvalue(), "x.tar")


def test_json_behind_a_comment_or_in_quotes_gets_a_hint_that_helps(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not begin with JSON, although later lines hold it"):
        plan(tmp_path, "# made by hand\n" + '{"text": "the river"}\n' * 9, "x.jsonl", format="jsonl")
    path = write(tmp_path / "y.jsonl", '"the river"\n"the sea"\n')
    with pytest.raises(DataError, match=r'expected an object, found str; write \{"text": …\} around each'):
        read(path, format="jsonl")


def test_json_that_python_or_its_writer_treats_in_a_special_way_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"text": "the river", "id": ' + "9" * 6000 + "}\n")
    assert read(path, format="jsonl")[0].split() == [b"the", b"river"]
    path = write(tmp_path / "y.jsonl", '\x1e{"text": "the river"}\n\x1e{"text": "the sea"}\n')
    assert read(path, format="jsonl")[0].split() == [b"the", b"river", b"the", b"sea"]


@pytest.mark.parametrize("wrong", [", bad}", ', "more": ' + "[" * 100_000 + "}"])
def test_what_is_wrong_behind_a_number_of_many_digits_is_told_with_its_line(tmp_path: Path, wrong: str) -> None:
    path = write(tmp_path / "x.jsonl", '{"text": "the river"}\n{"text": "the sea", "id": ' + "9" * 6000 + wrong + "\n")
    with pytest.raises(DataError, match=r"x\.jsonl: line 2: not valid JSON"):
        read(path, format="jsonl")


@pytest.mark.parametrize("text", ['[{"text": "a b"},\n {"text": "c d"}', '[{"text": "a b"},', '[{"text": "a b"}\n', "["])
def test_an_array_without_an_end_is_cut(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "x.jsonl", text)
    with pytest.raises(DataError, match=r"x\.jsonl: line \d: not valid JSON \(an array has no end: the file is cut\)"):
        read(path, format="jsonl")
    assert read(write(path, text + "]"), format="jsonl")[0].split()[:2] in ([b"a", b"b"], [])


def test_an_arrow_file_of_several_streams_loses_none_in_silence(tmp_path: Path) -> None:
    table = pa.table({"text": ["the river runs", "to the sea"]})
    memory = io.BytesIO()
    with pa.ipc.new_stream(memory, table.schema) as stream:
        stream.write_table(table)
    assert read(write(tmp_path / "x.arrow", memory.getvalue()), format="arrow")[0].split()[-1] == b"sea"
    with pytest.raises(DataError, match=r"its stream ends at byte [\d,]+ and more bytes follow: several were joined"):
        read(write(tmp_path / "x.arrow", memory.getvalue() * 2), format="arrow")


def test_a_parquet_file_with_an_encrypted_footer_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="encrypted footer; decrypt it first"):
        plan(tmp_path, b"PARE\x15\0" + bytes(90) + b"PARE", "x.parquet", format="parquet")
    with pytest.raises(DataError, match="it looks like an ORC file"):
        plan(tmp_path, b"ORC\n\x03\0" + bytes(90), "y.parquet", format="parquet")


def test_a_member_that_is_compressed_by_another_method_is_not_called_damage(tmp_path: Path) -> None:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "the river\n" * 9)
    data = bytearray(memory.getvalue())
    data[8] = data[data.find(b"PK\x01\x02") + 10] = 9
    with pytest.raises(DataError, match=r"a\.txt in it is compressed by a method that is not read \(Deflate64\); unpack it"):
        read(write(tmp_path / "x.zip", bytes(data)))


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("Příliš žluťoučký kůň úpěl ďábelské ódy a děti šly do školy.\n", "mac_latin2"),
     ("Το ποτάμι τρέχει προς τη θάλασσα και τα παιδιά παίζουν εκεί.\n", "mac_greek"),
     ("Çocuklar ırmağın kıyısında koşuyordu, hava sıcaktı ve güneş parlıyordu.\n", "cp857"),
     ("Çocuklar ırmağın kıyısında koşuyordu, hava sıcaktı ve güneş parlıyordu.\n", "mac_turkish"),
     ("Vaikai bėgiojo palei upę, žąsys ūkė, o šuo miegojo už namų.\n", "iso8859_4"),
     ("Það var hlýtt og börnin hlupu meðfram ánni í góðu veðri þann dag.\n", "mac_iceland"),
     ("Ngu\u031bo\u031b\u0300i Viêt Nam no\u0301i tiê\u0301ng Viê\u0323t va\u0300 đi vê\u0300 nha\u0300.\n", "cp1258")],
)  # fmt: skip
def test_older_encodings_are_named_too(tmp_path: Path, text: str, encoding: str) -> None:
    with pytest.raises(DataError, match=rf"set corpus\.encoding: {encoding}\b"):
        plan(tmp_path, unicodedata.normalize("NFC", text).encode(encoding) * 9 if encoding != "cp1258" else vietnamese(text) * 9)


def vietnamese(text: str) -> bytes:
    """In cp1258 only the five tones are marks of their own."""
    return text.replace("u\u031b", "ư").replace("o\u031b", "ơ").encode("cp1258")


@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman"])
def test_lines_in_another_encoding_among_others_in_utf8_are_told_apart(tmp_path: Path, encoding: str) -> None:
    text = "Die größere Straße führt über die Brücke nach Köln\n" * 40
    with pytest.raises(DataError, match=rf"some of its lines are UTF-8, others read well as {encoding}: convert those"):
        plan(tmp_path, text.encode() + text.encode(encoding))
    with pytest.raises(DataError, match=rf"they read well as {encoding}: set corpus\.encoding: {encoding}"):
        plan(tmp_path, text.encode(encoding))


@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman"])
@pytest.mark.parametrize("text", ["don’t stop", "it’s “quoted” … text", "one – two", "£10 and 3 °C"])
def test_english_with_few_kinds_of_marks_tells_its_encoding(tmp_path: Path, text: str, encoding: str) -> None:
    with pytest.raises(DataError, match=rf"they read well as {encoding}: set corpus\.encoding: {encoding}"):
        plan(tmp_path, f"{text}\n".encode(encoding) * 30)


def test_a_byte_that_no_text_has_alone_tells_no_encoding(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not UTF-8") as caught:
        plan(tmp_path, b"one \xff two\n" * 30)
    assert "read well" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "cp949", "cp932"])
def test_text_of_europe_read_as_east_asian_is_noted(tmp_path: Path, encoding: str) -> None:
    noted = "East Asian characters inside words"
    text = ("Die größere Straße führt über die Brücke nach Köln und Nürnberg\n" * 9).encode("cp1252")
    found = plan(tmp_path, text, encoding=encoding, max_lost=1)
    assert any(noted in note for note in found.notes)
    mixed = {
        "gb18030": "用Python写的API很好",
        "big5": "用Python寫的API很好",
        "cp949": "Python으로 API를 만든다",
        "cp932": "PythonでAPIを書く",
    }
    assert not plan(tmp_path, (mixed[encoding] + "\n").encode(encoding) * 9, encoding=encoding).notes


def test_half_a_file_in_another_alphabet_is_told_apart_too(tmp_path: Path) -> None:
    text = "река течёт в море и никто не знает почему\n"
    with pytest.raises(DataError, match="is UTF-8 in some of its lines only; convert the others"):
        plan(tmp_path, text.encode() * 20 + text.encode("cp1251") * 60)
    with pytest.raises(DataError, match=r"set corpus\.encoding: cp1251"):
        plan(tmp_path, text.encode("cp1251") * 60)


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.txt"])
def test_the_encoding_of_members_of_an_archive_is_named(tmp_path: Path, name: str) -> None:
    path, text = tmp_path / name, ("Die Straße führt über die größere Brücke.\n" * 9).encode("cp1252")
    members = [("a.txt", b"the river runs\n" * 9), ("b.txt", text)]
    if name == "x.zip":
        with zipfile.ZipFile(path, "w") as archive:
            for member, data in members:
                archive.writestr(member, data)
    elif name == "x.txt":
        path.write_bytes(b"".join(data for _, data in members))
    else:
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as tar:
            for member, data in members:
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    config = parse_config({"corpus": {"inputs": [str(path)], "max_lost": 1}})
    found = plan_corpus(config.corpus)
    losses = FileLosses()
    losses.add({"read": 100, "not_text": 10}, {"not_text": 10})
    assert fitting_encodings(found, {str(path): losses}, config) == {str(path): "cp1252"}
