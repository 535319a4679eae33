"""`compiled`: Numba's `njit` with a cache that follows every source its machine code was made from.

Numba keeps machine code beside the file of a function and makes it anew when that file changes. The kernels are put
together from several files: after an update that touches only one of the others, the old code would go on running.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """`njit(nogil=True, cache=True, …)`, compiled anew whenever a source file of the kernels differs."""
    dispatcher: Any = njit(nogil=True, cache=True, **options)(function)
    # Not part of Numba's documented interface, which has no word for this; a test sees to it that it works.
    index = dispatcher._cache._cache_file
    index._source_stamp = (index._source_stamp, _digest_of_sources())
    return dispatcher


@cache
def _digest_of_sources() -> str:
    core = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for path in [*sorted((core / "kernels").rglob("*.py")), *sorted((core / "text").glob("*.py")), core / "reference.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
