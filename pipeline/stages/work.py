"""What every stage is handed, and what it tells of itself: the shape that makes six stages one list (`ladder`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import RunConfig
from pipeline.store import Artefact

if TYPE_CHECKING:
    from pipeline.cluster.workers import Workers

Identity = tuple[str, dict[str, Any], tuple[str, ...]]
"""(fingerprint, configuration fields read, fingerprints of the inputs): what decides a stage's result, and nothing else."""


def _ignore(_: Any) -> None:
    pass


@dataclass(frozen=True)
class Watch:
    """Whom a stage tells while it works. Nothing of it decides anything."""

    on_part: Callable[[Any], None] = _ignore
    """A part of the corpus is tokenized, or was found."""
    on_round: Callable[[Any], None] = _ignore
    """A round of training is over (`training.history.RoundRecord`); those of an earlier attempt come first."""
    on_live: Callable[[Any], None] = _ignore
    """What became known of a round that is not over (`training.live.Live`), about once a second."""
    on_plan: Callable[[str], None] = _ignore
    """What training will need of the machines."""
    on_note: Callable[[str], None] = _ignore
    """Something that belongs into the report."""


@dataclass(frozen=True)
class Work:
    """What a stage works with, besides the artefacts it reads."""

    config: RunConfig
    workdir: Path
    workers: Workers
    watch: Watch = field(default_factory=Watch)


@dataclass(frozen=True)
class Done:
    """A stage whose artefact is there: made in this run, or found (`cached`)."""

    config: RunConfig
    artefact: Artefact
    inputs: tuple[Any, ...]
    """What it was made from, in the order of `Stage.needs`."""
    seconds: float
    cached: bool
    started: float = 0.0
    """In seconds since 1970."""

    @property
    def totals(self) -> Mapping[str, Any]:
        return self.artefact.manifest.totals


@dataclass(frozen=True)
class Told:
    """What a stage says of its result."""

    line: str
    """In a few words."""
    tokens: int | None = None
    """Tokens it went through."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """What it adds to its row in `summary.json`."""
    sections: Mapping[str, Any] = field(default_factory=dict)
    """What it adds to `summary.json` itself."""
