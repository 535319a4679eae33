"""The texts of a column of Parquet or Arrow IPC, as bytes, in memory bounded by bytes rather than rows: a few megabytes plus
two or three times the largest page of a Parquet file. (pyarrow writes 1,024 rows to a page, however long they are.)

Supported types are strings and binary of every width (binary holds UTF-8), views, dictionaries, null columns, struct fields by
a dotted path, and lists of strings. Bytes that are not UTF-8 do not count as damage: they are repaired and counted as in every
other format.

A value that is stored once can occur in every row, so the size of the text is bounded as for a compressed file
(`corpus.max_ratio`), and so few rows are read at a time that each could hold the largest value of a dictionary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError, printable
from pipeline.text.decompress import bounded, most_bytes
from pipeline.text.formats import messages, pages
from pipeline.text.formats.records import RecordBook, what_it_has
from pipeline.text.losses import READ

if TYPE_CHECKING:
    import pyarrow as pa

SLICE_BYTES = 4 << 20
_MOST_ROWS = 4096
_BUFFER_BYTES = 1 << 20
_DICTIONARY_SLICE_BYTES = 32 << 20
_LONGEST_RECORD_BYTES = 256 << 20
"""Limit for a list, whose words are joined in one step."""


def parquet_texts(file: BinaryIO, groups: range, field: str, path: str, size: int, book: RecordBook) -> Iterator[bytes]:
    """The texts of the row groups `groups` of a file of `size` bytes, a newline after each; raises DataError for damage, a
    missing column, and for pages or texts that exceed their bounds."""
    with _damage_told(path, "Parquet"):
        yield from bounded(_parquet_texts(file, groups, field, path, size, book), path=path, size=size, max_ratio=book.max_ratio)


def _parquet_texts(file: BinaryIO, groups: range, field: str, path: str, size: int, book: RecordBook) -> Iterator[bytes]:
    with _columns_of(file, None) as parquet:
        column, steps = _find(parquet.schema_arrow, field, path)
        prefix = ".".join([column, *steps])
        lists = _has_lists(parquet.schema_arrow.field(column).type)
    there = pages.row_groups(file)
    if len(there) < groups.stop:
        raise pages.BadPage(f"{len(there):,} row groups, expected {groups.stop:,}")
    chunks = {group: _chunks(there[group], prefix) for group in groups}
    needs = {group: [pages.chunk_pages(file, chunk) for chunk in chunks[group]] for group in groups}
    _refuse_large_pages(needs, path)
    # A list can repeat a dictionary's value any number of times, so its words stay indices until they are joined.
    dictionaries = {chunk.path for group in groups for chunk in chunks[group]} if lists else None
    with _columns_of(file, dictionaries) as parquet:
        rows = 0
        for group in groups:
            at_once = rows_at_a_time(there[group].rows, chunks[group], needs[group])
            row = 0
            for batch in parquet.iter_batches(batch_size=at_once, row_groups=[group], columns=[prefix], use_threads=False):
                yield from _texts(_inside(batch.column(0), steps), field, f"row group {group}, row ", row, book)
                row += batch.num_rows
                rows += batch.num_rows
                _refuse_endless(rows, path, size, book)


@contextlib.contextmanager
def _columns_of(file: BinaryIO, dictionaries: set[str] | None) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with (
        _for_arrow(file, mapped=False) as source,
        pq.ParquetFile(
            source, page_checksum_verification=True, buffer_size=_BUFFER_BYTES, pre_buffer=False,
            read_dictionary=sorted(dictionaries) if dictionaries else None,
        ) as parquet,
    ):  # fmt: skip
        yield parquet


@contextlib.contextmanager
def _for_arrow(file: BinaryIO, *, mapped: bool) -> Iterator[Any]:
    """The open file for Arrow, read without copies in Python; an object in a bucket is fetched a piece at a time."""
    import pyarrow as pa

    try:
        path = f"/dev/fd/{file.fileno()}"
    except (OSError, AttributeError):
        yield pa.PythonFile(file, "r")
        return
    with pa.memory_map(path, "r") if mapped else pa.OSFile(path) as opened:
        yield opened


def arrow_texts(file: BinaryIO, field: str, path: str, size: int, book: RecordBook) -> Iterator[bytes]:
    """The texts of an Arrow IPC file or stream of `size` bytes, a newline after each; raises DataError like `parquet_texts`."""
    with _damage_told(path, "Arrow"):
        yield from bounded(_arrow_texts(file, field, path, size, book), path=path, size=size, max_ratio=book.max_ratio)


def _arrow_texts(file: BinaryIO, field: str, path: str, size: int, book: RecordBook) -> Iterator[bytes]:
    import pyarrow as pa

    # Mapped, so that a batch of hundreds of megabytes is read only as it is used.
    with _for_arrow(file, mapped=True) as mapped:
        _refuse_large_messages(mapped, path)
        row = 0
        for batch in pa.ipc.open_stream(messages.stream_of(mapped)):
            column, steps = _find(batch.schema, field, path)
            _require_sound(batch.column(column))
            yield from _texts(_inside(batch.column(column), steps), field, "row ", row, book)
            row += batch.num_rows
            _refuse_endless(row, path, size, book)


@contextlib.contextmanager
def _damage_told(path: str, what: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException, pages.BadPage, ValueError) as error:
        raise DataError(
            f"{printable(path, 300)}: damaged {what} data ({printable(str(error), 200)}); nothing of its part was kept"
        ) from None


def _refuse_large_pages(needs: dict[int, list[pages.ChunkPages]], path: str) -> None:
    for group, found in needs.items():
        largest = max((chunk.largest_bytes for chunk in found), default=0)
        if largest > pages.MAXIMUM_PAGE_BYTES:
            raise DataError(
                f"{printable(path, 300)}: a page of row group {group} takes {largest:,} bytes of memory, and "
                f"{pages.MAXIMUM_PAGE_BYTES:,} are read at once; write it again with fewer rows a page (pyarrow: "
                "write_batch_size=16, use_dictionary=False)"
            )


def _refuse_large_messages(mapped: Any, path: str) -> None:
    for stored, needed in messages.message_bytes(mapped):
        if needed > max(stored, messages.MAXIMUM_MESSAGE_BYTES):
            raise DataError(
                f"{printable(path, 300)}: a batch takes {needed:,} bytes of memory when it is decompressed, and "
                f"{messages.MAXIMUM_MESSAGE_BYTES:,} are read at once; write it again in smaller batches, or not compressed"
            )


def _refuse_endless(rows: int, path: str, size: int, book: RecordBook) -> None:
    """Raises DataError for more rows than the bytes this file may expand to: rows without text take memory, too."""
    if rows > most_bytes(size, book.max_ratio):
        raise DataError(
            f"{printable(path, 300)}: {size:,} stored bytes hold more than {rows:,} rows (corpus.max_ratio={book.max_ratio}); "
            "raise corpus.max_ratio if you trust the file"
        )


def _require_sound(column: Any) -> None:
    """Raises ArrowInvalid for offsets outside the file: Arrow trusts them, and following them would crash the process. Invalid
    UTF-8, which Arrow checks last, is left to `encoding_errors`."""
    import pyarrow as pa

    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise


def _find(schema: pa.Schema, field: str, path: str) -> tuple[str, list[str]]:
    """(column, fields inside it) of a dotted path; a column whose own name has the dots takes precedence. Raises DataError."""
    import pyarrow as pa

    parts = field.split(".")
    for length in range(len(parts), 0, -1):
        column = ".".join(parts[:length])
        if column not in schema.names:
            continue
        if (same := schema.names.count(column)) > 1:
            raise DataError(f"{printable(path, 300)}: {same} columns have the name {printable(column)!r}; give each its own")
        kind, steps = schema.field(column).type, parts[length:]
        for step in steps:
            if not pa.types.is_struct(kind) or kind.get_field_index(step) < 0:
                raise DataError(
                    f"{printable(path, 300)}: column {printable(column)!r} has no field {printable(step)!r}, it is {kind}"
                )
            kind = kind.field(step).type
        _refuse_type(kind, field, path)
        return column, steps
    raise DataError(f"{printable(path, 300)}: no column {printable(field)!r}; {what_it_has(schema.names, field, 200)}")


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
            + (f": {printable(within)}" if (within := _text_within(kind, field)) else "")
        )


def _text_within(kind: pa.DataType, field: str) -> str | None:
    """The first field of text inside a struct, as `text_field` takes it."""
    import pyarrow as pa

    inner = list(kind) if pa.types.is_struct(kind) else []
    return next((f"{field}.{part.name}" for part in inner if _is_text(part.type)), None)


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


def _chunks(group: pages.RowGroup, prefix: str) -> list[pages.ColumnChunk]:
    return [chunk for chunk in group.chunks if f"{chunk.path}.".startswith(f"{prefix}.")]


def rows_at_a_time(rows: int, chunks: list[pages.ColumnChunk], needs: list[pages.ChunkPages]) -> int:
    """The number of rows of average length in SLICE_BYTES, fewer if every row could be the largest value of its dictionary."""
    size = sum(chunk.uncompressed_bytes for chunk in chunks)
    dictionary = max((found.dictionary_bytes for found in needs), default=0)
    by_length, by_dictionary = SLICE_BYTES * rows // max(1, size), _DICTIONARY_SLICE_BYTES // max(1, dictionary)
    return int(max(1, min(_MOST_ROWS, by_length, by_dictionary)))


def _has_lists(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(_has_lists(kind.field(index).type) for index in range(kind.num_fields))
    return _is_list(kind)


# ── arrays → bytes ───────────────────────────────────────────────────────────────────────────────────────────────────


def _texts(array: pa.Array, field: str, where: str, first_row: int, book: RecordBook) -> Iterator[bytes]:
    """The texts of an array in slices of about SLICE_BYTES."""
    array = _with_nulls_of_its_dictionary(array)
    rows = np.arange(first_row, first_row + len(array))
    if array.null_count:
        missing = array.is_null().to_numpy(zero_copy_only=False)
        first = f"{where}{rows[missing][0]:,}"
        book.bad(first, f"expected a string in {printable(field)!r}, found null", 0, records=int(missing.sum()))
        array, rows = array.drop_null(), rows[~missing]
    if not len(array):
        return
    if _is_list(array.type):
        yield from _lists(array, field, where, rows.tolist(), book)
        return
    sizes = _lengths(array)
    for start, stop in _slices(sizes):
        size = int(sizes[start:stop].sum())
        book.good(size, 0, records=stop - start)
        book.counts.add(book.place, READ, size)
        yield _with_newlines(_binary(array.slice(start, stop - start)))


def _with_nulls_of_its_dictionary(array: pa.Array) -> pa.Array:
    """The array, with rows null whose dictionary value is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(array.type) or not array.dictionary.null_count:
        return array
    known = array.dictionary.is_valid().take(array.indices)
    return pa.DictionaryArray.from_arrays(pc.if_else(known, array.indices, None), array.dictionary)


