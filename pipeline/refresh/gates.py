"""What a challenger must hold before it replaces the champion, as plain arithmetic on their scores.

Pure: scores and measures in, one verdict a gate out, each with what was found, what was asked and a sentence that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import Gates


@dataclass(frozen=True)
class Verdict:
    """What one gate says."""

    gate: str
    found: float | None
    asked: float
    held: bool
    text: str


@dataclass(frozen=True)
class Measured:
    """What is known of a challenger beside its champion."""

    finite: bool
    vocabulary: float
    """Share of the champion's tokens whose words the challenger knows."""
    overlap: float
    drift: float
    """Median of 1 − cosine of the most frequent words."""
    same_frame: bool
    """Whether the challenger's vectors lie in the champion's frame: went on from them, or were turned onto them."""
    memory: float | None = None
    """Right answers of the probe about the champion's text, beyond chance, challenger to champion; None = not known."""
    sense: float | None = None
    """The same of each about its own text."""
    loss: float | None = None
    """Final losses, challenger to champion."""
    norm: float | None = None
    """Median lengths of frequent words' vectors, challenger to champion."""


def judge(gates: Gates, before: Mapping[str, Any], now: Mapping[str, Any], measured: Measured) -> list[Verdict]:
    """One verdict a gate; `before` and `now` are the scores of champion and challenger on the same sets."""
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
    """What tells a bad model where there are no question sets."""
    for gate, found, asked, what in (
        ("memory", measured.memory, gates.memory, "of what the champion knows of its text is still known"),
        ("sense", measured.sense, gates.sense, "of what the champion knows of its text, the challenger knows of its own"),
    ):
        if found is not None and asked is not None:
            yield _at_least(gate, found, asked, what)
    for gate, found, asked, what in (
        ("loss", measured.loss, gates.loss, "the final loss is {:.3f} times the champion's, at most {:g} times is allowed"),
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
    """The gates that did not hold."""
    return [verdict for verdict in verdicts if not verdict.held]
