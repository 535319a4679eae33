"""Which stretches of a text hold characters outside ASCII, and putting others in their place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2v_core.text.stretches import NEAR, gather, odd_stretches, splice

EDGES = np.isin(np.arange(256), list(b" \n"))
TEXT = st.lists(st.sampled_from(["é", "中", "a", " ", "\n", "plain words in a row ", "x" * 20]), max_size=40).map("".join)


@given(text=TEXT)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_stretches_hold_all_other_characters_and_are_whole_words(text: str) -> None:
    data = text.encode()
    starts, stops = (found.tolist() for found in odd_stretches(np.frombuffer(data, np.uint8), EDGES))
    inside = {at for start, stop in zip(starts, stops, strict=True) for at in range(start, stop)}
    assert {at for at, byte in enumerate(data) if byte >= 0x80} <= inside
    for start, stop in zip(starts, stops, strict=True):
        assert not data[start:stop].isascii()
        assert start == 0 or data[start - 1] in b" \n"
        assert stop == len(data) or data[stop] in b" \n"
    assert all(start - stop >= NEAR for start, stop in zip(starts[1:], stops, strict=False))


def test_a_word_far_from_others_is_a_stretch_of_its_own() -> None:
    text = np.frombuffer(f"{'plain ' * 9}café {'plain ' * 9}déjà vu naïve {'plain ' * 9}".encode(), np.uint8)
    places = odd_stretches(text, EDGES)
    assert gather(text, places).tobytes().decode() == "café\0déjà vu naïve\0"
    shorter = np.frombuffer(b"CAFE\0\0", np.uint8)
    assert splice(text, places, shorter).tobytes().decode() == f"{'plain ' * 9}CAFE {'plain ' * 9} {'plain ' * 9}"


def test_a_byte_outside_ascii_is_no_edge_whatever_the_table_says() -> None:
    text = np.frombuffer("aé b".encode(), np.uint8)
    assert [found.tolist() for found in odd_stretches(text, np.ones(256, np.bool_))] == [[1], [3]]


@pytest.mark.parametrize("wrong", [b"", b"one", b"one\0", b"one\0two", b"one\0two\0three\0"])
def test_another_number_of_stretches_is_refused(wrong: bytes) -> None:
    text = np.frombuffer(f"é {'plain ' * 9} é".encode(), np.uint8)
    with pytest.raises(ValueError, match="expected 2 stretches"):
        splice(text, odd_stretches(text, EDGES), np.frombuffer(wrong, np.uint8))
