"""A bucket into which somebody else puts objects, and a server that answers whatever it likes: no file elsewhere is written, no
bytes are invented, nothing hangs and no secret is repeated."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from pipeline.errors import ConfigError, DamagedError, InputError, PipelineError, ServiceError
from pipeline.formats.published import bring_vectors
from pipeline.options.storage import Storage
from pipeline.safety.seals import json_bytes, sealed
from pipeline.storage import lease
from pipeline.storage.addresses import parse_address
from pipeline.storage.copies import begin
from pipeline.storage.objects import ObjectFile, listing, read_object
from tests.storage.server import ENVIRONMENT, KEYS, Front

PLACE = parse_address("s3://bucket/runs/a", "test")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def front() -> Iterator[Front]:
    """A proxy without a server behind it: the tests supply its answers."""
    found = Front("http://127.0.0.1:9")
    yield found
    found.close()


def listed(*keys: str) -> bytes:
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>2</Size></Contents>"
        for key in keys
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode()


def holds(front: Front, *keys: str, body: bytes = b"{}") -> Callable[[str, str], tuple[int, bytes]]:
    """Answers like a bucket with these keys, whose objects have two bytes each."""

    def answer(method: str, path: str) -> tuple[int, bytes]:
        return 200, listed(*keys) if "list-type" in path else body

    front.answer = answer
    return answer


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_key_of_a_bucket_leads_out_of_the_copy(front: Front, tmp_path: Path) -> None:
    target = tmp_path / "secret.txt"
    target.write_text("mine")
    out = "../" * 6
    holds(
        front, f"runs/a/{out}{target.relative_to('/')}", f"runs/a/{target}", "runs/a/../x.json", "runs/a/./x", "runs/a/..",
        "runs/a/" + "l" * 300, "elsewhere.json", "runs/ab", "runs/a/sum\x1b[31m.json", "runs/a/history/000001.json",
    )  # fmt: skip
    copy = begin(PLACE, Storage(endpoint=front.address, cache=str(tmp_path / "cache"), patience_s=5))
    copy.pull()
    assert target.read_text() == "mine"
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    inside = {name for name in found if name.startswith(f"cache/w2v-buckets/{copy.root.name}/")}
    assert found - inside == {"secret.txt"}
    assert copy.root / "history" / "000001.json" in map(tmp_path.__truediv__, inside)


def test_an_object_with_objects_below_it_is_named(front: Front, tmp_path: Path) -> None:
    holds(front, "runs/a/history", "runs/a/history/000001.json")
    copy = begin(PLACE, Storage(endpoint=front.address, cache=str(tmp_path), patience_s=5))
    with pytest.raises(DamagedError, match=r"s3://bucket/runs/a/history: is an object and also has objects below it"):
        copy.pull()


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b"\xff\xfe", b"[1]", b'{"who": {"a": 1}, "here": []}'],
    ids=["nested", "no text", "a list", "of other kinds"],
)
def test_a_claim_that_somebody_made_up_is_somebodys(front: Front, body: bytes) -> None:
    storage = Storage(endpoint=front.address, patience_s=5)
    front.answer = lambda method, path: (200, listed("runs/a/.lease/x.json") if "list-type" in path else body)
    assert isinstance(lease.holder(PLACE, storage), str)


@pytest.mark.parametrize(
    "body",
    [
        {"folder": "../..", "files": {"vectors.bin": {"bytes": 1, "sha256": "0" * 64}}},
        {"files": {"../x.bin": {"sha256": "0" * 64}}},
        {"folder": "f", "files": {"a.bin": 7, "b.bin": {"sha256": None}}},
        {"folder": "f", "files": [["a.bin"]]},
        {"vectors": {"vectors.npy": "../../../other/0", "..": "x", "a\0b": "x/0", "c": None}},
        {"vectors": []},
    ],
)
def test_what_latest_json_names_is_confined_to_its_place(front: Front, tmp_path: Path, body: dict[str, object]) -> None:
    storage = Storage(endpoint=front.address, cache=str(tmp_path), patience_s=5)
    told = json_bytes(sealed(body))

    def answer(method: str, path: str) -> tuple[int, bytes]:
        if path.startswith("/bucket/runs/a/latest.json"):
            return 200, told
        return (200, b"") if path in ("/bucket", "/bucket/") else (404, b"")

    front.answer = answer
    with pytest.raises(InputError, match="no vectors here"):
        bring_vectors(PLACE, storage)
    assert not any("other" in path or ".." in path for _, path, _ in front.seen)


@pytest.mark.parametrize("path", ["/dev/zero", "fifo", "nothing"])
def test_certificates_that_are_no_file_are_refused_at_once(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with pytest.raises(ConfigError, match=rf"storage.ca_file: {path} does not exist or is not a file"):
        read_object(PLACE, Storage(endpoint="https://127.0.0.1:9", ca_file=path, patience_s=1))


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Raw:
    """A server that sends the given pieces, one after another, with a pause between them."""

    def __init__(self, answer: Callable[[bytes], Iterator[tuple[bytes, float]]]) -> None:
        self._answer, self._socket = answer, socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            request = b""
            try:
                while data := connection.recv(1 << 16):
                    request += data
                    while b"\r\n\r\n" in request:
                        head, _, request = request.partition(b"\r\n\r\n")
                        for piece, pause_s in self._answer(head):
                            connection.sendall(piece)
                            time.sleep(pause_s)
            except OSError:
                return

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def raw() -> Iterator[Callable[[Callable[[bytes], Iterator[tuple[bytes, float]]]], Raw]]:
    made: list[Raw] = []

    def serve(answer: Callable[[bytes], Iterator[tuple[bytes, float]]]) -> Raw:
        made.append(Raw(answer))
        return made[-1]

    yield serve
    for one in made:
        one.close()


def head_of(size: int, status: bytes = b"200 OK") -> bytes:
    return b'HTTP/1.1 %s\r\nContent-Length: %d\r\nETag: "x"\r\n\r\n' % (status, size)


def test_an_answer_that_is_shorter_than_it_says_is_no_content(raw: Callable[..., Raw]) -> None:
    """pyarrow returns the memory that it did not fill, which is whatever was there: bytes that the object never had."""

    def answer(head: bytes) -> Iterator[tuple[bytes, float]]:
        if head.startswith(b"HEAD"):
            yield head_of(1000), 0
        else:
            yield head_of(999, b"206 Partial Content") + b"z" * 999, 0

    storage = Storage(endpoint=raw(answer).address, patience_s=0.5)
    for ask in (lambda: ObjectFile(PLACE, storage).read(), lambda: read_object(PLACE, storage)):
        with pytest.raises(ServiceError, match=r"of 1,000 bytes from byte 0 on http://127.0.0.1:\d+ sends fewer"):
            ask()


def test_a_byte_that_looks_like_a_short_answer_is_asked_for_twice(raw: Callable[..., Raw]) -> None:
    data = bytes(range(256))

    def answer(head: bytes) -> Iterator[tuple[bytes, float]]:
        yield head_of(256, b"200 OK" if head.startswith(b"HEAD") else b"206 Partial Content"), 0
        yield b"" if head.startswith(b"HEAD") else data, 0

    assert read_object(PLACE, Storage(endpoint=raw(answer).address, patience_s=5)) == data


@pytest.mark.parametrize("size", [10**18, 1 << 40])
def test_an_object_that_says_it_is_endless_is_not_held(size: int, raw: Callable[..., Raw]) -> None:
    storage = Storage(endpoint=raw(lambda head: iter([(head_of(size), 0.0)])).address, patience_s=0.5)
    with pytest.raises(InputError, match="no more than 268,435,456 are read of such an object"):
        read_object(PLACE, storage)


READ_SLOWLY = """
import os
import sys
from pipeline.options.storage import Storage
from pipeline.storage import failures
from pipeline.storage.addresses import parse_address
from pipeline.storage.objects import read_object
failures.ANSWERED_S = 1.0
try:
    read_object(parse_address("s3://bucket/a", "test"), Storage(endpoint=sys.argv[1], patience_s=0.5))
