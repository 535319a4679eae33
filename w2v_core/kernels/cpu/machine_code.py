"""`compiled`: Numba's `njit` with a cache that depends on every source file of the kernels.

Numba's cache recompiles a function when the file that defines it changes. The kernels are built from several files: after an
update that touched only one of the others, the old machine code would go on running.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba

# Left to itself, Numba imports this with the first function it compiles or loads. That adds types to a dictionary which another
# thread may be iterating over to type an argument: "dictionary changed size during iteration".
import numba.experimental.function_type
from numba import njit
from numba.core.runtime.nrt import rtsys


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """`njit(nogil=True, cache=True, …)`, recompiled whenever a source file of the kernels has changed.

    Raises ImportError for a version of Numba whose cache works differently."""
    dispatcher: Any = njit(nogil=True, cache=True, **options)(function)
    # Not part of Numba's documented interface: what is documented are cache locators, which would apply to the whole process.
    try:
        index = dispatcher._cache._cache_file
        index._source_stamp = (index._source_stamp, _digest_of_sources())
        dispatcher._cache.load_overload = partial(_load, dispatcher._cache)
    except AttributeError as error:
        raise _unlike_others(error) from error
    return dispatcher


def compiled_apart(function: Callable[..., Any]) -> Any:
    """`compiled` for a function that no compiled function calls: the LLVM code from which Numba would inline it is not kept
    beside its machine code. Every process would parse it, for a fifteenth of a second where the function is large."""
    dispatcher = compiled(function)
    try:
        kept = dispatcher._cache._impl
        kept.reduce = partial(_reduced, kept.reduce)
    except AttributeError as error:
        raise _unlike_others(error) from error
    return dispatcher


def _unlike_others(error: AttributeError) -> ImportError:
    return ImportError(
        f"Numba {numba.__version__} keeps machine code differently from the versions this was written for ({error}); "
        "install one that the package's metadata allows, or set train.backend to numpy"
    )


def _load(kept: Any, signature: Any, context: Any) -> Any:
    """Numba's `Cache.load_overload`, but what only compiling needs is prepared after a miss: it takes a seventh of a second, and
    processes that find all their code on disk, as nearly all do, never need it."""
    rtsys.initialize(context)
    with kept._guard_against_spurious_io_errors():
        if (found := kept._load_overload(signature, context)) is not None:
            return found
    context.refresh()
    return None


def _reduced(reduce: Callable[[Any], Any], result: Any) -> Any:
    """What Numba keeps of a compiled function, with a module in place of its LLVM code that only defines the same names: Numba
    looks there which functions the machine code has."""
    (name, kind, (machine_code, llvm_code)), *others = reduce(result)
    module = llvmlite.binding.parse_bitcode(llvm_code)
    defined = [each.name for each in (*module.functions, *module.global_variables) if not each.is_declaration]
    names = llvmlite.binding.parse_assembly("\n".join(f'@"{each}" = global i8 0' for each in defined))
    return (name, kind, (machine_code, names.as_bitcode())), *others


@cache
def _digest_of_sources() -> str:
    core = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    definition = [core / "reference.py", core / "sampler.py", core / "windows.py"]
    for path in [*sorted((core / "kernels").rglob("*.py")), *sorted((core / "text").glob("*.py")), *definition]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
