"""A challenger and its champion: how the challenger is trained, what is measured of both, and the gates' verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import store
from pipeline.config import RunConfig
from pipeline.errors import DamagedError, unread
from pipeline.formats.trained import load_vectors
from pipeline.history.answers import OF_A_REFRESH
from pipeline.history.snapshot import Snapshot
from pipeline.refresh import stability
from pipeline.refresh.delta import Delta
from pipeline.refresh.gates import Measured, Verdict, judge
from pipeline.refresh.probe import beyond_chance, probe
from pipeline.stages.evaluate import headline
from pipeline.training.history import epoch_loss, history_of
from w2v_core.vectors import WordVectors

_ROWS_AT_ONCE = 1 << 16
DRIFT_BINS = 20
DRIFT_ENDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Where the histogram of drift may end: so near that the words do not all stand in its first bin."""
SAME_SHAPE = ("model", "engine", "vector_size")
"""Settings of `train` that must be equal to continue from vectors."""
SAME_TASK = ("model", "engine", "negative", "gradient")
"""Settings of `train` that must be equal for two losses to be comparable."""


@dataclass(frozen=True)
class Start:
    """Whether the challenger continues from the champion, and why."""

    warm: bool
    why: str

    @property
    def name(self) -> str:
        return "warm" if self.warm else "cold"


def choose_start(config: RunConfig, champion: Snapshot | None, delta: Delta, *, cold: bool, damage: str = "") -> Start:
    """A warm start if possible: it costs only part of the training and keeps the frame. `damage` is the champion's."""
    if cold:
        return Start(False, "asked for")
    if champion is None:
        return Start(False, "there is no champion yet")
    if not config.refresh.warm:
        return Start(False, "refresh.warm is false")
    if config.refresh.forget and delta.removes_text:
        return Start(False, "text was removed, and refresh.forget is true")
    if damage:
        return Start(False, f"the champion is damaged: {damage}")
    then, now = champion.summary()["config"]["train"], config.train.model_dump(mode="json")
    changed = [key for key in SAME_SHAPE if then.get(key) != now[key]]
    if changed or config.train.engine == "layers":
        return Start(False, f"train.{changed[0] if changed else 'engine'} does not allow continuing from the champion")
    return Start(True, "continues from the champion")


def challenger_config(config: RunConfig, champion: Snapshot | None, start: Start) -> RunConfig:
    """The configuration for training the challenger."""
    if not start.warm or champion is None:
        return config
    changed = {"start_from": str(champion.vectors)} | {key: getattr(config.refresh, key) for key in OF_A_REFRESH}
    return config.model_copy(update={"train": config.train.model_copy(update=changed)})


def damage_of(snapshot: Snapshot) -> str:
    """What is wrong with the snapshot's lasting files: with its own, with the sizes of its artefacts', and with every byte of its
    vectors; empty if nothing. Raises UnreadError for a file that may be intact."""
    if damage_of_its_own := snapshot.damage():
        return damage_of_its_own
    try:
        for directory in snapshot.lasting():
            artefact = store.load_artefact(directory)
            if not store.all_there(directory, artefact.manifest.parts):
                return f"{directory}: a file is missing or has another size"
        damage = store.find_damage(store.load_artefact(snapshot.vectors))
        store.refuse_unread(damage)
        return next(iter(damage), "")
    except (DamagedError, OSError) as error:
        if isinstance(error, OSError) and (problem := unread(error, error.filename or snapshot.directory)):
            raise problem from None
        return str(error)


# ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Challenge:
    """The comparison of both: verdicts of the gates, and facts for people."""

    verdicts: tuple[Verdict, ...]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Scored:
    """Champion or challenger, with its scores."""

    vectors: store.Artefact
    tokens: Path
    """The folder of the tokens it was trained on."""
    scores: Mapping[str, Any]
    """Scores on the same sets as the other's."""

    def loss(self) -> float | None:
        """The loss of the last epoch; None for vectors without a training history."""
        history = history_of(self.vectors)
        return epoch_loss(history, history[-1].epoch) if history else None


