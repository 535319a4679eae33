"""Seeded damage to bytes and to plain data, as an accident, a careless program or an attacker would cause it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

HOSTILE_BYTES = (
    b"\0", b"\xff\xff\xff\xff", b"\xff" * 8, b"9" * 20, b"-1", b"nan", b"inf", b"-inf", b"1e999", b"[" * 2000, b"{" * 500,
    b"\n" * 50, b"\r", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3", b"\xf4\x90\x80\x80", "\u2028".encode(), "\u202e".encode(),
    b"../../x", b"/etc/passwd", b'"', b"'", b"\\", b"\\u0000", b"\\ud800", b"&a", b"*a", b"!!int ", b"<<: ", b": ", b"PAR1",
    b"ARROW1", b"\x1f\x8b", b"\x93NUMPY", b"\x80" * 16, b"\x7f\xff\xff\xff", (2**63).to_bytes(8, "little"),
    (2**31).to_bytes(4, "little"), b" ", b"\t", b"",
)  # fmt: skip
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -(2**63), 1.5, -0.0, 1e308, "", "x", "..", "../../x", "/etc/passwd",
    "a\0b", "\ud800", "9" * 100, [], {}, [[]], [None], {"a": None}, {"": []}, [1, 2], ["x"], "x" * 10_000,
)  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes after one to eight accidents: flips, cuts, doubled and moved pieces, hostile insertions."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(ACCIDENTS)(found, rng)
    return bytes(found)


def flip(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def remove(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    del data[start : start + rng.choice((1, 2, 4, 16, 200))]


def double(data: bytearray, rng: random.Random) -> None:
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    data[start:start] = data[start : min(stop, start + 4096)]


def insert(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.choice(HOSTILE_BYTES)


def overwrite(data: bytearray, rng: random.Random) -> None:
    start, new = rng.randrange(len(data) + 1), rng.choice(HOSTILE_BYTES)
    data[start : start + len(new)] = new


ACCIDENTS: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, flip, cut, remove, double, insert, overwrite)


def changed(value: Any, rng: random.Random) -> Any:
    """The plain data with one value in it, at any depth, replaced by a hostile one, left out or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {name: inner for name, inner in value.items() if name != key}
        return value | {key: changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        index = rng.randrange(len(value))
        if rng.random() < 0.15:
            return value[:index] + value[index + 1 :]
        return [*value[:index], changed(value[index], rng), *value[index + 1 :]]
    return rng.choice(HOSTILE_VALUES)
