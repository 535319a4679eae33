"""The files inside a .zip or .tar (compressed or not), one after the other, as blocks of bytes in bounded memory.

Files are left out by the same rules as in folders. Every member is read to its end, so that damage is found.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from pipeline.errors import DataError, printable
from pipeline.text.decompress import BLOCK_BYTES
from pipeline.text.inputs import Filter


def zip_members(file: BinaryIO, path: str, chosen: Filter) -> Iterator[tuple[str, Iterator[bytes]]]:
    """(name, blocks) of every file in a zip archive; raises DataError for damage and encryption."""
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.is_dir() or not chosen.takes(member.filename):
                    continue
                if member.flag_bits & 1:
                    raise DataError(
                        f"{printable(path, 300)}: {printable(member.filename, 100)} in it is encrypted; unpack it first"
                    )
                with archive.open(member) as content:
                    yield member.filename, iter(lambda content=content: content.read(BLOCK_BYTES), b"")  # type: ignore[misc]
    except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError, OSError) as error:
        raise _damaged(path, "zip", error) from None


def tar_members(blocks: Iterator[bytes], path: str, chosen: Filter) -> Iterator[tuple[str, Iterator[bytes]]]:
    """(name, blocks) of every regular file in a tar archive; raises DataError for damage."""
    stream = _Stream(blocks)
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK_BYTES, errorlevel=2) as archive:
            for member in archive:
                if not member.isreg() or not chosen.takes(member.name):
                    continue
                content = cast(Any, archive.extractfile(member))
                yield member.name, iter(lambda content=content: content.read(BLOCK_BYTES), b"")  # type: ignore[misc]
    except (tarfile.TarError, EOFError) as error:
        raise _damaged(path, "tar", error) from None
    for _ in blocks:  # reading to the end checks the compression's checksum
        pass


class _Stream(io.RawIOBase):
    """Blocks as a file that can be read forward only."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

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
        return data[:cut]


def _damaged(path: str, kind: str, error: Exception) -> DataError:
    return DataError(
        f"{printable(path, 300)}: damaged {kind} archive ({printable(str(error), 120)}); nothing of this file was counted; "
        "download or pack it again"
    )
