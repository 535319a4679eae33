"""The common interface of stages: what each is given and what it reports, so that all six fit into one list (`ladder`)."""

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
    """Callbacks of a stage while it works. They affect no result."""

    on_part: Callable[[Any], None] = _ignore
    """Called with the record of each part of the corpus that was tokenized or found."""
    on_round: Callable[[Any], None] = _ignore
    """Called with the `training.history.RoundRecord` of each finished round, starting with those of earlier attempts."""
    on_live: Callable[[Any], None] = _ignore
    """Called about once a second with the `training.live.Live` state of a running round."""
    on_plan: Callable[[str], None] = _ignore
    """Called with one line on what training will need of the machines."""
    on_note: Callable[[str], None] = _ignore
    """Called with notes for the report."""


@dataclass(frozen=True)
class Work:
    """The arguments of a stage besides its input artefacts."""

    config: RunConfig
    workdir: Path
    workers: Workers
    watch: Watch = field(default_factory=Watch)


@dataclass(frozen=True)
class Done:
    """A finished stage, built in this run or reused (`cached`)."""

    config: RunConfig
    artefact: Artefact
    inputs: tuple[Any, ...]
    """The inputs of its artefact, in the order of `Stage.needs`."""
    seconds: float
    cached: bool
    started: float = 0.0
    """In seconds since 1970."""

    @property
    def totals(self) -> Mapping[str, Any]:
        return self.artefact.manifest.totals


@dataclass(frozen=True)
class Told:
    """A stage's description of its result."""

    line: str
    """A few words for people."""
    tokens: int | None = None
    """Number of tokens processed."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """Additions to the stage's row in `summary.json`."""
    sections: Mapping[str, Any] = field(default_factory=dict)
    """Additions to `summary.json` itself."""
