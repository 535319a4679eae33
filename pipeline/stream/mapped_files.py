"""Arrow files, memory-mapped, and checked without being read twice.

Arrow files carry no checksums of their own, so the whole file is compared with the SHA-256 of its Part before it is used. A
process that hashed the bytes while writing them, or has checked them once, remembers that (`HashedFiles`).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import store
from pipeline.errors import DamagedError, unread

if TYPE_CHECKING:
    import pyarrow as pa

FileIdentity = tuple[str, str, int, int, int]


class HashedFiles:
    """The files whose bytes this process hashed most recently, oldest first."""

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._identities: OrderedDict[FileIdentity, None] = OrderedDict()

    def __contains__(self, identity: FileIdentity) -> bool:
        return identity in self._identities

    def add(self, identity: FileIdentity) -> None:
        while len(self._identities) >= self._most:
            self._identities.popitem(last=False)
        self._identities[identity] = None


def identity_of(path: Path, sha256: str, found: os.stat_result) -> FileIdentity:
    """The file's identity, which differs once the file is written to or replaced."""
    return str(path), sha256, found.st_size, found.st_mtime_ns, found.st_ino


def write_arrow(path: Path, table: pa.Table, hashed: HashedFiles, *, durable: bool = True) -> store.Part:
    """Writes `table` as an Arrow file in its in-memory layout, fast to write and mappable, and returns its Part."""
    import pyarrow as pa

    def write(file: Any) -> None:
        with pa.ipc.new_file(pa.PythonFile(file, mode="w"), table.schema) as writer:
            writer.write_table(table, max_chunksize=1 << 20)

    def remember(sha256: str, written: os.stat_result) -> None:
        hashed.add(identity_of(path, sha256, written))

    return store.write_file(path, write, rows=table.num_rows, durable=durable, on_written=remember)


def map_arrow(directory: Path, part: store.Part, hashed: HashedFiles) -> pa.Table:
    """The table of an Arrow file, mapped into memory; raises DamagedError unless its bytes are those that were written.

    The file is read for this check unless it is in `hashed`, and again only if its size, inode or modification time changed.
    """
    import pyarrow as pa

    path = store.fetched(directory / part.name, part.sha256)
    try:
        found = identity_of(path, part.sha256, path.stat())
        if found not in hashed:
            if damage := store.check_part(directory, part):
                store.refuse_unread([damage])
                raise DamagedError(f"{damage}; run again to rebuild it", str(directory))
            hashed.add(found)
        with pa.memory_map(str(path)) as mapped:
            return pa.ipc.open_file(mapped).read_all()
    except FileNotFoundError:
        raise DamagedError(f"{path}: missing; run again to rebuild it", str(directory)) from None
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and (problem := unread(error, path)):
            raise problem from None
        raise DamagedError(f"{path}: damaged ({error}); run again to rebuild it", str(directory)) from None
