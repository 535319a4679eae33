"""The docstrings of the installed Python as a corpus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import Corpus
from pipeline.text import pydocs
from pipeline.text.corpus import CorpusPlan, plan_corpus
from pipeline.text.cutting import cut_parts
from pipeline.text.docstrings import docstrings, parsed_docstrings
from pipeline.text.losses import ReadCounts
from pipeline.text.reading import Reading, read_part
from tests.sampling import ALL, sample

SOURCE = b'''
"""Module text.

Second paragraph,
continued here.
"""
x = "\\d"  # an escape that warns
if True:
    class A:
        """Class text."""
        async def f(self):
            """Method text.

            :param x: a field
            >>> f()
            A result
            =====
            """
            def inner():
                """Inner text."""
        def g(self):
            """Method text.

            :param x: a field
            >>> f()
            A result
            =====
            """
try:
    pass
except Exception:
    def h(): "One line."
f"""not {x} a docstring"""
'''


def test_docstrings_of_modules_classes_and_functions_come_in_source_order_each_once() -> None:
    found = pydocs.docstrings(SOURCE)
    assert found is not None
    assert [text.split("\n")[0] for text in found] == ["Module text.", "Class text.", "Method text.", "Inner text.", "One line."]


def test_prose_is_a_paragraph_a_line_without_doctest_input_and_rulers() -> None:
    text = pydocs.text(SOURCE)
    assert text is not None
    assert text.split("\n") == [
        "Module text.",
        "Second paragraph, continued here.",
        "Class text.",
        "Method text.",
        ":param x: a field",
        "A result",
        "Inner text.",
        "One line.",
    ]


@pytest.mark.parametrize("source", [b'"""x\n', b'"""x"""\ny = "open\n', b'"""\xff"""\n', b'"""a"""\0'])
def test_a_file_whose_strings_do_not_end_or_that_is_no_text_is_none(tmp_path: Path, source: bytes) -> None:
    assert pydocs.text(source) is None


def test_nothing_is_executed(tmp_path: Path) -> None:
    assert pydocs.text(b'"""text"""\nraise SystemExit(1)\n') == "text"


@pytest.mark.turns(5, 3, of="large")
def test_the_installed_python_gives_millions_of_words_the_same_way_twice() -> None:
    plan = plan_corpus(Corpus(inputs=["pydocs:"]))
    assert plan == plan_corpus(Corpus(inputs=["pydocs:"]))
    assert {file.kind for file in plan.files} == {"python"}
    assert len({file.sha256 for file in plan.files}) == len(plan.files), "copies are read once"
    assert not any("/tests/" in file.path or "/test/" in file.path for file in plan.files)
    part = cut_parts(plan, 1 << 24)[10]
    counts = ReadCounts()
    text = b"\n".join(chunk.text for chunk in read_part(part, Reading(), counts)).decode()
    assert counts.stored_bytes == sum(file.size for file in (piece.file for piece in part.pieces))
    assert len(text.split()) > 2000


def test_only_files_that_are_not_python_are_remarked(tmp_path: Path) -> None:
    sources = {"good": b'"""Some text."""\n', "empty": b"x = 1\n", "broken": b'"""text\n'}
    files = []
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_bytes(source)
        (planned,) = plan_corpus(Corpus(inputs=[str(tmp_path / f"{name}.py")])).files
        files.append(replace(planned, kind="python"))
    (part,) = cut_parts(CorpusPlan(tuple(files)), 1 << 20)
    counts = ReadCounts()
    assert b"".join(chunk.text for chunk in read_part(part, Reading(), counts)).strip() == b"Some text."
    assert counts.remarks == {"Python files|file are|is no valid Python and were|was left out": 1}


SHARES = 10 if ALL else 1
"""All the installed files together take a minute of processor time."""


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.turns(3, 1.5)
def test_docstrings_are_those_of_the_parser_in_the_installed_python(share: int) -> None:
    files = sample(pydocs.source_files(), 150)[share::SHARES]
    sources = (Path(path).read_bytes() for path in files)
    differ = [source[:80] for source in sources if (tree := parsed_docstrings(source)) is not None and docstrings(source) != tree]
    assert not differ


@pytest.mark.parametrize(
    "source",
    [
        '"module"', "# a comment\n\n'''module'''\nx = 1", '"a" "b"\n', '"a" % b', "b'bytes'", "f'{x}'", "r'raw\\n'", "'''open",
        'x = "def f():"\nclass A: "one line"', "def f(a=':', b={1: 2}, c=lambda x: x) -> dict[str, int]:  # why: so\n\n    'doc'",
        "async def f():\n\t'''a \\''' b'''", "class A(\n    B,  # )\n):\n    # first\n    'doc'; x = 1", "def f(): return 'x'",
        "if x:\n    def f():\n        'in'\nelse:\n    class B:\n        'out'", "x = '''\ndef f():\n    \"not one\"\n'''",
        "def f():\r\n    'a\\\r\nb'\r\n", "class Ä:\n    'ü'", "def f():\n    ('doc')", "def f():\n    '\\N{BULLET} \\x41'",
        "\ufeff'marked'", "def f():\n    'doc' \\\n    'more'", "def f():\n    'doc'.strip()",
        "x = 1 # '''\n'text'\ny = '#'  # \"",
        "def f():\n    'doc'\n    def g():\n        'inner'\n    return g\n\nclass A:\n    x = '\\'\\\\'\n    def m(self): 'm'",
    ],
)  # fmt: skip
def test_what_looks_like_a_docstring_is_one_if_the_parser_says_so(source: str) -> None:
    tree = parsed_docstrings(source.encode())
    assert docstrings(source.encode()) == tree
