"""Text → words. A tokenizer turns a chunk of UTF-8 lines into the ids of a `WordTable`, a sentence a line.

- `simple` (the default): a word is a longest run of letters, combining marks, digits and `_`, of any script. Everything
  else separates: `don't` gives don, t; `state-of-the-art` four words; `3.14` two; emoji and bad bytes none. A soft hyphen
  vanishes, a zero-width (non-)joiner stays in its word.
- `whitespace`: what stands between white space (the fixed list in reading.py), as it is. For text tokenized elsewhere.
- `regex`: the matches of `tokenize.pattern` in RE2 syntax, linear in the text. RE2's `\\w` knows ASCII only; words of any
  script are `[\\pL\\pM\\pN_]+`.
- `package.module:factory`: any Python. `factory(**options)` is called once a process and returns f(list of lines) →
  list of word lists, one a line. Its attribute `version`, if any, enters the fingerprint, so change it with the results.

Text is lower-cased (`lowercase`) and then normalised (`normalize`) before any of them sees it, NFKC also before that,
because it can bring capital letters. A tokenizer's `identity` holds everything that can change its words, the version of
Python's Unicode tables among it.
"""

from __future__ import annotations

import importlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Tokenize
from pipeline.errors import ConfigError, DataError, printable
from pipeline.text.reading import WHITESPACE

if TYPE_CHECKING:
    import pyarrow as pa

    from w2v_core.text.words import WordTable

VERSION = 1
Encoded = tuple[NDArray[np.int32], NDArray[np.int64]]
"""(word ids, exclusive end of each sentence)."""
_SOFT_HYPHEN, _JOINERS = "\u00ad", "\u200c\u200d"


@dataclass(frozen=True)
class Tokenizer:
    identity: Mapping[str, Any]
    encode: Callable[[bytes, WordTable], Encoded]
    """(chunk of valid UTF-8 lines without NUL, table that hands out the ids) → ids and sentence ends."""

    def split(self, text: str) -> list[list[str]]:
        """The words of each line that has any: `encode` for people, tests and short texts."""
        from w2v_core.text.words import WordTable

        table = WordTable(max(1, 4 * len(text.encode())))
        ids, ends = self.encode(text.encode(), table)
        words = word_array(table).to_pylist()
        return [[words[i] for i in sentence] for sentence in np.split(ids, ends[:-1])] if len(ends) else []


def identify(config: Tokenize) -> dict[str, Any]:
    """What decides a tokenizer's words; raises ConfigError when its pattern or factory cannot be used."""
    identity = {
        "tokenizer": config.tokenizer,
        "lowercase": config.lowercase,
        "normalize": config.normalize,
        "unicode": unicodedata.unidata_version,
        "version": VERSION,
    }
    if config.tokenizer == "regex":
        _check_pattern(config.pattern)
        return identity | {"pattern": config.pattern}
    if ":" in config.tokenizer:
        version = getattr(_factory(config.tokenizer), "version", None)
        return identity | {"options": config.options, "version": str(version() if callable(version) else version)}
    return identity


def load_tokenizer(config: Tokenize) -> Tokenizer:
    """The tokenizer that the configuration names, loaded once a process; raises ConfigError when it cannot be."""
    return _load(config.model_dump_json())


@cache
def _load(config_json: str) -> Tokenizer:
    config = Tokenize.model_validate_json(config_json)
    fold = _folding(config)
    if config.tokenizer in ("simple", "whitespace"):
        return Tokenizer(identify(config), _character_classes_encoder(config, fold))
    if config.tokenizer == "regex":
        return Tokenizer(identify(config), _regex_encoder(config.pattern, fold))
    return Tokenizer(identify(config), _plugin_encoder(config, fold))


def word_array(table: WordTable) -> pa.StringArray:
    """The table's words in id order as an Arrow array."""
    import pyarrow as pa

    data, ends, _ = table.words()
    offsets = np.zeros(len(ends) + 1, np.int32)
    offsets[1:] = ends
    return pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data)))


# ── case and normal form ─────────────────────────────────────────────────────────────────────────────────────────────


def _folding(config: Tokenize) -> Callable[[str], str]:
    """str → str: normalised, lower-cased, normalised again. Each check for the normal form is a fast scan."""
    form = config.normalize

    def fold(text: str) -> str:
        if form == "NFKC":
            text = _normalized(form, text)
        if config.lowercase:
            text = text.lower()
        return _normalized(form, text) if form else text

    return fold


