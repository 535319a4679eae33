"""Loading vectors from any place and format; a note tells what was skipped or had to be guessed.

    a folder            as `WordVectors.save` or training left it (files.py); its matrix is mapped from disk
    .parquet            columns word, vector and perhaps count, as `w2v export` writes them (parquet.py)
    .safetensors        a tensor (V, D), and vocab.json beside it (safetensors.py)
    models:/NAME@alias  a registered model, wherever MLflow keeps it; also runs:/ID/vectors
    anything else       word2vec's text or binary format, or GloVe's (word_files.py); gzip, bzip2 and xz are decompressed

Nothing is dropped silently: words that occur twice, a missing first line and the like are reported as a `VectorFileNote`.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from w2v_core.text.printable import printable
from w2v_core.vectors import files, parquet, safetensors, word_files
from w2v_core.vectors.parts import DTYPES, Parts
from w2v_core.vectors.terms import whole_number
from w2v_core.vectors.vocabulary import Ids, shown

_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/")
_NAMED = 3
_SAMPLE_BYTES = 1 << 20


class VectorFileNote(UserWarning):
    """Something unusual about a file of vectors that was loaded all the same, and how it was handled."""


class WordDecodeError(UnicodeDecodeError):
    """A word that is not in the file's encoding; the message names the file and a way out. Also a ValueError."""

    def __init__(self, message: str, cause: UnicodeDecodeError) -> None:
        super().__init__(cause.encoding, cause.object, cause.start, cause.end, cause.reason)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Options(NamedTuple):
    """How a file is read.

    limit: at most this many words, from the first. datatype: float32, float16 or float64; None: as stored. no_header: whether
    the first line is already a word, as in GloVe's files; None: detect it. binary: whether it is word2vec's binary format;
    None: detect it. unicode_errors: as in bytes.decode, for words that are not in `encoding` (word2vec.c cuts long words inside
    a character). fvocab: a file of lines "word count". allow_unfinished: accept a last line without a line end, which
    otherwise counts as the sign of a cut file.
    """

    limit: int | None = None
    datatype: npt.DTypeLike | None = None
    no_header: bool | None = None
    binary: bool | None = None
    unicode_errors: str = "strict"
    encoding: str = "utf-8"
    fvocab: str | os.PathLike[str] | None = None
    allow_unfinished: bool = False


def load(path: str | os.PathLike[str], options: Options = Options(), *, verify: bool = False) -> Parts:  # noqa: B008
    """The vectors at `path`. With `verify`, the matrix of a folder is compared with its SHA-256 too.

    Raises FileNotFoundError, and ValueError for a file that is incomplete or holds no vectors; warns with `VectorFileNote`.
    """
    place = _local(os.fspath(path))
    if place.is_dir():
        _refuse_options(options, f"{place}: a folder of vectors")
        return _limited(Parts(*files.load(place, verify=verify)), options)
    files.require_regular(place)
    if place.suffix in (".parquet", ".safetensors"):
        _refuse_options(options, f"{place}: a {place.suffix} file")
    if place.suffix == ".parquet":
        return _different(_limited(parquet.read(place, _limit(options)), options), place)
    if place.suffix == ".safetensors":
        return _different(_limited(safetensors.read(place), options), place)
    return load_word2vec(place, options)


def _refuse_options(options: Options, what: str) -> None:
    """Raises ValueError if options are set that only say how a word2vec or GloVe file is to be read."""
    others = options._replace(limit=None, datatype=None)._asdict()
    if wrong := [f"{name}={value!r}" for name, value in others.items() if value not in (Options._field_defaults[name], False)]:
        raise ValueError(f"{what} has one format, so {', '.join(wrong)} cannot apply: only to word2vec's and GloVe's files")