except Exception as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(1)  # as w2v does: pyarrow waits for its requests at the end of Python
"""


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(raw: Callable[..., Raw]) -> None:
    """In a process of its own: in one where such a request is left behind, pyarrow makes no further one."""

    def answer(head: bytes) -> Iterator[tuple[bytes, float]]:
        yield head_of(1000), 0
        if not head.startswith(b"HEAD"):
            yield from ((b"z", 0.2) for _ in range(1000))

    command = [sys.executable, "-c", READ_SLOWLY, raw(answer).address]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "ServiceError: s3://bucket/a" in ended.stderr
    assert "no result within 1 s" in ended.stderr


def test_what_is_sent_elsewhere_carries_no_secret_and_what_a_server_repeats_is_not_shown(
    front: Front, raw: Callable[..., Raw]
) -> None:
    asked: list[bytes] = []

    def elsewhere(head: bytes) -> Iterator[tuple[bytes, float]]:
        asked.append(head)
        yield head_of(0, b"404 Not Found"), 0

    other = raw(elsewhere)
    redirect = b"HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\nLocation: %s/x\r\n\r\n" % other.address.encode()
    storage = Storage(endpoint=raw(lambda head: iter([(redirect, 0.0)])).address, patience_s=0.5)
    with pytest.raises((PipelineError, FileNotFoundError)):
        read_object(PLACE, storage)
    secret = KEYS["AWS_SECRET_ACCESS_KEY"]
    assert not any(secret.encode() in head for head in asked)
    repeated = f"<Error><Code>Odd</Code><Message>{json.dumps(KEYS)}</Message></Error>".encode()
    front.answer = lambda method, path: (400, repeated)
    with pytest.raises(PipelineError) as found:
        list(listing(PLACE, Storage(endpoint=front.address, patience_s=0.5)))
    assert "AWS_SECRET_ACCESS_KEY" in str(found.value)
    assert not any(value in str(found.value) for value in KEYS.values())
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == secret