def _lengths(array: pa.Array) -> NDArray[np.int64]:
    """The length of every value in bytes, without reading the values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        return np.asarray(_lengths(array.dictionary)[array.indices.to_numpy()])
    if "view" in str(array.type):
        # A view is four 32-bit numbers, the length first. Several views can refer to the same bytes.
        views = np.frombuffer(array.buffers()[1] or b"", np.int32).reshape(-1, 4)
        return views[array.offset : array.offset + len(array), 0].astype(np.int64)
    return np.asarray(pc.binary_length(_binary(array)).fill_null(0), np.int64)


def _slices(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    start, total = 0, 0
    for stop, size in enumerate(sizes.tolist()):
        if total and total + size > SLICE_BYTES:
            yield start, stop
            start, total = stop, 0
        total += size
    yield start, len(sizes)


def _binary(array: pa.Array) -> pa.Array:
    """Strings of any width as large binary; not validated, and not copied where Arrow can avoid it."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        return _binary(array.dictionary).take(array.indices)
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


def _lists(array: pa.Array, field: str, where: str, rows: list[int], book: RecordBook) -> Iterator[bytes]:
    """Lists of words, or of lists of words, as lines: one per sentence."""
    for index, row in enumerate(rows):
        sentences = array[index].values
        nested = _is_list(sentences.type)
        lines = [sentences[at].values for at in range(len(sentences))] if nested else [sentences]
        lines = [_with_nulls_of_its_dictionary(line) for line in lines if line is not None]
        if any(line.null_count for line in lines):
            book.bad(f"{where}{row:,}", f"expected a list of strings in {printable(field)!r}, found one of null", 0)
            continue
        _refuse_long(sum(int(_lengths(line).sum()) for line in lines if len(line)), f"{where}{row:,}", book)
        words = [_binary(line).to_pylist() if len(line) else [] for line in lines]
        text = b"\n".join(b" ".join(word.replace(b"\n", b" ") for word in line) for line in words)
        put_in = sum(max(0, len(line) - 1) for line in words) + max(0, len(words) - 1)
        book.good(len(text), put_in)
        book.counts.add(book.place, READ, len(text) - put_in)
        yield text + b"\n"


def _refuse_long(size: int, where: str, book: RecordBook) -> None:
    if size > _LONGEST_RECORD_BYTES:
        raise DataError(
            f"{printable(book.path, 300)}: {where}: its words are {size:,} bytes together, and "
            f"{_LONGEST_RECORD_BYTES:,} are read at once; split the record"
        )
