"""Word vectors on disk: what `WordVectors.save` writes and `WordVectors.load` maps into memory.

    <directory>/vectors.npy    float32 (or float16, float64) (V, D), C order; mapped into memory, so loading does not copy it
    <directory>/words.txt      the V words in id order, UTF-8, one per line
    <directory>/counts.npy     int64 (V,); absent if the counts are not known
    <directory>/context.npy    the output vectors, like vectors.npy; absent if there are none
    <directory>/meta.json      written last: format version, shape, dtype, and size and SHA-256 of vectors, words and counts

`words.txt` can hold any Python string: a newline inside a word is written as the byte FF, which UTF-8 never uses, and a
lone surrogate as the three bytes that UTF-8 would give it. A naive reader of such a file stops with a decoding error
instead of shifting every later word by a line.

Reading trusts nothing: sizes, dtypes and shapes are compared before anything is allocated, and no pickle is ever opened.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

FORMAT_VERSION = 1
MATRIX, WORDS, COUNTS, META = "vectors.npy", "words.txt", "counts.npy", "meta.json"
CONTEXT = "context.npy"
_DTYPES = {"float32": "<f4", "float16": "<f2", "float64": "<f8"}
"""The dtypes that vectors.npy may have: their names in meta.json and in the .npy header."""

_BLOCK_ROWS = 1024
_AGAIN = "the folder is damaged: copy or train it again"


class RowSource(Protocol):
    """An array, or something too large for memory that can be read like one, a slice of rows at a time."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]: ...


class Written(NamedTuple):
    """A file that is complete and on disk."""

    name: str
    bytes: int
    sha256: str


