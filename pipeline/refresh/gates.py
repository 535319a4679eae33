"""The gates that a challenger must pass before it replaces the champion: plain arithmetic on scores.

Pure: scores and measurements in, one verdict per gate out, each with the value found, the value required, and a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import Gates


@dataclass(frozen=True)
class Verdict:
    """The verdict of one gate."""

    gate: str
    found: float | None
    asked: float
    held: bool
    text: str


@dataclass(frozen=True)
class Measured:
    """Measurements of a challenger relative to its champion."""

    finite: bool
    vocabulary: float
    """Share of the champion's tokens whose words are in the challenger's vocabulary."""
    overlap: float
    drift: float
    """Median of 1 − cosine of the most frequent words."""
    same_frame: bool
    """Whether the challenger's vectors are in the champion's frame, because they continue from them or were aligned to them."""
    memory: float | None = None
    """Ratio, challenger to champion, of right answers beyond chance to the probe on the champion's text; None = not known."""
    sense: float | None = None
    """The same with each model on its own text."""
    loss: float | None = None
    """Ratio of final losses, challenger to champion."""
    norm: float | None = None
    """Ratio of median norms of frequent words' vectors, challenger to champion."""


def judge(gates: Gates, before: Mapping[str, Any], now: Mapping[str, Any], measured: Measured) -> list[Verdict]:
    """One verdict per gate; `before` and `now` are the scores of champion and challenger on the same sets."""
    verdicts = [
        Verdict("finite", float(measured.finite), 1.0, measured.finite, "every number is finite" if measured.finite else
                "there are numbers that are not finite"),
        _at_least("vocabulary", measured.vocabulary, gates.vocabulary, "of the champion's tokens have a word that is known"),
        *_scores(gates, before, now),
        _at_least("overlap", measured.overlap, gates.overlap, "of the nearest words of frequent words stayed"),
    ]  # fmt: skip
    if gates.drift is not None and measured.same_frame:
        held = measured.drift <= gates.drift
        text = f"frequent words turned by {measured.drift:.3f} (1 − cosine, median), at most {gates.drift:g} is allowed"
        verdicts.append(Verdict("drift", measured.drift, gates.drift, held, text))
    return [*verdicts, *_without_sets(gates, measured)]


def _without_sets(gates: Gates, measured: Measured) -> Iterator[Verdict]:
    """The verdicts that recognise a bad model without question sets."""
    for gate, found, asked, what in (
        ("memory", measured.memory, gates.memory, "of what the champion knows of its text is still known"),
        ("sense", measured.sense, gates.sense, "of what the champion knows of its text, the challenger knows of its own"),
    ):
        if found is not None and asked is not None:
            yield _at_least(gate, found, asked, what)
    for gate, found, asked, what in (
        ("loss", measured.loss, gates.loss, "the final loss is {:.3f} times the champion's, at most {:g} times are allowed"),
        ("norm", measured.norm, gates.norm, "frequent words' vectors are {:.2f} times as long as the champion's, "
         "{:g} times longer or shorter is allowed"),
    ):  # fmt: skip
        if found is not None and asked is not None:
            held = found <= asked and (gate == "loss" or found * asked >= 1)
            yield Verdict(gate, found, asked, held, what.format(found, asked))


def _at_least(gate: str, found: float, asked: float, what: str) -> Verdict:
    return Verdict(gate, found, asked, found >= asked, f"{found:.1%} {what}, at least {asked:.1%} is asked")


def _scores(gates: Gates, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Verdict]:
    for kind, measure in (("analogy", "analogy"), ("similarity", "spearman")):
        for name, old in before.get(kind, {}).items():
            new = now.get(kind, {}).get(name, {})
            yield from _one_score(f"{kind} {name}", old.get(measure), new.get(measure), gates.score_tolerance)
            yield from _coverage(f"coverage {name}", old.get("coverage"), new.get("coverage"), gates.coverage_tolerance)


def _one_score(gate: str, old: float | None, new: float | None, tolerance: float) -> Iterator[Verdict]:
    if old is None:
        return
    least = old - tolerance * abs(old)
    held = new is not None and new >= least
    found = "none" if new is None else f"{new:.4f}"
    yield Verdict(gate, new, least, held, f"{gate}: {found}, the champion has {old:.4f}, at least {least:.4f} is asked")


def _coverage(gate: str, old: float | None, new: float | None, tolerance: float) -> Iterator[Verdict]:
    if old is None:
        return
    least = old - tolerance
    held = new is not None and new >= least
    found = "none" if new is None else f"{new:.1%}"
    yield Verdict(gate, new, least, held, f"{gate}: {found}, the champion has {old:.1%}, at least {least:.1%} is asked")


def stopped_by(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts of the gates that did not hold."""
    return [verdict for verdict in verdicts if not verdict.held]
