"""Word vectors in the formats of other programs.

    word2vec-text    vectors.txt                      gensim, fastText, spaCy and most others; without header, GloVe's
    word2vec-bin     vectors.bin                      the same programs, half the size, thirty times quicker
    npy              vectors.npy, words.txt, …        NumPy; this project's own format, see w2v_core.vectors.files
    parquet          vectors.parquet                  DuckDB, Polars, Spark: word string, count int64, vector list<float32>[D]
    safetensors      model.safetensors, vocab.json    Hugging Face: tensor `embeddings` (V, D), word → row
    tensorboard      tensors.tsv, metadata.tsv, …     the embedding projector, also as a log folder; the most frequent words only

Each format takes all words or the first N, float32 or float16 (word2vec-bin: float32 only), and counts if they are known: npy,
parquet and tensorboard always include them, the others on request (as word2vec's vocab.txt; as a tensor in safetensors).

Every file appears complete or not at all, and the same vectors give the same bytes. A word that a format cannot hold is never
silently dropped or changed: either the export is refused before anything is written, naming the first few such words, or the
word is written escaped and `<name>.escaped.json` lists the replacements. By default every format refuses except tensorboard,
where words are only labels for people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline import store
from pipeline.errors import counted
from pipeline.formats.word2vec import UNWRITABLE, iterate_number_lines, write_binary, write_text
from w2v_core.text.printable import printable
from w2v_core.vectors import files
from w2v_core.vectors.files import row_blocks
from w2v_core.vectors.word_vectors import WordVectors

__all__ = ["FORMATS", "TENSORBOARD_WORDS", "export_vectors", "format_of_file"]

OnUnwritable = Literal["refuse", "escape"]

TENSORBOARD_WORDS = 10_000
"""The projector runs in a browser; more points than this make it crawl."""

_BLOCK_ROWS = 8192
_NAMED = 5


@dataclass(frozen=True)
class Wanted:
    """Which of the vectors are exported, and how."""

    words: int | None = None
    """Only this many of the first, most frequent words; None for all."""
    dtype: Literal["float32", "float16"] = "float32"
    header: bool = True
    """False: word2vec-text without its first line, like GloVe's files."""
    counts: bool = False
    """True: with the words' counts, also in formats that otherwise have none."""
    on_unwritable: OnUnwritable | None = None
    """None: each format's default, see this module's docstring."""
    tensorboard_words: int = TENSORBOARD_WORDS


@dataclass(frozen=True)
class _Format:
    """How a format is written, and which words it cannot hold: those in which `unwritable` matches."""

    write: Callable[[WordVectors, Sequence[str], Path, Wanted], list[store.Part]]
    unwritable: re.Pattern[str]
    lacks: str
    policy: OnUnwritable = "refuse"


def export_vectors(
    vectors: WordVectors, formats: Sequence[str], directory: Path, wanted: Wanted = Wanted()
) -> dict[str, list[Path]]:
    """{format: files written}; raises what `export_parts` raises."""
    parts = export_parts(vectors, formats, directory, wanted)
    return {name: [directory / part.name for part in found] for name, found in parts.items()}


def export_parts(
    vectors: WordVectors, formats: Sequence[str], directory: Path, wanted: Wanted = Wanted()
) -> dict[str, list[store.Part]]:
    """{format: files written, with their checksums}.

    Raises ValueError before writing anything for an unknown format, for what a format cannot do, and for words that it cannot
    hold; StorageError when writing fails.
    """
    _check(vectors, formats, wanted)
    vectors = _narrowed(vectors, wanted)
    names = dict.fromkeys(formats)
    words = {
        name: _writable(vectors.words[: wanted.tensorboard_words if name == "tensorboard" else None], name, wanted.on_unwritable)
        for name in names
    }
    written: dict[str, list[store.Part]] = {}
    for name in names:
        written[name] = FORMATS[name].write(vectors, words[name], directory, wanted)
        escaped = [{"word": word, "written": new} for word, new in zip(vectors.words, words[name], strict=False) if word != new]
        if escaped:
            sidecar = directory / f"{written[name][-1].name}.escaped.json"
            written[name].append(store.write_bytes(sidecar, json.dumps(escaped, indent=1).encode("ascii") + b"\n"))
    return written


