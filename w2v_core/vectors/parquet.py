"""Vectors in a Parquet file: columns `word`, `vector` (lists of numbers, all of one length) and perhaps `count`.

The only file of w2v_core that uses pyarrow, and only when a Parquet file is read: the standard library cannot read Parquet,
and whoever has Parquet files has pyarrow (infra/decisions/0016-reading-vectors.md).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from w2v_core.vectors.parts import DTYPES, Parts


def read(path: Path, limit: int | None = None) -> Parts:
    """The vectors of `path`, at most the first `limit`, read a row group at a time. Raises FileNotFoundError, ValueError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Arrow takes a path that is not UTF-8 as bytes only.
        with pa.OSFile(os.fsencode(path)) as opened, pq.ParquetFile(opened, page_checksum_verification=True) as file:
            names = set(file.schema_arrow.names)
            if not {"word", "vector"} <= names:
                raise ValueError(f"{path}: expected columns word, vector and perhaps count, found {', '.join(sorted(names))}")
            if len(file.schema_arrow.names) > len(names):
                raise ValueError(f"{path}: two columns have one name; give each its own")
            wanted = min(file.metadata.num_rows, limit or file.metadata.num_rows)
            groups = []
            for group in range(file.num_row_groups):
                groups.append(file.read_row_group(group, [name for name in ("word", "vector", "count") if name in names]))
                if sum(map(len, groups)) >= wanted:
                    break
            return _parts(pa.concat_tables(groups).slice(0, wanted), path)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]}); fetch or export it again") from None


def _parts(table: Any, path: Path) -> Parts:
    """The parts of a table. Raises ValueError for nulls, for vectors of several lengths and for columns of other types."""
    import pyarrow as pa

    words, vectors = table["word"], table["vector"].combine_chunks()
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_kind(vectors.type) for is_kind in lists):
        raise ValueError(f"{path}: expected vectors as lists of floating-point numbers, found {vectors.type}")
    if words.null_count or vectors.null_count:
        raise ValueError(f"{path}: words or vectors are null ({words.null_count + vectors.null_count:,} of them)")
    numbers = vectors.flatten()
    values = numbers.to_numpy(zero_copy_only=False)
    if values.dtype.name not in DTYPES or numbers.null_count or not len(table) or len(values) % len(table):
        raise ValueError(f"{path}: expected vectors of floating-point numbers, all of one length, found {vectors.type}")
    size = len(values) // len(table)
    if hasattr(vectors, "offsets") and not np.all(np.diff(vectors.offsets.to_numpy()) == size):
        raise ValueError(f"{path}: expected vectors of one length, found several")
    counts = table["count"] if "count" in table.column_names else None
    if counts is not None and not pa.types.is_integer(counts.type):
        raise ValueError(f"{path}: expected counts as integers, found {counts.type}")
    known = None if counts is None or counts.null_count else counts.to_numpy().astype(np.int64)
    names = words.to_pylist()
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: expected words as text, found {words.type}")
    return Parts(names, values.reshape(len(table), size), known, None)
