"""If a bucket cannot be reached, the reason is given once, in plain words, in bounded time, and without a secret."""

from __future__ import annotations

import socket
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Corpus, Storage, parse_config
from pipeline.errors import ConfigError, InputError, PermissionDeniedError, ServiceError
from pipeline.options.paths import anchored, portable
from pipeline.storage.addresses import Address, is_address, parse_address
from pipeline.storage.filesystems import file_system
from pipeline.storage.objects import ObjectFile, listing, put_file, put_object, read_object, remove_object, size_of
from pipeline.text.corpus import plan_corpus
from tests.ports import free_port
from tests.storage.server import KEYS, Front, error_of, make_bucket, s3_server

CORPUS = b"one two three\n" * 1000
AT_ONCE_S = 30.0
"""More than a busy machine holds up one request, and less than those who wait for `storage.patience_s` or for a whole answer."""


def through(front: Front, storage: Storage, patience_s: float = 20.0) -> Storage:
    return storage.model_copy(update={"endpoint": front.address, "patience_s": patience_s})


def test_a_server_that_fails_for_a_while_is_asked_again(front: Front, bucket: Address, storage: Storage) -> None:
    put_object(bucket / "a.txt", CORPUS, storage)
    until = time.monotonic() + 1.5
    front.answer = lambda method, path: (503, error_of("SlowDown")) if time.monotonic() < until else None
    (planned,) = plan_corpus(Corpus(inputs=[f"{bucket}/a.txt"]), through(front, storage)).files
    assert planned.size == len(CORPUS)
    until = time.monotonic() + 1.5
    put_object(bucket / "b.txt", b"new", through(front, storage))
    assert read_object(bucket / "b.txt", storage) == b"new"


def test_a_request_that_fails_in_the_middle_of_an_object_is_made_again(front: Front, bucket: Address, storage: Storage) -> None:
    data = bytes(range(256)) * 8192
    put_object(bucket / "a.bin", data, storage)
    failed: list[str] = []

    def fail_every_second(method: str, path: str) -> tuple[int, bytes] | None:
        failed.append(method)
        return (500, error_of("InternalError")) if len(failed) % 2 else None

    with ObjectFile(bucket / "a.bin", through(front, storage)) as file:
        front.answer = fail_every_second
        assert b"".join(iter(lambda: file.read(100_000), b"")) == data
        file.seek(-300, 2)
        assert file.read(200) == data[-300:-100]
    assert len(failed) > 4, "several ranges, each of them twice"


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_keeps_failing_is_given_up_within_the_configured_time(
    status: int, front: Front, bucket: Address, storage: Storage
) -> None:
    front.answer = lambda method, path: (status, error_of("InternalError"))
    started = time.monotonic()
    with pytest.raises(ServiceError, match=r"gave no usable answer in \d+ attempts .* check storage.endpoint"):
        read_object(bucket / "a.txt", through(front, storage, 1.0))
    assert time.monotonic() - started < AT_ONCE_S


def test_an_endpoint_without_a_server_is_reported_within_the_configured_time() -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(ServiceError, match=rf"s3://bucket/a: {endpoint} gave no usable answer.*Could not connect"):
        plan_corpus(Corpus(inputs=["s3://bucket/a"]), Storage(endpoint=endpoint, patience_s=1))
    assert time.monotonic() - started < AT_ONCE_S


def test_a_server_that_never_answers_is_given_up(bucket: Address) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        storage = Storage(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}", patience_s=1, options={"request_timeout": 1.0})
        started = time.monotonic()
        with pytest.raises(ServiceError, match=r"gave no usable answer"):
            read_object(bucket / "a", storage)
        assert time.monotonic() - started < AT_ONCE_S


def test_a_bucket_that_is_missing_is_named(storage: Storage) -> None:
    for ask in (
        lambda: plan_corpus(Corpus(inputs=["s3://no-such-bucket/a/*.txt"]), storage),
        lambda: put_object(parse_address("s3://no-such-bucket/a", "x"), b"x", storage),
    ):
        with pytest.raises(InputError, match=r"there is no bucket no-such-bucket at http://127.0.0.1:\d+; create it"):
            ask()


