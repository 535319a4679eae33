"""The errors that users see: one message, one exit code (sysexits.h), never a traceback.

Every error states what was expected, what was found, where, and what to do next. The command line prints the message and exits
with `exit_code`; library callers catch `PipelineError` or one of its subclasses.
"""

from __future__ import annotations

import errno
import os
import re
import resource
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from w2v_core.text.printable import printable as printable  # shown in most messages, so it is at hand where they are

EXIT_CODES: dict[int, str] = {
    0: "complete and verified",
    64: "the command line is wrong",
    65: "the data cannot be used (empty corpus, broken file, training diverged)",
    66: "an input does not exist or cannot be opened",
    69: "a service is not available (cluster, download address)",
    70: "a bug in this program",
    71: "the machines lack what the run would need (memory, shared memory, disk), so it was not started",
    73: "another run is working in this workdir",
    74: "reading or writing failed (disk full, damaged artefact without its inputs)",
    75: "a temporary failure; the same command continues where this one stopped",
    77: "permission denied",
    78: "the configuration is wrong",
    79: "the gates of a refresh kept the new vectors out; the champion stays",
    130: "interrupted by Ctrl-C; the same command resumes",
    141: "nobody reads the output any more, as after `| head`; finished work is kept",
    143: "terminated by SIGTERM; the same command resumes",
}


class PipelineError(Exception):
    """An error meant for the user. `exit_code` is the process's exit status."""

    exit_code = 70


class UsageError(PipelineError):
    exit_code = 64


class DataError(PipelineError):
    exit_code = 65


class DivergedError(DataError):
    """Training produced a number that is not finite; names round, lane and α."""


class InputError(PipelineError):
    exit_code = 66


class ServiceError(PipelineError):
    exit_code = 69


class CapacityError(PipelineError):
    """A plan that does not fit into the workers' memory or onto the disk; says by how much, and what would help."""

    exit_code = 71


class BusyError(PipelineError):
    exit_code = 73


class StorageError(PipelineError):
    exit_code = 74


class DamagedError(StorageError):
    """A file of an artefact is missing, cut or altered; names the artefact's directory and the file."""

    def __init__(self, message: str, directory: str) -> None:
        super().__init__(message)
        self.directory = directory

    def __reduce__(self) -> tuple[type[DamagedError], tuple[str, str]]:
        return type(self), (str(self), self.directory)


class UnreadError(StorageError):
    """A file that may be intact could not be read. Not damage, which is removed and made again: it may be the only copy of
    something good."""


class TemporaryError(PipelineError):
    exit_code = 75


class PermissionDeniedError(PipelineError):
    exit_code = 77


class ConfigError(PipelineError):
    exit_code = 78


def explained(error: Exception) -> PipelineError | None:
    """The error for one that nothing else has handled: what the machine lacks, or which file and the system's message. None if
    it comes from elsewhere: a bug."""
    is_loading = isinstance(error, ImportError | OSError) and _UNLOADED.search(str(error))
    if isinstance(error, MemoryError) or is_loading:
        addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
        if addresses != resource.RLIM_INFINITY:
            return CapacityError(f"out of memory: this process has {amount(addresses)} of addresses; raise the limit (ulimit -v)")
        return CapacityError("out of memory; close other programs, or set a smaller train.vector_size or vocab.max_size")
    if isinstance(error, BlockingIOError) or (isinstance(error, RuntimeError) and str(error) == "can't start new thread"):
        return CapacityError(
            "no further thread or process can be started; raise the limit that is reached: of processes (ulimit -u), of "
            "addresses (ulimit -v), or of the container (pids)"
        )
    if not isinstance(error, OSError):
        return None
    if isinstance(error, FileNotFoundError) and error.filename is None and not _has_current_folder():
        return InputError("the current folder does not exist any more; change to one that does")
    kind = PermissionDeniedError if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else StorageError
    name = error.filename if isinstance(error.filename, str | bytes) else None
    where = "reading or writing failed" if name is None else printable(os.fsdecode(name), 200)
    return kind(f"{where}: {error.strerror or printable(str(error), 200) or type(error).__name__}; finished work is kept")


