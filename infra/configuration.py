"""Writes infra/configuration.md, the page of all settings, from the sections of the configuration.

python infra/configuration.py
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline import sections
from pipeline.config import RunConfig

PAGE = Path(__file__).with_name("configuration.md")
HEAD = """# Configuration

One YAML file is one complete run. Any key can be overridden behind the file on the command line: `w2v run mine.yaml
train.epochs=10`. Paths in the file are relative to the file, paths on the command line to the current folder. Unknown keys are
errors. Names follow gensim where gensim has a name. This page is made from `pipeline/sections.py` by `make configuration`.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for name, field in RunConfig.model_fields.items() for line in section(name, field))])


def section(name: str, field: FieldInfo) -> Iterator[str]:
    """The lines of a section, followed by those of its subsections."""
    kind = field.annotation
    assert isinstance(kind, type)
    assert issubclass(kind, BaseModel)
    texts, types = written(kind)
    yield f"## {name}\n"
    if (text := inspect.cleandoc(kind.__doc__ or "")) and kind.__doc__ != BaseModel.__doc__:
        yield f"{text}\n"
    yield "| key | values | default | |"
    yield "| --- | --- | --- | --- |"
    within = []
    for key, inner in kind.model_fields.items():
        if isinstance(inner.annotation, type) and issubclass(inner.annotation, BaseModel):
            within.append((f"{name}.{key}", inner))
            continue
        yield f"| `{inner.alias or key}` | {cell(types[key])} | {default(inner, types[key])} | {cell(texts.get(key, ''))} |"
    yield ""
    for path, inner in within:
        yield from section(path, inner)


def written(kind: type[BaseModel]) -> tuple[dict[str, str], dict[str, str]]:
    """(meaning of every key, type of every key), as written in the source."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    texts, types = {}, {}
    for statement, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            types[statement.target.id] = values(statement.annotation)
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                texts[statement.target.id] = inspect.cleandoc(str(following.value.value))
    return texts, types


def default(field: FieldInfo, values: str) -> str:
    """A key's default. Numbers that are chosen are 0 inside the program, and null in the file."""
    if field.default == 0 and values.endswith(" or null"):
        return "`null`"
    if field.is_required():
        return "must be given"
    if field.default_factory is not None:
        try:
            made = field.default_factory()  # type: ignore[call-arg]
        except TypeError:
            return "from another key"
        return f"`{made!r}`".replace("'", "")
    if field.default is None or isinstance(field.default, bool):
        return f"`{str(field.default).lower().replace('none', 'null')}`"
    return cell(f"`{field.default}`".replace("'", "")) if field.default != "" else "empty"


PLAIN = {
    "Positive": "int",
    "Rate": "float",
    "Fraction": "float",
    "Chosen": "int or null",
    "str": "text",
    "Format": "format",
    "Any": "anything",
}


def values(annotation: ast.expr) -> str:
    """The values that a type allows, in words."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            return f"{values(left)} or {values(right)}"
        case ast.Constant(value=None):
            return "null"
        case ast.Constant(value=value):
            return f"`{value}`"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=choices)):
            return ", ".join(map(values, choices))
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[kind, *_])):
            return values(kind)
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return f"list of {values(item)}"
        case ast.Subscript(value=ast.Name(id="dict")):
            return "mapping"
    name = ast.unparse(annotation)
    return PLAIN.get(name, name).replace("int", "whole number").replace("float", "number").replace("bool", "true, false")


def cell(text: str) -> str:
    """Text in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    assert sections.__doc__
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
