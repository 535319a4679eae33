"""Addresses in buckets as plain data: s3://bucket/key, gs://bucket/key, abfss://container@account.dfs.core.windows.net/key."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pipeline.errors import ConfigError, printable, without_credentials

SCHEMES = ("s3", "gs", "abfss")
COPIES = "w2v-buckets"
"""Name of the folder in which a machine keeps its copies of places in buckets (`copies.py`)."""
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_OTHER_NAMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "abfss", "az": "abfss", "wasbs": "abfss", "adl": "abfss"}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_ACCOUNT = re.compile(r"([a-z0-9]{3,24})\.(?:dfs|blob)\.[a-z0-9.-]+")
_QUERY = re.compile(r"\?[A-Za-z_]+=")


@dataclass(frozen=True)
class Address:
    """A place in a bucket: the key of an object, or a prefix that several keys share."""

    scheme: str
    bucket: str
    """Azure calls it a container."""
    key: str
    """Without slashes at its ends; empty = the whole bucket."""
    host: str = ""
    """For Azure only: account.dfs.core.windows.net."""

    @property
    def path(self) -> str:
        """The path in the form of pyarrow's file systems: bucket/key."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    @property
    def account(self) -> str:
        return self.host.partition(".")[0]

    def __str__(self) -> str:
        bucket = f"{self.bucket}@{self.host}" if self.host else self.bucket
        return f"{self.scheme}://{bucket}/{self.key}" if self.key else f"{self.scheme}://{bucket}"

    def __truediv__(self, name: str) -> Address:
        return self.at(f"{self.key}/{name}" if self.key else name)

    def at(self, key: str) -> Address:
        """The address of this key in the same bucket."""
        return replace(self, key=key)

    def holds(self, other: Address) -> bool:
        """Whether `other` is this place or lies below it."""
        same = (self.scheme, self.bucket, self.host) == (other.scheme, other.bucket, other.host)
        return same and (not self.key or other.key == self.key or other.key.startswith(f"{self.key}/"))


def is_address(text: str) -> bool:
    """Whether this is an address rather than a path: a scheme of at least two letters, then `:/`."""
    return _ADDRESS.match(text) is not None


def parse_address(text: str, key: str) -> Address:
    """The parsed address; raises ConfigError, naming the configuration's `key`, for an invalid one."""
    shown = printable(without_credentials(text), 200)
    found = _ADDRESS.match(text)
    scheme = found[1] if found else ""
    if scheme not in SCHEMES:
        raise ConfigError(f"{key}: {shown}: {_unknown(scheme)}")
    if not text.startswith(f"{scheme}://"):
        raise ConfigError(f"{key}: {shown}: an address has two slashes after the colon: {scheme}://…")
    if _QUERY.search(text):
        raise ConfigError(
            f"{key}: {shown}: options do not belong in an address; set storage.endpoint, storage.region and the like"
        )
    bucket, _, rest = text[len(scheme) + 3 :].partition("/")
    container, at, host = bucket.rpartition("@")
    if scheme == "abfss":
        if not at or not _ACCOUNT.fullmatch(host):
            raise ConfigError(f"{key}: {shown}: expected abfss://container@account.dfs.core.windows.net/…")
        bucket = container
    elif at:
        raise ConfigError(f"{key}: {shown}: secrets do not belong in an address; set them in the environment or in a profile")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(
            f"{key}: {shown}: expected the name of a bucket after {scheme}://, found {printable(bucket, 60) or 'none'}"
        )
    steps = rest.strip("/").split("/") if rest.strip("/") else []
    if any(step in ("", ".", "..") for step in steps):
        raise ConfigError(f"{key}: {shown}: a key must not have empty steps, `.` or `..` between its slashes")
    return Address(scheme, bucket, "/".join(steps), host if scheme == "abfss" else "")


def _unknown(scheme: str) -> str:
    known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
    if scheme == "file":
        return "write a local file as a path, without file:"
    if scheme in ("http", "https"):
        return f"web addresses are not read; download it first, or give an address in a bucket ({known})"
    if scheme in _OTHER_NAMES:
        return f"write {_OTHER_NAMES[scheme]}://"
    return f"expected {known} or a path" + (f", found {printable(scheme, 40)}:" if scheme else "")
