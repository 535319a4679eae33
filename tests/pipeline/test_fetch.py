"""Fetching a known corpus from a real HTTP server on loopback that breaks connections, lies, redirects and forgets."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import random
import subprocess
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BusyError, DataError, PipelineError, ServiceError, TemporaryError, UsageError
from pipeline.text import fetch as fetching
from pipeline.text.fetch import BLOCK_BYTES, KNOWN, Check, KnownCorpus, fetch, fetch_known, open_part
from tests.ports import free_port


def make_text(lines: int) -> bytes:
    draw = random.Random(7)
    words = [bytes(draw.choices(b"abcdefghijklmnopqrstuvwxyz", k=draw.randint(1, 9))) for _ in range(500)]
    return b"".join(b" " + b" ".join(draw.choices(words, k=8)) + b" \n" for _ in range(lines))


TEXT = make_text(20_000)
SMALL = KnownCorpus(
    file_name="small.txt",
    urls=(),
    bytes=len(TEXT),
    tokens=20_000 * 9,
    digests={"sha256": hashlib.sha256(TEXT).hexdigest(), "md5": hashlib.md5(TEXT).hexdigest()},
    line_ends=True,
)


def zipped(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


@dataclass
class Server:
    """What the server will do next, and the requests it has received."""

    address: str = ""
    content: bytes = TEXT
    ranges: bool = True
    etag: str | None = '"one"'
    break_after: list[int] = field(default_factory=list)
    """The number of bytes after which each of the next answers is cut off."""
    redirect: str | None = None
    status: int = 200
    says_length: int | None = None
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)
    """(Range, If-Range) of each request."""


class Handler(http.server.BaseHTTPRequestHandler):
    state: Server

    def do_GET(self) -> None:
        state = self.state
        asked = self.headers.get("Range")
        state.asked.append((asked, self.headers.get("If-Range")))
        if state.redirect and self.path != "/moved":
            return self._answer(302, {"Location": state.redirect})
        if state.status != 200:
            return self._answer(state.status, {})
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
        if self.headers.get("If-Range") not in (None, state.etag):
            start = 0
        if start >= len(state.content):
            return self._answer(416, {})
        body = state.content[start:]
        headers = {"Content-Length": str(state.says_length or len(body))}
        if state.etag:
            headers["ETag"] = state.etag
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(state.content) - 1}/{len(state.content)}"
        self._answer(206 if start else 200, headers, close=False)
        self.wfile.write(body[: state.break_after.pop(0)] if state.break_after else body)

    def _answer(self, status: int, headers: dict[str, str], close: bool = True) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if close:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "PAUSE_S", 0.001)
    state = Server()
    handler = type("Bound", (Handler,), {"state": state})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        state.address = f"http://127.0.0.1:{httpd.server_port}/corpus"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield state
        httpd.shutdown()
        thread.join()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(
    "pack", [lambda text: text, gzip.compress, lambda text: zipped(("text8", text))], ids=["plain", "gz", "zip"]
)
def test_a_complete_download_is_the_corpus_and_leaves_nothing_else_behind(
    tmp_path: Path, server: Server, pack: Callable[[bytes], bytes]
) -> None:
    server.content = pack(TEXT)
    path = fetch_known(SMALL, tmp_path / "new" / "folder", server.address)
    assert path == tmp_path / "new" / "folder" / "small.txt"
    assert path.read_bytes() == TEXT
    assert names(path.parent) == ["small.txt"]


def test_a_file_that_is_already_there_is_checked_and_not_fetched_again(tmp_path: Path, server: Server) -> None:
    fetch_known(SMALL, tmp_path, server.address)
    fetch_known(SMALL, tmp_path, server.address)
    assert len(server.asked) == 1
    (tmp_path / "small.txt").write_bytes(TEXT[:-1])
    with pytest.raises(DataError, match=r"small\.txt: expected small\.txt, found another file \(expected .* bytes.*move it away"):
        fetch_known(SMALL, tmp_path, server.address)
    assert (tmp_path / "small.txt").read_bytes() == TEXT[:-1], "a file of the user's is never touched"


def test_a_broken_connection_goes_on_where_it_stopped_in_the_same_call(tmp_path: Path, server: Server) -> None:
    server.break_after = [300_000, 10, 400_000]
    assert fetch_known(SMALL, tmp_path, server.address).read_bytes() == TEXT
    assert server.asked == [(None, None), *((f"bytes={at}-", '"one"') for at in (300_000, 300_010, 700_010))]


def test_a_broken_connection_goes_on_where_it_stopped_in_another_call(tmp_path: Path, server: Server) -> None:
    server.break_after = [300_000, 0, 0, 0, 0]
    with pytest.raises(TemporaryError, match=r"broke off after 300,000 bytes .*run the same command again, it continues there"):
        fetch_known(SMALL, tmp_path, server.address)
    assert "small.txt" not in names(tmp_path)
    server.asked.clear()
    assert fetch_known(SMALL, tmp_path, server.address).read_bytes() == TEXT
    assert server.asked == [("bytes=300000-", '"one"')]
    assert names(tmp_path) == ["small.txt"]


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(tmp_path: Path, server: Server) -> None:
    server.content, server.break_after = bytes(len(TEXT)), [300_000, 0, 0, 0, 0]
    with pytest.raises(TemporaryError):
        fetch_known(SMALL, tmp_path, server.address)
    server.content, server.etag = TEXT, '"two"'
    assert fetch_known(SMALL, tmp_path, server.address).read_bytes() == TEXT


def test_a_server_without_ranges_or_versions_is_asked_for_everything_again(tmp_path: Path, server: Server) -> None:
    server.ranges, server.etag, server.break_after = False, None, [300_000]
    assert fetch_known(SMALL, tmp_path, server.address).read_bytes() == TEXT
    assert len(server.asked) == 2


def test_another_address_does_not_continue_the_part_of_the_first(tmp_path: Path, server: Server) -> None:
    server.break_after = [300_000, 0, 0, 0, 0]
    with pytest.raises(TemporaryError):
        fetch_known(SMALL, tmp_path, server.address)
    server.asked.clear()
    assert fetch_known(SMALL, tmp_path, server.address + "?mirror").read_bytes() == TEXT
    assert server.asked == [(None, None)]


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path: Path, server: Server) -> None:
    server.break_after = [300_000, 0, 0, 0, 0]
    with pytest.raises(TemporaryError):
        fetch_known(SMALL, tmp_path, server.address)
    (part,) = (path for path in tmp_path.iterdir() if path.suffix == ".part")
    part.write_bytes(bytes(len(TEXT)))
    assert fetch_known(SMALL, tmp_path, server.address).read_bytes() == TEXT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT[:-1] + b"x", r"small\.txt: expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}; nothing was kept"),
        (TEXT[:-10], r"small\.txt: expected [\d,]+ bytes, found [\d,]+; nothing was kept"),
        (TEXT + b"x", r"small\.txt: expected [\d,]+ bytes, found more than [\d,]+; nothing was kept"),
        (TEXT * 2, r"expected at most [\d,]+ bytes, found [\d,]+; nothing was kept"),
        (gzip.compress(bytes(8 << 20)), r"expected [\d,]+ bytes, found more than [\d,]+; nothing was kept"),
        (gzip.compress(TEXT)[:-4000], r"the archive is damaged \(.*\); nothing was kept, fetch it again"),
        (zipped(("../../evil", TEXT), ("b", b"")), r"expected an archive of one file, found 2; nothing was kept"),
        (zipped(("text8", TEXT))[:-4000], r"the archive is damaged \(.*\); nothing was kept, fetch it again"),
    ],
    ids=["altered", "short", "long", "far too long", "bomb", "cut gz", "two members", "cut zip"],
)
def test_a_download_of_something_else_is_not_kept(tmp_path: Path, server: Server, content: bytes, message: str) -> None:
    server.content = content
    with pytest.raises(DataError, match=message):
        fetch_known(SMALL, tmp_path / "data", server.address)
    assert names(tmp_path / "data") == []
    assert names(tmp_path) == ["data"]


def test_a_member_with_a_path_for_a_name_ends_under_our_name(tmp_path: Path, server: Server) -> None:
    server.content = zipped(("../../../etc/evil", TEXT))
    assert fetch_known(SMALL, tmp_path / "data", server.address) == tmp_path / "data" / "small.txt"
    assert names(tmp_path) == ["data"]
    assert names(tmp_path / "data") == ["small.txt"]


def test_an_address_without_the_file_is_named_and_the_next_is_tried(tmp_path: Path, server: Server) -> None:
    server.status = 404
    with pytest.raises(
        ServiceError, match=r"/corpus: the server answers 404 Not Found; check the network, or .* --url"
    ) as caught:
        fetch_known(SMALL, tmp_path, server.address)
    assert caught.value.exit_code == 69
    server.status = 200
    closed = "http://127.0.0.1:9/corpus"
    assert fetch_known(replace(SMALL, urls=(closed, server.address)), tmp_path).read_bytes() == TEXT


def test_an_overloaded_server_is_asked_again_a_few_times(tmp_path: Path, server: Server) -> None:
    server.status = 503
    with pytest.raises(ServiceError, match=r"gives nothing \(the server answers 503\)"):
        fetch_known(SMALL, tmp_path, server.address)
    assert len(server.asked) == fetching.FRUITLESS_TRIES


def test_a_redirect_is_followed_on_the_web_and_nowhere_else(tmp_path: Path, server: Server) -> None:
    server.redirect = server.address.replace("/corpus", "/moved")
    assert fetch_known(SMALL, tmp_path, server.address).read_bytes() == TEXT
    secret = tmp_path / "secret.txt"
    secret.write_bytes(TEXT)
    for bad in (secret.as_uri(), "ftp://127.0.0.1/x", "data:text/plain,x"):
        server.redirect = bad
        with pytest.raises(ServiceError, match=r"redirects to .*, which is refused"):
            fetch_known(SMALL, tmp_path / "data", server.address)


def test_a_redirect_from_https_to_http_is_refused() -> None:
    request = urllib.request.Request("https://host/corpus")
    with pytest.raises(ServiceError, match=r"https://host/corpus: redirects to http://host/corpus, which is refused"):
        fetching.WebOnly().redirect_request(request, None, 302, "", {}, "http://host/corpus")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "/etc/passwd", "data:text/plain,x"])
def test_an_address_that_is_not_of_the_web_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="expected an address of http:// or https://"):
        fetch("text8", tmp_path, url)


def test_a_password_in_the_address_is_never_shown_or_written(tmp_path: Path, server: Server) -> None:
    server.break_after = [300_000, 0, 0, 0, 0]
    with pytest.raises(TemporaryError) as caught:
        fetch_known(SMALL, tmp_path, server.address + "?token=s3cret")
    assert "s3cret" not in str(caught.value)
    assert not any(b"s3cret" in path.read_bytes() for path in tmp_path.iterdir())


def test_two_fetches_into_one_folder_do_not_mix(tmp_path: Path, server: Server) -> None:
    with open_part(tmp_path / ".small.txt.part"), pytest.raises(BusyError, match="another fetch is at work on it"):
        fetch_known(SMALL, tmp_path, server.address)


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one of ptb, text8, found 'enwik9'"):
        fetch("enwik9", tmp_path)


def test_a_full_disk_is_reported_as_such(small_disk: Path, server: Server) -> None:
    (small_disk / "filler").write_bytes(bytes((2 << 20) - (len(TEXT) // 2 // 4096) * 4096))
    with pytest.raises(PipelineError, match="the disk is full") as caught:
        fetch_known(SMALL, small_disk, server.address)
    assert caught.value.exit_code == 74
    assert not (small_disk / "small.txt").exists()


@given(
    text=st.binary(max_size=200).map(lambda raw: raw.translate(bytes(b"ab \n\t"[byte % 5] for byte in range(256)))),
    data=st.data(),
)
def test_tokens_are_counted_the_same_however_the_stream_is_cut(text: bytes, data: st.DataObject) -> None:
    for line_ends in (False, True):
        check = Check(replace(SMALL, line_ends=line_ends))
        rest = text
        while rest:
            cut = data.draw(st.integers(1, len(rest)))
            check.take(rest[:cut])
            rest = rest[cut:]
        assert check.tokens == len(text.split()) + (text.count(b"\n") if line_ends else 0)
        assert check.size == len(text)


def test_the_known_corpora_are_described_in_full() -> None:
    assert len(TEXT) > 3 * BLOCK_BYTES, "the small corpus must not fit into one block, or breaking off proves little"
    for known in KNOWN.values():
        assert known.digests
        assert all(len(digest) == 2 * hashlib.new(name).digest_size for name, digest in known.digests.items())
        assert all(url.startswith("https://") for url in known.urls)
        assert Path(known.file_name).name == known.file_name


def test_an_address_that_nobody_answers_is_told_once_and_in_words(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/text8.zip"
    command = [sys.executable, "-m", "pipeline.cli", "fetch", "text8", str(tmp_path), "--url", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    way_out = "check the network, or give the address of a copy with --url"
    assert (done.returncode, done.stderr) == (69, f"w2v: {url}: cannot be reached (Connection refused); {way_out}\n")
