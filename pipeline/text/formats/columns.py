"""The texts of a column of Parquet or Arrow IPC, as bytes, in memory that is bounded by bytes and not by rows: a few megabytes
and the largest page, which is the least of a Parquet file that can be read (pyarrow writes 1,024 rows to one, however long).

Read is what pyarrow reads: strings and binary of every width (binary is UTF-8), views, dictionaries, null columns, fields of
structs by a dotted path, and lists of strings. Bytes that are not UTF-8 are no damage: they are repaired and counted as in
every other format.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from pipeline.errors import DataError, printable
from pipeline.options.storage import Storage
from pipeline.storage.addresses import is_address
from pipeline.text.formats.records import RecordBook
from pipeline.text.losses import READ
from pipeline.text.sources import open_source

if TYPE_CHECKING:
    import pyarrow as pa

SLICE_BYTES = 4 << 20
_MOST_ROWS = 4096
_BUFFER_BYTES = 1 << 20


def parquet_texts(file: BinaryIO, groups: range, field: str, path: str, book: RecordBook) -> Iterator[bytes]:
    """The texts of the row groups `groups`, a newline behind each; raises DataError for damage and for a missing column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(
            pa.PythonFile(file, "r"), page_checksum_verification=True, buffer_size=_BUFFER_BYTES, pre_buffer=False
        ) as parquet:
            column, steps = _find(parquet.schema_arrow, field, path)
            prefix = ".".join([column, *steps])
            plain = not steps and _is_text(parquet.schema_arrow.field(column).type)
            repeats = plain and all(_repeats(parquet.metadata.row_group(group), prefix) for group in groups)
        # Values that repeat lie in a dictionary; decoded, a megabyte would become a megabyte for every row.
        with pq.ParquetFile(
            pa.PythonFile(file, "r"), page_checksum_verification=True, buffer_size=_BUFFER_BYTES, pre_buffer=False,
            read_dictionary=[prefix] if repeats else None,
        ) as parquet:  # fmt: skip
            for group in groups:
                rows = _rows_at_a_time(parquet.metadata.row_group(group), prefix)
                row = 0
                for batch in parquet.iter_batches(batch_size=rows, row_groups=[group], columns=[prefix], use_threads=False):
                    yield from _texts(_inside(batch.column(0), steps), field, f"row group {group}, row ", row, book)
                    row += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{printable(path, 300)}: damaged Parquet data ({printable(str(error), 200)}); nothing of its part was kept"
        ) from None


def arrow_texts(path: str, storage: Storage, field: str, book: RecordBook) -> Iterator[bytes]:
    """The texts of an Arrow IPC file or stream, a newline behind each."""
    import pyarrow as pa

    try:
        with _arrow_file(path, storage) as file:
            row = 0
            for batch in _batches(file):
                column, steps = _find(batch.schema, field, path)
                _require_sound(batch.column(column))
                yield from _texts(_inside(batch.column(column), steps), field, "row ", row, book)
                row += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{printable(path, 300)}: damaged Arrow data ({printable(str(error), 200)}); nothing of its part was kept"
        ) from None


@contextlib.contextmanager
def _arrow_file(path: str, storage: Storage) -> Iterator[Any]:
    """Mapped, so that a batch of hundreds of megabytes is read as it is used; of a bucket a batch at a time is fetched."""
    import pyarrow as pa

    if is_address(path):
        with open_source(path, storage) as file:
            yield pa.PythonFile(file, "r")
        return
    with pa.memory_map(path, "r") as mapped:
        yield mapped


def _require_sound(column: Any) -> None:
    """Raises ArrowInvalid for offsets that lead out of the file: Arrow trusts them, and reading there ends the process. Bytes
    that are no UTF-8, which are looked at last, are left to `encoding_errors`."""
    import pyarrow as pa

    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise


def _batches(file: Any) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    if file.read(8).startswith(b"ARROW1"):
        reader = pa.ipc.open_file(file)
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)
        return
    file.seek(0)
    yield from pa.ipc.open_stream(file)


def _find(schema: pa.Schema, field: str, path: str) -> tuple[str, list[str]]:
    """(column, fields inside it) of a dotted path; a column whose name has the dots comes first. Raises DataError."""
    import pyarrow as pa

    parts = field.split(".")
    for length in range(len(parts), 0, -1):
        column = ".".join(parts[:length])
        if column not in schema.names:
            continue
        kind, steps = schema.field(column).type, parts[length:]
        for step in steps:
            if not pa.types.is_struct(kind) or kind.get_field_index(step) < 0:
                raise DataError(
                    f"{printable(path, 300)}: column {printable(column)!r} has no field {printable(step)!r}, it is {kind}"
                )
            kind = kind.field(step).type
        _refuse_type(kind, field, path)
        return column, steps
    raise DataError(
        f"{printable(path, 300)}: no column {printable(field)!r}; it has {printable(', '.join(schema.names), 200)}; "
        "set corpus.text_field"
    )


def _refuse_type(kind: pa.DataType, field: str, path: str) -> None:
    import pyarrow as pa

    inner = kind
    for _ in range(2):
        if _is_list(inner):
            inner = inner.value_type
    if pa.types.is_dictionary(inner):
        inner = inner.value_type
    if not (_is_text(inner) or pa.types.is_null(inner)):
        raise DataError(
            f"{printable(path, 300)}: column {printable(field)!r} must hold strings, found {kind}; set corpus.text_field"
        )


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    tests = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "fixed_size_binary")
    return any(getattr(pa.types, f"is_{name}", lambda _: False)(kind) for name in tests)


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    tests = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
    return any(getattr(pa.types, f"is_{name}", lambda _: False)(kind) for name in tests)


