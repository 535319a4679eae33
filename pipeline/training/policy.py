"""The policies of training: the constants that decide results and are not in the configuration, as data.

Every result records its policies: they are part of the vectors' fingerprint, and included in their manifest and in
`summary.json`. Other constants give other vectors, so the stage does not reuse vectors made with another policy.

Every constant names the row of the record or decision it was taken from (`sources`), or says that it was only reasoned. `plan`
applies them. Token counts are kept tokens, after subsampling.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

ByNumber = tuple[tuple[int, float], ...]
"""(fewest, value), ascending: the last entry whose `fewest` a number of copies, or of tokens, reaches applies."""

REASONED = "reasoned, not measured"


@cache
def by_number(table: ByNumber, number: int) -> float:
    """The value for a number; below the first entry, that of the first."""
    return [value for fewest, value in table if fewest <= max(number, table[0][0])][-1]


def _from(source: str, row: str) -> dict[str, str]:
    """The source of a constant: a file below infra/, and words of the row in it."""
    return {"source": source, "row": row}


@dataclass(frozen=True, kw_only=True)
class MergePolicy:
    """How epochs are cut, and when the rows of copies are merged. Intervals between merges are counted in tokens of all lanes per
    rank of a word, because a word of rank r occurs about every 10 · r tokens in any text, whatever its size."""

    reports_per_epoch: int = field(default=20, metadata=_from(REASONED, "fewer points are no curve"))
    """Minimum number of steps per epoch when nothing needs merging, so that the loss curve has points."""
    checkpoint_tokens_per_row: int = field(
        default=300, metadata=_from("benchmarks/records/throughput-2026-11-21.md", "0.15 s each")
    )
    """Tokens per lane between checkpoints, per row of the vocabulary, unless `train.checkpoint_every` is set: the cost of a
    checkpoint grows with the rows, the loss without one with the tokens. At 200 ns per token and 2 µs per row, writing takes 3 %
    of the time."""
    least_checkpoint_tokens: int = field(
        default=1 << 22,
        metadata=_from("benchmarks/records/lanes-2026-11-29.md", "| a checkpoint every 19,200 tokens per lane (before) |"),
    )
    """Minimum number of tokens per lane between checkpoints, half a second of work: a round takes some hundredths of a second
    to end, however few rows there are."""
    tokens_per_rank: ByNumber = field(
        default=((2, 32), (3, 16)),
        metadata=_from("benchmarks/records/lanes-2026-11-28.md", "| 64 → 256, 4 M | .3744 .6867 .2934"),
    )
    """At first the row of rank r is merged about every (this number · r) tokens. Two copies drift apart less than more copies do;
    two that wait twice as long from the start lose 8 % of the analogies in two epochs, and 16 % with a small corpus."""
    first_doubling_tokens: ByNumber = field(
        default=((2, 1 << 22),),
        metadata=_from("benchmarks/records/lanes-2026-11-29.md", "| the first doubling at 4 M tokens (**now**)"),
    )
    """Tokens after which that interval doubles for the first time; it doubles again after twice as many, and so on. Early on
    vectors grow from nothing and each update builds on the previous one, so what copies learn separately does not add up; later
    they only turn a little."""
    first_doubling_apart: ByNumber = field(
        default=((2, 1 << 23), (16, 1 << 24)),
        metadata=_from("benchmarks/records/copies-2026-11-29.md", "| 8 copies (64 lanes), **as it is now**"),
    )
    """The same for copies on several hosts: the more there are, the smaller the share of each interval that one sees."""
    most_tokens_per_rank: ByNumber = field(
        default=((3, 1 << 20), (16, 32), (64, 16)), metadata=_from("decisions/0017-waves.md", "of three to fifteen without limit")
    )
    """Where the doubling ends, by number of copies: three to fifteen double practically without limit. The more copies there are,
    the smaller is the share of the text that one sees while it trains alone; with many, doubling ends early, which costs traffic
    and keeps the score (lanes-2026-11-21.md, "32 | 16, 32 (**now**)")."""
    most_tokens_per_rank_of_two: ByNumber = field(
        default=((2, 128), (32, 512)),
        metadata=_from("benchmarks/records/lanes-2026-11-29.md", "| 64 lanes, ends at **512 (now)** |"),
    )
    """The same for the two copies of a host, by number of lanes. Few lanes keep more of their analogies if they merge more often.
    Many do not, and the more lanes there are, the shorter is the time between two merges on a core each, and the longer what the
    interpreter does for every lane before it and after it."""
    long_training_tokens: int = field(
        default=1 << 25, metadata=_from("benchmarks/records/copies-2026-11-29.md", "| 4 copies, **as it is now**")
    )
    """In a training of more tokens than this, copies on several hosts (`train.merge_bits` 8) merge as often as in one of exactly
    this many: all intervals grow in proportion. The doubling of their intervals has no limit either."""
    trains_beside_merges: bool = field(
        default=True, metadata=_from("benchmarks/records/copies-2026-11-29.md", "| 4 copies, **trained beside merges**")
    )
    """Copies on several hosts are trained while they merge, and the result is used one merge later, except at a round's end."""
    hot_rows: int = field(default=1024, metadata=_from("benchmarks/records/lanes-2026-11-21.md", "2. **Tiers.** At equal bytes"))
    """Rows of the smallest tier, unless `train.hot_rows` is set. Subsampling makes words above about this rank nearly equally
    frequent, so fewer gain little."""
    shortest_step: int = field(
        default=512, metadata=_from("benchmarks/records/lanes-2026-11-21.md", "H = max(1024, 512·lanes/16) hot rows")
    )
    """Minimum number of tokens that a copy is trained on between merges: about 0.1 ms of work, below which synchronising costs as
    much. With many copies there are more hot rows instead."""
    merges_per_epoch: int = field(default=16, metadata=_from("benchmarks/records/lanes-2026-11-21.md", "(at most a 16th"))
    """Minimum number of steps per epoch with several copies, however small the corpus."""


