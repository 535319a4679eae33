"""The tracking spool: a folder with all events about one result, delivered to MLflow or still to be delivered.

    <workdir>/tracking/<key>/spool.jsonl      events, appended by the driver, never changed
                             target.json      where they go: URI, experiment, run name, the spool's own token
                             run.json         the MLflow run they were delivered to (written by the shipper)
                             progress.json    how far the shipper got, and what holds it up
                             shipper.log      output of MLflow's client
                             shipper.lock     held by the active shipper

The driver only appends (a local write, microseconds) and the shipper only reads, so a tracking server that is down,
slow or full cannot affect training. Every event carries its own time: delivering it twice sends identical points, which
MLflow's SQL store ignores, so a lost reply does no harm.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import counted
from pipeline.errors import without_credentials as without_credentials
from pipeline.safety.files import held_still, is_confined, open_inside, read_json_object, regular
from pipeline.safety.locks import SHIPPER_LOCK, holder
from pipeline.safety.seals import canonical_json
from pipeline.store import write_json

Event = dict[str, Any]
ShipperState = Literal["connecting", "shipping", "retrying", "refused"]

T = TypeVar("T")
LONGEST_EVENT_BYTES = 8 << 20
SCHEMES = ("http://", "https://", "sqlite:///")
FIELDS: dict[str, dict[str, type]] = {
    "metrics": {"time": int, "step": int, "values": dict},
    "params": {"params": dict},
    "dataset": {"dataset": dict},
    "tags": {"tags": dict},
    "artifact": {"path": str, "folder": str},
    "register": {"name": str, "directory": str, "digest": str},
    "finish": {"time": int, "status": str},
}
"""The fields that an event of each type must have, with their types."""
_PENDING_LIMIT_BYTES = 16 << 20


@dataclass(frozen=True)
class Target:
    """Where a spool's events go."""

    uri: str
    experiment: str
    run_name: str
    config_digest: str
    token: str
    """Tag of the MLflow run, drawn once per spool: a run whose id was lost in a crash is found by it, not created again."""
    created_ms: int
    artifact_location: str | None
    """Folder for a new experiment's artefacts as a file: URI; None = the server decides."""


@dataclass(frozen=True)
class Delivered:
    """How far the shipper got: the server has the first `offset` bytes of the spool."""

    offset: int = 0
    state: ShipperState = "connecting"
    message: str | None = None
    denied: bool = False
    """With state refused: the server rejected the credentials, or its certificate is not trusted."""
    skipped: int = 0
    """Number of events that can never be delivered (a missing artefact, a value over MLflow's limits); the log names each."""
    pid: int = 0


@dataclass(frozen=True)
class TrackingState:
    """Where a result is tracked, and whether all of it has arrived; if not, `message` says why."""

    uri: str
    run_id: str | None
    complete: bool
    message: str | None = None


_TARGET, _PROGRESS = TypeAdapter(Target), TypeAdapter(Delivered)