def compare_with_champion(config: RunConfig, champion: Scored, challenger: Scored, *, same_frame: bool) -> Challenge:
    """The comparison of challenger and champion; `same_frame` as in `Measured`."""
    old, new = load_vectors(champion.vectors), load_vectors(challenger.vectors)
    common = stability.common_words(old, new)
    turned = _turned(old, new, common, same_frame)
    about_old, about_new = (probe(side.tokens, old, new, config.run.seed) for side in (champion, challenger))
    measured = Measured(
        finite=is_finite(new), vocabulary=known_share(old, new), overlap=stability.overlap(old, new, common),
        drift=float(np.median(turned)) if len(turned) else 0.0, same_frame=same_frame,
        memory=beyond_chance(about_old.now, about_old.before) if about_old else None,
        sense=beyond_chance(about_new.now, about_old.before) if about_old and about_new else None,
        loss=_loss_ratio(champion, challenger),
        norm=stability.norm_ratio(old, new, common),
    )  # fmt: skip
    before, now = champion.scores, challenger.scores
    widest = next(end for end in DRIFT_ENDS if not len(turned) or turned.max() <= end or end == DRIFT_ENDS[-1])
    counts, edges = np.histogram(np.clip(turned, 0, widest), bins=DRIFT_BINS, range=(0.0, widest))
    facts = {
        "words": {"before": len(old.words), "now": len(new.words)} | dict(stability.words_moved(old, new)),
        "known_tokens": stability.known_tokens(old, new),
        "scores": {"before": _scores(before), "now": _scores(now)},
        "stability": asdict(measured)
        | {"drift_histogram": {"edges": [round(float(edge), 4) for edge in edges], "words": counts.tolist()},
           "most_moved": _most_moved(common, turned)},
    }  # fmt: skip
    return Challenge(tuple(judge(config.refresh.gates, before, now, measured)), facts)


def _loss_ratio(champion: Scored, challenger: Scored) -> float | None:
    """The ratio of final losses, challenger to champion; None if they are not comparable."""
    tasks = [{key: side.vectors.manifest.fields.get(key) for key in SAME_TASK} for side in (champion, challenger)]
    before, now = champion.loss(), challenger.loss()
    return now / before if tasks[0] == tasks[1] and before and now is not None else None


def _turned(old: WordVectors, new: WordVectors, common: stability.Common, same_frame: bool) -> np.ndarray:
    """The drift of the most frequent common words, for vectors in another frame after rotating them back."""
    if old.matrix.shape[1] != new.matrix.shape[1] or not common.words:
        return np.zeros(0)
    if not same_frame:
        turn_DD = stability.rotation(old, new, common).astype(np.float32)
        new = WordVectors(list(new.words), new.matrix @ turn_DD)
    return stability.drift(old, new, common)


def _most_moved(common: stability.Common, turned: np.ndarray) -> list[list[Any]]:
    order = np.argsort(-turned, kind="stable")[: stability.SHOWN]
    return [[common.words[word], round(float(turned[word]), 4)] for word in order]


def is_finite(vectors: WordVectors) -> bool:
    rows = range(0, len(vectors.matrix), _ROWS_AT_ONCE)
    return all(bool(np.isfinite(vectors.matrix[first : first + _ROWS_AT_ONCE]).all()) for first in rows)


def known_share(old: WordVectors, new: WordVectors) -> float:
    """The share of the champion's tokens whose words are in the challenger's vocabulary."""
    if old.counts is None:
        return 1.0
    known = set(new.words)
    kept = sum(int(count) for word, count in zip(old.words, old.counts, strict=True) if word in known)
    return kept / max(1, int(old.counts.sum()))


def _scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    found = headline(scores)
    return {"analogy": found["analogy"], "coverage": found["coverage"], "similarity": found["similarity"]}