@dataclass(frozen=True, kw_only=True)
class AlphaPolicy:
    """How α changes with the tokens trained: at first vectors grow from nothing, later they only turn a little, and the best
    settings differ (infra/decisions/0015-age.md)."""

    middle_age_tokens: int = field(
        default=1 << 23, metadata=_from("decisions/0015-age.md", "t/(t + 2²³) after t kept tokens of all lanes")
    )
    """Tokens of all lanes after which the age of training is one half."""
    rate_levels: int = field(default=8, metadata=_from("decisions/0015-age.md", "in proportion to the age, in eight steps"))
    """Number of steps in which the exponent grows from 0 to `train.alpha_exponent`: the rates are computed only this often."""
    slowdown: ByNumber = field(
        default=((1, 0.0), (4, 0.3)), metadata=_from("decisions/0015-age.md", "| **.05 · (1 − 0.3 · age)** |")
    )
    """The part of α that is lost with age, by number of copies: merging adds up what many copies learn separately, which early on
    compensates for what they miss of each other, but later makes steps too large. Lanes that share a copy need no reduction
    (0017-waves.md)."""


@dataclass(frozen=True, kw_only=True)
class LanePolicy:
    """How many lanes train, and on how many copies of the parameters, if the configuration leaves it open."""

    most_tokens_at_once: int = field(default=1 << 22, metadata=_from(REASONED, "half a second of one core's work"))
    """Most tokens that the lanes of one copy train in one go, so that a run that is told to stop does so soon."""
    lanes_by_tokens: ByNumber = field(
        default=((1, 1), (2_500_000, 4), (5_000_000, 8), (50_000_000, 16), (500_000_000, 32), (5_000_000_000, 64)),
        metadata=_from("decisions/0017-waves.md", "| 8 lanes from 5 M kept tokens per epoch on"),
    )
    """Lanes by kept tokens per epoch: a corpus of 20 M tokens keeps eight cores busy, and larger corpora are usually trained on
    more cores. A lane too many costs a little, a lane too few leaves a core idle."""
    lanes_of_a_share: int = field(
        default=4, metadata=_from("benchmarks/records/copies-2026-11-29.md", "| 8 copies (64 lanes), the first doubling at 4 M")
    )
    """A copy on its own host gets the lanes of a corpus this many times as large as its share, because a host has many cores."""
    lanes_of_a_wave: int = field(default=4, metadata=_from("decisions/0017-waves.md", "Two and three lanes have a copy each"))
    """From this many lanes on, they share copies of the parameters; fewer lanes have one copy each."""
    copies: int = field(default=2, metadata=_from("decisions/0017-waves.md", "| 8 on two copies, a thread each"))
    """Number of copies that lanes share: cores that train one copy should share a cache, and two copies use two caches."""
    most_bytes_copied: int = field(default=1 << 28, metadata=_from(REASONED, "larger ones outgrow every cache, and a host"))
    """Largest size of both matrices for which there are `copies` copies and their base; above it, one copy."""


@dataclass(frozen=True, kw_only=True)
class StartPolicy:
    """The start of a training that continues from other vectors."""

    kept_length: float = field(
        default=0.7, metadata=_from("benchmarks/records/refresh-2026-11-29.md", "| **.7** | **1.036 .997 1.000** |")
    )
    """Rows of known words start with their old direction and this fraction of their length. Vectors only grow during training,
    and long ones hardly turn, so new text would change a known word too little ("shrink and perturb", Ash and Adams 2020, "On
    warm-starting neural network training"). Cosines, and so the frame, stay the same."""


Policy = MergePolicy | AlphaPolicy | LanePolicy | StartPolicy
MERGE_POLICY = MergePolicy()
ALPHA_POLICY = AlphaPolicy()
LANE_POLICY = LanePolicy()
START_POLICY = StartPolicy()
POLICIES: dict[str, Policy] = {"merge_policy": MERGE_POLICY, "alpha_policy": ALPHA_POLICY, "lane_policy": LANE_POLICY}
"""The policies of every training, by their names in manifests and summaries."""
START_POLICIES: dict[str, Policy] = {"start_policy": START_POLICY}
"""Further policies, of a training that continues from other vectors."""


def as_data(policy: Policy) -> dict[str, Any]:
    """The constants by name, as in a manifest; those that depend on a number as {fewest: value}."""
    values = {constant.name: getattr(policy, constant.name) for constant in fields(policy)}
    return {
        name: {str(fewest): at for fewest, at in value} if isinstance(value, tuple) else value for name, value in values.items()
    }


def sources(policy: Policy) -> dict[str, tuple[str, str]]:
    """(file below infra/ or REASONED, words of the row in it) of every constant."""
    return {constant.name: (constant.metadata["source"], constant.metadata["row"]) for constant in fields(policy)}
