"""Text as tokenizers see it: entities decoded, case folded, marks removed, characters normalised. A line stays a line.

The order is fixed: entities, NFKC (which can produce capital letters), lower case by the language's rules, marks, normal form.
No step reaches across white space, so in most texts only the few words that are not ASCII are folded (`fold_bytes`).
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Tokenize
from pipeline.text.characters import STRIPPED, pattern_of

_WHITE = np.isin(np.arange(256), list(b" \t\n\r"))
_FEW = 1 / 8
"""Share of bytes outside ASCII up to which folding words apart is faster; in Korean it takes twice as long."""
ENTITY = re.compile(r"&(?:[a-zA-Z][a-zA-Z0-9]{1,31}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});")
SPELLINGS = {"'": "\u2019\u02bc\uff07", "-": "\u2010\u2011"}
"""{inner character: its other spellings}, which are replaced by it: `don’t` and `don't` are one word."""
_LITHUANIAN = {"\u00cc": "i\u0307\u0300", "\u00cd": "i\u0307\u0301", "\u0128": "i\u0307\u0303"}
_LITHUANIAN_DOT = re.compile("([IJ\u012e])(?=[\u0300\u0301\u0303])")
"""SpecialCasing.txt, section lt: a lower-case i keeps its dot below an accent."""


@dataclass(frozen=True)
class Fold:
    """str → str, by the settings of a tokenizer."""

    steps: tuple[Callable[[str], str], ...]
    changes_ascii: Callable[[bytes], bool]
    """Whether ASCII text needs more than lower-casing."""

    def __call__(self, text: str) -> str:
        for step in self.steps:
            text = step(text)
        return text


def fold_bytes(fold: Fold, text: bytes) -> NDArray[np.uint8]:
    """The folded text, in UTF-8, of UTF-8 without NUL; ASCII letters may stay capitals: splitting makes them small."""
    from w2v_core.text.stretches import gather, odd_stretches, splice

    whole = np.frombuffer(text, np.uint8)
    if fold.changes_ascii(text) or np.count_nonzero(whole & 0x80) > _FEW * len(text):
        return np.frombuffer(fold(text.decode()).encode(), np.uint8)
    places = odd_stretches(whole, _WHITE)
    if not len(places[0]):
        return whole
    folded = fold(gather(whole, places).tobytes().decode()).encode()
    return splice(whole, places, np.frombuffer(folded, np.uint8))


def folding(config: Tokenize) -> Fold:
    """The function that these settings apply to text."""
    form = config.normalize
    steps: list[Callable[[str], str]] = []
    if config.entities:
        steps.append(decode_entities)
    if form == "NFKC":
        steps.append(lambda text: _normalized("NFKC", text))
    if config.lowercase:
        steps.append({"tr": _lower_turkish, "az": _lower_turkish, "lt": _lower_lithuanian}.get(config.language or "", str.lower))
    if "accents" in config.strip:
        steps.append(_without_accents)
    if ranges := [pair for name in config.strip for pair in STRIPPED.get(name, ())]:
        marks = re.compile(f"[{pattern_of(ranges)}]+")
        steps.append(lambda text: marks.sub("", text))
    if form:
        steps.append(lambda text: _normalized(form, text))
    if spelt := str.maketrans({other: one for one, others in spellings(config).items() for other in others}):
        steps.append(lambda text: text.translate(spelt))
    languages = config.lowercase and config.language in ("tr", "az")

    def changes_ascii(text: bytes) -> bool:
        return bool((config.entities and b"&" in text) or (languages and b"I" in text))

    return Fold(tuple(steps), changes_ascii)


def spellings(config: Tokenize) -> dict[str, str]:
    """The rows of SPELLINGS whose characters occur inside words."""
    chosen = set(config.inner) if config.tokenizer == "simple" else set()
    return {one: others for one, others in SPELLINGS.items() if chosen & {one, *others}}


def decode_entities(text: str) -> str:
    """The text with HTML entities replaced by their characters; an entity for a line break becomes a space."""
    return ENTITY.sub(_character, text) if "&" in text else text


def _character(entity: re.Match[str]) -> str:
    return html.unescape(entity[0]).replace("\n", " ").replace("\0", " ")


def _normalized(form: Any, text: str) -> str:
    # The check is a fast scan.
    return text if unicodedata.is_normalized(form, text) else unicodedata.normalize(form, text)


def _lower_turkish(text: str) -> str:
    return text.replace("I\u0307", "i").replace("\u0130", "i").replace("I", "\u0131").lower()


def _lower_lithuanian(text: str) -> str:
    for capital, small in _LITHUANIAN.items():
        text = text.replace(capital, small)
    return _LITHUANIAN_DOT.sub(lambda letter: letter[0].lower() + "\u0307", text).lower()


def _without_accents(text: str) -> str:
    """é → e, as in gensim's `deaccent`: marks that a letter decomposes into are removed; letters without any stay (ø, ß)."""
    apart = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in apart if unicodedata.category(c) != "Mn"))