def _has_current_folder() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def amount(size: int) -> str:
    """Bytes in readable units: 1.2 TB, 15 GB, 340 MB, 12 kB (powers of ten)."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}" if size < 10 * scale else f"{size / scale:,.0f} {unit}"
    return f"{size} bytes"


def counted(number: int, words: str) -> str:
    """The number and what there is so often; words that differ for one are written twice: `files|file were|was left out`."""
    return f"{number:,} " + _EITHER.sub(r"\2" if number == 1 else r"\1", words)


_UNLOADED = re.compile("failed to map segment from shared object|cannot allocate memory", re.IGNORECASE)
"""What the system says if there is too little memory, also for a library."""


def as_list(text: str) -> str:
    """How a list is written, as the end of a message about one text with a comma, which may have meant several."""
    return f"; a list is written [{text}]" if "," in text else ""


_EITHER = re.compile(r"(\w+)\|(\w+)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")


def without_credentials(text: str) -> str:
    """`text` with user names, passwords, queries and fragments removed from every URL in it."""

    def strip(match: re.Match[str]) -> str:
        try:
            parts = urlsplit(match.group())
        except ValueError:
            return "[an address that cannot be parsed]"
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")) if parts.netloc else match.group()

    return _URL.sub(strip, text)


def explain_os_error(error: OSError, path: Path, needed: int = 1) -> PipelineError:
    """The error to show for an OSError on `path`; for a full disk, with the bytes free and the least number of bytes (`needed`)
    that were still to be written, or with what else has run out."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        there = os.statvfs(_existing_parent(path))
        free = there.f_bavail * there.f_frsize
        full = f"the disk is full ({free:,} bytes free there, at least {needed:,} needed)"
        if error.errno == errno.EDQUOT:
            full = "the quota of this user is used up there"
        elif there.f_files and not there.f_favail and free >= needed:
            full = f"the file system has no room for another file, whatever its size ({free:,} bytes free, no inode)"
        return StorageError(f"{path}: {full}; make space and run the same command again, it continues")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDeniedError(
            f"{path}: cannot write here ({error.strerror}); choose another folder (of a run: run.workdir) or change the rights"
        )
    if error.errno == errno.EFBIG:
        limit, again = file_limit(), "run the same command again, it continues"
        if limit is None:
            return StorageError(f"{path}: the file system takes no file so large; choose another folder and {again}")
        return StorageError(f"{path}: no file may be larger than {limit:,} bytes here; raise the limit (ulimit -f) and {again}")
    return StorageError(f"{path}: writing failed ({error.strerror or error}); nothing was committed, run the same command again")


def file_limit() -> int | None:
    """The most bytes that this process may write to a file, in shared memory too (RLIMIT_FSIZE); None = any number."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if limit == resource.RLIM_INFINITY else limit


_MAY_PASS = (
    errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT,
    errno.EREMOTEIO,
)  # fmt: skip


def unread(error: OSError, path: Path | str) -> UnreadError | None:
    """The error to raise if a file could not be read for a reason that says nothing about its content, such as missing rights
    or a server that is away. None for any other error, which means damage."""
    if error.errno not in _MAY_PASS:
        return None
    return UnreadError(
        f"{path}: cannot be read ({error.strerror}); it may be intact, so nothing was removed: put that right, or remove it, and "
        "run the same command again"
    )


def told_of_file(error: Exception, path: Path, way_out: str = "") -> str:
    """What `w2v verify` says of a file that was read with this error: it is damaged, or only cannot be read just now."""
    problem = unread(error, path) if isinstance(error, OSError) else None
    return str(problem or f"{path}: damaged ({error}){way_out}")


def _existing_parent(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