def format_of_file(name: str) -> str | None:
    """The format of a file of this name, by its ending; None for the name of a folder. Raises ValueError for an ending of a
    format that is not written, or not as one file."""
    ending = Path(name).suffix.lower()
    if ending in ONE_FILE:
        return ONE_FILE[ending]
    known = f"a file ends in {', '.join(ONE_FILE)}"
    if ending in SEVERAL_FILES:
        form = SEVERAL_FILES[ending]
        raise ValueError(f"{name}: {form} is several files, so give a folder for them, with -f {form}; {known}")
    if ending in COMPRESSED:
        raise ValueError(f"{name}: exports are not compressed; export {name.removesuffix(Path(name).suffix)} and compress that")
    if ending in NOT_WRITTEN:
        raise ValueError(f"{name}: no export writes {ending} files; {known}, any other name is that of a folder")
    return None


def _check(vectors: WordVectors, formats: Sequence[str], wanted: Wanted) -> None:
    """Raises ValueError for a format that is unknown or cannot do what is wanted."""
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ValueError(f"formats: expected some of {', '.join(FORMATS)}; found {', '.join(map(repr, unknown))}")
    for key in ("words", "tensorboard_words"):
        if (number := getattr(wanted, key)) is not None and number < 1:
            raise ValueError(f"{key}: expected at least 1, found {number}")
    if wanted.dtype != "float32" and "word2vec-bin" in formats:
        raise ValueError("float16: word2vec-bin holds float32 only; export npy, safetensors or parquet")
    if not wanted.header and "word2vec-text" not in formats:
        raise ValueError("no header: only word2vec-text can do without (then it is GloVe's format); add -f word2vec-text")
    if not wanted.header and "word2vec-bin" in formats:
        raise ValueError("no header: word2vec-bin cannot be read without one; export word2vec-text alone")
    if wanted.counts and vectors.counts is None:
        raise ValueError("counts: these vectors came without counts (word2vec's files have none)")


def _narrowed(vectors: WordVectors, wanted: Wanted) -> WordVectors:
    """The first words, in the dtype wanted. Raises ValueError for a vector that float16 cannot hold."""
    words, matrix = vectors.words[: wanted.words], vectors.matrix[: wanted.words]
    counts = None if vectors.counts is None else vectors.counts[: wanted.words]
    if matrix.dtype.name != wanted.dtype:
        narrow = np.empty(matrix.shape, wanted.dtype)
        for rows in row_blocks(len(words), _BLOCK_ROWS):
            with np.errstate(over="ignore"):
                narrow[rows] = matrix[rows]
            beyond = np.flatnonzero(np.isinf(narrow[rows]).any(axis=1) & np.isfinite(matrix[rows]).all(axis=1))
            if len(beyond):
                word = printable(words[rows.start + int(beyond[0])])
                raise ValueError(f"{wanted.dtype}: the vector of '{word}' holds a number beyond {np.finfo(narrow.dtype).max:,}")
        matrix = narrow
    return WordVectors(words, matrix, counts)


# ── words that a format cannot hold ──────────────────────────────────────────────────────────────────────────────────


def _writable(words: Sequence[str], name: str, policy: OnUnwritable | None) -> Sequence[str]:
    """The words as the format will hold them; raises ValueError if it cannot, or if two words would become one."""
    form = FORMATS[name]
    bad = [word_id for word_id, found in enumerate(map(form.unwritable.search, words)) if found]
    if not bad:
        return words
    if (policy or form.policy) == "refuse":
        raise ValueError(
            f"{name} cannot hold {len(bad):,} of {len(words):,} words ({form.lacks}): {_named([words[i] for i in bad])}; "
            "export npy, which holds every word, or escape them (on_unwritable='escape', "
            "on the command line --on-unwritable escape)"
        )
    escaped = list(words)
    for word_id in bad:
        escaped[word_id] = form.unwritable.sub(_escape, words[word_id])
    if len(set(escaped)) < len(escaped):
        seen = set(words).difference(words[word_id] for word_id in bad)
        clashes = []
        for word_id in bad:
            if escaped[word_id] in seen:
                clashes.append(words[word_id])
            seen.add(escaped[word_id])
        clashing = counted(len(clashes), "words|word")
        raise ValueError(f"{name}: {clashing} would, escaped, be another word: {_named(clashes)}; export npy")
    return escaped


