"""Vectors in a safetensors file: header length (8 bytes), JSON header, numbers; the words are in vocab.json beside it.

The format is simple enough to read with the standard library. Numbers in float16, float32 or float64 are mapped from disk
without copying; bfloat16, which NumPy lacks, is widened to float32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from w2v_core.vectors import files
from w2v_core.vectors.parts import Parts
from w2v_core.vectors.vocabulary import shown

MATRIX, COUNTS, WORDS = "embeddings", "counts", "vocab.json"
_DTYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2", "I64": "<i8"}
_LONGEST_HEADER = 100_000_000
"""The format's own limit."""


def read(path: Path) -> Parts:
    """The vectors of `path`: the tensor `embeddings` (V, D), or else the only one with two dimensions, and `counts` if present.

    Raises FileNotFoundError if vocab.json is missing, ValueError for files that are cut or hold something else.
    """
    tensors, offset = _read_header(path)
    names = [name for name, tensor in tensors.items() if len(tensor["shape"]) == 2]
    name = MATRIX if MATRIX in names else names[0] if len(names) == 1 else None
    if name is None:
        raise ValueError(f"{path}: expected a tensor {MATRIX!r} of two dimensions, found {shown(sorted(tensors))}")
    matrix = _tensor(path, name, tensors[name], offset)
    counts = None
    if COUNTS in tensors and tensors[COUNTS]["shape"] == [len(matrix)]:
        counts = np.array(_tensor(path, COUNTS, tensors[COUNTS], offset), np.int64)
    return Parts(_read_words(path.with_name(WORDS), len(matrix)), matrix, counts, None)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """({name: dtype, shape and data_offsets}, offset in bytes at which the numbers begin)."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"{path}: not a safetensors file, or cut (a header of {length:,} bytes in {size:,})")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: its header is not JSON ({error}); fetch or export it again") from None
    if not isinstance(header, dict):
        raise ValueError(f"{path}: its header is no JSON object; fetch or export it again")
    header.pop("__metadata__", None)
    for name, tensor in header.items():
        lists: list[Any] = [tensor.get(key) if isinstance(tensor, dict) else None for key in ("shape", "data_offsets")]
        whole = all(isinstance(found, list) and all(type(n) is int and n >= 0 for n in found) for found in lists)
        if not whole or len(lists[1]) != 2 or not lists[1][0] <= lists[1][1] <= size - 8 - length:
            raise ValueError(f"{path}: tensor {shown(name)} does not lie in the file: it is cut; fetch or export it again")
    return header, 8 + length


def _tensor(path: Path, name: str, tensor: dict[str, Any], offset: int) -> npt.NDArray[Any]:
    if str(tensor.get("dtype")) not in _DTYPES:
        raise ValueError(f"{path}: tensor {shown(name)}: expected one of {', '.join(_DTYPES)}, found {tensor.get('dtype')!r}")
    dtype, shape = np.dtype(_DTYPES[tensor["dtype"]]), tuple(tensor["shape"])
    start, end = tensor["data_offsets"]
    expected = int(dtype.itemsize) * int(np.prod(shape, dtype=object))
    if end - start != expected:
        raise ValueError(f"{path}: tensor {shown(name)}: expected {expected:,} bytes for {shape}, found {end - start:,}")
    if not expected:
        return np.empty(shape, dtype)
    array = np.memmap(path, dtype, "r", offset + start, shape)
    if tensor["dtype"] != "BF16":
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)


def _read_words(path: Path, expected: int) -> list[str]:
    """The words in the order of their rows, from a JSON object {word: row}."""
    files.require_regular(path)
    try:
        rows = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(2, f"the words of the vectors beside it ({WORDS}: word → row) are missing", str(path)) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); fetch or export it again") from None
    if not isinstance(rows, dict) or sorted(map(repr, rows.values())) != sorted(map(repr, range(expected))):
        raise ValueError(f"{path}: expected {expected:,} words with the rows 0 to {expected - 1:,}, each once")
    return sorted(rows, key=rows.__getitem__)
