"""The version of a registered model that is `champion`: found, moved and moved back in a fraction of a second.

Importing MLflow's client takes three seconds, but moving an alias is only one documented request to a server, or one row in a
database, so it is done directly here. Each move records who made it, when and why, and which version was champion before. A
database whose tables differ from those expected is left to MLflow's client. If nothing answers, `move_alias` spools the move.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import InputError, PermissionDeniedError, ServiceError, UsageError, counted
from pipeline.failpoints import reach
from pipeline.store import file_sha256
from pipeline.tracking.addresses import tracking_uri
from pipeline.tracking.moves import CHALLENGER, CHAMPION, Move, RegisteredModel, Registry, new_move, next_moves
from pipeline.tracking.spool import Event, Spool, all_events, open_writer, spools, without_credentials

if TYPE_CHECKING:
    from pipeline.config import RunConfig


def open_registry(config: RunConfig) -> Registry:
    """The registry at the configured tracking URI."""
    uri = tracking_uri(config.tracking, config.workdir)
    if uri.startswith("sqlite:///"):
        from pipeline.tracking.registry_database import DatabaseRegistry

        return DatabaseRegistry(Path(uri.removeprefix("sqlite:///").partition("?")[0]))
    from pipeline.tracking.registry_server import ServerRegistry

    return ServerRegistry(uri)


def promote(config: RunConfig, version: str | None, why: str) -> Move:
    """Makes a version champion and returns the move; `version` None means the challenger."""
    name = registered_name(config)
    registry = open_registry(config)
    model = _known(registry, config, name)
    number = version or model.aliases.get(CHALLENGER)
    if number is None:
        raise InputError(f"{name} has no {CHALLENGER}; name a version: {_numbers(model)}")
    return _make(registry, name, model, number, why)


def roll_back(config: RunConfig, why: str) -> Move:
    """Makes the previous champion champion again and returns the move."""
    name = registered_name(config)
    registry = open_registry(config)
    model = _known(registry, config, name)
    present = model.aliases.get(CHAMPION)
    earlier = [move.before for move in model.moves if move.alias == CHAMPION and move.version == present and move.before]
    if not earlier:
        raise InputError(f"{name}: version {present} had no champion before it; name a version: w2v promote CONFIG --version N")
    return _make(registry, name, model, str(earlier[-1]), why)


def move_alias(config: RunConfig, vectors: Path, *, alias: str = CHAMPION, why: str) -> str | None:
    """One line for the user: the version with these vectors has the alias now, or will have it once MLflow answers, or why not.

    None if nothing is to be registered. Raises nothing that MLflow is the reason for, since a decision of the caller's holds
    anyhow. Never waits long: a move that cannot be made now is appended to the spool that registered the vectors, after their
    registration, and the next run or `w2v sync` makes it. The registry is not queried before the registration is delivered.
    """
    reach("alias", alias)
    name = config.publish.register_as
    if name is None or not config.tracking.enabled:
        return None
    digest = file_sha256(vectors / "meta.json")
    spool = _spool_of(config, digest)
    arrived = spool is None or not any(_registers(event, digest) for event in all_events(spool, spool.progress().offset))
    problem = "no version has these vectors; a run with publish.register makes one"
    try:
        registry = open_registry(config)
        model = registry.model(name) if arrived else None
        found = [version for version in model.versions if version.digest == digest] if model else []
        if model and found:
            if model.aliases.get(alias) == found[0].number:
                return f"{name}: {alias} is version {found[0].number} already"
            return f"{name}: {_make(registry, name, model, found[0].number, why, alias)}"
    except (ServiceError, PermissionDeniedError) as error:
        problem = str(error)
    if spool is None:
        return f"{name}: {alias} was not moved: {problem} (w2v promote moves it)"
    _leave(spool, name, digest, new_move(alias, "", None, why))
    where = without_credentials(tracking_uri(config.tracking, config.workdir))
    return f"{name}: {alias} moves when MLflow at {where} answers (w2v sync)"


def undelivered(config: RunConfig) -> str:
    """How many runs of this workdir have not reached the registry completely, for who asks it; empty if all have."""
    uri = without_credentials(tracking_uri(config.tracking, config.workdir))
    waiting = [
        spool for spool in spools(config.workdir)
        if (target := spool.target()) and target.uri == uri and spool.size() > spool.progress().offset
    ]  # fmt: skip
    runs = counted(len(waiting), "runs|run of this workdir have|has not reached")
    return f"{runs} {uri} completely yet, so a version may be missing there; w2v sync delivers the rest" if waiting else ""


def _spool_of(config: RunConfig, digest: str) -> Spool | None:
    """The spool that registers these vectors at the configured address."""
    uri = without_credentials(tracking_uri(config.tracking, config.workdir))
    for spool in spools(config.workdir):
        target = spool.target()
        if target and target.uri == uri and any(_registers(event, digest) for event in all_events(spool)):
            return spool
    return None


def _registers(event: Event, digest: str) -> bool:
    return bool(event["type"] == "register" and event["digest"] == digest)


def _leave(spool: Spool, name: str, digest: str, move: Move) -> None:
    writer = open_writer(spool, 0.0)
    writer.append({"type": "alias", "time": 0, "name": name, "digest": digest, "move": asdict(move)}, 1.0)
    writer.close()


# ── what a move is ───────────────────────────────────────────────────────────────────────────────────────────────────


def registered_name(config: RunConfig) -> str:
    if config.publish.register_as is None:
        raise UsageError("nothing is registered: set publish.register to a name and run again")
    return config.publish.register_as


def _make(registry: Registry, name: str, model: RegisteredModel, number: str, why: str, alias: str = CHAMPION) -> Move:
    if number not in {version.number for version in model.versions}:
        raise InputError(f"{name} has no version {number}; there are {_numbers(model)}")
    move = new_move(alias, number, model.aliases.get(alias), why)
    registry.move(name, move, next_moves(json.dumps([asdict(earlier) for earlier in model.moves]), move))
    return move


def _known(registry: Registry, config: RunConfig, name: str) -> RegisteredModel:
    model = registry.model(name)
    if model is None:
        where = without_credentials(tracking_uri(config.tracking, config.workdir))
        raise InputError(f"{where}: no registered model {name}; a run with publish.register: {name} creates it")
    return model


def _numbers(model: RegisteredModel, most: int = 10) -> str:
    numbers: Sequence[str] = [version.number for version in model.versions]
    return ", ".join(numbers[:most]) + (" …" if len(numbers) > most else "") if numbers else "none"
