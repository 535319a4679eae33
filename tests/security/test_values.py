"""Whatever a configuration contains is read by one set of rules, or gives one error that names the key: never a bug."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import annotated_types
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.config import RunConfig, load_config, parse_config
from pipeline.errors import ConfigError, InputError
from pipeline.safety.yaml_values import MAX_BYTES, BadYamlError, parse_yaml
from tests.security.conftest import w2v

BASE: dict[str, Any] = {"corpus": {"inputs": ["a.txt"]}}
TOGETHER = {
    "train.min_alpha": "train.alpha=10", "shards.sample": "shards.window=5", "train.batch_size": "train.engine=layers",
    "train.rehearse": "train.start_from=champion",
}  # fmt: skip
"""Other settings that a key needs in order to accept every value of its range."""


def types_in(annotation: Any) -> set[Any]:
    inner = get_args(annotation)
    return set().union(*map(types_in, inner)) if inner else {annotation}


def numeric_keys() -> Iterator[tuple[str, type, FieldInfo]]:
    """(section.key, int or float, its field) for every key that takes a number but not a truth value."""
    for section, outer in RunConfig.model_fields.items():
        kind = outer.annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        for name, field in kind.model_fields.items():
            found = types_in(field.annotation)
            if found & {int, float} and not found & {bool, dict}:
                yield f"{section}.{field.alias or name}", float if float in found else int, field


KEYS = list(numeric_keys())


def value_in_range(kind: type, field: FieldInfo) -> int | float:
    bounds = [*field.metadata, *(part for inner in get_args(field.annotation) for part in getattr(inner, "__metadata__", ()))]
    bounds += [part for bound in bounds if isinstance(bound, FieldInfo) for part in bound.metadata]
    low = max([float(b.ge) for b in bounds if isinstance(b, annotated_types.Ge)] or [0.0])
    high = min([float(b.le) for b in bounds if isinstance(b, annotated_types.Le)] or [1e4])
    return int(max(low, min(high, 20))) if kind is int else max(low, min(high, 0.02))


def read(key: str, text: str) -> Any:
    section, name = key.split(".")
    config = parse_config(BASE, [override for override in (TOGETHER.get(key), f"{key}={text}") if override])
    return getattr(getattr(config, section), name)


def test_there_are_numeric_keys_in_most_sections() -> None:
    assert len(KEYS) > 25
    assert {key.split(".")[0] for key, _, _ in KEYS} >= {"run", "corpus", "tokenize", "vocab", "shards", "train", "cluster"}


@pytest.mark.parametrize(("key", "kind", "field"), KEYS, ids=[key for key, _, _ in KEYS])
def test_a_number_is_the_same_number_in_every_spelling(key: str, kind: type, field: FieldInfo) -> None:
    value = value_in_range(kind, field)
    spellings = [
        str(value),
        f"'{value}'",
        f'"{value}"',
        f"+{value}",
        f"' {value} '",
        f"{value:e}",
        f"{value:E}",
        f"!!float {value}",
    ]
    if kind is int:
        spellings += [hex(int(value)), oct(int(value)), f"{value}.0", f"!!int {value}", f"{value:_}"]
    elif value < 1:
        spellings += [str(value).lstrip("0"), f"{value * 100:g}e-2", f"{value}0"]
    for text in spellings:
        found = read(key, text)
        assert found == pytest.approx(value, rel=1e-15), text
        assert type(found) is kind, text


NO_NUMBERS = (
    "true", "false", "yes", "on", "1:30", "017", "08", "-017", "1 2", "1,5", "1.2.3", "2026-02-30", ".nan", ".inf", "nan", "inf",
    "0x", "1e", "[1]", "{a: 1}", "''", "10**3", "9" * 30, "-" + "9" * 30, "9" * 5000, "1e400", "١٢", "¹",
)  # fmt: skip


@pytest.mark.parametrize("key", [key for key, _, _ in KEYS])
def test_values_that_are_not_numbers_are_refused_by_the_name_of_the_key(key: str) -> None:
    for text in NO_NUMBERS:
        with pytest.raises(ConfigError, match=key) as caught:
            parse_config(BASE, [f"{key}={text}"])
        assert len(str(caught.value)) < 500


def test_min_alpha_is_a_tenth_of_alpha_however_alpha_is_spelt() -> None:
    for text in ("0.02", "2e-2", "'0.02'", ".02", "2E-2", "+0.02", "!!float 0.02"):
        config = parse_config(BASE, [f"train.alpha={text}"])
        assert (config.train.alpha, config.train.min_alpha) == (0.02, 0.002), text
    assert parse_config(BASE | {"train": {"alpha": "1e-3"}}).train.min_alpha == pytest.approx(1e-4, rel=1e-15)


HOSTILE = [
    "run.name=2026-02-30x/", 'run.workdir="\\0"', 'corpus.inputs=["\\ud800"]', 'evaluate.queries=["a\\0b"]',
    'tokenize.pattern="\\ud800"', "tokenize.tokenizer=.:.", "tokenize.tokenizer=a..b:c", "tokenize.tokenizer=1a:b",
    "publish.register=..", "publish.register=.", "train.epochs=!!int abc", "train.epochs=!!binary aGk=",
    "train.epochs=!!python/name:os.system", "train.epochs={[a]: 1}", "train.epochs={1: 2}", "train.epochs=&a [*a]",
    "train.epochs=" + "[" * 3000, "train.epochs=" + "{a: " * 200, "train.epochs=*a", "vocab.min_count=" + "9" * 30,
    "train.epochs=@", "train.epochs=`", "train.epochs=%", "train.epochs=? a", "train.epochs=\x07", "train.epochs=- 1",
    "train=1", "=", "train.=1", ".epochs=1", "a.b.c.d.e.f.g.h.i.j=1", "train.epochs", "", "train.epochs.x=1",
    "corpus.inputs={a: b}", "cluster.tls=[]", "cluster.options=[]", 'cluster.options={a: ["\\0"]}', "tracking.uri=http://[",
    "tracking.uri=ftp://x", "corpus.encoding=rot13", "corpus.encoding=\x00", "evaluate.analogy_queries=[a:b]", "run=x",
    "corpus=~",
]  # fmt: skip


def test_no_hostile_override_is_a_bug_of_this_program(tmp_path: Path) -> None:
    for override in HOSTILE:
        try:
            raise AssertionError(f"{override[:60]} was read: {parse_config(BASE, [override])!r:.300}")
        except ConfigError as error:
            text = str(error)
        assert len(text) < 1000, override[:60]
        assert all(line.isprintable() for line in text.split("\n")), override[:60]


BILLION_LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
)


def test_four_hundred_bytes_of_aliases_stay_four_hundred_bytes() -> None:
    assert len(BILLION_LAUGHS) < 400
    begun = time.process_time()
    with pytest.raises(BadYamlError, match="more than 100,000 values"):
        parse_yaml(BILLION_LAUGHS)
    assert time.process_time() - begun < 1
    assert parse_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}


def test_a_key_given_twice_or_that_is_not_a_word_is_refused() -> None:
    for text in ("a: 1\na: 2", "{a: 1, 'a': 2}", "1: a", "true: a", "~: a", "[a]: b", "{a: b}: c"):
        with pytest.raises(BadYamlError, match=r"line \d"):
            parse_yaml(text)


def test_a_configuration_that_is_not_a_text_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "large.yaml").write_bytes(b"a: b\n" * MAX_BYTES)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("fifo.yaml", "large.yaml", "bytes.yaml", "folder.yaml", "none.yaml"):
        with pytest.raises(InputError, match=name):
            load_config(tmp_path / name)
    with pytest.raises(InputError, match="not a regular file but a device"):
        load_config(Path("/dev/zero"))


def test_seeded_noise_in_place_of_values_is_read_or_refused() -> None:
    rng = random.Random(19)
    keys = [key for key, _, _ in KEYS] + ["run.name", "corpus.inputs", "tokenize.pattern", "evaluate.queries", "tracking.uri"]
    signs = "0123456789.eE+-_:xo'\"[]{}&*!%@`#,|>~? \t\ntrufalsn\\ud8"
    for _ in range(2000):
        override = f"{rng.choice(keys)}={''.join(rng.choices(signs, k=rng.randrange(12)))}"
        try:
            parse_config(BASE, [override])
        except ConfigError:
            continue


def test_standard_output_on_a_full_device_is_an_error_of_writing(config: Path, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.cli", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
    assert done.returncode == 74
    assert "No space left on device" in done.stderr


@pytest.mark.turns(3, 2, of="bytes of others")
def test_a_name_too_long_for_a_file_is_an_error_of_that_file(config: Path, tmp_path: Path) -> None:
    for command in ("run", "status", "verify"):
        ended = w2v(command, config, f"run.workdir={'x' * 3000}", cwd=tmp_path)
        assert ended.code in (74, 78), ended.err
        assert "a bug in this program" not in ended.err
