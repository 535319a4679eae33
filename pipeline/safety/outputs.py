"""Where the bytes go that are written to a path which a person named, for other programs.

Such a path may be a link, which people make so that a file appears in two places: it stays, and the file behind it is replaced,
as a whole. What a stranger has linked, in a folder that is open to all, is replaced instead, as Linux follows no such links.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from pipeline.safety.files import kind_of


def target_of(path: Path) -> Path:
    """The file to replace; raises OSError for a device, a FIFO and everything else that is there and is no file."""
    if os.path.exists(path) and not stat.S_ISREG(mode := os.stat(path).st_mode):
        raise OSError(errno.EINVAL, f"not a regular file but {kind_of(mode)}", str(path))
    if os.path.islink(path) and os.lstat(path).st_uid in (os.getuid(), 0):
        return Path(os.path.realpath(path))
    return path
