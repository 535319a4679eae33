"""The regular files that a corpus's inputs name, each once; an input is a file, a glob with `**` or a folder, read recursively.

Everything left out is noted, because training on a corpus that lacks a file fails nowhere:

- Inside folders, globs and archives, names that start with `.` or `_`, end in `~`, `.tmp`, `.swp`, `.bak`, `.part` and the like,
  or look like `#name#` are hidden files, markers (`_SUCCESS`), backups or files still being written; README, LICENSE,
  checksums and data set descriptions are about a corpus, not part of it. They are left out; a file that is named directly or
  matches `corpus.include` is read.
- Symbolic links inside folders and globs are not followed unless `corpus.follow_symlinks` is set; even then each real file
  counts once.
- FIFOs, sockets and devices are never opened.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ConfigError, InputError, as_list, counted, printable

PYDOCS = "pydocs:"
MAGIC = re.compile(r"[*?[]")
_UNFINISHED = ("~", ".tmp", ".swp", ".bak", ".part", ".partial", ".crdownload", ".crc")
_ABOUT = re.compile(
    r"(?:readme|licen[cs]e|copying|notice|authors|changelog|citation)(?:[._-].*)?|thumbs\.db|desktop\.ini|(?:md5|sha\d+)sums?(?:\.txt)?"
    r"|.*\.(?:md5|sha1|sha256|sha512|sfv|torrent)|dataset_infos?\.json|dataset_dict\.json|state\.json",
    re.IGNORECASE,
)
HIDDEN = "hidden, marker, backup or unfinished files|file (.x, _x, x~, #x#, .tmp, .swp, .bak, .part) were|was left out"
ABOUT = "files|file about the corpus (README, LICENSE, checksums …) were|was left out; corpus.include reads them"
NOT_CHOSEN = "files|file were|was left out by corpus.include and corpus.exclude"


@dataclass(frozen=True)
class Filter:
    """Which files inside folders, globs and archives are read, by their names."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def problem(self, path: str) -> str | None:
        """Why the file is left out; None when it is read."""
        name = os.path.basename(path)
        if any(_matches_end(path, pattern) for pattern in self.exclude):
            return NOT_CHOSEN
        if self.include:
            return None if any(_matches_end(path, pattern) for pattern in self.include) else NOT_CHOSEN
        if hidden(name):
            return HIDDEN
        return ABOUT if _ABOUT.fullmatch(name) else None


def hidden(name: str) -> bool:
    return name.startswith((".", "_")) or name.endswith(_UNFINISHED) or (name[:1] == name[-1:] == "#")


def _matches_end(path: str, pattern: str) -> bool:
    """Whether the pattern matches the file's name or, if it contains a slash, the end of its path."""
    return fnmatch.fnmatchcase(path, f"*/{pattern}") or fnmatch.fnmatchcase(
        path if "/" in pattern else os.path.basename(path), pattern
    )


@dataclass
class Search:
    """What has been seen so far while the inputs of one corpus are expanded."""

    follow_symlinks: bool
    chosen: Filter = field(default_factory=Filter)
    seen: set[tuple[int, int]] = field(default_factory=set)
    """Device and inode of every file taken."""
    seen_objects: set[str] = field(default_factory=set)
    """Addresses of all objects taken."""
    entered: set[tuple[int, int, int]] = field(default_factory=set)
    """(device, inode, glob components left to match) of every folder that the current input has entered."""
    left_out: Counter[str] = field(default_factory=Counter)
    example: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def enter(self, status: os.stat_result, left: int) -> bool:
        """Whether the folder is new to this input: ends loops of links, and many links to one folder cost no more than one."""
        key = (status.st_dev, status.st_ino, left)
        new = key not in self.entered
        self.entered.add(key)
        return new

    def leave_out(self, reason: str, path: str) -> None:
        self.left_out[reason] += 1
        self.example.setdefault(reason, path)

    def notes(self) -> list[str]:
        return [
            f"{counted(count, reason)}, for example {printable(self.example[reason], 200)}"
            for reason, count in sorted(self.left_out.items())
        ]


def find_files(pattern: str, search: Search, forbidden: Path | None) -> list[str]:
    """The regular files that one input names and no earlier input named, sorted by name.

    Raises InputError when the input matches no file at all, ConfigError when it contains `forbidden`.
    """
    search.entered.clear()
    found = sorted(_expand(pattern, search, forbidden), key=lambda path: os.fsencode(path).split(b"/"))
    if (
        not found
        and not search.unreadable
        and not any(True for _ in _expand(pattern, Search(search.follow_symlinks, search.chosen), None))
    ):
        raise _nothing_found(pattern, search)
    return found


def _expand(pattern: str, search: Search, forbidden: Path | None) -> Iterator[str]:
    if pattern.startswith("pydocs"):
        raise ConfigError(
            f"corpus.inputs: {printable(pattern)}: the docstrings of this Python are written `{PYDOCS}`, without a path"
        )
    path = os.path.expanduser(pattern)
    try:
        named = os.stat(path)
    except OSError:
        if not MAGIC.search(path):
            if os.path.lexists(path):
                search.unreadable.append(f"{path} (a link to nothing, or a folder on its way is closed)")
            return
        head = fixed_head(path)
        if forbidden:
            refuse_around(pattern, forbidden)
        yield from _glob(head, path.removeprefix(f"{head}/").lstrip("/").split("/"), search)
        return
    if stat.S_ISDIR(named.st_mode):
        if forbidden:
            refuse_around(pattern, forbidden)
        yield from _walk(path, named, search)
    else:
        yield from _take(path, named, search)


