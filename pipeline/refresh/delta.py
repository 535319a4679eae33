"""The changes to a corpus's files since the last good result, by content, never by time.

Pure: two lists of (path, bytes, SHA-256) in, paths out.
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
    """The changes between two states of a corpus, as sorted paths."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Paths with other bytes than before, whatever their sizes and times."""
    renamed: tuple[tuple[str, str], ...] = ()
    """(old path, new path) of the same bytes."""
    deleted: tuple[str, ...] = ()

    @property
    def removes_text(self) -> bool:
        """Whether some earlier text is gone."""
        return bool(self.changed or self.deleted)

    @property
    def empty(self) -> bool:
        return not (self.added or self.changed or self.renamed or self.deleted)

    def as_data(self, shown: int = SHOWN) -> dict[str, Any]:
        """The number of files and the first paths of each kind."""
        kinds: dict[str, Sequence[Any]] = {
            "added": self.added,
            "changed": self.changed,
            "renamed": [list(pair) for pair in self.renamed],
            "deleted": self.deleted,
        }
        return {name: {"files": len(found), "names": list(found[:shown])} for name, found in kinds.items()}


def compare(before: Sequence[File], now: Sequence[File]) -> Delta:
    """The changes from `before` to `now`. A missing file and a new file with the same bytes count as renamed; if several have the
    same bytes, they are paired in the order of their names."""
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
