"""Which version of a registered model is `champion`: found, moved and moved back in a fraction of a second.

MLflow's client takes three seconds to be imported. Moving an alias is one documented request to a server, or one row of a
database, so that is what is done here; each move notes who made it, when, why, and what was champion before. A database whose
tables do not look as expected is left to MLflow's client. When nothing answers, `move_alias` leaves the move in the spool.
"""

from __future__ import annotations

import datetime
import getpass
import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.errors import InputError, ServiceError, UsageError
from pipeline.store import file_sha256
from pipeline.tracking.addresses import tracking_uri
from pipeline.tracking.spool import all_events, open_writer, spools, without_credentials

if TYPE_CHECKING:
    from pipeline.config import RunConfig

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
class Model:
    """A registered model as it is now."""

    aliases: dict[str, str]
    versions: tuple[Version, ...]
    """Newest first."""
    moves: tuple[Move, ...]


class Registry(Protocol):
    """A model registry; raises ServiceError when it does not answer."""

    def model(self, name: str) -> Model | None: ...

    def move(self, name: str, move: Move, moves: str) -> None:
        """Gives the alias to the version, and notes the move; `moves` is the tag's new value."""
        ...


def open_registry(config: RunConfig) -> Registry:
    """The registry of the configured tracking address."""
    uri = tracking_uri(config.tracking, config.workdir)
    if uri.startswith("sqlite:///"):
        from pipeline.tracking.registry_database import DatabaseRegistry

        return DatabaseRegistry(Path(uri.removeprefix("sqlite:///").partition("?")[0]))
    from pipeline.tracking.registry_server import ServerRegistry

    return ServerRegistry(uri)


def promote(config: RunConfig, version: str | None, why: str) -> Move:
    """The move that makes a version champion, already made; `version` None is the challenger."""
    name = registered_name(config)
    registry = open_registry(config)
    model = _known(registry, config, name)
    number = version or model.aliases.get(CHALLENGER)
    if number is None:
        raise InputError(f"{name} has no {CHALLENGER}; name a version: {_numbers(model)}")
    return _make(registry, name, model, number, why)


def roll_back(config: RunConfig, why: str) -> Move:
    """The move that makes the champion before the present one champion again, already made."""
    name = registered_name(config)
    registry = open_registry(config)
    model = _known(registry, config, name)
    present = model.aliases.get(CHAMPION)
    earlier = [move.before for move in model.moves if move.alias == CHAMPION and move.version == present and move.before]
    if not earlier:
        raise InputError(f"{name}: version {present} had no champion before it; name a version: w2v promote CONFIG --version N")
    return _make(registry, name, model, str(earlier[-1]), why)


def move_alias(config: RunConfig, vectors: Path, *, alias: str = CHAMPION, why: str) -> str | None:
    """One line about what became of it: the version of these vectors has the alias now, or will have it when MLflow answers.

    None where nothing is registered. Never waits long: a move that cannot be made now is left in the spool that registered the
    vectors, behind their registration, and the next run or `w2v sync` makes it.
    """
    name = config.publish.register_as
    if name is None or not config.tracking.enabled:
        return None
    digest = file_sha256(vectors / "meta.json")
    with suppress(ServiceError):
        registry = open_registry(config)
        model = registry.model(name)
        found = [version for version in model.versions if version.digest == digest] if model else []
        if model and found:
            if model.aliases.get(alias) == found[0].number:
                return f"{name}: {alias} is version {found[0].number} already"
            return f"{name}: {_make(registry, name, model, found[0].number, why, alias)}"
    return _leave_in_spool(config, name, digest, new_move(alias, "", None, why))


def _leave_in_spool(config: RunConfig, name: str, digest: str, move: Move) -> str | None:
    uri = without_credentials(tracking_uri(config.tracking, config.workdir))
    for spool in spools(config.workdir):
        target = spool.target()
        if target is None or target.uri != uri:
            continue
        if any(event["type"] == "register" and event.get("digest") == digest for event in all_events(spool)):
            writer = open_writer(spool, 0.0)
            event = {"type": "alias", "time": 0, "name": name, "digest": digest, "move": asdict(move)}
            writer.append(event, 1.0)
            writer.close()
            return f"{name}: {move.alias} moves when MLflow at {uri} answers (w2v sync)"
    return None


# ── what a move is ───────────────────────────────────────────────────────────────────────────────────────────────────


def registered_name(config: RunConfig) -> str:
    if config.publish.register_as is None:
        raise UsageError("nothing is registered: give publish.register a name and run again")
    return config.publish.register_as


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


def _make(registry: Registry, name: str, model: Model, number: str, why: str, alias: str = CHAMPION) -> Move:
    if number not in {version.number for version in model.versions}:
        raise InputError(f"{name} has no version {number}; there are {_numbers(model)}")
    move = new_move(alias, number, model.aliases.get(alias), why)
    registry.move(name, move, next_moves(json.dumps([asdict(earlier) for earlier in model.moves]), move))
    return move


def _known(registry: Registry, config: RunConfig, name: str) -> Model:
    model = registry.model(name)
    if model is None:
        where = without_credentials(tracking_uri(config.tracking, config.workdir))
        raise InputError(f"{where}: no registered model {name}; a run with publish.register: {name} makes one")
    return model


def _numbers(model: Model, most: int = 10) -> str:
    numbers: Sequence[str] = [version.number for version in model.versions]
    return ", ".join(numbers[:most]) + (" …" if len(numbers) > most else "") if numbers else "none"
