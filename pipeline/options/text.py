"""The sections `corpus:` and `tokenize:`: where text comes from, and what counts as a word."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.options.section import Section, refuse_unread, spelled

DEFAULT_PATTERN = r"[\pL\pM\pN_\x{200C}\x{200D}]+"
_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"


class Corpus(Section):
    SEVERAL = frozenset({"include", "exclude"})
    inputs: list[str] = Field(min_length=1)
    """Files, globs, folders, or `pydocs:` (docstrings of the installed Python). Files are read in an order decided by their
    content, so names do not matter."""
    include: list[str] = Field(default_factory=list)
    """Inside folders, globs and archives: only files whose name, or the end of whose path, matches one of these patterns."""
    exclude: list[str] = Field(default_factory=list)
    """Inside folders, globs and archives: no files that match one of these patterns."""
    format: Literal["lines", "jsonl", "csv", "tsv", "parquet", "arrow"] = "lines"
    """jsonl is any sequence of JSON values, including the elements of an array; arrow is Arrow IPC, including `save_to_disk`
    folders."""
    text_field: str = Field("text", min_length=1)
    """The field that holds the text (every format but lines); `a.b` is the field b inside a. Strings, UTF-8 bytes, or lists of
    strings, which are sentences already split into words."""
    bad_records: Literal["stop", "skip"] = "stop"
    """A record without text in `text_field` (null, missing, another type) stops the run, or is skipped and counted."""
    encoding: str = "utf-8"
    """Encoding of lines, jsonl, csv and tsv; any name that Python knows."""
    encoding_errors: Literal["replace", "strict"] = "replace"
    """Bytes that are invalid in `encoding`: replace = U+FFFD takes their place, and they are counted (`max_lost`); strict = they
    stop the run."""
    max_lost: float = Field(0.01, ge=0, le=1)
    """Share of the text's bytes that may be lost (invalid in `encoding`, over-long tokens) before the run stops and names the
    worst files."""
    sniff: bool = True
    """true: a file that does not look like `format` stops the run; false: it is read as `format` anyway."""
    follow_symlinks: bool = False
    """true: inside folders, links to files and folders are followed; false: they are left out."""
    skip_unreadable: bool = False
    """false: an unreadable input stops the run before work starts; true: it is listed and left out."""
    block_bytes: int = Field(16 << 20, ge=1 << 10, le=1 << 30)
    """Target size of a part in bytes of stored text; decides how a corpus is cut, never its content. After an edit in a larger
    file, the part with the edit is tokenized again."""
    max_ratio: int = Field(2000, ge=2)
    """A compressed file that expands to more than this many times its size is refused (a decompression bomb)."""

    @field_validator("encoding")
    @classmethod
    def encoding_is_known(cls, value: str) -> str:
        try:
            found = codecs.lookup(value)
        except LookupError:
            raise ValueError("expected the name of an encoding, such as utf-8, cp1252, gbk or utf-16") from None
        if not getattr(found, "_is_text_encoding", True):
            raise ValueError("expected a text encoding")
        return found.name

    @model_validator(mode="after")
    def keys_are_read(self) -> Corpus:
        if self.format == "lines":
            refuse_unread(self, ("text_field", "bad_records"), "corpus.format is lines, which has no records")
        if self.format in ("parquet", "arrow"):
            refuse_unread(self, ("encoding",), f"corpus.format is {self.format}, whose text is UTF-8")
        return self


class Tokenize(Section):
    tokenizer: str = "simple"
    """`simple` (Unicode words), `whitespace`, `regex`, or `package.module:factory`: a function that every worker can import and
    that, called with `options`, returns a function from a list of lines to a list of lists of words, one for each line. The
    attribute `version` of the factory, if it has one, is part of what decides a result: change it when the words change."""
    lowercase: bool = True
    """true: `The` and `the` are one word."""
    language: Literal["tr", "az", "lt"] | None = None
    """Lower-case by this language's rules where these differ from Unicode's: i in Turkish and Azeri, dots in Lithuanian."""
    normalize: Literal["NFC", "NFKC"] | None = "NFC"
    """Unicode form of the text, so that one spelling is one word; NFKC also unites variants such as ﬁ and fi; null = as it is."""
    strip: list[Literal["accents", "arabic", "hebrew", "tatweel"]] = Field(default_factory=list)
    """Marks removed from words: accents (é → e), vowel marks of Arabic or Hebrew, the tatweel that stretches Arabic words."""
    entities: bool = False
    """true: `&amp;`, `&#8217;` and other HTML entities are replaced by their characters."""
    inner: str = ""
    """For `simple`: characters that belong to a word when they stand inside it, such as `'-·`. All spellings of an apostrophe
    (' ’ ʼ) or a hyphen count as one: `don’t` and `don't` are one word."""
    emoji: bool = False
    """For `simple`: every emoji, with everything joined to it, is a word."""
    pattern: str = DEFAULT_PATTERN
    """For `regex`: matches of this pattern are the tokens (RE2 syntax: linear time, no look-around; its \\w is ASCII only)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of a `package.module:factory`."""
    max_token_bytes: int = Field(256, ge=1, le=1 << 16)
    """Longer tokens are dropped and counted."""
    end_of_line: Annotated[str, spelled(r"\S+", "a token without spaces, such as <eos>")] | None = None
    """null: a line is a sentence, and windows stop at its end. A token such as `<eos>`: every line end becomes this token
    and windows cross it, as textbooks treat the Penn Treebank."""

    @model_validator(mode="after")
    def line_ends_pass_the_tokenizer(self) -> Tokenize:
        if self.end_of_line is not None and self.tokenizer != "whitespace":
            raise ValueError(f"end_of_line needs tokenizer: whitespace, found {self.tokenizer}, which may change the token")
        return self

    @model_validator(mode="after")
    def keys_are_read(self) -> Tokenize:
        chosen = f"tokenize.tokenizer is {self.tokenizer}"
        if self.tokenizer != "simple":
            refuse_unread(self, ("inner", "emoji"), chosen)
        if self.tokenizer != "regex":
            refuse_unread(self, ("pattern",), chosen)
        if ":" not in self.tokenizer:
            refuse_unread(self, ("options",), chosen)
        if not self.lowercase:
            refuse_unread(self, ("language",), "tokenize.lowercase is false")
        return self

    @field_validator("inner")
    @classmethod
    def inner_characters_are_punctuation(cls, value: str) -> str:
        if wrong := [c for c in value if c.isalnum() or c.isspace() or not c.isprintable() or c == "_"]:
            raise ValueError(f"expected punctuation such as '’-, found {wrong[0]!r}")
        return value

    @field_validator("tokenizer")
    @classmethod
    def tokenizer_is_known(cls, value: str) -> str:
        if value in ("simple", "whitespace", "regex") or re.fullmatch(rf"{_DOTTED}:{_DOTTED}", value):
            return value
        raise ValueError("expected simple, whitespace, regex or package.module:factory")
