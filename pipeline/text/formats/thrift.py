"""Thrift's compact protocol, in which Parquet writes its metadata: reads numbers, texts, structs, and lists of them.

Everything in the bytes may be false: positions, counts and nesting are checked, and reading takes time and memory in proportion
to the bytes given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DEEPEST = 16
_TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 12
_VARINTS = range(4, _I64 + 1)
KeptFields = Mapping[int, Any]
"""The fields of a struct that are kept, each with the fields to keep within it; `{}` for texts, numbers and lists of them."""


class BadThrift(ValueError):
    """A damaged struct; the message says what is wrong."""


def read_struct(data: bytes, at: int, wanted: KeptFields, depth: int = 0) -> tuple[dict[int, Any], int]:
    """({field: value} of the wanted fields that are present, end of the struct). Raises BadThrift, and IndexError if the data end
    before the struct does."""
    if depth > _DEEPEST:
        raise BadThrift("nested too deeply")
    found: dict[int, Any] = {}
    field = 0
    while byte := data[at]:
        at += 1
        kind, step = byte & 0xF, byte >> 4
        if step:
            field += step
        else:
            value, at = _varint(data, at)
            field = _signed(value)
        if kind in (_TRUE, _FALSE):
            continue
        inner = wanted.get(field)
        if inner is None:
            at = _skip(data, at, kind, depth)
        else:
            found[field], at = _value(data, at, kind, inner, depth)
    return found, at + 1


def _value(data: bytes, at: int, kind: int, wanted: KeptFields, depth: int) -> tuple[Any, int]:
    if kind in _VARINTS:
        value, at = _varint(data, at)
        return _signed(value), at
    if kind == _STRUCT:
        return read_struct(data, at, wanted, depth + 1)
    if kind == _BINARY:
        stop = _skip(data, at, kind, depth)
        return data[_varint(data, at)[1] : stop], stop
    if kind in (_LIST, _SET):
        count, inner, at = _list_head(data, at)
        values = []
        for _ in range(count):
            value, at = _value(data, at, inner, wanted, depth + 1)
            values.append(value)
        return values, at
    return None, _skip(data, at, kind, depth)


def _skip(data: bytes, at: int, kind: int, depth: int) -> int:
    if kind == _STRUCT:
        return read_struct(data, at, {}, depth + 1)[1]
    if kind in _VARINTS:
        return _varint(data, at)[1]
    if kind == _BINARY:
        size, at = _varint(data, at)
        if at + size > len(data):
            raise IndexError
        return at + size
    if kind in (_BYTE, _TRUE, _FALSE, _DOUBLE):
        return at + (8 if kind == _DOUBLE else 1)
    if kind in (_LIST, _SET):
        if depth > _DEEPEST:
            raise BadThrift("nested too deeply")
        count, inner, at = _list_head(data, at)
        for _ in range(count):
            data[at]
            at = _skip(data, at, inner, depth + 1)
        return at
    raise BadThrift(f"no kind of value: {kind}")


def _list_head(data: bytes, at: int) -> tuple[int, int, int]:
    """(number of values, their kind, position of the first one)."""
    count, inner = data[at] >> 4, data[at] & 0xF
    at += 1
    if count == 0xF:
        count, at = _varint(data, at)
    return count, inner, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise BadThrift("a number that is too long")


def _signed(value: int) -> int:
    return (value >> 1) ^ -(value & 1)
