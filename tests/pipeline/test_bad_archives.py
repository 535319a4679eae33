"""Archives as they are found in the wild: no member of a damaged one is left out silently, and none takes unbounded memory."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import DataError
from tests.pipeline.texts_on_disk import read, write


def tar_of_three() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name in ("a.txt", "b.txt", "c.txt"):
            member = tarfile.TarInfo(name)
            member.size = 12
            archive.addfile(member, io.BytesIO(f"words of {name[0]}\n ".encode()))
    return sink.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("damage", ["header", "zeros", "cut", "joined"])
def test_no_member_of_a_tar_is_lost_behind_a_header_that_cannot_be_read(tmp_path: Path, damage: str, compressed: bool) -> None:
    whole = tar_of_three()
    second = whole.index(b"b.txt")
    damaged = {
        "header": whole[:second] + b"XX" + whole[second + 2 :],
        "zeros": whole[:second] + bytes(512) + whole[second + 512 :],
        "cut": whole[: second + 100],
        "joined": whole + whole,
    }[damage]
    path = write(tmp_path / ("x.tar.gz" if compressed else "x.tar"), gzip.compress(damaged) if compressed else damaged)
    with pytest.raises(DataError, match=r"x\.tar.*: damaged tar archive \(what follows byte [\d,]+ of it is no member"):
        read(path)
    assert read(write(tmp_path / "y.tar", whole + bytes(1 << 20)))[0].split() == b"words of a words of b words of c".split()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_inside_a_member_of_an_archive_is_an_error_of_the_archive(tmp_path: Path, method: int) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        archive.writestr("a.txt", "".join(f"word{number} " for number in range(3000)))
    data = bytearray(sink.getvalue())
    data[200:220] = bytes(20)
    with pytest.raises(DataError, match=r"x\.zip: damaged zip archive"):
        read(write(tmp_path / "x.zip", bytes(data)))
    with pytest.raises(DataError, match=r"x\.tar: damaged tar archive \(unexpected end of data"):
        read(write(tmp_path / "x.tar", tar_of_three()[:520]))


@pytest.mark.parametrize(("suffix", "format"), [(".xz", lzma.FORMAT_XZ), (".lzma", lzma.FORMAT_ALONE)])
def test_a_dictionary_that_would_take_a_gigabyte_is_refused(tmp_path: Path, suffix: str, format: int) -> None:
    kind = lzma.FILTER_LZMA2 if format == lzma.FORMAT_XZ else lzma.FILTER_LZMA1
    for size, readable in ((64 << 20, True), (1 << 30, False)):
        data = lzma.compress(b"the river\n" * 99, format, filters=[{"id": kind, "dict_size": size}])
        path = write(tmp_path / f"x.txt{suffix}", data)
        if readable:
            assert read(path)[0].count(b"river") == 99
            continue
        with pytest.raises(DataError, match=r"dictionary is too large .* compress it again with xz -9"):
            read(path)


@pytest.mark.parametrize("archive", ["zip", "tar"])
def test_members_of_archives_whose_lines_end_with_cr_alone_are_read_as_lines(tmp_path: Path, archive: str) -> None:
    shutil.make_archive(str(tmp_path / "x"), archive, write(tmp_path / "texts" / "a.txt", b"the river\rthe sea\r" * 20).parent)
    text, counts = read(tmp_path / f"x.{archive}")
    assert text.split(b"\n")[:2] == [b"the river", b"the sea"]
    assert any("every line with CR alone" in remark for remark in counts.remarks)


def test_members_that_are_left_out_are_counted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("a.txt", "LICENSE", "authors.txt", "__MACOSX/._a.txt", "_b.txt"):
            archive.writestr(name, "the river\n")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(write(tmp_path / "texts" / "a.txt", "the sea\n"), "a.txt")
        for name, kind in (("b.txt", tarfile.SYMTYPE), ("c.txt", tarfile.LNKTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "a.txt"
            archive.addfile(link)
    text, counts = read(tmp_path / "x.zip", tmp_path / "x.tar")
    assert sorted(text.split()) == [b"river", b"sea", b"the", b"the"]
    noted = {remark: count for remark, count in counts.remarks.items() if "(members of archives)" in remark}
    left_out = {re.split(r"[ |]", remark)[0]: count for remark, count in noted.items()}
    assert left_out == {"hidden,": 2, "files": 2, "links": 2}


def test_an_archive_without_members_is_empty_and_not_misnamed(tmp_path: Path) -> None:
    tarfile.open(tmp_path / "x.tar", "w").close()
    tarfile.open(tmp_path / "x.tar.gz", "w:gz").close()
    zipfile.ZipFile(tmp_path / "x.zip", "w").close()
    assert read(tmp_path / "x.tar", tmp_path / "x.tar.gz", tmp_path / "x.zip")[0].split() == []


def test_the_way_out_of_a_member_that_is_not_read_is_told_once(tmp_path: Path) -> None:
    for data, advice in (
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "or leave it out with corpus.exclude"),
        (gzip.compress(b"the river\n"), "unpack the archive, or leave it out with corpus.exclude"),
        ("the river\n".encode("utf-16"), "set corpus.encoding: utf-16, or leave it out with corpus.exclude"),
    ):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("a.txt", data)
        with pytest.raises(DataError, match=r"x\.zip/a\.txt: ") as caught:
            read(tmp_path / "x.zip")
        assert str(caught.value).endswith(advice)
        assert str(caught.value).count("corpus.exclude") == 1
