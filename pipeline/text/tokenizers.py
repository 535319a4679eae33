"""Words from text: a tokenizer turns a chunk of UTF-8 lines into the ids of a `WordTable`, one sentence per line.

- `simple` (the default): a word is a longest run of letters, combining marks, digits and `_`, in any script. Everything
  else separates: `don't` gives don, t; `state-of-the-art` four words; `3.14` two; emoji and invalid bytes none. In scripts
  written without spaces (Chinese, Japanese, Thai, Khmer …) every letter is a word, as in UAX #29 without a dictionary;
  segmenters.py uses dictionaries. `inner: "'-"` keeps these characters inside words, in any spelling (’, ʼ, U+2010);
  `emoji: true` makes every emoji a word.
- `whitespace`: whatever stands between white space (the fixed list in characters.py), unchanged. For text tokenized elsewhere.
  Control characters stay in words, except NUL, 0x01 and 0x02, which separate: a terminal's colours (ESC [31m) are parts of words.
- `regex`: the matches of `tokenize.pattern` in RE2 syntax, in time linear in the text. RE2's `\\w` knows ASCII only; for words
  of any script use `[\\pL\\pM\\pN_\\x{200C}\\x{200D}]+`.
- `package.module:factory`: any Python. `factory(**options)` is called once per process and returns f(list of lines) →
  list of lists of words, one per line. Its attribute `version`, if any, enters the fingerprint: change it when results change.

For all of them: invisible marks (soft hyphens, variation selectors, direction marks, byte order marks) are removed from words
and split none; a joiner counts only inside a word; and a run of only combining marks, joiners and underscores is not a word.

Text is folded first: HTML entities (`entities`), NFKC (which can produce capital letters), lower case (`lowercase`, by the rules
of `language`), characters removed by `strip`, normal form (`normalize`). A tokenizer's `identity` holds everything that can
change its words, including the version of Python's Unicode tables.
"""

from __future__ import annotations

import importlib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Tokenize
from pipeline.errors import ConfigError, DataError, PipelineError, printable
from pipeline.text.characters import IGNORABLE, INVISIBLE, JOINERS, WHITESPACE, ZERO_WIDTH_SPACE, character_classes
from pipeline.text.folding import Fold, fold_bytes, folding, spellings
from pipeline.text.segmenters import korean as korean  # its name in configurations
from w2v_core.text.character_classes import ASCII_INNER, NEWLINE

if TYPE_CHECKING:
    import pyarrow as pa

    from w2v_core.text.words import WordTable

VERSION = 3
_INVISIBLE_RE2 = "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in IGNORABLE)


class Encoded(NamedTuple):
    """The words of a chunk; a line without words gives no sentence."""

    ids: NDArray[np.int32]
    ends: NDArray[np.int64]
    """Exclusive end of each sentence in `ids`."""
    lines: NDArray[np.int64]
    """Line of each sentence in the chunk, counted from 0."""


@dataclass(frozen=True)
class Tokenizer:
    identity: Mapping[str, Any]
    encode: Callable[[bytes, WordTable], Encoded]
    """(chunk of valid UTF-8 lines without NUL, table that assigns the ids) → the words."""

    def split(self, text: str) -> list[list[str]]:
        """The words of each line that has any: `encode` for people, tests and short texts."""
        from w2v_core.text.words import WordTable

        table = WordTable(max(1, 4 * len(text.encode())))
        ids, ends, _ = self.encode(text.encode(), table)
        words = word_array(table).to_pylist()
        return [[words[i] for i in sentence] for sentence in np.split(ids, ends[:-1])] if len(ends) else []


