"""The policy of training: the constants that decide results and that no configuration names, as data.

A result says by what policy it was made: both records are part of the vectors' fingerprint, stand in their manifest, and so in
`summary.json`. Other constants are other vectors, and a stage that finds vectors of another policy makes its own.

Every constant names the row of a record or decision that it was taken from (`sources`), or says that it was only reasoned.
`plan` applies them. Counts of tokens are kept tokens, those that subsampling leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

ByNumber = tuple[tuple[int, float], ...]
"""(fewest, value), ascending: the last entry that a number of copies, or of tokens, reaches is the one that holds."""

REASONED = "reasoned, not measured"


@cache
def by_number(table: ByNumber, number: int) -> float:
    """The value for a number; below the first entry it is the first's."""
    return [value for fewest, value in table if fewest <= max(number, table[0][0])][-1]


def _from(source: str, row: str) -> dict[str, str]:
    """Where a constant was taken from: a file below infra/, and words of the row in it."""
    return {"source": source, "row": row}


@dataclass(frozen=True, kw_only=True)
class MergePolicy:
    """How epochs are cut, and when the lanes' rows are merged. What two lanes may learn apart is counted in tokens of all lanes
    per rank of a word, because a word of rank r occurs about every 10 · r tokens in any text, whatever its size."""

    reports_per_epoch: int = field(default=20, metadata=_from(REASONED, "fewer points are no curve"))
    """Fewest steps an epoch is cut into when nothing needs merging, so that the loss curve has points."""
    checkpoint_tokens_per_row: int = field(
        default=300, metadata=_from("benchmarks/records/throughput-2026-11-21.md", "0.15 s each")
    )
    """Tokens a lane between checkpoints, per row of the vocabulary, unless `train.checkpoint_every` is set: what a checkpoint
    costs grows with the rows, what is lost without it grows with the tokens. At 200 ns a token and 2 µs a row, writing takes
    3 % of the time."""
    tokens_per_rank: ByNumber = field(
        default=((2, 32), (3, 16)),
        metadata=_from("benchmarks/records/lanes-2026-11-28.md", "| 64 → 256, 4 M | .3744 .6867 .2934"),
    )
    """At first the row of rank r is merged about every so many · r tokens. Two copies drift apart less than more of them do; two
    that wait twice as long from the start lose 8 % of the analogies in two epochs, and 16 % of a small corpus's."""
    first_doubling_tokens: ByNumber = field(
        default=((2, 1 << 22),),
        metadata=_from("benchmarks/records/lanes-2026-11-29.md", "| the first doubling at 4 M tokens (**now**)"),
    )
    """Tokens after which that interval doubles for the first time; again at twice as many, and so on. Early on the vectors grow
    from nothing and each update builds on the one before, so what copies learn apart does not add up; later they only turn a
    little."""
    most_tokens_per_rank: ByNumber = field(
        default=((2, 1 << 20), (16, 32), (64, 16)), metadata=_from("decisions/0017-waves.md", "| 8 copies, without end |")
    )
    """Where the doubling ends: nowhere up to eight copies. The more copies, the smaller is the share of what one sees of the
    others while it trains alone; many end early, which costs bytes and keeps the score (lanes-2026-11-21.md, "32 | 16, 32
    (**now**)")."""
    hot_rows: int = field(default=1024, metadata=_from("benchmarks/records/lanes-2026-11-21.md", "2. **Tiers.** At equal bytes"))
    """Rows of the smallest tier, unless `train.hot_rows` is set. Subsampling makes words above about this rank nearly equally
    frequent, so fewer gain little."""
    shortest_step: int = field(
        default=512, metadata=_from("benchmarks/records/lanes-2026-11-21.md", "H = max(1024, 512·lanes/16) hot rows")
    )
    """Fewest tokens a copy is trained on between merges: about 0.1 ms of work, below which the meeting costs as much. So many
    copies get more hot rows instead."""
    merges_per_epoch: int = field(default=16, metadata=_from("benchmarks/records/lanes-2026-11-21.md", "(at most a 16th"))
    """Fewest steps of an epoch with several copies, however small the corpus."""


