"""Values that fit a shape are passed; what does not is named with its place. Manifests and decisions are checked this way."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.history.shapes import YEAR_9999, is_decision, is_whole_summary
from pipeline.safety.json_shapes import ABSENT, misfit, number
from pipeline.safety.manifests import Manifest, Part, manifest_of

FITTING: list[tuple[Any, Any]] = [
    (1, int), ("", str), ({}, dict), ([], list), (True, bool), (None, None), (0, number), (-1.5, number),
    ("a", (str, None)), (None, (str, None)), (3, (number, None)),
    ([], [int]), ([1, 2], [int]), ({}, {str: int}), ({"a": 1, "b": 2}, {str: int}),
    ({"a": 1, "other": []}, {"a": int}), ({}, {"a": (int, ABSENT)}), ({"a": None}, {"a": (int, None, ABSENT)}),
    ({"a": [{"b": 1}]}, {"a": [{"b": int}]}),
]  # fmt: skip
MISFITS: list[tuple[Any, Any, str]] = [
    (True, int, ": expected int, found True"), (1.0, int, ": expected int, found 1.0"), (None, str, ": expected str, found None"),
    (0, None, ": expected null, found 0"), (True, number, ": expected number, found True"),
    (math.nan, number, ": expected number, found nan"), (math.inf, number, ": expected number, found inf"),
    ([1, "2"], [int], "[1]: expected int, found '2'"),
    ({}, [int], ": expected list, found {}"), ([], {}, ": expected dict, found []"),
    ({}, {"a": int}, ".a: missing"), ({"a": None}, {"a": (int, ABSENT)}, ".a: expected int, found None"),
    ({"a": {"b": "1"}}, {"a": {str: int}}, ".a.b: expected int, found '1'"),
    ({"p": [{"b": 1}, {"b": "\x1b[2J"}]}, {"p": [{"b": int}]}, r".p[1].b: expected int, found '\x1b[2J'"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "shape"), FITTING)
def test_a_value_that_fits_is_passed(value: Any, shape: Any) -> None:
    assert misfit(value, shape) is None


@pytest.mark.parametrize(("value", "shape", "message"), MISFITS)
def test_a_value_that_does_not_fit_is_named_with_its_place(value: Any, shape: Any, message: str) -> None:
    assert misfit(value, shape) == message


def test_a_whole_number_beyond_every_float_is_no_number() -> None:
    assert misfit(10**400, number) is not None


parts = st.builds(Part, name=st.text(), bytes=st.integers(), sha256=st.text(), rows=st.integers(), tokens=st.integers())
plain = st.dictionaries(st.text(), st.none() | st.integers() | st.text())
manifests = st.builds(
    Manifest, stage=st.text(), fingerprint=st.text(), parts=st.lists(parts).map(tuple), totals=plain, fields=plain,
    inputs=st.lists(st.text()).map(tuple),
)  # fmt: skip


@given(manifests)
def test_a_manifest_read_from_json_is_the_one_that_was_written(manifest: Manifest) -> None:
    written = {**vars(manifest), "parts": [{**vars(part), "later": 1} for part in manifest.parts], "later": {}}
    assert manifest_of(json.loads(json.dumps(written))) == manifest


def test_a_manifest_may_lack_what_has_a_default_and_nothing_else() -> None:
    part = {"name": "a.npy", "bytes": 1, "sha256": "0"}
    body = {"stage": "vocab", "fingerprint": "1", "parts": [part]}
    assert manifest_of(body) == Manifest(stage="vocab", fingerprint="1", parts=(Part(name="a.npy", bytes=1, sha256="0"),))
    for key in body:
        with pytest.raises(ValueError, match=f"^{key}: missing$"):
            manifest_of({name: value for name, value in body.items() if name != key})
    with pytest.raises(ValueError, match=r"^parts\[0\].bytes: expected int, found None$"):
        manifest_of(body | {"parts": [part | {"bytes": None}]})


def test_decisions_and_summaries_are_refused_for_one_wrong_value() -> None:
    scored = {"analogy": None, "similarity": {"ws353": 0.5}}
    decision = {
        "number": 1, "time": 0, "kind": "run", "champion": "0" * 16, "snapshot": "f" * 16, "why": "",
        "delta": {key: {"files": 1} for key in ("added", "changed", "renamed", "deleted")},
        "scores": {"before": scored, "now": scored},
    }  # fmt: skip
    assert is_decision(decision)
    assert is_decision(decision | {"delta": None, "scores": None})
    for wrong in (
        {"number": "1"}, {"time": -1}, {"time": YEAR_9999 + 1}, {"time": math.nan}, {"champion": "0" * 15},
        {"champion": "0" * 16 + "\n"}, {"snapshot": None}, {"why": 1}, {"delta": {"added": {"files": 1}}},
        {"scores": {"before": scored}},
    ):  # fmt: skip
        assert not is_decision(decision | wrong), wrong
    summary = {"corpus": {"tokens": 1, "sentences": 1, "files": 1}, "vectors": {"sha256": ""}, "config": {"train": {}}}
    assert is_whole_summary(summary)
    assert not is_whole_summary(summary | {"vectors": {}})
    assert not is_whole_summary(summary | {"config": {"train": None}})