def _local(address: str) -> Path:
    """The path of the vectors; for an address such as models:/NAME@champion, the path of a local copy.

    The core knows no registry: a package that does provides a function under the entry points `w2v_core.places`.
    Raises FileNotFoundError for a kind of address that no package knows.
    """
    scheme = _ADDRESS.match(address)
    if scheme is None:
        return Path(address)
    from importlib import metadata  # with its parser of e-mail headers, which paths need not wait for

    known = metadata.entry_points(group="w2v_core.places")
    for place in known.select(name=scheme[1]):
        fetch: Callable[[str], Path] = place.load()
        return fetch(address)
    names = ", ".join(sorted({f"{place.name}:/…" for place in known})) or "none (the package dask-word2vec is not installed)"
    raise FileNotFoundError(f"{address}: no such kind of address is known; known are {names}")


def load_word2vec(path: Path, options: Options = Options()) -> Parts:  # noqa: B008
    """The vectors of a word2vec or GloVe file, text or binary, compressed or not. Raises and warns as `load`."""
    limit, name = _limit(options), str(path)
    files.require_regular(path)
    dtype = _dtype(options.datatype) or np.dtype(np.float32)
    try:
        with _open(path) as stream:
            sample = stream.read(_SAMPLE_BYTES)
            header = word_files.read_header(sample, name, options.no_header)
            following = sample[header.offset :]
            binary = _is_binary(following, header, len(sample) < _SAMPLE_BYTES, options.binary, name)
            found = word_files.Found(header.vector_size, dtype, _certain_words(path, header, limit, binary=binary))
            rest = _Rejoined(following, stream)
            if binary:
                word_files.read_binary(cast(BinaryIO, rest), header, found, limit, name)
            else:
                word_files.read_text(cast(BinaryIO, rest), header, found, limit, name, options.allow_unfinished)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(f"{name}: damaged compressed data ({error}); fetch the file again") from None
    if header.words is None and options.no_header is None:
        _note(f"{name}: no first line of words and vector size (as in GloVe's files); {header.vector_size} numbers a word")
    return _finish(found, name, options)


def _is_binary(following: bytes, header: word_files.Header, whole: bool, binary: bool | None, name: str) -> bool:
    if binary and header.words is None:
        raise ValueError(f"{name}: a binary file needs its first line, words and vector size (no_header is for text)")
    if binary is None:
        return header.words is not None and not word_files.looks_like_text(following, header, whole=whole)
    return binary