def _take(path: str, found: os.stat_result, search: Search) -> Iterator[str]:
    if not stat.S_ISREG(found.st_mode):
        search.leave_out("FIFOs|FIFO, sockets|socket or devices|device were|was left out", path)
    elif (found.st_dev, found.st_ino) in search.seen:
        search.leave_out("files|file were|was reached twice (hard link, or named by two inputs) and are|is counted once", path)
    else:
        search.seen.add((found.st_dev, found.st_ino))
        yield path


def fixed_head(pattern: str) -> str:
    """The folders before the first wildcard: `data` of data/*/x.txt, `/` or `.` when there are none."""
    fixed = []
    for component in pattern.split("/")[:-1]:
        if MAGIC.search(component):
            break
        fixed.append(component)
    return "/".join(fixed) or ("/" if pattern.startswith("/") else ".")


def _glob(directory: str, components: Sequence[str], search: Search) -> Iterator[str]:
    """Matches below `directory`; `**` is any number of folders. A folder that matches is read recursively."""
    first, rest = components[0], components[1:]
    if first == "":
        if rest:
            yield from _glob(directory, rest, search)
        return
    if first == "**":
        yield from _glob(directory, rest or ["*"], search)
    for entry, found in _matches(directory, first, search):
        if stat.S_ISDIR(found.st_mode):
            below = components if first == "**" else rest
            if not below:
                yield from _walk(entry.path, found, search)
            elif search.enter(found, len(below)):
                yield from _glob(entry.path, below, search)
        elif first != "**" and not rest:
            yield from _take(entry.path, found, search)


def _matches(directory: str, pattern: str, search: Search) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    for entry in _entries(directory, search):
        if pattern != "**" and not fnmatch.fnmatchcase(entry.name, pattern):
            continue
        if entry.name.startswith(".") and not pattern.startswith("."):
            continue
        found = _visible(entry, search)
        if found is not None:
            yield entry, found


def _walk(directory: str, status: os.stat_result, search: Search) -> Iterator[str]:
    """Files below `directory`."""
    if not search.enter(status, 0):
        return
    for entry in _entries(directory, search):
        found = _visible(entry, search)
        if found is None:
            continue
        if stat.S_ISDIR(found.st_mode):
            yield from _walk(entry.path, found, search)
        else:
            yield from _take(entry.path, found, search)


def _entries(directory: str, search: Search) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        search.unreadable.append(f"{directory}/ ({error.strerror})")
        return []


def _visible(entry: os.DirEntry[str], search: Search) -> os.stat_result | None:
    """The entry's stat, or None if it is left out; leaving it out is noted."""
    try:
        if problem := _left_out(entry, search):
            search.leave_out(problem, entry.path)
            return None
        if entry.is_symlink() and not search.follow_symlinks:
            search.leave_out("symbolic links|link were|was not followed (corpus.follow_symlinks is false)", entry.path)
            return None
        return entry.stat()
    except OSError as error:
        search.unreadable.append(f"{entry.path} ({error.strerror})")
        return None


def _left_out(entry: os.DirEntry[str], search: Search) -> str | None:
    """Why this entry is not read, or None. A folder is left out only if its name marks it as hidden."""
    if entry.is_dir(follow_symlinks=search.follow_symlinks):
        return HIDDEN if hidden(entry.name) else None
    return search.chosen.problem(entry.path)


def _nothing_found(pattern: str, search: Search) -> InputError:
    hint = "" if os.path.isabs(os.path.expanduser(pattern)) else f" (looked from {os.getcwd()})"
    notes = "".join(f"\n  {note}" for note in search.notes())
    return InputError(
        f"corpus.inputs: no file matches {printable(pattern, 300)}{hint}; check the path or download the corpus first"
        f"{printable(as_list(pattern), 300)}{notes}"
    )


def refuse_around(pattern: str, forbidden: Path) -> None:
    """Raises ConfigError if the input is a folder that contains `forbidden`, or a pattern with `**` that could match in it."""
    path = os.path.expanduser(pattern)
    folder = fixed_head(path) if "**" in path.split("/") and not os.path.lexists(path) else path
    if not os.path.isdir(folder):
        return
    if Path(os.path.realpath(forbidden)).is_relative_to(os.path.realpath(folder)):
        raise ConfigError(
            f"corpus.inputs: {printable(pattern, 300)} holds run.workdir {forbidden}: output inside input, "
            "so the run would read what it writes; choose another run.workdir or a narrower input"
        )


def refuse_place(pattern: str, forbidden: Path) -> None:
    """Raises ConfigError, without looking for files, if the input contains `forbidden` or lies inside it."""
    refuse_around(pattern, forbidden)
    path = os.path.expanduser(pattern)
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    if os.path.lexists(path) or (MAGIC.search(path) and os.path.isdir(folder)):
        refuse_inside([os.path.join(folder, os.path.basename(path))], forbidden)


def refuse_inside(found: Sequence[str], forbidden: Path) -> None:
    workdir = os.path.realpath(forbidden).rstrip(os.sep) + os.sep
    folders: dict[str, str] = {}
    for path in found:
        folder = os.path.dirname(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder) + os.sep
        if folders[folder].startswith(workdir):
            raise ConfigError(
                f"corpus.inputs: {printable(path, 300)} lies inside run.workdir {forbidden}: input inside output, "
                "so cleaning the workdir would delete it; move it or choose another run.workdir"
            )
