"""Compressed files as blocks of bytes, in bounded memory, never short: an incomplete or damaged file raises.

Python's gzip and lzma readers return text before they notice damage, its xz reader ignores trailing garbage, and
python-zstandard accepts a truncated file silently. Here every member must end, only another member (or zero padding) may follow
it, and a file that would grow beyond its bound is refused early.
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
_DICTIONARY_BYTES = 256 << 20
"""What xz may take to decompress; files of xz -9 take 65 MB."""
_BOMB_FLOOR_BYTES = 16 << 20
"""Any file may grow to this size: a tiny file of one repeated word compresses beyond any ratio."""


def decompress(file: BinaryIO, kind: str, *, path: str, size: int, max_ratio: int) -> Iterator[bytes]:
    """Blocks of a compressed file's content; raises DataError naming the file and the offset of its stored bytes."""
    blocks = _arrow_blocks(file, kind, path) if kind in ("zstd", "lz4") else _member_blocks(file, kind, path)
    return bounded(blocks, path=path, size=size, max_ratio=max_ratio)


def bounded(blocks: Iterator[bytes], *, path: str, size: int, max_ratio: int) -> Iterator[bytes]:
    """The blocks; raises DataError when they exceed `most_bytes(size, max_ratio)` in all."""
    limit = most_bytes(size, max_ratio)
    total = 0
    for block in blocks:
        total += len(block)
        if total > limit:
            raise DataError(
                f"{printable(path, 300)}: {size:,} stored bytes grew beyond {limit:,} (corpus.max_ratio={max_ratio}): "
                "a decompression bomb, or very repetitive text; raise corpus.max_ratio if you trust the file"
            )
        yield block


def most_bytes(size: int, max_ratio: int) -> int:
    """How many bytes a file of `size` stored bytes may decompress to."""
    return max(max_ratio * size, _BOMB_FLOOR_BYTES)


class _GzipMember:
    """One gzip member, with the interface of bz2's and lzma's decompressors."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    eof = property(lambda self: self._inner.eof)
    unused_data = property(lambda self: self._inner.unused_data)
    needs_input = property(lambda self: not self._inner.unconsumed_tail)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        # Output that zlib still buffers is returned when the member's last bytes, its checksum and size, arrive.
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


_MEMBERS: dict[str, Callable[[], Any]] = {
    "gzip": _GzipMember,
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _DICTIONARY_BYTES),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, _DICTIONARY_BYTES),
}


def _member_blocks(file: BinaryIO, kind: str, path: str) -> Iterator[bytes]:
    """The content of all members, one after the other; each must end, and only members and zeros may follow."""
    member: Any = None
    offset = 0
    try:
        while data := file.read(_INPUT_BYTES):
            offset += len(data)
            # A member may end, and the next begin, anywhere inside the data; tapes pad members with zeros.
            while member is not None or (data := data.lstrip(b"\0")):
                member = member or _MEMBERS[kind]()
                yield member.decompress(data, BLOCK_BYTES)
                while not member.eof and not member.needs_input:
                    yield member.decompress(b"", BLOCK_BYTES)
                if not member.eof:
                    break
                data, member = member.unused_data, None
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
        if "limit" in str(error).lower():
            raise DataError(
                f"{printable(path, 300)}: its {kind} dictionary is too large (it can take {_DICTIONARY_BYTES >> 20} MB); "
                "decompress it with xz -d, or compress it again with xz -9"
            ) from None
        raise _damaged(path, kind, offset, str(error)) from None
    if member is not None:
        raise _damaged(path, kind, offset, "it ends in the middle: truncated")


def _arrow_blocks(file: BinaryIO, kind: str, path: str) -> Iterator[bytes]:
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.PythonFile(file, "r"), kind) as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block
    except (OSError, pa.ArrowException) as error:
        if "too much memory" in str(error) or "Frame requires" in str(error):
            raise DataError(
                f"{printable(path, 300)}: its zstd window is too large (made with zstd --long=28 or more; up to 27, 128 MB, "
                "is read); decompress it with zstd --long=31 -d, or compress it again without --long"
            ) from None
        raise _damaged(path, kind, file.tell(), f"{error}") from None


def zstd_frame_has_checksum(head: bytes) -> bool:
    """Whether a zstd file's first frame has a content checksum (RFC 8878, 3.1.1.1.1); without one, damage may go unseen."""
    return len(head) < 5 or head[:4] != b"\x28\xb5\x2f\xfd" or bool(head[4] & 0b100)


def _damaged(path: str, kind: str, offset: int, reason: str) -> DataError:
    return DataError(
        f"{printable(path, 300)}: damaged {kind} data near byte {offset:,} of the file ({printable(reason, 120)}); "
        "nothing of this file was counted; download or compress it again"
    )