def _inside(array: pa.Array, steps: list[str]) -> pa.Array:
    import pyarrow.compute as pc

    return pc.struct_field(array, steps) if steps else array


def _repeats(group: Any, prefix: str) -> bool:
    """Whether the values lie in one small dictionary. (Writers give up a dictionary that grows, and the rest is plain.)"""
    columns = _columns(group, prefix)
    size = sum(column.total_uncompressed_size for column in columns)
    return size <= SLICE_BYTES and any("DICTIONARY" in encoding for column in columns for encoding in column.encodings)


def _columns(group: Any, prefix: str) -> list[Any]:
    columns = [group.column(index) for index in range(group.num_columns)]
    return [column for column in columns if f"{column.path_in_schema}.".startswith(f"{prefix}.")]


def _rows_at_a_time(group: Any, prefix: str) -> int:
    size = sum(column.total_uncompressed_size for column in _columns(group, prefix))
    return int(max(1, min(_MOST_ROWS, SLICE_BYTES * group.num_rows // max(1, size))))


# ── arrays → bytes ───────────────────────────────────────────────────────────────────────────────────────────────────


def _texts(array: pa.Array, field: str, where: str, first_row: int, book: RecordBook) -> Iterator[bytes]:
    """The texts of an array in slices of about SLICE_BYTES."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if array.null_count:
        for row in np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)).tolist():
            book.bad(f"{where}{first_row + row:,}", f"expected a string in {printable(field)!r}, found null", 0)
        array = array.drop_null()
    if not len(array):
        return
    if _is_list(kind):
        yield from _lists(array, field, where, first_row, book)
        return
    dictionary = None
    if pa.types.is_dictionary(kind):
        dictionary, array = array.dictionary, array.indices
        lengths = pc.binary_length(_binary(dictionary)).take(array)
    else:
        array = _binary(array)
        lengths = pc.binary_length(array)
    sizes = lengths.to_numpy(zero_copy_only=False)
    for start, stop in _slices(sizes):
        part = array.slice(start, stop - start)
        values = _binary(dictionary).take(part) if dictionary is not None else part
        for size in sizes[start:stop].tolist():
            book.good(size, 0)
        book.counts.add(book.place, READ, int(sizes[start:stop].sum()))
        yield _with_newlines(values)


def _slices(sizes: Any) -> Iterator[tuple[int, int]]:
    start, total = 0, 0
    for stop, size in enumerate(sizes.tolist()):
        if total and total + size > SLICE_BYTES:
            yield start, stop
            start, total = stop, 0
        total += size
    yield start, len(sizes)


def _binary(array: pa.Array) -> pa.Array:
    """Strings as bytes, whatever their width; nothing is checked, nothing copied where Arrow can help it."""
    import pyarrow as pa

    if pa.types.is_fixed_size_binary(array.type) or "view" in str(array.type):
        array = array.cast(pa.large_string() if "string" in str(array.type) else pa.large_binary())
    if pa.types.is_string(array.type):
        array = array.view(pa.binary())
    if pa.types.is_large_string(array.type):
        array = array.view(pa.large_binary())
    return array.cast(pa.large_binary())


def _with_newlines(values: pa.Array) -> bytes:
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(values) == 1:
        return values[0].as_buffer().to_pybytes() + b"\n"  # type: ignore[no-any-return]
    joined = pc.binary_join_element_wise(values, pa.scalar(b"", pa.large_binary()), pa.scalar(b"\n", pa.large_binary()))
    _, offsets, data = joined.buffers()
    ends = np.frombuffer(offsets, np.int64)
    first, last = int(ends[joined.offset]), int(ends[joined.offset + len(joined)])
    return data.slice(first, last - first).to_pybytes()  # type: ignore[no-any-return]


def _lists(array: pa.Array, field: str, where: str, first_row: int, book: RecordBook) -> Iterator[bytes]:
    """Lists of words, or of sentences that are lists of words, as lines."""
    for row in range(len(array)):
        sentences = array[row].values
        nested = _is_list(sentences.type)
        lines = [sentences[at].values for at in range(len(sentences))] if nested else [sentences]
        words = [_words(line) for line in lines if line is not None]
        if any(word is None for line in words for word in line):
            book.bad(f"{where}{first_row + row:,}", f"expected a list of strings in {printable(field)!r}, found one of null", 0)
            continue
        text = b"\n".join(b" ".join(word.replace(b"\n", b" ") for word in line) for line in words)  # type: ignore[union-attr]
        put_in = sum(max(0, len(line) - 1) for line in words) + max(0, len(words) - 1)
        book.good(len(text), put_in)
        book.counts.add(book.place, READ, len(text) - put_in)
        yield text + b"\n"


def _words(line: pa.Array) -> list[bytes | None]:
    import pyarrow as pa

    if pa.types.is_null(line.type):
        return [None] * len(line)
    if pa.types.is_dictionary(line.type):
        line = line.dictionary.take(line.indices)
    return _binary(line).to_pylist()  # type: ignore[no-any-return]
