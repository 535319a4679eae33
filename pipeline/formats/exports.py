"""Word vectors in the formats of other programs.

    word2vec-text    vectors.txt                      gensim, fastText, spaCy and most others; large and slow to read
    word2vec-bin     vectors.bin                      the same programs, half the size, thirty times quicker
    npy              vectors.npy, words.txt, …        NumPy; what this project itself reads, see w2v_core.vector_files
    parquet          vectors.parquet                  DuckDB, Polars, Spark: word string, count int64, vector list<float32>[D]
    safetensors      model.safetensors, vocab.json    Hugging Face: tensor `embeddings` (V, D), word → row
    tensorboard      tensors.tsv, metadata.tsv        the embedding projector; the most frequent words only

Every file appears complete or not at all, and the same vectors give the same bytes. A word that a format cannot hold is never
dropped or changed in silence: either the export is refused, naming the first few, before anything is written, or the word
is written escaped and a file `<name>.escaped.json` lists what was written for what. By default every format refuses, except
tensorboard: there the words are labels for people to read.
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
from pipeline.formats.word2vec import UNWRITABLE, iterate_number_lines, write_binary, write_text
from w2v_core.text.printable import printable
from w2v_core.vectors.files import row_blocks
from w2v_core.vectors.word_vectors import WordVectors

__all__ = ["FORMATS", "TENSORBOARD_WORDS", "export_vectors"]

Policy = Literal["refuse", "escape"]

TENSORBOARD_WORDS = 10_000
"""The projector runs in a browser; more points than this make it crawl."""

_BLOCK_ROWS = 8192
_NAMED = 5


@dataclass(frozen=True)
class _Format:
    """How a format is written, and which words it cannot hold: those in which `unwritable` finds something."""

    write: Callable[[WordVectors, Sequence[str], Path], list[Path]]
    unwritable: re.Pattern[str]
    lacks: str
    policy: Policy = "refuse"


def export_vectors(
    vectors: WordVectors,
    formats: Sequence[str],
    directory: Path,
    *,
    on_unwritable: Policy | None = None,
    tensorboard_words: int = TENSORBOARD_WORDS,
) -> dict[str, list[Path]]:
    """{format: files written}. `on_unwritable` None: each format's own way, see this file's docstring.

    Raises ValueError for an unknown format or words that a format cannot hold, before writing anything; StorageError.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ValueError(f"formats: expected some of {', '.join(FORMATS)}; found {', '.join(map(repr, unknown))}")
    if tensorboard_words < 1:
        raise ValueError(f"tensorboard_words: expected at least 1, found {tensorboard_words}")
    wanted = dict.fromkeys(formats)
    words = {
        name: _writable(vectors.words[: tensorboard_words if name == "tensorboard" else None], name, on_unwritable)
        for name in wanted
    }
    written: dict[str, list[Path]] = {}
    for name in wanted:
        written[name] = FORMATS[name].write(vectors, words[name], directory)
        escaped = [{"word": word, "written": new} for word, new in zip(vectors.words, words[name], strict=False) if word != new]
        if escaped:
            sidecar = directory / f"{written[name][-1].name}.escaped.json"
            store.write_bytes(sidecar, json.dumps(escaped, indent=1).encode("ascii") + b"\n")
            written[name].append(sidecar)
    return written


# ── words that a format cannot hold ──────────────────────────────────────────────────────────────────────────────────


def _writable(words: Sequence[str], name: str, policy: Policy | None) -> Sequence[str]:
    """The words as the format will hold them; raises ValueError if it cannot, or if two words would become one."""
    form = FORMATS[name]
    bad = [word_id for word_id, word in enumerate(words) if form.unwritable.search(word)]
    if not bad:
        return words
    if (policy or form.policy) == "refuse":
        raise ValueError(
            f"{name} cannot hold {len(bad):,} of {len(words):,} words ({form.lacks}): {_named([words[i] for i in bad])}; "
            "export npy, which holds every word, or escape them (on_unwritable='escape')"
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
        raise ValueError(f"{name}: {len(clashes):,} words would, escaped, be another word: {_named(clashes)}; export npy")
    return escaped


def _escape(found: re.Match[str]) -> str:
    """Code points as \\uXXXX; the empty word, which has none, as \\empty."""
    return "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}" for c in found[0]) or "\\empty"


def _named(words: Sequence[str]) -> str:
    shown = ", ".join(f"'{printable(word)}'" for word in words[:_NAMED])
    return shown + (" …" if len(words) > _NAMED else "")