def identify(config: Tokenize) -> dict[str, Any]:
    """Everything that decides a tokenizer's words; raises ConfigError when its pattern or factory cannot be used."""
    identity: dict[str, Any] = {
        "tokenizer": config.tokenizer,
        "lowercase": config.lowercase,
        "language": config.language,
        "normalize": config.normalize,
        "strip": sorted(config.strip),
        "entities": config.entities,
        "unicode": unicodedata.unidata_version,
        "rules": VERSION,
    }
    if config.tokenizer == "simple":
        return identity | {"inner": "".join(sorted(set(config.inner))), "emoji": config.emoji}
    if config.tokenizer == "regex":
        _check_pattern(config.pattern)
        return identity | {"pattern": config.pattern}
    if ":" in config.tokenizer:
        version = getattr(_factory(config.tokenizer), "version", None)
        return identity | {"options": config.options, "version": str(version() if callable(version) else version)}
    return identity


def load_tokenizer(config: Tokenize) -> Tokenizer:
    """The tokenizer that the configuration names, loaded once per process; raises ConfigError when that fails."""
    return _load(config.model_dump_json())


@cache
def _load(config_json: str) -> Tokenizer:
    config = Tokenize.model_validate_json(config_json)
    fold = folding(config)
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


# ── simple and whitespace: character classes ─────────────────────────────────────────────────────────────────────────


def _character_classes_encoder(config: Tokenize, fold: Fold) -> Callable[[bytes, WordTable], Encoded]:
    inner = config.inner + "".join(spellings(config))
    byte_table = _byte_table(config, inner)
    no_classes = np.zeros(0, np.uint8)

    def encode(text: bytes, table: WordTable) -> Encoded:
        if text.isascii() and not fold.changes_ascii(text):
            return Encoded(*table.encode(np.frombuffer(text, np.uint8), byte_table, no_classes))
        folded = fold_bytes(fold, text)
        classes = character_classes(config.tokenizer, inner, config.emoji, tuple(sorted(config.strip)))
        return Encoded(*table.encode(folded, byte_table, classes))

    return encode


def _byte_table(config: Tokenize, inner: str) -> NDArray[np.uint8]:
    """The effect of each ASCII byte: 0 separates, 1 ends the line, 2 stays inside words, any other value goes into the word."""
    table = np.zeros(256, np.uint8)
    for code in range(128):
        character = chr(code)
        is_word = character.isalnum() or character == "_" if config.tokenizer == "simple" else character not in WHITESPACE + "\0"
        # Bytes 1 and 2 would be taken for these values; as control characters they separate.
        if is_word and code > 2:
            table[code] = ord(character.lower() if config.lowercase else character)
        elif character in inner:
            table[code] = ASCII_INNER
    table[ord("\n")] = NEWLINE
    return table


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


def _regex_encoder(pattern: str, fold: Fold) -> Callable[[bytes, WordTable], Encoded]:
    import pyarrow as pa
    import pyarrow.compute as pc

    def encode(text: bytes, table: WordTable) -> Encoded:
        # NUL cannot occur in the text, so it can mark where matches begin and end; every second piece is then a word.
        marked = pc.replace_substring_regex(pa.array(_lines(text, fold), pa.string()), pattern=pattern, replacement="\0\\0\0")
        split = pc.split_pattern(marked, pattern="\0")
        offsets = split.offsets.to_numpy().astype(np.int64)
        pieces = split.flatten()
        is_word = np.zeros(len(pieces), np.bool_)
        is_word[1::2] = True
        # A line has an odd number of pieces, so the parity flips with every line.
        starts_odd = np.repeat(offsets[:-1] & 1, np.diff(offsets)).astype(np.bool_)
        is_word ^= starts_odd
        words_before = np.zeros(len(pieces) + 1, np.int64)
        np.cumsum(is_word, out=words_before[1:])
        return encode_words(pieces.filter(is_word), words_before[offsets[1:]], table, f"tokenize.pattern {printable(pattern)!r}")

    return encode


def _lines(text: bytes, fold: Fold) -> list[str]:
    """The folded lines of a chunk, without line ends and invisible marks."""
    folded = fold(text.decode())
    if not folded.isascii():
        folded = INVISIBLE.sub("", folded).replace(ZERO_WIDTH_SPACE, " ")
    return folded.replace("\r\n", "\n").removesuffix("\n").split("\n")