def _normalized(form: Any, text: str) -> str:
    return text if unicodedata.is_normalized(form, text) else unicodedata.normalize(form, text)


# ── simple and whitespace: character classes ─────────────────────────────────────────────────────────────────────────


def _character_classes_encoder(config: Tokenize, fold: Callable[[str], str]) -> Callable[[bytes, WordTable], Encoded]:
    byte_table = _byte_table(config)
    no_classes = np.zeros(0, np.uint8)

    def encode(text: bytes, table: WordTable) -> Encoded:
        if text.isascii():
            return table.encode(np.frombuffer(text, np.uint8), byte_table, no_classes)
        folded = fold(text.decode()).encode()
        return table.encode(np.frombuffer(folded, np.uint8), byte_table, character_classes(config.tokenizer))

    return encode


def _byte_table(config: Tokenize) -> NDArray[np.uint8]:
    """What each ASCII byte does: 0 separates, 1 ends the line, any other value is the byte that the word receives."""
    table = np.zeros(256, np.uint8)
    for code in range(128):
        character = chr(code)
        is_word = character.isalnum() or character == "_" if config.tokenizer == "simple" else character not in WHITESPACE + "\0"
        # Bytes 1 and 2 would be read as classes; as control characters they separate.
        if is_word and code > 2:
            table[code] = ord(character.lower() if config.lowercase else character)
    table[ord("\n")] = 1
    return table


@cache
def character_classes(tokenizer: str) -> NDArray[np.uint8]:
    """The class of every character for `simple` or `whitespace`, uint8[0x110000]; values as in word_kernels."""
    classes = np.zeros(0x110000, np.uint8)
    if tokenizer == "whitespace":
        classes[:] = 3
        classes[[ord(character) for character in WHITESPACE]] = 0
        return classes
    for code in range(0x110000):
        if unicodedata.category(chr(code))[0] in "LMN":
            classes[code] = 3
    classes[[ord(character) for character in _JOINERS]] = 3
    classes[ord(_SOFT_HYPHEN)] = 2
    return classes


# ── regex ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_pattern(pattern: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        matches_nothing = pc.match_substring_regex(pa.array([""]), pattern)[0].as_py()
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"tokenize.pattern: {printable(pattern)!r} is not an RE2 pattern: {printable(str(error), 200)}"
        ) from None
    if matches_nothing:
        raise ConfigError(
            f"tokenize.pattern: {printable(pattern)!r} matches the empty string, which is no word; use + instead of *"
        )


def _regex_encoder(pattern: str, fold: Callable[[str], str]) -> Callable[[bytes, WordTable], Encoded]:
    import pyarrow as pa
    import pyarrow.compute as pc

    def encode(text: bytes, table: WordTable) -> Encoded:
        # NUL cannot occur in the text, so it can mark where matches begin and end: every second piece is a word.
        marked = pc.replace_substring_regex(pa.array(_lines(text, fold), pa.string()), pattern=pattern, replacement="\0\\0\0")
        split = pc.split_pattern(marked, pattern="\0")
        offsets = split.offsets.to_numpy().astype(np.int64)
        pieces = split.flatten()
        is_word = np.zeros(len(pieces), np.bool_)
        is_word[1::2] = True
        # A line has an odd number of pieces; the parity turns with every line.
        starts_odd = np.repeat(offsets[:-1] & 1, np.diff(offsets)).astype(np.bool_)
        is_word ^= starts_odd
        words_before = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum(is_word, out=words_before[1:])
        return encode_words(pieces.filter(is_word), words_before[offsets[1:]], table, f"tokenize.pattern {printable(pattern)!r}")

    return encode


def _lines(text: bytes, fold: Callable[[str], str]) -> list[str]:
    """The lines of a chunk, folded, without their ends."""
    return fold(text.decode()).replace("\r\n", "\n").removesuffix("\n").split("\n")


def encode_words(words: pa.StringArray, ends: NDArray[np.int64], table: WordTable, source: str) -> Encoded:
    """Ids of words that are Arrow strings; `ends` are the exclusive ends of the lines, of which empty ones are left out.

    Raises DataError when a word is empty or holds white space: no format of word vectors could write it.
    """
    encoded = words.dictionary_encode()
    distinct, indices_N = encoded.dictionary, encoded.indices.to_numpy()
    _refuse_blank(distinct, source)
    occurrences = np.bincount(indices_N, minlength=len(distinct)).astype(np.int64)
    offsets = _offsets(distinct)
    data = np.frombuffer(distinct.buffers()[2] or b"", np.uint8)
    ids_N = table.intern(data, offsets, occurrences)[indices_N]
    kept = ids_N >= 0
    if not kept.all():
        kept_before = np.zeros(len(ids_N) + 1, np.int64)
        np.cumsum(kept, out=kept_before[1:])
        ids_N, ends = ids_N[kept], kept_before[ends]
    return ids_N, ends[np.diff(ends, prepend=0) > 0]