def test_wrong_credentials_are_named_by_where_they_came_from_and_never_shown() -> None:
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as endpoint:
        storage, address = Storage(endpoint=endpoint), parse_address("s3://bucket/a.txt", "x")
        started = time.monotonic()
        for ask in (
            lambda: plan_corpus(Corpus(inputs=[str(address)]), storage),
            lambda: put_object(address, b"x", storage),
            lambda: list(listing(address, storage)),
        ):
            with pytest.raises(
                PermissionDeniedError, match=r"credentials came from AWS_ACCESS_KEY_ID in the environment"
            ) as found:
                ask()
            assert found.value.exit_code == 77
            assert not any(secret in str(found.value) for secret in KEYS.values())
        assert time.monotonic() - started < AT_ONCE_S, "nothing to be tried again"


def test_without_credentials_the_message_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, front: Front, storage: Storage
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    front.answer = lambda method, path: (403, error_of("AccessDenied"))
    with pytest.raises(PermissionDeniedError, match=r"nowhere: no AWS_ACCESS_KEY_ID, no AWS_PROFILE, no ~/.aws/credentials"):
        read_object(parse_address("s3://bucket/a.txt", "x"), through(front, storage))


def test_a_profile_signs_requests_unless_keys_in_the_environment_would_win(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: str
) -> None:
    (tmp_path / "credentials").write_text("[mine]\naws_access_key_id = of-the-profile\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    storage = Storage(endpoint=server, profile="mine")
    with pytest.raises(ConfigError, match=r"storage.profile: mine would not be used, because AWS_ACCESS_KEY_ID"):
        file_system(parse_address("s3://bucket", "x"), storage)
    for name in KEYS:
        monkeypatch.delenv(name)
    headers: list[str] = []
    front = Front(server)
    try:
        front.on_headers = lambda found: headers.append(found.get("authorization", ""))
        size_of(parse_address("s3://bucket/a", "x"), storage.model_copy(update={"endpoint": front.address}))
    finally:
        front.close()
    assert headers
    assert all("Credential=of-the-profile/" in text for text in headers)


def test_a_wrong_region_is_reported(front: Front, storage: Storage) -> None:
    front.answer = lambda method, path: (400, error_of("AuthorizationHeaderMalformed"))
    with pytest.raises(ConfigError, match=r"has the bucket in another region; set storage.region"):
        put_object(parse_address("s3://bucket/a", "x"), b"x", through(front, storage))


def test_a_file_is_put_whole_and_removed(tmp_path: Path, bucket: Address, storage: Storage) -> None:
    data = bytes(range(251)) * 60_000  # several pieces of an upload
    (tmp_path / "file").write_bytes(data)
    put_file(bucket / "deep/file.gz", tmp_path / "file", storage)
    assert read_object(bucket / "deep/file.gz", storage) == data, "nothing is compressed because of its name"
    assert [found.key for found in listing(bucket / "deep", storage)] == ["deep/file.gz"]
    remove_object(bucket / "deep/file.gz", storage)
    remove_object(bucket / "deep/file.gz", storage)
    assert size_of(bucket / "deep/file.gz", storage) is None
    with pytest.raises(FileNotFoundError):
        read_object(bucket / "deep/file.gz", storage)


# ── configurations ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("s3://bucket", "bucket"),
        ("s3://bucket/", "bucket"),
        ("s3://bucket/a/b/", "bucket/a/b"),
        ("gs://my_bucket/a b/ü", "my_bucket/a b/ü"),
        ("abfss://texts@account.dfs.core.windows.net/a/b", "texts/a/b"),
    ],
)
def test_an_address_is_read_and_written(text: str, path: str) -> None:
    found = parse_address(text, "x")
    assert found.path == path
    assert str(found) == text.rstrip("/")
    assert is_address(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3:/bucket/a", "two slashes"),
        ("s3://", "expected the name of a bucket"),
        ("s3:///a", "expected the name of a bucket"),
        ("s3://key:secret@bucket/a", "secrets do not belong in an address"),
        ("s3://bucket/a?endpoint_override=x", "set storage.endpoint"),
        ("s3://bucket/a/../b", "must not have empty steps"),
        ("s3://bucket/a//b", "must not have empty steps"),
        ("s3a://bucket/a", "write s3://"),
        ("gcs://bucket/a", "write gs://"),
        ("file:///a", "write a local file as a path"),
        ("hdfs://a/b", "expected s3://, gs://, abfss:// or a path"),
        ("abfss://account/a", "expected abfss://container@account"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"run.workdir: .*{message}") as found:
        parse_address(text, "run.workdir")
    assert "secret@" not in str(found.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpoint": "127.0.0.1:9000"}, "storage.endpoint: expected http://host:port"),
        ({"endpoint": "http://user:secret@host"}, "storage.endpoint: .*secrets come from the environment"),
        ({"options": {"force_virtual_adressing": True}}, "did you mean force_virtual_addressing?"),
        ({"options": {"secret_key": "hush"}}, "secret_key is a secret"),
        ({"options": {"access_key": "hush"}}, "access_key is a secret"),
        ({"patience_s": 0}, "storage.patience_s"),
        ({"anonymous": True, "profile": "mine"}, "profile is not read: storage.anonymous is true"),
        ({"endpont": "http://h"}, "storage.endpont: unknown key; did you mean storage.endpoint?"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as found:
        parse_config({"corpus": {"inputs": ["x"]}, "storage": settings})
    assert "hush" not in str(found.value)
    assert "user:secret" not in str(found.value)


def test_where_objects_are_reached_decides_no_result_and_addresses_are_no_paths() -> None:
    tree: dict[str, Any] = {"corpus": {"inputs": ["s3://bucket/a"]}}
    there = parse_config(tree | {"storage": {"endpoint": "http://host:9000", "region": "eu-west-1"}})
    assert there.digest == parse_config(tree).digest
    moved = anchored(tree | {"storage": {"ca_file": "ca.pem"}}, Path("/etc/w2v"))
    assert moved == {"corpus": {"inputs": ["s3://bucket/a"]}, "storage": {"ca_file": "/etc/w2v/ca.pem"}}
    assert portable(tree, Path("/etc/w2v")) == tree


VENDORS = {
    "s3://bucket/k": "S3FileSystem",
    "gs://bucket/k": "GcsFileSystem",
    "abfss://container@account.dfs.core.windows.net/k": "AzureFileSystem",
}


@pytest.mark.parametrize(("address", "kind"), VENDORS.items())
def test_each_vendor_gets_pyarrows_own_file_system(address: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's and Azure's are opened here but not used: there is no server for them offline."""
    monkeypatch.setenv("AZURE_STORAGE_KEY", "aGVsbG8=")
    storage = Storage(endpoint="http://127.0.0.1:9000", options={"project_id": "p"})
    assert type(file_system(parse_address(address, "x"), storage)).__name__ == kind


def test_a_silent_google_is_given_up_too() -> None:
    storage = Storage(endpoint="http://127.0.0.1:9", anonymous=True, patience_s=1)
    started = time.monotonic()
    with pytest.raises(ServiceError, match=r"gs://bucket/a: http://127.0.0.1:9 gave no usable answer"):
        read_object(parse_address("gs://bucket/a", "x"), storage)
    assert time.monotonic() - started < AT_ONCE_S


def test_two_buckets_of_one_test_are_two(storage: Storage) -> None:
    first, second = (make_bucket(f"two-{uuid.uuid4().hex[:8]}", storage) for _ in range(2))
    put_object(first / "a", b"1", storage)
    assert size_of(second / "a", storage) is None
