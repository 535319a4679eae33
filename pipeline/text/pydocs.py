"""The input `pydocs:`: the docstrings of the installed Python, a corpus of technical English that every machine has.

The Python files of the standard library and of the packages installed beside this project are read as text; nothing is
imported or executed. The text is every docstring of a module, class or function, one paragraph per line, without doctest
input and rulers. Keeping or removing markup fields and tables made no difference measurable over three seeds; lines instead
of paragraphs, or a whole docstring per line, did no better.
"""

from __future__ import annotations

import inspect
import os
import re
import sysconfig
from collections.abc import Iterator

from pipeline.text.docstrings import docstrings as find_docstrings

EXTRACTOR_VERSION = 2
"""Enters every part's key: raise it when `docstrings` or `prose` return other text for the same file."""
_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "testing", "idle_test", "__pycache__", "site-packages", "dist-packages", "lib2to3"}
)
"""Docstrings of tests are sentence fragments; `site-packages` inside the standard library is the other root."""
_SKIPPED_PACKAGES = frozenset({"pipeline", "w2v_core", "kubernetes", "kubernetes_asyncio"})
"""This project itself, in case it is installed as a package, and generated clients, which repeat the same sentences for three
million words."""


def source_files() -> list[str]:
    """Paths of the Python files to read, sorted by their path within the standard library or site-packages."""
    roots = dict.fromkeys(os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))
    found = sorted(item for root in roots for item in _python_files(root, ""))
    return [path for _, path in found]


def _python_files(directory: str, relative: str) -> Iterator[tuple[str, str]]:
    """(path within the root, path) of the non-empty Python files below `directory`."""
    with os.scandir(directory) as entries:
        listed = list(entries)
    for entry in listed:
        name = f"{relative}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in _SKIPPED_FOLDERS and name not in _SKIPPED_PACKAGES and not entry.name.startswith("."):
                yield from _python_files(entry.path, f"{name}/")
        elif entry.name.endswith(".py") and not entry.name.startswith("test_") and _has_text(entry):
            yield name, entry.path


def _has_text(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) and entry.stat().st_size > 0


def docstrings(source: bytes) -> list[str] | None:
    """The docstrings of one file, each once, in the order of the source; None if it is not Python."""
    if b'"""' not in source and b"'''" not in source:
        return []
    found = find_docstrings(source)
    return None if found is None else [inspect.cleandoc(text) for text in dict.fromkeys(found) if text]


_LAYOUT = re.compile(r"\s*(>>> |\.\.\. |[-=~^\"'`*+#]{3,})")
"""Doctest input, and rulers under headings and around tables."""


def prose(docstring: str) -> Iterator[str]:
    """The paragraphs of a docstring, one line each."""
    paragraph: list[str] = []
    for line in [*docstring.split("\n"), ""]:
        if line.strip() and not _LAYOUT.match(line):
            paragraph.append(line.strip())
        elif paragraph:
            yield " ".join(paragraph)
            paragraph = []


def text(source: bytes) -> str | None:
    """The prose of one Python file, one paragraph per line, or None if it does not parse."""
    found = docstrings(source)
    return None if found is None else "\n".join(line for docstring in found for line in prose(docstring))