def _offsets(strings: pa.StringArray) -> NDArray[np.int64]:
    """Where each string begins in the data buffer, and where the last one ends."""
    offsets = strings.buffers()[1]
    assert offsets is not None
    return np.frombuffer(offsets, np.int32)[strings.offset : strings.offset + len(strings) + 1].astype(np.int64)


def _refuse_blank(distinct: pa.StringArray, source: str) -> None:
    import pyarrow.compute as pc

    blank = distinct.filter(pc.match_substring_regex(distinct, f"^$|[{WHITESPACE}]"))
    if len(blank):
        raise DataError(
            f"{source}: a word must not be empty or hold white space, found {printable(repr(blank[0].as_py()))}; "
            "word vector files could not be read back: join its parts with _ or leave it out"
        )


# ── any Python ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _factory(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for step in attribute.split("."):
            found = getattr(found, step)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"tokenize.tokenizer: {name} cannot be imported ({printable(str(error), 200)}); "
            "expected package.module:factory, installed for this Python on every worker"
        ) from None
    if not callable(found):
        raise ConfigError(f"tokenize.tokenizer: {name} is a {type(found).__name__}, expected a function that returns a tokenizer")
    return found  # type: ignore[no-any-return]


def _plugin_encoder(config: Tokenize, fold: Callable[[str], str]) -> Callable[[bytes, WordTable], Encoded]:
    import pyarrow as pa

    name = config.tokenizer
    try:
        tokenize = _factory(name)(**config.options)
    except TypeError as error:
        raise ConfigError(f"tokenize.options: {name} does not take them ({printable(str(error), 200)})") from None
    if not callable(tokenize):
        raise ConfigError(f"tokenize.tokenizer: {name}() must return a function, found {type(tokenize).__name__}")

    def encode(text: bytes, table: WordTable) -> Encoded:
        lines = _lines(text, fold)
        sentences = tokenize(lines)
        _check_sentences(name, sentences, len(lines))
        words = [word for sentence in sentences for word in sentence]
        try:
            array = pa.array(words, pa.string())
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
            raise DataError(f"{name}: every word must be a str of valid Unicode ({printable(str(error), 200)})") from None
        ends = np.cumsum([len(sentence) for sentence in sentences], dtype=np.int64)
        return encode_words(array, ends, table, name)

    return encode


def _check_sentences(name: str, sentences: Any, lines: int) -> None:
    expected = f"expected a list of {lines} lists of str, one for each line"
    if not isinstance(sentences, Sequence) or isinstance(sentences, (str, bytes)):
        raise DataError(f"{name}: {expected}; found {type(sentences).__name__}")
    if len(sentences) != lines:
        raise DataError(f"{name}: {expected}; found {len(sentences)} items (a line without words is an empty list)")
    for sentence in sentences:
        if not isinstance(sentence, (list, tuple)):
            raise DataError(f"{name}: {expected}; found an item of type {type(sentence).__name__}")


# ── Korean ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_KOREAN_CONTENT_TAGS = (
    "NNG",
    "NNP",
    "NNB",
    "NR",
    "NP",
    "VV",
    "VA",
    "VX",
    "VCP",
    "VCN",
    "MM",
    "MAG",
    "MAJ",
    "IC",
    "XR",
    "SL",
    "SN",
    "SH",
)


def korean(tags: Sequence[str] | None = None) -> Callable[[list[str]], list[list[str]]]:
    """A tokenizer of Korean morphemes by Kiwi, for `tokenize.tokenizer: pipeline.text.tokenizers:korean`.

    Particles and endings are left out, so that 먹었다 and 먹는 share 먹다 (verbs and adjectives get their dictionary 다).
    `tags` replaces the tags that are kept (Sejong tag set; `VV` stands also for VV-I and VV-R).
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
    # One thread: a worker has one core, and Kiwi's own pool would count all of them.
    return Kiwi(num_workers=1)


def _no_kiwi() -> ConfigError:
    return ConfigError(
        "tokenize.tokenizer: pipeline.text.tokenizers:korean needs kiwipiepy; install the extra: pip install 'dask-word2vec[ko]'"
    )
