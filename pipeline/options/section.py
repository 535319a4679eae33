"""The base of every configuration section: frozen, without unknown keys, and with strictly checked values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, field_validator

from pipeline.safety.values import number_of, plain_types, refuse_unwritable


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)
    SEVERAL: ClassVar[frozenset[str]] = frozenset()
    """The lists of which one text with a comma is refused: it hardly ever is one, and as one would be used without a word."""

    @field_validator("*", mode="before")
    @classmethod
    def values_are_what_they_look_like(cls, value: Any, info: ValidationInfo) -> Any:
        """The value, with numbers in any usual spelling parsed, and one text as a list of one; refuses booleans and odd spellings
        as numbers, and text with characters that no path or word can hold."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        kinds = plain_types(annotation)
        if not any(isinstance(kind, type) and issubclass(kind, Section) for kind in kinds):
            refuse_unwritable(value)
        if isinstance(value, str) and get_origin(annotation) is list:
            if "," in value and info.field_name in cls.SEVERAL:
                several = json.dumps([part.strip() for part in value.split(",")], ensure_ascii=False)
                raise ValueError(f"expected a list, written {several}; one text with a comma is written [{json.dumps(value)}]")
            return [value]
        return number_of(value) if kinds & {int, float} and not kinds & {bool, dict} else value


def spelled(pattern: str, meaning: str) -> AfterValidator:
    """A check that the whole text matches a pattern, which an error describes in words."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {meaning}")
        return text

    return AfterValidator(check)


def refuse_unread(section: Section, keys: Sequence[str], why: str) -> None:
    """Raises ValueError for keys that are set although nothing reads them."""
    for key in keys:
        if getattr(section, key) != type(section).model_fields[key].get_default(call_default_factory=True):
            raise ValueError(f"{key} is not read: {why}; remove it")