def _escape(found: re.Match[str]) -> str:
    """The code points as \\uXXXX; the empty word as \\empty."""
    return "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}" for c in found[0]) or "\\empty"


def _named(words: Sequence[str]) -> str:
    shown = ", ".join(f"'{printable(word)}'" for word in words[:_NAMED])
    return shown + (" …" if len(words) > _NAMED else "")


# ── one function per format: (vectors, words as they are written, directory) → files ─────────────────────────────────


def _write_word2vec_text(vectors: WordVectors, words: Sequence[str], directory: Path, wanted: Wanted) -> list[store.Part]:
    part = store.write_file(directory / "vectors.txt", lambda file: write_text(file, words, vectors.matrix, header=wanted.header))
    return [part, *_write_counts(vectors, words, directory, wanted)]


def _write_word2vec_bin(vectors: WordVectors, words: Sequence[str], directory: Path, wanted: Wanted) -> list[store.Part]:
    part = store.write_file(directory / "vectors.bin", lambda file: write_binary(file, words, vectors.matrix))
    return [part, *_write_counts(vectors, words, directory, wanted)]


def _write_counts(vectors: WordVectors, words: Sequence[str], directory: Path, wanted: Wanted) -> list[store.Part]:
    """word2vec's own vocabulary file, lines "word count": the `fvocab` of gensim and `WordVectors.load_word2vec_format`."""
    if not wanted.counts or vectors.counts is None:
        return []
    lines = "".join(f"{word} {count}\n" for word, count in zip(words, vectors.counts.tolist(), strict=True))
    return [store.write_file(directory / "vocab.txt", lambda file: file.write(lines.encode()))]


def _write_npy(vectors: WordVectors, words: Sequence[str], directory: Path, wanted: Wanted) -> list[store.Part]:
    written = files.save(directory, vectors.words, vectors.matrix, vectors.counts, vectors.context)
    return [store.Part(name=file.name, bytes=file.bytes, sha256=file.sha256) for file in written]


def _write_parquet(vectors: WordVectors, words: Sequence[str], directory: Path, wanted: Wanted) -> list[store.Part]:
    """One row group per 8,192 rows; `count` is null if the counts are unknown."""
    import pyarrow as pa

    size, kind = vectors.vector_size, pa.from_numpy_dtype(vectors.matrix.dtype)
    fields: Any = [
        ("word", pa.string()),
        ("count", pa.int64()),
        ("vector", pa.list_(kind, size)),
    ]
    schema = pa.schema(fields)

    def write(file: Any) -> None:
        # Vectors hardly repeat a number, so a dictionary would be built and thrown away.
        with store.parquet_writer(file, schema, use_dictionary=False) as writer:
            for rows in row_blocks(len(words), _BLOCK_ROWS):
                numbers = pa.array(np.ascontiguousarray(vectors.matrix[rows]).reshape(-1))
                counts = pa.nulls(len(words[rows]), pa.int64()) if vectors.counts is None else pa.array(vectors.counts[rows])
                columns = [pa.array(words[rows], pa.string()), counts, pa.FixedSizeListArray.from_arrays(numbers, size)]
                writer.write_table(pa.table(columns, schema=schema))

    return [store.write_file(directory / "vectors.parquet", write)]


