"""The expected structure of JSON objects in a workdir: anybody who can write there can forge them, checksums included.

A shape is written like the values that it describes:

    int, str, dict …          a value of exactly this type: True is no int
    number                    a function that says whether a value fits; its name is what messages expect
    None, ABSENT              null; no such key
    (str, None)               one of several shapes
    [shape]                   a list of values of this shape
    {str: shape}              an object with values of this shape, whatever their keys
    {"key": shape}            an object with these keys; further keys are ignored

Plain functions, since importing a library for this would take as long as a whole query. A manifest can have 100,000 parts, so
what fits is passed quickly, and only what does not gets the name of its place.
"""

from __future__ import annotations

import math
from typing import Any

from w2v_core.text.printable import printable

ABSENT = object()


def misfit(value: Any, shape: Any) -> str | None:
    """Where and how a value differs from its shape (`.parts[3].bytes: expected int, found None`), or None if it does not."""
    if type(value) is shape or value is shape:
        return None
    if isinstance(shape, tuple):
        if type(value) in shape:
            return None
        misfits = [misfit(value, one) for one in shape]
        return None if None in misfits else misfits[0]
    if isinstance(shape, list) and isinstance(value, list):
        return next((f"[{at}]{found}" for at, item in enumerate(value) if (found := misfit(item, shape[0]))), None)
    if isinstance(shape, dict) and isinstance(value, dict):
        keys = dict.fromkeys(value, shape[str]) if str in shape else shape
        for key, inner in keys.items():
            item = value.get(key, ABSENT)
            if type(item) is not inner and (found := misfit(item, inner)):
                return f".{key}{found}"
        return None
    if callable(shape) and not isinstance(shape, type) and shape(value):
        return None
    if value is ABSENT:
        return ": missing"
    expected = shape.__name__ if callable(shape) else "null" if shape is None else type(shape).__name__
    return f": expected {expected.replace('_', ' ')}, found {printable(repr(value), 60)}"


def number(value: Any) -> bool:
    """Whether this is a finite number, whole or not."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False
