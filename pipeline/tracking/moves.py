"""What a registered model is, as far as its aliases go, and what a move of one is: plain data, kept in MLflow's tags."""

from __future__ import annotations

import datetime
import getpass
import json
import socket
from dataclasses import asdict, dataclass
from typing import Protocol

CHALLENGER, CHAMPION = "challenger", "champion"
"""The newest version that a run made; the one that is in use."""
DIGEST_TAG = "w2v.vectors_digest"
"""Of a version: the SHA-256 of its vectors' meta.json."""
MOVES_TAG = "w2v.moves"
"""Of a registered model: the last moves of its aliases, oldest first, as JSON."""
MOST_MOVES = 12
"""A tag may have 5,000 characters."""
WHY_CHARACTERS = 200


@dataclass(frozen=True)
class Move:
    """An alias given to a version."""

    alias: str
    version: str
    before: str | None
    """The version that had it."""
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
    """Of its vectors; None for a version that something else entered."""


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model as it is now."""

    aliases: dict[str, str]
    versions: tuple[Version, ...]
    """Newest first."""
    moves: tuple[Move, ...]


class Registry(Protocol):
    """A model registry; raises ServiceError when it does not answer."""

    def model(self, name: str) -> RegisteredModel | None: ...

    def move(self, name: str, move: Move, moves: str) -> None:
        """Gives the alias to the version, and notes the move; `moves` is the tag's new value."""
        ...


def new_move(alias: str, version: str, before: str | None, why: str) -> Move:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        user = "unknown"
    return Move(alias, version, before, now, f"{user}@{socket.gethostname()}", why[:WHY_CHARACTERS])


def parse_moves(tag: str | None) -> tuple[Move, ...]:
    """The moves in a tag; none where it is missing or not ours."""
    try:
        return tuple(Move(**move) for move in json.loads(tag or "[]"))
    except (ValueError, TypeError):
        return ()


def next_moves(tag: str | None, move: Move) -> str:
    """The tag's value with one more move."""
    kept = [*parse_moves(tag), move][-MOST_MOVES:]
    return json.dumps([asdict(earlier) for earlier in kept])


def version_tags(move: Move) -> dict[str, str]:
    """What a version says of the alias it was given."""
    return {f"w2v.{move.alias}.{key}": value for key, value in (("at", move.at), ("by", move.by), ("why", move.why))}
