"""Wrong values of every key are explained in the words of the page of settings, not in those of the library that finds them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline.config import RunConfig, parse_config
from pipeline.errors import ConfigError, InputError
from pipeline.stages.sets import refuse_unusable
from pipeline.text.inputs import Search, find_files

WRONG: tuple[Any, ...] = (
    "",
    "perhaps",
    None,
    True,
    1.5,
    -(10**9),
    10**30,
    1e300,
    math.nan,
    math.inf,
    b"x",
    [],
    [[1]],
    ["a b", 3],
    {"a": 1},
    {1: 2},
)
LIBRARY = re.compile(r"Input|String|List |Keys|Field|valid|parse|dictionary|boolean|integer|instance|None|True|False")


def keys(section: type[BaseModel], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The path of every key in a section and in those within it."""
    for name, field in section.model_fields.items():
        path = (*above, field.alias or name)
        yield path
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, path)


def problems(path: tuple[str, ...], value: Any) -> list[str]:
    """The lines of the error that a value of one key gives; none if it can be used."""
    tree: dict[str, Any] = {"corpus": {"inputs": ["x"]}}
    inner = tree
    for part in path[:-1]:
        inner = inner.setdefault(part, {})
    inner[path[-1]] = value
    try:
        parse_config(tree)
    except ConfigError as error:
        return str(error).splitlines()[1:]
    return []


def test_no_wrong_value_of_any_key_is_explained_in_words_of_the_library() -> None:
    told = [line for path in keys(RunConfig, ()) for value in WRONG for line in problems(path, value)]
    assert len(told) > 500
    assert [line for line in told if LIBRARY.search(line)] == []


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("storage.patience_s", 0, "expected more than 0 (found 0)"),
        ("train.alpha", 1e-300, "expected at least 1e-06 (found 1e-300)"),
        ("train.alpha", math.nan, "expected a finite number (found nan)"),
        ("refresh.alpha", 0, "expected at least 1e-06 (found 0)"),
        ("train.epochs", 0, "expected at least 1 (found 0)"),
        ("shards.window", 256, "expected at most 255 (found 256)"),
        ("shards.sample", 2, "expected at most 1 (found 2)"),
        ("run.seed", 1.5, "expected a whole number (found 1.5)"),
        ("run.seed", 10**30, "expected at most 9,223,372,036,854,775,807 (found 1000000000000000000000000000000)"),
        ("run.seed", 2**63, "expected at most 9,223,372,036,854,775,807 (found 9223372036854775808)"),
        ("run.seed", None, "expected a whole number (found null)"),
        ("tokenize.lowercase", "perhaps", "expected true or false (found 'perhaps')"),
        ("train.model", "CBOW", "expected 'cbow' or 'skipgram' (found 'CBOW'); did you mean cbow?"),
        (
            "corpus.format",
            "json",
            "expected 'lines', 'jsonl', 'csv', 'tsv', 'parquet' or 'arrow' (found 'json'); did you mean jsonl?",
        ),
        ("train.merge_bits", 16, "expected 8 or 32 (found 16)"),
        ("corpus.inputs", None, "expected a list (found null)"),
        ("corpus.inputs", [], "expected a list of at least one (found [])"),
        ("cluster.tls", "x", "expected a mapping (key: value) (found 'x')"),
        ("run.name", "a/b", "expected at most 64 characters: a-z, A-Z, 0-9, and after the first also . _ - (found 'a/b')"),
        ("run.name", "a\n", "expected at most 64 characters: a-z, A-Z, 0-9, and after the first also . _ - (found 'a\\n')"),
        ("evaluate.analogy_queries", "a:b:c", "expected a:b=c, found 'a:b:c'"),
        ("publish.to", "out", "expected a place in a bucket: s3://…, gs://… or abfss://… (found 'out')"),
    ],
)
def test_a_wrong_value_is_told_what_was_expected(key: str, value: Any, line: str) -> None:
    assert problems(tuple(key.split(".")), value) == [f"  {key}: {line}"]


def test_values_with_commas_are_told_how_a_list_is_written() -> None:
    (line,) = problems(("publish", "formats"), "npy,parquet")
    assert line.endswith("(found 'npy,parquet'); a list is written [npy,parquet]")


@pytest.mark.parametrize("key", ["corpus.include", "corpus.exclude", "evaluate.queries", "evaluate.analogy_queries"])
def test_words_and_patterns_as_one_text_with_commas_are_refused_because_they_may_have_meant_several(key: str) -> None:
    (line,) = problems(tuple(key.split(".")), "*a, b")
    assert line == f'  {key}: expected a list, written ["*a", "b"]; one text with a comma is written ["*a, b"] (found \'*a, b\')'


def test_files_given_as_one_text_with_commas_are_told_it_too() -> None:
    with pytest.raises(InputError, match=r"no file matches a\.txt,b\.txt .*; a list is written \[a\.txt,b\.txt\]$"):
        find_files("a.txt,b.txt", Search(follow_symlinks=False), None)
    with pytest.raises(InputError, match=r"cannot read a\.txt,b\.txt .*; a list is written \[a\.txt,b\.txt\]$"):
        refuse_unusable(["a.txt,b.txt"], [], None)