def encode_words(words: pa.StringArray, ends: NDArray[np.int64], table: WordTable, source: str) -> Encoded:
    """Ids of words given as Arrow strings; `ends` are the exclusive ends of the lines, and lines without words are left out.

    Raises DataError when a word is empty or contains white space, which files of word vectors cannot hold.
    """
    encoded = words.dictionary_encode()
    distinct, indices_N = encoded.dictionary, encoded.indices.to_numpy()
    _refuse_blank(distinct, source)
    distinct, indices_N = _without_edges(distinct, indices_N)
    occurrences = np.bincount(indices_N[indices_N >= 0], minlength=len(distinct)).astype(np.int64)
    offsets = _offsets(distinct)
    data = np.frombuffer(distinct.buffers()[2] or b"", np.uint8)
    ids_N = np.append(table.intern(data, offsets, occurrences), np.int32(-1))[indices_N]
    kept = ids_N >= 0
    if not kept.all():
        kept_before = np.zeros(len(ids_N) + 1, np.int64)
        np.cumsum(kept, out=kept_before[1:])
        ids_N, ends = ids_N[kept], kept_before[ends]
    filled = np.diff(ends, prepend=0) > 0
    return Encoded(ids_N, ends[filled], np.flatnonzero(filled))


def _without_edges(distinct: pa.StringArray, indices_N: NDArray[Any]) -> tuple[pa.StringArray, NDArray[np.int64]]:
    """(words, indices) without joiners and marks at the edges of words; −1 for a word that is nothing else."""
    import pyarrow as pa
    import pyarrow.compute as pc

    edged = pc.match_substring_regex(distinct, rf"^[\pM_{JOINERS}]|[{JOINERS}]$|[{_INVISIBLE_RE2}]")
    indices_N = indices_N.astype(np.int64)
    if not pc.any(edged).as_py():
        return distinct, indices_N
    cleaned = [_without_edge(word) for word in distinct.to_pylist()]
    known: dict[str, int] = {}
    number = np.array([known.setdefault(word, len(known)) if word else -1 for word in cleaned], np.int64)
    return pa.array(list(known), pa.string()), number[indices_N]


def _without_edge(word: str) -> str:
    word = INVISIBLE.sub("", word)
    first = next((at for at, c in enumerate(word) if c not in JOINERS and unicodedata.category(c)[0] != "M"), len(word))
    kept = word[first:].rstrip(JOINERS)
    return kept if any(c != "_" and c not in JOINERS and unicodedata.category(c)[0] != "M" for c in kept) else ""


def _offsets(strings: pa.StringArray) -> NDArray[np.int64]:
    """Offset of each string in the data buffer, then the end of the last one."""
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
    except (Exception, SystemExit) as error:  # importing a module can raise anything
        reason = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"tokenize.tokenizer: {name} cannot be imported ({printable(reason, 200)}); "
            "expected package.module:factory, installed for this Python on every worker"
        ) from None
    if not callable(found):
        raise ConfigError(f"tokenize.tokenizer: {name} is a {type(found).__name__}, expected a function that returns a tokenizer")
    return found  # type: ignore[no-any-return]


def _plugin_encoder(config: Tokenize, fold: Fold) -> Callable[[bytes, WordTable], Encoded]:
    import pyarrow as pa

    name = config.tokenizer
    try:
        tokenize = _factory(name)(**config.options)
    except TypeError as error:
        raise ConfigError(f"tokenize.options: {name} does not take them ({printable(str(error), 200)})") from None
    except PipelineError:
        raise
    except Exception as error:
        problem = printable(f"{type(error).__name__}: {error}", 200)
        raise ConfigError(f"tokenize.tokenizer: {name}() failed ({problem}); correct it or its tokenize.options") from None
    if not callable(tokenize):
        raise ConfigError(f"tokenize.tokenizer: {name}() must return a function, found {type(tokenize).__name__}")

    def encode(text: bytes, table: WordTable) -> Encoded:
        lines = _lines(text, fold)
        try:
            sentences = tokenize(lines)
        except PipelineError:
            raise
        except Exception as error:
            raise DataError(f"{name}: failed on a text ({printable(f'{type(error).__name__}: {error}', 200)})") from error
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
