"""What is wrong with a value of the configuration, in the words of the page of settings.

pydantic finds the wrong values. Its own messages ("Input should be a valid dictionary or instance of Tls") are written for
programmers, so those that a section can cause are said anew here; what our own validators raise is taken as it is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import as_list

_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "list": "a list",
    "dict": "a mapping (key: value)",
    "model": "a mapping (key: value)",
    "invalid_key": "a name that is text; quote it",
    "too_short": "a list of at least one",
    "string_too_short": "at least one character",
}
"""What is expected, by the beginning of pydantic's name for a problem."""


def wrong_value(problem: Mapping[str, Any]) -> str:
    """What is expected instead, from one of pydantic's problems."""
    kind, context = str(problem["type"]), problem.get("ctx") or {}
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        bound = context[name]
        return f"expected {words} {bound:g}" if isinstance(bound, float) else f"expected {words} {bound}"
    if kind == "literal_error":
        return f"expected {context['expected']}"
    found = [words for beginning, words in _KINDS.items() if kind.startswith(beginning)]
    return f"expected {found[0]}" if found else str(problem["msg"]).removeprefix("Value error, ")


def meant(problem: Mapping[str, Any]) -> str:
    """The choice that a wrong value probably meant, as the end of a message; empty if none is near."""
    value = problem.get("input")
    if problem["type"] != "literal_error" or not isinstance(value, str):
        return ""
    if "," in value and isinstance(problem["loc"][-1], int):
        return as_list(value)
    choices = {choice.casefold(): choice for choice in re.findall(r"'([^']*)'", problem["ctx"]["expected"])}
    near = difflib.get_close_matches(value.casefold(), choices, n=1)
    return f"; did you mean {choices[near[0]]}?" if near else ""
