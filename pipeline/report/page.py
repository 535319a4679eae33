"""The report as one self-contained HTML page.

The page is a Jinja2 template with autoescaping; its only script and style sheet are this package's own files, and the content
security policy names their hashes, so that nothing else can run and nothing is loaded or sent. Text from the corpus is escaped
twice: control and bidirectional characters become visible escapes, then HTML's special characters become entities. The script
gets its words as JSON without any `<`, and inserts them as text.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import printable
from pipeline.report.results import is_number, percent
from pipeline.safety.start import as_safe_as_its_sources

if TYPE_CHECKING:
    from jinja2 import BytecodeCache, Environment

_TEXT_LIMIT = 300
_WORD_LIMIT = 60


@dataclass(frozen=True)
class Table:
    """A table of a page; columns of numbers are right-aligned, all others left-aligned."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]

    @property
    def numeric(self) -> list[bool]:
        return [all(is_number(row[column]) or row[column] is None for row in self.rows) for column in range(len(self.header))]


def render(template: str, **context: Any) -> str:
    """The whole page from a template in this folder."""
    style, script = _own_file("report.css"), _own_file("report.js")
    return (
        _environment()
        .get_template(template)
        .render(style=style, script=script, style_hash=_hash(style), script_hash=_hash(script), **context)
    )


def json_for_script(value: object) -> str:
    """JSON that is safe inside a script element, whatever it contains."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).translate(
        {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}
    )


def map_data(words: Mapping[str, Any]) -> dict[str, Any] | None:
    """The data of the page's map from `layout.map_of_words`; None if there are no words."""
    if not words.get("words"):
        return None
    shown = {**words, "words": [printable(word, _WORD_LIMIT) for word in words["words"]]}
    return {"count": len(shown["words"]), "data": json_for_script({"counts": [], **shown})}


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        bytecode_cache=compiled_templates(folder),
    )  # fmt: skip
    environment.filters |= {
        "plain": plain, "cell": cell, "cosine": cosine, "question": question, "number": number,
        "percent": lambda value: percent(value) or "–",
    }  # fmt: skip
    return environment


def compiled_templates(folder: Path) -> BytecodeCache | None:
    """Jinja's cache where Python keeps its own, since compiling the page takes 57 ms, and loading it 1 ms; None if it could not
    be as safe as the sources are."""
    from jinja2 import FileSystemBytecodeCache
    from jinja2.bccache import Bucket

    class Templates(FileSystemBytecodeCache):
        def dump_bytecode(self, bucket: Bucket) -> None:
            with contextlib.suppress(OSError):  # a full disk is no reason to be without a page
                super().dump_bytecode(bucket)

    cache = folder / "__pycache__"
    return Templates(str(cache)) if cache.is_dir() and as_safe_as_its_sources(folder) else None


@lru_cache(maxsize=4)
def _own_file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def plain(value: object, limit: int = _TEXT_LIMIT) -> str:
    """A value without control and bidirectional characters; the template escapes HTML."""
    return printable(str(value), limit)


def cosine(value: object) -> str:
    """A cosine with two decimals, which leaves room for the word."""
    return f"{value:.2f}" if is_number(value) else "–"


def question(value: object) -> str:
    """An analogy A:B=C in words; any other text unchanged."""
    first, equals, asked = plain(value, 120).partition("=")
    one, colon, other = first.partition(":")
    whole = all((equals, colon, one, other, asked)) and ":" not in other + asked and "=" not in asked
    return f"{one} is to {other} as {asked} is to …" if whole else plain(value, 120)


def number(value: object) -> str:
    return f"{value:,}" if is_number(value) else "–"


def cell(value: object) -> str:
    """A value as the content of a table cell: numbers with thousands separators, text isolated from the surrounding direction."""
    from markupsafe import Markup

    if value is None:
        return Markup('<span class="muted">–</span>')
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if math.isfinite(value) else str(value)
    return Markup(f"<bdi>{escape(plain(value), quote=True)}</bdi>")  # noqa: S704 - escaped here