# ── one function a format: (vectors, words as they are written, directory) → files ───────────────────────────────────


def _write_word2vec_text(vectors: WordVectors, words: Sequence[str], directory: Path) -> list[Path]:
    return [_write(directory / "vectors.txt", lambda file: write_text(file, words, vectors.matrix))]


def _write_word2vec_bin(vectors: WordVectors, words: Sequence[str], directory: Path) -> list[Path]:
    return [_write(directory / "vectors.bin", lambda file: write_binary(file, words, vectors.matrix))]


def _write_npy(vectors: WordVectors, words: Sequence[str], directory: Path) -> list[Path]:
    return vectors.save(directory)


def _write_parquet(vectors: WordVectors, words: Sequence[str], directory: Path) -> list[Path]:
    """A row group every few thousand rows; `count` is null if the counts are not known."""
    import pyarrow as pa

    size = vectors.vector_size
    fields: Any = [("word", pa.string()), ("count", pa.int64()), ("vector", pa.list_(pa.float32(), size))]
    schema = pa.schema(fields)

    def write(file: Any) -> None:
        # Vectors hardly repeat a number: a dictionary of them would be built and thrown away.
        with store.parquet_writer(file, schema, use_dictionary=False) as writer:
            for rows in row_blocks(len(words), _BLOCK_ROWS):
                numbers = pa.array(np.ascontiguousarray(vectors.matrix[rows]).reshape(-1))
                counts = pa.nulls(len(words[rows]), pa.int64()) if vectors.counts is None else pa.array(vectors.counts[rows])
                columns = [pa.array(words[rows], pa.string()), counts, pa.FixedSizeListArray.from_arrays(numbers, size)]
                writer.write_table(pa.table(columns, schema=schema))

    return [_write(directory / "vectors.parquet", write)]


def _write_safetensors(vectors: WordVectors, words: Sequence[str], directory: Path) -> list[Path]:
    """Written by hand, the format being three parts: header length (8 bytes), JSON header, numbers."""
    tensor = {"dtype": "F32", "shape": list(vectors.matrix.shape), "data_offsets": [0, vectors.matrix.size * 4]}
    header = json.dumps({"embeddings": tensor}).encode("ascii")
    header += b" " * (-len(header) % 8)  # the numbers begin at a multiple of 8, so that a reader can map them

    def write(file: Any) -> None:
        file.write(len(header).to_bytes(8, "little") + header)
        for rows in row_blocks(len(words), _BLOCK_ROWS):
            file.write(vectors.matrix[rows].astype("<f4").tobytes())

    vocabulary = json.dumps(dict(zip(words, range(len(words)), strict=True)), ensure_ascii=False).encode()
    return [_write(directory / "model.safetensors", write), _write(directory / "vocab.json", lambda file: file.write(vocabulary))]


def _write_tensorboard(vectors: WordVectors, words: Sequence[str], directory: Path) -> list[Path]:
    """The projector takes a first line for a header only if there are several columns; here there is one and none."""

    def write(file: Any) -> None:
        for lines in iterate_number_lines(vectors.matrix[: len(words)], "\t"):
            file.write(b"\n".join(lines) + b"\n")

    labels = "".join(f"{word}\n" for word in words).encode()
    return [_write(directory / "tensors.tsv", write), _write(directory / "metadata.tsv", lambda file: file.write(labels))]


def _write(path: Path, write: Callable[[Any], None]) -> Path:
    store.write_file(path, write)
    return path


_SURROGATES = re.compile(r"[\ud800-\udfff]")
_LABEL_BREAKS = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|\A\s*\Z|\A\s+|\s+\Z")
_NO_SPACE = "it has no way to write white space, NUL, lone surrogates or an empty word"
_NO_SURROGATE = "it holds UTF-8, which has no lone surrogates"

FORMATS: dict[str, _Format] = {
    "word2vec-text": _Format(_write_word2vec_text, UNWRITABLE, _NO_SPACE),
    "word2vec-bin": _Format(_write_word2vec_bin, UNWRITABLE, _NO_SPACE),
    "npy": _Format(_write_npy, re.compile(r"(?!)"), "nothing"),
    "parquet": _Format(_write_parquet, _SURROGATES, _NO_SURROGATE),
    "safetensors": _Format(_write_safetensors, _SURROGATES, _NO_SURROGATE),
    "tensorboard": _Format(_write_tensorboard, _LABEL_BREAKS, "a label is a line and shows something", "escape"),
}
"""Every format by name; the configuration's `publish.formats` are these."""