@dataclass(frozen=True)
class Spool:
    """The files of one spool folder."""

    directory: Path

    @property
    def events(self) -> Path:
        return self.directory / "spool.jsonl"

    @property
    def lock(self) -> Path:
        return self.directory / SHIPPER_LOCK

    @property
    def log(self) -> Path:
        return self.directory / "shipper.log"

    @property
    def workdir(self) -> Path:
        return self.directory.parent.parent

    def size(self) -> int:
        try:
            return self.events.stat().st_size
        except FileNotFoundError:
            return 0

    def target(self) -> Target | None:
        found = _load(self.directory / "target.json", _TARGET)
        return found if found and found.uri.startswith(SCHEMES) and found.token.isalnum() else None

    def write_target(self, target: Target) -> None:
        write_json(self.directory / "target.json", asdict(target))

    def progress(self) -> Delivered:
        found = _load(self.directory / "progress.json", _PROGRESS)
        return found if found and found.offset >= 0 else Delivered()

    def write_progress(self, progress: Delivered) -> None:
        write_json(self.directory / "progress.json", asdict(progress))

    def run_id(self) -> str | None:
        body = _read_json(self.directory / "run.json")
        return str(body["run_id"]) if body and "run_id" in body else None

    def write_run(self, run_id: str, experiment_id: str) -> None:
        write_json(self.directory / "run.json", {"run_id": run_id, "experiment_id": experiment_id})

    def forget_run(self) -> None:
        (self.directory / "run.json").unlink(missing_ok=True)

    def has_shipper(self) -> bool:
        """Whether a shipper is active on this spool."""
        return holder(self.lock) is not None

    def relative(self, path: Path) -> str:
        """`path` as events name it: relative to the workdir if it lies inside, so that a moved workdir can still be delivered."""
        absolute = Path(os.path.abspath(path))
        workdir = Path(os.path.abspath(self.workdir))
        return str(absolute.relative_to(workdir)) if absolute.is_relative_to(workdir) else str(absolute)

    def resolve(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """The file or folder that an event names, inside the workdir, without links on the way or below, and held so that nobody
        can replace it while it is used. Raises OSError."""
        return held_still(self.workdir, name)


def spool_state(spool: Spool) -> TrackingState:
    """How much of a spool has been delivered, from its files alone."""
    target, progress = spool.target(), spool.progress()
    uri = target.uri if target else "unknown"
    left = spool.size() - progress.offset
    refused = counted(progress.skipped, "events|event were|was refused")
    message = f"{refused} by MLflow; see {spool.log}" if progress.skipped else None
    if left > 0:
        problem = progress.message or f"not all of the run has reached {uri} yet"
        rest = "it is being delivered from" if spool.has_shipper() else "the next run or `w2v sync` delivers the rest, kept in"
        message = f"{problem}; {rest} {spool.directory}"
    return TrackingState(uri, spool.run_id(), left <= 0 and spool.run_id() is not None and not progress.skipped, message)


def spools(workdir: Path) -> Iterator[Spool]:
    """Every spool of a workdir, sorted by key, without those of runs that ended before they had anything to tell."""
    found = (Spool(path.parent) for path in sorted((workdir / "tracking").glob("*/target.json")))
    yield from (spool for spool in found if spool.size() or spool.run_id() is not None)


def read_events(spool: Spool, offset: int, limit_bytes: int = 1 << 20) -> list[tuple[Event | None, int]]:
    """(event, offset after it) of the complete lines from `offset` on; the event is None for a line that is not one.

    Reads about `limit_bytes` at most, but at least one complete line if there is one. A last line without a newline is still
    being written, or was cut by a power loss; it is not read.
    """
    try:
        with open(open_inside(spool.directory, spool.events.name), "rb") as file:
            file.seek(offset)
            block = file.read(limit_bytes)
            if block and b"\n" not in block:
                block += file.readline(LONGEST_EVENT_BYTES)
    except FileNotFoundError:
        return []
    found: list[tuple[Event | None, int]] = []
    for line in block[: block.rfind(b"\n") + 1].splitlines(keepends=True):
        offset += len(line)
        found.append((_parse(line), offset))
    return found


def all_events(spool: Spool, offset: int = 0) -> Iterator[Event]:
    while found := read_events(spool, offset):
        yield from (event for event, _ in found if event is not None)
        offset = found[-1][1]


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and _is_whole(event) else None


def _is_whole(event: Event) -> bool:
    """Whether an event has the fields of its type. An unknown type passes; delivery refuses it."""
    kind = event.get("type")
    fields = FIELDS.get(kind, {}) if isinstance(kind, str) else None
    if fields is None or not all(type(event.get(name)) is found for name, found in fields.items()):
        return False
    if kind == "metrics":
        return all(isinstance(value, int | float) for value in event["values"].values())
    inner = event.get(str(kind))
    texts = inner.values() if isinstance(inner, dict) else ()
    return all(isinstance(value, str) for value in texts) and (event.get("folder", "") == "" or is_confined(event["folder"]))


@dataclass
class Known:
    """What the spool already contains, so that repeating it (a resumed run, a round run twice) adds nothing."""

    last_step: dict[str, int] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    dataset: dict[str, str] | None = None
    other: set[bytes] = field(default_factory=set)
    status: str | None = None
    """The status of a final finish event, None if other events of the run follow it."""

    def add(self, event: Event) -> None:
        if event["type"] != "alias":
            self.status = event["status"] if event["type"] == "finish" else None
        match event["type"]:
            case "metrics":
                for name in event["values"]:
                    self.last_step[name] = max(event["step"], self.last_step.get(name, event["step"]))
            case "params":
                self.params |= event["params"]
            case "dataset":
                self.dataset = event["dataset"]
            case "tags":
                self.tags |= event["tags"]
            case "artifact" | "register" | "alias" | "stage":
                self.other.add(identity(event))


def what_is_spooled(spool: Spool) -> Known:
    known = Known()
    for event in all_events(spool):
        with suppress(KeyError, TypeError):  # the shipper reports damaged lines
            known.add(event)
    return known


def identity(event: Event) -> bytes:
    return canonical_json({key: value for key, value in event.items() if key != "time"})


@dataclass
class SpoolWriter:
    """Appends events; the only writer of spool.jsonl. A full disk never raises: it is recorded, and writing is retried."""

    descriptor: int
    fsync_interval_s: float
    error: str | None = None
    """Why events are currently held in memory (disk full), or None."""
    lost: int = 0
    _pending: bytearray = field(default_factory=bytearray)
    _synced_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def append(self, event: Mapping[str, Any], now: float) -> None:
        """Adds one event; `now` is a monotonic time in seconds that paces fsync.

        A killed process loses nothing (the kernel has the bytes); a power loss loses at most the last `fsync_interval_s`.
        """
        line = json.dumps(event, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if len(self._pending) + len(line) > _PENDING_LIMIT_BYTES:
                self.lost += 1
                return
            self._pending += line
            self._write()
            if self.error is None and now - self._synced_at >= self.fsync_interval_s:
                self._synced_at = now
                self._sync()

    def flush(self) -> None:
        with self._lock:
            self._write()
            self._sync()

    def close(self) -> None:
        self.flush()
        os.close(self.descriptor)

    def _write(self) -> None:
        """Writes whole lines or nothing, so that the shipper never reads half a line followed by another."""
        end = os.fstat(self.descriptor).st_size
        try:
            view = memoryview(bytes(self._pending))
            while view:
                view = view[os.write(self.descriptor, view) :]
            self._pending.clear()
            self.error = None
        except OSError as error:
            self.error = error.strerror or str(error)
            with suppress(OSError):
                os.ftruncate(self.descriptor, end)

    def _sync(self) -> None:
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            self.error = error.strerror or str(error)


def open_writer(spool: Spool, fsync_interval_s: float) -> SpoolWriter:
    """A writer positioned after the last complete line; a line cut by a power loss is removed."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = regular(os.open(spool.events, flags | os.O_NONBLOCK, 0o600), spool.events)
    size = os.fstat(descriptor).st_size
    position, block = size, 1 << 16
    while position > 0:
        start = max(0, position - block)
        newline = os.pread(descriptor, position - start, start).rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    if position != size:
        os.ftruncate(descriptor, position)
    return SpoolWriter(descriptor, fsync_interval_s)


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, or None if there is none or it cannot be parsed (it is then rewritten)."""
    try:
        return read_json_object(path.parent, path.name)
    except (FileNotFoundError, ValueError):
        return None


def _load(path: Path, kind: TypeAdapter[T]) -> T | None:
    body = _read_json(path)
    try:
        return kind.validate_python(body) if body is not None else None
    except ValidationError:
        return None