@dataclass(frozen=True, kw_only=True)
class AlphaPolicy:
    """How α changes with what was trained: in the beginning the vectors grow from nothing, later they only turn a little, and
    what is best then is not what is best at first (infra/decisions/0015-age.md)."""

    middle_age_tokens: int = field(
        default=1 << 23, metadata=_from("decisions/0015-age.md", "t/(t + 2²³) after t kept tokens of all lanes")
    )
    """Tokens of all lanes after which training is half as old as it can get."""
    rate_levels: int = field(default=8, metadata=_from("decisions/0015-age.md", "in proportion to the age, in eight steps"))
    """Exponents between 0 and `train.alpha_exponent` that training goes through, so that rates are computed a few times a run."""
    slowdown: ByNumber = field(
        default=((1, 0.0), (4, 0.3)), metadata=_from("decisions/0015-age.md", "| **.05 · (1 − 0.3 · age)** |")
    )
    """The part of α that goes with age, by copies: what many learn apart is added up, which early on makes up for what they do
    not know of each other, and later for steps that are too large. Lanes that share a copy need no less (0017-waves.md)."""


@dataclass(frozen=True, kw_only=True)
class LanePolicy:
    """How many lanes train, and on how many copies of the parameters, where the configuration leaves it open."""

    most_tokens_at_once: int = field(default=1 << 22, metadata=_from(REASONED, "half a second of one core's work"))
    """Tokens that the lanes of one copy train in one go, so that a run that is told to stop does so soon."""
    lanes_by_tokens: ByNumber = field(
        default=((1, 1), (2_500_000, 4), (5_000_000, 8), (50_000_000, 16), (500_000_000, 32), (5_000_000_000, 64)),
        metadata=_from("decisions/0017-waves.md", "| 8 lanes from 5 M kept tokens an epoch on"),
    )
    """Lanes by the kept tokens of an epoch: eight cores are busy with a corpus of 20 M tokens, and who has more to train
    usually has more of them. A lane more than there are cores costs a little, a lane less leaves a core idle."""
    lanes_of_a_wave: int = field(default=4, metadata=_from("decisions/0017-waves.md", "Two and three lanes have a copy each"))
    """From so many lanes on they share copies of the parameters; fewer have one each."""
    copies: int = field(default=2, metadata=_from("decisions/0017-waves.md", "| 8 on two copies, a thread each"))
    """That lanes share: cores that share a copy must share a cache, and two copies part the work among two caches."""
    most_bytes_copied: int = field(default=1 << 28, metadata=_from(REASONED, "larger ones outgrow every cache, and a host"))
    """Bytes of both matrices up to which there are so many copies, and the base that they last agreed on; else one."""


Policy = MergePolicy | AlphaPolicy | LanePolicy
MERGE_POLICY = MergePolicy()
ALPHA_POLICY = AlphaPolicy()
LANE_POLICY = LanePolicy()
POLICIES: dict[str, Policy] = {"merge_policy": MERGE_POLICY, "alpha_policy": ALPHA_POLICY, "lane_policy": LANE_POLICY}
"""By their names in manifests and summaries."""


def as_data(policy: Policy) -> dict[str, Any]:
    """The constants by name, as a manifest holds them: what depends on a number as {fewest: value}."""
    values = {constant.name: getattr(policy, constant.name) for constant in fields(policy)}
    return {
        name: {str(fewest): at for fewest, at in value} if isinstance(value, tuple) else value for name, value in values.items()
    }


def sources(policy: Policy) -> dict[str, tuple[str, str]]:
    """(file below infra/ or REASONED, words of the row in it) of every constant."""
    return {constant.name: (constant.metadata["source"], constant.metadata["row"]) for constant in fields(policy)}
