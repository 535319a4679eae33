"""The stages in order, with everything that the program knows about each: the only list of them.

corpus ─ tokenize ─▶ tokens/ ─ vocab ─▶ vocab/ ─ shards ─▶ shards/ ─ train ─▶ vectors/ ─ evaluate ─▶ report/
                                                                                       └─ publish ─▶ exports/
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.stages import evaluate, publish, shards, tokenize, train, vocab
from pipeline.stages.work import Done, Identity, Told
from pipeline.store import Artefact

CORPUS = "corpus"
"""Stands for the plan of the corpus, which no stage makes."""


@dataclass(frozen=True)
class Stage:
    """A stage: a pure function of the artefacts it needs and of the configuration fields it reads."""

    name: str
    """Also the command that runs up to this stage."""
    makes: str
    """Kind of its artefact, and the name of their folder in the workdir."""
    needs: tuple[str, ...]
    """The stages whose artefacts its functions take as arguments, in that order."""
    identity: Callable[..., Identity]
    """identity(config, *inputs)"""
    build: Callable[..., Artefact]
    """build(work, *inputs)"""
    describe: Callable[[Done], Told]
    tracked: bool = False
    """Whether a run that includes this stage is reported to MLflow."""


STAGES = (
    Stage("tokenize", tokenize.STAGE, (CORPUS,), tokenize.identity, tokenize.build, tokenize.describe),
    Stage("vocab", vocab.STAGE, ("tokenize",), vocab.identity, vocab.build, vocab.describe),
    Stage("shards", shards.STAGE, ("tokenize", "vocab"), shards.identity, shards.build, shards.describe),
    Stage("train", train.STAGE, ("tokenize", "vocab", "shards"), train.identity, train.build, train.describe, tracked=True),
    Stage("evaluate", evaluate.STAGE, ("train",), evaluate.identity, evaluate.build, evaluate.describe, tracked=True),
    Stage("publish", publish.STAGE, ("train",), publish.identity, publish.build, publish.describe, tracked=True),
)
NAMES = tuple(stage.name for stage in STAGES)
KINDS = {stage.name: stage.makes for stage in STAGES}


def up_to(last: str) -> tuple[Stage, ...]:
    """The stages that a run up to `last` goes through, in order."""
    return STAGES[: NAMES.index(last) + 1]
