"""Tokenizers for languages in which spaces do not separate words, with the dictionaries of other packages.

    tokenize: {tokenizer: "pipeline.text.segmenters:icu", options: {locale: zh}}      Chinese, Japanese, Thai, Lao, Khmer, Burmese
    tokenize: {tokenizer: "pipeline.text.tokenizers:korean"}                          Korean, without particles and endings

Each is an extra (`pip install -e '.[icu]'`, `[ko]`), because dictionaries are large.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import ConfigError
from w2v_core.extras import install_command


def icu(locale: str = "zh") -> Callable[[list[str]], list[list[str]]]:
    """A tokenizer that uses ICU's word boundaries (UAX #29, with dictionaries for scripts without spaces), for
    `tokenize.tokenizer: pipeline.text.segmenters:icu`; a segment without a letter or digit is not a word."""
    breaker = _icu_breaker()
    if not isinstance(locale, str) or not locale.replace("_", "").replace("-", "").isalnum():
        raise ConfigError(f"tokenize.options: locale must be the name of a language such as zh, ja, th, found {locale!r}")

    def tokenize(lines: list[str]) -> list[list[str]]:
        return [[word for word in breaker(line, locale) if _is_word(word)] for line in lines]

    return tokenize


def _is_word(segment: str) -> bool:
    return any(unicodedata.category(character)[0] in "LN" for character in segment)


def _icu_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"1 icu4py {version('icu4py')}"
    except PackageNotFoundError:
        raise _no_icu() from None


icu.version = _icu_version  # type: ignore[attr-defined]


def _icu_breaker() -> Any:
    try:
        from icu4py.breakers import WordBreaker
    except ImportError:
        raise _no_icu() from None
    return WordBreaker


def _no_icu() -> ConfigError:
    return ConfigError(
        f"tokenize.tokenizer: pipeline.text.segmenters:icu needs icu4py; install the extra: {install_command('icu')}"
    )


# ── Korean ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_KOREAN_CONTENT_TAGS = (
    "NNG", "NNP", "NNB", "NR", "NP", "VV", "VA", "VX", "VCP", "VCN", "MM", "MAG", "MAJ", "IC", "XR", "SL", "SN", "SH",
)  # fmt: skip


def korean(tags: Sequence[str] | None = None) -> Callable[[list[str]], list[list[str]]]:
    """A tokenizer that splits Korean into morphemes with Kiwi, for `tokenize.tokenizer: pipeline.text.tokenizers:korean`.

    Particles and endings are left out, so that 먹었다 and 먹는 share 먹다 (verbs and adjectives get their dictionary ending 다).
    `tags` replaces the set of tags kept (Sejong tag set; `VV` includes VV-I and VV-R).
    """
    kiwi = _kiwi()
    kept = frozenset(_KOREAN_CONTENT_TAGS if tags is None else tags)

    def tokenize(lines: list[str]) -> list[list[str]]:
        return [
            [_korean_word(token.form, token.tag) for token in tokens if token.tag.partition("-")[0] in kept]
            for tokens in kiwi.tokenize(lines)
        ]

    return tokenize


def _korean_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"1 kiwipiepy {version('kiwipiepy')}"
    except PackageNotFoundError:
        raise _no_kiwi() from None


korean.version = _korean_version  # type: ignore[attr-defined]


def _korean_word(form: str, tag: str) -> str:
    return f"{form}다".replace(" ", "_") if tag.startswith(("VV", "VA", "VX", "VCP", "VCN")) else form.replace(" ", "_")


def _kiwi() -> Any:
    try:
        from kiwipiepy import Kiwi
    except ImportError:
        raise _no_kiwi() from None
    # One thread: a worker has one core, and Kiwi's own pool would use them all.
    return Kiwi(num_workers=1)


def _no_kiwi() -> ConfigError:
    return ConfigError(
        f"tokenize.tokenizer: pipeline.text.tokenizers:korean needs kiwipiepy; install the extra: {install_command('ko')}"
    )
