"""The aliases of a registered model and the moves of an alias between versions: plain data, kept in MLflow's tags."""

from __future__ import annotations

import datetime
import json
import socket
from dataclasses import asdict, dataclass
from typing import Protocol

from pipeline.exchange.host import user_name

CHALLENGER, CHAMPION = "challenger", "champion"
"""The newest version made by a run; the version in use."""
DIGEST_TAG = "w2v.vectors_digest"
"""Tag of a version: the SHA-256 of its vectors' meta.json."""
MOVES_TAG = "w2v.moves"
"""Tag of a registered model: the last moves of its aliases, oldest first, as JSON."""
MOST_MOVES = 12
"""So that they fit into a tag's 5,000 characters."""
WHY_CHARACTERS = 200


@dataclass(frozen=True)
class Move:
    """An alias given to a version."""

    alias: str
    version: str
    before: str | None
    """The version that had it before."""
    at: str
    by: str
    why: str

    def __str__(self) -> str:
        was = f", was version {self.before}" if self.before else ""
        return f"{self.alias} is version {self.version}{was}"


@dataclass(frozen=True)
class Version:
    number: str
    digest: str | None
    """The digest of its vectors; None for a version registered by another program."""


@dataclass(frozen=True)
class RegisteredModel:
    """The current state of a registered model."""

    aliases: dict[str, str]
    versions: tuple[Version, ...]
    """Newest first."""
    moves: tuple[Move, ...]


class Registry(Protocol):
    """A model registry; its methods raise ServiceError when it does not answer."""

    def model(self, name: str) -> RegisteredModel | None: ...

    def move(self, name: str, move: Move, moves: str) -> None:
        """Gives the alias to the version and records the move; `moves` is the tag's new value."""
        ...


def new_move(alias: str, version: str, before: str | None, why: str) -> Move:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Move(alias, version, before, now, f"{user_name()}@{socket.gethostname()}", why[:WHY_CHARACTERS])


def parse_moves(tag: str | None) -> tuple[Move, ...]:
    """The moves in a tag; none if it is missing or in another format."""
    try:
        return tuple(Move(**move) for move in json.loads(tag or "[]"))
    except (ValueError, TypeError):
        return ()


def next_moves(tag: str | None, move: Move) -> str:
    """The tag's value with one more move."""
    kept = [*parse_moves(tag), move][-MOST_MOVES:]
    return json.dumps([asdict(earlier) for earlier in kept])


def version_tags(move: Move) -> dict[str, str]:
    """The tags of a version that was given an alias: when, by whom and why."""
    return {f"w2v.{move.alias}.{key}": value for key, value in (("at", move.at), ("by", move.by), ("why", move.why))}
