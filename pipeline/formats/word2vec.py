"""The word2vec formats, text and binary, written so that other programs can read them (`w2v_core.vectors.word_files` reads them).

    text      "V D\\n", then V lines "word number … number"; fastText's .vec files are the same
    binary    "V D\\n", then V times: the word, a space, D little-endian float32, a newline (gensim writes none)

Neither can hold every word: see `UNWRITABLE`. Numbers are written as the shortest text that reads back as the same float32.
Arrow's CSV writer formats them, a column at a time, several times faster than a Python loop over numbers; words never pass
through it, since CSV would quote some of them.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from w2v_core.vectors.cosines import Floats

UNWRITABLE = re.compile(r"[\s\0\ud800-\udfff]|\A\Z")
"""What a word must not contain or be. The formats end a word at a space and a text line at a newline; many readers split at any
white space (`str.split`), C readers stop at NUL, and a lone surrogate has no UTF-8."""

_WRITE_ROWS, _WRITE_THREADS = 2048, 2


def write_text(file: Any, words: Sequence[str], matrix: Floats, *, header: bool = True) -> None:
    """Appends the text format, without `header` in GloVe's form; no word may match `UNWRITABLE`."""
    if header:
        file.write(b"%d %d\n" % matrix.shape)
    first = 0
    for numbers in iterate_number_lines(matrix, " "):
        names = words[first : first + len(numbers)]
        first += len(numbers)
        file.write(b"".join([word.encode() + b" " + line + b"\n" for word, line in zip(names, numbers, strict=True)]))


def write_binary(file: Any, words: Sequence[str], matrix: Floats) -> None:
    """Appends the binary format, with word2vec's newline after each vector; no word may match `UNWRITABLE`."""
    file.write(b"%d %d\n" % matrix.shape)
    size = matrix.shape[1] * 4
    for first in range(0, len(words), _WRITE_ROWS):
        data = matrix[first : first + _WRITE_ROWS].astype("<f4").tobytes()
        names = words[first : first + _WRITE_ROWS]
        file.write(b"".join([b"%b %b\n" % (word.encode(), data[i * size : i * size + size]) for i, word in enumerate(names)]))


def iterate_number_lines(matrix: Floats, delimiter: str) -> Iterator[list[bytes]]:
    """Each row of `matrix` (N, D) as a line without its end, one list per block of rows; numbers read back as the same float32.

    Two threads format blocks ahead (Arrow releases the interpreter lock); the blocks come out in order.
    """
    with ThreadPoolExecutor(_WRITE_THREADS) as pool:
        ahead: deque[Future[list[bytes]]] = deque()
        for first in range(0, len(matrix), _WRITE_ROWS):
            ahead.append(pool.submit(_number_lines, matrix[first : first + _WRITE_ROWS], delimiter))
            if len(ahead) > _WRITE_THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _number_lines(block_ND: Floats, delimiter: str) -> list[bytes]:
    import pyarrow as pa
    import pyarrow.csv

    columns_DN = np.ascontiguousarray(block_ND.T)
    if columns_DN.dtype == np.float16:
        texts = _float16_texts()
        return [delimiter.join(map(texts.__getitem__, row)).encode() for row in block_ND.view(np.uint16).tolist()]
    table = pa.table([pa.array(column_N) for column_N in columns_DN], names=[str(i) for i in range(len(columns_DN))])
    sink = io.BytesIO()
    pa.csv.write_csv(table, sink, pa.csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style="none"))
    return sink.getvalue().split(b"\n")[:-1]


@cache
def _float16_texts() -> list[str]:
    """The shortest text of every float16, by its bits; Arrow would write the digits of the float64."""
    return [str(number) for number in np.arange(1 << 16, dtype=np.uint16).view(np.float16)]
