"""Ordinary text is read, however it begins and whatever single odd byte it holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.config import Corpus
from pipeline.errors import DataError
from pipeline.text.corpus import CorpusPlan, plan_corpus
from tests.pipeline.texts_on_disk import read

STORY = b"the river runs to the sea and nobody knows why\n" * 40


def plan(path: Path, **corpus: object) -> CorpusPlan:
    return plan_corpus(Corpus(inputs=[str(path)], **corpus))  # type: ignore[arg-type]


def written(folder: Path, data: bytes) -> Path:
    (folder / "x.txt").write_bytes(data)
    return folder / "x.txt"


@pytest.mark.parametrize("odd", [b"caf\xe9", b"bell \x07", b"hole \0"], ids=["another encoding", "control character", "NUL"])
@pytest.mark.parametrize(
    "begin",
    ["This is", "From", "From:", "Subject:", "DVD", "function", "import", "graph", "record", "FILE", "Article", "Version", "AOL",
     "begin", "Only in", '[Event "F"]', "Summary:", "#!/usr/bin/python", "%YAML 1.2", "SHOW", "I I"],
)  # fmt: skip
def test_text_that_begins_with_letters_that_are_a_signature_may_hold_an_odd_byte(tmp_path: Path, begin: str, odd: bytes) -> None:
    path = written(tmp_path, begin.encode() + b" a story\n" + STORY + odd + b"\n")
    assert plan(path).files


@pytest.mark.parametrize("odd", [b"caf\xe9", b"bell \x07", b"hole \0"], ids=["another encoding", "control character", "NUL"])
def test_text_with_a_byte_order_mark_may_hold_an_odd_byte(tmp_path: Path, odd: bytes) -> None:
    assert plan(written(tmp_path, b"\xef\xbb\xbf" + STORY + odd + b"\n")).files


@pytest.mark.parametrize(
    "begin",
    [b"GIF89a\x10\0\x10\0", b"ID3\x03\0\0", b"OggS\0\x02", b"SQLite format 3\0\x10\0\x01", b"RIFF\x24\0\0\0WAVE", b"8BPS\0\x01",
     b"MThd\0\0\0\x06", b"bplist00\xd4\x01\x02", b"%!PS-Adobe-3.0\n", b"{\\rtf1\\ansi\n"],
)  # fmt: skip
def test_a_signature_of_letters_in_a_binary_file_is_one(tmp_path: Path, begin: bytes) -> None:
    with pytest.raises(DataError, match=r"x\.txt: looks like an? .*extract its text"):
        plan(written(tmp_path, begin + STORY))


def test_text_full_of_control_characters_is_refused_with_the_character(tmp_path: Path) -> None:
    path = written(tmp_path, b"12\x01the river runs\x01x\n" * 40)
    with pytest.raises(DataError, match=r"holds control characters, most often byte 0x01 \(10 % of its bytes\).*replace them"):
        plan(path)


@pytest.mark.parametrize(
    "begin",
    [b'<p align="center">\n<img src="a.png"/>\n</p>\n\n', b'<div align="center">\n<div>x</div>\n</div>\n',
     b'<img src="a.png">\n\n', b'<!-- badges -->\n<h1 align="center"><a href="x">River</a></h1>\n<p align="left">y</p>\n',
     b'<a href="http://example.org">x</a> is a page about '],
)  # fmt: skip
def test_text_that_begins_with_a_few_tags_is_read_with_a_note(tmp_path: Path, begin: bytes) -> None:
    found = plan(written(tmp_path, begin + STORY * 5 + b"<b>the</b> <i>end</i> <i>of</i>\n"))
    assert any("HTML or XML tags" in note for note in found.notes)


@pytest.mark.parametrize(
    "data",
    [b'<doc id="1" title="River">\n' + STORY + b"</doc>\n" + b'<doc id="2" title="Sea">\n' + STORY + b"</doc>\n",
     b'<dump about="x">\n<page><title>River</title></page>\n' + STORY * 50,
     b'<p class="a">the <b>river</b></p> runs <i>to</i> the <b>sea</b>\n' * 20],
    ids=["documents", "an element that does not end", "dense"],
)  # fmt: skip
def test_markup_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError, match="looks like HTML or XML"):
        plan(written(tmp_path, data))


@pytest.mark.parametrize(
    "line",
    ["caf\u00e9 na\u00efve\n", "T\u00e4ll\u00e4 on hyv\u00e4\n", "می\u200cرود به دریا\n"],
    ids=["two letters", "one letter", "joiner"],
)  # fmt: skip
def test_utf7_with_few_different_letters_or_joiners_is_refused_by_name(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"set corpus\.encoding: utf-7"):
        plan(written(tmp_path, (line * 40).encode("utf-7")))


@pytest.mark.parametrize(
    "header",
    [b"\x89HDF\r\n\x1a\n\0\0", b"\x03\x7a\x01\x01\0\0\0\0", b"\xde\x12\x04\x95\0\0\0\0", b"\xba\x16\x4f\x2f\x0c\0\0\0"],
    ids=["HDF5", "dBase", "gettext", "fastText"],
)  # fmt: skip
def test_a_binary_file_that_is_mostly_nul_is_refused(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(DataError, match=r"holds binary data|HDF5 document"):
        plan(written(tmp_path, header + bytes(2000) + b"the river runs"))


@pytest.mark.parametrize("header", [b"", b"4 8\n"])
def test_word_vectors_are_no_text(tmp_path: Path, header: bytes) -> None:
    rows = b"".join(word + b" -0.25 .5 1.5e-3 0.1 0.2 0.3 0.4 0.5\n" for word in (b"the", b"river", b"runs", b"3.5"))
    with pytest.raises(DataError, match=r"looks like word vectors.*corpus\.exclude"):
        plan(written(tmp_path, header + rows))
    assert plan(written(tmp_path, header + rows), sniff=False).files
    assert plan(written(tmp_path, b"it cost 1.5 or 2.5 but not 3.5\n" * 9)).files


@pytest.mark.parametrize("name", ["x.txt.gz", "x.zip", "x.lzma", "x.zst"])
def test_text_under_the_name_of_an_archive_is_called_text_in_every_language(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes("Über die Brücke\n".encode() * 9)
    with pytest.raises(DataError, match="holds text, although its name says"):
        plan(tmp_path / name)


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\u0085", "\0", "\v"], ids=["U+2028", "U+2029", "NEL", "NUL", "VT"])
def test_a_file_without_line_ends_that_has_others_is_read_with_a_note(tmp_path: Path, end: str) -> None:
    found = plan(written(tmp_path, f"the river runs{end}to the sea{end}and back".encode()))
    assert any("has no line end, but U+2028" in note for note in found.notes)
    assert not plan(written(tmp_path, f"the river{end}runs\nto the sea{end}\n".encode())).notes


def test_tags_that_never_end_are_noted(tmp_path: Path) -> None:
    assert any("HTML or XML tags" in note for note in plan(written(tmp_path, b"the river<br>\n" * 40)).notes)


def test_a_feather_file_of_the_first_version_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.feather").write_bytes(b"FEA1" + bytes(90))
    with pytest.raises(DataError, match=r"Feather file of version 1.*version=2"):
        plan(tmp_path / "x.feather", format="arrow")


SHORT = {
    "cp932": [
        "猫が座る。犬も座る。",
        "吾輩は猫である。名前はまだ無い。",
        "カタカナのテスト",
        "東京都に行きました。",
        "私は学生です",
    ],
    "euc_jp": [
        "猫が座る。犬も座る。",
        "吾輩は猫である。名前はまだ無い。",
        "カタカナのテスト",
        "ご飯を食べましたか？",
        "私は学生です",
    ],
    "gb18030": ["今天天气很好。", "猫坐在垫子上", "你好，世界", "床前明月光，疑是地上霜。", "中华人民共和国"],
    "big5": ["今天天氣很好。", "貓坐在墊子上", "你好，世界", "我喜歡讀書", "這是一個測試"],
    "cp949": ["고양이가 앉아 있다.", "오늘은 날씨가 좋다", "강은 바다로 흐른다", "대한민국", "책을 읽는다"],
}


@pytest.mark.parametrize("times", [1, 40])
@pytest.mark.parametrize("encoding", SHORT)
def test_one_short_sentence_of_an_east_asian_language_tells_its_encoding(tmp_path: Path, encoding: str, times: int) -> None:
    for sentence in SHORT[encoding]:
        with pytest.raises(DataError, match=rf"set corpus\.encoding: {encoding}\b"):
            plan(written(tmp_path, f"{sentence}\n".encode(encoding) * times))
        with pytest.raises(DataError, match=rf"set corpus\.encoding: {encoding}\b"):
            plan(written(tmp_path, (sentence.replace(" ", "").encode(encoding) * 9000)[:70_001]))


@pytest.mark.parametrize(
    ("sentence", "encoding"),
    [("Les élèves étaient là", "cp850"), ("Die Straße führt über die Brücke", "cp437"),
     ("старик сидит на берегу весь день", "koi8_r"), ("בבית הספר והמורה", "cp1255"),
     ("Το ποτάμι τρέχει προς τη θάλασσα", "cp1253"), ("الأطفال إلى المدرسة", "cp1256")],
)  # fmt: skip
def test_letters_of_one_byte_are_not_taken_for_east_asian_characters(tmp_path: Path, sentence: str, encoding: str) -> None:
    for times in (1, 40):
        with pytest.raises(DataError) as caught:
            plan(written(tmp_path, f"{sentence}\n".encode(encoding) * times))
        assert not any(f"corpus.encoding: {name}" in str(caught.value) for name in SHORT)


RUSSIAN = "Река течёт к морю, и старик сидит на берегу весь день. Дети пошли в школу. Никто не знал, почему ушла девушка.\n"


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [(RUSSIAN, "koi8-r", "cp1251"), (RUSSIAN, "cp1251", "koi8-r"), (RUSSIAN, "cp1251", "latin-1"),
     ("Zażółć gęślą jaźń, dziewczynka śpiewała pieśń o żółtej róży\n", "cp1250", "cp1252"),
     ("הילדים הלכו לבית הספר והמורה סיפר להם סיפור\n", "cp1255", "cp1256"),
     ("“it’s late” – he said…\n" * 9, "cp1252", "latin-1")],
)  # fmt: skip
def test_an_encoding_that_makes_other_letters_than_a_language_has_is_noted(
    tmp_path: Path, text: str, encoding: str, said: str
) -> None:
    notes = plan(written(tmp_path, text.encode(encoding) * 9), encoding=said).notes
    found = re.search(r"reads? better as (\S+) than as", " ".join(notes))
    assert found is not None
    assert text.encode(encoding).decode(found[1]) == text
    assert not plan(tmp_path / "x.txt", encoding=encoding).notes


def test_the_right_encoding_is_not_doubted(tmp_path: Path) -> None:
    for text, encoding in (
        ("Le garçon mange à la forêt où l'été dernier il avait déjà vu un hérisson", "iso8859-15"),
        ("Árvíztűrő tükörfúrógép, mondta az öreg", "iso8859-2"), ("Çocuklar bahçede oynuyor ve güneş parlıyor", "cp1254"),
        ("Жінка тече ґудзик їжак щодня", "koi8-u"), ("Žmonės eina į mišką rinkti grybų", "iso8859-13"),
        ("Το ποτάμι τρέχει προς τη θάλασσα", "iso8859-7"), ("แม่น้ำไหลลงสู่ทะเล", "cp874"), ("Straße über Öl und Äpfel", "mac_roman"),
        ("Straße über Öl und Äpfel", "cp437"), ("Børnene så en ærlig mand på øen", "cp865"), ("plain words only", "cp1252"),
    ):  # fmt: skip
        assert not plan(written(tmp_path, f"{text}\n".encode(encoding) * 20), encoding=encoding).notes


def test_fields_inside_others_are_named_as_the_setting_takes_them(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id": 1, "data": {"text": "the river", "n": {"m": 2}}, "meta": {}}\n')
    with pytest.raises(DataError, match=r"no field 'text'; it has id, data\.text, data\.n, meta; set corpus\.text_field"):
        read(tmp_path / "x.jsonl", format="jsonl")
    assert read(tmp_path / "x.jsonl", format="jsonl", text_field="data.text")[0].split() == [b"the", b"river"]


def test_values_that_are_no_objects_come_with_what_to_write_around_them(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('["the river", "the sea"]\n')
    with pytest.raises(DataError, match=r'line 1: expected an object, found str; write \{"text": …\} around each'):
        read(tmp_path / "x.jsonl", format="jsonl")
