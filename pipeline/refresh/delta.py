"""What became of a corpus's files since the last good result: decided by content, never by time.

Pure: two lists of (path, bytes, SHA-256) in, names out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHOWN = 20
File = Sequence[Any]
"""(path, bytes, SHA-256)"""


@dataclass(frozen=True)
class Delta:
    """Paths, sorted."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """The same path with other bytes, whatever its size and time."""
    renamed: tuple[tuple[str, str], ...] = ()
    """(path before, path now) of the same bytes."""
    deleted: tuple[str, ...] = ()

    @property
    def removes_text(self) -> bool:
        """Whether text that was there is not there any more."""
        return bool(self.changed or self.deleted)

    @property
    def empty(self) -> bool:
        return not (self.added or self.changed or self.renamed or self.deleted)

    def as_data(self, shown: int = SHOWN) -> dict[str, Any]:
        """Counts, and the first names of each kind."""
        kinds: dict[str, Sequence[Any]] = {
            "added": self.added,
            "changed": self.changed,
            "renamed": [list(pair) for pair in self.renamed],
            "deleted": self.deleted,
        }
        return {name: {"files": len(found), "names": list(found[:shown])} for name, found in kinds.items()}


def compare(before: Sequence[File], now: Sequence[File]) -> Delta:
    """What has to be done to the files of `before` to get those of `now`. A file that is gone and one with its bytes that is new
    are one that was renamed; of several with the same bytes the first in order of their names are paired."""
    old, new = ({file[0]: file[2] for file in files} for files in (before, now))
    gone: dict[str, list[str]] = defaultdict(list)
    for path in sorted(old.keys() - new.keys()):
        gone[old[path]].append(path)
    renamed, added = [], []
    for path in sorted(new.keys() - old.keys()):
        if gone[new[path]]:
            renamed.append((gone[new[path]].pop(0), path))
        else:
            added.append(path)
    changed = sorted(path for path in new.keys() & old.keys() if old[path] != new[path])
    deleted = sorted(path for paths in gone.values() for path in paths)
    return Delta(tuple(added), tuple(changed), tuple(sorted(renamed)), tuple(deleted))
