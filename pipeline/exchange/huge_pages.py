"""Parameters in pages of 2 MiB. A lane reads and writes rows all over its matrices, and the processor's TLB is far too small for
all the small pages they fill. With huge pages, two lanes need an eighth less time per token
(infra/benchmarks/records/kernel-steps-2026-11-21.md).

Private memory gets huge pages because NumPy requests them (`zeros_in_small_pages` does not). Shared memory does not: Linux
disables them there by default (`shmem_enabled` is `never`), and `mmap` returns addresses at which no huge page can begin. Since
Linux 6.1 a process can request them explicitly (MADV_COLLAPSE), whatever the setting. This only affects speed: if it is refused,
the small pages stay.

They have a price on a virtual machine whose host reclaims free memory: 2 MiB in one piece is mostly reclaimed memory, which takes
2.5 ms per MiB to get back, while small pages come from recently used memory, at 0.3 ms per MiB. So memory that is only read
sequentially gets small pages.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys

import numpy as np
from numpy.typing import NDArray

HUGE_PAGE = 2 << 20
_MADV_COLLAPSE = 25  # linux/mman.h; missing in the mmap module


def reserve(descriptor: int, size: int, *, huge: bool = True) -> None:
    """Makes a file of zeros of this size, in huge pages if they are wanted and granted. All of it is allocated here, so that a
    full disk is an OSError now rather than a SIGBUS in a kernel later."""
    if huge and can_be_huge(size):
        # One small page in each huge page is enough to request it, and then the others are never allocated.
        os.ftruncate(descriptor, size)
        for begin in range(0, size, HUGE_PAGE):
            os.pwrite(descriptor, b"\0", begin)
        collapse(map_shared(descriptor, size))
    os.posix_fallocate(descriptor, 0, size)


def map_shared(descriptor: int, size: int) -> memoryview:
    """The file's first `size` bytes, shared with every process that maps it; unmapped when nothing refers to it any more. A page
    counts as memory of this process once it has been touched."""
    if not can_be_huge(size):
        return memoryview(mmap.mmap(descriptor, size))
    # Reserve more addresses than needed, then map the file at the first huge-page boundary among them. The object that holds the
    # addresses unmaps all of them when it is freed.
    addresses = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(addresses))
    skipped = -begin % HUGE_PAGE
    _map_at(begin + skipped, size, descriptor)
    return memoryview(addresses)[skipped : skipped + size]


def zeros_in_small_pages(rows: int, row_floats: int) -> NDArray[np.float32]:
    """Private memory for a matrix of zeros, in small pages even where Linux prefers huge ones everywhere. Raises MemoryError."""
    try:
        memory = mmap.mmap(-1, max(1, rows * row_floats * 4), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"cannot allocate {rows * row_floats * 4:,} bytes ({error.strerror})") from error
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a kernel that has no huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32, count=rows * row_floats).reshape(rows, row_floats)


def can_be_huge(size: int) -> bool:
    return sys.platform == "linux" and size >= HUGE_PAGE


def _map_at(address: int, size: int, descriptor: int) -> None:
    map_fixed = 0x10  # MAP_FIXED: at this address, replacing what is mapped there
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    found = libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | map_fixed, descriptor, 0)
    if found != address:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot map {size:,} bytes of shared memory")


def collapse(memory: memoryview) -> None:
    """Replaces small pages by huge ones, as far as that is granted; a rest of less than a huge page stays."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    madvise(ctypes.addressof(ctypes.c_char.from_buffer(memory)), len(memory) // HUGE_PAGE * HUGE_PAGE, _MADV_COLLAPSE)
