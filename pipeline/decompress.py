"""Compressed files as blocks of bytes, in bounded memory, never short: an incomplete or damaged file raises.

Python's gzip and lzma readers hand out text before they notice damage and xz's ignores trailing garbage, python-zstandard
accepts a truncated file without a word. Here every member must end, what follows it must be another member (or
zero padding), and a file that grows beyond its bound is refused while it is still small.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from pipeline.errors import DataError, printable

BLOCK_BYTES = 1 << 18
_INPUT_BYTES = 1 << 16
_BOMB_FLOOR_BYTES = 16 << 20
"""A file may always grow to this size: tiny files of one repeated word compress beyond any ratio."""


def decompress(file: BinaryIO, kind: str, *, path: str, size: int, max_ratio: int) -> Iterator[bytes]:
    """Blocks of a compressed file's content; raises DataError naming the file and the offset of its stored bytes."""
    blocks = _zstd_blocks(file, path) if kind == "zstd" else _member_blocks(file, kind, path)
    limit = max(max_ratio * size, _BOMB_FLOOR_BYTES)
    total = 0
    for block in blocks:
        total += len(block)
        if total > limit:
            raise DataError(
                f"{printable(path, 300)}: {size:,} stored bytes grew beyond {limit:,} (corpus.max_ratio={max_ratio}): "
                "a decompression bomb, or very repetitive text; raise corpus.max_ratio if you trust the file"
            )
        yield block


def _decompressor(kind: str) -> Callable[[], Any]:
    if kind == "gzip":
        return lambda: zlib.decompressobj(wbits=31)
    return bz2.BZ2Decompressor if kind == "bz2" else lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)


def _member_blocks(file: BinaryIO, kind: str, path: str) -> Iterator[bytes]:
    make = _decompressor(kind)
    offset = 0
    member: Any = None
    pending = b""
    while True:
        if not pending:
            pending = file.read(_INPUT_BYTES)
            offset += len(pending)
            if not pending:
                break
        if member is None:
            # Tapes and block devices pad with zeros; anything else after a member must be a member.
            pending = pending.lstrip(b"\0")
            if not pending:
                continue
            member = make()
        try:
            block = member.decompress(pending, BLOCK_BYTES)
        except (zlib.error, OSError, ValueError, lzma.LZMAError, EOFError) as error:
            raise _damaged(path, kind, offset - len(pending), f"{error}") from None
        if block:
            yield block
        if member.eof:
            pending, member = member.unused_data, None
        elif kind == "gzip":
            pending = member.unconsumed_tail
        else:
            pending = b""
            while not member.eof and not member.needs_input:
                try:
                    yield member.decompress(b"", BLOCK_BYTES)
                except (OSError, ValueError, lzma.LZMAError, EOFError) as error:
                    raise _damaged(path, kind, offset, f"{error}") from None
            if member.eof:
                pending, member = member.unused_data, None
    if member is not None:
        raise _damaged(path, kind, offset, "it ends in the middle: truncated")


def _zstd_blocks(file: BinaryIO, path: str) -> Iterator[bytes]:
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, "zstd", file.tell(), f"{error}") from None


def zstd_frame_has_checksum(head: bytes) -> bool:
    """Whether a zstd file's first frame carries a content checksum (RFC 8878, section 3.1.1.1.1); without, damage may hide."""
    return len(head) < 5 or head[:4] != b"\x28\xb5\x2f\xfd" or bool(head[4] & 0b100)


def _damaged(path: str, kind: str, offset: int, reason: str) -> DataError:
    return DataError(
        f"{printable(path, 300)}: damaged {kind} data near byte {offset:,} of the file ({printable(reason, 120)}); "
        "nothing of this file was counted; download or compress it again"
    )