class _Rejoined:
    """A stream with the bytes that were read from it, to detect its format, put back in front."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int) -> bytes:
        head, self._head = self._head[:size], self._head[size:]
        return head or self._stream.read(size)


def _open(path: Path) -> BinaryIO:
    with open(path, "rb") as file:
        magic = file.read(6)
    opener = next((opener for start, opener in _OPENERS.items() if magic.startswith(start)), None)
    return cast(BinaryIO, opener(path) if opener else open(path, "rb"))


def _certain_words(path: Path, header: word_files.Header, limit: int | None, *, binary: bool) -> int:
    """How many words will be read, if the header says so and the size of the file agrees; 0 if only reading can tell.

    Raises ValueError if a file of that size cannot hold the words that its header promises.
    """
    with open(path, "rb") as file:
        if header.words is None or any(file.read(6).startswith(start) for start in _OPENERS):
            return 0
    words = header.words if limit is None else min(limit, header.words)
    size = path.stat().st_size - header.offset
    least = words * (1 + (4 if binary else 2) * header.vector_size)
    if size < least:
        kind = "binary" if binary else "text"
        raise ValueError(
            f"{path}: its first line promises {header.words:,} words of {header.vector_size:,} numbers, at least {least:,} bytes "
            f"as {kind}, but {size:,} follow; {word_files.CUT}"
        )
    return words


def _finish(found: word_files.Found, name: str, options: Options) -> Parts:
    """The finished parts: words decoded, only the first of equal words kept, counts from `fvocab`; warns of what was found."""
    words, matrix = _decode(found.words, name, options), found.matrix()
    if found.unfinished:
        _note(f"{name}: the last line has no end; if the file was cut, the last number of '{printable(words[-1])}' is wrong")
    if found.spaced:
        spaced = [word.decode(options.encoding, "replace") for word in found.spaced]
        _note(f"{name}: {_count(spaced, 'word holds', 'words hold')} white space: {_named(spaced)}")
    if "" in words:
        _note(f"{name}: the word of row {words.index('') + 1:,} is empty")
    first: dict[str, int] = {}
    for row, word in enumerate(words):
        first.setdefault(word, row)
    if len(first) < len(words):
        twice = [word for row, word in enumerate(words) if first[word] != row]
        said = _count(twice, "word comes again and was", "words come again and were")
        _note(f"{name}: {said} passed over, the first of each is kept: {_named(twice)}")
        words, matrix = list(first), matrix[np.fromiter(first.values(), np.int64, len(first))]
    counts = None if options.fvocab is None else _read_counts(Path(options.fvocab), words, options)
    return Parts(words, matrix, counts, None)


def _different(parts: Parts, place: Path) -> Parts:
    """The parts, whose words must all be different: in these formats, which programs write for programs, others are damage."""
    counted = Counter(parts.words)
    if len(counted) < len(parts.words):
        twice = next(word for word, count in counted.items() if count > 1)
        extra = len(parts.words) - len(counted)
        raise ValueError(f"{place}: words: {extra:,} come twice, first '{printable(twice)}'; give every word once")
    return parts


def _decode(raw: list[bytes], name: str, options: Options) -> list[str]:
    try:
        return [word.decode(options.encoding, options.unicode_errors) for word in raw]
    except UnicodeDecodeError as error:
        index = raw.index(error.object)
        way_out = "read it with unicode_errors='backslashreplace' to keep its bytes visible"
        if any(byte < 0x20 for byte in error.object):
            way_out = (
                "it holds control characters, as numbers do: the word before it may hold a space, or the first line is wrong; "
                "export the vectors as text"
            )
        raise WordDecodeError(
            f"{name}: word {index + 1:,} is not {options.encoding.upper().replace('UTF8', 'UTF-8')}: "
            f"'{printable(error.object.decode('latin-1'))}'; {way_out}",
            error,
        ) from None


def _read_counts(path: Path, words: list[str], options: Options) -> Ids:
    """The counts, int64 (V,), from a file of lines "word count"; a word that is missing there gets 0 and is reported."""
    counts: dict[str, int] = {}
    with _open(path) as stream:
        for number, line in enumerate(stream, 1):
            word, _, count = line.decode(options.encoding, options.unicode_errors).strip().rpartition(" ")
            if not count.isdecimal() and line.strip():
                raise ValueError(f"{path}: line {number:,}: expected a word and its count, found {shown(line)}")
            counts[word] = int(count or 0)
    missing = [word for word in words if word not in counts]
    if missing:
        _note(f"{path}: no count for {len(missing):,} of {len(words):,} words, first {_named(missing)}; they count 0")
    return np.array([counts.get(word, 0) for word in words], np.int64)


def _limited(parts: Parts, options: Options) -> Parts:
    limit, dtype = _limit(options), _dtype(options.datatype)
    counts, context = (None if array is None else array[:limit] for array in (parts.counts, parts.context))
    matrix = parts.matrix[:limit]
    if dtype is not None:
        matrix = matrix.astype(dtype, copy=False)
        context = None if context is None else context.astype(dtype, copy=False)
    return Parts(parts.words[:limit], matrix, counts, context)


def _limit(options: Options) -> int | None:
    return None if options.limit is None else whole_number(options.limit, "limit", 1)


def _dtype(datatype: npt.DTypeLike | None) -> np.dtype[Any] | None:
    if datatype is None:
        return None
    dtype: np.dtype[Any] = np.dtype(datatype)
    if dtype.name not in DTYPES:
        raise ValueError(f"datatype: expected {', '.join(DTYPES)}, found {dtype.name}")
    return dtype


def _count(found: list[str], one: str, more: str) -> str:
    return f"{len(found):,} {one if len(found) == 1 else more}"


def _named(words: list[str]) -> str:
    return ", ".join(f"'{printable(word)}'" for word in words[:_NAMED]) + (" …" if len(words) > _NAMED else "")


def _note(text: str) -> None:
    warnings.warn(text, VectorFileNote, stacklevel=4)