def save(
    folder: Path, words: Sequence[str], matrix: RowSource, counts: npt.NDArray[Any] | None, context: RowSource | None = None
) -> list[Written]:
    """Writes vectors to a folder, which is created if needed; returns the files written.

    Each file appears complete or not at all, `meta.json` last. The same vectors give the same bytes. `matrix` and `context`
    are read a block of rows at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [_write(folder / MATRIX, npy_chunks(matrix))]
    if context is None:
        (folder / CONTEXT).unlink(missing_ok=True)  # one left by other vectors would be taken for theirs
    else:
        written.append(_write(folder / CONTEXT, npy_chunks(context)))
    return [*written, *save_words(folder, words, written[0], matrix.shape[1], counts, matrix.dtype.name)]


def save_words(
    folder: Path,
    words: Sequence[str],
    matrix: Written,
    vector_size: int,
    counts: npt.NDArray[Any] | None,
    dtype: str = "float32",
) -> list[Written]:
    """Writes the other files beside a matrix (V, vector_size) that is already in the folder; returns the files written."""
    chunks: dict[str, Iterable[bytes]] = {WORDS: _word_chunks(words)}
    if counts is not None:
        chunks[COUNTS] = npy_chunks(counts)
    written = [_write(folder / name, pieces) for name, pieces in chunks.items()]
    files = {file.name: {"bytes": file.bytes, "sha256": file.sha256} for file in (matrix, *written)}
    meta = {"format_version": FORMAT_VERSION, "shape": [len(words), vector_size], "dtype": dtype, "files": files}
    return [*written, _write(folder / META, [json.dumps(meta, indent=1).encode() + b"\n"])]


class Loaded(NamedTuple):
    """The content of a folder of vectors; the matrices are mapped from disk."""

    words: list[str]
    matrix: npt.NDArray[Any]
    counts: npt.NDArray[Any] | None
    context: npt.NDArray[Any] | None


def load(folder: Path, *, verify: bool) -> Loaded:
    """The vectors that `save` or training left in a folder.

    The SHA-256 of words and counts is always compared, that of the matrix if `verify`. Raises FileNotFoundError if there are
    none, ValueError for files that are damaged.
    """
    shape, dtype, files = _read_meta(folder)
    for name, expected in files.items():
        _check_file(folder / name, expected, content=verify or name != MATRIX)
    matrix = _map_npy(folder / MATRIX, dtype, shape)
    words = _parse_words(folder / WORDS)
    if len(words) != shape[0]:
        raise ValueError(f"{folder / WORDS}: expected {shape[0]:,} words, found {len(words):,}; {_AGAIN}")
    counts = np.array(_map_npy(folder / COUNTS, "<i8", shape[:1])) if COUNTS in files else None
    context = _map_npy(folder / CONTEXT, dtype, shape) if (folder / CONTEXT).exists() else None
    return Loaded(words, matrix, counts, context)


def row_blocks(rows: int, at_once: int) -> Iterator[slice]:
    """Consecutive slices that cover `rows` rows, `at_once` rows each; the last one may be shorter."""
    return (slice(first, min(first + at_once, rows)) for first in range(0, rows, at_once))


def npy_chunks(array: RowSource) -> Iterator[bytes]:
    """The bytes of a .npy file, one block of rows at a time."""
    header = io.BytesIO()
    dtype = array.dtype.newbyteorder("<")
    np.lib.format.write_array_header_1_0(header, {"descr": dtype.str, "fortran_order": False, "shape": array.shape})
    yield header.getvalue()
    for rows in row_blocks(len(array), _BLOCK_ROWS):
        yield array[rows].astype(dtype, copy=False).tobytes()


def _word_chunks(words: Sequence[str]) -> Iterator[bytes]:
    for rows in row_blocks(len(words), _BLOCK_ROWS):
        lines = "\n".join([*words[rows], ""])
        if lines.count("\n") > rows.stop - rows.start:
            yield b"".join(word.encode("utf-8", "surrogatepass").replace(b"\n", b"\xff") + b"\n" for word in words[rows])
        else:
            yield lines.encode("utf-8", "surrogatepass")


def _parse_words(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
        if b"\xff" in data:
            lines = data.split(b"\n")
            return [b"\n".join(line.split(b"\xff")).decode("utf-8", "surrogatepass") for line in lines[:-1]]
        return data.decode("utf-8", "surrogatepass").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not the UTF-8 that was written (byte {error.start:,}); {_AGAIN}") from None


def _write(path: Path, chunks: Iterable[bytes]) -> Written:
    """Writes a file that appears under `path` complete or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    digest, size = hashlib.sha256(), 0
    try:
        with open(temporary, "xb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return Written(path.name, size, digest.hexdigest())


def _sync_directory(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut, and with it the order in which the files appeared."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_regular(path: Path) -> None:
    """Raises ValueError for a FIFO, a device or a socket, which could be read for ever; does nothing if there is no file."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"{path}: not a regular file; give a file or a folder of vectors")


def _read_meta(folder: Path) -> tuple[tuple[int, int], str, dict[str, dict[str, Any]]]:
    path = folder / META
    require_regular(path)
    try:
        meta = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, f"no word vectors here ({META} is missing)", str(path)) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not the JSON that was written ({error}); {_AGAIN}") from None
    if not isinstance(meta, dict) or meta.get("format_version") != FORMAT_VERSION:
        found = meta.get("format_version") if isinstance(meta, dict) else meta
        raise ValueError(f"{path}: expected format_version {FORMAT_VERSION}, found {found!r}; use the version that wrote it")
    shape, files = meta.get("shape"), meta.get("files")
    if not (isinstance(shape, list) and len(shape) == 2 and all(isinstance(size, int) and size > 0 for size in shape)):
        raise ValueError(f"{path}: expected shape [words, vector size], found {shape!r}; {_AGAIN}")
    if not (isinstance(files, dict) and {MATRIX, WORDS} <= files.keys() <= {MATRIX, WORDS, COUNTS}):
        raise ValueError(f"{path}: expected files {MATRIX}, {WORDS} and at most {COUNTS}, found {files!r}; {_AGAIN}")
    if (dtype := meta.get("dtype")) not in _DTYPES:
        raise ValueError(f"{path}: expected dtype {', '.join(_DTYPES)}, found {dtype!r}; {_AGAIN}")
    return (shape[0], shape[1]), _DTYPES[dtype], files


def _check_file(path: Path, expected: Any, *, content: bool) -> None:
    size = path.stat().st_size
    if not isinstance(expected, dict) or size != expected.get("bytes"):
        raise ValueError(f"{path}: {size:,} bytes, but {META} says {expected!r}; {_AGAIN}")
    if content:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected.get("sha256"):
            raise ValueError(f"{path}: its content changed (SHA-256 differs from {META}); {_AGAIN}")


def _map_npy(path: Path, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    with open(path, "rb") as file:
        try:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("another format version")
            found_shape, fortran, found_dtype = np.lib.format.read_array_header_1_0(file)
        except ValueError as error:
            raise ValueError(f"{path}: no .npy header ({error}); {_AGAIN}") from None
        offset = file.tell()
    if found_dtype.newbyteorder("<").str != dtype or found_shape != shape or fortran:
        order = "Fortran" if fortran else "C"
        found = f"{found_dtype.str} of shape {found_shape} in {order} order"
        raise ValueError(f"{path}: expected {dtype} of shape {shape} in C order, found {found}; {_AGAIN}")
    expected, size = offset + int(np.dtype(dtype).itemsize) * int(np.prod(shape, dtype=object)), path.stat().st_size
    if size != expected:
        raise ValueError(f"{path}: expected {expected:,} bytes, found {size:,}; {_AGAIN}")
    mapped = np.memmap(path, dtype=found_dtype, mode="r", offset=offset, shape=shape)
    return mapped if found_dtype.str == dtype else mapped.astype(dtype)
