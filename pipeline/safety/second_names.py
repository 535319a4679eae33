"""One file under several names (hard links): vectors published or tracked on the same file system take up space once.

A file with two names is made read-only, because writing to one would change the other too. Removing one name does not affect
the others. Where a file system does not support hard links, or forbids them for files of others, nothing is done and the caller
copies.
"""

from __future__ import annotations

import os
import stat
import uuid
from pathlib import Path

WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def share(source: Path, target: Path) -> bool:
    """Links `target` to the regular file `source`, atomically replacing an existing file; returns whether that was possible. If
    not, `target` is unchanged."""
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
        # Needed even on success: a rename between two names of the same file does nothing and leaves the temporary one.
        temporary.unlink(missing_ok=True)


def own_bytes(path: Path) -> int:
    """The bytes freed by removing this name: none while there is another one."""
    found = path.stat()
    return found.st_size if found.st_nlink == 1 else 0
