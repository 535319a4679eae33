"""One file under several names: vectors that are published or tracked on the same file system take their room once.

A file with two names is made read-only, because whoever wrote into the copy that he thinks his would change the other one too.
Removing a name takes nothing from the others. Where a file system has no second names (hard links), or lets nobody else's
file have one, nothing is done and the caller copies.
"""

from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path

WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def share(source: Path, target: Path) -> bool:
    """Whether `target` is now another name of the regular file `source`; what was there before is replaced at once, and stays
    where it cannot be done."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        mode = os.lstat(source).st_mode
        if not stat.S_ISREG(mode):
            return False
        os.link(source, temporary, follow_symlinks=False)
        if mode & WRITABLE:
            os.chmod(temporary, stat.S_IMODE(mode) & ~WRITABLE)
        os.replace(temporary, target)
        return True
    except (OSError, NotImplementedError):
        return False
    finally:
        # Also when both names were of one file before: a rename between those does nothing, and leaves the temporary one.
        temporary.unlink(missing_ok=True)


def own_bytes(path: Path) -> int:
    """How many bytes go when this name is removed: none while there is another one."""
    found = path.stat()
    return found.st_size if found.st_nlink == 1 else 0
