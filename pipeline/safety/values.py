"""Checks of configuration values, whatever their key: numbers are numbers, and text can stand in file names and words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args
from urllib.parse import urlsplit

from pipeline.safety.yaml_values import number


def plain_types(annotation: Any) -> set[Any]:
    """The types that an annotation consists of: for `Positive | None`, int and NoneType."""
    inner = get_args(annotation)
    return {annotation} if not inner else {kind for part in inner for kind in plain_types(part)}


def number_of(value: Any) -> Any:
    """The number that the value is or spells; a value that is neither number nor text is left to the key's own type."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    if isinstance(value, str):
        found = number(value.strip())
        if found is None:
            hint = "; a number does not begin with 0 (octal is written 0o17)" if re.fullmatch(r"[-+]?0[0-9]+", value) else ""
            raise ValueError(f"expected a number{hint}")
        value = found
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"expected at most {2**63 - 1:,}" if value > 0 else f"expected at least {-(2**63):,}")
    return value


def why_unwritable(text: str) -> str | None:
    """Why a setting cannot hold this text; None if it can. Python stands surrogates for the bytes of names that are not UTF-8."""
    if found := re.search("[\udc80-\udcff]", text):
        byte = f"{ord(found[0]) - 0xDC00:#x}"
        return (
            f"is not UTF-8, as settings are (it holds the byte {byte}); rename the file or the folder of which that is the name"
        )
    if found := re.search("[\0\ud800-\udfff]", text):
        return f"holds {found[0]!r}, which no file name, word or pattern can hold"
    return None


def refuse_unwritable(value: Any) -> None:
    if isinstance(value, str):
        if reason := why_unwritable(value):
            raise ValueError(reason)
    elif isinstance(value, dict):
        for key, inner in value.items():
            refuse_unwritable(key)
            refuse_unwritable(inner)
    elif isinstance(value, list):
        for inner in value:
            refuse_unwritable(inner)


CHOSEN = ("lanes", "copies")
"""Keys of `train` that are null in a file and 0 in the program where they are left to be chosen."""


def as_written(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in a summary as a file would say it."""
    train = config.get("train")
    if not isinstance(train, Mapping):
        return dict(config)
    return {**config, "train": {key: None if key in CHOSEN and value == 0 else value for key, value in train.items()}}


def has_host(url: str) -> bool:
    """Whether an address names a host, a valid port if any, and contains no spaces or unprintable characters."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0) and url.isprintable() and " " not in url
    except ValueError:  # invalid brackets or port
        return False