def _write_safetensors(vectors: WordVectors, words: Sequence[str], directory: Path, wanted: Wanted) -> list[store.Part]:
    """Written by hand, since the format has only three parts: header length (8 bytes), JSON header, numbers."""
    size = vectors.matrix.size * vectors.matrix.dtype.itemsize
    names = {"float32": "F32", "float16": "F16"}
    tensors = {
        "embeddings": {"dtype": names[vectors.matrix.dtype.name], "shape": list(vectors.matrix.shape), "data_offsets": [0, size]}
    }
    counts = vectors.counts if wanted.counts else None
    if counts is not None:
        tensors["counts"] = {"dtype": "I64", "shape": [len(counts)], "data_offsets": [size, size + 8 * len(counts)]}
    header = json.dumps(tensors).encode("ascii")
    header += b" " * (-len(header) % 8)  # the numbers begin at a multiple of 8, so that a reader can map them

    def write(file: Any) -> None:
        file.write(len(header).to_bytes(8, "little") + header)
        for rows in row_blocks(len(words), _BLOCK_ROWS):
            file.write(vectors.matrix[rows].astype(vectors.matrix.dtype.newbyteorder("<")).tobytes())
        if counts is not None:
            file.write(counts.astype("<i8").tobytes())

    vocabulary = json.dumps(dict(zip(words, range(len(words)), strict=True)), ensure_ascii=False).encode()
    return [
        store.write_file(directory / "model.safetensors", write),
        store.write_file(directory / "vocab.json", lambda file: file.write(vocabulary)),
    ]


_PROJECTOR = """embeddings {
  tensor_name: "word vectors"
  tensor_path: "tensors.tsv"
  metadata_path: "metadata.tsv"
}
"""
"""Makes the folder a log folder, so that `tensorboard --logdir` shows it and nothing has to be uploaded."""


def _write_tensorboard(vectors: WordVectors, words: Sequence[str], directory: Path, wanted: Wanted) -> list[store.Part]:
    """The projector takes the first line of the labels for a header if and only if there are several columns."""

    def write(file: Any) -> None:
        for lines in iterate_number_lines(vectors.matrix[: len(words)], "\t"):
            file.write(b"\n".join(lines) + b"\n")

    if vectors.counts is None:
        labels = "".join(f"{word}\n" for word in words)
    else:
        rows = zip(words, vectors.counts[: len(words)].tolist(), strict=True)
        labels = "word\tcount\n" + "".join(f"{word}\t{count}\n" for word, count in rows)
    return [
        store.write_file(directory / "tensors.tsv", write),
        store.write_file(directory / "projector_config.pbtxt", lambda file: file.write(_PROJECTOR.encode())),
        store.write_file(directory / "metadata.tsv", lambda file: file.write(labels.encode())),
    ]


_SURROGATES = re.compile(r"[\ud800-\udfff]")
_LABEL_BREAKS = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|\A\s*\Z|\A\s+|\s+\Z")
_NO_SPACE = "it has no way to write white space, NUL, lone surrogates or an empty word"
_NO_SURROGATE = "it holds UTF-8, which has no lone surrogates"

ONE_FILE = {".vec": "word2vec-text", ".txt": "word2vec-text", ".bin": "word2vec-bin", ".parquet": "parquet"}
"""The formats that are a single file, by their endings."""
SEVERAL_FILES = {".npy": "npy", ".npz": "npy", ".safetensors": "safetensors", ".tsv": "tensorboard"}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
NOT_WRITTEN = (".kv", ".model", ".wv", ".glove", ".pkl", ".pickle", ".csv", ".json", ".jsonl", ".h5", ".magnitude", ".arrow")
FORMATS: dict[str, _Format] = {
    "word2vec-text": _Format(_write_word2vec_text, UNWRITABLE, _NO_SPACE),
    "word2vec-bin": _Format(_write_word2vec_bin, UNWRITABLE, _NO_SPACE),
    "npy": _Format(_write_npy, re.compile(r"(?!)"), "nothing"),
    "parquet": _Format(_write_parquet, _SURROGATES, _NO_SURROGATE),
    "safetensors": _Format(_write_safetensors, _SURROGATES, _NO_SURROGATE),
    "tensorboard": _Format(_write_tensorboard, _LABEL_BREAKS, "a label is a line and shows something", "escape"),
}
"""Every format by name; these are the values of the configuration's `publish.formats`."""
