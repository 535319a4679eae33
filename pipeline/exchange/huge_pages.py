"""Parameters in pages of 2 MiB. A lane reads and writes rows all over its matrices, and the processor's table of page addresses
is far too short for all the small pages they fill. With huge pages two lanes need an eighth less time for a token
(infra/benchmarks/records/kernel-steps-2026-11-21.md).

Private memory gets such pages because NumPy asks for them. Shared memory does not: Linux has them off there
(`shmem_enabled` is `never`), and `mmap` returns addresses at which no such page can begin. Since Linux 6.1 a process can ask
for them explicitly (MADV_COLLAPSE), whatever the setting. This only affects speed: where it is refused, the small pages stay.

They have a price on a virtual machine whose host reclaims free memory: 2 MiB in one piece are mostly memory that was reclaimed,
which takes 2.5 ms a MiB to get back, while small pages come from what was in use before, at 0.3 ms a MiB. So what is only read
from one end to the other gets small ones.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

HUGE_PAGE = 2 << 20
_MADV_COLLAPSE = 25  # linux/mman.h; the mmap module does not name it


def reserve(descriptor: int, size: int, *, huge: bool = True) -> None:
    """Makes a file of zeros of this size, in huge pages where they are wanted and granted. All of it is there before anyone
    uses it: a full disk is an OSError here, not a SIGBUS in a kernel later."""
    if huge and can_be_huge(size):
        # One small page of each huge one is enough for it to be asked for, and then the others are never made.
        os.ftruncate(descriptor, size)
        for begin in range(0, size, HUGE_PAGE):
            os.pwrite(descriptor, b"\0", begin)
        collapse(map_shared(descriptor, size))
    os.posix_fallocate(descriptor, 0, size)


def map_shared(descriptor: int, size: int) -> memoryview:
    """The file's first `size` bytes, shared with every process that maps it; unmapped when nothing refers to it any more.
    A page counts as memory of this process from when it is first touched."""
    if not can_be_huge(size):
        return memoryview(mmap.mmap(descriptor, size))
    # Addresses for more than is needed, then the file at the first boundary among them. The object that holds the addresses
    # gives all of them back when it goes.
    addresses = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(addresses))
    skipped = -begin % HUGE_PAGE
    _map_at(begin + skipped, size, descriptor)
    return memoryview(addresses)[skipped : skipped + size]


def can_be_huge(size: int) -> bool:
    return sys.platform == "linux" and size >= HUGE_PAGE


def _map_at(address: int, size: int, descriptor: int) -> None:
    map_fixed = 0x10  # MAP_FIXED: at this address, in place of what is mapped there
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    found = libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | map_fixed, descriptor, 0)
    if found != address:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot map {size:,} bytes of shared memory")


def collapse(memory: memoryview) -> None:
    """Puts huge pages in the place of the small ones, as far as that is granted; the end, less than one, stays."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    madvise(ctypes.addressof(ctypes.c_char.from_buffer(memory)), len(memory) // HUGE_PAGE * HUGE_PAGE, _MADV_COLLAPSE)
