"""The same program on every machine: workers whose source files differ from the driver's are refused at the start.

Another version of this program might store, draw or round something differently, and nothing later would reveal it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.cluster.endings import Endings
from pipeline.cluster.presence import registered
from pipeline.errors import ServiceError

if TYPE_CHECKING:
    from distributed import Client

ANSWER_S = 20.0
"""How long workers may take to respond. One that does not, because it dies, is busy or is paused, is not refused here; it is
checked again before it gets any task (`guest`)."""


def check_sources(client: Client) -> None:
    """Raises ServiceError if a worker has other source files than this process, or none."""
    digest_of_sources = source_digest()
    ours = digest_of_sources()
    addresses = [address for address, worker in registered(client).items() if worker["status"] != "paused"]
    asked = {client.submit(digest_of_sources, workers=[address], pure=False, priority=1): address for address in addresses}
    answers: dict[str, str] = {}
    endings, deadline = Endings(client, asked), time.monotonic() + ANSWER_S
    for _ in asked:
        if ended := endings.next(max(0.0, deadline - time.monotonic())):
            with contextlib.suppress(Exception):  # one that died or cannot read a file is not refused here either
                answers[asked[ended[0]]] = ended[1].result()
    others = {address: found for address, found in answers.items() if found != ours}
    client.cancel(list(asked))
    if others:
        address, found = min(others.items())
        raise ServiceError(
            f"{len(others)} of {len(asked)} workers have other source files of this program than the driver: {address} "
            f"{found or 'has none'}, the driver {ours}; install the same version there and restart the workers"
        )


def source_digest() -> Callable[..., str]:
    """A function that returns twelve digits of the SHA-256 of the program's source files on the machine where it is called, empty
    if the program is not installed. Its argument `folders` gives the folders of another copy, by package."""

    def digest_of_sources(folders: dict[str, str] | None = None) -> str:
        import hashlib
        import importlib.util
        from pathlib import Path

        digest = hashlib.sha256()
        for package in ("pipeline", "w2v_core"):
            found = importlib.util.find_spec(package)
            if folders is None and (found is None or found.origin is None):
                return ""
            folder = Path(folders[package]) if folders else Path(found.origin).parent  # type: ignore[union-attr, arg-type]
            for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".cu", ".css", ".js", ".j2")):
                digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
        return digest.hexdigest()[:12]

    # A nested function is pickled by value, so it also works where this module is missing or another version.
    return digest_of_sources
