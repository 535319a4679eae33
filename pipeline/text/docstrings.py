"""The docstrings of Python source, found without parsing it: five times as fast as `ast`, which builds a tree of all the rest.

Only strings, comments and the headers of definitions must be told apart. A regular expression that can start at only four
characters finds the next of them; `bytes.find` finds the end of a string. If this does not suffice (an encoding other than UTF-8,
adjacent strings that are joined, quotes that do not match), `ast` parses the file after all.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import re
import warnings
from collections.abc import Iterator

_TOKEN = re.compile(rb"""\#|\"{3}|'{3}|\"|'|\n[ \t\f]*(?:async[ \t]+def|def|class)[ \t]+(?=[^\W\d]|[\x80-\xff])""")
_HEADER = re.compile(rb"""[()\[\]{}:]|\#|\"{3}|'{3}|\"|'""")
_FIRST_STRING = re.compile(rb"""(?:[ \t\f]*(?:\#[^\n]*)?\n)*[ \t\f]*(?:([rRuU]?)(\"{3}|'{3}|\"|')|\()""")
_END = re.compile(rb"""[ \t\f]*(?:[;\#\n]|\Z)""")
_CODING = re.compile(rb"""^[ \t\f]*\#.*?coding[:=][ \t]*([-\w.]+)""", re.MULTILINE)
_REST_OF_STRING = {
    quote: re.compile(rb"""[^%s\\\n]*(?:\\.[^%s\\\n]*)*%s""" % ((quote,) * 3), re.DOTALL) for quote in (b'"', b"'")
}


class _UnclearError(ValueError):
    """Only a parser can read this source."""


def docstrings(source: bytes) -> list[str] | None:
    """The docstrings of modules, classes and functions in the order of the source, or None if the source is not Python."""
    try:
        return list(_scan(_normalised(source)))
    except ValueError:
        return parsed_docstrings(source)


def _normalised(source: bytes) -> bytes:
    """The source with a line end before its first line and `\\n` for all line ends; raises ValueError unless it is UTF-8."""
    if b"\0" in source or any(found.lower() not in (b"utf-8", b"utf8") for found in _CODING.findall(source[:400])):
        raise _UnclearError
    source = source.removeprefix(b"\xef\xbb\xbf")
    if not source.isascii():
        source.decode()
    return b"\n" + (source.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in source else source)


def _scan(source: bytes) -> Iterator[str]:
    """Raises _UnclearError."""
    position, text = _first_string(source, 0)
    if text is not None:
        yield text
    while found := _TOKEN.search(source, position):
        token = found.group()
        if token == b"#":
            position = _end_of_line(source, found.end())
        elif token[0] != 0x0A:
            position = _end_of_string(source, found.end(), token)
        else:
            position, text = _first_string(source, _end_of_header(source, found.end()))
            if text is not None:
                yield text


def _end_of_line(source: bytes, position: int) -> int:
    end = source.find(b"\n", position)
    return len(source) if end < 0 else end


def _end_of_string(source: bytes, position: int, quote: bytes) -> int:
    """The position after the closing quotes of the string whose first character is at `position`."""
    if len(quote) == 1:
        if found := _REST_OF_STRING[quote].match(source, position):
            return found.end()
        raise _UnclearError
    end = source.find(quote, position)
    while end >= 0:
        before = end
        while before > position and source[before - 1] == 0x5C:
            before -= 1
        if (end - before) % 2 == 0:
            return end + 3
        end = source.find(quote, end + 1)
    raise _UnclearError


def _end_of_header(source: bytes, position: int) -> int:
    """The position at which the body of a definition begins: after the first colon outside brackets."""
    depth = 0
    while found := _HEADER.search(source, position):
        token, position = found.group(), found.end()
        if token in b"([{":
            depth += 1
        elif token in b")]}":
            depth -= 1
        elif token == b"#":
            position = _end_of_line(source, position)
        elif token != b":":
            position = _end_of_string(source, position, token)
        elif depth == 0:
            return position
    raise _UnclearError


def _first_string(source: bytes, position: int) -> tuple[int, str | None]:
    """(position to continue from, docstring of the body that begins at `position` or None)"""
    found = _FIRST_STRING.match(source, position)
    if found is None:
        return position, None
    prefix, quote = found.groups()
    if quote is None:
        raise _UnclearError  # a string in parentheses is a docstring too
    end = _end_of_string(source, found.end(), quote)
    if not _END.match(source, end):
        if source[end : end + 20].lstrip(b" \t\f")[:1] in b"\"'\\rRuUfFbB":
            raise _UnclearError
        return end, None
    content = source[found.end() : end - len(quote)]
    if b"\\" not in content or prefix in (b"r", b"R"):
        return end, content.decode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's escapes
        return end, str(ast.literal_eval((quote + content + quote).decode()))


# ── by its tree ──────────────────────────────────────────────────────────────────────────────────────────────────────


def parsed_docstrings(source: bytes) -> list[str] | None:
    """The same docstrings, found by `ast`."""
    try:
        with warnings.catch_warnings(), _collector_paused():
            warnings.simplefilter("ignore")  # other people's escapes and comparisons
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return [text for node in _documented(tree) if (text := _docstring(node)) is not None]


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Pauses garbage collection while a tree is built: it would find nothing and take a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _documented(tree: ast.Module) -> Iterator[ast.AST]:
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
        # Definitions stand in statement lists only; expressions, the bulk of a tree, contain none.
        for block in ("finalbody", "orelse", "handlers", "body"):
            children = getattr(node, block, None)
            if isinstance(children, list):
                stack.extend(reversed(children))


def _docstring(node: ast.AST) -> str | None:
    body = getattr(node, "body", None)
    if (
        body
        and isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    ):
        return body[0].value.value
    return None
