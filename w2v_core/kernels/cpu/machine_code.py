"""`compiled`: Numba's `njit` with a cache that depends on every source file of the kernels.

Numba's cache recompiles a function when the file that defines it changes. The kernels are built from several files: after an
update that touched only one of the others, the old machine code would go on running.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

# Left to itself, Numba imports this with the first function it compiles or loads. That adds types to a dictionary which another
# thread may be iterating over to type an argument: "dictionary changed size during iteration".
import numba.experimental.function_type
from numba import njit


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """`njit(nogil=True, cache=True, …)`, recompiled whenever a source file of the kernels has changed.

    Raises ImportError for a version of Numba whose cache works differently."""
    dispatcher: Any = njit(nogil=True, cache=True, **options)(function)
    # Not part of Numba's documented interface: what is documented are cache locators, which would apply to the whole process.
    try:
        index = dispatcher._cache._cache_file
        index._source_stamp = (index._source_stamp, _digest_of_sources())
    except AttributeError as error:
        raise ImportError(
            f"Numba {numba.__version__} keeps machine code differently from the versions this was written for ({error}); "
            "install one that the package's metadata allows, or set train.backend to numpy"
        ) from error
    return dispatcher


@cache
def _digest_of_sources() -> str:
    core = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    definition = [core / "reference.py", core / "sampler.py", core / "windows.py"]
    for path in [*sorted((core / "kernels").rglob("*.py")), *sorted((core / "text").glob("*.py")), *definition]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
