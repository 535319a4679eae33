"""Admission to a web server on loopback: requests need its password and must come from its own pages.

- HTTP's Basic scheme, because browsers tie such a login to host *and port*; a cookie is sent to every server on the host, so
  also to another user's on the next port.
- Host must be this server's address, so a page under another name that resolves to 127.0.0.1 is refused. Origin and
  Sec-Fetch-Site must be this server's own, so pages from elsewhere cannot use the login.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Collection, Iterable, Sequence

USER = "w2v"
LOGIN = 'Basic realm="w2v ui", charset="UTF-8"'
"""The WWW-Authenticate header of a 401 response."""


def refusal(method: str, headers: Iterable[tuple[bytes, bytes]], password: str, hosts: Collection[str]) -> tuple[int, str] | None:
    """(status, reason) for a refused request, None for one that is admitted. `hosts` are this server's names with the port."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    host, origin = found.get("host", []), found.get("origin", [])
    if len(host) != 1 or host[0].lower() not in hosts:
        return 403, "this server answers under its own address only"
    if any(value.lower() not in {f"http://{name}" for name in hosts} for value in origin):
        return 403, "asked from another page"
    elsewhere = any(value not in ("same-origin", "none") for value in found.get("sec-fetch-site", []))
    if elsewhere and not (method == "GET" and found.get("sec-fetch-mode") == ["navigate"]):
        return 403, "asked from another page"
    if not _knows(found.get("authorization", []), password):
        return 401, f"log in as {USER} with the password that was printed with this address"
    return None


def _knows(authorization: Sequence[str], password: str) -> bool:
    if len(authorization) != 1:
        return False
    scheme, _, encoded = authorization[0].partition(" ")
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(given, f"{USER}:{password}".encode())
