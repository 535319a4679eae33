"""The files inside a .zip or .tar (compressed or not), one after the other, as blocks of bytes in bounded memory.

Files are left out by the same rules as in folders, and counted; links are never followed. Every member is read to its end, so
that damage is found.
"""

from __future__ import annotations

import io
import itertools
import lzma
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

from pipeline.errors import DataError, printable
from pipeline.text.decompress import BLOCK_BYTES
from pipeline.text.inputs import Filter

LINKS = "links|link were|was not followed"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_OTHER_METHODS = {9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd"}
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, zlib.error, lzma.LZMAError, EOFError, OSError)


def zip_members(file: BinaryIO, path: str, chosen: Filter, left_out: Counter[str]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """(name, blocks) of every file in a zip archive; counts in `left_out`, by reason, the members that are not read. Raises
    DataError for damage and encryption."""
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.is_dir():
                    continue
                if reason := chosen.problem(member.filename):
                    left_out[reason] += 1
                    continue
                if member.flag_bits & 1:
                    raise DataError(
                        f"{printable(path, 300)}: {printable(member.filename, 100)} in it is encrypted; unpack it first"
                    )
                if member.compress_type not in _METHODS:
                    raise DataError(
                        f"{printable(path, 300)}: {printable(member.filename, 100)} in it is compressed by a method that is not "
                        f"read ({_OTHER_METHODS.get(member.compress_type, member.compress_type)}); unpack it first"
                    )
                with archive.open(member) as content:
                    yield member.filename, _blocks(content, path, "zip")
    except _DAMAGE as error:
        raise _damaged(path, "zip", error) from None


def tar_members(
    blocks: Iterator[bytes], path: str, chosen: Filter, left_out: Counter[str]
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """(name, blocks) of every regular file in a tar archive; counts as `zip_members` does. Raises DataError for damage."""
    stream = _Stream(blocks)
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK_BYTES, errorlevel=2) as archive:
            for member in archive:
                reason = chosen.problem(member.name) if member.isreg() else LINKS if member.islnk() or member.issym() else None
                if reason:
                    left_out[reason] += 1
                if reason or not member.isreg():
                    continue
                yield member.name, _blocks(cast(IO[bytes], archive.extractfile(member)), path, "tar")
            end = archive.offset
    except (tarfile.TarError, EOFError) as error:
        raise _damaged(path, "tar", error) from None
    # tarfile takes a header that it cannot read for the end. Reading on checks the compression's checksum, too.
    if any(rest.strip(b"\0") for rest in itertools.chain([stream.since(end)], blocks)):
        raise _damaged(path, "tar", f"what follows byte {end:,} of it is no member and not the end: damage, or archives joined")


def _blocks(content: IO[bytes], path: str, kind: str) -> Iterator[bytes]:
    """The blocks of a member; raises DataError for damage, which reading it finds."""
    try:
        while block := content.read(BLOCK_BYTES):
            yield block
    except _DAMAGE as error:
        raise _damaged(path, kind, error) from None


class _Stream(io.RawIOBase):
    """Blocks as a file that can be read forward only."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""
        self._last = b""
        self._given = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, held = [self._rest], len(self._rest)
        while (size < 0 or held < size) and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            held += len(block)
        data = b"".join(parts)
        cut = len(data) if size < 0 else size
        self._rest = data[cut:]
        self._last = (self._last + data[:cut])[-2 * BLOCK_BYTES :]
        self._given += len(data[:cut])
        return data[:cut]

    def since(self, offset: int) -> bytes:
        """What was given or is held from `offset` on; tarfile reads ahead by a block."""
        return self._last[max(0, offset - self._given + len(self._last)) :] + self._rest


def _damaged(path: str, kind: str, error: Exception | str) -> DataError:
    return DataError(
        f"{printable(path, 300)}: damaged {kind} archive ({printable(str(error), 120)}); nothing of this file was counted; "
        "download or pack it again"
    )
