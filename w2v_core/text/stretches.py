"""Where a text holds characters outside ASCII, which in most languages that use Latin letters is in a few words of a hundred.

What is slow for such characters is then done for these stretches alone: folding (`gather`, `splice`) and splitting.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from w2v_core.kernels.cpu.machine_code import compiled
from w2v_core.text.plain_words import eights_of

Places = tuple[NDArray[np.int64], NDArray[np.int64]]
NEAR = 16
"""Stretches with fewer bytes between them become one."""
_HIGH_BITS = np.uint64(0x8080808080808080)


def odd_stretches(text: NDArray[np.uint8], edges: NDArray[np.bool_]) -> Places:
    """(starts, ends) of the stretches that hold all characters outside ASCII. Before and after a stretch there is a byte of
    `edges` (bool[256]; only ASCII counts) or an end of the text; no two meet."""
    edges = edges & (np.arange(256) < 0x80)
    starts, stops = np.empty(len(text) // NEAR + 2, np.int64), np.empty(len(text) // NEAR + 2, np.int64)
    found = _odd_stretches(text, eights_of(text), edges, starts, stops)
    return starts[:found], stops[:found]


@compiled
def _odd_stretches(text, eights, edges, starts, stops):  # type: ignore[no-untyped-def]
    size, found, at, free_from = len(text), 0, 0, 0
    while True:
        while at < len(eights) and eights[at] & _HIGH_BITS == 0:
            at += 8
        while at < size and text[at] < 128:
            at += 1
        if at >= size:
            return found
        start = at
        while start > free_from and not edges[text[start - 1]]:
            start -= 1
        while at < size and not edges[text[at]]:
            at += 1
        if found > 0 and start - free_from < NEAR:
            found -= 1
        else:
            starts[found] = start
        stops[found] = at
        found += 1
        free_from = at


def gather(text: NDArray[np.uint8], places: Places) -> NDArray[np.uint8]:
    """The stretches of a text, which has no NUL, each with a NUL behind it."""
    gathered = np.empty(int((places[1] - places[0]).sum()) + len(places[0]), np.uint8)
    _gather(text, *places, gathered)
    return gathered


def splice(text: NDArray[np.uint8], places: Places, gathered: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The text with other stretches, given as by `gather`. Raises ValueError unless there is one for each."""
    if int((gathered == 0).sum()) != len(places[0]) or gathered[-1:].any():
        raise ValueError(f"expected {len(places[0]):,} stretches, each with one NUL behind it")
    spliced = np.empty(len(text) - int((places[1] - places[0]).sum()) + len(gathered) - len(places[0]), np.uint8)
    _splice(text, *places, gathered, spliced)
    return spliced


@compiled
def _gather(text, starts, stops, gathered):  # type: ignore[no-untyped-def]
    to = 0
    for i in range(len(starts)):
        for at in range(starts[i], stops[i]):
            gathered[to] = text[at]
            to += 1
        gathered[to] = 0
        to += 1


@compiled
def _splice(text, starts, stops, gathered, spliced):  # type: ignore[no-untyped-def]
    to, after, source = 0, 0, 0
    for i in range(len(starts) + 1):
        last = starts[i] if i < len(starts) else len(text)
        for at in range(after, last):
            spliced[to] = text[at]
            to += 1
        if i < len(starts):
            after = stops[i]
            while gathered[source] != 0:
                spliced[to] = gathered[source]
                to += 1
                source += 1
            source += 1
